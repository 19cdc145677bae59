# SPDX-License-Identifier: Apache-2.0
"""A stamp for every scan: the driver's as long as it moves like a clock, else one made by count.

The timestamp of a scan can be something else: sample data where a driver has
`available_scan_masks` and trailing channels are off, or a clock that was not set to monotonic. No
stamp is believed that goes back, lies ahead of the read or hours behind it, or runs at another
rate than the device says.
"""

import numpy as np

from csp1d.measuring.clock import SECOND_NS, Integers
from csp1d.measuring.counting import LAG_NS, ReadClock
from csp1d.measuring.scan import FASTEST_HERTZ, SLOWEST_HERTZ, ScanFormat

_BACK_NS = 50_000_000
_AHEAD_NS = 1_000_000_000
_BEHIND_NS = 3600 * SECOND_NS
_RATE_OFF = 0.2


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
        self._count_clock: ReadClock | None = None
        self._line: tuple[float, float] | None = None
        self._read_ns: int | None = None
        self._left = 0
        self._scans_before = 0
        self._newest_ns: int | None = None

    @property
    def least_loss_ns(self) -> float:
        """What stamps can tell of a loss; below, it is they that moved."""
        return LAG_NS if self._by_count else 0.0

    def begin(self, scans: int, read_ns: int | None) -> None:
        """A feed of so many scans follows."""
        self._left, self._read_ns, self._line = scans, read_ns, None
        if scans == 0 and self._by_count:
            self._made(0)

    def take(self, timestamps: Integers | None, scans: int) -> Integers | None:
        """Stamps for the next scans, or for as many of them as come before a fault.

        None: there is no way to tell their times.
        """
        if timestamps is not None and not self._by_count:
            good = self._good(timestamps)
            if good:
                self._count(good)
                newest = int(timestamps[:good].max())
                self._newest_ns = max(newest, self._newest_ns or newest)
                return timestamps[:good]
        stamps = self._made(scans)
        self._count(scans)
        return stamps

    def rate_is_right(self, period_ns: float) -> bool:
        """Whether stamps come about as often as the device says; if not, they are at fault.

        Where it does not say, they have to come as often as some ADC's would.
        """
        hertz = SECOND_NS / period_ns if period_ns > 0 else float("inf")
        if self._frequency_hz > 0:
            if abs(hertz / self._frequency_hz - 1) > _RATE_OFF:
                self._reject(
                    f"they tell {hertz:.6g} scans a second where the device says"
                    f" {self._frequency_hz:.6g}"
                )
                return False
        elif not SLOWEST_HERTZ <= hertz <= FASTEST_HERTZ:
            self._reject(
                f"they tell {hertz:.6g} scans a second where {SLOWEST_HERTZ:g} to"
                f" {FASTEST_HERTZ:g} can be"
            )
            return False
        return True

    def again(self, scans: int) -> Integers | None:
        """Stamps made by count for the scans taken last."""
        self._count(-scans)
        stamps = self._made(scans)
        self._count(scans)
        return stamps

    def _count(self, scans: int) -> None:
        self._left -= scans
        self._scans_before += scans

    def _good(self, timestamps: Integers) -> int:
        """How many stamps come before the first bad one."""
        lowest, highest = -(1 << 63), (1 << 63) - 1
        if self._read_ns is not None:
            lowest, highest = self._read_ns - _BEHIND_NS, self._read_ns + _AHEAD_NS
        before = int(timestamps[0]) if self._newest_ns is None else self._newest_ns
        first, last = int(timestamps[0]), int(timestamps[-1])
        even = bool((timestamps[1:] >= timestamps[:-1]).all())
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
        if self._frequency_hz <= 0:
            self.fault = (
                f"not used, since {reason}, and the rate of the ADC is not known: set"
                " sampling_frequency_hz, in [adc] or in the capture, to have scans counted instead"
            )
        self._by_count = True

    def _made(self, scans: int) -> Integers | None:
        if self._frequency_hz <= 0:
            return None
        if self._count_clock is None:
            start_ns = self._scans_before * SECOND_NS / self._frequency_hz
            self._count_clock = ReadClock(self._frequency_hz, start_ns)
        if self._line is None:
            self._line = self._count_clock.stamp(self._left, self._read_ns)
        first, spacing = self._line
        self._line = first + scans * spacing, spacing
        stamps: Integers = np.rint(first + spacing * np.arange(scans)).astype(np.int64)
        return stamps
