# SPDX-License-Identifier: Apache-2.0
"""Asking the daemon on real sockets, with and without TLS."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_http import make_certificate

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
def serving(config: HttpConfig) -> Iterator[None]:
    server = HttpServer(config, PAGES)
    try:
        yield
    finally:
        server.close()


@pytest.mark.parametrize(
    ("listen", "asked"),
    [
        ("127.0.0.1:{}", "127.0.0.1"),
        ("localhost:{}", "127.0.0.1"),
        ("0.0.0.0:{}", "127.0.0.1"),
        (":{}", "127.0.0.1"),
        ("[::1]:{}", "[::1]"),
        ("[::]:{}", "[::1]"),
    ],
)
def test_an_address_for_everybody_is_asked_at_home(listen: str, asked: str) -> None:
    port = free_port()
    config = HttpConfig(listen=listen.format(port))
    with serving(config):
        client = Client(config)
        assert client.url == f"http://{asked}:{port}/"
        assert client.status_json() == b'{"a": 1}'


def test_a_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    config = HttpConfig(listen=f"127.0.0.1:{free_port()}")
    with serving(config):
        assert Client(config).status_json()


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (HttpConfig(listen=""), 'http.listen is "", so csp1d tells nobody its state; set it'),
        (HttpConfig(listen="127.0.0.1:0"), "http.listen '127.0.0.1:0' lets csp1d choose a port"),
        (
            HttpConfig("127.0.0.1:1", "own.pem", "own.key", "ca.pem"),
            "http.tls_client_ca lets in only clients .* give one with --certificate and --key",
        ),
        (
            HttpConfig("127.0.0.1:1", "no-such.pem", "no-such.key"),
            r"http.tls_certificate 'no-such.pem'.*No such file.*as root",
        ),
    ],
)
def test_where_nobody_can_be_asked(config: HttpConfig, complaint: str) -> None:
    with pytest.raises(DeviceError, match=complaint):
        Client(config)


def test_no_answer_is_told_with_the_mend() -> None:
    client = Client(HttpConfig(listen=f"127.0.0.1:{free_port()}"))
    with pytest.raises(NoAnswerError, match=r"no answer at .*: Connection refused; does csp1d run"):
        client.status()


def test_something_else_that_answers_is_told() -> None:
    config = HttpConfig(listen=f"127.0.0.1:{free_port()}")
    with (
        serving(config),
        pytest.raises(NoAnswerError, match="is not the status of this version of csp1d"),
    ):
        Client(config).status()
    server = HttpServer(config, {})
    try:
        with pytest.raises(NoAnswerError, match="is not csp1d: 404"):
            Client(config).status()
    finally:
        server.close()


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


def test_a_clients_certificate_is_shown(tmp_path: Path) -> None:
    own, own_key = make_certificate(tmp_path, "sensor")
    me, my_key = make_certificate(tmp_path, "operator")
    other, other_key = make_certificate(tmp_path, "other")
    config = HttpConfig(f"127.0.0.1:{free_port()}", str(own), str(own_key), str(me))
    both = tmp_path / "both.pem"
    both.write_text(me.read_text() + my_key.read_text())
    with serving(config):
        assert Client(config, str(me), str(my_key)).status_json()
        assert Client(config, str(both)).status_json()
        with pytest.raises(NoAnswerError, match=r"no answer at https://"):
            Client(config, str(other), str(other_key)).status_json()
    with pytest.raises(DeviceError, match=r"--certificate '.*operator.pem' or --key can not be"):
        Client(config, str(me))
