# SPDX-License-Identifier: Apache-2.0
"""What the journal is told of the measurement: each fault when it begins and when it has ended.

Lost scans, clipping and stalls come in bursts, a second with and a second without; such a fault has
ended when there was none for a while.
"""

from csp1d.events import Event
from csp1d.fault import QUIET_NS, Fault
from csp1d.hat.device import Adc
from csp1d.measuring.reading import FRESH_NS, DirectionReading, Phase, Reading

_QUIET_SECONDS = QUIET_NS // 1_000_000_000
_OLD_NS = 5_000_000_000
"""How long readings have to be too old to be told."""


class Complaints:
    """The faults of an ADC that is there, over all its set-ups. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self._unstamped = Fault()
        self._rate = Fault()
        self._stall = Fault(QUIET_NS)
        self._clock = Fault(QUIET_NS)
        self._said_rate = Fault()
        self._age = Fault(QUIET_NS)
        self._loss = Fault(QUIET_NS)
        self._reference = Fault(QUIET_NS)
        self._wiring = Fault()
        self._clipping = {phase: Fault(QUIET_NS) for phase in Phase}
        self._failed = {phase: Fault(QUIET_NS) for phase in Phase}

    def reconfigure(self) -> None:
        """The configuration changed: what is wrong with the new one is news."""
        for fault in (self._rate, self._said_rate, self._clock, self._reference, self._wiring):
            fault.forget_reasons()

    def set_up(self, adc: Adc, now_ns: int) -> None:
        """The ADC was set up."""
        if adc.format.timestamp is not None:
            self._unstamped.good(now_ns)
        elif self._unstamped.bad(now_ns):
            Event.ADC_UNSTAMPED.tell(
                "ADC has no time stamps: time is told from the count of scans", device="ADC"
            )
        fault = adc.rate_fault
        if fault is None:
            if self._rate.good(now_ns):
                Event.ADC_RATE_TAKEN.tell("ADC takes adc.sampling_frequency_hz", device="ADC")
        elif self._rate.bad(now_ns, reason=fault):
            Event.ADC_RATE_REFUSED.tell("%s", fault, device="ADC", reason=fault)

    def at_rate(self, fault: str | None, now_ns: int) -> None:
        """At which rate the scans come; `fault`: not at the one that the device says."""
        if fault is None:
            if self._said_rate.good(now_ns):
                Event.ADC_RATE_TAKEN.tell("ADC gives the scans a second that it says", device="ADC")
        # Without a reason: the figures in it are others each time.
        elif self._said_rate.bad(now_ns):
            Event.ADC_RATE_REFUSED.tell(
                "ADC: %s; measured with what it gives: set adc.sampling_frequency_hz to that",
                fault,
                device="ADC",
                reason=fault,
            )

    def silent(self, now_ns: int) -> None:
        """The ADC has delivered no scan for too long."""
        if self._stall.bad(now_ns):
            Event.ADC_STALLED.tell("ADC stalled: it is there but delivers no scans", device="ADC")

    def heard(self, now_ns: int) -> None:
        """The ADC has delivered scans."""
        if self._stall.good(now_ns):
            Event.ADC_RESUMED.tell("ADC delivers again", device="ADC")

    def fed(
        self, readings: list[Reading], lost_scans: int, clock_fault: str | None, now_ns: int
    ) -> None:
        """Scans made these readings; of them, or since the last ones, so many scans were lost."""
        if clock_fault is not None:
            if self._clock.bad(now_ns):
                Event.ADC_CLOCK.tell(
                    "ADC time stamps: %s", clock_fault, device="ADC", reason=clock_fault
                )
        elif readings and self._clock.good(now_ns):
            Event.ADC_CLOCK_GOOD.tell("ADC time stamps are used again", device="ADC")
        if lost_scans:
            if self._loss.bad(now_ns, count=lost_scans):
                Event.SCANS_LOST.tell("%d scans of the ADC lost", lost_scans, scans_lost=lost_scans)
        elif readings and self._loss.good(now_ns):
            Event.SCANS_COMPLETE.tell(
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
            if self._reference.bad(now_ns):
                Event.REFERENCE_LOST.tell(
                    "direction unknown, all counts as import: %s", fault, reason=fault
                )
        elif self._reference.good(now_ns):
            Event.REFERENCE_FOUND.tell("the reference tells the direction again")
        if advice := direction.wiring_advice:
            if self._wiring.bad(now_ns, reason=advice):
                Event.WIRING_DOUBTFUL.tell("wiring: %s", advice, reason=advice)
        elif advice == "" and self._wiring.good(now_ns):
            Event.WIRING_FITS.tell("the angles of the currents fit the wiring")

    def _aged(self, age_ns: int, now_ns: int) -> None:
        """Of the last reading. A backlog after a pause is no fault: it lasts for a moment."""
        if age_ns > FRESH_NS:
            if self._age.bad(now_ns, lasting_ns=_OLD_NS):
                Event.ADC_CLOCK.tell(
                    "ADC time stamps: scans are %.1f s old when they come, too old to be sent",
                    age_ns / 1e9,
                    device="ADC",
                )
        elif self._age.good(now_ns):
            Event.ADC_CLOCK_GOOD.tell("ADC scans come in time again", device="ADC")

    def _at_rail(self, phase: Phase, at_rail: bool, now_ns: int) -> bool:
        fault = self._failed[phase]
        if at_rail:
            if fault.bad(now_ns):
                Event.INPUT_FAILED.tell(
                    "%s: its input lies at the end of the ADC's range, so nothing is known of what"
                    " flows, and nothing is sent; mend the input, or set channels.%s.input to"
                    ' "" where there is no transformer',
                    phase,
                    phase,
                    phase=phase,
                )
        elif fault.good(now_ns):
            Event.INPUT_GOOD.tell("%s: its input works again", phase, phase=phase)
        return at_rail

    def _clipped(self, phase: Phase, samples: int, now_ns: int) -> None:
        fault = self._clipping[phase]
        if samples:
            if fault.bad(now_ns, count=samples):
                Event.CLIPPING.tell(
                    "%s clips: %d samples of a reading lie at the end of the ADC's range",
                    phase,
                    samples,
                    phase=phase,
                    clipped_samples=samples,
                )
        elif fault.good(now_ns):
            Event.CLIPPING_ENDED.tell(
                "%s has not clipped for %d s; %d samples had",
                phase,
                _QUIET_SECONDS,
                fault.count,
                phase=phase,
                clipped_samples=fault.count,
            )
