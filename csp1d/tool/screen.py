# SPDX-License-Identifier: Apache-2.0
"""The screen of `csp1ctl watch`, drawn with rich: a bar a phase, and below it everything else.

It is drawn anew as a whole; rich sends it to the terminal and puts back what stood there before.
"""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from csp1d.status import REQUEST_WORDS, Status, frequency_words, no_reading_words
from csp1d.tool.watch import Watch

_LED_STYLES = {None: "dim", True: "black on yellow", False: "dim"}


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
        return Text(f"Currents not known: {no_reading_words(status)}", style="bold red")
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
        note = Text("clips: reads too low", style="bold red")
        grid.add_row(
            Text(phase, style="bold"),
            Text(f"{current.rms_amperes:6.2f} A", style="bold red" if over else "bold"),
            bar,
            note if current.clipped_samples else f"of {fuse_amperes:g} A",
        )
    return grid


def _rows(watch: Watch, status: Status) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, value in _values(watch, status):
        grid.add_row(Text(name, style="dim"), value)
    return grid


def _values(watch: Watch, status: Status) -> Iterator[tuple[str, RenderableType]]:
    reading, counts, rate = status.reading, status.telegrams, watch.telegrams_per_second
    if reading:
        yield "mains", frequency_words(reading.frequency_hertz).strip()
        yield "reading", f"number {reading.sequence}, {reading.age_seconds:.1f} s old"
    yield "scans lost", _marked(str(status.scans_lost_total), good=not status.scans_lost_total)
    yield "ADC", _marked("works" if status.adc_up else "missing or silent", status.adc_up)
    yield "P1 port", _marked("open" if status.p1_up else "missing", status.p1_up)
    yield (
        "request line",
        _marked(REQUEST_WORDS[status.p1_request], good=status.p1_request is not None),
    )
    yield "telegrams", "" if rate is None else f"{rate:.1f} a second"
    yield "", f"{counts.sent} sent, {counts.aborted} aborted, {counts.dropped} dropped"
    yield "LEDs", _leds(status)


def _marked(words: str, good: bool) -> Text:
    return Text(words, style="" if good else "bold red")


def _leds(status: Status) -> Text:
    shown = Text()
    for role, lit in status.leds.items():
        # In words as well, since not every terminal has colours.
        words = {None: "not there", True: "on", False: "off"}[lit]
        shown.append(f" {role} {words} ", style=_LED_STYLES[lit]).append("  ")
    return shown
