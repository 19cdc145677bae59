# SPDX-License-Identifier: Apache-2.0
"""One stamp for every scan: the driver's timestamp if it is plausible, otherwise by count.

The timestamp field can hold something else: sample data, if the driver has `available_scan_masks`
and trailing channels are off, or a clock other than CLOCK_MONOTONIC. Timestamps are rejected if
they go back, are later than the read or hours older, or run faster or slower than the clock of the
reads or than before. The rate that the device reports does not matter: drivers report wrong rates.
"""

import numpy as np

from csp1d.measuring.arrays import Integers
from csp1d.measuring.counting import LAG_NS, ReadClock
from csp1d.measuring.scan import FASTEST_HERTZ, SLOWEST_HERTZ, ScanFormat
from csp1d.units import MS_NS, SECOND_NS

_BACK_NS = 50 * MS_NS
_AHEAD_NS = 10 * MS_NS
_BEHIND_NS = 3600 * SECOND_NS
_SPEED_OFF = 0.2
_SPEED_NS = SECOND_NS // 4
"""Minimum time between reads to measure the speed of the stamps."""
_SPEED_READS = 3
"""Consecutive wrong speeds before timestamps are rejected; after a pause one jump is normal."""


class Stamping:
    """Stamps the scans of one capture, read by read."""

    def __init__(self, scan_format: ScanFormat) -> None:
        self.fault: str | None = None
        """Why existing timestamps are not used."""
        self._frequency_hz = scan_format.sampling_frequency_hz
        self._by_count = scan_format.timestamp is None
        if self._by_count and self._frequency_hz <= 0:
            raise ValueError(
                "the scans have neither timestamps nor a known rate;"
                " set sampling_frequency_hz in [adc] or in the capture to the rate of the ADC"
            )
        self._read_clock = ReadClock()
        self._scans_before = 0
        self._newest_ns: int | None = None
        self._speed_start: tuple[int, int] | None = None
        self._wrong_speeds = 0
        self._least_lag_ns: int | None = None
        """Least lag of a read's newest stamp so far."""
        self._first_hertz: float | None = None
        """The first rate measured from the stamps."""
        self.start_read(0, None)

    @property
    def least_loss_ns(self) -> float:
        """Minimum duration of a loss that these stamps can show."""
        return LAG_NS if self._by_count else 0.0

    def start_read(self, scans: int, read_ns: int | None) -> None:
        """Begin a read of `scans` scans that returned at `read_ns` (None in a replay)."""
        self._remaining, self._read_ns = scans, read_ns
        self._next_by_count: tuple[float, float] | None = None
        if read_ns is not None:
            self._read_clock.add_read(scans, read_ns)

    def next_stamps(self, timestamps: Integers | None, scans: int) -> Integers | None:
        """Return the stamps of the next `scans` scans, or of those before the first bad one.

        None if neither timestamps nor the rate are known.
        """
        if timestamps is not None and not self._by_count:
            good = self._count_valid(timestamps)
            if good:
                newest = int(np.maximum.reduce(timestamps[:good]))
                self._newest_ns = max(newest, self._newest_ns or newest)
            if good and (scans < self._remaining or self._check_speed()):
                self._advance(good)
                return timestamps[:good]
        stamps = self._stamp_by_count(scans)
        self._advance(scans)
        return stamps

    def check_rate(self, period_ns: float) -> bool:
        """Whether the rate is possible for an ADC and as before; if not, reject the timestamps."""
        if self._by_count:
            return True
        hertz = SECOND_NS / period_ns if period_ns > 0 else float("inf")
        least, most = SLOWEST_HERTZ, FASTEST_HERTZ
        if self._first_hertz:
            least, most = ((1 + change) * self._first_hertz for change in (-_SPEED_OFF, _SPEED_OFF))
        if least <= hertz <= most:
            self._first_hertz = self._first_hertz or hertz
            return True
        self._reject(f"they imply {hertz:.6g} scans per second, not {least:.0f} to {most:.0f}")
        return False

    def forget_rate(self) -> None:
        """Accept any rate next: the ADC has changed it."""
        self._first_hertz = None

    def restamp(self, scans: int) -> Integers | None:
        """Return new stamps, by count, for the last `scans` scans."""
        self._advance(-scans)
        if self._next_by_count:
            # Part of this read has such stamps already: go back to the first of these scans.
            first, spacing = self._next_by_count
            self._next_by_count = first - scans * spacing, spacing
        stamps = self._stamp_by_count(scans)
        self._advance(scans)
        return stamps

    def _advance(self, scans: int) -> None:
        self._remaining -= scans
        self._scans_before += scans

    def _check_speed(self) -> bool:
        """Whether the newest stamps advance as fast as the times of the reads."""
        if self._read_ns is None or self._newest_ns is None:
            return True
        newest_ns, read_ns = self._newest_ns, self._read_ns
        before = self._speed_start or (newest_ns, read_ns)
        if self._speed_start and read_ns - before[1] < _SPEED_NS:
            return True
        self._speed_start = newest_ns, read_ns
        moved_ns, passed_ns = newest_ns - before[0], read_ns - before[1]
        # After a pause of the reads, stamps jump to their usual lag.
        lag_ns, least_ns = read_ns - newest_ns, self._least_lag_ns
        in_step = least_ns is not None and abs(lag_ns - least_ns) < _BACK_NS
        self._least_lag_ns = lag_ns if least_ns is None else min(lag_ns, least_ns)
        is_wrong = not in_step and abs(moved_ns - passed_ns) > _SPEED_OFF * passed_ns
        self._wrong_speeds = self._wrong_speeds + 1 if is_wrong else 0
        if self._wrong_speeds < _SPEED_READS:
            return True
        self._reject(f"they advance {moved_ns / SECOND_NS:.3g} s in {passed_ns / SECOND_NS:.3g} s")
        return False

    def _count_valid(self, timestamps: Integers) -> int:
        """Return how many stamps precede the first bad one; reject the timestamps if none does."""
        # +/- 146 years, so that the difference of two stamps fits into 64 bits.
        lowest, highest = -(1 << 62), (1 << 62) - 1
        if self._read_ns is not None:
            lowest, highest = self._read_ns - _BEHIND_NS, self._read_ns + _AHEAD_NS
        before = int(timestamps[0]) if self._newest_ns is None else self._newest_ns
        first, last = int(timestamps[0]), int(timestamps[-1])
        even = bool(np.logical_and.reduce(timestamps[1:] >= timestamps[:-1]))
        if even and max(lowest, before) <= first and last <= min(highest, before + _BEHIND_NS):
            return len(timestamps)
        steps = np.diff(timestamps, prepend=before)
        newest = np.maximum.accumulate(np.maximum(timestamps, before))
        faults = {
            "they go back in time": timestamps < newest - _BACK_NS,
            "they jump ahead by hours": steps > _BEHIND_NS,
            "they are later than the read": timestamps > highest,
            "they are hours old": timestamps < lowest,
        }
        bad = np.logical_or.reduce(list(faults.values()))
        good = int(bad.argmax()) if bad.any() else len(timestamps)
        if good == 0:
            self._reject(next(reason for reason, at in faults.items() if at[0]))
        return good

    def _reject(self, reason: str) -> None:
        self.fault = f"not used because {reason}; scans are timed by count instead"
        if self._frequency_hz <= 0 and self._read_ns is None:
            self.fault = (
                f"not used because {reason}, and the rate of the ADC is unknown;"
                " set sampling_frequency_hz in the capture to time scans by count"
            )
        self._by_count, self._first_hertz = True, None

    def _stamp_by_count(self, scans: int) -> Integers | None:
        if self._next_by_count is None:
            self._next_by_count = self._time_by_count()
        if self._next_by_count is None:
            return None
        first, spacing = self._next_by_count
        self._next_by_count = first + scans * spacing, spacing
        stamps: Integers = np.rint(first + spacing * np.arange(scans)).astype(np.int64)
        return stamps

    def _time_by_count(self) -> tuple[float, float] | None:
        """Return the time of the next scan, and the spacing, for this read."""
        if self._read_ns is not None:
            return self._read_clock.stamp_last(self._remaining)
        if self._frequency_hz <= 0:
            return None
        return self._scans_before * SECOND_NS / self._frequency_hz, SECOND_NS / self._frequency_hz
