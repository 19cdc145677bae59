# SPDX-License-Identifier: Apache-2.0
"""Where the log goes: to the journal with its fields, or as readable lines to a terminal.

systemd tells a service that its standard error is the journal in JOURNAL_STREAM
(systemd.exec(5)); then records go there natively, and a record's `extra` with upper-case names
becomes fields (systemd.journal-fields(7)).

Nobody waits for the log: a thread of its own writes it, since a journal that is stopped or a pipe
that nobody reads would otherwise hold up the telegrams.
"""

import contextlib
import logging
import os
import queue
import socket
import sys
import time
from logging.handlers import QueueHandler, QueueListener
from pathlib import Path

from csp1d.errors import ConfigError
from csp1d.events import Event

IDENTIFIER = "csp1d"

JOURNAL_SOCKET = Path("/run/systemd/journal/socket")

_MOST_WAITING = 1000
"""Records that nobody takes; further ones are counted only."""

_MOST_BYTES = 16384
"""Of a field in the journal: all fields have to go through its socket at once."""

_LEAVE_SECONDS = 1.0
"""How long the end of the process waits for its last words to be taken."""


def set_up(level: str) -> None:
    """Send the log of this process to where its standard error leads."""
    log = logging.getLogger(IDENTIFIER)
    log.setLevel(level.upper())
    log.propagate = False
    if not log.handlers:
        log.addHandler(_Outlet(_journal() if listens() else _lines()))


def leave() -> bool:
    """The process ends: wait a little until what was logged is written; whether it was."""
    outlets = logging.getLogger(IDENTIFIER).handlers
    return all(outlet.leave() for outlet in outlets if isinstance(outlet, _Outlet))


def log_rejected(error: ConfigError, and_so: str) -> None:
    """An event for each thing that is wrong with a configuration, and what follows from it."""
    for problem in error.problems:
        Event.CONFIGURATION_REJECTED.log(
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


class _Outlet(QueueHandler):
    """Hands records to a thread that gives them to a handler."""

    def __init__(self, sink: logging.Handler) -> None:
        self._waiting: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
        super().__init__(self._waiting)
        self._missing = 0
        self._listener = QueueListener(self._waiting, sink)
        self._listener.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never waits. What does not fit is missed, and that is said once there is room."""
        try:
            if self._missing:
                words = f"{self._missing} messages are missing here: nobody took them in time"
                where = (record.pathname, record.lineno)
                missing = logging.LogRecord(record.name, logging.WARNING, *where, words, None, None)
                self._waiting.put_nowait(self.prepare(missing))
                self._missing = 0
            self._waiting.put_nowait(record)
        except queue.Full:
            self._missing += 1

    def leave(self) -> bool:
        """Let the thread write what it has, if it can; whether it could."""
        end = time.monotonic() + _LEAVE_SECONDS
        while self._waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.01)
        return not self._waiting.unfinished_tasks


def _journal() -> logging.Handler:
    from systemd.journal import JournalHandler

    handler: logging.Handler = JournalHandler(
        sender_function=_JournalSocket().send, SYSLOG_IDENTIFIER=IDENTIFIER
    )
    return handler


class _JournalSocket:
    """Entries for the journal, in its native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).

    In the place of systemd.journal.send(), which keeps all threads of Python waiting while the
    journal takes nothing.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, message: str, /, **fields: object) -> None:
        """One entry. Waits until the journal takes it; without a journal it is lost.

        Fields have names in upper case; of others, as records have them, the journal takes none.
        """
        entry = b""
        for name, value in {"MESSAGE": message, **fields}.items():
            if not name.isupper():
                continue
            data = str(value).encode(errors="replace")[:_MOST_BYTES]
            # What the cut left of a character would make the journal take the text for a blob.
            data = data.decode(errors="ignore").encode()
            entry += b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            self._socket.sendto(entry, os.fspath(JOURNAL_SOCKET))


def _lines() -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d %(levelname)-7s %(message)s", "%H:%M:%S")
    )
    return handler
