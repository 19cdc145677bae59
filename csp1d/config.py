# SPDX-License-Identifier: Apache-2.0
"""The configuration: one frozen dataclass a table of csp1d.toml.

They are the only list of keys, types, defaults and limits. `config_file` reads them from files.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from csp1d.phase import Phase
from csp1d.scan_type import EXACT_BITS, ScanType

_Check = Callable[[Any], str | None]
"""Says what is wrong with a value, or None."""


def _key(default: Any, *checks: _Check) -> Any:
    return field(default=default, metadata={"checks": checks})


def _within(low: float, high: float) -> _Check:
    return lambda value: None if low <= value <= high else f"must lie between {low:g} and {high:g}"


def _matches(pattern: str, meaning: str) -> _Check:
    return lambda value: None if re.fullmatch(pattern, str(value)) else f"must be {meaning}"


def _scan_type(value: str) -> str | None:
    try:
        scan_type = ScanType.parse(value) if value else None
    except ValueError as error:
        return str(error)
    if scan_type and scan_type.repeat > 1:
        return "must be of one value a scan"
    if scan_type and scan_type.bits > EXACT_BITS:
        return f"must be of at most {EXACT_BITS} bits"
    return None


def _volts(value: float) -> str | None:
    # Consumers take less for no voltage, and 0.23 is kilovolts.
    return "must be 0 or at least 1" if 0 < value < 1 else None


def _line(value: str | int) -> str | None:
    good = 0 <= value < 65536 if isinstance(value, int) else re.fullmatch(r"[!-~]+", value)
    return None if good else "must be a line's name or its offset from 0 up"


def _address(value: str) -> str | None:
    try:
        if value:
            split_address(value)
    except ValueError as error:
        return str(error)
    return None


_POSITIVE = _within(1e-9, 1e9)

# What may stand in the body of a telegram: "/" and "!" frame it, "(" and ")" delimit values.
_TEXT = r"[ -~]"
_PLAIN = rf"(?![/!()]){_TEXT}"

_INPUT = r"[a-z][a-z0-9_-]*"
_INPUT_MEANING = 'an IIO channel id such as "voltage0"'

_NAME = _matches(r"[^/\s\0-\x1f]+", "a name, without '/' or blanks")
_PATH = _matches(r"[^\s\0-\x1f][^\0-\x1f]*", "a path")
_PATH_OR_NONE = _matches(r"[^\0-\x1f]*", 'a path, or ""')
_LED = _matches(r"[^/\s\0-\x1f]*", 'the name of an LED in /sys/class/leds, or ""')


@dataclass(frozen=True)
class AdcConfig:
    device: str = _key("csp1-hat-adc", _NAME)
    trigger: str = _key(
        "", _matches(r"(hrtimer:)?[^/\s:\0-\x1f]+|", 'a trigger\'s name, "hrtimer:NAME" or ""')
    )
    sampling_frequency_hz: float = _key(4000, _within(200, 1_000_000))
    buffer_seconds: float = _key(4.0, _within(2, 60))


@dataclass(frozen=True)
class ChannelConfig:
    input: str = _key("", _matches(f"{_INPUT}|", _INPUT_MEANING))
    ct_ratio: float = _key(2000, _POSITIVE)
    burden_ohms: float = _key(20.0, _POSITIVE)
    gain: float = _key(1.0, _POSITIVE)
    reversed: bool = _key(False)
    phase_error_degrees: float = _key(0.0, _within(-90, 90))
    noise_floor_amperes: float = _key(0.0, _within(0, 1000))
    type: str = _key("", _scan_type)
    scale_millivolts: float = _key(0.0, _within(0, 1e6))


def _input(name: str) -> Any:
    return field(default_factory=lambda: ChannelConfig(input=name))


@dataclass(frozen=True)
class ChannelsConfig:
    L1: ChannelConfig = _input("voltage0")
    L2: ChannelConfig = _input("voltage1")
    L3: ChannelConfig = _input("voltage2")

    def used(self) -> Mapping[Phase, ChannelConfig]:
        """The phases that have an input."""
        every = {Phase.L1: self.L1, Phase.L2: self.L2, Phase.L3: self.L3}
        return {phase: channel for phase, channel in every.items() if channel.input}


@dataclass(frozen=True)
class MeasurementConfig:
    nominal_frequency_hz: Literal[50, 60] = _key(50)
    no_load_amperes: float = _key(0.1, _within(0, 1000))


@dataclass(frozen=True)
class DirectionConfig:
    reference: Literal["off", "voltage", "current"] = _key("off")
    input: str = _key("voltage3", _matches(_INPUT, _INPUT_MEANING))
    phase: Literal["L1", "L2", "L3"] = _key("L1")
    phase_order: Literal["L1-L2-L3", "L1-L3-L2"] = _key("L1-L2-L3")
    reference_flow: Literal["consuming", "producing"] = _key("consuming")
    phase_error_degrees: float = _key(0.0, _within(-90, 90))
    minimum: float = _key(0.5, _within(0, 1000))
    export_current: Literal["magnitude", "zero"] = _key("magnitude")

    def lag_degrees(self, phase: Phase) -> float:
        """How far the voltage of a phase lags that of the reference's phase: 0, 120 or 240."""
        order = self.phase_order.split("-")
        return (order.index(phase) - order.index(self.phase)) % 3 * 120.0


@dataclass(frozen=True)
class RequestConfig:
    chip: str = _key("/dev/gpiochip0", _PATH)
    line: str | int = _key("P1_REQUEST", _line)
    active_low: bool = _key(False)
    bias: Literal["default", "disable", "pull_up", "pull_down"] = _key("default")
    debounce_ms: float = _key(0, _within(0, 500))
    always: bool = _key(False)


@dataclass(frozen=True)
class P1Config:
    device: str = _key("/dev/ttyAMA0", _PATH)
    profile: Literal["csp1", "smr5"] = _key("csp1")
    flag_id: str = _key("XMX", _matches(r"[A-Za-z]{3}", "three letters"))
    serial: str = _key(
        "XMXCQA0000000000", _matches(rf"({_PLAIN}){{1,48}}", "1 to 48 ASCII characters, no / ! ( )")
    )
    equipment_id: str = _key(
        "E0000000000000000", _matches(rf"{_TEXT}{{0,48}}", "at most 48 ASCII characters")
    )
    firmware_text: str = _key(
        "XMX_P1CS_V08",
        _matches(rf"({_PLAIN}){{0,16}}", "at most 16 ASCII characters, no / ! ( )"),
    )
    nominal_voltage: float = _key(0, _within(0, 999), _volts)
    interval_seconds: int = _key(1, _within(1, 10))
    request: RequestConfig = field(default_factory=RequestConfig)


@dataclass(frozen=True)
class LedsConfig:
    power: str = _key("csp1:yellow:power", _LED)
    current: str = _key("csp1:yellow:current", _LED)
    p1: str = _key("csp1:yellow:p1", _LED)


@dataclass(frozen=True)
class HttpConfig:
    listen: str = _key("127.0.0.1:19510", _address)
    tls_certificate: str = _key("", _PATH_OR_NONE)
    tls_key: str = _key("", _PATH_OR_NONE)
    tls_client_ca: str = _key("", _PATH_OR_NONE)


@dataclass(frozen=True)
class LogConfig:
    level: Literal["debug", "info", "warning", "error"] = _key("info")


@dataclass(frozen=True)
class Config:
    adc: AdcConfig = field(default_factory=AdcConfig)
    channels: ChannelsConfig = field(default_factory=ChannelsConfig)
    measurement: MeasurementConfig = field(default_factory=MeasurementConfig)
    direction: DirectionConfig = field(default_factory=DirectionConfig)
    p1: P1Config = field(default_factory=P1Config)
    leds: LedsConfig = field(default_factory=LedsConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def reference(self) -> ChannelConfig | None:
        """The channel of the reference, wired as that of its phase is; None: direction is off."""
        if self.direction.reference == "off":
            return None
        like: ChannelConfig = getattr(self.channels, self.direction.phase)
        return replace(
            like,
            input=self.direction.input,
            gain=1.0,
            reversed=False,
            phase_error_degrees=self.direction.phase_error_degrees,
            noise_floor_amperes=0.0,
        )


def split_address(listen: str) -> tuple[str, int]:
    """Host and port of "ADDRESS:PORT" or "[IPv6]:PORT". Raises ValueError with the reason.

    No names but localhost: to ask a name server that does not answer would hold up the daemon.
    """
    match = re.fullmatch(
        r"(?:\[([\w.%]*:[\w:.%]*)\]|([\d.]*|localhost)):(\d{1,5})", listen, re.ASCII
    )
    host = (match[1] or match[2]) if match else ""
    try:
        if not match or int(match[3]) > 65535:
            raise ValueError
        if host not in ("", "localhost"):
            ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            'must be "ADDRESS:PORT" (an IPv6 address in brackets), or "" for none'
        ) from None
    return "127.0.0.1" if host == "localhost" else host, int(match[3])
