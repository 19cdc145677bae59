# SPDX-License-Identifier: Apache-2.0
"""The last ten seconds of scans: how many are kept, and where they are in the stream."""

import pytest
from signals import hat_format

from csp1d.measuring.recent import MOST_BYTES, RecentScans
from csp1d.units import SECOND_NS

FORMAT = hat_format()
SIZE = FORMAT.scan_bytes


def scan(number: int) -> bytes:
    return number.to_bytes(SIZE, "little")


def read(first: int, count: int) -> bytes:
    return b"".join(scan(number) for number in range(first, first + count))


def numbers(recent: RecentScans, first: int | None = None) -> list[int] | None:
    parts = recent.since(recent.first if first is None else first)
    if parts is None:
        return None
    data = b"".join(parts)
    return [
        int.from_bytes(data[start : start + SIZE], "little") for start in range(0, len(data), SIZE)
    ]


def kept(seconds: float, scans_per_second: int, read_seconds: float = 1.0) -> RecentScans:
    """What is kept after this time of regular reads."""
    recent, count = RecentScans(FORMAT, 0), round(scans_per_second * read_seconds)
    for turn in range(round(seconds / read_seconds)):
        now_ns = round((turn + 1) * read_seconds * SECOND_NS)
        recent = recent.append(read(turn * count, count), now_ns)
    return recent


@pytest.mark.parametrize("read_seconds", [0.1, 1.0, 2.5])
def test_ten_seconds_are_kept_and_at_most_one_read_more(read_seconds: float) -> None:
    recent = kept(60, 20, read_seconds)
    assert 200 <= recent.scans <= 200 + 20 * read_seconds
    assert recent.first + recent.scans == 1200
    assert numbers(recent) == list(range(recent.first, 1200))


def test_all_is_kept_before_ten_seconds_have_passed() -> None:
    assert kept(0, 20).scans == 0
    assert numbers(kept(0, 20)) == []
    assert numbers(kept(7, 20)) == list(range(140))


def test_each_read_is_kept_as_it_was_read() -> None:
    data = read(0, 4000)
    recent = RecentScans(FORMAT, 0).append(data, 1)
    assert recent.reads[0][1] is data


@pytest.mark.parametrize("scans_per_read", [MOST_BYTES // SIZE // 3 + 1, MOST_BYTES // SIZE + 7])
def test_at_most_four_mebibytes_are_kept(scans_per_read: int) -> None:
    recent = RecentScans(FORMAT, 0)
    for turn in range(4):
        recent = recent.append(bytes(scans_per_read * SIZE), turn)
        assert sum(len(data) for _, data in recent.reads) <= MOST_BYTES
    assert recent.scans > MOST_BYTES // SIZE // 2
    assert recent.first + recent.scans == 4 * scans_per_read
    assert len(numbers(recent) or []) == recent.scans


def test_a_length_that_does_not_divide_the_limit_leaves_whole_scans() -> None:
    odd = hat_format(bits=24, timestamp=False)
    assert MOST_BYTES % odd.scan_bytes
    recent = RecentScans(odd, 0).append(bytes(odd.scan_bytes * (MOST_BYTES // 8)), 1)
    assert sum(len(data) for _, data in recent.reads) % odd.scan_bytes == 0


def test_a_follower_gets_each_scan_once() -> None:
    recent, taken = RecentScans(FORMAT, 0), list[int]()
    for turn in range(30):
        recent = recent.append(read(turn * 20, 20), turn * SECOND_NS)
        if turn % 3 == 0:
            new = numbers(recent, len(taken))
            assert new
            taken += new
    assert taken == list(range(28 * 20))


def test_scans_that_are_not_kept_are_told_from_those_to_come() -> None:
    recent = kept(60, 20)
    assert numbers(recent, recent.first - 1) is None
    assert numbers(recent, 1199) == [1199]
    assert numbers(recent, 1200) == []
    assert numbers(recent, 1201) is None


@pytest.mark.parametrize("read_seconds", [0.1, 1.0, 2.5])
def test_the_rate_is_measured(read_seconds: float) -> None:
    assert kept(60, 20, read_seconds).hertz == pytest.approx(20)


def test_the_rate_is_not_known_before_the_reads_span_half_a_second() -> None:
    assert RecentScans(FORMAT, 0).hertz is None
    assert kept(0.5, 20, 0.1).hertz is None
    assert kept(0.6, 20, 0.1).hertz == pytest.approx(20)
    # The first read may hold any time.
    first = RecentScans(FORMAT, 0).append(read(0, 900), 5 * SECOND_NS)
    assert first.append(read(900, 20), 6 * SECOND_NS).hertz == 20


def test_a_value_does_not_change() -> None:
    before = kept(10, 20)
    after = before.append(read(200, 20), 11 * SECOND_NS)
    assert numbers(before) == list(range(200))
    assert numbers(after) == list(range(20, 220))
