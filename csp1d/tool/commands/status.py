# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl status`: the state of the running daemon."""

import argparse

from csp1d.config import Config
from csp1d.errors import printable
from csp1d.exits import OK, PROBLEM
from csp1d.status import status_text
from csp1d.tool.client import Client


def run(config: Config, arguments: argparse.Namespace) -> int:
    client = Client(config.http)
    body = client.status_json()
    status = client.parse(body)
    if arguments.json:
        print(printable(body.decode(errors="replace")))
    else:
        print(status_text(status, client.path), end="")
    return OK if status.reading and not status.problems else PROBLEM
