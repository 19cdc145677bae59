# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl discover`: the devices of this machine, and a configuration for them.

The configuration goes to standard output or to a new file, the report on the devices to standard
error. With a drop-in of the service, csp1d is given access to the devices.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from csp1d.config import Config, is_current
from csp1d.config_file import DEFAULT_PATH, drop_in_folder, load
from csp1d.errors import ConfigError, printable
from csp1d.exits import DEVICE_MISSING, OK
from csp1d.hat.hardware import GpioChip, GpioLine, Hardware, IioDevice, SerialPort, find_hardware
from csp1d.scan_type import ScanType
from csp1d.tool import access
from csp1d.tool.output import replacing
from csp1d.tool.suggest_config import (
    ROLES,
    USB_CANNOT_FLUSH,
    adc_fault,
    choose_adc,
    choose_led,
    choose_line,
    choose_port,
    configuration,
    inputs,
    line_fault,
    missing,
    port_fault,
)

_NO_TRANSIENT = " (trigger transient missing: modprobe ledtrig-transient)"


def run(config: Config, arguments: argparse.Namespace) -> int:
    hardware = find_hardware()
    print("\n".join(map(printable, report(hardware))), file=sys.stderr)
    absent = missing(hardware)
    if absent:
        print(f"\nMissing: {', '.join(absent)}. The configuration is incomplete.", file=sys.stderr)
        if hardware.unseen and os.geteuid():
            print("Some devices are visible only to root: try again with sudo.", file=sys.stderr)
    lines = configuration(hardware).split("\n")
    text = "\n".join(map(printable, lines))
    if arguments.output:
        _save(text, arguments.output, arguments.config, hardware)
    else:
        file = drop_in_folder(arguments.config) / "10-hat.toml"
        place = f"Configuration (standard output; --output {file} saves it)"
        print(f"\n{place}:\n", file=sys.stderr, flush=True)
        print(text, end="")
    return DEVICE_MISSING if absent else OK


def _save(text: str, path: Path, config_path: Path, hardware: Hardware) -> None:
    """Write the configuration unless the file exists, give csp1d access to the devices that the
    service's configuration then names, and say what to do next.
    """
    if os.path.lexists(path):
        print(f"\n{path} exists and is not changed; remove it to get a new one.", file=sys.stderr)
    else:
        # Readable by the daemon's user, whatever the umask.
        with replacing(path, ConfigError, mode=0o644) as file:
            file.write(text.encode())
        print(f"\nWrote {path}.", file=sys.stderr)
    is_default = config_path == DEFAULT_PATH
    is_drop_in = path.parent.absolute() == drop_in_folder(config_path).absolute()
    if is_drop_in and is_default and access.grant(load(None), hardware):
        print(f"Wrote {access.RULES}: udev gives csp1d the devices.", file=sys.stderr)
    chosen = config_path if is_drop_in else path
    option = "" if chosen == DEFAULT_PATH else f" --config {shlex.quote(str(chosen))}"
    after = "\n    sudo systemctl reload csp1d" if is_drop_in and is_default else ""
    print(
        f"Compare input, ct_ratio, burden_ohms and active_low in {path} with the wiring,\nthen:\n"
        f"    csp1d{option} --check-config{after}",
        file=sys.stderr,
    )


def report(hardware: Hardware) -> Iterator[str]:
    """The devices by kind, a line or more each; "+" marks those of the configuration."""
    adc, port = choose_adc(hardware.adcs), choose_port(hardware.ports)
    chosen_chip, chosen_line = choose_line(hardware.chips) or (None, None)
    yield "ADCs (IIO devices)"
    for device in hardware.adcs:
        yield from _adc_lines(device, is_chosen=device == adc)
    yield from _none(hardware.adcs)
    if hardware.triggers:
        yield f"  triggers: {', '.join(hardware.triggers)}"
    yield "Serial ports"
    for tty in hardware.ports:
        yield from _port_lines(tty, is_chosen=tty == port)
    yield from _none(hardware.ports)
    yield "GPIO chips"
    for chip in hardware.chips:
        yield from _chip_lines(chip, chosen_line, is_chosen=chip == chosen_chip)
    unseen_chips = tuple(text for text in hardware.unseen if "gpiochip" in text)
    yield from _none(hardware.chips or unseen_chips)
    yield "LEDs"
    leds = [choose_led(hardware.leds, role) for role in ROLES]
    for led in hardware.leds:
        hint = "" if led.has_transient else _NO_TRANSIENT
        yield _line(led in leds, f"{led.name}{hint}")
    yield from _none(hardware.leds)
    for link in hardware.links:
        yield f"Named by udev: {link}"
    for unseen in hardware.unseen:
        yield f"Not visible: {unseen}"


def _none(found: tuple[object, ...]) -> Iterator[str]:
    if not found:
        yield "  none"


def _line(is_chosen: bool, text: str) -> str:
    return f"{'+' if is_chosen else '-':>3} {text}"


def _adc_lines(adc: IioDevice, is_chosen: bool) -> Iterator[str]:
    label = f", label {adc.label}" if adc.label else ""
    yield _line(is_chosen, f"{adc.sys_name}: {adc.name or 'no name'}{label}")
    if fault := adc_fault(adc):
        yield f"      not usable: {fault}"
        return
    found = inputs(adc)
    listed = (channel.id + (f' "{channel.label}"' if channel.label else "") for channel in found)
    declared = found[0].type
    stored = str(adc.driver.stored(ScanType.parse(declared), sys.byteorder))
    correction = "" if stored == declared else f", which the driver declares as {declared}"
    yield f"      inputs: {', '.join(listed)} ({stored}{correction})"
    scales = {channel.scale_millivolts for channel in found}
    shown = ", ".join("not reported" if scale is None else f"{scale:g}" for scale in scales)
    unit = "milliamperes" if is_current(found[0].id) else "millivolts"
    yield f"      {unit} per code: {shown}"
    if adc.sampling_frequency_hz is not None or adc.available_frequencies:
        rate = adc.sampling_frequency_hz
        present = "not reported" if rate is None else f"{rate:g} Hz"
        yield f"      rate: {present}; available: {adc.available_frequencies or 'not reported'}"
    if adc.trigger is not None:
        yield f"      trigger: {adc.trigger or 'none attached'}"
    if not adc.has_timestamp:
        yield "      no timestamps: time is derived from the number of scans"
    if adc.driver.converts_one_input:
        yield "      one input per scan: serves one phase"
    elif len(found) < 3:
        yield f"      inputs for {len(found)} of 3 phases"
    if adc.driver.note:
        yield f"      {adc.driver.note}"
    if adc.is_capturing:
        yield "      in use: capturing"


def _port_lines(port: SerialPort, is_chosen: bool) -> Iterator[str]:
    where = " (USB)" if port.is_usb else ""
    fault = port_fault(port)
    state = f"not usable: {fault}" if fault else "in use by csp1d" if port.users else "free"
    yield _line(is_chosen, f"{port.node}{where}: {state}")
    if port.is_usb:
        yield f"      {USB_CANNOT_FLUSH}"


def _chip_lines(chip: GpioChip, chosen: GpioLine | None, is_chosen: bool) -> Iterator[str]:
    """The lines in use, and those with the name of the chosen one, which may be on another chip."""
    named = [line for line in chip.lines if line.name]
    yield f"    {chip.node}: {chip.label}, {len(chip.lines)} lines, {len(named)} named"
    for line in chip.lines:
        # Boards name all their lines.
        if line.user or (chosen and line.name == chosen.name):
            state = line_fault(line) or ("in use by csp1d" if line.user else "free")
            yield f"  {_line(is_chosen and line == chosen, f'{line.offset} {line.name}: {state}')}"
