# SPDX-License-Identifier: Apache-2.0
"""The request line: a GPIO line with edge events, through python-periphery.

An edge event only reports that the line moved; its level is read, since the kernel's queue of
events is short. Nothing else in the events is used: python-periphery takes their timestamps from
different clocks in different versions.

A chip without interrupts, such as many port expanders, rejects a line with edge events (ENODEV or
ENXIO, `lineevent_create` and `edge_detector_setup` in drivers/gpio/gpiolib-cdev.c), and so does one
whose interrupts do not fit. Its line is requested without them, and read at short intervals.
"""

import logging
import os
from pathlib import Path

from periphery import GPIO, GPIOError

from csp1d.config import RequestConfig
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat import sysfs
from csp1d.hat.device import Driver, open_error
from csp1d.units import MS_NS

log = logging.getLogger("csp1d")

_POLL_NS = 20 * MS_NS
"""Short beside the 66 ms of a telegram, and about 2 % of a slow processor."""

_MOST_EDGES = 64
"""Edges per read: four times what the kernel keeps."""


class GpioLine(Driver):
    """See `RequestLine`. Raises DeviceError when chip or line are missing or in use."""

    poll_ns: int | None = None

    def __init__(self, config: RequestConfig, dev: Path = Path("/dev")) -> None:
        chip, lines = _find_chip(config.chip, dev)
        super().__init__(f"{chip}, line {config.line!r}")
        offsets = [offset for offset, name, _ in lines if name == config.line]
        if len(offsets) > 1:
            raise DeviceError(
                f"{chip} has {len(offsets)} lines named {config.line!r} (offsets "
                f"{', '.join(map(str, offsets))}); set p1.request.line to one of these offsets"
            )
        self._high: bool | None = None
        try:
            try:
                self._gpio = _request(chip, config, "both")
            except (GPIOError, OSError) as error:
                # Another reason than missing interrupts prevents this, too.
                self._gpio = _request(chip, config, "none")
                self.poll_ns = _POLL_NS
                # As text: the error itself refers to the first GPIO, which has the chip open.
                log.info(
                    "%s has no interrupts (%s): reading it every %d ms",
                    self._name,
                    str(error),
                    _POLL_NS // MS_NS,
                )
        except LookupError as error:
            raise DeviceError(
                f"{chip} has no line named {config.line!r}; set p1.request.line to a name or an "
                "offset (gpioinfo lists them)"
            ) from error
        except (GPIOError, OSError) as error:
            raise DeviceError(
                f"{self._name} cannot be requested: {error}; check p1.request "
                "(gpioinfo shows what uses a line)"
            ) from error
        self._on_close.callback(self._gpio.close)
        self._fd = int(self._gpio.fd)
        os.set_blocking(self._fd, False)

    def read_level(self) -> tuple[int, bool]:
        self._check_open()
        edges = 0
        try:
            if self.poll_ns:
                before, self._high = self._high, bool(self._gpio.read())
                return int(before not in (None, self._high)), self._high
            while edges < _MOST_EDGES and self._gpio.poll(0):
                self._gpio.read_event()
                edges += 1
            return edges, bool(self._gpio.read())
        except GPIOError as error:
            # GPIOError is not an OSError in every version, and names a step of python-periphery.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(error.errno, reason) from error


def _request(chip: Path, config: RequestConfig, edge: str) -> GPIO:
    return GPIO(
        str(chip),
        config.line,
        "in",
        edge=edge,
        bias=config.bias,
        inverted=config.active_low,
        label="csp1d",
    )


def _find_chip(chip: str, dev: Path) -> tuple[Path, sysfs.GpioLines]:
    """The node of a GPIO chip given by its path or its label, and its lines.

    Raises DeviceError.
    """
    if chip.startswith("/"):
        remedy = "set p1.request.chip to a path or a label (csp1ctl discover lists them)"
        try:
            return Path(chip), sysfs.gpio_chip(Path(chip))[1]
        except FileNotFoundError as error:
            raise DeviceAbsentError(f"{chip} not found; {remedy}") from error
        except PermissionError as error:
            raise open_error(chip, error, "") from error
        except OSError as error:
            raise DeviceError(f"{chip} is not a GPIO chip: {error.strerror}; {remedy}") from error
    chips: dict[str, list[tuple[Path, sysfs.GpioLines]]] = {}
    denied: list[tuple[str, OSError]] = []
    for node in sorted(dev.glob("gpiochip*")):
        # A link is another name of a chip, such as gpiochip4 on the Raspberry Pi 5.
        if not node.is_symlink():
            try:
                label, lines = sysfs.gpio_chip(node)
                chips.setdefault(label, []).append((node, lines))
            except PermissionError as error:
                denied.append((str(node), error))
            except OSError:
                continue
    if chip not in chips:
        known = ", ".join(sorted(chips)) or "none"
        reason = (
            f"no GPIO chip has the label {chip!r}; readable labels: {known}; check the overlay, or"
            " set p1.request.chip"
        )
        if denied:
            nodes = ", ".join(name for name, _ in denied)
            reason += f"; {open_error(nodes, denied[0][1], '')}"
        raise DeviceAbsentError(reason)
    if len(chips[chip]) > 1:
        raise DeviceError(
            f"GPIO chip label {chip!r} is ambiguous ({len(chips[chip])} chips: "
            f"{', '.join(str(node) for node, _ in chips[chip])}); "
            "set p1.request.chip to the path of one of them"
        )
    return chips[chip][0]
