# SPDX-License-Identifier: Apache-2.0
"""The screen of `csp1ctl watch`, drawn with rich: a bar a phase, and below it everything else.

It is drawn anew as a whole; rich sends it to the terminal and puts back what stood there before.
"""

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from csp1d.status import Status, faults, rows
from csp1d.tool.watch import Watch


def is_drawable() -> bool:
    """Whether the terminal can do more than print."""
    return not Console().is_dumb_terminal


class Screen:
    """Takes the terminal as long as it is entered."""

    def __init__(self, watch: Watch, fuse_amperes: float) -> None:
        self._watch = watch
        self._fuse_amperes = fuse_amperes
        self._live = Live(
            console=Console(highlight=False),
            get_renderable=lambda: screen(self._watch, self._fuse_amperes),
            screen=True,
            auto_refresh=False,
        )

    def __enter__(self) -> "Screen":
        self._live.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.stop()

    def refresh(self) -> None:
        """Draw what is to be seen now."""
        self._live.refresh()


def screen(watch: Watch, fuse_amperes: float) -> RenderableType:
    """All that is seen; a bar is full at `fuse_amperes`, and red from there on."""
    parts: list[RenderableType] = [_heading(watch), Text()]
    if watch.status:
        parts += [_bars(watch.status, fuse_amperes), Text(), _rows(watch, watch.status)]
    else:
        parts.append(Text("csp1d does not answer; asking on", style="bold red"))
    parts.append(Text())
    parts += [Text(note) for note in watch.notes]
    parts.append(Text("Ctrl-C ends", style="dim"))
    return Group(*parts)


def _heading(watch: Watch) -> Text:
    version = f" {watch.status.version}" if watch.status else ""
    return Text.assemble((f"csp1d{version}", "bold"), f" at {watch.url}")


def _bars(status: Status, fuse_amperes: float) -> RenderableType:
    if status.reading is None:
        return Text("; ".join(faults(status)), style="bold red")
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column()
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    for phase, current in status.reading.phases.items():
        over = current.rms_amperes >= fuse_amperes
        bar = ProgressBar(
            total=fuse_amperes,
            completed=min(current.rms_amperes, fuse_amperes),
            complete_style="green",
            finished_style="bold red",
        )
        note = Text("overload: reads too low", style="bold red")
        grid.add_row(
            Text(phase, style="bold"),
            Text(f"{current.rms_amperes:6.2f} A", style="bold red" if over else "bold"),
            bar,
            note if current.clipped_samples else f"of {fuse_amperes:g} A",
        )
    return grid


def _rows(watch: Watch, status: Status) -> Table:
    grid = Table.grid(padding=(0, 2))
    for row in rows(status):
        grid.add_row(Text(row.name, style="dim"), Text(row.text, "" if row.good else "bold red"))
    rate = watch.telegrams_per_second
    grid.add_row(Text("rate", style="dim"), "" if rate is None else f"{rate:.1f} per second")
    return grid
