# SPDX-License-Identifier: Apache-2.0
"""Evidence as a file: the guest writes it, the host judges it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from guest.hat import Made

from .judge import Evidence, Fault


def save(path: Path, evidence: Evidence) -> None:
    """Write it, so that a half-written file never has that name."""
    rest = dataclasses.asdict(
        dataclasses.replace(evidence, data=b"", times_ns=np.empty(0, np.int64))
    )
    del rest["data"], rest["times_ns"]
    partial = path.with_suffix(".partial.npz")
    np.savez(
        partial,
        data=np.frombuffer(evidence.data, np.uint8),
        times_ns=evidence.times_ns,
        rest=np.frombuffer(json.dumps(rest).encode(), np.uint8),
    )
    partial.rename(path)


def load(path: Path) -> Evidence:
    """What ``save`` has written."""
    with np.load(path) as file:
        rest = json.loads(file["rest"].tobytes())
        return Evidence(
            start_ns=rest["start_ns"],
            end_ns=rest["end_ns"],
            data=file["data"].tobytes(),
            times_ns=file["times_ns"],
            line=[(ns, bool(level)) for ns, level in rest["line"]],
            made=[Made(start, end, tuple(amperes)) for start, end, amperes in rest["made"]],
            faults=[Fault(**fault) for fault in rest["faults"]],
            problems=rest["problems"],
        )
