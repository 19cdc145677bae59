# SPDX-License-Identifier: Apache-2.0
"""Checks the witnesses: the reader of telegrams, and the host at the second UART."""

from __future__ import annotations

import termios
import time
import tty
from pathlib import Path

import pytest

from .telegrams import crc16, split

BODY = b"/XMX5X\r\n\r\n1-0:31.7.0(024*A)\r\n1-0:51.7.0(010*A)\r\n1-0:71.7.0(003*A)\r\n!"
TELEGRAM = BODY + b"%04X\r\n" % crc16(BODY)


def test_checksum_is_the_one_of_the_catalogues() -> None:
    assert crc16(b"123456789") == 0xBB3D


def test_reader_finds_currents_and_times() -> None:
    (telegram,) = split(TELEGRAM, range(1000, 1000 + len(TELEGRAM)))
    telegram.check()
    assert telegram.amperes == (24, 10, 3)
    assert (telegram.start_ns, telegram.end_ns) == (1000, 999 + len(TELEGRAM))


def test_reader_tells_a_stopped_telegram_from_a_whole_one() -> None:
    stopped, whole, under_way = split(TELEGRAM[:9] + TELEGRAM + TELEGRAM[:-1])
    assert [piece.complete for piece in (stopped, whole, under_way)] == [False, True, False]


@pytest.mark.parametrize(
    "data", [TELEGRAM + TELEGRAM[9:], TELEGRAM[9:] + TELEGRAM, TELEGRAM + b"\r\n"]
)
def test_reader_refuses_rests_of_stopped_telegrams(data: bytes) -> None:
    with pytest.raises(AssertionError, match=r"outside a telegram|in the middle"):
        split(data)


@pytest.mark.parametrize(
    ("good", "bad"),
    [(b"024", b"025"), (b"\r\n1-", b"\n1-"), (b"/XMX5", b"/XM5")],
    ids=["another current", "no CR", "no flag"],
)
def test_reader_refuses_damaged_telegrams(good: bytes, bad: bytes) -> None:
    (telegram,) = split(TELEGRAM.replace(good, bad, 1))
    with pytest.raises(AssertionError):
        telegram.check()


def test_host_sees_what_leaves_the_second_uart() -> None:
    witness = Path("/results/ttyS1")
    before = witness.stat().st_size
    with open("/dev/ttyS1", "wb", buffering=0) as port:
        tty.setraw(port.fileno())
        port.write(b"seen from outside")
        termios.tcdrain(port.fileno())
    time.sleep(0.5)
    assert witness.read_bytes()[before:] == b"seen from outside"
