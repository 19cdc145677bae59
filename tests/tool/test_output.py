# SPDX-License-Identifier: Apache-2.0
"""Files that csp1ctl writes: complete or unchanged, and never through a name that others made."""

import errno
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csp1d.errors import CaptureError, ConfigError, FileError
from csp1d.tool.output import replacing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.toml"


def write(path: Path, content: bytes = b"new", mode: int | None = None) -> None:
    with replacing(path, ConfigError, mode) as file:
        file.write(content)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


@pytest.mark.parametrize(
    ("umask", "mode", "expected"),
    [
        (0o022, None, 0o644),
        (0o077, None, 0o600),
        (0o077, 0o644, 0o644),
        (0o000, 0o644, 0o644),
    ],
)
def test_a_new_file_has_the_mode_asked_for_or_that_of_the_umask(
    path: Path, umask: int, mode: int | None, expected: int
) -> None:
    before = os.umask(umask)
    try:
        write(path, mode=mode)
    finally:
        os.umask(before)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", expected)
    assert names(path) == ["file.toml"]


@pytest.mark.parametrize("kept", [0o600, 0o640, 0o666])
def test_mode_and_owner_of_a_file_are_kept(
    path: Path, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("old")
    path.chmod(kept)
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda fd, user, group: owners.append((user, group)))
    write(path, mode=0o644)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", kept)
    assert owners == [(path.stat().st_uid, path.stat().st_gid)]


def test_the_file_is_on_the_disk_before_its_name_and_then_the_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(fd: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{fd}"))
        size = "" if target.is_dir() else f" {target.stat().st_size}"
        done.append(f"fsync {re.sub(r'[0-9a-f]{8}', 'x', target.name) if size else 'folder'}{size}")
        fsync(fd)

    def note_replace(draft: Path, target: Path) -> Path:
        done.append(f"rename to {target.name}")
        return replace(draft, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write(path)
    assert done == ["fsync .file.toml.x 3", "rename to file.toml", "fsync folder"]


@pytest.mark.parametrize("prepared", ["link", "dangling link", "pipe", "folder"])
def test_what_is_not_a_regular_file_is_left_alone(path: Path, prepared: str) -> None:
    precious = path.with_name("precious")
    precious.write_text("precious")
    if prepared == "pipe":
        os.mkfifo(path)
    elif prepared == "folder":
        path.mkdir()
    else:
        path.symlink_to(precious if prepared == "link" else "nothing")
    with pytest.raises(ConfigError, match="it is not a regular file; remove it, or choose another"):
        write(path)
    assert precious.read_text() == "precious"
    assert names(path) == ["file.toml", "precious"]


def test_a_draft_of_somebody_else_is_not_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    precious = path.with_name("precious")
    precious.write_text("precious")
    monkeypatch.setattr(os, "urandom", bytes)
    for prepare in (Path.touch, lambda draft: draft.symlink_to(precious)):
        draft = path.with_name(".file.toml.00000000")
        prepare(draft)
        with pytest.raises(ConfigError, match="cannot be written: File exists; remove it"):
            write(path)
        assert not path.exists()
        assert precious.read_text() == "precious"
        draft.unlink()


class StopError(Exception):
    """Ends the writing."""


@pytest.mark.parametrize("end", [StopError, KeyboardInterrupt])
def test_a_file_that_is_not_finished_changes_nothing(path: Path, end: type[BaseException]) -> None:
    path.write_text("old")

    def write_half() -> None:
        with replacing(path, ConfigError) as file:
            file.write(b"half")
            file.flush()
            raise end

    with pytest.raises(end):
        write_half()
    assert (path.read_text(), names(path)) == ("old", ["file.toml"])


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EROFS, r"Read-only file system; remount it read-write \(mount -o remount,rw\)"),
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("call", ["open", "write", "fsync"])
@pytest.mark.parametrize("error_class", [ConfigError, CaptureError])
def test_a_failure_is_named_with_the_remedy_and_changes_nothing(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    reason: str,
    call: str,
    error_class: type[FileError],
) -> None:
    path.write_text("old")

    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    if call != "write":
        monkeypatch.setattr(os, call, fail)

    def write_all() -> None:
        with replacing(path, error_class) as file:
            file.write(b"new")
            if call == "write":
                fail()

    with pytest.raises(error_class, match=f"file.toml: cannot be written: {reason}$"):
        write_all()
    monkeypatch.undo()
    assert (path.read_text(), names(path)) == ("old", ["file.toml"])


def test_a_folder_without_fsync_is_good_enough(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_folders(number: int) -> Callable[[int], None]:
        def fsync(fd: int) -> None:
            if stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", no_folders(errno.EINVAL))
    write(path)
    monkeypatch.setattr(os, "fsync", no_folders(errno.EIO))
    with pytest.raises(ConfigError, match="Input/output error"):
        write(path)
