# SPDX-License-Identifier: Apache-2.0
"""Figures of a process from the kernel, and a running daemon to measure."""

import contextlib
import math
import os
import re
import selectors
import socket
import subprocess
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"
"""Debian's Python, which the package uses."""
_START_SECONDS = 30.0


def cpu_ns(pid: int) -> int:
    """CPU time of all present and past threads of the process."""
    # The kernel's clock of another process (clock_getcpuclockid(3)).
    return time.clock_gettime_ns((~pid << 3) | 2)


def wake_ups(pid: int) -> int:
    """Number of voluntary context switches of all present threads."""
    statuses = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(status_number(status.read_text(), "voluntary_ctxt_switches") for status in statuses)


def resident_mebibytes(pid: int) -> float:
    return status_number(Path(f"/proc/{pid}/status").read_text(), "VmRSS") / 1024


def status_number(text: str, name: str) -> int:
    """Resident memory, from proc_pid_status(5)."""
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    if not match:
        raise ValueError(f"the kernel does not tell {name}")
    return int(match[1])


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that this percentage of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


@dataclass(frozen=True)
class Running:
    """A daemon on the virtual HAT. Times are seconds after the moment before its exec."""

    pid: int
    port: int
    """Descriptor to read its telegrams from."""
    url: str
    ready_seconds: float
    first_telegram_seconds: float


@contextlib.contextmanager
def running(
    folder: Path, scenario: str, settings: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A daemon that is ready and has sent a telegram."""
    (folder / "csp1d.toml").write_text(
        '[http]\nlisten = "127.0.0.1:0"\n[log]\nlevel = "error"\n' + settings
    )
    (folder / "scenario.toml").write_text(scenario)
    with contextlib.ExitStack() as stack:
        address = folder / "notify"
        address.unlink(missing_ok=True)
        notified = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notified.bind(str(address))
        notified.settimeout(_START_SECONDS)
        start = time.monotonic()
        process = stack.enter_context(
            subprocess.Popen(
                [
                    *(PYTHON, "-m", "csp1d", "--config", str(folder / "csp1d.toml")),
                    *("--simulate", str(folder / "scenario.toml")),
                ],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **(environment or {}), "NOTIFY_SOCKET": str(address)},
            )
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        told = [process.stdout.readline().partition(": ")[2].strip() for _ in range(2)]
        port = open_port(told[0])
        stack.callback(os.close, port)
        while not notified.recv(4096).startswith(b"READY=1"):
            pass
        ready = time.monotonic() - start
        await_telegram(port)
        yield Running(process.pid, port, told[1], ready, time.monotonic() - start)


def open_port(path: str) -> int:
    """The consumer's end of the virtual HAT's port."""
    if not path:
        raise SystemExit("csp1d did not start; its own words stand above")
    port = os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    tty.setraw(port)
    return port


def await_telegram(port: int) -> None:
    """Wait until the first byte of a telegram can be read, then discard it."""
    with selectors.DefaultSelector() as selector:
        selector.register(port, selectors.EVENT_READ)
        if not selector.select(_START_SECONDS):
            raise SystemExit(f"csp1d sent no telegram within {_START_SECONDS:g} s")
    drain(port)


def drain(port: int) -> int:
    """Read all available bytes; the number of telegrams that ended in them."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while part := os.read(port, 65536):
            # This character occurs only at the end of a telegram.
            count += part.count(b"!")
    return count
