# SPDX-License-Identifier: Apache-2.0
"""From decoded tables to dataclasses: what each annotation accepts, and what is reported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from csp1d.config import AdcConfig
from csp1d.loading import Loader, decode_toml, key, matches, problem, within
from csp1d.phase import Phase
from csp1d.scan_type import ScanType


def _even(text: str) -> int:
    if int(text) % 2:
        raise ValueError("must be even")
    return int(text)


@dataclass(frozen=True)
class Inner:
    size: int = 1
    name: str = key(matches("[a-z]+", "small letters"), default="a")


@dataclass(frozen=True)
class Outer:
    flag: bool = False
    count: int = key(within(0, 10), default=0)
    ratio: float = key(within(-1e9, 1e9), default=0.5)
    text: str = ""
    either: str | int = ""
    number: float | None = None
    choice: Literal["a", 50] = "a"
    phase: Phase = Phase.L1
    stored: ScanType | None = key(parse=ScanType.parse, default=None)
    amperes: Mapping[Phase, float] = key(within(0, 80), default_factory=dict)
    orders: Mapping[int, str] = key(parse=_even, default_factory=dict)
    phases: frozenset[Phase] = frozenset()
    inner: Inner = Inner(7)
    maybe: Inner | None = None
    inners: tuple[Inner, ...] = ()
    anything: Any = None


ACCEPTED: list[tuple[str, object, object]] = [
    ("flag", True, True),
    ("count", 10, 10),
    ("ratio", 3, 3),
    ("ratio", 2.5, 2.5),
    ("text", "x", "x"),
    ("either", 3, 3),
    ("either", "3", "3"),
    ("number", None, None),
    ("number", 1.5, 1.5),
    ("choice", 50, 50),
    ("phase", "L2", Phase.L2),
    ("stored", "le:s12/16>>4", ScanType(False, True, 12, 16, 4)),
    ("stored", None, None),
    ("amperes", {"L1": 1, "L3": 2.5}, {Phase.L1: 1, Phase.L3: 2.5}),
    ("orders", {"2": "x"}, {2: "x"}),
    ("phases", ["L1", "L3"], frozenset({Phase.L1, Phase.L3})),
    ("inner", {"name": "b"}, Inner(7, "b")),
    ("anything", [{}], [{}]),
]


@pytest.mark.parametrize(("name", "value", "made"), ACCEPTED)
def test_accepted_values(name: str, value: object, made: object) -> None:
    loader = Loader()
    result = getattr(loader.override(Outer(), {name: value}), name)
    assert (loader.problems, result, type(result)) == ([], made, type(made))


REPORTED: list[tuple[str, object, str, str]] = [
    ("flag", 1, "flag", "must be true or false, got 1"),
    ("count", True, "count", "must be a whole number, got true"),
    ("count", 1.0, "count", "must be a whole number, got 1.0"),
    ("count", 11, "count", "must be between 0 and 10, got 11"),
    ("ratio", "1", "ratio", "must be a number, got '1'"),
    ("ratio", False, "ratio", "must be a number, got false"),
    ("ratio", float("nan"), "ratio", "must be a finite number, got nan"),
    ("ratio", 10**400, "ratio", "must be a finite number, got a very long number"),
    ("ratio", 2e9, "ratio", "must be between -1000000000 and 1000000000, got 2000000000.0"),
    ("text", ["x"], "text", "must be a string, got a list"),
    ("text", None, "text", "must be a string, got null"),
    ("text", {"x" * 99: 1}, "text", "must be a string, got a table of keys"),
    ("either", 1.5, "either", "must be a string or a whole number, got 1.5"),
    ("number", "x" * 99, "number", f"must be a number, got '{'x' * 79}..."),
    ("choice", 50.0, "choice", "must be one of 'a', 50, got 50.0"),
    ("choice", "50", "choice", "must be one of 'a', 50, got '50'"),
    ("phase", "L4", "phase", "must be one of 'L1', 'L2', 'L3', got 'L4'"),
    ("stored", 3, "stored", "must be a string, got 3"),
    ("amperes", 24, "amperes", "must be a table of keys, got 24"),
    ("amperes", {"L4": 1}, "amperes.L4", "must be one of 'L1', 'L2', 'L3', got 'L4'"),
    ("amperes", {"L2": 81}, "amperes.L2", "must be between 0 and 80, got 81"),
    ("orders", {"3": "x"}, "orders.3", "must be even"),
    ("phases", "L1", "phases", "must be a list, got 'L1'"),
    ("phases", ["L1", 2], "phases[1]", "must be one of 'L1', 'L2', 'L3', got 2"),
    ("inner", 3, "inner", "must be a table of keys, got 3"),
    ("inner", {"name": "A"}, "inner.name", "must be small letters, got 'A'"),
    ("inner", {"nam": "a"}, "inner.nam", "unknown key; did you mean 'name'?"),
    ("inner", {"x": "a"}, "inner.x", "unknown key; known keys: size, name"),
]


@pytest.mark.parametrize(("name", "value", "at", "reason"), REPORTED)
def test_reported_values(name: str, value: object, at: str, reason: str) -> None:
    loader = Loader()
    result = loader.override(Outer(), {name: value})
    assert loader.problems == [(at, reason)]
    assert name in ("amperes", "orders", "phases") or result == Outer()


def test_all_problems_are_reported_and_the_rest_is_applied() -> None:
    loader = Loader()
    table = {"flag": 1, "count": 3, "inner": {"size": "x", "name": "b"}, "nonsense": 1}
    result = loader.override(Outer(text="kept"), table)
    assert result == Outer(count=3, text="kept", inner=Inner(7, "b"))
    assert [place for place, _ in loader.problems] == ["nonsense", "flag", "inner.size"]
    assert loader.keys == ["flag", "count", "inner.size", "inner.name"]


COMPLETE = {
    "flag": True,
    "count": 1,
    "ratio": 1.5,
    "text": "",
    "either": "",
    "number": None,
    "choice": "a",
    "phase": "L1",
    "stored": None,
    "amperes": {},
    "orders": {},
    "phases": [],
    "inner": {"size": 2, "name": "b", "later": 1},
    "maybe": {"size": 3, "name": "c"},
    "inners": [{"size": 4, "name": "d"}],
    "anything": None,
    "later": 1,
}


def test_a_document_of_a_program_may_have_more_keys_but_not_less() -> None:
    loader = Loader()
    assert loader.build(Outer, COMPLETE) == Outer(
        True, 1, 1.5, inner=Inner(2, "b"), maybe=Inner(3, "c"), inners=(Inner(4, "d"),)
    )
    for name in COMPLETE.keys() - {"later"}:
        loader = Loader()
        assert loader.build(Outer, {k: v for k, v in COMPLETE.items() if k != name}) is None
        assert loader.problems == [(name, "is missing")]


def test_a_wrong_document_is_none_with_all_problems() -> None:
    loader = Loader()
    assert loader.build(Outer, COMPLETE | {"inners": [{"size": 1}, 3], "flag": 0}) is None
    assert loader.problems == [
        ("flag", "must be true or false, got 0"),
        ("inners[0].name", "is missing"),
        ("inners[1]", "must be a table of keys, got 3"),
    ]
    loader = Loader()
    assert loader.build(Outer, []) is None
    assert loader.problems == [("", "must be a table of keys, got a list")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x = 1\nx = 2", "is not TOML: "),
        (b"x = " + b"[" * 5000, "is not TOML: "),
        (b"x = " + b"9" * 5000, "is not TOML: "),
        (b"\xff", "is not UTF-8 at byte 0"),
        (b"\xef\xbb\xbfx = 1", "starts with a byte order mark; save it without one"),
    ],
)
def test_bytes_that_are_not_toml(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}"):
        decode_toml(data)


def test_the_limits_of_the_configuration_for_others() -> None:
    assert problem(AdcConfig, "sampling_frequency_hz", 200) is None
    assert (
        problem(AdcConfig, "sampling_frequency_hz", 10) == "must be between 200 and 1000000, got 10"
    )
    assert problem(AdcConfig, "device", "a/b") == "must be a name without '/' or spaces, got 'a/b'"
