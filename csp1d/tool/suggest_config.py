# SPDX-License-Identifier: Apache-2.0
"""From what a machine has to the configuration that fits it, and to what does not fit and why."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from csp1d.config import AdcConfig, ChannelConfig, LedsConfig, RequestConfig
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
_LIMITS_HERTZ = (200.0, 1e6)

_ONE_CHANNEL_A_SCAN = re.compile(r"ads1[01]15")
_MCP3911_FAMILY = re.compile(r"mcp391[0-489]")
"""Its driver declares big-endian words and stores the machine's own."""

ROLES = ("power", "current", "p1")
"""Of the lamps, as they are configured."""


@dataclass(frozen=True)
class Line:
    """A line of a chip that can be the request line."""

    chip: GpioChip
    line: GpioLine


# What keeps a device from being used, "" where nothing does.


def adc_fault(adc: IioDevice) -> str:
    if not adc.has_buffer or not adc.has_node:
        return "no buffer: its driver can not capture continuously"
    if _ONE_CHANNEL_A_SCAN.fullmatch(adc.name):
        return "converts one channel a scan, and slowly"
    if not inputs(adc):
        return "no voltage input that scans can hold"
    if adc.available_frequencies and nearest_frequency(adc.available_frequencies) is None:
        return f"too slow: it offers {adc.available_frequencies} Hz"
    return ""


def port_fault(port: SerialPort) -> str:
    if port.is_console:
        return "the kernel's console: take console= for it off the kernel's command line"
    others = [user for user in port.users if user != "csp1d"]
    if "agetty" in others:
        return f"a login waits there: systemctl mask serial-getty@{port.node.name}"
    if others:
        return f"in use by {', '.join(others)}"
    return ""


def line_fault(line: GpioLine) -> str:
    return "" if line.user in (None, "csp1d") else f"in use by {line.user}"


# What fits best, None where nothing does.


def choose_adc(adcs: Iterable[IioDevice]) -> IioDevice | None:
    """The HAT's own, else the one with the most inputs, up to three."""
    fitting = [adc for adc in adcs if not adc_fault(adc)]
    return max(
        fitting,
        key=lambda adc: (
            AdcConfig().device in (adc.name, adc.label),
            min(len(inputs(adc)), len(Phase)),
            adc.has_timestamp,
        ),
        default=None,
    )


def choose_port(ports: Iterable[SerialPort]) -> SerialPort | None:
    """A built-in one rather than one on USB, which may be anything."""
    fitting = [port for port in ports if not port_fault(port)]
    return min(
        fitting, key=lambda port: (port.is_usb, port.node.name[:6] != "ttyAMA"), default=None
    )


def choose_line(chips: Iterable[GpioChip]) -> Line | None:
    """The one with the request line's name; a name is all that a line tells of itself."""
    lines = [Line(chip, line) for chip in chips for line in chip.lines]
    free = [each for each in lines if not line_fault(each.line)]
    named = [each for each in free if each.line.name == RequestConfig().line]
    alike = [each for each in free if re.search("p1.*req", each.line.name, re.IGNORECASE)]
    return next(iter(named + alike), None)


def choose_led(leds: Iterable[LedDevice], role: str) -> LedDevice | None:
    """Names are `device:colour:function` (leds-class.rst); the function is the role."""
    fitting = (led for led in leds if led.name.rpartition(":")[2] == role)
    return next((led for led in fitting if _may_be(LedsConfig, role, led.name)), None)


def inputs(adc: IioDevice) -> list[IioChannel]:
    """Those that can carry a transformer, single-ended ones first."""
    fitting = [channel for channel in adc.channels if _is_voltage(channel)]
    return sorted(fitting, key=lambda channel: "-" in channel.id)


def _is_voltage(channel: IioChannel) -> bool:
    try:
        single = ScanType.parse(channel.type).repeat == 1
    except ValueError:
        return False
    return (
        single and channel.id.startswith("voltage") and _may_be(ChannelConfig, "input", channel.id)
    )


def nearest_frequency(available: str) -> float | None:
    """Of those that a driver offers, a list or "[lowest step highest]", the one to ask for."""
    try:
        numbers = [float(word) for word in available.strip("[] ").split()]
        if available.startswith("["):
            lowest, step, highest = numbers
            steps = math.floor((min(_WANTED_HERTZ, highest) - lowest) / step) if step else 0
            numbers = [lowest + max(0, steps) * step]
    except ValueError:
        return None
    low, high = _LIMITS_HERTZ
    fitting = [hertz for hertz in numbers if low <= hertz <= high]
    return min(fitting, key=lambda hertz: abs(math.log(hertz / _WANTED_HERTZ)), default=None)


def type_override(adc: IioDevice, channel: IioChannel, byteorder: str) -> str:
    """The type to configure where the driver is known to tell it wrong, else "".

    `byteorder`: of this machine, as in sys.byteorder.
    """
    declared = ScanType.parse(channel.type)
    stored = replace(declared, big_endian=byteorder == "big")
    return str(stored) if _MCP3911_FAMILY.fullmatch(adc.name) and stored != declared else ""


def missing(hardware: Hardware) -> list[str]:
    """What csp1d needs and did not find, in words."""
    return [
        what
        for what, found in (
            ("an ADC", choose_adc(hardware.adcs)),
            ("a serial port", _port_node(hardware)),
            ("a request line", choose_line(hardware.chips)),
        )
        if found is None
    ]


def configuration(hardware: Hardware, byteorder: str) -> str:
    """A csp1d.toml for this machine; what was not found stands in it as a comment."""
    tables = [
        _adc_tables(hardware, byteorder),
        _port_table(hardware),
        _line_table(hardware),
        _led_table(hardware.leds),
    ]
    heading = (
        "# Made by csp1ctl discover from the devices of this machine. What is not set here has its",
        "# default: see csp1d.toml(5).",
    )
    return "\n\n".join("\n".join(lines) for lines in (heading, *tables)) + "\n"


def _adc_tables(hardware: Hardware, byteorder: str) -> Iterator[str]:
    yield "[adc]"
    adc = choose_adc(hardware.adcs)
    if adc is None:
        yield "# No ADC was found that fits; name it here when there is one."
        yield f"# device = {_toml(AdcConfig().device)}"
        return
    yield f"device = {_toml(_title(adc, hardware.adcs))}"
    yield from _trigger(adc, hardware)
    if adc.available_frequencies:
        yield f"# It offers {adc.available_frequencies}."
        yield f"sampling_frequency_hz = {nearest_frequency(adc.available_frequencies):g}"
    yield ""
    yield "# Only you know which transformer is wired to which input, its ratio and its burden."
    for number, phase in enumerate(Phase):
        channel = next(iter(inputs(adc)[number : number + 1]), None)
        yield from ([""] if number else [])
        yield f"[channels.{phase}]"
        if channel is None:
            yield "# The ADC has no more inputs: this phase reads 0 A."
            yield 'input = ""'
            continue
        yield f"input = {_toml(channel.id)}"
        yield "ct_ratio = 2000"
        yield "burden_ohms = 20.0"
        if override := type_override(adc, channel, byteorder):
            yield f"# The driver declares {channel.type}, but stores words in this machine's order."
            yield "# Take the line out if the currents are absurd."
            yield f"type = {_toml(override)}"
        if channel.scale_millivolts is None:
            yield "# The driver does not tell it; set the millivolts a code of the ADC."
            yield "# scale_millivolts = "


def _trigger(adc: IioDevice, hardware: Hardware) -> Iterator[str]:
    """Nothing for an ADC that takes none, or that has attached one of its own."""
    own = [
        name
        for name in hardware.triggers
        if name in adc.own_triggers or (adc.name and name.startswith(adc.name))
    ]
    if adc.trigger is None or adc.trigger in own:
        return
    chosen = adc.trigger or next(iter(own), "")
    if chosen in hardware.hrtimers or not _may_be(AdcConfig, "trigger", chosen) or not chosen:
        yield "# Something has to start each scan: a timer of the kernel (iio-trig-hrtimer)."
        timer = f"hrtimer:{chosen}"
        usable = chosen and _may_be(AdcConfig, "trigger", timer)
        yield f"trigger = {_toml(timer if usable else 'hrtimer:csp1d')}"
    else:
        yield f"trigger = {_toml(chosen)}"


def _title(adc: IioDevice, adcs: Sequence[IioDevice]) -> str:
    """A name that means this one alone; a number only where there is none."""
    titles = [title for each in adcs for title in {each.name, each.label}]
    for title in (adc.label, adc.name):
        if titles.count(title) == 1 and _may_be(AdcConfig, "device", title):
            return title
    return adc.sys_name


def _port_node(hardware: Hardware) -> Path | None:
    """The link of udev, which stays the same, where it has made one."""
    port = choose_port(hardware.ports)
    links = [link for link in hardware.links if link.name == "p1"]
    return next(iter(links), port.node if port else None)


def _port_table(hardware: Hardware) -> Iterator[str]:
    yield "[p1]"
    node = _port_node(hardware)
    if node is None:
        yield "# No serial port was found that is free; name it here when there is one."
        yield '# device = "/dev/ttyAMA0"'
    else:
        yield f"device = {_toml(str(node))}"
    yield "# Make these two differ between devices."
    yield '# serial = "XMXCQA0000000000"'
    yield '# equipment_id = "E0000000000000000"'


def _line_table(hardware: Hardware) -> Iterator[str]:
    yield "[p1.request]"
    found = choose_line(hardware.chips)
    if found is None:
        yield "# No free line bears the name of the request line; set chip and line by hand."
        yield '# chip = "/dev/gpiochip0"'
        yield f"# line = {_toml(str(RequestConfig().line))}"
        return
    labels = [chip.label for chip in hardware.chips]
    label = found.chip.label
    stable = labels.count(label) == 1 and _may_be(RequestConfig, "chip", label)
    # A path is taken for one, whatever it is the label of.
    stable = stable and not label.startswith("/")
    yield f"chip = {_toml(label if stable else str(found.chip.node))}"
    named = _may_be(RequestConfig, "line", found.line.name)
    yield f"line = {_toml(found.line.name) if named else found.line.offset}"
    yield "# true where the opto-coupler of the HAT inverts the line"
    yield "active_low = false"


def _led_table(leds: Sequence[LedDevice]) -> Iterator[str]:
    yield "[leds]"
    for role in ROLES:
        led = choose_led(leds, role)
        if led is None:
            yield f"# No LED was found whose name ends in :{role}."
        yield f"{role} = {_toml(led.name if led else '')}"


def _may_be(table: type, key: str, value: str) -> bool:
    """Whether the configuration takes the value for a key of this table."""
    return not problem(table, key, value)


def _toml(text: str) -> str:
    # A JSON string is a TOML string as well, but for DEL, and surrogates, which no name here has.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
