# SPDX-License-Identifier: Apache-2.0
"""The readings of recorded scans, as the daemon makes them of the scans of its ADC."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from csp1d.config import Config
from csp1d.measuring.direction import DirectionMeter
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.measuring.scan import ScanFormat
from csp1d.scan_type import ScanType


class Replay(Iterator[Reading]):
    """The readings of recorded scans: `chunks` of whole scans in `scan_format`.

    Configured phases that the format does not hold are left out. A `type` in the configuration
    replaces that of the format. Raises ValueError if format and configuration do not fit together.
    """

    def __init__(self, scan_format: ScanFormat, chunks: Iterable[bytes], config: Config) -> None:
        phases = {channel.phase for channel in scan_format.channels}
        channels, reference, meter = config.channels.used(), config.reference(), None
        held = {phase: channel for phase, channel in channels.items() if phase in phases}
        if not held:
            raise ValueError(
                "contains no channel of a configured phase"
                f" ({', '.join(channels) or 'none is configured'}); configure one of its phases"
            )
        types = {str(phase): channel.type for phase, channel in held.items() if channel.type}
        if reference and reference.type:
            types["reference"] = reference.type
        scan_format = _with_types(scan_format, types)
        if reference:
            meter = DirectionMeter(scan_format, held, config.direction, reference)
        self.metering = Metering(scan_format, held, config.measurement, meter)
        self._readings = (reading for chunk in chunks for reading in self.metering.feed(chunk))

    def __next__(self) -> Reading:
        return next(self._readings)


def reading_json(reading: Reading) -> dict[str, Any]:
    """One reading as `csp1ctl replay` prints it."""
    active = reading.direction.active_current_amperes if reading.direction else None
    return {
        "end_ns": reading.end_ns,
        "window_seconds": reading.window_seconds,
        "frequency_hertz": reading.frequency_hertz,
        "scans": reading.scans,
        "lost_scans": reading.lost_scans,
        "current_amperes": {
            str(phase): None if phase in reading.failed_phases else current.rms_amperes
            for phase, current in reading.phases.items()
        },
        "active_current_amperes": active and {str(p): amperes for p, amperes in active.items()},
        "clipped_samples": {str(p): c.clipped_samples for p, c in reading.phases.items()},
    }


def _with_types(scan_format: ScanFormat, types: Mapping[str, str]) -> ScanFormat:
    """The format with the configured `types`, by phase or "reference"."""
    changed = dataclasses.replace(
        scan_format,
        channels=tuple(
            dataclasses.replace(channel, type=ScanType.parse(types[channel.phase]))
            if channel.phase in types
            else channel
            for channel in scan_format.channels
        ),
    )
    if changed.scan_bytes != scan_format.scan_bytes:
        raise ValueError(
            f"the configured types {', '.join(types.values())} give a scan of"
            f" {changed.scan_bytes} bytes instead of {scan_format.scan_bytes};"
            " keep the storage bits of the capture"
        )
    return changed
