# SPDX-License-Identifier: Apache-2.0
"""The time until the first byte of a telegram: from the end of its reading, and from a request.

Measured twice: until the port has accepted it, and until a reader receives it. Between the two is
the pty, which a kernel thread serves.

First the line is high, and each reading makes a telegram. Then it is low while readings are made,
and rises between them. It takes minutes, since a daemon makes one reading per second, and several
daemons at once would disturb each other.
"""

import contextlib
import os
import selectors
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmark.observed import REPORT
from benchmark.process import PYTHON, ROOT, open_port, percentile

SETTLE_SECONDS = 4
SECONDS = 120
"""Seconds of each of the two parts."""
NAMES = ("end_to_port", "end_to_reader", "rise_to_port", "rise_to_reader", "synthesis")
_SLEEP_SECONDS = 0.1
RISE_SECONDS, FALL_SECONDS = 0.5, 0.75
"""Phase of the rising request, relative to the time at which a reading was sent."""


@dataclass
class Observed:
    """The daemon. Times are CLOCK_MONOTONIC nanoseconds."""

    process: subprocess.Popen[str]
    line: socket.socket
    reports_fd: int
    """The descriptor from which REPORTs come."""
    port: int = -1
    telegrams: list[int] = field(default_factory=list)
    """Times at which the first byte of each telegram could be read."""
    reports: list[tuple[int, int, int]] = field(default_factory=list)
    """Fields of REPORT, one entry per telegram."""
    rises: list[int] = field(default_factory=list)

    def listen(self, end_ns: int) -> None:
        """Wait until that time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.port, selectors.EVENT_READ)
            selector.register(self.reports_fd, selectors.EVENT_READ)
            while (left_ns := end_ns - time.monotonic_ns()) > 0:
                for key, _ in selector.select(left_ns / 1e9):
                    now_ns = time.monotonic_ns()
                    if key.fd == self.reports_fd:
                        reports = os.read(self.reports_fd, REPORT.size * 64)
                        self.reports += REPORT.iter_unpack(reports)
                    elif b"/" in os.read(self.port, 65536):
                        self.telegrams.append(now_ns)


Latencies = dict[str, list[float]]
"""Milliseconds, one per telegram, by start and end of the measurement."""


class Sleeper:
    """Wake-up latency of a sleeping process at the same time: the lower limit for any daemon."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sleep)

    def __enter__(self) -> "Sleeper":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sleep(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + _SLEEP_SECONDS
            time.sleep(_SLEEP_SECONDS)
            self.late_ms.append((time.monotonic() - due) * 1000)


def measure(tell: Callable[[str], None], seconds: int) -> dict[str, dict[str, float]]:
    """The figures of about a hundred readings and requests."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        tell(f"{2 * seconds} s of readings and requests")
        config = Path(folder) / "csp1d.toml"
        config.write_text('[http]\nlisten = ""\n[log]\nlevel = "error"\n')
        sleeper = stack.enter_context(Sleeper())
        observed = stack.enter_context(_started(config))
        observed.line.send(b"1")
        observed.listen(time.monotonic_ns() + int((SETTLE_SECONDS + seconds) * 1e9))
        _raise_line(observed, seconds)
    found = latencies(
        observed.telegrams, observed.reports, observed.rises, SETTLE_SECONDS * 1_000_000_000
    )
    figures = {name: _figures(found[name]) for name in NAMES}
    return figures | {"sleeper": _figures(sleeper.late_ms)}


@contextlib.contextmanager
def _started(config: Path) -> Iterator[Observed]:
    ours, theirs = socket.socketpair()
    reports, reports_in = os.pipe()
    command = [PYTHON, "-m", "benchmark.observed", str(config), str(theirs.fileno())]
    with (
        ours,
        subprocess.Popen(
            [*command, str(reports_in)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(theirs.fileno(), reports_in),
        ) as process,
    ):
        theirs.close()
        os.close(reports_in)
        observed = Observed(process, ours, reports)
        try:
            assert process.stdout is not None
            observed.port = open_port(process.stdout.readline().strip())
            yield observed
        finally:
            process.terminate()
            process.wait()
            os.close(reports)


def _raise_line(observed: Observed, seconds: int) -> None:
    """Raise the request once per second, and let it fall before the next reading."""
    sent_ns = observed.telegrams[-1]
    for second in range(seconds + 1):
        at_ns = sent_ns + second * 1_000_000_000
        if second:
            observed.listen(at_ns + int(RISE_SECONDS * 1e9))
            observed.rises.append(time.monotonic_ns())
            observed.line.send(b"1")
        observed.listen(at_ns + int(FALL_SECONDS * 1e9))
        observed.line.send(b"0")


def latencies(
    telegrams: Sequence[int],
    reports: Sequence[tuple[int, int, int]],
    rises: Sequence[int],
    settle_ns: int,
) -> Latencies:
    """Latencies from a daemon's records, without those within `settle_ns` of the start."""
    found: Latencies = {name: [] for name in NAMES}
    for at_ns, (written_ns, end_ns, took_ns) in zip(telegrams, reports, strict=False):
        if at_ns < telegrams[0] + settle_ns:
            continue
        if at_ns < rises[0]:
            causes = {"end": end_ns}
            found["synthesis"].append(took_ns / 1e6)
        else:
            causes = {"rise": rises[bisect_right(rises, written_ns) - 1]}
        for name, cause_ns in causes.items():
            found[f"{name}_to_port"].append((written_ns - cause_ns) / 1e6)
            found[f"{name}_to_reader"].append((at_ns - cause_ns) / 1e6)
    return found


def _figures(milliseconds: Sequence[float]) -> dict[str, float]:
    return {
        "count": len(milliseconds),
        "median_ms": statistics.median(milliseconds),
        "p99_ms": percentile(milliseconds, 99),
        "longest_ms": max(milliseconds),
    }
