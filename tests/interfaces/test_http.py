# SPDX-License-Identifier: Apache-2.0
"""The HTTP server on real sockets, with and without TLS."""

import contextlib
import dataclasses
import errno
import logging
import os
import re
import resource
import select
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csp1d.config import HttpConfig
from csp1d.errors import DeviceError
from csp1d.interfaces import http
from csp1d.interfaces.http import HttpServer, SocketServer
from csp1d.interfaces.router import Page
from csp1d.interfaces.tls import load_tls

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"/metrics": Page("text/plain; charset=utf-8", lambda: b"a 1\n")}


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
    ("path", "method", "status"), [("", "GET", 404), ("x", "GET", 404), ("metrics", "POST", 405)]
)
def test_other_requests_are_rejected(
    server: HttpServer, path: str, method: str, status: int
) -> None:
    request = urllib.request.Request(server.url + path, method=method)
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=5)
    assert raised.value.code == status


def test_head_has_no_body(server: HttpServer) -> None:
    request = urllib.request.Request(f"{server.url}metrics", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert (reply.headers["Content-Length"], reply.read()) == ("4", b"")


GOOD = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect(server: HttpServer) -> socket.socket:
    host, port = server.url.partition("//")[2].rstrip("/").split(":")
    connection = socket.create_connection((host, int(port)))
    connection.settimeout(30)
    return connection


def answer(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def test_a_request_may_arrive_in_pieces_and_its_response_ends_the_connection(
    server: HttpServer,
) -> None:
    with connect(server) as client:
        for byte in GOOD:
            client.sendall(bytes([byte]))
        assert answer(client).endswith(b"\r\n\r\na 1\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(500_000), b"405"),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * 1_000_000, b"431"),
        (b"GET /" + b"x" * 1_000_000, b"414"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" + bytes(100_000), b"400"),
        (b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"421"),
    ],
)
def test_a_rejected_client_receives_its_response(
    server: HttpServer, sent: bytes, status: bytes
) -> None:
    with connect(server) as client:
        client.sendall(sent)
        assert answer(client).startswith(b"HTTP/1.0 " + status)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300) | st.integers(0, len(GOOD)).map(lambda end: GOOD[:end]))
def test_any_data_gets_a_status_and_the_server_continues(server: HttpServer, data: bytes) -> None:
    with connect(server) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert answer(client)[:9] == (b"HTTP/1.0 " if data else b"")


def test_idle_clients_cannot_exhaust_the_file_descriptors(server: HttpServer) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with contextlib.ExitStack() as clients:
        for _ in range(100):
            clients.enter_context(connect(server))
        # The clients' own descriptors are 100; the accepted ones are added, and the one that waits
        # for a slot.
        time.sleep(0.5)
        assert len(os.listdir("/proc/self/fd")) - before - 100 <= http.MOST_CONNECTIONS + 1


def test_silent_clients_in_all_slots_do_not_block_others(server: HttpServer) -> None:
    with contextlib.ExitStack() as clients:
        silent = [clients.enter_context(connect(server)) for _ in range(http.MOST_CONNECTIONS)]
        with connect(server) as good:
            good.sendall(GOOD)
            assert answer(good).endswith(b"a 1\n")
        # The oldest one lost its slot, without a response.
        assert answer(silent[0]) == b""


def test_a_client_keeps_its_slot_for_a_quarter_of_a_second(server: HttpServer) -> None:
    with contextlib.ExitStack() as clients:
        start = time.monotonic()
        oldest, *_ = [
            clients.enter_context(connect(server)) for _ in range(http.MOST_CONNECTIONS + 1)
        ]
        assert answer(oldest) == b""
        assert time.monotonic() - start >= 0.25


def test_pages_are_built_one_at_a_time() -> None:
    """The interpreter lock is shared with the daemon's loop by one thread, not by all of them."""
    running: list[int] = []
    most = 0

    def body() -> bytes:
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        time.sleep(0.1)
        running.pop()
        return b"a 1\n"

    server = HttpServer(HttpConfig(listen="127.0.0.1:0"), {"/metrics": Page("text/plain", body)})
    try:
        with contextlib.ExitStack() as clients:
            connections = [clients.enter_context(connect(server)) for _ in range(4)]
            for connection in connections:
                connection.sendall(GOOD)
            for connection in connections:
                assert answer(connection).endswith(b"a 1\n")
    finally:
        server.close()
    assert most == 1


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_the_request_has_a_time_limit_however_it_is_divided(
    server: HttpServer, drip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_REQUEST_SECONDS", 0.5)
    with connect(server) as client:
        client.sendall(GOOD[:10])
        received = b""
        while not received:
            client.sendall(drip)
            if select.select([client], [], [], 0.05)[0]:
                received = client.recv(4096)
        assert received.startswith(b"HTTP/1.0 408 ")


def test_a_client_that_does_not_read_its_response_loses_its_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "_RESPONSE_SECONDS", 0.5)
    made = threading.Event()

    def large() -> bytes:
        made.set()
        return bytes(50_000_000)

    server = HttpServer(HttpConfig(listen="127.0.0.1:0"), {"/metrics": Page("text/plain", large)})
    try:
        with connect(server) as client:
            client.sendall(GOOD)
            assert made.wait(30)
            wait_for(lambda: client_threads() == 0)
            assert len(answer(client)) < 50_000_000
    finally:
        server.close()


def client_threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("http-client")


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_closing_the_server_releases_all_clients() -> None:
    before = len(os.listdir("/proc/self/fd"))
    server = HttpServer(HttpConfig(listen="127.0.0.1:0"), PAGES)
    with contextlib.ExitStack() as clients:
        for _ in range(2 * http.MOST_CONNECTIONS):
            clients.enter_context(connect(server))
        wait_for(lambda: client_threads() == http.MOST_CONNECTIONS)
        server.close()
        wait_for(lambda: client_threads() == 0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_file_descriptor_it_waits_and_does_not_spin(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    with socket.socket() as first, socket.socket() as second:
        second.settimeout(30)
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, limits[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            # The first gets the descriptor that accept(2) reserved before it blocked.
            for client in (first, second):
                client.connect((host, int(port)))
            second.sendall(GOOD)
            begin = time.monotonic()
            wait_for(lambda: len(caplog.records) >= 3)
            assert len(caplog.records) <= (time.monotonic() - begin) / 0.1 + 2
            assert "Too many open files" in caplog.text
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for filler in fillers:
                os.close(filler)
        assert answer(second).endswith(b"a 1\n")


def test_without_a_thread_a_client_is_closed_and_the_next_is_served(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with connect(server) as client:
            assert answer(client) == b""
    with connect(server) as client:
        client.sendall(GOOD)
        assert answer(client).endswith(b"a 1\n")


def test_a_page_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bytes:
        raise ZeroDivisionError

    server = HttpServer(HttpConfig(listen="127.0.0.1:0"), {"/metrics": Page("text/plain", fail)})
    try:
        for _ in range(2):
            with connect(server) as client:
                client.sendall(GOOD)
                assert answer(client).startswith(b"HTTP/1.0 500 ")
    finally:
        server.close()
    assert caplog.text.count("a page cannot be built") == 1


@pytest.mark.parametrize("address", ["localhost:0", ":0"])
def test_localhost_and_a_port_alone_are_of_both_families(address: str) -> None:
    server = HttpServer(HttpConfig(listen=address), PAGES)
    try:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), 5) as client:
                client.sendall(GOOD)
                assert answer(client).endswith(b"a 1\n")
    finally:
        server.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_machine_with_one_family_is_served_there(
    family: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Machine(socket.socket):
        def bind(self, address: Any) -> None:
            if self.family in missing:
                raise OSError(number, os.strerror(number))
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Machine)
    missing = {family}
    server = HttpServer(HttpConfig(listen="localhost:0"), PAGES)
    server.close()
    assert ("[::1]" in server.url) == (family == socket.AF_INET)
    missing = {socket.AF_INET, socket.AF_INET6}
    with pytest.raises(DeviceError, match=f"'localhost:0': {os.strerror(number)}; set a free"):
        HttpServer(HttpConfig(listen="localhost:0"), PAGES)


def test_an_address_in_use_in_one_family_is_an_error() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        with pytest.raises(DeviceError, match=f"{address}': Address already in use"):
            HttpServer(HttpConfig(listen=address), PAGES)


@pytest.mark.parametrize(
    ("names", "host", "status"),
    [
        ("DNS:house-1.example", "House-1.example", b"200"),
        ("IP:10.0.0.1,DNS:a,DNS:" + "b." * 60 + "example", "b." * 60 + "example", b"200"),
        ("DNS:*.houses.example", "house-1.houses.example", b"200"),
        ("DNS:*.houses.example", "a.house-1.houses.example", b"421"),
        ("critical,DNS:house-1.example", "house-1.example", b"200"),
        ("DNS:house-1.example", "house-2.example", b"421"),
        ("DNS:house-1.example", "sensor", b"421"),
        ("DNS:house-1.example", "north", b"200"),
    ],
)
def test_a_name_of_the_certificate_or_the_site_is_a_host(
    tmp_path: Path, names: str, host: str, status: bytes
) -> None:
    files = map(str, make_certificate(tmp_path, "sensor", names))
    server = HttpServer(HttpConfig("127.0.0.1:0", "", *files), PAGES, site_name="North")
    try:
        with (
            connect(server) as plain,
            ssl._create_unverified_context().wrap_socket(plain) as client,
        ):
            client.sendall(f"GET https://{host}/metrics HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer(client).startswith(b"HTTP/1.0 " + status)
    finally:
        server.close()


@pytest.mark.parametrize("before", ["# -----BEGIN CERTIFICATE----- of the sensor\n", "\r\n"])
def test_what_precedes_a_certificate_is_skipped(tmp_path: Path, before: str) -> None:
    certificate, key = make_certificate(tmp_path, "sensor", "DNS:house-1.example")
    certificate.write_text(before + certificate.read_text())
    tls = load_tls(HttpConfig("", "", str(certificate), str(key)))
    assert tls
    assert tls.names == {"house-1.example"}
    assert tls.expiry_seconds == pytest.approx(time.time() + 2 * 86400, abs=60)


def test_an_address_in_use_is_named(server: HttpServer) -> None:
    address = server.url.removeprefix("http://").rstrip("/")
    with pytest.raises(DeviceError, match=rf"cannot listen on http\.listen '{address}': "):
        HttpServer(HttpConfig(listen=address), PAGES)


def test_a_server_without_a_thread_raises_and_releases_its_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        config = HttpConfig(f"127.0.0.1:{free.getsockname()[1]}")

    def refused(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        with pytest.raises(DeviceError, match=r"http\.listen: cannot start a thread"):
            HttpServer(config, PAGES)
    HttpServer(config, PAGES).close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "csp1d" / "http.sock"


def ask_socket(path: Path, request: bytes = GOOD) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(request)
        return answer(client)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_root_and_the_group_can_connect_to_the_socket(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        server = SocketServer(str(path), PAGES)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert (path.stat().st_uid, path.stat().st_gid) == (os.geteuid(), os.getegid())
    assert ask_socket(path).endswith(b"\r\n\r\na 1\n")
    # A browser comes here through a port that ssh forwards.
    evil = GOOD.replace(b"localhost", b"evil.example")
    assert ask_socket(path, evil).startswith(b"HTTP/1.0 421 ")
    assert ask_socket(path, b"GET /x HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 404 ")
    server.close()
    assert not path.exists()


def test_the_socket_of_a_killed_process_is_replaced_and_no_other_file(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    server = SocketServer(str(path), PAGES)
    try:
        with pytest.raises(DeviceError, match=r"http\.sock': another process serves it; set a"):
            SocketServer(str(path), PAGES)
        assert ask_socket(path).endswith(b"a 1\n")
        # Another process has its own there: it stays.
        path.unlink()
        other = SocketServer(str(path), PAGES)
    finally:
        server.close()
    assert ask_socket(path).endswith(b"a 1\n")
    other.close()

    path.write_text("precious")
    for file in (path, path.with_name("link"), path.with_name("dangling")):
        if file != path:
            file.symlink_to(path if file.name == "link" else "nothing")
        with pytest.raises(DeviceError, match="there is another file; set a path that csp1d can"):
            SocketServer(str(file), PAGES)
    assert path.read_text() == "precious"


def test_a_busy_server_is_not_taken_for_a_killed_one(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
        busy.bind(str(path))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(DeviceError, match="another process serves it"):
            SocketServer(str(path), PAGES)
    assert path.exists()


@pytest.mark.parametrize(
    ("folder", "reason"), [("a/b", "No such file or directory"), ("file", "Not a directory")]
)
def test_a_socket_that_cannot_be_created_is_named(tmp_path: Path, folder: str, reason: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceError, match=rf"http\.socket '.*/x': {reason}; set a path.* \"\" for"):
        SocketServer(str(tmp_path / folder / "x"), PAGES)


def test_slow_clients_of_the_socket_lose_their_slots(path: Path) -> None:
    server = SocketServer(str(path), PAGES)
    try:
        with contextlib.ExitStack() as clients:
            for _ in range(http.MOST_CONNECTIONS + 40):
                client = clients.enter_context(socket.socket(socket.AF_UNIX))
                client.connect(str(path))
                client.sendall(GOOD[:10])
            assert ask_socket(path).endswith(b"a 1\n")
            assert client_threads() <= http.MOST_CONNECTIONS
    finally:
        server.close()
    wait_for(lambda: client_threads() == 0)


def test_a_missing_certificate_is_named(tmp_path: Path) -> None:
    config = HttpConfig("127.0.0.1:0", "", str(tmp_path / "no.pem"), str(tmp_path / "no.key"))
    with pytest.raises(DeviceError, match=r"http\.tls_certificate .*no\.pem.* cannot be read"):
        HttpServer(config, PAGES)


def test_a_certificate_without_access_is_told_with_who_needs_it(
    certificates: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    config = HttpConfig("127.0.0.1:0", "", *map(str, certificates["sensor"]))
    with pytest.raises(DeviceError, match=r"Permission denied; the group csp1d .* root: sudo\)"):
        HttpServer(config, PAGES)


@pytest.mark.parametrize("key", ["tls_certificate", "tls_key", "tls_client_ca"])
def test_a_pipe_as_certificate_does_not_block(
    key: str, certificates: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    certificate, private_key = map(str, certificates["sensor"])
    config = HttpConfig("127.0.0.1:0", "", certificate, private_key, certificate)
    with pytest.raises(DeviceError, match=rf"http\.{key} '.*fifo' is not a file; set it to a PEM"):
        HttpServer(dataclasses.replace(config, **{key: str(tmp_path / "fifo")}), PAGES)


@pytest.mark.parametrize("encrypt", ["ec -aes256", "pkcs8 -topk8 -scrypt"])
def test_a_key_with_a_passphrase_is_rejected_without_a_prompt(encrypt: str, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "sensor")
    command = f"openssl {encrypt} -in {key} -passout pass:secret -out {key}.secret"
    subprocess.run(command.split(), check=True, capture_output=True)
    script = (
        "import os, sys; from csp1d.config import HttpConfig;"
        # OpenSSL would prompt on the controlling terminal: here the first one that is opened.
        "from csp1d.interfaces.http import HttpServer; os.open(sys.argv[1], os.O_RDWR);"
        "HttpServer(HttpConfig('127.0.0.1:0', '', *sys.argv[2:]), {})"
    )
    terminal, terminal_name = os.openpty()
    result = subprocess.run(
        [sys.executable, "-c", script, os.ttyname(terminal_name), certificate, f"{key}.secret"],
        cwd=ROOT,
        start_new_session=True,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert re.search(r"TlsError: http.tls_key .* has a passphrase", result.stderr)
    os.set_blocking(terminal, False)
    with pytest.raises(BlockingIOError):
        os.read(terminal, 1)
    os.close(terminal)
    os.close(terminal_name)
    # The encrypted key in the certificate file is not used, and a comment is no passphrase.
    both = tmp_path / "both.pem"
    both.write_bytes(
        b"# ENCRYPTED\n" + certificate.read_bytes() + Path(f"{key}.secret").read_bytes()
    )
    HttpServer(HttpConfig("127.0.0.1:0", "", str(both), str(key)), PAGES).close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    return {name: make_certificate(folder, name) for name in ("sensor", "prometheus", "other")}


@pytest.fixture
def secured(certificates: dict[str, tuple[Path, Path]]) -> Iterator[HttpServer]:
    files = (*certificates["sensor"], certificates["prometheus"][0])
    server = HttpServer(HttpConfig("127.0.0.1:0", "", *map(str, files)), PAGES)
    yield server
    server.close()


def client_context(
    certificates: dict[str, tuple[Path, Path]], name: str | None = "prometheus"
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificates["sensor"][0]))
    if name:
        context.load_cert_chain(*certificates[name])
    return context


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_of_the_client_ca_are_served(
    secured: HttpServer, certificates: dict[str, tuple[Path, Path]], version: ssl.TLSVersion
) -> None:
    context = client_context(certificates)
    context.minimum_version = context.maximum_version = version
    url = f"{secured.url}metrics"
    assert url.startswith("https://")
    with urllib.request.urlopen(url, timeout=30, context=context) as reply:
        assert reply.read() == b"a 1\n"


@pytest.mark.parametrize("name", [None, "other"])
def test_other_clients_are_rejected(
    secured: HttpServer, certificates: dict[str, tuple[Path, Path]], name: str | None
) -> None:
    with pytest.raises(OSError, match=r"required|alert|reset|closed|EOF"):
        urllib.request.urlopen(
            f"{secured.url}metrics", timeout=30, context=client_context(certificates, name)
        )


def test_missing_or_broken_handshakes_do_not_block_others(
    secured: HttpServer,
    certificates: dict[str, tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with contextlib.ExitStack() as clients:
        for start in (b"", b"\x16\x03\x01\x02\x00", GOOD, bytes(range(256))) * 10:
            client = clients.enter_context(connect(secured))
            with contextlib.suppress(OSError):
                client.sendall(start)
        with urllib.request.urlopen(
            f"{secured.url}metrics", timeout=30, context=client_context(certificates)
        ) as reply:
            assert reply.status == 200
    monkeypatch.setattr(http, "_REQUEST_SECONDS", 0.2)
    with connect(secured) as silent:
        assert answer(silent) == b""
    wait_for(lambda: client_threads() == 0)


def test_older_protocols_are_rejected(secured: HttpServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with connect(secured) as client, pytest.raises(OSError, match="protocol version"):
        context.wrap_socket(client)


def test_a_client_cannot_start_another_handshake(
    secured: HttpServer, certificates: dict[str, tuple[Path, Path]]
) -> None:
    """Each one costs the server much and the client little."""
    certificate, key = certificates["prometheus"]
    address = secured.url.partition("//")[2].rstrip("/")
    command = f"openssl s_client -connect {address} -tls1_2 -cert {certificate} -key {key}"
    # s_client takes an "R" at the start of a line as the command to renegotiate.
    result = subprocess.run(
        command.split(), input="R\n", capture_output=True, text=True, timeout=30, check=False
    )
    assert "RENEGOTIATING" in result.stdout + result.stderr
    assert "no renegotiation" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        "-not_after 20491231235959Z",  # the last UTCTime
        "-not_after 20500101000000Z",  # the first GeneralizedTime
        "-days 1",
        "-days 36500 -set_serial 0x7fffffffffffffffffffffffffffffff",
    ],
)
def test_the_end_of_a_certificate_s_validity_is_that_of_openssl(
    tmp_path: Path, arguments: str
) -> None:
    def openssl(*words: str) -> str:
        run = subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=tmp_path)
        return run.stdout.decode()

    new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout k.pem"
    if "not_after" in arguments:
        # OpenSSL 3.0 of Debian 12 sets the end of validity only in `ca`.
        (tmp_path / "index").touch()
        (tmp_path / "ca.cnf").write_text(
            "[ca]\ndefault_ca = x\n[x]\ndatabase = index\nnew_certs_dir = .\nrand_serial = yes\n"
            "policy = any\ndefault_md = sha256\n[any]\ncommonName = supplied\n"
        )
        openssl(*new.replace("-x509 ", "").split(), "-out", "r.pem")
        date = arguments.split()[1]
        ca = "ca -batch -config ca.cnf -selfsign -keyfile k.pem -in r.pem -out c.pem -notext"
        openssl(*ca.split(), "-startdate", "20200101000000Z", "-enddate", date)
    else:
        openssl(*new.split(), *arguments.split(), "-out", "c.pem")
    end = openssl("x509", "-in", "c.pem", "-noout", "-enddate").strip().removeprefix("notAfter=")
    config = HttpConfig("127.0.0.1:0", "", str(tmp_path / "c.pem"), str(tmp_path / "k.pem"))
    server = HttpServer(config, {})
    assert server.certificate_expiry_seconds == ssl.cert_time_to_seconds(end)
    server.close()
    plain = HttpServer(HttpConfig("127.0.0.1:0"), {})
    assert plain.certificate_expiry_seconds is None
    plain.close()
