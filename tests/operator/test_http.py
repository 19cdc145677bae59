# SPDX-License-Identifier: Apache-2.0
"""The HTTP side on real sockets, with and without TLS."""

import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from csp1d.config import HttpConfig
from csp1d.hat.device import DeviceError
from csp1d.operator.http import HttpServer

PAGES = {"/metrics": ("text/plain; charset=utf-8", lambda: b"a 1\n")}


@pytest.fixture
def server() -> Iterator[HttpServer]:
    server = HttpServer(HttpConfig(listen="127.0.0.1:0"), PAGES)
    yield server
    server.close()


@pytest.mark.parametrize("query", ["", "?name=x"])
def test_a_page_is_served(server: HttpServer, query: str) -> None:
    with urllib.request.urlopen(f"{server.url}metrics{query}", timeout=5) as reply:
        assert reply.status == 200
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert reply.read() == b"a 1\n"


@pytest.mark.parametrize(
    ("path", "method", "status"), [("", "GET", 404), ("x", "GET", 404), ("metrics", "POST", 501)]
)
def test_nothing_else_is(server: HttpServer, path: str, method: str, status: int) -> None:
    request = urllib.request.Request(server.url + path, method=method)
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=5)
    assert raised.value.code == status


def test_head_has_no_body(server: HttpServer) -> None:
    request = urllib.request.Request(f"{server.url}metrics", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert (reply.headers["Content-Length"], reply.read()) == ("4", b"")


def test_idle_clients_can_not_use_up_the_descriptors(server: HttpServer) -> None:
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    before = len(os.listdir("/proc/self/fd"))
    clients = [socket.create_connection((host, int(port))) for _ in range(100)]
    try:
        # Each client is a descriptor of its own here; those accepted come on top.
        time.sleep(0.5)
        assert len(os.listdir("/proc/self/fd")) - before - len(clients) <= 32
    finally:
        for client in clients:
            client.close()


def test_a_client_that_says_nothing_holds_up_nobody(server: HttpServer) -> None:
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port))):
        urllib.request.urlopen(f"{server.url}metrics", timeout=5).close()


def test_an_address_in_use_is_named(server: HttpServer) -> None:
    address = server.url.removeprefix("http://").rstrip("/")
    with pytest.raises(DeviceError, match=rf"http\.listen '{address}' can not be listened on"):
        HttpServer(HttpConfig(listen=address), PAGES)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = HttpConfig("127.0.0.1:0", str(tmp_path / "no.pem"), str(tmp_path / "no.key"))
    with pytest.raises(DeviceError, match=r"http\.tls_certificate .*no\.pem.* can not be used"):
        HttpServer(config, PAGES)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
        f" -subj /CN={name} -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return certificate, key


def test_with_a_client_ca_only_its_clients_are_served(tmp_path: Path) -> None:
    own, own_key = make_certificate(tmp_path, "sensor")
    client, client_key = make_certificate(tmp_path, "prometheus")
    config = HttpConfig("127.0.0.1:0", str(own), str(own_key), str(client))
    server = HttpServer(config, PAGES)
    try:
        known = ssl.create_default_context(cafile=str(own))
        known.load_cert_chain(client, client_key)
        url = f"{server.url}metrics"
        assert url.startswith("https://")
        with urllib.request.urlopen(url, timeout=5, context=known) as reply:
            assert reply.read() == b"a 1\n"
        unknown = ssl.create_default_context(cafile=str(own))
        with pytest.raises(OSError, match=r"certificate required|alert|reset|closed|EOF"):
            urllib.request.urlopen(url, timeout=5, context=unknown)
    finally:
        server.close()
