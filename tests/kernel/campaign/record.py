# SPDX-License-Identifier: Apache-2.0
"""Evidence in files that only grow: the guest writes them and the host judges them, even if the
guest did not finish.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from guest.hat import Made

from .judge import Evidence, Fault

_BYTES, _LINE, _REST = "bytes.bin", "line.bin", "rest.jsonl"


class Writer:
    """Writes evidence into a directory, which it creates."""

    def __init__(self, directory: Path, start_ns: int) -> None:
        directory.mkdir()
        self._directory = directory
        self._made = self._faults = 0
        self._add_line({"start_ns": start_ns})

    def add(
        self,
        left: npt.NDArray[np.void],
        line: npt.NDArray[np.void],
        made: Sequence[Made],
        faults: Sequence[Fault],
        end_ns: int,
    ) -> None:
        """Add new records of the module's logs, and everything injected so far."""
        for name, log in ((_BYTES, left), (_LINE, line)):
            with (self._directory / name).open("ab") as file:
                file.write(log.tobytes())
        # The last run of scans may have grown since.
        first = max(0, self._made - 1)
        new_faults = [dataclasses.asdict(fault) for fault in faults[self._faults :]]
        self._made, self._faults = len(made), len(faults)
        self._add_line(
            {"first": first, "made": made[first:], "faults": new_faults, "end_ns": end_ns}
        )

    def problem(self, text: str) -> None:
        """Record a failure that no byte shows."""
        self._add_line({"problem": text})

    def _add_line(self, entry: dict[str, Any]) -> None:
        with (self._directory / _REST).open("a") as file:
            file.write(json.dumps(entry) + "\n")


def load(directory: Path) -> Evidence:
    """What was written so far."""
    left, line = (
        np.frombuffer((directory / name).read_bytes(), np.uint64).reshape(-1, 2)
        for name in (_BYTES, _LINE)
    )
    made: list[Made] = []
    faults: list[Fault] = []
    problems: list[str] = []
    start_ns = end_ns = 0
    for text in (directory / _REST).read_text().splitlines():
        entry = json.loads(text)
        start_ns, end_ns = entry.get("start_ns", start_ns), entry.get("end_ns", end_ns)
        if "made" in entry:
            made[entry["first"] :] = [Made(a, b, tuple(amperes)) for a, b, amperes in entry["made"]]
            faults += [Fault(**fault) for fault in entry["faults"]]
        problems += [entry["problem"]] if "problem" in entry else []
    return Evidence(
        start_ns=start_ns,
        end_ns=end_ns,
        data=left[:, 1].astype(np.uint8).tobytes(),
        times_ns=left[:, 0].astype(np.int64),
        line=[(int(ns), bool(level)) for ns, level in line],
        made=made,
        faults=faults,
        problems=problems,
    )
