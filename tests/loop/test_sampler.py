# SPDX-License-Identifier: Apache-2.0
"""The sampler: when it reads, and what it does not believe."""

import dataclasses
import logging

import numpy as np
import pytest
from signals import START_NS, codes_of, current, hat_format, pack

from csp1d.config import Config
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.loop.sampler import Sampler
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
RATE = 4000
AMPERES = 10.0


class Board(SimulatedHat):
    """Its own clock, and an ADC on it: all scans up to the time of the read."""

    rate_fault: str | None = None
    reference_fault = ""

    def __init__(self) -> None:
        super().__init__(parse(""))
        self.format = hat_format(rate=RATE)
        self.now_ns = START_NS
        self.stop_ns = 0
        self.late_ns = 0
        """How long after its time a scan can be read."""
        self.reads = 0
        self.l2_at_rail = False
        self._read = 0

    def open_adc(self, config: Config) -> "Board":  # type: ignore[override]
        return self

    def read(self) -> bytes:
        """The process is stopped before it comes to read."""
        self.now_ns, self.stop_ns = self.now_ns + self.stop_ns, 0
        self.reads += 1
        end = max(0, self.now_ns - self.late_ns - START_NS) * RATE // SECOND
        numbers, self._read = np.arange(self._read, end), end
        codes = codes_of(current(numbers / RATE, 50.0, AMPERES))
        l2 = np.zeros_like(codes) if self.l2_at_rail else codes
        return pack(self.format, [codes, l2, codes], START_NS + numbers * (SECOND // RATE))

    def close(self) -> None:
        pass


def run(board: Board, sampler: Sampler, seconds: float) -> list[Reading]:
    readings, end_ns = [], board.now_ns + round(seconds * SECOND)
    while board.now_ns < end_ns:
        board.now_ns = max(board.now_ns, sampler.wake_ns)
        readings += sampler.poll(board.now_ns)
    return readings


@pytest.mark.parametrize("stop_seconds", [0.5, 1.5, 3.0])
def test_stopped_before_the_read_it_still_believes_the_stamps(
    stop_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    readings = run(board, sampler, 3)
    board.stop_ns = round(stop_seconds * SECOND)
    readings += run(board, sampler, 5)
    assert caplog.messages == []
    assert [reading.lost_scans for reading in readings] == [0] * len(readings)
    ends_ns = [reading.end_ns for reading in readings]
    whole_ns = [START_NS + (n + 1) * SECOND for n in range(len(readings))]
    assert ends_ns == pytest.approx(whole_ns, abs=SECOND // 1000)
    assert readings[-1].amperes(Phase.L1) == pytest.approx(AMPERES, rel=1e-3)


def test_a_failed_input_gives_no_reading_but_can_be_looked_at() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 3)
    assert sampler.failed is None
    board.l2_at_rail = True
    run(board, sampler, 2)
    assert run(board, sampler, 2) == []
    assert sampler.failed
    assert sampler.failed.failed_phases == (Phase.L2,)
    assert sampler.failed.waveform
    board.l2_at_rail = False
    run(board, sampler, 2)
    assert run(board, sampler, 2)
    assert sampler.failed is None


@pytest.mark.parametrize("late_ms", [0, 2, 7, 30])
def test_it_learns_how_late_a_driver_delivers(late_ms: int) -> None:
    board = Board()
    board.late_ns = late_ms * MILLISECOND
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 40)
    board.reads = 0
    ages_ns: list[int] = []
    while len(ages_ns) < 40:
        board.now_ns = sampler.wake_ns
        ages_ns += [board.now_ns - reading.end_ns for reading in sampler.poll(board.now_ns)]
    # Within a scan of the soonest, but for the tries by which it sees that it need not be later.
    assert sorted(ages_ns)[20] < board.late_ns + 2 * MILLISECOND
    assert max(ages_ns) < board.late_ns + 5 * MILLISECOND
    assert 40 <= board.reads < 60


def test_what_does_not_come_is_looked_for_ever_less_often() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 3)
    board.late_ns, board.reads = 3600 * SECOND, 0
    run(board, sampler, 5)
    assert sampler.stalled
    assert 20 < board.reads < 40


def test_a_reading_from_the_future_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 3)
    feed = Metering.feed

    def ahead(self: Metering, scans: bytes, read_ns: int | None = None) -> list[Reading]:
        readings = feed(self, scans, read_ns)
        return [dataclasses.replace(each, end_ns=board.now_ns + shift_ns) for each in readings]

    monkeypatch.setattr(Metering, "feed", ahead)
    shift_ns = 9 * MILLISECOND
    assert run(board, sampler, 3)
    shift_ns = 11 * MILLISECOND
    assert run(board, sampler, 3) == []
