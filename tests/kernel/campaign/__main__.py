# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: injects faults and records the evidence for the judge on the host.

    python3 -m campaign DIRECTORY FAULTS SEED [MUTANT]

It runs as root, beside the service.
"""

from __future__ import annotations

import contextlib
import platform
import sys
import time
from collections.abc import Collection
from pathlib import Path

from installed.service import InstalledBoard, cursor, events

from .bench import Bench, Weather, set_up
from .faults import KINDS, Kind, take_most_memory
from .mutants import MUTANTS, Mutant

UNEXPLAINED = {"adc-clock", "internal-error"}


def deck(bench: Bench, count: int, names: Collection[str]) -> list[Kind]:
    """This number of faults, evenly spread over these kinds, in random order."""
    major, minor = platform.release().split(".")[:2]
    known = [
        kind for kind in KINDS if kind.name in names and kind.since <= (int(major), int(minor))
    ]
    drawn: list[Kind] = []
    while len(drawn) < count:
        drawn += bench.random.sample(known, len(known))
    return drawn[:count]


def main(directory: Path, count: int, seed: int, mutant: Mutant | None) -> None:
    """See above."""
    with mutant.applied() if mutant else contextlib.nullcontext():
        names = mutant.kinds if mutant else [kind.name for kind in KINDS]
        campaign(directory, count, seed, names)


def campaign(directory: Path, count: int, seed: int, names: Collection[str]) -> None:
    """Inject this number of faults of these kinds, and record their effects."""
    with set_up() as (hat, feeder), feeder, Weather(feeder, seed):
        take_most_memory()
        InstalledBoard(hat, feeder).wait_until_measuring(seconds=60)
        bench = Bench(hat, feeder, seed, directory)
        before = cursor()
        hat.line.set(True)
        time.sleep(3)
        for number, kind in enumerate(deck(bench, count, names), 1):
            fault = kind.make(bench)
            bench.faults.append(fault)
            back = bench.wait_for_start(fault.end_ns, fault.recovery_seconds + 2)
            print(
                f"{number:>4} {kind.name}, {(fault.end_ns - fault.begin_ns) / 1e9:.2f} s"
                + ("" if back else ": nothing came after it"),
                flush=True,
            )
            bench.sleep(0.3, 1)
            bench.collect()
        hat.line.set(False)
        time.sleep(1.5)
        bench.collect()
        for event in UNEXPLAINED & set(events(before)):
            bench.record.problem(f"the journal reports {event}, which no fault explains")


if __name__ == "__main__":
    name, faults, first, *mutants = sys.argv[1:]
    main(Path(name), int(faults), int(first), MUTANTS[mutants[0]] if mutants else None)
