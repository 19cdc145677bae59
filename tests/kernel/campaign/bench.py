# SPDX-License-Identifier: Apache-2.0
"""The installed service on the virtual HAT, with currents that change at random, and the
record of it.

The currents change about every half second, so that amperes show when they were measured.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from guest.board import GOLDEN_IDENTITY, SECOND, wait_for
from guest.conftest import restore
from guest.hat import Feeder, Hat
from installed.service import LOCAL_RULES, RULES, UNIT, Service, configure, run, show

from .judge import Fault
from .record import Writer

_QUIET_NS = SECOND // 20
"""Quiet time of the wire that is longer than any pause within a telegram."""
_SOON_NS = SECOND // 2
"""Time after a telegram from which the next one may begin at any moment."""


class Weather:
    """Changes the currents, as a house does; a context manager."""

    def __init__(self, feeder: Feeder, seed: int) -> None:
        self._feeder, self._random = feeder, random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="weather", daemon=True)
        self._change()

    def __enter__(self) -> Weather:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._random.uniform(0.3, 1.2)):
            self._change()

    def _change(self) -> None:
        self._feeder.set(amperes=[round(self._random.uniform(0, 80), 1) for _ in range(3)])


class Bench:
    """The target of the faults, and the record of their effects."""

    def __init__(self, hat: Hat, feeder: Feeder, seed: int, directory: Path) -> None:
        """`directory`: where the record is made."""
        self.hat, self.feeder, self.random = hat, feeder, random.Random(seed)
        self.service = Service()
        self.pid = self.service.pid
        self.start_ns = time.monotonic_ns()
        self.faults: list[Fault] = []
        self.record = Writer(directory, self.start_ns)
        hat.tty.clear()
        hat.line.clear()

    def wait_for_start(self, after_ns: int, seconds: float) -> int | None:
        """Wait for the first telegram after a time; its beginning, or None."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            log = self.hat.tty.log()
            begins = log["ns"][(log["byte"] == ord("/")) & (log["ns"] > after_ns)]
            if begins.size:
                return int(begins[0])
            time.sleep(0.1)
        return None

    def collect(self) -> None:
        """Copy the logs right after a telegram, so that none is lost between reading and clearing;
        after two seconds without a telegram, immediately."""
        for _ in range(100):
            tty = self.hat.tty.log()
            quiet_ns = time.monotonic_ns() - int(tty["ns"][-1]) if tty.size else 0
            if _QUIET_NS < quiet_ns < _SOON_NS:
                break
            time.sleep(0.02)
        line = self.hat.line.log()
        self.hat.tty.clear()
        self.hat.line.clear()
        self.record.add(tty, line, self.feeder.made, self.faults, time.monotonic_ns())
        if not Path(f"/proc/{self.pid}").exists():
            self.record.problem(f"the service ended by itself before {time.monotonic():.1f}")
            wait_for("another one", lambda: show("ActiveState") == "active", 30)
            self.pid = self.service.pid

    def sleep(self, shortest_seconds: float, longest_seconds: float) -> None:
        time.sleep(self.random.uniform(shortest_seconds, longest_seconds))

    def state(self) -> tuple[str, int, int]:
        """State, process and ready time (microseconds) of the service."""
        names = ("ActiveState", "MainPID", "ActiveEnterTimestampMonotonic")
        shown = run("systemctl", "show", f"--property={','.join(names)}", UNIT).split()
        values = dict(word.split("=", 1) for word in shown)
        return values[names[0]], int(values[names[1]]), int(values[names[2]])

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


def nice(*command: str) -> subprocess.Popen[bytes]:
    """A child process at normal priority; this process runs at a higher one."""
    return subprocess.Popen(["chrt", "--other", "0", *command], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def set_up() -> Iterator[tuple[Hat, Feeder]]:
    """The board with the identity that the judge expects, the service measuring, the line low.
    Afterwards the configuration is that of the other tests, from the next boot on.
    """
    # The hardware does not wait for the processor.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    hat = Hat()
    restore(hat)
    configure(GOLDEN_IDENTITY)
    LOCAL_RULES.write_text(RULES)
    run("udevadm", "control", "--reload")
    run("udevadm", "trigger", "--settle", "--subsystem-match=tty", "--subsystem-match=gpio")
    run("systemctl", "restart", UNIT)
    try:
        yield hat, Feeder(hat.adc, rate=4000)
    finally:
        configure()
