# SPDX-License-Identifier: Apache-2.0
"""Asks the running daemon for its state, at http.listen of the configuration.

With TLS the daemon has to present exactly the certificate that the configuration names. So that
certificate may be self-signed and have any name, and no other server can answer in its place.

The HTTP is done here: importing http.client would take longer than all else in `csp1ctl status`.
"""

import re
import socket
import time
from typing import TYPE_CHECKING

from csp1d.config import HttpConfig, split_address
from csp1d.errors import DeviceError
from csp1d.status import Status, parse

if TYPE_CHECKING:
    import ssl

_TIMEOUT_SECONDS = 3
_MAX_BYTES = 1 << 20
"""Of an answer: many times what csp1d sends."""

# csp1ctl connects to the loopback address if csp1d listens on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}(?: [ -~]*)?)\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d{1,9})\r\n", re.IGNORECASE)


class NoAnswerError(DeviceError):
    """The daemon does not answer, or not as expected. A later attempt may succeed."""


class Client:
    """Raises DeviceError if this configuration allows no connection to the daemon.

    `certificate` and `key` are PEM files of a client; without `key`, the file of the certificate
    holds it.
    """

    def __init__(self, config: HttpConfig, certificate: str = "", key: str = "") -> None:
        if not config.listen:
            raise DeviceError(
                'http.listen is "": the HTTP server is disabled; set it and reload csp1d'
            )
        (host, *_), self._port = split_address(config.listen)
        if not self._port:
            raise DeviceError(
                f"http.listen {config.listen!r} lets the system choose a port that csp1ctl cannot "
                "know; set a port and reload csp1d"
            )
        self._host = _LOOPBACK.get(host, host)
        self._tls = _tls(config, certificate, key) if config.tls_certificate else None
        shown = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{self._port}/"

    def status(self) -> Status:
        """Raises NoAnswerError."""
        try:
            return parse(self.status_json())
        except ValueError as error:
            raise NoAnswerError(
                f"the answer from {self.url} is {error}; restart csp1d if it is older than csp1ctl,"
                " and check http.listen"
            ) from error

    def status_json(self) -> bytes:
        """Raises NoAnswerError."""
        try:
            reply = self._exchange(b"GET /status.json HTTP/1.0\r\n\r\n")
        except OSError as error:
            reason = f"{error.strerror or error}{self._remedy(error)}"
            raise NoAnswerError(f"no answer from {self.url}: {reason}") from error
        head, _, body = reply.partition(b"\r\n\r\n")
        status_line = _STATUS_LINE.match(reply)
        found = status_line[1].decode() if status_line else "its answer is not HTTP"
        if not found.startswith("200"):
            raise NoAnswerError(
                f"the server at {self.url} is not csp1d: {found}; check http.listen"
            )
        length = _LENGTH.search(head + b"\r\n")
        if length and len(body) < int(length[1]):
            raise NoAnswerError(f"incomplete answer from {self.url}")
        return body

    def _exchange(self, request: bytes) -> bytes:
        """Send a request and read the whole answer, which with HTTP/1.0 ends the connection."""
        end, answer = time.monotonic() + _TIMEOUT_SECONDS, b""
        with (
            socket.create_connection((self._host, self._port), _TIMEOUT_SECONDS) as plain,
            self._tls.wrap_socket(plain) if self._tls else plain as connection,
        ):
            connection.sendall(request)
            # A timeout of the socket alone would begin again with each part.
            while part := connection.recv(65536):
                answer += part
                if len(answer) > _MAX_BYTES:
                    raise ConnectionError("the answer is too long")
                if (left_seconds := end - time.monotonic()) <= 0:
                    raise TimeoutError("timed out")
                connection.settimeout(left_seconds)
        if not answer:
            raise ConnectionError("connection closed")
        return answer

    def _remedy(self, error: OSError) -> str:
        if self._tls:
            import ssl

            if isinstance(error, ssl.SSLCertVerificationError):
                return "; reload csp1d if http.tls_certificate was renewed"
            if isinstance(error, ssl.SSLError):
                return "; check http.tls_certificate and http.tls_client_ca"
        return "; is csp1d running with this configuration? (systemctl status csp1d)"


def _tls(config: HttpConfig, certificate: str, key: str) -> "ssl.SSLContext":
    import ssl

    if config.tls_client_ca and not certificate:
        raise DeviceError(
            "csp1d requires a client certificate signed by http.tls_client_ca; give one with "
            "--certificate and --key"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(config.tls_certificate)
    except OSError as error:
        remedy = "set http.tls_certificate to a PEM file of a certificate"
        if isinstance(error, PermissionError):
            remedy = "make it readable, or run csp1ctl as root"
        raise DeviceError(
            f"http.tls_certificate {config.tls_certificate!r}, which csp1d presents, cannot be "
            f"used: {error}; {remedy}"
        ) from error
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except OSError as error:
            raise DeviceError(
                f"--certificate {certificate!r} or --key cannot be used: {error}"
            ) from error
    return context
