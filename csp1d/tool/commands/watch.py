# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl watch`: the state of the running daemon as it changes, on a screen or line by line."""

import argparse
import sys
import time
from collections.abc import Iterator

from csp1d.config import Config
from csp1d.exits import OK
from csp1d.tool.client import Client, NoAnswerError
from csp1d.tool.watch import Watch

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 1.0


def run(config: Config, arguments: argparse.Namespace) -> int:
    """Show the state until Ctrl-C. Raises NoAnswerError if the daemon does not answer at first."""
    client = Client(config.http)
    watch = Watch()
    watch.answered(client.status(), time.monotonic(), _time_of_day())
    try:
        if sys.stdout.isatty():
            _draw(client, watch, arguments.fuse)
        else:
            _print(client, watch)
    except KeyboardInterrupt:
        pass
    return OK


def _draw(client: Client, watch: Watch, fuse_amperes: float) -> None:
    # Late, since a pipe needs no screen.
    from rich.console import Console
    from rich.live import Live

    from csp1d.tool.screen import screen

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        # It cannot move its cursor.
        _print(client, watch)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        for _ in _ticks(_REFRESH_SECONDS):
            _ask(client, watch)
            rate = watch.telegrams_per_second
            content = screen(client.path, watch.status, rate, watch.notes, fuse_amperes)
            live.update(content, refresh=True)


def _print(client: Client, watch: Watch) -> None:
    for _ in _ticks(_LINE_SECONDS):
        if note := _ask(client, watch):
            print(note)
        print(watch.line(_time_of_day()), flush=True)


def _ask(client: Client, watch: Watch) -> str | None:
    try:
        status = client.status()
    except NoAnswerError as error:
        return watch.failed(str(error), _time_of_day())
    return watch.answered(status, time.monotonic(), _time_of_day())


def _ticks(every_seconds: float) -> Iterator[None]:
    due_seconds = time.monotonic()
    while True:
        yield
        now_seconds = time.monotonic()
        # A late tick does not bring the next one forward.
        due_seconds = max(due_seconds + every_seconds, now_seconds)
        time.sleep(due_seconds - now_seconds)


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")
