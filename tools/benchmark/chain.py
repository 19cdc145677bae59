# SPDX-License-Identifier: Apache-2.0
"""The metering: nanoseconds per scan, compared with alternatives, and through a pipe."""

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmark import rivals
from benchmark import signal as signals
from benchmark.rivals import Times, check, timed
from benchmark.signal import Signal

SECONDS = {4_000: 16, 8_000: 12, 32_000: 8, 256_000: 5}
"""Seconds per round, by scans per second. The first two seconds do not count."""
ROUNDS = 3
SLOW_SECONDS = 3
"""Seconds per round of the slow alternatives."""
WARM_UP = 2

CSP1D, LIMIT, COPY = "csp1d", "C -O3", "memcpy"
PYLIBIIO, PQOPEN, LOOP = "pylibiio + NumPy", "pqopen-lib", "Python loop"
WHO = (CSP1D, LIMIT, COPY, PYLIBIIO, PQOPEN, LOOP)

PIPE_RATE = 256_000
PIPE_SECONDS = 20

Feed = Callable[[int], Sequence[float]]
Chain = dict[str, dict[str, dict[str, dict[str, float]]]]
"""Median and minimum nanoseconds per scan, by format, scans per second and program."""


def measure(tell: Callable[[str], None]) -> Chain:
    """The whole grid. Raises MissingError if an alternative is not installed."""
    with tempfile.TemporaryDirectory() as folder:
        program = rivals.compile_limit(Path(folder))
        figures: Chain = {}
        for name in signals.FORMATS:
            figures[name] = {}
            for rate, seconds in SECONDS.items():
                tell(f"{name}, {rate} S/s")
                signal = signals.make(name, rate, seconds)
                figures[name][str(rate)] = {
                    who: nanoseconds(ns, rate) for who, ns in _all(program, signal).items()
                }
    return figures


def nanoseconds(ns: Sequence[int], rate: int) -> dict[str, float]:
    """Median and minimum per scan, from the nanoseconds of runs over one second of scans each."""
    return {"median": statistics.median(ns) / rate, "min": min(ns) / rate}


def _all(program: Path, signal: Signal) -> Mapping[str, Sequence[int]]:
    """Run the programs in turn, so that a disturbance of the machine affects all."""
    fast, slow = range(signal.seconds), range(SLOW_SECONDS)
    found: dict[str, list[int]] = {who: [] for who in WHO}

    def note(who: str, times: Times) -> None:
        found[who] += check(who, times, signal).ns[WARM_UP:]

    with rivals.pylibiio(signal) as pylibiio:
        for _ in range(ROUNDS):
            note(CSP1D, timed(rivals.csp1d(signal), fast))
            limit, copy = rivals.limit(program, signal, 1)
            note(LIMIT, limit)
            note(COPY, copy)
            note(PYLIBIIO, timed(pylibiio, fast))
            note(PQOPEN, timed(rivals.pqopen(signal), fast))
            note(LOOP, timed(rivals.loop(signal), slow))
    return found


def pipe() -> dict[str, float]:
    """Throughput of scans that another process writes into a pipe without a pause."""
    read_fd, write_fd = os.pipe()
    with contextlib.ExitStack() as stack:
        writer = subprocess.Popen([sys.executable, "-m", "benchmark.chain"], stdout=write_fd)
        stack.callback(writer.wait)
        os.close(write_fd)
        source = stack.enter_context(io.FileIO(read_fd))
        form = signals.scan_format(next(iter(signals.FORMATS)), PIPE_RATE)
        metering = signals.metering(form)
        block = bytearray(PIPE_RATE * form.scan_bytes)
        readings, wall_ns, cpu_ns = 0, 0, 0
        for second in range(PIPE_SECONDS):
            if second == WARM_UP:
                wall_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns()
            _fill(source, block)
            readings += len(metering.feed(bytes(block)))
        seconds = (time.monotonic_ns() - wall_ns) / 1e9
        cpu_seconds = (time.thread_time_ns() - cpu_ns) / 1e9
    scans = (PIPE_SECONDS - WARM_UP) * PIPE_RATE
    return {
        "scans_per_second": scans / seconds,
        "cpu_ns_per_scan": cpu_seconds * 1e9 / scans,
        "readings": readings,
        "scans": metering.scans_total,
        "lost": metering.timeline.lost_scans_total,
    }


def _fill(source: io.FileIO, block: bytearray) -> None:
    view = memoryview(block)
    while view:
        count = source.readinto(view)
        if not count:
            raise ValueError("the writer of the pipe ended early")
        view = view[count:]


def _write() -> None:
    """The other end of the pipe."""
    signal = signals.make(next(iter(signals.FORMATS)), PIPE_RATE, PIPE_SECONDS)
    with open(sys.stdout.fileno(), "wb", buffering=0) as out:
        view = memoryview(signal.data)
        while view:
            view = view[out.write(view[: 1 << 16]) :]


if __name__ == "__main__":
    _write()
