# SPDX-License-Identifier: Apache-2.0
"""The state of a daemon: the content of /status.json, and the table that describes it.

The daemon writes it (`to_json`), csp1ctl reads it (`parse`). `csp1ctl status`, `csp1ctl watch` and
the page show the same table (`rows`).
"""

import json
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from csp1d.errors import printable
from csp1d.loading import Loader, key, within
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
class Problem:
    """A fault that lasts."""

    event: str
    """CSP1D_EVENT of the journal."""
    device: str
    """The device, phase or part concerned."""
    reason: str
    """The message in the journal: reason and remedy."""
    chapter: str
    """The anchor in docs/troubleshoot.md."""
    since: float = key(within(-1e10, 1e11))
    """Unix time of its beginning, in seconds."""


@dataclass(frozen=True)
class Status:
    """The state of a daemon at one moment; None where a value is unknown."""

    version: str
    site: str
    main_fuse_amperes: float | None
    serial: str
    equipment_id: str
    profile: str
    problems: tuple[Problem, ...]
    """The most important first."""
    adc_up: bool
    p1_up: bool
    p1_requested: bool | None
    """Whether the request line is high or was within 10 s; None: it is not available."""
    reading: LiveReading | None
    failed_phases: tuple[Phase, ...]
    """Phases with a failed input; if there are any, there is no reading."""
    scans_lost_total: int
    telegrams: PortCounts
    leds_ms_per_second: Mapping[str, int | None]
    """By role: how long the LED is lit per second; None: it is not available."""
    last_telegram: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    text: str
    good: bool = True
    """False while there is a problem with it."""


_ROWS = {
    "scans-lost": "scans lost",
    "readings-lost": "scans lost",
    "telegram-dropped": "telegrams",
    "telegrams-aborted": "telegrams",
    "led-lost": "LEDs",
    "led-trigger-lost": "LEDs",
}
"""The row that shows an event, if it is not that of its device."""


def to_json(status: Status) -> bytes:
    """The body of /status.json."""
    line = headline([problem.reason for problem in status.problems], status.reading is not None)
    table = {"headline": line, **asdict(status), "rows": [asdict(row) for row in rows(status)]}
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
    if status.site:
        lines.insert(0, status.site)
    for row in rows(status):
        lines += textwrap.wrap(
            row.text, 80, initial_indent=f"{row.name:<14}", subsequent_indent=" " * 14
        )
    if status.problems:
        places = "sudo journalctl -x -u csp1d and /usr/share/doc/csp1d"
        lines += ["", f"Problems (explained by {places}):"]
    for problem in status.problems:
        lines += textwrap.wrap(problem.reason, 80, initial_indent="- ", subsequent_indent="  ")
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(problem.since))
        lines += [f"  since {since}; see troubleshoot.md#{problem.chapter}"]
    return "\n".join(lines) + "\n"


def headline(reasons: Sequence[str], is_measuring: bool) -> str:
    """The state in one line: the first of the problems' reasons, or "Measuring, no problems"."""
    if not reasons:
        return "Measuring, no problems" if is_measuring else "Waiting for a reading"
    reason, others = reasons[0], len(reasons) - 1
    more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
    return f"{reason[:1].upper()}{reason[1:]}{more}"


def rows(status: Status) -> list[Row]:
    """The table: first the reading, then devices and counters."""
    found = [*_reading_rows(status), *_device_rows(status)]
    bad = {_ROWS.get(problem.event, problem.device) for problem in status.problems}
    return [replace(row, good=row.good and row.name not in bad) for row in found]


def _reading_rows(status: Status) -> Iterator[Row]:
    for phase in status.failed_phases:
        yield Row(phase, "input failed: current unknown, no telegrams", good=False)
    reading = status.reading
    if reading is None:
        yield Row("reading", "no current reading, no telegrams", good=False)
        return
    direction = reading.direction
    for phase, current in reading.phases.items():
        text = f"{current.rms_amperes:7.2f} A, peak {current.peak_amperes:6.1f} A"
        if direction and phase in direction.exporting:
            text += ", exporting"
        if current.clipped_samples:
            text += ", overload: the reading is too low"
        yield Row(phase, text, not current.clipped_samples)
    hertz = reading.frequency_hertz
    yield Row("mains", "frequency unknown" if hertz is None else f"{hertz:7.3f} Hz")
    if direction and direction.reference_fault:
        text = f"unknown, counted as import: {direction.reference_fault}"
        yield Row("direction", text, good=False)
    if direction and direction.wiring_advice:
        yield Row("wiring", direction.wiring_advice)
    yield Row(
        "reading",
        f"number {reading.sequence}, {reading.age_seconds:.1f} s old, {reading.scans} scans",
    )


def _device_rows(status: Status) -> Iterator[Row]:
    counts = status.telegrams
    yield Row("scans lost", str(status.scans_lost_total))
    yield _device("ADC", "OK" if status.adc_up else None, "not found or not delivering data")
    yield _device("P1 port", "open" if status.p1_up else None)
    requests: dict[bool | None, str] = {
        True: "requesting telegrams",
        False: "no request in the last 10 s",
    }
    yield _device("request line", requests.get(status.p1_requested))
    yield Row(
        "telegrams",
        f"{counts.sent} sent, {counts.aborted} aborted, {counts.dropped} dropped; "
        f"requests: {counts.requests}",
    )
    shown: dict[int | None, str] = {None: "not available", 0: "off", 1000: "on"}
    lights = status.leds_ms_per_second.items()
    texts = (f"{role} {shown.get(ms, f'{ms} ms per second')}" for role, ms in lights)
    yield Row("LEDs", ", ".join(texts))


def _device(name: str, text: str | None, missing: str = "not available") -> Row:
    return Row(name, text or missing, good=bool(text))
