# SPDX-License-Identifier: Apache-2.0
"""Writes the state diagram of the P1 port into docs/architecture.md: run this file."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/architecture.md"
BLOCK = re.compile(r"(<!-- P1 port: .*? -->\n).*?(<!-- end of the diagram -->\n)", re.DOTALL)


def diagram() -> str:
    """The states, and the transitions that change the state."""
    from csp1d.p1.port import TRANSITIONS, P1Port, PortState

    arrows = [f"[*] --> {P1Port().state.name}"]
    for state in PortState:
        arrows += [
            f"{state.name} --> {next_state.name}: {event.value}"
            for (before, event), next_state in TRANSITIONS.items()
            if before is state and next_state is not state
        ]
    lines = ["| state | meaning |", "|---|---|"]
    lines += [f"| {state.name} | {state.value} |" for state in PortState]
    lines += ["", "```mermaid", "stateDiagram-v2", *(f"    {arrow}" for arrow in arrows), "```"]
    return "\n".join(lines)


def with_diagram(page: str) -> str:
    """The page with the diagram as it should be."""
    text, count = BLOCK.subn(lambda match: f"{match[1]}\n{diagram()}\n\n{match[2]}", page)
    if count != 1:
        raise ValueError(f"{PAGE}: must have the two comments around the diagram once, got {count}")
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(with_diagram(PAGE.read_text()))
