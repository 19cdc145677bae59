# SPDX-License-Identifier: Apache-2.0
"""The P1 port on a real pty. Line speed, stuck lines and hang-ups are tested on the kernel."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csp1d.errors import DeviceError
from csp1d.hat.tty import TtyPort

TIOCGEXCL = 0x80045440
"""Of asm-generic/ioctls.h; Python has no name for it."""


@pytest.fixture
def ends() -> Iterator[tuple[TtyPort, int]]:
    """The port and the descriptor that its consumer reads."""
    consumer, port_fd = pty.openpty()
    attributes = termios.tcgetattr(port_fd)
    attributes[0] |= termios.IXON | termios.IXOFF | termios.IXANY
    attributes[2] |= termios.CRTSCTS | termios.CSTOPB | termios.HUPCL
    termios.tcsetattr(port_fd, termios.TCSANOW, attributes)
    port = TtyPort(os.ttyname(port_fd))
    yield port, consumer
    port.close()
    os.close(port_fd)
    os.close(consumer)


def test_bytes_pass_unchanged(ends: tuple[TtyPort, int]) -> None:
    port, consumer = ends
    everything = bytes(range(256))
    assert port.write(everything) == 256
    received = b""
    while len(received) < 256:
        assert select.select([consumer], [], [], 5)[0], f"only {received!r}"
        received += os.read(consumer, 4096)
    assert received == everything


def test_settings_are_115200_8n1_without_flow_control(ends: tuple[TtyPort, int]) -> None:
    port, _ = ends
    iflag, oflag, cflag, lflag, ispeed, ospeed, _ = termios.tcgetattr(port.fileno())
    assert ispeed == ospeed == termios.B115200
    assert cflag & termios.CSIZE == termios.CS8
    assert not cflag & (termios.PARENB | termios.CSTOPB | termios.CRTSCTS)
    # The port waits for no carrier, and drops no modem line at the end.
    assert cflag & termios.CLOCAL
    assert not cflag & termios.HUPCL
    assert not iflag & (termios.IXON | termios.IXOFF | termios.IXANY | termios.ICRNL)
    assert not oflag & termios.OPOST
    assert not lflag & (termios.ECHO | termios.ICANON | termios.ISIG)


def test_the_port_is_exclusive(ends: tuple[TtyPort, int]) -> None:
    """TIOCEXCL excludes other users; a lock also excludes a second csp1d run by root."""
    port, _ = ends
    assert struct.unpack("i", fcntl.ioctl(port.fileno(), TIOCGEXCL, bytes(4)))[0]
    owner = "csp1d" if os.geteuid() == 0 else "process"
    with pytest.raises(DeviceError, match=f"is in use by another {owner}"):
        TtyPort(os.ttyname(port.fileno()))


def test_stale_bytes_are_dropped_before_the_first_telegram_and_after_the_last() -> None:
    consumer, port_fd = pty.openpty()
    os.set_blocking(consumer, False)
    # A pty in packet mode reports a flush of its other end: see tty_ioctl(4).
    fcntl.ioctl(consumer, termios.TIOCPKT, struct.pack("i", 1))
    with TtyPort(os.ttyname(port_fd)):
        assert os.read(consumer, 1)[0] & termios.TIOCPKT_FLUSHWRITE
        with pytest.raises(BlockingIOError):
            os.read(consumer, 1)
    assert os.read(consumer, 1)[0] & termios.TIOCPKT_FLUSHWRITE
    os.close(port_fd)
    os.close(consumer)


def test_closing_a_port_that_keeps_its_bytes_does_not_wait_for_them(
    ends: tuple[TtyPort, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel waits up to 30 s, until a signal comes; tests/kernel does the same for real."""
    port, _ = ends
    handler = signal.getsignal(signal.SIGALRM)
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: struct.pack("i", 755))
    signalled: list[bool] = []
    close = os.close

    def wait_and_close(fd: int) -> None:
        # A signal may come too early for the wait: it takes more than one.
        for _ in range(2):
            signalled.append(signal.sigtimedwait([signal.SIGALRM], 5) is not None)
        close(fd)

    monkeypatch.setattr(os, "close", wait_and_close)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
    start = time.monotonic()
    port.close()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    monkeypatch.undo()
    assert signalled == [True, True]
    assert time.monotonic() - start < 1
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) == handler


def test_a_write_never_blocks(ends: tuple[TtyPort, int]) -> None:
    port, _ = ends
    taken = [port.write(bytes(4096)) for _ in range(64)]
    assert taken[0] == 4096
    assert taken[-1] == 0


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "not found; set p1.device"),
        (lambda path: path.write_text(""), "is not a serial port"),
        (lambda path: path.mkdir(), "cannot be opened"),
    ],
)
def test_a_path_that_is_no_port_is_named(tmp_path: Path, make: object, complaint: str) -> None:
    path = tmp_path / "ttyAMA0"
    make(path)  # type: ignore[operator]
    with pytest.raises(DeviceError, match=f"{path} {complaint}"):
        TtyPort(str(path))
