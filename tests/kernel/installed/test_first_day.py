# SPDX-License-Identifier: Apache-2.0
"""What somebody does on the first day, with nothing but the package: find the HAT, save what was
found, see that it measures, calibrate, look at the page.
"""

from __future__ import annotations

import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.board import wait_for
from guest.hat import TTY, Feeder, Hat

from .service import CONFIG, UNIT, InstalledBoard, run

CALIBRATION = Path("/etc/csp1d/csp1d.toml.d/50-calibration.toml")
# L1's transformer makes 3.7 % too little, and L3's too much.
ERRORS = (1 / 1.037, 1.0, 1.037)
REFERENCE = 10.0


@pytest.fixture
def day(hat: Hat, feeder: Feeder) -> Iterator[InstalledBoard]:
    """The package as installed a moment ago; what the day brings is put back in the evening."""
    shipped = CONFIG.read_text()
    feeder.set(amperes=(0, 0, 0))
    hat.line.set(True)
    yield InstalledBoard(hat, feeder)
    CONFIG.write_text(shipped)
    CALIBRATION.unlink(missing_ok=True)


def currents() -> list[float]:
    """What `csp1ctl status` shows of L1 to L3."""
    shown = run("csp1ctl", "status")
    return [float(amperes) for amperes in re.findall(r"(?m)^L\d +([\d.]+) A ", shown)]


def reloaded(board: InstalledBoard) -> None:
    """The configuration is in force, and there is a reading by it."""
    run("systemctl", "reload", UNIT)
    time.sleep(2)
    wait_for(
        "a reading",
        lambda: board.daemon.metric('csp1d_current_amperes{phase="L1"}') is not None,
        10,
    )


def test_the_first_day(day: InstalledBoard) -> None:
    discovered = subprocess.run(["csp1ctl", "discover"], capture_output=True, text=True, check=True)
    for seen in (
        "+ iio:device0: csp1-hat-adc",
        "inputs: voltage0, voltage1, voltage2, voltage3 (le:s16/16>>0)",
        "triggers: csp1-hat-trigger",
        f"+ {TTY}: free",
        "+ 0 P1_REQUEST",
        "+ csp1:yellow:current",
    ):
        assert seen in discovered.stderr
    CONFIG.write_text(discovered.stdout)
    assert "good" in run("csp1d", "--check-config")
    day.hat.tty.clear()
    reloaded(day)
    assert day.wait_for_telegram(10).amperes == (0, 0, 0)
    status = run("csp1ctl", "status")
    for line in (r"ADC +works", r"P1 port +open", r"request line +high"):
        assert re.search(line, status), status

    run("csp1ctl", "calibrate", "zero", "--yes")
    reloaded(day)
    assert currents() == [0, 0, 0]
    day.feeder.set(amperes=tuple(REFERENCE * error for error in ERRORS))
    time.sleep(3)
    loads = [f"{phase}={REFERENCE:g}" for phase in ("L1", "L2", "L3")]
    refused = run("csp1ctl", "calibrate", "gain", "L1=13", "--yes", check=False)
    assert "more than 20% off" in refused
    run("csp1ctl", "calibrate", "gain", *loads, "--yes")
    reloaded(day)
    metrics = day.daemon.metrics()
    for phase in ("L1", "L2", "L3"):
        amperes = metrics[f'csp1d_current_amperes{{phase="{phase}"}}']
        assert amperes == pytest.approx(REFERENCE, rel=1e-3)
    day.feeder.set(amperes=(0, 0, 0))
    time.sleep(3)
    assert currents() == [0, 0, 0]
    busy = run("csp1ctl", "record", "1", "/tmp/house", check=False)
    assert "systemctl stop csp1d" in busy

    with urllib.request.urlopen("http://localhost:19510/", timeout=10) as page:
        assert b"<title>" in page.read()
