# SPDX-License-Identifier: Apache-2.0
"""The HTTP side: read-only pages, served in threads of their own.

A page is a function that makes a body from the daemon's last snapshot; the threads see nothing else
of the daemon, so no client can hold its loop.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from csp1d.config import HttpConfig, split_address
from csp1d.hat.device import DeviceError

log = logging.getLogger("csp1d")

_TIMEOUT_SECONDS = 10
_MOST_CONNECTIONS = 32
"""At a time; more are closed at once, so that the daemon's descriptors do not run out."""

Page = tuple[str, Callable[[], bytes]]
"""Content type, and what makes the body."""


class HttpServer:
    """Serves until closed. Raises DeviceError when the address or the certificate can't serve."""

    def __init__(self, config: HttpConfig, pages: Mapping[str, Page]) -> None:
        host, port = split_address(config.listen)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        handler = type("Handler", (_Handler,), {"pages": pages})
        tls = _tls(config)
        try:
            self._server = type("Server", (_Server,), {"address_family": family, "tls": tls})(
                (host, port), handler
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DeviceError(
                f"http.listen {config.listen!r} can not be listened on: {reason}"
            ) from error
        bound = self._server.server_address
        shown = f"[{bound[0]}]" if ":" in str(bound[0]) else bound[0]
        self.url = f"{'https' if tls else 'http'}://{shown}:{bound[1]}/"
        self._thread = threading.Thread(
            # It sleeps until somebody connects; there is nothing to look after in between.
            target=lambda: self._server.serve_forever(poll_interval=3600),
            name="http",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        # Wakes the thread, which then sees that it is to end.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    tls: ssl.SSLContext | None = None
    free = threading.BoundedSemaphore(_MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self.free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        # Here, in the connection's thread, since a handshake waits for the client.
        request.settimeout(_TIMEOUT_SECONDS)
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        log.debug("HTTP client %s: connection failed", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    pages: Mapping[str, Page]
    server_version = "csp1d"
    sys_version = ""

    def do_GET(self) -> None:
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND, f"There are: {', '.join(self.pages)}")
            return
        content_type, make_body = page
        body = make_body()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - the base class's way

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        log.debug("HTTP client %s: " + format, self.client_address[0], *args)


def _tls(config: HttpConfig) -> ssl.SSLContext | None:
    if not config.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_key)
        if config.tls_client_ca:
            context.load_verify_locations(config.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        raise DeviceError(
            f"http.tls_certificate {config.tls_certificate!r}, tls_key or tls_client_ca can not "
            f"be used: {error}"
        ) from error
    return context
