# SPDX-License-Identifier: Apache-2.0
"""Times for scans without timestamps, from the times of the reads.

A read returns all scans that are available. So its time and the count of all scans give a point of
the line of time over count. The point is late by the transfer, sometimes by much more, and the line
through the earlier half of the recent points is the ADC's clock, whatever rate the device reports.
After lost scans all reads stay late. This is much less accurate than timestamps: it misses losses
shorter than about 10 ms. Reads are queued and processed only when stamps are needed.
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
"""Minimum time between the first and the last point for a line."""
_QUEUED_NS = 64 * SECOND_NS
"""Queued reads older than this are dropped."""
LAG_NS = 10 * MS_NS
"""A read that lags more than this, beyond the usual jitter, may follow lost scans."""


class ReadClock:
    """Stamps the scans of an ADC that has no timestamps."""

    def __init__(self) -> None:
        self._count = 0
        self._points: deque[tuple[float, float]] = deque(maxlen=_POINTS)
        self._period_ns = 0.0
        self._read_ns = 0
        self._line_ns = 0.0
        """Time of the line at `_count`."""
        self._next_ns: float | None = None
        self._lagging: tuple[int, float] | None = None
        self._queue: deque[tuple[int, int]] = deque()

    def add_read(self, scans: int, read_ns: int) -> None:
        """Queue a read that returned `scans` scans at `read_ns`. Every read must be added."""
        self._queue.append((scans, read_ns))
        while read_ns - self._queue[0][1] > _QUEUED_NS:
            self._queue.popleft()

    def _process(self, scans: int, read_ns: int) -> None:
        self._count += scans
        self._read_ns = read_ns
        self._line_ns += scans * self._period_ns
        if self._period_ns:
            self._find_loss(scans)
        if not self._lagging:
            self._add_point()

    def stamp_last(self, scans: int) -> tuple[float, float] | None:
        """Return the time of the first of the last `scans` scans, and their spacing (ns).

        None until reads span a second, and for more scans than an ADC can deliver in that time.
        """
        while self._queue:
            self._process(*self._queue.popleft())
        if not self._period_ns:
            return None
        target = min(self._line_ns, self._read_ns)
        if self._next_ns is None:
            self._next_ns = target - scans * self._period_ns
        spacing = self._period_ns
        if scans:
            # Reach the line at the end of these scans, but never a time after their read.
            steered = (target - self._next_ns) / scans
            latest = min(1.01 * spacing, (self._read_ns - self._next_ns) / scans)
            spacing = min(max(steered, 0.99 * spacing), latest)
            if spacing < SECOND_NS / FASTEST_HERTZ:
                return None
        first = self._next_ns
        self._next_ns += scans * spacing
        return first, spacing

    def _find_loss(self, scans: int) -> None:
        """If two reads lag and the ADC kept running between them, the lag is lost scans."""
        lag = self._read_ns - self._line_ns
        if lag < self._tolerated_lag_ns():
            self._lagging = None
            return
        if self._lagging:
            before_ns, before_lag = self._lagging
            if scans and self._read_ns - before_ns > 0.75 * scans * self._period_ns:
                lost_ns = round(min(lag, before_lag) / self._period_ns) * self._period_ns
                # After the loss the line continues as if it had always been later.
                self._line_ns += lost_ns
                self._points = deque(
                    ((count, time_ns + lost_ns) for count, time_ns in self._points), maxlen=_POINTS
                )
                if self._next_ns is not None:
                    self._next_ns += lost_ns
                lag -= lost_ns
        self._lagging = self._read_ns, lag

    def _tolerated_lag_ns(self) -> float:
        """Return how far a read may lag: the usual jitter of reads and LAG_NS."""
        times = np.array(self._points)
        residuals = times[:, 1] - self._period_ns * times[:, 0]
        return float(LAG_NS + np.ptp(residuals))

    def _add_point(self) -> None:
        """Add the last read to the points, and fit the line to them."""
        if self._points and self._read_ns - self._points[-1][1] < _SPACING_NS:
            return
        self._points.append((float(self._count), float(self._read_ns)))
        points = np.array(self._points)
        x, y = points[:, 0] - points[-1, 0], points[:, 1] - points[-1, 1]
        if np.ptp(x) == 0 or np.ptp(y) < _LEARN_NS:
            return
        slope, level = _fit_line(x, y)
        residuals = y - slope * x
        early = residuals <= np.sort(residuals)[(len(residuals) - 1) // 2]
        if len(points) > _FEW_POINTS and np.ptp(x[early]) > 0:
            slope, level = _fit_line(x[early], y[early])
        if SECOND_NS / FASTEST_HERTZ <= slope <= SECOND_NS / SLOWEST_HERTZ:
            self._period_ns = slope
            self._line_ns = float(points[-1, 1]) + level


def _fit_line(x: Floats, y: Floats) -> tuple[float, float]:
    """Return slope and value at x = 0 of the least-squares line."""
    x_mean, y_mean = float(np.add.reduce(x)) / len(x), float(np.add.reduce(y)) / len(y)
    ahead = x - x_mean
    slope = float(ahead @ y) / float(ahead @ ahead)
    return slope, y_mean - slope * x_mean
