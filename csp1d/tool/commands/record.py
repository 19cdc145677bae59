# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl record`: raw scans into a capture."""

import argparse
import sys

from csp1d.config import Config
from csp1d.exits import OK
from csp1d.tool.capture import save
from csp1d.tool.progress import progress
from csp1d.tool.scan_source import open_source


def run(config: Config, arguments: argparse.Namespace) -> int:
    seconds = arguments.seconds
    with (
        open_source(config) as source,
        progress(f"Recording {arguments.name}", seconds, "s") as show,
    ):
        if source.warning:
            print(f"csp1ctl: {source.warning}", file=sys.stderr)
        scans = save(arguments.name, source.format, source.chunks(seconds, show))
    print(f"{scans} scans in {arguments.name}.bin", file=sys.stderr)
    return OK
