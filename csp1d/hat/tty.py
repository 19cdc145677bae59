# SPDX-License-Identifier: Apache-2.0
"""The P1 port: a tty at 115200 8N1, raw, exclusive, never blocking (termios(3), tty_ioctl(4)).

It uses the standard library: python-periphery opens a serial port blocking, which waits for a
carrier that a P1 port does not have, and does not report a short write.
"""

import contextlib
import fcntl
import os
import signal
import struct
import termios
import tty

from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat.device import Driver, open_error

_CLOSING_SECONDS = 0.01
"""Interval of the signals that end the wait of close()."""


class TtyPort(Driver):
    """See `Port`. Raises DeviceError when the tty cannot be opened."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DeviceAbsentError(
                f"{path} not found; set p1.device to the HAT's serial port "
                "(csp1ctl discover lists the ports)"
            ) from error
        except OSError as error:
            raise open_error(path, error, "if it is a login prompt, mask its getty") from error
        self._on_close.callback(_close, self._fd)
        try:
            # TIOCEXCL excludes other users' processes; flock also a second csp1d run by root.
            fcntl.ioctl(self._fd, termios.TIOCEXCL)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _set_raw(self._fd)
            # Bytes that a previous process left are stale.
            self.flush()
        except (OSError, termios.error) as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise DeviceError(f"{path} is in use by another csp1d; stop that one") from error
            raise DeviceError(f"{path} is not a serial port: {error}") from error
        # No byte leaves after the end.
        self._on_close.callback(self.flush)

    def write(self, data: bytes) -> int:
        try:
            return os.write(self.fileno(), data)
        except BlockingIOError:
            return 0

    def waiting(self) -> int:
        reply = fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", reply)[0])

    def flush(self) -> None:
        try:
            termios.tcflush(self.fileno(), termios.TCOFLUSH)
        except termios.error as error:
            raise OSError(*error.args) from error


def _close(fd: int) -> None:
    """Close the port. What it still holds despite a flush is discarded by the kernel.

    Closing waits for these bytes, up to 30 s (closing_wait in tty_port.c; to change that takes
    CAP_SYS_ADMIN). A signal ends the wait. Needs the main thread.
    """
    reply = bytes(4)
    with contextlib.suppress(OSError):
        reply = fcntl.ioctl(fd, termios.TIOCOUTQ, reply)
    if reply == bytes(4):
        os.close(fd)
        return
    handler = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, _CLOSING_SECONDS, _CLOSING_SECONDS)
    try:
        os.close(fd)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _set_raw(fd: int) -> None:
    tty.setraw(fd, termios.TCSANOW)
    attributes = termios.tcgetattr(fd)
    # Before Python 3.12 setraw() leaves IXOFF: the kernel could insert XOFF into a telegram.
    attributes[0] &= ~(termios.IXOFF | termios.IXANY)
    attributes[2] |= termios.CLOCAL | termios.CREAD
    attributes[2] &= ~(termios.CRTSCTS | termios.CSTOPB | termios.HUPCL)
    attributes[4] = attributes[5] = termios.B115200
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
