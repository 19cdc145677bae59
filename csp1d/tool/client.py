# SPDX-License-Identifier: Apache-2.0
"""Asks the running daemon for its state, where [http] of the configuration says that it listens.

With TLS the daemon has to show the very certificate that the configuration names; so it may be
self-signed and bear any name, and nobody else can answer in its place.
"""

import http.client
import ssl

from csp1d.config import HttpConfig, split_address
from csp1d.errors import DeviceError
from csp1d.status import Status, parse

_TIMEOUT_SECONDS = 3

# An address that stands for all of the machine is asked on the machine itself.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class NoAnswerError(DeviceError):
    """The daemon does not answer, or not as expected: it may do so later."""


class Client:
    """Raises DeviceError where the daemon can not be asked at all with this configuration.

    `certificate` and `key` are PEM files of a client; without `key` the certificate's file has it.
    """

    def __init__(self, config: HttpConfig, certificate: str = "", key: str = "") -> None:
        if not config.listen:
            raise DeviceError(
                'http.listen is "", so csp1d tells nobody its state; set it, and reload csp1d'
            )
        host, self._port = split_address(config.listen)
        if not self._port:
            raise DeviceError(
                f"http.listen {config.listen!r} lets csp1d choose a port, which nobody else can "
                "know; set one, and reload csp1d"
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
                f"what answers at {self.url} is {error}; restart csp1d if it is older than "
                "csp1ctl, and see http.listen"
            ) from error

    def status_json(self) -> bytes:
        """Raises NoAnswerError."""
        connection = (
            http.client.HTTPSConnection(
                self._host, self._port, timeout=_TIMEOUT_SECONDS, context=self._tls
            )
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_SECONDS)
        )
        try:
            connection.request("GET", "/status.json")
            reply = connection.getresponse()
            body = reply.read()
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoAnswerError(f"no answer at {self.url}: {reason}{_mend(error)}") from error
        finally:
            connection.close()
        if reply.status != http.HTTPStatus.OK:
            raise NoAnswerError(
                f"what answers at {self.url} is not csp1d: {reply.status} {reply.reason}; see "
                "http.listen"
            )
        return body


def _mend(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return "; reload csp1d if the file of http.tls_certificate was renewed"
    if isinstance(error, ssl.SSLError):
        return "; see http.tls_certificate and http.tls_client_ca"
    return "; does csp1d run, with the same configuration? (systemctl status csp1d)"


def _tls(config: HttpConfig, certificate: str, key: str) -> ssl.SSLContext:
    if config.tls_client_ca and not certificate:
        raise DeviceError(
            "http.tls_client_ca lets in only clients that have a certificate of it; give one with "
            "--certificate and --key"
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(config.tls_certificate)
    except OSError as error:
        raise DeviceError(
            f"http.tls_certificate {config.tls_certificate!r}, which csp1d has to show, can not be "
            f"used: {error}; make it readable, or run csp1ctl as root"
        ) from error
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except OSError as error:
            raise DeviceError(
                f"--certificate {certificate!r} or --key can not be used: {error}"
            ) from error
    return context
