# SPDX-License-Identifier: Apache-2.0
"""What the simulated HAT plays: currents, mains, stalls and the charge point over time.

Two notations: "L1=24,L2=10.5,L3=0" for constant currents, or a TOML file of steps,

    [[step]]
    at_seconds = 10
    amperes = { L1 = 24, L2 = 10.5 }
    frequency_hz = 49.9
    harmonics_percent = { 3 = 60, 5 = 30 }
    gain_error_percent = { L1 = 3.7 }
    shift_amperes = { L2 = 200 }
    request = "poll"
    stall_seconds = 2
    reference = 0.5

Each key is optional and keeps its value until a later step changes it; `at_seconds` is 0 if it is
absent, and a stall ends after its time.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from csp1d.config_file import read_regular
from csp1d.errors import Problem, ScenarioError
from csp1d.loading import Loader, decode_toml, key, within
from csp1d.phase import Phase

_MAX = 999_999
_SIGNED = within(-_MAX, _MAX)
_UNSIGNED = within(0, _MAX)


def _order(text: str) -> int:
    if not re.fullmatch(r"[2-9]|[1-9][0-9]{1,2}", text):
        raise ValueError("must be the order of a harmonic, a whole number from 2 to 999")
    return int(text)


class Request(StrEnum):
    """The charge point's use of its request line."""

    HIGH = "high"
    LOW = "low"
    POLL = "poll"
    """It lowers the line after each telegram, processes the telegram, and raises the line again."""


@dataclass(frozen=True)
class Step:
    """The state from a time on."""

    at_seconds: float = key(_UNSIGNED, default=0.0)
    amperes: Mapping[Phase, float] = key(_SIGNED, default_factory=dict)
    """RMS including harmonics, negative for export; 0 for a phase that is not listed."""
    frequency_hz: float = key(_UNSIGNED, default=50.0)
    harmonics_percent: Mapping[int, float] = key(_UNSIGNED, parse=_order, default_factory=dict)
    """Percent of the fundamental, by order."""
    gain_error_percent: Mapping[Phase, float] = key(within(-99, _MAX), default_factory=dict)
    """Excess of a transformer's signal, whatever gain is configured. A phase that is not listed
    matches the configured gain, so it measures right."""
    shift_amperes: Mapping[Phase, float] = key(_SIGNED, default_factory=dict)
    """Distance of the signal from the middle of the ADC's range, as with a missing bias."""
    request: Request = key(default=Request.HIGH)
    stall_seconds: float = key(_UNSIGNED, default=0.0)
    """How long the ADC delivers nothing, from the step on."""
    reference: float = key(_UNSIGNED, default=1.0)
    """Level of the direction's reference, 1 for nominal; 0 removes it."""


@dataclass(frozen=True)
class _File:
    step: tuple[Any, ...] = ()


Scenario = tuple[Step, ...]
"""At least one step, in order of time, the first at 0."""


def parse(text: str, frequency_hz: float = 50.0) -> Scenario:
    """The scenario of a command-line argument, "" for the default. Raises ScenarioError."""
    first = Step(frequency_hz=frequency_hz)
    if not text:
        return (replace(first, amperes={Phase.L1: 24.0, Phase.L2: 10.5, Phase.L3: 0.0}),)
    loader = Loader()
    if re.match(r"[Ll]?\d*\s*=", text) and not os.path.exists(text):
        amperes: dict[str, float | str] = {}
        for name, _, value in (pair.partition("=") for pair in text.split(",")):
            if (phase := name.strip()) in amperes:
                loader.problems.append((f"amperes.{phase}", "is given twice"))
            amperes[phase] = _number(value)
        steps = [loader.override(first, {"amperes": amperes})]
    else:
        try:
            steps = _steps(loader, decode_toml(read_regular(Path(text))), first)
        except OSError as error:
            loader.problems.append(("", f"cannot be read: {error.strerror}"))
        except ValueError as error:
            loader.problems.append(("", str(error)))
    if loader.problems:
        raise ScenarioError([Problem(Path(text), *problem) for problem in loader.problems])
    return tuple(steps)


def _steps(loader: Loader, table: Mapping[str, Any], first: Step) -> list[Step]:
    steps = [first]
    for number, entry in enumerate(loader.override(_File(), table).step):
        step = loader.override(replace(steps[-1], stall_seconds=0.0), entry, f"step[{number}]")
        if step.at_seconds < steps[-1].at_seconds:
            reason = "must not be before the previous step"
            loader.problems.append((f"step[{number}].at_seconds", reason))
        # A step at the time of the previous one completes it.
        if step.at_seconds == steps[-1].at_seconds:
            steps.pop()
        steps.append(step)
    return steps


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text.strip()
