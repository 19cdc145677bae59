# SPDX-License-Identifier: Apache-2.0
"""The metering chain and what else could do its work, on the same scans in one run."""

import ctypes
import math
import os
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from daqopen.channelbuffer import AcqBuffer
from pqopen.powersystem import PowerSystem

from csp1d.config import Config
from csp1d.measuring.metering import Metering
from csp1d.measuring.scan import Channel, ScanFormat, ScanType, Timestamp

HERE = Path(__file__).resolve().parent
CHANNELS = 3
SECOND_NS = 1_000_000_000
TYPES = {"s16": "le:s16/16>>0", "s24": "le:s24/32>>0", "be12": "be:u12/16>>4"}
RATES = (4000, 8000, 32_000, 256_000)
LOOP_SCANS = 4000
"""A loop costs the same for each scan, so a second of the lowest rate tells."""


class State(ctypes.Structure):
    """`struct state` of bench_limit.c."""

    _fields_ = [
        ("mean", ctypes.c_double * CHANNELS),
        ("rms", ctypes.c_double * CHANNELS),
        ("hertz", ctypes.c_double),
        ("lowest", ctypes.c_int64 * CHANNELS),
        ("highest", ctypes.c_int64 * CHANNELS),
        ("newest", ctypes.c_int64),
        ("lost", ctypes.c_int64),
        ("clipped", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class Signal:
    """Seconds of scans: three currents with harmonics and noise, 120 degrees apart."""

    type: str
    rate: int
    format: ScanFormat
    blocks: list[bytes]
    """A second each."""
    rms: list[float]
    """Of the channels, in codes."""


def signal(type_name: str, rate: int, seconds: int) -> Signal:
    """The scans of an ADC of this type and rate."""
    scan_type = ScanType.parse(TYPES[type_name])
    made = ScanFormat(
        float(rate),
        tuple(Channel(f"voltage{i}", f"L{i + 1}", i, scan_type, 0.05) for i in range(CHANNELS)),
        Timestamp(CHANNELS, ScanType.parse("le:s64/64>>0")),
    )
    count = rate * seconds
    records = np.zeros(count, made.record)
    angle = 2 * np.pi * 50.01 * np.arange(count) / rate
    noise = np.random.default_rng(1)
    peak = (scan_type.highest - scan_type.lowest) / 8
    center = 0 if scan_type.signed else (scan_type.highest + 1) // 2
    rms = []
    for channel in range(CHANNELS):
        turned = angle - channel * 2 * np.pi / 3
        wave = peak * (np.sin(turned) + 0.12 * np.sin(3 * turned)) + noise.normal(0, 1, count)
        codes = np.rint(wave).astype(np.int64)
        rms.append(float(np.sqrt(np.mean(codes[:rate].astype(float) ** 2))))
        records[str(channel)] = (codes + center) << scan_type.shift
    records["timestamp"] = SECOND_NS + np.round(np.arange(count) * (SECOND_NS / rate))
    data, size = records.tobytes(), rate * made.scan_bytes
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    return Signal(type_name, rate, made, blocks, rms)


@dataclass(frozen=True)
class Way:
    """A way to meter: takes a second of scans; what it makes of channel 0, if it is a current."""

    take: Callable[[bytes], float | None]
    scans: int
    """Of those in a block, how many it takes."""


def ways(made: Signal, library: ctypes.CDLL) -> Mapping[str, Way]:
    """All that are compared, by name, csp1d first."""
    everything = made.rate
    found = {
        "csp1d": Way(_csp1d(made), everything),
        "C": Way(_limit(made, library), everything),
        "memcpy": Way(_memcpy(made), everything),
        "libiio": Way(_libiio(made, library), everything),
        "pqopen-lib": Way(_pqopen(made), everything),
    }
    if made.rate == min(RATES):
        found["loop"] = Way(_loop(made), LOOP_SCANS)
    return found


def compile_limit(folder: Path) -> ctypes.CDLL:
    """bench_limit.c, for this processor."""
    target = folder / "limit.so"
    options = ["-O3", "-march=native", "-Wall", "-Werror", "-shared", "-fPIC"]
    subprocess.run(["gcc", *options, "-o", target, HERE / "bench_limit.c", "-lm"], check=True)
    return ctypes.CDLL(str(target))


def nanoseconds_a_scan(made: Signal, library: ctypes.CDLL, rounds: int = 3) -> dict[str, float]:
    """Of each way: the median over the blocks but the first, of the best round. The ways take
    turns, so that what disturbs the machine disturbs all."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        spent: dict[str, list[float]] = {}
        chosen = ways(made, library)
        for number, block in enumerate(made.blocks):
            for name, way in chosen.items():
                start = time.process_time_ns()
                rms = way.take(block)
                passed = time.process_time_ns() - start
                if number == 0:
                    continue
                spent.setdefault(name, []).append(passed / way.scans)
                if rms is not None and abs(rms / made.rms[0] - 1) > 0.01:
                    raise ValueError(f"{name} measures {rms:g} where {made.rms[0]:g} flows")
        for name, times in spent.items():
            median = sorted(times)[len(times) // 2]
            best[name] = min(median, best.get(name, math.inf))
    return best


def chain(seconds: int = 8) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Type, rate, and nanoseconds a scan of each way."""
    with tempfile.TemporaryDirectory() as folder:
        library = compile_limit(Path(folder))
        for type_name in TYPES:
            for rate in RATES:
                some = seconds if rate < max(RATES) else max(3, seconds // 2)
                yield type_name, rate, nanoseconds_a_scan(signal(type_name, rate, some), library)


def pipe_scans_a_second(seconds: int = 5) -> float:
    """How many scans a second go through a pipe and the chain, all of them metered."""
    made = signal("s16", max(RATES), 4)
    reading, writing = os.pipe()
    size = made.format.scan_bytes

    def feed() -> None:
        end = time.monotonic() + seconds
        number = 0
        with open(writing, "wb", buffering=0) as pipe:
            while time.monotonic() < end:
                block = memoryview(_later(made, number))
                while block:
                    block = block[pipe.write(block) :]
                number += 1

    writer = threading.Thread(target=feed)
    metering = _metering(made)
    start, taken = time.monotonic(), b""
    writer.start()
    with open(reading, "rb", buffering=0) as pipe:
        while data := pipe.read(1 << 20):
            taken += data
            whole = len(taken) // size * size
            if whole >= made.rate * size // 10:
                metering.feed(taken[:whole])
                taken = taken[whole:]
    passed = time.monotonic() - start
    writer.join()
    if metering.lost_scans_total:
        raise ValueError(f"{metering.lost_scans_total} scans were lost on the way")
    return metering.scans_total / passed


def _later(made: Signal, number: int) -> bytes:
    """A block, stamped as the one of that number."""
    block = made.blocks[number % len(made.blocks)]
    records = np.frombuffer(block, made.format.record).copy()
    records["timestamp"] += number // len(made.blocks) * len(made.blocks) * SECOND_NS
    return records.tobytes()


def _metering(made: Signal) -> Metering:
    config = Config()
    return Metering(made.format, config.channels.used(), config.measurement)


def _csp1d(made: Signal) -> Callable[[bytes], float | None]:
    metering = _metering(made)
    factor = 0.05 / 1000 / 20.0 * 2000.0

    def take(block: bytes) -> float | None:
        readings = metering.feed(block)
        return (
            readings[-1].phases[next(iter(readings[-1].phases))].rms_amperes / factor
            if (readings)
            else None
        )

    return take


def _limit(made: Signal, library: ctypes.CDLL) -> Callable[[bytes], float | None]:
    state = State()
    meter = getattr(library, f"meter_{made.type}")
    period = ctypes.c_double(SECOND_NS / made.rate)

    def take(block: bytes) -> float | None:
        meter(block, ctypes.c_int64(made.rate), period, ctypes.byref(state))
        return float(state.rms[0])

    return take


def _memcpy(made: Signal) -> Callable[[bytes], float | None]:
    target = bytearray(len(made.blocks[0]))

    def take(block: bytes) -> float | None:
        target[:] = block
        return None

    return take


def _libiio(made: Signal, library: ctypes.CDLL) -> Callable[[bytes], float | None]:
    """Each channel read as Channel.read() of pylibiio has it, then NumPy's moments."""
    read = getattr(library, f"read_{made.type}")
    width = 4 if made.type == "s24" else 2
    rows = [np.empty(made.rate, f"<i{width}") for _ in range(CHANNELS)]

    def take(block: bytes) -> float | None:
        rms = []
        for channel, row in enumerate(rows):
            read(
                block,
                ctypes.c_int64(made.rate),
                ctypes.c_int64(channel * width),
                ctypes.c_void_p(row.ctypes.data),
            )
            values = row.astype(np.float64)
            mean = values.mean()
            rms.append(math.sqrt(np.dot(values, values) / len(values) - mean**2))
        return rms[0]

    return take


def _pqopen(made: Signal) -> Callable[[bytes], float | None]:
    """A power system of three phases that have voltages only: the least that it computes."""
    buffers = [AcqBuffer(size=4 * made.rate) for _ in range(CHANNELS)]
    system = PowerSystem(zcd_channel=buffers[0], input_samplerate=made.rate)
    for buffer in buffers:
        system.add_phase(u_channel=buffer)
    center = 0 if made.type != "be12" else 2048

    def take(block: bytes) -> float | None:
        codes = made.format.decode(block).codes
        for buffer, row in zip(buffers, codes, strict=True):
            buffer.put_data(row.astype(np.float64) - center)
        system.process()
        channel = system.output_channels["U1_1p_rms"]
        return float(channel.last_sample_value) if channel.sample_count > 20 else None

    return take


def _loop(made: Signal) -> Callable[[bytes], float | None]:
    """Python, sample by sample, with all that the C program does."""
    scan = struct.Struct({"s16": "<hhh2xq", "s24": "<iii4xq", "be12": ">HHH2xq"}[made.type])
    low = {"s16": -32768, "s24": -(1 << 23), "be12": 0}[made.type]
    high = {"s16": 32767, "s24": (1 << 23) - 1, "be12": 4095}[made.type]
    means = [0.0] * CHANNELS

    def take(block: bytes) -> float | None:
        sums, squares = [0.0] * CHANNELS, [0.0] * CHANNELS
        lowest, highest = [1 << 40] * CHANNELS, [-1 << 40] * CHANNELS
        newest = before = lost = clipped = samples = 0
        kept = sums, squares, samples
        crossings: list[float] = []
        for *words, stamp in scan.iter_unpack(block[: LOOP_SCANS * scan.size]):
            if made.type == "be12":
                words = [word >> 4 for word in words]
            if newest and stamp - newest > 1.5e9 / made.rate:
                lost += round((stamp - newest) * made.rate / 1e9) - 1
            newest = stamp
            if samples and before < means[0] <= words[0]:
                part = (words[0] - means[0]) / (words[0] - before)
                crossings.append(samples - part)
                kept = (sums.copy(), squares.copy(), samples)
            before = words[0]
            samples += 1
            for channel, code in enumerate(words):
                centered = code - means[channel]
                sums[channel] += code
                squares[channel] += centered * centered
                lowest[channel] = min(lowest[channel], code)
                highest[channel] = max(highest[channel], code)
                if code <= low or code >= high:
                    clipped += 1
        if crossings:
            sums, squares, samples = kept
        found = []
        for channel in range(CHANNELS):
            mean = sums[channel] / samples
            off = mean - means[channel]
            found.append(math.sqrt(max(0.0, squares[channel] / samples - off * off)))
            means[channel] = mean
        return found[0]

    return take
