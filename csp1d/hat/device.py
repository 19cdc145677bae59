# SPDX-License-Identifier: Apache-2.0
"""What the daemon needs of a HAT: four kinds of devices, each of which may be absent.

Two HATs fit here: the kernel's (`kernel.py`) and the one made of memory (`simulated.py`). All
drivers raise OSError when their device fails or vanishes; opening one raises DeviceError, an
OSError that says what is wrong and how to mend it.
"""

import logging
from typing import Protocol

from csp1d.config import Config
from csp1d.measuring.scan import ScanFormat

log = logging.getLogger("csp1d")


class Closable(Protocol):
    def close(self) -> None:
        """Leave the device as a stopped daemon should: off, and free for others."""


class Adc(Closable, Protocol):
    """A running capture."""

    format: ScanFormat
    rate_fault: str | None
    """Why the configured sampling frequency is not in force, in words; None: nobody refused it."""
    reference_fault: str
    """Why the reference is not among the scans although direction is on, in words, or ""."""

    def read(self) -> bytes:
        """The whole scans captured since the last read, without waiting; b"" for none."""


class RequestLine(Closable, Protocol):
    """The charge point's request, with the configured polarity taken into account."""

    def fileno(self) -> int:
        """Readable when the line moved."""

    def read_level(self) -> tuple[int, bool]:
        """How many edges were told since the last call, and whether the line is high now."""


class Port(Closable, Protocol):
    """The P1 port's sending side."""

    def fileno(self) -> int:
        """Writable when it takes bytes."""

    def write(self, data: bytes) -> int:
        """Hand over bytes without waiting; how many were taken."""

    def waiting(self) -> int:
        """How many of the bytes taken have not left yet."""

    def flush(self) -> None:
        """Drop what has not left."""


class Led(Closable, Protocol):
    def switch(self, on: bool) -> None:
        """On or off, until further notice."""

    def light(self, milliseconds: int) -> bool:
        """On now; whether it goes dark by itself after that time, or has to be switched."""


class Hat(Protocol):
    """Opens devices; each call raises DeviceError while the device is not there."""

    def open_adc(self, config: Config) -> Adc: ...

    def open_request_line(self, config: Config) -> RequestLine: ...

    def open_port(self, config: Config) -> Port: ...

    def open_led(self, name: str) -> Led: ...

    @property
    def wake_ns(self) -> int | None:
        """When to call `changed()` although nothing is readable, None for never."""

    def fileno(self) -> int:
        """Readable when devices came or went."""

    def changed(self) -> bool:
        """Whether devices came or went since the last call."""
