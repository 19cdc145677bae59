# SPDX-License-Identifier: Apache-2.0
"""Notifications to systemd: readiness, status text and watchdog (sd_notify(3)).

The protocol is one datagram to NOTIFY_SOCKET. The call of systemd-python blocks while the receiver
does not read, and raises if there is none; both would delay telegrams.
"""

import logging
import os
import socket
import time

from csp1d.interfaces.snapshot import Snapshot
from csp1d.status import headline

log = logging.getLogger("csp1d")


def status_line(state: Snapshot, now_ns: int) -> str:
    """The text for `systemctl status`. It seldom changes: it contains no figures but those in the
    message of a problem."""
    requests = {None: "request line missing", True: "requesting", False: "no request"}
    request = requests[state.p1_requested]
    if reasons := [problem.reason for problem in state.problems]:
        return f"{headline(reasons, is_measuring=False)}; {request}"
    measuring = "Waiting for a reading" if state.fresh(now_ns) is None else "Measuring"
    return f"{measuring}; P1 port {'open' if state.p1_up else 'missing'}; {request}"


class ServiceManager:
    """Notifies the service manager, if there is one. No call blocks or raises."""

    def __init__(self) -> None:
        self._status = ""
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        # As sd_watchdog_enabled(3), which systemd-python lacks: WATCHDOG_PID, if set, names it.
        process = os.environ.get("WATCHDOG_PID", str(os.getpid()))
        self._watchdog = "WATCHDOG_USEC" in os.environ and process == str(os.getpid())

    def ready(self) -> None:
        self._notify("READY=1")

    def reloading(self) -> None:
        """Announce a reload, with the time that Type=notify-reload requires."""
        self._notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._notify("STOPPING=1\nSTATUS=Stopping")

    def status(self, text: str) -> None:
        """Set the text of `systemctl status`; sent only when it changes."""
        if text != self._status:
            self._status = text
            # An assignment ends at the end of the line. systemd ignores a message above 4 KiB.
            self._notify(f"STATUS={' '.join(text.splitlines())[:1000]}")

    def alive(self) -> None:
        """Reset the watchdog, if the unit has one."""
        if self._watchdog:
            self._notify("WATCHDOG=1")

    def close(self) -> None:
        self._socket.close()

    def _notify(self, state: str) -> None:
        if not self._address:
            return
        # A leading @ stands for an abstract address.
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        try:
            # The name of a file need not be UTF-8.
            self._socket.sendto(state.encode(errors="replace"), address)
        except OSError as error:
            log.debug("cannot notify the service manager of %r: %s", state, error)
