# SPDX-License-Identifier: Apache-2.0
"""Import or export: the active current of each phase, signed, against one reference channel.

The fundamental of a current, seen from that of the reference, has a part in phase with the
voltage; its sign is the direction. Noise is not what limits it: a phase error turns the sign
within as many degrees of 90. So the errors that are known are taken out first, and a sign changes
only where it is clear of those that are left, twice in a row. Where the reference can not tell,
all counts as import: a charge point that is told too much is safe.

A phase error is positive where the secondary signal leads the primary one, as the phase
displacement of IEC 61869-2. A multiplexed ADC that takes an input later makes it lead as well.
"""

import cmath
import math
from collections.abc import Mapping

import numpy as np

from csp1d.config import ChannelConfig, DirectionConfig
from csp1d.measuring.arrays import Complexes, Floats
from csp1d.measuring.ct import Ct, measured_channel
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.measuring.scan import ScanFormat
from csp1d.measuring.wiring import Wiring
from csp1d.phase import Phase

_LEAST_AMPERES = 0.1
_BAND = math.sin(math.radians(4 + 2))
"""Part of a current within which its sign may be wrong: 4 degrees of phase error that nobody has
taken out, and 2 to spare."""
_SHARE = 0.1
"""Least part of the reference's power that is in the fundamental: noise has less, any load more."""
_CLEAR = 0.1
"""By so much of it a reference that was too weak has to exceed the minimum."""
_CONFIRM = 2
"""Readings in a row that it takes to change the sign."""


def phasors(series: Floats, start: float, end: float, cycle: float) -> Complexes:
    """RMS fundamentals of `series` (channels, samples): (channels,), of a common angle.

    `start` and `end` are positions in the series, between samples as in `Window`, whole
    cycles apart; `cycle` is the samples in one. What lies before the series is left out by whole
    cycles.
    """
    if start < 0:
        start = end - math.floor(end / cycle) * cycle
    first, after = math.floor(start), math.ceil(end)
    weights = np.ones(after - first)
    weights[0] -= start - first
    weights[-1] -= after - end
    weights *= math.sqrt(2) / (end - start)
    angles = 2 * np.pi / cycle * np.arange(after - first)
    part = series[:, first:after]
    cosine = np.einsum("cs,s->c", part, weights * np.cos(angles))
    sine = np.einsum("cs,s->c", part, weights * np.sin(angles))
    found: Complexes = cosine - 1j * sine
    return found


class DirectionMeter:
    """The direction of the phases of one capture, from reading to reading.

    Raises ValueError where a phase has no channel that can be measured. A reference without one
    is no error but the fault of each reading.
    """

    def __init__(
        self,
        scan_format: ScanFormat,
        channels: Mapping[Phase, ChannelConfig],
        direction: DirectionConfig,
        reference: ChannelConfig,
        fault: str = "",
    ) -> None:
        """`reference`: as of `Config.reference`; `fault`: why it has no channel, where known."""
        self.row: int | None = None
        """Of the reference, among the channels of the format; None: it is not there."""
        self.unit = "V" if direction.reference == "voltage" else "A"
        """Of the reference."""
        self.unit_per_code = 0.0
        """Volts or amperes of a code of the reference, negative where that turns it round."""
        self.strength = 0.0
        """Of a code of the reference, as of a CT of the usual kind: amperes."""
        self._direction = direction
        self._fault = fault
        self._factors = {
            phase: Ct(scan_format, phase, config).amperes_per_code * _back(config)
            for phase, config in channels.items()
        }
        self._find_reference(scan_format, reference)
        self._lag = {p: cmath.rect(1, math.radians(direction.lag_degrees(p))) for p in channels}
        self._is_weak = False
        self._signs = {phase: _Sign() for phase in channels}
        self._wiring = Wiring(direction, channels)

    def measure(
        self,
        fundamentals: Complexes | None,
        currents: Mapping[Phase, PhaseCurrent],
        reference_rms: float = 0.0,
    ) -> DirectionReading:
        """From the phasors of the phases and, if it has a row, of the reference, all in codes.

        None stands for phasors that are not known, for want of a mains frequency. `reference_rms`
        is what the reference has besides its fundamental, too, in codes.
        """
        fault = self._fault
        if not fault and fundamentals is None:
            fault = "no channel carries a steady mains frequency"
        if not fault and fundamentals is not None:
            reference = complex(fundamentals[-1]) * self._reference_factor
            minimum = self._direction.minimum * (1 + _CLEAR * self._is_weak)
            self._is_weak = abs(reference) < minimum
            if abs(complex(fundamentals[-1])) ** 2 <= _SHARE * reference_rms**2:
                fault = "the reference carries nothing of the mains frequency"
            elif self._is_weak:
                fault = (
                    f"the reference has {abs(reference):.3g} {self.unit}, less than"
                    f" direction.minimum = {self._direction.minimum:g}"
                )
        if fault or fundamentals is None:
            for sign in self._signs.values():
                sign.forget()
            return DirectionReading(None, frozenset(), fault, self._wiring.see({}))
        # As seen from the voltage of the reference's phase.
        turn = abs(reference) / reference
        seen = {
            phase: complex(code) * factor * turn
            for code, (phase, factor) in zip(fundamentals, self._factors.items(), strict=False)
        }
        active = {phase: (current * self._lag[phase]).real for phase, current in seen.items()}
        exporting = frozenset(
            phase
            for phase, sign in self._signs.items()
            if sign.exports(active[phase], max(abs(seen[phase]), currents[phase].rms_amperes))
        )
        return DirectionReading(active, exporting, "", self._wiring.see(seen))

    def _find_reference(self, scan_format: ScanFormat, reference: ChannelConfig) -> None:
        try:
            channel = measured_channel(scan_format, "reference", "direction.input")
        except ValueError as error:
            self._fault = self._fault or str(error)
            return
        self.row = scan_format.channels.index(channel)
        volts = (reference.scale_millivolts or channel.scale) / 1000
        usual = ChannelConfig()
        self.strength = abs(volts) / usual.burden_ohms * usual.ct_ratio
        self.unit_per_code = volts
        if self._direction.reference == "current":
            self.unit_per_code *= reference.ct_ratio / reference.burden_ohms
            if self._direction.reference_flow == "producing":
                self.unit_per_code = -self.unit_per_code
        self._reference_factor = self.unit_per_code * _back(reference)


class _Sign:
    """Which way a phase flows, until it is sure that it flows the other way."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._exports = False
        self._against = 0

    def exports(self, active_amperes: float, rms_amperes: float) -> bool:
        """Whether it counts as export after one more reading."""
        sure = abs(active_amperes) > max(_LEAST_AMPERES, _BAND * rms_amperes)
        differs = sure and (active_amperes < 0) != self._exports
        self._against = self._against + 1 if differs else 0
        if self._against == _CONFIRM:
            self._exports, self._against = not self._exports, 0
        return self._exports


def _back(config: ChannelConfig) -> complex:
    """Turns a signal back by its phase error."""
    return cmath.rect(1, -math.radians(config.phase_error_degrees))
