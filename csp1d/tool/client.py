# SPDX-License-Identifier: Apache-2.0
"""Asks the running daemon for its state, at http.socket of the configuration.

A process that could put a socket there could deceive an installer. So the server must run as csp1d,
as root or as the user of this command (SO_PEERCRED, unix(7)), and its answer is limited in size and
time.

The HTTP is done here: importing http.client would take longer than all else in `csp1ctl status`.
"""

import os
import pwd
import re
import socket
import struct
import time

from csp1d.config import HttpConfig
from csp1d.errors import DeviceError
from csp1d.status import Status, parse

_USER = "csp1d"
"""The user and the group of the service."""

_TIMEOUT_SECONDS = 3.0
"""From the connection to the end of the answer."""
_MAX_BYTES = 1 << 20
"""Of an answer: many times what csp1d sends."""
_RETRY_SECONDS = 0.05
"""Interval of the attempts while too many clients wait for the daemon."""

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}(?: [ -~]{0,60})?)\r\n")
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d{1,9})\r\n", re.IGNORECASE)


class NoAnswerError(DeviceError):
    """The daemon does not answer, or not as expected. A later attempt may succeed."""

    http_status: int | None = None
    """That of an answer that is an error."""


class NoDaemonError(NoAnswerError):
    """No process accepts connections at the socket."""


class Client:
    """Raises DeviceError if the configuration has no socket."""

    def __init__(self, config: HttpConfig) -> None:
        if not config.socket:
            raise DeviceError(
                'http.socket is "": csp1ctl cannot connect to csp1d; set it and reload csp1d'
            )
        self.path = config.socket

    def status(self) -> Status:
        """Raises NoAnswerError."""
        return self.parse(self.status_json())

    def parse(self, body: bytes) -> Status:
        """The status in the body of /status.json. Raises NoAnswerError."""
        try:
            return parse(body)
        except ValueError as error:
            raise NoAnswerError(
                f"the answer from {self.path} is {error}; restart csp1d if it is older than csp1ctl"
            ) from error

    def status_json(self) -> bytes:
        """Raises NoAnswerError."""
        return self.get("/status.json")

    def get(self, target: str, most_bytes: int = _MAX_BYTES) -> bytes:
        """The content of a page, with at most this length. Raises NoAnswerError."""
        try:
            reply = self._exchange(f"GET {target} HTTP/1.0\r\n\r\n".encode(), most_bytes)
        except NoAnswerError:
            raise
        except OSError as error:
            is_absent = isinstance(error, (FileNotFoundError, ConnectionRefusedError))
            kind = NoDaemonError if is_absent else NoAnswerError
            reason = f"{error.strerror or error}; {_remedy(error)}"
            raise kind(f"no answer from {self.path}: {reason}") from error
        head, _, body = reply.partition(b"\r\n\r\n")
        status_line = _STATUS_LINE.match(reply)
        found = status_line[1].decode() if status_line else "its answer is not HTTP"
        if not found.startswith("200"):
            refusal = NoAnswerError(
                f"no page of csp1d from {self.path}: {found}; see journalctl -u csp1d, or check"
                " http.socket"
            )
            refusal.http_status = int(found[:3]) if status_line else None
            raise refusal
        length = _LENGTH.search(head + b"\r\n")
        if length and len(body) < int(length[1]):
            raise NoAnswerError(f"incomplete answer from {self.path}; try again")
        return body

    def _exchange(self, request: bytes, most_bytes: int) -> bytes:
        """Send a request and read the whole answer, which with HTTP/1.0 ends the connection."""
        end, answer = time.monotonic() + _TIMEOUT_SECONDS, b""
        with socket.socket(socket.AF_UNIX) as connection:
            self._connect(connection, end)
            self._check_peer(connection)
            _wait_until(end, connection)
            connection.sendall(request)
            while part := connection.recv(65536):
                answer += part
                if len(answer) > most_bytes:
                    raise ConnectionError("the answer is too long")
                _wait_until(end, connection)
        if not answer:
            raise ConnectionError("connection closed")
        return answer

    def _connect(self, connection: socket.socket, end: float) -> None:
        while True:
            _wait_until(end, connection)
            try:
                connection.connect(self.path)
            except BlockingIOError:
                # Its queue is full: the system does not wait, whatever the timeout is.
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _check_peer(self, connection: socket.socket) -> None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, user_id, _ = struct.unpack("iII", credentials)
        try:
            name = pwd.getpwuid(user_id).pw_name
        except KeyError:
            name = str(user_id)
        if user_id not in (0, os.geteuid()) and name != _USER:
            raise NoAnswerError(
                f"the server at {self.path} runs as the user {name}, not as {_USER}, root or you:"
                " its answer is not trusted; check http.socket"
            )


def _wait_until(end: float, connection: socket.socket) -> None:
    """Set the timeout of the next call to `end`: alone, it would start again with each call."""
    left_seconds = end - time.monotonic()
    if left_seconds <= 0:
        raise TimeoutError("timed out")
    connection.settimeout(left_seconds)


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        try:
            user = pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            user = "USER"
        return (
            f"run csp1ctl as root (sudo), or join the group {_USER}:"
            f" sudo usermod -aG {_USER} {user}, then log in again"
        )
    if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
        return "is csp1d running with this configuration? (sudo systemctl start csp1d)"
    return "is csp1d busy or stuck? (systemctl status csp1d)"
