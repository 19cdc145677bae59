# SPDX-License-Identifier: Apache-2.0
"""What the simulated HAT plays: currents, mains, stalls and the charge point over time.

Two notations: "L1=24,L2=10.5,L3=0" for steady currents, or a TOML file of steps,

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

where each key but `at_seconds` is optional and keeps its value until a later step changes it
(a stall is over after its time). A phase with a negative current exports.
"""

import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from csp1d.errors import ScenarioError
from csp1d.phase import Phase


class Request(StrEnum):
    """What the charge point does with its request line."""

    HIGH = "high"
    LOW = "low"
    POLL = "poll"
    """It drops the line after each telegram, works on it, and raises the line again."""


@dataclass(frozen=True)
class Step:
    """What holds from a time on."""

    at_seconds: float = 0.0
    amperes: Mapping[Phase, float] = field(default_factory=dict)
    """RMS, harmonics included, negative for export; a phase not named carries nothing."""
    frequency_hz: float = 50.0
    harmonics_percent: Mapping[int, float] = field(default_factory=dict)
    """Of the fundamental, by order."""
    gain_error_percent: Mapping[Phase, float] = field(default_factory=dict)
    """By how much more than the current a transformer makes, whatever gain is configured; one that
    is not named fits the configured gain, so that it measures right."""
    shift_amperes: Mapping[Phase, float] = field(default_factory=dict)
    """By how much the signal is off the middle of the ADC's range, as with a bias that is gone."""
    request: Request = Request.HIGH
    stall_seconds: float = 0.0
    """For so long from the step on the ADC delivers nothing."""
    reference: float = 1.0
    """What there is of the reference of the direction: 0, and it has vanished."""


Scenario = tuple[Step, ...]
"""At least one step, in the order of time, the first at 0."""


def parse(text: str, frequency_hz: float = 50.0) -> Scenario:
    """The scenario of a command line's word, "" for the default. Raises ScenarioError."""
    first = Step(frequency_hz=frequency_hz)
    if not text:
        return (replace(first, amperes={Phase.L1: 24.0, Phase.L2: 10.5, Phase.L3: 0.0}),)
    if re.match(r"L\d\s*=", text) and not os.path.exists(text):
        return (replace(first, amperes=_amperes_of_words(text)),)
    try:
        table = tomllib.loads(Path(text).read_bytes().decode())
    except (OSError, ValueError, RecursionError) as error:
        raise ScenarioError(f"scenario {text!r}: {error}") from error
    return _scenario(table, text, first)


def _amperes_of_words(text: str) -> Mapping[Phase, float]:
    amperes = {}
    for word in text.split(","):
        name, _, value = (part.strip() for part in word.partition("="))
        amperes[name] = value
    return _amperes(amperes, f"scenario {text!r}")


def _scenario(table: Mapping[str, Any], file: str, first: Step) -> Scenario:
    if set(table) - {"step"} or not isinstance(table.get("step", []), list):
        raise ScenarioError(f"scenario {file}: only [[step]] tables are known")
    steps = [first]
    for number, entry in enumerate(table.get("step", []), 1):
        where = f"scenario {file}: step {number}"
        step = _step(entry, steps[-1], where)
        if step.at_seconds < steps[-1].at_seconds:
            raise ScenarioError(f"{where}: at_seconds must not go back")
        # A step at the time of the one before completes it.
        if step.at_seconds == steps[-1].at_seconds:
            steps.pop()
        steps.append(step)
    return tuple(steps)


def _step(entry: Any, previous: Step, where: str) -> Step:
    readers: Mapping[str, Callable[[Any, str], Any]] = {
        "at_seconds": _number,
        "amperes": _amperes,
        "frequency_hz": _number,
        "harmonics_percent": _harmonics,
        "gain_error_percent": _gain_errors,
        "shift_amperes": _amperes,
        "request": _request,
        "stall_seconds": _number,
        "reference": _number,
    }
    changes: dict[str, Any] = {"stall_seconds": 0.0}
    for key, value in _table(entry, where).items():
        if key not in readers:
            raise ScenarioError(f"{where}: unknown key {key!r}; known are {', '.join(readers)}")
        changes[key] = readers[key](value, f"{where}: {key}")
    return replace(previous, **changes)


def _signed(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (OverflowError, TypeError, ValueError):
        number = math.nan
    if not abs(number) < 1e6:
        raise ScenarioError(f"{where}: {value!r} is not a number below a million")
    return number


def _number(value: Any, where: str) -> float:
    if (number := _signed(value, where)) < 0:
        raise ScenarioError(f"{where}: {value!r} is not a number from 0 up")
    return number


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ScenarioError(f"{where}: must be a table such as {{ L1 = 24 }}")
    return value


def _amperes(value: Any, where: str) -> Mapping[Phase, float]:
    table = _table(value, where)
    unknown = set(table) - set(Phase)
    if unknown:
        raise ScenarioError(f"{where}: {', '.join(sorted(unknown))} is not one of L1, L2, L3")
    return {Phase(name): _signed(amperes, f"{where}: {name}") for name, amperes in table.items()}


def _gain_errors(value: Any, where: str) -> Mapping[Phase, float]:
    errors = _amperes(value, where)
    for phase, error in errors.items():
        if error < -99:
            raise ScenarioError(f"{where}: {phase}: {error:g} is not a number from -99 up")
    return errors


def _harmonics(value: Any, where: str) -> Mapping[int, float]:
    table = _table(value, where)
    if not all(re.fullmatch(r"[2-9]|[1-9][0-9]{1,2}", order) for order in table):
        raise ScenarioError(f"{where}: an order is a whole number from 2 to 999")
    return {int(order): _number(part, f"{where}: {order}") for order, part in table.items()}


def _request(value: Any, where: str) -> Request:
    try:
        return Request(value)
    except ValueError:
        choices = ", ".join(f'"{choice}"' for choice in Request)
        raise ScenarioError(f"{where}: {value!r} is not one of {choices}") from None
