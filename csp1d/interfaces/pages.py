# SPDX-License-Identifier: Apache-2.0
"""What HTTP shows: the page, the metrics, and state and waveforms as JSON."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from csp1d import __version__
from csp1d.interfaces.metrics import SnapshotCollector
from csp1d.interfaces.router import Page, html_page
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.arrays import Floats
from csp1d.measuring.reading import DirectionReading, Reading


def pages(snapshot: Callable[[], Snapshot]) -> Mapping[str, Page]:
    """The pages by path; each is made from the snapshot of its moment."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(snapshot))

    def status() -> bytes:
        return json.dumps(status_json(snapshot(), time.monotonic_ns())).encode()

    def waveform() -> bytes:
        return json.dumps(waveform_json(snapshot(), time.monotonic_ns())).encode()

    return {
        "/": html_page(Path(__file__).with_name("page.html").read_bytes()),
        "/metrics": Page(CONTENT_TYPE_LATEST, lambda: generate_latest(registry)),
        "/status.json": Page("application/json", status),
        "/waveform.json": Page("application/json", waveform),
    }


def status_json(state: Snapshot, now_ns: int) -> dict[str, Any]:
    """The state in JSON's types; what is not known is null."""
    lit = state.lit(now_ns)
    failed = state.fresh_failed(now_ns)
    return {
        "version": __version__,
        "adc_up": state.adc_up,
        "p1_up": state.p1_up,
        "p1_request": state.p1_request,
        "reading": _reading_json(state.fresh(now_ns), now_ns),
        "failed_phases": list(failed.failed_phases) if failed else [],
        "scans_lost_total": state.scans_lost_total,
        "telegrams": asdict(state.port),
        "leds": {role: lit.get(role) for role in ("power", "current", "p1")},
        "last_telegram": state.last_telegram.decode("ascii") or None,
    }


def waveform_json(state: Snapshot, now_ns: int) -> dict[str, Any]:
    """The last mains cycles, of a failed input as well; null where no reading is fresh."""
    reading = state.fresh_failed(now_ns) or state.fresh(now_ns)
    if reading is None or reading.waveform is None:
        return {"waveform": None}
    waveform = reading.waveform
    reference = None
    if waveform.reference is not None:
        reference = {"unit": waveform.reference_unit, "values": _rounded(waveform.reference)}
    return {
        "waveform": {
            "sequence": reading.sequence,
            "age_seconds": round((now_ns - reading.end_ns) / 1e9, 3),
            "end_timestamp_seconds": state.reading_timestamp_seconds,
            "spacing_seconds": waveform.spacing_seconds,
            "current_amperes": {
                phase: _rounded(values) for phase, values in waveform.current_amperes.items()
            },
            "reference": reference,
        }
    }


def _rounded(values: Floats) -> list[float]:
    # To what can be seen, so that the page stays small.
    return [round(value, 3) for value in values.tolist()]


def _reading_json(reading: Reading | None, now_ns: int) -> dict[str, Any] | None:
    if reading is None:
        return None
    return {
        "sequence": reading.sequence,
        "age_seconds": round((now_ns - reading.end_ns) / 1e9, 3),
        "window_seconds": reading.window_seconds,
        "frequency_hertz": reading.frequency_hertz,
        "scans": reading.scans,
        "lost_scans": reading.lost_scans,
        "phases": {phase: asdict(current) for phase, current in reading.phases.items()},
        "direction": _direction_json(reading.direction),
    }


def _direction_json(direction: DirectionReading | None) -> dict[str, Any] | None:
    if direction is None:
        return None
    return {
        "active_current_amperes": direction.active_current_amperes,
        "exporting": sorted(direction.exporting),
        "reference_fault": direction.reference_fault,
        "wiring_advice": direction.wiring_advice,
    }
