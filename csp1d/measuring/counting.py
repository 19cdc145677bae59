# SPDX-License-Identifier: Apache-2.0
"""A time axis for scans that have no timestamps, from when they were read.

A read returns all scans that there are, so their count and the time of the read give a point on
the line of count against time, late by the way of the data and sometimes by much more. The line
through the earlier half of the recent points is the ADC's clock, whatever rate the device says.
Scans that were lost show as a lag that stays. That is rougher than timestamps by far: a loss of
less than some 10 ms is not seen. While nobody asks for stamps, a read is only noted.
"""

from collections import deque

import numpy as np

from csp1d.measuring.arrays import Floats
from csp1d.measuring.scan import FASTEST_HERTZ, SLOWEST_HERTZ
from csp1d.units import MS_NS, SECOND_NS

_POINTS = 64
_FEW_POINTS = 5
_SPACING_NS = 250 * MS_NS
_LEARN_NS = SECOND_NS
"""How far apart reads have to be to tell the rate."""
_NOTED_NS = 64 * SECOND_NS
"""Reads longer ago are forgotten where nobody has asked since."""
LAG_NS = 10 * MS_NS
"""A lag up to here, beyond what reads jitter, is taken for lateness."""


class ReadClock:
    """Makes up the stamps that an ADC without timestamps does not give."""

    def __init__(self) -> None:
        self._count = 0
        self._points: deque[tuple[float, float]] = deque(maxlen=_POINTS)
        self._period_ns = 0.0
        self._read_ns = 0
        self._line_ns = 0.0
        """Where the line is at `_count`."""
        self._next_ns: float | None = None
        self._lag_at: tuple[int, float] | None = None
        self._noted: deque[tuple[int, int]] = deque()

    def read(self, scans: int, read_ns: int) -> None:
        """A read at that time has returned so many scans. To be told of every read."""
        self._noted.append((scans, read_ns))
        while read_ns - self._noted[0][1] > _NOTED_NS:
            self._noted.popleft()

    def _take(self, scans: int, read_ns: int) -> None:
        self._count += scans
        self._read_ns = read_ns
        self._line_ns += scans * self._period_ns
        if self._period_ns:
            self._watch_lag(scans)
        if not self._lag_at:
            self._learn()

    def stamp(self, scans: int) -> tuple[float, float] | None:
        """Time of the first of the last so many scans and their spacing, in nanoseconds.

        None while the rate is not known: the first reads are a second apart at least.
        """
        while self._noted:
            self._take(*self._noted.popleft())
        if not self._period_ns:
            return None
        target = min(self._line_ns, self._read_ns)
        if self._next_ns is None:
            self._next_ns = target - scans * self._period_ns
        spacing = self._period_ns
        if scans:
            # Onto the line by the end of these scans, but never ahead of when they were read.
            steered = (target - self._next_ns) / scans
            spacing = float(np.clip(steered, 0.99 * spacing, 1.01 * spacing))
            spacing = min(spacing, (self._read_ns - self._next_ns) / scans)
        first = self._next_ns
        self._next_ns += scans * spacing
        return first, spacing

    def _watch_lag(self, scans: int) -> None:
        """Two lagging reads between which the ADC kept running: what lags is lost."""
        lag = self._read_ns - self._line_ns
        if lag < self._tolerance_ns():
            self._lag_at = None
            return
        if self._lag_at:
            before_ns, before_lag = self._lag_at
            if scans and self._read_ns - before_ns > 0.75 * scans * self._period_ns:
                lost_ns = round(min(lag, before_lag) / self._period_ns) * self._period_ns
                # The line goes on behind the loss as if it had always been so much later.
                self._line_ns += lost_ns
                self._points = deque(
                    ((count, time_ns + lost_ns) for count, time_ns in self._points),
                    maxlen=_POINTS,
                )
                if self._next_ns is not None:
                    self._next_ns += lost_ns
                lag -= lost_ns
        self._lag_at = (self._read_ns, lag) if lag >= self._tolerance_ns() else None

    def _tolerance_ns(self) -> float:
        """How far a read may lag: what reads do anyway, and some more."""
        times = np.array(self._points)
        rest = times[:, 1] - self._period_ns * times[:, 0]
        return float(LAG_NS + np.ptp(rest))

    def _learn(self) -> None:
        """Take the read for a point of the line."""
        if self._points and self._read_ns - self._points[-1][1] < _SPACING_NS:
            return
        self._points.append((float(self._count), float(self._read_ns)))
        points = np.array(self._points)
        x, y = points[:, 0] - points[-1, 0], points[:, 1] - points[-1, 1]
        if np.ptp(x) == 0 or np.ptp(y) < _LEARN_NS:
            return
        slope, level = _fitted_line(x, y)
        rest = y - slope * x
        early = rest <= np.sort(rest)[(len(rest) - 1) // 2]
        if len(points) > _FEW_POINTS and np.ptp(x[early]) > 0:
            slope, level = _fitted_line(x[early], y[early])
        if SECOND_NS / FASTEST_HERTZ <= slope <= SECOND_NS / SLOWEST_HERTZ:
            self._period_ns = slope
            self._line_ns = float(points[-1, 1]) + level


def _fitted_line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope, and level at x = 0, of the line through these points that has the least squares."""
    x_mean, y_mean = float(np.add.reduce(x)) / len(x), float(np.add.reduce(y)) / len(y)
    ahead = x - x_mean
    slope = float(ahead @ (y - y_mean)) / float(ahead @ ahead)
    return slope, y_mean - slope * x_mean
