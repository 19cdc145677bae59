# SPDX-License-Identifier: Apache-2.0
"""Telegrams as independent readers understand them: their errors, and the values that they get.

dsmr-parser checks the checksum and each value that it knows; the grammar of iec62056 accepts no
object that it does not know; smeterd is an older reader.
"""

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser
from hypothesis import given
from hypothesis import strategies as st
from iec62056.parser import Parser
from smeterd.meter import P1Packet

from csp1d.config import DirectionConfig, P1Config
from csp1d.p1.telegram import encode, whole_amperes

PHASES = ("L1", "L2", "L3")
NOON = time.struct_time((2026, 7, 1, 12, 0, 0, 2, 182, 1))
IEC62056 = Parser()

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
    def whole_amperes(self) -> list[int]:
        hidden = self.direction.export_current == "zero"
        return [0 if hidden and x < 0 else whole_amperes(abs(x)) for x in self.amperes]


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
        nominal_voltage=draw(st.just(0.0) | st.floats(100, 300)),
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
    with _errors_raised("dsmr_parser"):
        return TelegramParser(telegram_specifications.V5).parse(data.decode(), throw_ex=True)


def dsmr_parser_values(data: bytes, name: str) -> list[float]:
    read = dsmr_parser(data)
    return [float(getattr(read, name.format(phase)).value) for phase in PHASES]


@pytest.mark.parametrize("profile", ["csp1", "smr5"])
@given(st.data())
def test_dsmr_parser_understands_every_telegram(profile: str, data: st.DataObject) -> None:
    case = data.draw(cases(profile))
    assert dsmr_parser_values(case.data, "INSTANTANEOUS_CURRENT_{}") == case.whole_amperes


@pytest.mark.parametrize("profile", ["csp1", "smr5"])
@given(st.data())
def test_smeterd_understands_every_telegram(profile: str, data: st.DataObject) -> None:
    case = data.draw(cases(profile))
    packet = P1Packet(case.data)
    assert [packet["instantaneous"][phase.lower()]["amps"] for phase in PHASES] == (
        case.whole_amperes
    )
    assert packet["header"] == "/XMX5XMXCQA0000000000"


@pytest.mark.parametrize("profile", ["csp1", "smr5"])
@given(st.data())
def test_iec62056_understands_every_line(profile: str, data: st.DataObject) -> None:
    case = data.draw(cases(profile))
    sent = case.data
    read = IEC62056.parse(sent.decode())
    assert len(read.objects) == sent.count(b"\r\n") - 3
    assert [int(read[f"instantaneous_current_{phase.lower()}"]) for phase in PHASES] == (
        case.whole_amperes
    )
    assert f"{read.checksum:04X}".encode() == sent[-6:-2]


def test_iec62056_accepts_no_object_that_it_does_not_know() -> None:
    sent = Case(P1Config(), DirectionConfig(), (1, 2, 3)).data.decode()
    with pytest.raises(Exception, match="eeference"):  # the typing error is in the reader's message
        IEC62056.parse(sent.replace("1-0:31.7.0", "1-0:31.9.0"))


@given(cases("smr5"))
def test_power_by_voltage_is_the_current_to_a_watt(case: Case) -> None:
    """As charge points and home automation compute it: I = (21.7.0 - 22.7.0) * 1000 / 32.7.0."""
    sent = case.data
    plus = dsmr_parser_values(sent, "INSTANTANEOUS_ACTIVE_POWER_{}_POSITIVE")
    minus = dsmr_parser_values(sent, "INSTANTANEOUS_ACTIVE_POWER_{}_NEGATIVE")
    if not case.config.nominal_voltage:
        assert plus == minus == [0, 0, 0]
        return
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
