# SPDX-License-Identifier: Apache-2.0
"""When a sample was taken, and how many were lost before it.

An ADC samples evenly, but its driver stamps scans late: usually by the latency of an interrupt,
sometimes by milliseconds, never early. So the times of the samples form the straight line that
touches the stamps from below. Its slope is the true period, whatever rate the device reports. After
lost samples all stamps stay late by whole periods. A position is the count of a sample, lost ones
included.
"""

import math
from collections import deque

import numpy as np

from csp1d.measuring.arrays import Floats, Integers, median
from csp1d.units import MS_NS, SECOND_NS

CONFIRM_SECONDS = 0.06
"""If stamps jitter, scans count as lost after the stamps stayed late for this time."""
_SEGMENTS = 16
_BLOCKS = 8
_SLOPE_ERROR = 1e-5
_BURST_NS = 5 * MS_NS
_CONFIRM_CLEAN = 4
"""Stamps that must follow lost scans, if stamps are even: a single late stamp is no loss."""


class SampleClock:
    """The line through the earliest stamps. Converts positions to times and back."""

    def __init__(
        self, period_ns: float, position: int = 0, time_ns: int = 0, error: float = 1.0
    ) -> None:
        """The sample at `position` is taken at `time_ns`."""
        self.period_ns = period_ns
        self.error = error
        """Bound of the relative error of the period; 1: not known yet."""
        self._position, self._time_ns = position, time_ns
        self._blocks: deque[Integers] = deque(maxlen=_BLOCKS)

    def time_ns(self, position: float) -> int:
        """Time of the sample at `position`."""
        return self._time_ns + round(self.period_ns * (position - self._position))

    def position(self, time_ns: int) -> float:
        """Fractional position at `time_ns`."""
        return self._position + (time_ns - self._time_ns) / self.period_ns

    def lateness_ns(self, stamps: Integers, positions: Integers) -> Floats:
        """Return how much later each stamp is than the line."""
        late = (positions - self._position).astype(np.float64)
        late *= -self.period_ns
        late += stamps - self._time_ns
        return late

    def stop_at(self, position: int, time_ns: int) -> None:
        """Move the line so that the sample at `position` is not later than `time_ns`."""
        self._time_ns -= max(0, self.time_ns(position) - time_ns)

    def restart(self, stamps: Integers, positions: Integers) -> None:
        """Move the line to the earliest of these stamps. Keep the period, drop older stamps."""
        self._blocks.clear()
        self._position, self._time_ns = int(positions[0]), int(stamps[0])
        self._time_ns += round(float(self.lateness_ns(stamps, positions).min()))

    def fit(self, stamps: Integers, positions: Integers, late: Floats | None) -> None:
        """Fit the line to further stamps; `late` is their lateness, None if they are even.

        These stamps are a block, and the earliest stamp of each sixteenth of it is a point (if they
        are even, any stamp is). If the points of the last block are enough, the line follows the
        drift of the ADC. If they are late at random, the points of previous blocks are used, too.
        """
        length = len(stamps) // _SEGMENTS
        if length == 0:
            return
        skipped = len(stamps) - _SEGMENTS * length
        earliest = np.arange(skipped, len(stamps), length)
        if late is not None:
            earliest += late[skipped:].reshape(_SEGMENTS, length).argmin(axis=1)
        self._blocks.appendleft(np.array((positions[earliest], stamps[earliest])))
        last, points = int(positions[-1]), self._blocks[0][:, :0]
        for block in self._blocks:
            points = np.concatenate((points, block), axis=1)
            x, y = (points[0] - last).astype(np.float64), self.lateness_ns(points[1], points[0])
            if np.maximum.reduce(y) - np.minimum.reduce(y) > self.period_ns / 4:
                # All stamps of a sixteenth may be late because the driver was delayed.
                level = median(y)
                kept = y <= level + 6 * median(np.abs(y - level)) + self.period_ns / 4
                x, y = x[kept], y[kept]
            slope, level_ns, error = fit_line(x, y)
            if error < _SLOPE_ERROR * self.period_ns:
                break
        self._position, self._time_ns = last, self.time_ns(last) + round(level_ns)
        self.error = 2 * error / self.period_ns
        self.period_ns += slope


def fit_line(x: Floats, y: Floats) -> tuple[float, float, float]:
    """Fit a line by least squares: its slope, its level at 0, the standard error of the slope."""
    x_mean, y_mean = float(np.add.reduce(x)) / len(x), float(np.add.reduce(y)) / len(y)
    away = x - x_mean
    spread = float(away @ away)
    slope = float(away @ y) / spread
    rest = y - y_mean - slope * away
    return slope, y_mean - slope * x_mean, math.sqrt(float(rest @ rest) / len(x) / spread)


def estimate_period_ns(stamps: Integers) -> float:
    """Estimate the period of samples; late stamps, one gap and bursts among them do no harm."""
    steps, typical = np.diff(stamps), median(np.diff(stamps))
    even, jumps = steps[np.abs(steps - typical) < typical / 4], steps[steps > 1.5 * typical]
    if len(even) > 0.8 * len(steps):
        # Jumps over lost scans are whole periods. Those between bursts are not, or are short.
        period = float(even.mean())
        far = median(jumps) / period if len(jumps) > 8 else 1.0
        usual = float(steps[steps <= 1.5 * typical].mean())
        is_loss = abs(far - round(far)) < 0.07 and period > 0.75 * float(steps.mean())
        if is_loss and abs(usual - period) < period / 100:
            return period
    lag, length = len(stamps) // 8, len(stamps) // _SEGMENTS
    period = median(stamps[lag:] - stamps[:-lag]) / lag
    for _ in range(2):
        late = stamps - stamps[0] - period * np.arange(len(stamps))
        earliest = late[: _SEGMENTS * length].reshape(_SEGMENTS, length).min(axis=1)
        period += median(earliest[4:] - earliest[:-4]) / (4 * length)
    return period


def find_lost(late: Floats, period_ns: float) -> list[tuple[int, int]]:
    """Find lost scans: a list of (index of the sample after them, number lost).

    `late` is the lateness of successive stamps by a clock that was right before the first of them.
    A loss that too few samples follow is left for the next call.
    """
    before = max(0, round(float(late[0]) / period_ns))
    step = late[1:] - late[:-1]
    if len(step) == 0 or max(np.maximum.reduce(step), -np.minimum.reduce(step)) < period_ns / 4:
        return [(0, before)] if before else []
    lost = _whole_periods(step, period_ns)
    if lost is None or abs(late[-1] - late[0] - period_ns * lost.sum()) > _BURST_NS:
        # Steps back that add up mean bursts, whose steps forward are no losses.
        return _lost_in_jitter(late, period_ns)
    lost[-_CONFIRM_CLEAN:] = 0
    lost = np.concatenate(([before], lost))
    return [(int(index), int(lost[index])) for index in np.flatnonzero(lost)]


def is_settled(late: Floats, period_ns: float) -> bool:
    """Whether the latest stamps are even, or uneven without a step.

    Within a step of uneven stamps it is not yet known whether scans are late or lost.
    """
    middle = len(late) // 2
    if abs(float(late[:middle].min()) - float(late[middle:].min())) < period_ns / 2:
        return True
    return _whole_periods(late[1:] - late[:-1], period_ns) is not None


def confirm_scans(period_ns: float) -> int:
    """CONFIRM_SECONDS in scans."""
    return max(8, round(CONFIRM_SECONDS * SECOND_NS / period_ns))


def _whole_periods(step: Floats, period_ns: float) -> Integers | None:
    """Return each step of lateness in periods; None if the stamps are too uneven."""
    lost: Integers = np.rint(step / period_ns).astype(np.int64)
    if lost.min() < 0 or float(np.abs(step - period_ns * lost).max()) > period_ns / 4:
        return None
    return lost


def _lost_in_jitter(late: Floats, period_ns: float) -> list[tuple[int, int]]:
    """Find lost scans among uneven stamps: steps of the minimum of all later lateness."""
    confirm = confirm_scans(period_ns)
    floor = np.minimum.accumulate(late[::-1])[::-1]
    # The floor of the last samples is still unknown.
    floor[-confirm:] = floor[max(0, len(floor) - confirm)]
    # A step within the noise of the floor is no loss.
    noise = 0.0
    if (count := len(late) // confirm) >= 3:
        earliest = late[: count * confirm].reshape(count, confirm).min(axis=1)
        noise = 4 * median(np.abs(np.diff(earliest)))
    found = []
    rises = np.flatnonzero(np.diff(floor, prepend=0.0) > period_ns / 4)
    # The floor begins to rise at late stamps before a gap: combine rises that are close together.
    groups = np.split(rises, np.flatnonzero(np.diff(rises) > confirm) + 1) if len(rises) else []
    after = -1
    for group in groups:
        before = max(after, int(group[0]) - confirm)
        after = int(group[-1])
        height = float(floor[after]) - (float(floor[before]) if before >= 0 else 0.0)
        if height > max(noise, period_ns / 2):
            gap = group[np.diff(floor, prepend=0.0)[group].argmax()]
            found.append((int(gap), round(height / period_ns)))
    return found
