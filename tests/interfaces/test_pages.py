# SPDX-License-Identifier: Apache-2.0
"""The page for the installer, /status.json, /waveform.json and /history.json."""

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import hat_format
from states import DROPPED, END_NS, FAILED, MEASURING, READING, status_json

from csp1d.config import P1Config
from csp1d.interfaces.pages import capture_description, history_json, pages, waveform_json
from csp1d.interfaces.router import Page, Selection
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.history import KEPT_MINUTES, MINUTE_NS, History
from csp1d.measuring.reading import SHOWN_NS, DirectionReading, Waveform
from csp1d.measuring.recent import RecentScans
from csp1d.p1.telegram import encode
from csp1d.phase import Phase
from csp1d.tool.capture import load
from csp1d.units import SECOND_NS

UNIX_SECONDS = 1_700_000_000.65
MANUAL = Path(__file__).parents[2] / "docs/man/csp1d.8.rst"
HTML = resources.files("csp1d.interfaces").joinpath("page.html").read_text()
WAVEFORM = Waveform(
    0.0005,
    {Phase.L1: np.array((0.0, 7.07149, -1.0)), Phase.L2: np.array((0.1, 0.0, 0.0))},
    None,
    "",
)


def waveform_of(waveform: Waveform | None, now_ns: int = END_NS + 400_000_000) -> Any:
    state = replace(MEASURING, reading=replace(READING, waveform=waveform))
    return json.loads(json.dumps(waveform_json(state, now_ns, UNIX_SECONDS)))["waveform"]


def test_waveforms_are_oldest_first_and_end_with_the_reading() -> None:
    assert waveform_of(WAVEFORM) == {
        "sequence": 3,
        "age_seconds": 0.4,
        "end_timestamp_seconds": 1_700_000_000.25,
        "spacing_seconds": 0.0005,
        "current_amperes": {"L1": [0.0, 7.071, -1.0], "L2": [0.1, 0, 0]},
        "reference": None,
    }


@pytest.mark.parametrize("unit", ["V", "A"])
def test_the_reference_has_its_unit(unit: str) -> None:
    waveform = replace(WAVEFORM, reference=np.array((0.0, 0.5, 0.25)), reference_unit=unit)
    assert waveform_of(waveform)["reference"] == {"unit": unit, "values": [0.0, 0.5, 0.25]}


def test_a_failed_input_has_a_waveform() -> None:
    failed = replace(FAILED, sequence=4, waveform=WAVEFORM)
    # The last good reading is still fresh for a moment.
    for reading in (READING, None):
        state = replace(MEASURING, reading=reading, failed=failed)
        waveform = waveform_json(state, END_NS, UNIX_SECONDS)["waveform"]
        assert (waveform["sequence"], waveform["end_timestamp_seconds"]) == (4, UNIX_SECONDS)
        assert status_json(state, END_NS)["failed_phases"] == ["L2"]
    assert waveform_json(state, END_NS + 1_501_000_000, UNIX_SECONDS) == {"waveform": None}


def test_an_old_waveform_is_absent() -> None:
    assert waveform_of(WAVEFORM, END_NS + 1_501_000_000) is None
    assert waveform_of(None) is None
    assert waveform_json(Snapshot(), 0, UNIX_SECONDS) == {"waveform": None}


def page_of(path: str) -> Page:
    page = pages(Snapshot)[path]
    assert isinstance(page, Page)
    return page


def test_each_page_is_built_from_the_snapshot() -> None:
    assert [*pages(Snapshot)] == [
        "/",
        "/metrics",
        "/status.json",
        "/waveform.json",
        "/history.json",
        "/capture.json",
        "/capture.bin",
    ]
    assert json.loads(page_of("/waveform.json").make_body()) == {"waveform": None}
    assert page_of("/waveform.json").content_type == "application/json"


FORMAT = hat_format()
RECENT = (
    RecentScans(FORMAT, 12345)
    .append(bytes(4000 * FORMAT.scan_bytes), 1 * SECOND_NS)
    .append(bytes(4000 * FORMAT.scan_bytes), 11 * SECOND_NS)
    .append(bytes(40) + b"last 8 b", 12 * SECOND_NS)
)
"""The first read has become too old."""


def selected(path: str, recent: RecentScans | None = RECENT) -> bytes | HTTPStatus:
    page = pages(lambda: replace(MEASURING, recent=recent))[path.partition("?")[0]]
    assert isinstance(page, Selection)
    found = page.select(path.partition("?")[2])
    return found if isinstance(found, HTTPStatus) else b"".join(found)


def test_the_kept_scans_are_a_capture(tmp_path: Path) -> None:
    for suffix in ("json", "bin"):
        content = selected(f"/capture.{suffix}")
        assert isinstance(content, bytes)
        (tmp_path / f"x.{suffix}").write_bytes(content)
    recorded = load(tmp_path / "x")
    assert recorded.format == FORMAT
    assert b"".join(recorded.chunks()) == bytes(4000 * 16 + 40) + b"last 8 b"


def test_the_description_has_the_place_in_the_stream() -> None:
    found = capture_description(RECENT, 12 * SECOND_NS + 250_000_000)
    assert not isinstance(found, HTTPStatus)
    assert json.loads(b"".join(found)) == {
        **FORMAT.description(),
        "capture": "12345",
        "first": 4000,
        "scans": 4003,
        "scans_per_second": 3.0,
        "age_seconds": 0.25,
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("capture=12345&first=8002", bytes(8) + b"last 8 b"),
        ("capture=12345&first=8003", b""),
        ("capture=12345&first=8004", HTTPStatus.GONE),
        ("capture=12345&first=3999", HTTPStatus.GONE),
        ("capture=12346&first=8002", HTTPStatus.GONE),
        ("first=8002", HTTPStatus.BAD_REQUEST),
        ("capture=12345&first=-1", HTTPStatus.BAD_REQUEST),
        ("capture=12345&first=8002&x=1", HTTPStatus.BAD_REQUEST),
        ("capture=12345&first=" + "9" * 4000, HTTPStatus.BAD_REQUEST),
    ],
)
def test_a_follower_asks_for_the_scans_that_it_lacks(
    query: str, expected: bytes | HTTPStatus
) -> None:
    assert selected(f"/capture.bin?{query}") == expected


def test_without_scans_there_is_no_capture() -> None:
    for path in ("/capture.json", "/capture.bin", "/capture.bin?capture=1&first=1"):
        assert selected(path, None) is HTTPStatus.SERVICE_UNAVAILABLE


NOW_NS = 5000 * MINUTE_NS + 15_000_000_000
"""A quarter of a minute after the beginning of one, on CLOCK_BOOTTIME."""


def a_day() -> History:
    """Readings in a minute 24 hours ago, in one an hour ago, and in the present one."""
    history = History()
    for minutes, l1, l2 in ((1439, 20.0, 0.0), (60, 1.255, 5.0), (60, 7.0, 5.0), (0, 24.5, 0.126)):
        currents = {Phase.L1: l1, Phase.L2: l2}
        phases = {p: replace(READING.phases[p], rms_amperes=a) for p, a in currents.items()}
        reading = replace(READING, phases=phases)
        history = history.append(reading, NOW_NS - minutes * MINUTE_NS)
    return history


def test_history_is_a_value_per_minute_and_null_without_a_reading() -> None:
    document = json.loads(history_json(a_day(), NOW_NS, UNIX_SECONDS))
    columns: dict[str, dict[str, tuple[float, ...]]] = {
        "L1": {"lowest": (20, 1.25, 24.5), "mean": (20, 4.13, 24.5), "highest": (20, 7, 24.5)},
        "L2": {"lowest": (0, 5, 0.13), "mean": (0, 5, 0.13), "highest": (0, 5, 0.13)},
    }
    assert document == {
        # The present minute began 15 s ago.
        "start_timestamp_seconds": pytest.approx(UNIX_SECONDS - 15 - 1439 * 60, abs=0.001),
        "spacing_seconds": 60,
        "current_amperes": {
            phase: {
                name: [first, *[None] * 1378, middle, *[None] * 59, last]
                for name, (first, middle, last) in of_phase.items()
            }
            for phase, of_phase in columns.items()
        },
    }


def test_a_step_of_the_wall_clock_moves_the_whole_history() -> None:
    # A Raspberry Pi has no clock that survives: it starts in the past, until NTP has answered.
    before, after = (
        json.loads(history_json(a_day(), NOW_NS, unix_seconds))
        for unix_seconds in (86_400.0, UNIX_SECONDS)
    )
    step = after.pop("start_timestamp_seconds") - before.pop("start_timestamp_seconds")
    assert step == pytest.approx(UNIX_SECONDS - 86_400, abs=0.002)
    assert before == after


def test_a_history_without_a_reading_has_no_phase() -> None:
    document = json.loads(page_of("/history.json").make_body())
    assert document["current_amperes"] == {}
    assert document["spacing_seconds"] * KEPT_MINUTES == 86_400
    assert document["start_timestamp_seconds"] == pytest.approx(time.time() - 86_400, abs=61)


def test_the_page_is_one_file_that_may_run_its_own_script() -> None:
    page = page_of("/")
    assert page.make_body().decode() == HTML
    (script,) = re.findall("<script>(.*?)</script>", HTML, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy.split("; ")
    assert "connect-src 'self'" in page.policy.split("; ")
    # Attributes that the policy forbids, and content from other servers.
    assert not re.search(r"<[a-z][^>]*\s(?:style|on\w+|src)=", HTML)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", HTML)


def test_the_page_sends_no_one_to_the_terminal_of_root() -> None:
    """It is read on a phone: the reasons and remedies are on it."""
    assert not re.search(r"sudo|journalctl", HTML)


def test_the_page_explains_every_object_of_a_telegram() -> None:
    described = {*re.findall(r'"(\d-\d:[\d.]+)": "', HTML)}
    phase_codes = {*re.findall(r'"(\d\.\d+\.0)": "', HTML)}
    configs = (P1Config(profile="csp1"), P1Config(profile="smr5"), P1Config(profile="emucs"))
    telegrams = b"".join(encode(config, (1, 2, 3), time.localtime()) for config in configs)
    sent = {*re.findall(r"^(\d-\d:[\d.]+)\(", telegrams.decode(), re.M)}
    rest = {code for code in sent - described if re.sub(r"^1-0:[2-7]", "", code) not in phase_codes}
    assert rest == set()
    assert described <= sent


def test_the_manual_explains_each_key_of_status_json() -> None:
    pages = MANUAL.read_text().partition("*/status.json* is")[2].partition("*/waveform.json*")[0]
    reading = replace(READING, direction=DirectionReading(None, frozenset(), "", None))
    status = status_json(replace(MEASURING, reading=reading, problems=(DROPPED,)), END_NS)

    def keys(value: Any) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        if not isinstance(value, dict):
            return set()
        return {*value}.union(*map(keys, value.values()))

    assert [*keys(status["problems"])]
    assert [*keys(status["reading"]["direction"])]
    names = {*status["leds_ms_per_second"], *status["reading"]["phases"]}
    assert {key for key in keys(status) - names if f"*{key}*" not in pages} == set()


def test_status_json_has_its_keys_in_order() -> None:
    status = status_json(MEASURING, END_NS)
    assert [*status] == [
        *("headline", "version", "site", "main_fuse_amperes", "serial", "equipment_id", "profile"),
        *("problems", "adc_up", "p1_up", "p1_requested", "reading", "failed_phases"),
        *("scans_lost_total", "telegrams", "leds_ms_per_second", "last_telegram", "rows"),
    ]
    assert [*status["reading"]] == [
        *("sequence", "age_seconds", "window_seconds", "frequency_hertz", "scans", "lost_scans"),
        *("phases", "direction"),
    ]


def test_the_current_led_is_dark_without_a_fresh_reading() -> None:
    state = replace(MEASURING, leds_ms_per_second={"power": 1000, "current": 690})
    for now_ns, ms in ((END_NS + SHOWN_NS, 690), (END_NS + SHOWN_NS + 1, 0)):
        leds = status_json(state, now_ns)["leds_ms_per_second"]
        assert leds == {"power": 1000, "current": ms, "p1": None}
