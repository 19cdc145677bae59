# SPDX-License-Identifier: Apache-2.0
"""From scans to readings: the RMS current over whole mains cycles, once per second, gapless.

Each window starts at the end of the previous one and ends after a whole number of cycles, at the
last cycle boundary before the next point of a grid of seconds (`timeline`), usually between two
samples. So windows are about one second long, one second apart on average. The RMS is right only
over whole cycles (docs/accuracy.md). If no current is coherent, the window ends at the grid point.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from csp1d.config import ChannelConfig, MeasurementConfig
from csp1d.measuring.arrays import Floats
from csp1d.measuring.ct import Ct
from csp1d.measuring.direction import DirectionMeter, phasors
from csp1d.measuring.frequency import FrequencyMeter
from csp1d.measuring.reading import Reading, Waveform
from csp1d.measuring.scan import ScanFormat
from csp1d.measuring.timeline import Span, Timeline
from csp1d.measuring.waveform import last_cycles
from csp1d.measuring.window import Moments, Window, freezes, without_gaps
from csp1d.phase import Phase
from csp1d.units import SECOND_NS


class Metering:
    """Makes readings of consecutive scans.

    Raises ValueError if the format lacks what the configuration needs, and if a load would read 0 A
    with the range of the ADC.
    """

    def __init__(
        self,
        scan_format: ScanFormat,
        channels: Mapping[Phase, ChannelConfig],
        measurement: MeasurementConfig,
        direction: DirectionMeter | None = None,
        main_fuse_amperes: float = 0.0,
    ) -> None:
        """`direction` must have the same channels; None: no direction is measured.

        `main_fuse_amperes`: the current that the range should reach; 0: unknown.
        """
        self.scans_total = 0
        self._format = scan_format
        self._cts = [Ct(scan_format, phase, config) for phase, config in channels.items()]
        self._phases = list(channels)
        self._is_never_quiet = all(ct.is_never_quiet for ct in self._cts)
        limits = (measurement.no_load_amperes, main_fuse_amperes)
        checked = [ct.check_range(*limits) for ct in self._cts]
        self.range_doubts = tuple(filter(None, checked))
        """Why the range of the ADC is probably wrong, for each such channel."""
        # One row per CT, then the reference if it has a channel.
        self._rows = [ct.row for ct in self._cts]
        amperes_per_code = [abs(ct.amperes_per_code) for ct in self._cts]
        units_per_code = [ct.amperes_per_code for ct in self._cts]
        self._direction = direction
        if direction and direction.row is not None:
            # It also gives the frequency; a voltage does so without any load.
            self._rows.append(direction.row)
            amperes_per_code.append(direction.amperes_per_code)
            units_per_code.append(direction.unit_per_code)
        self._units_per_code = np.array(units_per_code)[:, None]
        self._no_load_amperes = measurement.no_load_amperes
        self._nominal_hertz = measurement.nominal_frequency_hz
        self._frequency = FrequencyMeter(amperes_per_code)
        self.timeline = Timeline(scan_format, len(self._rows))
        """When the next reading is due, scans lost so far, and faults of timestamps and rate."""
        self._sequence = 0
        self._hertz: float | None = None
        self._moments: list[Moments] = []

    def feed(
        self, scans: bytes, read_ns: int | None = None, began_ns: int | None = None
    ) -> list[Reading]:
        """Add any number of whole scans; returns the readings that they complete.

        `read_ns` is CLOCK_MONOTONIC after the read, None in a replay, and `began_ns` before it, by
        default the same: the process may have been held in between. Raises ScanFormatError if the
        bytes are not whole scans.
        """
        size = self._format.scan_bytes
        data = memoryview(scans)
        readings: list[Reading] = []
        self.timeline.start_read(len(data) // size, read_ns, began_ns)
        # One second at a time, so that a backlog needs little memory besides its bytes.
        step = max(1024, int(self._format.sampling_frequency_hz)) * size
        while data:
            decoded = self._format.decode(data[:step])
            codes = decoded.codes
            if self._rows != list(range(len(codes))):
                codes = [codes[row] for row in self._rows]
            taken = self.timeline.append(codes, decoded.timestamps, len(decoded.codes[0]))
            while span := self.timeline.next_span():
                readings.append(self._read(span))
            self.scans_total += taken
            data = data[taken * size :]
        return readings

    def _read(self, span: Span) -> Reading:
        center = np.add.reduce(span.codes, axis=1) / span.codes.shape[1]
        centered = span.codes - center[:, None]
        start, end, cycle = span.start, span.latest, None
        series = without_gaps(centered, span.positions, self._cycle(span))
        second_ago = [moments.variance for moments in self._moments]
        self._hertz = self._frequency.measure(series, span.period_ns, second_ago)
        if self._hertz:
            cycle = self._cycle(span)
            # A boundary at the end itself counts, although rounding may put it after the end.
            end = min(end, start + math.floor((end - start) / cycle + 1e-6) * cycle)
        window = Window.of(span.positions, start, end)
        self._moments = window.moments(centered)
        rows = zip(self._cts, centered, self._moments, center.tolist(), strict=False)
        phases = {
            ct.phase: ct.current(
                window, codes, moments, code, self._no_load_amperes, self._cycle(span)
            )
            for ct, codes, moments, code in rows
        }
        if self._is_never_quiet and freezes(centered[: len(phases)]):
            phases = {phase: replace(found, is_still=True) for phase, found in phases.items()}
        direction, stop = None, end - int(span.positions[0])
        if self._direction:
            fundamentals = phasors(series, stop, cycle) if cycle else None
            # If the reference has no row, this is a CT, and measure() reports the fault first.
            rms = math.sqrt(self._moments[-1].variance)
            direction = self._direction.measure(fundamentals, phases, rms)
        # Before close_window, which drops the scans of the span.
        waveform = self._waveform(series, math.ceil(stop), span)
        end_ns = self.timeline.close_window(end, cycle)
        self._sequence += 1
        return Reading(
            sequence=self._sequence,
            end_ns=end_ns,
            window_seconds=(end - start) * span.period_ns / SECOND_NS,
            phases=phases,
            frequency_hertz=self._hertz if span.is_sure else None,
            scans=window.scans,
            lost_scans=math.ceil(end) - math.ceil(start) - window.scans,
            direction=direction,
            waveform=waveform,
        )

    def _waveform(self, series: Floats, after: int, span: Span) -> Waveform:
        points, step = last_cycles(series, after, self._cycle(span))
        points = points * self._units_per_code
        meter = self._direction
        has_reference = meter is not None and meter.row is not None
        return Waveform(
            spacing_seconds=step * span.period_ns / SECOND_NS,
            current_amperes=dict(zip(self._phases, points, strict=False)),
            reference=points[-1] if has_reference else None,
            reference_unit=meter.unit if meter and has_reference else "",
        )

    def _cycle(self, span: Span) -> float:
        """Samples per mains cycle, at the nominal frequency until it is measured."""
        return SECOND_NS / span.period_ns / (self._hertz or self._nominal_hertz)
