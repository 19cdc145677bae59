#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Make a release of csp1d: its version, changelogs, packages, commit and tag.

    tools/release [--dry-run] VERSION

Describe what users notice in CHANGELOG.md, section "Unreleased"; what they must know before an
upgrade also in debian/NEWS, with the version of the release (packages lack it until then). Commit;
run tools/check. Then this

1. copies the commit to a temporary directory, where it sets the version in csp1d/__init__.py (other
   files derive it, or are checked against it), renames "Unreleased" in CHANGELOG.md to the version
   and the date, and adds an entry to debian/changelog;
2. builds and tests there the package of each Debian suite (tools/package --check), with versions
   such as 0.2.0-0csp1d1~deb12u1;
3. puts packages, source packages, release notes (the section of CHANGELOG.md) and SHA256SUMS into
   dist/VERSION/, commits the three changed files, and tags the commit, such as v0.2.0.

With --dry-run the third step only prints what it would do: the files are in the temporary
directory, and the tree stays as it is. The same happens if a step fails.

The date is that of SOURCE_DATE_EPOCH (seconds since 1970), or now. tools/package makes the same
bytes of the tagged commit at any time. To publish: git push --follow-tags, and the files in
dist/VERSION/.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TREE / "tools"))

from packager import source  # noqa: E402
from packager.source import NAME, PackageError  # noqa: E402

CODE, CHANGELOG, DEBIAN_CHANGELOG = f"{NAME}/__init__.py", "CHANGELOG.md", "debian/changelog"
REVISION = "0csp1d1"
"""Of the project's own packages: less than Debian's first, 1."""

UNRELEASED = re.compile(r"^## Unreleased\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def release(tree: Path, version: str, moment: datetime, dry_run: bool) -> Path:
    """Release the clean ``tree`` as ``version`` at ``moment`` (UTC); the directory of the files."""
    commit = check(tree, version, dry_run)
    scratch = Path(tempfile.mkdtemp(prefix=f"{NAME}-{version}-"))
    clone, results = scratch / NAME, scratch / version
    git(tree, "clone", "--quiet", "--shared", str(tree), str(clone))
    notes = prepare(clone, version, moment)
    print(git(clone, "diff"), flush=True)
    if subprocess.run([clone / "tools/package", "--check"], check=False).returncode != 0:
        raise PackageError(f"{clone}/tools/package --check failed; nothing was released")
    collect(clone / "dist", notes, results)
    kept = tree / "dist" / version
    steps = f"{kept}/; commit of {CODE}, {CHANGELOG} and {DEBIAN_CHANGELOG}; tag v{version}"
    if dry_run:
        print(f"dry run: the files are in {results}/; without --dry-run: {steps}")
        return results
    if git(tree, "rev-parse", "HEAD") != commit or git(tree, "status", "--porcelain"):
        raise PackageError("the tree has changed during the build; nothing was released, try again")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(results, kept)
    for name in (CODE, CHANGELOG, DEBIAN_CHANGELOG):
        shutil.copyfile(clone / name, tree / name)
    try:
        git(tree, "commit", "--quiet", "--all", "--message", f"{NAME} {version}")
        git(tree, "tag", "--annotate", "--message", f"{NAME} {version}", f"v{version}")
    except PackageError:
        # A hook or the key of a signature may fail.
        git(tree, "reset", "--quiet", "--hard", commit)
        raise
    shutil.rmtree(scratch)
    print(f"released: {steps}")
    return kept


def check(tree: Path, version: str, dry_run: bool = False) -> str:
    """The commit of ``tree``, which can be released as ``version``; raises PackageError if not."""
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise PackageError(f"{version!r} is not a version: write three numbers, such as 0.2.0")
    if changed := git(tree, "status", "--porcelain"):
        raise PackageError(f"the tree is not clean: commit, ignore or remove\n{changed}")
    commit = git(tree, "rev-parse", "HEAD")
    present = source.release(tree).upstream
    if numbers(version) <= numbers(present):
        raise PackageError(f"{version} is not newer than {present}, the version in {CODE}")
    if git(tree, "tag", "--list", f"v{version}"):
        raise PackageError(
            f"the tag v{version} exists: choose a newer version, or, if it was not published, "
            f"delete it with git tag --delete v{version}"
        )
    unreleased((tree / CHANGELOG).read_text())
    if not dry_run:
        if git(tree, "branch", "--show-current") == "":
            raise PackageError("HEAD is on no branch, to which the commit would belong")
        git(tree, "var", "GIT_COMMITTER_IDENT")  # fails with git's advice if git has no name
    return commit


def prepare(tree: Path, version: str, moment: datetime) -> str:
    """Make the files of ``tree`` those of ``version``; its release notes."""
    changelog, code, debian = (tree / name for name in (CHANGELOG, CODE, DEBIAN_CHANGELOG))
    text, entries, author = changelog.read_text(), debian.read_text(), source.release(tree).author
    title = f"## {version} ({moment:%Y-%m-%d})\n"
    changelog.write_text(text.replace("## Unreleased\n", title, 1))
    code.write_text(
        re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', code.read_text())
    )
    made = source.Release(version, REVISION, author, int(moment.timestamp()))
    change = "New release: changelog.gz lists the changes."
    debian.write_text(source.changelog_entry(made, "unstable", change) + entries)
    return unreleased(text)


def unreleased(changelog: str) -> str:
    """The text of the section "Unreleased"."""
    found = UNRELEASED.search(changelog)
    notes = found[1].strip() if found else ""
    if not notes:
        raise PackageError(
            f'{CHANGELOG} has no changes in a section "## Unreleased": describe what users notice'
        )
    return f"{notes}\n"


def collect(built: Path, notes: str, results: Path) -> None:
    """Fill the new directory ``results`` with what is the same in each build, and checksums."""
    results.mkdir()
    (results / "release-notes.md").write_text(notes)
    for kind in ("deb", "dsc", "tar.xz"):
        for file in built.glob(f"*/*.{kind}"):
            shutil.copyfile(file, results / file.name)
    sums = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(results.iterdir())
    ]
    (results / "SHA256SUMS").write_text("".join(sums))


def numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def git(tree: Path, *arguments: str) -> str:
    """Standard output of git."""
    done = subprocess.run(
        ["git", "-C", tree, *arguments], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise PackageError(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/release", description="Make a release of csp1d.")
    parser.add_argument("version", metavar="VERSION", help="three numbers, such as 0.2.0")
    parser.add_argument("--dry-run", action="store_true", help="leave the tree as it is")
    options = parser.parse_args()
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    try:
        release(TREE, options.version, datetime.fromtimestamp(epoch, UTC), options.dry_run)
    except (PackageError, OSError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
