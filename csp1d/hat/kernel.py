# SPDX-License-Identifier: Apache-2.0
"""The HAT as the kernel provides it: opens its devices and reports changes of them (udev)."""

import errno
import os

import pyudev

from csp1d.config import Config
from csp1d.hat.device import Driver
from csp1d.hat.gpio import GpioLine
from csp1d.hat.iio import IioAdc, find_adc
from csp1d.hat.leds import SysfsLed
from csp1d.hat.tty import TtyPort


class KernelHat(Driver):
    """See `Hat`."""

    is_simulated: bool = False
    wake_ns: int | None = None

    def __init__(self) -> None:
        super().__init__("udev monitor")
        monitor = pyudev.Monitor.from_netlink(pyudev.Context())
        for subsystem in ("iio", "gpio", "tty", "leds"):
            monitor.filter_by(subsystem)
        monitor.start()
        # The monitor's socket outlives it here, with the filter. After an overflow pyudev's poll()
        # raises without reading, so that the socket would stay readable.
        self._fd = os.dup(monitor.fileno())
        self._on_close.callback(os.close, self._fd)

    def open_adc(self, config: Config) -> IioAdc:
        return IioAdc(find_adc(config.adc.device), config)

    def open_request_line(self, config: Config) -> GpioLine:
        return GpioLine(config.p1.request)

    def open_port(self, config: Config) -> TtyPort:
        return TtyPort(config.p1.device)

    def open_led(self, name: str) -> SysfsLed:
        return SysfsLed(name)

    def changed(self) -> bool:
        """See `Hat.changed`. An overflow of the socket counts as a change."""
        changed = False
        while True:
            try:
                # What changed does not matter, and of a datagram the rest is dropped.
                os.read(self.fileno(), 1)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            changed = True
