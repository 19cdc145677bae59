# SPDX-License-Identifier: Apache-2.0
"""Turns the bytes of an HTTP request into the bytes of its response, without a socket.

The standard library parses the request (RFC 9112), in memory. This module decides what is allowed:
a few pages, by GET or HEAD, one request per connection. No response repeats any part of the
request, and headers restrict what a browser may do with it (fetch.spec.whatwg.org,
www.w3.org/TR/CSP3).
"""

import base64
import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO

MOST_HEAD_BYTES = 16 * 1024
_MOST_LINE_BYTES = 4 * 1024
"""Limit for the request line, many times longer than any valid one."""

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy that allows nothing: no loading, no scripts, no frames."""


@dataclass(frozen=True)
class Page:
    """The content served for a path. `make_body` is called for each request."""

    content_type: str
    make_body: Callable[[], bytes]
    policy: str = _NOTHING
    """Content-Security-Policy: what a browser allows the page to do."""


def html_page(html: bytes) -> Page:
    """A constant page that may use its own <script> and <style> elements and fetch from its server.

    The policy lists the hashes of these elements, so injected ones do not run, and attributes such
    as `style=` or `onclick=` do not work. Images must be data: URLs.
    """
    scripts, styles = (_sources(html, element) for element in (b"script", b"style"))
    return Page(
        "text/html; charset=utf-8",
        lambda: html,
        f"{_NOTHING}; script-src {scripts}; style-src {styles}; img-src data:; connect-src 'self'",
    )


def _sources(html: bytes, element: bytes) -> str:
    texts = re.findall(rb"<%b\b[^>]*>(.*?)</%b>" % (element, element), html, re.DOTALL)
    hashes = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in texts)
    return " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"


@dataclass(frozen=True)
class Router:
    """Responds to requests for `pages`, which are by path."""

    pages: Mapping[str, Page]
    only_by_address: bool
    """Reject a request unless its Host is an IP address or localhost. On a loopback address, any
    other name comes from a web page whose DNS name was pointed here (DNS rebinding)."""

    def answer(self, head: bytes) -> bytes:
        """The response to a request. `head` is what was received of it, up to the empty line.

        An empty request gets an empty response.
        """
        return _Response(head, self.pages, self.only_by_address).written.getvalue()


def error_response(status: HTTPStatus) -> bytes:
    """The response to a request that could not be read or answered."""
    response = _Response(b"", {}, False)
    response.send_error(status)
    return response.written.getvalue()


def is_complete(head: bytes) -> bool:
    """Whether `head` contains the empty line that ends the head of a request."""
    return b"\n\r\n" in head or b"\n\n" in head


class _Response(BaseHTTPRequestHandler):
    """One request and its response, both in memory."""

    # A request without a version gets a response with headers, too.
    default_request_version = "HTTP/1.0"

    def __init__(self, head: bytes, pages: Mapping[str, Page], only_by_address: bool) -> None:
        # The base class's __init__ needs a socket.
        self.pages, self.only_by_address = pages, only_by_address
        self.rfile = BytesIO(head)
        self.wfile = self.written = BytesIO()
        self.command, self.requestline, self.request_version = "", "", "HTTP/1.0"
        self.close_connection = True
        if len(head.partition(b"\n")[0]) > _MOST_LINE_BYTES:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif len(head) > MOST_HEAD_BYTES:
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif is_complete(head):
            self.handle_one_request()
        if head and not self.written.tell():
            self.send_error(HTTPStatus.BAD_REQUEST)

    def do_GET(self) -> None:
        if status := self._misdirected():
            self.send_error(status)
            return
        page = self.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self._send(HTTPStatus.OK, page.content_type, page.make_body(), page.policy)

    def do_POST(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    # The base class finds methods by these names; a missing one is a 501.
    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815

    def _misdirected(self) -> HTTPStatus | None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            return HTTPStatus.BAD_REQUEST
        if self.only_by_address and hosts and not _is_address(hosts[0]):
            return HTTPStatus.MISDIRECTED_REQUEST
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # The base class's texts repeat parts of the request.
        status = HTTPStatus(code)
        allowed = {"Allow": "GET, HEAD"} if status is HTTPStatus.METHOD_NOT_ALLOWED else {}
        body = f"{status.value} {status.phrase}\n".encode()
        self._send(status, "text/plain; charset=utf-8", body, _NOTHING, allowed)

    def _send(
        self,
        status: HTTPStatus,
        content_type: str,
        body: bytes,
        policy: str,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(body)),
            "Connection": "close",
            "Cache-Control": "no-store",
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            # For browsers without support for frame-ancestors.
            "X-Frame-Options": "DENY",
            **(extra or {}),
        }
        # The base class omits status and headers for HTTP/0.9.
        self.request_version = self.protocol_version
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "csp1d"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: the server logs, because it knows the client."""


def _is_address(host: str) -> bool:
    match = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::\d*)?", host.strip())
    name = (match[1] or match[2] or "") if match else ""
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
