# SPDX-License-Identifier: Apache-2.0
"""Reads what the kernel reports of devices, for the drivers and for discovery.

Attributes and folders in sysfs (the kernel's Documentation/ABI/testing/sysfs-bus-iio), and the
chips and lines of GPIO, which only their character devices report (include/uapi/linux/gpio.h).
"""

import errno
import fcntl
import math
import os
import re
import struct
from pathlib import Path

IIO_DEVICES = Path("/sys/bus/iio/devices")

COARSE = 0.005
"""A scale that leaves more than this part of itself open is too coarse."""

_GET_CHIPINFO = 0x8044B401
"""GPIO_GET_CHIPINFO_IOCTL: char name[32], char label[32], u32 lines."""

_GET_LINEINFO = 0xC100B405
"""GPIO_V2_GET_LINEINFO_IOCTL: char name[32], char consumer[32], u32 offset, u32, u64 flags, ..."""

_CHIP = struct.Struct("=32s32sI")
_LINE = struct.Struct("=32s32sIIQ176x")
_LINE_USED = 1
GpioLines = list[tuple[int, str, str | None]]
"""Offset, name and consumer of each line of a GPIO chip; names may occur twice."""


def read(file: Path) -> str:
    """The text of an attribute without the white space around it. Raises OSError."""
    return file.read_text(errors="replace").strip()


def text(file: Path) -> str:
    """The text of an attribute, "" where it is missing or its driver fails to read it."""
    try:
        return read(file)
    except OSError:
        return ""


def number(file: Path) -> float | None:
    """The number in an attribute, None where it is missing or not a finite number."""
    try:
        value = float(text(file))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def is_read_only(file: Path) -> bool:
    """Whether the driver accepts no value for an attribute, not even from root."""
    try:
        return not file.stat().st_mode & 0o222
    except OSError:
        return False


def write_remedy(error: OSError) -> str:
    """The remedy for an attribute that cannot be written, "" where none is known."""
    if isinstance(error, PermissionError):
        return "; give the daemon's group write access (udev rule: see DEVICES in csp1d(8))"
    # As an unprivileged container has it.
    return "; mount /sys writable" if error.errno == errno.EROFS else ""


def buffer_folder(device: Path) -> Path:
    """The folder that controls an IIO device's buffer; it is missing where there is no buffer."""
    folders = (device / "buffer0", device / "buffer")
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def element_folder(device: Path) -> Path:
    """The folder of an IIO device's scan elements; kernels before 5.13 have no `buffer0`."""
    folders = (device / "buffer0", device / "buffer", device / "scan_elements")
    return next((folder for folder in folders if elements(folder)), folders[-1])


def elements(folder: Path) -> list[str]:
    """The scan elements in a folder, "timestamp" among them, such as "voltage0"."""
    return sorted(path.name[len("in_") : -len("_en")] for path in folder.glob("in_*_en"))


def attributes(device: Path, channel: str, name: str) -> list[Path]:
    """The files that hold an attribute of a channel: its own, then those that it shares with all
    channels of its type, of its direction and of the device, as far as they exist.

    The names are those of `__iio_device_attr_init` in drivers/iio/industrialio-core.c: an index, a
    modifier and an extended name are part of the channel's own attributes only.
    """
    # "voltage" of "voltage0" and "voltage0_supply", "voltage-voltage" of "voltage0-voltage1".
    kind = re.sub(r"\d+|_.*", "", channel)
    owners = (f"in_{channel}_", f"in_{kind}_", "in_", "")
    return [file for owner in owners if (file := device / f"{owner}{name}").exists()]


def channel_number(device: Path, channel: str, name: str) -> float | None:
    """The number in the first of a channel's `attributes()` that has one."""
    numbers = map(number, attributes(device, channel, name))
    return next((value for value in numbers if value is not None), None)


def channel_scale(device: Path, channel: str) -> tuple[float | None, float]:
    """A channel's scale, and the part of it that its rounding leaves open: 0.005 is 0.5 %.

    The kernel prints 6 or 9 decimals, whatever the value. A scale of 0 says nothing, so it is None.
    """
    for file in attributes(device, channel, "scale"):
        if value := number(file):
            decimals = text(file).partition(".")[2]
            return value, 0.5 / 10 ** len(decimals) / abs(value) if decimals else 0.0
    return None, 0.0


def triggers(folder: Path) -> dict[str, Path]:
    """The folders of the IIO triggers in a folder, by the triggers' names."""
    paths = sorted(folder.glob("trigger[0-9]*"))
    return {name: path for path in paths if (name := text(path / "name"))}


def own_triggers(device: Path) -> dict[str, Path]:
    """The triggers of an IIO device's own driver: those below the same hardware, or below it."""
    folder = device.resolve()
    hardware = folder.parent
    # A device and a timer (hrtimer) without hardware are both in /sys/devices itself.
    return {} if hardware.name == "devices" else triggers(hardware) | triggers(folder)


def gpio_chip(node: Path) -> tuple[str, GpioLines]:
    """The label of a GPIO chip, and offset, name and consumer of each of its lines.

    The consumer is None for a free line, "?" for one without a name. Raises OSError where the node
    is not a GPIO chip.
    """
    lines = []
    # A node that is not a chip may block at open.
    fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _, label, count = _CHIP.unpack(fcntl.ioctl(fd, _GET_CHIPINFO, bytes(_CHIP.size)))
        for line in range(count):
            reply = fcntl.ioctl(fd, _GET_LINEINFO, _LINE.pack(b"", b"", line, 0, 0))
            name, consumer, offset, _, flags = _LINE.unpack(reply)
            user = (_c_text(consumer) or "?") if flags & _LINE_USED else None
            lines.append((offset, _c_text(name), user))
    finally:
        os.close(fd)
    return _c_text(label), lines


def _c_text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")
