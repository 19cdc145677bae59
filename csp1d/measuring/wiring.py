# SPDX-License-Identifier: Apache-2.0
"""Whether the angles of the currents fit the configured wiring, and what would make them fit.

A load draws its current within 30 degrees of its phase's voltage as a rule, so six sectors of 60
degrees tell whose voltage a current fits, with it or against it. One phase alone proves nothing: a
load that is mostly reactive lies in the sector of another phase. Two that stand in each other's
place say more. But what feeds in, less than it takes reactive power, can stand anywhere, and looks
like a reversed transformer or reference when it does not: so all advice is for a house that takes
its power from the mains at that time, and whether it does is left to who knows it. A phase that was
once seen to import at its own voltage is wired right: what it does later is its load or its
feed-in. Nothing is ever changed here.
"""

import cmath
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from csp1d.config import ChannelConfig, DirectionConfig
from csp1d.phase import Phase

_LEAST_AMPERES = 1.0
_LASTING_READINGS = 5
_SURE_DEGREES = 20
"""How far from the voltage of another phase a current may stand to be taken for that phase's."""


@dataclass(frozen=True)
class _Place:
    """Where a current lies."""

    phase: Phase
    """The one whose voltage it fits."""
    against: bool
    """It flows against that voltage."""
    close: bool = True
    """It stands within `_SURE_DEGREES` of it."""


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
            phase: self._place(phase, current)
            for phase, current in currents.items()
            if abs(current) >= _LEAST_AMPERES
        }
        self._lasting = Counter({item: self._lasting[item] + 1 for item in places.items()})
        steady = {p: place for (p, place), n in self._lasting.items() if n >= _LASTING_READINGS}
        own = {p for p, place in steady.items() if place.phase == p and not place.against}
        self._proven |= own
        odd = {phase: place for phase, place in steady.items() if phase not in self._proven}
        found = self._exchanged(odd) or self._reversed(odd, len(steady))
        if found:
            advice, doubted = found
            # Who was doubted before has not been proven by what is doubted now.
            before = self._doubted if self._advice else ()
            self._advice, self._doubted = advice, {*before, *doubted}
        elif self._proven.issuperset(self._doubted):
            self._advice = ""
        return self._advice

    def _place(self, phase: Phase, current: complex) -> _Place:
        lag_sectors = math.degrees(-cmath.phase(current)) / 60
        sector = round(lag_sectors)
        against = sector % 2 == 1
        fits = self._voltages[(sector + 3 * against) % 6 * 60]
        close = abs(lag_sectors - sector) * 60 <= _SURE_DEGREES
        return _Place(fits, against, close or fits == phase)

    def _exchanged(self, odd: Mapping[Phase, _Place]) -> tuple[str, list[Phase]] | None:
        """Currents that lie at each other's voltages, and what is said of which phases."""
        # Against the voltage of another phase lies a reactive load, too.
        moved = {
            phase: place.phase
            for phase, place in odd.items()
            if place.phase != phase and not place.against and place.close
        }
        if not moved or {*moved.values()} != {*moved}:
            return None
        if len(moved) == 3:
            sensed = next(phase for phase, to in moved.items() if to == self._direction.phase)
            return (
                f"if nothing feeds in, the reference senses {sensed}, not {self._direction.phase}:"
                f' set direction.phase = "{sensed}", or move on the channels.*.input of all'
                " three phases if it does not",
                [*moved],
            )
        one, other = sorted(moved)
        mend = f"swap channels.{one}.input and channels.{other}.input"
        if self._direction.phase not in moved:
            order = "L1-L3-L2" if self._direction.phase_order == "L1-L2-L3" else "L1-L2-L3"
            mend += f', or set direction.phase_order = "{order}" if that is how the phases turn'
        return (
            f"if nothing feeds in, the inputs of {one} and {other} are swapped: {mend}",
            [one, other],
        )

    def _reversed(self, odd: Mapping[Phase, _Place], seen: int) -> tuple[str, list[Phase]] | None:
        """Currents against their own voltages, of so many phases that can be seen."""
        against = [p for p in sorted(odd) if odd[p].phase == p and odd[p].against]
        if not against or seen == 1:
            return None
        names = " and ".join(against)
        turned = [
            f"channels.{p}.reversed = {str(not self._channels[p].reversed).lower()}"
            for p in against
        ]
        mend = f"turn round the transformer of {names}, or set {', '.join(turned)}"
        if len(against) > seen / 2:
            # More likely than so many transformers.
            mend = f"the reference is the wrong way round: {self._reference_mend()}; or {mend}"
        return f"if nothing feeds in on {names}: {mend}", against

    def _reference_mend(self) -> str:
        if self._direction.reference == "voltage":
            return "turn its plug round"
        flows = {"consuming": "producing", "producing": "consuming"}
        return f'set direction.reference_flow = "{flows[self._direction.reference_flow]}"'
