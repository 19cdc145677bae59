# SPDX-License-Identifier: Apache-2.0
"""The metrics as a scraper reads them, against golden files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from states import DROPPED, END_NS, FAILED, MEASURING, OVERLOAD, READING, status_json

from csp1d import __version__
from csp1d.interfaces.metrics import SnapshotCollector
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading
from csp1d.phase import Phase

HERE = Path(__file__).parent


def scrape(state: Snapshot, now_ns: int) -> str:
    def now() -> int:
        return now_ns

    registry = CollectorRegistry()
    collector = SnapshotCollector(lambda: state, lambda: now_ns, lambda: now_ns, 1_699_980_000.0)
    registry.register(collector)
    return generate_latest(registry).decode().replace(f'version="{__version__}"', 'version="X"')


@pytest.mark.parametrize(
    ("name", "state", "age_ms"),
    [
        ("measuring", MEASURING, 900),
        # An old reading does not describe the present current.
        ("stalled", replace(MEASURING, adc_up=False, problems=(DROPPED, DROPPED, OVERLOAD)), 1501),
        ("failed", replace(MEASURING, failed=FAILED, reload_successful=False), 1500),
        ("starting", Snapshot(), 0),
    ],
)
def test_equals_the_golden_page(name: str, state: Snapshot, age_ms: int) -> None:
    page = scrape(state, END_NS + age_ms * 1_000_000)
    assert page == (HERE / f"metrics-{name}.txt").read_text()
    parse: Any = text_string_to_metric_families
    assert list(parse(page))


def test_without_a_fresh_reading_there_is_no_current() -> None:
    page = scrape(MEASURING, END_NS + 2_000_000_000)
    samples = {line.split("{")[0].split(" ")[0] for line in page.splitlines() if line[0] != "#"}
    assert not samples & {
        "csp1d_current_amperes",
        "csp1d_peak_current_amperes",
        "csp1d_dc_offset_amperes",
        "csp1d_mains_frequency_hertz",
        "csp1d_input_failed",
    }
    assert "csp1d_reading_timestamp_seconds" in samples


@pytest.mark.parametrize(
    ("age_seconds", "highest"), [(0, 31.5), (58, 31.5), (59, 24.0), (60, None), (3600, None)]
)
def test_the_highest_current_is_that_of_the_last_minute(
    age_seconds: int, highest: float | None
) -> None:
    page = scrape(MEASURING, END_NS + age_seconds * 1_000_000_000)
    line = f'csp1d_current_max_amperes{{phase="L1"}} {highest}'
    assert (line in page.splitlines()) == (highest is not None)
    assert page.count("csp1d_current_max_amperes{") == (2 if highest else 0)


@pytest.mark.parametrize(
    ("direction", "samples"),
    [
        (None, []),
        (DirectionReading(None, frozenset(), "too weak", None), []),
        (
            DirectionReading({Phase.L1: -23.5, Phase.L2: 0.0}, frozenset({Phase.L1}), "", ""),
            [
                'csp1d_active_current_amperes{phase="L1"} -23.5',
                'csp1d_active_current_amperes{phase="L2"} 0.0',
            ],
        ),
    ],
)
def test_an_unknown_active_current_is_absent(
    direction: DirectionReading | None, samples: list[str]
) -> None:
    state = replace(MEASURING, reading=replace(READING, direction=direction))
    page = scrape(state, END_NS)
    assert [line for line in page.splitlines() if line.startswith("csp1d_active")] == samples
    assert 'csp1d_current_amperes{phase="L1"} 24.0' in page


def test_status_json_has_the_direction() -> None:
    def direction_json(direction: DirectionReading | None) -> object:
        state = replace(MEASURING, reading=replace(READING, direction=direction))
        return status_json(state, END_NS)["reading"]["direction"]

    assert direction_json(None) is None
    both = DirectionReading({Phase.L1: -23.5}, frozenset({Phase.L2, Phase.L1}), "", "swap")
    assert direction_json(both) == {
        "active_current_amperes": {"L1": -23.5},
        "exporting": ["L1", "L2"],
        "reference_fault": "",
        "wiring_advice": "swap",
    }
