# SPDX-License-Identifier: Apache-2.0
"""The P1 port as a protocol without I/O: when a telegram is sent, and when it is cancelled.

The caller reports what happened (the request line changed, a reading is ready, the port accepted
bytes, time passed) and carries out the returned actions in order. Where it matters, a call
passes the time and the number of bytes that the port still holds (`held`): only the kernel knows
what has left. Bytes in the FIFO of a UART (16 bytes, 1.4 ms) count as left.

At most one telegram is under way. It ends in one of three ways: its last byte leaves the port
(sent), the request ends before that (aborted; DSMR 5.0.2 section 5.7.1 requires the transfer to
stop immediately), or the port is lost or does not transmit it in time (dropped). One whose reading
may no longer be sent, such as after a suspend, is aborted too. What the port still holds of an
aborted or dropped telegram is flushed: no byte leaves later than it was wanted.

A port may keep its bytes in spite of a flush. USB adapters do: the kernel's usb-serial.c has no
flush_buffer, that of cdc-acm.c does not wait for its effect, and bytes in the adapter itself no
longer count as held. The rest of an aborted telegram then still leaves, so its reading is not sent
again, and nothing begins until the rest has left. A stuck port is closed: that discards the bytes.
"""

from dataclasses import dataclass
from enum import Enum

from csp1d.measuring.reading import FRESH_NS
from csp1d.units import MS_NS, SECOND_NS

_BYTE_NS = 10 * SECOND_NS // 115_200
"""Duration of one byte at 115200 baud, 8N1."""

_CHECK_NS = 50 * MS_NS
"""Shortest interval between two checks of a telegram under way."""

_LEAVING_NS = 200 * MS_NS
"""Time in which the rest of an aborted telegram leaves a port that cannot flush: the time of a
telegram on the wire for the bytes in the kernel, and again for those in the adapter."""


class PortState(Enum):
    """The serial port, the request, and the telegram under way."""

    CLOSED = "port lost, no request"
    CLOSED_REQUESTED = "port lost, request"
    IDLE = "port open, no request"
    WAITING = "port open, request, no telegram under way"
    SENDING = "port open, request, telegram under way"


class PortEvent(Enum):
    """The events that change the state, or confirm it."""

    REQUEST_HIGH = "request high"
    REQUEST_LOW = "request low"
    PORT_OPENED = "port opened"
    PORT_LOST = "port lost"
    STARTED = "telegram started"
    SENT = "telegram sent"
    DROPPED = "telegram dropped"


CLOSED, CLOSED_REQUESTED, IDLE, WAITING, SENDING = PortState
REQUEST_HIGH, REQUEST_LOW, PORT_OPENED, PORT_LOST, STARTED, SENT, DROPPED = PortEvent
NEVER = None
"""The event cannot happen in this state."""

# fmt: off
_NEXT_STATES = {
    # in:          CLOSED            CLOSED_REQUESTED  IDLE     WAITING           SENDING
    REQUEST_HIGH: (CLOSED_REQUESTED, CLOSED_REQUESTED, WAITING, WAITING,          SENDING),
    REQUEST_LOW:  (CLOSED,           CLOSED,           IDLE,    IDLE,             IDLE),
    PORT_OPENED:  (IDLE,             WAITING,          IDLE,    WAITING,          SENDING),
    PORT_LOST:    (CLOSED,           CLOSED_REQUESTED, CLOSED,  CLOSED_REQUESTED, CLOSED_REQUESTED),
    STARTED:      (NEVER,            NEVER,            NEVER,   SENDING,          NEVER),
    SENT:         (NEVER,            NEVER,            NEVER,   NEVER,            WAITING),
    DROPPED:      (NEVER,            NEVER,            NEVER,   NEVER,            WAITING),
}
# fmt: on
TRANSITIONS = {
    (state, event): next_state
    for event, row in _NEXT_STATES.items()
    for state, next_state in zip(PortState, row, strict=True)
    if next_state is not NEVER
}


@dataclass(frozen=True)
class Telegram:
    """The bytes to send for a reading, and the end of that reading (CLOCK_MONOTONIC)."""

    data: bytes
    end_ns: int


@dataclass(frozen=True)
class Write:
    """Pass these bytes to the port without blocking, and report the number that it accepted to
    `on_written()`.

    `since_ns`: the start of the latency (the reading's end or the rising edge, the later one);
    None for the rest of a telegram.
    """

    data: bytes
    since_ns: int | None


@dataclass(frozen=True)
class Flush:
    """Discard all bytes that the port still holds, and report the number that remain to
    `on_flushed()`.
    """


@dataclass(frozen=True)
class Close:
    """Close the port, which discards its bytes, report the loss, and open it again."""


Action = Write | Flush | Close


@dataclass
class PortCounts:
    """Requests, and telegrams by how they ended."""

    requests: int = 0
    sent: int = 0
    aborted: int = 0
    dropped: int = 0


class _UnderWay:
    """A telegram under way, its deadlines, and the time of its next check."""

    def __init__(self, telegram: Telegram, now_ns: int) -> None:
        wire_ns = len(telegram.data) * _BYTE_NS
        self.telegram = telegram
        self.rest = telegram.data
        """The bytes that the port has not accepted yet."""
        self.is_final = False
        """Whether it is not sent again if it is aborted."""
        self.started_ns = now_ns
        self.due_ns = now_ns + wire_ns * 11 // 10
        """A port that transmits has sent it by then."""
        self.stuck_at_ns = now_ns + wire_ns * 2
        """The port counts as stuck from then on."""
        self.expires_at_ns = telegram.end_ns + FRESH_NS
        """Its first byte must not leave after this."""
        self.schedule_check(now_ns)

    def has_begun(self, held: int) -> bool:
        """Whether its first byte has left, of a port that holds this number of bytes."""
        # cdc-acm.c counts whole buffers as held: more bytes than there are say nothing.
        return held + len(self.rest) != len(self.telegram.data)

    def schedule_check(self, now_ns: int) -> None:
        """Set the next check: at each deadline, and in between whenever the age has doubled."""
        doubled_ns = now_ns + max(_CHECK_NS, now_ns - self.started_ns)
        times = (self.due_ns, self.stuck_at_ns, self.expires_at_ns + 1, doubled_ns)
        self.check_ns = min(time for time in times if time > now_ns)


class P1Port:
    """The state of the protocol. Initially the port is lost and there is no request."""

    def __init__(self, interval_seconds: int = 1, counts: PortCounts | None = None) -> None:
        self.counts = counts or PortCounts()
        self.state = CLOSED
        # Readings end on whole mains cycles, near whole seconds: half a second of tolerance.
        self._interval_ns = interval_seconds * SECOND_NS - SECOND_NS // 2
        self._not_before_ns = 0
        self._unsent: Telegram | None = None
        self._keeps_bytes = False  # The open port has kept bytes in spite of a flush.
        self._left_at_ns: int | None = None  # What it kept has left by then.
        self._requested_since_ns: int  # While requested.
        self._under_way: _UnderWay  # While SENDING.

    @property
    def requested(self) -> bool:
        """Whether the consumer requests telegrams."""
        return self.state in (CLOSED_REQUESTED, WAITING, SENDING)

    @property
    def sending(self) -> bool:
        """Whether a telegram is under way, or the rest of an aborted one is leaving."""
        return self.state is SENDING or self._left_at_ns is not None

    @property
    def wants_writable(self) -> bool:
        """Whether to call `on_writable()` when the port accepts bytes again."""
        return self.state is SENDING and bool(self._under_way.rest)

    @property
    def wake_ns(self) -> int | None:
        """The time of the next call of `on_timer()`, None for never."""
        return self._under_way.check_ns if self.state is SENDING else self._left_at_ns

    def on_request(self, high: bool, now_ns: int, held: int) -> list[Action]:
        """The request line is high or low."""
        if not high:
            # A telegram whose last byte has left is sent, not aborted.
            self._count_if_sent(held)
        before = self._take(REQUEST_HIGH if high else REQUEST_LOW)
        if before is self.state:
            return []
        if high:
            self.counts.requests += 1
            self._requested_since_ns = now_ns
            return self._start(now_ns, held)
        if before is not SENDING:
            return []
        self.counts.aborted += 1
        return [Flush()]

    def on_flushed(self, now_ns: int, held: int) -> list[Action]:
        """A `Flush` was carried out; `held` is the number of bytes that remain."""
        is_abort = self.state is IDLE
        self._keeps_bytes |= held > 0
        if held and not (is_abort and self._under_way.has_begun(held)):
            # Of a stuck telegram, of one whose first byte has not left, or of unknown age.
            return [Close()]
        if self._keeps_bytes:
            self._left_at_ns = now_ns + _LEAVING_NS
        elif is_abort and not self._under_way.is_final:
            # It may be sent again from its first byte, unless there is a newer one.
            self._unsent = self._unsent or self._under_way.telegram
        return self._start(now_ns)

    def on_reading(self, telegram: Telegram, now_ns: int, held: int) -> list[Action]:
        """A reading is ready. It replaces an older one that was not sent."""
        actions = self._expire(now_ns, held, superseded=True)
        self._unsent = telegram
        return actions or self._start(now_ns, held)

    def forget(self) -> None:
        """No telegram of the readings until now may begin. One that is under way ends whole."""
        self._unsent = None
        if self.state is SENDING:
            self._under_way.is_final = True

    def discard(self, held: int) -> list[Action]:
        """Nothing of the readings until now may be sent, nor the rest of a telegram."""
        self._unsent = None
        if self._left_at_ns is not None and held:
            return [Close()]
        self._count_if_sent(held)
        if self.state is not SENDING:
            return []
        self._take(DROPPED)
        self.counts.aborted += 1
        return [Flush()]

    def on_written(self, count: int) -> None:
        """The port accepted this number of bytes of the last `Write`."""
        self._under_way.rest = self._under_way.rest[count:]

    def on_writable(self, now_ns: int, held: int) -> list[Action]:
        """The port accepts bytes again."""
        actions = self._expire(now_ns, held)
        return [Write(self._under_way.rest, None)] if self.wants_writable else actions

    def on_timer(self, now_ns: int, held: int) -> list[Action]:
        """The time `wake_ns` has come."""
        if self._left_at_ns is not None and now_ns >= self._left_at_ns:
            self._left_at_ns = None
            if held:
                return [Close()]
        actions = self._expire(now_ns, held)
        if self.state is SENDING:
            self._under_way.schedule_check(now_ns)
        # A telegram that was sent leaves the port empty.
        return actions or self._start(now_ns)

    def on_port_opened(self, now_ns: int, held: int) -> list[Action]:
        """The port is open."""
        self._take(PORT_OPENED)
        return self._start(now_ns, held)

    def on_port_lost(self) -> None:
        """The port is lost. How much of a telegram under way has left it is unknown."""
        self._left_at_ns = None
        self._keeps_bytes = False
        if self._take(PORT_LOST) is SENDING:
            self.counts.dropped += 1
            # The consumer may have received all of it.
            self._start_interval()

    def _take(self, event: PortEvent) -> PortState:
        """Change the state by the table of transitions, and return the state before."""
        before, self.state = self.state, TRANSITIONS[self.state, event]
        return before

    def _count_if_sent(self, held: int) -> None:
        if self.state is SENDING and not self._under_way.rest and not held:
            self._take(SENT)
            self.counts.sent += 1
            self._start_interval()

    def _start_interval(self) -> None:
        self._not_before_ns = self._under_way.telegram.end_ns + self._interval_ns

    def _expire(self, now_ns: int, held: int, superseded: bool = False) -> list[Action]:
        """Count the telegram under way if it is sent, drop it if it is stale or the port stuck."""
        self._count_if_sent(held)
        if self.state is not SENDING:
            return []
        current = self._under_way
        is_stuck = now_ns >= current.stuck_at_ns
        is_stale = now_ns > current.expires_at_ns
        # A telegram that has begun may finish. A stuck port keeps it until there is a better one.
        never_began = is_stale and not current.has_begun(held)
        gave_up = is_stuck and (is_stale or superseded)
        if not (never_began or gave_up):
            return []
        self._take(DROPPED)
        self.counts.dropped += 1
        return [Flush()]

    def _start(self, now_ns: int, held: int = 0) -> list[Action]:
        telegram = self._unsent
        if self.state is not WAITING or telegram is None or self._left_at_ns is not None:
            return []
        if now_ns - telegram.end_ns > FRESH_NS:
            return []
        if telegram.end_ns < self._not_before_ns:
            return []
        if held:
            # Bytes in the port that belong to no telegram under way must not be sent.
            return [Flush()]
        self._take(STARTED)
        self._unsent = None
        self._under_way = _UnderWay(telegram, now_ns)
        return [Write(telegram.data, max(telegram.end_ns, self._requested_since_ns))]
