# SPDX-License-Identifier: Apache-2.0
"""The slot of a device that may disappear and return, and the log of its losses and returns."""

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.events import ActiveProblem, Event
from csp1d.hat.device import Closable
from csp1d.loop.fault import Fault
from csp1d.units import SECOND_NS

log = logging.getLogger("csp1d")

T = TypeVar("T", bound=Closable)


_LASTING_NS = 2 * SECOND_NS
"""A reason why a device cannot be opened is reported when it lasts this long: while the kernel
registers a device and udev sets the permissions of its files, reasons are transient."""


class DeviceSlot(Generic[T]):
    """The slot of one device. Logs each loss and each return once.

    A working device that fails is reported at once; one that cannot be opened or set up, when that
    lasts. It is available again when it has worked, not when it was opened: a device that opens and
    fails repeatedly would fill the log.
    """

    def __init__(
        self, name: str, lost: Event, found: Event, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """`name` is the device's name in messages."""
        self.device: T | None = None
        self.open_count = 0
        self._name = name
        self._found = found
        self._clock = clock
        self._fault = Fault(lost, name)
        self._has_worked = False

    @property
    def problem(self) -> ActiveProblem | None:
        """The loss of the device, if it was reported and lasts."""
        return self._fault.problem

    def ensure_open(self, opener: Callable[[], T]) -> T | None:
        """Return the device, opening it if necessary; None if that fails.

        A device that is still open since the last call counts as working.
        """
        if self.device is not None:
            self.mark_working()
            return self.device
        try:
            self.device = opener()
            self.open_count += 1
        except OSError as error:
            self._report("missing", error, _LASTING_NS)
        return self.device

    def mark_working(self) -> None:
        """The device has worked since it was opened."""
        self._has_worked = True
        if self._fault.clear(self._clock()):
            self._found.log("%s available again", self._name, device=self._name)

    def mark_failed(self, error: OSError, which: str = "") -> None:
        """The device failed: close it. `ensure_open()` tries to open it again.

        `which` identifies the device if neither the slot's name nor the error does.
        """
        # A DeviceError names a remedy, which udev may be about to apply.
        at_once = self._has_worked and not isinstance(error, DeviceError)
        if not isinstance(error, DeviceError):
            text = f"{error.strerror}; check its connection" if error.strerror else str(error)
            error = OSError(f"{which}: {text}" if which else text)
        self._report("lost", error, 0 if at_once else _LASTING_NS)
        self.close()

    def close(self) -> None:
        self._has_worked = False
        if self.device is not None:
            device, self.device = self.device, None
            try:
                device.close()
            except OSError as error:
                log.debug("%s closed: %s", self._name, error)

    def reset(self) -> None:
        """The configuration may name another device: close this one, and report faults again."""
        self.close()
        self._fault.reset_reasons()

    def _report(self, state: str, error: OSError, lasting_ns: int) -> None:
        reason = "" if isinstance(error, DeviceAbsentError) else str(error)
        if self._fault.observe(self._clock(), reason=reason, lasting_ns=lasting_ns):
            self._fault.log("%s %s: %s", self._name, state, error, reason=error)
