# SPDX-License-Identifier: Apache-2.0
"""The chroots of tools/package, whose content follows from the package's control files."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
for folder in ("tools", "tests/kernel"):
    sys.path.insert(0, str(ROOT / folder))

from packager.chroot import field, recipes  # noqa: E402

CONTROL = """Source: csp1d
Build-Depends: debhelper-compat (= 13),
# For the tests.
               python3-numpy <!nocheck>
Standards-Version: 4.6.2

Package: csp1d
Depends: udev,
         ${python3:Depends}
"""
TESTS = """Tests: unit
Depends: @, python3-pytest

Tests: smoke
Depends: @
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "debian/tests").mkdir(parents=True)
    (tmp_path / "debian/control").write_text(CONTROL)
    (tmp_path / "debian/tests/control").write_text(TESTS)
    return tmp_path


def test_a_field_is_read_without_comments_and_line_breaks(tree: Path) -> None:
    control = tree / "debian/control"
    assert field(control, "Build-Depends") == "debhelper-compat (= 13), python3-numpy <!nocheck>"
    assert field(control, "Depends", 1) == "udev, ${python3:Depends}"
    assert field(control, "Recommends", 1) == ""


def test_each_chroot_has_what_it_is_for(tree: Path) -> None:
    made_of = recipes(tree)
    assert "python3-numpy <!nocheck>" in made_of["build"].installed
    assert made_of["plain"].installed == ""
    assert made_of["plain"].downloaded == "udev, python3-numpy, python3-pytest"
    # A dependency missing in Depends must be missing where lifecycle installs the package.
    assert made_of["plain"].base is None
    assert made_of["check"].installed == "autopkgtest, lintian, udev, python3-numpy, python3-pytest"


def test_a_chroot_is_another_one_when_what_is_in_it_changes(tree: Path) -> None:
    before = {recipe.digest() for recipe in recipes(tree).values()}
    assert len(before) == 3
    assert {recipe.digest() for recipe in recipes(tree).values()} == before
    control = tree / "debian/control"
    control.write_text(CONTROL.replace("Depends: udev,", "Depends: procps,"))
    assert before.isdisjoint(recipe.digest() for recipe in recipes(tree).values())
    control.write_text(CONTROL.replace("4.6.2", "4.7.2"))
    assert {recipe.digest() for recipe in recipes(tree).values()} == before


def test_the_packages_own_control_files_are_understood() -> None:
    made_of = recipes(ROOT)
    assert "debhelper-compat" in made_of["build"].installed
    assert "python3-systemd" in made_of["plain"].downloaded
