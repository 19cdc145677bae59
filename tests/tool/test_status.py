# SPDX-License-Identifier: Apache-2.0
"""The state of the daemon: from JSON, as text, and watched over time."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from states import DROPPED, END_NS, FAILED, MEASURING, UNIX_SECONDS

from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import LiveReading, Status, parse, status_text, to_json
from csp1d.tool.screen import screen
from csp1d.tool.watch import Watch

URL = "http://127.0.0.1:19510/"


def body(state: Snapshot) -> bytes:
    """The /status.json of the daemon 400 ms after its reading."""
    return to_json(state.status(END_NS + 400_000_000, UNIX_SECONDS))


STATUS = replace(parse(body(MEASURING)), version="0.1.0")


def test_what_the_daemon_tells_is_understood() -> None:
    assert MEASURING.reading
    assert (
        Status(
            version="0.1.0",
            site="House 7",
            main_fuse_amperes=25.0,
            serial="XMXCQA0000000007",
            equipment_id="E0000000000000007",
            profile="csp1",
            problems=(),
            adc_up=True,
            p1_up=True,
            p1_requested=False,
            reading=LiveReading(3, 0.4, 0.9995, 50.02, 3998, 2, MEASURING.reading.phases),
            failed_phases=(),
            scans_lost_total=2,
            telegrams=PortCounts(requests=4, sent=2, aborted=1, dropped=1),
            leds_ms_per_second={"power": None, "current": None, "p1": None},
        )
        == STATUS
    )
    assert parse(body(Snapshot())).reading is None


@pytest.mark.parametrize("since", [b"1e300", b"-1e12", b"NaN", b"null"])
def test_a_problem_has_a_time_that_can_be_shown(since: bytes) -> None:
    good = body(replace(MEASURING, problems=(DROPPED,)))
    bad = re.sub(rb'"since": \d+', b'"since": ' + since, good)
    assert bad != good
    with pytest.raises(ValueError, match="not the status of this version of csp1d"):
        parse(bad)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b"null", b'{"reading": 3}'])
def test_what_something_else_tells_is_not(body: bytes) -> None:
    with pytest.raises(ValueError, match="not the status of this version of csp1d"):
        parse(body)


def test_in_status_text() -> None:
    assert status_text(STATUS, URL) == (
        "House 7\n"
        "csp1d 0.1.0 at http://127.0.0.1:19510/\n"
        "\n"
        "L1              24.00 A, peak   33.9 A\n"
        "L2               0.00 A, peak    0.1 A, overload: the reading is too low\n"
        "mains          50.020 Hz\n"
        "reading       number 3, 0.4 s old, 3998 scans\n"
        "scans lost    2\n"
        "ADC           OK\n"
        "P1 port       open\n"
        "request line  no request in the last 10 s\n"
        "telegrams     2 sent, 1 aborted, 1 dropped; requests: 4\n"
        "LEDs          power not available, current not available, p1 not available\n"
    )


def test_a_phase_that_exports_is_told() -> None:
    assert STATUS.reading
    direction = DirectionReading(None, frozenset({Phase.L1}), "", None)
    exporting = replace(STATUS.reading, direction=direction)
    text = status_text(replace(STATUS, reading=exporting), URL)
    assert [line[:2] for line in text.splitlines() if line.endswith("exporting")] == ["L1"]
    assert "exporting" not in status_text(STATUS, URL)


def test_in_words_where_nothing_works() -> None:
    assert status_text(parse(body(Snapshot())), URL).split("\n")[2:] == [
        "reading       no current reading, no telegrams",
        "scans lost    0",
        "ADC           not found or not delivering data",
        "P1 port       not available",
        "request line  not available",
        "telegrams     0 sent, 0 aborted, 0 dropped; requests: 0",
        "LEDs          power not available, current not available, p1 not available",
        "",
    ]


def test_a_failed_input_is_told_instead_of_currents() -> None:
    status = parse(body(replace(MEASURING, reading=None, failed=FAILED)))
    assert status.reading is None
    shown = status_text(status, URL)
    assert "L2            input failed: current unknown, no telegrams\n" in shown
    assert body(MEASURING) == body(replace(MEASURING, failed=replace(FAILED, end_ns=0)))


# Watching.


def at(sequence: int, sent: int) -> Status:
    assert STATUS.reading
    reading = replace(STATUS.reading, sequence=sequence) if sequence else None
    return replace(STATUS, reading=reading, telegrams=PortCounts(sent=sent))


def test_telegrams_per_second_are_those_of_the_last_seconds() -> None:
    watch = Watch()
    assert watch.telegrams_per_second is None
    for second in range(30):
        # One a second at first, then one in two seconds.
        watch.answered(at(second + 1, second if second < 10 else 5 + second // 2), second, "")
        if second == 10:
            assert watch.telegrams_per_second == 1.0
    assert watch.telegrams_per_second == 0.5


def test_what_happens_is_noted_once() -> None:
    watch = Watch()
    assert watch.answered(at(7, 7), 0, "12:00:00") is None
    # A second without a reading, as while the ADC stalls, is no restart.
    assert watch.answered(at(0, 7), 1, "12:00:01") is None
    assert watch.answered(at(8, 7), 2, "12:00:02") is None
    assert watch.failed("no answer", "12:00:03") == "12:00:03 no answer"
    assert watch.status is None
    assert watch.telegrams_per_second is None
    assert watch.failed("no answer", "12:00:04") is None
    assert watch.answered(at(1, 1), 5, "12:00:05") == "12:00:05 csp1d is available again"
    assert watch.answered(at(2, 2), 6, "12:00:06") is None
    assert watch.answered(at(1, 2), 7, "12:00:07") == ("12:00:07 csp1d was reloaded or restarted")
    assert len(watch.notes) == 3


def test_a_restart_between_two_questions_is_no_negative_rate() -> None:
    watch = Watch()
    watch.answered(at(50, 50), 0, "")
    watch.answered(at(1, 1), 1, "")
    watch.answered(at(2, 2), 2, "")
    assert watch.telegrams_per_second == 1.0


def test_a_line_for_where_there_is_no_terminal() -> None:
    watch = Watch()
    watch.answered(STATUS, 0, "12:00:00")
    assert watch.line("12:00:00") == (
        "12:00:00 L1 24.00 A  L2 0.00 A  50.020 Hz  no request  2 sent  2 scans lost"
    )
    problems = parse(body(replace(MEASURING, problems=(DROPPED,)))).problems
    status = replace(STATUS, reading=None, p1_requested=None, problems=problems)
    watch.answered(status, 1, "12:00:01")
    assert watch.line("12:00:01") == (
        "12:00:01 no current reading  telegram dropped: port stuck  2 sent  2 scans lost"
    )
    assert "telegram dropped: port stuck" in [line.rstrip() for line in shown(watch)]
    watch.failed("gone", "12:00:02")
    assert watch.line("12:00:02") == "12:00:02 no answer from csp1d"


def shown(watch: Watch, fuse_amperes: float | None = None, **console: Any) -> list[str]:
    """The lines on a terminal of 80 columns."""
    file = io.TextIOWrapper(io.BytesIO(), console.pop("encoding", "utf-8"))
    content = screen(URL, watch.status, watch.telegrams_per_second, watch.notes, fuse_amperes)
    Console(file=file, width=80, **console).print(content)
    file.seek(0)
    return file.read().split("\n")


def test_the_screen() -> None:
    watch = Watch()
    leds = {"power": 1000, "current": 480, "p1": None}
    watch.answered(replace(STATUS, leds_ms_per_second=leds), 0, "")
    lines = shown(watch)
    assert max(map(len, lines)) <= 80
    lines = [line.rstrip() for line in lines]
    assert len(lines) < 24
    # 24 of 25 A are 0.96 of the bar.
    assert lines[2].startswith("L1  24.00 A ━")
    assert lines[2].endswith("              of 25 A")
    note = " overload: the reading is too low"
    assert lines[3].endswith(note)
    assert lines[2].count("━") == pytest.approx(0.96 * (80 - len("L1  24.00 A " + note)), abs=1)
    assert "request line  no request in the last 10 s" in lines
    assert "LEDs          power on, current 480 ms per second, p1 not available" in lines


def test_the_screen_on_a_terminal_without_unicode() -> None:
    watch = Watch()
    watch.answered(STATUS, 0, "")
    assert shown(watch, encoding="ascii")[2].startswith("L1  24.00 A ---")


def test_the_screen_without_an_answer() -> None:
    watch = Watch()
    watch.answered(STATUS, 0, "")
    watch.failed("no answer at all", "12:00:01")
    assert [line.rstrip() for line in shown(watch)] == [
        f"csp1d at {URL}",
        "",
        "no answer from csp1d; retrying",
        "",
        "12:00:01 no answer at all",
        "Ctrl-C to quit",
        "",
    ]


def test_a_bar_is_full_at_the_main_fuse_unless_another_limit_is_given() -> None:
    watch = Watch()
    watch.answered(replace(STATUS, main_fuse_amperes=35.0), 0, "")
    lines = [line.rstrip() for line in shown(watch)]
    assert lines[0].startswith("House 7: csp1d 0.1.0 at http://")
    assert lines[2].endswith(" of 35 A")
    assert shown(watch, 20.0)[2].rstrip().endswith(" of 20 A")
    watch.answered(replace(STATUS, main_fuse_amperes=None), 1, "")
    assert shown(watch)[2].rstrip().endswith(" of 80 A")


@pytest.mark.parametrize(("amperes", "is_red"), [(24.9, False), (25.0, True), (70.0, True)])
def test_from_the_fuse_on_a_bar_is_full_and_red(amperes: float, is_red: bool) -> None:
    assert STATUS.reading
    reading = replace(STATUS.reading, phases={Phase.L1: PhaseCurrent(amperes, 0, 0, 0)})
    watch = Watch()
    watch.answered(replace(STATUS, reading=reading), 0, "")
    line = shown(watch, 25.0, force_terminal=True, color_system="standard", no_color=False)[2]
    assert ("\x1b[1;31m━" in line) == is_red
