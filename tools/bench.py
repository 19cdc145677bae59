# SPDX-License-Identifier: Apache-2.0
"""What csp1d costs, in one run: the metering chain beside what else could do its work, the daemon
on the virtual HAT, its latencies, its scrapes, and the highest rate through a pipe.

Times of one run can be compared with each other, not with those of another machine or day.
"""

import argparse
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import bench_daemon  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
_BETWEEN = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
PARTS = ("chain", "daemon", "latency", "pipe")
DAEMON_SECONDS = 60
LATENCY_SECONDS = 120

Figures = dict[str, Any]


def measure(parts: Sequence[str]) -> Figures:
    """The figures of these parts, as JSON has them."""
    # Late, since only this needs what it compares csp1d with.
    import bench_chain

    figures: Figures = {"machine": machine()}
    if "chain" in parts:
        rows = []
        for type_name, rate, costs in bench_chain.chain():
            print(f"{type_name} at {rate} scans a second: done", file=sys.stderr)
            rows.append(
                {"type": bench_chain.TYPES[type_name], "rate": rate, "nanoseconds_a_scan": costs}
            )
        figures["chain"] = rows
    if "daemon" in parts:
        start = bench_daemon.start_times()
        figures["daemon"] = vars(start) | vars(bench_daemon.costs(DAEMON_SECONDS))
    if "latency" in parts:
        found = bench_daemon.latencies(LATENCY_SECONDS)
        figures["latency"] = {
            "synthesis_ms_a_second": found.synthesis_ms_a_second,
            **{
                name: {
                    "count": len(values),
                    "median_ms": bench_daemon.quantile(values, 0.5),
                    "p99_ms": bench_daemon.quantile(values, 0.99),
                }
                for name, values in (
                    ("after_reading", found.after_reading),
                    ("after_request", found.after_request),
                )
            },
        }
    if "pipe" in parts:
        figures["pipe_scans_a_second"] = bench_chain.pipe_scans_a_second()
    return figures


def machine() -> str:
    """In words, what this ran on."""
    import numpy as np

    model = re.search(r"(?m)^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text())
    words = model[1] if model else platform.machine()
    return f"{words}, Python {platform.python_version()}, NumPy {np.__version__}"


def markdown(figures: Figures) -> Iterator[str]:
    """The tables."""
    yield f"On {figures['machine']}."
    yield ""
    if "chain" in figures:
        yield from _chain(figures["chain"])
    rows = list(_daemon(figures))
    if rows:
        yield "| the daemon at 4000 scans a second | |"
        yield "|---|---|"
        yield from rows
        yield ""


def _chain(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(rows[0]["nanoseconds_a_scan"])
    yield "Nanoseconds a scan of three channels and a stamp:"
    yield ""
    yield f"| scans | a second | {' | '.join(names)} |"
    yield "|---|---" + "|---" * len(names) + "|"
    for row in rows:
        costs = row["nanoseconds_a_scan"]
        cells = (f"{costs[name]:.1f}" if name in costs else "" for name in names)
        yield f"| `{row['type']}` | {row['rate']} | {' | '.join(cells)} |"
    yield ""
    yield "Times as long as csp1d, and its share of a core:"
    yield ""
    others = names[1:]
    yield f"| scans | a second | {' | '.join(others)} | a core |"
    yield "|---|---" + "|---" * len(others) + "|---|"
    for row in rows:
        costs = row["nanoseconds_a_scan"]
        cells = (f"{costs[name] / costs['csp1d']:.2f}" if name in costs else "" for name in others)
        share = costs["csp1d"] * row["rate"] / 1e7
        yield f"| `{row['type']}` | {row['rate']} | {' | '.join(cells)} | {share:.2f} % |"
    yield ""


def _daemon(figures: Figures) -> Iterator[str]:
    daemon, latency = figures.get("daemon"), figures.get("latency")
    if daemon:
        cpu = daemon["cpu_ms_a_second"]
        yield f"| processor, with telegrams, lamps and scrapes | {cpu:.1f} ms a second |"
    if latency:
        synthesis = latency["synthesis_ms_a_second"]
        yield f"| of which the virtual HAT makes its signal | {synthesis:.1f} ms a second |"
    if daemon:
        yield f"| wake-ups | {daemon['wakeups_a_second']:.1f} a second |"
        yield f"| memory (RSS) | {daemon['rss_mib']:.1f} MiB |"
        yield f"| from exec to READY | {daemon['ready']:.2f} s |"
        yield f"| from exec to the first telegram | {daemon['telegram']:.2f} s |"
    if latency:
        for name, words in (
            ("after_reading", "from the end of a reading to the first byte"),
            ("after_request", "from a rising request to the first byte"),
        ):
            one = latency[name]
            yield (
                f"| {words} | {one['median_ms']:.1f} ms, 99 % within {one['p99_ms']:.1f} ms"
                f" ({one['count']} times) |"
            )
    if daemon:
        yield f"| a scrape, at the client | {daemon['scrape_ms']:.1f} ms |"
        yield f"| a scrape, of processor | {daemon['scrape_cpu_ms']:.1f} ms |"
    if "pipe_scans_a_second" in figures:
        millions = figures["pipe_scans_a_second"] / 1e6
        yield f"| most through a pipe | {millions:.1f} million scans a second |"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="tools/bench", description=__doc__)
    parser.add_argument("parts", metavar="PART", nargs="*", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there, too")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {*PARTS}:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    figures = measure(arguments.parts or PARTS)
    text = "\n".join(markdown(figures))
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    if arguments.write:
        PAGE.write_text(_BETWEEN.sub(lambda _: f"{text}\n", PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
