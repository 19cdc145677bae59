# SPDX-License-Identifier: Apache-2.0
"""Whether the angles of the currents fit the configured wiring, and what would make them fit.

A load draws its current within 30 degrees of its phase's voltage as a rule, so six sectors of 60
degrees tell whose voltage a current fits, with it or against it. One phase alone proves nothing: a
load that is mostly reactive lies in the sector of another phase. Two that stand in each other's
place do. A reversed transformer and a feed-in look the same, so that is left to who knows the
house. A phase that was once seen to import at its own voltage is wired right: what it does later
is its load or its feed-in. Nothing is ever changed here.
"""

import cmath
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from csp1d.config import ChannelConfig, DirectionConfig
from csp1d.measuring.reading import Phase

_LEAST_AMPERES = 1.0
_LASTING_READINGS = 5


@dataclass(frozen=True)
class _Place:
    """Where a current lies."""

    phase: Phase
    """The one whose voltage it fits."""
    against: bool
    """It flows against that voltage."""


class Wiring:
    """Advice on the wiring of the phases, from reading to reading."""

    def __init__(self, direction: DirectionConfig, channels: Mapping[Phase, ChannelConfig]) -> None:
        self._direction = direction
        self._channels = channels
        self._voltages = {int(direction.lag_degrees(phase)): phase for phase in Phase}
        self._lasting: Counter[tuple[Phase, _Place]] = Counter()
        self._advice: str | None = None
        self._doubted: Collection[Phase] = [*channels]
        """What has to be seen to import at its own voltage before the wiring is said to fit."""
        self._proven: set[Phase] = set()

    def see(self, currents: Mapping[Phase, complex]) -> str | None:
        """The advice after one more reading; "": it fits, None: that is not known yet.

        `currents`: RMS amperes of the fundamentals at their angle to the voltage of the
        reference's phase. Advice stays until the phases that it is about are proven right.
        """
        places = {
            phase: self._place(current)
            for phase, current in currents.items()
            if abs(current) >= _LEAST_AMPERES
        }
        self._lasting = Counter({item: self._lasting[item] + 1 for item in places.items()})
        steady = {p: place for (p, place), n in self._lasting.items() if n >= _LASTING_READINGS}
        own = {phase for phase, place in steady.items() if place == _Place(phase, False)}
        self._proven |= own
        odd = {phase: place for phase, place in steady.items() if phase not in self._proven}
        found = self._exchanged(odd) or (self._reversed(odd) if own else None)
        if found:
            self._advice, self._doubted = found
        elif self._proven.issuperset(self._doubted):
            self._advice = ""
        return self._advice

    def _place(self, current: complex) -> _Place:
        sector = round(math.degrees(-cmath.phase(current)) / 60) % 6
        against = sector % 2 == 1
        return _Place(self._voltages[(sector + 3 * against) % 6 * 60], against)

    def _exchanged(self, odd: Mapping[Phase, _Place]) -> tuple[str, list[Phase]] | None:
        """Currents that lie at each other's voltages, and what is said of which phases."""
        # Against the voltage of another phase lies a reactive load, too; with it, reactive feed-in,
        # but hardly two of that at each other's.
        moved = {
            phase: place.phase
            for phase, place in odd.items()
            if place.phase != phase and not place.against
        }
        if not moved or {*moved.values()} != {*moved}:
            return None
        if len(moved) == 3:
            sensed = next(phase for phase, to in moved.items() if to == self._direction.phase)
            return (
                f"the reference looks to sense {sensed}, not {self._direction.phase}:"
                f' set direction.phase = "{sensed}", or move on the channels.*.input of all'
                " three phases if it does not",
                [*moved],
            )
        one, other = sorted(moved)
        mend = f"swap channels.{one}.input and channels.{other}.input"
        if self._direction.phase not in moved:
            order = "L1-L3-L2" if self._direction.phase_order == "L1-L2-L3" else "L1-L2-L3"
            mend += f', or set direction.phase_order = "{order}" if that is how the phases turn'
        return f"the inputs of {one} and {other} look swapped: {mend}", [one, other]

    def _reversed(self, odd: Mapping[Phase, _Place]) -> tuple[str, list[Phase]] | None:
        """Currents against their own voltages, where others flow with theirs."""
        against = [phase for phase in sorted(odd) if odd[phase] == _Place(phase, True)]
        if not against:
            return None
        return "; ".join(map(self._reversed_advice, against)), against

    def _reversed_advice(self, phase: Phase) -> str:
        opposite = str(not self._channels[phase].reversed).lower()
        return (
            f"{phase} flows against the others: if nothing feeds in on {phase}, its transformer is"
            f" reversed: turn it round or set channels.{phase}.reversed = {opposite}"
        )
