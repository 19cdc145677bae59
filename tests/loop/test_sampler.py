# SPDX-License-Identifier: Apache-2.0
"""When the sampler reads the ADC, when it sets it up again, and what it discards."""

import dataclasses
import itertools
import logging
import time
from collections import Counter
from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from signals import START_NS, codes_of, current, hat_format, pack

from csp1d.config import ChannelConfig, Config
from csp1d.errors import ScanFormatError
from csp1d.events import Event
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.loop.sampler import Sampler
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import PhaseCurrent, Reading
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
RATE = 4000
AMPERES = 10.0


class Board(SimulatedHat):
    """A clock, and an ADC on it. A read returns all scans up to the time of the read."""

    rate_fault: str | None = None
    scale_doubts: tuple[str, ...] = ()
    reference_fault = ""
    in_blocks = False
    buffer_hertz: float = RATE

    def __init__(self) -> None:
        super().__init__(parse(""))
        self.format = hat_format(rate=RATE)
        self.now_ns = START_NS
        self.stop_ns = 0
        self.late_ns = 0
        """How long after its time a scan can be read."""
        self.burst = 1
        """The number of scans that can be read at a time."""
        self.every = 1
        """One scan is taken of this number of samples."""
        self.lost_of_each = (0, 100)
        self.pause = (0, 0)
        """Samples from one number to another of which no scan is taken."""
        self.jitter_ns = 0
        """Most by which a timestamp is late."""
        self.reads = 0
        self.opened_ns: list[int] = []
        self.zero = 0
        """The code of no current, less than in `codes_of`."""
        self.is_still = False
        self.l2_at_rail = False
        self.loses_all = False
        self.fault: OSError | ScanFormatError | None = None
        self.closed = 0
        self._read = 0

    def open_adc(self, config: Config) -> "Board":  # type: ignore[override]
        self.opened_ns.append(self.now_ns)
        return self

    def read(self) -> bytes:
        """The process may be stopped before the read."""
        self.now_ns, self.stop_ns = self.now_ns + self.stop_ns, 0
        self.reads += 1
        if self.fault:
            raise self.fault
        end = max(0, self.now_ns - self.late_ns - START_NS) * RATE // SECOND
        end -= end % self.burst
        numbers, self._read = np.arange(self._read, end), end
        lost, each = self.lost_of_each
        numbers = numbers[(numbers % self.every == 0) & (numbers % each >= lost)]
        numbers = numbers[(numbers < self.pause[0]) | (numbers >= self.pause[1])]
        if self.loses_all:
            return b""
        codes = codes_of(current(numbers / RATE, 50.0, AMPERES)) - self.zero
        if self.is_still:
            codes[:] = 0
        l2 = np.zeros_like(codes) if self.l2_at_rail else codes
        late_ns = numbers * 104_729_000 % max(1, self.jitter_ns)
        return pack(
            self.format, [codes, l2, codes], START_NS + numbers * (SECOND // RATE) + late_ns
        )

    def resize(self, hertz: float) -> None:
        self.buffer_hertz = hertz

    def close(self) -> None:
        self.closed += 1


def run(board: Board, sampler: Sampler, seconds: float) -> list[Reading]:
    readings, end_ns = [], board.now_ns + round(seconds * SECOND)
    while board.now_ns < end_ns:
        board.now_ns = max(board.now_ns, sampler.wake_ns)
        readings += sampler.poll(board.now_ns)
    return readings


class BlockBoard(Board):
    """An ADC without timestamps behind a DMA controller: see hat/iio.py.

    The controller fills one block while the other waits to be read. If both are full, it stops
    until a read.
    """

    in_blocks = True
    block_ns = SECOND // 10

    def __init__(self) -> None:
        super().__init__()
        self.format = hat_format(rate=RATE, timestamp=False)
        self.is_broken = False
        self._block_start_ns = START_NS

    @property
    def ready_ns(self) -> int:
        """When the block under way is complete."""
        return self._block_start_ns + self.block_ns

    def read(self) -> bytes:
        self.now_ns, self.stop_ns = self.now_ns + self.stop_ns, 0
        self.reads += 1
        blocks = min(2, (self.now_ns - self._block_start_ns) // self.block_ns)
        if self.is_broken or not blocks:
            return b""
        first = self._block_start_ns - START_NS
        numbers = np.arange(
            first * RATE // SECOND, (first + blocks * self.block_ns) * RATE // SECOND
        )
        self._block_start_ns += blocks * self.block_ns
        if blocks == 2:
            self._block_start_ns = self.now_ns
        return pack(self.format, [codes_of(current(numbers / RATE, 50.0, AMPERES))] * 3)

    def resize(self, hertz: float) -> None:
        super().resize(hertz)
        self.block_ns = round(hertz / 10) * SECOND // RATE
        self._block_start_ns = self.now_ns


def run_blocks(board: BlockBoard, sampler: Sampler, seconds: float) -> list[tuple[int, Reading]]:
    """As the daemon's loop does, which waits for the descriptors. The age of each reading too."""
    readings, end_ns = [], board.now_ns + round(seconds * SECOND)
    while board.now_ns < end_ns:
        wake_ns = sampler.wake_ns
        if sampler.descriptors() and board.ready_ns < wake_ns:
            wake_ns = board.ready_ns
            sampler.search_now(wake_ns)
        board.now_ns = max(board.now_ns, wake_ns)
        new = sampler.poll(board.now_ns)
        readings += [(board.now_ns - reading.end_ns, reading) for reading in new]
    return readings


def test_an_adc_that_delivers_blocks_is_read_before_the_kernel_needs_them_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = BlockBoard()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run_blocks(board, sampler, 3)
    board.reads = 0
    readings = run_blocks(board, sampler, 60)
    assert 59 <= len(readings) <= 61
    assert all(reading.amperes(Phase.L1) == pytest.approx(10, rel=1e-3) for _, reading in readings)
    assert max(age_ns for age_ns, _ in readings) < 1.2 * board.block_ns
    assert sampler.lost_scans_total == 0
    assert caplog.messages == []
    # Ten blocks per second, and the tries of a reading that is due within a block.
    assert board.reads < 60 * 20


@pytest.mark.parametrize("configured", [400, 40_000])
def test_blocks_of_a_wrong_length_get_that_of_the_measured_rate(configured: int) -> None:
    """Of 10 ms, or of 1 s, so that readings would be as old."""
    board = BlockBoard()
    board.resize(configured)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run_blocks(board, sampler, 8)
    assert board.block_ns == SECOND // 10
    assert len(board.opened_ns) == 1
    readings = run_blocks(board, sampler, 10)
    assert len(readings) >= 9
    assert max(age_ns for age_ns, _ in readings) < 1.2 * board.block_ns
    assert sampler.lost_scans_total == 0


def test_blocks_that_are_read_late_are_lost_scans(caplog: pytest.LogCaptureFixture) -> None:
    board = BlockBoard()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run_blocks(board, sampler, 5)
    board.stop_ns = SECOND // 2
    run_blocks(board, sampler, 5)
    lost = sampler.lost_scans_total / RATE
    assert lost == pytest.approx(0.3, abs=0.11)


def test_an_adc_that_is_readable_and_has_nothing_is_not_waited_for() -> None:
    board = BlockBoard()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run_blocks(board, sampler, 3)
    assert sampler.descriptors()
    board.is_broken = True
    board.now_ns += SECOND
    sampler.search_now(board.now_ns)
    sampler.poll(board.now_ns)
    assert sampler.stalled
    assert sampler.descriptors() == {}
    board.is_broken = False
    run_blocks(board, sampler, 2)
    assert sampler.descriptors()
    sampler.close()
    assert sampler.descriptors() == {}


@pytest.mark.parametrize("stop_seconds", [0.5, 1.5, 3.0])
def test_after_a_stop_before_the_read_timestamps_are_still_used(
    stop_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    readings = run(board, sampler, 3)
    board.stop_ns = round(stop_seconds * SECOND)
    readings += run(board, sampler, 5)
    assert sampler.readings_total == len(readings)
    assert caplog.messages == []
    assert [reading.lost_scans for reading in readings] == [0] * len(readings)
    ends_ns = [reading.end_ns for reading in readings]
    whole_ns = [START_NS + (n + 1) * SECOND for n in range(len(readings))]
    assert ends_ns == pytest.approx(whole_ns, abs=SECOND // 1000)
    assert readings[-1].amperes(Phase.L1) == pytest.approx(AMPERES, rel=1e-3)


def test_an_adc_that_stands_still_gives_no_reading() -> None:
    board = Board()
    signed = ScanType.parse("le:s16/16>>0")
    channels = tuple(replace(c, type=signed, offset=0.0) for c in board.format.channels)
    board.format = replace(board.format, channels=channels)
    board.zero = 2**15
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 3)
    board.is_still = True
    run(board, sampler, 2)
    assert run(board, sampler, 2) == []
    assert sampler.failed
    assert sampler.failed.failed_phases == tuple(Phase)
    board.is_still = False
    run(board, sampler, 2)
    assert run(board, sampler, 2)


def test_a_failed_input_gives_no_reading_but_can_be_inspected() -> None:
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


def test_the_history_has_the_valid_readings_and_a_new_configuration_keeps_it() -> None:
    board = Board()
    sampler = Sampler(board, Config(), clock=lambda: board.now_ns)

    def minutes() -> dict[float, int]:
        """How many minutes have each mean of L1."""
        asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        means = sampler.history.columns(board.now_ns + asleep_ns)[Phase.L1]["mean"]
        return Counter(round(value, 1) for value in means if not isnan(value))

    assert minutes() == {}
    run(board, sampler, 150)
    assert minutes() in ({AMPERES: 3}, {AMPERES: 4})
    before = minutes()
    board.l2_at_rail = True
    run(board, sampler, 300)
    assert minutes() == before
    board.l2_at_rail = False
    gain = replace(Config().channels.L1, gain=1.5)
    sampler.configure(replace(Config(), channels=replace(Config().channels, L1=gain)))
    assert minutes() == before
    run(board, sampler, 150)
    assert minutes()[AMPERES] == before[AMPERES]
    assert minutes()[1.5 * AMPERES] in (2, 3, 4)


def test_an_adc_that_was_silent_for_a_while_is_not_set_up_again_when_it_delivers_data() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 3)
    board.loses_all = True
    assert run(board, sampler, 4) == []
    assert sampler.stalled
    board.loses_all = False
    assert run(board, sampler, 3)
    assert len(board.opened_ns) == 1


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
    # Within a scan of the earliest possible, except when it tries to be earlier.
    assert sorted(ages_ns)[20] < board.late_ns + 2 * MILLISECOND
    assert max(ages_ns) < board.late_ns + 5 * MILLISECOND
    assert 40 <= board.reads < 60


def test_after_a_driver_was_late_for_a_while_the_readings_come_in_time_again() -> None:
    board = Board()
    board.late_ns = 30 * MILLISECOND
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 40)
    board.late_ns = 0

    run(board, sampler, 1)
    ages_ns = []
    for _ in range(300):
        board.now_ns = sampler.wake_ns
        ages_ns += [board.now_ns - reading.end_ns for reading in sampler.poll(board.now_ns)]
    # A tenth of a millisecond per reading, down to half a millisecond and a scan.
    assert ages_ns[0] > 25 * MILLISECOND
    assert ages_ns[150] < 20 * MILLISECOND
    assert max(ages_ns[-3:]) < 2 * MILLISECOND


def test_a_driver_that_becomes_very_late_has_not_stalled_and_is_not_waited_for_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 3)
    board.late_ns = 100 * MILLISECOND
    assert len(run(board, sampler, 30)) >= 29
    assert caplog.messages == []
    # It tries at least 50 ms after the scan's time.
    board.late_ns = 0
    run(board, sampler, 1)
    reading = run(board, sampler, 1)[-1]
    assert sampler.reading is reading
    assert 45 < (board.now_ns - reading.end_ns) / MILLISECOND < 52


def test_an_adc_that_delivers_in_bursts_of_a_second_has_not_stalled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 3)
    board.burst, board.late_ns = RATE, 300 * MILLISECOND
    assert len(run(board, sampler, 20)) >= 18
    assert caplog.messages == []


def test_a_stalled_adc_is_set_up_again_every_few_seconds_and_counts_on() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 3)
    scans_total = sampler.scans_total
    assert sampler.is_up
    assert (len(board.opened_ns), sampler.reconnects) == (1, 0)
    board.late_ns = 3600 * SECOND
    run(board, sampler, 17)
    assert sampler.stalled
    assert not sampler.is_up
    assert sampler.reconnects == len(board.opened_ns) - 1 == 3
    gaps = [after - before for before, after in itertools.pairwise(board.opened_ns[1:])]
    assert gaps == pytest.approx([5 * SECOND] * 2, rel=0.1)
    assert sampler.scans_total == scans_total
    board.late_ns = 0
    run(board, sampler, 3)
    assert sampler.is_up
    assert sampler.scans_total > scans_total


def test_scans_that_make_no_reading_set_the_adc_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    readings_total = len(run(board, sampler, 3))
    assert sampler.readings_total == readings_total
    feed = Metering.feed

    def nothing(
        self: Metering, scans: bytes, read_ns: int | None = None, began_ns: int | None = None
    ) -> list[Reading]:
        feed(self, scans, read_ns)
        return []

    monkeypatch.setattr(Metering, "feed", nothing)
    run(board, sampler, 25)
    gaps = [after - before for before, after in itertools.pairwise(board.opened_ns[1:])]
    assert len(gaps) >= 2
    # The first reading of an ADC may take longer; reads come at most a second apart.
    assert min(gaps) > 6.0 * SECOND
    assert max(gaps) < 7.2 * SECOND
    assert not sampler.stalled


@pytest.mark.parametrize("hertz", [1.6, 2, 2.5, 8, 100])
def test_an_adc_that_is_too_slow_is_not_up_and_not_set_up_again(
    caplog: pytest.LogCaptureFixture, hertz: float
) -> None:
    board = Board()
    board.every = round(RATE / hertz)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 60) == []
    assert not sampler.is_up
    assert board.opened_ns == [START_NS]
    assert board.reads < 400
    (message,) = caplog.messages
    assert message == (
        f"ADC delivers {hertz} scans per second, csp1d needs at least 200: no telegrams sent;"
        " set adc.sampling_frequency_hz, or the rate of its trigger"
    )
    board.every = 10
    assert len(run(board, sampler, 10)) >= 5
    assert sampler.is_up
    assert board.opened_ns == [START_NS]


def test_an_adc_that_becomes_too_slow_is_set_up_again_and_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert len(run(board, sampler, 10)) >= 8
    board.every = RATE
    run(board, sampler, 60)
    assert not sampler.is_up
    assert len(board.opened_ns) == 2
    assert len([text for text in caplog.messages if "csp1d needs at least 200" in text]) == 1
    assert [it.event for it in sampler.problems(board.now_ns) if it] == [Event.ADC_SLOW]
    board.every = 1
    assert len(run(board, sampler, 20)) >= 10
    assert sampler.is_up


def test_an_adc_that_stalls_again_and_again_is_not_set_up_for_each_stall() -> None:
    board = Board()
    board.lost_of_each = (round(4.5 * RATE), 6 * RATE)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 60)
    assert len(board.opened_ns) <= 2


@pytest.mark.parametrize("every", [2, 4, 10, 19])
def test_an_adc_that_falls_to_a_lower_rate_is_measured_again_soon(
    caplog: pytest.LogCaptureFixture, every: int
) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 10)
    board.every = every
    readings = run(board, sampler, 60)
    assert len(readings) >= 53
    assert sampler.lost_scans_total < 2 * RATE
    assert readings[-1].amperes(Phase.L1) == pytest.approx(10, rel=1e-3)
    assert "readings-lost" not in {record.__dict__["CSP1D_EVENT"] for record in caplog.records}
    assert sampler._metering is not None
    assert sampler._metering.timeline.clock_fault is None


def test_an_adc_that_is_set_up_again_and_again_without_a_reading_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    board.format = hat_format(rate=RATE, timestamp=False)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert len(run(board, sampler, 10)) >= 8
    board.lost_of_each = (1200, 3600)
    run(board, sampler, 100)
    assert len(run(board, sampler, 100)) <= 3
    assert len(board.opened_ns) > 10
    (problem,) = [it for it in sampler.problems(board.now_ns) if it]
    assert problem.event is Event.READINGS_LOST
    assert [record.__dict__["CSP1D_EVENT"] for record in caplog.records] == [
        "scans-lost",
        "readings-lost",
    ]
    board.lost_of_each = (0, 100)
    run(board, sampler, 30)
    assert not any(sampler.problems(board.now_ns))


class HeldBoard(Board):
    """A current that grows by 1 A per second tells when it flowed; reads may take long."""

    def __init__(self, has_timestamps: bool) -> None:
        super().__init__()
        self.format = hat_format(rate=RATE, timestamp=has_timestamps)
        self.hold_ns = 0

    def read(self) -> bytes:
        end = (self.now_ns - START_NS) * RATE // SECOND
        due = np.arange(self._read, end)
        numbers = due[(due < self.pause[0]) | (due >= self.pause[1])]
        seconds, stamps = numbers / RATE, START_NS + numbers * (SECOND // RATE)
        self._read = end
        codes = codes_of((5 + seconds) * current(seconds, 50.0, 1.0))
        self.now_ns += self.hold_ns
        return pack(self.format, [codes] * 3, stamps)

    def held_until(
        self, sampler: Sampler, end_seconds: float, least: float, most: float
    ) -> list[Reading]:
        """The readings that may be sent, if each read takes from `least` to `most` seconds."""
        holds, readings = np.random.default_rng(1), list[Reading]()
        while self.now_ns < START_NS + end_seconds * SECOND:
            self.now_ns = max(self.now_ns, sampler.wake_ns)
            self.hold_ns = round(holds.uniform(least, most) * SECOND)
            readings += self.fresh(sampler.poll(self.now_ns))
        return readings

    def fresh(self, readings: list[Reading]) -> list[Reading]:
        """The newest of the readings if it may be sent. It is as old as it seems."""
        newest = [reading for reading in readings[-1:] if self.now_ns - reading.end_ns <= SECOND]
        for reading in newest:
            flowed_ns = (reading.amperes(Phase.L1) - 5 + reading.window_seconds / 2) * SECOND
            assert START_NS + flowed_ns == pytest.approx(reading.end_ns, abs=50 * MILLISECOND)
        return newest


@pytest.mark.parametrize("has_timestamps", [True, False])
@pytest.mark.parametrize(
    ("least", "most", "count"), [(0.2, 0.6, 54), (0.8, 1.6, 1), (1, 3, 0), (2, 5, 0)]
)
def test_a_process_that_is_held_after_its_reads_sends_nothing_old(
    least: float, most: float, count: int, has_timestamps: bool
) -> None:
    board = HeldBoard(has_timestamps)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 6)
    assert len(board.held_until(sampler, 60, least, most)) >= count
    # After that, all is as before.
    board.hold_ns = 0
    run(board, sampler, 5)
    later = run(board, sampler, 20)
    assert len(later) >= 19
    assert board.fresh(later)
    assert sampler.lost_scans_total == 0
    assert sampler._metering is not None
    assert sampler._metering.timeline.clock_fault is None


@pytest.mark.parametrize("has_timestamps", [True, False])
def test_scans_that_are_lost_while_reads_take_long_cost_few_readings(has_timestamps: bool) -> None:
    board = HeldBoard(has_timestamps)
    board.pause = (20 * RATE, 21 * RATE + RATE // 2)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 6)
    fresh = board.held_until(sampler, 60, 0.12, 0.4)
    assert sampler.lost_scans_total == pytest.approx(1.5 * RATE, rel=0.02)
    assert len([reading for reading in fresh if reading.end_ns < START_NS + 20 * SECOND]) >= 13
    assert len([reading for reading in fresh if reading.end_ns > START_NS + 30 * SECOND]) >= 29


@pytest.mark.parametrize("hold_seconds", [0.2, 0.92, 1.5])
def test_an_adc_without_timestamps_that_is_started_by_a_held_process_seems_no_fresher(
    hold_seconds: float,
) -> None:
    board = HeldBoard(has_timestamps=False)
    board.hold_ns = round(hold_seconds * SECOND)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    while board.now_ns < START_NS + 40 * SECOND:
        board.now_ns = max(board.now_ns, sampler.wake_ns)
        for reading in sampler.poll(board.now_ns)[-1:]:
            flowed_ns = (reading.amperes(Phase.L1) - 5 + reading.window_seconds / 2) * SECOND
            assert reading.end_ns - START_NS < flowed_ns + 50 * MILLISECOND


@pytest.mark.parametrize("first_scans", [1, 4, 8])
def test_an_adc_that_pauses_after_its_first_scans_is_not_slow(
    caplog: pytest.LogCaptureFixture, first_scans: int
) -> None:
    board = Board()
    board.pause = (first_scans, 17_000)
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert len(run(board, sampler, 12)) >= 5
    assert "adc-slow" not in {record.__dict__["CSP1D_EVENT"] for record in caplog.records}


def test_a_slow_adc_whose_timestamps_are_late_is_slow(caplog: pytest.LogCaptureFixture) -> None:
    board = Board()
    board.every = RATE // 2
    board.late_ns = board.jitter_ns = 300 * MILLISECOND
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 60) == []
    assert not sampler.is_up
    assert board.opened_ns == [START_NS]
    assert len([text for text in caplog.messages if "csp1d needs at least 200" in text]) == 1
    assert "adc-clock" not in {record.__dict__["CSP1D_EVENT"] for record in caplog.records}


def test_an_adc_that_loses_too_many_scans_is_reported_and_set_up_again_after_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert len(run(board, sampler, 5)) >= 4
    board.lost_of_each = (6, 100)
    assert len(run(board, sampler, 30)) <= 1
    assert len(board.opened_ns) == 1
    assert sampler.lost_scans_total == pytest.approx(30 * 240, rel=0.05)
    assert [record.__dict__["CSP1D_EVENT"] for record in caplog.records] == [
        "scans-lost",
        "readings-lost",
    ]
    assert caplog.messages[1] == (
        "more than 5 % of the ADC scans are lost each second: no telegrams sent;"
        " reduce adc.sampling_frequency_hz, or the load of the processor"
    )
    run(board, sampler, 40)
    assert len(board.opened_ns) == 2, "the losses may be none"
    board.lost_of_each = (4, 100)
    assert len(run(board, sampler, 20)) >= 18


def test_an_adc_that_delivers_nothing_is_read_less_and_less_often() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 3)
    board.late_ns, board.reads = 3600 * SECOND, 0
    run(board, sampler, 5)
    assert sampler.stalled
    assert 20 < board.reads < 40


def test_a_reading_from_the_future_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert run(board, sampler, 3)
    feed = Metering.feed

    def ahead(
        self: Metering, scans: bytes, read_ns: int | None = None, began_ns: int | None = None
    ) -> list[Reading]:
        readings = feed(self, scans, read_ns)
        end_ns = board.now_ns + shift_ns
        return [dataclasses.replace(reading, end_ns=end_ns) for reading in readings]

    monkeypatch.setattr(Metering, "feed", ahead)
    shift_ns = 9 * MILLISECOND
    assert run(board, sampler, 3)
    shift_ns = 11 * MILLISECOND
    assert run(board, sampler, 3) == []


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            OSError(19, "No such device"),
            "ADC lost: csp1-hat-adc: No such device; check its connection",
        ),
        (ScanFormatError("half a scan"), "ADC lost: csp1-hat-adc: half a scan"),
    ],
)
def test_an_adc_that_fails_is_searched_for_each_second_and_counts_on(
    fault: OSError | ScanFormatError, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    board.l2_at_rail = True
    run(board, sampler, 3)
    scans_total = sampler.scans_total
    assert scans_total >= 2 * RATE
    assert sampler.failed
    caplog.clear()
    board.fault = fault
    run(board, sampler, 1)
    assert board.closed == 1
    assert not sampler.is_up
    assert sampler.failed is None
    run(board, sampler, 4)
    assert 4 <= len(board.opened_ns) <= 6
    assert caplog.messages == [message]
    board.fault, board.l2_at_rail = None, False
    assert run(board, sampler, 3)
    assert sampler.is_up
    assert sampler.scans_total > scans_total + 2 * RATE
    assert caplog.messages[1] == "ADC available again"


def test_an_adc_that_returns_and_delivers_nothing_is_stalled_not_lost() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)

    def problems() -> list[str]:
        return [p.event.event_name for p in sampler.problems(board.now_ns) if p]

    run(board, sampler, 3)
    board.fault = OSError(19, "No such device")
    run(board, sampler, 3)
    assert problems() == ["adc-lost"]
    board.fault, board.loses_all = None, True
    run(board, sampler, 3)
    for _ in range(40):
        run(board, sampler, 0.5)
        assert problems() == ["adc-stalled"]
    board.fault = OSError(19, "No such device")
    run(board, sampler, 8)
    assert problems() == ["adc-lost"]
    board.fault, board.loses_all = None, False
    run(board, sampler, 15)
    assert problems() == []


def test_a_failed_input_is_a_problem_until_readings_are_sent_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)

    def failed() -> bool:
        return Event.INPUT_FAILED in {it.event for it in sampler.problems(board.now_ns) if it}

    run(board, sampler, 5)
    assert not failed()
    board.l2_at_rail = True
    run(board, sampler, 5)
    assert failed()
    board.l2_at_rail = False
    run(board, sampler, 4)
    assert not failed()
    run(board, sampler, 10)
    caplog.clear()
    # One that comes and goes, as a loose contact does, remains one.
    for second in range(24):
        board.l2_at_rail = second % 6 == 0
        run(board, sampler, 1)
        assert failed() or second < 6
    board.l2_at_rail = False
    run(board, sampler, 20)
    assert not failed()
    caplog.clear()
    # So does one that fails each other second.
    for second in range(20):
        board.l2_at_rail = second % 2 == 0
        run(board, sampler, 1)
        assert failed() or second == 0
    board.l2_at_rail = False
    run(board, sampler, 4)
    assert not failed()
    run(board, sampler, 10)
    events = [record.__dict__["CSP1D_EVENT"] for record in caplog.records]
    assert [event for event in events if "input" in event] == ["input-failed", "input-good"]


def test_an_adc_without_a_configured_input_is_closed_again() -> None:
    board = Board()
    board.format = dataclasses.replace(board.format, channels=board.format.channels[:2])
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 2)
    assert not sampler.is_up
    assert len(board.opened_ns) == board.closed >= 2
    board.format = hat_format(rate=RATE)
    sampler.search_now(board.now_ns)
    assert run(board, sampler, 2)
    assert sampler.is_up


def test_a_new_configuration_discards_the_reading_and_reports_faults_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    board = Board()
    board.rate_fault = "adc.sampling_frequency_hz: 4000 is rejected"
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 3)
    assert sampler.reading
    timestamp, scans_total = sampler.reading_timestamp_seconds, sampler.scans_total
    (message,) = caplog.messages
    assert message.startswith(f"{board.rate_fault}; measuring at the actual rate: set ")
    sampler.configure(Config())
    assert sampler.reading is None
    # They are of the time since the start.
    assert (sampler.reading_timestamp_seconds, sampler.scans_total) == (timestamp, scans_total)
    assert sampler.wake_ns <= board.now_ns
    run(board, sampler, 3)
    assert sampler.reading
    assert caplog.messages == [message] * 2


def test_the_counters_of_a_phase_begin_at_0_before_its_first_reading() -> None:
    channels = replace(Config().channels, L2=ChannelConfig(""), L3=ChannelConfig(""))
    sampler = Sampler(SimulatedHat(parse("")), replace(Config(), channels=channels))
    assert dict(sampler.clipped_samples) == sampler.charge_coulombs == {Phase.L1: 0}
    sampler.configure(Config())
    assert dict(sampler.clipped_samples) == sampler.charge_coulombs == dict.fromkeys(Phase, 0)


def test_the_charge_counts_on() -> None:
    sampler = Sampler(SimulatedHat(parse("")), Config())

    def record(second: int, amperes: float, at_rail: bool = False) -> None:
        phases = {Phase.L1: PhaseCurrent(amperes, 0.0, 0.0, 0, at_rail)}
        sampler._record([Reading(1, second * SECOND, 0.5, phases, 50.0, 4000, 0)])

    for second in range(100):
        record(second, 10.0 + second)
    charge = sum(10.0 + second for second in range(100)) / 2
    assert sampler.charge_coulombs == {Phase.L1: charge, Phase.L2: 0, Phase.L3: 0}
    record(100, 500.0, at_rail=True)
    assert sampler.charge_coulombs == {Phase.L1: charge, Phase.L2: 0, Phase.L3: 0}, "unknown"
    sampler.configure(Config())
    assert sampler.charge_coulombs == {Phase.L1: charge, Phase.L2: 0, Phase.L3: 0}


def kept(sampler: Sampler) -> tuple[int, int, bytes]:
    """Set-up, number of the first scan, and content of the scans that are kept."""
    assert sampler.recent
    data = b"".join(data for _, data in sampler.recent.reads)
    return sampler.recent.set_up_ns, sampler.recent.first, data


def test_the_last_ten_seconds_of_scans_are_kept_as_read() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    assert sampler.recent is None
    run(board, sampler, 35)
    assert sampler.recent
    assert sampler.recent.format is board.format
    set_up_ns, first, data = kept(sampler)
    assert set_up_ns == board.opened_ns[0]
    assert first + sampler.recent.scans == sampler.scans_total
    assert 10 * RATE <= sampler.recent.scans <= 11.1 * RATE
    stamps = board.format.decode(data).timestamps
    assert stamps is not None
    numbers = first + np.arange(sampler.recent.scans)
    assert (stamps == START_NS + numbers * (SECOND // RATE)).all()


def test_the_scans_before_the_adc_was_lost_are_kept_until_there_are_new_ones() -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 15)
    before = kept(sampler)
    board.fault = OSError(19, "No such device")
    run(board, sampler, 60)
    assert kept(sampler) == before
    board.fault = None
    run(board, sampler, 3)
    set_up_ns, first, data = kept(sampler)
    assert set_up_ns == board.opened_ns[-1] > before[0]
    assert first == 0
    stamps = board.format.decode(data).timestamps
    assert stamps is not None
    assert stamps[0] > board.format.decode(before[2]).timestamps[-1]  # type: ignore[index]


@pytest.mark.parametrize("change", ["new configuration", "new buffer"])
def test_a_new_set_up_begins_a_new_recording_with_its_own_format(change: str) -> None:
    board = Board()
    sampler = Sampler(board, Config(), lambda: board.now_ns)
    run(board, sampler, 5)
    before = kept(sampler)
    if change == "new configuration":
        board.format = hat_format(rate=RATE, reference=True)
        board.loses_all = True
        sampler.configure(Config())
        run(board, sampler, 0.5)
        # The old scans with the old format, since there are no others.
        assert kept(sampler) == before
        assert sampler.recent
        assert sampler.recent.format == hat_format(rate=RATE)
        board.format, board.loses_all = hat_format(rate=RATE, said_rate=0), False
    else:
        board.buffer_hertz = 10 * RATE
    run(board, sampler, 3)
    set_up_ns, first, data = kept(sampler)
    assert (set_up_ns > before[0], first) == (True, 0)
    assert sampler.recent
    assert sampler.recent.format is board.format
    assert not data.startswith(before[2][:16])
