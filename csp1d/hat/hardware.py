# SPDX-License-Identifier: Apache-2.0
"""Lists the devices of this machine of the kinds that a HAT consists of, without judging them.

It only reads, and requests nothing: a running csp1d is not disturbed. What this user may not see is
listed in `Hardware.unseen`. See the kernel's Documentation/ABI/testing/sysfs-bus-iio,
sysfs-class-led and sysfs-tty.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from csp1d.hat import sysfs
from csp1d.hat.adc_drivers import AdcDriver, driver_of

_TRANSIENT = {"transient", "[transient]"}


@dataclass(frozen=True)
class IioChannel:
    """An input that can be part of a scan."""

    id: str
    index: int
    type: str
    scale_millivolts: float | None
    """Millivolts per code, or milliamperes; None: the driver does not report it."""
    scale_is_coarse: bool = False
    """The driver rounds it so coarsely that currents may be wrong by more than 0.5 %."""
    label: str = ""
    """Its name in the device tree, if the driver reports one."""


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
    """In the order of the scan; () for a device without a buffer."""
    has_timestamp: bool
    sampling_frequency_hz: float | None
    available_frequencies: str
    """As the driver reports them: a list, or "[lowest step highest]"; "" for no report."""
    trigger: str | None
    """The one attached, "" for none; None where the device accepts none."""
    own_triggers: tuple[str, ...] = ()
    """Triggers of its own driver."""

    @property
    def driver(self) -> AdcDriver:
        return driver_of(self.name)


@dataclass(frozen=True)
class GpioLine:
    offset: int
    name: str
    user: str | None
    """The consumer of the line, "?" for one without a name; None: the line is free."""


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
    """The kernel writes its messages to it."""
    users: tuple[str, ...]
    """Names of the processes that have it open or as controlling terminal, as far as visible."""


@dataclass(frozen=True)
class LedDevice:
    name: str
    has_transient: bool
    """Whether the kernel offers it the trigger `transient`."""


@dataclass(frozen=True)
class Hardware:
    adcs: tuple[IioDevice, ...] = ()
    triggers: tuple[str, ...] = ()
    hrtimers: tuple[str, ...] = ()
    """The triggers created in configfs."""
    chips: tuple[GpioChip, ...] = ()
    ports: tuple[SerialPort, ...] = ()
    leds: tuple[LedDevice, ...] = ()
    links: tuple[Path, ...] = ()
    """Stable names that the udev rules have given to devices of the HAT, in /dev/csp1d."""
    unseen: tuple[str, ...] = ()
    """What could not be read, with the reason, for the user."""


def find_hardware(
    sys: Path = Path("/sys"), dev: Path = Path("/dev"), proc: Path = Path("/proc")
) -> Hardware:
    """The devices present now."""
    unseen: list[str] = []
    bus, hrtimers = sys / "bus/iio/devices", sys / "kernel/config/iio/triggers/hrtimer"
    return Hardware(
        adcs=tuple(_adc(folder, dev) for folder in sorted(bus.glob("iio:device*"))),
        triggers=tuple(sysfs.triggers(bus)),
        hrtimers=tuple(sorted(path.name for path in hrtimers.glob("*"))),
        chips=_chips(dev, unseen),
        ports=_ports(sys / "class/tty", dev, proc, unseen),
        leds=tuple(
            LedDevice(folder.name, bool(_TRANSIENT & {*sysfs.text(folder / "trigger").split()}))
            for folder in sorted((sys / "class/leds").glob("*"))
        ),
        links=tuple(sorted((dev / "csp1d").glob("*"))),
        unseen=tuple(unseen),
    )


def _adc(folder: Path, dev: Path) -> IioDevice:
    buffer, element_folder = sysfs.buffer_folder(folder), sysfs.element_folder(folder)
    elements = sysfs.elements(element_folder)
    channels = [_channel(folder, element_folder, name) for name in elements if name != "timestamp"]
    inputs = sorted(channels, key=lambda channel: channel.index)
    rates, available = (
        [file for channel in inputs for file in sysfs.attributes(folder, channel.id, name)]
        for name in ("sampling_frequency", "sampling_frequency_available")
    )
    hertz, listed = next(map(sysfs.number, rates), None), "".join(map(sysfs.text, available[:1]))
    trigger = folder / "trigger/current_trigger"
    name = sysfs.text(folder / "name")
    driver = driver_of(name)
    return IioDevice(
        sys_name=folder.name,
        name=name,
        label=sysfs.text(folder / "label"),
        has_node=(dev / folder.name).exists(),
        has_buffer=buffer.is_dir(),
        is_capturing=sysfs.text(buffer / "enable") == "1",
        channels=tuple(inputs),
        has_timestamp="timestamp" in elements,
        sampling_frequency_hz=hertz and hertz * (driver.hertz_per_unit or 1),
        available_frequencies=driver.in_hertz(" ".join(listed.split())),
        trigger=sysfs.text(trigger) if trigger.exists() else None,
        own_triggers=tuple(sysfs.own_triggers(folder)),
    )


def _channel(folder: Path, element_folder: Path, name: str) -> IioChannel:
    scale, open_part = sysfs.channel_scale(folder, name)
    return IioChannel(
        id=name,
        index=int(sysfs.number(element_folder / f"in_{name}_index") or 0),
        type=sysfs.text(element_folder / f"in_{name}_type"),
        scale_millivolts=scale,
        scale_is_coarse=open_part > sysfs.COARSE,
        label=sysfs.text(folder / f"in_{name}_label"),
    )


def _chips(dev: Path, unseen: list[str]) -> tuple[GpioChip, ...]:
    chips = []
    for node in sorted(dev.glob("gpiochip*")):
        if node.is_symlink():
            continue
        try:
            label, lines = sysfs.gpio_chip(node)
            chips.append(GpioChip(node, label, tuple(GpioLine(*line) for line in lines)))
        except OSError as error:
            remedy = "; run as root" if isinstance(error, PermissionError) else ""
            unseen.append(f"the lines of {node}: {error.strerror}{remedy}")
    return tuple(chips)


def _ports(folder: Path, dev: Path, proc: Path, unseen: list[str]) -> tuple[SerialPort, ...]:
    consoles = sysfs.text(folder / "console/active").split()
    real = {
        path.name: path
        for path in sorted(folder.glob("*"))
        # A port of the 8250 driver without hardware has the type 0, unknown.
        if (path / "device").exists() and sysfs.text(path / "type") != "0"
    }
    numbers = {sysfs.text(path / "dev"): name for name, path in real.items()}
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
    """Names of the processes by port. `numbers`: names of the ports by "major:minor"."""
    users: dict[str, set[str]] = {}
    hidden = False
    for process in proc.glob("[0-9]*"):
        found: set[str | None] = set()
        name = "?"
        try:
            stat = (process / "stat").read_text(errors="replace")
            # proc(5): the name in parentheses may itself contain parentheses.
            name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat.rpartition(")")[2]
            terminal = int(fields.split()[4])
            number = f"{terminal >> 8 & 0xFFF}:{terminal & 0xFF | terminal >> 12 & 0xFFF00}"
            found.add(numbers.get(number))
            found |= {path.name for path in _open_files(process / "fd") if path.parent == dev}
        except PermissionError:
            hidden = True
        except (OSError, ValueError):
            continue  # The process has ended.
        for port in found & set(numbers.values()):
            users.setdefault(str(port), set()).add(name)
    if hidden:
        unseen.append("which serial ports other users' processes have open; run as root")
    return users


def _open_files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        # A file may be closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            yield entry.readlink()
