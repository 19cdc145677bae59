# SPDX-License-Identifier: Apache-2.0
"""The state that `systemctl status` shows."""

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from csp1d.events import ActiveProblem, Event
from csp1d.interfaces.service import ServiceManager, status_line
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import SHOWN_NS, Reading

END_NS = 7_000_000_000
READING = Reading(1, END_NS, 1.0, {}, 50.0, 4000, 0)
STUCK = ActiveProblem(Event.TELEGRAM_DROPPED, "P1 port", "telegram dropped: look", 0)
UP = Snapshot(adc_up=True, reading=READING, p1_up=True, p1_requested=True)

LINES: list[tuple[Snapshot, int, str]] = [
    (Snapshot(), 0, "Waiting for a reading; P1 port missing; request line missing"),
    (UP, END_NS + SHOWN_NS, "Measuring; P1 port open; requesting"),
    (UP, END_NS + SHOWN_NS + 1, "Waiting for a reading; P1 port open; requesting"),
    (
        Snapshot(adc_up=True, p1_requested=False),
        END_NS,
        "Waiting for a reading; P1 port missing; no request",
    ),
    (replace(UP, problems=(STUCK,)), END_NS, "Telegram dropped: look; requesting"),
    (
        replace(UP, problems=(STUCK, STUCK)),
        END_NS,
        "Telegram dropped: look (and 1 more problem); requesting",
    ),
]


@pytest.mark.parametrize(("state", "now_ns", "expected"), LINES)
def test_the_state_as_a_line(state: Snapshot, now_ns: int, expected: str) -> None:
    assert status_line(state, now_ns) == expected


@pytest.mark.parametrize(
    ("usec", "pid", "is_fed"),
    [
        (None, None, False),
        ("2000000", None, True),
        ("2000000", "own", True),
        ("2000000", "1", False),
    ],
)
def test_the_watchdog_is_fed_if_it_is_this_process_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, is_fed: bool
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    for name, value in {"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}.items():
        monkeypatch.delenv(name, raising=False)
        if value:
            monkeypatch.setenv(name, str(os.getpid()) if value == "own" else value)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        manager = ServiceManager()
        manager.alive()
        manager.ready()
        manager.close()
        received = [receiver.recv(100) for _ in range(1 + is_fed)]
    assert received == [*([b"WATCHDOG=1"] if is_fed else []), b"READY=1"]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("a\nb", b"a b"),
        # As the name of a drop-in that is not UTF-8, in the reason of a rejection.
        (os.fsdecode(b"caf\xe9.toml: adc"), b"caf?.toml: adc"),
        ("\U0001f50c" * 5000, "\U0001f50c".encode() * 1000),
    ],
)
def test_any_text_can_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, sent: bytes
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        manager = ServiceManager()
        manager.status(text)
        manager.close()
        assert receiver.recv(1 << 16) == b"STATUS=" + sent
