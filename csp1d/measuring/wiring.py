# SPDX-License-Identifier: Apache-2.0
"""Advice on the wiring, from the angles of the currents to the voltages.

Most loads draw a current within 30 degrees of their phase's voltage. So each of six sectors of 60
degrees belongs to the voltage of one phase, with the current along it or against it. One phase
alone proves nothing: a mostly reactive load is in the sector of another phase. Two currents in each
other's sectors are evidence. But feed-in with more reactive than active power can be in any sector,
and feed-in looks like a reversed transformer or reference. So all advice is conditional on no
feed-in at that time; the reader decides. A phase that once imported at its own voltage is wired
correctly; later changes are its load or feed-in. The advice never changes a measurement.
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
"""Maximum angle between a current and the voltage of another phase that it is assigned to."""


@dataclass(frozen=True)
class _Sector:
    """The sector that a current is in."""

    phase: Phase
    """The phase whose voltage it fits."""
    against: bool
    """The current flows against that voltage."""
    close: bool = True
    """It is the phase's own sector, or the current is within `_SURE_DEGREES` of the voltage."""


class Wiring:
    """Advice on the wiring of the phases, updated with each reading."""

    def __init__(self, direction: DirectionConfig, channels: Mapping[Phase, ChannelConfig]) -> None:
        self._direction = direction
        self._channels = channels
        self._voltages = {int(direction.lag_degrees(phase)): phase for phase in Phase}
        self._lasting: Counter[tuple[Phase, _Sector]] = Counter()
        self._advice: str | None = None
        self._doubted: Collection[Phase] = [*channels]
        """Phases that must import at their own voltage before the wiring counts as correct."""
        self._proven: set[Phase] = set()

    def update(self, currents: Mapping[Phase, complex]) -> str | None:
        """The advice after one more reading; "": the wiring is correct, None: not known yet.

        `currents` are RMS phasors of the fundamentals in amperes, relative to the voltage of the
        reference's phase. Advice stays until the phases that it concerns are proven correct.
        """
        sectors = {
            phase: self._sector(phase, current)
            for phase, current in currents.items()
            if abs(current) >= _LEAST_AMPERES
        }
        self._lasting = Counter({item: self._lasting[item] + 1 for item in sectors.items()})
        steady = {p: sector for (p, sector), n in self._lasting.items() if n >= _LASTING_READINGS}
        self._proven |= {p for p, sector in steady.items() if sector == _Sector(p, against=False)}
        suspect = {phase: at for phase, at in steady.items() if phase not in self._proven}
        found = self._find_swapped(suspect) or self._find_reversed(suspect, len(steady))
        if found:
            advice, phases = found
            # New doubt does not prove the phases that were doubted before.
            before = self._doubted if self._advice else ()
            self._advice, self._doubted = advice, {*before, *phases}
        elif self._proven.issuperset(self._doubted):
            self._advice = ""
        return self._advice

    def _sector(self, phase: Phase, current: complex) -> _Sector:
        lag_sectors = math.degrees(-cmath.phase(current)) / 60
        number = round(lag_sectors)
        against = number % 2 == 1
        fits = self._voltages[(number + 3 * against) % 6 * 60]
        close = abs(lag_sectors - number) * 60 <= _SURE_DEGREES
        return _Sector(fits, against, close or fits == phase)

    def _find_swapped(self, suspect: Mapping[Phase, _Sector]) -> tuple[str, list[Phase]] | None:
        """Advice on currents in each other's sectors, and the phases that it concerns."""
        # A reactive load can also be against the voltage of another phase.
        moved = {
            phase: sector.phase
            for phase, sector in suspect.items()
            if sector.phase != phase and not sector.against and sector.close
        }
        if not moved or {*moved.values()} != {*moved}:
            return None
        if len(moved) == 3:
            sensed = next(phase for phase, to in moved.items() if to == self._direction.phase)
            return (
                f"if there is no export, the reference senses {sensed}, not"
                f' {self._direction.phase}: set direction.phase = "{sensed}", or, if that is wrong,'
                " rotate the channels.*.input of all three phases",
                [*moved],
            )
        one, other = sorted(moved)
        remedy = f"swap channels.{one}.input and channels.{other}.input"
        if self._direction.phase not in moved:
            order = "L1-L3-L2" if self._direction.phase_order == "L1-L2-L3" else "L1-L2-L3"
            remedy += f', or set direction.phase_order = "{order}" if that is the phase order'
        advice = f"if there is no export, the inputs of {one} and {other} are swapped: {remedy}"
        return advice, [one, other]

    def _find_reversed(
        self, suspect: Mapping[Phase, _Sector], steady: int
    ) -> tuple[str, list[Phase]] | None:
        """Advice on currents against their own voltages, out of the number of steady currents."""
        against = [p for p in sorted(suspect) if suspect[p].phase == p and suspect[p].against]
        if not against or steady == 1:
            return None
        names = " and ".join(against)
        settings = ", ".join(
            f"channels.{p}.reversed = {str(not self._channels[p].reversed).lower()}"
            for p in against
        )
        remedy = f"turn the transformer of {names} around, or set {settings}"
        if len(against) > steady / 2:
            # More likely than several reversed transformers.
            remedy = f"the reference is reversed: {self._reference_remedy()}; or {remedy}"
        return f"if there is no export on {names}: {remedy}", against

    def _reference_remedy(self) -> str:
        if self._direction.reference == "voltage":
            return "turn its plug around"
        flows = {"consuming": "producing", "producing": "consuming"}
        return f'set direction.reference_flow = "{flows[self._direction.reference_flow]}"'
