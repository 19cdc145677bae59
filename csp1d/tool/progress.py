# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, if that is a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(title: str, total: float, unit: str) -> Iterator[Callable[[float], None]]:
    """Yields a function that shows the progress: its argument is how much of `total` is done."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    # Late: importing rich takes longer than most commands run.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:g} {task.fields[unit]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, unit=unit)
        yield lambda done: bar.update(task, completed=min(done, total))
