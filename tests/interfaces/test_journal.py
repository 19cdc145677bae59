# SPDX-License-Identifier: Apache-2.0
"""Journal entries, and that logging never blocks."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csp1d.interfaces import journal


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The journal's end of its socket."""
    path = tmp_path / "socket"
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(path))
        server.settimeout(10)
        yield server


def fields_of(entry: bytes) -> dict[str, str]:
    """Parse an entry of systemd's JOURNAL_NATIVE_PROTOCOL."""
    fields = {}
    while entry:
        name, _, rest = entry.partition(b"\n")
        length = int.from_bytes(rest[:8], "little")
        value, entry = rest[8 : 8 + length], rest[8 + length :]
        assert entry.startswith(b"\n")
        entry = entry[1:]
        fields[name.decode()] = value.decode()
    return fields


def test_an_entry_holds_message_priority_and_fields(listener: socket.socket) -> None:
    handler = journal._journal()
    record = logging.LogRecord("csp1d", logging.ERROR, __file__, 1, "two\nlines: %s", ("é",), None)
    record.MESSAGE_ID = "0123"
    record.DEVICE = "ADC"
    handler.emit(record)
    fields = fields_of(listener.recv(1 << 20))
    assert fields["MESSAGE"] == "two\nlines: é"
    assert fields["PRIORITY"] == "3"
    assert fields["SYSLOG_IDENTIFIER"] == "csp1d"
    assert (fields["MESSAGE_ID"], fields["DEVICE"]) == ("0123", "ADC")
    assert all(name.isupper() for name in fields)


def test_an_entry_is_cut_to_fit_the_socket(listener: socket.socket) -> None:
    journal._JournalSocket().send(
        "x" * 10_000_000, REASON="é" * 10_000_000, FILE="a" + "é" * 10_000_000
    )
    fields = fields_of(listener.recv(1 << 20))
    assert fields["MESSAGE"] == "x" * journal._MOST_BYTES
    assert fields["REASON"] == "é" * (journal._MOST_BYTES // 2)
    # Without the first half of the last character.
    assert len(fields["FILE"].encode()) == journal._MOST_BYTES - 1


def test_a_missing_journal_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "JOURNAL_SOCKET", tmp_path / "none")
    journal._JournalSocket().send("lost")


def test_the_journal_may_restart(listener: socket.socket) -> None:
    to_journal = journal._JournalSocket()
    address = listener.getsockname()
    listener.close()
    to_journal.send("lost")
    Path(address).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(address)
        other.settimeout(10)
        to_journal.send("received")
        assert fields_of(other.recv(1 << 20))["MESSAGE"] == "received"


def test_the_notice_of_dropped_messages_is_not_an_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an event it would be counted with the others."""

    class Sink(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(record)
            free.wait(10)

    written: list[logging.LogRecord] = []
    free = threading.Event()
    monkeypatch.setattr(journal, "_MOST_WAITING", 2)
    handler = journal._QueuedHandler(Sink())
    for number in range(9):
        record = logging.LogRecord("csp1d", logging.ERROR, "here", 1, "lost", None, None)
        record.CSP1D_EVENT = f"event-{number}"
        handler.handle(record)
        while not written:
            time.sleep(0.01)
    free.set()
    assert handler.leave()
    for number in (9, 10):
        record = logging.LogRecord("csp1d", logging.ERROR, "here", 1, "lost", None, None)
        record.CSP1D_EVENT = f"event-{number}"
        handler.handle(record)
        assert handler.leave()
    assert [getattr(record, "CSP1D_EVENT", record.message) for record in written] == [
        *("event-0", "event-1", "event-2"),
        "6 log messages dropped (journal too slow)",
        *("event-9", "event-10"),
    ]
    assert written[3].levelno == logging.WARNING


def test_a_blocked_journal_blocks_only_its_thread(listener: socket.socket) -> None:
    """systemd.journal.send() would block the whole interpreter."""
    entries = 3000

    def write() -> None:
        to_journal = journal._JournalSocket()
        for number in range(entries):
            to_journal.send(str(number))
            sent.append(number)

    sent: list[int] = []
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    before = -1
    while before != len(sent):
        before = len(sent)
        time.sleep(0.2)
    assert 0 < len(sent) < entries
    assert writer.is_alive()
    for number in range(entries):
        assert fields_of(listener.recv(1 << 20)) == {"MESSAGE": str(number)}
    writer.join(10)
    assert not writer.is_alive()
