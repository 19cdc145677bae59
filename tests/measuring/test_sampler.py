# SPDX-License-Identifier: Apache-2.0
"""The sampler when the process is stopped at the wrong moment."""

import logging

import numpy as np
import pytest
from signals import START_NS, codes_of, current, hat_format, pack

from csp1d.config import Config
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.measuring.reading import Phase, Reading
from csp1d.measuring.sampler import Sampler

SECOND = 1_000_000_000
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
        self.l2_at_rail = False
        self._read = 0

    def open_adc(self, config: Config) -> "Board":  # type: ignore[override]
        return self

    def read(self) -> bytes:
        """The process is stopped before it comes to read."""
        self.now_ns, self.stop_ns = self.now_ns + self.stop_ns, 0
        end = (self.now_ns - START_NS) * RATE // SECOND
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
        readings += sampler.time(board.now_ns)
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
