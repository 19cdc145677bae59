# SPDX-License-Identifier: Apache-2.0
"""HTTP clients: ``clients.py KIND SECONDS``.

All are hostile, but "page": it does as a browser that shows the page, opened each minute, and
Prometheus.  So does "hurry", without waiting between the seconds.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
import time

ADDRESS = ("127.0.0.1", 19510)
CONNECTIONS = 40
SCRAPES_A_SECOND = 100
PAGE_SECONDS = {
    "/": 60,
    "/status.json": 1,
    "/waveform.json": 1,
    "/history.json": 10,
    "/metrics": 15,
}
"""Interval of the requests for each path."""


def connect() -> socket.socket:
    """A non-blocking connection."""
    client = socket.create_connection(ADDRESS, 1)
    client.setblocking(False)
    return client


def offer(client: socket.socket, data: bytes) -> None:
    """Send as much as the peer accepts; it may have closed the connection."""
    with contextlib.suppress(OSError):
        client.send(data)


def poll(seconds: float, hurry: bool) -> None:
    """Request what the page and Prometheus request; each must be answered."""
    begin = time.monotonic()
    for second in range(round(seconds)):
        if not hurry:
            time.sleep(max(0, begin + second - time.monotonic()))
        for path in (path for path, interval in PAGE_SECONDS.items() if second % interval == 0):
            client = http.client.HTTPConnection(*ADDRESS, timeout=10)
            client.request("GET", path)
            reply = client.getresponse()
            if reply.status != http.client.OK or not reply.read():
                sys.exit(f"{path}: {reply.status} in second {second}")
            client.close()


def main(kind: str, seconds: float) -> None:
    """Run these clients for a number of seconds."""
    end = time.monotonic() + seconds
    if kind in ("page", "hurry"):
        poll(seconds, kind == "hurry")
        return
    if kind == "scrapes":
        due = time.monotonic()
        while time.monotonic() < end:
            client = connect()
            offer(client, b"GET /metrics HTTP/1.0\r\n\r\n")
            due += 1 / SCRAPES_A_SECOND
            time.sleep(max(0, due - time.monotonic()))
            client.close()
        return
    clients = [connect() for _ in range(CONNECTIONS)]
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    if kind == "half":
        for client in clients:
            offer(client, request[:9])
        time.sleep(seconds)
        return
    while time.monotonic() < end:
        for client in clients:
            if kind == "slow":
                offer(client, request[:1])
            elif kind == "headers":
                offer(client, b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20))
            else:
                offer(client, os.urandom(512))
        request = request[1:] or b"\r"
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
