# SPDX-License-Identifier: Apache-2.0
"""Chooses devices for csp1d from the hardware of a machine, and writes a configuration for them."""

import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from csp1d.config import (
    FASTEST_HRTIMER_HERTZ,
    FOLDED,
    HRTIMER_PREFIX,
    LEAST_AMPERES,
    AdcConfig,
    ChannelConfig,
    LedsConfig,
    MeasurementConfig,
    P1Config,
    RequestConfig,
    folds_harmonics,
    is_current,
)
from csp1d.hat.hardware import (
    GpioChip,
    GpioLine,
    Hardware,
    IioChannel,
    IioDevice,
    LedDevice,
    SerialPort,
)
from csp1d.loading import problem
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

_WANTED_HERTZ = 4000.0

ROLES = ("power", "current", "p1")
"""The LEDs, by their configuration keys."""


USB_CANNOT_FLUSH = "USB: after an abort, the rest of the telegram is still transmitted"

# The reason why a device cannot be used; "" if it can.


def adc_fault(adc: IioDevice) -> str:
    if not adc.has_buffer or not adc.has_node:
        return "no buffer: its driver cannot capture continuously"
    if adc.driver.fault:
        return adc.driver.fault
    if not inputs(adc):
        types = ", ".join(sorted({channel.type for channel in adc.channels}))
        return f"no voltage or current input in its buffer that csp1d can read: {types or 'none'}"
    if adc.available_frequencies and nearest_frequency(adc.available_frequencies) is None:
        return f"no usable sampling frequency: {adc.available_frequencies} Hz"
    return ""


def port_fault(port: SerialPort) -> str:
    if port.is_console:
        return "kernel console; remove its console= from the kernel command line"
    others = [user for user in port.users if user != "csp1d"]
    if "agetty" in others:
        return f"used by a login prompt; systemctl mask serial-getty@{port.node.name}"
    if others:
        return f"in use by {', '.join(others)}"
    return ""


def line_fault(line: GpioLine) -> str:
    return "" if line.user in (None, "csp1d") else f"in use by {line.user}"


# The best of the usable devices; None if there is none.


def choose_adc(adcs: Iterable[IioDevice]) -> IioDevice | None:
    """Prefer the ADC of the HAT, then the one with most inputs, up to three."""
    return max(
        (adc for adc in adcs if not adc_fault(adc)),
        key=lambda adc: (
            AdcConfig().device in (adc.name, adc.label),
            phases(adc),
            adc.has_timestamp,
        ),
        default=None,
    )


def choose_port(ports: Iterable[SerialPort]) -> SerialPort | None:
    """Prefer built-in ports to USB adapters, and the PL011 (ttyAMA) to other built-in ports."""
    return min(
        (port for port in ports if not port_fault(port)),
        key=lambda port: (port.is_usb, not port.node.name.startswith("ttyAMA")),
        default=None,
    )


def choose_line(chips: Iterable[GpioChip]) -> tuple[GpioChip, GpioLine] | None:
    """The line with the name of the request line, or a similar one, and its chip before it."""
    free = [(chip, line) for chip in chips for line in chip.lines if not line_fault(line)]
    named = [found for found in free if found[1].name == RequestConfig().line]
    similar = [found for found in free if re.search("p1.*req", found[1].name, re.IGNORECASE)]
    return next(iter(named + similar), None)


def choose_led(leds: Iterable[LedDevice], role: str) -> LedDevice | None:
    """The LED whose function is the role: names are `device:colour:function` (leds-class.rst).

    Prefer that of the HAT.
    """
    fitting = (led for led in leds if led.name.rpartition(":")[2] == role)
    return min(
        (led for led in fitting if not problem(LedsConfig, role, led.name)),
        key=lambda led: led.name != getattr(LedsConfig(), role),
        default=None,
    )


def inputs(adc: IioDevice) -> list[IioChannel]:
    """The inputs that a transformer can be connected to, single-ended ones first.

    Those with a name of their own are supplies, unless there are no others. If any of them measures
    a current of the mains, the voltage inputs are those of the mains. Each pin counts once.
    """
    fitting = [
        channel
        for channel in adc.channels
        if not problem(ChannelConfig, "input", channel.id)
        and channel.type
        and not problem(ChannelConfig, "type", channel.type)
        and not _is_of_a_loop(channel)
    ]
    currents = [channel for channel in fitting if is_current(channel.id)]
    unnamed = [channel for channel in fitting if "_" not in channel.id]
    found = sorted(currents or unnamed or fitting, key=lambda channel: "-" in channel.id)
    # "voltage0-voltage1" is a second way to read the pin of "voltage0".
    by_pin = {channel.id.partition("-")[0]: channel for channel in reversed(found)}
    return [channel for channel in found if channel in by_pin.values()]


def _is_of_a_loop(channel: IioChannel) -> bool:
    """Whether it measures milliamperes, as of a sensor: csp1d refuses such a range, see `Ct`."""
    type_ = ScanType.parse(channel.type)
    codes, scale = type_.highest - type_.lowest, channel.scale_millivolts or math.inf
    return is_current(channel.id) and codes * abs(scale) / 1000 / math.sqrt(8) <= LEAST_AMPERES


def phases(adc: IioDevice) -> int:
    """The number of phases that it can measure."""
    return 1 if adc.driver.converts_one_input else min(len(inputs(adc)), len(Phase))


def nearest_frequency(available: str) -> float | None:
    """The usable frequency nearest to 4 kHz, of a list or a range "[lowest step highest]"."""
    try:
        numbers = [float(word) for word in available.strip("[] ").split()]
        if available.startswith("["):
            lowest, step, highest = numbers
            steps = math.floor((min(_WANTED_HERTZ, highest) - lowest) / step) if step else 0
            numbers = [lowest + max(0, steps) * step]
    except (ValueError, OverflowError):
        return None
    fitting = [hertz for hertz in numbers if not problem(AdcConfig, "sampling_frequency_hz", hertz)]
    return min(fitting, key=_distance, default=None)


def _distance(hertz: float) -> float:
    """From the wanted frequency, as a logarithm. One that folds harmonics is as far as one that is
    eight times as high or low."""
    return abs(math.log(hertz / _WANTED_HERTZ)) + math.log(8) * _folds(hertz)


def _folds(hertz: float) -> bool:
    return folds_harmonics(hertz, MeasurementConfig().nominal_frequency_hz)


def missing(hardware: Hardware) -> list[str]:
    """The devices that csp1d needs and that were not found."""
    needed = {
        "an ADC": choose_adc(hardware.adcs),
        "a serial port": _port_node(hardware),
        "a request line": choose_line(hardware.chips),
    }
    return [name for name, found in needed.items() if found is None]


def configuration(hardware: Hardware) -> str:
    """A csp1d.toml for this machine, with a comment for each device that was not found."""
    heading = (
        "# Generated by csp1ctl discover for the devices of this machine. Keys that are not set",
        "# have their defaults, see csp1d.toml(5).",
    )
    parts = (
        heading,
        _adc_tables(hardware),
        _port_table(hardware),
        _line_table(hardware),
        _led_table(hardware.leds),
    )
    return "\n\n".join(map("\n".join, parts)) + "\n"


def _adc_tables(hardware: Hardware) -> Iterator[str]:
    yield "[adc]"
    adc = choose_adc(hardware.adcs)
    if adc is None:
        yield "# No usable ADC found; set its name or label here."
        yield f"# device = {_toml(AdcConfig().device)}"
        return
    yield f"device = {_toml(_title(adc, hardware.adcs))}"
    if adc.driver.note:
        note = f"{adc.name}: {adc.driver.note}."
        yield from textwrap.wrap(note, 98, initial_indent="# ", subsequent_indent="# ")
    trigger = list(_trigger(adc, hardware))
    yield from trigger
    if hertz := nearest_frequency(adc.available_frequencies):
        if HRTIMER_PREFIX in "".join(trigger):
            hertz = min(hertz, FASTEST_HRTIMER_HERTZ)
        yield f"# Available: {adc.available_frequencies}"
        if _folds(hertz):
            yield f"# {hertz:.9g} {FOLDED}."
        yield f"sampling_frequency_hz = {hertz:.9g}"
    yield ""
    yield "# Compare with the wiring: input, ratio and burden of each transformer."
    for number, phase in enumerate(Phase):
        yield from ([""] if number else [])
        yield f"[channels.{phase}]"
        if number >= phases(adc):
            yield "# The ADC cannot measure more phases: this one reads 0 A."
            yield 'input = ""'
            continue
        channel = inputs(adc)[number]
        yield f"input = {_toml(channel.id)}"
        if is_current(channel.id):
            unit = "milliamperes"
            yield "# The ADC measures the current itself: no ct_ratio, no burden_ohms."
        else:
            unit = "millivolts"
            yield "ct_ratio = 2000"
            yield "burden_ohms = 20.0"
        if channel.scale_millivolts is None or channel.scale_is_coarse:
            report = (
                f"rounds its scale to {channel.scale_millivolts:g}"
                if channel.scale_is_coarse
                else "reports no scale"
            )
            yield f"# The driver {report}; set the ADC's exact {unit} per code."
            yield "# scale_millivolts = "


def _trigger(adc: IioDevice, hardware: Hardware) -> Iterator[str]:
    """Lines for an ADC that needs a trigger: one made for it, or else a kernel timer.

    The one that is attached now may not be attached after the next start of the machine.
    """
    if adc.trigger is None:
        return
    fitting = adc.driver.fitting_triggers(adc.own_triggers, hardware.triggers)
    unfit = set(adc.own_triggers) - set(fitting)
    attached = "" if adc.trigger in unfit else adc.trigger
    for name in sorted(unfit):
        yield f"# {name} needs an external clock."
    chosen = attached if not fitting or attached in fitting else fitting[0]
    if chosen and chosen not in hardware.hrtimers and not problem(AdcConfig, "trigger", chosen):
        yield f"trigger = {_toml(chosen)}"
        return
    if adc.driver.timer_triggers:
        yield "# Enable a timer of the processor in the device tree, and set its trigger here."
        yield "# trigger = "
        return
    yield "# A kernel timer (iio-trig-hrtimer) has to start each scan."
    timer = f"hrtimer:{chosen}"
    usable = chosen and not problem(AdcConfig, "trigger", timer)
    yield f"trigger = {_toml(timer if usable else 'hrtimer:csp1d')}"


def _title(adc: IioDevice, adcs: Sequence[IioDevice]) -> str:
    """Its label or name if no other ADC has it, else its number."""
    titles = [title for other in adcs for title in {other.name, other.label}]
    for title in (adc.label, adc.name):
        if titles.count(title) == 1 and not problem(AdcConfig, "device", title):
            return title
    return adc.sys_name


def _port_node(hardware: Hardware) -> Path | None:
    """The link that udev made for the port, which never changes, or else its node."""
    port = choose_port(hardware.ports)
    links = [link for link in hardware.links if link.name == "p1"]
    return next(iter(links), port.node if port else None)


def _port_table(hardware: Hardware) -> Iterator[str]:
    yield "[p1]"
    node = _port_node(hardware)
    if any(port.is_usb and port.node == node for port in hardware.ports):
        yield f"# {USB_CANNOT_FLUSH}."
    if node is None:
        yield "# No free serial port found; set it here."
        yield '# device = "/dev/ttyAMA0"'
    else:
        yield f"device = {_toml(str(node))}"
    yield "# csp1 for charge points made for the CSP1 sensor; smr5 for SmartEVSE, evcc, Domoticz"
    yield "# and Home Assistant; emucs for the same in Belgium. The table in wire.md"
    yield "# (/usr/share/doc/csp1d) has more, and the export_current for each beside solar panels."
    yield f"# profile = {_toml(P1Config().profile)}"
    yield f"# nominal_voltage = {P1Config().nominal_voltage:g}"


def _line_table(hardware: Hardware) -> Iterator[str]:
    yield "[p1.request]"
    found = choose_line(hardware.chips)
    if found is None:
        yield "# No free line has the name of the request line; set chip and line."
        yield '# chip = "/dev/gpiochip0"'
        yield f"# line = {_toml(str(RequestConfig().line))}"
        return
    chip, line = found
    stable = (
        [other.label for other in hardware.chips].count(chip.label) == 1
        and not problem(RequestConfig, "chip", chip.label)
        # The configuration reads a label that begins with "/" as a path.
        and not chip.label.startswith("/")
    )
    yield f"chip = {_toml(chip.label if stable else str(chip.node))}"
    # csp1d refuses a name that two lines of the chip have.
    named = [other.name for other in chip.lines].count(line.name) == 1 and not problem(
        RequestConfig, "line", line.name
    )
    yield f"line = {_toml(line.name) if named else line.offset}"
    yield "# true if the optocoupler of the HAT inverts the line"
    yield "active_low = false"


def _led_table(leds: Sequence[LedDevice]) -> Iterator[str]:
    yield "[leds]"
    for role in ROLES:
        led = choose_led(leds, role)
        if led is None:
            yield f"# No LED found with a name ending in :{role}."
        yield f"{role} = {_toml(led.name if led else '')}"


def _toml(text: str) -> str:
    # A JSON string is a TOML string, except for DEL and for surrogates, which no name here has.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
