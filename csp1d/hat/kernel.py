# SPDX-License-Identifier: Apache-2.0
"""The HAT as the kernel shows it: finds the devices and tells when some came or went (udev)."""

from pathlib import Path

import pyudev

from csp1d.config import Config
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat.gpio import GpioLine
from csp1d.hat.iio import IioAdc
from csp1d.hat.leds import SysfsLed
from csp1d.hat.tty import TtyPort

_SUBSYSTEMS = ("iio", "gpio", "tty", "leds")


class KernelHat:
    """See `Hat`."""

    wake_ns: int | None = None

    def __init__(self) -> None:
        self._context = pyudev.Context()
        self._monitor = pyudev.Monitor.from_netlink(self._context)
        for subsystem in _SUBSYSTEMS:
            self._monitor.filter_by(subsystem)
        self._monitor.start()

    def open_adc(self, config: Config) -> IioAdc:
        folder, node = self._find_adc(config.adc.device)
        return IioAdc(folder, node, config.adc, config.channels.used(), config.reference())

    def open_request_line(self, config: Config) -> GpioLine:
        return GpioLine(config.p1.request)

    def open_port(self, config: Config) -> TtyPort:
        return TtyPort(config.p1.device)

    def open_led(self, name: str) -> SysfsLed:
        return SysfsLed(name)

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def changed(self) -> bool:
        seen = False
        try:
            while self._monitor.poll(timeout=0) is not None:
                seen = True
        except OSError:
            # More events than fit (ENOBUFS): something changed for sure.
            return True
        return seen

    def _find_adc(self, wanted: str) -> tuple[Path, Path]:
        """The one IIO device of that name, label or number: its folder and its node."""
        found, known = [], []
        for device in self._context.list_devices(subsystem="iio"):
            if not device.sys_name.startswith("iio:device"):
                continue
            titles = [device.sys_name]
            for attribute in ("name", "label"):
                value = device.attributes.get(attribute)
                if value is not None:
                    titles.append(value.decode(errors="replace").strip())
            known.append(" ".join(titles))
            if wanted in titles:
                found.append(device)
        if not found:
            raise DeviceAbsentError(
                f"ADC {wanted!r} is not there; IIO devices: {', '.join(known) or 'none'} "
                "(adc.device takes a name, a label or iio:deviceN)"
            )
        if len(found) > 1:
            raise DeviceError(
                f"ADC {wanted!r} is not one but {len(found)}; set adc.device to one of "
                + ", ".join(device.sys_name for device in found)
            )
        node = found[0].device_node
        if node is None:
            raise DeviceError(
                f"ADC {wanted!r} has no character device: its driver can not capture "
                "continuously; use an ADC with an IIO buffer"
            )
        return Path(found[0].sys_path), Path(node)
