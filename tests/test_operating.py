# SPDX-License-Identifier: Apache-2.0
"""The operator's commands on a daemon that runs on the HAT in memory."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import make_certificate
from child import child
from states import DROPPED, END_NS, FAILED, MEASURING, READING, UNIX_SECONDS
from test_commands import csp1ctl, put
from test_daemon import ROOT, Running, get, running

from csp1d import __version__
from csp1d.config_file import load
from csp1d.interfaces.http import SocketServer
from csp1d.interfaces.router import Page
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import DirectionReading
from csp1d.status import to_json
from csp1d.tool.ctl import main

# Three ADC inputs of 12 bits, with a noise of a whole code: 0.08 A.
TWELVE_BITS = "".join(
    f'[channels.{phase}]\ntype = "le:u12/16>>0"\n' for phase in ("L1", "L2", "L3")
)
ERRORS = "gain_error_percent = { L1 = 3.7, L2 = -3.7, L3 = 0 }"


@pytest.fixture
def config(tmp_path: Path) -> str:
    return f'[http]\nlisten = "127.0.0.1:0"\nsocket = "{tmp_path}/http.sock"\n{TWELVE_BITS}'


@contextlib.contextmanager
def playing(folder: Path, config: str, step: str) -> Iterator[Running]:
    """A daemon that has made a reading."""
    scenario = put(folder, "scenario.toml", f"[[step]]\n{step}\n")
    with running(folder, "--simulate", str(scenario), config=config) as daemon:
        await_reading(folder)
        yield daemon


def await_reading(folder: Path) -> None:
    end = time.monotonic() + 20
    while b'"sequence": ' not in ctl(folder, "status", "--json", code=None):
        assert time.monotonic() < end
        time.sleep(0.2)


def ctl(folder: Path, *arguments: str, code: int | None = 0) -> bytes:
    done = csp1ctl(folder, *arguments, "--config", folder / "csp1d.toml")
    if code is not None:
        assert done.returncode == code, done.stderr.decode()
    return done.stdout + done.stderr


def amperes(folder: Path) -> dict[str, float]:
    reading = json.loads(ctl(folder, "status", "--json", code=None))["reading"]
    return {phase: current["rms_amperes"] for phase, current in reading["phases"].items()}


def reload(folder: Path, daemon: Running) -> None:
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("configuration reloaded")
    await_reading(folder)


def test_a_calibration_takes_a_gain_error_and_the_noise_out(tmp_path: Path, config: str) -> None:
    with playing(tmp_path, config, ERRORS) as daemon:
        told = ctl(tmp_path, "calibrate", "zero", "--yes").decode()
        assert f"It applies when csp1d reloads {tmp_path}/csp1d.toml" in told
        reload(tmp_path, daemon)
        assert amperes(tmp_path) == {"L1": 0, "L2": 0, "L3": 0}
    load_10_a = f"amperes = {{ L1 = 10.02, L2 = 9.87, L3 = 5 }}\n{ERRORS}"
    with playing(tmp_path, config, load_10_a) as daemon:
        assert amperes(tmp_path)["L1"] == pytest.approx(10.02 * 1.037, rel=1e-3)
        told = ctl(tmp_path, "calibrate", "gain", "--yes", "L1=10.02", "L2=9.87").decode()
        assert re.search(r"L1 +10\.02 A +10\.39 A +10\.02 A +1\.0000 -> 0\.964\d\n", told)
        reload(tmp_path, daemon)
        assert amperes(tmp_path) == pytest.approx({"L1": 10.02, "L2": 9.87, "L3": 5}, rel=1e-3)
    channels = load(tmp_path / "csp1d.toml").channels
    assert channels.L1.gain == pytest.approx(1 / 1.037, rel=1e-3)
    assert channels.L2.gain == pytest.approx(1 / 0.963, rel=1e-3)
    assert channels.L3.gain == 1
    # At another load as well, and with nothing flowing.
    with playing(tmp_path, config, f"amperes = {{ L1 = 40, L2 = 2 }}\n{ERRORS}"):
        read = amperes(tmp_path)
        assert read["L1"] == pytest.approx(40, rel=1e-3)
        assert read["L2"] == pytest.approx(2, rel=5e-3)
        assert read["L3"] == 0


def test_watch_in_a_terminal_survives_a_restart_and_ends_with_ctrl_c(
    tmp_path: Path, config: str
) -> None:
    scenario = ["--simulate", "L1=24,L2=10.5"]
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running(tmp_path, *scenario, config=config))
        await_reading(tmp_path)
        terminal = stack.enter_context(Terminal(tmp_path, "watch", "--fuse", "25"))
        terminal.shows(r"L1[^\n]*24\.00 A[^\n]*of 25 A")
        terminal.shows(r"\d\.\d per second")
        daemon.process.terminate()
        daemon.process.wait(10)
        terminal.shows("no answer from csp1d; retrying")
        stack.enter_context(running(tmp_path, *scenario, config=config))
        terminal.shows("csp1d is available again")
        terminal.shows(r"L2[^\n]*10\.50 A")
        terminal.type("\x03")
        assert terminal.process.wait(10) == 0
        # The cursor is back, and the screen of before.
        terminal.shows(r"\x1b\[\?25h")
        terminal.shows(r"\x1b\[\?1049l")


def test_watch_without_a_terminal_prints_a_line_a_second(tmp_path: Path, config: str) -> None:
    with playing(tmp_path, config, "amperes = { L1 = 24 }"):
        command = [sys.executable, "-m", "csp1d.tool.ctl", "watch"]
        command += ["--config", str(tmp_path / "csp1d.toml")]
        with child(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            lines = [process.stdout.readline() for _ in range(3)]
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
    assert len({line.split()[0] for line in lines}) == 3, "one in each second"
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d L1 (24\.0|23\.9)\d A  L2 0\.00 A  ", line)


@pytest.mark.parametrize("network", ["client certificates", "none"])
def test_the_tools_work_whatever_the_network_gets(
    tmp_path: Path, config: str, network: str
) -> None:
    if network == "none":
        config = config.replace("127.0.0.1:0", "")
    else:
        certificate, key = make_certificate(tmp_path, "sensor")
        names = f'tls_certificate = "{certificate}"\ntls_key = "{key}"\n'
        config = config.replace("[http]\n", f'[http]\n{names}tls_client_ca = "{certificate}"\n')
    # Without a request no telegram is dropped, although none is read.
    with playing(tmp_path, config, 'amperes = { L1 = 10 }\nrequest = "low"') as daemon:
        assert daemon.url.startswith("https://" if network != "none" else "off")
        status = ctl(tmp_path, "status").decode()
        assert status.startswith(f"csp1d {__version__} at {tmp_path}/http.sock\n")
        with Terminal(tmp_path, "watch") as terminal:
            terminal.shows(r"L1[^\n]* (10\.0|9\.9)\d A")
        ctl(tmp_path, "calibrate", "gain", "--yes", "L1=9")
        ctl(tmp_path, "record", "1", str(tmp_path / "house"))
        # As forwarded by ssh.
        assert b"<title>csp1d</title>" in get(tmp_path / "http.sock", "/")
    assert load(tmp_path / "csp1d.toml").channels.L1.gain == pytest.approx(0.9, rel=2e-3)


@pytest.mark.parametrize("command", [["status"], ["watch"], ["calibrate", "zero"]])
def test_without_a_daemon_or_without_its_socket_there_is_nothing_to_ask(
    tmp_path: Path, config: str, command: list[str]
) -> None:
    put(tmp_path, "csp1d.toml", config)
    told = ctl(tmp_path, *command, code=69).decode()
    assert told.startswith(f"csp1ctl: no answer from {tmp_path}/http.sock: No such file or dir")
    put(tmp_path, "csp1d.toml", '[http]\nsocket = ""\n')
    assert ctl(tmp_path, *command, code=69).startswith(b'csp1ctl: http.socket is ""')


class Answering:
    """A server that answers on http.sock for csp1d, as the user of the tests."""

    def __init__(self, folder: Path, body: bytes) -> None:
        page = Page("application/json", lambda: body)
        self._server = SocketServer(f"{folder}/http.sock", {"/status.json": page})

    def __enter__(self) -> None:
        """It serves already."""

    def __exit__(self, *raised: object) -> None:
        self._server.close()


DOUBTFUL = DirectionReading(None, frozenset(), "", "swap L1 and L2")


@pytest.mark.parametrize(
    ("state", "code", "line"),
    [
        (MEASURING, 0, "telegrams     2 sent, 1 aborted, 1 dropped; requests: 4"),
        (replace(MEASURING, problems=(DROPPED,)), 1, "- telegram dropped: port stuck"),
        (
            replace(MEASURING, reading=None, failed=FAILED),
            1,
            "L2            input failed: current unknown, no telegrams",
        ),
        (
            replace(MEASURING, reading=replace(READING, direction=DOUBTFUL)),
            0,
            "wiring        swap L1 and L2",
        ),
    ],
    ids=["a loss in the past", "a problem", "a failed input", "a wiring that may be right"],
)
def test_status_fails_while_there_is_a_problem(
    tmp_path: Path, config: str, state: Snapshot, code: int, line: str
) -> None:
    put(tmp_path, "csp1d.toml", config)
    with Answering(tmp_path, to_json(state.status(END_NS, UNIX_SECONDS))):
        assert line in ctl(tmp_path, "status", code=code).decode().splitlines()


def test_with_a_rejected_file_status_shows_the_daemon_that_continues(
    tmp_path: Path,
    config: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    valid = load(put(tmp_path, "valid.toml", config))
    put(tmp_path, "csp1d.toml", f"{config}\n[p2]\n")
    monkeypatch.setattr("csp1d.tool.ctl.Config", lambda: valid)
    monkeypatch.setattr(sys, "argv", ["csp1ctl", "--config", "csp1d.toml", "status"])
    with Answering(tmp_path, to_json(MEASURING.status(END_NS, UNIX_SECONDS))):
        assert main() == 78
    told = capsys.readouterr()
    assert told.err.startswith("csp1ctl: csp1d.toml: p2: unknown key")
    assert "50.020 Hz" in told.out
    for command in ("record", "calibrate"):
        arguments = {"record": ["1", "x"], "calibrate": ["zero"]}[command]
        monkeypatch.setattr(sys, "argv", ["csp1ctl", "--config", "csp1d.toml", command, *arguments])
        assert main() == 78
        assert "is csp1d running" not in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["csp1ctl", "--config", "csp1d.toml", "watch"])
    assert main() == 78, "without a daemon"
    assert "is csp1d running" in capsys.readouterr().err


CONTROL = "\x1b]0;title\x07\x1b[2J\r\x9b1A\u202e"


@pytest.mark.parametrize("command", [["status"], ["status", "--json"], ["watch"]])
def test_no_control_character_reaches_the_terminal(
    tmp_path: Path, config: str, command: list[str]
) -> None:
    put(tmp_path, "csp1d.toml", config)
    body = to_json(replace(Snapshot().status(0, 0.0), version=f"0.1{CONTROL}"))
    wrong = body.replace(b'"reading": null', b'"reading": {"phases": {"\\u001b[2J": {}}}')
    assert wrong != body
    raw = body.replace(b"0.1", b"0.1\x1b[2J\x7f")
    # There is no reading.
    good = 0 if command == ["watch"] else 1
    for served, code in ((body, good), (wrong, 69), (raw, 69)):
        with Answering(tmp_path, served):
            if command == ["watch"] and not code:
                with Terminal(tmp_path, "watch") as terminal:
                    terminal.shows("csp1d 0\\.1.]0;title..\\[2J")
            else:
                told = ctl(tmp_path, *command, code=code).decode()
                assert [c for c in told if not c.isprintable() and c != "\n"] == []


def test_discover_prints_a_configuration_that_is_good_and_does_not_mind_a_bad_one(
    tmp_path: Path,
) -> None:
    put(tmp_path, "csp1d.toml", "this is no TOML")
    done = csp1ctl(tmp_path, "discover", "--config", "csp1d.toml")
    assert done.returncode in (0, 69)
    assert b"(standard output; --output csp1d.toml.d/10-hat.toml saves it):" in done.stderr
    (tmp_path / "csp1d.toml").write_bytes(done.stdout)
    load(tmp_path / "csp1d.toml")


class Terminal:
    """A csp1ctl in a terminal of 80 columns and 24 lines."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._fd, theirs = pty.openpty()
        self._shown = ""
        command = [sys.executable, "-m", "csp1d.tool.ctl", *arguments]
        self.process = subprocess.Popen(
            [*command, "--config", str(folder / "csp1d.toml")],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            # Ctrl-C goes to the processes of the terminal.
            preexec_fn=lambda: os.login_tty(theirs),
        )
        os.close(theirs)

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *raised: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def shows(self, pattern: str) -> None:
        """Wait until it does; what it showed before does not count any more."""
        end = time.monotonic() + 20
        while not (found := re.search(pattern, self._shown)):
            if not select.select([self._fd], [], [], max(0, end - time.monotonic()))[0]:
                pytest.fail(f"{pattern!r} is not in {self._shown[-4000:]!r}")
            try:
                self._shown += os.read(self._fd, 4096).decode(errors="replace")
            except OSError:
                pytest.fail(f"it ended, and {pattern!r} is not in {self._shown[-4000:]!r}")
        self._shown = self._shown[found.start() :]
