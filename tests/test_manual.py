# SPDX-License-Identifier: Apache-2.0
"""The man pages agree with the programs: nothing is missing, nothing is listed that does not exist.

A page is read as text: its sections, and in them the entries of definition lists. Pages are built
as the package builds them.
"""

import ast
import itertools
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from parsers import COMMANDS, PARSERS, divisions, options, positionals

import csp1d
from csp1d import exits
from csp1d.config import Config
from csp1d.config_file import load
from csp1d.events import Event
from csp1d.hat import scenario
from csp1d.loading import problem
from csp1d.measuring.reading import Reading
from csp1d.measuring.replay import reading_json

ROOT = Path(__file__).parents[1]
SOURCES = [path.read_text() for path in Path(csp1d.__file__).parent.rglob("*.py")]
NAMES = ("csp1d.8", "csp1ctl.1", "csp1d.toml.5")
PAGES = {name: (ROOT / f"docs/man/{name}.rst").read_text("ascii") for name in NAMES}

INTERRUPTED = 130
"""What a shell makes of SIGINT."""


def sections(page: str) -> dict[str, str]:
    """The text of each section and subsection, by title."""
    parts = re.split(r"^(.+)\n[-~]{3,}\n", PAGES[page], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def terms(text: str) -> list[str]:
    """The terms of the definition lists in a section: lines with an indented one right below."""
    return re.findall(r"^(\S.*)\n    \S", text, flags=re.MULTILINE)


def marked(text: str, mark: str) -> list[str]:
    """The texts between marks, such as ** or ``."""
    mark = re.escape(mark)
    return re.findall(rf"{mark}(.+?){mark}", text)


def literal_blocks(page: str) -> list[str]:
    blocks = re.findall(r"::\n\n((?:(?:    .*)?\n)+)", PAGES[page])
    return [re.sub("^    ", "", block, flags=re.MULTILINE) for block in blocks]


# The configuration.


def tables(kind: Any = Config, name: str = "") -> Iterator[tuple[str, type]]:
    """Each table of the configuration that has keys of its own: its name and its dataclass."""
    hints = typing.get_type_hints(kind)
    if not all(map(is_dataclass, hints.values())):
        yield name, kind
    for key, hint in hints.items():
        if is_dataclass(hint):
            yield from tables(hint, f"{name}.{key}".lstrip("."))


TABLES = dict(tables())


def described(table: str) -> tuple[int, dict[str, str]]:
    """The position of a table in its section, and the parenthesis after each key there."""
    for title, text in sections("csp1d.toml.5").items():
        shared = re.findall(r"\[([\w.]+)\]", title)
        if table in shared:
            found = [re.fullmatch(r"``(\w+)`` \((.*)\)", term) for term in terms(text)]
            assert all(found), terms(text)
            return shared.index(table), {match[1]: match[2] for match in found if match}
    pytest.fail(f"no section [{table}]")


def plain_keys(table: str) -> dict[str, Any]:
    """The type of each key that is not a table."""
    hints = typing.get_type_hints(TABLES[table])
    return {name: kind for name, kind in hints.items() if not is_dataclass(kind)}


KEYS = [(table, key) for table in TABLES for key in plain_keys(table)]


def test_the_page_lists_the_tables() -> None:
    titles = [title for title in sections("csp1d.toml.5") if title.startswith("[")]
    assert re.findall(r"\[([\w.]+)\]", " ".join(titles)) == list(TABLES)


@pytest.mark.parametrize("table", TABLES)
def test_a_table_lists_its_keys(table: str) -> None:
    assert list(described(table)[1]) == list(plain_keys(table))


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_a_default_is_that_of_the_program(table: str, key: str) -> None:
    place, keys = described(table)
    defaults = marked(keys[key].partition("; default ")[2], "``")
    shown = defaults[place] if len(defaults) > 1 else defaults[0]
    default: Any = Config()
    for name in (*table.split("."), key):
        default = getattr(default, name)
    assert tomllib.loads(f"x = {shown}")["x"] == default


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_type_and_limits_are_those_of_the_program(table: str, key: str) -> None:
    kind = plain_keys(table)[key]
    stated = described(table)[1][key].partition("; default ")[0]
    if typing.get_origin(kind) is Literal:
        assert marked(stated, "``") == [json.dumps(choice) for choice in typing.get_args(kind)]
        return
    names = {str: "string", float: "number", int: "whole number", bool: "true or false"}
    kinds = typing.get_args(kind) or (kind,)
    assert re.match(" or ".join(names[kind] for kind in kinds) + r"\b", stated)
    limits = re.search(r", (\S+) to (\S+)$", stated)
    if not {int, float} & {*kinds}:
        assert not limits
        return
    assert limits

    def good(value: float) -> bool:
        return problem(TABLES[table], key, value) is None

    low, high = (int(float(x)) if int in kinds else float(x) for x in limits.groups())
    assert good(low)
    assert good(high)
    assert not good(low - 1 if int in kinds else math.nextafter(low, -math.inf))
    assert not good(high + 1 if int in kinds else math.nextafter(high, math.inf))


def meanings() -> dict[tuple[str, str], str]:
    """The docstring of each key by table and key, and that of each table with the key ""."""
    source = ast.parse((ROOT / "csp1d/config.py").read_text())
    classes = {node.name: node for node in source.body if isinstance(node, ast.ClassDef)}
    found = {}
    for table, kind in TABLES.items():
        node = classes[kind.__name__]
        found[table, ""] = ast.get_docstring(node) or ""
        for field, below in itertools.pairwise(node.body):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[table, ast.unparse(field.target)] = ast.literal_eval(below.value)
    return found


MEANINGS = meanings()
TABLES_AND_KEYS = [*KEYS, *((table, "") for table in TABLES)]


def test_every_table_and_key_has_a_docstring() -> None:
    assert {*MEANINGS} == {*TABLES_AND_KEYS}
    assert all(re.fullmatch(r"[A-Z0-9].*\.", meaning) for meaning in MEANINGS.values())


@pytest.mark.parametrize(("table", "key"), TABLES_AND_KEYS)
def test_an_entry_begins_with_the_docstring_in_the_code(table: str, key: str) -> None:
    titles = [title for title in sections("csp1d.toml.5") if f"[{table}]" in title]
    text = sections("csp1d.toml.5")[titles[0]]
    if key:
        text = re.split(rf"^``{key}`` .*\n", text, maxsplit=1, flags=re.MULTILINE)[1]
    plain = " ".join(re.sub(r"[*`\\]", "", text).split())
    assert opens_with(plain, MEANINGS[table, key])


@pytest.mark.parametrize(("table", "key"), TABLES_AND_KEYS)
def test_a_comment_in_the_shipped_file_begins_with_the_docstring(table: str, key: str) -> None:
    comments: dict[tuple[str, str], str] = {}
    comment, current = "", ""
    for line in (ROOT / "etc/csp1d.toml").read_text().splitlines():
        if line.startswith("#"):
            comment += line.removeprefix("#")
            continue
        if line.startswith("["):
            current = line.strip("[]")
            comments[current, ""] = comment.strip()
        elif line:
            comments[current, line.partition(" = ")[0]] = comment.strip()
        comment = ""
    # The first of the tables that are alike explains them all.
    first = next(name for name, kind in TABLES.items() if kind is TABLES[table])
    assert opens_with(comments[first, key], MEANINGS[table, key])


def opens_with(text: str, sentence: str) -> bool:
    """Whether the first sentence is this one, or this one with something added to it."""
    return re.match(re.escape(sentence.removesuffix(".")) + r"[.;]", text) is not None


def test_examples_of_configurations_are_valid(tmp_path: Path) -> None:
    examples = [block for block in literal_blocks("csp1d.toml.5") if block.startswith("[")]
    assert len(examples) > 1
    for number, example in enumerate(examples):
        (tmp_path / f"{number}.toml").write_text(example)
        assert load(tmp_path / f"{number}.toml") != Config()


# The commands.


PAGE = {"csp1d": "csp1d.8", "csp1ctl": "csp1ctl.1"}


def shown_options(text: str) -> set[str]:
    return {word for term in terms(text) for word in marked(term, "**") if word[0] == "-"}


@pytest.mark.parametrize("program", PAGE)
def test_a_page_has_the_options_that_there_are(program: str) -> None:
    page = sections(PAGE[program])
    mine = [words for words in PARSERS if words[0] == program]
    for words in mine:
        own = shown_options(page[words[1]]) if len(words) > 1 else set()
        assert options(words) <= shown_options(page["OPTIONS"]) | own
    assert shown_options(PAGES[PAGE[program]]) <= set[str]().union(*map(options, mine))


def test_the_page_has_the_commands_that_there_are() -> None:
    page = sections("csp1ctl.1")
    subsections = re.findall(r"^(.+)\n~+\n", PAGES["csp1ctl.1"], flags=re.MULTILINE)
    assert {*subsections} == COMMANDS
    for words in PARSERS:
        if words[0] != "csp1ctl" or len(words) == 1 or divisions(words):
            continue
        several = {None: "*{}*", "*": "[*{}* ...]", "?": "[*{}*]"}
        arguments = [several[action.nargs].format(action.metavar) for action in positionals(words)]  # type: ignore[index]
        usage = " ".join([*(f"**{word}**" for word in words[1:]), *arguments])
        assert f"\n**csp1ctl** {usage}\n" in page[words[1]]
        assert f"**csp1ctl** [**--config** *FILE*] {usage}" in page["SYNOPSIS"]


def test_examples_of_commands_can_be_parsed() -> None:
    lines = [line for name in NAMES for block in literal_blocks(name) for line in block.split("\n")]
    commands = [shlex.split(re.split("[|>]", line)[0]) for line in lines]
    commands = [words for words in commands if words and words[0] in PAGE]
    assert {words[0] for words in commands} == {*PAGE}
    for program, *arguments in commands:
        PARSERS[program,].parse_args(arguments)


@pytest.mark.parametrize("program", PAGE)
def test_exit_codes(program: str) -> None:
    codes = {code for name, code in vars(exits).items() if name.isupper()} | {INTERRUPTED}
    text = sections(PAGE[program])["EXIT STATUS"]
    # The daemon waits for devices, as its page explains below the list.
    shown = {int(term) for term in terms(text)} | {
        int(code) for code in re.findall(r"\((\d+) ", text)
    }
    assert shown == codes


# What csp1d(8) and csp1ctl(1) list besides.


def test_scenarios(tmp_path: Path) -> None:
    text = sections("csp1d.8")["SCENARIOS"]
    assert [marked(term, "``")[0] for term in terms(text)] == [
        spec.name for spec in fields(scenario.Step)
    ]
    assert {*re.findall('"([a-z]+)"', text)} == {*scenario.Request}
    steps = [block for block in literal_blocks("csp1d.8") if block.startswith("[[step]]")]
    assert steps
    for example in steps:
        (tmp_path / "x.toml").write_text(example)
        assert scenario.parse(str(tmp_path / "x.toml"))


def test_events_and_their_fields() -> None:
    page = sections("csp1d.8")
    events = [name for term in terms(page["EVENTS"]) for name in marked(term, "**")]
    assert sorted(events) == sorted(event.event_name for event in Event)
    calls = [node for text in SOURCES for node in ast.walk(ast.parse(text))]
    told = {
        f"CSP1D_{keyword.arg.upper()}"
        for node in calls
        if isinstance(node, ast.Call)
        and re.fullmatch(r"(?!_logger).+\.log", ast.unparse(node.func))
        for keyword in node.keywords
        if keyword.arg and keyword.arg not in ("exc_info", "stacklevel")
    }
    shown = {name for term in terms(page["JOURNAL FIELDS"]) for name in marked(term, "**")}
    assert shown == told | {"CSP1D_EVENT", "MESSAGE_ID"}


def test_environment() -> None:
    used = set()
    for text in SOURCES:
        used |= {*re.findall(r'environ(?:\.get\(|\[)"(\w+)"|"(\w+)" in os\.environ', text)}
    shown = [
        name for term in terms(sections("csp1d.8")["ENVIRONMENT"]) for name in marked(term, "**")
    ]
    assert sorted(shown) == sorted({first or second for first, second in used})


def test_what_replay_prints() -> None:
    reading = Reading(1, 0, 1.0, {}, None, 0, 0)
    shown = [name for term in terms(sections("csp1ctl.1")["replay"]) for name in marked(term, "``")]
    assert shown == list(reading_json(reading))


# The pages as they are built and installed.


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    for name in NAMES:
        source = ROOT / f"docs/man/{name}.rst"
        build = [sys.executable, "-m", "docutils", "--writer=manpage", "--strict"]
        done = subprocess.run(
            [*build, source, folder / name], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_page_bears_its_name_and_no_date(built: Path, name: str) -> None:
    title, _, section = name.rpartition(".")
    header = re.search(r'^\.TH "?([\w.]+)"? "?(\d)"? "(.*?)"', (built / name).read_text(), re.M)
    assert header
    assert (header[1].lower(), header[2], header[3]) == (title, section, "")


@pytest.mark.parametrize("name", NAMES)
def test_man_shows_a_page_without_a_warning(built: Path, name: str) -> None:
    assert shutil.which("man"), "apt install man-db"
    man = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8"]
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "GROFF_NO_SGR": "1"}
    done = subprocess.run(
        [*man, built / name], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    # Bold is a letter written over itself.
    shown = re.sub(".\b", "", done.stdout).split("\n")
    assert "NAME" in shown
    assert [line for line in shown if len(line) > 80] == []


def test_the_package_takes_every_page() -> None:
    assert {path.name for path in (ROOT / "docs/man").iterdir()} == {f"{n}.rst" for n in NAMES}
    pages = (ROOT / "debian/csp1d.manpages").read_text().split()
    assert pages == [f"build/man/{name}" for name in NAMES]
