# SPDX-License-Identifier: Apache-2.0
"""In the guest: an hour of the installed service without a fault, its memory and descriptors.

    python3 -m campaign.soak DIRECTORY MINUTES

The currents change, the line stays high, and a page and Prometheus are served all the time.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from guest.board import sleep_until
from installed.service import InstalledBoard

from .bench import Bench, Weather, nice, set_up
from .faults import CLIENTS

SEED = 1
SAMPLE_SECONDS = 30
SETTLED_SECONDS = 5400


def main(directory: Path, minutes: float) -> None:
    """See above."""
    with set_up() as (hat, feeder), feeder, Weather(feeder, SEED):
        InstalledBoard(hat, feeder).wait_until_measuring(seconds=60)
        page = (sys.executable, "-E", "-S", str(CLIENTS))
        # Until then, the allocator still finds its final size.
        settled = nice(*page, "hurry", str(SETTLED_SECONDS)).wait() == 0
        bench = Bench(hat, feeder, SEED, directory)
        hat.line.set(True)
        client = nice(*page, "page", str(minutes * 60))
        samples = []
        before = bench.service.metrics()
        for number in range(round(minutes * 60 / SAMPLE_SECONDS) + 1):
            sleep_until(bench.start_ns + number * SAMPLE_SECONDS * 1_000_000_000)
            process = Path(f"/proc/{bench.pid}")
            pages = int((process / "statm").read_text().split()[1])
            descriptors = len(list((process / "fd").iterdir()))
            hours = (time.monotonic_ns() - bench.start_ns) / 3.6e12
            samples.append((hours, pages * os.sysconf("SC_PAGE_SIZE"), descriptors))
            print(f"{hours:.3f} h: {samples[-1][1]} bytes, {descriptors} descriptors", flush=True)
            bench.collect()
        after = bench.service.metrics()
        if client.wait() or not settled:
            bench.record.problem("the page or the metrics had no answer")
        hat.line.set(False)
        time.sleep(1.5)
        bench.collect()
    grew = {name: after[name] - value for name, value in before.items() if name.endswith("_total")}
    (directory / "soak.json").write_text(json.dumps({"samples": samples, "grew": grew}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
