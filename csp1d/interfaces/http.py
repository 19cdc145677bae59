# SPDX-License-Identifier: Apache-2.0
"""The HTTP servers, on the network and on a Unix socket: read-only pages, one thread per client.

The threads read only the daemon's latest snapshot, so no client can delay its loop. Each client
occupies one of a limited number of slots, for a few seconds at most, however slow it is. When all
slots are in use, a new client takes that of the oldest, which has had enough time for a normal
request. So slow clients cannot block Prometheus, however many there are.
"""

import contextlib
import errno
import logging
import os
import select
import socket
import ssl
import stat
import threading
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from csp1d.config import HttpConfig, split_address
from csp1d.errors import DeviceError
from csp1d.events import Event
from csp1d.identity import is_machine_name
from csp1d.interfaces.router import MOST_HEAD_BYTES, Pages, Router, error_response, is_complete
from csp1d.interfaces.tls import Tls, load_tls

log = logging.getLogger("csp1d")

MOST_CONNECTIONS = 32
"""Slots; they limit the file descriptors and threads in use."""

_REQUEST_SECONDS = 5.0
"""Limit for the TLS handshake and the request together."""

_RESPONSE_SECONDS = 10.0
"""Limit until the client has received the response."""

_GRACE_SECONDS = 0.25
"""A client keeps its slot at least this long."""

_RETRY_SECONDS = 0.1
"""Wait for a file descriptor, a thread, or the end of an aborted client's thread."""

_WAITING_CONNECTIONS = 128
"""Backlog of connections that are not accepted yet, see listen(2)."""

_LINGER_SECONDS = 1.0
_LINGER_BYTES = 1 << 20
"""Limits for data after the request: read and discarded, so that the client gets the response."""


_build_lock = threading.Lock()
"""Pages are built one at a time: so the loop shares the interpreter with one busy thread, not with
all of them."""


class Server:
    """Answers requests to `listeners` until closed.

    `key` is where the configuration names them. Raises DeviceError if there is no thread.
    """

    def __init__(
        self,
        key: str,
        listeners: Sequence[socket.socket],
        router: Router,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listeners, self._router, self._tls = listeners, router, tls
        self._open: dict[socket.socket, float] = {}
        """Time of acceptance by connection (CLOCK_MONOTONIC seconds), the oldest first."""
        self._changed = threading.Condition()
        self._closing = False
        self._has_failed = False
        self._thread = threading.Thread(target=self._accept, name="http", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._close_listeners()
            raise DeviceError(
                f"{key}: cannot start a thread: {error}; raise TasksMax or ulimit -u"
            ) from error

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            for listener in self._listeners:
                # Wakes the accepting thread.
                listener.shutdown(socket.SHUT_RDWR)
            for connection in self._open:
                _abort(connection)
        self._thread.join()
        self._close_listeners()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    def _accept(self) -> None:
        poll = select.poll()
        for listener in self._listeners:
            poll.register(listener, select.POLLIN)
        while not self._closing:
            ready = {fd for fd, _ in poll.poll()}
            for listener in self._listeners:
                if listener.fileno() in ready and not self._closing:
                    self._accept_from(listener)

    def _accept_from(self, listener: socket.socket) -> None:
        try:
            connection, address = listener.accept()
        except OSError as error:
            log.debug("HTTP client not accepted: %s", error)
            self._pause()
            return
        client = address[0] if address else "on this machine"
        try:
            self._begin(connection, client)
        except OSError as error:
            log.debug("HTTP client %s: %s", client, error)
        except (RuntimeError, MemoryError) as error:
            log.debug("HTTP client %s: cannot start a thread: %s", client, error)
            self._pause()

    def _begin(self, connection: socket.socket, client: str) -> None:
        if self._tls:
            # The handshake waits for the client, so the client's thread does it.
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
            self._release_slot(connection)
            raise

    def _acquire_slot(self, connection: socket.socket) -> bool:
        """Wait for a free slot, or take the oldest one. False if the server closes."""

        def may_continue() -> bool:
            return self._closing or len(self._open) < MOST_CONNECTIONS

        with self._changed:
            while not may_continue():
                oldest, since_seconds = next(iter(self._open.items()))
                left_seconds = since_seconds + _GRACE_SECONDS - time.monotonic()
                if left_seconds <= 0:
                    _abort(oldest)
                self._changed.wait_for(may_continue, max(left_seconds, _RETRY_SECONDS))
            if not self._closing:
                self._open[connection] = time.monotonic()
            return not self._closing

    def _release_slot(self, connection: socket.socket) -> None:
        with self._changed:
            del self._open[connection]
            # Under the lock: otherwise _abort could hit a reused descriptor number.
            connection.close()
            self._changed.notify_all()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing, _RETRY_SECONDS)

    def _serve(self, connection: socket.socket, client: str) -> None:
        begin = time.monotonic()
        try:
            for part in self._reply(connection, begin + _REQUEST_SECONDS):
                rest = memoryview(part)
                while rest:
                    _wait_until(begin + _RESPONSE_SECONDS, connection)
                    rest = rest[connection.send(rest) :]
            _linger(connection, time.monotonic() + _LINGER_SECONDS)
        except OSError as error:
            log.debug("HTTP client %s: %s", client, error)
        finally:
            self._release_slot(connection)

    def _reply(self, connection: socket.socket, end: float) -> Sequence[bytes | memoryview]:
        """Read a request and return the response, in parts."""
        if isinstance(connection, ssl.SSLSocket):
            _wait_until(end, connection)
            connection.do_handshake()
        try:
            head = _read_head(connection, end)
        except TimeoutError:
            return error_response(HTTPStatus.REQUEST_TIMEOUT)
        with _build_lock:
            try:
                return self._router.answer(head)
            except Exception:
                # A bug in one page must not end the server: /metrics would be missing as well.
                if not self._has_failed:
                    self._has_failed = True
                    Event.INTERNAL_ERROR.log(
                        "a page cannot be built; please report this with the lines below",
                        exc_info=True,
                    )
                return error_response(HTTPStatus.INTERNAL_SERVER_ERROR)


class HttpServer(Server):
    """Serves `pages` by path at http.listen.

    `site_name` is a name of this machine besides those that the system and the certificate have.
    `tls` is what `load_tls` has returned for this configuration, by default what it returns now.
    Raises DeviceError if the address, the certificate or a thread is not available.
    """

    def __init__(
        self,
        config: HttpConfig,
        pages: Pages,
        site_name: str = "",
        tls: Tls | None = None,
    ) -> None:
        tls = tls or load_tls(config)
        self.certificate_expiry_seconds = tls.expiry_seconds if tls else None
        """Unix time after which the certificate is not valid; None without one."""
        names = {site_name.lower(), *(tls.names if tls else ())}

        def is_own_name(name: str) -> bool:
            any_host = f"*.{name.partition('.')[2]}"  # RFC 6125, section 6.4.3
            return name in names or any_host in names or is_machine_name(name)

        listeners = _listen(config.listen)
        host, port = listeners[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{port}/"
        router = Router(pages, is_own_name, is_secure=tls is not None)
        super().__init__("http.listen", listeners, router, tls.context if tls else None)


class SocketServer(Server):
    """Serves `pages` by path on the Unix socket http.socket, whatever http.listen and TLS are.

    Users that may write to the socket may connect (unix(7)): root, and the group of this process.
    Raises DeviceError if the socket or a thread is not available.
    """

    def __init__(self, path: str, pages: Pages) -> None:
        listener = _listen_on_socket(path)
        self._path, self._inode = path, os.lstat(path).st_ino
        # A port that ssh forwards here is within reach of a browser.
        super().__init__("http.socket", [listener], Router(pages, is_machine_name))

    def is_in_place(self) -> bool:
        """Whether clients find this socket at its path, where another process may remove it."""
        with contextlib.suppress(OSError):
            return os.lstat(self._path).st_ino == self._inode
        return False

    def close(self) -> None:
        super().close()
        # Another csp1d may have its own there by now.
        if self.is_in_place():
            with contextlib.suppress(OSError):
                os.unlink(self._path)


# `end` below is CLOCK_MONOTONIC, in seconds. A socket timeout alone would restart with each call.


def _wait_until(end: float, connection: socket.socket) -> None:
    """Set the timeout of the next call to `end`. Raises TimeoutError after it."""
    left_seconds = end - time.monotonic()
    if left_seconds <= 0:
        raise TimeoutError("too slow")
    connection.settimeout(left_seconds)


def _read_head(connection: socket.socket, end: float) -> bytes:
    """Read until the empty line, the size limit, or the end of the connection."""
    head = b""
    while not is_complete(head) and len(head) <= MOST_HEAD_BYTES:
        _wait_until(end, connection)
        part = connection.recv(MOST_HEAD_BYTES)
        if not part:
            break
        head += part
    return head


# Called on the underlying socket: an SSLSocket would start a TLS shutdown.


def _linger(connection: socket.socket, end: float) -> None:
    """Close our side, then wait for the client's: closing with unread data resets the connection,
    and the client may lose the response."""
    socket.socket.shutdown(connection, socket.SHUT_WR)
    left_bytes = _LINGER_BYTES
    while left_bytes > 0:
        _wait_until(end, connection)
        part = socket.socket.recv(connection, 65536)
        if not part:
            break
        left_bytes -= len(part)


def _abort(connection: socket.socket) -> None:
    """End the connection, and wake the thread that waits for the client."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _listen(address: str) -> list[socket.socket]:
    """Listeners at the addresses of http.listen; of two families, the machine may have only one."""
    hosts, port = split_address(address)
    listeners: list[socket.socket] = []
    for host in hosts:
        try:
            listeners.append(_bind(host, port, is_only=len(hosts) == 1))
            # The system chooses port 0 for the first family; the second one takes the same.
            port = listeners[0].getsockname()[1]
        except OSError as error:
            is_absent = error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
            if is_absent and (listeners or host != hosts[-1]):
                continue
            for listener in listeners:
                listener.close()
            raise DeviceError(
                f"cannot listen on http.listen {address!r}: {error.strerror}; set a free address"
            ) from error
    return listeners


def _bind(host: str, port: int, is_only: bool) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listener.family is socket.AF_INET6 and not is_only:
            # The other listener has IPv4.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        _start(listener)
    except OSError:
        listener.close()
        raise
    return listener


def _listen_on_socket(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        # The service manager creates that of the service. The group must reach the socket.
        if not (folder := Path(path).parent).exists():
            folder.mkdir()
            folder.chmod(0o755)
        _remove_stale(path)
        umask = os.umask(0o117)
        try:
            listener.bind(path)
        finally:
            os.umask(umask)
        _start(listener)
    except OSError as error:
        listener.close()
        raise DeviceError(
            f"cannot listen on http.socket {path!r}: {error.strerror}; set a path that csp1d can"
            ' create, or "" for none'
        ) from error
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket that a killed process has left. Raises OSError if it is not one."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as client:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is another file")
        # One that cannot answer at once is alive, too.
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
        raise OSError(errno.EADDRINUSE, "another process serves it")


def _start(listener: socket.socket) -> None:
    """Let clients connect. A connection that has gone must not block the others of `Server`."""
    listener.setblocking(False)
    listener.listen(_WAITING_CONNECTIONS)
