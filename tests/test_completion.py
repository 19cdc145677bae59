# SPDX-License-Identifier: Apache-2.0
"""Completion in bash: everything that the parsers accept, and existing files.

Most tests call the completion as bash does (COMP_WORDS and COMP_CWORD). Quoting, spaces and loading
by name are tested in an interactive bash that gets keys through a terminal.
"""

import os
import pty
import re
import select
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from parsers import COMMANDS, PARSERS, divisions, options, positionals

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "debian/completion.bash"
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")

# Without an interactive bash, compopt fails.
ASK = """
source "$1"; shift
compopt() { :; }
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_csp1 "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(folder: Path, *words: str) -> set[str]:
    """The completions that bash offers for the last word."""
    done = subprocess.run(
        ["bash", "-u", "-c", ASK, "bash", SCRIPT, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert done.stderr == ""
    return {*filter(None, done.stdout.split("\n"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of all kinds."""
    for name in ("a.toml", "b.txt", "house.json", "house.bin", "my house.json", "my house.bin"):
        (tmp_path / name).touch()
    (tmp_path / "captures").mkdir()
    (tmp_path / "captures/one.json").touch()
    return tmp_path


@pytest.mark.parametrize("words", PARSERS)
def test_all_options_are_offered(folder: Path, words: tuple[str, ...]) -> None:
    assert offered(folder, *words, "-") == options(words)


OPTIONS = [
    (words, option)
    for words in PARSERS
    for action in PARSERS[words]._actions
    if action.nargs != 0
    for option in action.option_strings
]


@pytest.mark.parametrize(("words", "option"), OPTIONS)
def test_the_value_of_an_option_is_not_a_command(
    folder: Path, words: tuple[str, ...], option: str
) -> None:
    commands = divisions(words)
    after_option = offered(folder, *words, option, "")
    assert not after_option & {"telegram", "zero", "--help"}
    assert commands <= offered(folder, *words, option, "x", "")
    assert commands <= offered(folder, *words, option, "=", "x", "")
    assert after_option == offered(folder, *words, option, "=")


@pytest.mark.parametrize("words", PARSERS)
def test_choices_are_offered_in_their_place(folder: Path, words: tuple[str, ...]) -> None:
    for number, action in enumerate(positionals(words)):
        if action.choices:
            before = ["x"] * number
            assert offered(folder, *words, *before, "") == {str(c) for c in action.choices}


CAPTURES = {"house", "my house", "captures"}
CASES: list[tuple[str, set[str]]] = [
    ("csp1ctl ''", COMMANDS),
    ("csp1ctl re", {"record", "replay"}),
    ("csp1ctl zero", set()),
    ("csp1ctl te", {"telegram"}),
    ("/usr/bin/csp1ctl te", {"telegram"}),
    ("csp1ctl --config x.toml te", {"telegram"}),
    ("csp1ctl calibrate ''", {"zero", "gain"}),
    ("csp1ctl calibrate --config x z", {"zero"}),
    ("csp1ctl calibrate zero ''", {"L1", "L2", "L3"}),
    ("csp1ctl calibrate zero L1 L", {"L1", "L2", "L3"}),
    ("csp1ctl calibrate gain L", {"L1=", "L2=", "L3="}),
    # To readline, L1=10 is three words.
    ("csp1ctl calibrate gain L1 = 1", set()),
    ("csp1ctl calibrate gain L1 = 10 L2", {"L2="}),
    ("csp1ctl watch --fuse ''", set()),
    ("csp1ctl --config ''", {"a.toml", "captures"}),
    ("csp1ctl --config a", {"a.toml"}),
    ("csp1ctl --config = a", {"a.toml"}),
    ("csp1ctl telegram ''", set()),
    ("csp1ctl telegram 1 2 3 ''", set()),
    ("csp1ctl telegram 1 --config a", {"a.toml"}),
    ("csp1ctl record ''", set()),
    ("csp1ctl record 10 ''", {"captures"}),
    ("csp1ctl record --config a.toml 10 ''", {"captures"}),
    ("csp1ctl replay ''", CAPTURES),
    ("csp1ctl --config = x replay h", {"house"}),
    ("csp1ctl replay captures/", {"captures/one"}),
    ("csp1ctl replay house ''", set()),
    ("csp1ctl nonsense ''", set()),
    ("csp1d ''", set()),
    ("csp1d no place for it ''", set()),
    ("csp1ctl telegram 1 2 3 4 5 ''", set()),
    ("csp1d --ch", {"--check-config"}),
    ("csp1d --simulate ''", {"a.toml", "captures"}),
    ("csp1d --simulate --ch", {"--check-config"}),
    ("csp1d --simulate L1=1 --config a", {"a.toml"}),
]


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_completions(folder: Path, line: str, expected: set[str]) -> None:
    assert offered(folder, *shlex.split(line)) == expected


# The interactive bash. The commands print their arguments.

SETTINGS = """
csp1d() { printf '<%s>' "$@"; printf '|\\n'; }
csp1ctl() { csp1d "$@"; }
bind 'set bell-style none'
bind 'set enable-bracketed-paste off'
HISTFILE=
PS1='ready '
"""

WAYS = {
    "bash alone": f"source {SCRIPT}",
    "beside bash-completion": f"source {BASH_COMPLETION}; source {SCRIPT}",
    "loaded by bash-completion": f"source {BASH_COMPLETION}",
}

KEYS = {
    "csp1ctl rep\thou\t": ["replay", "house"],
    "csp1ctl replay my\t": ["replay", "my house"],
    'csp1ctl replay "my\t': ["replay", "my house"],
    "csp1ctl replay my\\ h\t": ["replay", "my house"],
    "csp1ctl replay cap\ton\t": ["replay", "captures/one"],
    "csp1ctl --conf\ta\ttel\t1": ["--config", "a.toml", "telegram", "1"],
    "csp1ctl --config=a\ttel\t1": ["--config=a.toml", "telegram", "1"],
    "csp1ctl cal\tg\tL1\t10 --y\t": ["calibrate", "gain", "L1=10", "--yes"],
    "csp1d --config b\t--ch\t": ["--config", "b.txt", "--check-config"],
    "csp1d --sim\ta\t": ["--simulate", "a.toml"],
}


@pytest.mark.parametrize("way", WAYS)
def test_keys_in_a_terminal(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    if "bash-completion" in way:
        assert BASH_COMPLETION.exists(), "apt install bash-completion"
    home = tmp_path_factory.mktemp("home")
    # As the package installs it, for XDG_DATA_HOME.
    completions = home / "bash-completion/completions"
    completions.mkdir(parents=True)
    for line in (ROOT / "debian/csp1d.bash-completion").read_text().splitlines():
        if not line.startswith("#"):
            source, name = line.split()
            (completions / name).write_bytes((ROOT / source).read_bytes())
    (home / "bashrc").write_text(SETTINGS + WAYS[way] + "\n")
    answers = typed(home, folder, list(KEYS))
    assert dict(zip(KEYS, answers, strict=True)) == KEYS


def typed(home: Path, folder: Path, lines: list[str]) -> list[list[str]]:
    """The arguments of the command for each line of keys."""
    mine, theirs = pty.openpty()
    environment = {
        "HOME": str(home),
        "INPUTRC": "/dev/null",
        "LC_ALL": "C.UTF-8",
        "PATH": os.environ["PATH"],
        "TERM": "dumb",
        "XDG_DATA_HOME": str(home),
    }
    bash = subprocess.Popen(
        ["bash", "--noprofile", "--rcfile", home / "bashrc", "-i"],
        cwd=folder,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        wait_for(mine, r"ready $")
        answers = []
        for line in lines:
            os.write(mine, line.encode() + b"\n")
            answer = wait_for(mine, r"\n(<.*>)\|\r\n(.|\n)*ready $")
            answers.append(re.findall(r"<(.*?)>", answer[1]))
        return answers
    finally:
        bash.kill()
        bash.wait()
        os.close(mine)


def wait_for(fd: int, pattern: str) -> re.Match[str]:
    """Wait until the output of the terminal matches."""
    shown, end = "", time.monotonic() + 20
    while not (found := re.search(pattern, shown)):
        if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
            pytest.fail(f"bash shows {shown!r}")
        shown += os.read(fd, 4096).decode(errors="replace")
    return found
