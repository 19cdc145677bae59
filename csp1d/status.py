# SPDX-License-Identifier: Apache-2.0
"""The state of a running daemon as /status.json tells it (`pages.status_json`), and in words."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from csp1d.measuring.reading import PhaseCurrent
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase

REQUEST_WORDS = {
    None: "not there",
    True: "high: the charge point asks",
    False: "low: nobody asks",
}


@dataclass(frozen=True)
class LiveReading:
    """The reading that was fresh when the daemon was asked."""

    sequence: int
    """Of the daemon's metering: it begins at 1 again when the ADC is set up anew."""
    age_seconds: float
    frequency_hertz: float | None
    scans: int
    phases: Mapping[Phase, PhaseCurrent]
    exporting: frozenset[Phase] = frozenset()


@dataclass(frozen=True)
class Status:
    """What the daemon told of itself; None is what it does not know."""

    version: str
    adc_up: bool
    p1_up: bool
    p1_request: bool | None
    reading: LiveReading | None
    failed_phases: tuple[Phase, ...]
    """Whose input has failed: there is no reading then."""
    scans_lost_total: int
    telegrams: PortCounts
    leds: Mapping[str, bool | None]
    """By role: lit, dark, or not there."""


def parse(body: bytes) -> Status:
    """The state of a reply's body. Raises ValueError where the body is not one of this version."""
    try:
        table = json.loads(body)
        return Status(
            version=table["version"],
            adc_up=table["adc_up"],
            p1_up=table["p1_up"],
            p1_request=table["p1_request"],
            reading=_reading(table["reading"]) if table["reading"] else None,
            failed_phases=tuple(map(Phase, table["failed_phases"])),
            scans_lost_total=table["scans_lost_total"],
            telegrams=PortCounts(**table["telegrams"]),
            leds=dict(table["leds"]),
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"not the state of a csp1d of this version ({error!r})") from error


def _reading(table: Mapping[str, Any]) -> LiveReading:
    names = [spec.name for spec in fields(PhaseCurrent)]
    return LiveReading(
        sequence=table["sequence"],
        age_seconds=table["age_seconds"],
        frequency_hertz=table["frequency_hertz"],
        scans=table["scans"],
        phases={
            Phase(phase): PhaseCurrent(**{name: current[name] for name in names})
            for phase, current in table["phases"].items()
        },
        exporting=frozenset(map(Phase, (table["direction"] or {"exporting": ()})["exporting"])),
    )


def words(status: Status, url: str) -> str:
    """The state for a reader, in lines of at most 80 columns."""
    rows = [*_currents(status), *_devices(status)]
    lines = [f"csp1d {status.version} at {url}", ""]
    lines += [f"{name:<14}{text}" for name, text in rows]
    if not (status.reading and status.p1_up) or status.p1_request is None:
        lines += [
            "",
            "Why something does not work, and how to mend it:",
            "  sudo journalctl -x -u csp1d",
        ]
    return "\n".join(lines) + "\n"


def no_reading_words(status: Status) -> str:
    """Why the currents are not known."""
    if status.failed_phases:
        return f"the input of {' and '.join(status.failed_phases)} has failed"
    return "no fresh reading"


def _currents(status: Status) -> Iterator[tuple[str, str]]:
    reading = status.reading
    if reading is None:
        yield "currents", f"not known: {no_reading_words(status)}"
        return
    for phase, current in reading.phases.items():
        exports = "  exports" if phase in reading.exporting else ""
        clips = "  clips, so it reads too low" if current.clipped_samples else ""
        yield (
            phase,
            f"{current.rms_amperes:7.2f} A   peak {current.peak_amperes:6.1f} A{exports}{clips}",
        )
    yield "mains", frequency_words(reading.frequency_hertz)
    yield (
        "reading",
        f"number {reading.sequence}, {reading.age_seconds:.1f} s old, of {reading.scans} scans",
    )


def frequency_words(frequency_hertz: float | None) -> str:
    """As it stands below the currents."""
    if frequency_hertz is None:
        return "no frequency: no current is steady enough"
    return f"{frequency_hertz:7.3f} Hz"


def _devices(status: Status) -> Iterator[tuple[str, str]]:
    counts = status.telegrams
    yield "scans lost", str(status.scans_lost_total)
    yield "ADC", "works" if status.adc_up else "missing or silent"
    yield "P1 port", "open" if status.p1_up else "missing"
    yield "request line", REQUEST_WORDS[status.p1_request]
    yield (
        "telegrams",
        f"{counts.sent} sent, {counts.aborted} aborted, {counts.dropped} dropped; "
        f"requests: {counts.requests}",
    )
    yield "LEDs", led_words(status.leds)


def led_words(leds: Mapping[str, bool | None]) -> str:
    """Each lamp by its role."""
    shown = {None: "not there", True: "on", False: "off"}
    return ", ".join(f"{role} {shown[lit]}" for role, lit in leds.items())
