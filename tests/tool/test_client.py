# SPDX-License-Identifier: Apache-2.0
"""The client on real sockets, with and without TLS."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from certificates import make_certificate

from csp1d.config import HttpConfig
from csp1d.errors import DeviceError
from csp1d.interfaces.http import HttpServer
from csp1d.interfaces.router import Page
from csp1d.tool.client import Client, NoAnswerError

PAGES = {"/status.json": Page("application/json", lambda: b'{"a": 1}')}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def serving(config: HttpConfig, pages: Mapping[str, Page] = PAGES) -> Iterator[None]:
    server = HttpServer(config, pages)
    try:
        yield
    finally:
        server.close()


def ask(serve: Callable[[socket.socket], None], problem: str) -> None:
    """Ask a server that serves one connection like this for its status; that must fail."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                serve(connection)

        server = threading.Thread(target=accept)
        server.start()
        client = Client(HttpConfig(listen=f"127.0.0.1:{listener.getsockname()[1]}"))
        with pytest.raises(NoAnswerError, match=problem):
            client.status()
        server.join()


@pytest.mark.parametrize(
    ("listen", "host"),
    [
        ("127.0.0.1:{}", "127.0.0.1"),
        ("localhost:{}", "127.0.0.1"),
        ("0.0.0.0:{}", "127.0.0.1"),
        (":{}", "127.0.0.1"),
        ("[::1]:{}", "[::1]"),
        ("[::]:{}", "[::1]"),
    ],
)
def test_an_address_for_all_interfaces_is_asked_on_loopback(listen: str, host: str) -> None:
    port = free_port()
    config = HttpConfig(listen=listen.format(port))
    with serving(config):
        client = Client(config)
        assert client.url == f"http://{host}:{port}/"
        assert client.status_json() == b'{"a": 1}'


def test_a_proxy_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    config = HttpConfig(listen=f"127.0.0.1:{free_port()}")
    with serving(config):
        assert Client(config).status_json()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (HttpConfig(listen=""), 'http.listen is "": the HTTP server is disabled; set it'),
        (
            HttpConfig(listen="127.0.0.1:0"),
            "http.listen '127.0.0.1:0' lets the system choose a port",
        ),
        (
            HttpConfig("127.0.0.1:1", "", "own.pem", "own.key", "ca.pem"),
            r"client certificate .* http\.tls_client_ca; give one with --certificate and --key",
        ),
        (
            HttpConfig("127.0.0.1:1", "", "no-such.pem", "no-such.key"),
            r"http.tls_certificate 'no-such.pem'.*No such file.*; set http.tls_certificate to",
        ),
    ],
)
def test_configurations_that_allow_no_connection(config: HttpConfig, problem: str) -> None:
    with pytest.raises(DeviceError, match=problem):
        Client(config)


def test_only_a_denied_permission_is_a_reason_to_become_root(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", refuse)
    with pytest.raises(DeviceError, match=r"Permission denied; make it readable, or .* as root"):
        Client(HttpConfig("127.0.0.1:1", "", "own.pem", "own.key"))


def test_no_answer_names_the_remedy() -> None:
    client = Client(HttpConfig(listen=f"127.0.0.1:{free_port()}"))
    with pytest.raises(
        NoAnswerError, match=r"no answer from .*: Connection refused; is csp1d running"
    ):
        client.status()


def test_another_server_is_reported() -> None:
    config = HttpConfig(listen=f"127.0.0.1:{free_port()}")
    with (
        serving(config),
        pytest.raises(NoAnswerError, match="is not the status of this version of csp1d"),
    ):
        Client(config).status()
    with serving(config, {}), pytest.raises(NoAnswerError, match="is not csp1d: 404"):
        Client(config).status()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", r"no answer from http://.*: connection closed; is csp1d running"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not csp1d: its answer is not HTTP; check http.listen"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", "incomplete answer from http://"),
        (b"HTTP/1.0 500 \x1b[2J\r\n\r\n", "is not csp1d: its answer is not HTTP"),
        (b"HTTP/1.0 200 OK\r\n\r\n[]", "is not the status of this version of csp1d"),
        (
            b'HTTP/1.0 200 OK\r\n\r\n{"version": "\\ud800"}',
            "is not the status of this version of csp1d .*surrogates not allowed",
        ),
        (b"HTTP/1.0 2001\r\n\r\n{}", "is not csp1d: its answer is not HTTP"),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{}",
            "is not the status of this version of csp1d",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\n" + bytes(2 << 20), "the answer is too long"),
    ],
)
def test_answers_that_are_not_those_of_csp1d(answer: bytes, problem: str) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4096)
        with suppress(ConnectionError):
            connection.sendall(answer)

    ask(serve, problem)


def test_a_slow_answer_ends_after_the_timeout_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csp1d.tool.client._TIMEOUT_SECONDS", 0.5)

    def serve(connection: socket.socket) -> None:
        with suppress(ConnectionError):
            while True:
                connection.sendall(b" ")
                time.sleep(0.1)

    ask(serve, "timed out")


def test_with_tls_only_the_configured_certificate_is_trusted(tmp_path: Path) -> None:
    own, own_key = make_certificate(tmp_path, "sensor")
    other, other_key = make_certificate(tmp_path, "other")
    config = HttpConfig(f"127.0.0.1:{free_port()}", str(own), str(own_key))
    with serving(config):
        assert Client(config).url.startswith("https://")
        assert Client(config).status_json() == b'{"a": 1}'
        stale = HttpConfig(config.listen, str(other), str(other_key))
        with pytest.raises(NoAnswerError, match=r"certificate verify failed.*reload csp1d"):
            Client(stale).status_json()


def test_a_clients_certificate_is_presented(tmp_path: Path) -> None:
    own, own_key = make_certificate(tmp_path, "sensor")
    me, my_key = make_certificate(tmp_path, "operator")
    other, other_key = make_certificate(tmp_path, "other")
    config = HttpConfig(f"127.0.0.1:{free_port()}", str(own), str(own_key), str(me))
    both = tmp_path / "both.pem"
    both.write_text(me.read_text() + my_key.read_text())
    with serving(config):
        assert Client(config, str(me), str(my_key)).status_json()
        assert Client(config, str(both)).status_json()
        with pytest.raises(NoAnswerError, match=r"no answer from https://"):
            Client(config, str(other), str(other_key)).status_json()
    with pytest.raises(DeviceError, match=r"--certificate '.*operator.pem' or --key cannot be"):
        Client(config, str(me))


def test_a_server_that_falls_silent_does_not_extend_the_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("csp1d.tool.client._TIMEOUT_SECONDS", 1.0)
    ends = []

    def serve(connection: socket.socket) -> None:
        connection.recv(1024)
        time.sleep(0.6)
        connection.sendall(b" ")
        # The client has 0.4 s left; another full timeout would be 1 s.
        connection.settimeout(0.8)
        with suppress(TimeoutError):
            ends.append(connection.recv(1024))

    ask(serve, "timed out")
    assert ends == [b""]
