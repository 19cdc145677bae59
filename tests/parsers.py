# SPDX-License-Identifier: Apache-2.0
"""The command lines that the programs understand, for whatever has to agree with them."""

import argparse

from csp1d import __main__ as daemon
from csp1d.operator import ctl


def _parsers() -> dict[tuple[str, ...], argparse.ArgumentParser]:
    found: dict[tuple[str, ...], argparse.ArgumentParser] = {
        ("csp1d",): daemon._parser(),
        ("csp1ctl",): ctl._parser(),
    }
    for action in found["csp1ctl",]._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {("csp1ctl", name): parser for name, parser in action.choices.items()}
    return found


PARSERS = _parsers()
"""Of both programs and of each command, by the words that lead there."""

COMMANDS = {words[1] for words in PARSERS if len(words) > 1}


def options(words: tuple[str, ...]) -> set[str]:
    return {option for action in PARSERS[words]._actions for option in action.option_strings}


def positionals(words: tuple[str, ...]) -> list[argparse.Action]:
    """In their order, without the place of a command."""
    return [
        action
        for action in PARSERS[words]._actions
        if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
    ]
