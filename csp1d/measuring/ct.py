# SPDX-License-Identifier: Apache-2.0
"""From codes to amperes: the ADC channel, burden and current transformer (CT) of a phase."""

import math

import numpy as np

from csp1d.config import LEAST_AMPERES, ChannelConfig, is_current
from csp1d.measuring.arrays import Floats
from csp1d.measuring.reading import PhaseCurrent
from csp1d.measuring.scan import Channel, ScanFormat
from csp1d.measuring.window import Moments, Window, pieces
from csp1d.phase import Phase
from csp1d.scan_type import EXACT_BITS

_USUAL_AMPERES = 16.0
"""The smallest usual main fuse. With less range than the main fuse, a scale, ratio or burden is
probably wrong."""

_NOISY_BITS = 16
"""A signed input with at least this many bits has noise, if not in each second. An unsigned one
that does not answer stands at an end of its range."""

_NEVER_QUIET_BITS = 18
"""A signed input with at least this many bits does not repeat a code for some milliseconds either.
One of 16 bits may when the load is switched off: its noise can be a sixth of a code."""

_NEARLY_ALL = 0.98
"""An alternating current with this share of some cycles at the ends of the range exceeds it about
twenty times, or twice at 200 scans/s: there is none, but the reference or a bias is missing."""

_LARGE_AMPERES = 10.0
_SLOW_SHARE = 0.25
"""Large currents are noise if the means over sixths of a mains cycle keep less of their power. With
the strongest harmonics of real loads it is 0.33; codes in a wrong byte order and white noise have
0.02 to 0.2 from 1600 scans/s on, noise 0.3 at 1000."""


def find_channel(scan_format: ScanFormat, phase: str, key: str) -> Channel:
    """The channel of `phase`: "L1", "L2", "L3" or "reference".

    Raises ValueError if it is missing or cannot be measured; the message starts with `key`.
    """
    channel = next((c for c in scan_format.channels if c.phase == phase), None)
    if channel is None:
        raise ValueError(f"{key}: the scans contain no channel for it")
    type_ = channel.type
    if type_.repeat > 1:
        raise ValueError(
            f"{key}: {channel.id} has {type_.repeat} values per scan ({type_});"
            " select an input with one"
        )
    if type_.bits > EXACT_BITS:
        raise ValueError(
            f"{key}: {channel.id} must have at most {EXACT_BITS} bits, got {type_.bits} ({type_})"
        )
    return channel


def units_per_code(channel: Channel, config: ChannelConfig) -> float:
    """Volts per code of a channel, or amperes if it measures a current.

    Raises ValueError if neither the driver nor the configuration gives a scale.
    """
    scale = config.scale_millivolts or channel.scale
    if not scale:
        raise ValueError(f"{channel.id} has no scale; set scale_millivolts of its channel")
    return scale / 1000


def amperes_per_code(channel: Channel, config: ChannelConfig) -> float:
    """Amperes through the conductor per code, without gain and polarity. Raises ValueError."""
    units = units_per_code(channel, config)
    return units if is_current(channel.id) else units / config.burden_ohms * config.ct_ratio


class Ct:
    """The CT of a phase and its channel of the ADC.

    amperes = (code + offset) * scale / 1000 / burden * ratio * gain, so a gain of 1.037 raises
    the reading by 3.7 %. A channel that measures a current has neither burden nor ratio. Raises
    ValueError if the format has no channel for the phase that can be measured.
    """

    def __init__(self, scan_format: ScanFormat, phase: Phase, config: ChannelConfig) -> None:
        key = f"channels.{phase}"
        channel = find_channel(scan_format, phase, key)
        self.phase = phase
        self.row = scan_format.channels.index(channel)
        """Index of the channel among those of the format."""
        self._lowest, self._highest = channel.type.lowest, channel.type.highest
        sign = -1 if config.reversed else 1
        try:
            self.amperes_per_code = sign * amperes_per_code(channel, config) * config.gain
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
        self.is_noisy = channel.type.signed and channel.type.bits >= _NOISY_BITS
        """Whether a working ADC never delivers one code for a whole reading."""
        self.is_never_quiet = channel.type.signed and channel.type.bits >= _NEVER_QUIET_BITS
        """Whether it never does so for a part of a reading."""
        self._offset = channel.offset
        self._gain = config.gain
        self._noise_floor_amperes = config.noise_floor_amperes

    def check_range(self, no_load_amperes: float, main_fuse_amperes: float) -> str:
        """Why the range of the ADC is probably wrong, "" if it reaches the main fuse (0: unknown).

        Raises ValueError if a load would read 0 A.
        """
        code_amperes = abs(self.amperes_per_code)
        codes = self._highest - self._lowest
        range_amperes = codes * code_amperes / math.sqrt(8)
        least = max(LEAST_AMPERES, math.hypot(no_load_amperes, self._noise_floor_amperes))
        key = f"channels.{self.phase}"
        remedy = f"check the scale, and ct_ratio, burden_ohms and type in [{key}]"
        if range_amperes <= least:
            raise ValueError(
                f"{key}: the range of the ADC is {range_amperes:.3g} A RMS ({code_amperes:.3g} A"
                f" per code), but must be more than {least:.3g} A; {remedy}"
            )
        if code_amperes > math.sqrt(8) * LEAST_AMPERES:
            raise ValueError(
                f"{key}: a code of the ADC is {code_amperes:.3g} A, so small loads would read 0 A;"
                f" {remedy}"
            )
        if range_amperes >= (main_fuse_amperes or _USUAL_AMPERES):
            return ""
        fuse = f", below the main fuse of {main_fuse_amperes:g} A" if main_fuse_amperes else ""
        return f"{key}: the ADC overloads above {range_amperes:.3g} A RMS{fuse}; {remedy}"

    def current(
        self,
        window: Window,
        codes: Floats,
        moments: Moments,
        center: float,
        no_load_amperes: float,
        cycle: float,
    ) -> PhaseCurrent:
        """The current over a window.

        `codes` (samples,) have `center` subtracted; `moments` are theirs over the window; `cycle`
        is in samples. Noise adds to the current in squares, so its floor is subtracted in squares.
        """
        factor = self.amperes_per_code
        mean, variance, lowest, highest = moments
        mean_square = variance * factor**2
        rms = math.sqrt(max(0.0, mean_square - self._noise_floor_amperes**2))
        low = high = 0
        at_rail = False
        # The codes were centered by the same subtraction, so they compare exactly.
        low_rail, high_rail = self._lowest - center, self._highest - center
        if lowest <= low_rail or highest >= high_rail:
            low, high = window.count_beyond(codes, low_rail, high_rail)
            cut = pieces(codes)
            shares = ((cut <= low_rail) | (cut >= high_rail)).mean(axis=-1)
            at_rail = max(low, high) > window.scans / 2 or bool(shares.max() > _NEARLY_ALL)
        return PhaseCurrent(
            rms_amperes=rms if rms >= no_load_amperes else 0.0,
            peak_amperes=max(highest - mean, mean - lowest) * abs(factor),
            dc_offset_amperes=(center + mean + self._offset) * factor,
            clipped_samples=low + high,
            at_rail=at_rail,
            is_still=self.is_noisy and lowest == highest,
            is_noise=rms >= _LARGE_AMPERES and _slow_part(codes, cycle) < _SLOW_SHARE * variance,
            uncorrected_rms_amperes=math.sqrt(mean_square) / self._gain,
        )


def _slow_part(codes: Floats, cycle: float) -> float:
    """Mean square of `codes` (samples,), averaged over sixths of a cycle."""
    length = max(1, int(cycle / 6))
    blocks = codes[: len(codes) // length * length].reshape(-1, length)
    means = np.add.reduce(blocks, axis=1) / length
    return float(means @ means) / len(means)
