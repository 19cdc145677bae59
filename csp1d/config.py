# SPDX-License-Identifier: Apache-2.0
"""The configuration: one frozen dataclass per table of csp1d.toml.

They are the only list of keys, types, units, defaults and limits; csp1d.toml(5) says more about
each key. `config_file` reads them from files.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from csp1d.loading import key, matches, within, wrong
from csp1d.phase import Phase
from csp1d.scan_type import EXACT_BITS, ScanType


def _scan_type(value: str) -> None:
    scan_type = ScanType.parse(value) if value else None
    if scan_type and scan_type.repeat > 1:
        raise wrong("one value per scan", value)
    if scan_type and scan_type.bits > EXACT_BITS:
        raise wrong(f"at most {EXACT_BITS} bits", value)


def _zero_or_more(value: float) -> None:
    # Consumers take less than 1 V for no voltage, and 0.23 is kilovolts.
    if 0 < value < 1:
        raise wrong("0 or at least 1", value)


def _socket(value: str) -> None:
    # struct sockaddr_un has 108 bytes, with the null byte at the end (unix(7)).
    if len(value.encode()) > 107:
        raise wrong("at most 107 bytes", value)


def _line(value: str | int) -> None:
    if not (0 <= value < 65536 if isinstance(value, int) else re.fullmatch(r"[!-~]+", value)):
        raise wrong("the name of a line, or its offset from 0 to 65535", value)


# Characters allowed in the body of a telegram: "/" and "!" frame it, "(" and ")" delimit values.
_TEXT = r"[ -~]"
_PLAIN = rf"(?![/!()]){_TEXT}"

# Only these carry the waveform of a current: any other channel, and an RMS value, stands still and
# would read 0 A. A driver may add any name of its own: "voltage0_VDD".
_INPUT = r"(alt)?(voltage|current)(?!.*_rms)[A-Za-z0-9_.+-]*"
_INPUT_MEANING = 'the IIO channel id of a voltage or current, such as "voltage0" or "current0"'

_NAME = matches(r"[^/\s\0-\x1f]+", "a name without '/' or spaces")
_PATH = matches(r"[^\s\0-\x1f][^\0-\x1f]*", "a path")
_PATH_OR_NONE = matches(r"[^\0-\x1f]*", 'a path, or ""')
_LED = matches(r"[^/\s\0-\x1f]*", 'the name of an LED in /sys/class/leds, or ""')
HRTIMER_PREFIX = "hrtimer:"
"""Of a trigger that csp1d creates: a timer of the kernel."""
FASTEST_HRTIMER_HERTZ = 20_000
"""Each tick interrupts the processor: a faster timer can occupy it completely."""

FOLDED = (
    "scans per second is a multiple of the mains frequency: harmonics of a load fold onto the"
    " mains, and currents may be wrong by percents"
)
"""What `folds_harmonics` means, after the rate."""

LEAST_AMPERES = 1.0
"""Least current that every configuration must measure: it must not exceed the range of the ADC, and
from peak to peak it must be more than one code. Otherwise a load could read 0 A."""

_TRIGGER = matches(
    rf"({HRTIMER_PREFIX})?[^/\s:\0-\x1f]+|", 'the name of a trigger, "hrtimer:NAME" or ""'
)


@dataclass(frozen=True)
class SiteConfig:
    """The house that is measured."""

    name: str = key(
        matches(r"[^\0-\x1f\x7f-\x9f\u2028\u2029]{0,64}", "at most 64 characters in one line"),
        default="",
    )
    """Name of the site, shown on the page and in metrics: at most 64 characters."""
    main_fuse_amperes: float = key(within(0, 999), _zero_or_more, default=0)
    """Rating of the main fuse in amperes; 0 if it is unknown."""


@dataclass(frozen=True)
class AdcConfig:
    """The ADC."""

    device: str = key(_NAME, default="csp1-hat-adc")
    """IIO device: its name or label in sysfs, or "iio:device0"."""
    trigger: str = key(_TRIGGER, default="")
    """Trigger that starts each scan: an existing one, or "hrtimer:NAME" to create one."""
    sampling_frequency_hz: float = key(within(200, 1_000_000), default=4000)
    """Scans per second that csp1d sets in the driver."""
    buffer_seconds: float = key(within(2, 60), default=4.0)
    """Length of the kernel's buffer in seconds."""


@dataclass(frozen=True)
class ChannelConfig:
    """The current transformer of a phase, and the ADC channel that it is wired to."""

    input: str = key(matches(f"{_INPUT}|", _INPUT_MEANING), default="")
    """IIO channel id; "" if the phase is not measured."""
    ct_ratio: float = key(within(1, 100_000), default=2000)
    """Turns ratio of the current transformer; not for an input that measures a current."""
    burden_ohms: float = key(within(0.01, 10_000), default=20.0)
    """Resistance across the current transformer in ohms; not for an input of a current."""
    gain: float = key(within(0.5, 2), default=1.0)
    """Correction factor of the reading: 1.037 raises it by 3.7 %."""
    reversed: bool = False
    """Whether the current transformer is mounted the wrong way round."""
    phase_error_degrees: float = key(within(-30, 30), default=0.0)
    """Phase lead of the signal at the ADC over the current, in degrees."""
    noise_floor_amperes: float = key(within(0, 5), default=0.0)
    """Reading without current, in amperes; subtracted as noise."""
    type: str = key(_scan_type, default="")
    """Format of the samples, such as "le:s24/32>>0"; "" for the driver's."""
    scale_millivolts: float = key(within(0, 1e6), default=0.0)
    """Millivolts per code of the ADC, or milliamperes for a current; 0 for the driver's."""


@dataclass(frozen=True)
class ChannelsConfig:
    """The channels of the three phases."""

    L1: ChannelConfig = ChannelConfig(input="voltage0")
    L2: ChannelConfig = ChannelConfig(input="voltage1")
    L3: ChannelConfig = ChannelConfig(input="voltage2")

    def used(self) -> Mapping[Phase, ChannelConfig]:
        """The phases that have an input."""
        return {phase: channel for phase in Phase if (channel := getattr(self, phase)).input}


@dataclass(frozen=True)
class MeasurementConfig:
    """Measuring, for all phases."""

    nominal_frequency_hz: Literal[50, 60] = 50
    """Nominal mains frequency in hertz."""
    no_load_amperes: float = key(within(0, 5), default=0.1)
    """Current in amperes below which a phase reads 0 A."""


@dataclass(frozen=True)
class DirectionConfig:
    """Import or export of each phase, measured with a reference channel."""

    reference: Literal["off", "voltage", "current"] = "off"
    """Quantity that the reference channel senses; "off" disables the direction."""
    input: str = key(matches(_INPUT, _INPUT_MEANING), default="voltage3")
    """IIO channel id of the reference."""
    phase: Literal["L1", "L2", "L3"] = "L1"
    """Phase that the reference senses."""
    phase_order: Literal["L1-L2-L3", "L1-L3-L2"] = "L1-L2-L3"
    """Order in which the phases reach their peaks."""
    reference_flow: Literal["consuming", "producing"] = "consuming"
    """Whether the circuit of a "current" reference consumes or produces power."""
    phase_error_degrees: float = key(within(-30, 30), default=0.0)
    """Phase lead of the reference signal over the sensed quantity, in degrees."""
    minimum: float = key(within(0.01, 1000), default=0.5)
    """Weakest usable reference, in volts RMS at the ADC or in amperes RMS."""
    export_current: Literal["magnitude", "zero"] = "magnitude"
    """Current sent for a phase that exports: its magnitude, or zero."""

    def lag_degrees(self, phase: Phase) -> float:
        """Lag of a phase's voltage after that of the reference's phase: 0, 120 or 240."""
        order = self.phase_order.split("-")
        return (order.index(phase) - order.index(self.phase)) % 3 * 120.0


@dataclass(frozen=True)
class RequestConfig:
    """The GPIO line on which the charge point requests telegrams."""

    chip: str = key(_PATH, default="/dev/gpiochip0")
    """GPIO chip: its path or its label."""
    line: str | int = key(_line, default="P1_REQUEST")
    """GPIO line: its name, or its offset on the chip."""
    active_low: bool = False
    """Whether the hardware inverts the line."""
    bias: Literal["default", "disable", "pull_up", "pull_down"] = "default"
    """Bias of the input; "default" leaves it unchanged."""
    debounce_ms: float = key(within(0, 500), default=0)
    """Time in milliseconds that a level must last to count."""
    always: bool = False
    """Whether every reading is sent without a request; the GPIO line is not used."""


@dataclass(frozen=True)
class P1Config:
    """The serial port to the charge point, and its telegrams."""

    device: str = key(_PATH, default="/dev/ttyAMA0")
    """Serial port; csp1d sets it to 115200 8N1."""
    profile: Literal["csp1", "smr5", "emucs"] = "csp1"
    """Format: "csp1" of an existing device, "smr5" of SMR 5.0.2, "emucs" of Belgian meters."""
    flag_id: str = key(matches(r"[A-Za-z]{3}", "three letters"), default="XMX")
    """Three letters for the manufacturer; a telegram begins with /<flag_id>5<serial>."""
    serial: str = key(
        matches(rf"({_PLAIN}){{1,16}}", "1 to 16 ASCII characters, no / ! ( )"), default="auto"
    )
    """Serial number: 1 to 16 ASCII characters, no / ! ( ); "auto" from the machine's id."""
    equipment_id: str = key(
        matches(rf"{_TEXT}{{0,48}}", "at most 48 ASCII characters"), default="auto"
    )
    """Identity of the meter, sent in 0-0:96.1.1: at most 48 ASCII characters; "auto" as above."""
    firmware_text: str = key(
        matches(rf"({_PLAIN}){{0,16}}", "at most 16 ASCII characters, no / ! ( )"),
        default="XMX_P1CS_V08",
    )
    """Firmware version in a telegram: at most 16 ASCII characters, no / ! ( )."""
    nominal_voltage: float = key(within(0, 999), _zero_or_more, default=230)
    """Voltage in volts for power, which is current times this; 0 for no power, or at least 1."""
    interval_seconds: int = key(within(1, 10), default=1)
    """Shortest time between telegrams, in seconds."""
    request: RequestConfig = RequestConfig()


@dataclass(frozen=True)
class LedsConfig:
    """Names of the LEDs in /sys/class/leds; "" for an LED that the board does not have."""

    power: str = key(_LED, default="csp1:yellow:power")
    """LED that shows that the board has power."""
    current: str = key(_LED, default="csp1:yellow:current")
    """LED that shows the sum of the currents."""
    p1: str = key(_LED, default="csp1:yellow:p1")
    """LED that shows that the charge point requests telegrams."""


@dataclass(frozen=True)
class HttpConfig:
    """The HTTP server, which is read-only."""

    listen: str = key(lambda value: value and split_address(value), default="127.0.0.1:19510")
    """Address and port; "" disables the server."""
    socket: str = key(_PATH_OR_NONE, _socket, default="/run/csp1d/http.sock")
    """Unix socket with the same pages for the tools of this machine; "" for none."""
    tls_certificate: str = key(_PATH_OR_NONE, default="")
    """PEM file of the certificate, followed by those of its issuers; "" for no TLS."""
    tls_key: str = key(_PATH_OR_NONE, default="")
    """PEM file of the private key, without a passphrase."""
    tls_client_ca: str = key(_PATH_OR_NONE, default="")
    """PEM file of the authorities for client certificates; "" accepts every client."""


@dataclass(frozen=True)
class LogConfig:
    """The log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged."""


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    site: SiteConfig = SiteConfig()
    adc: AdcConfig = AdcConfig()
    channels: ChannelsConfig = ChannelsConfig()
    measurement: MeasurementConfig = MeasurementConfig()
    direction: DirectionConfig = DirectionConfig()
    p1: P1Config = P1Config()
    leds: LedsConfig = LedsConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()

    def reference(self) -> ChannelConfig | None:
        """The channel of the direction's reference, wired like that of its phase, or None."""
        if self.direction.reference == "off":
            return None
        channel: ChannelConfig = getattr(self.channels, self.direction.phase)
        is_same_kind = is_current(channel.input) == is_current(self.direction.input)
        return replace(
            channel,
            input=self.direction.input,
            # Millivolts of the one are not milliamperes of the other.
            scale_millivolts=channel.scale_millivolts if is_same_kind else 0.0,
            gain=1.0,
            reversed=False,
            phase_error_degrees=self.direction.phase_error_degrees,
            noise_floor_amperes=0.0,
        )


def folds_harmonics(hertz: float, nominal_hertz: float) -> bool:
    """Whether scans at this rate fold harmonics of the mains onto other harmonics, with which they
    add by their phases: the RMS is wrong then, unless an analog filter removes them.

    A rate of n times the mains frequency folds the odd harmonic n - 1 onto the fundamental if n is
    even, the harmonic 2n - 1 if n is odd. Loads have harmonics of up to the 40th (IEC 61000-3-2),
    the mains stays within 0.1 Hz: docs/accuracy.md.
    """
    multiple = round(hertz / nominal_hertz)
    folded = multiple if multiple % 2 == 0 else 2 * multiple
    return folded <= 40 and abs(hertz - multiple * nominal_hertz) < 5


def is_current(channel_id: str) -> bool:
    """Whether an IIO channel measures a current: scale and offset give milliamperes then, not
    millivolts (the kernel's Documentation/ABI/testing/sysfs-bus-iio)."""
    return channel_id.startswith(("current", "altcurrent"))


def split_address(listen: str) -> tuple[tuple[str, ...], int]:
    """Addresses and port of "ADDRESS:PORT" or "[IPv6]:PORT". Raises ValueError with the reason.

    Without an address, and for localhost, there is one of each family.

    The only name is localhost: waiting for a name server would hold up the daemon.
    """
    import ipaddress  # Only now: many configurations leave the address out.

    match = re.fullmatch(
        r"(?:\[([\w.%]*:[\w:.%~-]*)\]|([\d.]*|localhost)):(\d{1,5})", listen, re.ASCII
    )
    host = (match[1] or match[2]) if match else ""
    try:
        if not match or int(match[3]) > 65535:
            raise ValueError
        if host not in ("", "localhost"):
            ipaddress.ip_address(host)
    except ValueError:
        meaning = '"ADDRESS:PORT" (an IPv6 address in brackets), or "" to disable the server'
        raise wrong(meaning, listen) from None
    both = {"": ("0.0.0.0", "::"), "localhost": ("127.0.0.1", "::1")}
    return both.get(host, (host,)), int(match[3])
