# SPDX-License-Identifier: Apache-2.0
"""The telegram, against the golden one and against independent readers."""

import logging
from pathlib import Path

import pytest
from dsmr_parser import telegram_specifications
from dsmr_parser.parsers import TelegramParser
from hypothesis import given
from hypothesis import strategies as st
from smeterd.meter import P1Packet

from csp1d.config import P1Config
from csp1d.p1.telegram import crc16_arc, encode, whole_amperes

GOLDEN = (Path(__file__).parent / "golden-24A.p1").read_bytes()
DEVICE = P1Config(serial="XMXCQA0000008879", firmware_text="XMX_P1CS_V05")

amperes = st.floats(0, 999)


def test_equals_the_golden_telegram() -> None:
    assert encode(DEVICE, 24, 24, 24) == GOLDEN


def test_no_current_has_the_known_checksum() -> None:
    assert encode(DEVICE, 0, 0, 0).endswith(b"!A60C\r\n")


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


@pytest.mark.parametrize("nonsense", [-0.001, -24.0, float("nan")])
def test_what_is_no_current_makes_no_telegram(nonsense: float) -> None:
    with pytest.raises(ValueError, match="can not be sent"):
        encode(DEVICE, 1, nonsense, 1)


@given(st.binary())
def test_checksum_equals_the_standards_polynomial_division(data: bytes) -> None:
    crc = 0
    for byte in data:
        for bit in range(8):
            feedback = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (0xA001 if feedback else 0)
    assert crc16_arc(data) == crc


@given(amperes, amperes, amperes)
def test_independent_readers_understand_every_telegram(l1: float, l2: float, l3: float) -> None:
    data = encode(DEVICE, l1, l2, l3)
    expected = [whole_amperes(value) for value in (l1, l2, l3)]

    with _errors_raised("dsmr_parser"):
        read = TelegramParser(telegram_specifications.V5).parse(data.decode(), throw_ex=True)
    currents = ("INSTANTANEOUS_CURRENT_L1", "INSTANTANEOUS_CURRENT_L2", "INSTANTANEOUS_CURRENT_L3")
    assert [int(getattr(read, name).value) for name in currents] == expected

    packet = P1Packet(data)
    assert [packet["instantaneous"][phase]["amps"] for phase in ("l1", "l2", "l3")] == expected
    assert packet["header"] == "/XMX5XMXCQA0000008879"


class _errors_raised(logging.Handler):  # noqa: N801 - reads as a statement
    """dsmr-parser logs what it can not read and goes on."""

    def __init__(self, logger: str) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger(logger)

    def __enter__(self) -> None:
        self._logger.addHandler(self)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage())
