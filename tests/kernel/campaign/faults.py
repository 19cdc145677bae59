# SPDX-License-Identifier: Apache-2.0
"""The faults. Each function injects one and returns when it has ended.

A table lists the permitted effects: which faults may cost telegrams, for how long after their end,
and which may cost none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

from guest.board import SECOND, sleep_until
from guest.hat import TTY
from installed.service import run

from .bench import Bench, nice
from .judge import Fault

RESTART_SECONDS = 15
"""Maximum start time of Python and NumPy on this slow processor."""
PRESSURE = Path("/run/campaign")
JOURNAL = "/run/systemd/journal/socket"
SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h
CLIENTS = Path(__file__).with_name("clients.py")


def _stall(bench: Bench) -> None:
    seconds = bench.random.uniform(0.3, 3)
    bench.feeder.stall(seconds)
    time.sleep(seconds)


def _small_gap(bench: Bench) -> None:
    bench.feeder.hole(bench.random.randint(1, 190))
    time.sleep(0.1)


def _large_gap(bench: Bench) -> None:
    scans = bench.random.randint(210, 1100)
    bench.feeder.hole(scans)
    time.sleep(scans / 4000)


def _unplug(bench: Bench) -> None:
    bench.hat.adc.unplug()
    bench.sleep(0.1, 3)
    bench.hat.adc.plug()


def _renumber(bench: Bench) -> None:
    with open(f"/sys/bus/iio/devices/{bench.hat.adc.node.name}/name"):
        bench.hat.adc.unplug()
        bench.hat.adc.plug()  # At once: the daemon still has the old one open.


def _trigger_lost(bench: Bench) -> None:
    """No scans, and the kernel refuses to enable the buffer."""
    seconds = bench.random.uniform(5.5, 7)
    bench.feeder.stall(seconds)
    bench.hat.adc.fail(errno.EINVAL)
    time.sleep(seconds)
    bench.hat.adc.fail(0)


def _attributes_fail(bench: Bench) -> None:
    bench.hat.adc.fail(errno.EIO)
    bench.hat.adc.unplug()
    bench.hat.adc.plug()
    bench.sleep(1, 4)
    bench.hat.adc.fail(0)


def _stopped(bench: Bench, shortest_seconds: float, longest_seconds: float) -> None:
    bench.signal(signal.SIGSTOP)
    bench.sleep(shortest_seconds, longest_seconds)
    bench.signal(signal.SIGCONT)


def _stopped_shortly(bench: Bench) -> None:
    _stopped(bench, 0.2, 3.5)


def _overflow(bench: Bench) -> None:
    _stopped(bench, 4.8, 6.5)  # The buffer holds 4.1 s; the watchdog barks after 10.


def _adc_permission_lost(bench: Bench) -> None:
    """csp1d notices when it initialises the ADC again, after 5 s of silence."""
    node, enable = bench.hat.adc.node, bench.hat.adc.device / "buffer/enable"
    path, mode = bench.random.choice([(node, 0o660), (enable, 0o664)])
    seconds = bench.random.uniform(6, 7)
    path.chmod(mode & ~0o060)
    bench.feeder.stall(seconds)
    time.sleep(seconds)
    path.chmod(mode)


def _tty_permission_lost(bench: Bench) -> None:
    Path(TTY).chmod(0o600)
    _hang_up(bench)
    bench.sleep(0.5, 3)
    Path(TTY).chmod(0o660)


def _hang_up(bench: Bench) -> None:
    # Exclusive use does not exclude root.
    fd = os.open(TTY, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, TIOCVHANGUP)
    finally:
        os.close(fd)


TIOCVHANGUP = getattr(termios, "TIOCVHANGUP", 0x5437)


def _tty_gone(bench: Bench) -> None:
    bench.hat.tty.unplug()
    bench.sleep(0.1, 3)
    bench.hat.tty.plug()


def _stuck(bench: Bench) -> None:
    bench.hat.tty.stuck = True
    bench.sleep(0.2, 4)
    bench.hat.tty.stuck = False


def _cannot_flush(bench: Bench) -> None:
    """A USB adapter: the rest of a telegram leaves although the request has fallen."""
    bench.hat.tty.adapter = True
    for _ in range(2):
        _fall_in_telegram(bench, 0.01, 0.9)
    bench.wait_for_start(time.monotonic_ns(), 3)
    time.sleep(0.1)
    bench.hat.tty.adapter = False


def _adapter_stuck(bench: Bench) -> None:
    bench.hat.tty.adapter = True
    _stuck(bench)
    time.sleep(0.1)
    bench.hat.tty.adapter = False


def _chatter(bench: Bench) -> None:
    half_period_us = bench.random.choice([300, 1000, 5000, 20_000, 100_000])
    seconds = bench.random.uniform(1, 3)
    bench.hat.line.storm(half_period_us, int(seconds * 1e6 / half_period_us))
    bench.hat.line.set(True)


def _fall_in_mid_telegram(bench: Bench) -> None:
    _fall_in_telegram(bench, 0.05, 2.5)


def _fall_in_telegram(bench: Bench, shortest_seconds: float, longest_seconds: float) -> None:
    last_ns = bench.wait_for_start(time.monotonic_ns(), 3) or time.monotonic_ns()
    # The next telegram begins one second later, plus or minus one mains cycle, and takes 66 ms.
    sleep_until(last_ns + SECOND + round(bench.random.uniform(0, 0.08) * SECOND))
    bench.hat.line.set(False)
    bench.sleep(shortest_seconds, longest_seconds)
    bench.hat.line.set(True)


def _asked_while_stalled(bench: Bench) -> None:
    """The waiting reading is stale when the request rises."""
    bench.hat.line.set(False)
    bench.sleep(1, 2)
    seconds = bench.random.uniform(1.5, 3)
    bench.feeder.stall(seconds)
    asked_seconds = bench.random.uniform(0.9, seconds)
    time.sleep(asked_seconds)
    bench.hat.line.set(True)
    time.sleep(seconds - asked_seconds)


def _leds_gone(bench: Bench) -> None:
    bench.hat.leds.unplug()
    bench.sleep(0.1, 3)
    bench.hat.leds.plug()


def _gpio_gone(bench: Bench) -> None:
    bench.hat.line.unplug()
    bench.sleep(1, 4)
    bench.hat.line.plug()


def _killed(bench: Bench) -> int:
    """Lasts until systemd has started another process and that is ready."""
    before, killed_ns = bench.pid, time.monotonic_ns()
    bench.signal(signal.SIGKILL)
    while True:
        # Rarely, since each query takes processor time that the start needs.
        time.sleep(1)
        state, pid, since_us = bench.state()
        if state == "active" and pid != before:
            break
        if time.monotonic_ns() - killed_ns > RESTART_SECONDS * SECOND:
            bench.record.problem(f"killed, not ready within {RESTART_SECONDS} s")
            break
    bench.pid = pid
    return since_us * 1000


def _clock_stepped(bench: Bench) -> None:
    hours = bench.random.choice([-1, 1]) * bench.random.uniform(1, 20)
    for step in (hours, -hours):
        time.clock_settime(time.CLOCK_REALTIME, time.time() + 3600 * step)
        bench.sleep(0.5, 1.5)


def _fill(file: Path, size: int) -> None:
    """Occupy this many bytes of the file system, or all that is free; in memory, at once."""
    while size > 1 << 16 and nice("fallocate", "--length", str(size), str(file)).wait():
        size = size * 9 // 10


def _available_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if "MemAvailable" in line) * 1024


def take_most_memory() -> None:
    """Once, since that takes seconds here."""
    if PRESSURE.is_mount():
        return
    PRESSURE.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=99%", "tmpfs", PRESSURE], check=True)
    _fill(PRESSURE / "ballast", _available_bytes() - (200 << 20))


def _memory_short(bench: Bench) -> None:
    file = PRESSURE / "memory"
    try:
        _fill(file, _available_bytes() - (40 << 20))
        bench.sleep(1, 2)
    finally:
        file.unlink(missing_ok=True)


def _disks_full(bench: Bench) -> None:
    """Fills the journal's disk and all others while csp1d has something to log."""
    files = [Path("/run/full"), Path("/var/full")]
    try:
        for file in files:
            free = os.statvfs(file.parent)
            _fill(file, free.f_bavail * free.f_frsize)
        bench.signal(signal.SIGHUP)
        bench.sleep(1, 2)
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _journal_deaf(bench: Bench) -> None:
    """The journal reads nothing and its queue is full, while csp1d has something to log."""
    journald = int(run("systemctl", "show", "--value", "--property=MainPID", "systemd-journald"))
    os.kill(journald, signal.SIGSTOP)
    try:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as journal,
            contextlib.suppress(BlockingIOError),
        ):
            # Fill the journal's queue, not the buffer of this socket.
            journal.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
            journal.connect(JOURNAL)
            while True:
                journal.send(b"\n")  # An entry without fields, which is not kept.
        bench.signal(signal.SIGHUP)
        bench.sleep(1, 3)
    finally:
        os.kill(journald, signal.SIGCONT)


def _processor_busy(bench: Bench) -> None:
    hogs = [nice("perl", "-e", "1 while 1") for _ in range(4)]
    bench.sleep(1.5, 3)
    for hog in hogs:
        hog.kill()
        hog.wait()


def _clients(kind: str) -> Callable[[Bench], None]:
    def act(bench: Bench) -> None:
        client = nice(sys.executable, "-E", "-S", str(CLIENTS), kind, "1.5")
        client.wait()

    return act


@dataclasses.dataclass(frozen=True)
class Kind:
    """Permitted effects of a fault, as in `judge.Fault`. `act` may return its real end."""

    name: str
    act: Callable[[Bench], int | None]
    silences: bool = True
    mute_seconds: float | None = None
    since: tuple[int, int] = (0, 0)
    """The first Linux release on which the fault can be injected."""

    def make(self, bench: Bench) -> Fault:
        """Inject the fault."""
        begin_ns = time.monotonic_ns()
        end_ns = self.act(bench) or time.monotonic_ns()
        return Fault(self.name, begin_ns, end_ns, self.silences, mute_seconds=self.mute_seconds)


KINDS = (
    Kind("ADC stalls", _stall),
    Kind("ADC loses up to 5 %", _small_gap, silences=False),
    Kind("ADC loses more", _large_gap),
    Kind("ADC unplugged", _unplug),
    Kind("ADC back as another", _renumber),
    Kind("trigger lost", _trigger_lost),
    Kind("attributes fail", _attributes_fail),
    Kind("ADC's permission lost", _adc_permission_lost),
    Kind("stopped, buffer holds", _stopped_shortly),
    Kind("stopped, buffer overflows", _overflow),
    Kind("killed", _killed),
    Kind("request while stalled", _asked_while_stalled),
    Kind("request chatters", _chatter),
    Kind("request falls in telegram", _fall_in_mid_telegram, silences=False),
    Kind("request line gone", _gpio_gone, mute_seconds=1.5, since=(6, 9)),
    Kind("port hung up", _hang_up),
    Kind("port gone", _tty_gone),
    Kind("port's permission lost", _tty_permission_lost),
    Kind("port accepts nothing", _stuck),
    Kind("port cannot flush", _cannot_flush, silences=False),
    Kind("port cannot flush, accepts nothing", _adapter_stuck),
    Kind("LEDs gone", _leds_gone, silences=False),
    Kind("clock stepped by hours", _clock_stepped, silences=False),
    Kind("memory short", _memory_short, silences=False),
    Kind("processor busy", _processor_busy, silences=False),
    Kind("disks and journal full", _disks_full, silences=False),
    Kind("journal stopped", _journal_deaf, silences=False),
    *(
        Kind(f"HTTP: {name}", _clients(name), silences=False)
        for name in ("slow", "half", "headers", "garbage", "scrapes")
    ),
)
