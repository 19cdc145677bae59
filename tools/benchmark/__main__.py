# SPDX-License-Identifier: Apache-2.0
"""The command line of `tools/bench`."""

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from figures import build, write_section

from benchmark import chain, daemon, latency
from benchmark.process import ROOT
from benchmark.report import markdown
from benchmark.rivals import MissingError

PAGE = ROOT / "docs" / "performance.md"
PARTS = {
    "a": "the metering chain, beside what else would do its work",
    "b": "the daemon: CPU, wake-ups, memory, start",
    "c": "latency to the first byte of a telegram",
    "d": "what a scrape costs",
    "e": "the highest rate without loss, through a pipe",
}
_PRIORITY = 10


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    cpu = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "build": build(),
        "processor": cpu[1] if cpu else platform.machine(),
        "processors": f"{os.cpu_count()} processors",
        "python": f"Python {platform.python_version()}",
        "numpy": f"NumPy {np.__version__}",
    }


def measure(parts: str, seconds: int, real_time: bool) -> dict[str, Any]:
    """Measure these parts."""
    figures: dict[str, Any] = {"machine": machine()}
    if "a" in parts:
        figures["chain"] = chain.measure(_tell)
    if "e" in parts:
        _tell("through a pipe")
        figures["pipe"] = chain.pipe()
    if real_time:
        # Processes started from here inherit it.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
        figures["machine"]["priority"] = "(b) to (d) at real-time priority"
    if "b" in parts or "d" in parts:
        found = daemon.measure(_tell, seconds if "b" in parts else 0, "d" in parts)
        figures["scrape"] = found["scrape"]
        if "b" in parts:
            figures["daemon"] = found["daemon"]
    if "c" in parts:
        figures["latency"] = latency.measure(_tell, latency.SECONDS)
    return figures


def _tell(words: str) -> None:
    print(f"tools/bench: {words}", file=sys.stderr, flush=True)


def main() -> int:
    parts_help = "; ".join(f"{part}: {what}" for part, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="tools/bench", description="Measure what csp1d costs, and print tables in Markdown."
    )
    parser.add_argument("parts", metavar="PART", nargs="*", help=f"default all; {parts_help}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="all figures, into this file")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    parser.add_argument(
        "--seconds", type=int, default=daemon.SECONDS, help="of (b); default %(default)s"
    )
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="run the daemons and their readers at real-time priority (b, c, d), so that what "
        "else the machine does is left out; needs root",
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {min(unknown)}; there are {', '.join(PARTS)}")
    try:
        figures = measure("".join(arguments.parts or PARTS), arguments.seconds, arguments.real_time)
    except MissingError as error:
        _tell(str(error))
        return 1
    tables = markdown(figures)
    print(tables)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.write:
        write_section(PAGE, "figures", f"{tables}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
