# SPDX-License-Identifier: Apache-2.0
"""From readings to the gain and the noise floor of a phase, or to why they can not be had.

Both come from the uncorrected currents, which know nothing of the gain and the noise floor in
force. So it does not matter whether a calibration before this one was taken over already, and
one that is repeated gives the same again.

With u the uncorrected RMS, f the noise in it and g the gain, a phase reads sqrt((g u)^2 - (g f)^2)
amperes (`ct.Ct.current`); g f is what the configuration calls its noise floor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from csp1d.errors import DeviceError
from csp1d.measuring.reading import PhaseCurrent

LEAST_AMPERES = 2.0
"""For a gain. 12 bits have some 0.09 A of noise, a thousandth of this in squares."""

_MOST_GAIN_ERROR = 0.2
"""Transformers and burdens are right to a few percent: more is another ratio or another phase."""

_MOST_MOVEMENT = 0.01
"""Between the lowest and the highest reading. So the mean of ten is right to 0.1 %, and the
reference can be read off."""

_MOST_CONTRADICTION = 0.01
"""Of a point to the line through all of them."""

_MOST_NOISE_AMPERES = 0.5
_MOST_NOISE_MOVEMENT_AMPERES = 0.05


class RefusedError(DeviceError):
    """These readings give no calibration: why, and what to do."""


@dataclass(frozen=True)
class Correction:
    """What the configuration says of a phase."""

    gain: float
    noise_floor_amperes: float

    def amperes(self, uncorrected_rms_amperes: float, no_load_amperes: float) -> float:
        """What a phase reads with it."""
        square = (uncorrected_rms_amperes * self.gain) ** 2 - self.noise_floor_amperes**2
        rms = math.sqrt(max(0.0, square))
        return rms if rms >= no_load_amperes else 0.0


@dataclass(frozen=True)
class Point:
    """A steady load on one phase: what the reference meter shows, and what was read."""

    reference_amperes: float
    currents: tuple[PhaseCurrent, ...]
    """Of successive readings, at least one."""

    @property
    def uncorrected_rms_amperes(self) -> float:
        return _mean([current.uncorrected_rms_amperes for current in self.currents])


def find_noise_floor(
    currents: Sequence[PhaseCurrent], old: Correction, no_load_amperes: float
) -> Correction:
    """The correction for a phase in which nothing flows. Raises RefusedError."""
    _refuse_clipping(currents)
    uncorrected = [current.uncorrected_rms_amperes for current in currents]
    new = Correction(old.gain, round(_mean(uncorrected) * old.gain, 4))
    lowest, highest = min(uncorrected) * old.gain, max(uncorrected) * old.gain
    if new.noise_floor_amperes > _MOST_NOISE_AMPERES:
        raise RefusedError(
            f"{new.noise_floor_amperes:.2f} A are no noise; nothing may flow: take the transformer "
            "off the conductor or switch the load off, and look for what else reaches the ADC"
        )
    if highest - lowest > _MOST_NOISE_MOVEMENT_AMPERES:
        raise RefusedError(
            f"the current moved between {lowest:.2f} A and {highest:.2f} A; nothing may flow: take "
            "the transformer off the conductor, or switch the load off"
        )
    rest = max(new.amperes(each, 0.0) for each in uncorrected)
    if rest >= no_load_amperes:
        raise RefusedError(
            f"with its noise taken out it would still read {rest:.2f} A at times; raise "
            f"measurement.no_load_amperes above that, it is {no_load_amperes:g}"
        )
    return new


def find_gain(points: Sequence[Point], old: Correction) -> Correction:
    """The correction that fits one or several points best. Raises RefusedError."""
    noise = old.noise_floor_amperes / old.gain
    shown = []
    for point in points:
        _refuse_clipping(point.currents)
        square = point.uncorrected_rms_amperes**2 - noise**2
        shown.append(math.sqrt(max(0.0, square)))
        _refuse_unsteady(point, old.gain)
    # The line through 0 that leaves the least squares of amperes; of one point, their ratio.
    pairs = [(point.reference_amperes, x) for point, x in zip(points, shown, strict=True)]
    gain = sum(true * x for true, x in pairs) / sum(x * x for _, x in pairs)
    if abs(gain - 1) > _MOST_GAIN_ERROR:
        raise RefusedError(
            f"a gain of {gain:.3f} is more than {_MOST_GAIN_ERROR:.0%} off; check ct_ratio and "
            "burden_ohms, and that the reference measures this phase"
        )
    for true, x in pairs:
        if abs(x * gain / true - 1) > _MOST_CONTRADICTION:
            raise RefusedError(
                f"the points contradict each other: with the gain that fits all best, {true:g} A "
                f"would read {x * gain:.2f} A; measure them again"
            )
    return Correction(round(gain, 6), round(noise * gain, 4))


def _refuse_clipping(currents: Sequence[PhaseCurrent]) -> None:
    if any(current.clipped_samples for current in currents):
        raise RefusedError(
            "the current goes beyond the range of the ADC (it clips); take a smaller load, and see "
            "whether burden and bias fit"
        )


def _refuse_unsteady(point: Point, gain: float) -> None:
    """Also where there is no current to speak of."""
    amperes = [current.uncorrected_rms_amperes * gain for current in point.currents]
    if _mean(amperes) < LEAST_AMPERES / 2:
        raise RefusedError(
            f"the reference shows {point.reference_amperes:g} A, but {_mean(amperes):.2f} A flow "
            "here; check that the transformer is around this conductor, closed, and on this input"
        )
    lowest, highest = min(amperes), max(amperes)
    if highest - lowest > _MOST_MOVEMENT * _mean(amperes):
        raise RefusedError(
            f"the current moved between {lowest:.2f} A and {highest:.2f} A; take a load that stays "
            f"within {_MOST_MOVEMENT:.0%}, such as a kettle or a heater"
        )


def _mean(amperes: Sequence[float]) -> float:
    """Of RMS values: of their squares, as noise adds up."""
    return math.sqrt(sum(each * each for each in amperes) / len(amperes))
