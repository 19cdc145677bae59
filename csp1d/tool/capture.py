# SPDX-License-Identifier: Apache-2.0
"""Captures: raw scans in a file, and what they are in another, to measure again at any time.

NAME.json says how NAME.bin is laid out, with the same words as the kernel's files do. The length
of a scan stands there as well although it follows from the rest: where the two disagree, one of
the files is not what it seems, and every current would be wrong.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csp1d.config import ChannelConfig, DirectionConfig, MeasurementConfig
from csp1d.errors import CaptureError, ScanFormatError
from csp1d.measuring.replay import Replay
from csp1d.measuring.scan import LARGEST, Channel, ScanFormat, Timestamp
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

_PHASES = (*Phase, "reference")
_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Capture:
    """Scans on disk."""

    format: ScanFormat
    scans_path: Path

    def chunks(self) -> Iterator[bytes]:
        """All scans, some at a time; raises CaptureError where they can not be read."""
        size = self.format.scan_bytes
        try:
            with open(self.scans_path, "rb") as file:
                while chunk := file.read(max(1, _CHUNK_BYTES // size) * size):
                    if len(chunk) % size:
                        raise CaptureError(
                            f"{self.scans_path}: changed while it was read;"
                            " wait until it is recorded"
                        )
                    yield chunk
        except OSError as error:
            raise CaptureError(
                f"{self.scans_path}: can not be read: {error.strerror}; make it readable"
            ) from error


def save(name: str | os.PathLike[str], scan_format: ScanFormat, chunks: Iterable[bytes]) -> int:
    """Write NAME.json and NAME.bin; the number of scans. The scans are written as they come.

    Raises CaptureError where a file can not be written.
    """
    description = {
        "sampling_frequency_hz": scan_format.sampling_frequency_hz,
        "scan_bytes": scan_format.scan_bytes,
        "channels": [
            {
                "id": channel.id,
                "phase": str(channel.phase),
                "index": channel.index,
                "type": str(channel.type),
                "scale": channel.scale,
                "offset": channel.offset,
            }
            for channel in scan_format.channels
        ],
        "timestamp": scan_format.timestamp
        and {
            "index": scan_format.timestamp.index,
            "type": str(scan_format.timestamp.type),
        },
    }
    json_path, scans_path = _paths(name)
    path, written = json_path, 0
    try:
        json_path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        path = scans_path
        with open(scans_path, "wb") as file:
            for chunk in chunks:
                written += file.write(chunk)
    except OSError as error:
        if error.errno is None:
            raise  # not of the file: where the chunks come from has something to say
        raise CaptureError(
            f"{path}: can not be written: {error.strerror};"
            " choose a NAME in a folder that is there, may be written to and has room"
        ) from error
    return written // scan_format.scan_bytes


def load(name: str | os.PathLike[str]) -> Capture:
    """The capture NAME.json and NAME.bin; raises CaptureError."""
    json_path, scans_path = _paths(name)
    try:
        description = json.loads(json_path.read_text(encoding="utf-8"))
        scans_length = scans_path.stat().st_size
    except OSError as error:
        raise CaptureError(
            f"{error.filename or json_path}: {error.strerror};"
            " a capture is NAME.json with NAME.bin beside it"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CaptureError(f"{json_path}: not JSON ({error}); record the capture anew") from error
    top = _Keys(json_path, "", description)
    frequency = top.number("sampling_frequency_hz")
    channels = tuple(_channel(keys) for keys in top.tables("channels"))
    timestamp = None
    if top.value("timestamp") is not None:
        keys = _Keys(json_path, "timestamp.", top.value("timestamp"))
        timestamp = Timestamp(keys.integer("index"), keys.scan_type("type"))
    try:
        scan_format = ScanFormat(frequency, channels, timestamp)
    except ScanFormatError as error:
        raise CaptureError(f"{json_path}: {error}") from error
    if top.integer("scan_bytes") != scan_format.scan_bytes:
        raise top.error(
            "scan_bytes",
            f"is {top.integer('scan_bytes')}, but with these types a scan has"
            f" {scan_format.scan_bytes} bytes; correct the type that is wrong, or add the channel"
            " that is missing",
        )
    if rest := scans_length % scan_format.scan_bytes:
        raise CaptureError(
            f"{scans_path}: {scans_length} bytes are not whole scans of {scan_format.scan_bytes}"
            f" bytes; cut it to {scans_length - rest}, or record it anew"
        )
    return Capture(scan_format, scans_path)


def replay(
    capture: Capture,
    channels: Mapping[Phase, ChannelConfig],
    measurement: MeasurementConfig,
    direction: DirectionConfig | None = None,
    reference: ChannelConfig | None = None,
) -> Replay:
    """The readings of a capture; see `Replay`.

    Raises CaptureError if the capture does not fit the configuration, and while it is iterated
    if the scans cannot be read.
    """
    try:
        return Replay(capture.format, capture.chunks(), channels, measurement, direction, reference)
    except ValueError as error:
        raise CaptureError(f"{capture.scans_path}: {error}") from error


def _paths(name: str | os.PathLike[str]) -> tuple[Path, Path]:
    return Path(f"{os.fspath(name)}.json"), Path(f"{os.fspath(name)}.bin")


def _channel(keys: "_Keys") -> Channel:
    phase = keys.text("phase")
    if phase not in _PHASES:
        raise keys.error("phase", f"is {phase!r}; write one of {', '.join(_PHASES)}")
    return Channel(
        id=keys.text("id"),
        phase=phase,
        index=keys.integer("index"),
        type=keys.scan_type("type"),
        scale=keys.number("scale"),
        offset=keys.number("offset"),
    )


def _shown(value: Any) -> str:
    """A JSON value for a complaint: short, and not what is nested in it."""
    match value:
        case list():
            return "a list"
        case dict():
            return "an object"
    return f"{value!r:.40}"


class _Keys:
    """Values of a JSON object, with complaints that say where they are wrong."""

    def __init__(self, path: Path, prefix: str, values: Any) -> None:
        self._path, self._prefix, self._values = path, prefix, values
        if not isinstance(values, dict):
            raise CaptureError(f"{path}: {prefix.rstrip('.') or 'the whole'}: write an object")

    def error(self, key: str, text: str) -> CaptureError:
        return CaptureError(f"{self._path}: {self._prefix}{key}: {text}")

    def value(self, key: str) -> Any:
        if key not in self._values:
            raise self.error(key, "is missing; add it")
        return self._values[key]

    def text(self, key: str) -> str:
        if not isinstance(value := self.value(key), str):
            raise self.error(key, f"is {_shown(value)}; write a text")
        return value

    def number(self, key: str) -> float:
        value = self.value(key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise self.error(key, f"is {_shown(value)}; write a number")
        # NaN is not within, and neither is an integer that no float can hold.
        if not abs(value) <= LARGEST:
            raise self.error(
                key, f"is {_shown(value)}; write a number from {-LARGEST:g} to {LARGEST:g}"
            )
        return value

    def integer(self, key: str) -> int:
        if not isinstance(value := self.number(key), int):
            raise self.error(key, f"is {value!r}; write a whole number")
        return value

    def scan_type(self, key: str) -> ScanType:
        try:
            return ScanType.parse(self.text(key))
        except ValueError as error:
            raise self.error(key, str(error)) from error

    def tables(self, key: str) -> list["_Keys"]:
        if not isinstance(values := self.value(key), list):
            raise self.error(key, "write a list of objects")
        return [
            _Keys(self._path, f"{self._prefix}{key}[{number}].", value)
            for number, value in enumerate(values)
        ]
