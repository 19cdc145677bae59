# SPDX-License-Identifier: Apache-2.0
"""The request line: what counts as a request, and what edges may cost."""

import pytest

from csp1d.p1.request import RequestFilter

MS = 1_000_000


MOVED, STILL = 1, 0
HIGH, LOW = True, False


# Looks at a time in ms: how many edges were told since the last one, and the level.
@pytest.mark.parametrize(
    ("debounce_ms", "looks", "expected"),
    [
        (0, [(0, STILL, HIGH)], [HIGH]),
        (0, [(0, STILL, LOW)], []),
        (0, [(0, MOVED, HIGH), (10, STILL, HIGH)], [HIGH]),
        # High again: it was low in between, so the request is another one.
        (0, [(0, MOVED, HIGH), (10, 2, HIGH)], [HIGH, LOW, HIGH]),
        (0, [(0, MOVED, HIGH), (10, 16, HIGH), (20, STILL, HIGH)], [HIGH, LOW, HIGH]),
        # Low again: whatever was asked for is not wanted any more.
        (0, [(0, 2, LOW)], []),
        # The level was read before its edge was told: the edge is no news.
        (0, [(0, STILL, HIGH), (1, MOVED, HIGH), (9, 2, HIGH)], [HIGH, LOW, HIGH]),
        (0, [(0, MOVED, HIGH), (5, STILL, LOW), (6, MOVED, LOW)], [HIGH, LOW]),
        # Of a short fall one edge was told before the level was read, the other after.
        (0, [(0, MOVED, HIGH), (5, MOVED, HIGH), (6, MOVED, HIGH)], [HIGH, LOW, HIGH]),
        (5, [(0, MOVED, HIGH), (5, STILL, HIGH)], [HIGH]),
        (5, [(0, MOVED, HIGH), (4, STILL, HIGH)], []),
        (5, [(0, MOVED, HIGH), (3, MOVED, LOW), (5, STILL, LOW), (9, STILL, LOW)], []),
        # Edges start the time anew.
        (5, [(0, MOVED, HIGH), (3, MOVED, HIGH), (6, STILL, HIGH)], []),
        (5, [(0, MOVED, HIGH), (3, MOVED, HIGH), (8, STILL, HIGH)], [HIGH]),
        # A glitch is none.
        (5, [(0, MOVED, HIGH), (5, STILL, HIGH), (20, MOVED, HIGH)], [HIGH]),
        (
            5,
            [(0, MOVED, HIGH), (5, STILL, HIGH), (50, MOVED, LOW), (55, STILL, LOW)],
            [HIGH, LOW],
        ),
    ],
)
def test_levels_that_count(
    debounce_ms: float, looks: list[tuple[int, int, bool]], expected: list[bool]
) -> None:
    line = RequestFilter(debounce_ms)
    seen = []
    for at_ms, edges, level in looks:
        seen += line.update(edges, level, at_ms * MS)
    assert seen == expected


def test_debouncing_asks_to_be_called_when_the_level_has_lasted() -> None:
    line = RequestFilter(5)
    line.update(MOVED, HIGH, 100 * MS)
    assert line.wake_ns == 105 * MS
    assert line.update(STILL, HIGH, 105 * MS) == [HIGH]
    assert line.wake_ns is None


@pytest.mark.parametrize(("edges_per_second", "looked_at_most"), [(100, 1000), (2000, 1100)])
def test_a_storm_of_edges_is_looked_at_a_bounded_number_of_times(
    edges_per_second: int, looked_at_most: int
) -> None:
    line = RequestFilter()
    looks, level = 0, False
    for number in range(10 * edges_per_second):
        level = not level
        now_ns = number * 1000 * MS // edges_per_second
        if line.listening or (line.wake_ns is not None and now_ns >= line.wake_ns):
            line.update(MOVED, level, now_ns)
            looks += 1
    assert looks <= looked_at_most
    # Nor is it lost sight of.
    assert looks >= min(10 * edges_per_second, looked_at_most * 0.9)
    # What a charge point does is not a storm: each of its edges is looked at.
    assert edges_per_second > 100 or looks == 10 * edges_per_second
