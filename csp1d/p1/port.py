# SPDX-License-Identifier: Apache-2.0
"""When a telegram goes out: the P1 port as a protocol without I/O.

The caller tells what happened (the request line moved, a reading is ready, the port took bytes,
time passed) and carries out the actions that come back, in their order. Every call says the time
and how many bytes the port still holds (`waiting`), since only the kernel knows what has left.

At most one telegram is under way. It ends in one of three ways: the port let the last byte go
(sent), the request line fell before that (aborted; DSMR 5.0.2 section 5.7.1 wants the transfer to
stop immediately), or the port did not take it in time (dropped). In the last two what the port
still holds is flushed, so that no byte goes out later than it was wanted.
"""

from dataclasses import dataclass

from csp1d.measuring.reading import FRESH_NS
from csp1d.units import MS_NS, SECOND_NS

_BYTE_NS = 10 * SECOND_NS // 115_200
"""One byte on the wire at 115200 8N1."""

_CHECK_NS = 50 * MS_NS
"""When a telegram that overstays its time on the wire is looked at again; doubles each time."""


@dataclass(frozen=True)
class Telegram:
    """The bytes to send for a reading, and the end of that reading (CLOCK_MONOTONIC)."""

    data: bytes
    end_ns: int


@dataclass(frozen=True)
class Write:
    """Hand these bytes to the port, without blocking, and report what it took to `on_written()`.

    `since_ns`: what the latency counts from (the reading's end or the rising edge, the later);
    None for the rest of a telegram.
    """

    data: bytes
    since_ns: int | None


@dataclass(frozen=True)
class Flush:
    """Drop all that the port still holds."""


Action = Write | Flush


@dataclass
class PortCounts:
    """What became of requests and telegrams since the start."""

    requests: int = 0
    sent: int = 0
    aborted: int = 0
    dropped: int = 0


@dataclass
class _UnderWay:
    telegram: Telegram
    rest: bytes
    started_ns: int
    check_ns: int

    @property
    def wire_ns(self) -> int:
        return len(self.telegram.data) * _BYTE_NS

    @property
    def stuck_at_ns(self) -> int:
        """From here on the port is stuck: it should have let go of all long since."""
        return self.started_ns + 2 * self.wire_ns

    @property
    def expires_at_ns(self) -> int:
        """From here on nobody may begin to send it."""
        return self.telegram.end_ns + FRESH_NS


class P1Port:
    """The protocol's state. The line starts low and the port starts lost."""

    def __init__(self, interval_seconds: int = 1, counts: PortCounts | None = None) -> None:
        self.counts = counts or PortCounts()
        # Readings end a mains cycle around whole seconds, so the grid has half a second of play.
        self._interval_ns = interval_seconds * SECOND_NS - SECOND_NS // 2
        self._requested_since_ns: int | None = None
        self._is_open = False
        self._unsent: Telegram | None = None
        self._under_way: _UnderWay | None = None
        self._not_before_ns: int | None = None

    @property
    def requested(self) -> bool:
        """Whether the consumer asks for telegrams."""
        return self._requested_since_ns is not None

    @property
    def wants_writable(self) -> bool:
        """Whether `on_writable()` is to be called once the port takes bytes again."""
        return self._under_way is not None and bool(self._under_way.rest)

    @property
    def wake_ns(self) -> int | None:
        """When `on_timer()` has to be called at the latest, None for never."""
        return self._under_way.check_ns if self._under_way else None

    def on_request(self, high: bool, now_ns: int, waiting: int) -> list[Action]:
        """The request line is high or low now."""
        if high == self.requested:
            return []
        if high:
            self.counts.requests += 1
            self._requested_since_ns = now_ns
            return self._start(now_ns, waiting)
        self._count_if_sent(waiting)
        self._requested_since_ns = None
        if self._under_way is None:
            return []
        self.counts.aborted += 1
        return self._abandon(again=True)

    def on_reading(self, telegram: Telegram, now_ns: int, waiting: int) -> list[Action]:
        """A reading is ready; it takes the place of an older one that was not sent."""
        actions = self._expire(now_ns, waiting, superseded=True)
        self._unsent = telegram
        return actions + self._start(now_ns, 0 if actions else waiting)

    def forget(self) -> None:
        """What waits is not to be sent."""
        self._unsent = None

    def on_written(self, count: int) -> None:
        """The port took so many bytes of the last Write."""
        if self._under_way:
            self._under_way.rest = self._under_way.rest[count:]

    def on_writable(self, now_ns: int, waiting: int) -> list[Action]:
        """The port takes bytes again."""
        actions = self._expire(now_ns, waiting)
        if actions or not self.wants_writable or self._under_way is None:
            return actions
        return [Write(self._under_way.rest, None)]

    def on_timer(self, now_ns: int, waiting: int) -> list[Action]:
        """Time passed."""
        actions = self._expire(now_ns, waiting)
        if self._under_way and now_ns >= self._under_way.check_ns:
            self._under_way.check_ns = self._next_check(self._under_way, now_ns)
        return actions + self._start(now_ns, 0 if actions else waiting)

    def on_port_opened(self, now_ns: int, waiting: int) -> list[Action]:
        """The port is there."""
        self._is_open = True
        return self._start(now_ns, waiting)

    def on_port_lost(self) -> None:
        """The port is gone, and with it the knowledge of what has left it."""
        self._is_open = False
        if self._under_way:
            self.counts.dropped += 1
            # It may have been received all the same.
            self._start_interval(self._under_way.telegram)
            self._abandon(again=False)

    def _count_if_sent(self, waiting: int) -> None:
        if self._under_way and not self._under_way.rest and not waiting:
            self.counts.sent += 1
            self._start_interval(self._under_way.telegram)
            self._under_way = None

    def _start_interval(self, sent: Telegram) -> None:
        self._not_before_ns = sent.end_ns + self._interval_ns

    def _expire(self, now_ns: int, waiting: int, superseded: bool = False) -> list[Action]:
        """Count the telegram under way as sent if it is, drop it if it may not stay."""
        self._count_if_sent(waiting)
        current = self._under_way
        if current is None:
            return []
        is_stale = now_ns > current.expires_at_ns
        has_begun = waiting + len(current.rest) < len(current.telegram.data)
        if has_begun or not is_stale:
            stuck = now_ns >= current.stuck_at_ns
            if not (stuck and (superseded or is_stale)):
                return []
        self.counts.dropped += 1
        return self._abandon(again=False)

    def _abandon(self, again: bool) -> list[Action]:
        if again and self._under_way and self._unsent is None:
            self._unsent = self._under_way.telegram
        self._under_way = None
        return [Flush()]

    def _start(self, now_ns: int, waiting: int) -> list[Action]:
        telegram = self._unsent
        if (
            telegram is None
            or self._under_way
            or self._requested_since_ns is None
            or not self._is_open
        ):
            return []
        if now_ns - telegram.end_ns > FRESH_NS:
            self._unsent = None
            return []
        if self._not_before_ns is not None and telegram.end_ns < self._not_before_ns:
            return []
        self._unsent = None
        self._under_way = _UnderWay(telegram, telegram.data, now_ns, 0)
        self._under_way.check_ns = self._next_check(self._under_way, now_ns)
        write = Write(telegram.data, max(telegram.end_ns, self._requested_since_ns))
        # Bytes in the port that are not of a telegram under way are nobody's: never send them.
        return [Flush(), write] if waiting else [write]

    @staticmethod
    def _next_check(current: _UnderWay, now_ns: int) -> int:
        """First when it should have left the wire, then ever less often, and at the deadlines."""
        marks = (
            current.started_ns + current.wire_ns * 11 // 10,
            current.expires_at_ns + 1,
            current.stuck_at_ns,
            now_ns + max(_CHECK_NS, now_ns - current.started_ns),
        )
        return min(mark for mark in marks if mark > now_ns)
