# SPDX-License-Identifier: Apache-2.0
"""The sender at a port that is stuck or lost or cannot flush, and at a line that falls unseen or is
lost.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from csp1d.config import (
    ChannelConfig,
    ChannelsConfig,
    Config,
    DirectionConfig,
    P1Config,
    RequestConfig,
)
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.identity import identified
from csp1d.loop.sender import Sender
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.phase import Phase
from csp1d.units import MS_NS as MS
from csp1d.units import SECOND_NS as SECOND

ALWAYS = Config(p1=P1Config(request=RequestConfig(always=True)))


class StuckPort:
    """Accepts all bytes and transmits them at once, unless it is stuck; can vanish."""

    def __init__(self) -> None:
        self.is_stuck = self.is_gone = self.fails_to_flush = False
        self._held = 0

    def fileno(self) -> int:
        return -1

    def write(self, data: bytes) -> int:
        self._held = len(data) if self.is_stuck else 0
        return len(data)

    def waiting(self) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return self._held

    def flush(self) -> None:
        if self.fails_to_flush:
            raise OSError(5, "Input/output error")
        self._held = 0

    def release(self) -> None:
        """Transmit what it holds."""
        self.is_stuck = False
        self._held = 0

    def close(self) -> None:
        pass


class UsbPort(StuckPort):
    """Transmits the accepted bytes at 115200 baud, and keeps them in spite of a flush."""

    BYTE_NS = 10 * SECOND // 115_200

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.begins: list[int] = []
        """When the first byte of each telegram left."""
        self.polls = self.closed = self.queued = 0
        """`queued`: writes before the bytes of the last one had left."""
        self._empty_ns = 0

    def write(self, data: bytes) -> int:
        if self.is_stuck:
            return super().write(data)
        begin_ns = max(self.now_ns, self._empty_ns)
        self.begins.append(begin_ns)
        self.queued += begin_ns > self.now_ns
        self._empty_ns = begin_ns + len(data) * self.BYTE_NS
        return len(data)

    def waiting(self) -> int:
        self.polls += 1
        return super().waiting() or max(0, self._empty_ns - self.now_ns) // self.BYTE_NS

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1
        self._empty_ns = self._held = 0


class Line:
    """A level, and whether it has moved since it was read; can vanish."""

    poll_ns: int | None = None

    def __init__(self) -> None:
        self.high, self.moved, self.is_gone = True, False, False

    def fileno(self) -> int:
        return -1

    def set(self, high: bool) -> None:
        self.high, self.moved = high, True

    def read_level(self) -> tuple[bool, bool]:
        if self.is_gone:
            raise OSError(19, "No such device")
        moved, self.moved = self.moved, False
        return moved, self.high

    def close(self) -> None:
        pass


class Board(SimulatedHat):
    def __init__(self) -> None:
        super().__init__(parse(""))
        self.port = StuckPort()
        self.line = Line()

    def open_request_line(self, config: Config) -> Line:  # type: ignore[override]
        return self.line

    def open_port(self, config: Config) -> StuckPort:  # type: ignore[override]
        return self.port


class Bench:
    def __init__(self, config: Config = ALWAYS) -> None:
        self.now_ns = 100 * SECOND
        self.board = Board()
        self.sender = Sender(self.board, config, lambda: self.now_ns)

    def seconds(self, count: int) -> None:
        """A reading each second, and the calls that follow it."""
        for _ in range(count):
            self.now_ns += SECOND
            self.sender.on_reading(Reading(1, self.now_ns, 1.0, {}, None, 4000, 0))
            self.sender.reopen_missing()
            while (wake_ns := self.sender.wake_ns) is not None and wake_ns % SECOND < SECOND // 2:
                assert wake_ns > self.now_ns
                self.now_ns = wake_ns
                self.sender.poll(self.now_ns)
            self.now_ns -= self.now_ns % SECOND


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench()


def test_the_rest_of_a_telegram_is_not_sent_once_its_reading_is_discarded(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    port = bench.board.port
    port.is_stuck = True
    for number in range(1, 12):
        bench.now_ns += SECOND
        bench.sender.on_reading(Reading(1, bench.now_ns, 1.0, {}, None, 4000, 0))
        assert port.waiting()
        bench.sender.discard()
        assert not port.waiting()
        assert not bench.sender.sending
        assert bench.sender.counts.aborted == number
    # It is no fault of the port or of the request.
    assert caplog.messages == []


def test_a_charge_point_that_polls_requests_telegrams_for_ten_seconds_after_a_request() -> None:
    bench = Bench(Config())
    bench.board.line.set(high=False)
    bench.sender.reopen_missing()
    assert bench.sender.requested_lately
    bench.now_ns += 10 * SECOND
    assert bench.sender.requested_lately
    # Whatever is reloaded meanwhile.
    bench.sender.configure(Config(p1=P1Config(profile="smr5")))
    assert bench.sender.requested_lately
    bench.now_ns += 1
    assert bench.sender.requested_lately is False


def test_a_stuck_port_is_logged_once_and_its_end_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.seconds(3)
    assert bench.sender.counts.sent == 3
    assert caplog.messages == []
    bench.board.port.is_stuck = True
    bench.seconds(30)
    bench.board.port.is_stuck = False
    bench.seconds(5)
    dropped = bench.sender.counts.dropped
    assert dropped >= 28
    assert caplog.messages == [
        "telegram dropped: the serial port did not transmit it within one second;"
        " check its adapter and its driver"
    ]
    assert caplog.records[0].__dict__["CSP1D_EVENT"] == "telegram-dropped"
    bench.seconds(20)
    assert caplog.messages[1:] == [f"telegrams transmitted again; {dropped} were dropped"]
    assert caplog.records[1].__dict__["CSP1D_TELEGRAMS_DROPPED"] == str(dropped)


def test_only_a_telegram_that_was_sent_ends_the_fault(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.board.port.is_stuck = True
    bench.seconds(2)
    for _ in range(20):
        bench.now_ns += SECOND
        bench.sender.reopen_missing()
    assert len(caplog.messages) == 1
    bench.board.port.release()
    bench.seconds(1)
    assert len(caplog.messages) == 2


def test_requests_that_end_too_early_are_logged_once_and_their_end_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    bench = Bench(Config())
    counts = bench.sender.counts

    def request(seconds: int, is_short: bool) -> None:
        """A request for each reading; of a telegram in a short one, some bytes have not left."""
        bench.board.port.is_stuck = is_short
        for _ in range(seconds):
            bench.board.line.set(True)
            bench.seconds(1)
            bench.board.line.set(False)
            bench.sender.reopen_missing()

    request(9, is_short=True)
    request(1, is_short=False)
    request(9, is_short=True)
    assert (counts.sent, counts.aborted) == (1, 18)
    assert caplog.messages == [], "a few are normal"
    request(20, is_short=True)
    assert caplog.messages == [
        "the request ended during each of the last 10 telegrams; check the charge point, the"
        " request line, p1.request.debounce_ms and the serial port"
    ]
    for _ in range(3):
        request(8, is_short=False)
        request(12, is_short=True)
    request(8, is_short=False)
    assert len(caplog.messages) == 1, "it comes and goes"
    request(3, is_short=False)
    assert caplog.messages[1:] == ["telegrams are complete again"]
    assert counts.dropped == 0


@pytest.mark.parametrize("interval_seconds", [1, 10])
def test_a_stuck_port_is_a_problem_while_it_drops_and_for_at_most_15_s_after(
    interval_seconds: int,
) -> None:
    p1 = P1Config(interval_seconds=interval_seconds, request=RequestConfig(always=True))
    bench = Bench(Config(p1=p1))

    def is_problem() -> bool:
        return any(bench.sender.problems(bench.now_ns))

    bench.board.port.is_stuck = True
    bench.seconds(12)
    for _ in range(40):
        bench.seconds(1)
        assert is_problem()
    # Nothing is requested any more.
    bench.now_ns += 15 * SECOND
    assert not is_problem()


@pytest.mark.parametrize("fault", ["is_gone", "fails_to_flush"])
def test_of_a_telegram_that_is_lost_with_its_port_only_the_loss_is_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    bench.seconds(3)
    bench.board.port.is_stuck = True
    bench.seconds(1)
    setattr(bench.board.port, fault, True)
    bench.seconds(1)
    assert bench.sender.counts.dropped
    assert caplog.messages == [
        "P1 port lost: /dev/ttyAMA0: Input/output error; check its connection"
    ]


class UsbBench(Bench):
    """A sender at a port that cannot flush, and a line that moves."""

    def __init__(self, interval_seconds: int = 1) -> None:
        super().__init__(Config(p1=P1Config(interval_seconds=interval_seconds)))
        self.usb = UsbPort()
        self.board.port = self.usb
        self.sender.configure(self.sender._config)

    def request(self, high: bool) -> None:
        self.usb.now_ns = self.now_ns
        self.board.line.set(high)
        self.sender.reopen_missing()

    def reading(self) -> None:
        self.usb.now_ns = self.now_ns
        self.sender.on_reading(Reading(1, self.now_ns, 1.0, {}, None, 4000, 0))
        self.sender.reopen_missing()

    def after(self, milliseconds: int) -> None:
        until_ns = self.now_ns + milliseconds * MS
        while (wake_ns := self.sender.wake_ns) is not None and wake_ns <= until_ns:
            assert wake_ns > self.now_ns
            self.now_ns = self.usb.now_ns = wake_ns
            self.sender.poll(self.now_ns)
        self.now_ns = self.usb.now_ns = until_ns


@pytest.mark.parametrize("interval_seconds", [1, 10])
def test_a_port_that_cannot_flush_sends_no_reading_twice_and_is_logged_once(
    caplog: pytest.LogCaptureFixture, interval_seconds: int
) -> None:
    bench = UsbBench(interval_seconds)
    readings = []
    for _ in range(5):
        readings.append(bench.now_ns)
        bench.reading()
        bench.after(20)
        for _ in range(3):
            bench.request(False)
            bench.after(5)
            bench.request(True)
            bench.after(10)
        bench.after(1000 - 65)
    # Each reading begins once, at once, and an abort does not start the interval.
    assert bench.usb.begins == readings
    assert bench.sender.counts.aborted == 5
    assert [record.__dict__["CSP1D_EVENT"] for record in caplog.records] == ["p1-port-cannot-flush"]
    assert "/dev/ttyAMA0 cannot flush: " in caplog.messages[0]


def test_nothing_begins_before_the_bytes_of_an_aborted_telegram_have_left() -> None:
    bench = UsbBench()
    bench.request(False)
    bench.reading()
    read_ns = bench.now_ns
    bench.after(970)
    bench.request(True)
    bench.after(20)
    bench.request(False)
    bench.after(10)
    bench.reading()
    bench.request(True)
    polls = bench.usb.polls
    bench.after(900)
    first_ns, second_ns = bench.usb.begins
    assert first_ns == read_ns + 970 * MS
    assert second_ns >= first_ns + 755 * UsbPort.BYTE_NS
    assert bench.usb.queued == 0
    assert bench.sender.counts.sent == 1
    assert bench.usb.polls - polls < 10


def test_a_stuck_port_that_cannot_flush_is_closed_and_gets_the_next_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = UsbBench()
    closed = bench.usb.closed
    bench.usb.is_stuck = True
    for _ in range(3):
        bench.reading()
        bench.after(1000)
    assert bench.usb.closed - closed == bench.sender.counts.dropped >= 2
    assert [record.__dict__["CSP1D_EVENT"] for record in caplog.records] == [
        "p1-port-cannot-flush",
        "telegram-dropped",
    ]
    bench.usb.is_stuck = False
    bench.reading()
    bench.after(200)
    assert bench.sender.counts.sent == 1


# The configured reference, the phases that export in the reading, and the power of L1 at 10 A.
EXPORTS: list[tuple[Any, set[Phase] | None, str, str]] = [
    ("off", None, "00.000", "00.000"),
    ("off", {Phase.L1}, "00.000", "00.000"),
    ("voltage", None, "02.300", "00.000"),
    ("voltage", {Phase.L2}, "02.300", "00.000"),
    ("voltage", {Phase.L1}, "00.000", "02.300"),
    ("current", {Phase.L1}, "00.000", "02.300"),
]


@pytest.mark.parametrize(("reference", "exporting", "plus", "minus"), EXPORTS)
def test_a_phase_that_exports_has_its_power_in_the_other_object(
    reference: Any, exporting: set[Phase] | None, plus: str, minus: str
) -> None:
    config = replace(
        ALWAYS,
        p1=replace(ALWAYS.p1, nominal_voltage=230),
        direction=DirectionConfig(reference=reference),
    )
    sender = Sender(Board(), config, lambda: 100 * SECOND)
    phases = {Phase.L1: PhaseCurrent(10.0, 14.1, 0.0, 0)}
    direction = None
    if exporting is not None:
        direction = DirectionReading({Phase.L1: -9.5}, frozenset(exporting), "", "")
    sender.on_reading(Reading(1, 100 * SECOND, 1.0, phases, 50.0, 4000, 0, direction))
    sent = sender.last_telegram.decode()
    assert "1-0:31.7.0(010*A)" in sent
    assert f"1-0:21.7.0({plus}*kW)" in sent
    assert f"1-0:22.7.0({minus}*kW)" in sent


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process lives in UTC."""
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("utc")
@pytest.mark.parametrize("profile", ["smr5", "emucs"])
def test_telegrams_carry_the_second_in_which_their_reading_ended_each_once(
    monkeypatch: pytest.MonkeyPatch, profile: Any
) -> None:
    """Whatever part of a mains cycle a reading ends early, and however late it is passed on."""
    now_ns = 99 * SECOND
    config = replace(ALWAYS, p1=replace(ALWAYS.p1, profile=profile))
    sender = Sender(Board(), config, lambda: now_ns)
    monkeypatch.setattr(time, "time", lambda: 1_782_907_200 + now_ns / SECOND)
    sent = []
    for second in range(100, 160):
        end_ns = second * SECOND - second % 3 * 9 * MS
        now_ns = end_ns + second % 5 * 150 * MS
        sender.on_reading(Reading(1, end_ns, 1.0, {}, None, 4000, 0))
        sent.append(sender.last_telegram.decode().split("0-0:1.0.0(")[1][:13])
        now_ns += 100 * MS
        sender.poll(now_ns)
    first = 1_782_907_200 + 99  # the first reading ended just before the next second
    assert sent == [
        time.strftime("%y%m%d%H%M%SW", time.gmtime(first + number)) for number in range(60)
    ]


@pytest.mark.parametrize(("profile", "others"), [("emucs", 0), ("smr5", 2), ("csp1", 2)])
def test_a_phase_without_an_input_has_no_objects_in_emucs(profile: Any, others: int) -> None:
    config = replace(
        ALWAYS,
        channels=ChannelsConfig(L1=ChannelConfig(), L3=ChannelConfig()),
        p1=replace(ALWAYS.p1, profile=profile),
    )
    bench = Bench(config)
    bench.seconds(1)
    sent = bench.sender.last_telegram.decode()
    assert "1-0:51.7.0(000" in sent
    assert sent.count("1-0:31.7.0") + sent.count("1-0:71.7.0") == others


def test_telegrams_carry_the_identity_of_the_machine() -> None:
    bench = Bench()
    bench.seconds(1)
    made = identified(P1Config())
    header, _, rest = bench.sender.last_telegram.decode().partition("\r\n")
    assert header == f"/XMX5{made.serial}"
    assert f"0-0:96.1.1({made.equipment_id.encode().hex().upper()})" in rest


def test_a_line_that_fell_while_the_reading_was_computed_gets_no_telegram() -> None:
    bench = Bench(Config())
    bench.seconds(2)
    assert bench.sender.counts.sent == 2
    bench.board.line.set(False)
    bench.sender.last_telegram = b""
    bench.seconds(1)
    assert bench.sender.last_telegram == b""
    # It waits for the next request as long as it is fresh.
    bench.board.line.set(True)
    bench.sender.reopen_missing()
    assert bench.sender.last_telegram != b""


def lost_line_returns(bench: Bench, after_ms: int) -> None:
    bench.board.line.is_gone = True
    bench.sender.reopen_missing()
    assert bench.sender.requested is None
    bench.now_ns += after_ms * MS
    bench.board.line.is_gone = False
    bench.sender.reopen_missing()


def test_a_lost_line_that_returns_high_is_a_new_request() -> None:
    bench = Bench(Config())
    bench.seconds(2)
    assert (bench.sender.counts.requests, bench.sender.counts.sent) == (1, 2)
    lost_line_returns(bench, after_ms=500)
    assert bench.sender.requested
    bench.seconds(2)
    assert (bench.sender.counts.requests, bench.sender.counts.sent) == (2, 4)


def test_a_lost_line_that_returns_has_to_last_the_whole_debounce_time() -> None:
    bench = Bench(Config(p1=P1Config(request=RequestConfig(debounce_ms=50))))
    bench.now_ns += 40 * MS
    lost_line_returns(bench, after_ms=20)
    assert bench.sender.requested is False
    assert bench.sender.wake_ns == bench.now_ns + 50 * MS
    bench.now_ns += 50 * MS
    bench.sender.poll(bench.now_ns)
    assert bench.sender.requested


def test_a_line_without_edges_is_read_every_20_ms_and_never_waited_for() -> None:
    bench = Bench(Config())
    line, sender = bench.board.line, bench.sender
    line.poll_ns = 20 * MS
    line.set(False)
    sender.reopen_missing()
    requests = sender.counts.requests
    assert sender.descriptors() == {}
    sender.on_reading(Reading(1, bench.now_ns, 1.0, {}, None, 4000, 0))

    def turn() -> None:
        assert sender.wake_ns is not None
        assert bench.now_ns < sender.wake_ns <= bench.now_ns + 20 * MS
        bench.now_ns = sender.wake_ns
        sender.poll(bench.now_ns)

    for _ in range(10):
        turn()
    assert (sender.counts.sent, sender.last_telegram) == (0, b"")
    line.set(True)
    bench.board.port.is_stuck = True
    turn()
    assert sender.last_telegram != b""
    # It falls in mid-telegram, before the port has transmitted it.
    line.set(False)
    turn()
    assert (sender.counts.requests, sender.counts.aborted) == (requests + 1, 1)
    # While it is missing, it is not read.
    line.is_gone = True
    turn()
    assert (sender.wake_ns, sender.requested) == (None, None)
    line.is_gone = False
    sender.reopen_missing()
    turn()
    assert sender.requested is False
