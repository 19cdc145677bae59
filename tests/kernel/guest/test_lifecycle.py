# SPDX-License-Identifier: Apache-2.0
"""Starting, ending and reconfiguring the daemon, and the ADC's triggers."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .board import CONFIGURATION, CURRENT, P1, POWER, SECOND, Board, sleep_until, wait_for
from .conftest import AMPERES


def line_consumer(board: Board) -> str | None:
    """The consumer of the request line in the kernel's list; None if it is free."""
    gpio = Path("/sys/kernel/debug/gpio").read_text()
    match = re.search(r"\(P1_REQUEST *(?:\|([^)]*))?\)", gpio)
    assert match is not None, gpio
    return match.group(1).strip() if match.group(1) else None


def test_reload_takes_a_good_configuration_and_refuses_a_bad_one(board: Board) -> None:
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    good = board.daemon.config.read_text()
    log = len(board.daemon.log)
    try:
        board.daemon.config.write_text(good.replace("XMX_P1CS_V05", "XMX_P1CS_V77"))
        board.daemon.signal(signal.SIGHUP)
        wait_for("the new text", lambda: b"(XMX_P1CS_V77)" in board.complete()[-1].data, 5)

        board.daemon.config.write_text(good + "\n[leds]\ncurent = 'a slip of the pen'\n")
        board.daemon.signal(signal.SIGHUP)
        complaint = board.daemon.wait_for_log(r"csp1d\.toml.*curent", 5, after=log)
        assert "ERROR" in complaint
        reloaded_ns = time.monotonic_ns()
        time.sleep(2.5)
        later = [telegram for telegram in board.complete() if telegram.start_ns > reloaded_ns]
        assert len(later) >= 2
        assert all(b"(XMX_P1CS_V77)" in telegram.data for telegram in later)
    finally:
        board.daemon.config.write_text(good)
        board.daemon.signal(signal.SIGHUP)
    wait_for("the old text", lambda: b"(XMX_P1CS_V05)" in board.complete()[-1].data, 5)


def test_killed_daemon_leaves_no_led_lit_and_starts_again(board: Board) -> None:
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    assert board.lit(CURRENT)
    board.daemon.kill()
    killed_ns = time.monotonic_ns()
    sleep_until(killed_ns + 3 * SECOND // 2)
    assert not board.lit(CURRENT), "an LED must not say that it measures when it does not"
    assert board.hat.adc.enabled, (
        "the kernel leaves the buffer on, so this start is not like the first"
    )
    time.sleep(1)
    board.daemon.start()
    answering_ns = time.monotonic_ns()
    telegram = board.wait_for_telegram(5, killed_ns + SECOND)
    assert telegram.start_ns < answering_ns + 4 * SECOND
    assert telegram.amperes == AMPERES
    assert board.on_seconds(CURRENT, killed_ns + 3 * SECOND // 2, killed_ns + 5 * SECOND // 2) == 0


def test_terminated_daemon_tidies_up(board: Board) -> None:
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    assert board.lit(CURRENT)
    assert board.lit(P1)
    assert line_consumer(board) is not None
    enable = board.hat.adc.device / "buffer" / "enable"
    assert enable.read_text() == "1\n"

    assert board.daemon.terminate() == 0

    assert enable.read_text() == "0\n"
    assert line_consumer(board) is None
    time.sleep(1.2)  # An LED that still blinked by itself would show within its period.
    assert [board.lit(led) for led in (POWER, CURRENT, P1)] == [True, False, False]


def wait_for_first_byte(board: Board) -> None:
    """Wait until the next telegram is on the line."""
    board.wait_for_end_of_telegram()
    board.hat.tty.clear()
    wait_for("the first byte", lambda: len(board.hat.tty.log()) > 0, 3)


@pytest.mark.parametrize("adapter", [False, True], ids=["UART", "USB adapter"])
def test_a_stop_lets_the_telegram_on_the_line_end(board: Board, adapter: bool) -> None:
    board.hat.tty.adapter = adapter
    board.hat.line.set(True)
    wait_for_first_byte(board)
    assert board.daemon.terminate() == 0
    time.sleep(0.1)
    assert [telegram.complete for telegram in board.telegrams()] == [True]


def test_a_reload_lets_the_telegram_on_the_line_end_and_the_next_is_in_time(board: Board) -> None:
    board.hat.line.set(True)
    good = board.daemon.config.read_text()
    try:
        board.daemon.config.write_text(good.replace("XMX_P1CS_V05", "XMX_P1CS_V77"))
        wait_for_first_byte(board)
        board.daemon.signal(signal.SIGHUP)
        wait_for("the next one", lambda: len(board.complete()) >= 2, 5)
        first, second = board.telegrams()[:2]
        assert first.complete
        assert (second.start_ns - first.start_ns) / SECOND == pytest.approx(1, abs=0.3)
        assert b"(XMX_P1CS_V77)" in second.data
    finally:
        board.daemon.config.write_text(good)
        board.daemon.signal(signal.SIGHUP)
    wait_for("the old text", lambda: b"(XMX_P1CS_V05)" in board.complete()[-1].data, 5)


@pytest.fixture
def triggered_board(own_board: Board) -> Iterator[Board]:
    """A board whose ADC has no clock of its own, as most have: its buffer needs a trigger."""
    own_board.hat.adc.configure(triggered=True)
    yield own_board
    own_board.daemon.kill()
    own_board.hat.adc.configure(triggered=False)


def attached_trigger(board: Board) -> str:
    """Name of the trigger that the kernel says is attached to the ADC."""
    return (board.hat.adc.device / "trigger/current_trigger").read_text().strip()


def start_with_trigger(board: Board, trigger: str) -> None:
    """Start the daemon with this ``[adc] trigger``."""
    board.daemon.config.write_text(
        CONFIGURATION.replace("[adc]\n", f'[adc]\ntrigger = "{trigger}"\n')
    )
    board.daemon.start()


def test_trigger_is_attached_by_name(triggered_board: Board) -> None:
    start_with_trigger(triggered_board, "csp1-hat-trigger")
    triggered_board.wait_until_measuring(AMPERES)
    assert attached_trigger(triggered_board) == "csp1-hat-trigger"
    assert triggered_board.hat.adc.enabled


def test_unknown_trigger_is_named_and_the_daemon_stays(triggered_board: Board) -> None:
    """The kernel accepts any name without an error and detaches the present trigger."""
    start_with_trigger(triggered_board, "nobody-made-this")
    triggered_board.daemon.wait_for_log("trigger.*nobody-made-this", 5)
    time.sleep(2)
    assert triggered_board.daemon.running
    assert triggered_board.daemon.metric("csp1d_adc_up") == 0
    assert triggered_board.daemon.log.count("nobody-made-this") == 1, "logged once"


def test_hrtimer_trigger_is_made(triggered_board: Board, kernel: tuple[int, int]) -> None:
    """``hrtimer:NAME`` is made, set to the sampling frequency and attached, where the kernel has
    such triggers.
    """
    if kernel < (6, 12):  # Debian's 6.1 was built without them: then the log reports it.
        start_with_trigger(triggered_board, "hrtimer:csp1d-test")
        triggered_board.daemon.wait_for_log("trigger.*hrtimer:csp1d-test", 5)
        assert triggered_board.daemon.metric("csp1d_adc_up") == 0
        return
    subprocess.run(["modprobe", "iio-trig-hrtimer"], check=True)
    start_with_trigger(triggered_board, "hrtimer:csp1d-test")
    triggered_board.wait_until_measuring(AMPERES)
    assert attached_trigger(triggered_board) == "csp1d-test"
    made = {
        (path / "name").read_text().strip(): path
        for path in Path("/sys/bus/iio/devices").glob("trigger*")
    }["csp1d-test"]
    assert float((made / "sampling_frequency").read_text()) == 4000
    triggered_board.hat.line.set(True)
    assert triggered_board.wait_for_telegram(3).amperes == AMPERES
