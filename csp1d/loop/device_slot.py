# SPDX-License-Identifier: Apache-2.0
"""The place of a device that may come and go, and what is logged of that."""

import logging
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.events import Event
from csp1d.hat.device import Closable
from csp1d.loop.fault import Fault
from csp1d.units import SECOND_NS

log = logging.getLogger("csp1d")

T = TypeVar("T", bound=Closable)


_LASTING_NS = 2 * SECOND_NS
"""How long an open has to fail for one reason to be told: while the kernel registers a device and
udev sees to its files, reasons pass."""


class DeviceSlot(Generic[T]):
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

    def ensure_open(self, opener: Callable[[], T]) -> T | None:
        """Try to open the device, unless it is open."""
        if self.device is not None:
            self.mark_working()
            return self.device
        try:
            self.device = opener()
            self.found_count += 1
        except OSError as error:
            self._complain("missing", error, _LASTING_NS)
        return self.device

    def mark_working(self) -> None:
        """The device has worked since it was opened."""
        self._has_worked = True
        if self._fault.clear(self._clock()):
            self._found.log("%s found", self._what, device=self._what)

    def mark_failed(self, error: OSError, name: str = "") -> None:
        """The device failed: let go of it; `ensure_open()` may find it again.

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

    def reset(self) -> None:
        """What is to be here may be another device now: let go, and tell what is wrong with it."""
        self.close()
        self._fault.reset_reasons()

    def _complain(self, how: str, error: OSError, lasting_ns: int) -> None:
        reason = "" if isinstance(error, DeviceAbsentError) else str(error)
        if self._fault.observe(self._clock(), reason=reason, lasting_ns=lasting_ns):
            self._lost.log("%s %s: %s", self._what, how, error, device=self._what, reason=error)
