# SPDX-License-Identifier: Apache-2.0
"""The drop-in that holds the calibration: FILE.d/50-calibration.toml.

Only `csp1ctl calibrate` writes it. It rewrites the file and keeps the values of other phases.
"""

import os
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from csp1d.config_file import drop_in_folder, origins
from csp1d.errors import ConfigError, Problem
from csp1d.phase import Phase
from csp1d.tool.output import replacing, sync_folder, write_fault

_NAME = "50-calibration.toml"
_KEYS = ("gain", "noise_floor_amperes")

Table = Mapping[str, Mapping[str, float]]
"""Keys and values by phase."""


class CalibrationFile:
    """Raises ConfigError if the file cannot be written, or would have no effect on these phases.

    Not if only root may write it: `denied` is the reason then. A member of the group csp1d can
    measure all the same, and save what `content` returns as root.
    """

    def __init__(self, config_path: Path, phases: Iterable[Phase]) -> None:
        self.denied = ""
        folder = drop_in_folder(config_path)
        self.path = folder / _NAME
        problems = [*_overriding(config_path, self.path, phases)]
        self._present = _present(self.path, problems)
        holder = folder if folder.exists() else folder.parent
        try:
            # Writing tells more than access(2): why not, which decides on the remedy.
            tempfile.TemporaryFile(dir=holder).close()
        except OSError as error:
            if isinstance(error, PermissionError) and os.geteuid():
                self.denied = write_fault(error)
            else:
                problems.append(Problem(self.path, "", write_fault(error)))
        if problems:
            raise ConfigError(problems)

    def content(self, table: Table) -> str:
        """The new content of the file: these values and those it held before."""
        merged = dict(self._present)
        for phase, values in table.items():
            merged[phase] = {**merged.get(phase, {}), **values}
        return toml(merged)

    def write(self, table: Table) -> None:
        """Replace the file by its new content. Raises ConfigError."""
        try:
            # Readable by the daemon's user, whatever the umask.
            if not self.path.parent.exists():
                self.path.parent.mkdir()
                self.path.parent.chmod(0o755)
                sync_folder(self.path.parent.parent)
        except OSError as error:
            raise ConfigError([Problem(self.path, "", write_fault(error))]) from error
        with replacing(self.path, ConfigError, mode=0o644) as file:
            file.write(self.content(table).encode())


def toml(table: Table) -> str:
    """The content of the file."""
    parts = ["# Written by csp1ctl calibrate. Other settings belong in another file.\n"]
    for phase in sorted(table):
        keys = "".join(f"{key} = {float(value)!r}\n" for key, value in table[phase].items())
        parts.append(f"[channels.{phase}]\n{keys}")
    return "\n".join(parts)


def _present(path: Path, problems: list[Problem]) -> Table:
    """The values in the file; adds a problem for each other key, which a rewrite would lose."""
    try:
        settings = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problems.append(Problem(path, "", f"cannot be read: {error}"))
        return {}
    channels = settings.pop("channels", {})
    foreign = [*settings]
    foreign += [
        f"channels.{phase}.{key}"
        for phase, keys in channels.items()
        for key in keys
        if key not in _KEYS
    ]
    reason = "would be lost when csp1ctl rewrites this file; move it to another drop-in"
    problems += [Problem(path, key, reason) for key in foreign]
    return dict(channels)


def _overriding(config_path: Path, path: Path, phases: Iterable[Phase]) -> list[Problem]:
    """A problem for each key that a later drop-in sets."""
    set_in = origins(config_path)
    names = (f"channels.{phase}.{key}" for phase in phases for key in _KEYS)
    return [
        Problem(set_in[name], name, f"overrides {path.name}; remove it")
        for name in names
        if name in set_in and set_in[name].parent == path.parent and set_in[name].name > path.name
    ]
