# SPDX-License-Identifier: Apache-2.0
"""The telegram, against golden ones and against the formats of the standard."""

import calendar
import itertools
import math
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp1d.config import DirectionConfig, P1Config
from csp1d.p1.telegram import (
    TelegramTime,
    _crc_of_byte,
    crc16_arc,
    encode,
    local_time_of,
    whole_amperes,
)

HERE = Path(__file__).parent
CSP1 = P1Config(
    serial="XMXCQA0000008879",
    equipment_id="E0000000000000000",
    firmware_text="XMX_P1CS_V05",
)
SMR5 = replace(CSP1, profile="smr5")
EMUCS = replace(CSP1, profile="emucs")
OFF = DirectionConfig()
ON = DirectionConfig(reference="voltage")
HIDDEN = DirectionConfig(reference="current", export_current="zero")
SUMMER = time.struct_time((2026, 7, 1, 12, 34, 56, 2, 182, 1))
WINTER = time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0))

amperes = st.tuples(*[st.floats(0, 999)] * 3)
signed_amperes = st.tuples(*[st.floats(-999, 999)] * 3)
volts = st.floats(100, 300)


def values(data: bytes) -> dict[str, str]:
    """The value of each object, by its OBIS code."""
    lines = data.decode("ascii").split("\r\n")[2:-2]
    return {line[: line.index("(")]: line[line.index("(") + 1 : -1] for line in lines}


# Golden telegrams.


@pytest.mark.parametrize(
    ("golden", "config", "direction", "currents", "local_time"),
    [
        ("golden-24A.p1", CSP1, OFF, (24, 24, 24), SUMMER),
        ("golden-smr5.p1", SMR5, OFF, (24, 10.4, 0.5), SUMMER),
        ("golden-smr5-export.p1", SMR5, ON, (-24, 10.4, 0), WINTER),
        ("golden-emucs.p1", EMUCS, OFF, (24.123, 10.4, 0.5), SUMMER),
        ("golden-emucs-one-phase.p1", EMUCS, ON, (-24.123, None, None), WINTER),
    ],
)
def test_equals_the_golden_telegram(
    golden: str,
    config: P1Config,
    direction: DirectionConfig,
    currents: Sequence[float | None],
    local_time: time.struct_time,
) -> None:
    assert encode(config, currents, local_time, direction) == (HERE / golden).read_bytes()


def test_no_current_has_the_known_checksum() -> None:
    assert encode(CSP1, (0, 0, 0), SUMMER).endswith(b"!A60C\r\n")


@given(amperes, volts)
def test_csp1_without_direction_knows_no_voltage(
    currents: tuple[float, ...], nominal_voltage: float
) -> None:
    with_voltage = replace(CSP1, nominal_voltage=nominal_voltage)
    without = replace(CSP1, nominal_voltage=0)
    assert encode(with_voltage, currents, SUMMER) == encode(without, currents, WINTER)


# The values.


@pytest.mark.parametrize(
    ("measured", "sent"),
    [
        (0.0, 0),
        (0.49, 0),
        (0.49999999999999994, 0),
        (0.5, 1),
        (1.5, 2),
        (2.5, 3),
        (23.999, 24),
        (999.0, 999),
        (999.9, 999),
        (1e9, 999),
        (float("inf"), 999),
    ],
)
def test_amperes_are_whole_and_halves_go_up(measured: float, sent: int) -> None:
    assert whole_amperes(measured) == sent


@pytest.mark.parametrize(
    ("measured", "sent"),
    [
        (0.0, "000.00"),
        (0.0049, "000.00"),
        (0.005, "000.01"),
        (24.12, "024.12"),
        (24.124, "024.12"),
        (24.125, "024.13"),
        (99.995, "100.00"),
        (999.99, "999.99"),
        (1e9, "999.99"),
        (float("inf"), "999.99"),
    ],
)
def test_emucs_has_hundredths_of_an_ampere_and_halves_go_up(measured: float, sent: str) -> None:
    assert values(encode(EMUCS, (measured, 0, 0), SUMMER))["1-0:31.7.0"] == f"{sent}*A"


def test_a_phase_that_is_not_measured_is_left_out_of_emucs_and_has_no_current_elsewhere() -> None:
    for config in (CSP1, SMR5):
        assert encode(config, (1, None, 3), SUMMER) == encode(config, (1, 0, 3), SUMMER)
    whole, part = (values(encode(EMUCS, x, SUMMER)) for x in ((1, 0, 3), (1, None, 3)))
    assert whole.items() - part.items() == {
        ("1-0:51.7.0", "000.00*A"),
        ("1-0:52.7.0", "230.0*V"),
        ("1-0:41.7.0", "00.000*kW"),
        ("1-0:42.7.0", "00.000*kW"),
    }
    assert part.items() <= whole.items()


# With a direction, L2 and L3 importing 5 A: amperes of L1 and nominal voltage; then 31.7.0 with
# export_current "magnitude" and "zero", 21.7.0, 22.7.0, 1.7.0 and 2.7.0.
SIGNED = [
    (0.0, 230, "000", "000", "00.000", "00.000", "02.300", "00.000"),
    (0.0021, 230, "000", "000", "00.000", "00.000", "02.300", "00.000"),
    (0.0022, 230, "000", "000", "00.001", "00.000", "02.301", "00.000"),
    (0.5, 230, "001", "001", "00.115", "00.000", "02.415", "00.000"),
    (10.5, 230, "011", "011", "02.415", "00.000", "04.715", "00.000"),
    (-0.0, 230, "000", "000", "00.000", "00.000", "02.300", "00.000"),
    (-0.4, 230, "000", "000", "00.000", "00.092", "02.208", "00.000"),
    (-10.0, 230, "010", "000", "00.000", "02.300", "00.000", "00.000"),
    (-10.5, 230, "011", "000", "00.000", "02.415", "00.000", "00.115"),
    (-10.5, 0, "011", "000", "00.000", "00.000", "00.000", "00.000"),
    (1.0, 230.04, "001", "001", "00.230", "00.000", "02.530", "00.000"),
    (1.0, 230.06, "001", "001", "00.230", "00.000", "02.532", "00.000"),
    (500.0, 230, "500", "500", "99.999", "00.000", "99.999", "00.000"),
    (-500.0, 230, "500", "000", "00.000", "99.999", "00.000", "97.699"),
    (float("-inf"), 230, "999", "000", "00.000", "99.999", "00.000", "97.699"),
]


@pytest.mark.parametrize("config", [CSP1, SMR5, EMUCS])
@pytest.mark.parametrize(
    ("l1", "nominal_voltage", "magnitude", "hidden", "plus", "minus", "net_plus", "net_minus"),
    SIGNED,
)
def test_currents_and_powers_of_a_direction(
    config: P1Config,
    l1: float,
    nominal_voltage: float,
    magnitude: str,
    hidden: str,
    plus: str,
    minus: str,
    net_plus: str,
    net_minus: str,
) -> None:
    config = replace(config, nominal_voltage=nominal_voltage)
    for direction, current in ((ON, magnitude), (HIDDEN, hidden)):
        sent = values(encode(config, (l1, 5, 5), SUMMER, direction))
        if config.profile != "emucs":
            assert sent["1-0:31.7.0"] == f"{current}*A"
        assert sent["1-0:21.7.0"] == f"{plus}*kW"
        assert sent["1-0:22.7.0"] == f"{minus}*kW"
        assert sent["1-0:1.7.0"] == f"{net_plus}*kW"
        assert sent["1-0:2.7.0"] == f"{net_minus}*kW"


def test_each_phase_has_its_own_objects() -> None:
    for config in (CSP1, SMR5):
        config = replace(config, nominal_voltage=100)
        sent = values(encode(config, (1, -2, 3), SUMMER, ON))
        assert [sent[f"1-0:{tens}1.7.0"] for tens in (3, 5, 7)] == ["001*A", "002*A", "003*A"]
        assert [sent[f"1-0:{tens}1.7.0"] for tens in (2, 4, 6)] == [
            "00.100*kW",
            "00.000*kW",
            "00.300*kW",
        ]
        assert [sent[f"1-0:{tens}2.7.0"] for tens in (2, 4, 6)] == [
            "00.000*kW",
            "00.200*kW",
            "00.000*kW",
        ]


NOT_A_NUMBER = "a current that is not a number cannot be sent"
NEGATIVE = (
    "A cannot be sent: a negative current is export, "
    'which requires direction.reference "voltage" or "current"'
)


@pytest.mark.parametrize(
    ("currents", "direction", "reason"),
    [
        ((1, -24, 1), OFF, f"-24 {NEGATIVE}"),
        ((1, -0.001, 1), OFF, f"-0.001 {NEGATIVE}"),
        ((1, float("nan"), 1), OFF, NOT_A_NUMBER),
        ((1, float("nan"), 1), ON, NOT_A_NUMBER),
        ((1, 1), OFF, "zip() argument 2 is shorter than argument 1"),
        ((1, 1, 1, 1), OFF, "zip() argument 2 is longer than argument 1"),
    ],
)
@pytest.mark.parametrize("config", [CSP1, SMR5, EMUCS])
def test_a_value_that_is_no_current_makes_no_telegram(
    config: P1Config, currents: Sequence[float], direction: DirectionConfig, reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        encode(config, currents, SUMMER, direction)


# The standards: 5.0.2 section 6.12, in the order of section 6.13; e-MUCS-P1 1.7.1, in the order of
# Belgian meters.

KWH, KW = r"\d{6}\.\d{3}\*kWh", r"\d{2}\.\d{3}\*kW"
COUNT, VOLTS, AMPERES = r"\d{5}", r"\d{3}\.\d\*V", r"\d{3}\*A"
VOLTAGES = {f"1-0:{tens}2.7.0": VOLTS for tens in (3, 5, 7)}
FORMATS = {
    "1-3:0.2.8": "50",
    "0-0:1.0.0": r"\d{12}[SW]",
    "0-0:96.1.1": r"([0-9A-F]{2}){0,48}",
    "1-0:1.8.1": KWH,
    "1-0:1.8.2": KWH,
    "1-0:2.8.1": KWH,
    "1-0:2.8.2": KWH,
    "0-0:96.14.0": r"\d{4}",
    "1-0:1.7.0": KW,
    "1-0:2.7.0": KW,
    "0-0:96.7.21": COUNT,
    "0-0:96.7.9": COUNT,
    "1-0:99.97.0": r"0\)\(0-0:96\.7\.19",
    **{f"1-0:{tens}2.32.0": COUNT for tens in (3, 5, 7)},
    **{f"1-0:{tens}2.36.0": COUNT for tens in (3, 5, 7)},
    "0-0:96.13.0": r"([0-9A-F]{2}){0,1024}",
    **VOLTAGES,
    **{f"1-0:{tens}1.7.0": AMPERES for tens in (3, 5, 7)},
    **{f"1-0:{tens}1.7.0": KW for tens in (2, 4, 6)},
    **{f"1-0:{tens}2.7.0": KW for tens in (2, 4, 6)},
}

# As published telegrams of a T211 have it, without the capacity tariff and the other meters.
EMUCS_FORMATS = {
    "0-0:96.1.4": "50217",
    "0-0:96.1.1": r"([0-9A-F]{2}){0,48}",
    "0-0:1.0.0": r"\d{12}[SW]",
    "1-0:1.8.1": KWH,
    "1-0:1.8.2": KWH,
    "1-0:2.8.1": KWH,
    "1-0:2.8.2": KWH,
    "0-0:96.14.0": r"\d{4}",
    "1-0:1.7.0": KW,
    "1-0:2.7.0": KW,
    **{f"1-0:{tens}1.7.0": KW for tens in (2, 4, 6)},
    **{f"1-0:{tens}2.7.0": KW for tens in (2, 4, 6)},
    **VOLTAGES,
    **{f"1-0:{tens}1.7.0": r"\d{3}\.\d{2}\*A" for tens in (3, 5, 7)},
    "0-0:96.3.10": "1",
    "0-0:17.0.0": r"999\.9\*kW",
    "1-0:31.4.0": r"999\*A",
    "0-0:96.13.0": r"([0-9A-F]{2}){0,1024}",
}


@pytest.mark.parametrize(("config", "formats"), [(SMR5, FORMATS), (EMUCS, EMUCS_FORMATS)])
@given(
    signed_amperes,
    volts,
    st.sampled_from([ON, HIDDEN]),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=48),
    st.sampled_from(["", "A", "XMX_P1CS_V05 +16"]),
)
def test_a_telegram_has_the_objects_of_its_standard_in_their_formats(
    config: P1Config,
    formats: dict[str, str],
    currents: tuple[float, ...],
    nominal_voltage: float,
    direction: DirectionConfig,
    equipment_id: str,
    text: str,
) -> None:
    config = replace(
        config, nominal_voltage=nominal_voltage, equipment_id=equipment_id, firmware_text=text
    )
    sent = values(encode(config, currents, SUMMER, direction))
    assert list(sent) == list(formats)
    for key, value in sent.items():
        assert re.fullmatch(formats[key], value), (key, value)
    assert bytes.fromhex(sent["0-0:96.1.1"]).decode() == equipment_id
    assert bytes.fromhex(sent["0-0:96.13.0"]).decode() == text


# Time.

# Europe/Amsterdam, spelled out: tzdata need not be there.
AMSTERDAM = "CET-1CEST,M3.5.0,M10.5.0/3"


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process lives in the zone that the parameter names."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


CHANGES = [
    ("2026-03-29 00:59:59", "260329015959W"),
    ("2026-03-29 01:00:00", "260329030000S"),
    ("2026-10-25 00:00:00", "261025020000S"),
    ("2026-10-25 00:59:59", "261025025959S"),
    ("2026-10-25 01:00:00", "261025020000W"),
    ("2026-10-25 02:00:00", "261025030000W"),
    ("2026-12-31 23:00:00", "270101000000W"),
]


def instant(utc: str) -> int:
    return calendar.timegm(time.strptime(utc, "%Y-%m-%d %H:%M:%S"))


@pytest.mark.parametrize("zone", [AMSTERDAM], indirect=True)
@pytest.mark.parametrize(("utc", "sent"), CHANGES)
@pytest.mark.usefixtures("zone")
def test_local_time_is_right_when_summer_time_begins_and_ends(utc: str, sent: str) -> None:
    data = encode(SMR5, (0, 0, 0), local_time_of(instant(utc)))
    assert values(data)["0-0:1.0.0"] == sent


# Zones whose standard time is that of the summer: the C library calls their winter daylight saving
# time.
ZONES = [
    ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-01-15 12:00:00", "260115120000W"),
    ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-03-29 00:59:59", "260329005959W"),
    ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-03-29 01:00:00", "260329020000S"),
    ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-10-25 00:59:59", "261025015959S"),
    ("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-10-25 01:00:00", "261025010000W"),
    # Africa/Casablanca in 2026: an hour back for the month of Ramadan.
    ("<+01>-1<+00>0,46/3,81/2", "2026-01-15 12:00:00", "260115130000S"),
    ("<+01>-1<+00>0,46/3,81/2", "2026-03-01 12:00:00", "260301120000W"),
    ("<+01>-1<+00>0,46/3,81/2", "2026-12-31 22:59:59", "261231235959S"),
    # South of the equator the year begins in summer.
    ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2026-01-15 12:00:00", "260115230000S"),
    ("AEST-10AEDT,M10.1.0,M4.1.0/3", "2026-07-15 12:00:00", "260715220000W"),
]


@pytest.mark.parametrize(("zone", "utc", "sent"), ZONES, indirect=["zone"])
@pytest.mark.usefixtures("zone")
def test_summer_is_the_time_ahead_of_the_least_offset_of_the_year(utc: str, sent: str) -> None:
    data = encode(SMR5, (0, 0, 0), local_time_of(instant(utc)))
    assert values(data)["0-0:1.0.0"] == sent


@pytest.mark.parametrize("zone", ["UTC0", "<-03>3", "JST-9"], indirect=True)
@pytest.mark.parametrize("utc", ["2026-01-15 12:00:00", "2026-07-15 12:00:00"])
@pytest.mark.usefixtures("zone")
def test_a_zone_without_summer_time_is_always_in_winter(utc: str) -> None:
    data = encode(SMR5, (0, 0, 0), local_time_of(instant(utc)))
    hour = {"UTC0": "12", "<-03>3": "09", "JST-9": "21"}[os.environ["TZ"]]
    assert values(data)["0-0:1.0.0"] == utc[2:10].replace("-", "") + hour + "0000W"


def seconds_sent(ends: Iterable[float]) -> list[int]:
    """The instants that telegrams carry for readings that end at these instants."""
    count = TelegramTime()
    return [calendar.timegm(count.advance(end)) for end in ends]


def zone_file(path: Path, hour_begins: str, hour_ends: str) -> str:
    """TZ for a zone at UTC, except for an hour more between two instants (tzfile(5))."""
    instants = [instant(hour_begins), instant(hour_ends)]
    counts = struct.pack(">6l", 0, 0, 0, 2, 2, 4)
    types = struct.pack(">lBB", 0, 0, 0) + struct.pack(">lBB", 3600, 1, 0)
    transitions = struct.pack(">2l", *instants) + bytes([1, 0])
    path.write_bytes(b"TZif" + bytes(16) + counts + transitions + types + b"ZON\0")
    return f":{path}"


# When the hour begins and ends, and some instants in between with what they are.
YEARS = [
    # A whole year is not ahead of itself, whatever the years around it are.
    ("2026-01-01 00:00:00", "2026-12-31 23:00:00", {"2026-01-01 12": "W", "2026-12-31 12": "W"}),
    ("2025-12-31 23:00:00", "2026-12-31 23:00:00", {"2026-01-01 01": "W", "2026-07-01 01": "W"}),
    # A day without the hour is enough, at the begin of the year or at its end.
    ("2026-01-02 00:00:00", "2027-06-01 00:00:00", {"2026-01-03 12": "S", "2026-12-30 12": "S"}),
    ("2025-06-01 00:00:00", "2026-12-31 00:00:00", {"2026-01-01 12": "S", "2026-12-30 12": "S"}),
]


@pytest.mark.parametrize(("begins", "ends", "wanted"), YEARS)
def test_only_the_same_year_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: str, ends: str, wanted: dict[str, str]
) -> None:
    monkeypatch.setenv("TZ", zone_file(tmp_path / "zone", begins, ends))
    time.tzset()
    try:
        made = {utc: local_time_of(instant(f"{utc}:00:00")) for utc in wanted}
    finally:
        monkeypatch.undo()
        time.tzset()
    assert {utc: "S" if local.tm_isdst else "W" for utc, local in made.items()} == wanted
    assert all(local.tm_hour == int(utc[-2:]) + 1 for utc, local in made.items())


@pytest.mark.parametrize("zone", ["UTC0"], indirect=True)
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.25, 0.5, 0.75, 0.999])
@pytest.mark.usefixtures("zone")
def test_no_second_repeats_or_is_skipped_while_readings_end_with_a_mains_cycle(
    fraction: float,
) -> None:
    """At 49.87 Hz the last cycle of a reading ends up to 20 ms before its second does."""
    ends = [1e9 + fraction + math.floor(second * 49.87) / 49.87 for second in range(1, 1000)]
    sent = seconds_sent(ends)
    assert {later - earlier for earlier, later in itertools.pairwise(sent)} == {1}
    assert all(-0.5 < end - second < 1.5 for end, second in zip(ends, sent, strict=True))


# The ends of readings after 1e9 s, and the seconds in their telegrams.
COUNTS = [
    ("a reading is missing", [10.2, 11.2, 13.2, 14.2], [10, 11, 13, 14]),
    ("the clock is set ahead", [10.2, 11.2, 3600.9, 3601.9], [10, 11, 3600, 3601]),
    ("the clock is set back", [3600.2, 3601.2, 10.7, 11.7], [3600, 3601, 10, 11]),
    ("half a second ahead", [10.5, 12.0, 13.0], [10, 11, 12]),
    ("more than half a second ahead", [10.49, 12.0, 13.0], [10, 12, 13]),
    ("half a second back", [10.25, 10.75, 11.75], [10, 11, 12]),
    ("more than half a second back", [10.25, 10.74, 11.74], [10, 10, 11]),
]


@pytest.mark.parametrize("zone", ["UTC0"], indirect=True)
@pytest.mark.parametrize(
    ("ends", "sent"), [case[1:] for case in COUNTS], ids=[c[0] for c in COUNTS]
)
@pytest.mark.usefixtures("zone")
def test_the_clock_overrides_the_count_when_they_differ_by_more_than_half_a_second(
    ends: list[float], sent: list[int]
) -> None:
    assert seconds_sent(1e9 + end for end in ends) == [1e9 + second for second in sent]


# The checksum.


@given(st.binary())
def test_checksum_equals_the_standards_polynomial_division(data: bytes) -> None:
    crc = 0
    for byte in data:
        for bit in range(8):
            feedback = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (0xA001 if feedback else 0)
    assert crc16_arc(data) == crc


def test_the_table_of_the_checksum_holds_that_of_each_byte() -> None:
    assert [_crc_of_byte(byte) for byte in range(256)] == [
        crc16_arc(bytes([byte])) for byte in range(256)
    ]
