# SPDX-License-Identifier: Apache-2.0
"""From readings to the gain and the noise floor of a phase, or to the reason why not.

Both are computed from uncorrected currents, which do not depend on the configured gain and noise
floor. So a repeated calibration gives the same result, whether or not the daemon was reloaded
since the previous one.

With u the uncorrected RMS, f the noise in it and g the gain, a phase reads sqrt((g u)^2 - (g f)^2)
amperes (`ct.Ct.current`); g f is the `noise_floor_amperes` of the configuration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from csp1d.errors import DeviceError
from csp1d.measuring.reading import PhaseCurrent

MIN_LOAD_AMPERES = 2.0
"""Smallest load for a gain. A 12-bit ADC has about 0.09 A of noise: 0.1 % of this load."""

_MAX_GAIN_ERROR = 0.2
"""Transformers and burdens are right to a few percent: more is another ratio or another phase."""

_MAX_VARIATION = 0.01
"""Between the lowest and the highest reading: the mean of ten is then right to 0.1 %, and the
reference meter can be read."""

_MAX_DISAGREEMENT = 0.01
"""Of one point with the gain that fits all points."""

_MAX_NOISE_AMPERES = 0.5
_MAX_NOISE_VARIATION_AMPERES = 0.05


class RefusedError(DeviceError):
    """The readings allow no calibration: the reason and the remedy."""


@dataclass(frozen=True)
class Correction:
    """The configured correction of a phase."""

    gain: float
    noise_floor_amperes: float

    def amperes(self, uncorrected_rms_amperes: float, no_load_amperes: float) -> float:
        """The reading that this correction gives."""
        square = (uncorrected_rms_amperes * self.gain) ** 2 - self.noise_floor_amperes**2
        rms = math.sqrt(max(0.0, square))
        return rms if rms >= no_load_amperes else 0.0


@dataclass(frozen=True)
class Point:
    """A steady load on one phase: the reading of the reference meter and those of csp1d."""

    reference_amperes: float
    currents: tuple[PhaseCurrent, ...]
    """At least one, of successive readings."""

    @property
    def uncorrected_rms_amperes(self) -> float:
        return _root_mean_square([current.uncorrected_rms_amperes for current in self.currents])


def find_noise_floor(
    currents: Sequence[PhaseCurrent], old: Correction, no_load_amperes: float
) -> Correction:
    """The correction for readings taken while no current flows. Raises RefusedError."""
    _refuse_clipping(currents)
    uncorrected = [current.uncorrected_rms_amperes for current in currents]
    new = Correction(old.gain, round(_root_mean_square(uncorrected) * old.gain, 4))
    lowest, highest = min(uncorrected) * old.gain, max(uncorrected) * old.gain
    if new.noise_floor_amperes > _MAX_NOISE_AMPERES:
        raise RefusedError(
            f"{new.noise_floor_amperes:.2f} A is too much to be noise; switch the load off or take "
            "the transformer off the conductor, and check for interference"
        )
    if highest - lowest > _MAX_NOISE_VARIATION_AMPERES:
        raise RefusedError(
            f"the current varied between {lowest:.2f} A and {highest:.2f} A; switch the load off "
            "or take the transformer off the conductor"
        )
    rest = max(new.amperes(amperes, 0.0) for amperes in uncorrected)
    if rest >= no_load_amperes:
        raise RefusedError(
            f"with this noise floor the phase would still read up to {rest:.2f} A; raise "
            f"measurement.no_load_amperes (now {no_load_amperes:g}) above that"
        )
    return new


def find_gain(points: Sequence[Point], old: Correction) -> Correction:
    """The correction that fits one or more points best. Raises RefusedError."""
    noise = old.noise_floor_amperes / old.gain
    pairs = []
    for point in points:
        _refuse_clipping(point.currents)
        _refuse_unsteady(point, old.gain)
        square = point.uncorrected_rms_amperes**2 - noise**2
        if square <= 0:
            raise RefusedError("the noise floor is above this current; run csp1ctl calibrate zero")
        pairs.append((point.reference_amperes, math.sqrt(square)))
    # Least squares of a line through 0; for a single point, the ratio.
    gain = sum(true * x for true, x in pairs) / sum(x * x for _, x in pairs)
    if abs(gain - 1) > _MAX_GAIN_ERROR:
        raise RefusedError(
            f"gain {gain:.3f} is more than {_MAX_GAIN_ERROR:.0%} off; check ct_ratio, burden_ohms "
            "and whether the reference meter measures this phase"
        )
    for true, x in pairs:
        if abs(x * gain / true - 1) > _MAX_DISAGREEMENT:
            raise RefusedError(
                f"the points disagree: with the best-fitting gain, {true:g} A would read "
                f"{x * gain:.2f} A; measure them again"
            )
    return Correction(round(gain, 6), round(noise * gain, 4))


def _refuse_clipping(currents: Sequence[PhaseCurrent]) -> None:
    if any(current.clipped_samples for current in currents):
        raise RefusedError(
            "the signal exceeds the ADC range; use a smaller load, or check burden and bias"
        )


def _refuse_unsteady(point: Point, gain: float) -> None:
    """Refuse a load that varies, or that this input does not measure at all."""
    amperes = [current.uncorrected_rms_amperes * gain for current in point.currents]
    mean = _root_mean_square(amperes)
    if mean < MIN_LOAD_AMPERES / 2:
        raise RefusedError(
            f"the reference meter shows {point.reference_amperes:g} A, this input measures "
            f"{mean:.2f} A; check that the transformer is closed around the same conductor and "
            "wired to this input"
        )
    lowest, highest = min(amperes), max(amperes)
    if highest - lowest > _MAX_VARIATION * mean:
        raise RefusedError(
            f"the current varied between {lowest:.2f} A and {highest:.2f} A; use a load that stays "
            f"within {_MAX_VARIATION:.0%}, such as a kettle or a heater"
        )


def _root_mean_square(amperes: Sequence[float]) -> float:
    """The mean of RMS values: powers add up, so their squares are averaged."""
    return math.sqrt(sum(value * value for value in amperes) / len(amperes))
