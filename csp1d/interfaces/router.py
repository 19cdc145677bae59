# SPDX-License-Identifier: Apache-2.0
"""From the bytes of a request to those of its answer, without a socket.

The parser is the standard library's (RFC 9112); it reads from memory and writes to memory. Here is
decided what it may be asked: a few pages, by GET or HEAD, one request a connection. No answer
repeats anything of the request. Each carries what keeps a browser from doing more with it than to
show it (fetch.spec.whatwg.org, www.w3.org/TR/CSP3).
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
"""Of the request line: many times what any page needs."""

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The policy (CSP) of what is no page of ours to run: loads nothing, runs nothing, in no frame."""


@dataclass(frozen=True)
class Page:
    """What answers to a path."""

    content_type: str
    make_body: Callable[[], bytes]
    policy: str = _NOTHING
    """What a browser lets it do: its Content-Security-Policy."""


def html_page(html: bytes) -> Page:
    """A page that may run the <script> and <style> elements in it, and fetch from where it is.

    The elements are named by their hashes, so what gets into the page later does not run, and
    `style=` or `onclick=` attributes do not work. Pictures are those in it. `html` is constant;
    what changes is fetched.
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
    return " ".join(f"'sha256-{each}'" for each in hashes) or "'none'"


@dataclass(frozen=True)
class Router:
    """The pages by path, and whom they answer."""

    pages: Mapping[str, Page]
    only_by_address: bool
    """Refuse a request that names another host than an address or localhost. On loopback nobody
    asks by another name, but a web page whose name was made to lead here (DNS rebinding)."""

    def answer(self, head: bytes) -> bytes:
        """What to send to a request: `head` is what came of it, up to the empty line at most.

        To nothing at all the answer is nothing.
        """
        return _Response(head, self.pages, self.only_by_address).written.getvalue()


def error_response(status: HTTPStatus) -> bytes:
    """The answer to what could not be read or answered."""
    exchange = _Response(b"", {}, False)
    exchange.send_error(status)
    return exchange.written.getvalue()


def is_complete(head: bytes) -> bool:
    """Whether the empty line is there that ends the head of a request."""
    return b"\n\r\n" in head or b"\n\n" in head


class _Response(BaseHTTPRequestHandler):
    """One request and its answer, both in memory."""

    # What has no version gets an answer with headers as well.
    default_request_version = "HTTP/1.0"

    def __init__(self, head: bytes, pages: Mapping[str, Page], only_by_address: bool) -> None:
        # Not the base class's, which begins with a socket.
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

    # The base class finds methods by these names; one that it does not find is a 501.
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
        # The base class's texts repeat what was asked.
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
        further: Mapping[str, str] | None = None,
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
            # For browsers that do not know frame-ancestors.
            "X-Frame-Options": "DENY",
            **(further or {}),
        }
        # The base class leaves out status and headers for HTTP/0.9.
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
        """The server logs, who knows the client."""


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
