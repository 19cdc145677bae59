# SPDX-License-Identifier: Apache-2.0
"""The client on real Unix sockets."""

import os
import pwd
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from csp1d.config import HttpConfig
from csp1d.errors import DeviceError
from csp1d.interfaces.http import SocketServer
from csp1d.interfaces.router import Page
from csp1d.tool.client import Client, NoAnswerError

PAGES = {"/status.json": Page("application/json", lambda: b'{"a": 1}')}


@contextmanager
def serving(path: Path, pages: Mapping[str, Page] = PAGES) -> Iterator[Client]:
    """A server at this path, and a client of it."""
    server = SocketServer(str(path), pages)
    try:
        yield Client(HttpConfig(socket=str(path)))
    finally:
        server.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "http.sock"


def ask(path: Path, serve: Callable[[socket.socket], None], problem: str) -> None:
    """Ask a server that serves one connection like this for its status; that must fail."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        server = threading.Thread(target=accept)
        server.start()
        with pytest.raises(NoAnswerError, match=problem):
            Client(HttpConfig(socket=str(path))).status()
        server.join()


@pytest.mark.parametrize(
    "config",
    [HttpConfig(), HttpConfig(listen=""), HttpConfig("192.0.2.1:1", "", "own", "own", "ca")],
)
def test_neither_listen_nor_tls_matters(path: Path, config: HttpConfig) -> None:
    with serving(path) as client:
        assert (client.path, client.status_json()) == (str(path), b'{"a": 1}')


def test_a_configuration_without_a_socket_is_named() -> None:
    with pytest.raises(DeviceError, match=r'http\.socket is "": csp1ctl cannot connect .* set it'):
        Client(HttpConfig(socket=""))


def remedy(path: Path) -> str:
    with pytest.raises(NoAnswerError, match=f"no answer from {path}: ") as raised:
        Client(HttpConfig(socket=str(path))).status()
    return str(raised.value).partition(": ")[2]


def test_no_answer_names_the_remedy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = "is csp1d running with this configuration? (sudo systemctl start csp1d)"
    assert remedy(path) == f"No such file or directory; {start}"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    assert remedy(path) == f"Connection refused; {start}"

    def refuse(connection: socket.socket, address: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert remedy(path) == (
        "Permission denied; run csp1ctl as root (sudo), or join the group csp1d: "
        f"sudo usermod -aG csp1d {user}, then log in again"
    )
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_000)
    assert "sudo usermod -aG csp1d USER," in remedy(path)


MALLORY = 4_000_000_001


@pytest.mark.parametrize(
    ("server", "me", "name"),
    [
        (0, 1000, ""),
        (1000, 1000, ""),
        (999, 1000, ""),
        (999, 0, ""),
        (1000, 0, "alice"),
        (1000, 1001, "alice"),
        (MALLORY, 0, str(MALLORY)),
    ],
)
def test_the_server_is_csp1d_or_root_or_oneself(
    path: Path, monkeypatch: pytest.MonkeyPatch, server: int, me: int, name: str
) -> None:
    """Its user, by the kernel; nothing is sent to another one."""
    names = {0: "root", 999: "csp1d", 1000: "alice", 1001: "bob"}

    class Connection(socket.socket):
        # One of the overloads, as the client calls it.
        def getsockopt(  # type: ignore[override]
            self, level: int, option: int, size: int = 0
        ) -> bytes:
            assert (level, option) == (socket.SOL_SOCKET, socket.SO_PEERCRED)
            _, user_id, _ = struct.unpack("iII", super().getsockopt(level, option, size))
            assert user_id == os.getuid()
            return struct.pack("iII", 1, server, 1)

        def sendall(self, data: bytes, flags: int = 0) -> None:  # type: ignore[override]
            assert not name
            super().sendall(data)

    def user(user_id: int) -> pwd.struct_passwd:
        return pwd.struct_passwd((names[user_id], "x", user_id, 1, "", "/", "/bin/sh"))

    with serving(path) as client:
        monkeypatch.setattr(socket, "socket", Connection)
        monkeypatch.setattr(os, "geteuid", lambda: me)
        monkeypatch.setattr(pwd, "getpwuid", user)
        if not name:
            assert client.status_json() == b'{"a": 1}'
            return
        with pytest.raises(NoAnswerError, match=f"runs as the user {name}, not as csp1d, root or"):
            client.status_json()


def test_another_server_is_reported(path: Path) -> None:
    with (
        serving(path) as client,
        pytest.raises(NoAnswerError, match="is not the status of this version of csp1d"),
    ):
        client.status()
    with (
        serving(path, {}) as client,
        pytest.raises(NoAnswerError, match=": 404 Not Found; see jou"),
    ):
        client.status()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", r"no answer from .*: connection closed; is csp1d busy or stuck"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ": its answer is not HTTP; see .*, or check http.socket"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "incomplete answer from /"),
        (b"HTTP/1.0 500 \x1b[2J\r\n\r\n", ": its answer is not HTTP"),
        (b"HTTP/1.0 500 " + b"A" * 61 + b"\r\n\r\n", ": its answer is not HTTP"),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "is not the status of this version of csp1d"),
        (
            b'HTTP/1.0 200 OK\r\n\r\n{"version": "\\ud800"}',
            "is not the status of this version of csp1d",
        ),
        (b"HTTP/1.0 2001\r\n\r\n{}", ": its answer is not HTTP"),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
            "is not the status of this version of csp1d",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(2 << 20), "the answer is too long"),
    ],
)
def test_answers_that_are_not_those_of_csp1d(path: Path, answer: bytes, problem: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        with suppress(ConnectionError):
            connection.sendall(answer)

    ask(path, serve, problem)


def test_an_answer_of_a_mebibyte_is_the_largest(path: Path) -> None:
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    for extra, problem in ((0, "not the status of this version"), (1, "the answer is too long")):
        path.unlink(missing_ok=True)

        def serve(connection: socket.socket, size: int = (1 << 20) + extra) -> None:
            connection.recv(4096)
            with suppress(ConnectionError):
                connection.sendall(head.ljust(size))

        ask(path, serve, problem)


@pytest.mark.parametrize("silent_seconds", [0.1, 0.6, 60])
def test_connection_and_answer_have_one_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch, silent_seconds: float
) -> None:
    monkeypatch.setattr("csp1d.tool.client._TIMEOUT_SECONDS", 1.0)

    def serve(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.recv(1024)
            # Ends when the client does.
            connection.settimeout(silent_seconds)
            while True:
                connection.sendall(b" ")
                with suppress(TimeoutError):
                    if not connection.recv(1024):
                        return

    start = time.monotonic()
    ask(path, serve, "timed out; is csp1d busy or stuck")
    assert 0.9 < time.monotonic() - start < 1.5


def test_a_server_that_does_not_accept_has_the_same_timeout(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csp1d.tool.client._TIMEOUT_SECONDS", 0.5)
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        for _ in range(2):
            start = time.monotonic()
            assert remedy(path).startswith("timed out; ")
            assert 0.4 < time.monotonic() - start < 1
