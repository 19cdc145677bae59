# SPDX-License-Identifier: Apache-2.0
"""Reports the faults of the measurement to the journal: each once when it begins and when it ends.

Lost scans, overload and stalls come in bursts, one second with and one without. Such a fault has
ended when it was absent for ten seconds.
"""

from collections.abc import Sequence

from csp1d.config import FOLDED
from csp1d.events import Event
from csp1d.hat.device import Adc
from csp1d.loop.fault import QUIET_NS, Fault
from csp1d.measuring.reading import FRESH_NS, DirectionReading, PhaseCurrent, Reading
from csp1d.measuring.scan import SLOWEST_HERTZ
from csp1d.measuring.timeline import MOST_LOST
from csp1d.phase import Phase
from csp1d.units import SECOND_NS

_QUIET_SECONDS = QUIET_NS // SECOND_NS
_LOSSY_WINDOWS = 3
"""Losses that cost a reading are reported when that many came in a row."""
_NOISY_PHASES, _NOISY_READINGS = 2, 5
"""Currents that are noise are reported for that many phases, in that many readings in a row."""
_OLD_NS = 5 * SECOND_NS
"""Readings that are too old to send are reported when that lasts this long."""


class MeasurementEvents:
    """The faults of an available ADC, across all its set-ups. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._unstamped = Fault()
        self._rate_refused = Fault()
        self._rate_wrong = Fault()
        self._rate_folds = Fault(QUIET_NS)
        self._slow = Fault()
        self._scale = Fault()
        self._stall = Fault(QUIET_NS)
        self._clock = Fault(QUIET_NS)
        self._age = Fault(QUIET_NS)
        self._loss = Fault(QUIET_NS)
        self._lossy = Fault(QUIET_NS)
        self._reference = Fault(QUIET_NS)
        self._wiring = Fault()
        self._noise = Fault(QUIET_NS)
        self._noisy_readings = 0
        self._overload = {phase: Fault(QUIET_NS) for phase in Phase}
        self._failed = {phase: Fault(QUIET_NS) for phase in Phase}

    def reset(self) -> None:
        """The configuration changed: report faults that depend on it again."""
        of_set_up = (self._rate_refused, self._rate_wrong, self._rate_folds, self._scale)
        for fault in (*of_set_up, self._clock, self._noise, self._reference, self._wiring):
            fault.reset_reasons()

    def on_set_up(self, adc: Adc, range_doubts: Sequence[str], now_ns: int) -> None:
        """The ADC was set up. `range_doubts`: why its range is probably wrong."""
        if doubts := [*adc.scale_doubts, *range_doubts]:
            for doubt in doubts:
                if self._scale.observe(now_ns, reason=doubt):
                    Event.ADC_SCALE_DOUBTFUL.log("%s", doubt, device="ADC", reason=doubt)
        elif self._scale.clear(now_ns):
            Event.ADC_SCALE_PLAUSIBLE.log("ADC scale and range are plausible", device="ADC")
        if adc.format.timestamp is not None:
            self._unstamped.clear(now_ns)
        elif self._unstamped.observe(now_ns):
            Event.ADC_UNSTAMPED.log(
                "ADC provides no timestamps: time is derived from the number of scans", device="ADC"
            )
        if (fault := adc.rate_fault) is None:
            if self._rate_refused.clear(now_ns):
                Event.ADC_RATE_TAKEN.log("ADC accepts adc.sampling_frequency_hz", device="ADC")
        elif self._rate_refused.observe(now_ns, reason=fault):
            Event.ADC_RATE_REFUSED.log("%s", fault, device="ADC", reason=fault)

    def on_rate(self, fault: str | None, now_ns: int) -> None:
        """Scans arrived. `fault`: why their rate is not the one that the driver reports."""
        if fault is None:
            if self._rate_wrong.clear(now_ns):
                Event.ADC_RATE_TAKEN.log("ADC delivers scans at the reported rate", device="ADC")
        # Without the reason: its figures differ each time.
        elif self._rate_wrong.observe(now_ns):
            Event.ADC_RATE_REFUSED.log(
                "ADC: %s; measuring at the actual rate: set adc.sampling_frequency_hz to it",
                fault,
                device="ADC",
                reason=fault,
            )

    def on_measured_rate(self, hertz: float, folds: bool, now_ns: int) -> None:
        """Scans arrived. `folds`: their rate folds harmonics, and is not as configured."""
        if not folds:
            if self._rate_folds.clear(now_ns):
                Event.ADC_RATE_PLAUSIBLE.log("ADC rate folds no harmonics", device="ADC")
        elif self._rate_folds.observe(now_ns):
            Event.ADC_RATE_DOUBTFUL.log(
                "ADC: %.0f %s; set another rate, of the ADC or its trigger, or set"
                " adc.sampling_frequency_hz to this one in a drop-in if an analog filter removes"
                " harmonics above half of it",
                hertz,
                FOLDED,
                device="ADC",
            )

    def on_silence(self, slow_hertz: float | None, lossy_windows: int, now_ns: int) -> None:
        """Scans arrived without a reading: from an ADC that is too slow, or many were lost."""
        # Each without the figures: they differ each time.
        if slow_hertz and self._slow.observe(now_ns):
            Event.ADC_SLOW.log(
                "ADC delivers %.4g scans per second, csp1d needs at least %.0f: no telegrams sent;"
                " set adc.sampling_frequency_hz, or the rate of its trigger",
                slow_hertz,
                SLOWEST_HERTZ,
                device="ADC",
            )
        if lossy_windows >= _LOSSY_WINDOWS and self._lossy.observe(now_ns):
            Event.READINGS_LOST.log(
                "more than %.0f %% of the ADC scans are lost each second: no telegrams sent;"
                " reduce adc.sampling_frequency_hz, or the load of the processor",
                100 * MOST_LOST,
                device="ADC",
            )

    def on_stall(self, now_ns: int) -> None:
        """The ADC has delivered no scan for too long."""
        if self._stall.observe(now_ns):
            Event.ADC_STALLED.log("ADC stalled: present, but not delivering data", device="ADC")

    def on_data(self, now_ns: int) -> None:
        """The ADC has delivered scans."""
        if self._stall.clear(now_ns):
            Event.ADC_RESUMED.log("ADC delivers data again", device="ADC")

    def on_readings(
        self, readings: list[Reading], lost_scans: int, clock_fault: str | None, now_ns: int
    ) -> None:
        """Scans arrived and completed `readings`, possibly none.

        `lost_scans` counts those lost since the last call; `clock_fault` says why the timestamps
        are not used.
        """
        if clock_fault is not None:
            if self._clock.observe(now_ns):
                Event.ADC_CLOCK.log(
                    "ADC timestamps: %s", clock_fault, device="ADC", reason=clock_fault
                )
        elif readings and self._clock.clear(now_ns):
            Event.ADC_CLOCK_GOOD.log("ADC timestamps are used again", device="ADC")
        if lost_scans:
            if self._loss.observe(now_ns, count=lost_scans):
                Event.SCANS_LOST.log("%d ADC scans lost", lost_scans, scans_lost=lost_scans)
        elif readings and self._loss.clear(now_ns):
            count = self._loss.count
            Event.SCANS_COMPLETE.log(
                "no ADC scan lost for %d s (%d before)", _QUIET_SECONDS, count, scans_lost=count
            )
        if readings:
            if self._slow.clear(now_ns):
                Event.ADC_FAST_ENOUGH.log("ADC delivers enough scans per second", device="ADC")
            if self._lossy.clear(now_ns):
                Event.READINGS_FOUND.log("readings for %d s again", _QUIET_SECONDS, device="ADC")
            self._observe_age(now_ns - readings[-1].end_ns, now_ns)
        for reading in readings:
            for phase, current in reading.phases.items():
                self._observe_phase(phase, current, reading.is_frozen, now_ns)
            self._observe_noise(reading, now_ns)
            if reading.direction:
                self._observe_direction(reading.direction, now_ns)

    def _observe_noise(self, reading: Reading, now_ns: int) -> None:
        """Currents that may be wrong although each is valid: a single one may be real noise."""
        noisy = [phase for phase, current in reading.phases.items() if current.is_noise]
        self._noisy_readings = self._noisy_readings + 1 if len(noisy) >= _NOISY_PHASES else 0
        if self._noisy_readings >= _NOISY_READINGS:
            if self._noise.observe(now_ns):
                names = ", ".join(noisy)
                Event.CURRENTS_DOUBTFUL.log(
                    "%s: the currents may be wrong: they are large, and without the waveform of"
                    " the mains; check type (byte order) and input of these channels",
                    names,
                    phase=names,
                )
        elif not self._noisy_readings and self._noise.clear(now_ns):
            Event.CURRENTS_PLAUSIBLE.log(
                "the currents have the waveform of the mains for %d s again", _QUIET_SECONDS
            )

    def _observe_direction(self, direction: DirectionReading, now_ns: int) -> None:
        if fault := direction.reference_fault:
            # Without the reason: its figures differ each time.
            if self._reference.observe(now_ns):
                Event.REFERENCE_LOST.log(
                    "direction unknown, all current counts as import: %s", fault, reason=fault
                )
        elif self._reference.clear(now_ns):
            Event.REFERENCE_FOUND.log("direction known: the reference is available again")
        if advice := direction.wiring_advice:
            if self._wiring.observe(now_ns, reason=advice):
                Event.WIRING_DOUBTFUL.log("wiring: %s", advice, reason=advice)
        elif advice == "" and self._wiring.clear(now_ns):
            Event.WIRING_FITS.log("wiring: the phase angles match the configuration")

    def _observe_age(self, age_ns: int, now_ns: int) -> None:
        """The age of the last reading. The backlog after a pause is no fault: it does not last."""
        if age_ns > FRESH_NS:
            if self._age.observe(now_ns, lasting_ns=_OLD_NS):
                Event.ADC_CLOCK.log(
                    "ADC timestamps: scans arrive %.1f s late, too old to send",
                    age_ns / SECOND_NS,
                    device="ADC",
                )
        elif self._age.clear(now_ns):
            Event.ADC_CLOCK_GOOD.log("ADC scans arrive in time again", device="ADC")

    def _observe_phase(
        self, phase: Phase, current: PhaseCurrent, is_frozen: bool, now_ns: int
    ) -> None:
        """A failed input, or overload if it has not failed."""
        failed, overload = self._failed[phase], self._overload[phase]
        if current.at_rail or is_frozen:
            reason, remedy = (
                (
                    "input saturated",
                    f'input wiring, or set channels.{phase}.input to "" if it has no transformer',
                )
                if current.at_rail
                else (
                    "all samples are the same, the ADC does not answer",
                    "ADC's supply, reference and bus",
                )
            )
            if failed.observe(now_ns, reason=reason):
                Event.INPUT_FAILED.log(
                    "%s: %s: current unknown, no telegrams sent; check the %s",
                    phase,
                    reason,
                    remedy,
                    phase=phase,
                    reason=reason,
                )
            return
        if failed.clear(now_ns):
            Event.INPUT_GOOD.log("%s: input OK again", phase, phase=phase)
        if samples := current.clipped_samples:
            if overload.observe(now_ns, count=samples):
                Event.CLIPPING.log(
                    "%s overload: signal exceeds the ADC range, the reading is too low",
                    phase,
                    phase=phase,
                    clipped_samples=samples,
                )
        elif overload.clear(now_ns):
            Event.CLIPPING_ENDED.log(
                "%s: no overload for %d s (%d samples clipped before)",
                phase,
                _QUIET_SECONDS,
                overload.count,
                phase=phase,
                clipped_samples=overload.count,
            )
