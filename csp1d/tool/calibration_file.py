# SPDX-License-Identifier: Apache-2.0
"""The drop-in that holds the calibration: FILE.d/50-calibration.toml.

It belongs to `csp1ctl calibrate`, which writes it anew and keeps what it holds of other phases.
"""

import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from csp1d.config_file import drop_in_folder, origins
from csp1d.errors import ConfigError, Problem
from csp1d.phase import Phase

_NAME = "50-calibration.toml"
_KEYS = ("gain", "noise_floor_amperes")

Table = Mapping[str, Mapping[str, float]]
"""Keys and values by phase."""


class CalibrationFile:
    """Raises ConfigError where the file can not be written for these phases, or not to effect."""

    def __init__(self, config_path: Path, phases: Iterable[Phase]) -> None:
        folder = drop_in_folder(config_path)
        self.path = folder / _NAME
        problems = [*_overriding(config_path, self.path, phases)]
        self._present = _present(self.path, problems)
        holder = folder if folder.exists() else folder.parent
        if not os.access(holder, os.W_OK):
            problems.append(Problem(self.path, "", "can not be written; run it as root (sudo)"))
        if problems:
            raise ConfigError(problems)

    def write(self, table: Table) -> None:
        """Replace the file as a whole; what it held besides stays. Raises ConfigError."""
        merged = dict(self._present)
        for phase, values in table.items():
            merged[phase] = {**merged.get(phase, {}), **values}
        draft = self.path.with_name(f".{_NAME}.new")
        try:
            # The daemon is another user, whatever the umask here.
            if not self.path.parent.exists():
                self.path.parent.mkdir()
                self.path.parent.chmod(0o755)
            with draft.open("w") as file:
                file.write(toml(merged))
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o644)
            draft.replace(self.path)
        except OSError as error:
            raise ConfigError(
                [Problem(self.path, "", f"can not be written: {error.strerror}")]
            ) from error


def toml(table: Table) -> str:
    """The file's content."""
    parts = ["# Written by csp1ctl calibrate, anew each time. Other settings belong elsewhere.\n"]
    for phase in sorted(table):
        keys = "".join(f"{key} = {float(value)!r}\n" for key, value in table[phase].items())
        parts.append(f"[channels.{phase}]\n{keys}")
    return "\n".join(parts)


def _present(path: Path, problems: list[Problem]) -> Table:
    """What the file holds, as far as it may hold it."""
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(Problem(path, "", f"can not be read: {error}"))
        return {}
    channels = settings.pop("channels", {})
    foreign = [
        *settings,
        *(
            f"channels.{phase}.{key}"
            for phase, keys in channels.items()
            for key in keys
            if key not in _KEYS
        ),
    ]
    for key in foreign:
        problems.append(
            Problem(path, key, "would be lost when this file is written; move it to another one")
        )
    return dict(channels)


def _overriding(config_path: Path, path: Path, phases: Iterable[Phase]) -> list[Problem]:
    """The keys that would stay without effect here, since a later drop-in sets them."""
    set_in = origins(config_path)
    names = (f"channels.{phase}.{key}" for phase in phases for key in _KEYS)
    return [
        Problem(set_in[name], name, f"has the last word over {path.name}; remove it there")
        for name in names
        if name in set_in and set_in[name].parent == path.parent and set_in[name].name > path.name
    ]
