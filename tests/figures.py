# SPDX-License-Identifier: Apache-2.0
"""Sections of figures in docs/, which the tools that measure them write."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build() -> str:
    """When and what is measured, such as "29 November 2026, commit 502319e"."""
    changed = " with changes" if _git("status", "--porcelain", "--", ".", ":!docs") else ""
    return f"{time.strftime('%-d %B %Y')}, commit {_git('rev-parse', '--short', 'HEAD')}{changed}"


def section(page: Path, name: str) -> str:
    """The text between `<!-- name -->` and `<!-- end of name -->`."""
    match = _between(name).search(page.read_text(encoding="utf-8"))
    assert match, f"{page}: no section {name}"
    return match[0]


def write_section(page: Path, name: str, text: str) -> None:
    """Replace that text."""
    whole = page.read_text(encoding="utf-8")
    page.write_text(_between(name).sub(lambda _: text, whole), encoding="utf-8")


def _git(*arguments: str) -> str:
    """The output of a command of git."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end of {name} -->)", re.DOTALL)
