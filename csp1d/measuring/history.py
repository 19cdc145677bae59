# SPDX-License-Identifier: Apache-2.0
"""The RMS currents of the last 24 hours by the minute, in memory.

Minutes are counted on CLOCK_BOOTTIME: setting the wall clock does not move them, and a suspend is a
gap. A minute without a reading is a gap too (NaN), never 0 A. The value is immutable, so an HTTP
thread reads it while the loop appends; all but the last minute's readings is shared.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

from csp1d.measuring.reading import Reading
from csp1d.phase import Phase
from csp1d.units import SECOND_NS

MINUTE_NS = 60 * SECOND_NS
KEPT_MINUTES = 24 * 60
COLUMNS = ("lowest", "mean", "highest")
"""What is kept of the readings of a minute, for each phase."""

_GAP = array("f", [nan] * len(Phase) * len(COLUMNS)).tobytes()
"""A row without a reading."""


@dataclass(frozen=True)
class History:
    """A row for each minute: the columns of L1, then those of L2 and L3, as 32-bit floats."""

    minute: int = 0
    """The minute of the last reading, counted since the system was started."""
    before: bytes = _GAP * KEPT_MINUTES
    """The rows of the minutes before."""
    readings: tuple[tuple[int, Mapping[Phase, float]], ...] = ()
    """End (CLOCK_BOOTTIME) and RMS amperes of the readings of the last 60 s, oldest first; those of
    `minute` are among them."""

    def append(self, reading: Reading, end_ns: int) -> "History":
        """This history and a reading, which ended at `end_ns` (CLOCK_BOOTTIME)."""
        # One that is late counts in the present minute.
        end_ns = max(end_ns, self.minute * MINUTE_NS)
        minute, before = end_ns // MINUTE_NS, self.before
        if minute > self.minute:
            before = self._rows(minute - 1)
        amperes = {phase: reading.amperes(phase) for phase in reading.phases}
        return History(minute, before, (*self._since(end_ns - MINUTE_NS), (end_ns, amperes)))

    def highest_amperes(self, now_ns: int) -> Mapping[Phase, float]:
        """The highest RMS current of the readings of the last 60 s, by phase."""
        highest: dict[Phase, float] = {}
        for _, amperes in self._since(now_ns - MINUTE_NS):
            highest |= {p: max(highest.get(p, 0.0), value) for p, value in amperes.items()}
        return highest

    def columns(self, now_ns: int) -> Mapping[Phase, Mapping[str, Sequence[float]]]:
        """The last 24 hours, a value per minute, oldest first; NaN is a gap.

        The last minute is that of `now_ns` (CLOCK_BOOTTIME), which is in progress.
        """
        values = array("f", self._rows(now_ns // MINUTE_NS))
        width = len(Phase) * len(COLUMNS)
        starts = iter(range(width))
        return {phase: {name: values[next(starts) :: width] for name in COLUMNS} for phase in Phase}

    def _rows(self, last: int) -> bytes:
        """The rows of the minutes up to this one."""
        gaps = _GAP * min(last - self.minute, KEPT_MINUTES)
        return (self.before + self._row() + gaps)[-len(_GAP) * KEPT_MINUTES :]

    def _since(self, start_ns: int) -> list[tuple[int, Mapping[Phase, float]]]:
        """The readings that ended after this time."""
        return [reading for reading in self.readings if reading[0] > start_ns]

    def _row(self) -> bytes:
        row, of_minute = array("f"), self._since(self.minute * MINUTE_NS - 1)
        for phase in Phase:
            values = [amperes[phase] for _, amperes in of_minute if phase in amperes] or [nan]
            row.extend((min(values), sum(values) / len(values), max(values)))
        return row.tobytes()
