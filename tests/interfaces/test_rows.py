# SPDX-License-Identifier: Apache-2.0
"""The table that `csp1ctl status`, `csp1ctl watch` and the page show."""

import time
from dataclasses import asdict, replace

import pytest
from states import DROPPED, END_NS, FAILED, MEASURING, OVERLOAD, READING, UNIX_SECONDS, status_json

from csp1d.events import ActiveProblem, Event
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import Problem, Row, Status, headline, parse, rows, status_text, to_json

GOOD = replace(
    MEASURING,
    reading=replace(READING, phases={Phase.L1: PhaseCurrent(24.0, 33.9, 0.25, 0)}),
    scans_lost_total=0,
    port=PortCounts(requests=4, sent=4),
)


def status_of(state: Snapshot, now_ns: int = END_NS) -> Status:
    return state.status(now_ns, UNIX_SECONDS)


def with_problem(event: Event, device: str) -> Snapshot:
    return replace(GOOD, problems=(ActiveProblem(event, device, "it is bad", 0),))


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
            ),
        ),
        (
            replace(MEASURING, reading=None, failed=FAILED),
            Row(
                "L2",
                "input failed: current unknown, no telegrams",
                good=False,
            ),
        ),
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
            ),
        ),
        # Counters are marked while there is a problem, not for ever.
        (MEASURING, Row("scans lost", "2")),
        (MEASURING, Row("telegrams", "2 sent, 1 aborted, 1 dropped; requests: 4")),
        (with_problem(Event.SCANS_LOST, "ADC"), Row("scans lost", "0", good=False)),
        (with_problem(Event.SCANS_LOST, "ADC"), Row("ADC", "OK")),
        (with_problem(Event.ADC_CLOCK, "ADC"), Row("ADC", "OK", good=False)),
        (
            with_problem(Event.TELEGRAM_DROPPED, "P1 port"),
            Row("telegrams", "4 sent, 0 aborted, 0 dropped; requests: 4", good=False),
        ),
        (with_problem(Event.CLIPPING, "L1"), Row("L1", "  24.00 A, peak   33.9 A", good=False)),
        (
            with_problem(Event.LED_LOST, "LED csp1:yellow:p1"),
            Row(
                "LEDs",
                "power not available, current not available, p1 not available",
                good=False,
            ),
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Row) else "",
)
def test_a_row(state: Snapshot, row: Row) -> None:
    assert row in rows(status_of(state, END_NS + 400_000_000))


@pytest.mark.parametrize(
    ("problems", "is_measuring", "expected"),
    [
        ((), True, "Measuring, no problems"),
        ((), False, "Waiting for a reading"),
        ((DROPPED,), True, "Telegram dropped: port stuck"),
        ((OVERLOAD, DROPPED), False, "L2 overload: check the burden (and 1 more problem)"),
        ((DROPPED,) * 3, True, "Telegram dropped: port stuck (and 2 more problems)"),
    ],
)
def test_the_headline_is_the_first_problem(
    problems: tuple[ActiveProblem, ...], is_measuring: bool, expected: str
) -> None:
    assert headline([problem.reason for problem in problems], is_measuring) == expected
    state = replace(GOOD, problems=problems, reading=GOOD.reading if is_measuring else None)
    assert status_json(state, END_NS)["headline"] == expected


def test_a_problem_has_its_event_its_words_its_beginning_and_its_chapter() -> None:
    status = status_of(replace(MEASURING, problems=(OVERLOAD, DROPPED)))
    assert status.problems == (
        Problem("clipping", "L2", OVERLOAD.reason, "clipping", UNIX_SECONDS - 3600),
        Problem("telegram-dropped", "P1 port", DROPPED.reason, "no-telegrams", UNIX_SECONDS - 20),
    )
    assert parse(to_json(status)) == status


def test_the_text_ends_with_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    text = status_text(status_of(replace(MEASURING, problems=(OVERLOAD, DROPPED))), "http://x/")
    assert text.endswith(
        "\n\nProblems (explained by sudo journalctl -x -u csp1d and /usr/share/doc/csp1d):\n"
        "- L2 overload: check the burden\n"
        "  since 2023-11-14 21:13:20; see troubleshoot.md#clipping\n"
        "- telegram dropped: port stuck\n"
        "  since 2023-11-14 22:13:00; see troubleshoot.md#no-telegrams\n"
    )
    assert "Problems" not in status_text(status_of(GOOD), "http://x/")
    monkeypatch.undo()
    time.tzset()


def test_status_json_carries_the_rows_and_all_that_they_are_made_from() -> None:
    direction = DirectionReading({Phase.L1: -1.5}, frozenset({Phase.L2, Phase.L1}), "", None)
    state = replace(
        MEASURING, reading=replace(READING, direction=direction), last_telegram=b"/XMX5\r\n"
    )
    status = status_of(state)
    assert status_json(state, END_NS)["rows"] == [asdict(row) for row in rows(status)]
    assert parse(to_json(status)) == status


def test_a_long_text_is_wrapped() -> None:
    text = status_text(status_of(with_direction(advice="turn it " * 30)), "http://x/")
    assert max(map(len, text.splitlines())) <= 80
    assert "wiring        turn it" in text
    assert "\n              turn it" in text
