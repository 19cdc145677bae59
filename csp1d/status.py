# SPDX-License-Identifier: Apache-2.0
"""The state of a daemon: the content of /status.json, and the table that describes it.

The daemon writes it (`to_json`), csp1ctl reads it (`parse`). `csp1ctl status`, `csp1ctl watch` and
the page show the same table (`rows`).
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from csp1d.errors import printable
from csp1d.loading import Loader
from csp1d.measuring.reading import DirectionReading, PhaseCurrent
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase


@dataclass(frozen=True)
class LiveReading:
    """The last reading, while it is fresh."""

    sequence: int
    """Starts again at 1 whenever the ADC is set up."""
    age_seconds: float
    window_seconds: float
    frequency_hertz: float | None
    scans: int
    lost_scans: int
    phases: Mapping[Phase, PhaseCurrent]
    direction: DirectionReading | None = None


@dataclass(frozen=True)
class Status:
    """The state of a daemon at one moment; None where a value is unknown."""

    version: str
    adc_up: bool
    p1_up: bool
    p1_request: bool | None
    """None: the request line is not available."""
    reading: LiveReading | None
    failed_phases: tuple[Phase, ...]
    """Phases with a failed input; if there are any, there is no reading."""
    scans_lost_total: int
    telegrams: PortCounts
    leds: Mapping[str, bool | None]
    """By role: lit, dark, or not available."""
    last_telegram: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    text: str
    good: bool = True
    fault: str = ""
    """The present fault, for a headline: short, and constant while the fault lasts."""


def to_json(status: Status) -> bytes:
    """The body of /status.json."""
    table = {**asdict(status), "rows": [asdict(row) for row in rows(status)]}
    # The set of exporting phases is the only value that is not a JSON type.
    return json.dumps(table, default=sorted).encode()


def parse(body: bytes) -> Status:
    """Read the body of /status.json. Raises ValueError if it is not one of this version."""
    loader = Loader()
    try:
        document = _printable(json.loads(body))
        status = loader.build(Status, document)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not the status of this version of csp1d ({error})") from error
    if status is None:
        problem = ": ".join(part for part in loader.problems[0] if part)
        raise ValueError(f"not the status of this version of csp1d ({problem})")
    return status


def _printable(value: Any) -> Any:
    """The same without control characters, except in the telegram, which is for no terminal."""
    match value:
        case str():
            return printable(value)
        case list():
            return [_printable(entry) for entry in value]
        case dict():
            return {
                printable(name): entry if name == "last_telegram" else _printable(entry)
                for name, entry in value.items()
            }
    return value


def status_text(status: Status, place: str) -> str:
    """The table as lines of at most 80 columns; `place` is where the daemon was asked."""
    lines = [f"csp1d {status.version} at {place}", ""]
    for row in rows(status):
        lines += textwrap.wrap(
            row.text, 80, initial_indent=f"{row.name:<14}", subsequent_indent=" " * 14
        )
    if faults(status):
        lines += ["", "Causes and remedies:", "  sudo journalctl -x -u csp1d"]
    return "\n".join(lines) + "\n"


def faults(status: Status) -> list[str]:
    """The present faults in a few words each; empty if there are none."""
    return [row.fault for row in rows(status) if row.fault]


def rows(status: Status) -> list[Row]:
    """The table: first the reading, then devices and counters."""
    return [*_reading_rows(status), *_device_rows(status)]


def _reading_rows(status: Status) -> Iterator[Row]:
    for phase in status.failed_phases:
        text = "input failed: current unknown, no telegrams; check its wiring"
        yield Row(phase, text, good=False, fault=f"input of {phase} failed")
    reading = status.reading
    if reading is None:
        is_consequence = status.failed_phases or not status.adc_up
        fault = "" if is_consequence else "no current reading"
        yield Row("reading", "no current reading, no telegrams", good=False, fault=fault)
        return
    direction = reading.direction
    for phase, current in reading.phases.items():
        text = f"{current.rms_amperes:7.2f} A, peak {current.peak_amperes:6.1f} A"
        if direction and phase in direction.exporting:
            text += ", exporting"
        if current.clipped_samples:
            text += ", overload: the reading is too low"
        overload = f"{phase} overload" if current.clipped_samples else ""
        yield Row(phase, text, not overload, overload)
    hertz = reading.frequency_hertz
    yield Row("mains", "frequency unknown" if hertz is None else f"{hertz:7.3f} Hz")
    if direction and direction.reference_fault:
        text = f"unknown, counted as import: {direction.reference_fault}"
        yield Row("direction", text, good=False, fault="direction unknown")
    if direction and direction.wiring_advice:
        # Not a fault: a phase may export alone.
        yield Row("wiring", direction.wiring_advice)
    yield Row(
        "reading",
        f"number {reading.sequence}, {reading.age_seconds:.1f} s old, {reading.scans} scans",
    )


def _device_rows(status: Status) -> Iterator[Row]:
    counts = status.telegrams
    yield Row("scans lost", str(status.scans_lost_total), not status.scans_lost_total)
    yield _device("ADC", "OK" if status.adc_up else None, "not found or not delivering data")
    yield _device("P1 port", "open" if status.p1_up else None)
    levels: dict[bool | None, str] = {True: "high: requesting telegrams", False: "low: no request"}
    yield _device("request line", levels.get(status.p1_request))
    yield Row(
        "telegrams",
        f"{counts.sent} sent, {counts.aborted} aborted, {counts.dropped} dropped; "
        f"requests: {counts.requests}",
        not counts.dropped,
    )
    shown = {None: "not available", True: "on", False: "off"}
    yield Row("LEDs", ", ".join(f"{role} {shown[lit]}" for role, lit in status.leds.items()))


def _device(name: str, text: str | None, missing: str = "not available") -> Row:
    return Row(name, text) if text else Row(name, missing, good=False, fault=f"{name} {missing}")
