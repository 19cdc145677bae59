# SPDX-License-Identifier: Apache-2.0
"""Which timestamps are rejected, exactly at the limits, and stamps made from the times of reads."""

from collections.abc import Sequence

import numpy as np
import pytest
from signals import START_NS, Array, hat_format, metering_of, pack

from csp1d.measuring.counting import ReadClock
from csp1d.measuring.metering import Metering
from csp1d.measuring.stamping import Stamping

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
    ("speeds", "every_ms", "rejected_at", "reason"),
    [
        ([1.0] * 12, 250, None, ""),
        ([1.2] * 12, 250, None, ""),
        ([0.8] * 12, 250, None, ""),
        ([1.21] * 12, 250, 3, "they advance 0.302 s in 0.25 s"),
        ([0.79] * 12, 250, 3, "they advance 0.198 s in 0.25 s"),
        ([0.79] * 12, 1000, 3, "they advance 0.79 s in 1 s"),
        # Reads less than 250 ms apart are taken together.
        ([0.5] * 12, 125, 6, "they advance 0.125 s in 0.25 s"),
        ([0.5] * 12, 249, 6, "they advance 0.249 s in 0.498 s"),
        # Two in a row are not enough; one that is right starts the count again.
        ([1, 0.5, 0.5, 1, 0.5, 0.5, 1, 1, 1, 1], 1000, None, ""),
        ([1, 0.5, 0.5, 1, 0.5, 0.5, 0.5, 1, 1, 1], 1000, 7, "they advance 0.5 s in 1 s"),
    ],
)
def test_timestamps_run_as_fast_as_the_reads(
    speeds: list[float], every_ms: int, rejected_at: int | None, reason: str
) -> None:
    metering = metering_of(hat_format())
    stamp_ns, read_ns = START_NS - 10 * SECOND, START_NS
    feed(metering, [stamp_ns], read_ns)
    for number, speed in enumerate(speeds, 1):
        read_ns += every_ms * MS
        stamp_ns += round(speed * every_ms * MS)
        feed(metering, [stamp_ns - 1, stamp_ns], read_ns)
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
        (199.0, 199.0, "they imply 199 scans per second, not 200 to 10000000"),
        (4000.0, 4760.0, None),
        (4000.0, 4850.0, "they imply 4850 scans per second, not 3200 to 4800"),
    ],
)
def test_timestamps_keep_to_a_rate(first: float, then: float, reason: str | None) -> None:
    made = hat_format(said_rate=0)
    metering = metering_of(made)
    times = np.concatenate([np.arange(0, 3, 1 / first), 3 + np.arange(0, 6, 1 / then)])
    feed(metering, START_NS + np.rint(times * 1e9).astype(np.int64), START_NS + 9 * SECOND)
    assert metering.timeline.clock_fault == (reason and f"not used because {reason}{COUNTED}")


# Stamps from the times of reads.


def stamped(
    reads: Sequence[tuple[float, int]], every: bool = True
) -> list[tuple[float, float] | None]:
    """(first, spacing) in ms after the start, for reads (ms, scans), each asked for or the last."""
    clock, found = ReadClock(), []
    for number, (at_ms, scans) in enumerate(reads, 1):
        clock.add_read(scans, START_NS + round(at_ms * MS))
        if every or number == len(reads):
            stamp = clock.stamp_last(scans)
            found.append(stamp and ((stamp[0] - START_NS) / MS, stamp[1] / MS))
    return found


def test_reads_a_second_apart_give_the_rate() -> None:
    assert stamped([(0, 100), (999, 999)]) == [None, None]
    assert stamped([(0, 100), (1000, 1000)])[1] == pytest.approx((0, 1))
    assert stamped([(0, 100), (500, 500), (1000, 500)])[2] == pytest.approx((500, 1))


@pytest.mark.parametrize("spacing_ms", [1e-4, 5.0])
def test_reads_give_the_fastest_and_the_slowest_rate(spacing_ms: float) -> None:
    count = round(1000 / spacing_ms)
    assert stamped([(0, 1), (1000, count)])[1] == pytest.approx((0, spacing_ms))
    too = count + (1 if spacing_ms < 1 else -1)
    assert stamped([(0, 1), (1000, too)])[1] is None


def test_stamps_follow_each_other_and_keep_to_the_line_of_early_reads() -> None:
    reads = [(1000 * number + (40 if number % 3 else 0), 1000) for number in range(30)]
    found = stamped(reads)
    assert found[0] is None
    ends: list[float] = []
    for stamp, (at_ms, scans) in zip(found[1:], reads[1:], strict=True):
        assert stamp is not None
        first, spacing = stamp
        assert not ends or first == pytest.approx(ends[-1])
        assert 0.99 * 0.95 < spacing < 1.01 * 1.05
        ends.append(first + scans * spacing)
        assert ends[-1] <= at_ms + 1e-3
    assert ends[-1] == pytest.approx(reads[-1][0], abs=45)


@pytest.mark.parametrize("lag_ms", [8, 12, 200])
def test_a_lag_that_lasts_is_a_loss_of_whole_scans(lag_ms: int) -> None:
    """The second read that lags shows it; below 10 ms the line just follows slowly."""
    before = [(1000 * number, 1000) for number in range(5)]
    found = stamped(
        before + [(1000 * number, 1000 - (lag_ms if number == 5 else 0)) for number in range(5, 8)]
    )
    firsts = [stamp[0] for stamp in found[1:] if stamp]
    jumps = np.diff(firsts) - 1000
    assert abs(jumps[:4]).max() <= max(10, lag_ms) + 1e-6
    if lag_ms > 10:
        assert firsts[-1] == pytest.approx(6000, abs=1)


@pytest.mark.parametrize("lost_at", [None, 30])
def test_the_line_follows_an_adc_that_drifts(lost_at: int | None) -> None:
    """By 0.5 % in 200 reads, of which the last 64 make the line."""
    clock, at_ns = ReadClock(), float(START_NS)
    error: list[float | None] = []
    for number in range(260):
        at_ns += SECOND * (1 + 25e-6 * number)
        clock.add_read(0 if number == lost_at else 1000, round(at_ns))
        stamp = clock.stamp_last(0 if number == lost_at else 1000)
        error.append(stamp and stamp[1] / (MS * (1 + 25e-6 * number)) - 1)
    assert all(part is not None and abs(part) < 1e-3 for part in error[100:])


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


@pytest.mark.parametrize("part", [1000, 250])
def test_scans_after_a_bad_timestamp_are_stamped_up_to_the_read(part: int) -> None:
    stamping = Stamping(hat_format())
    for second in range(4):
        read_ns = START_NS + second * SECOND
        stamps = read_ns + MS * np.arange(-999, 1)
        if second == 3:
            stamps[600:] -= 10 * SECOND
        stamping.start_read(1000, read_ns)
        found: list[int] = []
        while len(found) < 1000:
            rest = stamps[len(found) :][:part]
            new = stamping.next_stamps(rest, len(rest))
            assert new is not None
            found += new.tolist()
        assert (stamping.fault is not None) == (second == 3)
    assert found[:600] == stamps[:600].tolist()
    assert found[600:] == (read_ns + MS * np.arange(-400, 0)).tolist()
