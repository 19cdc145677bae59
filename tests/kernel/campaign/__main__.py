# SPDX-License-Identifier: Apache-2.0
"""In the guest: make faults, and leave the evidence for the host to judge.

python3 -m campaign FILE FAULTS SEED [MUTANT]
"""

from __future__ import annotations

import platform
import sys
import time
from pathlib import Path

from installed.service import InstalledBoard

from .bench import Bench, Weather, set_up
from .faults import KINDS, Kind, take_most_memory
from .mutants import MUTANTS
from .record import save


def deck(bench: Bench, count: int) -> list[Kind]:
    """So many faults, each kind as often as any other, in random order."""
    major, minor = platform.release().split(".")[:2]
    known = [kind for kind in KINDS if kind.since <= (int(major), int(minor))]
    drawn: list[Kind] = []
    while len(drawn) < count:
        drawn += bench.random.sample(known, len(known))
    return drawn[:count]


def main(file: Path, count: int, seed: int, mutant: str | None) -> None:
    """See above."""
    hat, feeder = set_up(MUTANTS[mutant].apply if mutant else None)
    take_most_memory()
    with feeder, Weather(feeder, seed):
        InstalledBoard(hat, feeder).wait_until_measuring(seconds=60)
        bench = Bench(hat, feeder, seed)
        hat.line.set(True)
        time.sleep(3)
        for number, kind in enumerate(deck(bench, count), 1):
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
    save(file, bench.evidence())


if __name__ == "__main__":
    name, faults, first, *mutants = sys.argv[1:]
    main(Path(name), int(faults), int(first), mutants[0] if mutants else None)
