# SPDX-License-Identifier: Apache-2.0
"""The bench: csp1d as a process beside the virtual HAT, and queries about
both for the tests.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from .hat import TTY, Feeder, Hat
from .telegrams import Received, split

SECOND = 1_000_000_000
POWER, CURRENT, P1 = "csp1:yellow:power", "csp1:yellow:current", "csp1:yellow:p1"
METRICS = "http://127.0.0.1:19510/metrics"
# On a slow processor, opening all devices and measuring the first second takes long.
START_SECONDS = 120.0

HAT_CONFIGURATION = f"""
[adc]
device = "csp1-hat-adc"

[p1.request]
chip = "csp1-hat"
line = "P1_REQUEST"

[p1]
device = "{TTY}"
firmware_text = "XMX_P1CS_V05"
"""
GOLDEN_IDENTITY = """
serial = "XMXCQA0000008879"
equipment_id = "E0000000000000000"
"""
"""That of tests/p1/golden-24A.p1, in the table [p1] that `HAT_CONFIGURATION` ends with."""
CONFIGURATION = HAT_CONFIGURATION + GOLDEN_IDENTITY


# Under emulation, starting Python and importing NumPy and csp1d takes the host ten seconds. So
# csp1d is forked from a process that has imported them. test_service.py and the tests of the
# installed package start and end it as systemd does.
_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload(
    ["csp1d.__main__", "csp1d.hat.kernel", "csp1d.loop.daemon", "guest.board"]
)


def _run(arguments: Sequence[str], log_file: Path) -> None:
    """Run csp1d in the forked process, with its output in the log."""
    from csp1d.__main__ import main

    with log_file.open("ab") as log:
        for output in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), output.fileno())
    sys.argv = ["csp1d", *arguments]
    sys.exit(main())


def wait_for(what: str, condition: Callable[[], bool], seconds: float) -> None:
    """Wait until ``condition`` holds; AssertionError with ``what`` when it does not.

    One that takes long, such as a scrape, is evaluated less often: it would keep the only processor
    busy, and under emulation the whole machine would be slow.
    """
    deadline = time.monotonic() + seconds
    while True:
        begin = time.monotonic()
        if condition():
            return
        end = time.monotonic()
        assert end < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(max(0.02, 6 * (end - begin)))


def sleep_until(ns: int) -> None:
    """Sleep until CLOCK_MONOTONIC is ``ns``."""
    time.sleep(max(0, ns - time.monotonic_ns()) / SECOND)


class Daemon:
    """csp1d as a process under test; a context manager that ends it."""

    def __init__(self, directory: Path, configuration: str = CONFIGURATION) -> None:
        self.config = directory / "csp1d.toml"
        self.log_file = directory / "csp1d.log"
        self.config.write_text(configuration)
        # For http.socket, as RuntimeDirectory= of the unit.
        Path("/run/csp1d").mkdir(exist_ok=True)
        self._process: BaseProcess | None = None

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it and wait until it answers over HTTP."""
        deadline = time.monotonic() + START_SECONDS
        arguments = ["--config", str(self.config)]
        self._process = _FORK.Process(target=_run, args=(arguments, self.log_file), daemon=True)
        self._process.start()
        while True:
            assert self.running, f"csp1d ended at once, exit code {self.returncode}:\n{self.log}"
            try:
                self.metrics()
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, (
                    f"csp1d does not answer at {METRICS}:\n{self.log}"
                )
                time.sleep(0.2)
            else:
                return

    @property
    def process(self) -> BaseProcess:
        """The process, which must have been started."""
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.is_alive()

    @property
    def returncode(self) -> int | None:
        """Exit code, None while it runs."""
        return self.process.exitcode

    @property
    def log(self) -> str:
        """The whole log, over all its starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def metrics(self) -> dict[str, float]:
        """The metrics of a scrape, by name with labels; unknown values are absent."""
        with urllib.request.urlopen(METRICS, timeout=10) as answer:
            text = answer.read().decode()
        found = re.findall(r"^(csp1d_[a-z0-9_]+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
        return {name: float(value) for name, value in found}

    def metric(self, name: str) -> float | None:
        """One value now, None if it is unknown."""
        return self.metrics().get(name)

    def counter(self, name: str) -> int:
        """A counter now."""
        return int(self.metrics()[name])

    def wait_for_metric(self, name: str, value: float | None, seconds: float) -> None:
        """Wait until ``name`` has this value; None: until it is absent."""
        wait_for(f"{name} = {value}", lambda: self.metric(name) == value, seconds)

    def wait_for_log(self, pattern: str, seconds: float, *, after: int = 0) -> str:
        """Wait for a line that matches ``pattern`` beyond the first ``after`` characters of the
        log; return it.
        """
        expression = re.compile(rf"^.*(?:{pattern}).*$", re.MULTILINE | re.IGNORECASE)
        wait_for(
            f"a log line like {pattern!r}",
            lambda: expression.search(self.log, after) is not None,
            seconds,
        )
        match = expression.search(self.log, after)
        assert match is not None
        return match.group()

    def cpu_seconds(self) -> float:
        """Processor time used so far, user and system, of all threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def sleeps(self) -> int:
        """Number of times its loop has gone to sleep, and so has been woken."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"\nvoluntary_ctxt_switches:\s+(\d+)", status)[0])

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.running, f"csp1d has ended, exit code {self.returncode}:\n{self.log}"
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def terminate(self) -> int:
        """Request its end, as systemd does; its exit code."""
        self.signal(signal.SIGTERM)
        self.process.join(30)
        assert self.returncode is not None, f"csp1d does not end:\n{self.log}"
        return self.returncode

    def kill(self) -> None:
        """End it without a chance to clean up."""
        if self.running:
            self.process.kill()
            self.process.join()


class Board:
    """The virtual HAT with currents flowing, and csp1d measuring them."""

    def __init__(self, hat: Hat, feeder: Feeder, daemon: Daemon) -> None:
        self.hat, self.feeder, self.daemon = hat, feeder, daemon

    def telegrams(self, after_ns: int = 0) -> list[Received]:
        """Telegrams since the log was cleared; with ``after_ns``, only those that start then or
        later. An unfinished one counts as broken off.
        """
        log = self.wire()
        # Most of a long log may be old. The telegram under way at that time is split off too.
        begun = np.flatnonzero((log["byte"] == ord("/")) & (log["ns"] < after_ns))
        log = log[begun[-1] if begun.size else 0 :]
        pieces = split(log["byte"].astype("u1").tobytes(), [int(ns) for ns in log["ns"]])
        return [piece for piece in pieces if piece.start_ns >= after_ns]

    def wire(self) -> npt.NDArray[np.void]:
        """The bytes that came over the wire since the log was cleared, as `Tty.log()` has them."""
        return self.hat.tty.log()

    def complete(self, after_ns: int = 0) -> list[Received]:
        """The whole ones of `telegrams()`, each with its checksum verified."""
        whole = [telegram for telegram in self.telegrams(after_ns) if telegram.complete]
        for telegram in whole:
            telegram.check()
        return whole

    def wait_for_telegram(self, seconds: float, after_ns: int | None = None) -> Received:
        """A whole telegram that starts after ``after_ns`` (default: now), waited for."""
        since = time.monotonic_ns() if after_ns is None else after_ns
        wait_for("a telegram", lambda: bool(self.complete(since)), seconds)
        return self.complete(since)[0]

    def wait_for_end_of_telegram(self) -> Received:
        """Wait until a telegram has just ended and the wire is quiet for most of a second."""
        return self.wait_for_telegram(5)

    def wait_until_measuring(
        self, amperes: Sequence[float] | None = None, seconds: float = 15
    ) -> None:
        """Wait until the daemon shows a reading; with ``amperes``, until it shows these."""

        def measuring() -> bool:
            metrics = self.daemon.metrics()
            shown = [metrics.get(f'csp1d_current_amperes{{phase="L{n}"}}') for n in (1, 2, 3)]
            if amperes is None:
                return None not in shown
            return all(
                value is not None and abs(value - a) < 0.1
                for value, a in zip(shown, amperes, strict=True)
            )

        wait_for(f"a reading of {amperes or 'any amperes'} A", measuring, seconds)

    def measure(self, *amperes: float) -> None:
        """Let these amperes flow through L1, L2 and L3, and wait until readings are wholly of
        them.
        """
        self.feeder.set(amperes=amperes)
        self.wait_until_measuring(amperes)

    def on_seconds(self, led: str, start_ns: int, end_ns: int) -> float:
        """How long the LED ``led`` was on between two times; the log must begin before the
        first one.
        """
        changes = [change for change in self.hat.leds.log() if change.name == led]
        # Two successive changes of an LED differ, so the first one reveals the state before it.
        lit = not changes[0].brightness if changes else bool(self.hat.leds.brightness(led))
        total, since = 0, start_ns
        for change in changes:
            ns = min(max(change.ns, start_ns), end_ns)
            if lit:
                total += ns - since
            since, lit = ns, bool(change.brightness)
        return (total + (end_ns - since if lit else 0)) / SECOND

    def pulses(self, led: str, start_ns: int, end_ns: int) -> list[float]:
        """For how many seconds ``led`` was lit, each time that it came on and went dark between
        two times.  Off for less than 10 ms, which is invisible, counts as on: csp1d switches the
        LED off and on again at once, but the kernel may let another process run in between.
        """
        changes = [change for change in self.hat.leds.log() if change.name == led]
        on_ns: list[int] = []
        off_ns: list[int] = []
        for change in changes:
            if not change.brightness:
                off_ns.append(change.ns)
            elif off_ns and change.ns - off_ns[-1] < SECOND // 100:
                off_ns.pop()
            else:
                on_ns.append(change.ns)
        if changes and not changes[0].brightness:
            off_ns.pop(0)
        return [
            (off - on) / SECOND
            for on, off in zip(on_ns, off_ns, strict=False)
            if start_ns <= on and off <= end_ns
        ]

    def lit(self, led: str) -> bool:
        """Whether ``led`` is lit now, by the log of its switching rather than by what sysfs says
        of it.
        """
        changes = [change for change in self.hat.leds.log() if change.name == led]
        return bool(changes[-1].brightness) if changes else bool(self.hat.leds.brightness(led))
