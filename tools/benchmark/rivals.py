# SPDX-License-Identifier: Apache-2.0
"""Alternatives to the metering, each as its users would write it.

Each accepts one second of scans and returns the RMS codes of the three channels. If one finds
another current than the others, the run ends.
"""

import contextlib
import importlib
import json
import math
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmark import signal as signals
from benchmark.iiod import serving
from benchmark.signal import Signal

CHANNELS = 3
LIMIT_SOURCE = Path(__file__).with_name("limit.c")
MOST_OFF = 0.005
"""Tolerance relative to the input RMS: the benchmark compares speed, not accuracy."""

READ_LATE_NS = 1_000_000
"""Time from the end of one second of scans to its read."""


class MissingError(Exception):
    """An alternative is not installed: names it and how to install it."""


@dataclass(frozen=True)
class Times:
    """CPU nanoseconds for one second of scans, in several runs."""

    ns: Sequence[int]
    rms: Sequence[float]
    """RMS codes of each channel in the last second."""


def check(who: str, times: Times, signal: Signal) -> Times:
    """The same result, if it matches the input."""
    expected = signals.expected_codes(signal.format)
    if not all(abs(rms / expected - 1) < MOST_OFF for rms in times.rms):
        raise ValueError(f"{who} measures {times.rms} codes where {expected:.1f} were put in")
    return times


def timed(feed: Callable[[int], Sequence[float]], seconds: Sequence[int]) -> Times:
    """Feed each of these seconds; only this thread's CPU time counts."""
    ns, rms = [], [0.0] * CHANNELS
    for second in seconds:
        start = time.thread_time_ns()
        result = feed(second)
        ns.append(time.thread_time_ns() - start)
        rms = list(result) or rms
    return Times(ns, rms)


def csp1d(signal: Signal) -> Callable[[int], Sequence[float]]:
    """The metering of the daemon."""
    meter = signals.metering(signal.format)
    factor = signals.amperes_per_code(signal.format)

    def feed(second: int) -> Sequence[float]:
        # As the daemon does, read shortly after the last scan: its clock works as usual.
        read_ns = signals.START_NS + (second + 1) * 1_000_000_000 + READ_LATE_NS
        readings = meter.feed(signal.block(second), read_ns)
        currents = readings[-1].phases.values() if readings else ()
        return [current.rms_amperes / factor for current in currents]

    return feed


def loop(signal: Signal) -> Callable[[int], Sequence[float]]:
    """The work of the C program in plain Python, sample by sample.

    Above the bits of these samples is only their sign, so a shift decodes them.
    """
    form, type_ = signal.format, signal.format.channels[0].type
    letter = {2: "h", 4: "i"}[type_.bytes]
    words = (letter if type_.signed else letter.upper()) * CHANNELS
    scan = struct.Struct((">" if type_.big_endian else "<") + words)
    if form.timestamp:
        scan = struct.Struct(f"{scan.format}xxq")
    shift, lowest, highest = type_.shift, type_.lowest, type_.highest
    period_ns = 1_000_000_000 // signal.rate
    # Noise turns one crossing into several: ignore those that follow too soon.
    least_scans = signal.rate // 100
    middle = 0.0 if type_.signed else 2.0 ** (type_.bits - 1)
    before = stamp = lost = clipped = 0

    def feed(second: int) -> Sequence[float]:
        nonlocal middle, before, stamp, lost, clipped
        sums, squares = [0] * CHANNELS, [0] * CHANNELS
        cycle_sums, cycle_squares = [0] * CHANNELS, [0] * CHANNELS
        lows, highs = [highest] * CHANNELS, [lowest] * CHANNELS
        count = cycle_count = cycles = 0
        for elements in scan.iter_unpack(signal.block(second)):
            if form.timestamp:
                now = elements[CHANNELS]
                if stamp and now - stamp > period_ns * 3 // 2:
                    lost += (now - stamp) // period_ns - 1
                stamp = now
            first = elements[0] >> shift
            if before < middle <= first and cycle_count > least_scans:
                if cycles:
                    count += cycle_count
                    for n in range(CHANNELS):
                        sums[n] += cycle_sums[n]
                        squares[n] += cycle_squares[n]
                cycles += 1
                cycle_count = 0
                cycle_sums, cycle_squares = [0] * CHANNELS, [0] * CHANNELS
            before = first
            for n in range(CHANNELS):
                code = elements[n] >> shift
                cycle_sums[n] += code
                cycle_squares[n] += code * code
                if code < lows[n]:
                    lows[n] = code
                if code > highs[n]:
                    highs[n] = code
                if code <= lowest or code >= highest:
                    clipped += 1
            cycle_count += 1
        middle = sums[0] / count
        return [
            math.sqrt(square / count - (total / count) ** 2)
            for square, total in zip(squares, sums, strict=True)
        ]

    return feed


@contextlib.contextmanager
def pylibiio(signal: Signal) -> Iterator[Callable[[int], Sequence[float]]]:
    """libiio's own Python: Channel.read() of each element, then NumPy. No cycles, no gaps.

        It measures the first second repeatedly: `refill()`, which fetches the next one, is not
    counted, since the samples come from a server on loopback instead of a kernel.
    """
    iio = _module("iio", "python3-libiio")
    dtype = signal.format.record["0"].newbyteorder("=")
    with serving(signal) as uri:
        device = iio.Context(uri).devices[0]
        for channel in device.channels:
            channel.enabled = True
        inputs = {channel.id: channel for channel in device.channels}
        channels = [inputs[channel.id] for channel in signal.format.channels]
        buffers = [iio.Buffer(device, signal.rate)]
        buffers[0].refill()

        def feed(second: int) -> Sequence[float]:
            rms = []
            for channel in channels:
                codes = np.frombuffer(channel.read(buffers[0]), dtype).astype(np.float64)
                mean = codes.mean()
                np.abs(codes - mean).max()
                rms.append(math.sqrt(np.dot(codes, codes) / len(codes) - mean * mean))
            return rms

        yield feed
        # Close it while its server is still running.
        buffers.clear()


def pqopen(signal: Signal) -> Callable[[int], Sequence[float]]:
    """pqopen-lib: its buffers and its PowerSystem, without optional features."""
    buffers = _module("daqopen.channelbuffer", "daqopen-lib")
    powersystem = _module("pqopen.powersystem", "pqopen-lib")
    form = signal.format
    channels = [
        buffers.AcqBuffer(size=3 * signal.rate, name=channel.id) for channel in form.channels
    ]
    # It detects a crossing where the signal passes from below to above a threshold around zero.
    system = powersystem.PowerSystem(
        channels[0], signal.rate, zcd_threshold=signals.expected_codes(form) / 20
    )
    for channel in channels:
        system.add_phase(channel)

    def feed(second: int) -> Sequence[float]:
        records = np.frombuffer(signal.block(second), form.record)
        for number, channel in enumerate(channels):
            type_ = form.channels[number].type
            words = records[str(number)]
            channel.put_data((words >> type_.shift) + form.channels[number].offset)
        system.process()
        return [float(system.output_channels[f"U{n + 1}_rms"].last_sample_value) for n in range(3)]

    return feed


def compile_limit(folder: Path) -> Path:
    """The C program, compiled."""
    program = folder / "limit"
    command = ["gcc", "-O3", "-o", str(program), str(LIMIT_SOURCE), "-lm"]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError as error:
        raise MissingError("gcc is missing: apt-get install gcc libc6-dev") from error
    return program


def limit(program: Path, signal: Signal, rounds: int) -> tuple[Times, Times]:
    """The C program's times, and those of a memcpy() of the same bytes."""
    form = signal.format
    type_ = form.channels[0].type
    stamp = form.record.fields["timestamp"][1] if form.timestamp and form.record.fields else -1
    numbers = (
        signal.rate,
        form.scan_bytes,
        type_.bytes,
        type_.bits,
        type_.shift,
        type_.big_endian,
        type_.signed,
        stamp,
        rounds,
    )
    with tempfile.NamedTemporaryFile() as file:
        file.write(signal.data)
        file.flush()
        command = [str(program), file.name, *(str(int(number)) for number in numbers)]
        told: dict[str, Any] = json.loads(subprocess.check_output(command))
    if told["lost"]:
        raise ValueError(f"the C program lost {told['lost']} scans where there was no gap")
    return Times(told["feed_ns"], told["rms"]), Times(told["copy_ns"], told["rms"])


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"{package} is missing ({error}); tools/bench installs it") from error
