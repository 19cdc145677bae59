# SPDX-License-Identifier: Apache-2.0
"""Files that csp1ctl writes, often as root: each is complete on the disk, or unchanged.

It is written beside the one that it replaces. In a folder where others may create files, such as
/tmp, no name that they have prepared is followed or opened (open(2), O_EXCL and O_NOFOLLOW).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from csp1d.errors import DeviceError, FileError, Problem


@contextlib.contextmanager
def replacing(
    path: Path, error_class: type[FileError], mode: int | None = None
) -> Iterator[BinaryIO]:
    """A file to be written that replaces `path` when the block ends without an exception.

    If `path` exists, it must be a regular file, and its mode and owner are kept. A new file has
    `mode`, by default that of the umask. Raises `error_class` with the remedy.
    """
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        present = _present(path)
        fd = os.open(draft, flags, 0o666)
        try:
            with os.fdopen(fd, "wb") as file:
                if present:
                    mode = stat.S_IMODE(present.st_mode)
                    os.fchown(fd, present.st_uid, present.st_gid)
                if mode is not None:
                    os.fchmod(fd, mode)
                yield file
                file.flush()
                os.fsync(fd)
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        sync_folder(path.parent)
    except DeviceError:
        raise  # of what makes the content, not of the file
    except OSError as error:
        raise error_class([Problem(path, "", write_fault(error))]) from error


def _present(path: Path) -> os.stat_result | None:
    """The file that is to be replaced. Raises OSError if it is a link, a device or a folder."""
    try:
        present = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(present.st_mode):
        raise FileExistsError(errno.EEXIST, "it is not a regular file")
    return present


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some file systems cannot, and need not.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(fd)


def write_fault(error: OSError) -> str:
    """Why a file cannot be written, with the remedy: to become root only where that can help."""
    remedies = {
        errno.EROFS: "; remount it read-write (mount -o remount,rw)",
        errno.ENOENT: "; create its folder",
        errno.ENOSPC: "; free some space",
        errno.EDQUOT: "; free some space",
        errno.EEXIST: "; remove it, or choose another name",
    }
    remedy = remedies.get(error.errno or 0, "")
    if isinstance(error, PermissionError):
        locked = "; root may not write it either: see lsattr and the mount options"
        remedy = "; run csp1ctl as root (sudo)" if os.geteuid() else locked
    return f"cannot be written: {error.strerror}{remedy}"
