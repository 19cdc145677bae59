# SPDX-License-Identifier: Apache-2.0
"""The Debian source package of a suite, made of the working tree, edits and new files included.

All properties that differ between checkouts (owner, mode bits, timestamps, order) are set here, so
that the same tree gives the same bytes.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

NAME = "csp1d"
DEBIAN = {"bookworm": 12, "trixie": 13}
"""The number of each suite, part of the version of its packages."""


class PackageError(Exception):
    """The package cannot be built or is wrong; the text gives the reason."""


@dataclass(frozen=True)
class Release:
    """A field of the top entry of debian/changelog."""

    upstream: str
    revision: str
    author: str
    epoch: int
    """Seconds since 1970: the time of everything in the package."""

    @property
    def version(self) -> str:
        return f"{self.upstream}-{self.revision}"


def release(tree: Path) -> Release:
    """The release of ``tree``; changelog and code must agree on it."""
    changelog = (tree / "debian/changelog").read_text()
    top = re.match(rf"{NAME} \(([^)-]+)-([^)-]+)\) ", changelog)
    signed = re.search(r"^ -- (.*>)  (.*)$", changelog, re.MULTILINE)
    if top is None or signed is None:
        raise PackageError("debian/changelog: its first entry has no version or no signature")
    code = re.search(r'^__version__ = "(.*)"$', (tree / NAME / "__init__.py").read_text(), re.M)
    if code is None or code[1] != top[1]:
        raise PackageError(
            f"debian/changelog is at {top[1]}, {NAME}/__init__.py at {code[1] if code else None}: "
            "give the package a changelog entry for the new version"
        )
    epoch = int(parsedate_to_datetime(signed[2]).timestamp())
    return Release(top[1], top[2], signed[1], epoch)


def files(tree: Path) -> list[str]:
    """Paths of the files of the working tree, sorted, without those that git ignores."""
    command = ["git", "-c", f"safe.directory={tree}", "-C", str(tree), "ls-files", "-z"]
    listed = subprocess.run(
        [*command, "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE
    ).stdout
    names = {os.fsdecode(name) for name in listed.split(b"\0") if name}
    # Git still lists files deleted since the last commit.
    return sorted(name for name in names if (tree / name).exists() or (tree / name).is_symlink())


def packaged(tree: Path) -> list[str]:
    """The files that belong into a package: not the news of a release that is yet to be made, since
    lintian rejects news of a version that the changelog does not have.
    """
    names = files(tree)
    if "debian/NEWS" in names:
        news = (tree / "debian/NEWS").read_text()
        version = re.match(rf"{NAME} \(\S+\) ", news)
        if version is None:
            raise PackageError("debian/NEWS: its first entry has no version")
        if version[0] not in (tree / "debian/changelog").read_text():
            names.remove("debian/NEWS")
    return names


def of_suite(made: Release, suite: str) -> Release:
    """The release as the package for ``suite``, one second later than its entry for all suites.

    The packages of the suites differ, so their versions do, and a later suite has a later one: an
    upgrade of Debian also replaces csp1d.
    """
    return replace(made, revision=f"{made.revision}~deb{DEBIAN[suite]}u1", epoch=made.epoch + 1)


def changelog_entry(made: Release, suite: str, change: str) -> str:
    """The entry of debian/changelog for a release, to be put before the others."""
    date = format_datetime(datetime.fromtimestamp(made.epoch, UTC))
    title = f"{NAME} ({made.version}) {suite}; urgency=medium"
    return f"{title}\n\n  * {change}\n\n -- {made.author}  {date}\n\n"


def build(tree: Path, directory: Path, suite: str) -> Path:
    """Make the source package for ``suite`` in the empty ``directory``; the path of its .dsc."""
    made = of_suite(release(tree), suite)
    names = packaged(tree)
    overrides = [name for name in names if name.endswith("lintian-overrides")]
    if overrides:
        raise PackageError(f"{overrides[0]}: fix what lintian reports instead of overriding it")
    upstream = [name for name in names if not name.startswith("debian/")]
    prefix = f"{NAME}-{made.upstream}"
    (directory / f"{NAME}_{made.upstream}.orig.tar.xz").write_bytes(
        lzma.compress(tarball(tree, upstream, prefix, made.epoch), preset=6)
    )
    stage = directory / prefix
    for name in names:
        copy(tree / name, stage / name)
    changelog = stage / "debian/changelog"
    first = changelog_entry(made, suite, f"Build for Debian {DEBIAN[suite]} ({suite}).")
    changelog.write_text(first + changelog.read_text())
    try:
        subprocess.run(
            ["dpkg-source", "--build", prefix],
            cwd=directory,
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": str(made.epoch), "LC_ALL": "C.UTF-8"},
        )
    except subprocess.CalledProcessError as error:
        raise PackageError(f"dpkg-source: {error.stdout}") from error
    finally:
        shutil.rmtree(stage)
    return directory / f"{NAME}_{made.version}.dsc"


def tarball(tree: Path, names: list[str], prefix: str, epoch: int) -> bytes:
    """A tar archive of the files ``names`` below ``prefix``."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for folder in [prefix, *(f"{prefix}/{folder}" for folder in folders(names))]:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, epoch
            tar.addfile(entry)
        for name in names:
            file = tree / name
            entry = tarfile.TarInfo(f"{prefix}/{name}")
            entry.mode, entry.mtime = mode(file), epoch
            if file.is_symlink():
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(file)
                tar.addfile(entry)
            else:
                content = file.read_bytes()
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def folders(names: list[str]) -> Iterator[str]:
    """Every folder that holds one of the files, parents first."""
    yield from sorted({str(parent) for name in names for parent in Path(name).parents} - {"."})


def mode(file: Path) -> int:
    """The part of a file's mode that git records."""
    if file.is_symlink():
        return 0o777
    return 0o755 if file.stat().st_mode & 0o100 else 0o644


def copy(source: Path, target: Path) -> None:
    """Copy a file or link, with the mode that git records."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        target.symlink_to(os.readlink(source))
    else:
        target.write_bytes(source.read_bytes())
        target.chmod(mode(source))
