# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl report`: all that a bug report needs, in one archive.

It is for the moment when something is wrong, so nothing has to work for it: a part that cannot be
had is replaced by the reason. No file that the configuration names is read, and so no key.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import csp1d
from csp1d.config import Config
from csp1d.config_file import DEFAULT_PATH, doubts, load, origins
from csp1d.errors import CaptureError, DeviceError, FileError, Problem, printable
from csp1d.exits import OK
from csp1d.tool.client import Client
from csp1d.tool.output import sync_folder, write_fault
from csp1d.tool.progress import progress

MAINTAINER = "csp1d developers <developers@csp1d.example>"

LIBRARIES = (
    "numpy",
    "prometheus-client",
    "python-periphery",
    "pyudev",
    "rich",
    "systemd-python",
)

_SCANS_SECONDS = 10.0
_JOURNAL_LINES = 2000
_MOST_TEXT_BYTES = 1 << 20
"""Limit for the journal, of which the end is kept."""
_COMMAND_SECONDS = 30.0
"""A driver that hangs must not hold up the report."""

Files = Mapping[str, bytes]
"""Contents by name."""


@dataclass(frozen=True)
class Part:
    """One subject of the report."""

    name: str
    title: str
    make: Callable[[], Files]
    """Raises an exception if it cannot be had."""


def run(_: Config, arguments: argparse.Namespace) -> int:
    """The configuration is read here: that it cannot be used may be the reason for the report."""
    named = None if arguments.config == DEFAULT_PATH else arguments.config
    path = Path(arguments.file or time.strftime("csp1d-report-%Y%m%d-%H%M%S.tar.gz"))
    parts = report_parts(named)
    missing: dict[str, str] = {}
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            with open(descriptor, "wb") as file:
                _write(file, path.name.partition(".")[0] or "csp1d-report", parts, missing)
                file.flush()
                os.fsync(descriptor)
            with contextlib.suppress(PermissionError):
                # A folder that may be written need not be readable.
                sync_folder(path.parent)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CaptureError([Problem(path, "", write_fault(error))]) from error
    print("\n".join(_summary(path, parts, missing)))
    return OK


def report_parts(named_file: Path | None) -> list[Part]:
    """All parts; `named_file` is the configuration as for `config_file.load`."""
    file = named_file or DEFAULT_PATH
    try:
        config = load(named_file)
    except FileError:
        # The daemon may run with the one before it.
        config = Config()

    def page(name: str, path: str) -> Callable[[], Files]:
        return lambda: {name: Client(config.http).get(path)}

    return [
        Part("versions", "csp1d, Python, libraries, kernel, system, board", _versions),
        Part("configuration", "all settings and their files", lambda: _settings(file, named_file)),
        Part("discover", "output of csp1ctl discover", _discover),
        Part("status", "/status.json of csp1d", page("status.json", "/status.json")),
        Part("metrics", "/metrics of csp1d", page("metrics.txt", "/metrics")),
        Part("history", "/history.json of csp1d", page("history.json", "/history.json")),
        Part("journal", f"up to {_JOURNAL_LINES} last messages of csp1d", _journal),
        Part("capture", "ten seconds of raw scans, for csp1ctl replay", lambda: _capture(config)),
    ]


def _write(
    file: io.BufferedWriter, folder: str, parts: list[Part], missing: dict[str, str]
) -> None:
    """Write the archive; adds the reason for each part that is missing or incomplete."""
    now_seconds = time.time()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for part in parts:
            for name, content in _made(part, missing).items():
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mode, entry.mtime = len(content), 0o600, int(now_seconds)
                archive.addfile(entry, io.BytesIO(content))


def _made(part: Part, missing: dict[str, str]) -> Files:
    try:
        return part.make()
    except (FileError, OSError, subprocess.SubprocessError) as error:
        reason = missing[part.name] = str(error)
    except Exception as error:
        # A bug here must not prevent the report of another one; it becomes a part of it.
        missing[part.name] = f"internal error: {error!r}"
        reason = traceback.format_exc()
    return {f"{part.name}-missing.txt": f"{reason}\n".encode(errors="replace")}


def _summary(path: Path, parts: list[Part], missing: Mapping[str, str]) -> Iterator[str]:
    yield f"Wrote {path} ({path.stat().st_size // 1000} kB, readable only for its owner)."
    yield "It contains:"
    for part in parts:
        if part.name not in missing:
            yield f"  {part.name:<14} {part.title}"
    if missing:
        yield "It does not contain:"
        for name, reason in missing.items():
            yield f"  {name:<14} {printable(reason.splitlines()[0])}"
    yield "Keys, passwords and certificates are not in it; the names of host and site, the serial"
    yield f"number and the currents are. Check it (tar -xf {path}),"
    yield f"then send it, with a description of the fault, to {MAINTAINER}."


def _versions() -> Files:
    system = platform.uname()
    lines = [
        f"csp1d {csp1d.__version__} in {Path(csp1d.__file__).parent}",
        f"Python {sys.version}",
        *(f"{name} {_version(name)}" for name in LIBRARIES),
        f"{system.system} {system.release} {system.version} {system.machine}",
        f"system: {_first_line('/etc/os-release', 'PRETTY_NAME=')}",
        f"Debian: {_first_line('/etc/debian_version')}",
        f"board: {_first_line('/proc/device-tree/model')}",
    ]
    return {"versions.txt": "".join(f"{line}\n" for line in lines).encode(errors="replace")}


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not found"


def _first_line(file: str, prefix: str = "") -> str:
    """The rest of the first line with this prefix."""
    try:
        lines = Path(file).read_text(errors="replace").split("\n")
    except OSError as error:
        return f"unknown ({error.strerror})"
    found = (line.removeprefix(prefix) for line in lines if line.startswith(prefix))
    return next(found, "unknown").strip('\0"')


def _settings(file: Path, named_file: Path | None) -> Files:
    """The merged configuration, itself a valid one: a key and the file that sets it per line."""
    config, set_in = load(named_file), origins(file)
    lines = [f"# {printable(str(problem))}" for problem in doubts(file)]
    for key, value in _keys(config):
        # JSON's notation is also TOML's, except for one character.
        shown = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        origin = f"  # {printable(str(set_in[key]))}" if key in set_in else ""
        lines.append(f"{key} = {shown}{origin}")
    return {"configuration.toml": "".join(f"{line}\n" for line in lines).encode()}


def _keys(table: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for spec in fields(table):
        value = getattr(table, spec.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{spec.name}.")
        else:
            yield f"{prefix}{spec.name}", value


def _discover() -> Files:
    # A process of its own: one that hangs in a driver can be given up.
    root = Path(csp1d.__file__).parents[1]
    # -P: as root, no module is loaded from the present folder.
    command = (sys.executable, "-P", "-m", "csp1d.tool.ctl", "discover")
    _, output = _run(*command, PYTHONPATH=str(root))
    return {"discover.txt": output}


def _journal() -> Files:
    code, output = _run(
        *("journalctl", "--unit=csp1d.service", f"--lines={_JOURNAL_LINES}"),
        *("--no-pager", "--output=short-iso-precise"),
        LC_ALL="C",
    )
    if code or output.endswith(b"-- No entries --\n"):
        text = map(str.strip, output.decode(errors="replace").strip().splitlines())
        remedy = "; run csp1ctl report as root (sudo), or as a member of the group systemd-journal"
        raise DeviceError(
            f"the journal shows no message of csp1d.service ({'; '.join(text)})"
            f"{remedy if os.geteuid() else ''}"
        )
    return {"journal.txt": output[-_MOST_TEXT_BYTES:]}


def _run(*command: str, **environment: str) -> tuple[int, bytes]:
    """Exit code and output of a command; its errors are part of the output."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )
    try:
        output, _ = process.communicate(timeout=_COMMAND_SECONDS)
    except BaseException:
        # Not waited for: a process that a driver holds does not end.
        process.kill()
        raise
    return process.returncode, output


def _capture(config: Config) -> Files:
    """The scans that can be had: if they end early, also why."""
    # Late: what these load may be what is broken.
    from csp1d.measuring.recent import MOST_BYTES
    from csp1d.tool.capture import NO_SCANS
    from csp1d.tool.scan_source import open_source

    chunks: list[bytes] = []
    with (
        open_source(config) as source,
        progress("Reading scans", _SCANS_SECONDS, "s") as show,
    ):
        note = source.warning
        description = json.dumps(source.format.description(), indent=2)
        try:
            for chunk in source.chunks(_SCANS_SECONDS, show):
                chunks.append(chunk)
                if sum(map(len, chunks)) >= MOST_BYTES:
                    break
        except DeviceError as error:
            if not any(chunks):
                raise
            note = str(error)
        if not any(chunks):
            raise DeviceError(NO_SCANS)
        size = source.format.scan_bytes
    scans = b"".join(chunks)[: MOST_BYTES // size * size]
    files = {"capture.json": description.encode(), "capture.bin": scans}
    return {**files, "capture-note.txt": f"{note}\n".encode()} if note else files
