# SPDX-License-Identifier: Apache-2.0
"""Keeps the ADC running and turns its scans into readings, one read a second.

The metering says when the next reading's last scan is due; that is when the ADC is read. Where a
driver delivers a little late, the wait adapts to it: a read that comes too early is repeated soon
and makes the next one later. An ADC that is silent counts as stalled, is said so once, and is set
up again every few seconds, since a lost trigger does not come back by itself. So is one whose scans
make no reading for as long as that, whatever the reason.
"""

import time
from collections.abc import Callable

from csp1d.config import Config
from csp1d.errors import DeviceError, ScanFormatError
from csp1d.events import Event
from csp1d.hat.device import Adc, Hat
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.measurement_events import MeasurementEvents
from csp1d.measuring.direction import DirectionMeter
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase
from csp1d.units import MS_NS

_FIRST_SCAN_NS = 50 * MS_NS
"""How often to look for the first scan after a start."""

_EARLIEST_NS = MS_NS // 2
_LATEST_NS = 50 * MS_NS
"""Limits of the wait between a scan's time and the read that finds it."""

_RETRY_NS = 1 * MS_NS
_RETRY_MOST_NS = 250 * MS_NS
_STALLED_NS = 500 * MS_NS
_SET_UP_AGAIN_NS = 5_000 * MS_NS
_NO_READING_NS = 1_900 * MS_NS
"""Scans for so long, and no reading of them: what was learnt of the ADC does not fit it."""
_LEARNING_NS = 1_100 * MS_NS
"""How much longer the first reading of an ADC may take that has no time stamps."""
_AHEAD_NS = 10 * MS_NS
"""A reading ends with its last scan, which stands for the time until the next one. One that ends
later than that from now is told by a clock that is wrong."""
_SEARCH_NS = 1_000 * MS_NS


class Sampler:
    """The ADC, present or not, and the metering behind it."""

    def __init__(
        self, hat: Hat, config: Config, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.stalled = False
        self.failed: Reading | None = None
        """The last reading, where an input has failed: to be looked at, and for nothing else."""
        self.clipped_samples: dict[Phase, int] = {}
        self._hat = hat
        self._clock = clock
        self._scans_before = 0
        self._lost_before = 0
        self._lateness_ns = _EARLIEST_NS
        self._adc: DeviceSlot[Adc] = DeviceSlot("ADC", Event.ADC_LOST, Event.ADC_FOUND)
        self._events = MeasurementEvents()
        self._metering: Metering | None = None
        self._config = config
        self.wake_ns = 0

    @property
    def is_up(self) -> bool:
        """Whether the ADC is there and delivers."""
        return self._adc.device is not None and not self.stalled

    @property
    def reconnects(self) -> int:
        """How often the ADC was set up again after the first time."""
        return max(0, self._adc.found_count - 1)

    @property
    def scans_total(self) -> int:
        return self._scans_before + (self._metering.scans_total if self._metering else 0)

    @property
    def lost_scans_total(self) -> int:
        return self._lost_before + (self._metering.lost_scans_total if self._metering else 0)

    def configure(self, config: Config) -> None:
        """Swap the configuration: the ADC is set up anew."""
        self._adc.reset()
        self._events.reset()
        self._forget()
        self._config = config
        self.wake_ns = 0

    def search_now(self, now_ns: int) -> None:
        """Devices came or went: look now rather than later."""
        self.wake_ns = now_ns

    def poll(self, now_ns: int) -> list[Reading]:
        """Read if it is time to; the readings that became complete, but none that is no good."""
        if now_ns < self.wake_ns:
            return []
        if self._metering is None and not self._open(now_ns):
            self.wake_ns = now_ns + _SEARCH_NS
            return []
        adc, metering = self._adc.device, self._metering
        assert adc is not None
        assert metering is not None
        lost_before = metering.lost_scans_total
        try:
            scans = adc.read()
            # The time after the read: no scan in it is from later.
            now_ns = max(now_ns, self._clock())
            readings = metering.feed(scans, now_ns) if scans else []
        except (OSError, ScanFormatError) as error:
            lost_to = error if isinstance(error, OSError) else OSError(str(error))
            self._adc.mark_failed(lost_to, self._config.adc.device)
            self._forget()
            self.wake_ns = now_ns + _SEARCH_NS
            return []
        readings = [each for each in readings if each.end_ns <= now_ns + _AHEAD_NS]
        lost = metering.lost_scans_total - lost_before
        self._events.on_readings(readings, lost, metering.clock_fault, now_ns)
        self._events.on_rate(metering.rate_fault, now_ns)
        for reading in readings:
            for phase, current in reading.phases.items():
                total = self.clipped_samples.get(phase, 0)
                self.clipped_samples[phase] = total + current.clipped_samples
        self._plan(bool(scans), bool(readings), now_ns)
        if readings:
            self.failed = readings[-1] if readings[-1].failed_phases else None
        return [reading for reading in readings if not reading.failed_phases]

    def close(self) -> None:
        self._adc.close()
        self._forget()

    def _open(self, now_ns: int) -> bool:
        adc = self._adc.ensure_open(self._start)
        if adc is None:
            return False
        self._events.on_set_up(adc, now_ns)
        self._heard_ns = self._set_up_ns = now_ns
        self._complete_ns = now_ns + _LEARNING_NS
        self._tries = 0
        return True

    def _start(self) -> Adc:
        """An ADC that runs, with the metering for its scans."""
        adc = self._hat.open_adc(self._config)
        try:
            channels, direction = self._config.channels.used(), None
            if reference := self._config.reference():
                direction = DirectionMeter(
                    adc.format, channels, self._config.direction, reference, adc.reference_fault
                )
            self._metering = Metering(adc.format, channels, self._config.measurement, direction)
        except ValueError as error:
            adc.close()
            raise DeviceError(str(error)) from error
        return adc

    def _forget(self) -> None:
        self._scans_before, self._lost_before = self.scans_total, self.lost_scans_total
        self._metering = None
        self.stalled = False
        self.failed = None

    def _plan(self, heard: bool, complete: bool, now_ns: int) -> None:
        """When to read next, and whether the ADC is stalled."""
        assert self._metering is not None
        if heard:
            self._adc.mark_working()
            self._heard_ns = now_ns
            self.stalled = False
            self._events.on_data(now_ns)
        if complete:
            self._complete_ns = now_ns
        elif heard and now_ns - self._complete_ns > _NO_READING_NS:
            self.close()
            self.wake_ns = now_ns
            return
        due_ns = self._metering.due_ns
        if due_ns is not None and due_ns + self._lateness_ns > now_ns:
            # The lateness creeps back, so that one bad second does not delay all that follow.
            if complete and self._tries == 0:
                self._lateness_ns = max(_EARLIEST_NS, self._lateness_ns - MS_NS // 10)
            self._tries = 0
            self.wake_ns = due_ns + self._lateness_ns
            return
        silent_ns = now_ns - max(self._heard_ns, due_ns or 0)
        if silent_ns > _STALLED_NS and not heard:
            self.stalled = True
            self._complete_ns = now_ns
            self._events.on_stall(now_ns)
            if now_ns - max(self._heard_ns, self._set_up_ns) > _SET_UP_AGAIN_NS:
                self.close()
                self.stalled = True
                self.wake_ns = now_ns
                return
        if due_ns is None:
            self.wake_ns = now_ns + _FIRST_SCAN_NS
            return
        self._tries += 1
        self._lateness_ns = min(_LATEST_NS, self._lateness_ns + MS_NS)
        self.wake_ns = now_ns + min(_RETRY_NS << min(self._tries, 8), _RETRY_MOST_NS)
