# SPDX-License-Identifier: Apache-2.0
"""The log: to the journal with structured fields, or as lines to standard error.

If standard error is the journal (JOURNAL_STREAM, see systemd.exec(5)), records go there in its
native protocol, and the upper-case names of a record's `extra` become fields
(systemd.journal-fields(7)).

A separate thread writes the log: a stopped journal or an unread pipe would otherwise delay
telegrams.
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
"""Records in the queue; further ones are dropped and counted."""

_MOST_BYTES = 16384
"""Limit for a field: all fields of an entry must fit in one datagram."""

_LEAVE_SECONDS = 1.0
"""Limit for writing the last records when the process ends."""


def set_up(level: str) -> None:
    """Log to the journal if standard error leads there, else to standard error."""
    log = logging.getLogger(IDENTIFIER)
    log.setLevel(level.upper())
    log.propagate = False
    if not log.handlers:
        log.addHandler(_QueuedHandler(_journal() if listens() else _lines()))


def leave() -> bool:
    """Wait up to a second until all records are written. Returns whether they are."""
    handlers = logging.getLogger(IDENTIFIER).handlers
    return all(handler.leave() for handler in handlers if isinstance(handler, _QueuedHandler))


def log_rejected(error: ConfigError, consequence: str = "") -> list[str]:
    """Log one event per problem of a configuration, with what follows from the rejection.

    Returns the messages.
    """
    return [
        Event.CONFIGURATION_REJECTED.log(
            "configuration rejected: %s%s",
            problem,
            consequence and f"; {consequence}",
            file=problem.file,
            key=problem.key,
            reason=problem.reason,
        )
        for problem in error.problems
    ]


def listens() -> bool:
    """Whether the standard error of this process is the journal."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        # Standard error is closed or replaced.
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


class _QueuedHandler(QueueHandler):
    """Passes records to a thread, which passes them to the handler `sink`."""

    def __init__(self, sink: logging.Handler) -> None:
        self._waiting: queue.Queue[logging.LogRecord] = queue.Queue(_MOST_WAITING)
        super().__init__(self._waiting)
        self._dropped = 0
        self._listener = QueueListener(self._waiting, sink)
        self._listener.start()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Queue a record without blocking. Dropped records are reported once there is room."""
        try:
            if self._dropped:
                text = f"{self._dropped} log messages dropped (journal too slow)"
                where = (record.pathname, record.lineno)
                notice = logging.LogRecord(record.name, logging.WARNING, *where, text, None, None)
                self._waiting.put_nowait(self.prepare(notice))
                self._dropped = 0
            self._waiting.put_nowait(record)
        except queue.Full:
            self._dropped += 1

    def leave(self) -> bool:
        """Wait up to `_LEAVE_SECONDS` until the queue is written. Returns whether it is."""
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
    """Sends entries in the journal's native protocol (systemd's JOURNAL_NATIVE_PROTOCOL).

    systemd.journal.send() holds the interpreter lock while the journal does not accept entries,
    and so blocks all threads.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def send(self, message: str, /, **fields: object) -> None:
        """Send one entry. Blocks until the journal accepts it; without a journal it is lost.

        Fields whose names are not upper-case are skipped: the journal does not accept them.
        """
        entry = b""
        for name, value in {"MESSAGE": message, **fields}.items():
            if not name.isupper():
                continue
            data = str(value).encode(errors="replace")[:_MOST_BYTES]
            # Without the rest of a cut character, which would make the field binary data.
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
