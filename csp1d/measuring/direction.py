# SPDX-License-Identifier: Apache-2.0
"""Import or export: the active current of each phase, signed, against one reference channel.

The component of a current's fundamental that is in phase with the voltage is signed: its sign is
the direction. Phase errors limit it, not noise: an error of 4 degrees reverses the sign within 4
degrees of 90. So the configured errors are corrected first, and the sign changes only after it was
clear of the remaining ones twice in a row. Without a usable reference, all phases count as import:
a charge point that sees too much import stays safe.

A phase error is positive if the secondary signal leads the primary one, like the phase
displacement of IEC 61869-2. In a multiplexed ADC, an input that is sampled later leads, too.
"""

import cmath
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from csp1d.config import ChannelConfig, DirectionConfig
from csp1d.measuring.arrays import Complexes, Floats
from csp1d.measuring.ct import Ct, amperes_per_code, find_channel, units_per_code
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.measuring.scan import ScanFormat
from csp1d.measuring.wiring import Wiring
from csp1d.phase import Phase

_LEAST_AMPERES = 0.1
_BAND = math.sin(math.radians(4 + 2))
"""Minimum active current for a change of sign, as a fraction of the RMS current: 4 degrees of
uncorrected phase error and a margin of 2."""
_SHARE = 0.1
"""Minimum share of the fundamental in the reference's power: noise has less, any load more."""
_HYSTERESIS = 0.1
"""A weak reference must exceed `minimum` by this fraction to be used again."""
_CONFIRM = 2
"""Consecutive readings that change the sign."""


def phasors(series: Floats, end: float, cycle: float) -> Complexes:
    """RMS phasors of the fundamentals of `series` (channels, samples): (channels,).

    They cover the whole cycles before `end`, a fractional position in the series as in `Window`;
    `cycle` is the number of samples per cycle. All angles refer to the same time.
    """
    # The first cycle may begin at 0 itself, although rounding puts it before.
    start = max(0.0, end - math.floor(end / cycle + 1e-6) * cycle)
    first, after = math.floor(start), math.ceil(end)
    weights = np.ones(after - first)
    weights[0] -= start - first
    weights[-1] -= after - end
    weights *= math.sqrt(2) / (end - start)
    angles = 2 * np.pi / cycle * np.arange(after - first)
    part = series[:, first:after]
    cosine = np.einsum("cs,s->c", part, weights * np.cos(angles))
    sine = np.einsum("cs,s->c", part, weights * np.sin(angles))
    result: Complexes = cosine - 1j * sine
    return result


class DirectionMeter:
    """Measures the direction of the phases, reading by reading.

    Raises ValueError if a phase has no channel that can be measured. If the reference has none,
    the `reference_fault` of each reading reports it.
    """

    row: int | None = None
    """Index of the reference among the channels of the format; None: it has no channel."""
    unit_per_code: float
    """With a row: volts or amperes per code of the reference, negative to invert it."""
    amperes_per_code: float
    """With a row: as if it were a CT with the default burden and ratio, to compare its strength."""

    def __init__(
        self,
        scan_format: ScanFormat,
        channels: Mapping[Phase, ChannelConfig],
        direction: DirectionConfig,
        reference: ChannelConfig,
        fault: str = "",
    ) -> None:
        """`reference` is that of `Config.reference`; `fault`: why it has no channel, if known."""
        self.unit = "V" if direction.reference == "voltage" else "A"
        """Unit of the reference."""
        self._direction = direction
        self._fault = fault
        self._factors = {
            phase: Ct(scan_format, phase, config).amperes_per_code * _correction(config)
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
        reference_rms: float,
    ) -> DirectionReading:
        """The direction from the phasors of the phases and, if it has a row, of the reference.

        `fundamentals` are in codes; None: the mains frequency is unknown. `reference_rms` is the
        RMS of the whole reference signal, in codes.
        """
        fault = self._fault or self._check_reference(fundamentals, reference_rms)
        if fault or fundamentals is None:
            for sign in self._signs.values():
                sign.reset()
            return DirectionReading(None, frozenset(), fault, self._wiring.update({}))
        # Relative to the voltage of the reference's phase.
        reference = complex(fundamentals[-1]) * self._reference_factor
        turn = abs(reference) / reference
        relative = {
            phase: complex(code) * factor * turn
            for code, (phase, factor) in zip(fundamentals, self._factors.items(), strict=False)
        }
        active = {phase: (current * self._lag[phase]).real for phase, current in relative.items()}
        exporting = frozenset(
            phase
            for phase, sign in self._signs.items()
            if sign.update(active[phase], max(abs(relative[phase]), currents[phase].rms_amperes))
        )
        return DirectionReading(active, exporting, "", self._wiring.update(relative))

    def _check_reference(self, fundamentals: Complexes | None, rms: float) -> str:
        """The reason why the reference cannot be used, "" if it can."""
        if fundamentals is None:
            return "no channel carries a steady mains frequency"
        codes = abs(complex(fundamentals[-1]))
        amount, minimum = codes * abs(self.unit_per_code), self._direction.minimum
        self._is_weak = amount < minimum * (1 + _HYSTERESIS * self._is_weak)
        if codes**2 <= _SHARE * rms**2:
            return "the reference carries no mains frequency"
        if self._is_weak:
            return (
                f"the reference has {amount:.3g} {self.unit}, less than"
                f" direction.minimum = {minimum:g}"
            )
        return ""

    def _find_reference(self, scan_format: ScanFormat, reference: ChannelConfig) -> None:
        try:
            channel = find_channel(scan_format, "reference", "direction.input")
            self.unit_per_code = units_per_code(channel, reference)
        except ValueError as error:
            self._fault = self._fault or str(error)
            return
        self.row = scan_format.channels.index(channel)
        default = replace(ChannelConfig(), scale_millivolts=reference.scale_millivolts)
        self.amperes_per_code = abs(amperes_per_code(channel, default))
        if self._direction.reference == "current":
            self.unit_per_code = amperes_per_code(channel, reference)
            if self._direction.reference_flow == "producing":
                self.unit_per_code = -self.unit_per_code
        self._reference_factor = self.unit_per_code * _correction(reference)


class _Sign:
    """The sign of a phase's active current, with hysteresis."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._exports = False
        self._against = 0

    def update(self, active_amperes: float, rms_amperes: float) -> bool:
        """Whether the phase exports, after one more reading."""
        sure = abs(active_amperes) > max(_LEAST_AMPERES, _BAND * rms_amperes)
        differs = sure and (active_amperes < 0) != self._exports
        self._against = self._against + 1 if differs else 0
        if self._against == _CONFIRM:
            self._exports, self._against = not self._exports, 0
        return self._exports


def _correction(config: ChannelConfig) -> complex:
    """Factor that corrects the phase error of a channel."""
    return cmath.rect(1, -math.radians(config.phase_error_degrees))
