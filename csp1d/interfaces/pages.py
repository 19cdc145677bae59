# SPDX-License-Identifier: Apache-2.0
"""The pages of the HTTP server, each built from the latest snapshot when it is requested."""

import json
import re
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from math import isnan
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from csp1d.interfaces.metrics import SnapshotCollector
from csp1d.interfaces.router import Page, Pages, Selection, html_page
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.arrays import Floats
from csp1d.measuring.history import KEPT_MINUTES, MINUTE_NS, History
from csp1d.measuring.recent import RecentScans
from csp1d.status import to_json
from csp1d.units import SECOND_NS


def pages(snapshot: Callable[[], Snapshot]) -> Pages:
    """The pages by path. `snapshot` returns the latest state; it is called once per request."""
    registry = CollectorRegistry()
    registry.register(SnapshotCollector(snapshot))

    def status() -> bytes:
        return to_json(snapshot().status(time.monotonic_ns(), time.time()))

    def waveform() -> bytes:
        return json.dumps(waveform_json(snapshot(), time.monotonic_ns(), time.time())).encode()

    def history() -> bytes:
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return history_json(snapshot().history, now_ns, time.time()).encode()

    return {
        "/": html_page(Path(__file__).with_name("page.html").read_bytes()),
        "/metrics": Page(CONTENT_TYPE_LATEST, lambda: generate_latest(registry)),
        "/status.json": Page("application/json", status),
        "/waveform.json": Page("application/json", waveform),
        "/history.json": Page("application/json", history),
        "/capture.json": Selection(
            "application/json",
            lambda query: capture_description(snapshot().recent, time.monotonic_ns()),
        ),
        "/capture.bin": Selection(
            "application/octet-stream", lambda query: capture_scans(snapshot().recent, query)
        ),
    }


def capture_description(recent: RecentScans | None, now_ns: int) -> list[bytes] | HTTPStatus:
    """The kept scans as NAME.json describes them, and where they are in the stream of scans."""
    if recent is None:
        return HTTPStatus.SERVICE_UNAVAILABLE
    place = {
        "capture": str(recent.set_up_ns),
        "first": recent.first,
        "scans": recent.scans,
        "scans_per_second": recent.hertz and round(recent.hertz, 1),
        "age_seconds": round((now_ns - recent.reads[-1][0]) / SECOND_NS, 3),
    }
    return [json.dumps({**recent.format.description(), **place}).encode()]


def capture_scans(recent: RecentScans | None, query: str) -> Sequence[memoryview] | HTTPStatus:
    """All kept scans, or those of one `capture` from the one with the number `first` on."""
    if recent is None:
        return HTTPStatus.SERVICE_UNAVAILABLE
    if not query:
        return recent.since(recent.first) or []
    place = re.fullmatch(r"capture=(\d{1,20})&first=(\d{1,20})", query, re.ASCII)
    if not place:
        return HTTPStatus.BAD_REQUEST
    scans = recent.since(int(place[2])) if place[1] == str(recent.set_up_ns) else None
    return HTTPStatus.GONE if scans is None else scans


def waveform_json(state: Snapshot, now_ns: int, unix_seconds: float) -> dict[str, Any]:
    """The last mains cycles, also those of a failed input; null without a fresh reading."""
    reading = state.fresh_failed(now_ns) or state.fresh(now_ns)
    if reading is None or reading.waveform is None:
        return {"waveform": None}
    waveform = reading.waveform
    age_seconds = (now_ns - reading.end_ns) / SECOND_NS
    reference = None
    if waveform.reference is not None:
        reference = {"unit": waveform.reference_unit, "values": _rounded(waveform.reference)}
    return {
        "waveform": {
            "sequence": reading.sequence,
            "age_seconds": round(age_seconds, 3),
            "end_timestamp_seconds": round(unix_seconds - age_seconds, 3),
            "spacing_seconds": waveform.spacing_seconds,
            "current_amperes": {
                phase: _rounded(values) for phase, values in waveform.current_amperes.items()
            },
            "reference": reference,
        }
    }


def history_json(history: History, now_ns: int, unix_seconds: float) -> str:
    """The last 24 hours. Both arguments are the present time, `now_ns` on CLOCK_BOOTTIME.

    Not by `json`: it would keep the interpreter, and so the loop, until all is encoded.
    """
    age_seconds = (now_ns % MINUTE_NS + (KEPT_MINUTES - 1) * MINUTE_NS) / SECOND_NS
    currents = ", ".join(
        f'"{phase}": {{{", ".join(_column(*column) for column in columns.items())}}}'
        for phase, columns in history.columns(now_ns).items()
        if not all(map(isnan, columns["mean"]))
    )
    return (
        f'{{"start_timestamp_seconds": {unix_seconds - age_seconds:.3f},'
        f' "spacing_seconds": {MINUTE_NS // SECOND_NS}, "current_amperes": {{{currents}}}}}'
    )


def _column(name: str, values: Sequence[float]) -> str:
    # By the hour: all numbers at once would make the heap larger, for good.
    hours = (values[first : first + 60] for first in range(0, len(values), 60))
    numbers = (",".join(map(_number, hour)) for hour in hours)
    return f'"{name}": [{",".join(numbers)}]'


def _number(value: float) -> str:
    return "null" if isnan(value) else f"{value:.2f}"


def _rounded(values: Floats) -> list[float]:
    # Finer steps would not be visible and would make the body larger.
    return [round(value, 3) for value in cast("list[float]", values.tolist())]
