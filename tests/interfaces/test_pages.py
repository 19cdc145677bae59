# SPDX-License-Identifier: Apache-2.0
"""The page for the installer, /status.json and /waveform.json."""

import base64
import hashlib
import json
import re
import time
from dataclasses import replace
from importlib import resources
from typing import Any

import numpy as np
import pytest
from states import END_NS, FAILED, MEASURING, READING, status_json

from csp1d.config import P1Config
from csp1d.interfaces.pages import pages, waveform_json
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import SHOWN_NS, Waveform
from csp1d.p1.telegram import encode
from csp1d.phase import Phase

UNIX_SECONDS = 1_700_000_000.65
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


def test_each_page_is_built_from_the_snapshot() -> None:
    served = pages(Snapshot)
    assert [*served] == ["/", "/metrics", "/status.json", "/waveform.json"]
    assert json.loads(served["/waveform.json"].make_body()) == {"waveform": None}
    assert served["/waveform.json"].content_type == "application/json"


def test_the_page_is_one_file_that_may_run_its_own_script() -> None:
    page = pages(Snapshot)["/"]
    assert page.make_body().decode() == HTML
    (script,) = re.findall("<script>(.*?)</script>", HTML, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page.policy.split("; ")
    assert "connect-src 'self'" in page.policy.split("; ")
    # Attributes that the policy forbids, and content from other servers.
    assert not re.search(r"<[a-z][^>]*\s(?:style|on\w+|src)=", HTML)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", HTML)


def test_the_page_explains_every_object_of_a_telegram() -> None:
    described = {*re.findall(r'"(\d-\d:[\d.]+)": "', HTML)}
    phase_codes = {*re.findall(r'"(\d\.\d+\.0)": "', HTML)}
    configs = (P1Config(profile="csp1"), P1Config(profile="smr5"), P1Config(profile="emucs"))
    telegrams = b"".join(encode(config, (1, 2, 3), time.localtime()) for config in configs)
    sent = {*re.findall(r"^(\d-\d:[\d.]+)\(", telegrams.decode(), re.M)}
    rest = {code for code in sent - described if re.sub(r"^1-0:[2-7]", "", code) not in phase_codes}
    assert rest == set()
    assert described <= sent


def test_status_json_has_the_documented_keys() -> None:
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
