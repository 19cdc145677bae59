# SPDX-License-Identifier: Apache-2.0
"""Sums over a window whose ends lie between samples.

A sample stands for the cell from its position to the next one. A window is a span of positions; a
cell that an end of it cuts counts by the part inside, and with the other part in the neighbouring
window. So no sample is used twice or left out, and whole cycles are whole to a fraction of a
sample. Positions without a sample (lost scans) weigh nothing.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from csp1d.measuring.arrays import Floats, Integers


class Moments(NamedTuple):
    """Of one channel over a window, in codes."""

    mean: float
    variance: float
    lowest: float
    highest: float


class _Part(NamedTuple):
    """Samples without a loss between them, `first` to `after`; of the cells of the first and the
    last of them, so much lies outside."""

    first: int
    after: int
    before: float
    behind: float


@dataclass(frozen=True)
class Window:
    """The cells in [start, end) of samples, by index of these; it must hold a sample."""

    scans: int
    """Samples whose cell begins in the window."""
    weight: float
    """Samples in the window, parts included."""
    parts: tuple[_Part, ...]

    @classmethod
    def of(cls, positions: Integers, start: float, end: float) -> "Window":
        """Of samples at these positions."""
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
        """Of each channel of `centered` (channels, samples), which should lie around 0 so that
        squares do not cancel."""
        totals = squares = [0.0] * len(centered)
        lows, highs = [], []
        for first, after, before, behind in self.parts:
            part = centered[:, first:after]
            ends = list(zip(part[:, 0].tolist(), part[:, -1].tolist(), strict=True))
            totals = [
                so_far + total - before * head - behind * tail
                for so_far, total, (head, tail) in zip(
                    totals, np.add.reduce(part, axis=1).tolist(), ends, strict=True
                )
            ]
            squares = [
                so_far + square - before * head**2 - behind * tail**2
                for so_far, square, (head, tail) in zip(
                    squares, np.einsum("cs,cs->c", part, part).tolist(), ends, strict=True
                )
            ]
            lows.append(np.minimum.reduce(part, axis=1).tolist())
            highs.append(np.maximum.reduce(part, axis=1).tolist())
        means = [total / self.weight for total in totals]
        return [
            Moments(mean, max(0.0, square / self.weight - mean**2), min(low), max(high))
            for mean, square, low, high in zip(
                means, squares, zip(*lows, strict=True), zip(*highs, strict=True), strict=True
            )
        ]

    def count_beyond(self, row: Floats, lowest: float, highest: float) -> tuple[int, int]:
        """Samples of a row at `lowest` or below it, and at `highest` or above it, among those
        whose cell begins in the window."""
        low = high = 0
        for first, after, before, _ in self.parts:
            part = row[first + (before > 0) : after]
            low += int(np.count_nonzero(part <= lowest))
            high += int(np.count_nonzero(part >= highest))
        return low, high


def runs(positions: Integers) -> list[tuple[int, int]]:
    """Spans (first index, index after the last) of samples without a loss between them."""
    if positions[-1] - positions[0] == len(positions) - 1:
        return [(0, len(positions))]
    losses = (int(index) + 1 for index in np.flatnonzero(np.diff(positions) != 1))
    return list(pairwise([0, *losses, len(positions)]))


def without_gaps(centered: Floats, positions: Integers, cycle: float) -> Floats:
    """`centered` (channels, samples) with lost samples put in: (channels, positions).

    In their place stands what was there some whole cycles earlier or later, to half a sample.
    """
    series = np.zeros((len(centered), int(positions[-1] - positions[0]) + 1))
    series[:, positions - positions[0]] = centered
    spans = runs(positions)
    for (_, left), (right, _) in pairwise(spans):
        first, after = (int(positions[i] - positions[0]) for i in (left - 1, right))
        first += 1
        shift = round(math.ceil((after - first) / cycle) * cycle)
        source = first - shift if first >= shift else first + shift
        copied = series[:, source : source + after - first]
        series[:, first : first + copied.shape[1]] = copied
    return series
