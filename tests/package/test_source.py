# SPDX-License-Identifier: Apache-2.0
"""The source package of tools/package: the working tree, and nothing of the machine."""

import io
import itertools
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
for folder in ("tools", "tests/kernel"):
    sys.path.insert(0, str(ROOT / folder))

from image import SUITES  # noqa: E402
from packager import source  # noqa: E402

CHANGELOG = """csp1d (0.1.0-2) unstable; urgency=medium

  * Something.

 -- csp1d developers <developers@csp1d.example>  Sun, 22 Nov 2026 20:40:00 +0000

csp1d (0.0.9-1) unstable; urgency=medium

  * Something else.

 -- csp1d developers <developers@csp1d.example>  Sat, 21 Nov 2026 20:40:00 +0000
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree: a committed file, a program, a link, a new file, and an ignored one."""
    root = tmp_path / "tree"
    for name, text in {
        ".gitignore": "dist/\n",
        "csp1d/__init__.py": '__version__ = "0.1.0"\n',
        "debian/changelog": CHANGELOG,
        "tools/run": "#!/bin/sh\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "tools/run").chmod(0o755)
    (root / "tools/link").symlink_to("run")
    for command in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", root, *command], check=True)
    (root / "new").write_text("new\n")
    (root / "dist").mkdir()
    (root / "dist/old").write_text("old\n")
    return root


def packed(tree: Path) -> bytes:
    return source.tarball(tree, source.files(tree), "csp1d-0.1.0", 1_795_379_200)


def test_the_release_is_the_changelogs_first(tree: Path) -> None:
    release = source.release(tree)
    assert release.version == "0.1.0-2"
    assert release.epoch == 1_795_380_000


def test_the_code_has_to_be_of_the_same_version(tree: Path) -> None:
    (tree / "csp1d/__init__.py").write_text('__version__ = "0.2.0"\n')
    with pytest.raises(source.PackageError, match=r"changelog is at 0\.1\.0, .* at 0\.2\.0"):
        source.release(tree)


def test_files_are_those_of_the_working_tree(tree: Path) -> None:
    (tree / "csp1d/__init__.py").unlink()
    assert source.files(tree) == [
        ".gitignore",
        "debian/changelog",
        "new",
        "tools/link",
        "tools/run",
    ]


def test_news_of_a_release_to_come_stay_out(tree: Path) -> None:
    news = tree / "debian/NEWS"
    news.write_text("csp1d (0.2.0-1) unstable; urgency=medium\n")
    assert "debian/NEWS" not in source.packaged(tree)
    news.write_text("csp1d (0.0.9-1) unstable; urgency=medium\n")
    assert "debian/NEWS" in source.packaged(tree)
    news.write_text("News\n")
    with pytest.raises(source.PackageError, match="debian/NEWS: its first entry has no version"):
        source.packaged(tree)


def test_a_tarball_has_parents_modes_and_links(tree: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(packed(tree))) as tar:
        members = {member.name: member for member in tar}
    folders = [name for name, member in members.items() if member.isdir()]
    assert folders == [f"csp1d-0.1.0{folder}" for folder in ("", "/csp1d", "/debian", "/tools")]
    assert members["csp1d-0.1.0/tools/run"].mode == 0o755
    assert members["csp1d-0.1.0/new"].mode == 0o644
    assert members["csp1d-0.1.0/tools/link"].linkname == "run"
    assert {member.mtime for member in members.values()} == {1_795_379_200}
    assert {member.uid for member in members.values()} == {0}


def test_the_checkout_does_not_show_in_a_tarball(tree: Path) -> None:
    before = packed(tree)
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
            os.utime(path, (1, 1))
    assert packed(tree) == before


@pytest.mark.parametrize("program", ["package", "release"])
def test_the_program_is_the_module_that_mypy_checks(program: str) -> None:
    assert (ROOT / "tools" / program).readlink() == Path(f"{program}.py")


def test_an_override_of_lintian_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / "debian/csp1d.lintian-overrides").write_text("csp1d: no-homepage-field\n")
    with pytest.raises(source.PackageError, match="fix what lintian reports"):
        source.build(tree, tmp_path, "bookworm")


def test_each_suite_has_a_version_and_the_later_suite_a_later_one(tree: Path) -> None:
    made = {suite: source.of_suite(source.release(tree), suite) for suite in SUITES}
    assert made["bookworm"].version == "0.1.0-2~deb12u1"
    assert made["trixie"].version == "0.1.0-2~deb13u1"
    first = source.changelog_entry(made["bookworm"], "bookworm", "Build.")
    (tree / "debian/changelog").write_text(first + CHANGELOG)
    # Dates of files are those of the package.
    assert source.release(tree) == made["bookworm"]
    for older, newer in itertools.pairwise(["0.1.0-1", "0.1.0-2~deb12u1", "0.1.0-2~deb13u1"]):
        subprocess.run(["dpkg", "--compare-versions", older, "lt", newer], check=True)
