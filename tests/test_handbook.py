# SPDX-License-Identifier: Apache-2.0
"""The handbook against what there is: its links lead somewhere, and each command, key, event,
metric, alert, file and tool that it names exists.
"""

import logging
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from parsers import PARSERS
from test_monitoring import emitted, rule_names

from csp1d.config import Config
from csp1d.config_file import load
from csp1d.events import Event

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FRONT = ("README.md", "CONTRIBUTING.md")
PAGES = {
    path.name: path.read_text()
    for path in [*(ROOT / name for name in FRONT), *sorted(DOCS.glob("*.md"))]
}
CHAPTERS = re.findall(r"^\| \d \| \[.+?\]\((\w+\.md)\)", PAGES["handbook.md"], re.MULTILINE)
TROUBLE = PAGES["troubleshoot.md"]
CATALOG = (ROOT / "systemd/csp1d.catalog").read_text()
TABLES = [spec.name for spec in fields(Config)]

each_page = pytest.mark.parametrize("page", PAGES)


def folder(page: str) -> Path:
    return ROOT if page in FRONT else DOCS


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```[\s\S]*?^```$|^(?: {4,}.*\n)+", "", text, flags=re.MULTILINE)


def code_lines(text: str) -> Iterator[str]:
    for line in re.findall(r"^ {4,}(.+)$", text, re.MULTILINE):
        # A comment is for the reader.
        yield re.sub(r"\s+# .*", "", line)


def anchors(text: str) -> set[str]:
    """Those that a reader's software makes of headings: words, lower case, joined by hyphens."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: str) -> None:
    text = prose(PAGES[page])
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (folder(page) / path).resolve() if path else folder(page) / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("text", [*PAGES.values(), CATALOG], ids=[*PAGES, "catalog"])
def test_commands_are_understood(text: str) -> None:
    for line in code_lines(text):
        if command := re.match(r"(?:sudo )?(csp1d|csp1ctl) (?!\d|--version)([^|>]*)", line):
            PARSERS[command[1],].parse_args(shlex.split(command[2]))


@each_page
def test_no_command_writes_the_shipped_configuration(page: str) -> None:
    """dpkg asks which version to keep, at each upgrade that brings another one."""
    for line in code_lines(PAGES[page]):
        assert not re.search(r"(>|\b(cp|install|tee)\b.*) ?/etc/csp1d/csp1d\.toml$", line), line


@each_page
def test_keys_exist_and_take_the_values_that_are_told(page: str, tmp_path: Path) -> None:
    file = tmp_path / "csp1d.toml"
    for told in re.findall(r"`([a-z0-9]+\.[\w.]+(?: = [^`]+)?)`", prose(PAGES[page])):
        key, _, value = told.partition(" = ")
        if key.partition(".")[0] not in TABLES or key.endswith((".md", ".toml")):
            continue
        if value:
            file.write_text(f"{key} = {value}\n")
            load(file)
            continue
        config: Any = Config()
        for part in key.split("."):
            config = getattr(config, part)


def test_the_journals_explanations_name_keys_that_exist() -> None:
    named = re.findall(rf"\b(?:{'|'.join(TABLES)})(?:\.\w+)+", CATALOG)
    assert len(named) > 5
    for key in named:
        config: Any = Config()
        for part in key.split("."):
            config = getattr(config, part)


@each_page
def test_blocks_of_configuration_are_good(page: str, tmp_path: Path) -> None:
    for block in re.findall(r"^    \[\w+\]\n(?:    .+\n)+", PAGES[page], re.MULTILINE):
        text = re.sub("^    ", "", block, flags=re.MULTILINE).split("END\n")[0]
        assert tomllib.loads(text)
        (tmp_path / "csp1d.toml").write_text(text)
        # Of certificates it names, the files are not here.
        if "tls_" not in text:
            load(tmp_path / "csp1d.toml")


@each_page
def test_metrics_exist(page: str) -> None:
    named = {*re.findall(r"\bcsp1d_[a-z0-9_]*[a-z0-9]\b(?!\*)", PAGES[page])}
    assert named <= {*emitted(), *rule_names("record")}


@each_page
def test_events_and_alerts_exist(page: str) -> None:
    events = {event.event_name for event in Event}
    assert {*re.findall(r"CSP1D_EVENT=([\w-]+)", PAGES[page])} <= events
    assert {*re.findall(r"\bCsp1d[A-Z]\w+", PAGES[page])} <= {*rule_names("alert")}


def test_each_fault_has_its_place() -> None:
    named = {*re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`|`(clipping)`", TROUBLE)}
    found = {first or second for first, second in named}
    faults = {event.event_name for event in Event if event.level >= logging.WARNING}
    assert faults - found == set()
    events = {event.event_name for event in Event}
    assert {name for name in found if name.endswith(("-lost", "-failed", "-stalled"))} <= events


def test_each_chapter_is_there_and_in_the_package() -> None:
    assert len(CHAPTERS) == 9
    packaged = (ROOT / "debian/csp1d.docs").read_text().split()
    assert {f"docs/{name}" for name in PAGES if name not in FRONT} <= {*packaged}
    # From anywhere a reader can find the way back to all of it.
    assert "docs/handbook.md" in PAGES["README.md"]


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len(prose(PAGES["README.md"]).split()) < 700


@pytest.mark.parametrize("page", FRONT)
def test_files_of_the_tree_exist(page: str) -> None:
    folders = "csp1d|debian|docs|etc|monitoring|overlays|systemd|tests|tools"
    named = re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w", PAGES[page])
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_each_tool_is_explained() -> None:
    text = PAGES["README.md"] + PAGES["CONTRIBUTING.md"]
    named = {*re.findall(r"tools/(\w+)", text)}
    executables = {
        path.stem
        for path in (ROOT / "tools").iterdir()
        if path.is_file() and path.stat().st_mode & 0o100
    }
    assert executables - named == set()


def test_pictures_are_shown_and_say_what_is_on_them() -> None:
    shown = {*re.findall(r"pictures/([\w.-]+)", "".join(PAGES.values()))}
    assert shown == {path.name for path in (DOCS / "pictures").iterdir()}
    for text in PAGES.values():
        assert not re.search(r"!\[\]|<img(?![^>]*alt=)", text)
    for drawing in (DOCS / "pictures").glob("*.svg"):
        assert "<title>" in drawing.read_text()
