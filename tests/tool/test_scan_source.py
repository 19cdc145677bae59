# SPDX-License-Identifier: Apache-2.0
"""Scans from a running daemon, and from the ADC where none runs."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from signals import hat_format

from csp1d.config import ChannelConfig, Config, DirectionConfig, HttpConfig
from csp1d.errors import DeviceError
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.interfaces.http import SocketServer
from csp1d.interfaces.pages import pages
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.recent import MOST_BYTES, RecentScans
from csp1d.tool import ctl, scan_source
from csp1d.tool.capture import load
from csp1d.tool.client import Client, NoAnswerError
from csp1d.tool.scan_source import ScanSource, open_source
from csp1d.units import SECOND_NS

ROOT = Path(__file__).parents[2]
FORMAT = hat_format(rate=1000)
SIZE = FORMAT.scan_bytes
RATE = 1000


class FakeDaemon:
    """Serves scans, each of which holds its number. One read per second of its clock."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.config = Config(http=HttpConfig(listen="", socket=str(path)))
        self.recent: RecentScans | None = None
        self.now_ns = 100 * SECOND_NS
        self.rate = RATE
        self.format = FORMAT
        self.is_stalled = False
        self.at_next_sleep: Callable[[], None] | None = None
        self.stop: Callable[[], None]
        """Ends the daemon."""
        self.slept_seconds = 0.0
        self.set_up()
        clock = SimpleNamespace(
            monotonic_ns=lambda: self.now_ns,
            monotonic=lambda: self.now_ns / SECOND_NS,
            sleep=self._sleep,
        )
        monkeypatch.setattr("csp1d.interfaces.pages.time", clock)
        monkeypatch.setattr("csp1d.tool.scan_source.time", clock)

    def set_up(self) -> None:
        """Set the ADC up again."""
        self._recording = RecentScans(self.format, self.now_ns)
        self._read_ns, self._number = self.now_ns, 0

    def run(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)
        while self.now_ns - self._read_ns >= SECOND_NS:
            self._read_ns += SECOND_NS
            if not self.is_stalled:
                first, self._number = self._number, self._number + self.rate
                data = b"".join(n.to_bytes(SIZE, "little") for n in range(first, self._number))
                self._recording = self._recording.append(data, self._read_ns)
                self.recent = self._recording

    def _sleep(self, seconds: float) -> None:
        self.slept_seconds += seconds
        if self.at_next_sleep:
            self.at_next_sleep()
            self.at_next_sleep = None
        self.run(seconds)

    def snapshot(self) -> Snapshot:
        return Snapshot(recent=self.recent)


@pytest.fixture
def daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path / "sock", monkeypatch)
    with contextlib.ExitStack() as servers:
        server = SocketServer(fake.config.http.socket, pages(fake.snapshot))
        servers.callback(server.close)
        fake.stop = servers.close
        yield fake


def numbers(chunks: Iterator[bytes]) -> list[int]:
    data = b"".join(chunks)
    return [int.from_bytes(data[i : i + SIZE], "little") for i in range(0, len(data), SIZE)]


def recorded(daemon: FakeDaemon, seconds: float) -> tuple[list[int], list[float]]:
    """The scans, and the progress that was shown."""
    shown: list[float] = []
    with open_source(daemon.config) as source:
        assert source.format == daemon.format
        assert source.warning == ""
        return numbers(source.chunks(seconds, shown.append)), shown


def test_the_last_scans_are_there_at_once(daemon: FakeDaemon) -> None:
    daemon.run(30)
    assert recorded(daemon, 4) == (list(range(26_000, 30_000)), [4.0])
    assert recorded(daemon, 0.25) == (list(range(29_750, 30_000)), [0.25])
    assert daemon.slept_seconds == 0


def test_those_that_follow_continue_the_last_ones_without_a_gap_or_a_repeat(
    daemon: FakeDaemon,
) -> None:
    daemon.run(30)
    scans, shown = recorded(daemon, 60)
    assert scans == list(range(20_000, 80_000))
    assert daemon.slept_seconds == pytest.approx(50, abs=1)
    assert shown == pytest.approx([10, *range(11, 61)])


def test_of_an_adc_that_was_just_set_up_all_scans_are_taken(daemon: FakeDaemon) -> None:
    daemon.run(1)
    assert recorded(daemon, 12)[0] == list(range(12_000))


@pytest.mark.parametrize("hertz", [0, 1600])
def test_a_rate_that_the_driver_does_not_report_is_measured(
    daemon: FakeDaemon, hertz: float
) -> None:
    daemon.format = replace(FORMAT, sampling_frequency_hz=hertz)
    daemon.set_up()
    daemon.run(1)
    assert recorded(daemon, 3)[0] == list(range(3000))


def test_the_adc_of_a_daemon_that_has_no_scans_yet_is_left_to_it(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(DeviceError, match="no scans since its start: see csp1ctl status; to record"),
        own_adc(daemon.config, monkeypatch),
    ):
        pytest.fail("not refused")


def test_a_daemon_with_another_configuration_says_so(daemon: FakeDaemon) -> None:
    daemon.run(20)
    channels = replace(daemon.config.channels, L2=ChannelConfig(input=""))
    with open_source(replace(daemon.config, channels=channels)) as source:
        assert source.warning == (
            "csp1d runs with another configuration, and these are its inputs:"
            " L1 voltage0, L2 voltage1, L3 voltage2"
        )
    # An ADC without the configured reference is no other configuration; one with it may be.
    on, off = DirectionConfig(reference="voltage"), DirectionConfig()
    for has_reference, direction, is_other in ((False, on, False), (True, off, True)):
        daemon.format = hat_format(rate=RATE, reference=has_reference)
        daemon.set_up()
        daemon.run(1)
        with open_source(replace(daemon.config, direction=direction)) as source:
            assert bool(source.warning) == is_other


def test_scans_of_an_adc_that_has_stopped_come_with_a_warning(daemon: FakeDaemon) -> None:
    daemon.run(20)
    daemon.is_stalled = True
    daemon.run(3600)
    with open_source(daemon.config) as source:
        assert source.warning.startswith("the ADC has delivered nothing for 3600 s: these are its")
        assert numbers(source.chunks(2, lambda _: None)) == list(range(18_000, 20_000))


def ends_early(daemon: FakeDaemon, seconds: float, reason: str) -> list[int]:
    """The scans before the recording ended with this reason."""
    chunks: list[bytes] = []
    with open_source(daemon.config) as source, pytest.raises(DeviceError, match=reason):
        # Unlike that of list(), the result is not lost.
        chunks.extend(source.chunks(seconds, lambda _: None))
    return numbers(iter(chunks))


def test_an_adc_that_stops_ends_the_recording(daemon: FakeDaemon) -> None:
    daemon.run(20)
    daemon.is_stalled = True
    scans = ends_early(daemon, 30, "the ADC has delivered nothing for 5 s; see csp1ctl status")
    assert scans == list(range(10_000, 20_000))


def test_an_adc_that_is_set_up_again_ends_the_recording(daemon: FakeDaemon) -> None:
    daemon.run(20)
    daemon.at_next_sleep = daemon.set_up
    scans = ends_early(daemon, 30, "csp1d has set up its ADC again; see journalctl -u csp1d, and")
    assert scans == list(range(10_000, 20_000))


def test_a_daemon_that_stops_ends_the_recording(daemon: FakeDaemon) -> None:
    daemon.run(20)
    daemon.at_next_sleep = daemon.stop
    scans = ends_early(daemon, 30, r"no answer from .*; is csp1d running")
    assert scans == list(range(10_000, 20_000))


def test_scans_that_were_not_fetched_in_time_are_a_gap_that_ends_the_recording(
    daemon: FakeDaemon,
) -> None:
    daemon.run(20)
    daemon.at_next_sleep = lambda: daemon.run(15)
    scans = ends_early(daemon, 30, "csp1d keeps only the last 10000 scans, and more have come in")
    assert scans == list(range(10_000, 20_000))


def test_the_oldest_scans_may_be_dropped_just_before_they_are_fetched(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.run(20)
    get, seconds = Client.get, [3.0, 2.0]

    def late(self: Client, target: str, *most: int) -> bytes:
        if target.startswith("/capture.bin") and seconds:
            daemon.run(seconds.pop())
        return get(self, target, *most)

    monkeypatch.setattr(Client, "get", late)
    assert recorded(daemon, 12)[0] == list(range(15_000, 27_000))


def test_all_that_is_kept_is_within_the_limit_of_an_answer(daemon: FakeDaemon) -> None:
    daemon.rate = MOST_BYTES // SIZE
    daemon.run(1)
    daemon.rate = 1
    with open_source(daemon.config) as source:
        chunk = next(source.chunks(1e6, lambda _: None))
    assert len(chunk) == MOST_BYTES


def test_another_answer_is_refused(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.run(3)
    description = Client(daemon.config.http).get("/capture.json")
    wrong = [
        b"",
        b"[]",
        b"[" * 100_000,
        *(
            json.dumps({**json.loads(description), key: value}).encode()
            for key, value in {"first": None, "scans_per_second": "x", "scan_bytes": 7}.items()
        ),
    ]
    for body in wrong:
        monkeypatch.setattr(Client, "get", lambda self, target, body=body: body)
        with pytest.raises(NoAnswerError, match=r"in another way .* restart it if it is older"):
            recorded(daemon, 1)


@contextlib.contextmanager
def own_adc(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScanSource]:
    hat = SimulatedHat(parse("L1=5"))
    monkeypatch.setattr("csp1d.hat.kernel.KernelHat", lambda: hat)
    with open_source(config) as source:
        assert isinstance(source, scan_source.AdcScans)
        yield source


@pytest.mark.parametrize("socket", ["", "none", "left behind"])
def test_without_a_daemon_the_scans_come_from_the_adc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, socket: str
) -> None:
    path = str(tmp_path / socket) if socket else ""
    if socket == "left behind":
        server = SocketServer(str(tmp_path / "s"), {})
        (tmp_path / "s").rename(path)
        server.close()
    with own_adc(Config(http=HttpConfig(socket=path)), monkeypatch) as source:
        data = b"".join(source.chunks(0.5, lambda _: None))
    # A busy machine may read late.
    assert 1600 <= len(data) // source.format.scan_bytes < 8000


def test_the_adc_of_a_daemon_that_does_not_answer_is_left_alone(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get(self: Client, target: str) -> bytes:
        raise NoAnswerError("timed out")

    monkeypatch.setattr(Client, "get", get)
    with (
        pytest.raises(NoAnswerError, match="timed out"),
        own_adc(daemon.config, monkeypatch),
    ):
        pytest.fail("not refused")


def test_record_keeps_what_came_before_the_end(
    daemon: FakeDaemon,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "c.toml").write_text(f'[http]\nsocket = "{daemon.config.http.socket}"\n')

    def record(seconds: float) -> tuple[int, str]:
        words = ["csp1ctl", "--config", tmp_path / "c.toml", "record", seconds, tmp_path / "x"]
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        return ctl.main(), capsys.readouterr().err

    daemon.run(20)
    assert record(3) == (0, f"3000 scans in {tmp_path}/x.bin\n")
    assert numbers(load(tmp_path / "x").chunks()) == list(range(17_000, 20_000))
    daemon.is_stalled = True
    code, messages = record(30)
    assert (code, messages.count("\n")) == (69, 1)
    assert messages.startswith("csp1ctl: the ADC has delivered nothing for 5 s")
    assert numbers(load(tmp_path / "x").chunks()) == list(range(10_000, 20_000))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_recording_as_ctrl_c_does(
    daemon: FakeDaemon, tmp_path: Path, number: signal.Signals
) -> None:
    daemon.run(20)
    (tmp_path / "c.toml").write_text(f'[http]\nsocket = "{daemon.config.http.socket}"\n')
    command = [sys.executable, "-m", "csp1d.tool.ctl", "--config", f"{tmp_path}/c.toml"]
    # These tests may run under nohup, whose children ignore SIGHUP.
    clean = ["env", "--default-signal", *command]
    process = subprocess.Popen([*clean, "record", "30", f"{tmp_path}/x"], cwd=ROOT)
    end = time.monotonic() + 20
    while not any(path.stat().st_size for path in tmp_path.glob(".x.bin.*")):
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(10) == 130
    assert sorted(path.name for path in tmp_path.glob("*x*")) == ["x.bin", "x.json"]
    assert numbers(load(tmp_path / "x").chunks()) == list(range(10_000, 20_000))
