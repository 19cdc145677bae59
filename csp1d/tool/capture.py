# SPDX-License-Identifier: Apache-2.0
"""Captures: recorded scans on disk, to be measured again at any time.

NAME.json describes the scans in NAME.bin, in the notation of the kernel's files. csp1d serves the
same at /capture.json and /capture.bin, and so a capture may also be downloaded.
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

NO_SCANS = "the ADC has delivered no scans; check its trigger"


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

    Scans that came before a KeyboardInterrupt or a DeviceError of `chunks` are kept; without any,
    the files are unchanged. Raises CaptureError if a file cannot be written.
    """
    json_path, scans_path = _paths(name)
    written, failure = 0, None
    # The scans first: they are replaced before their description is.
    with replacing(json_path, CaptureError) as text, replacing(scans_path, CaptureError) as file:
        text.write(f"{json.dumps(scan_format.description(), indent=2)}\n".encode())
        text.flush()  # A disk that the scans fill has its place already.
        try:
            for chunk in chunks:
                written += file.write(chunk)
        except (KeyboardInterrupt, DeviceError) as error:
            failure = error
        if not written:
            raise failure or DeviceError(NO_SCANS)
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
    if not scans_path.is_file():
        raise _error(
            scans_path, "is not a regular file; a capture consists of NAME.json and NAME.bin"
        )
    scan_format = parse_format(document, json_path)
    if rest := scans_length % scan_format.scan_bytes:
        raise _error(
            scans_path,
            f"{scans_length} bytes are not a whole number of scans of {scan_format.scan_bytes}"
            f" bytes; truncate it to {scans_length - rest}, or record it again",
        )
    return Capture(scan_format, scans_path)


def parse_format(document: object, path: Path) -> ScanFormat:
    """The format that a decoded NAME.json describes. Raises CaptureError, which names `path`."""
    loader = Loader()
    description = loader.build(_Description, document)
    if description is None:
        raise CaptureError([Problem(path, *problem) for problem in loader.problems])
    try:
        scan_format = ScanFormat(
            description.sampling_frequency_hz, description.channels, description.timestamp
        )
    except ScanFormatError as error:
        raise _error(path, str(error)) from error
    if description.scan_bytes != scan_format.scan_bytes:
        raise _error(
            path,
            f"must be {scan_format.scan_bytes} with these types, got {description.scan_bytes};"
            " correct the wrong type, or add the missing channel",
            "scan_bytes",
        )
    return scan_format


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
    # With or without its end.
    base = str(name).removesuffix(".json")
    return Path(f"{base}.json"), Path(f"{base}.bin")
