# SPDX-License-Identifier: Apache-2.0
"""How long a telegram takes to its reader's first byte: from its reading, and from a request.

Told twice: until the port has taken it, and until a reader sees it. What is between the two is the
pty, which a kernel thread serves.

Some daemons run at once, each with a line and a reader of its own, since one makes but a reading a
second. First their lines are high, and each reading makes a telegram. Then the line is low while
readings are made, and rises between them.
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

DAEMONS = 3
SETTLE_SECONDS = 4
SECONDS = 60
"""Of each of the two parts."""
NAMES = (
    *("end_to_port", "end_to_reader", "last_scan_to_port", "last_scan_to_reader"),
    *("rise_to_port", "rise_to_reader", "synthesis"),
)
_SLEEP_SECONDS = 0.1
RISE_SECONDS, FALL_SECONDS = 0.5, 0.75
"""After the time at which a reading was sent, a whole number of seconds later."""


@dataclass
class Observed:
    """One of the daemons. Times are CLOCK_MONOTONIC nanoseconds."""

    process: subprocess.Popen[str]
    line: socket.socket
    reports_fd: int
    """The descriptor from which REPORTs come."""
    port: int = -1
    telegrams: list[int] = field(default_factory=list)
    """When the first byte of each could be read."""
    reports: list[tuple[int, int, int, int]] = field(default_factory=list)
    """As REPORT has them, one for each telegram."""
    rises: list[int] = field(default_factory=list)

    def read_port(self, now_ns: int) -> None:
        if b"/" in os.read(self.port, 65536):
            self.telegrams.append(now_ns)

    def read_reports(self) -> None:
        self.reports += REPORT.iter_unpack(os.read(self.reports_fd, REPORT.size * 64))


Latencies = dict[str, list[float]]
"""By what they are from and to: milliseconds, one for each telegram."""


class Sleeper:
    """How late the machine wakes whoever sleeps, meanwhile: no daemon can be better than that."""

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
    """The figures of some hundred readings and requests."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        tell(f"{DAEMONS} daemons at once, {2 * seconds} s")
        config = Path(folder) / "csp1d.toml"
        config.write_text('[http]\nlisten = ""\n[log]\nlevel = "error"\n')
        sleeper = stack.enter_context(Sleeper())
        all_of_them = [stack.enter_context(_started(config)) for _ in range(DAEMONS)]
        selector = stack.enter_context(selectors.DefaultSelector())
        for each in all_of_them:
            selector.register(each.port, selectors.EVENT_READ, each)
            selector.register(each.reports_fd, selectors.EVENT_READ, each)
            each.line.send(b"1")
        _listen(selector, time.monotonic_ns() + int((SETTLE_SECONDS + seconds) * 1e9))
        _raise_lines(selector, all_of_them, seconds)
    found = [
        latencies(each.telegrams, each.reports, each.rises, SETTLE_SECONDS * 1_000_000_000)
        for each in all_of_them
    ]
    figures = {name: _figures([ms for each in found for ms in each[name]]) for name in NAMES}
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


def _listen(selector: selectors.BaseSelector, end_ns: int) -> None:
    while (left_ns := end_ns - time.monotonic_ns()) > 0:
        for key, _ in selector.select(left_ns / 1e9):
            now_ns = time.monotonic_ns()
            observed: Observed = key.data
            if key.fd == observed.port:
                observed.read_port(now_ns)
            else:
                observed.read_reports()


def _raise_lines(
    selector: selectors.BaseSelector, all_of_them: Sequence[Observed], seconds: int
) -> None:
    """Each line on its own beat, so that the daemons do not stand in each other's way."""
    plan: list[tuple[int, Observed, bool]] = []
    for observed in all_of_them:
        sent_ns = observed.telegrams[-1]
        # Low from between two readings on.
        plan.append((sent_ns + int(FALL_SECONDS * 1e9), observed, False))
        for second in range(1, seconds + 1):
            at_ns = sent_ns + second * 1_000_000_000
            plan.append((at_ns + int(RISE_SECONDS * 1e9), observed, True))
            plan.append((at_ns + int(FALL_SECONDS * 1e9), observed, False))
    for at_ns, observed, high in sorted(plan, key=lambda step: step[0]):
        _listen(selector, at_ns)
        if high:
            observed.rises.append(time.monotonic_ns())
        observed.line.send(b"1" if high else b"0")


def latencies(
    telegrams: Sequence[int],
    reports: Sequence[tuple[int, int, int, int]],
    rises: Sequence[int],
    settle_ns: int,
) -> Latencies:
    """Of what was noted of a daemon. What came within `settle_ns` of its begin does not count."""
    found: Latencies = {name: [] for name in NAMES}
    for at_ns, (written_ns, end_ns, due_ns, took_ns) in zip(telegrams, reports, strict=False):
        if at_ns < telegrams[0] + settle_ns:
            continue
        if at_ns < rises[0]:
            causes = {"end": end_ns, "last_scan": due_ns}
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
