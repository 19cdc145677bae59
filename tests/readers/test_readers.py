# SPDX-License-Identifier: Apache-2.0
"""Telegrams as independent readers understand them: their errors, and the values that they get.

dsmr-parser checks the checksum and each value that it knows; the grammar of iec62056 accepts no
object that it does not know; smeterd is an older reader. tests/readers has those in JavaScript.

Readers of which only the source is public (charge points, home automation on microcontrollers) are
here as tables: the results that their own code gave for these telegrams.
"""

import functools
import io
import logging
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dsmr_parser import telegram_specifications
from dsmr_parser.clients.telegram_buffer import TelegramBuffer
from dsmr_parser.parsers import TelegramParser
from hypothesis import given, settings
from hypothesis import strategies as st
from iec62056.parser import Parser
from smeterd.meter import P1Packet, P1PacketError, SmartMeter, SmartMeterError

from csp1d.config import DirectionConfig, P1Config
from csp1d.p1.telegram import crc16_arc, encode, whole_amperes

PHASES = ("L1", "L2", "L3")
NOON = time.struct_time((2026, 7, 1, 12, 0, 0, 2, 182, 1))
IEC62056 = Parser()
PROFILES = ("csp1", "smr5", "emucs")

numbers = st.floats(-999, 999)


@dataclass(frozen=True)
class Case:
    """A telegram, and the values that it was made from."""

    config: P1Config
    direction: DirectionConfig
    amperes: tuple[float, float, float]

    @property
    def data(self) -> bytes:
        return encode(self.config, self.amperes, NOON, self.direction)

    @property
    def sent_amperes(self) -> list[float]:
        """What 31/51/71.7.0 should carry."""
        hidden = self.direction.export_current == "zero"
        amperes = [0 if hidden and x < 0 else abs(x) for x in self.amperes]
        if self.config.profile != "emucs":
            return [whole_amperes(x) for x in amperes]
        return [min(math.floor(x * 100 + 0.5), 99_999) / 100 for x in amperes]


@st.composite
def cases(draw: st.DrawFn, profile: Any) -> Case:
    direction = DirectionConfig(
        reference=draw(st.sampled_from(["off", "voltage"])),
        export_current=draw(st.sampled_from(["magnitude", "zero"])),
    )
    amperes = draw(st.tuples(numbers, numbers, numbers))
    if direction.reference == "off":
        amperes = (abs(amperes[0]), abs(amperes[1]), abs(amperes[2]))
    config = P1Config(
        profile=profile,
        flag_id=draw(st.sampled_from(["XMX", "ABC"])),
        nominal_voltage=draw(st.floats(100, 300)),
        serial="XMXCQA0000008879",
        equipment_id="E0000000000000000",
        firmware_text=draw(st.sampled_from(["XMX_P1CS_V08", ""])),
    )
    return Case(config, direction, amperes)


class _errors_raised(logging.Handler):  # noqa: N801 - reads as a statement
    """dsmr-parser logs values that it cannot read and goes on."""

    def __init__(self, logger: str) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger(logger)

    def __enter__(self) -> None:
        self._logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())


def dsmr_parser(data: bytes) -> Any:
    """With the setting that Home Assistant calls "5B" for Belgian telegrams, "5" for others."""
    is_belgian = b"\r\n0-0:96.1.4(" in data
    specification = "BELGIUM_FLUVIUS" if is_belgian else "V5"
    parser = TelegramParser(getattr(telegram_specifications, specification))
    with _errors_raised("dsmr_parser"):
        return parser.parse(data.decode(), throw_ex=True)


def dsmr_parser_values(data: bytes, name: str) -> list[float]:
    read = dsmr_parser(data)
    return [float(getattr(read, name.format(phase)).value) for phase in PHASES]


@pytest.mark.parametrize("profile", PROFILES)
@given(st.data())
def test_dsmr_parser_understands_every_telegram(profile: str, data: st.DataObject) -> None:
    case = data.draw(cases(profile))
    assert dsmr_parser_values(case.data, "INSTANTANEOUS_CURRENT_{}") == case.sent_amperes


def test_dsmr_parser_knows_every_object_of_emucs_and_its_version() -> None:
    sent = Case(P1Config(profile="emucs"), DirectionConfig(), (1, 2, 3)).data
    read = dsmr_parser(sent)
    assert len(list(read)) == sent.count(b"\r\n") - 3
    assert read.BELGIUM_VERSION_INFORMATION.value == "50217"
    assert read.P1_MESSAGE_TIMESTAMP.value == datetime(2026, 7, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize("profile", ["csp1", "smr5"])
@given(st.data())
def test_smeterd_understands_every_telegram(profile: str, data: st.DataObject) -> None:
    case = data.draw(cases(profile))
    packet = P1Packet(case.data)
    assert [packet["instantaneous"][phase.lower()]["amps"] for phase in PHASES] == (
        case.sent_amperes
    )
    assert packet["header"] == f"/{case.config.flag_id}5XMXCQA0000008879"


@given(cases("emucs"))
def test_smeterd_reads_the_power_of_emucs_and_no_currents(case: Case) -> None:
    packet = P1Packet(case.data)
    amperes = [packet["instantaneous"][phase.lower()]["amps"] for phase in PHASES]
    assert amperes == [None, None, None]
    with_sign = [packet["instantaneous"][phase.lower()]["watts"] for phase in PHASES]
    assert with_sign == [max(watts, 0) for watts in watts_of(case)]


def watts_of(case: Case) -> list[float]:
    """Import as dsmr-parser reads it, export below zero."""
    plus = dsmr_parser_values(case.data, "INSTANTANEOUS_ACTIVE_POWER_{}_POSITIVE")
    minus = dsmr_parser_values(case.data, "INSTANTANEOUS_ACTIVE_POWER_{}_NEGATIVE")
    return [round((x - y) * 1000) for x, y in zip(plus, minus, strict=True)]


@pytest.mark.parametrize("profile", ["csp1", "smr5"])
@settings(max_examples=30)  # The reader takes a fifth of a second.
@given(st.data())
def test_iec62056_understands_every_line(profile: str, data: st.DataObject) -> None:
    case = data.draw(cases(profile))
    sent = case.data
    read = IEC62056.parse(sent.decode())
    assert len(read.objects) == sent.count(b"\r\n") - 3
    assert [int(read[f"instantaneous_current_{phase.lower()}"]) for phase in PHASES] == (
        case.sent_amperes
    )
    assert f"{read.checksum:04X}".encode() == sent[-6:-2]


def test_iec62056_accepts_no_object_that_it_does_not_know() -> None:
    sent = Case(P1Config(), DirectionConfig(), (1, 2, 3)).data.decode()
    with pytest.raises(Exception, match="eeference"):  # the typing error is in the reader's message
        IEC62056.parse(sent.replace("1-0:31.7.0", "1-0:31.9.0"))


@pytest.mark.parametrize("profile", ["smr5", "emucs"])
@given(st.data())
def test_power_by_voltage_is_the_current_to_a_watt(profile: str, data: st.DataObject) -> None:
    """As charge points and home automation compute it: I = (21.7.0 - 22.7.0) * 1000 / 32.7.0."""
    case = data.draw(cases(profile))
    sent = case.data
    plus = dsmr_parser_values(sent, "INSTANTANEOUS_ACTIVE_POWER_{}_POSITIVE")
    minus = dsmr_parser_values(sent, "INSTANTANEOUS_ACTIVE_POWER_{}_NEGATIVE")
    volts = dsmr_parser_values(sent, "INSTANTANEOUS_VOLTAGE_{}")
    for index, amperes in enumerate(case.amperes):
        computed = (plus[index] - minus[index]) * 1000 / volts[index]
        carried = min(max(amperes, -99_999 / volts[index]), 99_999 / volts[index])
        assert abs(computed - carried) <= 0.5 / volts[index] + 1e-9
        assert plus[index] == 0 or minus[index] == 0


@pytest.mark.parametrize("change", [datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1)])
@pytest.mark.parametrize("seconds", [-7200, -3600, -1, 0, 1, 3600, 7200])
def test_dsmr_parser_knows_the_instant_also_when_an_hour_comes_twice(
    change: datetime, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = change.replace(tzinfo=UTC) + timedelta(seconds=seconds)
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # the rule of Europe/Amsterdam
    time.tzset()
    try:
        local_time = time.localtime(instant.timestamp())
    finally:
        monkeypatch.undo()
        time.tzset()
    read = dsmr_parser(encode(P1Config(profile="smr5"), (0, 0, 0), local_time))
    assert read.P1_MESSAGE_TIMESTAMP.value == instant


# Streams: a telegram that is cut while the request stays high, and whole ones after it.


def streams() -> Iterator[tuple[str, bytes]]:
    """A telegram cut at each of its bytes, followed at once by three whole ones."""
    for profile in PROFILES:
        config = P1Config(profile=profile)  # type: ignore[arg-type]
        whole = Case(config, DirectionConfig(), (24.126, 10.4, 0.5)).data
        for cut in range(1, len(whole) - 1):
            yield profile, whole[:cut] + whole * 3


def test_dsmr_parser_loses_no_telegram_to_one_that_was_cut() -> None:
    # Most streams contain the same telegrams.
    parsed = functools.cache(lambda text: dsmr_parser(text.encode()))
    for profile, data in streams():
        buffer = TelegramBuffer()
        buffer.append(data.decode())
        read = [parsed(found) for found in buffer.get_all()]
        wanted = 24.13 if profile == "emucs" else 24
        assert [float(x.INSTANTANEOUS_CURRENT_L1.value) for x in read] == [wanted] * 3


class Lines(io.BytesIO):
    """A serial port whose cable is pulled at the end."""

    def readline(self, size: int | None = -1) -> bytes:
        if line := super().readline(size):
            return line
        raise EOFError


def smeterd_stream(data: bytes) -> list[Any]:
    """The packets that smeterd reads from its serial port, None for one that it rejects."""
    meter = SmartMeter.__new__(SmartMeter)  # without its serial port
    meter.serial = Lines(data)
    read: list[Any] = []
    while True:
        try:
            read.append(meter.read_one_packet())
        except P1PacketError:
            read.append(None)
        except SmartMeterError:
            return read


def test_smeterd_loses_at_most_one_telegram_to_one_that_was_cut() -> None:
    for profile, data in streams():
        read = [packet for packet in smeterd_stream(data) if packet]
        assert len(read) in (2, 3)
        wanted = {"csp1": (24, 0), "smr5": (24, 5549), "emucs": (None, 5549)}[profile]
        for packet in read:
            l1 = packet["instantaneous"]["l1"]
            assert (l1["amps"], l1["watts"]) == wanted


# Readers of which only the source is public, in our own words. Each gets a stream of bytes and
# returns the signed currents of each telegram that it accepts, None for one without currents.

Amperes = list[float] | None


def telegrams_from_each_start(data: bytes) -> Iterator[bytes]:
    """For readers that start again at each "/": the telegrams whose checksum is right."""
    for part in data.split(b"/")[1:]:
        body, mark, rest = (b"/" + part).partition(b"!")
        if mark and re.match(rb"[0-9A-F]{4}", rest) and int(rest[:4], 16) == crc16_arc(body + mark):
            yield body


def objects(body: bytes) -> dict[str, str]:
    """The first value of each object, without its unit."""
    found = re.findall(r"\d-\d:([\d.]+)\(([^)*]*)", body.decode())
    return dict(reversed(found))


def sensorbox_2(data: bytes) -> list[Amperes]:
    """SmartEVSE's Sensorbox-2, Sensorbox2_ESP/src/main.cpp at 16718ef: P1Receive, P1Extract.

    31.7.0 is not read. A telegram without a version counts as 50 if it has 21.7.0, and one below 50
    is refused. The voltage is 1 where it is missing.
    """
    read: list[Amperes] = []
    for body in telegrams_from_each_start(data):
        values = objects(body)
        if int(values.get("0.2.8", "50" if "21.7.0" in values else "0")) < 50:
            continue
        read.append(
            [
                (float(values.get(f"{power}1.7.0", 0)) - float(values.get(f"{power}2.7.0", 0)))
                * 1000
                / max(float(values.get(f"{voltage}2.7.0", 0)), 1)
                for power, voltage in ((2, 3), (4, 5), (6, 7))
            ]
        )
    return read


def evcc(data: bytes) -> list[Amperes]:
    """evcc, meter/dsmr.go at 03a4acc: readFrame, currents.

    A frame ends with the first "!" after its "/". A phase with export power has a negative current.
    Currents need the objects of all three phases.
    """
    read: list[Amperes] = []
    while (begin := data.find(b"/")) >= 0 and (end := data.find(b"!", begin)) >= 0:
        frame, (line, _, data) = data[begin : end + 1], data[end + 1 :].partition(b"\n")
        if line.strip().upper() != f"{crc16_arc(frame):04X}".encode():
            continue
        values = objects(frame)
        wanted = [(f"{i}1.7.0", f"{p}2.7.0") for i, p in ((3, 2), (5, 4), (7, 6))]
        if all(current in values for current, _ in wanted):
            read.append([float(values[i]) * (-1 if float(values[p]) > 0 else 1) for i, p in wanted])
        else:
            read.append(None)
    return read


def esphome(data: bytes) -> list[Amperes]:
    """ESPHome's dsmr component: esphome-libs/dsmr_parser at a200271, PacketAccumulator, fields.h.

    Currents may have up to three decimals and are never negative; a phase may be missing.
    """
    return [
        [float(values[f"{i}1.7.0"]) for i in (3, 5, 7) if f"{i}1.7.0" in values] or None
        for values in map(objects, telegrams_from_each_start(data))
    ]


def arduino_dsmr(data: bytes) -> list[Amperes]:
    """matthijskooijman/arduino-dsmr at 5a0b558, reader.h, parser.h: IntField for currents.

    A "/" within a telegram does not begin a new one. After a wrong checksum the old text stays in
    the buffer, so the next telegram has objects twice, which is an error. So is a decimal point in
    31.7.0.
    """
    read: list[Amperes] = []
    kept = b""
    while (begin := data.find(b"/")) >= 0 and (end := data.find(b"!", begin)) >= 0:
        frame, checksum, data = data[begin : end + 1], data[end + 1 : end + 5], data[end + 5 :]
        kept += frame
        if not re.fullmatch(rb"[0-9A-F]{4}", checksum) or int(checksum, 16) != crc16_arc(frame):
            continue
        codes = re.findall(rb"\n(\d-\d:[\d.]+)\(", kept)
        currents = re.findall(rb"\n1-0:[357]1\.7\.0\(([^)*]*)", kept)
        if len(codes) == len(set(codes)) and all(map(bytes.isdigit, currents)):
            read.append([float(value) for value in currents])
        kept = b""
    return read


def load_balancer(data: bytes) -> list[Amperes]:
    """dirkgroenen/hass-evse-load-balancer at 1744c82, meters/dsmr_meter.py, with dsmr-parser.

    It divides power by voltage and rounds down; without a voltage it has no current.
    """
    read: list[Amperes] = []
    for values in map(objects, telegrams_from_each_start(data)):
        phases = [(f"{v}2.7.0", p) for v, p in ((3, 2), (5, 4), (7, 6)) if f"{v}2.7.0" in values]
        kilowatts = [float(values[f"{p}1.7.0"]) - float(values[f"{p}2.7.0"]) for _, p in phases]
        read.append(
            [
                math.floor(power * 1000 / float(values[voltage]))
                for power, (voltage, _) in zip(kilowatts, phases, strict=True)
            ]
            or None
        )
    return read


Reader = Callable[[bytes], list[Amperes]]

# The profile, the currents, how export is sent ("" without a direction), and what each reader makes
# of them, as its own code did: refused telegrams are "-", those without currents None.
COLUMNS: tuple[Reader, ...] = (sensorbox_2, evcc, esphome, arduino_dsmr, load_balancer)
LOAD, EXPORT, L1_ONLY = (24.126, 10.4, 0.5), (-10.25, 5.0, -0.3), (24.126, None, None)
L2_ONLY, L1_EXPORT = (None, 16.2, None), (-24.126, None, None)
EXACT, SIGNED = [24.13, 10.4, 0.5], [-10.25, 5, -0.3]
WHOLE, DOWN, SIGNED_DOWN = [24, 10, 1], [24, 10, 0], [-11, 5, -1]
RESULTS: list[tuple[str, Any, str, list[Any]]] = [
    ("csp1", LOAD, "", ["-", WHOLE, WHOLE, WHOLE, None]),
    ("csp1", EXPORT, "magnitude", ["-", [-10, 5, 0], [10, 5, 0], [10, 5, 0], None]),
    ("csp1", EXPORT, "zero", ["-", [0, 5, 0], [0, 5, 0], [0, 5, 0], None]),
    ("smr5", LOAD, "", [EXACT, WHOLE, WHOLE, WHOLE, DOWN]),
    ("smr5", EXPORT, "magnitude", [SIGNED, [-10, 5, 0], [10, 5, 0], [10, 5, 0], SIGNED_DOWN]),
    ("smr5", EXPORT, "zero", [SIGNED, [0, 5, 0], [0, 5, 0], [0, 5, 0], SIGNED_DOWN]),
    ("smr5", L1_ONLY, "", [[24.13, 0, 0], [24, 0, 0], [24, 0, 0], [24, 0, 0], [24, 0, 0]]),
    ("smr5", L2_ONLY, "", [[0, 16.2, 0], [0, 16, 0], [0, 16, 0], [0, 16, 0], [0, 16, 0]]),
    ("emucs", LOAD, "", [EXACT, EXACT, EXACT, "-", DOWN]),
    ("emucs", EXPORT, "magnitude", [SIGNED, SIGNED, [10.25, 5, 0.3], "-", SIGNED_DOWN]),
    ("emucs", EXPORT, "zero", [SIGNED, [0, 5, 0], [0, 5, 0], "-", SIGNED_DOWN]),
    ("emucs", L1_ONLY, "", [[24.13, 0, 0], None, [24.13], "-", [24]]),
    ("emucs", L2_ONLY, "", ["-", None, [16.2], "-", [16]]),
    ("emucs", L1_EXPORT, "magnitude", [[-24.13, 0, 0], None, [24.13], "-", [-25]]),
    ("emucs", L1_EXPORT, "zero", [[-24.13, 0, 0], None, [0], "-", [-25]]),
]


@pytest.mark.parametrize("number", range(len(COLUMNS)), ids=[x.__name__ for x in COLUMNS])
@pytest.mark.parametrize(("profile", "amperes", "export", "results"), RESULTS)
def test_what_readers_with_public_sources_compute(
    number: int, profile: Any, amperes: Any, export: Any, results: list[Any]
) -> None:
    direction = DirectionConfig(
        reference="voltage" if export else "off", export_current=export or "magnitude"
    )
    read = COLUMNS[number](encode(P1Config(profile=profile), amperes, NOON, direction))
    wanted = results[number]
    if wanted == "-":
        assert read == []
    else:
        (currents,) = read
        assert currents == (None if wanted is None else pytest.approx(wanted, abs=0.005))


LOST: dict[Reader, int] = {sensorbox_2: 0, evcc: 1, esphome: 0, arduino_dsmr: 2, load_balancer: 0}
"""Of the whole telegrams after one that was cut, as their own code does."""


@pytest.mark.parametrize("reader", COLUMNS)
def test_a_cut_telegram_misleads_no_reader_and_costs_it_at_most_the_next_two(
    reader: Reader,
) -> None:
    config = P1Config(profile="csp1" if reader is arduino_dsmr else "smr5")
    whole = Case(config, DirectionConfig(), (24.126, 10.4, 0.5)).data
    (wanted,) = reader(whole)
    for cut in range(1, len(whole) - 2):
        assert reader(whole[:cut] + whole * 3) == [wanted] * (3 - LOST[reader])


@given(cases("emucs") | cases("smr5"))
def test_a_reader_that_computes_the_current_from_power_sees_every_load(case: Case) -> None:
    (exact,), (rounded_down,) = sensorbox_2(case.data), load_balancer(case.data)
    assert exact is not None
    assert rounded_down == list(map(math.floor, exact))
    volts = round(case.config.nominal_voltage, 1)
    limit = 99_999 / volts
    for true, computed in zip(case.amperes, exact, strict=True):
        assert computed == pytest.approx(max(min(true, limit), -limit), abs=0.5 / volts + 1e-9)
