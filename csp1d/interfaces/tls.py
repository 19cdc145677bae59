# SPDX-License-Identifier: Apache-2.0
"""The certificate, key and authority of HTTPS: files, checked as a whole before they are used."""

import base64
import calendar
import logging
import re
import ssl
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from csp1d.config import HttpConfig
from csp1d.config_file import DEFAULT_PATH, origins
from csp1d.errors import ConfigError, DeviceError, Problem

log = logging.getLogger("csp1d")

_ENCRYPTED = re.compile(rb"^-----BEGIN ENCRYPTED |^Proc-Type: 4,ENCRYPTED", re.MULTILINE)
"""Marks a key with a passphrase (RFC 7468, section 11; RFC 1421, section 4.6.1.1)."""
_MOST_PEM_BYTES = 1 << 20
"""Limit for the search for that mark."""

_CERTIFICATE = re.compile(
    r"^-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)^-----END ", re.DOTALL | re.MULTILINE
)
_SUBJECT_ALT_NAME = b"\x06\x03\x55\x1d\x11"
"""Its object identifier, 2.5.29.17 in DER."""
_OCTET_STRING, _UTC_TIME, _DNS_NAME, _VERSION = 0x04, 0x17, 0x82, 0xA0


def load_certificates(config: HttpConfig, named_file: Path | None) -> "Tls | None":
    """As `load_tls`, but raises ConfigError. `named_file` as for `config_file.load`."""
    try:
        return load_tls(config)
    except TlsError as error:
        file = named_file or DEFAULT_PATH
        file = origins(file).get(error.key, file)
        raise ConfigError([Problem(file, error.key, error.reason)]) from error


class TlsError(DeviceError):
    """A file for TLS that cannot be used."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key} {reason}")
        self.key = key
        self.reason = reason


@dataclass(frozen=True)
class Tls:
    """What the files of TLS hold."""

    context: ssl.SSLContext
    names: frozenset[str]
    """The DNS names in the certificate, in lower case; "*." for any host of a domain."""
    expiry_seconds: float | None
    """Unix time after which the certificate is not valid; None if unknown."""


def load_tls(config: HttpConfig) -> Tls | None:
    """None without TLS. Raises TlsError if a file cannot be used."""
    if not config.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for key in ("tls_certificate", "tls_key", "tls_client_ca"):
        if file := getattr(config, key):
            _check_pem(f"http.{key}", Path(file))
    try:
        # Without a password, OpenSSL would prompt for the passphrase of a key on the terminal.
        context.load_cert_chain(config.tls_certificate, config.tls_key, password="")
    except OSError as error:
        raise TlsError(
            "http.tls_certificate",
            f"{config.tls_certificate!r} cannot be used with http.tls_key {config.tls_key!r}:"
            f" {error}; both must be PEM files, and the key must belong to the certificate",
        ) from error
    if config.tls_client_ca:
        try:
            context.load_verify_locations(config.tls_client_ca)
        except OSError as error:
            raise TlsError(
                "http.tls_client_ca",
                f"{config.tls_client_ca!r} cannot be used: {error}; it must be a PEM file",
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    der = _first_certificate(Path(config.tls_certificate).read_text("latin-1"))
    return Tls(context, _dns_names(der), _expiry_seconds(der))


# The ssl module decodes only the certificates of peers and authorities.


def _first_certificate(text: str) -> bytes:
    """In DER; b"" where OpenSSL reads what is not PEM by RFC 7468."""
    match = _CERTIFICATE.search(text)
    try:
        return base64.b64decode(match[1]) if match else b""
    except ValueError as error:
        log.debug("http.tls_certificate cannot be decoded: %s", error)
        return b""


def _dns_names(der: bytes) -> frozenset[str]:
    """The dNSName entries of subjectAltName of a certificate (RFC 5280, section 4.2.1.6)."""
    extension = der.partition(_SUBJECT_ALT_NAME)[2]
    # Its value, after the flag `critical`, if that is there.
    value = next((content for tag, content in _elements(extension) if tag == _OCTET_STRING), b"")
    return frozenset(
        name.decode("ascii", "replace").lower()
        for _, names in _elements(value)
        for tag, name in _elements(names)
        if tag == _DNS_NAME
    )


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element (X.690, section 8.1)."""
    while len(der) > 1:
        tag, length, begin = der[0], der[1], 2
        if length > 127:
            begin += length - 128
            length = int.from_bytes(der[2:begin])
        yield tag, der[begin : begin + length]
        der = der[begin + length :]


def _expiry_seconds(der: bytes) -> float | None:
    """Unix time after which a certificate is not valid (RFC 5280, section 4.1); None if unknown."""
    try:
        (_, certificate), *_ = _elements(der)
        (_, to_be_signed), *_ = _elements(certificate)
        # [version], serial, signature, issuer, validity: notBefore, notAfter.
        fields = list(_elements(to_be_signed))
        _, (tag, date) = _elements(fields[3 + (fields[0][0] == _VERSION)][1])
        text = date.decode("ascii")
        if tag == _UTC_TIME:  # has two digits of the year
            text = f"{'19' if text >= '5' else '20'}{text}"
        return calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ"))
    except (ValueError, IndexError) as error:
        log.debug("no end of validity in http.tls_certificate: %s", error)
        return None


def _check_pem(key: str, file: Path) -> None:
    """Raise TlsError unless `file` is a readable regular file, and no key with a passphrase.

    OpenSSL would block on a pipe. It also derives a key before it rejects an empty passphrase,
    which takes as long as the creator of the file chose.
    """
    remedy = "set it to a PEM file that csp1d can read"
    try:
        reason = "" if stat.S_ISREG(file.stat().st_mode) else "is not a file"
        if not reason:
            with file.open("rb") as pem:
                if key == "http.tls_key" and _ENCRYPTED.search(pem.read(_MOST_PEM_BYTES)):
                    reason = "has a passphrase"
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        if isinstance(error, PermissionError):
            remedy = "the group csp1d needs access, and so does --check-config (as root: sudo)"
    if reason:
        raise TlsError(key, f"{str(file)!r} {reason}; {remedy}")
