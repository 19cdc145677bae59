# SPDX-License-Identifier: Apache-2.0
"""What devices this machine has of the kinds that a HAT is made of; nothing is judged here.

Everything is read, nothing is written or taken: a running csp1d is not disturbed. What another
user may not see is listed rather than guessed. See the kernel's Documentation/ABI/testing/
sysfs-bus-iio, sysfs-class-led and sysfs-tty, and include/uapi/linux/gpio.h.
"""

import contextlib
import fcntl
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_GET_CHIPINFO = 0x8044B401
"""GPIO_GET_CHIPINFO_IOCTL: char name[32], char label[32], u32 lines."""

_GET_LINEINFO = 0xC100B405
"""GPIO_V2_GET_LINEINFO_IOCTL: char name[32], char consumer[32], u32 offset, u32, u64 flags, ..."""

_CHIP = struct.Struct("=32s32sI")
_LINE = struct.Struct("=32s32sIIQ176x")
_LINE_USED = 1


@dataclass(frozen=True)
class IioChannel:
    """An input that scans can hold."""

    id: str
    index: int
    type: str
    scale_millivolts: float | None
    """None: the driver does not tell."""


@dataclass(frozen=True)
class IioDevice:
    sys_name: str
    """Such as "iio:device0"."""
    name: str
    label: str
    has_node: bool
    has_buffer: bool
    is_capturing: bool
    channels: tuple[IioChannel, ...]
    """By index; those of a device without a buffer have no place in a scan, and are not here."""
    has_timestamp: bool
    sampling_frequency_hz: float | None
    available_frequencies: str
    """As the driver writes them: a list, or "[lowest step highest]"; "" where it does not."""
    trigger: str | None
    """The one attached, "" for none; None where the device takes none."""
    own_triggers: tuple[str, ...] = ()
    """Those that its own driver has made, as far as sysfs tells."""


@dataclass(frozen=True)
class GpioLine:
    offset: int
    name: str
    user: str | None
    """What holds the line, "?" where that has no name; None: it is free."""


@dataclass(frozen=True)
class GpioChip:
    node: Path
    label: str
    lines: tuple[GpioLine, ...]


@dataclass(frozen=True)
class SerialPort:
    node: Path
    is_usb: bool
    is_console: bool
    """The kernel writes its messages there."""
    users: tuple[str, ...]
    """Processes that have it open or are controlled by it, by name, as far as may be seen."""


@dataclass(frozen=True)
class LedDevice:
    name: str
    has_transient: bool
    """Whether the kernel offers the trigger `transient` for it."""


@dataclass(frozen=True)
class Hardware:
    adcs: tuple[IioDevice, ...] = ()
    triggers: tuple[str, ...] = ()
    hrtimers: tuple[str, ...] = ()
    """Those of the triggers that somebody made in configfs."""
    chips: tuple[GpioChip, ...] = ()
    ports: tuple[SerialPort, ...] = ()
    leds: tuple[LedDevice, ...] = ()
    links: tuple[Path, ...] = ()
    """In /dev/csp1d: stable names that udev has given to devices of the HAT."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, in words."""


def find_hardware(
    sys: Path = Path("/sys"), dev: Path = Path("/dev"), proc: Path = Path("/proc")
) -> Hardware:
    """What there is now."""
    unseen: list[str] = []
    bus = sys / "bus/iio/devices"
    return Hardware(
        adcs=tuple(_adc(folder, dev) for folder in sorted(bus.glob("iio:device*"))),
        triggers=tuple(
            name for folder in sorted(bus.glob("trigger[0-9]*")) if (name := _text(folder / "name"))
        ),
        hrtimers=tuple(
            sorted(path.name for path in (sys / "kernel/config/iio/triggers/hrtimer").glob("*"))
        ),
        chips=_chips(dev, unseen),
        ports=_ports(sys / "class/tty", dev, proc, unseen),
        leds=tuple(
            LedDevice(folder.name, bool({"transient", "[transient]"} & _words(folder / "trigger")))
            for folder in sorted((sys / "class/leds").glob("*"))
        ),
        links=tuple(sorted((dev / "csp1d").glob("*"))),
        unseen=tuple(unseen),
    )


def _adc(folder: Path, dev: Path) -> IioDevice:
    buffers = [path for path in (folder / "buffer0", folder / "buffer") if path.is_dir()]
    elements = next(
        (path for path in [*buffers, folder / "scan_elements"] if [*path.glob("in_*_en")]), None
    )
    ids = [path.name[3:-3] for path in elements.glob("in_*_en")] if elements else []
    channels = [
        IioChannel(
            id=name,
            index=int(_number(elements / f"in_{name}_index") or 0),
            type=_text(elements / f"in_{name}_type"),
            scale_millivolts=_attribute(folder, name, "scale"),
        )
        for name in ids
        if elements and name != "timestamp"
    ]
    rates = [folder / "sampling_frequency", *sorted(folder.glob("in_*sampling_frequency"))]
    rate = next((path for path in rates if path.exists()), rates[0])
    trigger = folder / "trigger/current_trigger"
    return IioDevice(
        sys_name=folder.name,
        name=_text(folder / "name"),
        label=_text(folder / "label"),
        has_node=(dev / folder.name).exists(),
        has_buffer=bool(buffers),
        is_capturing=any(_text(buffer / "enable") == "1" for buffer in buffers),
        channels=tuple(sorted(channels, key=lambda channel: channel.index)),
        has_timestamp="timestamp" in ids,
        sampling_frequency_hz=_number(rate),
        available_frequencies=" ".join(_text(Path(f"{rate}_available")).split()),
        trigger=_text(trigger) if trigger.exists() else None,
        own_triggers=_own_triggers(folder),
    )


def _own_triggers(folder: Path) -> tuple[str, ...]:
    """A driver makes the device and its trigger below the same hardware."""
    if not folder.is_symlink():
        return ()
    triggers = sorted(folder.resolve().parent.glob("trigger[0-9]*"))
    return tuple(name for trigger in triggers if (name := _text(trigger / "name")))


def _attribute(folder: Path, channel: str, what: str) -> float | None:
    """A channel's own, or the one that it shares with its kind."""
    own = _number(folder / f"in_{channel}_{what}")
    kind = channel.translate({ord(digit): None for digit in "0123456789"})
    return _number(folder / f"in_{kind}_{what}") if own is None else own


def _chips(dev: Path, unseen: list[str]) -> tuple[GpioChip, ...]:
    chips = []
    for node in sorted(dev.glob("gpiochip*")):
        if node.is_symlink():
            continue
        try:
            chips.append(_chip(node))
        except OSError as error:
            unseen.append(f"the lines of {node}: {error.strerror}; run it as root")
    return tuple(chips)


def _chip(node: Path) -> GpioChip:
    with node.open("rb") as file:
        _, label, count = _CHIP.unpack(fcntl.ioctl(file, _GET_CHIPINFO, bytes(_CHIP.size)))
        lines = []
        for number in range(count):
            asked = _LINE.pack(b"", b"", number, 0, 0)
            reply = fcntl.ioctl(file, _GET_LINEINFO, asked)
            name, consumer, offset, _, flags = _LINE.unpack(reply)
            user = (_c_text(consumer) or "?") if flags & _LINE_USED else None
            lines.append(GpioLine(offset, _c_text(name), user))
    return GpioChip(node, _c_text(label), tuple(lines))


def _ports(folder: Path, dev: Path, proc: Path, unseen: list[str]) -> tuple[SerialPort, ...]:
    consoles = _text(folder / "console/active").split()
    real = {
        path.name: path
        for path in sorted(folder.glob("*"))
        # A port of the 8250 driver without hardware behind it is of the unknown type, 0.
        if (path / "device").exists() and _text(path / "type") != "0"
    }
    numbers = {_text(path / "dev"): name for name, path in real.items()}
    users = _users(numbers, dev, proc, unseen) if real else {}
    return tuple(
        SerialPort(
            node=dev / name,
            is_usb="/usb" in str((path / "device").resolve()),
            is_console=name in consoles,
            users=tuple(sorted(users.get(name, ()))),
        )
        for name, path in real.items()
    )


def _users(
    numbers: Mapping[str, str], dev: Path, proc: Path, unseen: list[str]
) -> Mapping[str, set[str]]:
    """Names of processes by port. `numbers`: the ports by "major:minor"."""
    users: dict[str, set[str]] = {}
    hidden = False
    for process in proc.glob("[0-9]*"):
        found: set[str | None] = set()
        name = "?"
        try:
            stat = (process / "stat").read_text(errors="replace")
            # proc(5): the name in brackets may hold anything, even brackets.
            name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat.rpartition(")")[2]
            terminal = int(fields.split()[4])
            number = f"{terminal >> 8 & 0xFFF}:{terminal & 0xFF | terminal >> 12 & 0xFFF00}"
            found.add(numbers.get(number))
            found |= {path.name for path in _open_files(process / "fd") if path.parent == dev}
        except PermissionError:
            hidden = True
        except (OSError, ValueError):
            continue  # It ended meanwhile.
        for port in found & set(numbers.values()):
            users.setdefault(str(port), set()).add(name)
    if hidden:
        unseen.append("which serial ports other users' processes have open; run it as root")
    return users


def _open_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        # It may be closed by now.
        with contextlib.suppress(FileNotFoundError):
            yield entry.readlink()


def _text(file: Path) -> str:
    """What stands in a file of sysfs, "" where it is not there or can not be read."""
    try:
        return file.read_text(errors="replace").strip()
    except OSError:
        # Some drivers have a file and fail on reading it.
        return ""


def _words(file: Path) -> set[str]:
    return {*_text(file).split()}


def _number(file: Path) -> float | None:
    try:
        return float(_text(file))
    except ValueError:
        return None


def _c_text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode(errors="replace")
