# SPDX-License-Identifier: Apache-2.0
"""When samples had certainly been taken: late, never early.

The driver's timestamps say so for each scan. Where there are none, or what is in their place cannot
be times, the reads do: a read returns all scans that are available, so at its time the last of them
had been taken.
"""

from collections import deque

import numpy as np

from csp1d.measuring.arrays import Integers
from csp1d.measuring.clock import SampleClock, fit_line
from csp1d.units import MS_NS, SECOND_NS

_BACK_NS = 50 * MS_NS
_AHEAD_NS = 10 * MS_NS
_BEHIND_NS = 3600 * SECOND_NS
_SPEED_OFF = 0.2
_SPEED_NS, _SPEED_SCANS = SECOND_NS // 4, 16
"""Minimum time and scans between reads to measure the speed of the timestamps."""
_SPEED_READS = 3
"""Consecutive wrong speeds before timestamps are rejected; after a pause one jump is normal."""

_LEAST_POINTS, _POINTS = 3, 64
_SPACING_NS = 250 * MS_NS
_LAG_NS = 10 * MS_NS
"""A read that lags more than this, beyond the usual jitter, may follow lost scans."""
_LARGE_LAG_NS = 100 * MS_NS
_LAG_READS, _LARGE_LAG_READS = 5, 2
"""Reads in a row whose lag shows a loss; on a busy machine several may be late."""
_HELD_NS = 100 * MS_NS
"""The process was held during a read that took longer, before or after the scans were copied: its
end says little about them."""
_GROWTHS = 3
"""A lag that grows this often in a row is another rate."""


class Timestamps:
    """The driver's timestamps, until they prove to be none.

    The field can hold sample data, if the driver has `available_scan_masks` and trailing channels
    are off, or another clock. Times on CLOCK_MONOTONIC do not go back, are not later than the read
    or hours older, and run as fast as the reads. Drivers report wrong rates, which do not matter.
    """

    def __init__(self) -> None:
        self._newest_ns: int | None = None
        self._speed_start: tuple[int, int] | None = None
        self._speed_scans = 0
        self._wrong_speeds = 0
        self._least_lag_ns: int | None = None

    def check(
        self, timestamps: Integers, read_ns: int | None, began_ns: int | None, is_last: bool
    ) -> tuple[int, str]:
        """Return how many timestamps precede the first one that cannot be a time, and the reason.

        They are of a read from `began_ns` to `read_ns` (None in a replay); `is_last`: its last.
        """
        good, reason = self._count_valid(timestamps, read_ns)
        if good:
            newest_ns = int(np.maximum.reduce(timestamps[:good]))
            self._newest_ns = newest_ns = max(newest_ns, self._newest_ns or newest_ns)
            self._speed_scans += good
            is_whole = is_last and good == len(timestamps)
            if is_whole and read_ns and began_ns and read_ns - began_ns <= _HELD_NS:
                reason = self._check_speed(newest_ns, read_ns)
        return (0 if reason and good == len(timestamps) else good), reason

    def _check_speed(self, newest_ns: int, read_ns: int) -> str:
        """Why the newest timestamps do not advance as the times of the reads; "" if they do."""
        before = self._speed_start or (newest_ns, read_ns)
        is_short = read_ns - before[1] < _SPEED_NS or self._speed_scans < _SPEED_SCANS
        if self._speed_start and is_short:
            return ""
        self._speed_start, self._speed_scans = (newest_ns, read_ns), 0
        moved_ns, passed_ns = newest_ns - before[0], read_ns - before[1]
        # After a pause of the reads, timestamps jump to their usual lag.
        lag_ns, least_ns = read_ns - newest_ns, self._least_lag_ns
        in_step = least_ns is not None and abs(lag_ns - least_ns) < _BACK_NS
        self._least_lag_ns = lag_ns if least_ns is None else min(lag_ns, least_ns)
        is_wrong = not in_step and abs(moved_ns - passed_ns) > _SPEED_OFF * passed_ns
        self._wrong_speeds = self._wrong_speeds + 1 if is_wrong else 0
        if self._wrong_speeds < _SPEED_READS:
            return ""
        return f"they advance {moved_ns / SECOND_NS:.3g} s in {passed_ns / SECOND_NS:.3g} s"

    def _count_valid(self, timestamps: Integers, read_ns: int | None) -> tuple[int, str]:
        # +/- 146 years, so that the difference of two timestamps fits into 64 bits.
        lowest, highest = -(1 << 62), (1 << 62) - 1
        if read_ns is not None:
            lowest, highest = read_ns - _BEHIND_NS, read_ns + _AHEAD_NS
        first, last = int(timestamps[0]), int(timestamps[-1])
        before = first if self._newest_ns is None else self._newest_ns
        ascending = bool(np.logical_and.reduce(timestamps[1:] >= timestamps[:-1]))
        if ascending and max(lowest, before) <= first and last <= min(highest, before + _BEHIND_NS):
            return len(timestamps), ""
        steps = np.diff(timestamps, prepend=before)
        newest = np.maximum.accumulate(np.maximum(timestamps, before))
        faults = {
            "they go back in time": timestamps < newest - _BACK_NS,
            "they jump ahead by hours": steps > _BEHIND_NS,
            "they are later than the read": timestamps > highest,
            "they are hours old": timestamps < lowest,
        }
        bad = np.logical_or.reduce(list(faults.values()))
        if not bad.any():
            return len(timestamps), ""
        good = int(bad.argmax())
        return good, next(reason for reason, at in faults.items() if at[good])


class Reads:
    """The clock of an ADC without timestamps: the line through the earlier half of recent reads.

    A read is late by the transfer, sometimes by much more. After lost scans all reads stay late. So
    losses that are shorter than 10 ms, or than the chunks in which scans arrive, do not show.
    """

    def __init__(self) -> None:
        self._points: deque[tuple[int, int]] = deque(maxlen=_POINTS)
        self.is_late = False
        """Whether the last read came so late that scans may have been lost before it."""
        self._forget()

    def _forget(self) -> None:
        self._points.clear()
        self.clock: SampleClock | None = None
        """None until reads span a second, and again when the ADC has changed its rate."""
        self._spread_ns = 0.0
        self._lags: list[float] = []
        self._previous_ns = self._lag_ns = self._growths = 0

    def add(self, position: int, read_ns: int) -> bool:
        """Add the observation that samples before `position` were taken, if it is a new point."""
        if self._points and read_ns - self._points[-1][1] < _SPACING_NS:
            return False
        self._points.append((position, read_ns))
        return True

    def follow(self, position: int, scans: int, read_ns: int, began_ns: int) -> int:
        """Move the clock by a read of `scans` scans, the last one before `position`.

        For the times see `Metering.feed`. Returns the number of scans that were lost before them.
        """
        passed_ns, self._previous_ns = read_ns - self._previous_ns, read_ns
        lag_ns = float(read_ns - self.clock.time_ns(position)) if self.clock else 0.0
        usual_ns = _LAG_NS + self._spread_ns
        if self.clock:
            usual_ns += min(self.clock.error, 0.1) * (read_ns - self._points[-1][1])
        lost, self.is_late = 0, lag_ns > usual_ns
        if self.clock and self.is_late:
            # A read returns all scans that were available when it began: what it took longer for
            # is no lag of theirs.
            lag_ns -= read_ns - began_ns
            if lag_ns <= usual_ns:
                self._lags, self._growths = [], 0
            # If not, it stands still, or this is a part of a backlog.
            elif scans and passed_ns > 0.75 * scans * self.clock.period_ns:
                lost = self._find_lost(lag_ns, read_ns)
        else:
            self._lags, self._growths = [], 0
            if lag_ns < -_LARGE_LAG_NS:
                self._forget()  # it delivers more scans per second than before
            # For a first clock, the beginning of a long read: it makes scans older, never fresher.
            is_held = read_ns - began_ns > _HELD_NS
            at_ns = began_ns if is_held else read_ns
            if not (is_held and self.clock) and self.add(position, at_ns):
                self.fit()
        if self.clock:
            self.clock.stop_at(position + lost, read_ns)
        return lost

    def fit(self) -> None:
        """Set the clock to the line."""
        if len(self._points) < _LEAST_POINTS:
            return
        position, time_ns = self._points[-1]
        x = np.array([float(at - position) for at, _ in self._points])
        y = np.array([float(at_ns - time_ns) for _, at_ns in self._points])
        if x[0] == 0 or -y[0] < SECOND_NS:
            return
        slope, level, _ = fit_line(x, y)
        early = (y - slope * x).argsort()[: (len(x) + 1) // 2]
        if np.minimum.reduce(x[early]) < np.maximum.reduce(x[early]):
            slope, level, _ = fit_line(x[early], y[early])
        late = np.sort(y - slope * x)
        self._spread_ns = float(late[-1] - late[0])
        if self.clock is None and self._spread_ns > _LARGE_LAG_NS:
            # Scans may have been lost between them: begin with the newer half.
            self._points = deque([*self._points][len(self._points) // 2 :], maxlen=_POINTS)
            return
        # The more points, the less the line turns with the spread of most of them.
        error = 2 * _POINTS / len(x) * float((late[3 * len(x) // 4] - late[0]) / -y[0])
        self.clock = SampleClock(slope, position, time_ns + round(level), error)

    def _find_lost(self, lag_ns: float, read_ns: int) -> int:
        """Scans were lost if one read after the other lags by the same time."""
        assert self.clock
        if (since_ns := read_ns - self._lag_ns) < _SPACING_NS:
            return 0
        self._lag_ns = read_ns
        if self._lags and lag_ns - self._lags[-1] > _LAG_NS + since_ns / 50:
            self._lags, self._growths = [], self._growths + 1
            if self._growths == _GROWTHS:
                self._forget()
                return 0
        self._lags.append(lag_ns)
        least_ns = min(self._lags)
        if len(self._lags) < (_LARGE_LAG_READS if least_ns > _LARGE_LAG_NS else _LAG_READS):
            return 0
        self._lags = []
        return round(least_ns / self.clock.period_ns)
