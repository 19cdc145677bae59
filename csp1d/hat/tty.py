# SPDX-License-Identifier: Apache-2.0
"""The P1 port: a tty at 115200 8N1, raw, exclusive, never blocking (termios(3), tty_ioctl(4)).

The standard library serves here: python-periphery opens a serial port blocking, which waits for a
carrier that a P1 port does not have, and its write may be short without saying so.
"""

import errno
import fcntl
import os
import struct
import termios
import tty

from csp1d.errors import DeviceAbsentError, DeviceError


class TtyPort:
    """See `Port`. Raises DeviceError when the tty can not be opened."""

    def __init__(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DeviceAbsentError(
                f"{path} is not there; set p1.device to the HAT's serial port "
                "(csp1ctl discover lists the ports)"
            ) from error
        except OSError as error:
            raise DeviceError(f"{path} {_open_mend(error)}") from error
        try:
            # The one keeps out others, the other a second csp1d of root, whom the first lets in.
            fcntl.ioctl(self._fd, termios.TIOCEXCL)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _set_raw(self._fd)
            # What a predecessor left in the port is stale by now.
            self.flush()
        except BlockingIOError as error:
            os.close(self._fd)
            raise DeviceError(f"{path} is in use by another csp1d; stop that one") from error
        except (OSError, termios.error) as error:
            os.close(self._fd)
            raise DeviceError(f"{path} is not a serial port: {error}") from error

    def fileno(self) -> int:
        return self._fd

    def write(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def waiting(self) -> int:
        reply = fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", reply)[0])

    def flush(self) -> None:
        _discard(self._fd, termios.TCOFLUSH)

    def close(self) -> None:
        """Flushed first: closing a port that holds bytes waits for them, up to 30 s."""
        try:
            self.flush()
        finally:
            os.close(self._fd)


def _set_raw(fd: int) -> None:
    tty.setraw(fd, termios.TCSANOW)
    attributes = termios.tcgetattr(fd)
    attributes[2] |= termios.CLOCAL | termios.CREAD
    attributes[2] &= ~(termios.CRTSCTS | termios.CSTOPB | termios.HUPCL)
    attributes[4] = attributes[5] = termios.B115200
    termios.tcsetattr(fd, termios.TCSANOW, attributes)


def _discard(fd: int, queue: int) -> None:
    try:
        termios.tcflush(fd, queue)
    except termios.error as error:
        raise OSError(*error.args) from error


def _open_mend(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "is in use by another process (a login on it? disable its getty)"
    if error.errno == errno.EACCES:
        return "may not be opened; give the daemon's group the device (udev rule)"
    if error.errno == errno.EPERM:
        return "is kept from the service; restart it, its driver may have come later"
    return f"can not be opened: {error.strerror}"
