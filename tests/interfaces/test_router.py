# SPDX-License-Identifier: Apache-2.0
"""Requests and their responses, byte for byte, without a socket."""

import base64
import email
import gzip
import hashlib
import re
from collections.abc import Sequence
from email.message import Message
from http import HTTPStatus

import pytest

from csp1d.interfaces.router import (
    Page,
    Pages,
    Router,
    Selection,
    error_response,
    html_page,
)

HTML = b"<style>p { margin: 0 }</style><script>\nlet a = 1;\n</script><script>b</script>"
SELECTED: dict[str, Sequence[bytes | memoryview] | HTTPStatus] = {
    "": [],
    "1": [b"one"],
    "2&x=%20": [b"two", memoryview(b" parts")],
    "gone": HTTPStatus.GONE,
}
PAGES: Pages = {
    "/": html_page(HTML),
    "/metrics": Page("text/plain; charset=utf-8", lambda: b"a 1\n"),
    "/selected": Selection("application/octet-stream", SELECTED.__getitem__),
}
ANYWHERE = Router(PAGES, lambda name: True)
CSP1 = Router(PAGES, lambda name: name == "csp1.local")


def parts(reply: bytes) -> tuple[int, Message, bytes]:
    """Status, headers and body."""
    head, _, body = reply.partition(b"\r\n\r\n")
    first, _, headers = head.partition(b"\r\n")
    assert re.fullmatch(rb"HTTP/1\.0 \d{3} [ -~]+", first)
    return int(first.split()[1]), email.message_from_bytes(headers), body


def ask(head: bytes, router: Router = ANYWHERE) -> tuple[int, Message, bytes]:
    return parts(b"".join(router.answer(head)))


@pytest.mark.parametrize(
    "head",
    [
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics?name=y HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.0\n\n",
        # A body, or a second request, is ignored.
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\nGET / HTTP/1.1",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        # HTTP 0.9 gets headers, too.
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/0.9\r\nHost: x\r\n\r\n",
    ],
)
def test_one_request_is_answered_and_the_connection_ends(head: bytes) -> None:
    status, headers, body = ask(head)
    assert (status, body) == (200, b"a 1\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Content-Length"] == "4"
    assert headers["Connection"] == "close"


def test_head_has_only_headers() -> None:
    status, headers, body = ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, headers["Content-Length"], body) == (200, "4", b"")


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (b"gzip", "gzip"),
        (b"deflate, GZIP ; q=0.5,br", "gzip"),
        (b"br\r\nAccept-Encoding: gzip", "gzip"),
        (b"gzip;q=0", None),
        (b"gzip; q=0.00, *", None),
        (b"x-gzip2, identity", None),
        (b"", None),
    ],
)
def test_a_page_is_compressed_for_clients_that_accept_it(
    accepted: bytes, coding: str | None
) -> None:
    head = b" /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: " + accepted + b"\r\n\r\n"
    status, headers, body = ask(b"GET" + head)
    assert (status, headers["Content-Encoding"]) == (200, coding)
    assert headers["Vary"] == "Accept-Encoding"
    assert headers["Content-Length"] == str(len(body))
    assert (gzip.decompress(body) if coding else body) == b"a 1\n"
    assert ask(b"HEAD" + head)[1]["Content-Length"] == str(len(body))


def test_a_selection_and_an_error_are_not_compressed() -> None:
    for path in (b"/selected?1", b"/other"):
        headers = ask(b"GET " + path + b" HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n")[1]
        assert headers["Content-Encoding"] is None


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /../metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/other HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET http:///metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://user@x/metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[::1/metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET https://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        *(
            (method + b" /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 405)
            for method in b"POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split()
        ),
        (b"BREW /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"get /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 501),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        *(
            (b"GET /metrics HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", 400)
            for host in (
                b"[::1",
                b"::1",
                b"[]",
                b"a:b",
                b"a:80:80",
                b"a b",
                b"a/b",
                b"u@a",
                b"\xe9",
            )
        ),
        (b"GET /metrics HTTP/one\r\n\r\n", 400),
        (b"GET /metrics FTP/1.0\r\n\r\n", 400),
        (b"GET / metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\n\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: x", 400),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
        (b"GET /" + b"x" * 4096 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"x" * 20_000, 414),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n", 431),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\na: " + b"b" * 16_384, 431),
    ],
)
def test_other_requests_are_rejected_without_repeating_them(head: bytes, status: int) -> None:
    received, headers, body = ask(head)
    assert received == status
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Connection"] == "close"
    assert headers["Allow"] == ("GET, HEAD" if status == 405 else None)
    assert re.fullmatch(rb"\d{3} [A-Za-z- ]+\n", body)
    assert headers["Content-Length"] == str(len(body))


@pytest.mark.parametrize(
    ("query", "status", "content"),
    [("", 200, b""), ("1", 200, b"one"), ("2&x=%20", 200, b"two parts"), ("gone", 410, None)],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_query_selects_the_parts_of_a_response(
    method: bytes, query: str, status: int, content: bytes | None
) -> None:
    received, headers, body = ask(b"%b /selected?%b HTTP/1.0\r\n\r\n" % (method, query.encode()))
    content = b"410 Gone\n" if content is None else content
    assert (received, headers["Content-Length"]) == (status, str(len(content)))
    assert body == (content if method == b"GET" else b"")


def test_a_selection_is_not_copied_except_its_beginning() -> None:
    _, second = ANYWHERE.answer(b"GET /selected?2&x=%20 HTTP/1.0\r\n\r\n")
    assert second is SELECTED["2&x=%20"][1]  # type: ignore[index]


def test_an_empty_request_gets_no_response() -> None:
    assert b"".join(ANYWHERE.answer(b"")) == b""


HOSTS = {
    "127.0.0.1": 200,
    "127.0.0.1:19510": 200,
    "127.0.0.1:": 200,
    "10.1.2.3": 200,
    "[::1]": 200,
    "[::1]:19510": 200,
    "[fe80::1%25eth0]:80": 200,
    "[::ffff:10.1.2.3]": 200,
    "localhost:8080": 200,
    "LOCALHOST": 200,
    "localhost.": 200,
    "csp1.local": 200,
    "CSP1.local.:19510": 200,
    "evil.example": 421,
    "evil.example:19510": 421,
    "localhost.evil.example": 421,
    "127.0.0.1.evil.example": 421,
    "csp1.local.evil.example": 421,
    "[csp1.local]": 400,
    "[127.0.0.1]": 421,
    "2130706433": 421,
    "": 421,
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_an_address_or_a_name_of_the_machine(host: str) -> None:
    """Another name is that of a web page whose DNS name points here."""
    status, _, body = ask(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), CSP1)
    assert status == HOSTS[host]
    assert (b"site.name" in body) == (status == 421)
    assert host in ("", "localhost.") or host.encode() not in body


@pytest.mark.parametrize("host", [host for host in HOSTS if host])
def test_the_host_of_an_absolute_target_replaces_that_of_the_field(host: str) -> None:
    for field, version in (("127.0.0.1", "1.1"), ("evil.example", "1.1"), ("evil.example", "1.0")):
        head = f"GET HTTP://{host}/metrics?a=b HTTP/{version}\r\nHost: {field}\r\n\r\n"
        assert ask(head.encode(), CSP1)[0] == HOSTS[host]


def test_an_absolute_target_without_a_path_is_the_page() -> None:
    for target in (b"http://[::1]:80", b"http://[::1]:80?a=b", b"http://[::1]:80/"):
        assert ask(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n", CSP1)[2] == HTML


def test_an_https_target_needs_tls() -> None:
    secure = Router(PAGES, lambda name: True, is_secure=True)
    assert ask(b"GET https://x/metrics HTTP/1.1\r\nHost: x\r\n\r\n", secure)[0] == 200


def test_a_request_without_a_host_is_not_from_a_browser() -> None:
    assert ask(b"GET /metrics HTTP/1.0\r\n\r\n", CSP1)[0] == 200


@pytest.mark.parametrize(
    "reply",
    [
        ANYWHERE.answer(b"GET / HTTP/1.0\r\n\r\n"),
        ANYWHERE.answer(b"GET /metrics HTTP/1.0\r\n\r\n"),
        ANYWHERE.answer(b"GET /selected?1 HTTP/1.0\r\n\r\n"),
        ANYWHERE.answer(b"GET /other HTTP/1.0\r\n\r\n"),
        error_response(HTTPStatus.REQUEST_TIMEOUT),
    ],
    ids=["page", "metrics", "selected", "rejected", "too slow"],
)
def test_every_response_restricts_the_browser(reply: Sequence[bytes | memoryview]) -> None:
    _, headers, _ = parts(b"".join(reply))
    assert headers["Cache-Control"] == "no-store"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    policy = headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "form-action 'none'"} <= {*policy}
    assert "frame-ancestors 'none'" in policy
    assert headers["Server"] == "csp1d"


def test_a_page_may_run_only_its_own_elements() -> None:
    def source(text: bytes) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"

    policy = ask(b"GET / HTTP/1.0\r\n\r\n")[1]["Content-Security-Policy"].split("; ")
    first, second = source(b"\nlet a = 1;\n"), source(b"b")
    assert f"script-src {first} {second}" in policy
    assert f"style-src {source(b'p { margin: 0 }')}" in policy
    assert "connect-src 'self'" in policy
    assert "script-src 'none'; style-src 'none'" in html_page(b"<p>").policy
