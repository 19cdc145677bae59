# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl telegram`: the telegram for three currents, on standard output."""

import argparse
import sys
import time

from csp1d.config import Config
from csp1d.exits import INTERNAL, OK, USAGE
from csp1d.identity import identified
from csp1d.p1.telegram import encode, local_time_of
from csp1d.phase import Phase


def run(config: Config, arguments: argparse.Namespace) -> int:
    measured = config.channels.used()
    amperes = [getattr(arguments, phase.lower()) if phase in measured else None for phase in Phase]
    local_time = local_time_of(time.time())
    try:
        data = encode(identified(config.p1), amperes, local_time, config.direction)
    except ValueError as error:
        print(f"csp1ctl: {error}", file=sys.stderr)
        return USAGE
    if sys.stdout is None:
        print("csp1ctl: standard output is closed", file=sys.stderr)
        return INTERNAL
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return OK
