# SPDX-License-Identifier: Apache-2.0
"""The devices of a HAT as the daemon uses them: four kinds, each of which may be missing.

Two HATs provide them: the kernel's (`kernel.py`) and a simulated one (`simulated.py`). Opening a
device raises DeviceError, which names the device, the reason and the remedy. A device that fails or
vanishes raises OSError.
"""

import contextlib
import errno
from typing import Protocol, Self

from csp1d.config import Config
from csp1d.errors import DeviceError
from csp1d.measuring.scan import ScanFormat


class Closable(Protocol):
    def close(self) -> None:
        """Leave the device as a stopped daemon should: off, and free for others."""


class Adc(Closable, Protocol):
    """A running capture."""

    format: ScanFormat
    rate_fault: str | None
    """Why the configured sampling frequency is not in force; None: the driver accepted it."""
    scale_doubts: tuple[str, ...]
    """Why the scales that the driver reports may be wrong."""
    reference_fault: str
    """Why the scans lack the reference although direction is on, or ""."""
    in_blocks: bool
    """Whether the kernel keeps only the last two blocks of scans: read when it is readable."""

    buffer_hertz: float
    """The rate for which the kernel's buffer was sized, or would have been with enough memory."""

    def resize(self, hertz: float) -> None:
        """Restart the capture with a buffer for this rate, for as long as configured. The scans
        that were not read are lost. Raises OSError."""

    def fileno(self) -> int:
        """Readable when scans can be read; of use only with `in_blocks`."""

    def read(self) -> bytes:
        """The whole scans captured since the last read, without waiting; b"" for none."""


class RequestLine(Closable, Protocol):
    """The charge point's request, with the configured polarity taken into account."""

    poll_ns: int | None
    """Interval at which to read the level of a line that reports no edges; None if it does."""

    def fileno(self) -> int:
        """Readable after an edge of the line, unless it has to be polled."""

    def read_level(self) -> tuple[int, bool]:
        """The number of edges reported since the last call, and whether the line is high now."""


class Port(Closable, Protocol):
    """The sending side of the P1 port."""

    def fileno(self) -> int:
        """Writable when it accepts bytes."""

    def write(self, data: bytes) -> int:
        """Hand over bytes without waiting; returns the number accepted."""

    def waiting(self) -> int:
        """The number of accepted bytes that have not left yet."""

    def flush(self) -> None:
        """Drop the bytes that have not left yet; `waiting()` is not 0 afterwards if it cannot."""


class Led(Closable, Protocol):
    def switch(self, on: bool) -> None:
        """On or off, until further notice."""

    def light(self, milliseconds: int) -> bool:
        """On now. True: the LED goes off after that time; False: it has to be switched off."""


class Hat(Protocol):
    """Opens devices; each call raises DeviceError while the device is missing."""

    is_simulated: bool
    """Whether this is a trial, which leaves the service's own files alone."""

    def open_adc(self, config: Config) -> Adc: ...

    def open_request_line(self, config: Config) -> RequestLine: ...

    def open_port(self, config: Config) -> Port: ...

    def open_led(self, name: str) -> Led: ...

    @property
    def wake_ns(self) -> int | None:
        """When to call `changed()` although nothing is readable, None for never."""

    def fileno(self) -> int:
        """Readable when devices were added or removed."""

    def changed(self) -> bool:
        """Whether devices were added or removed since the last call."""


class Driver:
    """Base of the drivers: a context manager that refuses to work once it is closed."""

    def __init__(self, name: str) -> None:
        """`name`: the device in messages, such as "ADC csp1-hat-adc (iio:device0)"."""
        self._name = name
        self._fd = -1
        self._is_open = True
        self._on_close = contextlib.ExitStack()
        """Undoes, last first, what opening the device did."""

    def fileno(self) -> int:
        """The file descriptor. Raises DeviceError after `close()`, when its number is stale."""
        self._check_open()
        return self._fd

    def _check_open(self) -> None:
        if not self._is_open:
            raise DeviceError(f"{self._name} is closed")

    def close(self) -> None:
        """See `Closable`. Does nothing the second time."""
        try:
            self._on_close.close()
        finally:
            self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_error(subject: str, error: OSError, if_busy: str) -> DeviceError:
    """A device node that cannot be opened, with the remedy; `if_busy` is that for EBUSY."""
    reasons = {
        errno.EBUSY: f"is in use by another process; {if_busy}",
        errno.EACCES: "is not accessible; give the daemon's group access to it (udev rule: see "
        "DEVICES in csp1d(8))",
        errno.EPERM: "is blocked by the service's device policy; restart csp1d (the driver was "
        "loaded later)",
    }
    reason = reasons.get(error.errno or 0, f"cannot be opened: {error.strerror}")
    return DeviceError(f"{subject} {reason}")
