# SPDX-License-Identifier: Apache-2.0
"""Where the log goes: to the journal with its fields, or as readable lines to a terminal.

systemd tells a service that its standard error is the journal in JOURNAL_STREAM
(systemd.exec(5)); then records go there natively, and a record's `extra` with upper-case names
becomes fields (systemd.journal-fields(7)).
"""

import logging
import os
import sys

from csp1d.config_file import ConfigError
from csp1d.events import Event

IDENTIFIER = "csp1d"


def set_up(level: str) -> None:
    """Send the log of this process to where its standard error leads."""
    log = logging.getLogger(IDENTIFIER)
    log.setLevel(level.upper())
    log.propagate = False
    if not log.handlers:
        log.addHandler(_journal() if listens() else _lines())


def tell_rejected(error: ConfigError, and_so: str) -> None:
    """An event for each thing that is wrong with a configuration, and what follows from it."""
    for problem in error.problems:
        Event.CONFIGURATION_REJECTED.tell(
            "configuration rejected, %s: %s",
            and_so,
            problem,
            file=problem.file,
            key=problem.key,
            reason=problem.reason,
        )


def listens() -> bool:
    """Whether the standard error of this process is the journal."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        # Closed, or not a file.
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _journal() -> logging.Handler:
    from systemd.journal import JournalHandler

    handler: logging.Handler = JournalHandler(SYSLOG_IDENTIFIER=IDENTIFIER)
    return handler


def _lines() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    return handler
