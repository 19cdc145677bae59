# SPDX-License-Identifier: Apache-2.0
"""Captures: recorded scans on disk, to be measured again at any time.

NAME.json describes the scans in NAME.bin, in the notation of the kernel's files. It also holds the
length of a scan, although that follows from the rest: if the two disagree, one of the files is
wrong, and so would be every current.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from csp1d.config import Config
from csp1d.config_file import read_regular
from csp1d.errors import CaptureError, DeviceError, Problem, ScanFormatError
from csp1d.loading import Loader, key, within
from csp1d.measuring.replay import Replay
from csp1d.measuring.scan import LARGEST, Channel, ScanFormat, Timestamp
from csp1d.tool.output import replacing

_CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class _Description:
    """The content of NAME.json."""

    sampling_frequency_hz: float
    channels: tuple[Channel, ...]
    timestamp: Timestamp | None
    scan_bytes: int = key(within(-LARGEST, LARGEST))


@dataclass(frozen=True)
class Capture:
    """Scans on disk."""

    format: ScanFormat
    scans_path: Path

    def chunks(self) -> Iterator[bytes]:
        """All scans, in chunks of whole scans. Raises CaptureError if they cannot be read."""
        size = self.format.scan_bytes
        try:
            with open(self.scans_path, "rb") as file:
                while chunk := file.read(max(1, _CHUNK_BYTES // size) * size):
                    if len(chunk) % size:
                        raise _error(self.scans_path, "still being recorded; wait until it is done")
                    yield chunk
        except OSError as error:
            reason = f"cannot be read: {error.strerror}; make it readable"
            raise _error(self.scans_path, reason) from error


def save(name: str | Path, scan_format: ScanFormat, chunks: Iterable[bytes]) -> int:
    """Write NAME.json and NAME.bin; returns the number of scans.

    Scans that came before a KeyboardInterrupt or a DeviceError of `chunks` are kept. Raises
    CaptureError if a file cannot be written.
    """
    description = {
        "sampling_frequency_hz": scan_format.sampling_frequency_hz,
        "scan_bytes": scan_format.scan_bytes,
        "channels": [vars(channel) for channel in scan_format.channels],
        "timestamp": scan_format.timestamp and vars(scan_format.timestamp),
    }
    json_path, scans_path = _paths(name)
    written, failure = 0, None
    # The scans first: they are replaced before their description is.
    with replacing(json_path, CaptureError) as text, replacing(scans_path, CaptureError) as file:
        # Only a ScanType is no type of JSON; its text is the kernel's notation.
        text.write(f"{json.dumps(description, indent=2, default=str)}\n".encode())
        try:
            for chunk in chunks:
                written += file.write(chunk)
        except (KeyboardInterrupt, DeviceError) as error:
            failure = error
    if failure:
        raise failure
    return written // scan_format.scan_bytes


def load(name: str | Path) -> Capture:
    """Read NAME.json and check that NAME.bin fits it. Raises CaptureError."""
    json_path, scans_path = _paths(name)
    try:
        document = json.loads(read_regular(json_path).decode())
        scans_length = scans_path.stat().st_size
    except OSError as error:
        reason = f"{error.strerror}; a capture consists of NAME.json and NAME.bin"
        raise _error(Path(error.filename or json_path), reason) from error
    except (ValueError, RecursionError) as error:
        raise _error(json_path, f"is not JSON ({error}); record the capture again") from error
    loader = Loader()
    description = loader.build(_Description, document)
    if description is None:
        raise CaptureError([Problem(json_path, *problem) for problem in loader.problems])
    try:
        scan_format = ScanFormat(
            description.sampling_frequency_hz, description.channels, description.timestamp
        )
    except ScanFormatError as error:
        raise _error(json_path, str(error)) from error
    if description.scan_bytes != scan_format.scan_bytes:
        raise _error(
            json_path,
            f"must be {scan_format.scan_bytes} with these types, got {description.scan_bytes};"
            " correct the wrong type, or add the missing channel",
            "scan_bytes",
        )
    if rest := scans_length % scan_format.scan_bytes:
        raise _error(
            scans_path,
            f"{scans_length} bytes are not a whole number of scans of {scan_format.scan_bytes}"
            f" bytes; truncate it to {scans_length - rest}, or record it again",
        )
    return Capture(scan_format, scans_path)


def replay(capture: Capture, config: Config) -> Replay:
    """The readings of a capture; see `Replay`.

    Raises CaptureError if the capture does not fit the configuration, and while it is iterated
    if the scans cannot be read.
    """
    try:
        return Replay(capture.format, capture.chunks(), config)
    except ValueError as error:
        raise _error(capture.scans_path, str(error)) from error


def _error(path: Path, reason: str, key: str = "") -> CaptureError:
    return CaptureError([Problem(path, key, reason)])


def _paths(name: str | Path) -> tuple[Path, Path]:
    return Path(f"{name}.json"), Path(f"{name}.bin")
