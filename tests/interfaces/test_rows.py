# SPDX-License-Identifier: Apache-2.0
"""The table that `csp1ctl status`, `csp1ctl watch` and the page show."""

from dataclasses import asdict, replace

import pytest
from states import END_NS, FAILED, MEASURING, READING, status_json

from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import Row, faults, parse, rows, status_text, to_json

GOOD = replace(
    MEASURING,
    reading=replace(READING, phases={Phase.L1: PhaseCurrent(24.0, 33.9, 0.25, 0)}),
    scans_lost_total=0,
    port=PortCounts(requests=4, sent=4),
)


def with_direction(fault: str = "", advice: str | None = "") -> Snapshot:
    assert GOOD.reading
    direction = DirectionReading(None, frozenset(), fault, advice)
    return replace(GOOD, reading=replace(GOOD.reading, direction=direction))


@pytest.mark.parametrize(
    ("state", "row"),
    [
        (GOOD, Row("L1", "  24.00 A, peak   33.9 A")),
        (GOOD, Row("mains", " 50.020 Hz")),
        (GOOD, Row("reading", "number 3, 0.4 s old, 3998 scans")),
        (GOOD, Row("scans lost", "0")),
        (GOOD, Row("ADC", "OK")),
        (GOOD, Row("P1 port", "open")),
        (GOOD, Row("request line", "no request in the last 10 s")),
        (replace(GOOD, p1_requested=True), Row("request line", "requesting telegrams")),
        (GOOD, Row("telegrams", "4 sent, 0 aborted, 0 dropped; requests: 4")),
        (
            replace(GOOD, leds_ms_per_second={"power": 1000, "current": 690, "p1": 0}),
            Row("LEDs", "power on, current 690 ms per second, p1 off"),
        ),
        (
            GOOD,
            Row("LEDs", "power not available, current not available, p1 not available"),
        ),
        (
            MEASURING,
            Row(
                "L2",
                "   0.00 A, peak    0.1 A, overload: the reading is too low",
                good=False,
                fault="L2 overload",
            ),
        ),
        (
            replace(GOOD, reading=replace(READING, frequency_hertz=None)),
            Row("mains", "frequency unknown"),
        ),
        (with_direction(advice="swap L1 and L2"), Row("wiring", "swap L1 and L2")),
        (
            with_direction(fault="0.1 V is too weak"),
            Row(
                "direction",
                "unknown, counted as import: 0.1 V is too weak",
                good=False,
                fault="direction unknown",
            ),
        ),
        (
            replace(MEASURING, reading=None, failed=FAILED),
            Row(
                "L2",
                "input failed: current unknown, no telegrams; check its wiring",
                good=False,
                fault="input of L2 failed",
            ),
        ),
        # The fault is that of the input; it is the reason that there is no reading.
        (
            replace(MEASURING, reading=None, failed=FAILED),
            Row("reading", "no current reading, no telegrams", good=False),
        ),
        (
            replace(GOOD, reading=None),
            Row(
                "reading",
                "no current reading, no telegrams",
                good=False,
                fault="no current reading",
            ),
        ),
        # Counters are marked, but are no present fault.
        (MEASURING, Row("scans lost", "2", good=False)),
        (MEASURING, Row("telegrams", "2 sent, 1 aborted, 1 dropped; requests: 4", good=False)),
    ],
    ids=lambda value: value.name if isinstance(value, Row) else "",
)
def test_a_row(state: Snapshot, row: Row) -> None:
    assert row in rows(state.status(END_NS + 400_000_000))


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (GOOD, []),
        (MEASURING, ["L2 overload"]),
        (with_direction(advice="swap L1 and L2"), []),
        (
            Snapshot(),
            [
                "ADC not found or not delivering data",
                "P1 port not available",
                "request line not available",
            ],
        ),
    ],
)
def test_the_faults_are_those_of_the_rows(state: Snapshot, expected: list[str]) -> None:
    status = state.status(END_NS)
    assert faults(status) == expected
    assert ("journalctl" in status_text(status, "http://x/")) == bool(expected)


def test_status_json_carries_the_rows_and_all_that_they_are_made_from() -> None:
    direction = DirectionReading({Phase.L1: -1.5}, frozenset({Phase.L2, Phase.L1}), "", None)
    state = replace(
        MEASURING, reading=replace(READING, direction=direction), last_telegram=b"/XMX5\r\n"
    )
    status = state.status(END_NS)
    assert status_json(state, END_NS)["rows"] == [asdict(row) for row in rows(status)]
    assert parse(to_json(status)) == status


def test_a_long_text_is_wrapped() -> None:
    text = status_text(with_direction(advice="turn it " * 30).status(END_NS), "http://x/")
    assert max(map(len, text.splitlines())) <= 80
    assert "wiring        turn it" in text
    assert "\n              turn it" in text
