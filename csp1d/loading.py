# SPDX-License-Identifier: Apache-2.0
"""Decoded TOML or JSON as dataclasses, with everything that is wrong in it.

The dataclasses are the schema: the annotation of a field is the type of its key, `key()` adds
checks. Problems are collected, not raised, so that the user sees all of them at once.
"""

import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field, fields, is_dataclass
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

T = TypeVar("T")

Check = Callable[[Any], object]
"""Raises ValueError with the reason if a value is wrong."""

_TYPE_NAMES: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "a table of keys",
}


def key(*checks: Check, parse: Callable[[str], Any] | None = None, **default: Any) -> Any:
    """A dataclass field for a key, with `default` or `default_factory`.

    The checks apply to the value, or to each value of a mapping. `parse` makes the value (or each
    name in a mapping) from a string; it raises ValueError with the reason.
    """
    return field(metadata={"checks": checks, "parse": parse}, **default)


def within(low: float, high: float) -> Check:
    """A number from `low` to `high`, both included."""

    def check(value: float) -> None:
        if not low <= value <= high:
            raise wrong(f"between {low:.10g} and {high:.10g}", value)

    return check


def matches(pattern: str, meaning: str) -> Check:
    """A string that `pattern` matches as a whole; `meaning` describes it."""

    def check(value: str) -> None:
        if not re.fullmatch(pattern, value):
            raise wrong(meaning, value)

    return check


def wrong(expected: str, value: object) -> ValueError:
    """The reason why a value is wrong; what is nested in it is left out."""
    match value:
        case dict():
            text = "a table of keys"
        case list():
            text = "a list"
        case bool():
            text = str(value).lower()
        case None:
            text = "null"
        case int() if abs(value) > 10**80:
            text = "a very long number"
        case _:
            text = repr(value)
    return ValueError(f"must be {expected}, got {text if len(text) < 80 else f'{text[:80]}...'}")


def decode_toml(data: bytes) -> dict[str, Any]:
    """The content of a TOML file. Raises ValueError with the reason."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from error
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark; save it without one")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not TOML: {error}") from error


def problem(table_class: Callable[[], Any], name: str, value: object) -> str | None:
    """Why a configuration table rejects a value for a key, None if it accepts the value."""
    loader = Loader()
    loader.override(table_class(), {name: value})
    return loader.problems[0][1] if loader.problems else None


class Loader:
    """Makes dataclasses from decoded tables.

    Attributes:
        problems: what is wrong, as (key, reason); "" is the whole document. A key in a nested table
            is "table.key", the first entry of a list "list[0]".
        keys: the known keys that a document sets, tables excluded.
    """

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []
        self.keys: list[str] = []

    def override(self, default: T, table: object, key: str = "") -> T:
        """A copy of `default` with the values that a person has set in `table`.

        Unknown keys are problems. A wrong value leaves the default in place.
        """
        made: T = self._value(type(default), default, table, key)
        return made

    def build(self, kind: type[T], table: object) -> T | None:
        """An instance of `kind` from a document that a program has written; None if it is wrong.

        A missing key is a problem even if the field has a default. Unknown keys are ignored: a
        later version may have added them.
        """
        made: T | None = self._value(kind, None, table, "")
        return None if self.problems else made

    def _value(self, kind: Any, usual: Any, value: Any, key: str, **metadata: Any) -> Any:
        """The value as `kind` requires it; `usual` after a problem."""
        try:
            return self._convert(kind, usual, value, key, **metadata)
        except ValueError as error:
            self.problems.append((key, str(error)))
            return usual

    def _convert(
        self, kind: Any, usual: Any, value: Any, key: str, checks: Any = (), parse: Any = None
    ) -> Any:
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        if kind is Any or (value is None and NoneType in kinds):
            return value
        kind, origin, arguments = kinds[0], get_origin(kinds[0]), get_args(kinds[0])
        if origin in (tuple, frozenset):
            return origin(
                self._value(arguments[0], None, entry, f"{key}[{number}]", checks=checks)
                for number, entry in enumerate(_typed(value, list))
            )
        if origin is Mapping:
            made = {}
            for name, entry in _typed(value, dict).items():
                place = f"{key}.{name}"
                name = self._value(arguments[0], None, name, place, parse=parse)
                made[name] = self._value(arguments[1], None, entry, place, checks=checks)
            return made
        if parse:
            return parse(_typed(value, str))
        if is_dataclass(kind):
            return self._table(kind, usual, _typed(value, dict), f"{key}." if key else "")
        if origin is Literal or issubclass(kind, Enum):
            return _choice(value, arguments or tuple(kind))
        _typed(value, *(kind for kind in kinds if kind is not NoneType))
        # Written so that NaN, which compares false with everything, does not pass.
        if float in kinds and not abs(value) <= sys.float_info.max:
            raise wrong("a finite number", value)
        for check in checks:
            check(value)
        return value

    def _table(self, kind: Any, default: Any, table: Mapping[str, Any], prefix: str) -> Any:
        specs = {spec.name: spec for spec in fields(kind)}
        self.keys += [prefix + n for n in table if n in specs and not is_dataclass(specs[n].type)]
        if default is not None:
            self.problems += [
                (prefix + name, _unknown(name, specs)) for name in table if name not in specs
            ]
        values = {}
        for name, spec in specs.items():
            usual = None if default is None else getattr(default, name)
            if name in table:
                usual = self._value(spec.type, usual, table[name], prefix + name, **spec.metadata)
            elif default is None:
                self.problems.append((prefix + name, "is missing"))
            values[name] = usual
        return kind(**values)


def _typed(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        raise wrong(" or ".join(_TYPE_NAMES[kind] for kind in kinds), value)
    return value


def _choice(value: Any, choices: Iterable[Any]) -> Any:
    # 1 == True and 50 == 50.0 in Python; a document means one of them.
    for choice in choices:
        if value == choice and type(value) in (str, type(choice)):
            return choice
    raise wrong("one of " + ", ".join(repr(getattr(c, "value", c)) for c in choices), value)


def _unknown(name: str, known: Iterable[str]) -> str:
    import difflib  # Only now: it is rare, and takes memory.

    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
    return f"unknown key; {hint}"
