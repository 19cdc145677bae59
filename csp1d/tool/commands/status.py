# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl status`: the state of the running daemon."""

import argparse

from csp1d.config import Config
from csp1d.errors import printable
from csp1d.exits import OK
from csp1d.status import status_text
from csp1d.tool.client import Client


def run(config: Config, arguments: argparse.Namespace) -> int:
    client = Client(config.http)
    if arguments.json:
        print(printable(client.status_json().decode(errors="replace")))
    else:
        print(status_text(client.status(), client.path), end="")
    return OK
