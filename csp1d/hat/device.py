# SPDX-License-Identifier: Apache-2.0
"""What the daemon needs of a HAT: four kinds of devices, each of which may be absent.

Two HATs fit here: the kernel's (`kernel.py`) and the one made of memory (`simulated.py`). All
drivers raise OSError when their device fails or vanishes; opening one raises DeviceError, an
OSError that says what is wrong and how to mend it.
"""

import logging
import time
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from csp1d.config import Config
from csp1d.events import Event
from csp1d.fault import Fault
from csp1d.measuring.scan import ScanFormat

log = logging.getLogger("csp1d")


class DeviceError(OSError):
    """A device that can not be opened or used: its name, the reason, and the mend."""


class DeviceAbsentError(DeviceError):
    """A device that is not there at all. Of one that was lost this says nothing new."""


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

    def look(self) -> tuple[int, bool]:
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


T = TypeVar("T", bound=Closable)


_LASTING_NS = 2_000_000_000
"""How long an open has to fail for one reason to be told: while the kernel registers a device and
udev sees to its files, reasons pass."""


class Slot(Generic[T]):
    """The place of one device, which comes and goes. Says so once for each loss and each return.

    A device that worked and fails is told at once; one that can not be opened or set up, when that
    lasts. It counts as found when it has worked, not when it was opened: one that opens and fails,
    again and again, would fill the log.
    """

    def __init__(
        self, what: str, lost: Event, found: Event, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`what` names the device in sentences."""
        self.device: T | None = None
        self.found_count = 0
        self._what = what
        self._lost = lost
        self._found = found
        self._clock = clock
        self._fault = Fault()
        self._has_worked = False

    def open(self, opener: Callable[[], T]) -> T | None:
        """Try to open the device, unless it is open."""
        if self.device is not None:
            self.confirm()
            return self.device
        try:
            self.device = opener()
            self.found_count += 1
        except OSError as error:
            self._complain("missing", error, _LASTING_NS)
        return self.device

    def confirm(self) -> None:
        """The device has worked since it was opened."""
        self._has_worked = True
        if self._fault.good(self._clock()):
            self._found.tell("%s found", self._what, device=self._what)

    def lose(self, error: OSError, name: str = "") -> None:
        """The device failed: let go of it; `open()` may find it again.

        `name`: which device, where neither the slot nor the error tells it.
        """
        # A DeviceError tells a mend, which udev may be about to make.
        at_once = self._has_worked and not isinstance(error, DeviceError)
        if name and not isinstance(error, DeviceError):
            error = OSError(f"{name}: {error.strerror or error}")
        self._complain("lost", error, 0 if at_once else _LASTING_NS)
        self.close()

    def close(self) -> None:
        self._has_worked = False
        if self.device is not None:
            device, self.device = self.device, None
            try:
                device.close()
            except OSError as error:
                log.debug("%s closed: %s", self._what, error)

    def reconfigure(self) -> None:
        """What is to be here may be another device now: let go, and tell what is wrong with it."""
        self.close()
        self._fault.forget_reasons()

    def _complain(self, how: str, error: OSError, lasting_ns: int) -> None:
        reason = "" if isinstance(error, DeviceAbsentError) else str(error)
        if self._fault.bad(self._clock(), reason=reason, lasting_ns=lasting_ns):
            self._lost.tell("%s %s: %s", self._what, how, error, device=self._what, reason=error)
