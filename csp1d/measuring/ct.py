# SPDX-License-Identifier: Apache-2.0
"""From codes to amperes: the ADC channel, burden and current transformer (CT) of a phase."""

import math

from csp1d.config import ChannelConfig
from csp1d.measuring.arrays import Floats
from csp1d.measuring.reading import PhaseCurrent
from csp1d.measuring.scan import Channel, ScanFormat
from csp1d.measuring.window import Moments, Window
from csp1d.phase import Phase
from csp1d.scan_type import EXACT_BITS


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


class Ct:
    """The CT of a phase and its channel of the ADC.

    amperes = (code + offset) * scale / 1000 / burden * ratio * gain, so a gain of 1.037 raises
    the reading by 3.7 %. Raises ValueError if the format has no channel for the phase that can be
    measured.
    """

    def __init__(self, scan_format: ScanFormat, phase: Phase, config: ChannelConfig) -> None:
        channel = find_channel(scan_format, phase, f"channels.{phase}")
        self.phase = phase
        self.row = scan_format.channels.index(channel)
        """Index of the channel among those of the format."""
        self._lowest, self._highest = channel.type.lowest, channel.type.highest
        millivolts = config.scale_millivolts or channel.scale
        sign = -1 if config.reversed else 1
        self.amperes_per_code = (
            sign * millivolts / 1000 / config.burden_ohms * config.ct_ratio * config.gain
        )
        self._offset = channel.offset
        self._gain = config.gain
        self._noise_floor_amperes = config.noise_floor_amperes

    def current(
        self, window: Window, codes: Floats, moments: Moments, center: float, no_load_amperes: float
    ) -> PhaseCurrent:
        """The current over a window.

        `codes` (samples,) have `center` subtracted; `moments` are theirs over the window. Noise
        adds to the current in squares, so its floor is subtracted in squares.
        """
        factor = self.amperes_per_code
        mean, variance, lowest, highest = moments
        mean_square = variance * factor**2
        rms = math.sqrt(max(0.0, mean_square - self._noise_floor_amperes**2))
        low = high = 0
        # The codes were centered by the same subtraction, so they compare exactly.
        low_rail, high_rail = self._lowest - center, self._highest - center
        if lowest <= low_rail or highest >= high_rail:
            low, high = window.count_beyond(codes, low_rail, high_rail)
        return PhaseCurrent(
            rms_amperes=rms if rms >= no_load_amperes else 0.0,
            peak_amperes=max(highest - mean, mean - lowest) * abs(factor),
            dc_offset_amperes=(center + mean + self._offset) * factor,
            clipped_samples=low + high,
            at_rail=max(low, high) > window.scans / 2,
            uncorrected_rms_amperes=math.sqrt(mean_square) / self._gain,
        )
