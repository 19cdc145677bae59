# SPDX-License-Identifier: Apache-2.0
"""Late stamps, lost scans, stalls, invalid clocks, and ADCs without timestamps."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from signals import START_NS, Array, codes_of, current, hat_format, metering_of, pack, stamps_of

from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase

RATE = 4000
HERTZ = 50.25
L1, L2, L3 = Phase

Lateness = Callable[[int], Array]
"""Returns the lateness of that number of scans in nanoseconds."""


def on_time(count: int) -> Array:
    return np.zeros(count)


def constant(count: int) -> Array:
    return np.full(count, 3e6)


def jitter(count: int) -> Array:
    return np.random.default_rng(1).uniform(0, 2e6, count)


def queued(count: int) -> Array:
    """As late as with `jitter`, but in order."""
    times = np.arange(count) * 1e9 / RATE
    return np.asarray(np.maximum.accumulate(times + jitter(count)) - times)


def handler(count: int) -> Array:
    """An interrupt handler that is usually a little late, sometimes by a millisecond."""
    return 1e6 + np.random.default_rng(2).exponential(2e5, count)


def hiccups(count: int) -> Array:
    """Delayed three times: once for long, once across the end of a second."""
    late, scan = np.random.default_rng(3).uniform(0, 5e4, count), np.arange(count)
    for first, held_ns in ((7900, 168e6), (12000, 40e6), (15950, 30e6)):
        late = np.maximum(late, (held_ns - (scan - first) * 245e3) * (scan >= first))
    return late


def run(
    length: float,
    lost: list[tuple[int, int]],
    lateness: Lateness = on_time,
    rate: float = RATE,
    said_rate: float | None = None,
) -> tuple[Metering, list[Reading]]:
    """Readings of 10 A on all phases; `lost` lists lost scans as (first, count)."""
    made = hat_format(rate=rate, said_rate=said_rate)
    times = np.arange(round(length * rate)) / rate
    kept = np.ones(len(times), bool)
    for first, count in lost:
        kept[first : first + count] = False
    codes = codes_of(current(times, HERTZ, 10.0))[kept]
    stamps = stamps_of(times, lateness(len(times)))[kept]
    metering = metering_of(made)
    readings = metering.feed(pack(made, [codes] * 3, stamps))
    assert metering.timeline.clock_fault is None
    assert metering.scans_total == kept.sum()
    return metering, readings


def seconds_of(reading: Reading) -> float:
    return (reading.end_ns - START_NS) / 1e9


@pytest.mark.parametrize(
    ("lateness", "millihertz"),
    [(on_time, 0.1), (constant, 0.1), (jitter, 1.5), (queued, 12), (handler, 1.0), (hiccups, 0.5)],
)
@pytest.mark.parametrize("rate", [RATE, 4120.0])
def test_late_stamps_are_no_loss(lateness: Lateness, millihertz: float, rate: float) -> None:
    metering, readings = run(12.2, [], lateness, rate, RATE)
    assert metering.timeline.lost_scans_total <= (2 if lateness is queued else 0)
    assert len(readings) == 12
    known = [reading.frequency_hertz for reading in readings if reading.frequency_hertz]
    # Stamps that queue do not always show the rate to 10 mHz.
    assert len(known) >= (9 if lateness is queued else 12)
    assert known == pytest.approx([HERTZ] * len(known), abs=millihertz / 1000)
    for reading in readings:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=5e-4)
        assert reading.end_ns >= START_NS
    assert seconds_of(readings[-1]) == pytest.approx(11.99, abs=0.02)


@pytest.mark.parametrize("lateness", [on_time, constant, jitter, handler, hiccups])
@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        ([(5000, 100)], [0, 100, 0, 0, 0]),
        ([(200, 100)], [100, 0, 0, 0, 0]),
        ([(5000, 4)], [0, 4, 0, 0, 0]),
        ([(4200, 30), (5000, 9), (5300, 60), (6000, 50)], [0, 149, 0, 0, 0]),
        ([(900, 20), (9000, 20), (13000, 190)], [20, 0, 20, 190, 0]),
        ([(4500, 50), (8500, 50), (12500, 50)], [0, 50, 50, 50, 0]),
    ],
)
def test_lost_scans_are_counted(
    lost: list[tuple[int, int]], expected: list[int], lateness: Lateness
) -> None:
    metering, readings = run(5.1, lost, lateness)
    assert metering.timeline.lost_scans_total == sum(expected)
    if lateness is hiccups:
        # While all stamps are late, the time of a loss is unknown.
        assert sum(reading.lost_scans for reading in readings) == sum(expected)
    else:
        assert [reading.lost_scans for reading in readings] == expected
    for reading in readings:
        if lateness is not hiccups:
            assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.002)
        # At worst a part of one cycle in 50 is missing.
        assert reading.amperes(L1) == pytest.approx(
            10.0, rel=5e-3 if reading.lost_scans or lateness is hiccups else 2e-4
        )
    assert seconds_of(readings[-1]) == pytest.approx(4.99, abs=0.02)


def test_single_lost_scans_are_counted_where_stamps_are_clean() -> None:
    lost = [(4100, 1), (4500, 1), (4900, 1), (5500, 2), (7000, 1), (9000, 1)]
    metering, readings = run(4.1, lost)
    assert [reading.lost_scans for reading in readings] == [0, 6, 1, 0]
    assert metering.timeline.lost_scans_total == 7


@pytest.mark.parametrize("every", [25, 30, 100])
def test_an_adc_that_skips_scans_all_the_time_still_reads(every: int) -> None:
    _, readings = run(6.1, [(first, 1) for first in range(every, round(6.1 * RATE), every)])
    assert len(readings) == 6
    for reading in readings:
        assert reading.lost_scans == pytest.approx(reading.window_seconds * RATE / every, abs=2)
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.001)
        assert reading.amperes(L1) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("lateness", [on_time, jitter])
@pytest.mark.parametrize("where", range(7700, 8300, 23))
def test_loss_about_the_end_of_a_window_is_counted_once(where: int, lateness: Lateness) -> None:
    metering, readings = run(5.1, [(where, 60)], lateness)
    assert metering.timeline.lost_scans_total == 60
    assert sum(reading.lost_scans for reading in readings) == 60
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.003)


@pytest.mark.parametrize("lateness", [on_time, jitter, handler])
@pytest.mark.parametrize("first", [5000, 6500, 7990, 8002, 8300, 9900])
@pytest.mark.parametrize("stall", [0.06, 0.3, 1.0, 2.0])
def test_after_a_stall_comes_a_fresh_second(first: int, stall: float, lateness: Lateness) -> None:
    lost = round(stall * RATE)
    metering, readings = run(8.1, [(first, lost)], lateness)
    assert metering.timeline.lost_scans_total == lost
    gap, back = first / RATE, first / RATE + stall
    before = [reading for reading in readings if seconds_of(reading) <= gap + 1e-4]
    after = readings[len(before) :]
    # A window ends at the last cycle boundary of its second; the second one at 1.990 s.
    assert len(before) == int(gap + 0.009)
    assert len(after) == int(8.1 - back)
    assert all(reading.lost_scans == 0 for reading in readings)
    for reading in readings:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=3e-4)
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.002)
    begin = seconds_of(after[0]) - after[0].window_seconds
    # A lateness that is always there, 1 ms with `handler`, cannot be detected.
    assert begin == pytest.approx(back, abs=1.1e-3)


def test_nothing_before_a_stall_is_in_a_reading_after_it() -> None:
    made = hat_format()
    times = np.arange(9 * RATE) / RATE
    kept = (times < 2.7) | (times >= 4.7)
    amperes = np.where(times < 2.7, current(times, 50.0, 60.0), current(times, 50.0, 1.0))
    stamps = stamps_of(times)[kept]
    readings = metering_of(made).feed(pack(made, [codes_of(amperes)[kept]] * 3, stamps))
    assert [reading.amperes(L1) for reading in readings] == pytest.approx(
        [60, 60, 1, 1, 1, 1], rel=1e-3
    )


def test_a_reading_follows_a_hole_soon() -> None:
    made = hat_format()
    times = np.arange(3 * RATE) / RATE
    kept = np.ones(len(times), bool)
    kept[5000:5100] = False
    data = pack(made, [codes_of(current(times, 50.0, 10.0))[kept]] * 3, stamps_of(times)[kept])
    metering = metering_of(made)
    counts = [
        count
        for count in range(kept.sum())
        if metering.feed(data[count * made.scan_bytes : (count + 1) * made.scan_bytes])
    ]
    # The second ends with scan 7899; 60 ms later the loss is certain.
    assert counts[0] == 3999
    assert 7899 <= counts[1] <= 7899 + 0.07 * RATE
    assert counts[2] == 11899


def test_when_the_next_reading_is_due() -> None:
    made = hat_format()
    times = np.arange(4 * RATE) / RATE
    kept = np.ones(len(times), bool)
    kept[5000:5100] = False
    data = pack(made, [codes_of(current(times, 50.0, 10.0))[kept]] * 3, stamps_of(times)[kept])
    metering = metering_of(made)
    size = made.scan_bytes
    metering.feed(data[: 4990 * size])
    assert metering.timeline.due_ns == START_NS + 2_000_000_000
    metering.feed(data[4990 * size : 7900 * size])
    assert metering.timeline.due_ns == pytest.approx(START_NS + 2_060_000_000, abs=20_000_000)
    assert metering.feed(data[7900 * size : 8150 * size])
    assert metering.timeline.due_ns == pytest.approx(START_NS + 3_000_000_000, abs=2_000)


def test_a_rate_that_the_device_does_not_say_is_measured() -> None:
    _, readings = run(4.1, [], jitter, 3700.0, 0.0)
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.003)


def test_a_drifting_oscillator_is_followed() -> None:
    made = hat_format()
    scans = np.arange(40 * RATE)
    times = scans / RATE * (1.02 + 5e-5 * scans / RATE)
    metering = metering_of(made)
    codes = codes_of(current(times, HERTZ, 10.0))
    readings = metering.feed(pack(made, [codes] * 3, stamps_of(times)))
    assert metering.timeline.lost_scans_total == 0
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.003)


def test_a_backlog_gives_the_readings_that_were_missed() -> None:
    made = hat_format()
    times = np.arange(30 * RATE + 100) / RATE
    data = pack(made, [codes_of(current(times, HERTZ, 10.0))] * 3, stamps_of(times))
    read_ns = START_NS + 31_000_000_000
    readings = metering_of(made).feed(data, read_ns)
    assert len(readings) == 30
    assert readings[0].end_ns < START_NS + 1_000_000_000


# What a timestamp field may hold instead of a clock.

TIMES = np.arange(6 * RATE) / RATE
GOOD = stamps_of(TIMES)


def stepped(at: int, step_ns: int) -> Array:
    stamps: Array = GOOD + step_ns * (np.arange(len(GOOD)) >= at)
    return stamps


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("stamps", "why", "at_least"),
    [
        (0 * GOOD, "inf scans per second|hours old", 5),
        (
            np.random.default_rng(0).integers(-(2**63), 2**63 - 1, len(GOOD)),
            "back|ahead|later|old",
            5,
        ),
        (
            np.frombuffer(np.random.default_rng(0).bytes(8 * len(GOOD)), "<i8"),
            "back|ahead|later|old",
            5,
        ),
        (stepped(9000, -3_000_000_000), "go back", 5),
        (stepped(9000, 10**16), "ahead|later", 5),
        (stepped(9000, 2**62), "ahead|later", 5),
    ],
)
def test_what_is_no_clock_is_not_used(stamps: Array, why: str, at_least: int, live: bool) -> None:
    made = hat_format()
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, stamps)
    metering = metering_of(made)
    readings = []
    step = 250
    for begin in range(0, len(TIMES), step):
        read_ns = START_NS + (begin + step) * 250_000 if live else None
        chunk = data[begin * made.scan_bytes : (begin + step) * made.scan_bytes]
        readings += metering.feed(chunk, read_ns)
    assert metering.timeline.clock_fault is not None
    assert any(part in metering.timeline.clock_fault for part in why.split("|"))
    assert len(readings) >= at_least
    for reading in readings:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=1e-3)
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.01)
        if live:
            assert START_NS < reading.end_ns <= START_NS + 6_000_000_000


def fed_live(metering: Metering, data: bytes, scan_bytes: int, count: int = 1000) -> list[Reading]:
    """Readings of reads of `count` scans, each as soon as these have been sampled."""
    readings = []
    for begin in range(0, len(TIMES), count):
        chunk = data[begin * scan_bytes : (begin + count) * scan_bytes]
        readings += metering.feed(chunk, START_NS + (begin + count) * 250_000)
    return readings


@pytest.mark.parametrize("speed", [0.5, 0.75, 1.3, 2.0])
def test_a_clock_that_runs_fast_or_slow_is_detected_by_the_reads(speed: float) -> None:
    made = hat_format()
    metering = metering_of(made)
    stamps = START_NS + (TIMES * speed * 1e9).astype(np.int64)
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, stamps)
    readings = fed_live(metering, data, made.scan_bytes)
    assert metering.timeline.clock_fault
    assert len(readings) >= 3
    assert readings[-1].frequency_hertz == pytest.approx(HERTZ, abs=0.01)
    assert START_NS + 5_900_000_000 < readings[-1].end_ns <= START_NS + 6_000_000_000


@pytest.mark.parametrize("said_rate", [1000, 3000, 6000, 8000, 12000])
def test_timestamps_override_the_rate_that_the_device_reports(said_rate: float) -> None:
    made = hat_format(said_rate=said_rate)
    metering = metering_of(made)
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, GOOD)
    readings = fed_live(metering, data, made.scan_bytes)
    assert metering.timeline.clock_fault is None
    assert metering.timeline.lost_scans_total == 0
    assert metering.timeline.rate_fault == (
        f"the driver reports {said_rate} scans per second, the ADC delivers 4000"
    )
    assert len(readings) == 6
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.001)


@settings(max_examples=60)
@given(
    jumps=st.lists(
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(-(2**62), 2**62))
        | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(-(10**9), 10**10)),
        max_size=4,
    ),
    live=st.booleans(),
)
@example(
    jumps=[(0, -3_074_457_679_118_175_270)] * 2 + [(1, -3_074_457_679_118_175_269)], live=False
)
def test_jumps_of_the_clock_never_give_a_wrong_reading(
    jumps: list[tuple[int, int]], live: bool
) -> None:
    made = hat_format()
    stamps = GOOD.copy()
    for at, by in jumps:
        stamps[at:] += by
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, stamps)
    metering = metering_of(made)
    readings = []
    for begin in range(0, len(TIMES), 1000):
        chunk = data[begin * made.scan_bytes : (begin + 1000) * made.scan_bytes]
        readings += metering.feed(chunk, START_NS + (begin + 1000) * 250_000 if live else None)
    for reading in readings:
        # A jump of less than 5 % of a second is a small loss, or lateness.
        assert reading.amperes(L1) == pytest.approx(10.0, rel=0.01)
        assert not live or reading.end_ns <= START_NS + 7_100_000_000


def test_a_clock_that_is_not_monotonic_is_detected_by_the_read() -> None:
    made = hat_format()
    metering = metering_of(made)
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, GOOD + 17 * 10**17)
    readings = fed_live(metering, data, made.scan_bytes)
    assert metering.timeline.clock_fault
    assert "later than the read" in metering.timeline.clock_fault
    assert readings[-1].end_ns == pytest.approx(START_NS + 5.99e9, abs=2e7)


@pytest.mark.parametrize("at", [1990, 2000, 2100, 3000, 4100, 9000])
def test_a_clock_that_stops_is_rejected(at: int) -> None:
    made = hat_format()
    metering = metering_of(made)
    codes = codes_of(current(TIMES, HERTZ, 10.0))
    readings = metering.feed(pack(made, [codes] * 3, np.minimum(GOOD, GOOD[at])))
    assert metering.timeline.clock_fault
    assert len(readings) >= 3
    for reading in readings:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize("said_rate", [0, 200, RATE, 1e7])
@pytest.mark.parametrize("period_ns", [1, 99, 15_700_000, 10**9, 3 * 10**12])
def test_a_clock_at_no_rate_of_an_adc(period_ns: int, said_rate: float) -> None:
    made = hat_format(said_rate=said_rate)
    metering = metering_of(made)
    stamps = START_NS + period_ns * np.arange(len(TIMES))
    metering.feed(pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, stamps))
    # At 1e7 S/s this is too short to tell.
    timeline = metering.timeline
    assert timeline.clock_fault or timeline.slow_hertz or said_rate == 1e7


# Seeds at which the clock moves by a whole window.
@pytest.mark.parametrize("said_rate", [0, RATE])
@pytest.mark.parametrize("seed", [5, 78, 292, 340])
def test_time_that_runs_wild_gives_whole_readings(seed: int, said_rate: float) -> None:
    made, scans = hat_format(said_rate=said_rate), 24_000
    codes = codes_of(current(np.arange(scans) / RATE, HERTZ, 10.0))
    steps = np.random.default_rng(seed).choice(
        [0, 1, 100, 250_000, 500_000, 10**7, 10**8, 10**9, -(10**6)],
        scans,
        p=[0.1, 0.1, 0.1, 0.5, 0.1, 0.03, 0.03, 0.02, 0.02],
    )
    data = pack(made, [codes] * 3, START_NS + np.cumsum(steps))
    metering = metering_of(made)
    for begin in range(0, len(data), 1000 * made.scan_bytes):
        for reading in metering.feed(data[begin:][: 1000 * made.scan_bytes]):
            assert reading.window_seconds >= 0.4
            assert math.isfinite(reading.amperes(L1))


def test_without_clock_and_rate_there_are_no_readings() -> None:
    made = hat_format(said_rate=0)
    metering = metering_of(made)
    assert metering.feed(pack(made, [codes_of(TIMES)] * 3, GOOD[::-1])) == []
    assert metering.timeline.clock_fault
    assert "sampling_frequency_hz" in metering.timeline.clock_fault
    with pytest.raises(ValueError, match="sampling_frequency_hz"):
        metering_of(hat_format(said_rate=0, timestamp=False))


# Without timestamps.


def live(
    length: float,
    every: float,
    lost: tuple[float, float] = (0, 0),
    held_up: tuple[float, float] = (0, 0),
    rate: float = 4040.0,
) -> tuple[Metering, list[Reading]]:
    """Reads of an ADC that reports 4000 S/s; `lost`: (at, seconds), `held_up`: (from, to)."""
    made = hat_format(rate=rate, said_rate=RATE, timestamp=False)
    random = np.random.default_rng(1)
    times = np.arange(round(length * rate)) / rate
    kept = (times < lost[0]) | (times >= sum(lost))
    codes = codes_of(current(times, HERTZ, 10.0))
    metering = metering_of(made)
    readings: list[Reading] = []
    begin = 0
    for number in range(1, int(length / every) + 1):
        at = number * every
        if held_up[0] <= at < held_up[1]:
            continue
        end = round(at * rate)
        chunk = codes[begin:end][kept[begin:end]]
        read_ns = START_NS + round((at + abs(random.normal(0, 3e-4))) * 1e9)
        new = metering.feed(pack(made, [chunk] * 3), read_ns)
        # A reading that ends after its read would look fresh when it is not.
        assert all(reading.end_ns <= read_ns for reading in new)
        readings += new
        begin = end
    return metering, readings


def test_a_replay_without_timestamps_goes_by_the_rate_from_zero() -> None:
    made = hat_format(timestamp=False)
    metering = metering_of(made)
    assert metering.timeline.due_ns is None
    readings = metering.feed(pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3))
    assert len(readings) == 6
    for number, reading in enumerate(readings, 1):
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.001)
        assert number - 0.021 < reading.end_ns / 1e9 <= number
    assert metering.timeline.clock_fault is None


@pytest.mark.parametrize("rate", [2800.0, 3550.0, 4040.0, 4600.0, 5000.0, 8000.0])
@pytest.mark.parametrize("every", [0.1, 1.0])
def test_without_timestamps_the_rate_is_found_from_the_reads(every: float, rate: float) -> None:
    metering, readings = live(40, every, rate=rate)
    assert 38 <= len(readings) <= 40
    assert metering.timeline.lost_scans_total <= 2
    for reading in readings[-20:]:
        assert reading.frequency_hertz == pytest.approx(HERTZ, abs=0.01)
        assert reading.amperes(L1) == pytest.approx(10.0, rel=5e-4)
    assert seconds_of(readings[-1]) == pytest.approx(40, abs=1.2)


@pytest.mark.parametrize("every", [0.1, 1.0])
@pytest.mark.parametrize("lost", [1.0, 2.0])
def test_without_timestamps_a_stall_shows_as_a_lag(every: float, lost: float) -> None:
    metering, readings = live(40, every, lost=(20.03, lost))
    assert metering.timeline.lost_scans_total == pytest.approx(lost * 4040, rel=0.01)
    for reading in readings:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=5e-3)
    assert seconds_of(readings[-1]) == pytest.approx(40, abs=1.2)


def test_without_timestamps_a_late_reader_is_no_loss() -> None:
    metering, readings = live(40, 0.1, held_up=(20, 22.5))
    assert metering.timeline.lost_scans_total == 0
    assert len(readings) >= 38
    ends = [seconds_of(reading) for reading in readings]
    assert np.diff(ends).max() < 1.03
    assert math.isclose(ends[-1], 40, abs_tol=1.2)


@pytest.mark.parametrize("seed", [143, 168, 440])
def test_reads_at_an_erratic_pace_give_whole_readings(seed: int) -> None:
    """Their clock moves by more than a window."""
    random, rate, scans = np.random.default_rng(seed), 1000, 17
    made = hat_format(rate=rate, timestamp=False)
    metering, now_ns = metering_of(made), START_NS
    paces = np.repeat(random.choice([0.2, 1, 1, 5, 0.01], 12), random.integers(20, 120, 12))
    for number, pace in enumerate(paces[:560]):
        now_ns += round(pace * scans * 1e9 / rate)
        times = (number * scans + np.arange(scans)) / rate
        data = pack(made, [codes_of(current(times, HERTZ, 10.0))] * 3)
        for reading in metering.feed(data, now_ns):
            assert reading.window_seconds > 0.4
            assert reading.amperes(L1) == pytest.approx(10.0, rel=0.1)


@pytest.mark.parametrize("rate", [200.0, 200.5])
def test_without_timestamps_the_slowest_adc_is_measured(rate: float) -> None:
    """Steered towards the line of the reads, its scans are a little more than 5 ms apart."""
    made, random = hat_format(rate=rate, timestamp=False), np.random.default_rng(3)
    codes = codes_of(current(np.arange(30 * rate) / rate, HERTZ, 10.0))
    metering, readings = metering_of(made), []
    for second in range(1, 30):
        part = codes[int((second - 1) * rate) : int(second * rate)]
        read_ns = START_NS + round((second + abs(random.normal(0, 3e-3))) * 1e9)
        readings += metering.feed(pack(made, [part] * 3), read_ns)
    assert len(readings) >= 26
    assert metering.timeline.clock_fault is None


def test_reads_without_time_between_them_give_nothing() -> None:
    made = hat_format(timestamp=False)
    metering, readings = metering_of(made), []
    codes = codes_of(current(np.arange(400) / RATE, HERTZ, 10.0))
    for number in range(1, 100):
        # The time of the reads stands still for 4 s of scans, then goes on.
        now_ns = START_NS + 100_000_000 * (min(number, 30) + max(0, number - 70))
        readings += metering.feed(pack(made, [codes] * 3), now_ns)
        assert not 31 <= number <= 70 or len(readings) <= 4
        assert all(reading.end_ns <= now_ns for reading in readings)
    assert len(readings) >= 3


@pytest.mark.parametrize("lateness", [on_time, jitter])
@pytest.mark.parametrize("second", [5500, 6000, 7000, 8500])
def test_after_two_stalls_in_a_second_comes_a_fresh_one(second: int, lateness: Lateness) -> None:
    metering, readings = run(6.1, [(4800, 400), (second, 400)], lateness)
    assert metering.timeline.lost_scans_total == 800
    assert all(reading.lost_scans == 0 for reading in readings)
    ends = [seconds_of(reading) for reading in readings]
    back = (second + 400) / RATE
    assert next(end for end in ends if end > 1) == pytest.approx(back + 0.99, abs=0.015)
    assert np.diff(ends[1:]).max() < 1.03


@pytest.mark.parametrize("late", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_even_stamps_late_by_periods_at_a_read_s_end_are_no_loss(count: int, late: int) -> None:
    made = hat_format()
    for end in range(7955, 7985):
        stamps = GOOD[:12100].copy()
        stamps[end - count : end] += late * 250_000
        codes = codes_of(current(TIMES[:12100], HERTZ, 10.0))
        metering = metering_of(made)
        data = pack(made, [codes] * 3, stamps)
        metering.feed(data[: end * made.scan_bytes])
        metering.feed(data[end * made.scan_bytes :])
        assert metering.timeline.lost_scans_total == 0


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_a_driver_held_up_does_not_turn_the_line_of_uneven_stamps(seed: int) -> None:
    rate, random = 200, np.random.default_rng(seed)
    made, scan = hat_format(rate=rate), np.arange(20 * rate)
    held_ns = (30 - scan % (3 * rate)) * 5e6  # 150 ms every three seconds
    times = scan / rate
    stamps = stamps_of(times, np.maximum(random.uniform(0, 1e7, len(scan)), held_ns))
    readings = metering_of(made).feed(
        pack(made, [codes_of(current(times, HERTZ, 10.0))] * 3, stamps)
    )
    assert len(readings) >= 19
    # Unknown, until the line is known well enough.
    known = [reading.frequency_hertz for reading in readings if reading.frequency_hertz]
    assert len(known) >= 13
    assert known == pytest.approx([HERTZ] * len(known), abs=0.015)


@pytest.mark.parametrize("part", [400, 1000, 2000])
def test_without_timestamps_a_backlog_read_in_parts_is_no_loss(part: int) -> None:
    made = hat_format(timestamp=False)
    codes = codes_of(current(np.arange(20 * RATE) / RATE, HERTZ, 10.0))
    metering, readings, begin = metering_of(made), [], 0
    ms = 1_000_000
    for at_ms in range(100, 20_000, 100):
        if 10_000 <= at_ms < 11_000:
            continue
        end = at_ms * RATE // 1000
        # The backlog comes in reads a millisecond apart.
        for number, first in enumerate(range(begin, end, part)):
            data = pack(made, [codes[first : min(first + part, end)]] * 3)
            readings += metering.feed(data, START_NS + (at_ms + number) * ms)
        begin = end
    assert metering.timeline.lost_scans_total == 0
    assert len(readings) >= 18


def test_a_reading_that_cannot_be_complete_yet_is_due_after_the_newest_scan() -> None:
    made = hat_format()
    kept = (TIMES < 1.5) | (TIMES >= 2.0625)
    codes = codes_of(current(TIMES, HERTZ, 10.0))[kept]
    data, metering = pack(made, [codes] * 3, GOOD[kept]), metering_of(made)
    size = made.scan_bytes
    metering.feed(data[: 6000 * size])
    assert metering.timeline.due_ns == pytest.approx(START_NS + 1_990_000_000, abs=15_000_000)
    for begin, end in pairwise((6000, 6001, 6100, 6200)):
        metering.feed(data[begin * size : end * size])
        assert metering.timeline.due_ns == GOOD[kept][end - 1] + 7_500_000


@pytest.mark.parametrize(
    ("reported", "fault"),
    [(0, False), (3300, True), (3360, False), (4960, False), (5050, True)],
)
def test_a_reported_rate_may_be_off_by_a_fifth(reported: float, fault: bool) -> None:
    made = hat_format(said_rate=reported)
    metering = metering_of(made)
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, GOOD)
    assert metering.timeline.rate_fault is None
    metering.feed(data[: 3000 * made.scan_bytes])
    assert metering.timeline.rate_fault is None
    metering.feed(data[3000 * made.scan_bytes :])
    assert (metering.timeline.rate_fault is not None) == fault


@pytest.mark.parametrize(("lost", "readings"), [(198, 3), (202, 2)])
def test_a_window_that_lost_more_than_a_twentieth_gives_no_reading(
    lost: int, readings: int
) -> None:
    metering, found = run(3.04, [(5000, lost)])
    assert metering.timeline.lost_scans_total == lost
    assert len(found) == readings
    assert sum(reading.lost_scans for reading in found) == (lost if readings == 3 else 0)


@pytest.mark.parametrize(("late_ms", "waits"), [(4.9, False), (5.1, True)])
def test_a_reading_is_due_later_after_a_stamp_that_is_late(late_ms: float, waits: bool) -> None:
    made = hat_format()
    stamps = GOOD.copy()
    stamps[5000] += round(late_ms * 1e6)
    metering = metering_of(made)
    data = pack(made, [codes_of(current(TIMES, HERTZ, 10.0))] * 3, stamps)
    metering.feed(data[: 5001 * made.scan_bytes])
    due_ns = metering.timeline.due_ns
    assert due_ns is not None
    assert due_ns - START_NS == pytest.approx(2.045e9 if waits else 1.985e9, abs=15e6)
    metering.feed(data[5001 * made.scan_bytes : 5002 * made.scan_bytes])
    assert metering.timeline.due_ns == pytest.approx(START_NS + 1.985e9, abs=15e6)


@pytest.mark.parametrize("hertz", [50.0, 50.25, 60.0])
def test_a_reading_is_complete_with_the_scan_before_it_is_due(hertz: float) -> None:
    """At a cycle boundary, with half a millisecond for a mains frequency that moves."""
    made = hat_format()
    data = pack(made, [codes_of(current(TIMES, hertz, 10.0))] * 3, GOOD)
    metering, size, begin = metering_of(made), made.scan_bytes, 0
    assert metering.timeline.due_ns is None
    metering.feed(data[:size])
    assert metering.timeline.due_ns == START_NS + 1_000_000_000
    ends = [START_NS]
    for number in range(5):
        metering.feed(data[max(size, begin * size) : (begin + 3000) * size])
        due_ns = metering.timeline.due_ns
        assert due_ns is not None
        assert due_ns <= START_NS + (number + 1) * 1_000_000_000
        if number:
            cycles = (due_ns - 500_000 - ends[-1]) * hertz / 1e9
            on_second = due_ns == START_NS + (number + 1) * 1_000_000_000
            assert on_second or cycles == pytest.approx(round(cycles), abs=1e-3)
        last = int(np.searchsorted(GOOD, due_ns - 2000))
        assert metering.feed(data[(begin + 3000) * size : (last - 1) * size]) == []
        (reading,) = metering.feed(data[(last - 1) * size : last * size])
        ends.append(reading.end_ns)
        begin = last


@pytest.mark.parametrize("rate", [400, RATE])
@pytest.mark.parametrize("change", [0.85, 0.9, 1.1, 1.15])
@pytest.mark.parametrize("after", [0.3, 0.5, 0.7])
def test_an_adc_whose_rate_settles_in_its_first_second_is_measured(
    after: float, change: float, rate: int
) -> None:
    """By the line of the first second its first scan is late: nothing was lost before it."""
    made = hat_format(rate=rate)
    steps = np.concatenate(
        [np.ones(round(after * rate)), np.full(rate // 2, change), np.full(8 * rate, 0.98)]
    )
    times = np.cumsum(steps) / rate
    readings = metering_of(made).feed(
        pack(made, [codes_of(current(times, HERTZ, 10.0))] * 3, stamps_of(times))
    )
    assert len(readings) >= 6
    for reading in readings[2:]:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=1e-2)


@pytest.mark.parametrize("lost", [1, 60, 150])
@pytest.mark.parametrize("where", [3999, 4000, 4001, 8000])
def test_scans_lost_at_the_very_end_of_a_window_are_counted(where: int, lost: int) -> None:
    """Without a load a window ends at its second, with the last scan before the gap."""
    made = hat_format()
    kept = (np.arange(len(GOOD)) < where) | (np.arange(len(GOOD)) >= where + lost)
    metering = metering_of(made)
    data = pack(made, [np.full(kept.sum(), 32768)] * 3, GOOD[kept])
    readings = metering.feed(data[: where * made.scan_bytes])
    readings += metering.feed(data[where * made.scan_bytes :])
    assert metering.timeline.lost_scans_total == lost
    assert sum(reading.lost_scans for reading in readings) == lost
    assert len(readings) == 6


@pytest.mark.parametrize("phase", np.linspace(0.05, 0.95, 19).round(2))
@pytest.mark.parametrize(
    ("before", "after"), [(4000, 3000), (4000, 5500), (4000, 1000), (4000, 250)]
)
def test_scans_of_another_rate_are_soon_no_losses_and_their_timestamps_good(
    before: int, after: int, phase: float
) -> None:
    form = hat_format()
    first = np.arange((3 + phase) * before) / before
    times = np.concatenate((first, first[-1] + np.arange(1, 12 * after + 1) / after))
    codes = [codes_of(current(times, 50, amperes)) for amperes in (24, 10, 3)]
    metering, data = metering_of(form), pack(form, codes, stamps_of(times))
    size = 1000 * form.scan_bytes
    readings = [
        reading
        for start in range(0, len(data), size)
        for reading in metering.feed(data[start : start + size])
    ]
    # None, unless a window has too few scans of the new rate to know it.
    assert metering.timeline.lost_scans_total < 2 * before
    if phase < 0.8 and after > before / 2:
        assert metering.timeline.lost_scans_total == 0
    assert metering.timeline.clock_fault is None
    assert [round(reading.amperes(Phase.L1), 1) for reading in readings[-3:]] == [24.0] * 3
    assert readings[-1].end_ns - START_NS > (times[-1] - 1.1) * 1e9
    assert len(readings) >= 11
