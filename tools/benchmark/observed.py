# SPDX-License-Identifier: Apache-2.0
"""A daemon on the virtual HAT that reports the times of each telegram; its line is a socket.

Takes the descriptors of both: a received byte "1" or "0" is an edge of the request line, as the
kernel would report it; for each telegram it writes a REPORT once the port has accepted it.
"""

import contextlib
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

from csp1d.config import Config
from csp1d.config_file import load
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedAdc, SimulatedHat, SimulatedLine, SimulatedPort
from csp1d.interfaces import journal
from csp1d.loop.daemon import Daemon
from csp1d.loop.sampler import Sampler
from csp1d.measuring.reading import Reading

REPORT = struct.Struct("<qqq")
"""The time at which the port had accepted the telegram, the end of its reading, and the time to
generate its scans. Nanoseconds, the first two of CLOCK_MONOTONIC."""


class SocketLine:
    """See `RequestLine`."""

    poll_ns: int | None = None

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._line.setblocking(False)
        self._high = False

    def fileno(self) -> int:
        return self._line.fileno()

    def read_level(self) -> tuple[int, bool]:
        edges = b""
        with contextlib.suppress(BlockingIOError):
            edges = self._line.recv(4096)
        if edges:
            self._high = edges.endswith(b"1")
        return len(edges), self._high

    def close(self) -> None:
        """Stays open, like the line of the virtual HAT."""


class TimedAdc(SimulatedAdc):
    took_ns = 0
    """Duration of the last read, which generates the scans."""

    def read(self) -> bytes:
        start_ns = time.monotonic_ns()
        scans = super().read()
        self.took_ns = time.monotonic_ns() - start_ns
        return scans


class ObservedPort(SimulatedPort):
    def __init__(self, line: SimulatedLine) -> None:
        super().__init__(line)
        self.written: Callable[[], None] | None = None

    def write(self, data: bytes) -> int:
        count = super().write(data)
        if self.written and data.startswith(b"/"):
            self.written()
        return count


class ObservedHat(SimulatedHat):
    adc: TimedAdc

    def __init__(self, line: socket.socket) -> None:
        super().__init__(parse(""))
        self.line = SocketLine(line)
        self.port = self._port = ObservedPort(self._line)

    def open_adc(self, config: Config) -> TimedAdc:
        self.adc = TimedAdc(config, self.player)
        return self.adc

    def open_request_line(self, config: Config) -> SocketLine:  # type: ignore[override]
        return self.line


class ObservedSampler(Sampler):
    end_ns = 0
    """Generation time of the last reading's scans."""

    def poll(self, now_ns: int) -> list[Reading]:
        readings = super().poll(now_ns)
        if readings:
            self.end_ns = readings[-1].end_ns
        return readings


def main() -> None:
    """Run until SIGTERM. Prints where the telegrams can be read."""
    config_path, line, report = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    config = load(config_path)
    journal.set_up(config.log.level)
    hat = ObservedHat(socket.socket(fileno=line))
    daemon = Daemon(hat, config, config_path)
    daemon._sampler = sampler = ObservedSampler(hat, config)

    def written() -> None:
        fields = time.monotonic_ns(), sampler.end_ns, hat.adc.took_ns
        os.write(report, REPORT.pack(*fields))

    hat.port.written = written
    daemon.start()
    print(hat.port_path, flush=True)
    daemon.run()


if __name__ == "__main__":
    main()
