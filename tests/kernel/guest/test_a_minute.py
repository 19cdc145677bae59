# SPDX-License-Identifier: Apache-2.0
"""One minute in the life of the sensor, the load changing every twelve seconds, judged from
several sides.

The line is high all the time.  The currents are whole amperes, different on each phase.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import pytest

from .board import CONFIGURATION, CURRENT, P1, POWER, SECOND, Board, sleep_until
from .conftest import AMPERES, restore
from .hat import LedChange
from .telegrams import LINE_BYTES_PER_SECOND, Received, split

STEP_NS = 12 * SECOND
STEPS = [(0, 0, 0), (1, 0, 0), (5, 3, 2), (24, 15, 10), (30, 20, 10)]
# Time for a reading that straddles a change to end, and for its telegram and the LED period
# after it.
SETTLE_NS = 5 * SECOND // 2


@dataclass(frozen=True)
class Minute:
    """What was seen from outside in that minute."""

    start_ns: int
    telegrams: list[Received]
    leds: list[LedChange]
    before: dict[str, float]
    after: dict[str, float]
    scraped_seconds: float  # between these two
    current_led_pulses: list[list[float]]  # by step: for how many seconds it was lit each time
    current_led_lit: list[float]  # by step: how much of the time

    def grew(self, metric: str) -> int:
        """How much a counter has grown."""
        return int(self.after[metric] - self.before[metric])

    def step_of(self, ns: int) -> int | None:
        """Number of the step to which a settled observation belongs; None while the load had just
        changed.
        """
        step, since_ns = divmod(ns - self.start_ns, STEP_NS)
        return step if 0 <= step < len(STEPS) and since_ns >= SETTLE_NS else None


@pytest.fixture(scope="module")
def minute(shared_board: Board) -> Minute:
    """A minute with the line high, all records of it."""
    board = shared_board
    restore(board.hat)
    board.measure(*STEPS[0])
    board.hat.tty.clear()
    board.hat.leds.clear()
    start_ns = time.monotonic_ns()
    before = board.daemon.metrics()
    board.hat.line.set(True)
    for number, amperes in enumerate(STEPS):
        board.feeder.set(amperes=amperes)
        sleep_until(start_ns + (number + 1) * STEP_NS)
    # The last telegram may be under way: let it end, the line's fall is another test's matter.
    board.wait_for_end_of_telegram()
    board.hat.line.set(False)
    after = board.daemon.metrics()
    seconds = (time.monotonic_ns() - start_ns) / SECOND
    settled = [
        (start_ns + step * STEP_NS + SETTLE_NS, start_ns + (step + 1) * STEP_NS)
        for step in range(len(STEPS))
    ]
    return Minute(
        start_ns,
        board.telegrams(),
        board.hat.leds.log(),
        before,
        after,
        seconds,
        [board.pulses(CURRENT, *times) for times in settled],
        [board.on_seconds(CURRENT, *times) * SECOND / (times[1] - times[0]) for times in settled],
    )


def test_one_telegram_a_second(minute: Minute) -> None:
    end_ns = minute.start_ns + len(STEPS) * STEP_NS
    assert 59 <= sum(telegram.start_ns < end_ns for telegram in minute.telegrams) <= 61
    assert minute.grew("csp1d_telegrams_sent_total") == len(minute.telegrams)


def test_never_silent_for_long(minute: Minute) -> None:
    assert max(b.start_ns - a.start_ns for a, b in pairwise(minute.telegrams)) < 1.1 * SECOND


def test_every_telegram_is_whole_with_a_right_checksum(minute: Minute) -> None:
    for telegram in minute.telegrams:
        telegram.check()


def test_telegrams_go_out_in_one_piece(minute: Minute) -> None:
    for telegram in minute.telegrams:
        seconds = (len(telegram.data) - 1) / LINE_BYTES_PER_SECOND
        assert (telegram.end_ns - telegram.start_ns) / SECOND == pytest.approx(seconds, abs=0.05)


def test_telegrams_are_the_published_one(minute: Minute) -> None:
    # Length and checksum of the device's own telegram at 0 A, printed in its manual for this
    # serial number.
    unloaded = [
        telegram.data for telegram in minute.telegrams if minute.step_of(telegram.start_ns) == 0
    ]
    assert len(unloaded) >= 8
    assert {(len(data), data[-7:]) for data in unloaded} == {(755, b"!A60C\r\n")}


@pytest.mark.parametrize("step", range(len(STEPS)), ids=str)
def test_amperes_are_those_that_flow(minute: Minute, step: int) -> None:
    shown = [
        telegram.amperes
        for telegram in minute.telegrams
        if minute.step_of(telegram.start_ns) == step
    ]
    assert len(shown) >= 8
    assert set(shown) == {STEPS[step]}


def test_no_scan_is_lost(minute: Minute) -> None:
    assert minute.grew("csp1d_scans_lost_total") == 0
    assert minute.grew("csp1d_scans_total") == pytest.approx(
        4000 * minute.scraped_seconds, abs=2 * 4000
    )
    assert minute.grew("csp1d_readings_total") == pytest.approx(minute.scraped_seconds, abs=2)


@pytest.mark.parametrize(
    ("step", "seconds"), [(1, 0.02), (2, 0.2), (3, 0.98)], ids=["1 A", "10 A", "49 A"]
)
def test_current_led_is_lit_20_ms_for_each_ampere(
    minute: Minute, step: int, seconds: float
) -> None:
    pulses = minute.current_led_pulses[step]
    assert len(pulses) >= 7
    assert pulses == pytest.approx([seconds] * len(pulses), abs=0.01)


def test_current_led_is_dark_at_no_current_and_shines_from_50_amperes_on(minute: Minute) -> None:
    assert (minute.current_led_pulses[0], minute.current_led_lit[0]) == ([], 0)
    assert (minute.current_led_pulses[4], minute.current_led_lit[4] > 0.999) == ([], True)


def test_power_led_does_not_flicker(minute: Minute) -> None:
    assert [change for change in minute.leds if change.name == POWER] == []


def test_request_led_follows_the_line(minute: Minute) -> None:
    assert [change.brightness for change in minute.leds if change.name == P1] == [1, 0]


def test_real_uart(own_board: Board) -> None:
    """A while on a 16550, judged by what its wire brought out of the machine."""
    board = own_board
    with open("/results/ttyS1", "rb") as witness:
        witness.seek(0, 2)
        board.daemon.config.write_text(CONFIGURATION.replace("/dev/ttyHAT0", "/dev/ttyS1"))
        board.daemon.start()
        board.wait_until_measuring(AMPERES)
        board.hat.line.set(True)
        before = board.daemon.metrics()
        time.sleep(15)
        board.hat.line.set(False)
        after = board.daemon.metrics()
        time.sleep(1.5)  # Nothing may be sent after the fall, so there is no event to wait for.
        data = witness.read()
    *telegrams, last = split(data)
    assert 14 <= len(telegrams) <= 16
    assert after["csp1d_scans_lost_total"] == before["csp1d_scans_lost_total"]
    for telegram in telegrams:
        telegram.check()
        assert telegram.amperes == AMPERES
    assert telegrams[0].data.startswith(last.data), (
        "the last one, perhaps stopped by the line, is a clean beginning"
    )
