# SPDX-License-Identifier: Apache-2.0
"""The request line: a GPIO line with edge events, through python-periphery.

An edge only tells that the line moved; where it is now is read, since the kernel's queue of edges
is short. What the edges say besides is not used: python-periphery takes their time stamps from
different clocks in different versions.
"""

import contextlib
import fcntl
import os
from pathlib import Path

from periphery import GPIO, GPIOError

from csp1d.config import RequestConfig
from csp1d.errors import DeviceAbsentError, DeviceError

_GET_CHIPINFO = 0x8044B401
"""GPIO_GET_CHIPINFO_IOCTL of linux/gpio.h: char name[32], char label[32], u32 lines."""

_MOST_EDGES = 64
"""Taken at once: four times what the kernel keeps."""


class GpioLine:
    """See `RequestLine`. Raises DeviceError when chip or line are not there or in use."""

    def __init__(self, config: RequestConfig, dev: Path = Path("/dev")) -> None:
        chip = find_chip(config.chip, dev)
        try:
            self._gpio = GPIO(
                str(chip),
                config.line,
                "in",
                edge="both",
                bias=config.bias,
                inverted=config.active_low,
                label="csp1d",
            )
        except LookupError as error:
            raise DeviceError(
                f"{chip} has no line named {config.line!r}; set p1.request.line to a name or an "
                "offset (gpioinfo lists them)"
            ) from error
        except (GPIOError, OSError) as error:
            raise DeviceError(
                f"{chip}, line {config.line!r} can not be taken: {error}; see p1.request "
                "(gpioinfo tells who uses a line)"
            ) from error
        os.set_blocking(self._gpio.fd, False)

    def fileno(self) -> int:
        return int(self._gpio.fd)

    def read_level(self) -> tuple[int, bool]:
        edges = 0
        try:
            while edges < _MOST_EDGES and self._gpio.poll(0):
                self._gpio.read_event()
                edges += 1
            return edges, bool(self._gpio.read())
        except GPIOError as error:
            # Not an OSError of its own in every version.
            raise OSError(error.errno, str(error)) from error

    def close(self) -> None:
        self._gpio.close()


def find_chip(chip: str, dev: Path) -> Path:
    """The node of a gpiochip given by its path or its label. Raises DeviceError."""
    if chip.startswith("/"):
        known = "set p1.request.chip to a path or a label (csp1ctl discover lists them)"
        try:
            _label(Path(chip))
        except FileNotFoundError as error:
            raise DeviceAbsentError(f"{chip} is not there; {known}") from error
        except PermissionError:
            # Taking the line tells it, and what to do about it.
            pass
        except OSError as error:
            raise DeviceError(f"{chip} is not a GPIO chip: {error.strerror}; {known}") from error
        return Path(chip)
    labels = {}
    for node in sorted(dev.glob("gpiochip*")):
        with contextlib.suppress(OSError):
            labels[_label(node)] = node
    if chip not in labels:
        raise DeviceAbsentError(
            f"no gpiochip has the label {chip!r}; labels that can be read: "
            f"{', '.join(sorted(labels)) or 'none'}"
        )
    return labels[chip]


def _label(node: Path) -> str:
    """Of a gpiochip; raises OSError where it is none. What is no chip may block who opens it."""
    descriptor = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        info = fcntl.ioctl(descriptor, _GET_CHIPINFO, bytes(68))
    finally:
        os.close(descriptor)
    return info[32:64].rstrip(b"\0").decode(errors="replace")
