# SPDX-License-Identifier: Apache-2.0
"""Encodes the currents of L1, L2 and L3 as a P1 telegram.

Profile `csp1` equals the telegram of an existing device, byte for byte. Its framing and object
formats are those of the DSMR P1 companion standard (5.0.2 sections 6.1, 6.2 and 6.12, and 4.2.2
for the objects that 5.0 dropped). The order of the lines, the constant time stamp and the plain
text in 0-0:96.13.1 are the device's own; charge points depend on them.

Profile `smr5` follows 5.0.2 strictly: the objects of section 6.12 in the order of the example in
section 6.13, octet strings in hex (section 6.5).

Profile `emucs` follows the Belgian e-MUCS-P1 1.7.1 in the order that Belgian meters (T211, S211)
use, with the objects of the measured phases only. The capacity tariff (1-0:1.4.0, 1-0:1.6.0,
0-0:98.1.0) is left out: nothing here measures it, and 0 would be a wrong value.
"""

import math
import time
from collections.abc import Mapping, Sequence

from csp1d.config import DirectionConfig, P1Config
from csp1d.phase import Phase

MAXIMUM_AMPERES = 999
"""The format F3(0,0) has three digits."""

MAXIMUM_CENTIAMPERES = 99_999
"""The format F5(2,2) has three digits before the decimal point."""

MAXIMUM_WATTS = 99_999
"""The format F5(3,3), in kW, has two digits before the decimal point."""

_DAY_SECONDS = 86_400

# 1-0:99.97.0 holds the number of power failures, the meaning of their values, and the failures
# (section 6.11): without any, the first two remain. Meters that send "()" instead break readers.
_FAILURES = """\
0-0:96.7.21(00000)
0-0:96.7.9(00000)
1-0:99.97.0(0)(0-0:96.7.19)
1-0:32.32.0(00000)
1-0:52.32.0(00000)
1-0:72.32.0(00000)
1-0:32.36.0(00000)
1-0:52.36.0(00000)
1-0:72.36.0(00000)
"""

_CSP1_BODY = """\
/{flag_id}5{serial}

1-3:0.2.8(40)
0-0:1.0.0(000101010000W)
0-0:96.1.1({equipment_hex})
1-0:1.8.1(000000.000*kWh)
1-0:2.8.1(000000.000*kWh)
1-0:1.8.2(000000.000*kWh)
1-0:2.8.2(000000.000*kWh)
0-0:96.14.0(0001)
1-0:1.7.0({net_import_kw:06.3f}*kW)
1-0:2.7.0({net_export_kw:06.3f}*kW)
0-0:17.0.0(000.0*kW)
0-0:96.3.10(1)
{failures}0-0:96.13.1({text})
0-0:96.13.0()
{currents}{powers}!"""

_SMR5_BODY = """\
/{flag_id}5{serial}

1-3:0.2.8(50)
0-0:1.0.0({timestamp})
0-0:96.1.1({equipment_hex})
1-0:1.8.1(000000.000*kWh)
1-0:1.8.2(000000.000*kWh)
1-0:2.8.1(000000.000*kWh)
1-0:2.8.2(000000.000*kWh)
0-0:96.14.0(0001)
1-0:1.7.0({net_import_kw:06.3f}*kW)
1-0:2.7.0({net_export_kw:06.3f}*kW)
{failures}0-0:96.13.0({text_hex})
{voltages}{currents}{powers}!"""

# The end: the breaker is closed; neither a power limit (999.9) nor a fuse limit (999) is set.
_EMUCS_BODY = """\
/{flag_id}5{serial}

0-0:96.1.4(50217)
0-0:96.1.1({equipment_hex})
0-0:1.0.0({timestamp})
1-0:1.8.1(000000.000*kWh)
1-0:1.8.2(000000.000*kWh)
1-0:2.8.1(000000.000*kWh)
1-0:2.8.2(000000.000*kWh)
0-0:96.14.0(0001)
1-0:1.7.0({net_import_kw:06.3f}*kW)
1-0:2.7.0({net_export_kw:06.3f}*kW)
{powers}{voltages}{currents}0-0:96.3.10(1)
0-0:17.0.0(999.9*kW)
1-0:31.4.0(999*A)
0-0:96.13.0({text_hex})
!"""

_BODIES = {"csp1": _CSP1_BODY, "smr5": _SMR5_BODY, "emucs": _EMUCS_BODY}

_DIRECTION_OFF = DirectionConfig()


def encode(
    config: P1Config,
    amperes: Sequence[float | None],
    local_time: time.struct_time,
    direction: DirectionConfig = _DIRECTION_OFF,
) -> bytes:
    """Encode the RMS amperes of L1, L2 and L3; a negative current is export of that magnitude.

    None is a phase that is not measured: the profile `emucs` leaves it out, the others send 0 A.
    Only the profiles `smr5` and `emucs` carry the time, made by `local_time_of()`. Power is the
    current times the nominal voltage (apparent power): a consumer that divides it by the voltage
    gets the current through the fuse. It is 0 in the profile `csp1` while the direction is off.
    Raises ValueError for NaN, and for a negative current while the direction is off.
    """
    is_signed = direction.reference != "off"
    is_emucs = config.profile == "emucs"
    by_phase = {
        phase: value or 0.0
        for phase, value in zip(Phase, amperes, strict=True)
        if value is not None or not is_emucs
    }
    for value in by_phase.values():
        if math.isnan(value):
            raise ValueError("a current that is not a number cannot be sent")
        if value < 0 and not is_signed:
            raise ValueError(
                f"{value:g} A cannot be sent: a negative current is export, "
                'which requires direction.reference "voltage" or "current"'
            )
    has_power = config.profile != "csp1" or is_signed
    # Rounded as in 32.7.0, because consumers divide by that value.
    volts = round(config.nominal_voltage, 1) if has_power else 0.0
    watts = {phase: _watts(value, volts) for phase, value in by_phase.items()}
    net_watts = sum(watts.values())
    hides_export = direction.export_current == "zero"
    formatted = _hundredths if is_emucs else _whole
    currents = {
        phase: f"{formatted(max(value, 0.0) if hides_export else abs(value))}*A"
        for phase, value in by_phase.items()
    }
    plus = {phase: f"{_kilowatts(value):06.3f}*kW" for phase, value in watts.items()}
    minus = {phase: f"{_kilowatts(-value):06.3f}*kW" for phase, value in watts.items()}
    text = _BODIES[config.profile].format(
        flag_id=config.flag_id,
        serial=config.serial,
        timestamp=timestamp(local_time),
        equipment_hex=config.equipment_id.encode("ascii").hex().upper(),
        text=config.firmware_text,
        text_hex=config.firmware_text.encode("ascii").hex().upper(),
        failures=_FAILURES,
        net_import_kw=_kilowatts(net_watts),
        net_export_kw=_kilowatts(-net_watts),
        currents=_objects(3, "1.7.0", currents),
        powers=_objects(2, "1.7.0", plus) + _objects(2, "2.7.0", minus),
        voltages=_objects(3, "2.7.0", dict.fromkeys(by_phase, f"{volts:05.1f}*V")),
    )
    data = text.replace("\n", "\r\n").encode("ascii")
    return data + f"{crc16_arc(data):04X}\r\n".encode("ascii")


def _objects(first: int, rest: str, values: Mapping[Phase, str]) -> str:
    """The lines of an object: its code begins with `first` for L1, and 2 more per further phase."""
    digits = {phase: first + 2 * number for number, phase in enumerate(Phase)}
    return "".join(f"1-0:{digits[phase]}{rest}({value})\n" for phase, value in values.items())


class TelegramTime:
    """The time in telegrams: one second more per reading, so that none repeats or is skipped.

    A reading ends with a mains cycle, so the time from one to the next varies by a cycle.
    """

    def __init__(self) -> None:
        self._unix_seconds = math.inf

    def advance(self, unix_seconds: float) -> time.struct_time:
        """The local time of the next reading, which ended at `unix_seconds` by the clock.

        The clock overrides the count when they differ by more than half a second.
        """
        self._unix_seconds += 1
        if abs(self._unix_seconds - unix_seconds) > 0.5:
            self._unix_seconds = unix_seconds
        return local_time_of(self._unix_seconds)


def local_time_of(unix_seconds: float) -> time.struct_time:
    """The local time, with `tm_isdst` 1 while the zone is ahead of its least offset of that year.

    The C library's `tm_isdst` is 1 in winter where the zone's standard time is that of the summer
    (Europe/Dublin, Africa/Casablanca).
    """
    local_time = time.localtime(unix_seconds)
    year_begin = unix_seconds - (local_time.tm_yday - 1) * _DAY_SECONDS
    # The shortest standard time of a zone is that of Africa/Casablanca, in Ramadan: five weeks.
    is_summer = any(
        local_time.tm_gmtoff > time.localtime(year_begin + day * _DAY_SECONDS).tm_gmtoff
        for day in range(0, 365, 28)
    )
    return time.struct_time((*local_time[:8], int(is_summer)))


def timestamp(local_time: time.struct_time) -> str:
    """The format TST (5.0.2 section 6.4): YYMMDDhhmmss, then S in summer time or W."""
    return time.strftime("%y%m%d%H%M%S", local_time) + ("S" if local_time.tm_isdst > 0 else "W")


def whole_amperes(amperes: float) -> int:
    """Round a current that is not negative to whole amperes, halves up, at most 999."""
    return _nearest(amperes, MAXIMUM_AMPERES)


def _whole(amperes: float) -> str:
    return f"{whole_amperes(amperes):03d}"


def _hundredths(amperes: float) -> str:
    """The format F5(2,2) of a current that is not negative: halves up, at most 999.99."""
    return f"{_nearest(amperes * 100, MAXIMUM_CENTIAMPERES) / 100:06.2f}"


def _watts(amperes: float, volts: float) -> int:
    """Whole watts with the sign of the current, halves away from 0, at most 99 999."""
    watts = _nearest(min(abs(amperes), MAXIMUM_AMPERES) * volts, MAXIMUM_WATTS)
    return int(math.copysign(watts, amperes))


def _kilowatts(watts: int) -> float:
    return min(max(watts, 0), MAXIMUM_WATTS) / 1000


def _nearest(value: float, maximum: int) -> int:
    whole, rest = divmod(min(value, maximum), 1)
    return int(whole) + (rest >= 0.5)


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


_CRC_TABLE = tuple(_crc_of_byte(value) for value in range(256))


def crc16_arc(data: bytes) -> int:
    """CRC-16/ARC: x^16+x^15+x^2+1 reflected, from 0, no final XOR (5.0.2 section 6.2)."""
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc
