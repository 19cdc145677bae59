# SPDX-License-Identifier: Apache-2.0
"""LEDs in a tree like the kernel's. The kernel's own LEDs are tested on the kernel."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from csp1d.config import Config, LedsConfig
from csp1d.errors import DeviceError
from csp1d.hat.leds import SysfsLed
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.loop.indicators import Indicators

NAME = "csp1:yellow:current"


def led_tree(root: Path, triggers: str = "[none] timer transient") -> Path:
    folder = root / NAME
    folder.mkdir()
    files = {"brightness": "0", "max_brightness": "255", "trigger": triggers}
    for name, content in files.items():
        (folder / name).write_text(content + "\n")
    return folder


def read(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text().strip() for file in folder.iterdir()}


def test_a_switched_led_has_its_full_brightness_or_none(tmp_path: Path) -> None:
    folder = led_tree(tmp_path)
    led = SysfsLed(NAME, tmp_path)
    led.switch(True)
    assert read(folder)["brightness"] == "255"
    led.switch(False)
    assert read(folder)["brightness"] == "0"


def test_a_lit_led_is_left_to_the_kernel(tmp_path: Path) -> None:
    folder = led_tree(tmp_path)
    SysfsLed(NAME, tmp_path).light(480)
    files = read(folder)
    assert files["trigger"] == "transient"
    # The file keeps both commands that the kernel receives.
    assert (files["state"], files["duration"], files["activate"]) == ("1", "480", "01")


def test_an_led_with_the_trigger_goes_dark_without_losing_it(tmp_path: Path) -> None:
    folder = led_tree(tmp_path, "none timer [transient]")
    SysfsLed(NAME, tmp_path).switch(False)
    files = read(folder)
    assert files["activate"] == "0"
    assert files["trigger"] == "none timer [transient]"


def test_an_led_that_is_switched_on_has_no_trigger_that_would_keep_it_lit(tmp_path: Path) -> None:
    """As one that another role had before: the trigger ends only a light that it began."""
    folder = led_tree(tmp_path, "none timer [transient]")
    led = SysfsLed(NAME, tmp_path)
    led.switch(True)
    files = read(folder)
    assert (files["trigger"], files["brightness"]) == ("none", "255")
    led.switch(False)
    assert read(folder)["brightness"] == "0"


def test_without_the_trigger_the_led_is_switched(tmp_path: Path) -> None:
    folder = led_tree(tmp_path, "[none] timer")
    assert not SysfsLed(NAME, tmp_path).light(480)
    assert read(folder)["brightness"] == "255"


@pytest.mark.parametrize("role", ["power", "current", "p1"])
def test_a_foreign_trigger_is_taken_off_before_the_led_shows_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    """At the start, and when the LED returns with the trigger of its device tree."""
    hat = SimulatedHat(parse(""))
    monkeypatch.setattr(hat, "open_led", lambda name: SysfsLed(name, tmp_path))
    led_tree(tmp_path, "none timer [mmc0] transient")
    writes = []
    write = SysfsLed._write

    def noted(led: SysfsLed, attribute: str, *values: str) -> None:
        writes.append((attribute, *values))
        write(led, attribute, *values)

    monkeypatch.setattr(SysfsLed, "_write", noted)
    leds = LedsConfig(**{"power": "", "current": "", "p1": ""} | {role: NAME})
    indicators = Indicators(hat, Config(leds=leds))
    shown = ("brightness", "255" if role == "power" else "0")
    assert writes == [("trigger", "none"), shown]
    writes.clear()
    (tmp_path / NAME / "trigger").write_text("none timer [heartbeat] transient\n")
    indicators.reopen_missing(again=True)
    assert writes == [("trigger", "none"), shown]


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EACCES, "udev rule"), (errno.EROFS, "mount /sys writable")]
)
@pytest.mark.parametrize("file", ["state", "duration", "activate"])
def test_files_that_cannot_be_written_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, number: int, remedy: str
) -> None:
    """Those of a trigger are root's until udev has handled them; a container's are read-only."""
    folder = led_tree(tmp_path)
    real = Path.open

    def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
        if path == folder / file:
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DeviceError, match=f"{folder / file}: {os.strerror(number)}; .*{remedy}"):
        SysfsLed(NAME, tmp_path).light(480)


def test_a_missing_led_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=f"{tmp_path / NAME} not found; set its name"):
        SysfsLed(NAME, tmp_path)


def test_a_kernel_without_triggers_still_has_leds(tmp_path: Path) -> None:
    folder = led_tree(tmp_path)
    (folder / "trigger").unlink()
    led = SysfsLed(NAME, tmp_path)
    assert not led.light(20)
    assert read(folder)["brightness"] == "255"
