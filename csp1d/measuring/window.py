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

import numpy as np

from csp1d.measuring.clock import Floats, Integers


@dataclass(frozen=True)
class WindowSums:
    """Moments of each channel, in codes: arrays of (channels,)."""

    scans: int
    """Samples whose cell begins in the window."""
    weight: float
    """Samples in the window, parts included."""
    mean: Floats
    variance: Floats
    lowest: Floats
    highest: Floats


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


def window_sums(centered: Floats, positions: Integers, start: float, end: float) -> WindowSums:
    """Moments of `centered` (channels, samples) at `positions` over the cells in [start, end).

    The samples should lie around 0, so that squares do not cancel; the window must hold a sample.
    """
    scans, weight = 0, 0.0
    total = square = 0.0 * centered[:, 0]
    lowest, highest = [], []
    for first, after in runs(positions):
        shift = int(positions[first]) - first
        low, high = max(start, first + shift), min(end, after + shift)
        if low >= high:
            continue
        cut, left = math.floor(low), math.ceil(high)
        part = centered[:, cut - shift : left - shift]
        # What the cells at both ends have outside.
        before, behind = low - cut, left - high
        total = total + part.sum(axis=1) - before * part[:, 0] - behind * part[:, -1]
        square = square + np.einsum("ij,ij->i", part, part)
        square = square - before * part[:, 0] ** 2 - behind * part[:, -1] ** 2
        weight += high - low
        scans += math.ceil(high) - math.ceil(low)
        lowest.append(part.min(axis=1))
        highest.append(part.max(axis=1))
    mean: Floats = np.divide(total, weight, dtype=np.float64)
    return WindowSums(
        scans=scans,
        weight=weight,
        mean=mean,
        variance=np.maximum(0.0, square / weight - mean**2),
        lowest=np.minimum.reduce(lowest),
        highest=np.maximum.reduce(highest),
    )
