# SPDX-License-Identifier: Apache-2.0
"""Carries out the P1 protocol: the request line and the tty around `P1Port`.

Both devices may be missing. Without the line nobody is known to ask, so nothing is sent; without
the port a request is noted and answered once the port is there.
"""

import selectors
import time
from collections.abc import Callable

from csp1d.config import Config
from csp1d.events import Event
from csp1d.hat.device import Hat, Port, RequestLine
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.fault import QUIET_NS, Fault
from csp1d.measuring.reading import Reading
from csp1d.p1.latency import Latency
from csp1d.p1.port import Action, Flush, P1Port, PortCounts, Telegram
from csp1d.p1.request import RequestFilter
from csp1d.p1.telegram import encode
from csp1d.phase import Phase


class Sender:
    """Sends each reading at most once, when and as long as it is asked for."""

    def __init__(
        self, hat: Hat, config: Config, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.latency = Latency()
        self.counts = PortCounts()
        self.last_telegram = b""
        self._hat = hat
        self._config = config
        self._clock = clock
        self._stuck = Fault(QUIET_NS)
        self.line: DeviceSlot[RequestLine] = DeviceSlot(
            "request line", Event.REQUEST_LINE_LOST, Event.REQUEST_LINE_FOUND, clock
        )
        self.port: DeviceSlot[Port] = DeviceSlot(
            "P1 port", Event.P1_PORT_LOST, Event.P1_PORT_FOUND, clock
        )
        self._start()

    def _start(self) -> None:
        self._filter = RequestFilter(self._config.p1.request.debounce_ms)
        self._protocol = P1Port(self._config.p1.interval_seconds, self.counts)
        self.reopen_missing()

    def configure(self, config: Config) -> None:
        """Swap the configuration; what is under way is given up."""
        self.close()
        self.line.reset()
        self.port.reset()
        self._config = config
        self._start()

    def forget(self) -> None:
        """What waits to be sent was measured by rules that are no more."""
        self._protocol.forget()

    @property
    def requested(self) -> bool | None:
        """Whether the charge point asks; None while the line is not there to tell."""
        return self._protocol.requested if self._always or self.line.device else None

    def descriptors(self) -> dict[int, int]:
        """What is to wake the loop now: descriptors and their selector events."""
        wanted = {}
        if self.line.device and self._filter.listening:
            wanted[self.line.device.fileno()] = selectors.EVENT_READ
        if self.port.device and self._protocol.wants_writable:
            wanted[self.port.device.fileno()] = selectors.EVENT_WRITE
        return wanted

    @property
    def wake_ns(self) -> int | None:
        times = (self._protocol.wake_ns, self._filter.wake_ns)
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    @property
    def _always(self) -> bool:
        return self._config.p1.request.always

    def reopen_missing(self) -> None:
        """Look for the devices that are missing; see whether the line is still there."""
        was_open = self.port.device is not None
        if self.port.ensure_open(self._open_port) and not was_open:
            self._dispatch(self._protocol.on_port_opened)
        if self._always:
            self._set_request(True)
            return
        self.line.ensure_open(lambda: self._hat.open_request_line(self._config))
        self._read_request_line()

    def on_ready(self, descriptors: set[int]) -> None:
        """Of these descriptors, deal with those that are ours."""
        if self.line.device and self.line.device.fileno() in descriptors:
            self._read_request_line()
        if self.port.device and self.port.device.fileno() in descriptors:
            self._dispatch(self._protocol.on_writable)

    def _read_request_line(self) -> None:
        """The line moved, or may have."""
        if self.line.device is None:
            return
        try:
            edges, high = self.line.device.read_level()
        except OSError as error:
            request = self._config.p1.request
            self.line.mark_failed(error, f"{request.chip}, line {request.line!r}")
            self._filter = RequestFilter(self._config.p1.request.debounce_ms)
            self._set_request(False)
            return
        for level in self._filter.update(edges, high, self._clock()):
            self._set_request(level)

    def on_reading(self, reading: Reading) -> None:
        """A new reading is ready."""
        # An old reading may tell more than a new configuration asks for.
        is_signed = self._config.direction.reference != "off"
        of_phase = reading.signed_amperes if is_signed else reading.amperes
        amperes = [of_phase(phase) for phase in Phase]
        data = encode(self._config.p1, amperes, time.localtime(), self._config.direction)
        telegram = Telegram(data, reading.end_ns)
        if self._protocol.requested:
            # The line may have fallen while the reading was computed.
            self._read_request_line()
        self._dispatch(lambda now_ns, waiting: self._protocol.on_reading(telegram, now_ns, waiting))

    def poll(self, now_ns: int) -> None:
        if self._protocol.wake_ns is not None and now_ns >= self._protocol.wake_ns:
            self._dispatch(self._protocol.on_timer)
        if self._filter.wake_ns is not None and now_ns >= self._filter.wake_ns:
            self._read_request_line()

    def close(self) -> None:
        """Give up what is under way, and let go of the devices."""
        self._set_request(False)
        self.port.close()
        self._protocol.on_port_lost()
        self.line.close()

    def _open_port(self) -> Port:
        """A port that works: one that can not tell what it holds could not be flushed either."""
        port = self._hat.open_port(self._config)
        try:
            port.waiting()
        except OSError:
            port.close()
            raise
        return port

    def _set_request(self, high: bool) -> None:
        self._dispatch(lambda now_ns, waiting: self._protocol.on_request(high, now_ns, waiting))

    def _dispatch(self, event: Callable[[int, int], list[Action]]) -> None:
        """Tell the protocol an event and carry out what it wants done."""
        try:
            waiting = self.port.device.waiting() if self.port.device else 0
        except OSError as error:
            self._lose_port(error)
            waiting = 0
        now_ns, sent, dropped = self._clock(), self.counts.sent, self.counts.dropped
        actions = event(now_ns, waiting)
        sent, dropped = self.counts.sent - sent, self.counts.dropped - dropped
        try:
            for action in actions:
                self._carry_out(action)
        except OSError as error:
            self._lose_port(error)
            return
        self._log_dropped(sent, dropped, now_ns)

    def _log_dropped(self, sent: int, dropped: int, now_ns: int) -> None:
        """Whether telegrams leave the port. One that is lost with the port counts elsewhere."""
        if dropped:
            if self._stuck.observe(now_ns, count=dropped):
                Event.TELEGRAM_DROPPED.log(
                    "telegram dropped: the P1 port did not let go of it in time",
                    device="P1 port",
                )
        elif sent and self._stuck.clear(now_ns):
            Event.TELEGRAMS_RESUMED.log(
                "telegrams leave the P1 port again; %d had been dropped",
                self._stuck.count,
                device="P1 port",
                telegrams_dropped=self._stuck.count,
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
            return
        self._protocol.on_written(port.write(action.data))
        if action.since_ns is not None:
            self.last_telegram = action.data
            self.latency.observe((self._clock() - action.since_ns) / 1e9)
