# SPDX-License-Identifier: Apache-2.0
"""Serves the page of a daemon that has one fault after the other, for page.js.

The faults are those of tests/loop/test_problems.py: the parts of the daemon have them, on a clock
that a command moves. A line on standard input is a command: "begin EVENT", or "end" and 15 s more.
Each is answered by a line of JSON, the messages that it logged of that event.
"""

import json
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "loop"))

from test_problems import GOOD, STORIES, Bench

from csp1d.config import HttpConfig, SiteConfig
from csp1d.events import CHAPTERS, Event
from csp1d.interfaces.http import HttpServer
from csp1d.interfaces.pages import pages
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase
from csp1d.units import SECOND_NS

NAMES = {event.event_name: event for event in Event}


class Messages(logging.Handler):
    """The messages of the log, by event."""

    def __init__(self) -> None:
        super().__init__()
        self.of_event: dict[str, set[str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        name = record.__dict__["CSP1D_EVENT"]
        self.of_event.setdefault(name, set()).add(record.getMessage())


def make_bench() -> Bench:
    """One without a fault, a minute ago: what follows takes less."""
    bench = Bench(Path(tempfile.mkdtemp(dir=folder)))
    bench.now_ns = time.monotonic_ns() - 60 * SECOND_NS
    bench.sender.reopen_missing()
    return bench


def snapshot() -> Snapshot:
    reading = Reading(1, time.monotonic_ns(), 1.0, {Phase.L1: GOOD}, 50.0, 4000, 0)
    return Snapshot(SiteConfig("House <7>"), problems=bench.problems, reading=reading)


with tempfile.TemporaryDirectory() as folder:
    messages, bench, event = Messages(), make_bench(), Event.STARTED
    logging.getLogger("csp1d").addHandler(messages)
    server = HttpServer(HttpConfig("127.0.0.1:0"), pages(snapshot))
    chapters = {event.event_name: chapter for event, chapter in CHAPTERS.items() if chapter}
    print(json.dumps({"url": server.url, "chapters": chapters}), flush=True)
    for line in sys.stdin:
        command, *names = line.split()
        if command == "begin":
            bench, event = make_bench(), NAMES[names[0]]
            bench.repeat(STORIES[event][1], 12)
        else:
            bench.repeat(STORIES[event][2], 15)
        print(json.dumps([*messages.of_event.pop(event.event_name, ())]), flush=True)
