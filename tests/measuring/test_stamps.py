# SPDX-License-Identifier: Apache-2.0
"""Which timestamps are rejected, exactly at the limits, and stamps made from the times of reads."""

from collections.abc import Sequence

import numpy as np
import pytest
from signals import START_NS, Array, hat_format, metering_of, pack

from csp1d.measuring.metering import Metering
from csp1d.measuring.observations import Reads

MS = 1_000_000
SECOND = 1000 * MS
HOUR = 3600 * SECOND
COUNTED = "; scans are timed by count instead"


def feed(metering: Metering, stamps: Sequence[int] | Array, read_ns: int | None) -> None:
    """Scans with these timestamps; their codes do not matter here."""
    codes = np.full(len(stamps), 32768)
    metering.feed(pack(hat_format(), [codes] * 3, np.asarray(stamps, np.int64)), read_ns)


@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        # Relative to the read.
        ([-2, -1, 10 * MS], None),
        ([-2, -1, 10 * MS + 1], "they are later than the read"),
        ([-HOUR, 0], None),
        ([-HOUR - 1, 0], "they are hours old"),
        ([-HOUR, 0, -50 * MS, -1], None),
        ([-HOUR, 0, -50 * MS - 1, -1], "they go back in time"),
        # Of two reasons, the first one.
        ([0, -2 * HOUR], "they go back in time"),
        ([-2 * HOUR, 0], "they are hours old"),
        ([2 * HOUR, 0], "they are later than the read"),
        ([-10, -10, -10], None),
    ],
)
def test_timestamps_are_held_against_the_time_of_the_read(
    stamps: list[int], reason: str | None
) -> None:
    metering = metering_of(hat_format())
    feed(metering, [START_NS + stamp for stamp in stamps], START_NS)
    assert metering.timeline.clock_fault == (reason and f"not used because {reason}{COUNTED}")
    assert metering.scans_total == len(stamps)


@pytest.mark.parametrize("split", [1, 2])
@pytest.mark.parametrize(
    ("stamps", "reason"),
    [
        ([0, HOUR, 2 * HOUR], None),
        ([0, 1, HOUR + 2], "they jump ahead by hours"),
        ([0, -50 * MS, 1], None),
        ([0, 10, -50 * MS + 9], "they go back in time"),
        ([0, 10, -50 * MS + 10], None),
        ([2**62 - 2, 2**62 - 1], None),
        ([2**62 - 1, 2**62], "they are later than the read"),
        ([-(2**62), -(2**62) + 1], None),
        ([-(2**62) - 1, -(2**62) + 1], "they are hours old"),
    ],
)
def test_timestamps_of_a_replay_are_held_against_those_before(
    stamps: list[int], reason: str | None, split: int
) -> None:
    metering = metering_of(hat_format())
    for part in (stamps[:split], stamps[split:]):
        feed(metering, part, None)
    assert metering.timeline.clock_fault == (reason and f"not used because {reason}{COUNTED}")


@pytest.mark.parametrize(
    ("speeds", "every_ms", "scans", "rejected_at", "reason"),
    [
        ([1.0] * 12, 250, 16, None, ""),
        ([1.2] * 12, 250, 16, None, ""),
        ([0.8] * 12, 250, 16, None, ""),
        ([1.21] * 12, 250, 16, 3, "they advance 0.302 s in 0.25 s"),
        ([0.79] * 12, 250, 16, 3, "they advance 0.198 s in 0.25 s"),
        ([0.79] * 12, 1000, 16, 3, "they advance 0.79 s in 1 s"),
        # Reads less than 250 ms apart are taken together, and those of fewer than 16 scans.
        ([0.5] * 12, 125, 16, 6, "they advance 0.125 s in 0.25 s"),
        ([0.5] * 12, 249, 16, 6, "they advance 0.249 s in 0.498 s"),
        ([0.5] * 12, 500, 15, 6, "they advance 0.5 s in 1 s"),
        # Two in a row are not enough; one that is right starts the count again.
        ([1, 0.5, 0.5, 1, 0.5, 0.5, 1, 1, 1, 1], 1000, 16, None, ""),
        ([1, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 1, 1, 1], 1000, 16, 7, "they advance 0.5 s in 1 s"),
    ],
)
def test_timestamps_run_as_fast_as_the_reads(
    speeds: list[float], every_ms: int, scans: int, rejected_at: int | None, reason: str
) -> None:
    metering = metering_of(hat_format())
    stamp_ns, read_ns = START_NS - 10 * SECOND, START_NS
    feed(metering, [stamp_ns], read_ns)
    for number, speed in enumerate(speeds, 1):
        read_ns += every_ms * MS
        stamp_ns += round(speed * every_ms * MS)
        # Fewer than 16 scans have no speed.
        feed(metering, [stamp_ns - age_ns for age_ns in range(scans - 1, -1, -1)], read_ns)
        if rejected_at and number >= rejected_at:
            assert metering.timeline.clock_fault == f"not used because {reason}{COUNTED}"
        else:
            assert metering.timeline.clock_fault is None


def test_without_a_rate_and_a_time_of_the_read_the_remedy_is_the_capture() -> None:
    stamps = [START_NS, START_NS - SECOND]
    for said_rate, read_ns in ((0, None), (0, START_NS), (4000, None)):
        made = hat_format(said_rate=said_rate)
        metering = metering_of(made)
        metering.feed(pack(made, [np.full(2, 32768)] * 3, np.array(stamps)), read_ns)
        assert metering.timeline.clock_fault == "not used because they go back in time" + (
            COUNTED
            if said_rate or read_ns
            else ", and the rate of the ADC is unknown; set sampling_frequency_hz in the capture"
            " to time scans by count"
        )


@pytest.mark.parametrize(
    ("first", "then", "reason"),
    [
        (200.0, 200.0, None),
        (4000.0, 4760.0, None),
        (4000.0, 4850.0, None),
    ],
)
def test_timestamps_keep_to_a_rate(first: float, then: float, reason: str | None) -> None:
    made = hat_format(said_rate=0)
    metering = metering_of(made)
    times = np.concatenate([np.arange(0, 3, 1 / first), 3 + np.arange(0, 6, 1 / then)])
    feed(metering, START_NS + np.rint(times * 1e9).astype(np.int64), START_NS + 9 * SECOND)
    assert metering.timeline.clock_fault == (reason and f"not used because {reason}{COUNTED}")


# The clock of the reads.


def followed(reads: Sequence[tuple[float, int]]) -> tuple[Reads, list[int]]:
    """The clock after reads (ms after the start, scans), and what it counted as lost at each."""
    clock, position, lost = Reads(), 0, []
    for at_ms, scans in reads:
        read_ns = START_NS + round(at_ms * MS)
        lost.append(clock.follow(position + scans, scans, read_ns, read_ns))
        position += scans + lost[-1]
    return clock, lost


def ms_at(reads: Reads, position: int) -> float:
    assert reads.clock
    return (reads.clock.time_ns(position) - START_NS) / MS


def test_three_reads_over_a_second_give_the_rate() -> None:
    """Between two, a stall would look like a lower rate."""
    for reads in (
        [(0, 100), (1000, 1000)],
        [(0, 100), (500, 500), (999, 499)],
        [(0, 100), (500, 500), (1000, 300)],
        [(0, 100), (1000, 300), (2000, 1000)],
    ):
        assert followed(reads)[0].clock is None
    clock, _ = followed([(0, 100), (500, 500), (1000, 500)])
    assert ms_at(clock, 1100) == pytest.approx(1000)
    assert ms_at(clock, 600) == pytest.approx(500)


def test_reads_less_than_a_quarter_of_a_second_apart_are_one_point() -> None:
    clock, _ = followed([(0, 100), (249, 249), (1000, 751), (2000, 1000)])
    assert clock.clock
    assert clock.clock.period_ns == pytest.approx(MS)
    assert not clock.add(3000, START_NS + 2249 * MS)
    assert clock.add(3000, START_NS + 2250 * MS)


def test_the_clock_keeps_to_the_line_of_early_reads() -> None:
    """Two of three reads are 40 ms late, but a sample is not taken later than its read."""
    reads = [(1000 * number + (40 if number % 3 else 0), 1000) for number in range(30)]
    for count in range(8, 31):
        clock, lost = followed(reads[:count])
        assert sum(lost) == 0
        assert ms_at(clock, 1000 * count) <= reads[count - 1][0]
        assert ms_at(clock, 1000 * count) == pytest.approx(1000 * (count - 1), abs=45)


@pytest.mark.parametrize(("lag_ms", "reads"), [(8, None), (12, 5), (90, 5), (110, 2), (700, 2)])
def test_a_lag_that_lasts_is_a_loss_of_whole_scans(lag_ms: int, reads: int | None) -> None:
    """Reads of 250 ms; below 10 ms the line just follows slowly."""
    late = [lag_ms if number >= 40 else 0 for number in range(60)]
    clock, lost = followed([(250 * number + late[number], 250) for number in range(60)])
    expected = [0] * 60
    if reads:
        expected[39 + reads] = lag_ms
        assert ms_at(clock, 60 * 250) == pytest.approx(59 * 250)
    assert lost == expected


def test_a_lag_that_grows_is_another_rate() -> None:
    reads = [(1000 * number, 1000) for number in range(8)]
    reads += [(1000 * number, 900) for number in range(8, 20)]
    forgotten = [count for count in range(3, 21) if followed(reads[:count])[0].clock is None]
    assert forgotten == [12, 13, 14]
    clock, lost = followed(reads)
    assert sum(lost) == 0
    assert clock.clock
    assert clock.clock.period_ns == pytest.approx(MS / 0.9)


def test_reads_far_before_their_line_are_another_rate() -> None:
    reads = [(1000 * number, 1000) for number in range(8)] + [(8000, 1101)]
    assert followed(reads)[0].clock is None
    assert ms_at(followed([*reads[:8], (8000, 1090)])[0], 9090) == pytest.approx(8000)


@pytest.mark.parametrize("lost_at", [None, 30])
def test_the_line_follows_an_adc_that_drifts(lost_at: int | None) -> None:
    """By 0.5 % in 200 reads, of which the last 64 make the line."""
    clock, at_ns, position = Reads(), float(START_NS), 0
    for number in range(260):
        at_ns += SECOND * (1 + 25e-6 * number)
        scans = 0 if number == lost_at else 1000
        position += scans + clock.follow(position + scans, scans, round(at_ns), round(at_ns))
        if number >= 100:
            assert clock.clock
            assert clock.clock.period_ns == pytest.approx(MS * (1 + 25e-6 * number), rel=1e-3)


@pytest.mark.parametrize("jitter_ms", [0.1, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_error_of_the_period_is_bounded_by_the_spread_of_the_reads(
    jitter_ms: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    late_ms = random.exponential(jitter_ms, 100)
    reads = [(1000 * number + late_ms[number], 1000) for number in range(100)]
    known = 0
    for count in range(3, 100):
        if (clock := followed(reads[:count])[0].clock) is None:
            continue  # a read more than 100 ms late could hide a loss
        assert abs(clock.period_ns / MS - 1) <= clock.error
        known += clock.error <= 2e-4
    assert known > (80 if jitter_ms < 1 else 50 if jitter_ms < 5 else -1)


def test_scans_without_timestamps_and_rate_have_no_time() -> None:
    with pytest.raises(ValueError, match="nor a known rate") as refusal:
        metering_of(hat_format(said_rate=0, timestamp=False))
    assert str(refusal.value) == (
        "the scans have neither timestamps nor a known rate; set sampling_frequency_hz in [adc]"
        " or in the capture to the rate of the ADC"
    )


def test_a_replay_without_timestamps_begins_at_zero() -> None:
    made = hat_format(timestamp=False)
    metering = metering_of(made)
    (reading,) = metering.feed(pack(made, [np.full(4000, 32768)] * 3))
    assert reading.end_ns == pytest.approx(SECOND, abs=1)
    assert reading.window_seconds == pytest.approx(1, abs=1e-9)


def test_timestamps_are_used_for_each_read_until_they_are_rejected() -> None:
    """A reading ends by the timestamps, here 40 ms before the reads."""
    made = hat_format()
    metering, ends = metering_of(made), []
    scans = 400
    for number in range(1, 31):
        read_ns = START_NS + number * 100 * MS
        stamps = read_ns - 40 * MS + 250_000 * np.arange(-scans, 0)
        data = pack(made, [np.full(scans, 32768)] * 3, stamps)
        ends += [reading.end_ns for reading in metering.feed(data, read_ns)]
    assert ends == pytest.approx(
        [START_NS + second * SECOND - 40 * MS for second in (1, 2, 3)], abs=2
    )


def test_a_large_read_is_decoded_in_parts_with_one_line_of_stamps() -> None:
    """Without timestamps: the stamps of a backlog of several seconds follow each other."""
    clock_free = hat_format(timestamp=False)
    metering = metering_of(clock_free)
    ends = []
    for second, count in ((0, 4000), (1, 4000), (2, 4000), (9, 28_000), (10, 4000)):
        data = pack(clock_free, [np.full(count, 32768)] * 3)
        ends += [reading.end_ns for reading in metering.feed(data, START_NS + second * SECOND)]
    assert metering.timeline.lost_scans_total == 0
    assert np.diff(ends) == pytest.approx(SECOND, rel=1e-3)
    assert ends[-1] == pytest.approx(START_NS + 10 * SECOND, abs=SECOND)
