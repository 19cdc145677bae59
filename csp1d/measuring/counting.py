# SPDX-License-Identifier: Apache-2.0
"""A time axis for scans that have no timestamps, from when they were read.

A read returns all scans that there are, so their count and the time of the read give a point on
the line of count against time, late by the way of the data and sometimes by much more. The line
through the earlier half of the recent points is the ADC's clock. Scans that were lost show as a
lag that stays. That is rougher than timestamps by far: a loss of less than some 10 ms is not seen.
"""

from collections import deque

import numpy as np

from csp1d.measuring.clock import SECOND_NS

_POINTS = 64
_FEW_POINTS = 5
_SPACING_NS = 250_000_000
LAG_NS = 10_000_000
"""A lag up to here, beyond what reads jitter, is taken for lateness."""
_LOCKED_NS = 2 * SECOND_NS
_UNLOCKED_NS = SECOND_NS // 10
_MOST_OFF = 0.1
"""How far the rate may be from what the device says."""


class ReadClock:
    """Makes up the stamps that an ADC without timestamps does not give."""

    def __init__(self, sampling_frequency_hz: float, time_ns: float) -> None:
        self._nominal_ns = self._period_ns = SECOND_NS / sampling_frequency_hz
        self._next_ns = time_ns
        self._count = 0
        self._points: deque[tuple[float, float]] = deque(maxlen=_POINTS)
        self._lag_at: tuple[int, int] | None = None

    def stamp(self, scans: int, read_ns: int | None) -> tuple[float, float]:
        """Time of the first of the next scans and their spacing, in nanoseconds.

        `read_ns` None: nothing is known but the sampling frequency (a replay).
        """
        spacing = self._period_ns
        if read_ns is not None:
            if not self._points:
                self._next_ns = read_ns - scans * self._period_ns
            self._watch_lag(scans, read_ns)
            self._count += scans
            self._learn(read_ns)
            spacing = self._steer(scans)
        first = self._next_ns
        self._next_ns += scans * spacing
        return first, spacing

    def _watch_lag(self, scans: int, read_ns: int) -> None:
        """Two lagging reads between which the ADC kept running: what lags is lost."""
        lag = read_ns - (self._next_ns + scans * self._period_ns)
        if lag < self._tolerance_ns():
            self._lag_at = None
            return
        if self._lag_at:
            before_ns, before_lag = self._lag_at
            if scans and read_ns - before_ns > 0.75 * scans * self._period_ns:
                lost_ns = round(min(lag, before_lag) / self._period_ns) * self._period_ns
                self._next_ns += lost_ns
                # The line goes on behind the loss as if it had always been so much later.
                self._points = deque(
                    ((count, time_ns + lost_ns) for count, time_ns in self._points),
                    maxlen=_POINTS,
                )
                lag -= lost_ns
        self._lag_at = (read_ns, round(lag)) if lag >= self._tolerance_ns() else None

    def _tolerance_ns(self) -> float:
        """How far a read may lag: what reads do anyway, and more while the rate is not known."""
        if len(self._points) < 2:
            return LAG_NS + _UNLOCKED_NS
        times = np.array(self._points)
        rest = times[:, 1] - self._period_ns * times[:, 0]
        span = times[-1, 1] - times[0, 1]
        wide = _UNLOCKED_NS if span < _LOCKED_NS else 0
        return float(LAG_NS + wide + rest.max() - rest.min())

    def _learn(self, read_ns: int) -> None:
        """Take the read for a point of the line, unless it lags."""
        if self._lag_at:
            return
        if self._points and read_ns - self._points[-1][1] < _SPACING_NS:
            return
        self._points.append((float(self._count), float(read_ns)))

    def _steer(self, scans: int) -> float:
        """Spacing that brings the stamps onto the line by the end of these scans."""
        if len(self._points) < 3 or not scans:
            return self._period_ns
        points = np.array(self._points)
        x, y = points[:, 0] - points[-1, 0], points[:, 1] - points[-1, 1]
        slope, level = np.polyfit(x, y, 1)
        rest = y - slope * x
        early = rest <= np.median(rest)
        if len(points) > _FEW_POINTS and np.ptp(x[early]) > 0:
            slope, level = np.polyfit(x[early], y[early], 1)
        low, high = self._nominal_ns * (1 - _MOST_OFF), self._nominal_ns * (1 + _MOST_OFF)
        self._period_ns = float(np.clip(slope, low, high))
        target = points[-1, 1] + level + slope * (self._count - points[-1, 0])
        spacing = (target - self._next_ns) / scans
        return float(np.clip(spacing, 0.99 * self._period_ns, 1.01 * self._period_ns))
