# SPDX-License-Identifier: Apache-2.0
"""The telegram: from amperes to the bytes on the wire.

Profile `csp1` is the telegram of an existing device, byte for byte. Its framing and object
formats are those of the DSMR P1 companion standard (5.0.2 sections 6.1, 6.2 and 6.12, and 4.2.2
for the objects that 5.0 dropped); the order of the lines, the constant time stamp and the raw
text in 0-0:96.13.1 are the device's own, which charge points have been built against.
"""

from csp1d.config import P1Config

MAXIMUM_AMPERES = 999
"""F3(0,0) has three digits."""

_CSP1_BODY = """\
/{flag_id}5{serial}

1-3:0.2.8(40)
0-0:1.0.0(000101010000W)
0-0:96.1.1({equipment_id})
1-0:1.8.1(000000.000*kWh)
1-0:2.8.1(000000.000*kWh)
1-0:1.8.2(000000.000*kWh)
1-0:2.8.2(000000.000*kWh)
0-0:96.14.0(0001)
1-0:1.7.0(00.000*kW)
1-0:2.7.0(00.000*kW)
0-0:17.0.0(000.0*kW)
0-0:96.3.10(1)
0-0:96.7.21(00000)
0-0:96.7.9(00000)
1-0:99.97.0(0)(0-0:96.7.19)
1-0:32.32.0(00000)
1-0:52.32.0(00000)
1-0:72.32.0(00000)
1-0:32.36.0(00000)
1-0:52.36.0(00000)
1-0:72.36.0(00000)
0-0:96.13.1({firmware_text})
0-0:96.13.0()
1-0:31.7.0({L1:03d}*A)
1-0:51.7.0({L2:03d}*A)
1-0:71.7.0({L3:03d}*A)
1-0:21.7.0(00.000*kW)
1-0:41.7.0(00.000*kW)
1-0:61.7.0(00.000*kW)
1-0:22.7.0(00.000*kW)
1-0:42.7.0(00.000*kW)
1-0:62.7.0(00.000*kW)
!"""


def encode(config: P1Config, l1_amperes: float, l2_amperes: float, l3_amperes: float) -> bytes:
    """The telegram for these RMS currents.

    Raises ValueError for a current that is negative or not a number: no telegram may carry it.
    """
    text = _CSP1_BODY.format(
        flag_id=config.flag_id,
        serial=config.serial,
        equipment_id=config.equipment_id.encode("ascii").hex().upper(),
        firmware_text=config.firmware_text,
        L1=whole_amperes(l1_amperes),
        L2=whole_amperes(l2_amperes),
        L3=whole_amperes(l3_amperes),
    )
    body = text.replace("\n", "\r\n").encode("ascii")
    return body + f"{crc16_arc(body):04X}\r\n".encode("ascii")


def whole_amperes(amperes: float) -> int:
    """The nearest whole ampere, halves up, at most 999. Raises ValueError below 0 and for NaN."""
    if not amperes >= 0:
        raise ValueError(f"{amperes} A can not be sent: a current is a number from 0 up")
    whole, rest = divmod(min(amperes, MAXIMUM_AMPERES), 1)
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
