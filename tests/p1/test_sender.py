# SPDX-License-Identifier: Apache-2.0
"""The sender at a port that does not let go of its bytes, and at a line that falls unseen."""

import logging

import pytest

from csp1d.config import Config, P1Config, RequestConfig
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.measuring.reading import Reading
from csp1d.p1.sender import Sender

SECOND = 1_000_000_000
ALWAYS = Config(p1=P1Config(request=RequestConfig(always=True)))


class StuckPort:
    """Takes all and lets go of it at once, unless it is stuck; can vanish."""

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
        """What it holds leaves it."""
        self.is_stuck = False
        self._held = 0

    def close(self) -> None:
        pass


class Line:
    """A level, and whether it has moved since the last look."""

    def __init__(self) -> None:
        self.high, self.moved = True, False

    def fileno(self) -> int:
        return -1

    def set(self, high: bool) -> None:
        self.high, self.moved = high, True

    def look(self) -> tuple[bool, bool]:
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
        """A reading each second, and the looks that follow it."""
        for _ in range(count):
            self.now_ns += SECOND
            self.sender.reading(Reading(1, self.now_ns, 1.0, {}, None, 4000, 0))
            self.sender.find()
            while (wake_ns := self.sender.wake_ns) is not None and wake_ns % SECOND < SECOND // 2:
                self.now_ns = wake_ns
                self.sender.time(self.now_ns)
            self.now_ns -= self.now_ns % SECOND


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench()


def test_a_stuck_port_is_said_once_and_once_when_telegrams_leave_again(
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
    assert caplog.messages == ["telegram dropped: the P1 port did not let go of it in time"]
    assert caplog.records[0].__dict__["CSP1D_EVENT"] == "telegram-dropped"
    bench.seconds(20)
    assert caplog.messages[1:] == [f"telegrams leave the P1 port again; {dropped} had been dropped"]
    assert caplog.records[1].__dict__["CSP1D_TELEGRAMS_DROPPED"] == str(dropped)


def test_only_a_telegram_that_left_tells_that_telegrams_leave_again(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.board.port.is_stuck = True
    bench.seconds(2)
    for _ in range(20):
        bench.now_ns += SECOND
        bench.sender.find()
    assert len(caplog.messages) == 1
    bench.board.port.release()
    bench.seconds(1)
    assert len(caplog.messages) == 2


@pytest.mark.parametrize("fault", ["is_gone", "fails_to_flush"])
def test_a_telegram_that_is_lost_with_its_port_says_no_more_than_the_loss(
    bench: Bench, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    bench.seconds(3)
    bench.board.port.is_stuck = True
    bench.seconds(1)
    setattr(bench.board.port, fault, True)
    bench.seconds(1)
    assert bench.sender.counts.dropped
    assert caplog.messages == ["P1 port lost: /dev/ttyAMA0: Input/output error"]


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
    bench.sender.find()
    assert bench.sender.last_telegram != b""
