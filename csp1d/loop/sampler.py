# SPDX-License-Identifier: Apache-2.0
"""Keeps the ADC running and turns its scans into one reading per second.

The metering reports when the last scan of the next reading is due, and the ADC is read at that
time. If a driver delivers late, the sampler adapts: a read that finds nothing is repeated soon and
makes the next one later. An ADC that delivers nothing is stalled. It is set up again every few
seconds, because a lost trigger does not recover on its own. So is an ADC whose scans yield no
reading for that time, unless its rate is too low; if it loses too many scans, after a minute.

An ADC that delivers blocks is also read when one is complete: the kernel keeps only two. A buffer
that does not fit the measured rate is resized.
"""

import logging
import selectors
import time
from collections import Counter
from collections.abc import Callable

from csp1d.config import Config, folds_harmonics
from csp1d.errors import DeviceError, ScanFormatError
from csp1d.events import ActiveProblem, Event
from csp1d.hat.device import Adc, Hat
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.measurement_events import MeasurementEvents
from csp1d.measuring.direction import DirectionMeter
from csp1d.measuring.history import History
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.measuring.recent import RecentScans
from csp1d.phase import Phase
from csp1d.units import MS_NS, SECOND_NS

log = logging.getLogger("csp1d")

_FIRST_SCAN_NS = 50 * MS_NS
"""Interval of the reads before the first scan after a set-up."""

_MIN_LATENESS_NS = MS_NS // 2
_MAX_LATENESS_NS = 50 * MS_NS
"""Limits of the wait between a scan's time and the read that finds it."""

_RETRY_NS = 1 * MS_NS
_MAX_RETRY_NS = 250 * MS_NS
_STALLED_NS = 500 * MS_NS
_SET_UP_AGAIN_NS = 5_000 * MS_NS
_NO_READING_NS = 4_900 * MS_NS
"""Scans for this time without a reading: what was learned about the ADC does not apply to it."""
_LOSSY_NS = 60 * SECOND_NS
"""The same if scans seem to be lost: they may be, or the clock is wrong."""
_LEARNING_NS = 1_100 * MS_NS
"""Additional time for the first reading, for an ADC without timestamps."""
_MAX_AHEAD_NS = 10 * MS_NS
"""A reading ends one scan period after its last scan, thus slightly in the future. One that ends
later than this has its time from a wrong clock."""
_SEARCH_NS = 1_000 * MS_NS
_LEAST_BUFFER, _MOST_BUFFER = 0.8, 2.0
"""Length of the kernel's buffer at the measured rate, as a part of the configured one. It was sized
for the rate that the driver reports, or else for the configured one, which may be wrong."""


class Sampler:
    """The ADC, present or not, and the metering of its scans."""

    def __init__(
        self, hat: Hat, config: Config, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.wake_ns = 0
        self.stalled = False
        self.reading: Reading | None = None
        """The last reading with valid currents, however old."""
        self.reading_timestamp_seconds: float | None = None
        """End of the last such reading, in Unix time."""
        self.readings_total = 0
        self.failed: Reading | None = None
        """The last reading if an input has failed: for diagnosis, its currents are not valid."""
        self.recent: RecentScans | None = None
        """The last scans, also those of an ADC that is lost; None before the first ones."""
        self.clipped_samples: Counter[Phase] = Counter()
        """Of each phase that is or was configured, as is `charge_coulombs`."""
        self.history = History()
        """The valid currents of the last 24 hours; a new configuration keeps it."""
        self.charge_coulombs: dict[Phase, float] = {}
        """RMS current over the windows of all readings."""
        self._hat = hat
        self._config = config
        self._clock = clock
        self._scans_before = 0
        self._lost_before = 0
        self._lateness_ns = _MIN_LATENESS_NS
        self._adc = DeviceSlot[Adc]("ADC", Event.ADC_LOST, Event.ADC_FOUND, clock)
        self._events = MeasurementEvents()
        self._metering: Metering | None = None
        self._begin_counts()

    @property
    def is_up(self) -> bool:
        """Whether the ADC is available and delivers data, fast enough to be measured."""
        slow = self._metering and self._metering.timeline.slow_hertz
        return self._adc.device is not None and not self.stalled and not slow

    @property
    def reconnects(self) -> int:
        """ADC re-initialisations."""
        return max(0, self._adc.open_count - 1)

    @property
    def scans_total(self) -> int:
        return self._scans_before + (self._metering.scans_total if self._metering else 0)

    @property
    def lost_scans_total(self) -> int:
        timeline = self._metering.timeline if self._metering else None
        return self._lost_before + (timeline.lost_scans_total if timeline else 0)

    def problems(self, now_ns: int) -> list[ActiveProblem | None]:
        """The active problems of the measurement; None stands for none.

        While the ADC is missing, nothing else is known of it. One that has returned counts as
        missing until it delivers data or has stalled.
        """
        lost = self._adc.problem
        return [lost] if lost and not self.stalled else self._events.problems(now_ns)

    def configure(self, config: Config) -> None:
        """Replace the configuration. The ADC is set up again, and the last reading discarded."""
        self._adc.reset()
        self._events.reset()
        self._discard_metering()
        self.reading = None
        self._config = config
        self._begin_counts()
        self.wake_ns = 0

    def _begin_counts(self) -> None:
        """Counters begin at 0, not with the first reading: Prometheus does not see the increase
        before the first value."""
        for phase in self._config.channels.used():
            self.clipped_samples.setdefault(phase, 0)
            self.charge_coulombs.setdefault(phase, 0.0)

    def descriptors(self) -> dict[int, int]:
        """The descriptors to wait for, with their selector events: call `search_now()` then.

        Not that of an ADC that has stalled: it may be readable and have nothing.
        """
        adc = self._adc.device
        return {adc.fileno(): selectors.EVENT_READ} if adc and adc.in_blocks and self.is_up else {}

    def search_now(self, now_ns: int) -> None:
        """A device appeared or disappeared, or the ADC is readable: call `poll()` without delay."""
        self.wake_ns = now_ns

    def poll(self, now_ns: int) -> list[Reading]:
        """Read the ADC if it is time. Returns the new readings, without those of failed inputs."""
        if now_ns < self.wake_ns:
            return []
        if self._metering is None and not self._open(now_ns):
            self.wake_ns = now_ns + _SEARCH_NS
            return []
        adc, metering = self._adc.device, self._metering
        assert adc is not None
        assert metering is not None
        lost_before = metering.timeline.lost_scans_total
        try:
            began_ns = self._clock()
            scans = adc.read()
            # The time after the read: no scan in it is later.
            now_ns = max(now_ns, self._clock())
            if scans:
                self._keep(adc, scans, now_ns)
            readings = metering.feed(scans, now_ns, began_ns) if scans else []
        except (OSError, ScanFormatError) as error:
            self._fail(error, now_ns)
            return []
        readings = [reading for reading in readings if reading.end_ns <= now_ns + _MAX_AHEAD_NS]
        lost = metering.timeline.lost_scans_total - lost_before
        self._events.on_readings(readings, lost, metering.timeline.clock_fault, now_ns)
        if hertz := metering.timeline.hertz:
            self._events.on_rate(metering.timeline.rate_fault, now_ns)
            self._events.on_measured_rate(hertz, self._folds(hertz), now_ns)
        self._events.on_silence(
            metering.timeline.slow_hertz, metering.timeline.lossy_windows, now_ns
        )
        self._schedule(bool(scans), bool(readings), now_ns)
        if self._metering:
            self._resize_buffer(adc, hertz, now_ns)
        return self._record(readings)

    def _keep(self, adc: Adc, scans: bytes, now_ns: int) -> None:
        recent = self.recent
        if recent is None or recent.set_up_ns != self._set_up_ns:
            recent = RecentScans(adc.format, self._set_up_ns)
        self.recent = recent.append(scans, now_ns)

    def _folds(self, hertz: float) -> bool:
        """Whether this rate folds harmonics. One that is configured is doubted with its key."""
        nominal_hertz = self._config.measurement.nominal_frequency_hz
        configured = self._config.adc.sampling_frequency_hz
        folds = folds_harmonics(hertz, nominal_hertz)
        return folds and not folds_harmonics(configured, nominal_hertz)

    def close(self) -> None:
        self._adc.close()
        self._discard_metering()

    def _open(self, now_ns: int) -> bool:
        adc = self._adc.ensure_open(self._set_up)
        if adc is None:
            return False
        assert self._metering is not None
        self._events.on_set_up(adc, self._metering.range_doubts, now_ns)
        self._begin(now_ns)
        return True

    def _begin(self, now_ns: int) -> None:
        """A capture has begun: its first reading may take a while."""
        self._set_up_ns = now_ns
        self._last_data_ns = now_ns
        self._last_reading_ns = now_ns + _LEARNING_NS
        self._retries = 0

    def _fail(self, error: Exception, now_ns: int) -> None:
        """The ADC failed: close it, and search for it in a second."""
        reason = error if isinstance(error, OSError) else OSError(str(error))
        self._adc.mark_failed(reason, self._config.adc.device)
        self._discard_metering()
        self.wake_ns = now_ns + _SEARCH_NS

    def _resize_buffer(self, adc: Adc, hertz: float | None, now_ns: int) -> None:
        """If the buffer is too short for the measured rate, or far too long, size it for that.

        The rate becomes known with a reading, and the next reading begins now in any case: with
        timestamps it is not later for it. A rate that moves to and fro soon has a buffer that fits.
        """
        if not hertz or _LEAST_BUFFER <= adc.buffer_hertz / hertz <= _MOST_BUFFER:
            return
        log.info(
            "ADC delivers %.0f scans per second: its buffer was for %.0f, setting it for this rate",
            hertz,
            adc.buffer_hertz,
        )
        try:
            adc.resize(hertz)
        except OSError as error:
            self._fail(error, now_ns)
            return
        self._discard_metering()
        self._metering = self._new_metering(adc)
        self._begin(now_ns)
        self.wake_ns = now_ns

    def _set_up(self) -> Adc:
        """Start the ADC, and create the metering for its scans."""
        adc = self._hat.open_adc(self._config)
        try:
            self._metering = self._new_metering(adc)
        except ValueError as error:
            adc.close()
            raise DeviceError(str(error)) from error
        return adc

    def _new_metering(self, adc: Adc) -> Metering:
        """Raises ValueError if its scans lack what the configuration needs."""
        channels, direction = self._config.channels.used(), None
        if reference := self._config.reference():
            direction = DirectionMeter(
                adc.format, channels, self._config.direction, reference, adc.reference_fault
            )
        fuse_amperes = self._config.site.main_fuse_amperes
        return Metering(adc.format, channels, self._config.measurement, direction, fuse_amperes)

    def _discard_metering(self) -> None:
        self._scans_before, self._lost_before = self.scans_total, self.lost_scans_total
        self._metering = None
        self.stalled = False
        self.failed = None

    def _record(self, readings: list[Reading]) -> list[Reading]:
        """Count the readings and keep the last one. Returns those with valid currents."""
        for reading in readings:
            for phase, current in reading.phases.items():
                self.clipped_samples[phase] += current.clipped_samples
        if readings:
            self.failed = readings[-1] if readings[-1].failed_phases else None
        valid = [reading for reading in readings if not reading.failed_phases]
        if valid:
            self.reading = valid[-1]
            age_ns = self._clock() - self.reading.end_ns
            self.reading_timestamp_seconds = time.time() - age_ns / SECOND_NS
            self.readings_total += len(valid)
        asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        for reading in valid:
            self.history = self.history.append(reading, reading.end_ns + asleep_ns)
            for phase in reading.phases:
                charge = reading.amperes(phase) * reading.window_seconds
                self.charge_coulombs[phase] += charge
        return valid

    def _schedule(self, has_data: bool, has_reading: bool, now_ns: int) -> None:
        """Decide when to read next, and whether the ADC is stalled or must be set up again."""
        assert self._metering is not None
        timeline = self._metering.timeline
        if has_data:
            self._adc.mark_working()
            if self.stalled:
                # Half a second of each stall counts, so that an ADC that stalls after each scan is
                # set up again, too.
                self._last_reading_ns += max(0, now_ns - self._last_data_ns - _STALLED_NS)
            self._last_data_ns = now_ns
            self.stalled = False
            self._events.on_data(now_ns)
        patience_ns = _LOSSY_NS if timeline.lossy_windows else _NO_READING_NS
        if has_reading or timeline.slow_hertz:
            # To set a slow ADC up again would not change its rate.
            self._last_reading_ns = now_ns
        elif has_data and now_ns - self._last_reading_ns > patience_ns:
            self._events.on_no_reading(now_ns)
            self.close()
            self.wake_ns = now_ns
            return
        due_ns = timeline.due_ns
        if due_ns is not None and due_ns + self._lateness_ns > now_ns:
            # Decrease the lateness slowly, so that one slow second does not delay all later ones.
            if has_reading:
                self._lateness_ns = max(_MIN_LATENESS_NS, self._lateness_ns - MS_NS // 10)
            self._retries = 0
            self.wake_ns = due_ns + self._lateness_ns
            return
        if not has_data and now_ns - max(self._last_data_ns, due_ns or 0) > _STALLED_NS:
            self.stalled = True
            self._events.on_stall(now_ns)
            if now_ns - self._last_data_ns > _SET_UP_AGAIN_NS:
                self.close()
                self.wake_ns = now_ns
                self.stalled = True
                return
        if due_ns is None:
            self.wake_ns = now_ns + (_SEARCH_NS if timeline.slow_hertz else _FIRST_SCAN_NS)
            return
        self._retries += 1
        self._lateness_ns = min(_MAX_LATENESS_NS, self._lateness_ns + MS_NS)
        self.wake_ns = now_ns + min(_RETRY_NS << min(self._retries, 8), _MAX_RETRY_NS)
