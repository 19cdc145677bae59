# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests in the guest: the virtual HAT, and csp1d running on it."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .board import Board, Daemon
from .hat import Feeder, Hat

AMPERES = (24.0, 10.0, 3.0)


@pytest.fixture(scope="session")
def kernel() -> tuple[int, int]:
    """Version of the running kernel: a few tests expect different results on older kernels, but all
    run on every kernel.
    """
    major, minor = platform.release().split(".")[:2]
    return int(major), int(minor)


@pytest.fixture(scope="session")
def hat() -> Hat:
    """The virtual HAT, whose module tests/kernel/run has loaded."""
    # The environment that systemd set for the service of these tests is not meant for a daemon
    # started here.
    for name in (
        "JOURNAL_STREAM",
        "NOTIFY_SOCKET",
        "INVOCATION_ID",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    ):
        os.environ.pop(name, None)
    return Hat()


@pytest.fixture(scope="package")
def feeder(hat: Hat) -> Iterator[Feeder]:
    """Currents through the three transformers, all the time."""
    with Feeder(hat.adc, rate=4000, amperes=AMPERES) as feeder:
        yield feeder


@pytest.fixture(scope="package")
def shared_board(
    hat: Hat, feeder: Feeder, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Board]:
    """One daemon for all tests that do not need their own."""
    with Daemon(tmp_path_factory.mktemp("shared")) as daemon:
        yield Board(hat, feeder, daemon)


@pytest.fixture
def board(shared_board: Board) -> Iterator[Board]:
    """The board as every test finds it: all plugged in, the line low, csp1d measuring AMPERES,
    empty logs.
    """
    restore(shared_board.hat)
    if (
        not shared_board.daemon.running
    ):  # The previous test has stopped it, or it ended during that test.
        shared_board.daemon.start()
    shared_board.measure(*AMPERES)
    shared_board.hat.tty.clear()
    shared_board.hat.leds.clear()
    yield shared_board
    shared_board.hat.line.set(False)


@pytest.fixture
def own_board(shared_board: Board, tmp_path: Path) -> Iterator[Board]:
    """A board whose daemon is not running yet: the test writes its configuration and starts it."""
    shared_board.daemon.kill()
    restore(shared_board.hat)
    shared_board.feeder.set(amperes=AMPERES)
    shared_board.hat.tty.clear()
    shared_board.hat.leds.clear()
    with_own_daemon = Board(shared_board.hat, shared_board.feeder, Daemon(tmp_path))
    yield with_own_daemon
    with_own_daemon.daemon.kill()


def restore(hat: Hat) -> None:
    """Undo the leftovers of a failed test."""
    hat.line.storm(1000, 0)
    hat.line.set(False)
    hat.tty.stuck = hat.tty.adapter = False
    for part in (hat.adc, hat.line, hat.leds, hat.tty):
        part.plug()
    subprocess.run(["udevadm", "settle", "--timeout=20"], check=True)
