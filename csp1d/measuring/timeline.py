# SPDX-License-Identifier: Apache-2.0
"""Where windows begin and end: on a grid of seconds by the samples' clock, anchored at a sample.

A grid point is the whole second or, where the mains' cycle is known, the last boundary of a cycle
before it, so that nobody waits for samples behind the window's end. A window is complete as soon
as the samples before its grid point are there. Whether they are is
decided at one sample, which the samples up to there settle: how they were cut into reads makes no
difference. Behind a gap it is decided a little later, when it is sure that stamps are not merely
late. Where too much was lost, the grid starts again behind the loss.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csp1d.measuring.arrays import Array, Floats, Integers
from csp1d.measuring.clock import (
    SampleClock,
    confirm_scans,
    estimate_period_ns,
    find_lost,
    is_settled,
)
from csp1d.measuring.pending import PendingScans
from csp1d.measuring.scan import ScanFormat
from csp1d.measuring.stamping import Stamping
from csp1d.units import MS_NS, SECOND_NS

MOST_LOST = 0.05
"""Part of a second's scans; where more were lost, what is left makes no reading."""

_LATE_NS = 5 * MS_NS
"""A stamp later than this may stand behind a gap: look at more of them before deciding."""

_DRIFT_NS = MS_NS // 2
"""How far behind a cycle's expected boundary its grid point lies: 25 mHz of drift at 50 Hz."""

_SHORTEST_NS = SECOND_NS // 2
"""A window is longer than this, unless the clock was wrong where it began."""

_RATE_OFF = 0.2
"""How far what the device says of its rate may be off to be let pass."""

_RATE_MOVED = 0.02
"""No clock drifts by that much: where stamps tell another period, the ADC has another rate."""

_LEARN_SECONDS = 0.5
_LEARN_LEAST, _LEARN_MOST = 64, 20_000


@dataclass(frozen=True)
class Span:
    """The scans that a window is to be made from."""

    codes: Floats
    """(channels, scans); good until the next scans are taken."""
    positions: Integers
    """(scans,) counts of samples, lost ones included."""
    start: float
    """Position at which the window begins: where the last one ended."""
    latest: float
    """Position before which it is to end."""
    period_ns: float


class Timeline:
    """Puts scans on the time axis and tells which make the next window.

    Raises ValueError where there is no way to tell the time of a scan.
    """

    def __init__(self, scan_format: ScanFormat, channels: int) -> None:
        self.lost_scans_total = 0
        self._frequency_hz = scan_format.sampling_frequency_hz
        self._stamping = Stamping(scan_format)
        self._pending = PendingScans(channels)
        self._clock: SampleClock | None = None
        self._start = 0.0
        self._second_ns = 0
        self._grid_ns = 0
        self._known = 0  # pending scans that the clock has taken into account
        self._candidate = 0  # pending scans with which to look next whether a window is complete

    @property
    def clock_fault(self) -> str | None:
        """Why the timestamps are not used although there are some."""
        return self._stamping.fault

    @property
    def rate_fault(self) -> str | None:
        """In words, where the scans come at quite another rate than the device says."""
        if self._clock is None or not self._clock.is_fitted or self._frequency_hz <= 0:
            return None
        hertz = SECOND_NS / self._clock.period_ns
        if abs(hertz / self._frequency_hz - 1) <= _RATE_OFF:
            return None
        return f"the device says {self._frequency_hz:g} scans a second, and gives {hertz:.0f}"

    @property
    def due_ns(self) -> int | None:
        """Time at which the last sample of the next window is due; None before the first scan.

        It moves on a little where a stamp is late or scans are missing, and stays in the past
        when the samples do.
        """
        pending, clock = self._pending, self._clock
        if clock is None:
            return int(pending.stamps[0]) + SECOND_NS if pending.count else None
        if pending.count == 0:
            return self._grid_ns
        newest_ns = int(pending.stamps[-1])
        late = clock.lateness_ns(pending.stamps[-1:], pending.positions[-1:])
        if newest_ns < self._grid_ns and float(late[0]) < _LATE_NS:
            return self._grid_ns
        wait = round(confirm_scans(clock.period_ns) * clock.period_ns)
        return max(self._grid_ns + wait, newest_ns + wait // 8)

    def start_read(self, scans: int, read_ns: int | None) -> None:
        """A feed of so many scans follows, read at a time (None: a replay)."""
        self._stamping.start_read(scans, read_ns)

    def append(self, codes: Sequence[Array], timestamps: Integers | None, scans: int) -> int:
        """Take scans, or the first of them; how many. Call `next_span` until None in between."""
        fault = self._stamping.fault
        stamps = self._stamping.take(timestamps, scans)
        if self._stamping.fault != fault:
            self._restart(self._pending.count)
        if stamps is None:
            return scans
        self._pending.append([row[: len(stamps)] for row in codes], stamps)
        return len(stamps)

    def next_span(self) -> Span | None:
        """The scans of the next window, if they are there. Then call `close_window`."""
        while True:
            clock = self._clock or self._learn()
            if clock is None or (count := self._scans_to_decide(clock)) is None:
                return None
            self._candidate = 0
            if self._known == 0 and not clock.is_fitted and count >= _LEARN_LEAST:
                # Twice the stamps that the clock was set with tell the period far better.
                clock = self._set_clock(count)
                if not self._stamping.rate_is_right(clock.period_ns):
                    self._restart(0)
                    continue
            late = self._find_lost(clock, count)
            if late is None:
                # Learn the new rate from the scans that follow.
                self._stamping.forget_rate()
                self._clock = None
                self._pending.drop(count)
                continue
            if self._skip_large_loss(clock, count):
                continue
            pending, unknown = self._pending, slice(self._known, count)
            clock.fit(pending.stamps[unknown], pending.positions[unknown], late[unknown])
            self._known = count
            if not self._stamping.rate_is_right(clock.period_ns):
                self._restart(count)
                continue
            positions = pending.positions[:count]
            after = int(positions[-1]) + 1
            latest = clock.position(self._grid_ns)
            if latest > after + 1:
                continue  # the clock knows better now: the grid point is still to come
            latest = min(latest, float(after))
            if (latest - self._start) * clock.period_ns < _SHORTEST_NS:
                # Stamps this uneven moved the clock by half a window: learn from those that follow.
                self._clock = None
                pending.drop(count)
                continue
            return Span(pending.codes[:, :count], positions, self._start, latest, clock.period_ns)

    def close_window(self, position: float, cycle: float | None) -> int:
        """End the window at a position; the time of it. `cycle`: samples of one, if known."""
        clock = self._clock
        assert clock is not None
        used = int(self._pending.positions.searchsorted(math.floor(position)))
        self._pending.drop(used)
        self._known -= used
        self._start = position
        self._second_ns += SECOND_NS
        self._grid_ns = self._second_ns
        if cycle:
            cycles = math.floor((clock.position(self._second_ns) - position) / cycle + 1e-6)
            boundary_ns = clock.time_ns(position + cycles * cycle)
            self._grid_ns = min(self._second_ns, boundary_ns + _DRIFT_NS)
        return clock.time_ns(position)

    def _learn(self) -> SampleClock | None:
        """Set the clock, once there are stamps enough to."""
        stamps = self._pending.stamps
        # As many as the device says, unless it says too much: fewer that last as long do as well.
        count = max(_LEARN_LEAST, int(self._frequency_hz * _LEARN_SECONDS) or _LEARN_MOST)
        enough = stamps[_LEARN_LEAST - 1 :] - stamps[:1] >= _LEARN_SECONDS * SECOND_NS
        if enough.any():
            count = min(count, _LEARN_LEAST + int(enough.argmax()))
        if len(stamps) < count:
            return None
        clock = self._set_clock(count)
        if not self._stamping.rate_is_right(clock.period_ns):
            self._restart(0)
            return self._learn()
        self._align_grid(clock)
        return clock

    def _set_clock(self, count: int) -> SampleClock:
        """From the first so many pending scans."""
        stamps, positions = self._pending.stamps[:count], self._pending.positions[:count]
        first = slice(0, count // 4)
        self._clock = SampleClock(estimate_period_ns(stamps), stamps[first], positions[first])
        return self._clock

    def _align_grid(self, clock: SampleClock) -> None:
        """Begin a window, and the grid, at the first pending scan."""
        position = int(self._pending.positions[0])
        self._start = float(position)
        self._grid_ns = self._second_ns = clock.time_ns(position) + SECOND_NS
        self._known = self._candidate = 0

    def _restart(self, scans: int) -> None:
        """The timestamps are at fault: drop so many scans, count those that follow."""
        self._clock = None
        self._pending.drop(scans)
        stamps = self._stamping.again(self._pending.count)
        if stamps is None:
            self._pending.drop(self._pending.count)
        else:
            self._pending.restamp(stamps)

    def _scans_to_decide(self, clock: SampleClock) -> int | None:
        """With how many of the pending scans to decide on the window; None: more are needed.

        As a rule with those before the grid point, by count. Behind a gap, once stamps have
        passed the grid point for long enough to be sure of them.
        """
        pending = self._pending
        last = math.ceil(clock.position(self._grid_ns)) - 1
        by_count = max(self._known + 1, last - pending.next_position + 1 + pending.count)
        confirm = confirm_scans(clock.period_ns)
        candidate = by_count
        stamps = pending.stamps[:by_count]
        if len(stamps) and int(np.maximum.reduce(stamps)) >= self._grid_ns:
            passed = int((stamps >= self._grid_ns).argmax())
            candidate = min(candidate, max(self._known + 1, passed + confirm))
        candidate = max(candidate, self._candidate)
        while candidate <= pending.count:
            recent = slice(max(0, candidate - confirm), candidate)
            late = clock.lateness_ns(pending.stamps[recent], pending.positions[recent])
            if len(late) < 2 or is_settled(late, clock.period_ns):
                if candidate >= by_count and float(late[-1]) < _LATE_NS:
                    return candidate
                if int(pending.stamps[recent].min()) >= self._grid_ns:
                    return candidate
            if (candidate - by_count) * clock.period_ns > SECOND_NS / 2:
                return candidate
            candidate = self._candidate = candidate + max(1, confirm // 8)
        return None

    def _find_lost(self, clock: SampleClock, count: int) -> Floats | None:
        """Make room for the scans lost among the pending ones; how late these are then.

        None: none are lost, but they come at another rate.
        """
        pending = self._pending
        late = clock.lateness_ns(pending.stamps[:count], pending.positions[:count])
        losses = []
        for index, lost in find_lost(late, clock.period_ns):
            if lost * clock.period_ns >= self._stamping.least_loss_ns:
                losses.append((index, lost))
        if losses and self._has_another_rate(clock, count):
            return None
        for index, lost in losses:
            pending.insert_lost(index, lost)
            late[index:] -= lost * clock.period_ns
            self.lost_scans_total += lost
        return late

    def _has_another_rate(self, clock: SampleClock, count: int) -> bool:
        """Whether it is the period of most scans that is not the clock's.

        Over a short lag gaps touch few of the steps, over a long one late stamps move them little.
        """
        stamps = self._pending.stamps[self._known : count]
        if len(stamps) < max(_LEARN_LEAST, _LEARN_SECONDS * SECOND_NS / clock.period_ns):
            return False
        lags = (1, len(stamps) // 64, len(stamps) // 8)
        steps = [float(np.median(stamps[lag:] - stamps[:-lag])) / lag for lag in lags]
        moved = [step / clock.period_ns - 1 for step in steps]
        return min(moved) > _RATE_MOVED or max(moved) < -_RATE_MOVED

    def _skip_large_loss(self, clock: SampleClock, count: int) -> bool:
        """Begin behind the loss where too much of the window was lost."""
        pending, before = self._pending, math.floor(self._start)
        positions = pending.positions[:count]
        if int(positions[-1]) + 1 - before == count:
            return False
        lost = positions - np.arange(before, before + count)
        too_many = lost > MOST_LOST * SECOND_NS / clock.period_ns
        if not too_many.any():
            return False
        first = int(too_many.argmax())
        pending.drop(first)
        clock.restart(pending.stamps[: count - first], pending.positions[: count - first])
        self._align_grid(clock)
        self._skip_large_loss(clock, count - first)
        return True
