# SPDX-License-Identifier: Apache-2.0
"""Checks the instrument before it measures: the virtual HAT without csp1d.

The name makes pytest run this file first, when neither a daemon nor a feeder has the devices yet.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import select
import signal
import struct
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import periphery
import pytest

from .hat import TTY, Feeder, Hat

TELEGRAM = bytes(random.Random(755).randrange(0x20, 0x7F) for _ in range(755))
BYTE_NS = 10 / 115200 * 1e9
STEP_NS = 250_000  # at 4 kHz
# A kernel timer of this length ends up to some ticks late, never early.
LATE_SECONDS = 0.05


@pytest.fixture
def board(hat: Hat) -> Iterator[Hat]:
    """The HAT in its initial state, everything plugged in, not in use."""
    assert not hat.adc.enabled, "the ADC is in use: these tests need the HAT for themselves"
    restore(hat)
    hat.leds.clear()
    hat.tty.clear()
    yield hat
    restore(hat)


def restore(hat: Hat) -> None:
    hat.adc.configure(
        scan_type="le:s16/16>>0", triggered=False, scale=3300 / 65536, offset=0, separate=False
    )
    for part in (hat.line, hat.leds, hat.tty):
        part.plug()
    hat.line.set(False)
    hat.tty.stuck = hat.tty.adapter = False


@contextlib.contextmanager
def capture(hat: Hat, *, length: int = 4096, trigger: str = "") -> Iterator[int]:
    """The buffer enabled with three channels and the timestamp; a descriptor to read from."""
    device = hat.adc.device
    (device / "buffer/enable").write_text("0")
    for number in range(4):
        (device / f"scan_elements/in_voltage{number}_en").write_text(str(int(number < 3)))
    (device / "scan_elements/in_timestamp_en").write_text("1")
    (device / "current_timestamp_clock").write_text("monotonic")
    if trigger:
        (device / "trigger/current_trigger").write_text(trigger)
        assert (device / "trigger/current_trigger").read_text().strip() == trigger
    (device / "buffer/length").write_text(str(length))
    fd = os.open(hat.adc.node, os.O_RDONLY | os.O_NONBLOCK)
    try:
        (device / "buffer/enable").write_text("1")
        yield fd
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):  # Unplugged meanwhile.
            (device / "buffer/enable").write_text("0")


@contextlib.contextmanager
def serial_port() -> Iterator[int]:
    """The port as csp1d has it: 115200 8N1, raw, non-blocking."""
    fd = os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(fd)
        settings = termios.tcgetattr(fd)
        settings[4] = settings[5] = termios.B115200
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        yield fd
    finally:
        with contextlib.suppress(termios.error):  # Unplugged meanwhile.
            termios.tcflush(fd, termios.TCOFLUSH)
        os.close(fd)


def waiting(fd: int) -> int:
    """Bytes that the kernel holds for the wire."""
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))
    return int(count)


@contextlib.contextmanager
def refused(number: int) -> Iterator[None]:
    """The block ends in an OSError of this number."""
    with pytest.raises(OSError, match=rf"\[Errno {number}\]"):
        yield


# ---- ADC ----


@pytest.mark.parametrize(
    ("scan_type", "scan_bytes"),
    [("le:s16/16>>0", 16), ("be:u12/16>>4", 16), ("be:s24/32>>8", 24), ("le:s8/8>>0", 16)],
)
def test_scans_come_out_byte_for_byte(board: Hat, scan_type: str, scan_bytes: int) -> None:
    board.adc.configure(scan_type=scan_type)
    declared = board.adc.device / "scan_elements/in_voltage0_type"
    assert declared.read_text().strip() == scan_type
    with capture(board) as fd:
        assert board.adc.scan_bytes == scan_bytes
        data = os.urandom(1000 * scan_bytes)
        board.adc.push(data)
        assert os.read(fd, len(data) + scan_bytes) == data
        with pytest.raises(BlockingIOError):
            os.read(fd, scan_bytes)


def test_what_cannot_be_pushed_is_refused(board: Hat) -> None:
    with refused(errno.EAGAIN):
        board.adc.push(bytes(16))
    with capture(board), refused(errno.EINVAL):
        board.adc.push(bytes(15))
    board.adc.unplug()
    with refused(errno.ENODEV):
        board.adc.push(bytes(16))


def test_a_full_buffer_drops_the_newest_scans(board: Hat) -> None:
    dropped = board.adc.dropped
    with capture(board, length=64) as fd:
        data = os.urandom(100 * 16)
        board.adc.push(data)
        assert os.read(fd, len(data)) == data[: 64 * 16]
    assert board.adc.dropped - dropped == 36


def test_attributes_are_those_asked_for(board: Hat) -> None:
    board.adc.configure(scale=[0.05, 0.1, 0.2, 0.4], offset=-2048, separate=True)
    device = board.adc.device
    assert (device / "name").read_text() == "csp1-hat-adc\n"
    assert (device / "label").read_text() == "csp1-hat\n"
    assert float((device / "in_voltage2_scale").read_text()) == 0.2
    assert float((device / "in_voltage0_offset").read_text()) == -2048
    rate = device / "sampling_frequency"
    rate.write_text("2000")
    assert float(rate.read_text()) == 2000
    with capture(board), refused(errno.EBUSY):
        rate.write_text("4000")
    rate.write_text("4000")
    board.adc.configure(scale=3300 / 65536, offset=(), separate=False)
    assert (board.adc.device / "in_voltage_scale").read_text() == "0.050354004\n"
    assert not (board.adc.device / "in_voltage_offset").exists()


def test_triggered_adc_needs_a_trigger(board: Hat) -> None:
    board.adc.configure(triggered=True)
    with refused(errno.EINVAL), capture(board):
        pass
    with capture(board, trigger="csp1-hat-trigger") as fd:
        data = os.urandom(160)
        board.adc.push(data)
        assert os.read(fd, 160) == data


def test_unplugged_adc_gives_enodev_and_returns(board: Hat) -> None:
    with capture(board) as fd:
        old = board.adc.device
        board.adc.unplug()
        with refused(errno.ENODEV):
            os.read(fd, 16)
        assert not old.exists()
        board.adc.plug()
        assert board.adc.device != old, "the number stays taken while its descriptor is open"
        with refused(errno.ENODEV):
            os.read(fd, 16)
    with capture(board) as fd:
        board.adc.push(bytes(range(16)))
        assert os.read(fd, 16) == bytes(range(16))


@pytest.mark.parametrize(
    ("scan_type", "word", "zero", "unit"),
    [
        ("le:s16/16>>0", "<i2", 0, 1),
        ("be:u12/16>>4", ">u2", 2048, 16),
        ("be:s24/32>>8", ">i4", 0, 256),
    ],
)
def test_feeder_makes_what_an_adc_would(
    board: Hat, scan_type: str, word: str, zero: int, unit: int
) -> None:
    scale = 3300 / 2 ** int(scan_type[4:6])
    board.adc.configure(scan_type=scan_type, scale=scale)
    scan = np.dtype([("codes", word, (3,)), ("timestamp", "<i8")], align=True)
    with Feeder(board.adc, 4000, (24, 10.5, 0), harmonics={3: 0.2}) as feeder:
        time.sleep(0.2)
        with capture(board, length=16384) as fd:
            enabled_ns = board.adc.enabled_ns
            time.sleep(0.5)
            hole_ns = feeder.hole(7)
            time.sleep(0.3)
            stall_ns = feeder.stall(0.4)
            time.sleep(0.7)
            now_ns = time.monotonic_ns()
            scans = np.frombuffer(os.read(fd, 16384 * scan.itemsize), scan)
        time.sleep(0.2)  # The feeder counts scans after it has pushed them.
        assert feeder.pushed >= len(scans)
        with capture(board, length=16384) as fd:
            again_ns = board.adc.enabled_ns
            time.sleep(0.3)
            first_ns = np.frombuffer(os.read(fd, scan.itemsize), scan)["timestamp"][0]
            assert 0 <= first_ns - again_ns < STEP_NS, "nothing from before it was enabled"

    stamps = scans["timestamp"]
    assert 0 <= stamps[0] - enabled_ns < STEP_NS
    assert stamps[-1] < now_ns
    steps = np.diff(stamps)
    gaps = np.flatnonzero(steps != STEP_NS)
    assert steps[gaps].tolist() == [8 * STEP_NS, 1601 * STEP_NS]
    assert (stamps[gaps] + STEP_NS).tolist() == [hole_ns, stall_ns]

    codes = scans["codes"][:1600].astype(np.float64) / unit - zero  # 0.4 s: 20 cycles
    amperes = np.sqrt(np.mean(np.square(codes * scale), axis=0)) / 10
    assert amperes == pytest.approx([24, 10.5, 0], abs=0.05)


def test_feeder_lives_through_unplugging(board: Hat) -> None:
    with Feeder(board.adc, 4000, (24, 24, 24)) as feeder:
        with capture(board):
            time.sleep(0.3)
            board.adc.unplug()
            time.sleep(0.2)
            board.adc.plug()
            pushed = feeder.pushed
        with capture(board) as fd:
            time.sleep(0.3)
            assert os.read(fd, 65536)
        assert feeder.pushed > pushed > 0


# ---- request line ----


@contextlib.contextmanager
def request_line(hat: Hat, edge: str) -> Iterator[Any]:
    # Any, since the types of python-periphery 2.4.1 do not describe an event.
    line = periphery.GPIO(str(hat.line.chip), "P1_REQUEST", "in", edge=edge)
    try:
        yield line
    finally:
        line.close()


def test_an_edge_arrives_by_the_character_device(board: Hat) -> None:
    with request_line(board, "both") as line:
        assert line.read() is False
        for level, edge in ((True, "rising"), (False, "falling")):
            board.line.set(level)
            assert line.poll(2)
            assert line.read_event().edge == edge
            assert line.read() is level
        assert not line.poll(0.05)


def test_only_the_asked_edges_arrive(board: Hat) -> None:
    with request_line(board, "rising") as line:
        for level in (True, False, True, False):
            board.line.set(level)
            time.sleep(0.02)
        edges = []
        while line.poll(0.1):
            edges.append(line.read_event().edge)
        assert edges == ["rising", "rising"]


def test_a_storm_has_as_many_edges_as_asked(board: Hat) -> None:
    with request_line(board, "both") as line:
        board.line.storm(100, 1001)
        assert board.line.level is True
        count = 0
        while line.poll(0.1):
            line.read_event()
            count += 1
        assert 0 < count <= 1001, "the kernel's queue holds 16: a storm may well overrun it"


def test_unplugged_line_returns(board: Hat, kernel: tuple[int, int]) -> None:
    if kernel < (6, 9):  # Older kernels crash.
        with refused(errno.EBUSY):
            board.line.unplug()
        return
    with request_line(board, "both"):
        board.line.unplug()
        board.line.set(True)
        board.line.plug()
    with request_line(board, "none") as line:
        assert line.read() is True


# ---- LEDs ----


def test_every_switch_of_an_led_is_recorded(board: Hat) -> None:
    assert board.leds.brightness("csp1:yellow:power") == 1
    before = time.monotonic_ns()
    for name, brightness in (("p1", 1), ("p1", 1), ("current", 1), ("p1", 0), ("current", 0)):
        Path(f"/sys/class/leds/csp1:yellow:{name}/brightness").write_text(str(brightness))
    changes = board.leds.log()
    assert [(change.name, change.brightness) for change in changes] == [
        ("csp1:yellow:p1", 1),
        ("csp1:yellow:current", 1),
        ("csp1:yellow:p1", 0),
        ("csp1:yellow:current", 0),
    ]
    stamps = [before, *(change.ns for change in changes), time.monotonic_ns()]
    assert stamps == sorted(stamps)


def test_a_shot_of_200_ms_is_recorded_as_such(board: Hat) -> None:
    led = Path("/sys/class/leds/csp1:yellow:current")
    (led / "trigger").write_text("oneshot")
    try:
        (led / "delay_on").write_text("200")
        (led / "delay_off").write_text("1")
        board.leds.clear()
        (led / "shot").write_text("1")
        time.sleep(0.2 + LATE_SECONDS)
        on, off = board.leds.log()
        assert (on.brightness, off.brightness) == (1, 0)
        assert 0.199 < (off.ns - on.ns) / 1e9 < 0.2 + LATE_SECONDS
    finally:
        (led / "trigger").write_text("none")


def test_unplugged_lamps_return(board: Hat) -> None:
    board.leds.unplug()
    assert not Path("/sys/class/leds/csp1:yellow:p1").exists()
    board.leds.plug()
    names = ("csp1:yellow:power", "csp1:yellow:current", "csp1:yellow:p1")
    assert [board.leds.brightness(name) for name in names] == [1, 0, 0]
    changes = board.leds.log()
    assert [(change.name, change.brightness) for change in changes] == [
        ("csp1:yellow:power", 0),
        ("csp1:yellow:power", 1),
    ]


# ---- serial port ----


def test_the_wire_takes_65_ms_for_755_bytes(board: Hat) -> None:
    with serial_port() as fd:
        before = time.monotonic_ns()
        assert os.write(fd, TELEGRAM) == 755
        assert 0 < waiting(fd) <= 755
        termios.tcdrain(fd)
        assert time.monotonic_ns() - before > 755 * BYTE_NS
        assert waiting(fd) == 0
    assert board.tty.received() == TELEGRAM
    stamps = board.tty.log()["ns"].astype(np.int64)
    assert stamps[0] >= before + BYTE_NS - 1
    assert stamps[-1] - stamps[0] == pytest.approx(754 * BYTE_NS, abs=1e6)
    assert np.diff(stamps).min() >= BYTE_NS - 1


def test_the_wire_has_the_speed_of_termios(board: Hat) -> None:
    with serial_port() as fd:
        settings = termios.tcgetattr(fd)
        settings[2] &= ~termios.CSIZE
        settings[2] |= termios.CS7 | termios.PARENB | termios.CSTOPB  # 11 bits a byte
        settings[4] = settings[5] = termios.B9600
        termios.tcsetattr(fd, termios.TCSANOW, settings)
        os.write(fd, TELEGRAM[:50])
        termios.tcdrain(fd)
    stamps = board.tty.log()["ns"].astype(np.int64)
    assert stamps[-1] - stamps[0] == pytest.approx(49 * 11 / 9600 * 1e9, rel=1e-4)


def test_a_flush_leaves_a_clean_prefix(board: Hat) -> None:
    with serial_port() as fd:
        # More than a telegram, so that it does not end during a hiccup of the machine.
        os.write(fd, TELEGRAM * 5)
        while not len(board.tty.log()):
            time.sleep(0.001)
        termios.tcflush(fd, termios.TCOFLUSH)
        assert waiting(fd) == 0
        gone = board.tty.received()
        assert 0 < len(gone) < 5 * 755
        assert (TELEGRAM * 5).startswith(gone)
        time.sleep(0.1)
        assert board.tty.received() == gone
        os.write(fd, b"next")
        termios.tcdrain(fd)
        assert board.tty.received() == gone + b"next"


def test_a_stuck_wire_stays_stuck(board: Hat) -> None:
    with serial_port() as fd:
        board.tty.stuck = True
        assert sum(os.write(fd, TELEGRAM) for _ in range(6)) == waiting(fd) == 4096
        with refused(errno.EAGAIN):
            os.write(fd, TELEGRAM)
        assert not select.select([], [fd], [], 0.1)[1]
        assert not len(board.tty.log())
        freed = time.monotonic_ns()
        board.tty.stuck = False
        assert select.select([], [fd], [], 2)[1]
        termios.tcdrain(fd)
    assert board.tty.received() == (TELEGRAM * 6)[:4096]
    assert int(board.tty.log()["ns"][0]) >= freed


def test_an_adapter_keeps_its_bytes_in_spite_of_a_flush(board: Hat) -> None:
    board.tty.adapter = True
    with serial_port() as fd:
        os.write(fd, TELEGRAM * 2)
        termios.tcflush(fd, termios.TCOFLUSH)
        assert waiting(fd) > 0
        while held := waiting(fd):
            time.sleep(0.001)
        assert held == 0
        # What is in the adapter has not left yet.
        assert len(board.tty.log()) < 2 * 755
    time.sleep(0.2)
    assert board.tty.received() == TELEGRAM * 2


def test_closing_a_stuck_adapter_waits_until_a_signal_and_discards_the_rest(board: Hat) -> None:
    board.tty.adapter = board.tty.stuck = True
    alarms = []
    handler = signal.signal(signal.SIGALRM, lambda *_: alarms.append(time.monotonic()))
    start = time.monotonic()
    try:
        with serial_port() as fd:
            os.write(fd, TELEGRAM)
            signal.setitimer(signal.ITIMER_REAL, 1)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert 0.9 < time.monotonic() - start < 5
    assert len(alarms) == 1
    board.tty.stuck = False
    time.sleep(0.2)
    # The part that had reached the adapter.
    assert board.tty.received() == TELEGRAM[:128]


def test_unplugged_port_gives_eio_and_returns(board: Hat) -> None:
    with serial_port() as fd:
        os.write(fd, TELEGRAM)
        board.tty.unplug()
        assert not Path(TTY).exists()
        with refused(errno.EIO):
            os.write(fd, TELEGRAM)
        assert os.read(fd, 1) == b""
        board.tty.plug()
        board.tty.clear()
        with serial_port() as again:
            os.write(again, b"back")
            termios.tcdrain(again)
        with refused(errno.EIO):
            os.write(fd, TELEGRAM)
    assert board.tty.received() == b"back"
