# SPDX-License-Identifier: Apache-2.0
"""Mains frequency from a current, however distorted it is.

Zero crossings of a household current mislead. The fundamental does not: seen through a Hann window
(which keeps harmonics and DC out), it turns from one half second to the next by its frequency, and
that angle can be read to a few microhertz of a turn. Only a channel whose fundamental stands out
of its noise and was steady through both halves is fit for it.
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
"""Least part of a channel's power that is in the fundamental. Noise alone has about 0.002."""
_SURE = 0.8
"""From this part on it is less than 1 Hz off, where the window lets pass 0.72 of a line's power."""
_STEADY = 0.8
"""Least ratio of the amplitudes in the halves."""
_CLOSE_HERTZ = 0.25


class FrequencyMeter:
    """Follows the mains frequency from window to window."""

    def __init__(self, nominal_frequency_hz: float) -> None:
        self._hertz = float(nominal_frequency_hz)
        self._certain = False
        self._half = 0
        self._center = 0.0
        self._waves: Floats = np.empty((6, 0))

    def measure(self, series: Floats, period_ns: float, strength: Sequence[float]) -> float | None:
        """Hertz, or None where no channel carries a coherent current.

        `series` is (channels, samples), free of DC, at least 0.99 s of it; `strength` is what a
        code of each channel is worth, for the choice of the strongest.
        """
        if not self._certain:
            self._search(series, period_ns, strength)
        found = self._follow(series, period_ns, strength)
        if found is None and self._certain:
            # The load that was followed has gone, or the mains have moved.
            self._search(series, period_ns, strength)
            found = self._follow(series, period_ns, strength)
        self._certain = found is not None
        return found

    def _follow(self, series: Floats, period_ns: float, strength: Sequence[float]) -> float | None:
        found = None
        for _ in range(3):
            found = self._turn(series, period_ns, strength)
            if found is None or not _SLOWEST_HERTZ <= found <= _FASTEST_HERTZ:
                return None
            close = abs(found - self._hertz) < _CLOSE_HERTZ
            if close:
                break
            self._hertz = found
        return found

    def _turn(self, series: Floats, period_ns: float, strength: Sequence[float]) -> float | None:
        per_hertz = period_ns / SECOND_NS
        self._prepare(per_hertz, series.shape[1])
        half = self._half
        recent = series[:, -2 * half :]
        turning = self._phasors(recent, slice(0, 2))
        weaker = [
            min(map(abs, both)) * worth for both, worth in zip(turning, strength, strict=True)
        ]
        best, share = None, 0.0
        for row in sorted(range(len(weaker)), key=weaker.__getitem__, reverse=True):
            coherent, steady, part = self._fitness(recent[row], turning[row])
            # A load that switches in a pattern may look the same in both halves: rather one that
            # does not.
            if steady or (coherent and best is None):
                best, share = row, part
            if steady:
                break
        if best is None:
            return None
        first, second = turning[best]
        if share < _SURE:
            for side in (slice(2, 4), slice(4, 6)):
                (beside,) = self._phasors(recent[best : best + 1], side)
                if sum(map(abs, beside)) > abs(first) + abs(second):
                    return None  # it is more than 1 Hz off, where the angle is ambiguous
        turned = cmath.phase(second * first.conjugate())
        angle = math.remainder(turned - 2 * math.pi * self._center * half, 2 * math.pi)
        return (self._center + angle / (2 * math.pi * half)) / per_hertz

    def _fitness(self, row: Floats, turning: tuple[complex, complex]) -> tuple[bool, bool, float]:
        """Whether a channel's fundamental stands out and lasts, whether all of it is steady, and
        the fundamental's part of its power."""
        quarters = row.reshape(4, -1)
        power = (np.einsum("qs,qs->q", quarters, quarters) * (2 / self._half)).tolist()
        weaker, stronger = sorted(map(abs, turning))
        share = 2 * weaker**2 / sum(power) if weaker else 0.0
        coherent = share > _SHARE and weaker > _STEADY * stronger
        return coherent, coherent and min(power) > _STEADY**2 * max(power), share

    def _prepare(self, per_hertz: float, length: int) -> None:
        """Phasors of a half window: at the frequency expected, and 1/half-window to each side."""
        half = 2 * int(min(_HALF_SECONDS / per_hertz, length / 2) / 2)
        center = self._hertz * per_hertz
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
        angles = [2 * np.pi * (center + side / half) * sample for side in (0, -1, 1)]
        self._waves = np.array(
            [hann * wave for angle in angles for wave in (np.cos(angle), -np.sin(angle))]
        )

    def _phasors(self, rows: Floats, waves: slice) -> list[tuple[complex, complex]]:
        """Amplitudes of both halves of each row: waves 0, 1 at the center, 2 to 5 beside it."""
        halves = rows.reshape(len(rows), 2, self._half)
        amplitudes = np.einsum("chs,ws->chw", halves, self._waves[waves]).tolist()
        return [(complex(*first), complex(*second)) for first, second in amplitudes]

    def _search(self, series: Floats, period_ns: float, strength: Sequence[float]) -> None:
        """Start from the highest line of the spectrum."""
        length = series.shape[1]
        seconds = length * period_ns / SECOND_NS
        spectrum = (
            np.abs(np.fft.rfft(series * np.hanning(length), axis=1)) * np.array(strength)[:, None]
        )
        low, high = math.ceil(_SLOWEST_HERTZ * seconds), int(_FASTEST_HERTZ * seconds)
        lines = spectrum[:, low : high + 1].max(axis=0)
        if lines.size and lines.max() > 0:
            self._hertz = (low + int(lines.argmax())) / seconds
