# SPDX-License-Identifier: Apache-2.0
"""What the daemon costs and how fast it answers, on the virtual HAT in user space."""

import contextlib
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tty
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CURRENTS = "L1=24,L2=10.5,L3=3"
SCRAPE_SECONDS = 15
WARM_UP_SECONDS = 5
SECOND_NS = 1_000_000_000


@dataclass
class Costs:
    """Of a daemon that is asked for telegrams and scraped."""

    cpu_ms_a_second: float
    wakeups_a_second: float
    rss_mib: float
    scrape_ms: float
    """Median, as a client sees it."""
    scrape_cpu_ms: float


@dataclass
class Start:
    """Seconds from exec."""

    ready: float
    telegram: float


@dataclass
class Latencies:
    """Milliseconds to the first byte at the reader."""

    after_reading: list[float] = field(default_factory=list)
    """From when a window had ended."""
    after_request: list[float] = field(default_factory=list)
    synthesis_ms_a_second: float = 0.0


@contextlib.contextmanager
def configuration() -> Iterator[tuple[Path, str]]:
    """A file, and the address that it has metrics at."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        probe.close()
        file = Path(folder, "csp1d.toml")
        file.write_text(f'[http]\nlisten = "{address}"\n')
        yield file, f"http://{address}/metrics"


class Consumer:
    """Reads a P1 port; notes when each telegram began."""

    def __init__(self, path: str) -> None:
        self.begins_ns: list[int] = []
        self._fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        tty.setraw(self._fd)
        self._done, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        os.write(self._stop, b"x")
        self._thread.join()
        for fd in (self._fd, self._done, self._stop):
            os.close(fd)

    def _run(self) -> None:
        while self._done not in select.select([self._fd, self._done], [], [])[0]:
            data, now_ns = os.read(self._fd, 4096), time.monotonic_ns()
            if data.startswith(b"/"):
                self.begins_ns.append(now_ns)


def start_times(rounds: int = 5) -> Start:
    """Medians."""
    ready, telegram = [], []
    for _ in range(rounds):
        with configuration() as (file, _), tempfile.TemporaryDirectory() as folder:
            address = f"{folder}/notify"
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.bind(address)
                begin = time.monotonic()
                process = _daemon(file, NOTIFY_SOCKET=address)
                while b"READY=1" not in manager.recv(4096):
                    pass
                ready.append(time.monotonic() - begin)
                consumer = Consumer(_port(process))
                while not consumer.begins_ns:
                    time.sleep(0.001)
                telegram.append(consumer.begins_ns[0] / SECOND_NS - begin)
                _end(process)
                consumer.close()
    return Start(statistics.median(ready), statistics.median(telegram))


def costs(seconds: int) -> Costs:
    """Over so many seconds of telegrams and scrapes, and of a hundred scrapes in a row."""
    with configuration() as (file, url):
        process = _daemon(file)
        consumer = Consumer(_port(process))
        time.sleep(WARM_UP_SECONDS)
        cpu, sleeps, begin = _cpu_ms(process.pid), _sleeps(process.pid), time.monotonic()
        scraped = begin
        while time.monotonic() < begin + seconds:
            if time.monotonic() >= scraped + SCRAPE_SECONDS:
                scraped += SCRAPE_SECONDS
                _scrape(url)
            time.sleep(0.05)
        passed = time.monotonic() - begin
        cpu, sleeps = _cpu_ms(process.pid) - cpu, _sleeps(process.pid) - sleeps
        rss = _status(process.pid, "VmRSS") / 1024
        before, begin = _cpu_ms(process.pid), time.monotonic()
        times = [_scrape(url) for _ in range(100)]
        lasted = time.monotonic() - begin
        spent = _cpu_ms(process.pid) - before - lasted * cpu / passed
        _end(process)
        consumer.close()
        return Costs(
            cpu_ms_a_second=cpu / passed,
            wakeups_a_second=sleeps / passed,
            rss_mib=rss,
            scrape_ms=statistics.median(times) * 1000,
            scrape_cpu_ms=spent / len(times),
        )


def latencies(seconds: int) -> Latencies:
    """Of so many seconds with the line high, and as many with a line that asks."""
    found = Latencies()
    for mode in ("high", "asked"):
        with configuration() as (file, _):
            process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("bench_hat.py"), mode, file],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            assert process.stdout
            path = process.stdout.readline().split()[1]
            consumer = Consumer(path)
            begin = time.monotonic()
            timer = threading.Timer(seconds, process.send_signal, [signal.SIGTERM])
            timer.start()
            told: dict[str, list[int]] = {}
            for line in process.stdout:
                what, value = line.split()
                told.setdefault(what, []).append(int(value))
            passed = time.monotonic() - begin
            process.wait()
            consumer.close()
        if mode == "high":
            found.after_reading = _until_next(told["read"], consumer.begins_ns)
            found.synthesis_ms_a_second = told["made"][0] / 1e6 / passed
        else:
            found.after_request = _until_next(told["rise"], consumer.begins_ns)
    return found


def quantile(values: list[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _until_next(causes_ns: list[int], begins_ns: list[int]) -> list[float]:
    """Milliseconds from each cause to the first telegram after it, the first few left out."""
    found = []
    for cause_ns in causes_ns[3:]:
        after = [begin_ns for begin_ns in begins_ns if begin_ns >= cause_ns]
        if after:
            found.append((after[0] - cause_ns) / 1e6)
    return found


def _daemon(file: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "csp1d", "--config", file, "--simulate", CURRENTS],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def _port(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().removeprefix("P1 port:").strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()


def _scrape(url: str) -> float:
    begin = time.monotonic()
    with urllib.request.urlopen(url, timeout=10) as answer:
        answer.read()
    return time.monotonic() - begin


def _cpu_ms(pid: int) -> float:
    """Of all its threads, also those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


def _sleeps(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(_status(f"{pid}/task/{task.name}", "voluntary_ctxt_switches") for task in tasks)


def _status(process: int | str, name: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise ValueError(f"/proc/{process}/status has no {name}")
