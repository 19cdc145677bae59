# SPDX-License-Identifier: Apache-2.0
"""tools/release: what it refuses, what it changes, and that a dry run changes nothing.

A script in the tree stands for the build of the packages: a release runs that of the tree's clone.
"""

import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from csp1d import __version__

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import release  # noqa: E402
from packager import source  # noqa: E402
from packager.source import PackageError  # noqa: E402

MOMENT = datetime(2026, 11, 29, 18, 0, tzinfo=UTC)
CHANGELOG = "# Changelog\n\n## Unreleased\n\n- A page.\n- An LED.\n\n## 0.1.0\n\n- All.\n"
DEBIAN_CHANGELOG = """csp1d (0.1.0-0csp1d2) unstable; urgency=medium

  * Something.

 -- csp1d developers <developers@csp1d.example>  Sun, 22 Nov 2026 20:40:00 +0000
"""
BUILD = """#!/bin/sh
set -e
cd "$(dirname "$0")/.."
[ "$*" = --check ]
for suite in bookworm trixie; do
    mkdir -p dist/$suite
    echo all >dist/$suite/csp1d_0.2.0.orig.tar.xz
    echo $suite >dist/$suite/csp1d_0.2.0-0csp1d1~$suite.dsc
    cp debian/changelog dist/$suite/csp1d_0.2.0-0csp1d1~${suite}_all.deb
    date +%N >dist/$suite/build.log
done
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed tree of version 0.1.0 with unreleased changes; temporary files beside it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    root = tmp_path / "tree"
    for name, text in {
        ".gitignore": "dist/\n",
        "CHANGELOG.md": CHANGELOG,
        "csp1d/__init__.py": '"""A sensor."""\n\n__version__ = "0.1.0"\n',
        "debian/changelog": DEBIAN_CHANGELOG,
        "tools/package": BUILD,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "tools/package").chmod(0o755)
    subprocess.run(["git", "init", "--quiet", root], check=True)
    for key, value in (("user.name", "A. Maintainer"), ("user.email", "a@csp1d.example")):
        release.git(root, "config", key, value)
    commit(root)
    return root


def commit(tree: Path) -> None:
    release.git(tree, "add", "--all")
    release.git(tree, "commit", "--quiet", "--message", "A change")


def state(tree: Path) -> dict[str, str]:
    """All that a dry run leaves as it is."""
    files = [path for path in tree.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {
        **{str(path): path.read_text() for path in files},
        "refs": release.git(tree, "show-ref"),
        "status": release.git(tree, "status", "--porcelain"),
    }


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.2", "'0.2' is not a version: write three numbers, such as 0.2.0"),
        ("v0.2.0", "'v0.2.0' is not a version"),
        ("0.2.0-1", "'0.2.0-1' is not a version"),
        ("0.02.0", "'0.02.0' is not a version"),
        ("0.1.0", "0.1.0 is not newer than 0.1.0, the version in csp1d/__init__.py"),
        ("0.0.10", "0.0.10 is not newer than 0.1.0"),
    ],
)
def test_a_version_that_cannot_be_released(tree: Path, version: str, reason: str) -> None:
    with pytest.raises(PackageError, match=re.escape(reason)):
        release.check(tree, version)


def test_numbers_are_compared_as_numbers(tree: Path) -> None:
    assert release.check(tree, "0.10.0") == release.git(tree, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["CHANGELOG.md", "new"])
def test_the_tree_must_be_clean(tree: Path, name: str) -> None:
    (tree / name).write_text("changed\n")
    with pytest.raises(PackageError, match=rf"not clean: commit, ignore or remove\n.*{name}$"):
        release.check(tree, "0.2.0")


def test_a_tag_is_never_moved(tree: Path) -> None:
    release.git(tree, "tag", "v0.2.0")
    with pytest.raises(PackageError, match=r"the tag v0\.2\.0 exists: choose a newer version, or"):
        release.check(tree, "0.2.0")


@pytest.mark.parametrize("text", ["## 0.1.0\n\n- All.\n", "## Unreleased\n\n## 0.1.0\n\n- All.\n"])
def test_there_must_be_unreleased_changes(tree: Path, text: str) -> None:
    (tree / "CHANGELOG.md").write_text(text)
    commit(tree)
    with pytest.raises(PackageError, match=r"CHANGELOG\.md has no changes in a section"):
        release.check(tree, "0.2.0")


def test_the_changelogs_must_agree_on_the_present_version(tree: Path) -> None:
    (tree / "csp1d/__init__.py").write_text('__version__ = "0.1.1"\n')
    commit(tree)
    with pytest.raises(
        PackageError, match=r"changelog is at 0\.1\.0, csp1d/__init__.py at 0\.1\.1"
    ):
        release.check(tree, "0.2.0")


def test_a_release(tree: Path) -> None:
    before = release.git(tree, "rev-parse", "HEAD")
    results = release.release(tree, "0.2.0", MOMENT, dry_run=False)
    assert results == tree / "dist/0.2.0"
    assert release.git(tree, "status", "--porcelain") == ""
    assert release.git(tree, "rev-parse", "HEAD^", "v0.2.0^{commit}^") == f"{before}\n{before}"
    assert release.git(tree, "cat-file", "-t", "v0.2.0") == "tag"
    assert release.git(tree, "log", "-1", "--format=%an: %s") == "A. Maintainer: csp1d 0.2.0"
    changed = release.git(tree, "diff", "--name-only", before).split()
    assert changed == ["CHANGELOG.md", "csp1d/__init__.py", "debian/changelog"]

    made = source.release(tree)
    assert (made.version, made.epoch) == ("0.2.0-0csp1d1", MOMENT.timestamp())
    title = "## 0.2.0 (2026-11-29)"
    assert (tree / "CHANGELOG.md").read_text() == CHANGELOG.replace("## Unreleased", title)
    entries = (tree / "debian/changelog").read_text()
    assert entries.endswith(f"+0000\n\n{DEBIAN_CHANGELOG}")
    assert subprocess.run(["dpkg-parsechangelog", "-S", "Changes"], cwd=tree).returncode == 0

    names = {path.name for path in results.iterdir()}
    packages = {
        f"csp1d_0.2.0-0csp1d1~{suite}{kind}"
        for suite in ("bookworm", "trixie")
        for kind in (".dsc", "_all.deb")
    }
    others = {"csp1d_0.2.0.orig.tar.xz", "release-notes.md", "SHA256SUMS"}
    assert names == packages | others
    assert (results / "release-notes.md").read_text() == "- A page.\n- An LED.\n"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=results, check=True)
    assert len((results / "SHA256SUMS").read_text().splitlines()) == len(names) - 1
    # The temporary directory is gone.
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_dry_run_makes_the_same_files_and_leaves_the_tree(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = state(tree)
    dry = release.release(tree, "0.2.0", MOMENT, dry_run=True)
    assert state(tree) == before
    output = capsys.readouterr().out
    assert '+__version__ = "0.2.0"' in output
    assert f"the files are in {dry}/; without --dry-run: {tree}/dist/0.2.0/; commit of" in output
    real = release.release(tree, "0.2.0", MOMENT, dry_run=False)
    assert (real / "SHA256SUMS").read_text() == (dry / "SHA256SUMS").read_text()


def test_a_failed_build_leaves_the_tree(tree: Path) -> None:
    (tree / "tools/package").write_text("#!/bin/sh\nexit 1\n")
    commit(tree)
    before = state(tree)
    with pytest.raises(PackageError, match="tools/package --check failed; nothing was released"):
        release.release(tree, "0.2.0", MOMENT, dry_run=False)
    assert state(tree) == before


@pytest.mark.parametrize("key", ["commit.gpgSign", "tag.gpgSign"])
def test_a_commit_or_tag_that_fails_leaves_the_tree(tree: Path, key: str) -> None:
    release.git(tree, "config", "gpg.program", "false")
    release.git(tree, "config", key, "true")
    before = state(tree)
    with pytest.raises(PackageError, match=f"git {key.partition('.')[0]}: "):
        release.release(tree, "0.2.0", MOMENT, dry_run=False)
    after = state(tree)
    assert {path: after[path] for path in before} == before


def test_only_a_branch_is_released(tree: Path) -> None:
    release.git(tree, "checkout", "--quiet", "--detach")
    with pytest.raises(PackageError, match="HEAD is on no branch"):
        release.check(tree, "0.2.0")
    assert release.check(tree, "0.2.0", dry_run=True)


def test_a_tree_that_changes_during_the_build_is_not_released(tree: Path) -> None:
    (tree / "tools/package").write_text(f"{BUILD}echo >{tree}/new\n")
    commit(tree)
    with pytest.raises(PackageError, match="has changed during the build"):
        release.release(tree, "0.2.0", MOMENT, dry_run=False)
    assert release.git(tree, "tag") == ""


def test_the_project_has_one_version() -> None:
    assert source.release(ROOT).upstream == __version__
    released = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == __version__
