# SPDX-License-Identifier: Apache-2.0
"""A fleet on one machine: Debian's Prometheus and simulated devices, with the files of monitoring/.

Each device is a `csp1d --simulate` of its own, with a reader on its P1 port, and with TLS that
requires a client certificate. First all devices are healthy, and no alert may fire. Then some ADCs
stall and some houses exceed their main fuse: these have to alert, and no others. Then all recover.
Exits with 1 if anything differs.
"""

import argparse
import contextlib
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "fleet.md"
_BETWEEN = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)

QUIET_SECONDS = 120
"""Duration of the healthy phase, after the last device has started."""
FAULT_SECONDS = 210
"""Long enough for Csp1dAboveMainFuse, which waits two minutes."""
RECOVERY_SECONDS = 90
AT_ONCE = 8
"""Devices started together."""
FUSES = (25, 16, 35, 63)
"""main_fuse_amperes of the devices, in turn."""
NOT_MEASURING, ABOVE_FUSE = "Csp1dNotMeasuring", "Csp1dAboveMainFuse"
EMPTY_PANELS = {"Active current", "Down", "Failed inputs", "Rejected reloads"}
"""Empty panels of the dashboard: none here has a [direction], is down or misconfigured."""

Alert = tuple[str, str]
"""The name of the alert and of the device."""


@dataclass
class Device:
    name: str
    process: subprocess.Popen[str]
    port: str = ""
    address: str = ""


def scenario(number: int, fuse_amperes: int, fault: str) -> str:
    """Currents below 90 % of every fuse, a charge point that polls, and then the fault."""

    def step(at_seconds: int, l1: float, more: str = "") -> str:
        l2, l3 = 1.5 + number * 5 % 12, number * 7 % 12
        amperes = f"{{ L1 = {l1}, L2 = {l2}, L3 = {l3} }}"
        return f"[[step]]\nat_seconds = {at_seconds}\namperes = {amperes}\n{more}\n"

    healthy, end_seconds = 1.0 + number % 12, QUIET_SECONDS + FAULT_SECONDS
    above = 1.2 * fuse_amperes if fault == ABOVE_FUSE else healthy
    stall = f"stall_seconds = {FAULT_SECONDS}" if fault == NOT_MEASURING else ""
    return (
        step(0, healthy, 'request = "poll"')
        + step(QUIET_SECONDS, above, stall)
        + step(end_seconds, healthy)
    )


def make_certificates(folder: Path) -> None:
    """Make a CA, a certificate for the devices and one for Prometheus, as in docs/fleet.md."""
    folder.mkdir()
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 60"
    signed = f"{new} -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE"
    for command in (
        f"{new} -subj /CN=fleet -keyout ca.key -out ca.pem",
        f"{signed} -subj /CN=device -addext subjectAltName=IP:127.0.0.1"
        " -addext extendedKeyUsage=serverAuth -keyout device.key -out device.pem",
        f"{signed} -subj /CN=prometheus -addext extendedKeyUsage=clientAuth"
        " -keyout prometheus.key -out prometheus.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


class Fleet:
    """The devices, and a reader on the P1 port of each."""

    def __init__(self, folder: Path) -> None:
        self.devices: list[Device] = []
        self.telegrams = 0
        self._folder = folder
        self._stop = False
        self._selector = selectors.DefaultSelector()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        tls = folder / "tls"
        self._config = (
            '[http]\nlisten = "127.0.0.1:0"\n'
            f'tls_certificate = "{tls}/device.pem"\ntls_key = "{tls}/device.key"\n'
            f'tls_client_ca = "{tls}/ca.pem"\n[log]\nlevel = "error"\n'
        )

    def start(self, faults: list[str]) -> None:
        """Start one device per entry; "" is a device that stays healthy."""
        for first in range(0, len(faults), AT_ONCE):
            group = [self._start_one(fault) for fault in faults[first : first + AT_ONCE]]
            for device in group:
                self._await(device)

    def _start_one(self, fault: str) -> Device:
        number = len(self.devices)
        name, fuse_amperes = f"house-{number + 1:03}", FUSES[number % len(FUSES)]
        played = self._folder / f"{number}.toml"
        played.write_text(scenario(number, fuse_amperes, fault))
        config = self._folder / f"{name}.toml"
        site = f'[site]\nname = "{name}"\nmain_fuse_amperes = {fuse_amperes}\n'
        config.write_text(self._config + site)
        # The devices end with this process, however it ends.
        command = (
            "setpriv --pdeathsig TERM"
            f" /usr/bin/python3 -m csp1d --config {config} --simulate {played}"
        )
        # One thread per device, as on a board with one core: there are many devices here.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command.split(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            # Linux shares the CPU among sessions; a common one would get a single share.
            start_new_session=True,
        )
        device = Device(name, process)
        self.devices.append(device)
        return device

    def _await(self, device: Device) -> None:
        assert device.process.stdout is not None
        lines = [device.process.stdout.readline() for _ in range(2)]
        device.port, url = (line.partition(": ")[2].strip() for line in lines)
        if not url.startswith("https://"):
            raise SystemExit(f"{device.name} did not start; see its messages above")
        device.address = url.removeprefix("https://").rstrip("/")
        consumer = os.open(device.port, os.O_RDONLY | os.O_NOCTTY)
        tty.setraw(consumer)
        self._selector.register(consumer, selectors.EVENT_READ)

    def _read(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select(1):
                # This character occurs only at the end of a telegram.
                self.telegrams += os.read(key.fd, 65536).count(b"!")

    def targets(self) -> str:
        """The devices as csp1d.targets.yml lists them; JSON is YAML."""
        return json.dumps(
            [
                {"targets": [device.address], "labels": {"instance": device.name}}
                for device in self.devices
            ]
        )

    def stop(self) -> list[str]:
        """Stop all devices. Returns a problem for each that failed."""
        self._stop = True
        self._reader.join()
        for device in self.devices:
            device.process.terminate()
        ended = [(device.name, device.process.wait(60)) for device in self.devices]
        return [f"{name} ended with {code}" for name, code in ended if code]


class Prometheus:
    """Debian's Prometheus on loopback, configured by a copy of monitoring/."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        command = [
            # tools/environment installs it beside the Python.
            str(Path(sys.executable).with_name("prometheus")),
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        self.process = subprocess.Popen(command, cwd=folder)

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as reply:
            return json.load(reply)["data"]

    def query(self, expression: str) -> list[Any]:
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def number(self, expression: str) -> float:
        """The single value of an expression; 0 if it has none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def alerts(self, state: str) -> set[Alert]:
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in self.get("alerts")["alerts"]
            if alert["state"] == state
        }

    def await_all_up(self, count: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.number('sum(up{job="csp1d"})') == count:
                    return
            time.sleep(1)
        raise SystemExit(f"not all of {count} devices were up within {seconds} s")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def dashboard_queries(instance: str) -> Iterator[tuple[str, str]]:
    """Panel and expression of each query of the dashboard, as Grafana would send it."""
    dashboard = json.loads((ROOT / "monitoring" / "csp1d-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$instance", instance)
            yield panel["title"], expression.replace("$__rate_interval", "1m")


def cpu_seconds(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mebibytes(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> float:
    """Proportional set size: shared memory is divided among its users."""
    found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{process.pid}/smaps_rollup").read_text(), re.M)
    return int(found[1]) / 1024 if found else 0.0


class Run:
    """One run, with its figures and problems."""

    def __init__(self, count: int, folder: Path) -> None:
        broken = max(1, count // 40)
        self._faults = [NOT_MEASURING] * broken + [ABOVE_FUSE] * broken
        self._healthy = [""] * (count - len(self._faults))
        self._folder = folder
        self._rows: list[tuple[str, str]] = []
        self.problems: list[str] = []

    def play(self) -> str:
        """Run all phases. Returns the table of figures."""
        shutil.copytree(ROOT / "monitoring", self._folder, dirs_exist_ok=True)
        make_certificates(self._folder / "tls")
        with contextlib.ExitStack() as stack:
            fleet = Fleet(self._folder)
            stack.callback(lambda: self.problems.extend(fleet.stop()))
            self._say(f"starting {len(self._healthy)} devices")
            fleet.start(self._healthy)
            # Last: the time of their faults counts from their start.
            fleet.start(self._faults)
            started = time.monotonic()
            (self._folder / "csp1d.targets.yml").write_text(fleet.targets())
            prometheus = Prometheus(self._folder)
            stack.callback(prometheus.stop)
            prometheus.await_all_up(len(fleet.devices), QUIET_SECONDS / 2)
            up_at = time.monotonic()
            processes = [device.process for device in fleet.devices]
            cpu_before = sum(map(cpu_seconds, processes)), cpu_seconds(prometheus.process)
            self._row("devices, all up", str(len(fleet.devices)))
            self._row("all scraped after", f"{up_at - started:.0f} s")

            self._sleep_until(started + QUIET_SECONDS - 5)
            self._expect("alerts firing while all are healthy", prometheus.alerts("firing"), set())
            self._row(
                "alerts pending while all are healthy", str(len(prometheus.alerts("pending")))
            )
            cpu = sum(map(cpu_seconds, processes)), cpu_seconds(prometheus.process)
            seconds = time.monotonic() - up_at
            per_device = (cpu[0] - cpu_before[0]) / seconds / len(processes)
            memory = sum(map(memory_mebibytes, processes)) / len(processes)
            self._row("CPU per device, with simulation", f"{1000 * per_device:.1f} ms per second")
            self._row("memory per device (PSS)", f"{memory:.0f} MiB")
            self._row(
                "CPU of Prometheus",
                f"{1000 * (cpu[1] - cpu_before[1]) / seconds:.0f} ms per second",
            )
            self._row(
                "memory of Prometheus (PSS)", f"{memory_mebibytes(prometheus.process):.0f} MiB"
            )

            self._say(f"breaking {len(self._faults)} devices")
            fault_at = started + QUIET_SECONDS
            names = [device.name for device in fleet.devices[len(self._healthy) :]]
            expected = set(zip(self._faults, names, strict=True))
            fired = self._watch(prometheus, fault_at, fault_at + FAULT_SECONDS - 5)
            for alert in (NOT_MEASURING, ABOVE_FUSE):
                waits = [seconds for (name, _), seconds in fired.items() if name == alert]
                self._row(
                    f"`{alert}` fires after",
                    f"{min(waits, default=0):.0f} to {max(waits, default=0):.0f} s",
                )
            self._expect("alerts firing while some are faulty", set(fired), expected)
            self._dashboard(prometheus, names[-1])

            self._say("all devices recover")
            end = fault_at + FAULT_SECONDS + RECOVERY_SECONDS
            while (firing := prometheus.alerts("firing")) and time.monotonic() < end:
                time.sleep(2)
            self._row(
                "no alert firing, after the end of the faults",
                f"{time.monotonic() - fault_at - FAULT_SECONDS:.0f} s",
            )
            self._expect("alerts firing at the end", firing, set())
            self._figures(prometheus, fleet, time.monotonic() - up_at)
        return "| | |\n|---|---|\n" + "".join(
            f"| {name} | {value} |\n" for name, value in self._rows
        )

    def _watch(self, prometheus: Prometheus, begin: float, end: float) -> dict[Alert, float]:
        """Alerts that fire until `end`, with the seconds from `begin`."""
        fired: dict[Alert, float] = {}
        while time.monotonic() < end:
            for alert in prometheus.alerts("firing") - set(fired):
                fired[alert] = time.monotonic() - begin
            time.sleep(2)
        return fired

    def _dashboard(self, prometheus: Prometheus, instance: str) -> None:
        queries = list(dashboard_queries(instance))
        empty = {panel for panel, expression in queries if not prometheus.query(expression)}
        self._row("dashboard queries", f"{len(queries)}, all answered")
        self._expect("dashboard panels without data", empty, EMPTY_PANELS)

    def _figures(self, prometheus: Prometheus, fleet: Fleet, seconds: float) -> None:
        window = f"[{seconds:.0f}s]"
        up = prometheus.number(f'min(min_over_time(up{{job="csp1d"}}{window}))')
        self._expect("failed scrapes", set() if up == 1 else {"some"}, set())
        groups = prometheus.get("rules")["groups"]
        bad = {
            rule["name"] for group in groups for rule in group["rules"] if rule["health"] != "ok"
        }
        self._row("rules", str(sum(len(group["rules"]) for group in groups)))
        self._expect("rules with errors", bad, set())
        evaluation = sum(group["evaluationTime"] for group in groups)
        self._row("evaluation of all rules", f"{1000 * evaluation:.0f} ms every 15 s")
        series = prometheus.number('sum(scrape_samples_scraped{job="csp1d"})')
        self._row("time series of all devices", f"{series:.0f}")
        for name, function in (("mean", "avg"), ("longest", "max")):
            duration = prometheus.number(
                f'{function}({function}_over_time(scrape_duration_seconds{{job="csp1d"}}{window}))'
            )
            self._row(f"scrape with TLS handshake, {name}", f"{1000 * duration:.0f} ms")
        healthy = f'instance!~"{"|".join(d.name for d in fleet.devices[len(self._healthy) :])}"'
        lost = prometheus.number(f"sum(csp1d_scans_lost_total{{{healthy}}})")
        self._row("scans lost by healthy devices", f"{lost:.0f}")
        readings = prometheus.number(f"min(rate(csp1d_readings_total{{{healthy}}}{window}))")
        self._row("readings of a healthy device, minimum", f"{readings:.3f} per second")
        for kind in ("sent", "aborted", "dropped"):
            total = prometheus.number(f"sum(increase(csp1d_telegrams_{kind}_total{window}))")
            self._row(f"telegrams {kind} while all were up", f"{total:.0f}")
        self._row("telegrams received by the P1 readers, with start", str(fleet.telegrams))
        latency = prometheus.number(
            "histogram_quantile(0.99, sum by (le) "
            f"(rate(csp1d_telegram_latency_seconds_bucket{window})))"
        )
        self._row("latency of telegrams, 99th percentile", f"{1000 * latency:.0f} ms")

    def _expect(self, name: str, found: set[Any], expected: set[Any]) -> None:
        if found == expected:
            self._row(name, f"{len(found)}, as expected" if expected else "none")
            return
        self._row(name, f"**{len(found)}, expected {len(expected)}**")
        self.problems += [f"{name}: {item} not expected" for item in sorted(found - expected)]
        self.problems += [f"{name}: {item} missing" for item in sorted(expected - found)]

    def _row(self, name: str, value: str) -> None:
        self._rows.append((name, value))
        print(f"  {name}: {value}", flush=True)

    @staticmethod
    def _say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    @staticmethod
    def _sleep_until(end: float) -> None:
        time.sleep(max(0.0, end - time.monotonic()))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/fleet",
        description="Run a simulated fleet under Prometheus and break some of it.",
    )
    parser.add_argument(
        "--devices", type=int, default=200, help="number of devices, at least 3 (default 200)"
    )
    parser.add_argument("--write", action="store_true", help=f"write the figures to {PAGE.name}")
    arguments = parser.parse_args()
    # SIGTERM must end the devices, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(max(3, arguments.devices), Path(folder))
        figures = run.play()
    for problem in run.problems:
        print(f"tools/fleet: {problem}", file=sys.stderr)
    if arguments.write and not run.problems:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(_BETWEEN.sub(lambda _: figures, page), encoding="utf-8")
    print("Failed." if run.problems else "OK.")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
