# SPDX-License-Identifier: Apache-2.0
"""The request line: the levels that count as requests, and the cost of edges."""

import pytest

from csp1d.p1.request import RequestFilter
from csp1d.units import MS_NS as MS

MOVED, STILL = 1, 0
HIGH, LOW = True, False


# Each reading: time in ms, number of edges reported since the last one, and level.
@pytest.mark.parametrize(
    ("debounce_ms", "readings", "expected"),
    [
        (0, [(0, STILL, HIGH)], [HIGH]),
        (0, [(0, STILL, LOW)], []),
        (0, [(0, MOVED, HIGH), (10, STILL, HIGH)], [HIGH]),
        # High again: it was low in between, so the request is another one.
        (0, [(0, MOVED, HIGH), (10, 2, HIGH)], [HIGH, LOW, HIGH]),
        (0, [(0, MOVED, HIGH), (10, 16, HIGH), (20, STILL, HIGH)], [HIGH, LOW, HIGH]),
        # That counts once.
        (0, [(0, MOVED, HIGH), (10, 2, HIGH), (20, STILL, HIGH)], [HIGH, LOW, HIGH]),
        (0, [(0, MOVED, HIGH), (10, 3, HIGH), (20, STILL, HIGH)], [HIGH, LOW, HIGH]),
        # Low again: the request in between has ended.
        (0, [(0, 2, LOW)], []),
        # The level was read before its edge was reported: the edge is no news.
        (0, [(0, STILL, HIGH), (1, MOVED, HIGH), (9, 2, HIGH)], [HIGH, LOW, HIGH]),
        (0, [(0, MOVED, HIGH), (5, STILL, LOW), (6, MOVED, LOW)], [HIGH, LOW]),
        (0, [(0, STILL, HIGH), (1, 2, HIGH), (2, STILL, HIGH)], [HIGH]),
        # The edge that the level explains is used up.
        (0, [(0, MOVED, HIGH), (5, MOVED, HIGH)], [HIGH]),
        (0, [(0, MOVED, HIGH), (5, MOVED, LOW), (9, MOVED, HIGH), (9, MOVED, HIGH)], [1, 0, 1]),
        # Of a short fall one edge was reported before the level was read, the other after.
        (0, [(0, MOVED, HIGH), (5, MOVED, HIGH), (6, MOVED, HIGH)], [HIGH, LOW, HIGH]),
        # 16 edges may have been more: whether their number is odd says nothing.
        (0, [(0, 15, HIGH), (5, 2, HIGH)], [HIGH, LOW, HIGH]),
        (0, [(0, 16, HIGH), (5, MOVED, HIGH)], [HIGH]),
        (0, [(0, 16, HIGH), (5, MOVED, HIGH), (6, MOVED, HIGH)], [HIGH, LOW, HIGH]),
        (5, [(0, MOVED, HIGH), (5, STILL, HIGH)], [HIGH]),
        (5, [(0, MOVED, HIGH), (4, STILL, HIGH)], []),
        (5, [(0, MOVED, HIGH), (3, MOVED, LOW), (5, STILL, LOW), (9, STILL, LOW)], []),
        # Edges restart the time.
        (5, [(0, MOVED, HIGH), (3, MOVED, HIGH), (6, STILL, HIGH)], []),
        (5, [(0, MOVED, HIGH), (3, MOVED, HIGH), (8, STILL, HIGH)], [HIGH]),
        # A glitch does not count.
        (5, [(0, MOVED, HIGH), (5, STILL, HIGH), (20, MOVED, HIGH)], [HIGH]),
        (5, [(0, STILL, HIGH), (3, STILL, LOW), (4, STILL, HIGH), (8, STILL, HIGH)], []),
        (5, [(0, STILL, HIGH), (3, STILL, LOW), (4, STILL, HIGH), (9, STILL, HIGH)], [HIGH]),
        # A level that lasts counts once.
        (5, [(0, MOVED, HIGH), (5, STILL, HIGH), (9, STILL, HIGH), (14, STILL, HIGH)], [HIGH]),
        (
            5,
            [(0, MOVED, HIGH), (5, STILL, HIGH), (50, MOVED, LOW), (55, STILL, LOW)],
            [HIGH, LOW],
        ),
        # Fractions of a millisecond count.
        (0.5, [(0, MOVED, HIGH), (1, STILL, HIGH)], [HIGH]),
    ],
)
def test_levels_that_count(
    debounce_ms: float, readings: list[tuple[int, int, bool]], expected: list[bool]
) -> None:
    line = RequestFilter(debounce_ms)
    seen = []
    for at_ms, edges, level in readings:
        seen += line.update(edges, level, at_ms * MS)
    assert seen == expected


def test_debouncing_asks_to_be_called_when_the_level_has_lasted() -> None:
    line = RequestFilter(5)
    line.update(MOVED, HIGH, 100 * MS)
    assert line.wake_ns == 105 * MS
    assert line.update(STILL, HIGH, 105 * MS) == [HIGH]
    assert line.wake_ns is None
    # A level that returns before has ended the wait.
    line.update(MOVED, LOW, 200 * MS)
    line.update(STILL, HIGH, 201 * MS)
    assert line.wake_ns is None


def read_at_once(line: RequestFilter, now_ns: int) -> int:
    """How many edges are read before the filter stops listening."""
    count = 0
    while line.listening and count < 100:
        line.update(MOVED, count % 2 == 0, now_ns)
        count += 1
    return count


def test_a_burst_of_fifty_edges_is_read_at_once_and_each_further_one_costs_ten_milliseconds() -> (
    None
):
    line = RequestFilter()
    assert line.wake_ns is None
    assert read_at_once(line, 100 * MS) == 50
    assert line.wake_ns == 110 * MS
    assert read_at_once(line, 110 * MS) == 0
    line.update(STILL, LOW, 110 * MS)
    assert not line.listening
    assert line.wake_ns == 120 * MS
    # Earlier than that costs more.
    line.update(STILL, LOW, 115 * MS)
    assert line.wake_ns == 130 * MS
    # Time gives back what it cost, at most the burst.
    line.update(STILL, LOW, 150 * MS)
    assert line.listening
    assert read_at_once(line, 150 * MS) == 2
    line.update(STILL, LOW, 60_000 * MS)
    assert read_at_once(line, 60_000 * MS) == 49


def test_the_sooner_of_two_reasons_to_read_the_line_counts() -> None:
    line = RequestFilter(5)
    read_at_once(line, 100 * MS)
    line.update(MOVED, HIGH, 100 * MS)
    assert line.wake_ns == 105 * MS
    line = RequestFilter(25)
    read_at_once(line, 100 * MS)
    line.update(MOVED, HIGH, 110 * MS)
    assert line.wake_ns == 120 * MS


@pytest.mark.parametrize(("edges_per_second", "read_at_most"), [(100, 1000), (2000, 1100)])
def test_a_storm_of_edges_is_read_a_bounded_number_of_times(
    edges_per_second: int, read_at_most: int
) -> None:
    line = RequestFilter()
    readings, level = 0, False
    for number in range(10 * edges_per_second):
        level = not level
        now_ns = number * 1000 * MS // edges_per_second
        if line.listening or (line.wake_ns is not None and now_ns >= line.wake_ns):
            line.update(MOVED, level, now_ns)
            readings += 1
    assert readings <= read_at_most
    # Nor is it lost sight of.
    assert readings >= min(10 * edges_per_second, read_at_most * 0.9)
    # What a charge point does is not a storm: each of its edges is read.
    assert edges_per_second > 100 or readings == 10 * edges_per_second
