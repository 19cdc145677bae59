# SPDX-License-Identifier: Apache-2.0
"""Sums over a window whose ends lie between samples.

A sample fills the cell from its position to the next one. If an end of the window cuts a cell, the
sample counts by the fraction inside, and by the rest in the neighbouring window. So each sample
counts once, and whole cycles are exact to a fraction of a sample. Positions without a sample (lost
scans) have no weight.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np

from csp1d.measuring.arrays import Floats, Integers

_SHORTEST_PIECE = 25
"""Samples of a piece: fewer can be equal by chance."""

_MOVED_CODES = 16
"""A channel with this range has a signal: without one, a quiet ADC may repeat a code."""


class Moments(NamedTuple):
    """Mean, variance and extremes of one channel over a window, in codes."""

    mean: float
    variance: float
    lowest: float
    highest: float


class _Part(NamedTuple):
    """Samples `first` to `after` (excluded), none lost between; `before` and `beyond` are the
    fractions of the first and the last cell outside the window."""

    first: int
    after: int
    before: float
    beyond: float


@dataclass(frozen=True)
class Window:
    """The cells of samples in [start, end); at least one."""

    scans: int
    """Samples whose cell starts in the window."""
    weight: float
    """Cells in the window, fractions included."""
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, positions: Integers, start: float, end: float) -> "Window":
        """The window from `start` to `end` of samples at `positions` (ascending)."""
        scans, weight, parts = 0, 0.0, []
        for first, after in runs(positions):
            shift = int(positions[first]) - first
            low, high = max(start, first + shift), min(end, after + shift)
            if low >= high:
                continue
            cut, left = math.floor(low), math.ceil(high)
            parts.append(_Part(cut - shift, left - shift, low - cut, left - high))
            weight += high - low
            scans += left - math.ceil(low)
        return cls(scans, weight, tuple(parts))

    def moments(self, centered: Floats) -> list[Moments]:
        """Moments of each channel of `centered` (channels, samples), which must be near 0: far from
        it, the variance is lost in rounding."""
        # In lists: arrays of as few values as channels cost more than they save.
        totals, squares = [0.0] * len(centered), [0.0] * len(centered)
        lows, highs = [], []
        for first, after, before, beyond in self.parts:
            part = centered[:, first:after]
            sums = np.add.reduce(part, axis=1).tolist()
            powers = np.einsum("cs,cs->c", part, part).tolist()
            heads = cast("list[float]", part[:, 0].tolist())
            tails = cast("list[float]", part[:, -1].tolist())
            for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
                totals[row] += sums[row] - before * head - beyond * tail
                squares[row] += powers[row] - before * head**2 - beyond * tail**2
            lows.append(np.minimum.reduce(part, axis=1).tolist())
            highs.append(np.maximum.reduce(part, axis=1).tolist())
        means = [total / self.weight for total in totals]
        rows = zip(means, squares, zip(*lows, strict=True), zip(*highs, strict=True), strict=True)
        return [
            Moments(mean, max(0.0, square / self.weight - mean**2), min(low), max(high))
            for mean, square, low, high in rows
        ]

    def count_beyond(self, row: Floats, lowest: float, highest: float) -> tuple[int, int]:
        """The number of samples at or below `lowest` and at or above `highest` in a row (samples,),
        among those whose cell starts in the window."""
        low = high = 0
        for first, after, before, _ in self.parts:
            part = row[first + (before > 0) : after]
            low += int(np.count_nonzero(part <= lowest))
            high += int(np.count_nonzero(part >= highest))
        return low, high


def runs(positions: Integers) -> list[tuple[int, int]]:
    """Ranges (first index, index after the last) of samples, none lost between."""
    if positions[-1] - positions[0] == len(positions) - 1:
        return [(0, len(positions))]
    losses = (int(index) + 1 for index in np.flatnonzero(np.diff(positions) != 1))
    return list(pairwise([0, *losses, len(positions)]))


def pieces(codes: Floats) -> Floats:
    """`codes` (..., samples) in 40 equal pieces (..., pieces, samples), each longer than a mains
    cycle of a second: a fault in the middle of a window fills at least one. The rest is omitted."""
    length = max(_SHORTEST_PIECE, codes.shape[-1] // 40)
    whole = codes.shape[-1] // length
    return codes[..., : whole * length].reshape(*codes.shape[:-1], whole, length)


def freezes(codes: Floats) -> bool:
    """Whether all channels of `codes` (channels, samples) move, and stand still for a piece."""
    cut = pieces(codes)
    spans = np.maximum.reduce(cut, axis=-1) - np.minimum.reduce(cut, axis=-1)
    if np.maximum.reduce(spans, axis=0).all():
        return False
    return bool(np.ptp(codes, axis=-1).max() > _MOVED_CODES)


def without_gaps(centered: Floats, positions: Integers, cycle: float) -> Floats:
    """`centered` (channels, samples) with lost samples filled in: (channels, positions).

    They are copied from whole cycles earlier or later, to half a sample.
    """
    spans = runs(positions)
    if len(spans) == 1:
        return centered
    at = positions - positions[0]
    series = np.zeros((len(centered), int(at[-1]) + 1))
    series[:, at] = centered
    for (_, left), (right, _) in pairwise(spans):
        first, after = int(at[left - 1]) + 1, int(at[right])
        shift = round(math.ceil((after - first) / cycle) * cycle)
        source = first - shift if first >= shift else first + shift
        copied = series[:, source : source + after - first]
        series[:, first : first + copied.shape[1]] = copied
    return series
