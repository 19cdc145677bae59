# SPDX-License-Identifier: Apache-2.0
"""csp1d with a safeguard taken out: the campaign has to find each of them."""

from __future__ import annotations

import py_compile
from dataclasses import dataclass
from pathlib import Path

INSTALLED = Path("/usr/lib/python3/dist-packages")


@dataclass(frozen=True)
class Mutant:
    """A text of a module, and what takes its place."""

    module: str
    text: str
    instead: str

    def apply(self) -> None:
        """Change the installed module. Raises ValueError where the text is not there once."""
        path = INSTALLED / self.module
        source = path.read_text()
        if source.count(self.text) != 1:
            raise ValueError(f"{path}: {self.text!r} stands there {source.count(self.text)} times")
        path.write_text(source.replace(self.text, self.instead))
        py_compile.compile(str(path), doraise=True)


MUTANTS = {
    "stale readings are sent": Mutant(
        "csp1d/p1/port.py", "if now_ns - telegram.end_ns > FRESH_NS:", "if False:"
    ),
    "nothing is flushed": Mutant("csp1d/p1/sender.py", "port.flush()", "pass"),
    "lost scans are not found": Mutant(
        "csp1d/measuring/timeline.py", "in find_lost(late, clock.period_ns):", "in []:"
    ),
    "gaps do not matter": Mutant(
        "csp1d/measuring/timeline.py", "MOST_LOST = 0.05", "MOST_LOST = 1e9"
    ),
}
