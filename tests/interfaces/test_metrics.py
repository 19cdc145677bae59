# SPDX-License-Identifier: Apache-2.0
"""The metrics as a scraper gets them, against golden files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from csp1d import __version__
from csp1d.interfaces.metrics import SnapshotCollector
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import to_json

HERE = Path(__file__).parent
END_NS = 50_000_000_000

READING = Reading(
    sequence=3,
    end_ns=END_NS,
    window_seconds=0.9995,
    phases={
        Phase.L1: PhaseCurrent(24.0, 33.9, 0.25, 0),
        Phase.L2: PhaseCurrent(0.0, 0.1, -0.25, 7),
    },
    frequency_hertz=50.02,
    scans=3998,
    lost_scans=2,
)
FAILED = replace(
    READING, phases={**READING.phases, Phase.L2: PhaseCurrent(0.0, 0.1, 165.0, 3998, at_rail=True)}
)
MEASURING = Snapshot(
    reading=READING,
    reading_timestamp_seconds=1_700_000_000.25,
    readings_total=3,
    scans_total=12_000,
    scans_lost_total=2,
    clipped_samples_total={Phase.L1: 0, Phase.L2: 7},
    adc_up=True,
    adc_reconnects_total=1,
    p1_up=True,
    p1_request=False,
    port=PortCounts(requests=4, sent=2, aborted=1, dropped=1),
    latency_counts=(0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1),
    latency_sum_seconds=1.5,
)


def status_json(state: Snapshot, now_ns: int) -> Any:
    """/status.json as a client reads it."""
    return json.loads(to_json(state.status(now_ns)))


def scrape(state: Snapshot, now_ns: int) -> str:
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(lambda: state, lambda: now_ns))
    return generate_latest(registry).decode().replace(f'version="{__version__}"', 'version="X"')


@pytest.mark.parametrize(
    ("name", "state", "age_ms"),
    [
        ("measuring", MEASURING, 900),
        # What flowed some time ago is not what flows.
        ("stalled", replace(MEASURING, adc_up=False), 1501),
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
    }
    assert "csp1d_reading_timestamp_seconds" in samples


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
def test_the_active_current_is_absent_where_it_is_unknown(
    direction: DirectionReading | None, samples: list[str]
) -> None:
    state = replace(MEASURING, reading=replace(READING, direction=direction))
    page = scrape(state, END_NS)
    assert [line for line in page.splitlines() if line.startswith("csp1d_active")] == samples
    assert 'csp1d_current_amperes{phase="L1"} 24.0' in page


def test_the_state_tells_the_direction() -> None:
    def told(direction: DirectionReading | None) -> object:
        state = replace(MEASURING, reading=replace(READING, direction=direction))
        return status_json(state, END_NS)["reading"]["direction"]

    assert told(None) is None
    both = DirectionReading({Phase.L1: -23.5}, frozenset({Phase.L2, Phase.L1}), "", "swap")
    assert told(both) == {
        "active_current_amperes": {"L1": -23.5},
        "exporting": ["L1", "L2"],
        "reference_fault": "",
        "wiring_advice": "swap",
    }
