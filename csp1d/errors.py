# SPDX-License-Identifier: Apache-2.0
"""The errors that csp1d reports to its user. Each names the thing, the reason and the remedy."""

from dataclasses import dataclass
from pathlib import Path


def printable(text: str) -> str:
    """Text for a terminal: others' control characters, which can move its cursor, become "?"."""
    return "".join(char if char.isprintable() else "?" for char in text)


class DeviceError(OSError):
    """A device cannot be opened or used; names the device, the reason and the remedy."""


class DeviceAbsentError(DeviceError):
    """A device that does not exist. If that device was lost before, it is not reported again."""


@dataclass(frozen=True)
class Problem:
    """One problem in a file."""

    file: Path
    key: str
    """"" if the problem is the file itself."""
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.file), self.key, self.reason) if part)


class FileError(Exception):
    """Input that cannot be used; `problems` holds all that is wrong, at least one."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class ConfigError(FileError):
    """The configuration."""


class CaptureError(FileError):
    """A capture, also one that cannot be written."""


class ScenarioError(FileError):
    """A scenario for the simulated HAT."""


class ScanTypeError(ValueError):
    """A `_type` that the kernel would not write."""


class ScanFormatError(ValueError):
    """Elements that do not form a scan, or bytes that are not whole scans."""
