# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl telegram`: the telegram for three currents, on standard output."""

import argparse
import sys
import time

from csp1d.config import Config
from csp1d.exits import OK, USAGE
from csp1d.p1.telegram import encode


def run(config: Config, arguments: argparse.Namespace) -> int:
    amperes = (arguments.l1, arguments.l2, arguments.l3)
    try:
        data = encode(config.p1, amperes, time.localtime(), config.direction)
    except ValueError as error:
        print(f"csp1ctl: {error}", file=sys.stderr)
        return USAGE
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return OK
