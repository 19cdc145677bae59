# SPDX-License-Identifier: Apache-2.0
"""What the journal is told of the measurement: each fault when it begins and when it has ended.

Lost scans, clipping and stalls come in bursts, a second with and a second without; such a fault has
ended when there was none for a while.
"""

from csp1d.events import Event
from csp1d.hat.device import Adc
from csp1d.loop.fault import QUIET_NS, Fault
from csp1d.measuring.reading import FRESH_NS, DirectionReading, Reading
from csp1d.phase import Phase
from csp1d.units import SECOND_NS

_QUIET_SECONDS = QUIET_NS // SECOND_NS
_OLD_NS = 5 * SECOND_NS
"""How long readings have to be too old to be told."""


class MeasurementEvents:
    """The faults of an ADC that is there, over all its set-ups. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._unstamped = Fault()
        self._rate = Fault()
        self._stall = Fault(QUIET_NS)
        self._clock = Fault(QUIET_NS)
        self._reported_rate = Fault()
        self._age = Fault(QUIET_NS)
        self._loss = Fault(QUIET_NS)
        self._reference = Fault(QUIET_NS)
        self._wiring = Fault()
        self._clipping = {phase: Fault(QUIET_NS) for phase in Phase}
        self._failed = {phase: Fault(QUIET_NS) for phase in Phase}

    def reset(self) -> None:
        """The configuration changed: what is wrong with the new one is news."""
        for fault in (self._rate, self._reported_rate, self._clock, self._reference, self._wiring):
            fault.reset_reasons()

    def on_set_up(self, adc: Adc, now_ns: int) -> None:
        """The ADC was set up."""
        if adc.format.timestamp is not None:
            self._unstamped.clear(now_ns)
        elif self._unstamped.observe(now_ns):
            Event.ADC_UNSTAMPED.log(
                "ADC has no time stamps: time is told from the count of scans", device="ADC"
            )
        fault = adc.rate_fault
        if fault is None:
            if self._rate.clear(now_ns):
                Event.ADC_RATE_TAKEN.log("ADC takes adc.sampling_frequency_hz", device="ADC")
        elif self._rate.observe(now_ns, reason=fault):
            Event.ADC_RATE_REFUSED.log("%s", fault, device="ADC", reason=fault)

    def on_rate(self, fault: str | None, now_ns: int) -> None:
        """At which rate the scans come; `fault`: not at the one that the device says."""
        if fault is None:
            if self._reported_rate.clear(now_ns):
                Event.ADC_RATE_TAKEN.log("ADC gives the scans a second that it says", device="ADC")
        # Without a reason: the figures in it are others each time.
        elif self._reported_rate.observe(now_ns):
            Event.ADC_RATE_REFUSED.log(
                "ADC: %s; measured with what it gives: set adc.sampling_frequency_hz to that",
                fault,
                device="ADC",
                reason=fault,
            )

    def on_stall(self, now_ns: int) -> None:
        """The ADC has delivered no scan for too long."""
        if self._stall.observe(now_ns):
            Event.ADC_STALLED.log("ADC stalled: it is there but delivers no scans", device="ADC")

    def on_data(self, now_ns: int) -> None:
        """The ADC has delivered scans."""
        if self._stall.clear(now_ns):
            Event.ADC_RESUMED.log("ADC delivers again", device="ADC")

    def on_readings(
        self, readings: list[Reading], lost_scans: int, clock_fault: str | None, now_ns: int
    ) -> None:
        """Scans made these readings; of them, or since the last ones, so many scans were lost."""
        if clock_fault is not None:
            if self._clock.observe(now_ns):
                Event.ADC_CLOCK.log(
                    "ADC time stamps: %s", clock_fault, device="ADC", reason=clock_fault
                )
        elif readings and self._clock.clear(now_ns):
            Event.ADC_CLOCK_GOOD.log("ADC time stamps are used again", device="ADC")
        if lost_scans:
            if self._loss.observe(now_ns, count=lost_scans):
                Event.SCANS_LOST.log("%d scans of the ADC lost", lost_scans, scans_lost=lost_scans)
        elif readings and self._loss.clear(now_ns):
            Event.SCANS_COMPLETE.log(
                "no scan of the ADC lost for %d s; %d were lost before that",
                _QUIET_SECONDS,
                self._loss.count,
                scans_lost=self._loss.count,
            )
        if readings:
            self._aged(now_ns - readings[-1].end_ns, now_ns)
        for reading in readings:
            for phase, current in reading.phases.items():
                if not self._at_rail(phase, current.at_rail, now_ns):
                    self._clipped(phase, current.clipped_samples, now_ns)
            if reading.direction:
                self._directed(reading.direction, now_ns)

    def _directed(self, direction: DirectionReading, now_ns: int) -> None:
        if fault := direction.reference_fault:
            # Without a reason: the figures in it are others each time.
            if self._reference.observe(now_ns):
                Event.REFERENCE_LOST.log(
                    "direction unknown, all counts as import: %s", fault, reason=fault
                )
        elif self._reference.clear(now_ns):
            Event.REFERENCE_FOUND.log("the reference tells the direction again")
        if advice := direction.wiring_advice:
            if self._wiring.observe(now_ns, reason=advice):
                Event.WIRING_DOUBTFUL.log("wiring: %s", advice, reason=advice)
        elif advice == "" and self._wiring.clear(now_ns):
            Event.WIRING_FITS.log("the angles of the currents fit the wiring")

    def _aged(self, age_ns: int, now_ns: int) -> None:
        """Of the last reading. A backlog after a pause is no fault: it lasts for a moment."""
        if age_ns > FRESH_NS:
            if self._age.observe(now_ns, lasting_ns=_OLD_NS):
                Event.ADC_CLOCK.log(
                    "ADC time stamps: scans are %.1f s old when they come, too old to be sent",
                    age_ns / 1e9,
                    device="ADC",
                )
        elif self._age.clear(now_ns):
            Event.ADC_CLOCK_GOOD.log("ADC scans come in time again", device="ADC")

    def _at_rail(self, phase: Phase, at_rail: bool, now_ns: int) -> bool:
        fault = self._failed[phase]
        if at_rail:
            if fault.observe(now_ns):
                Event.INPUT_FAILED.log(
                    "%s: its input lies at the end of the ADC's range, so nothing is known of what"
                    " flows, and nothing is sent; mend the input, or set channels.%s.input to"
                    ' "" where there is no transformer',
                    phase,
                    phase,
                    phase=phase,
                )
        elif fault.clear(now_ns):
            Event.INPUT_GOOD.log("%s: its input works again", phase, phase=phase)
        return at_rail

    def _clipped(self, phase: Phase, samples: int, now_ns: int) -> None:
        fault = self._clipping[phase]
        if samples:
            if fault.observe(now_ns, count=samples):
                Event.CLIPPING.log(
                    "%s clips: %d samples of a reading lie at the end of the ADC's range",
                    phase,
                    samples,
                    phase=phase,
                    clipped_samples=samples,
                )
        elif fault.clear(now_ns):
            Event.CLIPPING_ENDED.log(
                "%s has not clipped for %d s; %d samples had",
                phase,
                _QUIET_SECONDS,
                fault.count,
                phase=phase,
                clipped_samples=fault.count,
            )
