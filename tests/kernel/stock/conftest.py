# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests with the kernel's own ADC drivers: the emulated chip in the place of the
virtual HAT's ADC, beside the HAT's port, request line and LEDs.
"""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.board import Board, Daemon
from guest.chip import Chip
from guest.hat import Feeder, Hat

AMPERES = (24.0, 10.0, 3.0)
RETURN_SECONDS = 5
NEW_KERNEL = tuple(map(int, platform.release().split(".")[:2])) >= (6, 12)
# The driver of Linux 6.1 knows the MCP3911 alone.
MODEL = "mcp3912" if NEW_KERNEL else "mcp3911"
# Configurations that outlive a boot.
KEPT = Path("/var/lib/csp1d-test")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-seconds", type=float, default=2.5, help="how long each fault lasts")
    parser.addoption("--rebooted", action="store_true", help="only what a boot must not change")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The tests of the second boot are those of test_reboot.py alone."""
    if collection_path.suffix != ".py":
        return None
    return bool(config.getoption("--rebooted")) != (collection_path.name == "test_reboot.py")


@pytest.fixture
def fault_seconds(request: pytest.FixtureRequest) -> float:
    """How long a fault lasts."""
    return float(request.config.getoption("--fault-seconds"))


@pytest.fixture(scope="session")
def hat() -> Hat:
    """The virtual HAT without its ADC."""
    hat = Hat()
    hat.adc.unplug()
    return hat


@pytest.fixture(scope="session")
def chip(hat: Hat) -> Chip:
    """The emulated chip, whatever is at its inputs."""
    return Chip()


class Stock(Board):
    """A board with an ADC that has a driver of its own, and csp1d with a configuration for it."""

    def __init__(self, hat: Hat, directory: Path, configuration: str) -> None:
        # The feeder belongs to the HAT's ADC; it never starts.
        super().__init__(hat, Feeder(hat.adc), Daemon(directory, configuration))

    @classmethod
    @contextlib.contextmanager
    def running(cls, hat: Hat, directory: Path, configuration: str) -> Iterator[Stock]:
        """The board while csp1d runs with this configuration."""
        directory.mkdir(parents=True, exist_ok=True)
        stock = cls(hat, directory, configuration)
        try:
            with stock.daemon:
                yield stock
        finally:
            print(stock.daemon.log)  # Shown if the test fails.

    def request(self, active_level: bool = True) -> None:
        """Request telegrams, from now on alone."""
        self.hat.line.set(not active_level)
        time.sleep(0.2)  # What was under way has left.
        self.hat.tty.clear()
        self.hat.line.set(active_level)

    def first_telegram(self, *, active_level: bool = True) -> tuple[int, ...]:
        """Amperes of the first telegram of a new request."""
        self.request(active_level)
        return self.wait_for_telegram(10).amperes


def expected(model: str, amperes: tuple[float, ...] = AMPERES) -> tuple[int, ...]:
    """Whole amperes in a telegram of this chip: an MCP3911 has inputs for two phases."""
    return (round(amperes[0]), round(amperes[1]), 0 if model == "mcp3911" else round(amperes[2]))


def discovered() -> str:
    """The drop-in that `csp1ctl discover --output` writes, with nothing missing."""
    with tempfile.TemporaryDirectory() as directory:
        drop_in = Path(directory) / "hat.toml"
        command = [sys.executable, "-m", "csp1d.tool.ctl", "discover", "--output", str(drop_in)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return drop_in.read_text()


@pytest.fixture
def quiet_line(hat: Hat) -> Iterator[None]:
    """No request before and after."""
    hat.line.set(False)
    yield
    hat.line.set(False)
