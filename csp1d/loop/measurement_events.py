# SPDX-License-Identifier: Apache-2.0
"""Reports the faults of the measurement: each once when it begins and when it ends.

Lost scans, overload and stalls come in bursts, one second with and one without. Such a fault has
ended when it was absent for ten seconds.
"""

from collections.abc import Sequence

from csp1d.config import FOLDED
from csp1d.events import ActiveProblem, Event
from csp1d.hat.device import Adc
from csp1d.loop.fault import BACK_NS, NEVER_NS, QUIET_NS, Fault
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
        self._unstamped = Fault(Event.ADC_UNSTAMPED, "ADC")
        self._rate_refused = Fault(Event.ADC_RATE_REFUSED, "ADC")
        self._rate_wrong = Fault(Event.ADC_RATE_REFUSED, "ADC")
        self._rate_folds = Fault(Event.ADC_RATE_DOUBTFUL, "ADC", QUIET_NS)
        self._slow = Fault(Event.ADC_SLOW, "ADC")
        self._scale: dict[str, Fault] = {}
        """By doubt."""
        self._stall = Fault(Event.ADC_STALLED, "ADC", QUIET_NS)
        self._clock = Fault(Event.ADC_CLOCK, "ADC", QUIET_NS)
        self._age = Fault(Event.ADC_CLOCK, "ADC", QUIET_NS)
        self._loss = Fault(Event.SCANS_LOST, "ADC", QUIET_NS)
        self._lossy = Fault(Event.READINGS_LOST, "ADC", QUIET_NS)
        self._reference = Fault(Event.REFERENCE_LOST, "reference", QUIET_NS)
        self._wiring = Fault(Event.WIRING_DOUBTFUL, "wiring")
        self._noise = Fault(Event.CURRENTS_DOUBTFUL, "ADC", QUIET_NS)
        self._noisy_readings = 0
        self._overload = {phase: Fault(Event.CLIPPING, phase, QUIET_NS) for phase in Phase}
        self._failed = {phase: Fault(Event.INPUT_FAILED, phase, QUIET_NS) for phase in Phase}
        # Those that are observed at each read, the most important first.
        self._of_scans = (
            *(self._stall, self._slow, self._lossy, self._age),
            *(*self._failed.values(), *self._overload.values()),
            *(self._noise, self._reference, self._wiring, self._loss, self._clock),
            *(self._rate_wrong, self._rate_folds),
        )
        self._preventing = {self._stall, self._lossy, self._age, *self._failed.values()}
        self._sendable_ns = NEVER_NS  # when there was a reading that can be sent
        # What is only their consequence is no further problem.
        self._causes: dict[Fault, Sequence[Fault]] = {
            self._loss: (self._stall, self._lossy),
            self._stall: (self._slow,),
            self._lossy: (self._slow,),
            **{self._overload[phase]: (self._failed[phase],) for phase in Phase},
        }

    def problems(self, now_ns: int) -> list[ActiveProblem | None]:
        """The active problems, the most important first; None stands for none."""
        of_set_up = [fault.problem for fault in (*self._scale.values(), self._rate_refused)]
        of_scans = [
            fault.recent(now_ns)
            for fault in self._of_scans
            if fault.problem
            and not self._is_over(fault)
            and not any(fault.follows(cause) for cause in self._causes.get(fault, ()))
        ]
        return [*of_scans, *of_set_up]

    def _is_over(self, fault: Fault) -> bool:
        """Whether a fault that prevented telegrams is absent for a while, with new readings.

        Its end is logged later: it may return, and then counts until it was absent for longer.
        """
        if fault not in self._preventing or fault.has_returned:
            return False
        return fault.recent(self._sendable_ns, BACK_NS) is None

    def reset(self) -> None:
        """The configuration changed: report faults again."""
        for fault in (*self._of_scans, *self._scale.values(), self._rate_refused):
            fault.reset_reasons()

    def on_set_up(self, adc: Adc, range_doubts: Sequence[str], now_ns: int) -> None:
        """The ADC was set up. `range_doubts`: why its range is probably wrong."""
        doubts, before = [*adc.scale_doubts, *range_doubts], self._scale
        self._scale = {
            doubt: before.get(doubt) or Fault(Event.ADC_SCALE_DOUBTFUL, "ADC") for doubt in doubts
        }
        for doubt, fault in self._scale.items():
            if fault.observe(now_ns):
                fault.log("%s", doubt, reason=doubt)
        if before and not doubts:
            Event.ADC_SCALE_PLAUSIBLE.log("ADC scale and range are plausible", device="ADC")
        if adc.format.timestamp is not None:
            self._unstamped.clear(now_ns)
        elif self._unstamped.observe(now_ns):
            self._unstamped.log(
                "ADC provides no timestamps: time is derived from the number of scans"
            )
        if (rate_fault := adc.rate_fault) is None:
            if self._rate_refused.clear(now_ns):
                Event.ADC_RATE_TAKEN.log("ADC accepts adc.sampling_frequency_hz", device="ADC")
        elif self._rate_refused.observe(now_ns, reason=rate_fault):
            self._rate_refused.log(
                "%s; measuring at the actual rate: set adc.sampling_frequency_hz to it",
                rate_fault,
                reason=rate_fault,
            )

    def on_rate(self, fault: str | None, now_ns: int) -> None:
        """Scans arrived. `fault`: why their rate is not the one that the driver reports."""
        if fault is None:
            if self._rate_wrong.clear(now_ns):
                Event.ADC_RATE_TAKEN.log("ADC delivers scans at the reported rate", device="ADC")
        # Without the reason: its figures differ each time.
        elif self._rate_wrong.observe(now_ns):
            self._rate_wrong.log(
                "ADC: %s; measuring at the actual rate: set adc.sampling_frequency_hz to it",
                fault,
                reason=fault,
            )

    def on_measured_rate(self, hertz: float, folds: bool, now_ns: int) -> None:
        """Scans arrived. `folds`: their rate folds harmonics, and is not as configured."""
        if not folds:
            if self._rate_folds.clear(now_ns):
                Event.ADC_RATE_PLAUSIBLE.log("ADC rate folds no harmonics", device="ADC")
        elif self._rate_folds.observe(now_ns):
            self._rate_folds.log(
                "ADC: %.0f %s; set another rate, of the ADC or its trigger, or set"
                " adc.sampling_frequency_hz to this one in a drop-in if an analog filter removes"
                " harmonics above half of it",
                hertz,
                FOLDED,
            )

    def on_silence(self, slow_hertz: float | None, lossy_windows: int, now_ns: int) -> None:
        """Scans arrived without a reading: from an ADC that is too slow, or many were lost."""
        # Each without the figures: they differ each time.
        if slow_hertz and self._slow.observe(now_ns):
            self._slow.log(
                "ADC delivers %.4g scans per second, csp1d needs at least %.0f: no telegrams sent;"
                " set adc.sampling_frequency_hz, or the rate of its trigger",
                slow_hertz,
                SLOWEST_HERTZ,
            )
        if lossy_windows >= _LOSSY_WINDOWS and self._lossy.observe(now_ns):
            self._lossy.log(
                "more than %.0f %% of the ADC scans are lost each second: no telegrams sent;"
                " reduce adc.sampling_frequency_hz, or the load of the processor",
                100 * MOST_LOST,
            )

    def on_no_reading(self, now_ns: int) -> None:
        """Scans have arrived for seconds, and none of them gave a reading."""
        if self._lossy.observe(now_ns):
            self._lossy.log(
                "the ADC scans come too unevenly or too slowly for a reading: no telegrams sent;"
                " setting the ADC up again; check its trigger and its bus, or reduce the load of"
                " the processor"
            )

    def on_stall(self, now_ns: int) -> None:
        """The ADC has delivered no scan for too long."""
        if self._stall.observe(now_ns):
            self._stall.log(
                "ADC stalled: present, but not delivering data; check adc.trigger, and the HAT's"
                " clock and supply"
            )

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
                self._clock.log(
                    "ADC timestamps: %s; the currents are correct, report it to the maintainer of"
                    " the driver",
                    clock_fault,
                    reason=clock_fault,
                )
        elif readings and self._clock.clear(now_ns):
            Event.ADC_CLOCK_GOOD.log("ADC timestamps are used again", device="ADC")
        if lost_scans:
            if self._loss.observe(now_ns, count=lost_scans):
                self._loss.log(
                    "%d ADC scans lost; if that continues, reduce the load of the processor or"
                    " adc.sampling_frequency_hz",
                    lost_scans,
                    scans_lost=lost_scans,
                )
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
            age_ns = now_ns - readings[-1].end_ns
            self._observe_age(age_ns, now_ns)
            if age_ns <= FRESH_NS and not readings[-1].failed_phases:
                self._sendable_ns = now_ns
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
                self._noise.log(
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
                self._reference.log(
                    "direction unknown, all current counts as import: %s; check the plug of the"
                    " reference, and input and minimum under [direction]",
                    fault,
                    reason=fault,
                )
        elif self._reference.clear(now_ns):
            Event.REFERENCE_FOUND.log("direction known: the reference is available again")
        if advice := direction.wiring_advice:
            if self._wiring.observe(now_ns, reason=advice):
                self._wiring.log("wiring: %s", advice, reason=advice)
        elif advice == "" and self._wiring.clear(now_ns):
            Event.WIRING_FITS.log("wiring: the phase angles match the configuration")

    def _observe_age(self, age_ns: int, now_ns: int) -> None:
        """The age of the last reading. The backlog after a pause is no fault: it does not last."""
        if age_ns > FRESH_NS:
            if self._age.observe(now_ns, lasting_ns=_OLD_NS):
                self._age.log(
                    "ADC timestamps: scans arrive %.1f s late, too old to send; find the process"
                    " that delays csp1d",
                    age_ns / SECOND_NS,
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
                failed.log(
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
                overload.log(
                    "%s overload: signal exceeds the ADC range, the reading is too low; check the"
                    " burden resistor and the bias",
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
