# SPDX-License-Identifier: Apache-2.0
"""Readings: the measured values of one second, for telegrams, LEDs and pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from csp1d.phase import Phase
from csp1d.units import MS_NS, SECOND_NS

if TYPE_CHECKING:
    from csp1d.measuring.arrays import Floats

FRESH_NS = SECOND_NS
"""Maximum age of a reading that is sent, from its end."""

SHOWN_NS = 1500 * MS_NS
"""Maximum age of a reading that is shown as current: one second until the next, and a margin."""


@dataclass(frozen=True)
class PhaseCurrent:
    """The current of one phase over the window of a reading."""

    rms_amperes: float
    """RMS with DC removed and the noise floor subtracted; 0 below the no-load threshold."""
    peak_amperes: float
    """Largest distance of a sample from the mean, noise included."""
    dc_offset_amperes: float
    """Mean of the samples by the driver's scale and offset: a bias voltage counts as DC."""
    clipped_samples: int
    """Samples at either end of the code range: if there are any, the RMS is too low."""
    at_rail: bool = False
    """More than half of the samples are at the same end, or nearly all of a cycle at either, which
    no alternating current causes: the input has failed and the current is unknown."""
    is_still: bool = False
    """All samples have the same code, although an ADC with this many bits has more noise; or, from
    18 bits on, all phases have for a 40th of the window. If all phases are still, the ADC does not
    answer."""
    is_noise: bool = False
    """A current of at least 10 A, most of it above the low harmonics of the mains: the samples are
    misread, or the input is not that of a transformer. Not detected below some 1600 scans/s."""
    uncorrected_rms_amperes: float = 0.0
    """RMS with DC removed, without the configured gain, noise floor and no-load threshold. Input of
    a calibration."""


@dataclass(frozen=True)
class DirectionReading:
    """The direction of each phase over the window of a reading."""

    active_current_amperes: Mapping[Phase, float] | None
    """RMS of the fundamental in phase with the voltage, positive for import; None if the reference
    cannot be used."""
    exporting: frozenset[Phase]
    """The phases that export. A sign stays until two readings clearly contradict it."""
    reference_fault: str
    """The reason why the reference cannot be used; "" if it can."""
    wiring_advice: str | None
    """A change that makes the wiring fit the angles; "": it fits, None: not known yet."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """The last mains cycles of a reading, newest point last, up to its end within one sample. DC is
    removed, polarity and gain are as configured, phase errors are not corrected."""

    spacing_seconds: float
    """Time between points; each is the mean of its samples."""
    current_amperes: "Mapping[Phase, Floats]"
    """(points,) for each phase."""
    reference: "Floats | None"
    """(points,) of the direction's reference; None without one."""
    reference_unit: str
    """ "V" or "A"; "" without a reference."""


@dataclass(frozen=True)
class Reading:
    """All phases over one window of whole mains cycles, about one second long."""

    sequence: int
    """1 for the first reading of a `Metering`, then counted up."""
    end_ns: int
    """End of the window on CLOCK_MONOTONIC (in a replay: the capture's clock)."""
    window_seconds: float
    phases: Mapping[Phase, PhaseCurrent]
    """The configured phases only."""
    frequency_hertz: float | None
    """Mains frequency; None if no channel carried a coherent current."""
    scans: int
    """Scans in the window."""
    lost_scans: int
    """Scans missing from the window."""
    direction: DirectionReading | None = None
    """None if direction is off."""
    waveform: Waveform | None = field(default=None, compare=False)

    @property
    def failed_phases(self) -> tuple[Phase, ...]:
        """Phases whose input failed. With any, the reading does not describe the house."""
        if self.is_frozen:
            return tuple(self.phases)
        return tuple(phase for phase, current in self.phases.items() if current.at_rail)

    @property
    def is_frozen(self) -> bool:
        """Whether no input has moved: the ADC delivers scans, but does not answer."""
        return all(current.is_still for current in self.phases.values())

    def amperes(self, phase: Phase) -> float:
        """RMS amperes of a phase; 0.0 if it is not configured."""
        current = self.phases.get(phase)
        return current.rms_amperes if current else 0.0

    def signed_amperes(self, phase: Phase) -> float:
        """RMS amperes of a phase, negative if it exports."""
        exporting = self.direction is not None and phase in self.direction.exporting
        return -self.amperes(phase) if exporting else self.amperes(phase)
