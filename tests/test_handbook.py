# SPDX-License-Identifier: Apache-2.0
"""The handbook against the program: links that lead somewhere, and names that there are."""

import re
import shlex
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from parsers import COMMANDS, PARSERS

from csp1d.config import Config
from csp1d.events import Event
from csp1d.operator import metrics

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
CATALOG = (ROOT / "systemd/csp1d.catalog").read_text()


def anchors(page: str) -> set[str]:
    """Of the headings of a page, as a forge makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", page)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def keys(table: Any = Config, prefix: str = "") -> set[str]:
    """All keys of the configuration, tables included, as in "p1.request.chip"."""
    found = set()
    default = table() if isinstance(table, type) else table
    for field in fields(default):
        value = getattr(default, field.name)
        found.add(prefix + field.name)
        if is_dataclass(value):
            found |= keys(value, f"{prefix}{field.name}.")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", text):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_are_those_of_the_program(page: Path) -> None:
    text = page.read_text()
    tables = {key.partition(".")[0] for key in keys()}
    for name in re.findall(r"`((?:\w+\.)+\w+)`", text):
        if name.partition(".")[0] in tables:
            assert name in keys(), name
    there_are = set(re.findall(r'"(csp1d_\w+)"', Path(metrics.__file__).read_text()))
    for name in re.findall(r"\bcsp1d_\w+", text):
        assert name in there_are or name.removesuffix("_total") in there_are, name
    for command in re.findall(r"csp1ctl ([a-z]\w+)", text):
        assert command in COMMANDS, command


def test_every_warning_is_a_symptom() -> None:
    text = " ".join((ROOT / "docs/troubleshoot.md").read_text().split())
    subjects = dict(re.findall(r"(?m)^-- ([0-9a-f]{32})\nSubject: (.*)$", CATALOG))
    for event in Event:
        if event.level >= 30:
            assert f"*{subjects[event.message_id]}*" in text, subjects[event.message_id]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_commands_can_be_parsed(page: Path) -> None:
    for line in re.findall(r"(?m)^ {4,7}(.*)$", page.read_text()):
        for command in re.split("[;|>]", line.partition("#")[0]):
            if example := re.match(r" *(?:sudo )?(csp1(?:d|ctl)) (.*)", command):
                PARSERS[(example[1],)].parse_args(shlex.split(example[2]))
