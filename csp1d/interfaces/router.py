# SPDX-License-Identifier: Apache-2.0
"""Turns the bytes of an HTTP request into the bytes of its response, without a socket.

The standard library parses the request (RFC 9112), in memory. This module decides what is allowed:
a few pages, by GET or HEAD, one request per connection. No response repeats any part of the
request, and headers restrict what a browser may do with it (fetch.spec.whatwg.org,
www.w3.org/TR/CSP3).

A browser sends the name in its URL as Host. A name that is not this machine's is that of a web page
whose DNS name was pointed here to read the pages (DNS rebinding): it is rejected.
"""

import base64
import gzip
import hashlib
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO

MOST_HEAD_BYTES = 16 * 1024
_MOST_LINE_BYTES = 4 * 1024
"""Limit for the request line, many times longer than any valid one."""

_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)(.*)", re.IGNORECASE)
"""A request target with scheme and authority (RFC 9112, section 3.2.2)."""
_HOST = re.compile(
    r"(?:\[([0-9a-f:.]+(?:%[\w.~%-]+)?)\]|([\w.~!$&'()*+,;=%-]*))(?::\d{0,5})?", re.ASCII
)
"""An authority, and the value of Host: an IPv6 address in brackets, or another address or a name,
and a port (RFC 3986, section 3.2.2)."""

_REMEDIES = {
    HTTPStatus.MISDIRECTED_REQUEST: "csp1d does not know the host name in this URL. Use an IP"
    " address, localhost or the machine's\nname, or make the name known: as site.name in"
    " csp1d.toml, or in the certificate.\n"
}
"""What the body of an error says besides the status."""

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""Content-Security-Policy that allows nothing: no loading, no scripts, no frames."""


@dataclass(frozen=True)
class Page:
    """The content served for a path. `make_body` is called for each request."""

    content_type: str
    make_body: Callable[[], bytes]
    policy: str = _NOTHING
    """Content-Security-Policy: what a browser allows the page to do."""


@dataclass(frozen=True)
class Selection:
    """Content that the query of a URL selects, in parts that are sent without a copy."""

    content_type: str
    select: Callable[[str], Sequence[bytes | memoryview] | HTTPStatus]
    """Called for each request, with what follows the "?"."""


Pages = Mapping[str, Page | Selection]
"""The content by path."""


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

    pages: Pages
    is_own_name: Callable[[str], bool]
    """Whether a host name, in lower case, is one of this machine; localhost need not be."""
    is_secure: bool = False
    """Whether the requests arrive over TLS: others may not ask for an https URL (RFC 9110, 7.4)."""

    def answer(self, head: bytes) -> Sequence[bytes | memoryview]:
        """The response to a request, in parts. `head` is what was received of it, up to the empty
        line.

        An empty request gets an empty response.
        """
        return _Response(head, self).parts()


def error_response(status: HTTPStatus) -> Sequence[bytes | memoryview]:
    """The response to a request that could not be read or answered."""
    response = _Response(b"", Router({}, lambda name: False))
    response.send_error(status)
    return response.parts()


def is_complete(head: bytes) -> bool:
    """Whether `head` contains the empty line that ends the head of a request."""
    return b"\n\r\n" in head or b"\n\n" in head


def _accepts_gzip(codings: str) -> bool:
    """Whether a value of Accept-Encoding has gzip, other than with the weight 0 (RFC 9110, section
    12.5.3)."""
    for coding in codings.lower().split(","):
        name, _, weight = "".join(coding.split()).partition(";q=")
        if name == "gzip":
            return not re.fullmatch(r"0(\.0*)?", weight)
    return False


class _Response(BaseHTTPRequestHandler):
    """One request and its response, both in memory."""

    # A request without a version gets a response with headers, too.
    default_request_version = "HTTP/1.0"

    def __init__(self, head: bytes, router: Router) -> None:
        # The base class's __init__ needs a socket.
        self.router = router
        self.rfile = BytesIO(head)
        self.wfile = self.written = BytesIO()
        self.more: Sequence[bytes | memoryview] = ()
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

    def parts(self) -> Sequence[bytes | memoryview]:
        """The response that was written."""
        return (self.written.getvalue(), *self.more)

    def do_GET(self) -> None:
        target, status = self._locate()
        if status:
            self.send_error(status)
            return
        path, _, query = target.partition("?")
        page = self.router.pages.get(path)
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
        elif isinstance(page, Page):
            body, coding = page.make_body(), {"Vary": "Accept-Encoding"}
            if _accepts_gzip(",".join(self.headers.get_all("Accept-Encoding", []))):
                # No response repeats a part of the request, so its length reveals nothing (BREACH).
                # Level 1: the others take longer, and /metrics is hardly smaller.
                body, coding["Content-Encoding"] = gzip.compress(body, 1, mtime=0), "gzip"
            self._send(HTTPStatus.OK, page.content_type, [body], page.policy, coding)
        elif isinstance(found := page.select(query), HTTPStatus):
            self.send_error(found)
        else:
            self._send(HTTPStatus.OK, page.content_type, found, _NOTHING)

    def do_POST(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    # The base class finds methods by these names; a missing one is a 501.
    do_HEAD = do_GET  # noqa: N815
    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = do_POST  # noqa: N815

    def _locate(self) -> tuple[str, HTTPStatus | None]:
        """The path of the request target, and the error if its host is missing or not this one."""
        path, hosts = self.path, self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            return path, HTTPStatus.BAD_REQUEST
        if absolute := _ABSOLUTE.fullmatch(path):
            scheme, authority, path = absolute[1].lower(), absolute[2], absolute[3]
            if not authority or (scheme == "https" and not self.router.is_secure):
                return path, HTTPStatus.BAD_REQUEST
            path = path if path.startswith("/") else f"/{path}"
            hosts.append(authority)
        valid = [match for host in hosts if (match := _HOST.fullmatch(host.strip(" \t").lower()))]
        if len(valid) < len(hosts):
            return path, HTTPStatus.BAD_REQUEST
        # That of the target replaces the field Host.
        if valid and not self._is_own(*valid[-1].groups()):
            return path, HTTPStatus.MISDIRECTED_REQUEST
        return path, None

    def _is_own(self, ipv6: str | None, other: str | None) -> bool:
        """Whether a host is an address, localhost or a name of this machine."""
        try:
            ipaddress.IPv6Address(ipv6) if ipv6 else ipaddress.IPv4Address(other or "")
        except ValueError:
            name = (other or "").removesuffix(".")
            return name == "localhost" or (name != "" and self.router.is_own_name(name))
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # The base class's texts repeat parts of the request.
        status = HTTPStatus(code)
        allowed = {"Allow": "GET, HEAD"} if status is HTTPStatus.METHOD_NOT_ALLOWED else {}
        body = f"{status.value} {status.phrase}\n{_REMEDIES.get(status, '')}".encode()
        self._send(status, "text/plain; charset=utf-8", [body], _NOTHING, allowed)

    def _send(
        self,
        status: HTTPStatus,
        content_type: str,
        body: Sequence[bytes | memoryview],
        policy: str,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(sum(map(len, body))),
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
        if self.command != "HEAD" and body:
            # One part with the head: two short segments would wait for each other (RFC 1122).
            self.wfile.write(body[0])
            self.more = body[1:]

    def version_string(self) -> str:
        return "csp1d"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Nothing: the server logs, because it knows the client."""
