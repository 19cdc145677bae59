# SPDX-License-Identifier: Apache-2.0
"""The request line: telegrams start when it rises and stop when it falls, and a bad line does
no harm.
"""

from __future__ import annotations

import time

import pytest

from .board import P1, SECOND, Board, sleep_until, wait_for

STORM_SECONDS = 5


def test_nothing_is_sent_while_the_line_is_low(board: Board) -> None:
    time.sleep(3)
    assert board.hat.tty.received() == b""
    board.daemon.wait_for_metric("csp1d_p1_requested", 0, 12)


def test_rising_line_is_answered_at_once(board: Board) -> None:
    """An unsent reading is sent immediately, without waiting for the next one; measured at several
    phases of a second.
    """
    delays = []
    for number in range(6):
        time.sleep(1.1 + 0.15 * number)  # There is an unsent reading again.
        board.hat.tty.clear()
        start_ns = time.monotonic_ns()
        board.hat.line.set(True)
        telegram = board.wait_for_telegram(3, start_ns)
        board.hat.line.set(False)
        delays.append((telegram.start_ns - start_ns) / SECOND)
    # If each waited for the next reading, these would be spread over a second.
    assert sorted(delays)[4] < 0.25, delays


def test_fall_in_mid_telegram_stops_it(board: Board) -> None:
    board.hat.line.set(True)
    whole = board.wait_for_end_of_telegram()
    board.hat.line.set(False)
    aborted = board.daemon.counter("csp1d_telegrams_aborted_total")

    # The kernel times both edges: up, and down again when two thirds of the telegram are out at
    # most.  An unsent reading is there again, so the telegram starts with the rise; a late start
    # makes it shorter, down to nothing.
    for _ in range(5):
        time.sleep(1.5)
        board.hat.tty.clear()
        board.hat.line.storm(45_000, 2)
        time.sleep(1.5)  # Longer than a reading is fresh: what could come later would have come.
        if board.hat.tty.received():
            break
    (fragment,) = board.telegrams()
    assert not fragment.complete
    assert whole.data.startswith(fragment.data)
    assert board.daemon.counter("csp1d_telegrams_aborted_total") == aborted + 1

    # Bytes of an aborted telegram are not sent with the next request: split() would reject
    # them.
    board.hat.line.set(True)
    board.wait_for_telegram(3)
    first = board.telegrams()[1]
    first.check()
    assert first.data == whole.data


def test_a_port_that_cannot_flush_sends_no_reading_twice(board: Board) -> None:
    """A USB adapter: the rest of an aborted telegram leaves, and its reading is not sent again."""
    board.hat.tty.adapter = True
    board.hat.line.set(True)
    reading_ns = board.wait_for_end_of_telegram().start_ns
    board.hat.line.set(False)
    log = len(board.daemon.log)
    for count in (1, 2):
        aborted = board.daemon.counter("csp1d_telegrams_aborted_total")
        # Half a second after a reading the line rises, falls in mid-telegram, and rises again. A
        # telegram that starts late is not aborted: then once more.
        for _ in range(5):
            sleep_until(reading_ns := _half_past(reading_ns))
            board.hat.tty.clear()
            board.hat.line.storm(40_000, 3)
            sleep_until(reading_ns + 2 * SECOND)
            board.hat.line.set(False)
            if board.daemon.counter("csp1d_telegrams_aborted_total") > aborted:
                break
            reading_ns += SECOND // 2
        assert board.daemon.counter("csp1d_telegrams_aborted_total") == aborted + 1
        starts = [(telegram.start_ns - reading_ns) / SECOND for telegram in board.complete()]
        assert len(board.telegrams()) == len(starts), "the rest has left"
        # One with the rise, and one for each of the two readings that followed.
        assert starts == [
            pytest.approx(0.04, abs=0.04),
            pytest.approx(0.5, abs=0.2),
            pytest.approx(1.5, abs=0.2),
        ], count
        reading_ns += SECOND // 2
    assert board.daemon.log[log:].count("cannot flush") == 1


def _half_past(reading_ns: int) -> int:
    """Half a second after a reading that is still to come, where one ended at `reading_ns`."""
    seconds = (time.monotonic_ns() - reading_ns) // SECOND + 2
    return reading_ns + seconds * SECOND + SECOND // 2


def test_led_follows_both_edges(board: Board) -> None:
    edges = []
    for level in (True, False, True, False):
        edges.append((time.monotonic_ns(), int(level)))
        board.hat.line.set(level)
        time.sleep(0.5)
    changes = [change for change in board.hat.leds.log() if change.name == P1]
    assert [change.brightness for change in changes] == [level for _, level in edges]
    delays = [(change.ns - ns) / SECOND for change, (ns, _) in zip(changes, edges, strict=True)]
    assert max(delays) < 0.25, delays


@pytest.mark.parametrize("half_period_us", [10_000, 500], ids=["50 Hz", "1 kHz"])
def test_oscillating_line(board: Board, half_period_us: int) -> None:
    """A loose contact: telegrams begin and stop, and nothing else is affected.

    How often such a line is looked at is limited, which tests/test_daemon.py counts. What that
    costs is shown here; it is no measure, since emulation slows Python down many times over.
    """
    board.hat.line.set(True)
    whole = board.wait_for_end_of_telegram()
    board.hat.line.set(False)
    time.sleep(1)
    board.hat.tty.clear()

    before, cpu, start = board.daemon.metrics(), board.daemon.cpu_seconds(), time.monotonic()
    sleeps = board.daemon.sleeps()
    board.hat.line.storm(half_period_us, STORM_SECONDS * 1_000_000 // half_period_us)
    after, used = board.daemon.metrics(), board.daemon.cpu_seconds() - cpu
    seconds = time.monotonic() - start
    print(f"{used / seconds:.0%} of a processor, {seconds:.1f} s")
    # A hundred polls of the line per second, some loop turns for the rest, and for the scrapes.
    assert (board.daemon.sleeps() - sleeps) / seconds < 200

    pieces = board.telegrams()
    assert pieces, "no telegram was begun: the line was not seen"
    assert all(whole.data.startswith(piece.data) for piece in pieces)
    assert len(board.complete()) <= seconds + 1, "more than one a second"
    readings = after["csp1d_readings_total"] - before["csp1d_readings_total"]
    assert seconds - 1.5 <= readings <= seconds + 1.5
    assert after["csp1d_scans_lost_total"] == before["csp1d_scans_lost_total"]
    recovers(board)


def recovers(board: Board) -> None:
    """After a storm the line works as ever."""
    wait_for("the line to be seen low", lambda: not board.lit(P1), 3)
    board.hat.tty.clear()
    start_ns = time.monotonic_ns()
    board.hat.line.set(True)
    sleep_until(start_ns + 3 * SECOND + SECOND // 2)
    # One immediately, the others with the readings; the last one may be under way.
    assert 3 <= len(board.complete()) <= 5
    assert board.lit(P1)
