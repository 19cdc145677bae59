# SPDX-License-Identifier: Apache-2.0
"""What one second of measuring comes to: the value that telegram, lamps and pages are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csp1d.phase import Phase
from csp1d.units import MS_NS, SECOND_NS

if TYPE_CHECKING:
    from csp1d.measuring.arrays import Floats

FRESH_NS = SECOND_NS
"""A reading may be sent for as long as this after its end."""

CURRENT_NS = 1500 * MS_NS
"""A reading says what flows now for this long: a second until the next one, and some play."""


@dataclass(frozen=True)
class PhaseCurrent:
    """The current of one phase over the window of a reading."""

    rms_amperes: float
    """RMS with DC removed and the noise floor subtracted; 0 below the no-load threshold."""
    peak_amperes: float
    """Largest distance of a sample from the mean, noise included."""
    dc_offset_amperes: float
    """Mean of the samples as the driver's scale and offset give it: a bias counts as DC."""
    clipped_samples: int
    """Samples at an end of the code range: from one on, the RMS is too low."""
    at_rail: bool = False
    """More than half of the samples lie at the same end, as no alternating current does, however
    strong: nothing is known of what flows."""
    uncorrected_rms_amperes: float = 0.0
    """RMS with DC removed as transformer, burden and ADC give it: without the configured gain,
    noise floor and no-load threshold. What a calibration is made from."""


@dataclass(frozen=True)
class DirectionReading:
    """Which way the phases flow, against the reference, over the window of a reading."""

    active_current_amperes: Mapping[Phase, float] | None
    """RMS of the fundamental in phase with the voltage, positive for import; None where the
    reference can not tell."""
    exporting: frozenset[Phase]
    """The phases that count as export. Unsure means import."""
    reference_fault: str
    """Why the reference can not tell, in words; "" where it can."""
    wiring_advice: str | None
    """What would make the wiring fit the angles seen; "" where it does, None: not seen yet."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """The last mains cycles of a reading, the newest point last: it ends with the reading, to a
    sample. DC is removed; polarity and gain are as configured, phase errors are not taken out."""

    spacing_seconds: float
    """Between points, each of which is the mean of the samples there."""
    current_amperes: "Mapping[Phase, Floats]"
    """(points,) each."""
    reference: "Floats | None"
    """(points,), of the direction; None where there is none."""
    reference_unit: str
    """ "V" or "A"; "" without a reference."""


@dataclass(frozen=True)
class Reading:
    """All phases over one window of whole mains cycles, about one second long."""

    sequence: int
    """1 for the first reading of a metering, then one more for each."""
    end_ns: int
    """End of the window on CLOCK_MONOTONIC (in a replay: on the clock of the capture)."""
    window_seconds: float
    phases: Mapping[Phase, PhaseCurrent]
    """The configured phases only."""
    frequency_hertz: float | None
    """Mains frequency; None where no channel carried a coherent current."""
    scans: int
    """Scans that the window was made from."""
    lost_scans: int
    """Scans that the window should have held besides."""
    direction: DirectionReading | None = None
    """None where direction is off."""
    waveform: Waveform | None = field(default=None, compare=False)

    @property
    def failed_phases(self) -> tuple[Phase, ...]:
        """Whose input has failed. Where there are any, the reading tells nothing of the house."""
        return tuple(phase for phase, current in self.phases.items() if current.at_rail)

    def amperes(self, phase: Phase) -> float:
        """RMS amperes of a phase; 0.0 where the phase is not configured."""
        current = self.phases.get(phase)
        return current.rms_amperes if current else 0.0

    def signed_amperes(self, phase: Phase) -> float:
        """RMS amperes of a phase, negative where it exports."""
        exporting = self.direction is not None and phase in self.direction.exporting
        return -self.amperes(phase) if exporting else self.amperes(phase)
