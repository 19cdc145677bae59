# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl discover`: what is here, what of it fits csp1d, and a configuration made of that.

The configuration goes to standard output, to be saved as it is; what is said about it goes to
standard error.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from csp1d.exits import DEVICE_MISSING, OK
from csp1d.hat.hardware import GpioChip, Hardware, IioDevice, LedDevice, SerialPort, find_hardware
from csp1d.tool.suggest_config import (
    ROLES,
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


def run(config_path: Path) -> int:
    """Look, and tell."""
    hardware = find_hardware()
    print("\n".join(report(hardware)), file=sys.stderr)
    absent = missing(hardware)
    if absent:
        print(f"\nMissing: {', '.join(absent)}. The configuration has gaps there.", file=sys.stderr)
        if hardware.unseen:
            print("Not all could be seen: run it as root (sudo) first.", file=sys.stderr)
    print(f"\nThe configuration below is for {config_path}.\n", file=sys.stderr, flush=True)
    print(configuration(hardware, sys.byteorder), end="")
    return DEVICE_MISSING if absent else OK


def report(hardware: Hardware) -> Iterator[str]:
    """All devices with what is to be said of them; "+" before those that are taken."""
    adc, line = choose_adc(hardware.adcs), choose_line(hardware.chips)
    port = choose_port(hardware.ports)
    yield "ADCs (IIO devices)"
    for each in hardware.adcs:
        yield from _adc_lines(each, taken=each == adc)
    yield from _none(hardware.adcs)
    if hardware.triggers:
        yield f"  triggers: {', '.join(hardware.triggers)}"
    yield "Serial ports"
    for tty in hardware.ports:
        yield _port_line(tty, taken=tty == port)
    yield from _none(hardware.ports)
    yield "GPIO chips"
    for chip in hardware.chips:
        taken = line.line.name if line and line.chip == chip else None
        yield from _chip_lines(chip, taken)
    hidden = tuple(each for each in hardware.unseen if "gpiochip" in each)
    yield from _none(hardware.chips or hidden)
    yield "LEDs"
    lamps = [choose_led(hardware.leds, role) for role in ROLES]
    for led in hardware.leds:
        yield _led_line(led, taken=led in lamps)
    yield from _none(hardware.leds)
    for link in hardware.links:
        yield f"Named by udev: {link}"
    for unseen in hardware.unseen:
        yield f"Not seen: {unseen}"


def _none(found: tuple[object, ...]) -> Iterator[str]:
    if not found:
        yield "  none"


def _line(taken: bool, words: str) -> str:
    return f"{'+' if taken else '-':>3} {words}"


def _adc_lines(adc: IioDevice, taken: bool) -> Iterator[str]:
    label = f", labelled {adc.label}" if adc.label else ""
    yield _line(taken, f"{adc.sys_name}: {adc.name or 'without a name'}{label}")
    if fault := adc_fault(adc):
        yield f"      does not fit: {fault}"
        return
    found = inputs(adc)
    yield f"      inputs: {', '.join(channel.id for channel in found)} ({found[0].type})"
    scales = {channel.scale_millivolts for channel in found}
    told = ", ".join("not told" if scale is None else f"{scale:g}" for scale in scales)
    yield f"      millivolts a code: {told}"
    if adc.sampling_frequency_hz is not None or adc.available_frequencies:
        rate = adc.sampling_frequency_hz
        now = "not told" if rate is None else f"{rate:g} Hz now"
        yield f"      rate: {now}; available: {adc.available_frequencies or 'not told'}"
    if adc.trigger is not None:
        yield f"      trigger: {adc.trigger or 'none attached'}"
    if not adc.has_timestamp:
        yield "      no time stamps: time is counted in scans"
    if len(found) < 3:
        yield f"      {len(found)} of three phases can be measured"
    if adc.is_capturing:
        yield "      is capturing now"


def _port_line(port: SerialPort, taken: bool) -> str:
    where = " (USB)" if port.is_usb else ""
    fault = port_fault(port)
    state = f"does not fit: {fault}" if fault else "free"
    if not fault and port.users:
        state = "in use by csp1d"
    return _line(taken, f"{port.node}{where}: {state}")


def _chip_lines(chip: GpioChip, taken: str | None) -> Iterator[str]:
    named = [line for line in chip.lines if line.name]
    yield f"    {chip.node}: {chip.label}, {len(chip.lines)} lines, {len(named)} of them named"
    for line in chip.lines:
        # A board names all its lines; what is not free, or may be meant, is worth a line.
        if line.user or line.name == taken:
            state = line_fault(line) or ("in use by csp1d" if line.user else "free")
            yield f"  {_line(line.name == taken, f'{line.offset} {line.name}: {state}')}"


def _led_line(led: LedDevice, taken: bool) -> str:
    note = "" if led.has_transient else " (no trigger transient: modprobe ledtrig-transient)"
    return _line(taken, f"{led.name}{note}")
