# SPDX-License-Identifier: Apache-2.0
"""The screen of `csp1ctl watch`, drawn with rich: a bar for each phase, the rest in rows below."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from csp1d.status import LiveReading, Status, rows


def screen(
    place: str,
    status: Status | None,
    telegrams_per_second: float | None,
    notes: Iterable[str],
    fuse_amperes: float,
) -> RenderableType:
    """The content of the screen; a bar is full at `fuse_amperes`, and red from there on."""
    version = f" {status.version}" if status else ""
    parts: list[RenderableType] = [
        Text.assemble((f"csp1d{version}", "bold"), f" at {place}"),
        Text(),
    ]
    if status is None:
        parts.append(Text("no answer from csp1d; retrying", style="bold red"))
    else:
        if status.reading:
            parts += [_bars(status.reading, fuse_amperes), Text()]
        parts.append(_table(status, telegrams_per_second))
    parts.append(Text())
    parts += [Text(note) for note in notes]
    parts.append(Text("Ctrl-C to quit", style="dim"))
    return Group(*parts)


def _bars(reading: LiveReading, fuse_amperes: float) -> Table:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column()
    grid.add_column(justify="right", no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_column(justify="right", no_wrap=True)
    for phase, current in reading.phases.items():
        is_over = current.rms_amperes >= fuse_amperes
        bar = ProgressBar(
            total=fuse_amperes,
            completed=min(current.rms_amperes, fuse_amperes),
            complete_style="green",
            finished_style="bold red",
        )
        overload = Text("overload: the reading is too low", style="bold red")
        grid.add_row(
            Text(phase, style="bold"),
            Text(f"{current.rms_amperes:6.2f} A", style="bold red" if is_over else "bold"),
            bar,
            overload if current.clipped_samples else f"of {fuse_amperes:g} A",
        )
    return grid


def _table(status: Status, telegrams_per_second: float | None) -> Table:
    grid = Table.grid(padding=(0, 2))
    for row in rows(status):
        if status.reading and row.name in status.reading.phases:
            continue  # It has a bar.
        grid.add_row(Text(row.name, style="dim"), Text(row.text, "" if row.good else "bold red"))
        if row.name == "telegrams" and telegrams_per_second is not None:
            grid.add_row("", f"{telegrams_per_second:.1f} per second")
    return grid
