# SPDX-License-Identifier: Apache-2.0
"""Mains frequency from a current, however distorted it is.

Zero crossings of a household current mislead. The fundamental does not: seen through a Hann window
(which keeps harmonics and DC out), it turns from one half second to the next by its frequency, and
that angle can be read to a few microhertz of a turn. Only a channel whose fundamental stands out
of its noise and was steady through both halves is fit for it.
"""

import math

import numpy as np
import numpy.typing as npt

from csp1d.measuring.clock import SECOND_NS, Floats

_HALF_SECONDS = 0.495
_SLOWEST_HERTZ, _FASTEST_HERTZ = 42.0, 68.0
_SHARE = 0.02
"""Least part of a channel's power that is in the fundamental. Noise alone has about 0.002."""
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
        self._waves: list[tuple[Floats, Floats]] = []

    def measure(self, series: Floats, period_ns: float, strength: Floats) -> float | None:
        """Hertz, or None where no channel carries a coherent current.

        `series` is (channels, samples), free of DC, at least 0.99 s of it; `strength` (channels,)
        is what a code of each is worth, for the choice of the strongest.
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

    def _follow(self, series: Floats, period_ns: float, strength: Floats) -> float | None:
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

    def _turn(self, series: Floats, period_ns: float, strength: Floats) -> float | None:
        per_hertz = period_ns / SECOND_NS
        self._prepare(per_hertz, series.shape[1])
        half = self._half
        halves = series[:, -2 * half :].reshape(len(series), 2, half)
        # Hann: the sum of the weights is half their number, so this is an amplitude.
        turning = self._turning(halves, 0) * (4 / half)
        amplitude = np.abs(turning)
        weaker = amplitude.min(axis=1)
        quarters = halves.reshape(len(series), 4, half // 2)
        power = np.einsum("cij,cij->ci", quarters, quarters) * (2 / half)
        coherent = weaker**2 / 2 > _SHARE * power.mean(axis=1)
        coherent &= weaker > _STEADY * amplitude.max(axis=1)
        if not coherent.any():
            return None
        # A load that switches in a pattern may look the same in both halves: rather one that
        # does not.
        steady = coherent & (power.min(axis=1) > _STEADY**2 * power.max(axis=1))
        fit = steady if steady.any() else coherent
        best = int(np.argmax(np.where(fit, weaker * strength, 0.0)))
        for side in (1, 2):
            beside = np.abs(self._turning(halves[best : best + 1], side)) * (4 / half)
            if beside.sum() > amplitude[best].sum():
                return None  # it is more than 1 Hz off, where the angle is ambiguous
        first, second = complex(turning[best, 0]), complex(turning[best, 1])
        angle = math.remainder(
            math.atan2((second * first.conjugate()).imag, (second * first.conjugate()).real)
            - 2 * math.pi * self._center * half,
            2 * math.pi,
        )
        return (self._center + angle / (2 * math.pi * half)) / per_hertz

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
        hann = np.sin(np.pi * (sample + 0.5) / half) ** 2
        angles = [2 * np.pi * (center + side / half) * sample for side in (0, -1, 1)]
        self._waves = [(hann * np.cos(angle), hann * np.sin(angle)) for angle in angles]

    def _turning(self, halves: Floats, which: int) -> npt.NDArray[np.complex128]:
        """Phasors (channels, 2) of half windows: 0 at the center, 1 and 2 beside it."""
        cosine, sine = (np.einsum("chj,j->ch", halves, wave) for wave in self._waves[which])
        turning: npt.NDArray[np.complex128] = cosine - 1j * sine
        return turning

    def _search(self, series: Floats, period_ns: float, strength: Floats) -> None:
        """Start from the highest line of the spectrum."""
        length = series.shape[1]
        seconds = length * period_ns / SECOND_NS
        spectrum = np.abs(np.fft.rfft(series * np.hanning(length), axis=1)) * strength[:, None]
        low, high = math.ceil(_SLOWEST_HERTZ * seconds), int(_FASTEST_HERTZ * seconds)
        lines = spectrum[:, low : high + 1].max(axis=0)
        if lines.size and lines.max() > 0:
            self._hertz = (low + int(lines.argmax())) / seconds
