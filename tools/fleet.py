# SPDX-License-Identifier: Apache-2.0
"""A fleet on one machine: Debian's Prometheus, agents and receiver, with the files of monitoring/.

Some devices are a `csp1d --simulate` of their own, with TLS; one server provides their latest pages
under many more names. First all are healthy, and no alert may fire. Then some ADCs stall and some
houses exceed their main fuse: these have to alert, and no others. Then all recover. Exits with 1 if
anything differs.
"""

import argparse
import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import tty
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "fleet.md"

sys.path.append(str(ROOT / "tests"))

from figures import build, write_section  # noqa: E402

QUIET_SECONDS = 120
"""Duration of the healthy phase, after the last device has started."""
FAULT_SECONDS = 210
"""Long enough for Csp1dAboveMainFuse, which waits two minutes."""
RECOVERY_SECONDS = 150
FUSES = (25, 16, 35, 63)
"""main_fuse_amperes of the devices, in turn."""
NOT_MEASURING, ABOVE_FUSE = "Csp1dNotMeasuring", "Csp1dAboveMainFuse"
EMPTY_PANELS = {"Active current", "Down", "Failed inputs", "Rejected reloads"}
"""Empty panels of the dashboard: none here has a [direction], is down or misconfigured."""

FIGURES = """\
time series | sum(scrape_samples_post_metric_relabeling{job="csp1d"})
samples per second | sum(rate(prometheus_agent_samples_appended_total[4m]))
CPU of each agent, ms per second | 1e3 * avg(rate(process_cpu_seconds_total{job="csp1d-agent"}[4m]))
CPU of the receiver, ms per second | 1e3 * rate(process_cpu_seconds_total{job="csp1d-receiver"}[4m])
memory of each agent, MiB | avg(process_resident_memory_bytes{job="csp1d-agent"}) / 2^20
memory of the receiver, MiB | process_resident_memory_bytes{job="csp1d-receiver"} / 2^20
one evaluation of all rules, ms | 1e3 * sum(prometheus_rule_group_last_duration_seconds)
duration of a scrape, mean, ms | 1e3 * avg(scrape_duration_seconds{job="csp1d"})
age of the newest sample on the receiver, maximum, s | max(time() - timestamp(up{job="csp1d"}))
"""
"""Rows of the page, and the query for each."""

Alert = tuple[str, str]
"""The name of the alert and of the device."""


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
    """Make a CA, one for all servers and one for all clients, as in docs/fleet.md."""
    folder.mkdir()
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
    signed = f"{new} -CA ca.pem -CAkey ca.key -addext basicConstraints=critical,CA:FALSE"
    for command in (
        f"{new} -subj /CN=fleet -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem",
        f"{signed} -subj /CN=server -addext subjectAltName=IP:127.0.0.1"
        " -addext extendedKeyUsage=serverAuth -keyout server.key -out server.pem",
        f"{signed} -subj /CN=prometheus -addext extendedKeyUsage=clientAuth"
        " -keyout prometheus.key -out prometheus.pem",
    ):
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


def client_tls(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=folder / "tls/ca.pem")
    context.load_cert_chain(folder / "tls/prometheus.pem", folder / "tls/prometheus.key")
    return context


class Pages(http.server.ThreadingHTTPServer):
    """Serves the latest page of device N % devices as /N."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """At the end of the run the agents vanish; a failed scrape before is found in `up`."""

    request_queue_size = 1024

    def __init__(self, folder: Path, addresses: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), PageHandler)
        self.pages = [b""] * len(addresses)
        self._addresses, self._client = addresses, client_tls(folder)
        for target in (self.serve_forever, self._record):
            threading.Thread(target=target, daemon=True).start()

    def _record(self) -> None:
        while True:
            for number, address in enumerate(self._addresses):
                url = f"https://{address}/metrics"
                # At the end of the run the devices vanish.
                with (
                    contextlib.suppress(OSError),
                    urllib.request.urlopen(url, timeout=10, context=self._client) as reply,
                ):
                    self.pages[number] = reply.read()
            time.sleep(4)


class PageHandler(http.server.BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        body = self.server.pages[int(self.path[1:]) % len(self.server.pages)]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing per request."""


class Device:
    """A `csp1d --simulate`, with a reader on its P1 port."""

    def __init__(self, folder: Path, number: int, fault: str) -> None:
        fuse_amperes = FUSES[number % len(FUSES)]
        played, config, tls = folder / f"{number}.toml", folder / f"config-{number}", folder / "tls"
        played.write_text(scenario(number, fuse_amperes, fault))
        config.write_text(
            f"[site]\nmain_fuse_amperes = {fuse_amperes}\n"
            '[log]\nlevel = "error"\n[http]\nlisten = "127.0.0.1:0"\n'
            f'tls_certificate = "{tls}/server.pem"\ntls_key = "{tls}/server.key"\n'
            f'tls_client_ca = "{tls}/ca.pem"\n'
        )
        # The devices end with this process, however it ends.
        command = (
            "setpriv --pdeathsig TERM"
            f" /usr/bin/python3 -m csp1d --config {config} --simulate {played}"
        )
        self.process = subprocess.Popen(
            command.split(),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            # One thread per device, as on a board with one core: there are many devices here.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            # Linux shares the CPU among sessions; a common one would get a single share.
            start_new_session=True,
        )
        assert self.process.stdout is not None
        port, url = (self.process.stdout.readline().partition(": ")[2].strip() for _ in range(2))
        if not url.startswith("https://"):
            raise SystemExit(f"device {number} did not start; see its messages above")
        self.address = url.removeprefix("https://").rstrip("/")
        consumer = os.open(port, os.O_RDONLY | os.O_NOCTTY)
        tty.setraw(consumer)
        threading.Thread(target=self._drain, args=[consumer], daemon=True).start()

    @staticmethod
    def _drain(consumer: int) -> None:
        # The port vanishes with its device.
        with contextlib.suppress(OSError):
            while os.read(consumer, 65536):
                pass

    def stop(self) -> None:
        self.process.terminate()
        if code := self.process.wait(60):
            raise SystemExit(f"the device at {self.address} ended with {code}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Prometheus:
    """One of Debian's Prometheus on loopback, with a configuration from monitoring/."""

    def __init__(self, folder: Path, config: str, port: int, *arguments: str) -> None:
        self._url = f"https://127.0.0.1:{port}"
        self._context = client_tls(folder)
        command = [
            # tools/environment installs it beside the Python.
            str(Path(sys.executable).with_name("prometheus")),
            f"--config.file={folder / config}",
            f"--web.config.file={folder}/web.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            *arguments,
        ]
        self.process = subprocess.Popen(command, cwd=folder)

    def get(self, path: str, **parameters: str) -> Any:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30, context=self._context) as reply:
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


class Run:
    """One run, with its figures and problems."""

    def __init__(self, count: int, copies: int, folder: Path) -> None:
        broken = max(1, count // 40)
        self._faults = (
            [""] * (count - 2 * broken) + [NOT_MEASURING] * broken + [ABOVE_FUSE] * broken
        )
        self._names = [f"house-{number:04}" for number in range(count * copies)]
        self._folder = folder
        self._rows = [("measured", build())]
        self.problems: list[str] = []

    def play(self) -> str:
        """Run all phases. Returns the table of figures."""
        shutil.copytree(ROOT / "monitoring", self._folder, dirs_exist_ok=True)
        make_certificates(self._folder / "tls")
        with contextlib.ExitStack() as stack:
            self._say(f"starting {len(self._faults)} devices")
            addresses = []
            for number, fault in enumerate(self._faults):
                device = Device(self._folder, number, fault)
                stack.callback(device.stop)
                addresses.append(device.address)
            started = time.monotonic()
            self._write_targets(addresses, Pages(self._folder, addresses).server_port)
            receiver = self._start_prometheus(stack)
            receiver.await_all_up(len(self._names), QUIET_SECONDS / 2)
            up_at = time.monotonic()
            self._row("devices, all up", str(len(self._names)))
            self._row("all on the receiver after", f"{up_at - started:.0f} s")

            time.sleep(max(0.0, started + QUIET_SECONDS - 5 - time.monotonic()))
            self._expect("alerts firing while all are healthy", receiver.alerts("firing"), set())
            self._row("alerts pending while all are healthy", str(len(receiver.alerts("pending"))))

            self._say("breaking devices")
            fault_at = started + QUIET_SECONDS
            numbered = enumerate(self._names)
            faults = {(self._faults[n % len(self._faults)], name) for n, name in numbered}
            expected = {(fault, name) for fault, name in faults if fault}
            fired = self._watch(receiver, fault_at, fault_at + FAULT_SECONDS - 5)
            for alert in (NOT_MEASURING, ABOVE_FUSE):
                waits = [after for (name, _), after in fired.items() if name == alert] or [0.0]
                self._row(f"`{alert}` fires after", f"{min(waits):.0f} to {max(waits):.0f} s")
            self._expect("alerts firing while some are faulty", set(fired), expected)
            self._dashboard(receiver, self._names[-1])

            self._say("all devices recover")
            end = fault_at + FAULT_SECONDS + RECOVERY_SECONDS
            while (firing := receiver.alerts("firing")) and time.monotonic() < end:
                time.sleep(2)
            ended = time.monotonic() - fault_at - FAULT_SECONDS
            self._row("no alert firing, after the end of the faults", f"{ended:.0f} s")
            self._expect("alerts firing at the end", firing, set())
            self._figures(receiver, time.monotonic() - up_at)
        return "| | |\n|---|---|\n" + "".join(
            f"| {name} | {value} |\n" for name, value in self._rows
        )

    def _write_targets(self, addresses: list[str], pages_port: int) -> None:
        """The devices first, then their copies, in the form of csp1d.targets.yml; JSON is YAML."""
        entries = []
        for number, name in enumerate(self._names):
            address, path, scheme = f"127.0.0.1:{pages_port}", f"/{number}", "http"
            if number < len(addresses):
                address, path, scheme = addresses[number], "/metrics", "https"
            labels = {"instance": name, "__metrics_path__": path, "__scheme__": scheme}
            entries.append({"targets": [address], "labels": labels})
        (self._folder / "csp1d.targets.yml").write_text(json.dumps(entries))

    def _start_prometheus(self, stack: contextlib.ExitStack) -> Prometheus:
        """Start two agents and the receiver: the files as they are, but for address and shard."""
        ports = {name: free_port() for name in ("receiver", "agent-1", "agent-2")}
        tsdb = f"--storage.tsdb.path={self._folder}/receiver"
        modes = {
            "receiver": ["--web.enable-remote-write-receiver", tsdb],
            "agent-1": ["--enable-feature=agent", f"--storage.agent.path={self._folder}/1"],
            "agent-2": ["--enable-feature=agent", f"--storage.agent.path={self._folder}/2"],
        }
        servers = []
        for name, mode in modes.items():
            text = (self._folder / f"{name.partition('-')[0]}.yml").read_text()
            for host, port in ports.items():
                text = text.replace(f"{host}.example:9090", f"127.0.0.1:{port}")
            if name == "agent-2":
                text = text.replace('regex: "0"', 'regex: "1"')
            (self._folder / f"{name}.yml").write_text(text)
            servers.append(Prometheus(self._folder, f"{name}.yml", ports[name], *mode))
            stack.callback(servers[-1].stop)
        return servers[0]

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

    def _figures(self, receiver: Prometheus, seconds: float) -> None:
        window = f"[{seconds:.0f}s]"
        lost = "increase(prometheus_remote_storage_samples_{}_total[5m]) > 0"
        for name, expression in (
            ("failed scrapes", f'min_over_time(up{{job="csp1d"}}{window}) == 0'),
            ("agents that lost samples", f"{lost.format('failed')} or {lost.format('dropped')}"),
        ):
            found = {series["metric"]["instance"] for series in receiver.query(expression)}
            self._expect(name, found, set())
        groups = receiver.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        self._row("rules", str(len(rules)))
        bad = {rule["name"] for rule in rules if rule["health"] != "ok"}
        self._expect("rules with errors", bad, set())
        for line in FIGURES.splitlines():
            name, _, expression = line.partition(" | ")
            self._row(name, f"{receiver.number(expression):.0f}")

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


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/fleet",
        description="Run a simulated fleet under Prometheus and break some of it.",
    )
    parser.add_argument(
        "--devices", type=int, default=20, help="simulated devices, at least 3 (default 20)"
    )
    parser.add_argument("--copies", type=int, default=100, help="targets per device (default 100)")
    parser.add_argument("--write", action="store_true", help=f"write the figures to {PAGE.name}")
    arguments = parser.parse_args()
    # SIGTERM must end the devices, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as folder:
        run = Run(max(3, arguments.devices), arguments.copies, Path(folder))
        figures = run.play()
    for problem in run.problems:
        print(f"tools/fleet: {problem}", file=sys.stderr)
    if arguments.write and not run.problems:
        write_section(PAGE, "figures", figures)
    print("Failed." if run.problems else "OK.")
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
