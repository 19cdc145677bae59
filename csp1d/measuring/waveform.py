# SPDX-License-Identifier: Apache-2.0
"""The last mains cycles, reduced to the points that a plot needs."""

import math

import numpy as np

from csp1d.measuring.arrays import Floats

CYCLES = 3
MOST_POINTS = 240
"""Per channel. At 4000 scans per second and 50 Hz, each sample is a point."""


def last_cycles(series: Floats, after: int, cycle: float) -> tuple[Floats, int]:
    """The last CYCLES cycles before the sample `after` of `series` (channels, samples), which must
    hold them; `cycle` is the number of samples per mains cycle.

    Returns the points (channels, points) and the number of samples per point. A point is the mean
    of its samples: single samples would show fast signals as slow ones. If it is one sample, the
    points are a view.
    """
    samples = round(CYCLES * cycle)
    step = math.ceil(samples / MOST_POINTS)
    points = samples // step
    part = series[:, after - points * step : after]
    if step == 1:
        return part, step
    return np.add.reduce(part.reshape(len(part), points, step), axis=2) / step, step
