# SPDX-License-Identifier: Apache-2.0
"""The errors that csp1d reports to its user. Each names the thing, the reason and the remedy."""

from dataclasses import dataclass
from pathlib import Path


class DeviceError(OSError):
    """A device cannot be opened or used; names the device, the reason and the remedy."""


class DeviceAbsentError(DeviceError):
    """A device does not exist; not reported again after that device was lost."""


@dataclass(frozen=True)
class Problem:
    """One fault of a file: the file, the key ("" for the file itself) and the reason."""

    file: Path
    key: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.file), self.key, self.reason) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds all faults found, at least one."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class CaptureError(Exception):
    """A capture that cannot be used or written: names file, key and remedy."""


class ScenarioError(ValueError):
    """A scenario that cannot be played: what is wrong, and where."""


class ScanTypeError(ValueError):
    """A `_type` that the kernel would not write."""


class ScanFormatError(ValueError):
    """Elements that do not form a scan, or bytes that are not whole scans."""
