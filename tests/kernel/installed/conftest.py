# SPDX-License-Identifier: Apache-2.0
"""What the tests of the installed package share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from guest.conftest import AMPERES, hat, kernel, restore
from guest.hat import Feeder, Hat

from .service import LOCAL_RULES, RULES, UNIT, InstalledBoard, configure, run

__all__ = ["hat", "kernel"]


@pytest.fixture(scope="package")
def feeder(hat: Hat) -> Iterator[Feeder]:
    """Currents through the three transformers, all the time. No test here needs them punctually, so
    they are fed seldom: that takes much time under emulation.
    """
    with Feeder(hat.adc, amperes=AMPERES, feed_seconds=0.25) as feeder:
        yield feeder


@pytest.fixture(scope="session")
def owned(hat: Hat) -> None:
    """The HAT with its configuration and stable names."""
    configure()
    LOCAL_RULES.write_text(RULES)
    run("udevadm", "control", "--reload")
    run("udevadm", "trigger", "--settle", "--subsystem-match=tty", "--subsystem-match=gpio")
    run("systemctl", "restart", UNIT)


@pytest.fixture
def board(hat: Hat, feeder: Feeder, owned: None) -> Iterator[InstalledBoard]:
    """The service measuring AMPERES, the line high, telegrams going out."""
    restore(hat)
    board = InstalledBoard(hat, feeder)
    feeder.set(amperes=AMPERES)
    if not board.daemon.running:
        board.daemon.start()
    board.wait_until_measuring(AMPERES)
    hat.tty.clear()
    hat.leds.clear()
    hat.line.set(True)
    board.wait_for_telegram(3)
    yield board
    hat.line.set(False)
