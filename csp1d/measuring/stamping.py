# SPDX-License-Identifier: Apache-2.0
"""A stamp for every scan: the driver's as long as it moves like a clock, else one made by count.

The timestamp of a scan can be something else: sample data where a driver has
`available_scan_masks` and trailing channels are off, or a clock that was not set to monotonic. No
stamp is believed that goes back, lies ahead of the read or hours behind it, or runs faster or
slower than the clock of the reads or than it did. What the device says of its rate is not held
against stamps: drivers err in that, clocks do not.
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
"""Reads have to be so far apart to tell the speed of the stamps."""
_SPEED_READS = 3
"""So often in a row: behind a pause stamps may stand back, and jump."""


class Stamping:
    """Stamps for the scans of one capture, feed by feed."""

    def __init__(self, scan_format: ScanFormat) -> None:
        self.fault: str | None = None
        """Why the timestamps are not used although there are some."""
        self._frequency_hz = scan_format.sampling_frequency_hz
        self._by_count = scan_format.timestamp is None
        if self._by_count and self._frequency_hz <= 0:
            raise ValueError(
                "the scans have neither timestamps nor a known rate:"
                " set sampling_frequency_hz, in [adc] or in the capture, to the rate of the ADC"
            )
        self._reads = ReadClock()
        self._line: tuple[float, float] | None = None
        self._read_ns: int | None = None
        self._left = 0
        self._scans_before = 0
        self._newest_ns: int | None = None
        self._speed_from: tuple[int, int] | None = None
        self._speed_off = 0
        self._least_lag_ns: int | None = None
        """Of the newest stamps behind the reads."""
        self._hertz: float | None = None
        """What the stamps told first."""

    @property
    def least_loss_ns(self) -> float:
        """What stamps can tell of a loss; below, it is they that moved."""
        return LAG_NS if self._by_count else 0.0

    def start_read(self, scans: int, read_ns: int | None) -> None:
        """A feed of so many scans follows."""
        self._left, self._read_ns, self._line = scans, read_ns, None
        if read_ns is not None:
            self._reads.read(scans, read_ns)

    def take(self, timestamps: Integers | None, scans: int) -> Integers | None:
        """Stamps for the next scans, or for as many of them as come before a fault.

        None: there is no way to tell their times.
        """
        if timestamps is not None and not self._by_count:
            good = self._good(timestamps)
            if good:
                newest = int(np.maximum.reduce(timestamps[:good]))
                self._newest_ns = max(newest, self._newest_ns or newest)
            if good and (scans < self._left or self._speed_is_right()):
                self._count(good)
                return timestamps[:good]
        stamps = self._made(scans)
        self._count(scans)
        return stamps

    def rate_is_right(self, period_ns: float) -> bool:
        """Whether stamps come as often as some ADC's would, and as they did; if not, no more."""
        hertz = SECOND_NS / period_ns if period_ns > 0 else float("inf")
        least, most = SLOWEST_HERTZ, FASTEST_HERTZ
        if self._hertz and not self._by_count:
            least, most = self._hertz * (1 - _SPEED_OFF), self._hertz * (1 + _SPEED_OFF)
        if least <= hertz <= most:
            self._hertz = self._hertz or hertz
            return True
        self._reject(f"they tell {hertz:.6g} scans a second where {least:.6g} to {most:.6g} can be")
        return False

    def forget_rate(self) -> None:
        """The ADC has another rate now."""
        self._hertz = None

    def again(self, scans: int) -> Integers | None:
        """Stamps made by count for the scans taken last."""
        self._count(-scans)
        if self._line:
            # Some were made in this feed already: back to where the first of these scans lies.
            first, spacing = self._line
            self._line = first - scans * spacing, spacing
        stamps = self._made(scans)
        self._count(scans)
        return stamps

    def _count(self, scans: int) -> None:
        self._left -= scans
        self._scans_before += scans

    def _speed_is_right(self) -> bool:
        """Whether the newest stamps of the reads move with the time of the reads."""
        if self._read_ns is None or self._newest_ns is None:
            return True
        newest_ns, read_ns = self._newest_ns, self._read_ns
        before = self._speed_from or (newest_ns, read_ns)
        if self._speed_from and read_ns - before[1] < _SPEED_NS:
            return True
        self._speed_from = newest_ns, read_ns
        moved_ns, passed_ns = newest_ns - before[0], read_ns - before[1]
        # Behind a pause of the reads stamps jump, to where they have been before.
        lag_ns, least_ns = read_ns - newest_ns, self._least_lag_ns
        in_step = least_ns is not None and abs(lag_ns - least_ns) < _BACK_NS
        self._least_lag_ns = lag_ns if least_ns is None else min(lag_ns, least_ns)
        is_off = not in_step and abs(moved_ns - passed_ns) > _SPEED_OFF * passed_ns
        self._speed_off = self._speed_off + 1 if is_off else 0
        if self._speed_off < _SPEED_READS:
            return True
        self._reject(f"they move by {moved_ns / SECOND_NS:.3g} s in {passed_ns / SECOND_NS:.3g} s")
        return False

    def _good(self, timestamps: Integers) -> int:
        """How many stamps come before the first bad one."""
        # 146 years either way, so that differences of stamps fit into what holds one.
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
            "they go back": timestamps < newest - _BACK_NS,
            "they jump ahead by hours": steps > _BEHIND_NS,
            "they lie ahead of the time of the read": timestamps > highest,
            "they are hours old": timestamps < lowest,
        }
        bad = np.logical_or.reduce(list(faults.values()))
        good = int(bad.argmax()) if bad.any() else len(timestamps)
        if good == 0:
            self._reject(next(reason for reason, at in faults.items() if at[0]))
        return good

    def _reject(self, reason: str) -> None:
        self.fault = f"not used, since {reason}: time goes by the count of scans instead"
        if self._frequency_hz <= 0 and self._read_ns is None:
            self.fault = (
                f"not used, since {reason}, and the rate of the ADC is not known: set"
                " sampling_frequency_hz in the capture, to have scans counted instead"
            )
        self._by_count, self._hertz = True, None

    def _made(self, scans: int) -> Integers | None:
        if self._line is None:
            self._line = self._make_line()
        if self._line is None:
            return None
        first, spacing = self._line
        self._line = first + scans * spacing, spacing
        stamps: Integers = np.rint(first + spacing * np.arange(scans)).astype(np.int64)
        return stamps

    def _make_line(self) -> tuple[float, float] | None:
        """Time of the next scan and their spacing, as of this feed."""
        if self._read_ns is not None:
            return self._reads.stamp(self._left)
        if self._frequency_hz <= 0:
            return None
        return self._scans_before * SECOND_NS / self._frequency_hz, SECOND_NS / self._frequency_hz
