# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: read-only pages, each client in a thread of its own.

The threads see the daemon's last snapshot and nothing else of it, so no client can hold its loop.
A client costs one of a few places, for a few seconds in all, however slowly it talks. When all are
taken a newcomer gets the place of the oldest, who had time enough for an honest request: slow
clients, as many as they are, can not keep Prometheus out.
"""

import contextlib
import ipaddress
import logging
import re
import socket
import ssl
import stat
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

from csp1d.config import HttpConfig, split_address
from csp1d.errors import DeviceError
from csp1d.events import Event
from csp1d.interfaces.router import MOST_HEAD_BYTES, Page, Router, error_response, is_complete

log = logging.getLogger("csp1d")

MOST_CONNECTIONS = 32
"""At a time, so that the daemon's descriptors and threads do not run out."""

_REQUEST_SECONDS = 5.0
"""For the handshake and the request, however slowly they come."""

_SECONDS = 10.0
"""Until the answer has been taken."""

_GRACE_SECONDS = 0.25
"""So long nobody loses a place to another."""

_RETRY_SECONDS = 0.1
"""How long to wait where the system has no descriptor or thread to give, or a thread is to end."""

_WAITING_CONNECTIONS = 128
"""That the kernel keeps until they are accepted."""

_ENCRYPTED = re.compile(rb"^-----BEGIN ENCRYPTED |^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
"""A key with a passphrase (RFC 7468, section 11; RFC 1421, section 4.6.1.1)."""
_MOST_PEM_BYTES = 1 << 20
"""Of a key that are looked through for that."""

_LEAVE_SECONDS = 1.0
_LEAVE_BYTES = 1 << 20
"""What a client may go on sending behind its request; so it lives to see the answer."""


class HttpServer:
    """Serves until closed. Raises DeviceError when the address or the certificate can't serve."""

    def __init__(self, config: HttpConfig, pages: Mapping[str, Page]) -> None:
        self._tls = _tls(config)
        self._listener = _listen(config.listen)
        host, port = self._listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{port}/"
        is_local = ipaddress.ip_address(host.partition("%")[0]).is_loopback
        self._router = Router(pages, only_by_address=is_local)
        self._open: dict[socket.socket, float] = {}
        """Since when (CLOCK_MONOTONIC seconds), the oldest first."""
        self._changed = threading.Condition()
        self._making = threading.Lock()
        self._closing = False
        self._has_failed = False
        self._thread = threading.Thread(target=self._accept, name="http", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._listener.close()
            raise DeviceError(
                f"http.listen: no thread for it: {error}; let csp1d have more (TasksMax, ulimit -u)"
            ) from error

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            # Wakes the thread, which then sees that it is to end.
            self._listener.shutdown(socket.SHUT_RDWR)
            for connection in self._open:
                _abort(connection)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, (client, *_) = self._listener.accept()
            except OSError as error:
                log.debug("no HTTP client accepted: %s", error)
                self._pause()
                continue
            try:
                self._begin(connection, client)
            except OSError as error:
                log.debug("HTTP client %s: %s", client, error)
            except (RuntimeError, MemoryError) as error:
                log.debug("HTTP client %s: no thread for it: %s", client, error)
                self._pause()

    def _begin(self, connection: socket.socket, client: str) -> None:
        if self._tls:
            # The handshake follows in the connection's thread, since it waits for the client.
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        if not self._acquire_slot(connection):
            connection.close()
            return
        thread = threading.Thread(
            target=self._serve, args=(connection, client), name="http-client", daemon=True
        )
        try:
            thread.start()
        except BaseException:
            self._leave(connection)
            raise

    def _acquire_slot(self, connection: socket.socket) -> bool:
        """Wait for a place, or take the oldest one's. False when the server closes."""

        def is_room() -> bool:
            return self._closing or len(self._open) < MOST_CONNECTIONS

        with self._changed:
            while not is_room():
                oldest, since_seconds = next(iter(self._open.items()))
                left_seconds = since_seconds + _GRACE_SECONDS - time.monotonic()
                if left_seconds <= 0:
                    _abort(oldest)
                self._changed.wait_for(is_room, max(left_seconds, _RETRY_SECONDS))
            if not self._closing:
                self._open[connection] = time.monotonic()
            return not self._closing

    def _leave(self, connection: socket.socket) -> None:
        with self._changed:
            del self._open[connection]
            # Under the lock: nobody hangs up on a descriptor that was given anew.
            connection.close()
            self._changed.notify_all()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, _RETRY_SECONDS)

    def _serve(self, connection: socket.socket, client: str) -> None:
        begin = time.monotonic()
        try:
            reply = self._reply(connection, begin + _REQUEST_SECONDS)
            _send(connection, reply, begin + _SECONDS)
            _linger(connection, time.monotonic() + _LEAVE_SECONDS)
        except OSError as error:
            log.debug("HTTP client %s: %s", client, error)
        finally:
            self._leave(connection)

    def _reply(self, connection: socket.socket, end: float) -> bytes:
        """Read a request; the answer to it."""
        if isinstance(connection, ssl.SSLSocket):
            _wait_until(end, connection)
            connection.do_handshake()
        try:
            head = _read_head(connection, end)
        except TimeoutError:
            return error_response(HTTPStatus.REQUEST_TIMEOUT)
        # One at a time: the daemon's loop shares the interpreter with one thread, not with all.
        with self._making:
            try:
                return self._router.answer(head)
            except Exception:
                if not self._has_failed:
                    self._has_failed = True
                    Event.INTERNAL_ERROR.log(
                        "a page can not be made, please report it with the lines below",
                        exc_info=True,
                    )
                return error_response(HTTPStatus.INTERNAL_SERVER_ERROR)


# `end` below is CLOCK_MONOTONIC, in seconds. A socket's own timeout starts again with each call.


def _wait_until(end: float, connection: socket.socket) -> None:
    """Let the next call wait until then. Raises TimeoutError when it is past."""
    left_seconds = end - time.monotonic()
    if left_seconds <= 0:
        raise TimeoutError("too slow")
    connection.settimeout(left_seconds)


def _read_head(connection: socket.socket, end: float) -> bytes:
    """A request up to its empty line, or as much as is too much, or as much as came."""
    head = b""
    while not is_complete(head) and len(head) <= MOST_HEAD_BYTES:
        _wait_until(end, connection)
        part = connection.recv(MOST_HEAD_BYTES)
        if not part:
            break
        head += part
    return head


def _send(connection: socket.socket, reply: bytes, end: float) -> None:
    rest = memoryview(reply)
    while rest:
        _wait_until(end, connection)
        rest = rest[connection.send(rest) :]


# On an SSLSocket these go to the socket below it, which has its own idea of an end.


def _linger(connection: socket.socket, end: float) -> None:
    """Say that this is all, and wait for the client to go, or it might not see the answer."""
    socket.socket.shutdown(connection, socket.SHUT_WR)
    left_bytes = _LEAVE_BYTES
    while left_bytes > 0:
        _wait_until(end, connection)
        part = socket.socket.recv(connection, 65536)
        if not part:
            break
        left_bytes -= len(part)


def _abort(connection: socket.socket) -> None:
    """Wakes whoever waits for the client, and ends the connection."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_WAITING_CONNECTIONS)
    except OSError as error:
        listener.close()
        raise DeviceError(
            f"http.listen {address!r} can not be listened on: {error.strerror}"
        ) from error
    return listener


def _tls(config: HttpConfig) -> ssl.SSLContext | None:
    if not config.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A client that asks for one handshake after another on a connection costs much for little.
    context.options |= ssl.OP_NO_RENEGOTIATION
    for key in ("tls_certificate", "tls_key", "tls_client_ca"):
        if file := getattr(config, key):
            _check_pem(f"http.{key}", Path(file))
    try:
        # Without a word for it, OpenSSL would ask the terminal for the passphrase of a key.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
        if config.tls_client_ca:
            context.load_verify_locations(config.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise DeviceError(
            f"http.tls_certificate {config.tls_certificate!r}, tls_key or tls_client_ca can not "
            f"be used: {error}; they have to be PEM files, the key that of the certificate"
        ) from error
    return context


def _check_pem(key: str, file: Path) -> None:
    """Raises DeviceError unless it is a file that can be read, a key without a passphrase.

    For a pipe OpenSSL would wait, and to find out that it has no passphrase it would take as long
    as whoever encrypted the key wanted that to take.
    """
    try:
        reason = "" if stat.S_ISREG(file.stat().st_mode) else "is not a file"
        if not reason:
            with file.open("rb") as pem:
                if key == "http.tls_key" and _ENCRYPTED.search(pem.read(_MOST_PEM_BYTES)):
                    reason = "has a passphrase, which csp1d can not know"
    except OSError as error:
        reason = f"can not be read: {error.strerror}"
    if reason:
        raise DeviceError(f"{key} {str(file)!r} {reason}; set it to a PEM file that csp1d can read")
