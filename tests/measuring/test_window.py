# SPDX-License-Identifier: Apache-2.0
"""Sums over windows, against the same sums sample by sample."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp1d.measuring.window import Window, pieces, without_gaps

LOSSES = st.lists(st.sampled_from([0, 0, 0, 0, 1, 3]), min_size=1, max_size=12)
"""Samples lost before each sample."""


def positions_of(first: int, losses: list[int]) -> list[int]:
    return list(itertools.accumulate((lost + 1 for lost in losses), initial=first))


@settings(max_examples=150)
@given(
    first=st.integers(0, 5),
    losses=LOSSES,
    start=st.floats(0, 12) | st.integers(0, 12),
    length=st.floats(0.1, 60) | st.integers(1, 60),
    seed=st.integers(0, 1 << 32),
)
def test_each_sample_counts_by_the_part_of_its_cell_inside(
    first: int, losses: list[int], start: float, length: float, seed: int
) -> None:
    positions, end = positions_of(first, losses), start + length
    inside = [max(0.0, min(at + 1, end) - max(at, start)) for at in positions]
    if not any(inside):
        return
    rows = np.random.default_rng(seed).integers(-3, 4, (2, len(positions)))
    window = Window.of(np.array(positions), start, end)
    begins = [start <= at < end for at in positions]
    assert window.scans == sum(begins)
    assert window.weight == pytest.approx(sum(inside))
    for row, moments in zip(rows, window.moments(rows.astype(float)), strict=True):
        mean = sum(part * code for part, code in zip(inside, row, strict=True)) / sum(inside)
        squares = sum(part * code**2 for part, code in zip(inside, row, strict=True))
        assert moments.mean == pytest.approx(mean, abs=1e-9)
        assert moments.variance == pytest.approx(squares / sum(inside) - mean**2, abs=1e-9)
        assert moments.lowest == min(c for part, c in zip(inside, row, strict=True) if part)
        assert moments.highest == max(c for part, c in zip(inside, row, strict=True) if part)
        counted = [code for is_in, code in zip(begins, row, strict=True) if is_in]
        low, high = window.count_beyond(np.array(row, float), -2.0, 1.0)
        assert low == sum(code <= -2 for code in counted)
        assert high == sum(code >= 1 for code in counted)


def test_a_rail_sample_that_two_windows_share_is_counted_once() -> None:
    """Its cell starts in the first window."""
    row = np.array([0.0, 9.0, 0.0, -9.0, 0.0])
    positions = np.arange(5)
    first, second = Window.of(positions, 0.0, 1.25), Window.of(positions, 1.25, 3.5)
    third = Window.of(positions, 3.5, 5.0)
    assert [w.count_beyond(row, -9.0, 9.0) for w in (first, second, third)] == [
        (0, 1),
        (1, 0),
        (0, 0),
    ]


def test_a_variance_is_never_negative() -> None:
    (moments,) = Window.of(np.arange(3), 0.1, 2.7).moments(np.full((1, 3), 0.1))
    assert moments.variance == pytest.approx(0.0, abs=1e-15)
    assert moments.variance >= 0.0


# Positions of the samples, the samples per cycle, and what fills positions 0, 1, 2 and so on. A
# sample carries its own position, so that the source of a copy shows.
FILLED: dict[str, tuple[list[int], float, list[float]]] = {
    "nothing is lost": ([0, 1, 2, 3], 2.0, [0, 1, 2, 3]),
    "from the cycle before": ([0, 1, 2, 3, 6, 7], 4.0, [0, 1, 2, 3, 0, 1, 6, 7]),
    "from the first sample on": ([0, 1, 4], 2.0, [0, 1, 0, 1, 4]),
    "a loss longer than a cycle": (
        [*range(6), *range(9, 12)],
        2.0,
        [0, 1, 2, 3, 4, 5, 2, 3, 4, 9, 10, 11],
    ),
    "of a cycle between samples": (
        [*range(5), *range(7, 9)],
        3.4,
        [0, 1, 2, 3, 4, 2, 3, 7, 8],
    ),
    "from the cycle after, without one before": (
        [0, 1, *range(4, 9)],
        3.0,
        [0, 1, 5, 6, 4, 5, 6, 7, 8],
    ),
    "two losses": (
        [*range(4), *range(6, 9), 10],
        4.0,
        [0, 1, 2, 3, 0, 1, 6, 7, 8, 1, 10],
    ),
    "a loss that both sides are too short for": ([0, 4, 5], 4.0, [0, 5, 0, 0, 4, 5]),
    "by the distance from the first sample": (
        [100, 101, 102, 103, 106],
        4.0,
        [0, 1, 2, 3, 0, 1, 6],
    ),
}


@pytest.mark.parametrize("case", FILLED)
def test_lost_samples_are_copied_from_whole_cycles_away(case: str) -> None:
    positions, cycle, expected = FILLED[case]
    samples = np.array([[at - positions[0] for at in positions]] * 2, float)
    samples[1] *= 10
    series = without_gaps(samples, np.array(positions), cycle)
    assert np.array_equal(series, [expected, [10 * value for value in expected]])


@pytest.mark.parametrize(
    ("samples", "shape"),
    [(4000, (3, 40, 100)), (4039, (3, 40, 100)), (860, (3, 34, 25)), (200, (3, 8, 25))],
)
def test_a_piece_is_a_40th_but_of_enough_samples(samples: int, shape: tuple[int, ...]) -> None:
    rows = np.arange(3 * samples, dtype=np.float64).reshape(3, samples)
    found = pieces(rows)
    assert found.shape == shape
    assert (found.reshape(3, -1) == rows[:, : shape[1] * shape[2]]).all()
