# SPDX-License-Identifier: Apache-2.0
"""Formats the figures as the Markdown tables of docs/performance.md."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmark.chain import COPY, CSP1D, LIMIT, LOOP, PQOPEN, PYLIBIIO, WHO

Figures = Mapping[str, Any]
"""By part: the result of `measure()` of its module."""


def markdown(figures: Figures) -> str:
    """Tables of the measured parts."""
    tables: dict[str, Callable[[Any], Iterator[str]]] = {
        "machine": _machine,
        "chain": _chain,
        "daemon": _daemon,
        "latency": _latency,
        "scrape": _scrape,
        "pipe": _pipe,
    }
    return "\n\n".join(
        "\n".join(table(figures[name])) for name, table in tables.items() if figures.get(name)
    )


def _machine(machine: Mapping[str, str]) -> Iterator[str]:
    yield "; ".join(machine.values()) + "."


def _chain(chain: Mapping[str, Any]) -> Iterator[str]:
    yield "**(a) Metering, CPU nanoseconds per scan of three channels** (median of the seconds)"
    yield ""
    yield from _header("scans", "S/s", *WHO)
    for name, rates in chain.items():
        for rate, found in rates.items():
            cells = (f"{found[who]['median']:.1f}" for who in WHO)
            yield _row(name, rate, *cells)
    yield ""
    yield "Time relative to csp1d, and the share of a core that csp1d uses:"
    yield ""
    rivals = (LIMIT, PYLIBIIO, PQOPEN, LOOP)
    yield from _header("scans", "S/s", *rivals, "core used")
    for name, rates in chain.items():
        for rate, found in rates.items():
            own = found[CSP1D]["median"]
            ratios = (f"{found[who]['median'] / own:.2g}" for who in rivals)
            yield _row(name, rate, *ratios, f"{own * int(rate) / 1e7:.2g} %")
    yield ""
    yield (
        f"{CSP1D}, {LIMIT} and {LOOP} find gaps, whole cycles and clipping; {PQOPEN} finds cycles; "
        f"{PYLIBIIO} does neither, and reads the same buffer of one second repeatedly, without "
        f"fetching it; {COPY} only copies the bytes."
    )


def _daemon(daemon: Mapping[str, float]) -> Iterator[str]:
    yield "**(b) The daemon on the virtual HAT**, 4000 S/s, 16 bit, telegrams, a scrape every 15 s"
    yield ""
    yield from _header("", "figure", "target")
    yield _row("CPU per second, total", f"{daemon['cpu_ms']:.2f} ms", "")
    yield _row(
        "of which the virtual HAT generates its scans", f"{daemon['synthesis_ms']:.2f} ms", ""
    )
    yield _row("CPU per second, without the virtual HAT", f"{daemon['own_cpu_ms']:.2f} ms", "3 ms")
    yield _row("wake-ups per second", f"{daemon['wake_ups']:.2f}", "4")
    yield _row("resident memory", f"{daemon['resident_mebibytes']:.1f} MiB", "40 MiB")
    for name, what, target in (
        ("ready_seconds", "from exec to READY", "0.5 s"),
        ("first_telegram_seconds", "from exec to the first telegram", "1.7 s"),
    ):
        median, longest = daemon[name], daemon[f"{name}_longest"]
        yield _row(f"{what}, median (longest)", f"{median:.2f} s ({longest:.2f} s)", target)


def _latency(latency: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    yield "**(c) To the first byte of a telegram**, milliseconds (target: 5 for 99 %)"
    yield ""
    yield from _header("from", "to", "count", "median", "99 % within", "longest")
    for name, cause in (
        ("end", "the end of the reading"),
        ("rise", "a rising request"),
    ):
        yield _times(cause, "the port", latency[f"{name}_to_port"])
        yield _times(cause, "the reader", latency[f"{name}_to_reader"])
    yield _times("included in the first two: the virtual HAT's scans", "", latency["synthesis"])
    yield _times("for comparison: wake-up latency of a sleeping process", "", latency["sleeper"])


def _times(cause: str, to: str, row: Mapping[str, float]) -> str:
    times = (f"{row[key]:.2f}" for key in ("median_ms", "p99_ms", "longest_ms"))
    return _row(cause, to, f"{row['count']:.0f}", *times)


def _scrape(scrape: Mapping[str, float]) -> Iterator[str]:
    yield f"**(d) A scrape** of {scrape['bytes']:.0f} bytes"
    yield ""
    yield from _header("", "figure")
    yield _row("CPU of the daemon", f"{scrape['cpu_ms']:.2f} ms")
    yield _row("response time, median", f"{scrape['median_ms']:.2f} ms")
    yield _row("response time, 99 % within", f"{scrape['p99_ms']:.2f} ms")


def _pipe(pipe: Mapping[str, float]) -> Iterator[str]:
    yield "**(e) Through a pipe**, from a process that writes without a pause"
    yield ""
    yield from _header("", "figure")
    yield _row("throughput", f"{pipe['scans_per_second'] / 1e6:.1f} million scans per second")
    yield _row("CPU per scan, including the pipe", f"{pipe['cpu_ns_per_scan']:.1f} ns")
    yield _row("lost", f"{pipe['lost']:.0f} of {pipe['scans']:.0f}")


def _header(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield "|" + "---|" * len(cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
