# SPDX-License-Identifier: Apache-2.0
"""The whole daemon on the simulated HAT: a process, a pty, sockets, signals."""

import contextlib
import json
import math
import os
import re
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import tty
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from certificates import make_certificate
from child import child

from csp1d.config import Config, HttpConfig
from csp1d.config_file import load
from csp1d.errors import DeviceAbsentError
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import (
    SimulatedAdc,
    SimulatedHat,
    SimulatedLed,
    SimulatedLine,
    SimulatedPort,
)
from csp1d.interfaces.http import MOST_CONNECTIONS
from csp1d.loop.daemon import Daemon
from csp1d.loop.indicators import Indicators
from csp1d.loop.reload import Part, affected_parts
from csp1d.measuring.reading import PhaseCurrent, Reading
from csp1d.p1.telegram import crc16_arc
from csp1d.phase import Phase

ROOT = Path(__file__).parents[1]
CONFIG = '[http]\nlisten = "127.0.0.1:0"\n'


class Running:
    """A running csp1d, and its consumer."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        assert process.stdout is not None
        self.process = process
        self._log = log
        port, self.url = (process.stdout.readline().partition(": ")[2].strip() for _ in range(2))
        assert port, log.read_text()
        assert self.url, log.read_text()
        self._consumer = os.open(port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self._consumer)

    def receive(self, seconds: float) -> bytes:
        """The bytes that arrive within this time."""
        received = b""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self._consumer], [], [], left)[0]:
                # csp1d may have flushed them since.
                with contextlib.suppress(BlockingIOError):
                    received += os.read(self._consumer, 4096)
        return received

    @contextlib.contextmanager
    def listening(self) -> Iterator[bytearray]:
        """The bytes that arrive meanwhile, read by a thread."""
        received, stop = bytearray(), threading.Event()

        def read() -> None:
            while not stop.is_set():
                received.extend(self.receive(0.2))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield received
        finally:
            stop.set()
            thread.join()

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def status(self) -> Any:
        with urllib.request.urlopen(f"{self.url}status.json", timeout=5) as reply:
            return json.load(reply)

    def waveform(self) -> Any:
        with urllib.request.urlopen(f"{self.url}waveform.json", timeout=5) as reply:
            return json.load(reply)["waveform"]

    def history(self) -> Any:
        with urllib.request.urlopen(f"{self.url}history.json", timeout=5) as reply:
            return json.load(reply)

    def log(self) -> str:
        return self._log.read_text()

    def wait_for(self, message: str) -> None:
        end = time.monotonic() + 10
        while message not in self.log():
            assert time.monotonic() < end, f"{message!r} not in {self.log()!r}"
            time.sleep(0.02)


@contextmanager
def running(
    folder: Path, *arguments: str, config: str = CONFIG, environment: dict[str, str] | None = None
) -> Iterator[Running]:
    file = folder / "csp1d.toml"
    file.write_text(config)
    log = folder / "log"
    with (
        log.open("w") as errors,
        child(
            [sys.executable, "-m", "csp1d", "--config", file, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        yield Running(process, log)


def telegrams(received: bytes) -> list[tuple[int, int, int]]:
    """The amperes of each telegram, all of which must be complete and correct."""
    found = []
    for telegram in re.findall(rb"/.*?\n![^\n]*\n", received, re.DOTALL):
        body, _, checksum = telegram.rpartition(b"!")
        assert checksum == b"%04X\r\n" % crc16_arc(body + b"!")
        l1, l2, l3 = re.findall(rb"-0:[357]1\.7\.0\((\d{3})\*A\)", telegram)
        found.append((int(l1), int(l2), int(l3)))
    return found


def scenario(folder: Path, *steps: str) -> str:
    file = folder / "scenario.toml"
    file.write_text("".join(f"[[step]]\n{step}\n" for step in steps))
    return str(file)


def test_a_simulation_without_a_reader_has_no_faults(tmp_path: Path) -> None:
    file = tmp_path / "csp1d.toml"
    file.write_text(CONFIG)
    with (
        (tmp_path / "log").open("w") as errors,
        child(
            [sys.executable, "-m", "csp1d", "--config", file, "--simulate"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout
        said = [process.stdout.readline().rstrip().partition(": ") for _ in range(3)]
        port, url = said[0][2], said[1][2]
        assert said[2] == ("Telegrams", ": ", f"cat {port}")

        def counts() -> Any:
            with urllib.request.urlopen(f"{url}status.json", timeout=5) as reply:
                return json.load(reply)["telegrams"]

        time.sleep(4)
        assert counts()["sent"] >= 2
        # As it says, and twice: a reader may leave and return.
        for _ in range(2):
            with subprocess.Popen(said[2][2].split(), stdout=subprocess.PIPE) as reader:
                time.sleep(2.5)
                reader.terminate()
                assert reader.stdout
                received = reader.stdout.read()
            assert len(telegrams(received)) >= 2
            assert received.startswith(b"/XMX5")
            time.sleep(2.5)
        assert counts()["dropped"] == 0
        # One that has it open and does not read is a stuck port.
        stuck = os.open(port, os.O_RDONLY | os.O_NOCTTY)
        time.sleep(3.5)
        assert counts()["dropped"] > 0
        os.close(stuck)
        process.terminate()
        assert process.wait(5) == 0
    warnings = [line for line in (tmp_path / "log").read_text().splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "telegram dropped" in warnings[0]


def test_a_simulation_goes_on_when_the_reader_of_its_addresses_has_ended(tmp_path: Path) -> None:
    (tmp_path / "csp1d.toml").write_text(CONFIG)
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "csp1d", "--config", str(tmp_path / "csp1d.toml")]
    with child([*command, "--simulate"], cwd=ROOT, stdout=writes) as it:
        os.close(writes)
        time.sleep(2)
        assert it.poll() is None
        it.terminate()
        assert it.wait(5) == 0


def test_a_high_line_gets_a_telegram_per_second(tmp_path: Path) -> None:
    with running(tmp_path, "--simulate", "L1=24.2,L2=10.7,L3=0") as daemon:
        seen = telegrams(daemon.receive(4.5))
        # A busy machine may need most of the first second to start.
        assert len(seen) in (3, 4, 5)
        assert set(seen) == {(24, 11, 0)}
        metrics = daemon.metrics()
        assert metrics['csp1d_current_amperes{phase="L1"}'] == pytest.approx(24.2, rel=5e-4)
        assert metrics["csp1d_mains_frequency_hertz"] == pytest.approx(50, abs=0.002)
        assert metrics["csp1d_scans_lost_total"] == 0
        assert metrics["csp1d_p1_requested"] == 1
        status = daemon.status()
        leds = status["leds_ms_per_second"]
        assert leds == {"power": 1000, "current": pytest.approx(698, abs=1), "p1": 1000}
        assert status["last_telegram"].startswith("/XMX5")
        waveform = daemon.waveform()
        peaks = [max(waveform["current_amperes"][phase]) for phase in ("L1", "L2", "L3")]
        assert peaks == pytest.approx([24.2 * 2**0.5, 10.7 * 2**0.5, 0], rel=0.01, abs=0.1)
        history = daemon.history()
        # The readings of the last seconds, and of none before the start.
        means = [mean for mean in history["current_amperes"]["L1"]["mean"] if mean is not None]
        assert means == pytest.approx([24.2] * len(means), abs=0.02)
        assert len(means) in (1, 2)
        end = history["start_timestamp_seconds"] + 24 * 3600
        assert time.time() - 1 < end <= time.time() + 60


def test_a_polling_charge_point_gets_its_telegrams(tmp_path: Path) -> None:
    steps = scenario(tmp_path, 'amperes = { L3 = 5 }\nrequest = "poll"')
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        running(tmp_path, "--simulate", steps, environment=environment) as daemon,
    ):
        assert len(telegrams(daemon.receive(4.5))) >= 3
        # The start does not count.
        manager.bind(environment["NOTIFY_SOCKET"])
        manager.setblocking(False)
        metrics = daemon.metrics()
        assert metrics["csp1d_p1_requests_total"] >= 3
        # Except one that is no longer read.
        assert metrics["csp1d_telegrams_aborted_total"] <= 1
        # It requests telegrams all the time, although its line is low now and then.
        reports = []
        for _ in range(30):
            reports.append(daemon.status())
            daemon.receive(0.1)
        assert {report["p1_requested"] for report in reports} == {True}
        assert any(0 < report["leds_ms_per_second"]["p1"] < 1000 for report in reports)
        shown = {r["leds_ms_per_second"]["current"] for r in reports if r["reading"]}
        assert shown == {100}, "although the LED blinks"
        # A busy machine may wait for a reading, which changes the first part.
        with contextlib.suppress(BlockingIOError):
            while True:
                assert manager.recv(4096).decode().rpartition("; ")[2] == "requesting"


def test_dropped_telegrams_are_a_problem_while_they_are_dropped(tmp_path: Path) -> None:
    def telegram_row() -> bool:
        return next(bool(r["good"]) for r in daemon.status()["rows"] if r["name"] == "telegrams")

    with running(tmp_path, "--simulate", "L1=5") as daemon:
        # A pty that is not read takes a few telegrams.
        daemon.wait_for("telegram dropped: the serial port did not transmit it within one second")
        time.sleep(0.5)
        status = daemon.status()
        (problem,) = status["problems"]
        assert (problem["event"], problem["device"]) == ("telegram-dropped", "P1 port")
        assert f"WARNING {problem['reason']}\n" in daemon.log(), "the journal's own words"
        assert problem["since"] == pytest.approx(time.time(), abs=3)
        assert problem["chapter"] == "no-telegrams"
        assert status["headline"] == f"T{problem['reason'][1:]}"
        assert not telegram_row()
        labels = 'device="P1 port",event="telegram-dropped"'
        assert daemon.metrics()[f"csp1d_problem{{{labels}}}"] == 1
        # It is read again.
        daemon.receive(12)
        status = daemon.status()
        assert (status["problems"], status["headline"]) == ([], "Measuring, no problems")
        assert status["telegrams"]["dropped"] >= 1
        assert telegram_row(), "a loss in the past is no problem"
        assert not any(name.startswith("csp1d_problem") for name in daemon.metrics())


def test_a_low_line_gets_nothing(tmp_path: Path) -> None:
    steps = scenario(tmp_path, 'amperes = { L1 = 5 }\nrequest = "low"')
    with running(tmp_path, "--simulate", steps) as daemon:
        assert daemon.receive(2.5) == b""
        assert daemon.metrics()["csp1d_readings_total"] >= 1


def test_a_stall_silences_the_port_and_the_currents(tmp_path: Path) -> None:
    steps = scenario(tmp_path, "amperes = { L1 = 50 }", "at_seconds = 2.5\nstall_seconds = 4")
    with running(tmp_path, "--simulate", steps) as daemon:
        assert telegrams(daemon.receive(2.6))
        assert daemon.receive(3) == b""
        metrics = daemon.metrics()
        assert metrics["csp1d_adc_up"] == 0
        assert not any(name.startswith("csp1d_current_amperes") for name in metrics)
        assert daemon.status()["leds_ms_per_second"]["current"] == 0
        # The stall ends after 6.5 s, and the first second after that makes a reading.
        assert telegrams(daemon.receive(2.8))
        assert daemon.log().count("ADC stalled") == 1
        assert re.search(r"\b1(5999|600[0-2]) ADC scans lost", daemon.log())
        assert daemon.metrics()["csp1d_scans_lost_total"] == pytest.approx(16000, abs=2)


def test_the_direction_shows_and_a_reference_that_vanishes_is_logged_once(tmp_path: Path) -> None:
    config = CONFIG + '[direction]\nreference = "voltage"\nphase_order = "L1-L3-L2"\n'
    # Weak before it is gone: whenever in a window it vanishes, the first fault is the same.
    steps = scenario(
        tmp_path,
        "amperes = { L1 = -10, L2 = 5, L3 = -0.05 }",
        "at_seconds = 6\nreference = 0.2",
        "at_seconds = 7.7\nreference = 0",
    )
    with running(tmp_path, "--simulate", steps, config=config) as daemon:
        assert set(telegrams(daemon.receive(3.5))) == {(10, 5, 0)}
        metrics = daemon.metrics()
        assert metrics['csp1d_active_current_amperes{phase="L1"}'] == pytest.approx(-10, rel=1e-3)
        assert metrics['csp1d_active_current_amperes{phase="L2"}'] == pytest.approx(5, rel=1e-3)
        assert daemon.status()["reading"]["direction"]["exporting"] == ["L1"]
        daemon.wait_for("direction unknown, all current counts as import: the reference has ")
        assert set(telegrams(daemon.receive(2.2))) == {(10, 5, 0)}
        assert daemon.status()["reading"]["direction"]["exporting"] == []
        metrics = daemon.metrics()
        assert not any(name.startswith("csp1d_active_current_amperes") for name in metrics)
        assert metrics['csp1d_current_amperes{phase="L1"}'] == pytest.approx(10, rel=1e-3)
        assert daemon.log().count("direction unknown") == 1


def test_a_wiring_that_does_not_match_is_logged_once_and_nothing_is_changed(tmp_path: Path) -> None:
    config = CONFIG + '[direction]\nreference = "current"\nreference_flow = "producing"\n'
    with running(tmp_path, "--simulate", "L1=-6,L2=5,L3=4", config=config) as daemon:
        advice = "wiring: if there is no export on L1"
        end = time.monotonic() + 20
        while advice not in daemon.log():
            assert time.monotonic() < end
            daemon.receive(0.2)
        daemon.receive(2.2)
        assert daemon.log().count("wiring:") == 1
        assert daemon.status()["reading"]["direction"]["exporting"] == ["L1"]


def test_what_a_consumer_does_not_read_is_flushed_not_queued(tmp_path: Path) -> None:
    with running(tmp_path, "--simulate", "L1=5") as daemon:
        time.sleep(7)
        # The telegram under way, and perhaps one or two that replace it while a busy machine
        # reads it.
        assert len(telegrams(daemon.receive(0.05))) <= 3
        assert daemon.metrics()["csp1d_telegrams_dropped_total"] >= 2
        assert daemon.log().count("telegram dropped") == 1


def test_a_phase_that_clips_is_logged_once(tmp_path: Path) -> None:
    # 1.65 V of peak are 165 A of peak.
    with running(tmp_path, "--simulate", "L1=200,L2=5") as daemon:
        daemon.wait_for("L1 overload: ")
        daemon.receive(2.2)
        assert daemon.log().count("overload") == 1


def test_a_reload_applies_a_valid_configuration_and_keeps_the_old_one_otherwise(
    tmp_path: Path,
) -> None:
    with running(tmp_path, "--simulate", "L1=10") as daemon:
        file = tmp_path / "csp1d.toml"
        file.write_text(CONFIG + "[p1]\nflag = 3\n")
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("; keeping the previous configuration")
        assert f"configuration rejected: {file}: p1.flag: unknown key" in daemon.log()
        assert telegrams(daemon.receive(2.2))
        file.write_text(CONFIG + '[p1]\nflag_id = "ABC"\n')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded")
        assert b"/ABC5XMX" in daemon.receive(2.2)


def test_a_reload_of_the_service_that_is_rejected_is_a_problem_until_one_succeeds(
    tmp_path: Path,
) -> None:
    unit = (ROOT / "systemd/csp1d.service").read_text()
    steps = re.findall(r"^ExecReload=(.+)$", unit, re.MULTILINE)
    with running(tmp_path, "--simulate", scenario(tmp_path, 'request = "low"')) as daemon:
        file = tmp_path / "csp1d.toml"
        environment = {**os.environ, "MAINPID": str(daemon.process.pid)}

        def reload_service() -> int:
            """As systemd does: up to the first command that fails. Returns its exit code."""
            for step in steps:
                check = f"{sys.executable} -m csp1d --config {file}"
                command = step.replace("/usr/bin/csp1d", check).replace("/bin/kill", "kill")
                done = subprocess.run(command, shell=True, cwd=ROOT, env=environment)
                if done.returncode:
                    return done.returncode
            return 0

        def wait_for_problems(events: list[str]) -> None:
            end = time.monotonic() + 10
            while [problem["event"] for problem in daemon.status()["problems"]] != events:
                assert time.monotonic() < end, daemon.status()
                time.sleep(0.1)

        file.write_text(CONFIG + "[p1]\nflag = 3\n")
        assert reload_service() == 78
        wait_for_problems(["configuration-rejected"])
        assert daemon.metrics()["csp1d_config_last_reload_successful"] == 0
        file.write_text(CONFIG)
        assert reload_service() == 0
        wait_for_problems([])
        assert daemon.metrics()["csp1d_config_last_reload_successful"] == 1


def test_a_direction_with_its_defaults_is_doubted_at_each_start_and_reload(tmp_path: Path) -> None:
    file = tmp_path / "csp1d.toml"
    config = CONFIG + '[direction]\nreference = "voltage"\n'
    warning = f"WARNING {file}: direction.export_current: export is sent as"
    with running(tmp_path, "--simulate", "L1=10", config=config) as daemon:
        daemon.wait_for(warning)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded")
        (tmp_path / "csp1d.toml.d").mkdir()
        (tmp_path / "csp1d.toml.d/10.toml").write_text('[direction]\nexport_current = "magnitude"')
        daemon.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 10
        while daemon.log().count("configuration reloaded") < 2:
            assert time.monotonic() < end, daemon.log()
            time.sleep(0.02)
    assert daemon.log().count(warning) == 2


def test_a_stop_is_clean(tmp_path: Path) -> None:
    with running(tmp_path, "--simulate") as daemon:
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(5) == 0
        assert "csp1d stopped" in daemon.log()


class Wire:
    """The consumer's end of the simulated port, read at 115200 baud as a UART transmits."""

    STEP_SECONDS = 0.005

    def __init__(self, port: int) -> None:
        self.received = b""
        self.begins: list[float] = []
        """When each telegram began, monotonic seconds."""
        self.longest_pause_seconds = 0.0
        """Longest time between two reads of the port."""
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self.STEP_SECONDS):
            # A UART goes on transmitting while this thread has no processor.
            now = time.monotonic()
            pause_seconds, last = now - last, now
            self.longest_pause_seconds = max(self.longest_pause_seconds, pause_seconds)
            with contextlib.suppress(BlockingIOError, OSError):
                data = os.read(self._port, round(11_520 * pause_seconds))
                self.begins += [time.monotonic()] * data.count(b"/")
                self.received += data

    def wait_for_begin(self, count: int) -> None:
        end = time.monotonic() + 20
        while len(self.begins) < count:
            assert time.monotonic() < end, self.received
            time.sleep(0.002)

    def stop(self) -> bytes:
        time.sleep(0.1)
        self._stop.set()
        self._thread.join()
        return self.received


SLOW_SECONDS = 0.2
"""csp1d waits 0.25 s for the rest of a telegram, which takes 0.05 s."""


@pytest.mark.parametrize("change", ["[p1]", "[direction]", "SIGTERM"])
def test_a_telegram_under_way_ends_whole_at_a_reload_or_stop(tmp_path: Path, change: str) -> None:
    keys = {"[p1]": 'flag_id = "ABC"', "[direction]": 'export_current = "zero"'}
    seen = ""
    for attempt in ("1", "2", "3"):
        folder = tmp_path / attempt
        folder.mkdir()
        with running(folder, "--simulate", "L1=10") as daemon:
            wire = Wire(daemon._consumer)
            delays = []
            if change in keys:
                (folder / "csp1d.toml").write_text(f"{CONFIG}{change}\n{keys[change]}\n")
                done = "configuration reloaded"
                delays.append(signal_in_a_telegram(daemon, wire, 2, signal.SIGHUP, done))
                wire.wait_for_begin(3)
            last = len(wire.begins) + 1
            delays.append(signal_in_a_telegram(daemon, wire, last, signal.SIGTERM, "csp1d stopped"))
            assert daemon.process.wait(5) == 0
            wire.stop()
        assert daemon.log().count("configuration reloaded") == (change in keys)
        seen += f"{daemon.log()}{delays} {wire.longest_pause_seconds} {wire.received!r}\n"
        pauses = [after - before for before, after in pairwise(wire.begins)]
        pieces = wire.received.split(b"/")[1:]
        are_whole = all(re.fullmatch(rb"[^!]*![0-9A-F]{4}\r\n", piece) for piece in pieces)
        # The next ones are in time.
        if are_whole and max(pauses, default=1.0) < 1.3 and max(delays) < math.inf:
            assert len(telegrams(wire.received)) == len(wire.begins)
            return
        assert max(*delays, wire.longest_pause_seconds) > SLOW_SECONDS, seen
    pytest.fail(seen)


def signal_in_a_telegram(
    daemon: Running, wire: Wire, number: int, what: signal.Signals, done: str
) -> float:
    """Send a signal in the middle of this telegram.

    Returns the seconds until csp1d has logged `done`; infinity if the telegram had ended before.
    """
    wire.wait_for_begin(number)
    time.sleep(0.02)
    is_under_way = wire.received.rfind(b"/") > wire.received.rfind(b"!")
    begin = time.monotonic()
    daemon.process.send_signal(what)
    daemon.wait_for(done)
    return time.monotonic() - begin if is_under_way else math.inf


def test_the_service_manager_is_notified(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(5)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}
        with running(tmp_path, "--simulate", environment=environment) as daemon:

            def expect(*wanted: str) -> None:
                left = list(wanted)
                while left:
                    notice = manager.recv(4096).decode()
                    left = [start for start in left if not notice.startswith(start)]

            expect("READY=1", "WATCHDOG=1", "STATUS=Measuring; P1 port open; requesting")
            daemon.process.send_signal(signal.SIGHUP)
            expect("RELOADING=1\nMONOTONIC_USEC=")
            expect("READY=1")
            daemon.process.send_signal(signal.SIGTERM)
            expect("STOPPING=1")


@pytest.mark.parametrize("receiver", ["absent", "deaf"])
def test_a_service_manager_that_does_not_listen_delays_nothing(
    tmp_path: Path, receiver: str
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        if receiver == "deaf":
            manager.bind(address)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
                other.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        other.sendto(b"full", address)
        environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}
        with running(tmp_path, "--simulate", "L1=5", environment=environment) as daemon:
            assert telegrams(daemon.receive(3))
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(5) == 0


def test_an_address_in_use_does_not_prevent_measuring(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = f'[http]\nlisten = "{address}"\n'
        with running(tmp_path, "--simulate", "L1=5", config=config) as daemon:
            assert telegrams(daemon.receive(3))
            daemon.wait_for(f"HTTP server missing: cannot listen on http.listen '{address}'")
            taken.close()
            daemon.wait_for("HTTP server available again")
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as reply:
                assert reply.status == 200


@pytest.mark.parametrize("listen", ["", "192.0.2.1:1"])
def test_the_socket_is_served_whatever_listen_is(tmp_path: Path, listen: str) -> None:
    path = tmp_path / "http.sock"
    config = f'[http]\nlisten = "{listen}"\nsocket = "{path}"\n'
    with running(tmp_path, "--simulate", "L1=5", config=config) as daemon:
        assert telegrams(daemon.receive(2.5))
        assert b"csp1d_current_amperes" in get(path, "/metrics")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n")
            # A reload does not disturb a client, unless the path changes.
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for("configuration reloaded")
            client.sendall(b"\r\n")
            assert b"csp1d_current_amperes" in client.makefile("rb").read()
        moved = tmp_path / "moved.sock"
        (tmp_path / "csp1d.toml").write_text(config.replace(str(path), str(moved)))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(moved.exists)
        assert not path.exists()
        moved.unlink()
        wait_for(moved.exists)
        assert b"csp1d_current_amperes" in get(moved, "/metrics")
        daemon.process.terminate()
        assert daemon.process.wait(5) == 0
        assert not moved.exists()


def test_record_takes_the_scans_of_a_daemon_that_goes_on_sending(tmp_path: Path) -> None:
    config = f'{CONFIG}socket = "{tmp_path}/sock"\n'
    with running(tmp_path, "--simulate", "L1=24,L2=10,L3=1", config=config) as daemon:
        daemon.receive(6)
        begin, received = time.monotonic(), b""
        with csp1ctl(tmp_path, "record", "9", "house") as record:
            # A telegram that is not read would be dropped.
            while record.poll() is None:
                received += daemon.receive(0.5)
            assert record.returncode == 0, record.communicate()
        # The first scans were there.
        assert time.monotonic() - begin < 9
        assert daemon.metrics()["csp1d_scans_lost_total"] == 0
        seen = telegrams(received)
        assert seen == [(24, 10, 1)] * len(seen)
        assert len(seen) >= 2
        with csp1ctl(tmp_path, "replay", "house") as replay:
            readings = [json.loads(line) for line in replay.communicate()[0].splitlines()]
        # Late reads of a busy machine make the measured rate a little wrong.
        assert len(readings) in (8, 9)
        for reading in readings:
            assert reading["lost_scans"] == 0
            assert reading["current_amperes"]["L1"] == pytest.approx(24, abs=0.01)


def csp1ctl(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command of csp1ctl in a folder, with the configuration there."""
    return subprocess.Popen(
        [sys.executable, "-m", "csp1d.tool.ctl", "--config", "csp1d.toml", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def get(path: Path, page: str) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(f"GET {page} HTTP/1.0\r\n\r\n".encode())
        return client.makefile("rb").read()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_socket_that_cannot_be_served_is_reported_and_does_not_prevent_measuring(
    tmp_path: Path,
) -> None:
    def lost(status: Any) -> list[str]:
        return [p["reason"] for p in status["problems"] if p["event"] == "http-lost"]

    path = tmp_path / "http.sock"
    path.write_text("")
    with running(tmp_path, "--simulate", "L1=5", config=f'{CONFIG}socket = "{path}"') as daemon:
        assert telegrams(daemon.receive(3))
        expected = f"HTTP socket missing: cannot listen on http.socket '{path}': there is"
        daemon.wait_for(expected)
        daemon.receive(1.5)
        assert [reason for reason in lost(daemon.status()) if reason.startswith(expected)]
        path.unlink()
        daemon.wait_for("HTTP socket available again")
        daemon.receive(1.5)
        assert lost(json.loads(get(path, "/status.json").partition(b"\r\n\r\n")[2])) == []


@pytest.mark.usefixtures("signals")
def test_a_simulation_leaves_the_socket_of_the_service_alone(tmp_path: Path) -> None:
    daemon = Daemon(SimulatedHat(parse("")), Config(http=HttpConfig("")), tmp_path / "csp1d.toml")
    daemon.start()
    daemon._stop()
    assert daemon._socket.open_count == 0


def test_a_log_that_is_not_read_delays_nothing(tmp_path: Path) -> None:
    (tmp_path / "csp1d.toml").write_text(CONFIG + '[log]\nlevel = "debug"\n')
    reads, writes = os.pipe()
    with open(writes, "wb", buffering=0) as end:
        os.set_blocking(writes, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writes, b"x" * 512)
        os.set_blocking(writes, True)
        with child(
            [sys.executable, "-m", "csp1d", "--config", tmp_path / "csp1d.toml", "--simulate"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=end,
            text=True,
        ) as process:
            daemon = Running(process, tmp_path / "log")
            assert len(telegrams(daemon.receive(4))) >= 2
            process.terminate()
            assert process.wait(5) == 0
    os.close(reads)


class Clients:
    """Hostile clients, and one that scrapes, until the context ends."""

    def __init__(self, address: tuple[str, int] | str) -> None:
        self._address = address
        self._family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=client)
            for client in (self._slow, self._unread, self._large, self._rubbish, self._scrape)
        ]
        self.scrapes = 0

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _slow(self) -> None:
        """Two hundred that send a byte now and then, and return when they are disconnected."""
        begin = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\na: "
        clients: list[socket.socket] = []
        while not self._stop.is_set():
            for client in list(clients):
                try:
                    client.send(b"b")
                except BlockingIOError:
                    pass
                except OSError:
                    client.close()
                    clients.remove(client)
            while len(clients) < 200:
                clients.append(socket.socket(self._family))
                clients[-1].setblocking(False)
                clients[-1].connect_ex(self._address)
                with contextlib.suppress(OSError):
                    clients[-1].send(begin)
            time.sleep(0.1)
        for client in clients:
            client.close()

    def _unread(self) -> None:
        """Many that ask for the raw scans, and read nothing of them."""
        while not self._stop.is_set():
            with contextlib.ExitStack() as clients, contextlib.suppress(OSError):
                for _ in range(MOST_CONNECTIONS):
                    client = clients.enter_context(socket.socket(self._family))
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    client.settimeout(1)
                    client.connect(self._address)
                    client.sendall(b"GET /capture.bin HTTP/1.0\r\n\r\n")
                self._stop.wait(0.5)

    def _large(self) -> None:
        self._send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\na: " + b"b" * 1_000_000)

    def _rubbish(self) -> None:
        self._send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500))

    def _send(self, data: bytes) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError), socket.socket(self._family) as client:
                client.settimeout(1)
                client.connect(self._address)
                client.sendall(data)
            time.sleep(0.01)

    def _scrape(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(OSError), socket.socket(self._family) as client:
                client.settimeout(10)
                client.connect(self._address)
                client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                self.scrapes += b"csp1d_readings_total" in client.makefile("rb").read()
            time.sleep(0.01)


@pytest.mark.parametrize("where", ["network", "socket"])
def test_no_client_delays_a_telegram_or_leaves_anything_behind(tmp_path: Path, where: str) -> None:
    path = str(tmp_path / "http.sock")
    config = f'{CONFIG}socket = "{path}"\n'
    with running(tmp_path, "--simulate", "L1=24", config=config) as daemon:
        host, port = daemon.url.removeprefix("http://").rstrip("/").split(":")
        address = (host, int(port)) if where == "network" else path
        process = Path(f"/proc/{daemon.process.pid}")

        def held() -> tuple[int, int]:
            return len(os.listdir(process / "fd")), len(os.listdir(process / "task"))

        daemon.receive(2)
        before = held()
        # The port is read until the end: else it would be full while the clients stop.
        with daemon.listening() as received:
            with Clients(address) as clients:
                time.sleep(10)
                seen = telegrams(bytes(received))
                # The smallest of some moments: a client's thread ends after its place is free.
                moments = []
                for _ in range(20):
                    moments.append(held())
                    time.sleep(0.01)
                most = [min(numbers) for numbers in zip(*moments, strict=True)]
            assert len(seen) >= 9
            assert clients.scrapes > 0
            # At most one client per place, and one that waits for a place.
            assert most[0] <= before[0] + MOST_CONNECTIONS + 1
            assert most[1] <= before[1] + MOST_CONNECTIONS
            end = time.monotonic() + 30
            while held() != before:
                assert time.monotonic() < end, f"{before} became {held()}"
                time.sleep(0.1)
            metrics = daemon.metrics()
            assert metrics["csp1d_telegrams_dropped_total"] == 0
            assert metrics["csp1d_scans_lost_total"] == 0


def test_the_loop_sleeps(tmp_path: Path) -> None:
    with running(tmp_path, "--simulate", "L1=10") as daemon:
        daemon.receive(2)
        before = _switches(daemon.process.pid)
        daemon.receive(5)
        # Two turns per second, and a few for what is late; a loop that spins has thousands.
        assert (_switches(daemon.process.pid) - before) / 5 < 12


def _switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"\nvoluntary_ctxt_switches:\s+(\d+)", status)[0])


@pytest.fixture
def signals() -> Iterator[None]:
    """For a daemon in this process: afterwards the signals have their handlers back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.set_wakeup_fd(-1)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_a_line_that_oscillates_is_read_a_limited_number_of_times(tmp_path: Path) -> None:
    reads: list[float] = []

    class Oscillating(SimulatedLine):
        """Has changed again at each read."""

        def read_level(self) -> tuple[int, bool]:
            reads.append(time.monotonic())
            return 2, True

    class Board(SimulatedHat):
        def open_request_line(self, config: Config) -> SimulatedLine:
            return line

    board = Board(parse("L1=10"))
    line = Oscillating(board.player)
    os.eventfd_write(line.fileno(), 1)
    daemon = Daemon(board, Config(http=HttpConfig(listen="")), tmp_path / "csp1d.toml")
    seconds = 3
    threading.Timer(seconds, signal.raise_signal, [signal.SIGTERM]).start()
    daemon.start()
    daemon.run()
    # Nor does it delay the stop: each telegram is aborted, and the next one is under way.
    assert time.monotonic() < reads[0] + seconds + 1
    per_second = len([at for at in reads if 1 < at - reads[0] < seconds]) / (seconds - 1)
    # A hundred for the edges, and a few for the search each second.
    assert 20 < per_second < 110


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("is_broken", [False, True])
def test_an_adc_that_delivers_blocks_wakes_the_loop(tmp_path: Path, is_broken: bool) -> None:
    reads: list[float] = []
    seconds = 3

    class Blocks(SimulatedAdc):
        """Has a block each tenth of a second. A broken one is always readable, and has nothing."""

        in_blocks = True

        def fileno(self) -> int:
            return block

        def read(self) -> bytes:
            reads.append(time.monotonic())
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(block)
            if is_broken:
                os.eventfd_write(block, 1)
            return b"" if is_broken else super().read()

    class Board(SimulatedHat):
        def open_adc(self, config: Config) -> SimulatedAdc:
            return Blocks(config, self.player)

    block = os.eventfd(int(is_broken), os.EFD_NONBLOCK)
    board = Board(parse("L1=10"))
    daemon = Daemon(board, Config(http=HttpConfig(listen="")), tmp_path / "csp1d.toml")
    for tenths in range(1, 10 * seconds):
        threading.Timer(tenths / 10, os.eventfd_write, [block, 1]).start()
    threading.Timer(seconds, signal.raise_signal, [signal.SIGTERM]).start()
    daemon.start()
    daemon.run()
    os.close(block)
    per_second = len([at for at in reads if at > reads[0] + 1]) / (seconds - 1)
    assert per_second < 25 if is_broken else 8 < per_second < 25


@pytest.mark.usefixtures("signals")
def test_a_line_without_edges_is_read_often_enough_and_no_more(tmp_path: Path) -> None:
    """A telegram begins long before the next reading would be ready, even on a busy machine."""
    reads: list[float] = []
    board = HeldLineHat()
    port = os.open(board.port_path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    wire = Wire(port)

    class Polled(HeldLine):
        """Its descriptor is always readable."""

        poll_ns = 20_000_000

        def read_level(self) -> tuple[int, bool]:
            reads.append(time.monotonic())
            return super().read_level()

    board.line = line = Polled(board.player)
    os.eventfd_write(line.fileno(), 1)
    daemon = Daemon(board, Config(http=HttpConfig(listen="")), tmp_path / "csp1d.toml")
    rises: list[float] = []

    def request() -> None:
        while not daemon._sampler.readings_total:
            time.sleep(0.005)
        time.sleep(0.3)
        for number in (1, 2):
            rises.append(time.monotonic())
            line.high = True
            wire.wait_for_begin(number)
            time.sleep(0.2)
            line.high = False
            time.sleep(0.9)
        signal.raise_signal(signal.SIGTERM)

    consumer = threading.Thread(target=request)
    daemon.start()
    consumer.start()
    daemon.run()
    consumer.join()
    wire.stop()
    os.close(port)
    assert len(wire.begins) == 2
    assert wire.begins[0] - rises[0] < 0.25
    per_second = len(reads) / (reads[-1] - reads[0])
    assert 10 < per_second < 60


@pytest.mark.usefixtures("signals")
def test_a_port_that_cannot_flush_sends_no_reading_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of three telegrams is aborted 20 ms after its begin, and requested again at once."""
    monkeypatch.setattr(SimulatedPort, "flush", lambda self: None)

    class Line(SimulatedLine):
        def play(self, now_ns: int) -> None:
            pass

    class Board(SimulatedHat):
        def open_request_line(self, config: Config) -> SimulatedLine:
            return line

    board = Board(parse("L1=10"))
    line = Line(board.player)
    port = os.open(board.port_path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    wire = Wire(port)

    def request() -> None:
        line._move(True)
        for number in (1, 2, 3):
            wire.wait_for_begin(number)
            for high in (False, True):
                time.sleep(0.02)
                line._move(high)
        time.sleep(0.2)
        signal.raise_signal(signal.SIGTERM)

    daemon = Daemon(board, Config(http=HttpConfig(listen="")), tmp_path / "csp1d.toml")
    consumer = threading.Thread(target=request)
    daemon.start()
    consumer.start()
    daemon.run()
    consumer.join()
    # The rest of each has left, and nothing began before.
    assert telegrams(wire.stop()) == [(10, 0, 0)] * 3
    assert min(after - before for before, after in pairwise(wire.begins)) > 0.5
    assert daemon._sender.counts.aborted == 3
    assert caplog.text.count("cannot flush") == 1
    os.close(port)


@pytest.mark.usefixtures("signals")
def test_a_turn_without_news_searches_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = 0

    class Board(SimulatedHat):
        def open_port(self, config: Config) -> SimulatedPort:
            nonlocal searches
            searches += 1
            raise DeviceAbsentError("it is not there")

    config = Config(http=HttpConfig(listen=""))
    daemon = Daemon(Board(parse("L1=10")), config, tmp_path / "csp1d.toml")
    daemon.start()
    monkeypatch.setattr(daemon, "_wait", set)
    searches = 0
    end = time.monotonic() + 0.3
    turns = 0
    while time.monotonic() < end:
        daemon._turn()
        turns += 1
    daemon._stop()
    # In the first turn, and with a reading if one is due by then.
    assert turns > 10
    assert 1 <= searches <= 2


@pytest.mark.usefixtures("signals")
def test_after_a_device_event_devices_are_searched_and_leds_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Board(SimulatedHat):
        has_changed = False

        def open_adc(self, config: Config) -> SimulatedAdc:
            opened.append("adc")
            raise DeviceAbsentError("it is not there")

        def open_led(self, name: str) -> SimulatedLed:
            opened.append(name)
            return super().open_led(name)

        def changed(self) -> bool:
            return self.has_changed

    board = Board(parse("L1=10"))
    config = Config(http=HttpConfig(listen=""))
    daemon = Daemon(board, config, tmp_path / "csp1d.toml")
    daemon.start()
    monkeypatch.setattr(daemon, "_wait", lambda: {board.fileno()})
    daemon._turn()
    opened.clear()
    daemon._turn()
    assert opened == []
    board.has_changed = True
    daemon._turn()
    daemon._stop()
    assert sorted(opened) == sorted(["adc", *vars(config.leds).values()])


@pytest.mark.usefixtures("signals")
def test_an_old_reading_lights_no_led(tmp_path: Path) -> None:
    config = Config(http=HttpConfig(listen=""))
    daemon = Daemon(SimulatedHat(parse("")), config, tmp_path / "csp1d.toml")
    phases = {Phase.L1: PhaseCurrent(20.0, 28.0, 0.0, 0)}
    reading = Reading(1, time.monotonic_ns(), 1.0, phases, 50.0, 4000, 0)
    daemon._publish(replace(reading, end_ns=reading.end_ns - 2_000_000_000))
    assert daemon._indicators.ms_per_second["current"] == 0
    daemon._publish(reading)
    assert daemon._indicators.ms_per_second["current"] == 400
    daemon._stop()


@pytest.mark.usefixtures("signals")
def test_an_led_that_is_no_longer_configured_is_turned_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csp1d.interfaces.journal.set_up", lambda level: None)
    switched: dict[str, bool] = {}

    class Led(SimulatedLed):
        def __init__(self, name: str) -> None:
            self._led = name

        def switch(self, on: bool) -> None:
            switched[self._led] = on

    class Board(SimulatedHat):
        def open_led(self, name: str) -> Led:
            return Led(name)

    config = Config(http=HttpConfig(listen=""))
    daemon = Daemon(Board(parse("")), config, tmp_path / "csp1d.toml")
    daemon._indicators.on_request(True)
    assert switched[config.leds.p1]
    daemon._reconfigure(replace(config, leds=replace(config.leds, p1="other")), None)
    assert (switched[config.leds.p1], switched["other"]) == (False, True)
    daemon._stop()


def test_a_bad_certificate_at_a_reload_keeps_the_old_one(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "sensor")
    config = f'{CONFIG}tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
    context = ssl.create_default_context(cafile=certificate)

    def serves(daemon: Running) -> bool:
        with urllib.request.urlopen(f"{daemon.url}metrics", timeout=5, context=context) as reply:
            return b"csp1d_build_info" in reply.read()

    with running(tmp_path, "--simulate", config=config) as daemon:
        assert serves(daemon)
        old = certificate.read_bytes()
        other, _ = make_certificate(tmp_path, "other")
        for bad, reason in (
            (b"no certificate", "[SSL] PEM lib"),
            (other.read_bytes(), "key values mismatch"),
            (None, "cannot be read: No such file or directory"),
        ):
            certificate.unlink()
            if bad is not None:
                certificate.write_bytes(bad)
            daemon.process.send_signal(signal.SIGHUP)
            daemon.wait_for(reason)
            assert serves(daemon)
        assert "csp1d.toml: http.tls_certificate: '" in daemon.log()
        assert daemon.log().count("; keeping the previous configuration") == 3
        certificate.write_bytes(old)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for("configuration reloaded")


@pytest.mark.usefixtures("signals")
def test_the_certificate_that_was_checked_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal may be writing the files while the daemon is reloaded."""
    certificate, key = make_certificate(tmp_path, "sensor")
    renewed, renewed_key = make_certificate(tmp_path, "renewed")
    file = tmp_path / "csp1d.toml"
    file.write_text(f'{CONFIG}tls_certificate = "{certificate}"\ntls_key = "{key}"\n')
    monkeypatch.setattr("csp1d.interfaces.journal.set_up", lambda level: None)

    def rewrite(old: Config, new: Config) -> set[Part]:
        certificate.write_text("unfinished")
        return affected_parts(old, new)

    def served() -> str:
        assert daemon.url
        host, port = daemon.url.removeprefix("https://").rstrip("/").split(":")
        return ssl.get_server_certificate((host, int(port)))

    daemon = Daemon(SimulatedHat(parse("")), load(file), file)
    daemon.start()
    assert served() == certificate.read_text()
    certificate.write_bytes(renewed.read_bytes())
    key.write_bytes(renewed_key.read_bytes())
    monkeypatch.setattr("csp1d.loop.daemon.affected_parts", rewrite)
    daemon._reload()
    assert certificate.read_text() == "unfinished"
    assert served() == renewed.read_text()
    daemon._stop()


class HeldLine(SimulatedLine):
    """A request line that stays low until a test sets it."""

    high = False

    def read_level(self) -> tuple[int, bool]:
        return 0, self.high


class HeldLineHat(SimulatedHat):
    """A HAT with such a line."""

    def __init__(self) -> None:
        super().__init__(parse("L1=10"))
        self.line = HeldLine(self.player)

    def open_request_line(self, config: Config) -> SimulatedLine:
        return self.line


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("gain", [1.0, 1.1])
def test_what_was_measured_before_a_reload_is_not_sent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gain: float
) -> None:
    levels: list[str] = []
    monkeypatch.setattr("csp1d.interfaces.journal.set_up", levels.append)

    board = HeldLineHat()
    config = Config(http=HttpConfig(listen=""))
    daemon = Daemon(board, config, tmp_path / "csp1d.toml")
    reading = Reading(1, time.monotonic_ns(), 1.0, {}, 50.0, 4000, 0)
    daemon._sampler._record([reading])
    daemon._publish(reading)
    (tmp_path / "csp1d.toml").write_text(f'[channels.L1]\ngain = {gain}\n[http]\nlisten = ""\n')
    daemon._reload()
    assert levels == ["info"]
    board.line.high = True
    daemon._sender.reopen_missing()
    is_kept = gain == 1.0
    assert bool(daemon._sender.last_telegram) == is_kept
    assert daemon._sampler.reading == (reading if is_kept else None)
    daemon._stop()


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize(("asleep_ms", "is_kept"), [(0, True), (50, True), (500, False)])
def test_what_was_measured_before_a_suspend_is_not_sent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asleep_ms: int, is_kept: bool
) -> None:
    """CLOCK_MONOTONIC stands still during a suspend, CLOCK_BOOTTIME does not."""
    board = HeldLineHat()
    daemon = Daemon(board, Config(http=HttpConfig(listen="")), tmp_path / "csp1d.toml")
    daemon.start()
    daemon._sampler.wake_ns = 2**62
    reading = Reading(1, time.monotonic_ns(), 1.0, {}, 50.0, 4000, 0)
    daemon._sampler._record([reading])
    daemon._publish(reading)
    clock = time.clock_gettime_ns
    monkeypatch.setattr(
        time,
        "clock_gettime_ns",
        lambda which: clock(which) + (which == time.CLOCK_BOOTTIME) * asleep_ms * 1_000_000,
    )
    board.line.high = True
    monkeypatch.setattr(daemon, "_wait", set)
    monkeypatch.setattr(daemon._sampler, "poll", lambda now_ns: [])
    daemon._turn()
    daemon._turn()
    assert bool(daemon._sender.last_telegram) == is_kept
    assert daemon._sampler.reading == (reading if is_kept else None)
    daemon._stop()


@pytest.mark.usefixtures("signals")
def test_a_reading_that_was_computed_across_a_suspend_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    board, clock, asleep_ns = HeldLineHat(), time.clock_gettime_ns, [0]
    daemon = Daemon(board, Config(http=HttpConfig(listen="")), tmp_path / "csp1d.toml")
    daemon.start()
    board.line.high = True
    monkeypatch.setattr(
        time,
        "clock_gettime_ns",
        lambda which: clock(which) + (which == time.CLOCK_BOOTTIME) * asleep_ns[0],
    )

    def poll(now_ns: int) -> list[Reading]:
        asleep_ns[0] = 600_000_000_000
        return [Reading(1, time.monotonic_ns(), 1.0, {}, 50.0, 4000, 0)]

    monkeypatch.setattr(daemon, "_wait", set)
    monkeypatch.setattr(daemon._sampler, "poll", poll)
    daemon._turn()
    assert daemon._sender.last_telegram == b""
    daemon._turn()
    assert daemon._sender.last_telegram != b""
    daemon._stop()


@pytest.mark.usefixtures("signals")
def test_a_process_that_was_held_between_two_clocks_has_not_slept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(SimulatedHat(parse("L1=10")), Config(), tmp_path / "csp1d.toml")
    reading = Reading(1, time.monotonic_ns(), 1.0, {}, 50.0, 4000, 0)
    daemon._sampler._record([reading])
    clock, held_ns = time.monotonic_ns, [500_000_000]
    monkeypatch.setattr(time, "monotonic_ns", lambda: clock() + (held_ns.pop() if held_ns else 0))
    daemon._check_sleep()
    daemon._check_sleep()
    assert daemon._sampler.reading == reading
    daemon._stop()


@pytest.mark.usefixtures("signals")
def test_a_new_time_zone_counts_from_the_next_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "csp1d.toml"
    file.write_text('[p1]\nprofile = "smr5"\nrequest.always = true\n[http]\nlisten = ""\n')
    monkeypatch.setattr("csp1d.interfaces.journal.set_up", lambda level: None)
    monkeypatch.setattr(time, "time", lambda: 1e9)

    def time_sent() -> str:
        daemon._publish(Reading(1, time.monotonic_ns(), 1.0, {}, 50.0, 4000, 0))
        return daemon._sender.last_telegram.decode().split("0-0:1.0.0(")[1][:13]

    try:
        monkeypatch.setenv("TZ", "UTC0")
        time.tzset()
        daemon = Daemon(SimulatedHat(parse("L1=10")), load(file), file)
        assert time_sent()[6:8] == "01"
        monkeypatch.setenv("TZ", "JST-9")
        file.write_text(file.read_text().replace("smr5", "emucs"))
        daemon._reload()
        assert time_sent()[6:8] == "10"
    finally:
        monkeypatch.undo()
        time.tzset()
    daemon._stop()


@pytest.mark.usefixtures("signals")
def test_a_reading_is_waited_for_by_a_timer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timeouts may be late by 0.1 %: here by far more."""
    select_in_time = select.select
    late = 20
    monkeypatch.setattr(
        select, "select", lambda r, w, x, seconds: select_in_time(r, w, x, seconds + late)
    )
    for other in (SimulatedHat, Indicators):
        monkeypatch.setattr(other, "wake_ns", None)
    config = Config(http=HttpConfig(listen=""))
    daemon = Daemon(SimulatedHat(parse("L1=10")), config, tmp_path / "csp1d.toml")
    daemon.start()
    start_ns = time.monotonic_ns()
    daemon._sampler.wake_ns = start_ns + 50_000_000
    daemon._search_ns = start_ns + 3600 * 1_000_000_000
    daemon._wait()
    assert 0.05 < (time.monotonic_ns() - start_ns) / 1e9 < late / 2
    daemon._stop()


def test_without_any_device_the_daemon_runs_and_logs_each_once(tmp_path: Path) -> None:
    file = tmp_path / "csp1d.toml"
    file.write_text(
        CONFIG
        + f'socket = "{tmp_path}/http.sock"\n'
        + """
        [adc]
        device = "no-adc"
        [p1]
        device = "/dev/no-tty"
        [p1.request]
        chip = "/dev/no-gpiochip"
        [leds]
        p1 = "no:led"
        """
    )
    command = [sys.executable, "-m", "csp1d", "--config", str(file)]
    with (tmp_path / "log").open("w+") as errors:
        with child(command, cwd=ROOT, stderr=errors) as process:
            while " started" not in (tmp_path / "log").read_text():
                assert process.poll() is None
                time.sleep(0.05)
            # It reads for them each second.
            time.sleep(3)
            process.terminate()
            assert process.wait(10) == 0
        log = (tmp_path / "log").read_text()
    for message in (
        "ADC missing: ADC 'no-adc' not found; IIO devices:",
        "P1 port missing: /dev/no-tty not found; set p1.device",
        "request line missing: /dev/no-gpiochip not found; set p1.request.chip",
        "LED no:led missing: /sys/class/leds/no:led not found; set its name under [leds]",
    ):
        assert log.count(message) == 1, log
