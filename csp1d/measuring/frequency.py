# SPDX-License-Identifier: Apache-2.0
"""Mains frequency from a current, even a distorted one.

The zero crossings of a household current are unreliable. The fundamental is not: a Hann window
removes harmonics and DC, and the angle by which the fundamental turns from one half second to the
next gives the frequency. Only a channel is used whose fundamental exceeds its noise and has the
same amplitude in both halves.
"""

import cmath
import math
from collections.abc import Sequence

import numpy as np

from csp1d.measuring.arrays import Floats
from csp1d.units import SECOND_NS

_HALF_SECONDS = 0.495
_SLOWEST_HERTZ, _FASTEST_HERTZ = 42.0, 68.0
_SHARE = 0.02
"""Minimum share of the fundamental in a channel's power. Noise alone has about 0.002."""
_SURE = 0.8
"""With this share the frequency is within 1 Hz: at 1 Hz the window passes 0.72 of the power."""
_STEADY = 0.8
"""Minimum ratio of the amplitudes in both halves."""
_CLOSE_HERTZ = 0.25

_Halves = tuple[complex, complex]
"""The phasors of both halves of a channel."""
_Choice = tuple[int, _Halves, bool]
"""A channel, its phasors, and whether the frequency is surely within 1 Hz."""


class FrequencyMeter:
    """Tracks the mains frequency from window to window.

    `amperes_per_code` of each channel serves to find the strongest one.
    """

    _expected_hertz: float  # set by _search, then by _track
    _center: float  # this and _waves are set by _prepare
    _waves: Floats

    def __init__(self, amperes_per_code: Sequence[float]) -> None:
        self._amperes_per_code = amperes_per_code
        self._certain = False
        self._half = 0
        self._likely: tuple[int, float] | None = None

    def measure(
        self, series: Floats, period_ns: float, mean_squares: Sequence[float] = ()
    ) -> float | None:
        """Hertz; None if no channel carries a coherent current.

        `series` is (channels, samples) without DC, half a second or more; `period_ns` is the time
        from sample to sample. By the `mean_squares` of the channels a second ago, in codes, the
        strongest one is tried first, and alone if it still carries at least a quarter of that.
        """
        self._likely = max(
            enumerate(mean_squares),
            key=lambda one: one[1] * self._amperes_per_code[one[0]] ** 2,
            default=None,
        )
        if not self._certain:
            self._search(series, period_ns)
        hertz = self._track(series, period_ns)
        if hertz is None and self._certain:
            # The load that was tracked is gone, or the frequency has jumped.
            self._search(series, period_ns)
            hertz = self._track(series, period_ns)
        self._certain = hertz is not None
        return hertz

    def _track(self, series: Floats, period_ns: float) -> float | None:
        for _ in range(3):
            hertz = self._estimate(series, period_ns)
            if hertz is None or not _SLOWEST_HERTZ <= hertz <= _FASTEST_HERTZ:
                return None
            if abs(hertz - self._expected_hertz) < _CLOSE_HERTZ:
                break
            self._expected_hertz = hertz
        return hertz

    def _estimate(self, series: Floats, period_ns: float) -> float | None:
        """Hertz, if it is within 1 Hz of the expected frequency."""
        per_hertz = period_ns / SECOND_NS
        self._prepare(per_hertz, series.shape[1])
        half = self._half
        recent = series[:, -2 * half :]
        best = self._try_likely(recent) or self._find_best(recent)
        if best is None:
            return None
        row, (first, second), sure = best
        if not sure:
            for side in (1, 2):
                (beside,) = self._phasors(recent[row : row + 1], side)
                if sum(map(abs, beside)) > abs(first) + abs(second):
                    return None  # more than 1 Hz away, where the angle is ambiguous
        turned = cmath.phase(second * first.conjugate())
        angle = math.remainder(turned - 2 * math.pi * self._center * half, 2 * math.pi)
        return (self._center + angle / (2 * math.pi * half)) / per_hertz

    def _try_likely(self, recent: Floats) -> _Choice | None:
        """The channel that was the strongest, if it is steady and has half of its amplitude."""
        if self._likely is None:
            return None
        row, mean_square = self._likely
        (halves,) = self._phasors(recent[row : row + 1], 0)
        _, steady, sure = self._assess(recent[row], halves)
        still_strong = 2 * min(map(abs, halves)) ** 2 >= mean_square
        return (row, halves, sure) if steady and still_strong else None

    def _find_best(self, recent: Floats) -> _Choice | None:
        """The strongest steady channel, or the strongest coherent one if none is steady."""
        halves = self._phasors(recent, 0)
        amperes = [
            min(map(abs, phasors)) * self._amperes_per_code[row]
            for row, phasors in enumerate(halves)
        ]
        best = None
        for row in sorted(range(len(amperes)), key=amperes.__getitem__, reverse=True):
            coherent, steady, sure = self._assess(recent[row], halves[row])
            # A load that switches in a pattern can have equal halves: prefer a steady one.
            if steady:
                return row, halves[row], sure
            if coherent and best is None:
                best = row, halves[row], sure
        return best

    def _assess(self, row: Floats, halves: _Halves) -> tuple[bool, bool, bool]:
        """Of a channel: whether its fundamental is coherent (exceeds the noise, with the same
        amplitude in both halves), whether its power is steady, too, and the frequency within 1 Hz.
        """
        quarters = row.reshape(4, -1)
        power = (np.einsum("qs,qs->q", quarters, quarters) * (2 / self._half)).tolist()
        weaker, stronger = sorted(map(abs, halves))
        fundamental, whole = 2 * weaker**2, sum(power)
        coherent = fundamental > _SHARE * whole and weaker > _STEADY * stronger
        steady = coherent and min(power) > _STEADY**2 * max(power)
        return coherent, steady, fundamental > _SURE * whole

    def _prepare(self, per_hertz: float, length: int) -> None:
        """Weights for `_phasors`, at the expected frequency and 1/half-window beside it."""
        half = 2 * int(min(_HALF_SECONDS / per_hertz, length / 2) / 2)
        center = self._expected_hertz * per_hertz
        if (
            abs(half - self._half) <= half // 100
            and 2 * self._half <= length
            and abs(center - self._center) < _CLOSE_HERTZ * per_hertz
        ):
            return
        self._half, self._center = half, center
        sample = np.arange(half)
        # Hann: the sum of the weights is half their number, so 4 / half makes amplitudes.
        hann = np.sin(np.pi * (sample + 0.5) / half) ** 2 * (4 / half)
        turns = [turn * sample for turn in (center, center - 1 / half, center + 1 / half)]
        angles = 2 * np.pi * np.array(turns)
        self._waves = hann * np.stack([np.cos(angles), -np.sin(angles)], axis=1)

    def _phasors(self, rows: Floats, side: int) -> list[_Halves]:
        """Phasors of both halves of each row; side 0: at the expected frequency, 1: below it, 2:
        above it."""
        halves = rows.reshape(len(rows), 2, self._half)
        phasors = np.einsum("chs,ws->chw", halves, self._waves[side]).tolist()
        return [(complex(*first), complex(*second)) for first, second in phasors]

    def _search(self, series: Floats, period_ns: float) -> None:
        """Expect the highest line of the spectrum."""
        length = series.shape[1]
        seconds = length * period_ns / SECOND_NS
        low, high = math.ceil(_SLOWEST_HERTZ * seconds), int(_FASTEST_HERTZ * seconds)
        spectrum = np.abs(np.fft.rfft(series * np.hanning(length)))[:, low : high + 1]
        lines = (spectrum * np.array(self._amperes_per_code)[:, None]).max(axis=0)
        self._expected_hertz = (low + int(lines.argmax())) / seconds
