# SPDX-License-Identifier: Apache-2.0
"""Divides the scans into windows of about one second.

    scans ----> PendingScans (codes, positions) ----------------------> Span, one per window
    timestamps -> Timestamps (can they be times?) -> observations -> SampleClock
    times of the reads -> Reads (without timestamps) ------------------^

An observation is a position and a time at which the sample there had certainly been taken: late,
never early. The clock is the line under the observations. A window ends near a grid point. Grid
points are one second apart on this clock, counted from the first scan; if the mains cycle is known,
a grid point moves back to the last cycle boundary before it, so that the reading does not wait for
scans that it cannot use.

A window is complete when all scans before its grid point have arrived. This is decided at one
particular scan, from the scans up to it, so the result does not depend on how scans are split into
reads. While timestamps are even, and without any, scans are counted. After an uneven step the
decision waits until it is certain that scans were lost and their timestamps are not just late. If
too many scans were lost, the grid restarts after the loss.
"""

import math
from dataclasses import dataclass

import numpy as np

from csp1d.measuring.arrays import Floats, Integers, Rows, median
from csp1d.measuring.clock import (
    SampleClock,
    confirm_scans,
    estimate_period_ns,
    find_lost,
    is_settled,
)
from csp1d.measuring.observations import Reads, Timestamps
from csp1d.measuring.pending import PendingScans
from csp1d.measuring.scan import FASTEST_HERTZ, SLOWEST_HERTZ, ScanFormat
from csp1d.units import MS_NS, SECOND_NS

MOST_LOST = 0.05
"""Fraction of a second's scans. A window that lost more gives no reading."""
_LATE_NS = 5 * MS_NS
"""A stamp later than this may follow a gap: more stamps are needed to decide."""
_DRIFT_NS = MS_NS // 2
"""Margin after the expected cycle boundary; covers 25 mHz of drift at 50 Hz."""
_SHORTEST_NS = SECOND_NS // 2
"""Minimum length of a window. It is shorter only if the clock was wrong at its start."""
_RATE_OFF = 0.2
"""Accepted relative error of the sampling rate that the device reports."""
_RATE_MOVED = 0.02
"""Relative change of the period that is no clock drift: the ADC has changed its rate."""
_PRECISE = 2e-4
"""Relative error of the period up to which a mains frequency is known: 10 mHz at 50 Hz."""
_MOVED_NS = MS_NS // 5
"""How far an even second may be off its clock, beside a quarter of a period, at a steady rate."""

_LEARN_SECONDS = 0.5
_LEARN_LEAST, _LEARN_MOST = 64, 20_000
_SLOW_LEAST, _SLOWEST_LEAST = 16, 5
"""Stamps that suffice for the rate of an ADC that is far too slow: in two seconds, or in four."""
_ATTEMPTS = 4
"""Timestamps that give no window after this many clocks are not used."""


@dataclass(frozen=True)
class Span:
    """The scans available for one window."""

    codes: Floats
    """(channels, scans); a view that is valid until the next call of `append`."""
    positions: Integers
    """(scans,) sample counts, lost samples included."""
    start: float
    """Position at which the window begins: the end of the previous one."""
    latest: float
    """Position at which the window must end at the latest."""
    period_ns: float
    is_sure: bool
    """Whether the period is known precisely enough for a mains frequency."""


class Timeline:
    """Assigns times to scans and selects the scans of each window.

    Raises ValueError if scans have neither timestamps nor a known rate.
    """

    def __init__(self, scan_format: ScanFormat, channels: int) -> None:
        self.lost_scans_total = 0
        self.clock_fault: str | None = None
        """Why existing timestamps are not used; None if they are used or do not exist."""
        self.slow_hertz: float | None = None
        """The rate of an ADC that is too slow to be measured."""
        self.lossy_windows = 0
        """Windows that lost too many scans, since the last one that did not."""
        self._frequency_hz = scan_format.sampling_frequency_hz
        self._timestamps = Timestamps() if scan_format.timestamp else None
        if self._timestamps is None and self._frequency_hz <= 0:
            raise ValueError(
                "the scans have neither timestamps nor a known rate;"
                " set sampling_frequency_hz in [adc] or in the capture to the rate of the ADC"
            )
        self._reads = Reads()
        self._remaining = 0  # scans of the current read that are not added yet
        self._read_ns: int | None = None
        self._began_ns: int | None = None
        self._pending = PendingScans(channels)
        self._clock: SampleClock | None = None
        self._first_hertz: float | None = None  # the first rate measured from timestamps
        self._attempts = 0  # clocks since the last window
        self._unsure = 0  # by late reads, scans before this position may hide a loss
        # Set with the clock, by `_align_grid`.
        self._start: float
        self._second_ns: int
        self._grid_ns: int
        self._grid_is_new: bool
        self._is_steady: bool  # whether the ADC has kept its rate since the window began
        self._fitted: int  # pending scans to which the clock was fitted
        self._next_candidate: int  # pending scans needed for the next try to complete a window

    @property
    def hertz(self) -> float | None:
        """The measured rate; None while it is not known to 1 %. Where each second loses scans, it
        is that of their timestamps, which is all that will be known."""
        clock = self._clock
        is_known = clock and (clock.error <= _RATE_MOVED / 2 or self.lossy_windows)
        return SECOND_NS / clock.period_ns if clock and is_known else None

    @property
    def rate_fault(self) -> str | None:
        """Message if the measured rate contradicts the rate that the device reports."""
        reported, hertz = self._frequency_hz, self.hertz
        if hertz is None or reported <= 0:
            return None
        if abs(hertz / reported - 1) <= _RATE_OFF:
            return None
        return f"the driver reports {reported:g} scans per second, the ADC delivers {hertz:.0f}"

    @property
    def due_ns(self) -> int | None:
        """Time at which the last scan of the next window is due; None before the first scan.

        If a stamp is late or scans are missing, the time moves on a little. If no scans arrive,
        it stays in the past.
        """
        pending, clock = self._pending, self._clock
        if clock is None:
            return int(pending.stamps[0]) + SECOND_NS if pending.count else None
        if pending.count == 0 or self._timestamps is None:
            return self._grid_ns
        newest_ns = int(pending.stamps[-1])
        if newest_ns < min(self._grid_ns, clock.time_ns(pending.positions[-1]) + _LATE_NS):
            return self._grid_ns
        wait = round(confirm_scans(clock.period_ns) * clock.period_ns)
        return max(self._grid_ns + wait, newest_ns + wait // 8)

    def start_read(self, scans: int, read_ns: int | None, began_ns: int | None) -> None:
        """Begin a read of `scans` scans; for the times see `Metering.feed`."""
        began_ns = read_ns if began_ns is None else began_ns
        self._remaining, self._read_ns, self._began_ns = scans, read_ns, began_ns
        if read_ns is None or began_ns is None:
            return
        after = self._pending.next_position + scans
        if self._timestamps:
            self._reads.add(after, read_ns)
            return
        lost = self._reads.follow(after, scans, read_ns, began_ns)
        if lost or self._reads.is_late:
            self._unsure = after + lost
        self._pending.next_position += lost
        self.lost_scans_total += lost
        if self._reads.clock is None:
            self._forget_clock(self._pending.count)
        elif self._clock:
            self._clock = self._reads.clock

    def append(self, codes: Rows, timestamps: Integers | None, scans: int) -> int:
        """Add scans of the current read, and return how many of them were added.

        After each call, call `next_span` until it returns None; then append the rest.
        """
        stamps = None
        if self._timestamps and timestamps is not None:
            is_last = scans == self._remaining
            good, reason = self._timestamps.check(
                timestamps, self._read_ns, self._began_ns, is_last
            )
            if good == 0:
                self._reject(reason)
            else:
                scans, stamps = good, timestamps[:good]
        self._remaining -= scans
        if stamps is None and self._counting_clock() is None:
            self._pending.next_position += scans
        else:
            if scans < len(codes[0]):
                codes = [row[:scans] for row in codes]
            self._pending.append(codes, stamps)
        return scans

    def next_span(self) -> Span | None:
        """Return the scans of the next complete window, or None. Then call `close_window`."""
        while (clock := self._clock or self._learn_clock()) is not None:
            count, is_even = self._scans_to_decide(clock)
            if count is None:
                return None
            self._next_candidate = 0
            if (clock := self._observe(clock, count, is_even)) is None:
                continue
            positions = self._pending.positions[:count]
            after = int(positions[-1]) + 1
            latest = clock.position(self._grid_ns)
            if self._timestamps and latest > after + 1:
                continue  # by the fitted clock, the grid point is still to come
            latest = min(latest, float(after))
            if (latest - self._start) * clock.period_ns < _SHORTEST_NS:
                # Uneven stamps moved the clock by half a window: learn it from the next ones.
                self._forget_clock(count)
                continue
            is_sure = clock.error <= _PRECISE and self._start >= self._unsure and self._is_steady
            codes = self._pending.codes[:, :count]
            return Span(codes, positions, self._start, latest, clock.period_ns, is_sure)
        return None

    def close_window(self, position: float, cycle: float | None) -> int:
        """End the window at `position` and return its time. `cycle`: samples per mains cycle."""
        clock = self._clock
        assert clock is not None
        used = int(self._pending.positions.searchsorted(math.floor(position)))
        self._pending.drop(used)
        self._fitted = max(0, self._fitted - used)
        self._start = position
        self._second_ns += SECOND_NS
        self._attempts = self.lossy_windows = 0
        self._grid_is_new, self._is_steady = False, True
        self._grid_ns = self._second_ns
        if cycle:
            cycles = math.floor((clock.position(self._second_ns) - position) / cycle + 1e-6)
            boundary_ns = clock.time_ns(position + cycles * cycle)
            self._grid_ns = min(self._second_ns, boundary_ns + _DRIFT_NS)
        return clock.time_ns(position)

    def _counting_clock(self) -> SampleClock | None:
        """The clock of scans without timestamps: that of the reads, or in a replay of the count."""
        if self._read_ns is not None or self._frequency_hz <= 0:
            return self._reads.clock
        return SampleClock(SECOND_NS / self._frequency_hz, error=0.0)

    def _learn_clock(self) -> SampleClock | None:
        """Create the clock and the grid as soon as there are enough observations."""
        if self._pending.count == 0:
            return None
        if self._timestamps is None:
            self._clock = self._counting_clock()
        else:
            stamps = self._pending.stamps
            # By the reported rate, or fewer if they span the time: the rate may be too high.
            count = max(_LEARN_LEAST, int(self._frequency_hz * _LEARN_SECONDS) or _LEARN_MOST)
            enough = stamps[_LEARN_LEAST - 1 :] - stamps[:1] >= _LEARN_SECONDS * SECOND_NS
            if enough.any():
                count = min(count, _LEARN_LEAST + int(enough.argmax()))
            # The few of an ADC that is far too slow give its rate.
            is_slow = len(stamps) >= _SLOW_LEAST and stamps[-1] - stamps[0] >= 2 * SECOND_NS
            if len(stamps) < count and not is_slow:
                self._find_slowest(stamps)
                return None
            self._set_clock(min(count, len(stamps)))
        if self._clock and not self._accept_rate(self._clock):
            return self._learn_clock()
        if self._clock:
            self._align_grid(self._clock)
        return self._clock

    def _find_slowest(self, stamps: Integers) -> None:
        """An ADC that delivers a few scans in four seconds will not deliver enough for a clock."""
        if len(stamps) < _SLOWEST_LEAST or stamps[-1] - stamps[0] < 4 * SECOND_NS:
            return
        # Not the mean: there may be one gap.
        hertz = SECOND_NS / max(1.0, median(stamps[1:] - stamps[:-1]))
        if hertz < SLOWEST_HERTZ:
            self._reject_rate(hertz)

    def _reject_rate(self, hertz: float) -> None:
        """The ADC is too slow: drop its scans."""
        self.slow_hertz = hertz
        self._forget_clock(self._pending.count)
        self._attempts = 0

    def _set_clock(self, count: int) -> SampleClock:
        """Create the clock from the first `count` pending stamps."""
        stamps, positions = self._pending.stamps[:count], self._pending.positions[:count]
        self._clock = SampleClock(estimate_period_ns(stamps))
        self._clock.restart(stamps[: count // 4], positions[: count // 4])
        return self._clock

    def _accept_rate(self, clock: SampleClock) -> bool:
        """Whether an ADC can have this rate, and had it before; if not, drop the scans."""
        hertz = SECOND_NS / clock.period_ns if clock.period_ns > 0 else math.inf
        # Too slow, or fast enough again, only if that is certain.
        slack = 5e-4 + (0 if self.slow_hertz else 3 * min(clock.error, 0.02))
        if hertz * (1 + slack) < SLOWEST_HERTZ:
            self._reject_rate(hertz)
            return False
        self.slow_hertz = None
        if self._timestamps:
            least, most = min(hertz, SLOWEST_HERTZ), FASTEST_HERTZ
            if self._first_hertz:
                least, most = ((1 + off) * self._first_hertz for off in (-_RATE_OFF, _RATE_OFF))
            if not least <= hertz <= most:
                rates = f"{least:.0f} to {most:.0f}"
                self._reject(f"they imply {hertz:.6g} scans per second, not {rates}")
                return False
            self._first_hertz = self._first_hertz or hertz
        return True

    def _forget_clock(self, scans: int) -> None:
        """Drop `scans` scans, and learn the clock from the next ones."""
        self._clock = None
        self._pending.drop(scans)
        self._attempts += 1
        if self._timestamps and self._attempts == _ATTEMPTS:
            self._reject("they are too uneven")

    def _reject(self, reason: str) -> None:
        """The timestamps are none: count scans, from here on unless no timestamp was used yet."""
        self.clock_fault = f"not used because {reason}; scans are timed by count instead"
        if self._frequency_hz <= 0 and self._read_ns is None:
            self.clock_fault = (
                f"not used because {reason}, and the rate of the ADC is unknown;"
                " set sampling_frequency_hz in the capture to time scans by count"
            )
        self._timestamps = None
        self._reads.fit()
        is_unused = self._first_hertz is None and self._counting_clock() is not None
        self._forget_clock(0 if is_unused else self._pending.count)

    def _align_grid(self, clock: SampleClock) -> None:
        """Start a window and the grid at the first pending scan."""
        position = int(self._pending.positions[0])
        self._start = float(position)
        self._grid_ns = self._second_ns = clock.time_ns(position) + SECOND_NS
        self._fitted = self._next_candidate = 0
        self._grid_is_new = self._is_steady = True

    def _observe(self, clock: SampleClock, count: int, is_even: bool) -> SampleClock | None:
        """Count losses among the first `count` scans, and fit the clock to those that are new.

        Returns None if this is no window: scans were dropped, or one begins after a large loss.
        """
        late = None
        if self._timestamps and self._fitted == 0 and clock.error == 1 and count >= _LEARN_LEAST:
            # Now there are twice as many stamps, which give a far better period.
            clock = self._set_clock(count)
            if not self._accept_rate(clock):
                return None
        if self._timestamps and not is_even:
            late = self._find_lost(clock, count)
            if late is None:
                # Learn the new rate from the next scans.
                self._first_hertz = None
                self._forget_clock(count)
                return None
        if self._skip_large_loss(clock, count):
            return None
        if self._timestamps:
            new, period_ns, is_new = slice(self._fitted, count), clock.period_ns, clock.error == 1
            stamps, positions = self._pending.stamps[new], self._pending.positions[new]
            off_ns: float = int(stamps[-1]) - clock.time_ns(int(positions[-1]))
            if late is not None:
                off_ns = float(np.minimum.reduce(late[-confirm_scans(period_ns) :]))
            clock.fit(stamps, positions, None if late is None else late[new])
            self._fitted = count
            moved = abs(clock.period_ns / period_ns - 1) > _PRECISE
            if not is_new and (moved or abs(off_ns) > _MOVED_NS + period_ns / 4):
                self._is_steady = False
        return clock if self._accept_rate(clock) else None

    def _scans_to_decide(self, clock: SampleClock) -> tuple[int | None, bool]:
        """Number of pending scans that decides on the window, and whether they are even.

        None if more are needed. Usually these are all scans before the grid point, by count. After
        a gap they end where stamps have been past the grid point for long enough to be trusted.
        """
        pending = self._pending
        last = math.ceil(clock.position(self._grid_ns)) - 1
        by_count = max(self._fitted + 1, last - pending.next_position + 1 + pending.count)
        if self._timestamps is None:
            by_count = max(1, int(pending.positions.searchsorted(last, side="right")))
            return by_count if last < pending.next_position else None, True
        if by_count <= pending.count and self._is_even(clock, by_count):
            return by_count, True
        confirm, candidate = confirm_scans(clock.period_ns), by_count
        stamps = pending.stamps[:by_count]
        if len(stamps) and int(np.maximum.reduce(stamps)) >= self._grid_ns:
            passed = int((stamps >= self._grid_ns).argmax())
            candidate = min(candidate, max(self._fitted + 1, passed + confirm))
        candidate = max(candidate, self._next_candidate)
        while candidate <= pending.count:
            recent = slice(max(0, candidate - confirm), candidate)
            late = clock.lateness_ns(pending.stamps[recent], pending.positions[recent])
            if len(late) < 2 or is_settled(late, clock.period_ns):
                if candidate >= by_count and float(late[-1]) < _LATE_NS:
                    return candidate, False
                if int(pending.stamps[recent].min()) >= self._grid_ns:
                    return candidate, False
            if (candidate - by_count) * clock.period_ns > SECOND_NS / 2:
                return candidate, False
            # The longer it lasts, the less often: its work is bounded.
            candidate += max(1, confirm // 8, (candidate - by_count) // 4)
            self._next_candidate = candidate
        return None, False

    def _is_even(self, clock: SampleClock, count: int) -> bool:
        """Whether the new ones of the first `count` scans are in time and in even steps."""
        new, period_ns = slice(self._fitted, count), clock.period_ns
        stamps, positions = self._pending.stamps[new], self._pending.positions[new]
        first, last = (int(stamps[at]) - clock.time_ns(int(positions[at])) for at in (0, -1))
        if first > period_ns / 2 or last > _LATE_NS:
            return False
        off_ns = np.abs(stamps[1:] - stamps[:-1] - period_ns)
        return bool(np.maximum.reduce(off_ns, initial=0) < period_ns / 8)

    def _find_lost(self, clock: SampleClock, count: int) -> Floats | None:
        """Shift positions by the lost scans, and return the lateness of the first `count` scans.

        Returns None if no scans were lost but the ADC has changed its rate.
        """
        pending = self._pending
        late = clock.lateness_ns(pending.stamps[:count], pending.positions[:count])
        losses = find_lost(late, clock.period_ns)
        if losses and losses[0][0] == 0 and self._grid_is_new:
            del losses[0]  # the grid starts at this scan: its stamp is late
        if (losses or late[-1] < -_LATE_NS) and self._has_another_rate(clock, count):
            return None
        for index, lost in losses:
            pending.insert_lost(index, lost)
            late[index:] -= lost * clock.period_ns
            self.lost_scans_total += lost
        return late

    def _has_another_rate(self, clock: SampleClock, count: int) -> bool:
        """Whether most scans come with a period that differs from the clock's.

        Gaps affect few steps over a short lag, late stamps little those over a long one, and from
        one uneven stamp to the next a step says nothing.
        """
        stamps, period_ns = self._pending.stamps[self._fitted : count], clock.period_ns
        if len(stamps) < _LEARN_LEAST:
            return False
        # A slower ADC takes longer for them. Not their duration: there may be a gap.
        typical_ns = max(period_ns, median(stamps[1:] - stamps[:-1]))
        if len(stamps) * typical_ns < _LEARN_SECONDS * SECOND_NS:
            return False
        lags = [len(stamps) // 64, len(stamps) // 8]
        if median(np.abs(stamps[1:] - stamps[:-1] - period_ns)) < period_ns / 4:
            lags.append(1)
        moved = [median(stamps[lag:] - stamps[:-lag]) / lag / period_ns - 1 for lag in lags]
        return bool(min(moved) > _RATE_MOVED or max(moved) < -_RATE_MOVED)

    def _skip_large_loss(self, clock: SampleClock, count: int) -> bool:
        """If the window lost too many scans, start one after those that are too many."""
        pending, positions = self._pending, self._pending.positions[:count]
        most_lost = MOST_LOST * SECOND_NS / clock.period_ns
        if int(positions[-1]) + 1 - math.floor(self._start) - count <= most_lost:
            return False
        lost_after = int(positions[-1]) - positions - np.arange(count - 1, -1, -1)
        first = int((lost_after <= most_lost).argmax())
        pending.drop(first)
        if self._timestamps:
            clock.restart(pending.stamps[: count - first], pending.positions[: count - first])
        self._align_grid(clock)
        self.lossy_windows += 1
        return True
