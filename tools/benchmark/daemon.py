# SPDX-License-Identifier: Apache-2.0
"""The whole daemon on the virtual HAT: start, CPU, wake-ups, memory, and the cost of a scrape."""

import selectors
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from benchmark.process import (
    PYTHON,
    ROOT,
    Running,
    cpu_ns,
    drain,
    percentile,
    resident_mebibytes,
    running,
    wake_ups,
)

SCENARIO = '[[step]]\nat_seconds = 0\namperes = { L1 = 24, L2 = 10.5, L3 = 3 }\nrequest = "high"\n'
STARTS = 5
SECONDS = 45
SHORT_SECONDS = 25
SCRAPE_EVERY_SECONDS = 15
SCRAPES = 300
Figures = dict[str, float]


def measure(tell: Callable[[str], None], seconds: int, wants_scrapes: bool) -> dict[str, Figures]:
    """The figures of the steady daemon, and of a scrape if requested.

    `seconds`: 0 measures only the scrape.
    """
    if not seconds:
        seconds, starts_wanted = SHORT_SECONDS, 0
    else:
        starts_wanted = STARTS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starts = []
        for number in range(starts_wanted):
            tell(f"start {number + 1} of {starts_wanted}")
            with running(folder, SCENARIO) as daemon:
                starts.append((daemon.ready_seconds, daemon.first_telegram_seconds))
        with running(folder, SCENARIO) as daemon:
            tell(f"{seconds} s of it")
            steady = _steady(folder, daemon, seconds)
            ready, first = zip(
                *(starts or [(daemon.ready_seconds, daemon.first_telegram_seconds)]), strict=True
            )
            steady |= {
                "ready_seconds": statistics.median(ready),
                "ready_seconds_longest": max(ready),
                "first_telegram_seconds": statistics.median(first),
                "first_telegram_seconds_longest": max(first),
            }
            scraped = _scraped(daemon, steady["cpu_ms"]) if wants_scrapes else {}
    return {"daemon": steady, "scrape": scraped}


def _steady(folder: Path, daemon: Running, seconds: int) -> Figures:
    command = [PYTHON, "-m", "benchmark.synthesis", str(folder / "csp1d.toml")]
    command += [str(folder / "scenario.toml"), str(seconds - 5)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as synthesis:
        _play(daemon, SCRAPE_EVERY_SECONDS, scrape_first=True)
        began, used_ns, woken = time.monotonic(), cpu_ns(daemon.pid), wake_ups(daemon.pid)
        telegrams = _play(daemon, seconds - SCRAPE_EVERY_SECONDS)
        took = time.monotonic() - began
        used_ns, woken = cpu_ns(daemon.pid) - used_ns, wake_ups(daemon.pid) - woken
        out, _ = synthesis.communicate()
    cpu_ms, synthesis_ms = used_ns / 1e6 / took, float(out)
    return {
        "cpu_ms": cpu_ms,
        "synthesis_ms": synthesis_ms,
        "own_cpu_ms": cpu_ms - synthesis_ms,
        "wake_ups": woken / took,
        "resident_mebibytes": resident_mebibytes(daemon.pid),
        "telegrams": telegrams,
        "seconds": took,
    }


def _play(daemon: Running, seconds: float, scrape_first: bool = False) -> int:
    """Read telegrams and scrape for a number of seconds; the number of telegrams received."""
    end = time.monotonic() + seconds
    scrape_at = time.monotonic() + (0 if scrape_first else SCRAPE_EVERY_SECONDS)
    telegrams = 0
    with selectors.DefaultSelector() as selector:
        selector.register(daemon.port, selectors.EVENT_READ)
        while (now := time.monotonic()) < end:
            if now >= scrape_at:
                scrape_at += SCRAPE_EVERY_SECONDS
                _scrape(daemon.url)
            selector.select(max(0.0, min(end, scrape_at) - time.monotonic()))
            telegrams += drain(daemon.port)
    return telegrams


def _scraped(daemon: Running, idle_cpu_ms: float) -> Figures:
    """Successive scrapes; the daemon's CPU time without scrapes is subtracted."""
    began, used_ns = time.monotonic(), cpu_ns(daemon.pid)
    latencies = []
    for _ in range(SCRAPES):
        start = time.monotonic()
        size = _scrape(daemon.url)
        latencies.append((time.monotonic() - start) * 1000)
        drain(daemon.port)
    took = time.monotonic() - began
    used_ms = (cpu_ns(daemon.pid) - used_ns) / 1e6 - idle_cpu_ms * took
    return {
        "cpu_ms": used_ms / SCRAPES,
        "median_ms": statistics.median(latencies),
        "p99_ms": percentile(latencies, 99),
        "bytes": size,
        "scrapes": SCRAPES,
    }


def _scrape(url: str) -> int:
    with urllib.request.urlopen(f"{url}metrics", timeout=10) as reply:
        return len(reply.read())
