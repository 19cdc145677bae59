# SPDX-License-Identifier: Apache-2.0
"""Connects the P1 protocol (`P1Port`) to its devices: the request line and the serial port.

Either device may be missing. Without the request line no request is known, so nothing is sent;
without the serial port a request waits until the port is available.
"""

import selectors
import time
from collections.abc import Callable

from csp1d.config import Config
from csp1d.events import ActiveProblem, Event
from csp1d.hat.device import Hat, Port, RequestLine
from csp1d.identity import identified
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.fault import QUIET_NS, Fault
from csp1d.measuring.reading import Reading
from csp1d.p1.latency import Latency
from csp1d.p1.port import Action, Close, Flush, P1Port, PortCounts, Telegram
from csp1d.p1.request import RequestFilter
from csp1d.p1.telegram import TelegramTime, encode
from csp1d.phase import Phase
from csp1d.units import SECOND_NS

_REQUESTED_NS = 10 * SECOND_NS
"""A charge point that polls lowers the line between telegrams: it requests them all the same."""

_MANY_ABORTED = 10
"""Aborted telegrams are reported when that many came in a row: a few are normal."""


class Sender:
    """Sends each reading at most once, while the charge point requests telegrams."""

    def __init__(
        self, hat: Hat, config: Config, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.latency = Latency()
        self.counts = PortCounts()
        self.last_telegram = b""
        self._hat = hat
        self._config = config
        self._clock = clock
        self._stuck = Fault(Event.TELEGRAM_DROPPED, "P1 port", QUIET_NS)
        self._aborts = Fault(Event.TELEGRAMS_ABORTED, "P1 port", QUIET_NS)
        self._aborted_in_row = 0
        self._time = TelegramTime()
        self._request_ns: int | None = None
        self._cannot_flush = Fault(Event.P1_PORT_CANNOT_FLUSH, "P1 port")
        self.line = DeviceSlot[RequestLine](
            "request line", Event.REQUEST_LINE_LOST, Event.REQUEST_LINE_FOUND, clock
        )
        self.port = DeviceSlot[Port]("P1 port", Event.P1_PORT_LOST, Event.P1_PORT_FOUND, clock)
        self._start()

    def _start(self) -> None:
        self._always = self._config.p1.request.always
        self.p1 = identified(self._config.p1)
        """With the identity of this machine."""
        self._filter = RequestFilter(self._config.p1.request.debounce_ms)
        self._poll_line_ns: int | None = None
        self._protocol = P1Port(self._config.p1.interval_seconds, self.counts)
        self.reopen_missing()

    def configure(self, config: Config) -> None:
        """Replace the configuration; cancel a telegram under way and open the devices again."""
        self.close()
        self.line.reset()
        self.port.reset()
        self._cannot_flush.reset_reasons()
        self._stuck.reset_reasons()
        self._aborts.reset_reasons()
        self._aborted_in_row = 0
        self._config = config
        self._start()

    def forget(self) -> None:
        """Discard the reading that has not been sent: its configuration has been replaced."""
        self._protocol.forget()

    def discard(self) -> None:
        """Send nothing more of the readings until now, which are old."""
        # The request has not ended.
        self._aborted_in_row = 0
        self._dispatch(lambda _, waiting: self._protocol.discard(waiting))

    @property
    def sending(self) -> bool:
        """Whether a telegram is under way, or the rest of an aborted one is leaving."""
        return self._protocol.sending

    @property
    def requested(self) -> bool | None:
        """Whether the request line is high; None while it is missing."""
        return self._protocol.requested if self._always or self.line.device else None

    @property
    def requested_lately(self) -> bool | None:
        """Whether the line is high or was within ten seconds; None while it is missing."""
        if self.requested is not False or self._request_ns is None:
            return self.requested
        return self._clock() - self._request_ns <= _REQUESTED_NS

    def problems(self, now_ns: int) -> list[ActiveProblem | None]:
        """The active problems of port and request line; None stands for none."""
        # A port that is stuck drops a telegram per interval, and takes up to two seconds more.
        within_ns = max(QUIET_NS, (self._config.p1.interval_seconds + 3) * SECOND_NS)
        telegrams = [fault.recent(now_ns, within_ns) for fault in (self._stuck, self._aborts)]
        return [self.port.problem, *telegrams, self.line.problem]

    def descriptors(self) -> dict[int, int]:
        """The descriptors that wake the loop, with their selector events."""
        wanted = {}
        line = self.line.device
        if line and line.poll_ns is None and self._filter.listening:
            wanted[line.fileno()] = selectors.EVENT_READ
        if self.port.device and self._protocol.wants_writable:
            wanted[self.port.device.fileno()] = selectors.EVENT_WRITE
        return wanted

    @property
    def wake_ns(self) -> int | None:
        """The time of the next call of `poll()`, None for never."""
        times = (self._protocol.wake_ns, self._line_ns)
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    @property
    def _line_ns(self) -> int | None:
        """When to read the request line although no edge was reported, None for never."""
        times = (self._filter.wake_ns, self._poll_line_ns)
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    def reopen_missing(self) -> None:
        """Try to open the devices that are missing, and check that the line still works."""
        was_open = self.port.device is not None
        if self.port.ensure_open(self._open_port) and not was_open:
            self._dispatch(self._protocol.on_port_opened)
        if self._always:
            self._set_request(True)
            return
        self.line.ensure_open(lambda: self._hat.open_request_line(self._config))
        self._read_request_line()

    def on_ready(self, descriptors: set[int]) -> None:
        """Handle the sender's own among the descriptors that are ready."""
        if self.line.device and self.line.device.fileno() in descriptors:
            self._read_request_line()
        if self.port.device and self.port.device.fileno() in descriptors:
            self._dispatch(self._protocol.on_writable)

    def _read_request_line(self) -> None:
        """Pass the line's level to the protocol, if the line is there."""
        self._poll_line_ns = None
        if (line := self.line.device) is None:
            return
        try:
            edges, high = line.read_level()
        except OSError as error:
            request = self._config.p1.request
            self.line.mark_failed(error, f"{request.chip}, line {request.line!r}")
            self._filter = RequestFilter(request.debounce_ms)
            self._set_request(False)
            return
        now_ns = self._clock()
        if line.poll_ns:
            self._poll_line_ns = now_ns + line.poll_ns
        for level in self._filter.update(edges, high, now_ns):
            self._set_request(level)

    def on_reading(self, reading: Reading) -> None:
        """Send the reading if it is requested, else keep it until it is stale or replaced."""
        # A reading made before a reload may have a sign that the new configuration does not allow.
        is_signed = self._config.direction.reference != "off"
        amperes_of = reading.signed_amperes if is_signed else reading.amperes
        measured = self._config.channels.used()
        amperes = [amperes_of(phase) if phase in measured else None for phase in Phase]
        end_seconds = time.time() - (self._clock() - reading.end_ns) / SECOND_NS
        local_time = self._time.advance(end_seconds)
        data = encode(self.p1, amperes, local_time, self._config.direction)
        telegram = Telegram(data, reading.end_ns)
        if self._protocol.requested:
            # The request may have ended while the reading was computed.
            self._read_request_line()
        self._dispatch(lambda now_ns, waiting: self._protocol.on_reading(telegram, now_ns, waiting))

    def poll(self, now_ns: int) -> None:
        """Do what is due at `now_ns`."""
        if self._protocol.wake_ns is not None and now_ns >= self._protocol.wake_ns:
            self._dispatch(self._protocol.on_timer)
        if self._line_ns is not None and now_ns >= self._line_ns:
            self._read_request_line()

    def close(self) -> None:
        """Cancel a telegram under way and close the devices."""
        self._set_request(False)
        self.port.close()
        self._protocol.on_port_lost()
        self.line.close()

    def _open_port(self) -> Port:
        """Open the port. Raises OSError if the number of waiting bytes cannot be read."""
        port = self._hat.open_port(self._config)
        try:
            port.waiting()
        except OSError:
            port.close()
            raise
        return port

    def _set_request(self, high: bool) -> None:
        if high or self._protocol.requested:
            self._request_ns = self._clock()
        self._dispatch(lambda now_ns, waiting: self._protocol.on_request(high, now_ns, waiting))

    def _dispatch(self, event: Callable[[int, int], list[Action]]) -> None:
        """Pass an event to the protocol and carry out the actions that it returns."""
        try:
            waiting = self.port.device.waiting() if self.port.device else 0
        except OSError as error:
            self._lose_port(error)
            waiting = 0
        now_ns, before = self._clock(), PortCounts(**vars(self.counts))
        try:
            for action in event(now_ns, waiting):
                self._carry_out(action)
        except OSError as error:
            self._lose_port(error)
            return
        self._log_aborted(before, now_ns)
        self._log_dropped(before, now_ns)

    def _log_aborted(self, before: PortCounts, now_ns: int) -> None:
        """Log that all telegrams are aborted, or no longer are."""
        if self.counts.sent > before.sent:
            self._aborted_in_row = 0
            if self._aborts.clear(now_ns):
                Event.TELEGRAMS_COMPLETE.log("telegrams are complete again", device="P1 port")
        elif aborted := self.counts.aborted - before.aborted:
            self._aborted_in_row += aborted
            if self._aborted_in_row >= _MANY_ABORTED and self._aborts.observe(now_ns):
                self._aborts.log(
                    "the request ended during each of the last %d telegrams; check the charge"
                    " point, the request line, p1.request.debounce_ms and the serial port",
                    _MANY_ABORTED,
                )

    def _log_dropped(self, before: PortCounts, now_ns: int) -> None:
        """Log that the port is stuck, or no longer is; the loss of the port is logged elsewhere."""
        if dropped := self.counts.dropped - before.dropped:
            if self._stuck.observe(now_ns, count=dropped):
                self._stuck.log(
                    "telegram dropped: the serial port did not transmit it within one second;"
                    " check its adapter and its driver"
                )
        elif self.counts.sent > before.sent and self._stuck.clear(now_ns):
            Event.TELEGRAMS_RESUMED.log(
                "telegrams transmitted again; %d were dropped",
                self._stuck.count,
                device="P1 port",
                telegrams_dropped=self._stuck.count,
            )

    def _log_cannot_flush(self, held: int) -> None:
        self._cannot_flush.log(
            "%s cannot flush: %d bytes remained in it; after an abort the rest of a telegram is "
            "transmitted; use a built-in serial port if the charge point cannot accept that",
            self._config.p1.device,
            held,
        )

    def _lose_port(self, error: OSError) -> None:
        self.port.mark_failed(error, self._config.p1.device)
        self._protocol.on_port_lost()

    def _carry_out(self, action: Action) -> None:
        port = self.port.device
        if port is None:
            return
        if isinstance(action, Flush):
            port.flush()
            now_ns, held = self._clock(), port.waiting()
            if held and self._cannot_flush.observe(now_ns):
                self._log_cannot_flush(held)
            for next_action in self._protocol.on_flushed(now_ns, held):
                self._carry_out(next_action)
            return
        if isinstance(action, Close):
            self.port.close()
            self._protocol.on_port_lost()
            return
        self._protocol.on_written(port.write(action.data))
        if action.since_ns is not None:
            self.last_telegram = action.data
            self.latency.observe((self._clock() - action.since_ns) / SECOND_NS)
