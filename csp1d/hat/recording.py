# SPDX-License-Identifier: Apache-2.0
"""Recorded scans that the simulated ADC plays in a loop, as if they were taken now.

Where the loop returns to its beginning, the phase of the mains would jump, and with it the measured
frequency. So the loop ends a little before the recording does: where the signals are most like
those at the beginning.
"""

from pathlib import Path

import numpy as np

from csp1d.errors import CaptureError, Problem
from csp1d.measuring.arrays import Integers, Rows
from csp1d.measuring.scan import ScanFormat
from csp1d.units import SECOND_NS

_SHORTEST_SECONDS = 0.95
"""A little less than one: an ADC may be faster than it declares."""
_CYCLE_SECONDS = 0.02
"""One mains cycle or a little more."""
_MOST_COMPARED = 1000
"""Points of a cycle that are compared: a fast ADC has more than are needed."""
_SEARCHED_CYCLES = 10
"""Where a cycle is not a whole number of scans, an earlier one may fit better than the last."""


class Recording:
    """The scans of a capture. Raises CaptureError if they cannot be read or played."""

    def __init__(self, scan_format: ScanFormat, path: Path) -> None:
        self.format = scan_format
        self.path = path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _error(path, f"cannot be read: {error.strerror}; make it readable") from error
        scans = scan_format.decode(data)
        self._records = np.frombuffer(data, scan_format.record)
        self._stamps = scans.timestamps
        times_ns = self._find_times()
        periods = max(1, len(times_ns) - 1)
        period_ns = int(times_ns[-1]) / periods if len(times_ns) else 0.0
        seconds = len(times_ns) * period_ns / SECOND_NS
        if seconds < _SHORTEST_SECONDS:
            raise _error(path, f"{seconds:.1f} s are too short to be played; record 1 s or more")
        self.hertz = SECOND_NS / period_ns
        """Scans per second."""
        self._loop_scans = _find_end(scans.codes, max(1, round(self.hertz * _CYCLE_SECONDS)))
        self._loop_ns = int(times_ns[self._loop_scans])
        if self._loop_ns <= 0:
            raise _error(path, "its timestamps stand still; record it again")
        self._times_ns = times_ns[: self._loop_scans]

    def count(self, elapsed_ns: int) -> int:
        """The number of scans that have been taken after this time."""
        turns, rest_ns = divmod(elapsed_ns, self._loop_ns)
        scans = int(np.searchsorted(self._times_ns, rest_ns, "right"))
        return turns * self._loop_scans + scans

    def scans(self, first: int, end: int, start_ns: int) -> bytes:
        """The scans with these numbers, from `first` on; scan 0 was taken at `start_ns`."""
        turns, places = np.divmod(np.arange(first, end), self._loop_scans)
        records = self._records[places]
        if self._stamps is not None and self.format.timestamp:
            stamps = self._stamps[places] - self._stamps[0] + turns * self._loop_ns + start_ns
            records["timestamp"] = stamps << self.format.timestamp.type.shift
        return bytes(records.tobytes())

    def _find_times(self) -> Integers:
        """(scans,), nanoseconds after the first one: those of the stamps, if they are times."""
        count, hertz = len(self._records), self.format.sampling_frequency_hz
        if self._stamps is not None and count:
            times_ns: Integers = np.maximum.accumulate(self._stamps - self._stamps[0])
            stamped_hertz = count * SECOND_NS / max(1, int(times_ns[-1]))
            if 0.5 <= stamped_hertz / (hertz or stamped_hertz) <= 2:
                return times_ns
        if not hertz:
            reason = (
                "neither a sampling_frequency_hz nor timestamps; set the former in the json file"
            )
            raise _error(self.path, f"has {reason}")
        evenly: Integers = np.round(np.arange(count) * (SECOND_NS / hertz)).astype(np.int64)
        return evenly


def _find_end(codes: Rows, cycle: int) -> int:
    """The number of scans until the signals are again most like those at the beginning.

    `cycle` is a mains cycle in scans. The last one is compared only.
    """
    step = max(1, cycle // _MOST_COMPARED)
    signals = [np.asarray(signal, float) for signal in codes]
    begin = [signal[:cycle:step] for signal in signals]

    def difference(end: int) -> float:
        parts = (
            signal[end : end + cycle : step] - first
            for signal, first in zip(signals, begin, strict=True)
        )
        return sum(float(np.sum(part * part)) for part in parts)

    last = len(signals[0]) - cycle
    first = max(1, last - _SEARCHED_CYCLES * cycle)
    return min(range(last, first - 1, -step), key=difference)


def _error(path: Path, reason: str) -> CaptureError:
    return CaptureError([Problem(path, "", reason)])
