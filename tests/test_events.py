# SPDX-License-Identifier: Apache-2.0
"""The table of events against the catalog that explains them and the code that logs them."""

import functools
import logging
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from csp1d.events import Event

ROOT = Path(__file__).parents[1]
CATALOG = ROOT / "systemd/csp1d.catalog"


@dataclass(frozen=True)
class Entry:
    """An entry of a message catalog: its headers and its text."""

    headers: dict[str, str]
    text: str


@functools.cache
def catalog() -> dict[str, Entry]:
    """The entries by MESSAGE_ID, read more strictly than systemd does."""
    comment, *entries = re.split(r"^-- (.*)\n", CATALOG.read_text(), flags=re.MULTILINE)
    assert all(not line or line.startswith("#") for line in comment.splitlines())
    found = {}
    for message_id, entry in zip(entries[::2], entries[1::2], strict=True):
        assert re.fullmatch(r"[0-9a-f]{32}", message_id)
        assert message_id not in found, message_id
        head, _, text = entry.partition("\n\n")
        headers = dict(line.split(": ", 1) for line in head.splitlines())
        found[message_id] = Entry(headers, text.strip())
    return found


def test_names_and_ids_are_unique_and_well_formed() -> None:
    for values in ([event.event_name for event in Event], [event.message_id for event in Event]):
        assert len(set(values)) == len(values)
    for event in Event:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", event.event_name)
        assert re.fullmatch(r"[0-9a-f]{32}", event.message_id)


def test_each_event_has_an_entry_and_each_entry_an_event() -> None:
    assert [event.message_id for event in Event] == list(catalog())


@pytest.mark.parametrize("event", Event)
def test_an_entry_says_what_it_means_and_what_to_do(event: Event) -> None:
    entry = catalog()[event.message_id]
    assert list(entry.headers) == ["Subject", "Defined-By", "Documentation"]
    assert entry.headers["Defined-By"] == "csp1d"
    # systemd would show @CSP1D_REASON@ as it stands: it takes a name with a digit for none.
    assert "@" not in entry.headers["Subject"] + entry.text
    assert max(map(len, entry.text.splitlines())) <= 90
    paragraphs = entry.text.split("\n\n")
    if event.level >= logging.WARNING:
        assert len(paragraphs) >= 3
        assert "charge point" in entry.text
        assert "No action needed" not in entry.text
    else:
        assert len(paragraphs) >= 2


def test_systemd_accepts_the_catalog(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    (tmp_path / "var/lib/systemd/catalog").mkdir(parents=True)
    shutil.copy(CATALOG, folder)

    def journalctl(*arguments: str) -> str:
        command = ["journalctl", f"--root={tmp_path}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        assert done.stderr == ""
        return done.stdout

    journalctl("--update-catalog")
    listed = sorted(
        f"{message_id} {entry.headers['Defined-By']}: {entry.headers['Subject']}"
        for message_id, entry in catalog().items()
    )
    assert sorted(journalctl("--list-catalog").splitlines()) == listed


def test_each_event_is_logged_somewhere() -> None:
    files = (ROOT / "csp1d").rglob("*.py")
    logged = {
        name for file in files for name in re.findall(r"\bEvent\.([A-Z]\w+)", file.read_text())
    }
    assert logged == {event.name for event in Event}


def test_the_journal_gets_the_fields() -> None:
    from systemd.journal import JournalHandler

    sent: list[dict[str, object]] = []

    def send(*message: str, **fields: object) -> None:
        sent.append({"MESSAGE": message[0], **fields})

    handler = JournalHandler(SYSLOG_IDENTIFIER="csp1d", sender_function=send)
    log = logging.getLogger("csp1d")
    log.addHandler(handler)
    try:
        Event.CLIPPING.log("%s clips", "L1", phase="L1", clipped_samples=3, device=None, key="")
    finally:
        log.removeHandler(handler)
    (entry,) = sent
    # Lower-case ones are Python's; journald drops them.
    fields = {name: value for name, value in entry.items() if name.isupper()}
    assert fields["MESSAGE"] == "L1 clips"
    assert fields["MESSAGE_ID"] == Event.CLIPPING.message_id
    assert fields["PRIORITY"] == "4"
    assert fields["SYSLOG_IDENTIFIER"] == "csp1d"
    assert fields["CODE_FUNC"] == "test_the_journal_gets_the_fields"
    assert {name: value for name, value in fields.items() if name.startswith("CSP1D_")} == {
        "CSP1D_EVENT": "clipping",
        "CSP1D_PHASE": "L1",
        "CSP1D_CLIPPED_SAMPLES": "3",
    }
