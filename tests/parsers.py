# SPDX-License-Identifier: Apache-2.0
"""The argument parsers of the programs, for tests of what has to agree with them."""

import argparse

from csp1d import __main__ as daemon
from csp1d.tool import ctl


def _parsers() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    return _with_commands(("csp1d",), daemon._parser()) | _with_commands(
        ("csp1ctl",), ctl._parser()
    )


def _with_commands(
    words: tuple[str, ...], parser: argparse.ArgumentParser
) -> dict[tuple[str, ...], argparse.ArgumentParser]:
    found = {words: parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                found |= _with_commands((*words, name), command)
    return found


PARSERS = _parsers()
"""Of both programs, their commands and subcommands, by the words that lead to them."""

COMMANDS = {words[1] for words in PARSERS if len(words) == 2}


def options(words: tuple[str, ...]) -> set[str]:
    return {option for action in PARSERS[words]._actions for option in action.option_strings}


def divisions(words: tuple[str, ...]) -> set[str]:
    """The commands that may follow these words."""
    return {longer[-1] for longer in PARSERS if longer[:-1] == words}


def positionals(words: tuple[str, ...]) -> list[argparse.Action]:
    """The positional arguments in order, without the command."""
    return [
        action
        for action in PARSERS[words]._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]
