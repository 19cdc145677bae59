# SPDX-License-Identifier: Apache-2.0
"""What systemd is told: readiness, state in words, and signs of life (sd_notify(3)).

The protocol is a datagram to NOTIFY_SOCKET. It is sent from here rather than by systemd-python,
whose call waits for a receiver that does not read, and fails where there is none: neither may hold
up a telegram.
"""

import logging
import os
import socket
import time

log = logging.getLogger("csp1d")


class ServiceManager:
    """Speaks to the service manager, if one listens."""

    def __init__(self) -> None:
        self._status = ""
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._watchdog = _watchdog_asked_for()

    def ready(self) -> None:
        self._notify("READY=1")

    def reloading(self) -> None:
        """RELOADING carries the time, which systemd wants for Type=notify-reload."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._notify("STOPPING=1\nSTATUS=Stopping")

    def status(self, words: str) -> None:
        """Say it when it changes."""
        if words != self._status:
            self._status = words
            # A line ends an assignment.
            self._notify(f"STATUS={' '.join(words.splitlines())}")

    def alive(self) -> None:
        """The loop went round."""
        if self._watchdog:
            self._notify("WATCHDOG=1")

    def close(self) -> None:
        self._socket.close()

    def _notify(self, words: str) -> None:
        if not self._address:
            return
        # An address that begins with @ is an abstract one.
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        try:
            self._socket.sendto(words.encode(), address)
        except OSError as error:
            log.debug("the service manager was not told %r: %s", words, error)


def _watchdog_asked_for() -> bool:
    # systemd-python has no sd_watchdog_enabled(3): WATCHDOG_PID, where set, says for whom.
    for_whom = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    return "WATCHDOG_USEC" in os.environ and for_whom == str(os.getpid())
