# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl calibrate`: reads the running daemon, and writes what its readings come to.

The daemon is asked, since it holds the ADC and goes on serving the charge point meanwhile. A
reading counts once, by its sequence number, and only if it began after we did.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from csp1d.config import Config
from csp1d.errors import DeviceError
from csp1d.exits import OK, USAGE
from csp1d.measuring.reading import PhaseCurrent
from csp1d.phase import Phase
from csp1d.tool.calibration import (
    LEAST_AMPERES,
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
_BEGUN_BEFORE = 1
"""Readings after the one that is there when we begin whose second had begun as well."""

_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 5.0

Load = tuple[Phase, float]
"""A phase, and what the reference shows for it."""

Currents = Mapping[Phase, tuple[PhaseCurrent, ...]]


def point(text: str) -> Load:
    """ "L1=10.02" as argparse wants it."""
    name, _, value = text.partition("=")
    try:
        phase, amperes = Phase(name.strip()), float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a phase and what the reference shows for it, such as L1=10.02"
        ) from None
    if not LEAST_AMPERES <= amperes < 1000:
        raise argparse.ArgumentTypeError(
            f"{text!r}: a gain needs a load of {LEAST_AMPERES:g} A or more (10 A is better)"
        )
    return phase, amperes


def zero(config: Config, path: Path, client: Client, phases: Sequence[Phase], yes: bool) -> int:
    """Take what the phases (none named: all) read now for their noise floor."""
    chosen = phases or list(config.channels.used())
    if not _known(config, chosen):
        return USAGE
    file = CalibrationFile(path, chosen)
    no_load = config.measurement.no_load_amperes
    measured = _measure(client, chosen)
    before = _corrections(config)
    after = _each(chosen, lambda phase: find_noise_floor(measured[phase], before[phase], no_load))
    print(f"{'':4}{'reads':>10}{'then':>10}{'noise floor':>26}")
    for phase in chosen:
        highest = max(current.uncorrected_rms_amperes for current in measured[phase])
        print(
            f"{phase:4}{before[phase].amperes(highest, no_load):8.2f} A"
            f"{after[phase].amperes(highest, no_load):8.2f} A"
            f"{before[phase].noise_floor_amperes:12.4f} A ->"
            f"{after[phase].noise_floor_amperes:8.4f} A"
        )
    # Without the gain: one that is set in another file would be overridden here.
    floors: Table = {
        phase: {"noise_floor_amperes": new.noise_floor_amperes} for phase, new in after.items()
    }
    return _write(file, floors, yes)


def gain(
    config: Config,
    path: Path,
    client: Client,
    loads: Sequence[Load],
    yes: bool,
) -> int:
    """Fit the gain to what a reference meter shows of a load, or of several that are asked for."""
    file = CalibrationFile(path, [phase for phase, _ in loads] or config.channels.used())
    before = _corrections(config)
    points: dict[Phase, list[Point]] = {}
    for load in [loads] if loads else _asked():
        if not _known(config, [phase for phase, _ in load]):
            if loads:
                return USAGE
            continue
        measured = _measure(client, [phase for phase, _ in load])
        taken = {phase: Point(amperes, measured[phase]) for phase, amperes in load}
        if not loads and not _told_good(taken, before):
            continue
        for phase, each in taken.items():
            points.setdefault(phase, []).append(each)
    if not points:
        print("csp1ctl: no reference was given; nothing is written", file=sys.stderr)
        return USAGE
    after = _each(points, lambda phase: find_gain(points[phase], before[phase]))
    print(f"{'':4}{'reference':>11}{'reads':>11}{'then':>11}{'gain':>21}")
    for phase, of_phase in points.items():
        for each in of_phase:
            print(
                f"{phase:4}{each.reference_amperes:9.2f} A"
                f"{before[phase].amperes(each.uncorrected_rms_amperes, 0):9.2f} A"
                f"{after[phase].amperes(each.uncorrected_rms_amperes, 0):9.2f} A"
                f"{before[phase].gain:11.4f} ->{after[phase].gain:7.4f}"
            )
    # The noise floor with it, which is in amperes, and so grows with the gain.
    return _write(file, {phase: asdict(new) for phase, new in after.items()}, yes)


def _asked() -> Iterator[Sequence[Load]]:
    """Loads that somebody types in, one after the other."""
    print(
        "Switch a steady load on and type what the reference meter shows, such as\n"
        "L1=10.02 L2=9.87. Then take another load, or press Enter alone to end.",
        file=sys.stderr,
    )
    while True:
        print("reference> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        words = line.split()
        if not words:
            if not line:
                # Nobody has pressed Enter.
                print(file=sys.stderr)
            return
        try:
            yield [point(word) for word in words]
        except argparse.ArgumentTypeError as error:
            print(error, file=sys.stderr)


def _told_good(taken: Mapping[Phase, Point], before: Mapping[Phase, Correction]) -> bool:
    """Whether each point would do alone; says what it comes to, while its load is still there."""
    try:
        alone = _each(taken, lambda phase: find_gain([taken[phase]], before[phase]))
    except RefusedError as error:
        print(error, file=sys.stderr)
        return False
    gains = ", ".join(f"{phase} {correction.gain:.4f}" for phase, correction in alone.items())
    print(f"gain: {gains}", file=sys.stderr)
    return True


def _known(config: Config, phases: Sequence[Phase]) -> bool:
    """Whether the phases are measured, and each is named once; says what is wrong."""
    used = config.channels.used()
    wrong = [
        f"{each} is not measured: channels.{each}.input is empty"
        for each in phases
        if each not in used
    ]
    wrong += [f"{each} is named twice" for each in Phase if phases.count(each) > 1]
    for words in wrong:
        print(f"csp1ctl: {words}", file=sys.stderr)
    return not wrong


def _corrections(config: Config) -> Mapping[Phase, Correction]:
    return {
        phase: Correction(channel.gain, channel.noise_floor_amperes)
        for phase, channel in config.channels.used().items()
    }


def _each(
    phases: Sequence[Phase] | Mapping[Phase, object], find: Callable[[Phase], Correction]
) -> Mapping[Phase, Correction]:
    """The correction of each phase. Raises RefusedError with all reasons: it is all or nothing."""
    found, reasons = {}, []
    for phase in phases:
        try:
            found[phase] = find(phase)
        except RefusedError as error:
            reasons.append(f"{phase}: {error}")
    if reasons:
        raise RefusedError("\n".join([*reasons, "nothing of it is taken over"]))
    return found


def _measure(client: Client, phases: Sequence[Phase]) -> Currents:
    """Successive readings. Raises DeviceError where there are none, or not of these phases."""
    taken: dict[Phase, list[PhaseCurrent]] = {phase: [] for phase in phases}
    count, first, last = -_BEGUN_BEFORE, None, 0
    heard_seconds = time.monotonic()
    with progress("Measuring", READINGS, "readings") as show:
        while count < READINGS:
            reading = client.status().reading
            if reading and first is None:
                first = last = reading.sequence
            elif reading and reading.sequence != last:
                if reading.sequence < last:
                    raise DeviceError(
                        "csp1d was reloaded or restarted meanwhile, or its ADC; calibrate again"
                    )
                heard_seconds, last, count = time.monotonic(), reading.sequence, count + 1
                for phase in phases if count > 0 else ():
                    if phase not in reading.phases:
                        raise DeviceError(
                            f"csp1d does not measure {phase}; reload it, if that was configured"
                        )
                    taken[phase].append(reading.phases[phase])
                show(count)
            if time.monotonic() - heard_seconds > _PATIENCE_SECONDS:
                raise DeviceError(
                    "csp1d answers, but makes no readings; see systemctl status csp1d"
                )
            time.sleep(_POLL_SECONDS)
    return {phase: tuple(currents) for phase, currents in taken.items()}


def _write(file: CalibrationFile, table: Table, yes: bool) -> int:
    if not yes:
        print(f"Write {file.path}? [y/N] ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
        if not answer:
            print("\ncsp1ctl: nobody answers; give --yes to write unasked", file=sys.stderr)
            return USAGE
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing is written.", file=sys.stderr)
            return OK
    file.write(table)
    print(f"{file.path} is written. It takes effect with: systemctl reload csp1d", file=sys.stderr)
    return OK
