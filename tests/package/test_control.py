# SPDX-License-Identifier: Apache-2.0
"""The files in debian/ agree with the project's own metadata and with Debian Policy."""

import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests/kernel")]

from packager.chroot import field  # noqa: E402


def test_the_package_requires_the_python_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = field(ROOT / "debian/control", "X-Python3-Version")
    assert required.replace(" ", "") == project["requires-python"]


TAG = f"SPDX-License-{'Identifier'}:"  # reuse would take it for this file's
"""Precedes the licence in the head of a file."""


def test_copyright_says_where_the_sources_are_from() -> None:
    """Policy 12.5."""
    assert field(ROOT / "debian/copyright", "Source")
    assert field(ROOT / "debian/copyright", "Upstream-Contact") == field(
        ROOT / "debian/control", "Maintainer"
    )


def test_copyright_has_the_licence_of_each_file() -> None:
    paragraphs = re.split(r"\n\n+", (ROOT / "debian/copyright").read_text())
    licences = {}
    for number, paragraph in enumerate(paragraphs):
        if paragraph.startswith("Files:"):
            pattern = field(ROOT / "debian/copyright", "Files", number)
            licences[pattern] = field(ROOT / "debian/copyright", "License", number)
    tagged = subprocess.run(
        ["git", "-C", ROOT, "grep", "-I", f"{TAG} [A-Z]"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = re.findall(rf"^(.+?):.*{TAG} ([\w.-]+)", tagged, re.MULTILINE)
    assert len(found) > 100
    for name, licence in found:
        # The last paragraph that matches applies.
        stated = [licences[pattern] for pattern in licences if fnmatch(name, pattern)]
        assert stated[-1] == licence, name
