# SPDX-License-Identifier: Apache-2.0
"""What csp1d may use: the files that udev gives it, and the rules for devices of other names."""

import os
import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from test_suggest_config import ADC, HAT, MCP3912

from csp1d.config import AdcConfig, Config, LedsConfig, P1Config, RequestConfig
from csp1d.config_file import load
from csp1d.errors import ConfigError
from csp1d.hat.hardware import GpioChip, GpioLine, Hardware, LedDevice, SerialPort
from csp1d.tool import access
from csp1d.tool.commands import discover

SYSTEMD = Path(__file__).parents[2] / "systemd"
RULES = (SYSTEMD / "40-csp1d.rules").read_text().replace("\\\n", "")

# A converter with outputs beside inputs: what csp1d writes, and other files that root may write.
IIO_WRITTEN = (
    "buffer/enable buffer/length buffer/watermark buffer0/enable buffer0/in_voltage0_en "
    "buffer0/in_timestamp_en scan_elements/in_voltage0_en current_timestamp_clock "
    "trigger/current_trigger sampling_frequency in_voltage_sampling_frequency "
    "in_voltage0_sampling_frequency in_sampling_frequency"
)
IIO_OTHERS = (
    "out_voltage0_raw out_voltage0_scale out_voltage0_powerdown out_voltage_sampling_frequency "
    "buffer1/enable buffer1/out_voltage0_en scan_elements/out_voltage0_en in_voltage0_offset "
    "in_voltage0_scale buffer0/data_available events/in_voltage0_thresh_rising_en "
    "power/control uevent"
)
LED_WRITTEN = "brightness trigger activate duration state"
LED_OTHERS = "power/control uevent delay_on device_name"


@pytest.mark.parametrize(
    ("subsystem", "written", "others"),
    [("iio", IIO_WRITTEN, IIO_OTHERS), ("leds", LED_WRITTEN, LED_OTHERS)],
    ids=["iio", "leds"],
)
@pytest.mark.parametrize("name", ["device0", 'it\'s "$(touch x)"; touch y `touch z` '])
def test_udev_gives_the_files_that_csp1d_writes_and_no_others(
    tmp_path: Path, subsystem: str, written: str, others: str, name: str
) -> None:
    device = tmp_path / "sys/devices" / name
    for file in f"{written} {others}".split():
        (device / file).parent.mkdir(parents=True, exist_ok=True)
        (device / file).touch()
        (device / file).chmod(0o644)
    read_only = device / "in_voltage1_sampling_frequency"
    read_only.touch()
    read_only.chmod(0o444)
    (tmp_path / "bin").mkdir()
    chgrp = tmp_path / "bin/chgrp"
    chgrp.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >>{tmp_path}/chgrp\n')
    chgrp.chmod(0o755)
    script = next(iter(re.findall(r'RUN\+="/usr/lib/udev/([\w-]+)"', RULES)))
    before = {*os.listdir(tmp_path), "chgrp"}
    subprocess.run(
        [SYSTEMD / script, tmp_path / "sys"],
        env={
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
            "DEVPATH": f"/devices/{name}",
            "SUBSYSTEM": subsystem,
        },
        cwd=tmp_path,
        check=True,
    )
    given = {path for path in device.rglob("*") if path.is_file() and path.stat().st_mode & 0o020}
    assert given == {device / file for file in written.split()}
    named = (tmp_path / "chgrp").read_text().split("\n")
    assert named == ["csp1d", *(named[1:-1]), ""]
    assert {device / file for file in named[1:-1]} == given
    assert {*os.listdir(tmp_path)} == before, "a name was executed"


def test_a_device_that_has_gone_is_no_error(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "DEVPATH": "/devices/gone", "SUBSYSTEM": "leds"}
    subprocess.run([SYSTEMD / "csp1d-access", tmp_path], env=environment, check=True)


def test_no_command_of_a_rule_is_built_from_a_name() -> None:
    commands = re.findall(r'(?:RUN|PROGRAM|IMPORT)[^=]*=+"((?:[^"\\]|\\.)*)"', RULES)
    assert commands
    for command in commands:
        assert not re.search(r"[$%]", command.replace("$$", "").replace("%%", "")), command


def test_only_devices_of_the_hat_have_access_by_default() -> None:
    """Each rule that gives access names the HAT, a link, or the property."""
    giving = [
        line
        for line in RULES.split("\n")
        if line[:1] != "#" and re.search(r'GROUP=|RUN\+=|ACCESS}="', line)
    ]
    assert len(giving) == 6
    for line in giving:
        assert re.search(
            r'KERNEL=="csp1:\*"|SYMLINK=="csp1d/|CSP1D_ACCESS}=="1"|DEVPATH=="/devices/trigger\*"',
            line,
        ), line


CHIP = GpioChip(Path("/dev/gpiochip1"), "4804c000.gpio", (GpioLine(28, "", None),))
BOARD = Hardware(
    adcs=(replace(ADC, name="TI-am335x-adc.0.auto"),),
    chips=(CHIP,),
    ports=HAT.ports,
    leds=tuple(LedDevice(f"beaglebone:green:{name}", True) for name in ("usr1", "usr2", "a'b")),
)
ON_BOARD = Config(
    adc=AdcConfig(device="TI-am335x-adc.0.auto", trigger="tim1_trgo"),
    p1=P1Config(request=RequestConfig(chip="4804c000.gpio", line=28)),
    leds=LedsConfig(power="", current="beaglebone:green:usr2", p1="beaglebone:green:a'b"),
)


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    """With the hardware of the chip, and triggers with and without a rate."""
    root = tmp_path / "sys"
    chip = root / "devices/platform/ocp/4804c000.gpio/gpiochip1"
    for folder in (chip, root / "bus/gpio/devices", root / "bus/iio/devices"):
        folder.mkdir(parents=True)
    (root / "bus/gpio/devices/gpiochip1").symlink_to(chip)
    for number, name in enumerate(("tim1_trgo", "mcp3912-dev0")):
        trigger = root / f"bus/iio/devices/trigger{number}"
        trigger.mkdir()
        (trigger / "name").write_text(f"{name}\n")
    (root / "bus/iio/devices/trigger0/sampling_frequency").touch()
    return root


@pytest.mark.parametrize(
    ("device", "rules"),
    [
        ("/dev/ttyUSB0", ['SUBSYSTEM=="tty", KERNEL=="ttyUSB0", ENV{ID_MM_PORT_IGNORE}="1"']),
        ("/dev/ttyS1", []),
        ("/dev/csp1d/p1", []),
    ],
)
def test_modem_manager_is_kept_from_a_usb_adapter(
    sysfs: Path, device: str, rules: list[str]
) -> None:
    ports = tuple(
        SerialPort(Path(node), is_console=False, users=(), is_usb="USB" in node)
        for node in ("/dev/ttyUSB0", "/dev/ttyUSB1", "/dev/ttyS1")
    )
    assert told(Config(p1=P1Config(device=device)), Hardware(ports=ports), sysfs) == rules


def told(config: Config, hardware: Hardware, root: Path) -> list[str]:
    return list(access.rules(config, hardware, root))


def test_devices_with_other_names_have_a_rule_each(sysfs: Path) -> None:
    assert told(ON_BOARD, BOARD, sysfs) == [
        'SUBSYSTEM=="iio", ATTR{name}=="TI-am335x-adc.0.auto", ENV{CSP1D_ACCESS}="1"',
        'SUBSYSTEM=="iio", ATTR{name}=="tim1_trgo", ENV{CSP1D_ACCESS}="1"',
        'SUBSYSTEM=="gpio", KERNELS=="4804c000.gpio", ENV{CSP1D_ACCESS}="1"',
        'SUBSYSTEM=="leds", KERNEL=="beaglebone:green:usr2", ENV{CSP1D_ACCESS}="1"',
        'SUBSYSTEM=="leds", KERNEL=="beaglebone:green:a?b", ENV{CSP1D_ACCESS}="1"',
    ]
    always = replace(ON_BOARD.p1, request=replace(ON_BOARD.p1.request, always=True))
    assert not [rule for rule in told(replace(ON_BOARD, p1=always), BOARD, sysfs) if "gpio" in rule]


@pytest.mark.parametrize("line", ["P1_REQUEST", 99])
def test_the_default_chip_is_not_any_first_chip(sysfs: Path, line: str | int) -> None:
    first = replace(CHIP, node=Path("/dev/gpiochip0"))
    config = Config(p1=P1Config(request=RequestConfig(line=line)))
    assert told(config, Hardware(chips=(first,)), sysfs) == []


def test_the_hat_needs_no_rule(sysfs: Path, tmp_path: Path) -> None:
    chip = replace(HAT.chips[0], node=tmp_path / "gpiochip0")
    (tmp_path / "csp1d").mkdir()
    link = tmp_path / "csp1d/request"
    link.symlink_to(chip.node)
    hat = replace(HAT, chips=(chip,), links=(link,))
    for name in (chip.label, str(chip.node), str(link)):
        named = Config(p1=P1Config(request=RequestConfig(chip=name)))
        assert told(named, hat, sysfs) == []
        assert len(told(named, replace(hat, links=()), sysfs)) == 1
    assert told(Config(adc=AdcConfig(device="mcp3912", trigger="mcp3912-dev0")), hat, sysfs) == []
    other = replace(hat, adcs=(replace(MCP3912, label="mine"),))
    by_label = told(Config(adc=AdcConfig(device="mine")), other, sysfs)
    assert by_label == ['SUBSYSTEM=="iio", ATTR{label}=="mine", ENV{CSP1D_ACCESS}="1"']


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the drop-ins of a machine with that board; its udev does not run."""
    config = tmp_path / "csp1d/csp1d.toml"
    (config.parent / "csp1d.toml.d").mkdir(parents=True)
    monkeypatch.setattr("csp1d.config_file.DEFAULT_PATH", config)
    monkeypatch.setattr("csp1d.tool.ctl.DEFAULT_PATH", config)
    monkeypatch.setattr(discover, "DEFAULT_PATH", config)
    monkeypatch.setattr(access, "RULES", tmp_path / "39-csp1d.rules")
    monkeypatch.setattr(access, "_UDEV", tmp_path / "none")
    monkeypatch.setattr(discover, "find_hardware", lambda: BOARD)
    return config.parent / "csp1d.toml.d"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    from csp1d.tool import ctl

    monkeypatch.setattr("sys.argv", ["csp1ctl", "discover", *map(str, arguments)])
    return ctl.main()


def test_discover_writes_a_drop_in_and_the_rules_for_its_devices(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = machine / "10-hat.toml"
    # The LEDs of this house, which discover cannot know.
    (machine / "50-leds.toml").write_text('[leds]\ncurrent = "beaglebone:green:usr1"\n')
    mask = os.umask(0o077)
    try:
        assert run(monkeypatch, "--output", file) == 69, "the request line has no name"
    finally:
        os.umask(mask)
    output = capsys.readouterr()
    assert output.out == ""
    assert f"\nWrote {file}.\nWrote {access.RULES}: udev gives csp1d the devices.\n" in output.err
    assert output.err.endswith("    csp1d --check-config\n    sudo systemctl reload csp1d\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert load(None).adc.device == "TI-am335x-adc.0.auto"
    heading, *rules = access.RULES.read_text().splitlines()
    assert heading.startswith("# ")
    assert [rule.split('"')[3] for rule in rules] == [
        "TI-am335x-adc.0.auto",
        "beaglebone:green:usr1",
    ]


def test_discover_replaces_no_file(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = machine / "10-hat.toml"
    file.write_text("# Mine.\n")
    assert run(monkeypatch, "--output", file) == 69
    assert f"\n{file} exists and is not changed; remove it to get a new one.\n" in (
        capsys.readouterr().err
    )
    assert file.read_text() == "# Mine.\n"
    assert not access.RULES.exists(), "it names no device of this board"
    # The next step of its owner.
    file.write_text('[p1.request]\nchip = "4804c000.gpio"\nline = 28\n')
    assert run(monkeypatch, "--output", file) == 69
    assert 'SUBSYSTEM=="gpio", KERNEL' in access.RULES.read_text()


def test_a_file_elsewhere_gives_no_access(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = machine.parent / "new.toml"
    assert run(monkeypatch, "--output", file) == 69
    assert capsys.readouterr().err.endswith(f"    csp1d --config {file} --check-config\n")
    assert not access.RULES.exists()


@pytest.mark.parametrize("end", [b"\n", b""])
def test_rules_of_the_admin_stay(machine: Path, end: bytes) -> None:
    mine = b'# \xe9\n\nSUBSYSTEM=="leds", KERNEL=="mine", ENV{CSP1D_ACCESS}="1"'
    access.RULES.write_bytes(mine + end)
    assert access.grant(ON_BOARD, BOARD)
    written = access.RULES.read_bytes()
    assert written.startswith(mine + b"\n")
    assert written.count(b"\n") == 7
    assert not access.grant(ON_BOARD, BOARD)
    assert access.RULES.read_bytes() == written
    access.RULES.unlink()
    access.RULES.mkdir()
    with pytest.raises((ConfigError, IsADirectoryError)):
        access.grant(ON_BOARD, BOARD)
