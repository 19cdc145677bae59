# SPDX-License-Identifier: Apache-2.0
"""The samples for all programs: a few seconds of three distorted currents, as scans."""

from dataclasses import dataclass

import numpy as np

from csp1d.config import Config
from csp1d.measuring.metering import Metering
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.scan_type import ScanType

FORMATS = {
    "16 bit with timestamp": ("le:s16/16>>0", True),
    "24 bit in 32": ("le:s24/32>>0", False),
    "12 bit big-endian": ("be:u12/16>>4", False),
}
"""Type of the channels, and whether the scans have a timestamp."""

HERTZ = 50.0
"""A whole number of cycles per second, so that seconds can be repeated."""

START_NS = 1_000_000_000_000
_PEAK, _THIRD = 0.5, 0.06
"""Amplitude relative to half the range."""
_TURN = 2.1
"""Angle between the phases, radians."""


@dataclass(frozen=True)
class Signal:
    """Several whole seconds of scans."""

    format: ScanFormat
    rate: int
    seconds: int
    data: bytes

    def block(self, second: int) -> bytes:
        """The scans of one second."""
        length = self.rate * self.format.scan_bytes
        return self.data[second * length : (second + 1) * length]


def scan_format(name: str, rate: int) -> ScanFormat:
    """One of FORMATS, at a rate."""
    text, has_timestamp = FORMATS[name]
    type_ = ScanType.parse(text)
    offset = 0.0 if type_.signed else -(2.0 ** (type_.bits - 1))
    # Full scale is the same voltage for all.
    scale = 0.05 * 2.0 ** (16 - type_.bits)
    channels = tuple(
        Channel(f"voltage{index}", f"L{index + 1}", index, type_, scale, offset)
        for index in range(3)
    )
    stamp = Timestamp(3, ScanType.parse("le:s64/64>>0")) if has_timestamp else None
    return ScanFormat(float(rate), channels, stamp)


def make(name: str, rate: int, seconds: int) -> Signal:
    """The samples, with one code of noise."""
    form = scan_format(name, rate)
    numbers = np.arange(rate * seconds)
    angles = 2 * np.pi * HERTZ / rate * (numbers % rate)
    records = np.zeros(len(numbers), form.record)
    noise = np.random.default_rng(1)
    for index, channel in enumerate(form.channels):
        half = 2.0 ** (channel.type.bits - 1)
        wave = _PEAK * np.sin(angles + _TURN * index) + _THIRD * np.sin(3 * angles)
        exact = half * wave - channel.offset + noise.standard_normal(len(numbers))
        records[str(index)] = np.rint(exact).astype(np.int64) << channel.type.shift
    if form.timestamp:
        records["timestamp"] = START_NS + np.rint(numbers * (1e9 / rate)).astype(np.int64)
    return Signal(form, rate, seconds, records.tobytes())


def metering(form: ScanFormat) -> Metering:
    """The metering with the daemon's default configuration."""
    config = Config()
    return Metering(form, dict(config.channels.used()), config.measurement)


def expected_codes(form: ScanFormat) -> float:
    """RMS of each channel, in codes."""
    half: float = 2.0 ** (form.channels[0].type.bits - 1)
    return half * float(np.sqrt((_PEAK**2 + _THIRD**2) / 2))


def amperes_per_code(form: ScanFormat) -> float:
    """Amperes per code in the metering; the same for each channel."""
    channel = Config().channels.L1
    millivolts = form.channels[0].scale
    return millivolts / 1000 / channel.burden_ohms * channel.ct_ratio * channel.gain
