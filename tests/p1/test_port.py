# SPDX-License-Identifier: Apache-2.0
"""When a telegram is sent: cases in the manual's words, and invariants over random histories."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp1d.p1.port import Action, Close, Flush, P1Port, PortState, Telegram, Write
from csp1d.units import MS_NS as MS
from csp1d.units import SECOND_NS as SECOND

LENGTH = 755
BYTES_PER_SECOND = 11_520


@dataclass
class Line:
    """A port that holds bytes and transmits them at 115200 baud, unless it is stuck.

    A USB adapter does not flush, and what is in its own FIFO is not held by the kernel.
    """

    room: int = 4096
    flushes: bool = True
    fifo: int = 0
    held: bytearray = field(default_factory=bytearray)
    adapter: bytearray = field(default_factory=bytearray)
    wire: list[tuple[int, int]] = field(default_factory=list)
    """Each byte that left, with its time."""
    stuck: bool = False
    now_ns: int = 0
    _credit_ns: int = 0

    def advance(self, now_ns: int) -> None:
        byte_ns = SECOND // BYTES_PER_SECOND
        self._credit_ns += now_ns - self.now_ns
        self.now_ns = now_ns
        while self._next and self._credit_ns >= byte_ns:
            self._credit_ns -= byte_ns
            self.wire.append((now_ns - self._credit_ns, self._next.pop(0)))
            self._fill_adapter()
        if not self._next:
            self._credit_ns = 0

    @property
    def _next(self) -> bytearray:
        """The bytes that leave next."""
        return self.adapter or (bytearray() if self.stuck else self.held)

    def _fill_adapter(self) -> None:
        if not self.stuck:
            room = self.fifo - len(self.adapter)
            self.adapter += self.held[:room]
            del self.held[:room]

    def write(self, data: bytes) -> int:
        taken = data[: max(0, self.room - len(self.held))]
        self.held += taken
        self._fill_adapter()
        return len(taken)

    def flush(self) -> None:
        if self.flushes:
            self.held.clear()

    def set_stuck(self, stuck: bool) -> None:
        self.stuck = stuck
        self._fill_adapter()


class Bench:
    """The protocol on a line, called as the daemon does."""

    def __init__(self, interval_seconds: int = 1, line: Line | None = None) -> None:
        self.port = P1Port(interval_seconds)
        self.line = line or Line()
        self.now_ns = 100 * SECOND
        self.line.now_ns = self.now_ns
        self.writes: list[tuple[int, Write]] = []
        self.is_open = False
        self.timers = 0
        self.number = 0
        self.ends: dict[bytes, int] = {}
        """The end of the reading of each telegram."""

    def carry_out(self, event: Callable[[int, int], list[Action]]) -> list[str]:
        self.line.advance(self.now_ns)
        waiting = len(self.line.held) if self.is_open else 0
        seen = []
        for action in event(self.now_ns, waiting):
            seen.append(type(action).__name__)
            if isinstance(action, Flush):
                self.line.flush()
                seen += self.carry_out(self.port.on_flushed)
            elif isinstance(action, Close):
                self.lose()
            else:
                self.writes.append((self.now_ns, action))
                self.port.on_written(self.line.write(action.data))
        return seen

    def open(self) -> list[str]:
        self.is_open = True
        return self.carry_out(self.port.on_port_opened)

    def lose(self) -> list[str]:
        self.line.advance(self.now_ns)
        self.is_open = False
        self.line.held.clear()
        self.port.on_port_lost()
        return []

    def high(self) -> list[str]:
        return self.carry_out(lambda now, waiting: self.port.on_request(True, now, waiting))

    def low(self) -> list[str]:
        return self.carry_out(lambda now, waiting: self.port.on_request(False, now, waiting))

    def forget(self) -> list[str]:
        self.port.forget()
        return []

    def discard(self) -> list[str]:
        return self.carry_out(lambda _, waiting: self.port.discard(waiting))

    def reading(self, age_ms: int = 2) -> list[str]:
        self.number += 1
        data = b"/%06d" % self.number + bytes(LENGTH - 9) + b"\r\n"
        telegram = Telegram(data, self.now_ns - age_ms * MS)
        self.ends[data] = telegram.end_ns
        return self.carry_out(lambda now, waiting: self.port.on_reading(telegram, now, waiting))

    def stick(self) -> list[str]:
        self.line.advance(self.now_ns)
        self.line.set_stuck(True)
        return []

    def leftover(self) -> list[str]:
        """Another process has left bytes in the port."""
        self.line.held += b"leftover"
        return []

    def repair(self) -> list[str]:
        """From here on a flush discards the bytes."""
        self.line.flushes = True
        return []

    def drain(self) -> list[str]:
        self.line.advance(self.now_ns)
        self.line.set_stuck(False)
        return []

    def after(self, milliseconds: float) -> list[str]:
        """Let time pass, with the calls that the protocol requests."""
        until_ns = self.now_ns + round(milliseconds * MS)
        seen = []
        while (wake_ns := self.port.wake_ns) is not None and wake_ns <= until_ns:
            self.now_ns = max(self.now_ns, wake_ns)
            seen += self.carry_out(self.port.on_timer)
            self.timers += 1
            assert self.port.wake_ns is None or self.port.wake_ns > self.now_ns
        self.now_ns = until_ns
        self.line.advance(self.now_ns)
        if self.is_open and self.port.wants_writable and len(self.line.held) < self.line.room:
            seen += self.carry_out(self.port.on_writable)
        return seen

    @property
    def counts(self) -> dict[str, int]:
        return {name: value for name, value in vars(self.port.counts).items() if value}

    def received(self) -> bytes:
        return bytes(byte for _, byte in self.line.wire)


# Each case: events (a number is a time to wait, in ms), the actions that they cause, and the
# counts at the end.
CASES: dict[str, tuple[list[str | float], list[str], dict[str, int]]] = {
    "a high line gets each reading at once": (
        ["open", "high", "reading", 1000, "reading", 1000],
        ["Write", "Write"],
        {"requests": 1, "sent": 2},
    ),
    "a telegram counts as sent when it has left, a tenth of its time later at most": (
        ["open", "high", "reading", 73],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
    "a low line gets nothing": (["open", "reading", 1000, "reading", 1000], [], {}),
    "a rising line gets the reading that waits": (
        ["open", "reading", 400, "high", 100],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
    "a rising line gets nothing older than a second": (
        ["open", "reading", 1001, "high", 100],
        [],
        {"requests": 1},
    ),
    "a reading is sent once however often the line rises": (
        ["open", "high", "reading", 100, "low", 100, "high", 100, "low", 100, "high", 100],
        ["Write"],
        {"requests": 3, "sent": 1},
    ),
    "a line that falls in mid-telegram stops it": (
        ["open", "high", "reading", 30, "low", 1000],
        ["Write", "Flush"],
        {"requests": 1, "aborted": 1},
    ),
    "a line that falls after the telegram aborts nothing": (
        ["open", "high", "reading", 67, "low"],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
    "each fall in mid-telegram counts as an abort": (
        ["open", "high", "reading", 30, "low", 30, "high", 30, "low"],
        ["Write", "Flush", "Write", "Flush"],
        {"requests": 2, "aborted": 2},
    ),
    "an aborted reading is sent again, whole, while it is fresh": (
        ["open", "high", "reading", 30, "low", 300, "high", 100],
        ["Write", "Flush", "Write"],
        {"requests": 2, "aborted": 1, "sent": 1},
    ),
    "an aborted reading is not sent again once it is stale": (
        ["open", "high", "reading", 30, "low", 1000, "high", 100],
        ["Write", "Flush"],
        {"requests": 2, "aborted": 1},
    ),
    "a newer reading takes the place of an aborted one": (
        ["open", "high", "reading", 30, "low", 500, "reading", 10, "high", 100],
        ["Write", "Flush", "Write"],
        {"requests": 2, "aborted": 1, "sent": 1},
    ),
    "a telegram that the port does not transmit is flushed by the next reading, which goes out": (
        ["open", "high", "stick", "reading", 997, "reading", 5, "drain", 100],
        ["Write", "Flush", "Write"],
        {"requests": 1, "dropped": 1, "sent": 1},
    ),
    "a stuck telegram gives way to a reading as soon as it is overdue, and not before": (
        ["open", "reading", 850, "stick", "high", 100, "reading", 32, "reading"],
        ["Write", "Flush", "Write"],
        {"requests": 1, "dropped": 1},
    ),
    "what has not begun to leave is flushed when its reading is a second old": (
        ["open", "reading", 950, "stick", "high", 49],
        ["Write", "Flush"],
        {"requests": 1, "dropped": 1},
    ),
    "a stuck telegram gives way to the waiting reading when it goes stale": (
        ["open", "reading", 950, "stick", "high", 40, "reading", 20],
        ["Write", "Flush", "Write"],
        {"requests": 1, "dropped": 1},
    ),
    "bytes left in the port are flushed by a request": (
        ["open", "reading", 400, "leftover", "high", 100],
        ["Flush", "Write"],
        {"requests": 1, "sent": 1},
    ),
    "bytes left in the port are flushed when it is opened": (
        ["high", "reading", "leftover", "open", 100],
        ["Flush", "Write"],
        {"requests": 1, "sent": 1},
    ),
    "bytes left in the port are flushed before a telegram": (
        ["open", "high", "leftover", "reading", 100],
        ["Flush", "Write"],
        {"requests": 1, "sent": 1},
    ),
    "a stuck telegram is flushed by a reading that comes early, too": (
        ["open", "high", "stick", "reading", 980, "reading", 5, "drain", 100],
        ["Write", "Flush", "Write"],
        {"requests": 1, "dropped": 1, "sent": 1},
    ),
    "a stuck telegram is flushed when it goes stale though no reading follows": (
        ["open", "high", "stick", "reading", 5000, "drain", 100],
        ["Write", "Flush"],
        {"requests": 1, "dropped": 1},
    ),
    "a late rise is answered, and the next reading waits for the wire": (
        ["open", "reading", 950, "high", 50, "reading", 200],
        ["Write", "Write"],
        {"requests": 1, "sent": 2},
    ),
    "a lost port drops the telegram; back again it gets the next reading": (
        ["open", "high", "reading", 30, "lose", 600, "open", 100, "reading", 100],
        ["Write", "Write"],
        {"requests": 1, "dropped": 1, "sent": 1},
    ),
    "each lost port drops the telegram under way": (
        ["open", "high", "reading", 30, "lose", 970, "open", "reading", 30, "lose"],
        ["Write", "Write"],
        {"requests": 1, "dropped": 2},
    ),
    "a request waits for a port that is not there yet": (
        ["high", "reading", 200, "open", 100],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
    "a stale reading from a backlog is not sent": (
        ["open", "high", "reading_late", 100, "reading", 100],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
    "a forgotten reading is not sent": (
        ["open", "reading", 100, "forget", "high", 100],
        [],
        {"requests": 1},
    ),
    "the telegram of a forgotten reading ends whole": (
        ["open", "high", "reading", 30, "forget", 100],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
    "a forgotten reading is not sent again": (
        ["open", "high", "reading", 30, "forget", 5, "low", 5, "high", 100],
        ["Write", "Flush"],
        {"requests": 2, "aborted": 1},
    ),
    "an aborted reading that is forgotten is not sent again": (
        ["open", "high", "reading", 30, "low", 5, "forget", "high", 100],
        ["Write", "Flush"],
        {"requests": 2, "aborted": 1},
    ),
    "a discarded reading is not sent": (
        ["open", "reading", 100, "discard", "high", 100],
        [],
        {"requests": 1},
    ),
    "the telegram of a discarded reading ends at once, and is not sent again": (
        ["open", "high", "reading", 30, "discard", 5, "low", 5, "high", 100],
        ["Write", "Flush"],
        {"requests": 2, "aborted": 1},
    ),
    "what the port has not accepted of a discarded reading is not sent": (
        ["open", "high", "stick", "reading", 30, "discard", "drain", 100],
        ["Write", "Flush"],
        {"requests": 1, "aborted": 1},
    ),
    "the reading after a discarded one is sent": (
        ["open", "high", "reading", 30, "discard", 100, "reading", 100],
        ["Write", "Flush", "Write"],
        {"requests": 1, "aborted": 1, "sent": 1},
    ),
    "a telegram whose last byte has left is sent, though its reading is discarded": (
        ["open", "high", "reading", 67, "discard"],
        ["Write"],
        {"requests": 1, "sent": 1},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_case(case: str) -> None:
    events, actions, counts = CASES[case]
    bench = Bench()
    seen = _play(bench, events)
    assert seen == actions
    assert bench.counts == counts


# The same for a port that cannot flush, as a USB adapter.
USB_CASES: dict[str, tuple[list[str | float], list[str], dict[str, int]]] = {
    "the rest of an aborted telegram leaves, so its reading is not sent again": (
        ["open", "high", "reading", 30, "low", 300, "high", 100],
        ["Write", "Flush"],
        {"requests": 2, "aborted": 1},
    ),
    "a telegram that is discarded is discarded with the port": (
        ["open", "high", "reading", 30, "discard", "open", 100, "reading", 100],
        ["Write", "Flush", "Close", "Write"],
        {"requests": 1, "aborted": 1, "sent": 1},
    ),
    "and so is the rest of one that was aborted before": (
        ["open", "high", "reading", 30, "low", 5, "discard", "open", "high", 100, "reading", 100],
        ["Write", "Flush", "Close", "Write"],
        {"requests": 2, "aborted": 1, "sent": 1},
    ),
    "the next reading is sent": (
        ["open", "high", "reading", 30, "low", 300, "high", 670, "reading", 100],
        ["Write", "Flush", "Write"],
        {"requests": 2, "aborted": 1, "sent": 1},
    ),
    "a reading waits until the bytes of the aborted one have left": (
        ["open", "reading", 970, "high", 20, "low", "reading", 5, "high", 194, 1, 100],
        ["Write", "Flush", "Write"],
        {"requests": 2, "aborted": 1, "sent": 1},
    ),
    "once known, a port that holds nothing at the flush keeps its adapter's bytes": (
        ["open", "high", "reading", 30, "low", 1000, "high", "reading", 60, "low", "high", 100],
        ["Write", "Flush", "Write"],
        {"requests": 3, "aborted": 1, "sent": 1},
    ),
    "what has not begun is discarded by closing the port": (
        ["open", "stick", "high", "reading", 10, "low", 500, "open", "drain", "high", 600],
        ["Write", "Flush", "Close"],
        {"requests": 2, "aborted": 1},
    ),
    "what does not leave is discarded by closing the port": (
        ["open", "high", "reading", 30, "stick", "low", 200, "open", "drain", "high", 600],
        ["Write", "Flush", "Close"],
        {"requests": 2, "aborted": 1},
    ),
    "a stuck telegram is discarded by closing the port, and the next reading goes out": (
        ["open", "high", "stick", "reading", 997, "reading", "open", "drain", 100],
        ["Write", "Flush", "Close", "Write"],
        {"requests": 1, "dropped": 1, "sent": 1},
    ),
    "what has not begun when its reading is a second old is discarded": (
        ["open", "reading", 950, "stick", "high", 49, "drain", 1000],
        ["Write", "Flush", "Close"],
        {"requests": 1, "dropped": 1},
    ),
    "bytes of another process are discarded by closing the port": (
        ["open", "high", "leftover", "reading", "open", 100],
        ["Flush", "Close", "Write"],
        {"requests": 1, "sent": 1},
    ),
    "another port is not waited for": (
        ["open", "high", "reading", 30, "low", "lose", "open", "high", "reading"],
        ["Write", "Flush", "Write"],
        {"requests": 2, "aborted": 1},
    ),
    "another port may be able to flush": (
        [
            *("open", "high", "reading", 30, "low", "lose", "repair", "open"),
            *("high", 970, "reading", 30, "low", 300, "high", 100),
        ],
        ["Write", "Flush", "Write", "Flush", "Write"],
        {"requests": 3, "aborted": 2, "sent": 1},
    ),
}


@pytest.mark.parametrize("case", USB_CASES)
def test_case_of_a_port_that_cannot_flush(case: str) -> None:
    events, actions, counts = USB_CASES[case]
    bench = Bench(line=Line(flushes=False, fifo=128))
    assert _play(bench, events) == actions
    assert bench.counts == counts


def test_once_known_no_aborted_reading_is_sent_again() -> None:
    """Its last bytes may have left between the look at the port and the flush."""
    port = requested_port()
    for remaining in (1, 0):
        send(port, TELEGRAM, TELEGRAM.end_ns)
        assert port.on_request(False, TELEGRAM.end_ns + 30 * MS, 300) == [Flush()]
        assert port.on_flushed(TELEGRAM.end_ns + 30 * MS, remaining) == []
        assert port.on_request(True, TELEGRAM.end_ns + 40 * MS, 0) == []
        assert port.on_timer(TELEGRAM.end_ns + 300 * MS, 0) == []


def test_an_abort_does_not_start_the_interval() -> None:
    bench = Bench(interval_seconds=10, line=Line(flushes=False))
    _play(bench, ["open", "high", "reading", 30, "low", 300, "high", 670])
    assert _play(bench, ["reading"]) == ["Write"]


def test_a_port_that_cannot_flush_is_looked_at_once_after_an_abort() -> None:
    """Nothing reports that its bytes have left, and to ask all the time would cost a processor."""
    bench = Bench(line=Line(flushes=False))
    _play(bench, ["open", "high", "reading", 30, "low"])
    bench.timers = 0
    _play(bench, ["high", 900])
    assert bench.timers == 1


def test_a_driver_that_overcounts_has_no_telegram_cut() -> None:
    """cdc-acm.c counts a buffer of 1280 bytes as held until the adapter has all of it."""
    port = requested_port()
    start_ns = TELEGRAM.end_ns + SECOND - 20 * MS
    send(port, TELEGRAM, start_ns)
    assert port.on_timer(start_ns + 50 * MS, 1280) == []
    assert port.on_request(False, start_ns + 51 * MS, 1280) == [Flush()]
    assert port.on_flushed(start_ns + 51 * MS, 1280) == []


def _play(bench: Bench, events: list[str | float]) -> list[str]:
    seen: list[str] = []
    for event in events:
        if isinstance(event, str):
            seen += bench.reading(1500) if event == "reading_late" else getattr(bench, event)()
        else:
            seen += bench.after(event)
    return seen


def test_an_aborted_reading_does_not_replace_a_newer_one() -> None:
    bench = Bench()
    _play(bench, ["open", "reading", 950, "high", 30, "reading", 5, "low", 10, "high", 100])
    whole, _ = _split(bench.received())
    assert whole == [list(bench.ends)[1]]


# Limits to the nanosecond.

TELEGRAM = Telegram(bytes(LENGTH), 100 * SECOND)
WIRE_NS = LENGTH * (10 * SECOND // 115_200)


def requested_port(interval_seconds: int = 1) -> P1Port:
    port = P1Port(interval_seconds)
    port.on_port_opened(0, 0)
    port.on_request(True, 0, 0)
    return port


def send(port: P1Port, telegram: Telegram, now_ns: int, accepted: int = LENGTH) -> bool:
    """Whether the reading is sent; the port accepts a number of bytes of it."""
    actions = port.on_reading(telegram, now_ns, 0)
    if actions:
        port.on_written(accepted)
    return bool(actions)


@pytest.mark.parametrize(("age_ns", "is_sent"), [(SECOND, True), (SECOND + 1, False)])
def test_a_reading_is_fresh_for_one_second(age_ns: int, is_sent: bool) -> None:
    assert send(requested_port(), TELEGRAM, TELEGRAM.end_ns + age_ns) == is_sent


def test_a_reading_is_sent_from_the_first_nanosecond_on() -> None:
    assert send(requested_port(), Telegram(bytes(LENGTH), 0), 0)


@pytest.mark.parametrize("up_ns", [0, 2**60 + 1])
@pytest.mark.parametrize(("interval_seconds", "gap_ns"), [(1, SECOND // 2), (10, 19 * SECOND // 2)])
def test_the_interval_has_half_a_second_of_tolerance(
    up_ns: int, interval_seconds: int, gap_ns: int
) -> None:
    for is_late in (False, True):
        port = requested_port(interval_seconds)
        send(port, Telegram(bytes(LENGTH), up_ns), up_ns)
        end_ns = up_ns + gap_ns - 1 + is_late
        assert send(port, Telegram(bytes(LENGTH), end_ns), end_ns) == is_late


def test_each_reading_is_sent_unless_an_interval_is_given() -> None:
    port = P1Port()
    port.on_port_opened(0, 0)
    port.on_request(True, 0, 0)
    ends = [100 * SECOND, 101 * SECOND, 102 * SECOND]
    assert all(send(port, Telegram(bytes(LENGTH), end_ns), end_ns) for end_ns in ends)


@pytest.mark.parametrize("accepted", [100, LENGTH])
def test_its_first_byte_leaves_within_a_second_or_never(accepted: int) -> None:
    port = requested_port()
    expires_at_ns = TELEGRAM.end_ns + SECOND
    send(port, TELEGRAM, expires_at_ns - 50 * MS, accepted)
    assert port.on_timer(expires_at_ns, accepted) == []
    assert port.on_timer(expires_at_ns + 1, accepted) == [Flush()]
    assert port.counts.dropped == 1


def test_what_has_begun_to_leave_in_time_may_go_on() -> None:
    port = requested_port()
    expires_at_ns = TELEGRAM.end_ns + SECOND
    send(port, TELEGRAM, expires_at_ns - 50 * MS)
    assert port.on_timer(expires_at_ns + 1, LENGTH - 1) == []


def test_a_newer_reading_replaces_a_telegram_from_twice_its_time_on_the_wire_on() -> None:
    port = requested_port()
    send(port, TELEGRAM, TELEGRAM.end_ns)
    newer = Telegram(b"newer", TELEGRAM.end_ns + SECOND)
    stuck_at_ns = TELEGRAM.end_ns + 2 * WIRE_NS
    assert port.on_reading(newer, stuck_at_ns - 1, 1) == []
    assert port.on_reading(newer, stuck_at_ns, 1) == [Flush()]
    assert port.on_flushed(stuck_at_ns, 0) == [Write(b"newer", newer.end_ns)]


def test_a_stuck_telegram_is_checked_at_its_deadlines_and_ever_less_often() -> None:
    port = requested_port()
    send(port, TELEGRAM, TELEGRAM.end_ns)
    checks: list[int] = []
    while port.wake_ns is not None and len(checks) < 10:
        checks.append(port.wake_ns - TELEGRAM.end_ns)
        port.on_timer(port.wake_ns, LENGTH)
    assert checks == [
        50 * MS,
        WIRE_NS * 11 // 10,
        WIRE_NS * 2,
        WIRE_NS * 4,
        WIRE_NS * 8,
        SECOND + 1,
    ]


def test_a_port_that_accepts_bytes_again_gets_no_more_of_a_stale_telegram() -> None:
    port = requested_port()
    send(port, TELEGRAM, TELEGRAM.end_ns, accepted=100)
    assert port.on_writable(TELEGRAM.end_ns + 10 * MS, 0) == [Write(bytes(LENGTH - 100), None)]
    assert port.on_writable(TELEGRAM.end_ns + 2 * SECOND, 50) == [Flush()]
    assert port.on_writable(TELEGRAM.end_ns + 2 * SECOND, 0) == []


def test_interval_thins_out_the_telegrams() -> None:
    bench = Bench(interval_seconds=3)
    bench.open()
    bench.high()
    for _ in range(10):
        bench.reading()
        bench.after(1000)
    assert bench.counts == {"requests": 1, "sent": 4}


def test_a_port_that_takes_little_gets_the_rest_when_it_is_writable() -> None:
    bench = Bench(line=Line(room=100))
    bench.open()
    bench.high()
    bench.reading()
    for _ in range(20):
        bench.after(7)
    assert bench.counts == {"requests": 1, "sent": 1}
    assert bench.received() == next(iter(bench.ends))


def test_latency_counts_from_the_rise_or_the_reading_whichever_is_later() -> None:
    bench = Bench()
    bench.open()
    bench.reading()
    bench.after(300)
    bench.high()
    risen_ns = bench.now_ns
    bench.after(700)
    bench.reading(age_ms=2)
    since = [write.since_ns for _, write in bench.writes]
    assert since == [risen_ns, bench.now_ns - 2 * MS]


EVENTS = st.one_of(
    st.sampled_from(["high", "low", "stick", "drain", "open", "lose"]),
    st.sampled_from(["reading", "reading", "reading_late"]),
    st.sampled_from([0.5, 3, 10, 29.7, 66, 80, 400, 990, 1001]),
)


@settings(max_examples=400)
@given(
    st.lists(EVENTS, max_size=60),
    st.sampled_from([50, 755, 4096]),
    st.sampled_from([(True, 0), (False, 0), (False, 128), (False, 512)]),
)
def test_invariants_over_random_histories(
    events: list[str | float], room: int, adapter: tuple[bool, int]
) -> None:
    bench = Bench(line=Line(room, *adapter))
    can_flush = bench.line.flushes
    high = False
    for event in events:
        on_wire, written = len(bench.line.wire), len(bench.writes)
        _play(bench, [event])
        high = {"high": True, "low": False}.get(str(event), high)
        assert bench.port.requested == high
        is_closed = bench.port.state in (PortState.CLOSED, PortState.CLOSED_REQUESTED)
        assert is_closed != bench.is_open
        if not high:
            # Never a telegram without a request.
            assert len(bench.writes) == written
        if not high and can_flush:
            # Never a byte after the fall that was not already on the wire.
            assert not bench.line.held
            assert event == "low" or len(bench.line.wire) == on_wire

    starts = [(now_ns, write) for now_ns, write in bench.writes if write.since_ns is not None]
    for now_ns, write in starts:
        # Never a reading older than a second.
        assert now_ns - bench.ends[write.data] <= SECOND

    bench.line.advance(bench.now_ns + SECOND)
    begins = [end_ns - SECOND // BYTES_PER_SECOND for end_ns, byte in bench.line.wire if byte == 47]
    whole, rest = _split(bench.received())
    pieces = [b"/" + piece for piece in bench.received().split(b"/")[1:]]
    for begin_ns, piece in zip(begins, pieces, strict=True):
        # Never a first byte of a reading older than a second.
        ends = [end_ns for data, end_ns in bench.ends.items() if data.startswith(piece)]
        assert begin_ns <= max(ends) + SECOND
    if not can_flush and room >= LENGTH:
        # Never a reading twice, not even a part of it.
        numbers = [piece[:7] for piece in pieces if len(piece) >= 7]
        assert len(numbers) == len(set(numbers))
    # Never two telegrams interleaved: each byte belongs to the telegram that began last.
    for piece in rest:
        assert any(data.startswith(piece) for data in bench.ends)
    # Never above one telegram a reading.
    assert len(whole) == len(set(whole))
    assert all(data in bench.ends for data in whole)
    # A telegram is counted once, and as what became of it.
    counts = bench.port.counts
    under_way = bench.port.state is PortState.SENDING
    assert counts.sent + counts.aborted + counts.dropped + under_way == len(starts)
    assert counts.sent <= len(whole)


def _split(received: bytes) -> tuple[list[bytes], list[bytes]]:
    """Whole telegrams and fragments: each begins with a slash, which stands nowhere else."""
    pieces = [b"/" + piece for piece in received.split(b"/")[1:]]
    assert b"".join(pieces) == received
    whole = [piece for piece in pieces if len(piece) == LENGTH]
    return whole, [piece for piece in pieces if len(piece) != LENGTH]
