# SPDX-License-Identifier: Apache-2.0
"""The last mains cycles, in as few points as a picture of them needs."""

import math

from csp1d.measuring.arrays import Floats

CYCLES = 3
MOST_POINTS = 240
"""Of a channel: at 4000 scans a second and 50 Hz every sample is one."""


def last_cycles(series: Floats, after: int, cycle: float) -> tuple[Floats, int]:
    """What comes before the sample `after` of `series` (channels, samples), as means of so many
    samples: (channels, points), and how many. `cycle` is the samples in a mains cycle.

    Points are means, since those picked out would show what is faster than a picture as something
    slow.
    """
    samples = min(round(CYCLES * cycle), after)
    step = max(1, math.ceil(samples / MOST_POINTS))
    points = samples // step
    part = series[:, after - points * step : after]
    if step == 1:
        return part, step
    return part.reshape(len(part), points, step).mean(axis=2), step
