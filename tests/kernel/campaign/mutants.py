# SPDX-License-Identifier: Apache-2.0
"""csp1d with one safeguard removed: the campaign must detect each of them."""

from __future__ import annotations

import contextlib
import py_compile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INSTALLED = Path("/usr/lib/python3/dist-packages/csp1d")


@dataclass(frozen=True)
class Mutant:
    """A text of a module, and its replacement."""

    module: str
    text: str
    instead: str
    kinds: tuple[str, ...]
    """The faults that the safeguard protects against."""

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Change the installed module within the block. Raises ValueError unless the text occurs
        exactly once.
        """
        path = INSTALLED / self.module
        source = path.read_text()
        if source.count(self.text) != 1:
            raise ValueError(f"{path}: {self.text!r} stands there {source.count(self.text)} times")
        try:
            _write(path, source.replace(self.text, self.instead))
            yield
        finally:
            _write(path, source)


def _write(path: Path, source: str) -> None:
    path.write_text(source)
    py_compile.compile(str(path), doraise=True)


GAPS = ("ADC stalls", "ADC loses more", "stopped, buffer overflows")
MUTANTS = {
    "stale readings are sent": Mutant(
        "p1/port.py",
        "if now_ns - telegram.end_ns > FRESH_NS:",
        "if False:",
        ("request while stalled", "stopped, buffer overflows"),
    ),
    "nothing is flushed": Mutant(
        "loop/sender.py",
        "port.flush()\n            now_ns, held = self._clock(), port.waiting()",
        "now_ns, held = self._clock(), 0",
        ("request falls in telegram", "request chatters", "port accepts nothing"),
    ),
    "a port that cannot flush is not found": Mutant(
        "p1/port.py",
        "self._keeps_bytes |= held > 0",
        "held = 0",
        ("port cannot flush", "port cannot flush, accepts nothing"),
    ),
    "lost scans are not found": Mutant(
        "measuring/timeline.py",
        "losses = find_lost(late, clock.period_ns)",
        "losses: list[tuple[int, int]] = []",
        GAPS,
    ),
    "gaps do not matter": Mutant(
        "measuring/timeline.py", "MOST_LOST = 0.05", "MOST_LOST = 1e9", GAPS
    ),
}
