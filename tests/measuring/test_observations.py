# SPDX-License-Identifier: Apache-2.0
"""ADCs as drivers offer them: limits, timestamps in bursts, hostile timestamps, late reads."""

import cProfile
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from signals import START_NS, Array, codes_of, current, hat_format, metering_of, pack

from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase

HERTZ = 50.13
MS = 1e-3


def even(rate: float, seconds: float) -> Array:
    return np.arange(round(rate * seconds)) / rate


def play(
    times: Array,
    rate: float,
    stamps: Array | None = None,
    every: float = 1.0,
    busy: float = 1e-4,
    seed: int = 1,
    metering: Metering | None = None,
) -> tuple[Metering, list[Reading]]:
    """Readings of 10 A sampled at `times` (s) and read as the daemon does, every `every` seconds
    and late by `busy` (s) on average. `stamps` (s): when the driver stamps and passes on each scan;
    None: without timestamps."""
    made = hat_format(rate=rate, timestamp=stamps is not None)
    metering = metering or metering_of(made)
    codes = codes_of(current(times, HERTZ, 10.0))
    passed = times if stamps is None else np.maximum.accumulate(np.maximum(stamps, times))
    stamps_ns = None if stamps is None else START_NS + np.rint(stamps * 1e9).astype(np.int64)
    data = pack(made, [codes] * 3, stamps_ns)
    random, readings, begin, at = np.random.default_rng(seed), list[Reading](), 0, 0.0
    read = 0.0
    while at < times[-1] + 0.1:
        at += every if readings else min(every, 0.05)
        read = max(read + 1e-6, at + random.exponential(busy))
        end = int(passed.searchsorted(read, side="right"))
        chunk = data[begin * made.scan_bytes : end * made.scan_bytes]
        read_ns = START_NS + round(read * 1e9)
        for reading in metering.feed(chunk, read_ns):
            # What looks fresher than it is could be sent when it is stale.
            late = (reading.end_ns - START_NS) / 1e9 - times[end - 1]
            assert late < (30 * MS if stamps is None else 10 * MS)
            assert reading.amperes(Phase.L1) == pytest.approx(10.0, rel=0.01)
            readings.append(reading)
        begin = end
    return metering, readings


def seconds_of(reading: Reading) -> float:
    return (reading.end_ns - START_NS) / 1e9


def check_every_second(readings: list[Reading], until: float, first: float = 2.5) -> None:
    ends = [0.0, *map(seconds_of, readings)]
    assert ends[1] < first
    assert max(after - before for before, after in pairwise(ends[1:])) < 1.05
    assert ends[-1] > until - 1.1


def handler(count: int) -> Array:
    """Seconds by which an interrupt handler stamps late."""
    return np.random.default_rng(2).exponential(2e-5, count)


# The limits of the rate.


@pytest.mark.parametrize("ppm", [-200, -37, 0, 200])
@pytest.mark.parametrize("late", [0, 1 * MS, 20 * MS])
@pytest.mark.parametrize("timestamp", [True, False])
def test_an_adc_at_200_scans_per_second_is_measured(timestamp: bool, late: float, ppm: int) -> None:
    """Every other read, or every other timestamp, is late."""
    times = even(200 * (1 + ppm * 1e-6), 40)
    stamps = times + late * (np.arange(len(times)) % 2) if timestamp else None
    every = 1.0 if timestamp else 0.5
    metering, readings = play(times, 200, stamps, every, busy=late / 2 + 1e-5)
    assert metering.timeline.slow_hertz is None
    assert metering.timeline.clock_fault is None
    assert metering.timeline.lost_scans_total == 0
    check_every_second(readings, 40, 3.6)


@pytest.mark.parametrize("ppm", [-200, 200])
@pytest.mark.parametrize("timestamp", [True, False])
def test_an_adc_at_a_million_scans_per_second_is_measured(timestamp: bool, ppm: int) -> None:
    times = even(1e6 * (1 + ppm * 1e-6), 4.2)
    stamps = times + handler(len(times)) if timestamp else None
    metering, readings = play(times, 1e6, stamps, 0.5, busy=1 * MS)
    assert metering.timeline.clock_fault is None
    assert metering.timeline.lost_scans_total == 0
    check_every_second(readings, 4)


@pytest.mark.parametrize("said", [0, 50, 4000])
@pytest.mark.parametrize(
    ("timestamp", "rate"),
    [
        *((True, rate) for rate in (8.0, 10.0, 20.0, 100.0, 199.0)),
        *((False, rate) for rate in (20.0, 100.0, 185.0)),
    ],
)
def test_a_slower_adc_is_not_measured_and_its_rate_is_told(
    timestamp: bool, rate: float, said: float
) -> None:
    times = even(rate, 20)
    if not timestamp and said == 0:
        said = rate
    metering = metering_of(hat_format(said_rate=said, timestamp=timestamp))
    metering, readings = play(times, said or rate, times if timestamp else None, metering=metering)
    assert readings == []
    assert metering.timeline.slow_hertz == pytest.approx(rate, rel=1e-2)
    assert metering.timeline.clock_fault is None
    assert metering.timeline.lost_scans_total == 0


@pytest.mark.parametrize("timestamp", [True, False])
def test_an_adc_that_becomes_fast_enough_is_measured(timestamp: bool) -> None:
    times = np.concatenate((even(100, 8), 8 + even(400, 12)))
    metering, readings = play(times, 400, times if timestamp else None)
    assert metering.timeline.slow_hertz is None
    check_every_second(readings, 20, 13)
    assert seconds_of(readings[0]) > 8


# Timestamps in bursts, as drivers with a hardware FIFO make them.


def bursts(times: Array, length: float, spacing: float) -> Array:
    """Stamps of bursts that take `length` (s): each at the push of its burst, the ones before it
    `spacing` (s) apart backwards."""
    rate = len(times) / (times[-1] + times[1])
    scans = max(2, round(length * rate))
    number = np.arange(len(times))
    push = np.minimum((number // scans + 1) * scans - 1, len(times) - 1)
    return np.asarray(times[push] - (push - number) * spacing)


@pytest.mark.parametrize(
    ("length", "spacing"),
    [
        (5 * MS, 0),
        (2 * MS, 1.5e-6),
        (3 * MS, 1.5e-6),
        (20 * MS, 1.5e-6),
        *((16 * MS, 250e-6 * speed) for speed in (0.93, 0.95, 0.96, 0.98, 1.02, 1.04, 1.05, 1.07)),
        *((scans * 0.25 * MS, 1.5e-6) for scans in (9, 10, 11, 16, 64)),
        (16 * MS, 237.5e-6),
    ],
)
@pytest.mark.parametrize("live", [True, False])
def test_timestamps_in_bursts_are_measured(length: float, spacing: float, live: bool) -> None:
    times = even(4000, 12)
    stamps = bursts(times, length, spacing)
    if live:
        metering, readings = play(times, 4000, stamps)
    else:
        made = hat_format()
        metering = metering_of(made)
        codes = codes_of(current(times, HERTZ, 10.0))
        readings = metering.feed(
            pack(made, [codes] * 3, START_NS + np.rint(stamps * 1e9).astype(np.int64))
        )
    assert metering.timeline.clock_fault is None
    assert metering.timeline.lost_scans_total == 0
    check_every_second(readings, 12, 1.1)
    assert all(reading.amperes(Phase.L1) == pytest.approx(10, rel=1e-3) for reading in readings)
    known = [reading.frequency_hertz for reading in readings if reading.frequency_hertz]
    assert len(known) >= 9
    assert known == pytest.approx([HERTZ] * len(known), abs=0.01)


@pytest.mark.parametrize("scans", [10, 12, 16, 18, 64])
@pytest.mark.parametrize("speed", [0.95, 0.96, 0.98, 0.99])
def test_bursts_that_are_stamped_too_fast_are_no_losses(scans: int, speed: float) -> None:
    """Unless the step between bursts is a whole number of periods, as over lost scans."""
    step = (1 + (scans - 1) * (1 - speed)) / speed
    if step > 1.5 and abs(step - round(step)) < 0.1:
        return
    times = even(4000, 8)
    metering, readings = play(times, 4000, bursts(times, scans * 250e-6, 250e-6 * speed))
    assert metering.timeline.lost_scans_total == 0
    check_every_second(readings, 8, 1.1)


@pytest.mark.parametrize(("lost", "of"), [(13, 200), (3, 40), (5, 80), (24, 400), (300, 4000)])
def test_losses_that_repeat_are_no_bursts(lost: int, of: int) -> None:
    """From the first scan on. More than 5 % in each second give no reading."""
    times = even(4000, 12)
    times = times[np.arange(len(times)) % of >= lost]
    metering, readings = play(times, 4000, times)
    assert readings == []
    assert metering.timeline.lossy_windows >= 9
    assert metering.timeline.lost_scans_total == pytest.approx(11 * 4000 * lost / of, rel=0.1)


@pytest.mark.parametrize(("lost", "of"), [(3, 100), (8, 400)])
def test_losses_that_repeat_are_counted(lost: int, of: int) -> None:
    times = even(4000, 12)
    times = times[np.arange(len(times)) % of >= lost]
    metering, readings = play(times, 4000, times)
    assert len(readings) >= 11
    assert metering.timeline.lost_scans_total == pytest.approx(11.5 * 4000 * lost / of, rel=0.1)


@pytest.mark.parametrize("lost", [40, 150])
def test_losses_among_bursts_are_counted(lost: int) -> None:
    kept = np.ones(48_000, bool)
    kept[22_000 : 22_000 + lost] = False
    times = even(4000, 12)[kept]
    number = np.arange(len(times))
    stamps = times[np.minimum((number // 20 + 1) * 20 - 1, len(times) - 1)]
    metering, readings = play(times, 4000, stamps)
    assert metering.timeline.lost_scans_total == pytest.approx(lost, abs=1)
    check_every_second(readings, 12, 1.1)


# A second in which the ADC changes its rate.


@pytest.mark.parametrize("at", [3.2, 3.5, 3.8])
@pytest.mark.parametrize("rate", [3800, 3960, 4030, 4060, 4300])
@pytest.mark.parametrize("lateness", [lambda count: np.zeros(count), handler])
def test_a_frequency_is_unknown_rather_than_wrong(
    rate: int, at: float, lateness: Callable[[int], Array]
) -> None:
    times = np.concatenate((np.arange(0, at, 1 / 4000), np.arange(at, 9, 1 / rate)))
    metering, readings = play(times, 4000, times + lateness(len(times)))
    assert metering.timeline.clock_fault is None
    known = [reading.frequency_hertz for reading in readings if reading.frequency_hertz]
    assert len(known) >= 5
    assert known == pytest.approx([HERTZ] * len(known), abs=0.01)
    assert seconds_of(readings[-1]) > 7.9


# What is no clock, on a busy machine.


def no_clocks() -> Iterator[tuple[str, Array | None]]:
    times = even(4000, 40)
    yield "none", None
    yield "zero", times * 0 - 900
    yield "constant", times * 0
    yield "sample data", current(times, HERTZ, 1.0) * 1e-5


@pytest.mark.parametrize(("name", "stamps"), no_clocks())
@pytest.mark.parametrize("busy", [1e-4, 1 * MS, 5 * MS, 20 * MS])
@pytest.mark.parametrize("seed", range(3))
def test_without_a_clock_on_a_busy_machine_nothing_is_wrong_or_invented(
    seed: int, busy: float, name: str, stamps: Array | None
) -> None:
    times = even(4000, 40)
    metering, readings = play(times, 4000, stamps, busy=busy, seed=seed)
    assert (metering.timeline.clock_fault is None) == (stamps is None)
    assert metering.timeline.lost_scans_total == 0
    assert len(readings) >= 36
    for reading in readings:
        assert reading.amperes(Phase.L1) == pytest.approx(10, rel=1e-3)
        assert reading.frequency_hertz in (None, pytest.approx(HERTZ, abs=0.012))
    assert busy > 1 * MS or readings[-1].frequency_hertz


# Work is bounded, whatever the timestamps are.


def hostile() -> dict[str, Array]:
    random = np.random.default_rng(4)
    times = even(4000, 10)
    number = np.arange(len(times))
    return {
        "too fast by a twentieth in bursts": bursts(times, 16 * MS, 237.5e-6),
        "a step of 10 ms after each": times[0] + number * 10 * MS,
        "random steps": np.cumsum(random.exponential(250e-6, len(times))),
        "random walk": np.cumsum(random.choice([0, 1e-4, 5e-4, 5e-3], len(times))),
        "half of them late by up to a second": times + (number % 2) * random.random(len(times)),
        "sawtooth of a second": times - times % 1.0,
        "a rate that changes every tenth of a second": np.cumsum(
            np.repeat(random.uniform(1e-4, 6e-4, len(times) // 400), 400)
        ),
        "a gap of 60 ms every tenth of a second": times + number // 400 * 60 * MS,
        "the same for 200 scans": times[number // 200 * 200],
    }


@pytest.mark.parametrize("name", hostile())
@pytest.mark.parametrize("chunk", [100, 4000])
def test_hostile_timestamps_cost_a_small_multiple_of_good_ones(name: str, chunk: int) -> None:
    """In calls of functions per second, which do not depend on the load of the machine."""
    made, times = hat_format(), even(4000, 10)
    codes = codes_of(current(times, HERTZ, 10.0))

    def work(stamps: Array) -> float:
        data = pack(made, [codes] * 3, START_NS + np.rint(stamps * 1e9).astype(np.int64))
        metering, size, profile = metering_of(made), made.scan_bytes * chunk, cProfile.Profile()
        for at in range(0, len(data), size):
            profile.runcall(metering.feed, data[at : at + size])
        calls = sum(entry.callcount for entry in profile.getstats())
        return calls / max(10.0, float(np.ptp(stamps)))

    assert work(hostile()[name]) < 8 * work(times + handler(len(times)))


def test_nothing_is_imported_after_the_first_second() -> None:
    """NumPy imports some of its modules when they are first used: a second on a slow board."""
    script = """
import sys
import numpy as np
from test_observations import bursts, even, handler, play
times = even(4000, 3)
play(times, 4000, times)
before = set(sys.modules)
times = np.delete(even(4000, 8), np.s_[9000:9100])
for stamps in (times, times + handler(len(times)), bursts(times, 5e-3, 1e-6), None):
    play(times, 4000, stamps)
changed = np.concatenate((even(4000, 5), 5 + even(3000, 5)))
play(changed, 4000, changed + handler(len(changed)))
print(sorted(set(sys.modules) - before))
"""
    # A process of its own: other tests have imported more.
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path]
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "[]\n", result.stderr
