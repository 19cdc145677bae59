# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl calibrate`: from readings of the running daemon to a drop-in with noise floors or gains.

The daemon keeps the ADC and keeps serving the charge point meanwhile. Each reading is used once,
by its sequence number, and only if its window began after the calibration did.

Root writes the drop-in, and may let the daemon reload. Another user gets its lines to save as root.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TextIO

from csp1d.config import Config
from csp1d.config_file import DEFAULT_PATH
from csp1d.errors import ConfigError, DeviceError, Problem
from csp1d.exits import OK, PROBLEM, USAGE
from csp1d.measuring.reading import PhaseCurrent
from csp1d.phase import Phase
from csp1d.status import LiveReading
from csp1d.tool.calibration import (
    MIN_LOAD_AMPERES,
    Correction,
    Point,
    RefusedError,
    find_gain,
    find_noise_floor,
)
from csp1d.tool.calibration_file import CalibrationFile, Table
from csp1d.tool.client import Client
from csp1d.tool.progress import progress

READINGS = 10
_STALE_READINGS = 2
"""Readings whose windows began before the calibration: the present one and the next."""

_POLL_SECONDS = 0.25
_TIMEOUT_SECONDS = 5.0

Load = tuple[Phase, float]
"""A phase and the reading of the reference meter for it, in amperes."""


def run(config: Config, arguments: argparse.Namespace) -> int:
    client = Client(config.http)
    if arguments.kind == "zero":
        return zero(config, arguments.config, client, arguments.phases, arguments.yes)
    return gain(config, arguments.config, client, arguments.points, arguments.yes)


def parse_point(text: str) -> Load:
    """Parse a POINT such as "L1=10.02", as a type of arguments for argparse."""
    name, _, value = text.partition("=")
    try:
        phase, amperes = Phase(name.strip()), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be a phase and its reference reading, such as L1=10.02, got {text!r}"
        ) from None
    if not MIN_LOAD_AMPERES <= amperes < 1000:
        raise argparse.ArgumentTypeError(
            f"must be between {MIN_LOAD_AMPERES:g} and 1000 A (10 A or more is better), "
            f"got {text!r}"
        )
    return phase, amperes


def zero(config: Config, path: Path, client: Client, phases: Sequence[Phase], yes: bool) -> int:
    """Set the noise floor of the phases (none given: all) from their present readings."""
    chosen = phases or list(config.channels.used())
    if not _are_measured(config, chosen):
        return USAGE
    file = _file(path, chosen, yes)
    no_load = config.measurement.no_load_amperes
    measured = _measure(client, chosen)
    before = _corrections(config)
    after = _find(chosen, lambda phase: find_noise_floor(measured[phase], before[phase], no_load))
    output = _table_output(file)
    print(f"{'':4}{'before':>10}{'after':>10}{'noise floor':>26}", file=output)
    for phase in chosen:
        highest = max(current.uncorrected_rms_amperes for current in measured[phase])
        print(
            f"{phase:4}{before[phase].amperes(highest, no_load):8.2f} A"
            f"{after[phase].amperes(highest, no_load):8.2f} A"
            f"{before[phase].noise_floor_amperes:12.4f} A ->"
            f"{after[phase].noise_floor_amperes:8.4f} A",
            file=output,
        )
    # Without the gain, which another file may set and this one would override.
    floors: Table = {
        phase: {"noise_floor_amperes": new.noise_floor_amperes} for phase, new in after.items()
    }
    return _write(file, floors, path, yes)


def gain(config: Config, path: Path, client: Client, loads: Sequence[Load], yes: bool) -> int:
    """Fit the gain to readings of a reference meter: `loads`, or several that the user types."""
    file = _file(path, [phase for phase, _ in loads] or config.channels.used(), yes)
    before = _corrections(config)
    points: dict[Phase, list[Point]] = {}
    for load in [loads] if loads else _prompted_loads():
        if not _are_measured(config, [phase for phase, _ in load]):
            if loads:
                return USAGE
            continue
        measured = _measure(client, [phase for phase, _ in load])
        new = {phase: Point(amperes, measured[phase]) for phase, amperes in load}
        if not loads and not _is_usable(new, before):
            continue
        for phase, point in new.items():
            points.setdefault(phase, []).append(point)
    if not points:
        print("csp1ctl: no reference reading given; no changes written", file=sys.stderr)
        return USAGE
    after = _find(points, lambda phase: find_gain(points[phase], before[phase]))
    output = _table_output(file)
    print(f"{'':4}{'reference':>11}{'before':>11}{'after':>11}{'gain':>21}", file=output)
    for phase, taken in points.items():
        for point in taken:
            print(
                f"{phase:4}{point.reference_amperes:9.2f} A"
                f"{before[phase].amperes(point.uncorrected_rms_amperes, 0):9.2f} A"
                f"{after[phase].amperes(point.uncorrected_rms_amperes, 0):9.2f} A"
                f"{before[phase].gain:11.4f} ->{after[phase].gain:7.4f}",
                file=output,
            )
    # With the noise floor, which is in amperes and so grows with the gain.
    return _write(file, {phase: asdict(new) for phase, new in after.items()}, path, yes)


def _prompted_loads() -> Iterator[Sequence[Load]]:
    """Loads that the user types, one line each, until an empty line."""
    print(
        "Switch on a steady load and type the reading of the reference meter, such as\n"
        "L1=10.02 L2=9.87. Repeat with other loads; an empty line ends the input.",
        file=sys.stderr,
    )
    while True:
        print("reference> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line.strip():
            if not line:
                print(file=sys.stderr)  # End of file: the prompt is still on this line.
            return
        try:
            yield [parse_point(text) for text in line.split()]
        except argparse.ArgumentTypeError as error:
            print(error, file=sys.stderr)


def _is_usable(points: Mapping[Phase, Point], before: Mapping[Phase, Correction]) -> bool:
    """Whether each point alone gives a gain; prints it or the reason while the load is still on."""
    try:
        alone = _find(points, lambda phase: find_gain([points[phase]], before[phase]))
    except RefusedError as error:
        print(error, file=sys.stderr)
        return False
    gains = ", ".join(f"{phase} {correction.gain:.4f}" for phase, correction in alone.items())
    print(f"gain: {gains}", file=sys.stderr)
    return True


def _are_measured(config: Config, phases: Sequence[Phase]) -> bool:
    """Whether the phases are configured, and given once each; prints what is wrong."""
    used = config.channels.used()
    missing = [phase for phase in phases if phase not in used]
    wrong = [f"{phase} is not measured: channels.{phase}.input is empty" for phase in missing]
    wrong += [f"{phase} is given twice" for phase in Phase if phases.count(phase) > 1]
    for reason in wrong:
        print(f"csp1ctl: {reason}", file=sys.stderr)
    return not wrong


def _corrections(config: Config) -> Mapping[Phase, Correction]:
    return {
        phase: Correction(channel.gain, channel.noise_floor_amperes)
        for phase, channel in config.channels.used().items()
    }


def _find(
    phases: Iterable[Phase], find: Callable[[Phase], Correction]
) -> Mapping[Phase, Correction]:
    """The correction of each phase. Raises RefusedError with all reasons if any phase has none."""
    found, reasons = {}, []
    for phase in phases:
        try:
            found[phase] = find(phase)
        except RefusedError as error:
            reasons.append(f"{phase}: {error}")
    if reasons:
        raise RefusedError("\n".join([*reasons, "no changes written"]))
    return found


def _measure(client: Client, phases: Sequence[Phase]) -> Mapping[Phase, tuple[PhaseCurrent, ...]]:
    """Ten successive readings. Raises DeviceError if there are none, or none of these phases."""
    currents: dict[Phase, list[PhaseCurrent]] = {phase: [] for phase in phases}
    readings = islice(_new_readings(client), _STALE_READINGS, _STALE_READINGS + READINGS)
    with progress("Measuring", READINGS, "readings") as show:
        for count, reading in enumerate(readings, 1):
            for phase in phases:
                if phase not in reading.phases:
                    raise DeviceError(
                        f"csp1d does not measure {phase}; if it is configured, reload csp1d"
                    )
                currents[phase].append(reading.phases[phase])
            show(count)
    return {phase: tuple(values) for phase, values in currents.items()}


def _new_readings(client: Client) -> Iterator[LiveReading]:
    """Each reading once. Raises DeviceError if csp1d restarts or stops measuring."""
    last, last_seconds = 0, time.monotonic()
    while True:
        reading = client.status().reading
        if reading and reading.sequence != last:
            if reading.sequence < last:
                raise DeviceError(
                    "csp1d or its ADC restarted during the measurement; calibrate again"
                )
            last, last_seconds = reading.sequence, time.monotonic()
            yield reading
        if time.monotonic() - last_seconds > _TIMEOUT_SECONDS:
            raise DeviceError("csp1d delivers no readings; see systemctl status csp1d")
        time.sleep(_POLL_SECONDS)


def _file(path: Path, phases: Iterable[Phase], yes: bool) -> CalibrationFile:
    """The drop-in. Reports at once that only root may write it; with --yes, as a ConfigError."""
    file = CalibrationFile(path, phases)
    if file.denied and yes:
        raise ConfigError([Problem(file.path, "", file.denied)])
    if file.denied:
        print(
            f"csp1ctl: {file.path} {file.denied}, or save what standard output gets as root",
            file=sys.stderr,
        )
    return file


def _table_output(file: CalibrationFile) -> TextIO:
    """Standard output, unless that gets the content of the drop-in."""
    return sys.stderr if file.denied else sys.stdout


def _write(file: CalibrationFile, table: Table, path: Path, yes: bool) -> int:
    """Write the drop-in of the configuration `path` after a question, and offer the reload."""
    if file.denied:
        print(file.content(table), end="")
        return OK
    if not yes:
        answer = _answer(f"Write {file.path}?")
        if answer is None:
            print("csp1ctl: no answer; use --yes to write without confirmation", file=sys.stderr)
            return USAGE
        if not answer:
            print("No changes written.", file=sys.stderr)
            return OK
    file.write(table)
    if path != DEFAULT_PATH:
        print(f"Wrote {file.path}. It applies when csp1d reloads {path}.", file=sys.stderr)
        return OK
    reload = ["systemctl", "reload", "csp1d"]
    print(f"Wrote {file.path}. Apply it with: sudo {' '.join(reload)}", file=sys.stderr)
    if yes or os.geteuid() != 0 or not _answer("Reload csp1d now?"):
        return OK
    if code := os.spawnvp(os.P_WAIT, reload[0], reload):
        print(f"csp1ctl: {' '.join(reload)} failed with {code}", file=sys.stderr)
    return PROBLEM if code else OK


def _answer(question: str) -> bool | None:
    """Whether the user agrees; None without an answer."""
    # The table comes first in a pipe, too.
    sys.stdout.flush()
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        print(file=sys.stderr)  # End of file: the question is still on this line.
        return None
    return answer.strip().lower() in ("y", "yes")
