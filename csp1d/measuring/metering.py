# SPDX-License-Identifier: Apache-2.0
"""Scans in, readings out: RMS current over whole mains cycles, once a second, without a gap.

Each window begins where the one before ended and ends at the last boundary of a whole cycle
before the next point on a grid of seconds (`timeline`), between samples as it may be. So windows
are about a second long, a second apart on average, and miss nothing. Whole cycles are what makes
the RMS right (docs/accuracy.md); where no current is coherent there are none, and the window ends
at the grid point.
"""

import math
from collections.abc import Mapping

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
from csp1d.measuring.window import Window, runs, without_gaps
from csp1d.phase import Phase
from csp1d.units import SECOND_NS


class Metering:
    """The metering of one capture, from its first scan on.

    Raises ValueError where the format does not hold what the configuration asks for.
    """

    def __init__(
        self,
        scan_format: ScanFormat,
        channels: Mapping[Phase, ChannelConfig],
        measurement: MeasurementConfig,
        direction: DirectionMeter | None = None,
    ) -> None:
        """`direction`: of the same channels; None measures no direction."""
        self.scans_total = 0
        self._format = scan_format
        self._cts = [Ct(scan_format, phase, config) for phase, config in channels.items()]
        self._rows = [ct.row for ct in self._cts]
        strength = [abs(ct.amperes_per_code) for ct in self._cts]
        self._direction = direction
        if direction and direction.row is not None:
            # As good for the frequency as a current, and a voltage is there without a load.
            self._rows.append(direction.row)
            strength.append(direction.strength)
        self._strength = strength
        self._no_load_amperes = measurement.no_load_amperes
        self._nominal_hertz = float(measurement.nominal_frequency_hz)
        self._frequency = FrequencyMeter(self._nominal_hertz)
        self._timeline = Timeline(scan_format, len(self._rows))
        self._sequence = 0
        self._hertz: float | None = None

    @property
    def clock_fault(self) -> str | None:
        """Why the timestamps are not used although there are some, in words; None: they are."""
        return self._timeline.clock_fault

    @property
    def rate_fault(self) -> str | None:
        """In words, where the scans come at quite another rate than the device says."""
        return self._timeline.rate_fault

    @property
    def due_ns(self) -> int | None:
        """Time at which the last sample of the next reading is due; None before the first scan.

        It moves on a little where a stamp is late or scans are missing, and stays in the past
        when the samples do.
        """
        return self._timeline.due_ns

    @property
    def lost_scans_total(self) -> int:
        """Scans missing so far, whether a reading told them or none came of the window."""
        return self._timeline.lost_scans_total

    def feed(self, scans: bytes, read_ns: int | None = None) -> list[Reading]:
        """Take whole scans, however many; the readings that they complete.

        `read_ns` is CLOCK_MONOTONIC at the read, None in a replay. Raises ScanFormatError where
        the bytes are not whole scans.
        """
        size = self._format.scan_bytes
        data = memoryview(scans)
        readings: list[Reading] = []
        self._timeline.start_read(len(data) // size, read_ns)
        # A second at a time, so that a backlog needs little more memory than its bytes.
        step = max(1024, int(self._format.sampling_frequency_hz)) * size
        while data:
            decoded = self._format.decode(data[:step])
            codes = [decoded.codes[row] for row in self._rows]
            taken = self._timeline.append(codes, decoded.timestamps, len(decoded.codes[0]))
            while span := self._timeline.next_span():
                readings.append(self._read(span))
            self.scans_total += taken
            data = data[taken * size :]
        return readings

    def _read(self, span: Span) -> Reading:
        center = np.add.reduce(span.codes, axis=1) / span.codes.shape[1]
        centered = span.codes - center[:, None]
        start, end, cycle = span.start, span.latest, None
        series = self._without_gaps(span, centered)
        self._hertz = self._frequency.measure(series, span.period_ns, self._strength)
        if self._hertz:
            cycle = SECOND_NS / span.period_ns / self._hertz
            # A boundary at the grid point itself counts, whatever the last digits say.
            whole = math.floor((end - start) / cycle + 1e-6)
            end = min(end, start + whole * cycle)
        window = Window.of(span.positions, start, end)
        currents = centered[: len(self._cts)]
        of_each = zip(self._cts, currents, window.moments(currents), center.tolist(), strict=False)
        phases = {
            ct.phase: ct.current(window, codes, moments, code, self._no_load_amperes)
            for ct, codes, moments, code in of_each
        }
        direction = None
        if self._direction:
            first = float(span.positions[0])
            known = phasors(series, start - first, end - first, cycle) if cycle else None
            reference = series[-1]
            rms = math.sqrt(float(reference @ reference) / len(reference))
            direction = self._direction.measure(known, phases, rms)
        # Before the window is ended, which takes the span's scans away.
        waveform = self._waveform(series, math.ceil(end) - int(span.positions[0]), span)
        self._sequence += 1
        return Reading(
            sequence=self._sequence,
            end_ns=self._timeline.close_window(end, cycle),
            window_seconds=(end - start) * span.period_ns / SECOND_NS,
            phases=phases,
            frequency_hertz=self._hertz,
            scans=window.scans,
            lost_scans=math.ceil(end) - math.ceil(start) - window.scans,
            direction=direction,
            waveform=waveform,
        )

    def _waveform(self, series: Floats, after: int, span: Span) -> Waveform:
        points, step = last_cycles(series, after, self._cycle(span))
        meter = self._direction
        reference = None
        if meter and meter.row is not None:
            reference = points[-1] * meter.unit_per_code
        return Waveform(
            spacing_seconds=step * span.period_ns / SECOND_NS,
            current_amperes={
                ct.phase: row * ct.amperes_per_code
                for ct, row in zip(self._cts, points, strict=False)
            },
            reference=reference,
            reference_unit=meter.unit if meter and reference is not None else "",
        )

    def _cycle(self, span: Span) -> float:
        """Samples in a mains cycle, as far as it is known."""
        return SECOND_NS / span.period_ns / (self._hertz or self._nominal_hertz)

    def _without_gaps(self, span: Span, centered: Floats) -> Floats:
        if len(runs(span.positions)) == 1:
            return centered
        return without_gaps(centered, span.positions, self._cycle(span))
