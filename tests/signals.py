# SPDX-License-Identifier: Apache-2.0
"""Synthetic scans of a HAT: 10 mV per ampere around mid-scale of a 3.3 V range."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from csp1d.config import (
    ChannelConfig,
    ChannelsConfig,
    Config,
    DirectionConfig,
    MeasurementConfig,
)
from csp1d.measuring.direction import DirectionMeter
from csp1d.measuring.metering import Metering
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

Array = npt.NDArray[Any]

RANGE_MILLIVOLTS = 3300.0
MILLIVOLTS_PER_AMPERE = 10.0
"""2000:1 into 20 ohm."""
DISTORTED = {1: 1.0, 3: 0.6, 5: 0.3}
START_NS = 1_000_000_000_000
TIMESTAMP_TYPE = ScanType.parse("le:s64/64>>0")


def hat_format(
    bits: int = 16,
    rate: float = 4000,
    timestamp: bool = True,
    said_rate: float | None = None,
    reference: bool = False,
) -> ScanFormat:
    """Three channels in offset binary, optionally the reference and a timestamp."""
    storage = 16 if bits <= 16 else 32
    channels = tuple(
        Channel(
            f"voltage{index}",
            phase,
            index,
            ScanType.parse(f"le:u{bits}/{storage}>>0"),
            RANGE_MILLIVOLTS / 2**bits,
            -(2 ** (bits - 1)),
        )
        for index, phase in enumerate([*Phase, "reference"][: 3 + reference])
    )
    said = rate if said_rate is None else said_rate
    return ScanFormat(
        said, channels, Timestamp(3 + reference, TIMESTAMP_TYPE) if timestamp else None
    )


def pack(scan_format: ScanFormat, codes: Sequence[Array], stamps: Array | None = None) -> bytes:
    """The bytes of scans with these storage words, one row per channel."""
    records = np.zeros(len(codes[0]), scan_format.record)
    for number, row in enumerate(codes):
        records[str(number)] = row
    if scan_format.timestamp:
        records["timestamp"] = stamps
    return records.tobytes()


def current(
    times: Array,
    hertz: float,
    rms_amperes: float,
    harmonics: Mapping[int, float] | None = None,
    angles: Mapping[int, float] | None = None,
) -> Array:
    """Amperes at times (seconds); `rms_amperes` includes the harmonics."""
    parts = harmonics or {1: 1.0}
    wave = sum(
        part * np.sin(2 * np.pi * hertz * order * times + (angles or {}).get(order, 0.0))
        for order, part in parts.items()
    )
    scale = rms_amperes * np.sqrt(2 / sum(part**2 for part in parts.values()))
    return np.asarray(scale * wave)


def codes_of(
    amperes: Array, bits: int = 16, noise: np.random.Generator | None = None, bias: float = 0.0
) -> Array:
    """Codes of amperes, with noise of 1 LSB RMS if given a generator, clipped to the range."""
    exact = (amperes + bias) * MILLIVOLTS_PER_AMPERE / RANGE_MILLIVOLTS * 2**bits + 2 ** (bits - 1)
    if noise is not None:
        exact = exact + noise.standard_normal(len(exact))
    codes: Array = np.clip(np.rint(exact), 0, 2**bits - 1).astype(np.int64)
    return codes


def stamps_of(times: Array, late_ns: Array | float = 0.0) -> Array:
    """Timestamps of samples, late by `late_ns`."""
    stamps: Array = START_NS + np.rint(times * 1e9 + late_ns).astype(np.int64)
    return stamps


def metering_of(scan_format: ScanFormat, no_load_amperes: float = 0.0, **channel: Any) -> Metering:
    """A metering of the HAT's channels, all with the same configuration."""
    channels = {
        Phase(element.phase): ChannelConfig(input=element.id, **channel)
        for element in scan_format.channels
    }
    return Metering(scan_format, channels, MeasurementConfig(no_load_amperes=no_load_amperes))


def configured(channels: Mapping[Phase, ChannelConfig], measurement: MeasurementConfig) -> Config:
    """A configuration of these phases alone."""
    inputs = {
        phase: replace(channel, input=f"voltage{index}")
        for index, phase in enumerate(Phase)
        if (channel := channels.get(phase))
    }
    used = {phase: inputs.get(phase, ChannelConfig()) for phase in Phase}
    return Config(channels=ChannelsConfig(**used), measurement=measurement)


def config_of(direction: Mapping[str, Any], **channels: Mapping[str, Any]) -> Config:
    """A configuration with direction on, by default with a voltage reference."""
    settings = {
        phase: {"input": f"voltage{index}", **channels.get(phase, {})}
        for index, phase in enumerate(Phase)
    }
    return Config(
        channels=ChannelsConfig(**{phase: ChannelConfig(**s) for phase, s in settings.items()}),
        measurement=MeasurementConfig(no_load_amperes=0.0),
        direction=DirectionConfig(**{"reference": "voltage", **direction}),
    )


def direction_of(scan_format: ScanFormat, config: Config) -> DirectionMeter:
    """The direction meter of a configuration with direction on."""
    reference = config.reference()
    assert reference
    return DirectionMeter(scan_format, config.channels.used(), config.direction, reference)


def directed(scan_format: ScanFormat, config: Config) -> Metering:
    """A metering with direction."""
    meter = direction_of(scan_format, config)
    return Metering(scan_format, config.channels.used(), config.measurement, meter)
