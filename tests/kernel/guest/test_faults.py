# SPDX-License-Identifier: Apache-2.0
"""Faults in the field: the ADC falters, devices disappear and return, the wire is blocked, the
daemon is stopped.

Each test changes the amperes during the fault, so that a telegram shows whether it is from
before or after it.
"""

from __future__ import annotations

import errno
import signal
import time

import pytest

from .board import CURRENT, P1, POWER, SECOND, Board, sleep_until, wait_for
from .conftest import AMPERES

OTHER = (7.0, 30.0, 12.0)
# How long a reading that was complete when the fault came may take to the wire.
UNDER_WAY_NS = SECOND // 4


@pytest.mark.parametrize("seconds", [1, 2])
def test_stalled_adc_silences_the_port(board: Board, seconds: int) -> None:
    """A charge point treats silence as a lost meter and falls back to its safe current; old
    amperes would mislead it.
    """
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    stall_ns = board.feeder.stall(seconds)
    back_ns = stall_ns + seconds * SECOND
    sleep_until(stall_ns + UNDER_WAY_NS)
    board.feeder.set(amperes=OTHER)
    after = board.wait_for_telegram(seconds + 10, stall_ns + UNDER_WAY_NS)
    board.wait_for_telegram(5, after.end_ns)
    # One reading is one second of scans: whatever is sent sooner is not from after the stall.
    assert back_ns + 0.9 * SECOND < after.start_ns < back_ns + 3 * SECOND
    assert {telegram.amperes for telegram in board.complete() if telegram.start_ns > back_ns} == {
        OTHER
    }


def test_current_led_goes_out_when_readings_stop(board: Board) -> None:
    wait_for("the current LED", lambda: board.lit(CURRENT), 3)
    stall_ns = board.feeder.stall(5)
    sleep_until(stall_ns + 5 * SECOND // 2)
    assert not board.lit(CURRENT)
    sleep_until(stall_ns + 9 * SECOND // 2)
    assert board.on_seconds(CURRENT, stall_ns + 5 * SECOND // 2, stall_ns + 9 * SECOND // 2) == 0
    assert 'csp1d_current_amperes{phase="L1"}' not in board.daemon.metrics()
    assert board.lit(POWER)


def test_hole_in_the_scans_is_counted_to_the_scan(board: Board) -> None:
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    before = board.daemon.metrics()
    start_ns = board.feeder.hole(100)
    sleep_until(start_ns + 4 * SECOND + SECOND // 2)
    after = board.daemon.metrics()
    assert after["csp1d_scans_lost_total"] - before["csp1d_scans_lost_total"] == 100
    # 25 ms of one second are too little to discard the reading.
    assert after["csp1d_readings_total"] - before["csp1d_readings_total"] >= 4
    assert len([telegram for telegram in board.complete() if telegram.start_ns > start_ns]) >= 4
    assert {telegram.amperes for telegram in board.complete()} == {AMPERES}


def test_unplugged_adc_is_found_again(board: Board) -> None:
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    reconnects = board.daemon.counter("csp1d_adc_reconnects_total")
    log = len(board.daemon.log)
    board.hat.adc.unplug()
    unplugged_ns = time.monotonic_ns()
    board.daemon.wait_for_metric("csp1d_adc_up", 0, 5)
    board.feeder.set(amperes=OTHER)
    time.sleep(2)
    board.hat.adc.plug()
    plugged_ns = time.monotonic_ns()
    after = board.wait_for_telegram(10, unplugged_ns + UNDER_WAY_NS)
    assert plugged_ns < after.start_ns < plugged_ns + 3 * SECOND
    assert after.amperes == OTHER
    assert board.daemon.metric("csp1d_adc_up") == 1
    assert board.daemon.counter("csp1d_adc_reconnects_total") == reconnects + 1
    board.daemon.wait_for_log("csp1-hat-adc", 1, after=log)


def test_adc_that_returns_under_another_name(board: Board) -> None:
    """While the old device is held open, the new one is another iio:deviceN: csp1d finds it by
    name.
    """
    old = board.hat.adc.node
    with open(f"/sys/bus/iio/devices/{old.name}/name"):
        board.hat.adc.unplug()
        board.hat.adc.plug()  # At once: the daemon still has the old one open.
    assert board.hat.adc.node != old
    plugged_ns = time.monotonic_ns()
    board.feeder.set(amperes=OTHER)
    board.wait_until_measuring(OTHER, 5)
    board.hat.line.set(True)
    assert board.wait_for_telegram(3, plugged_ns).amperes == OTHER


def test_port_that_hangs_up_and_returns(board: Board) -> None:
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    log = len(board.daemon.log)
    board.hat.tty.unplug()
    board.daemon.wait_for_metric("csp1d_p1_up", 0, 5)
    readings = board.daemon.counter("csp1d_readings_total")
    time.sleep(2)
    assert board.daemon.counter("csp1d_readings_total") > readings
    board.hat.tty.clear()
    board.hat.tty.plug()
    plugged_ns = time.monotonic_ns()
    after = board.wait_for_telegram(10, plugged_ns)
    assert after.start_ns < plugged_ns + 3 * SECOND
    assert board.daemon.metric("csp1d_p1_up") == 1
    board.daemon.wait_for_log("ttyHAT0", 1, after=log)


def test_lamps_that_return(board: Board) -> None:
    board.hat.leds.unplug()
    time.sleep(1.5)
    board.hat.leds.plug()
    board.hat.line.set(True)
    wait_for("the current LED", lambda: board.lit(CURRENT), 4)
    wait_for("the p1 LED", lambda: board.lit(P1), 4)
    assert board.lit(POWER)


def test_gpio_chip_that_returns(board: Board, kernel: tuple[int, int]) -> None:
    if kernel < (6, 9):
        # These kernels free the interrupt of a line that is in use: the module refuses, nothing
        # can be shown here.
        with pytest.raises(OSError, match="busy") as refused:
            board.hat.line.unplug()
        assert refused.value.errno == errno.EBUSY
        return
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    board.hat.line.unplug()
    board.daemon.wait_for_metric("csp1d_p1_requested", None, 5)
    time.sleep(1)
    board.hat.tty.clear()
    time.sleep(2)
    assert board.hat.tty.received() == b"", "no line, no request"
    board.hat.line.set(False)
    board.hat.line.plug()
    board.daemon.wait_for_metric("csp1d_p1_requested", 0, 15)
    board.hat.line.set(True)
    board.wait_for_telegram(3)
    assert board.lit(P1)


@pytest.mark.parametrize("adapter", [False, True], ids=["UART", "USB adapter"])
def test_stuck_wire_keeps_nothing_stale(board: Board, adapter: bool) -> None:
    """After a blocked wire, the reader receives present currents, not queued ones. Closing a USB
    adapter, which cannot flush, does not block the daemon for the 30 s that close() would wait.
    """
    board.hat.tty.adapter = adapter
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    dropped = board.daemon.counter("csp1d_telegrams_dropped_total")
    readings = board.daemon.counter("csp1d_readings_total")
    board.hat.tty.stuck = True
    time.sleep(4)
    assert board.daemon.counter("csp1d_readings_total") >= readings + 3
    # One telegram is in the port, and the one after it finds it still there.
    assert board.daemon.counter("csp1d_telegrams_dropped_total") >= dropped + 2
    board.measure(*OTHER)
    time.sleep(1.2)  # The last telegram of the old amperes has been replaced as well.
    board.hat.tty.clear()
    board.hat.tty.stuck = False
    free_ns = time.monotonic_ns()
    board.wait_for_telegram(5, free_ns + SECOND)
    whole = board.complete()
    assert {telegram.amperes for telegram in whole} == {OTHER}
    assert all(whole[0].data.startswith(telegram.data) for telegram in board.telegrams())


def test_daemon_that_was_stopped_sends_nothing_stale(board: Board) -> None:
    """Stopped for twice as long as the buffer holds: the kernel drops the newest scans, and the
    oldest are stale.
    """
    board.hat.line.set(True)
    board.wait_for_end_of_telegram()
    lost = board.daemon.counter("csp1d_scans_lost_total")
    refused = board.hat.adc.dropped
    board.daemon.signal(signal.SIGSTOP)
    stopped_ns = time.monotonic_ns()
    try:
        sleep_until(stopped_ns + 6 * SECOND)
        board.feeder.set(amperes=OTHER)
        sleep_until(stopped_ns + 8 * SECOND)
    finally:
        board.daemon.signal(signal.SIGCONT)
    refused_now = board.hat.adc.dropped - refused
    after = board.wait_for_telegram(10, stopped_ns)
    board.wait_for_telegram(5, after.end_ns)
    assert after.start_ns < stopped_ns + 12 * SECOND
    assert {
        telegram.amperes for telegram in board.telegrams() if telegram.start_ns > stopped_ns
    } == {OTHER}
    assert refused_now > 8000, "the buffer did not overflow"
    # Those pushed between the signal and the first read could still be refused.
    counted = board.daemon.counter("csp1d_scans_lost_total") - lost
    assert counted == board.hat.adc.dropped - refused
