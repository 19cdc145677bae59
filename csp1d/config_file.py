# SPDX-License-Identifier: Apache-2.0
"""From files to a configuration, or to all that is wrong with them.

Reading is a merge of the file and its drop-ins, key by key, that remembers which file set a key, so
that every complaint names file, key and reason. All complaints are given at once.
"""

import math
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from csp1d.config import Config
from csp1d.errors import ConfigError, Problem

DEFAULT_PATH = Path("/etc/csp1d/csp1d.toml")


def load(path: Path) -> Config:
    """The configuration of a file and its drop-ins; a file that is not there counts as empty.

    Drop-ins are `PATH.d/*.toml` in the order of their names; they override key by key.
    Raises ConfigError with every problem of every file.
    """
    problems: list[Problem] = []
    settings = _settings(path, problems)
    config: Config = _build(Config, "", settings, problems, path)
    if not problems:
        problems += _contradictions(config, settings, path)
    if problems:
        raise ConfigError(problems)
    return config


def origins(path: Path) -> Mapping[str, Path]:
    """Which file sets a key, for all keys that `path` and its drop-ins set.

    Of a configuration that `load()` takes; what is wrong in another one is left out.
    """
    return {key: file for key, (_, file) in _settings(path, []).items()}


def drop_in_folder(path: Path) -> Path:
    """Where the drop-ins of a configuration lie."""
    return path.parent / f"{path.name}.d"


def _settings(path: Path, problems: list[Problem]) -> dict[str, tuple[Any, Path]]:
    """The value of each key that is set, and the file that sets it."""
    settings: dict[str, tuple[Any, Path]] = {}
    for file in [path, *_drop_ins(path, problems)]:
        table = _read(file, problems, required=file != path)
        _collect(Config, table, "", file, settings, problems)
    return settings


def _drop_ins(path: Path, problems: list[Problem]) -> list[Path]:
    folder = drop_in_folder(path)
    try:
        # Not by glob(), which finds nothing in a folder that it may not read.
        names = sorted(os.listdir(folder))
        return [folder / n for n in names if n.endswith(".toml") and not n.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem(folder, "", f"can not be read: {error.strerror}"))
        return []


def _is_endless(file: Path) -> bool:
    """Whether it is a pipe or a device, which might be waited for, or never end."""
    special = file.is_fifo() or file.is_char_device() or file.is_block_device()
    # Which one puts in the place of a file to make it empty (systemd.unit(5)).
    return special and file.stat().st_rdev != os.stat(os.devnull).st_rdev


def _read(file: Path, problems: list[Problem], required: bool) -> Mapping[str, Any]:
    try:
        if _is_endless(file):
            problems.append(Problem(file, "", "is a pipe or a device; a file is needed"))
            return {}
        text = file.read_bytes().decode()
        if text.startswith("\ufeff"):
            problems.append(Problem(file, "", "starts with a byte order mark; save it without"))
            return {}
        return tomllib.loads(text)
    except FileNotFoundError as error:
        if required:
            problems.append(Problem(file, "", f"can not be read: {error.strerror}"))
    except OSError as error:
        problems.append(Problem(file, "", f"can not be read: {error.strerror}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(file, "", f"is not UTF-8 at byte {error.start}"))
    except (ValueError, RecursionError) as error:
        problems.append(Problem(file, "", f"is not TOML: {error}"))
    return {}


def _collect(
    table_class: type,
    table: Mapping[str, Any],
    prefix: str,
    file: Path,
    settings: dict[str, tuple[Any, Path]],
    problems: list[Problem],
) -> None:
    """Put each key of one file into `settings`, where it replaces what an earlier file set."""
    known = typing.get_type_hints(table_class)
    for name, value in table.items():
        key = prefix + name
        if name not in known:
            import difflib  # Only now: it is rare, and takes memory.

            close = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}"
            problems.append(Problem(file, key, f"unknown key; {hint}"))
        elif not is_dataclass(known[name]):
            settings[key] = value, file
        elif isinstance(value, dict):
            _collect(known[name], value, f"{key}.", file, settings, problems)
        else:
            problems.append(Problem(file, key, "must be a table"))


def _build(
    table_class: Any,
    prefix: str,
    settings: Mapping[str, tuple[Any, Path]],
    problems: list[Problem],
    path: Path,
    default: Any = None,
) -> Any:
    """An instance of the dataclass from what was set; what was not keeps the default's value."""
    default = table_class() if default is None else default
    hints = typing.get_type_hints(table_class)
    values = {}
    for spec in fields(table_class):
        key, kind, usual = prefix + spec.name, hints[spec.name], getattr(default, spec.name)
        if is_dataclass(kind):
            values[spec.name] = _build(kind, f"{key}.", settings, problems, path, usual)
            continue
        value, file = settings.get(key, (usual, path))
        reason = _mistyped(value, kind) or next(
            filter(None, (check(value) for check in spec.metadata["checks"])), None
        )
        if reason:
            problems.append(Problem(file, key, f"{reason}, not {_shown(value)}"))
        values[spec.name] = value
    return table_class(**values)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) < 80 else f"{text[:80]}..."


_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _mistyped(value: Any, kind: Any) -> str | None:
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        # 1 == True and 50 == 50.0 in Python; a configuration means one of them.
        if any(type(value) is type(choice) and value == choice for choice in choices):
            return None
        return "must be one of " + ", ".join(repr(choice) for choice in choices)
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    accepted = {*kinds, int} if float in kinds else {*kinds}
    if type(value) not in accepted:
        return "must be " + " or ".join(_TYPE_WORDS[each] for each in kinds)
    if type(value) is float and not math.isfinite(value):
        return "must be a finite number"
    return None


def _contradictions(
    config: Config, settings: Mapping[str, tuple[Any, Path]], path: Path
) -> list[Problem]:
    """What is wrong between keys that are each right alone."""

    def problem(key: str, reason: str) -> Problem:
        return Problem(settings.get(key, (None, path))[1], key, reason)

    found = []
    owner: dict[str, str] = {}
    phase: str
    for phase, channel in config.channels.used().items():
        other = owner.setdefault(channel.input, phase)
        if other != phase:
            # Of the two that one is to blame which somebody has set.
            if f"channels.{phase}.input" not in settings:
                phase, other = other, phase
            found.append(
                problem(
                    f"channels.{phase}.input",
                    f"{channel.input!r} is the input of {other} already; each phase needs its own",
                )
            )
    if not owner:
        found.append(problem("channels", "no phase has an input; set at least one"))
    if config.direction.reference != "off" and config.direction.input in owner:
        phase = owner[config.direction.input]
        key = "direction.input"
        if key not in settings and f"channels.{phase}.input" in settings:
            key = f"channels.{phase}.input"
        found.append(
            problem(
                key,
                f"{config.direction.input!r} can not serve both {phase} and the reference; set"
                f" direction.input and channels.{phase}.input to different inputs",
            )
        )
    http = config.http
    if bool(http.tls_certificate) != bool(http.tls_key):
        found.append(problem("http.tls_certificate", "a certificate and http.tls_key go together"))
    if http.tls_client_ca and not http.tls_certificate:
        found.append(problem("http.tls_client_ca", "needs http.tls_certificate and http.tls_key"))
    return found
