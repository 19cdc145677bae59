# SPDX-License-Identifier: Apache-2.0
"""The udev rules that give csp1d devices that are not those of the HAT, or keep others away.

csp1d's own rules (systemd/40-csp1d.rules) let it use the ADC, the GPIO chip and the LEDs that have
the names of the HAT. For devices with other names, this file of the machine, which udev reads
before, sets the property CSP1D_ACCESS. See udev(7).
"""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from csp1d.config import AdcConfig, Config, RequestConfig
from csp1d.config_file import load
from csp1d.errors import ConfigError
from csp1d.hat import sysfs
from csp1d.hat.hardware import GpioChip, Hardware, find_hardware
from csp1d.tool.output import replacing

RULES = Path("/etc/udev/rules.d/39-csp1d.rules")

_HEADING = "# Devices of csp1d beside those of its HAT, see csp1d(8). From csp1ctl discover.\n"
_UDEV = Path("/run/udev/control")


def rules(config: Config, hardware: Hardware, sysfs_root: Path = Path("/sys")) -> Iterator[str]:
    """A rule for each device of this machine that the configuration names and csp1d's own rules do
    not cover. A serial port needs no access, but ModemManager would probe a USB adapter."""
    wanted, hat = config.adc.device, AdcConfig().device
    for adc in hardware.adcs:
        names = {"KERNEL": adc.sys_name, "ATTR{name}": adc.name, "ATTR{label}": adc.label}
        keys = [key for key, name in names.items() if name == wanted]
        if keys and hat not in (adc.name, adc.label):
            yield _rule("iio", keys[0], wanted)
    # An ADC's own trigger rarely has a rate of its own.
    for name, folder in sysfs.triggers(sysfs_root / "bus/iio/devices").items():
        if name == config.adc.trigger and (folder / "sampling_frequency").exists():
            yield _rule("iio", "ATTR{name}", name)
    for chip in hardware.chips:
        if _is_requested(chip, config.p1.request) and not _has_link(chip, hardware):
            # The number of the chip may change, its hardware does not.
            parent = (sysfs_root / "bus/gpio/devices" / chip.node.name).resolve().parent.name
            is_hardware = parent not in ("devices", "virtual")
            yield _rule(
                "gpio", *(("KERNELS", parent) if is_hardware else ("KERNEL", chip.node.name))
            )
    for port in hardware.ports:
        # csp1d's own rule covers its link, whatever that points to.
        named = Path(config.p1.device)
        if port.is_usb and named.parent.name != "csp1d" and named.resolve() == port.node.resolve():
            yield _rule("tty", "KERNEL", port.node.name, "ID_MM_PORT_IGNORE")
    for led in hardware.leds:
        if led.name in vars(config.leds).values() and not led.name.startswith("csp1:"):
            yield _rule("leds", "KERNEL", led.name)


def grant(config: Config, hardware: Hardware) -> bool:
    """Add the missing rules to RULES and apply them. Returns whether there were any.

    Raises ConfigError if the file cannot be written.
    """
    present = RULES.read_text(errors="surrogateescape") if RULES.exists() else _HEADING
    lines = present.removesuffix("\n").split("\n")
    missing = [rule for rule in rules(config, hardware) if rule not in lines]
    if not missing:
        return False
    with replacing(RULES, ConfigError, mode=0o644) as file:
        text = "".join(f"{line}\n" for line in [*lines, *missing])
        file.write(text.encode(errors="surrogateescape"))
    subsystems = [
        f"--subsystem-match={name}"
        for name in ("iio", "gpio", "leds", "tty")
        if any(rule.startswith(f'SUBSYSTEM=="{name}"') for rule in missing)
    ]
    for command in (["control", "--reload"], ["trigger", *subsystems], ["settle", "--timeout=10"]):
        # In a chroot, udev does not run.
        if _UDEV.is_socket():
            os.spawnlp(os.P_WAIT, "udevadm", "udevadm", *command)
    return True


def _is_requested(chip: GpioChip, request: RequestConfig) -> bool:
    wanted = request.chip
    is_named = (
        Path(wanted).resolve() == chip.node.resolve() if wanted[:1] == "/" else wanted == chip.label
    )
    # The default names the first chip of any machine.
    has_line = any(request.line in (line.name, line.offset) for line in chip.lines)
    return is_named and has_line and not request.always


def _has_link(chip: GpioChip, hardware: Hardware) -> bool:
    links = [link for link in hardware.links if link.name == "request"]
    return any(link.resolve() == chip.node.resolve() for link in links)


def _rule(subsystem: str, key: str, name: str, sets: str = "CSP1D_ACCESS") -> str:
    # A pattern: "?" is any character, and no other character here is special.
    pattern = re.sub(r"[^\w:. /,@+-]", "?", name, flags=re.ASCII)
    return f'SUBSYSTEM=="{subsystem}", {key}=="{pattern}", ENV{{{sets}}}="1"'


if __name__ == "__main__":
    # For the upgrade from a version whose own rules covered all devices.
    try:
        if grant(load(None), find_hardware()):
            print(f"Wrote {RULES}: csp1d keeps the devices of its configuration.")
    except ConfigError as error:
        sys.exit(f"csp1d: {error}")
