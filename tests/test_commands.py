# SPDX-License-Identifier: Apache-2.0
"""The commands from outside: their output and exit codes."""

import io
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from csp1d import __version__
from csp1d.__main__ import main
from csp1d.config import Config, DirectionConfig, P1Config
from csp1d.events import Event
from csp1d.exits import printing
from csp1d.identity import identified
from csp1d.interfaces import journal
from csp1d.tool import ctl

ROOT = Path(__file__).parents[1]
GOLDEN = (ROOT / "tests/p1/golden-24A.p1").read_bytes()
DEVICE = """
[p1]
serial = "XMXCQA0000008879"
equipment_id = "E0000000000000000"
firmware_text = "XMX_P1CS_V05"
"""


def run(
    module: str, *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )


def csp1d(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return run("csp1d", *arguments, cwd=folder)


def csp1ctl(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    return run("csp1d.tool.ctl", *arguments, cwd=folder)


def put(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content)
    return folder / name


def test_a_rejected_file_sends_no_control_character_to_the_terminal(tmp_path: Path) -> None:
    put(tmp_path, "c.toml", '"\\u001b[2J" = 1')
    done = csp1d(tmp_path, "--config", "c.toml", "--check-config")
    assert done.returncode == 78
    assert done.stderr.startswith(b"csp1d: c.toml: ?[2J: ")


@pytest.mark.parametrize("first", [True, False])
def test_telegram_prints_the_golden_one(tmp_path: Path, first: bool) -> None:
    option = ("--config", put(tmp_path, "c.toml", DEVICE))
    command = ("telegram", "24", "24", "24")
    done = csp1ctl(tmp_path, *(option + command if first else command + option))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == GOLDEN


def test_telegram_leaves_out_what_emucs_does_not_measure(tmp_path: Path) -> None:
    config = DEVICE + 'profile = "emucs"\n[channels]\nL2.input = ""\n'
    done = csp1ctl(
        tmp_path, "--config", put(tmp_path, "c.toml", config), *["telegram", "24.12", "1", "9"]
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\r\n1-0:31.7.0(024.12*A)\r\n1-0:71.7.0(009.00*A)\r\n" in done.stdout


def test_telegram_has_the_identity_of_this_machine(tmp_path: Path) -> None:
    done = csp1ctl(tmp_path, "--config", put(tmp_path, "c.toml", ""), "telegram", "1", "2", "3")
    assert done.stdout.startswith(f"/XMX5{identified(P1Config()).serial}\r\n".encode())


def test_a_doubtful_configuration_is_valid_with_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "c.toml", '[direction]\nreference = "voltage"\n')
    done = csp1d(tmp_path, "--config", "c.toml", "--check-config")
    assert (done.returncode, done.stdout) == (0, b"c.toml: OK\n")
    assert done.stderr.startswith(
        b'csp1d: warning: c.toml: direction.export_current: export is sent as "magnitude": '
    )
    assert done.stderr.count(b"\n") == 1


def test_telegram_prints_the_configured_profile(tmp_path: Path) -> None:
    option = ("--config", put(tmp_path, "c.toml", DEVICE + 'profile = "smr5"\n'))
    done = csp1ctl(tmp_path, "telegram", "24", "10.4", "0.5", *option)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\r\n1-3:0.2.8(50)\r\n" in done.stdout
    assert done.stdout.endswith(b"\r\n")


@pytest.mark.parametrize("currents", [["1", "2", "-3"], ["1", "2", "--", "-3e0"]])
def test_telegram_accepts_currents_below_zero_with_a_direction(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], currents: list[str]
) -> None:
    config = Config(
        p1=P1Config(nominal_voltage=230), direction=DirectionConfig(reference="voltage")
    )
    monkeypatch.setattr(ctl, "load", lambda path: config)
    monkeypatch.setattr(sys, "argv", ["csp1ctl", "telegram", *currents])
    assert ctl.main() == 0
    assert b"1-0:62.7.0(00.690*kW)\r\n" in capfdbinary.readouterr().out


# Files in a folder, the command run there, its exit code and its message.
ENDS: dict[str, tuple[dict[str, str], list[str], int, str]] = {
    "a good configuration": (
        {"c.toml": DEVICE},
        ["csp1d", "--config", "c.toml", "--check-config"],
        0,
        "c.toml: OK",
    ),
    "a missing configuration": (
        {},
        ["csp1d", "--config", "c.toml", "--check-config"],
        78,
        "csp1d: c.toml: cannot be read: No such file or directory",
    ),
    "a missing configuration in csp1ctl": (
        {},
        ["csp1ctl", "telegram", "1", "2", "3", "--config", "c.toml"],
        78,
        "csp1ctl: c.toml: cannot be read: No such file or directory",
    ),
    "a missing certificate": (
        {"c.toml": "[http]\ntls_certificate = 'a.pem'\ntls_key = 'b.pem'"},
        ["csp1d", "--config", "c.toml", "--check-config"],
        78,
        "csp1d: c.toml: http.tls_certificate: 'a.pem' cannot be read: No such file",
    ),
    "an unknown key": (
        {"c.toml": "[adc]\ndevise = 'x'"},
        ["csp1d", "--config", "c.toml", "--check-config"],
        78,
        "csp1d: c.toml: adc.devise: unknown key; did you mean 'device'?",
    ),
    "a wrong type": (
        {"c.toml": "[channels.L1]\nburden_ohms = '20'"},
        ["csp1d", "--config", "c.toml"],
        78,
        "csp1d: c.toml: channels.L1.burden_ohms: must be a number, got '20'",
    ),
    "two phases on one input": (
        {"c.toml": "[channels.L2]\ninput = 'voltage0'"},
        ["csp1d", "--config", "c.toml"],
        78,
        "csp1d: c.toml: channels.L2.input: 'voltage0' is already the input of L1; each phase",
    ),
    "an unreadable file": (
        {"c.toml/x": ""},
        ["csp1d", "--config", "c.toml"],
        78,
        "csp1d: c.toml: cannot be read: Is a directory",
    ),
    "a configuration error in csp1ctl": (
        {"c.toml": "[p1]\nserial = 1"},
        ["csp1ctl", "--config", "c.toml", "telegram", "1", "2", "3"],
        78,
        "csp1ctl: c.toml: p1.serial: must be a string, got 1",
    ),
    "a missing device": (
        {"c.toml": "[adc]\ndevice = 'no-adc'"},
        ["csp1ctl", "--config", "c.toml", "record", "1", "capture"],
        69,
        "csp1ctl: ADC 'no-adc' not found; IIO devices: ",
    ),
    "a wrong scenario": (
        {},
        ["csp1d", "--simulate", "L1=x"],
        2,
        "csp1d: L1=x: amperes.L1: must be a number, got 'x'",
    ),
    "a current that is no number": (
        {},
        ["csp1ctl", "telegram", "1", "2", "x"],
        2,
        "must be a number of amperes, got 'x'",
    ),
    "a current below zero": (
        {},
        ["csp1ctl", "telegram", "1", "2", "-3"],
        2,
        "csp1ctl: -3 A cannot be sent: "
        "a negative current is export, which requires direction.reference",
    ),
    "a phase twice": (
        {},
        ["csp1d", "--simulate", "L1=24,L1=3"],
        2,
        "csp1d: L1=24,L1=3: amperes.L1: is given twice",
    ),
    "an infinite current": (
        {},
        ["csp1ctl", "telegram", "1", "2", "inf"],
        2,
        "must be a number of amperes, got 'inf'",
    ),
    "too few currents": ({}, ["csp1ctl", "telegram", "1", "2"], 2, "required: L3"),
    "no command": ({}, ["csp1ctl"], 2, "required: COMMAND"),
    "a time of 0": (
        {},
        ["csp1ctl", "record", "0", "x"],
        2,
        "must be a number of seconds above 0, at most 86400, got '0'",
    ),
    "a time that no clock has": (
        {},
        ["csp1ctl", "record", "1e306", "x"],
        2,
        "must be a number of seconds above 0, at most 86400, got '1e306'",
    ),
    "a missing capture by its description": (
        {},
        ["csp1ctl", "replay", "nothing.json"],
        2,
        "csp1ctl: nothing.json: No such file",
    ),
    "a missing capture": (
        {},
        ["csp1ctl", "replay", "nothing"],
        2,
        "csp1ctl: nothing.json: No such file",
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_each_error_has_its_exit_code_and_message(tmp_path: Path, case: str) -> None:
    files, (program, *arguments), code, message = ENDS[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        put(tmp_path, name, content)
    done = {"csp1d": csp1d, "csp1ctl": csp1ctl}[program](tmp_path, *arguments)
    output = (done.stdout + done.stderr).decode()
    assert message in output
    assert done.returncode == code
    assert "Traceback" not in output


def test_the_service_manager_gets_the_reason_if_csp1d_does_not_start(tmp_path: Path) -> None:
    put(tmp_path, "c.toml", "[adc]\ndevise = 'x'\n[p1]\nserial = 1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        module = ("csp1d", "--config", "c.toml")
        assert (
            run(*module, "--check-config", cwd=tmp_path, environment=environment).returncode == 78
        )
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
        assert run(*module, cwd=tmp_path, environment=environment).returncode == 78
        assert manager.recv(4096).decode() == (
            "STATUS=Configuration rejected: c.toml: adc.devise: unknown key; did you mean 'device'?"
        )


@pytest.fixture
def journal_entries(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """What this process sends to the journal, which it takes for its standard error."""
    from systemd.journal import JournalHandler

    entries: list[dict[str, str]] = []

    def send(*message: str, **fields: str) -> None:
        entries.append({"MESSAGE": message[0], **fields})

    log = logging.getLogger("csp1d")
    before = log.level, log.propagate
    monkeypatch.setattr(journal, "listens", lambda: True)
    monkeypatch.setattr(journal, "_journal", lambda: JournalHandler(sender_function=send))
    yield entries
    log.handlers.clear()
    log.level, log.propagate = before


def test_a_rejected_configuration_is_an_event_for_each_problem(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    journal_entries: list[dict[str, str]],
) -> None:
    file = put(tmp_path, "c.toml", "[adc]\ndevise = 'x'\n[p1]\nserial = 1")
    monkeypatch.setattr(sys, "argv", ["csp1d", "--config", str(file)])
    assert main() == 78
    assert capsys.readouterr().err == ""
    devise, serial = journal_entries
    assert devise["MESSAGE"] == (
        f"configuration rejected: {file}: adc.devise: unknown key; did you mean 'device'?"
    )
    assert devise["MESSAGE_ID"] == Event.CONFIGURATION_REJECTED.message_id
    assert devise["PRIORITY"] == "3"
    assert devise["CSP1D_EVENT"] == "configuration-rejected"
    assert devise["CSP1D_FILE"] == str(file)
    assert devise["CSP1D_KEY"] == "adc.devise"
    assert serial["CSP1D_KEY"] == "p1.serial"
    assert serial["CSP1D_REASON"] == "must be a string, got 1"


def test_an_internal_error_is_an_event_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    journal_entries: list[dict[str, str]],
) -> None:
    def fault(path: Path) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("csp1d.__main__.load", fault)
    monkeypatch.setattr(sys, "argv", ["csp1d"])
    assert main() == 70
    assert capsys.readouterr().err == ""
    (entry,) = journal_entries
    assert entry["CSP1D_EVENT"] == "internal-error"
    assert entry["PRIORITY"] == "3"
    assert "Traceback" in entry["MESSAGE"]
    assert "RuntimeError: unforeseen" in entry["MESSAGE"]


@pytest.mark.parametrize("error", [ZeroDivisionError(), ImportError("x", name="csp1d.p1")])
def test_an_internal_error_is_printed_without_a_journal(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fault(path: Path) -> None:
        raise error

    monkeypatch.setattr("csp1d.__main__.load", fault)
    monkeypatch.setattr(sys, "argv", ["csp1d"])
    assert main() == 70
    output = capsys.readouterr().err
    assert type(error).__name__ in output
    assert output.endswith("csp1d: internal error, please report it with the lines above\n")


def test_a_python_without_debians_packages_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(path: Path) -> None:
        # The folder systemd/ of a clone looks like the package.
        raise ImportError("cannot import name 'id128' from 'systemd'", name="systemd")

    monkeypatch.setattr("csp1d.__main__.load", load)
    monkeypatch.setattr(sys, "argv", ["csp1d"])
    assert main() == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"csp1d: {sys.executable}: cannot import name 'id128'")
    assert line.endswith("use /usr/bin/python3")


@pytest.mark.parametrize(
    ("command", "unbuffered"),
    [
        # Unbuffered, argparse itself ignores the error, except in the Python of Debian 12.
        ("csp1d --version", ""),
        ("csp1d --config c --check-config", ""),
        ("csp1d --config c --check-config", "1"),
        ("csp1d.tool.ctl --config c telegram 1 2 3", ""),
        ("csp1d.tool.ctl --config c telegram 1 2 3", "1"),
    ],
)
def test_an_output_that_cannot_be_written_is_no_bug(
    tmp_path: Path, command: str, unbuffered: str
) -> None:
    put(tmp_path, "c", "")
    program = "csp1ctl" if "ctl" in command else "csp1d"
    reader, closed = os.pipe()
    os.close(reader)
    for output, code, message in (
        (os.open("/dev/full", os.O_WRONLY), 70, "cannot write the output: No space left on device"),
        (closed, 0, ""),
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command.split()],
            stdout=output,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered},
        )
        os.close(output)
        expected = f"{program}: {message}\n" if message else ""
        assert (done.returncode, done.stderr.decode()) == (code, expected)


def test_a_simulation_whose_addresses_cannot_be_printed_does_not_start(tmp_path: Path) -> None:
    put(tmp_path, "c", '[http]\nlisten = ""\nsocket = ""\n')
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "csp1d", "--config", "c", "--simulate"],
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            check=False,
            timeout=30,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    error = done.stderr.decode().splitlines()
    assert (done.returncode, error) == (
        70,
        ["csp1d: cannot write the output: No space left on device"],
    )


def test_what_the_output_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    for errors, text, expected in (
        ("strict", "Łódź, Zürich", b"\\u0141\xf3d\\u017a, Z\xfcrich\n"),
        # As in the C locale: the name of a file is printed as it is.
        ("surrogateescape", "\udcff", b"\xff\n"),
    ):
        written = io.BytesIO()
        output = io.TextIOWrapper(written, encoding="latin-1", errors=errors)
        monkeypatch.setattr(sys, "stdout", output)
        with printing("csp1ctl"):
            print(text)
        assert written.getvalue() == expected


def test_a_telegram_without_an_output_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = put(tmp_path, "c", "")
    monkeypatch.setattr(sys, "argv", ["csp1ctl", "--config", str(file), "telegram", "1", "2", "3"])
    monkeypatch.setattr(sys, "stdout", None)
    assert ctl.main() == 70
    assert capsys.readouterr().err == "csp1ctl: standard output is closed\n"


def test_a_check_without_a_file_names_what_applies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "csp1d.toml"
    for module in ("csp1d.__main__", "csp1d.config_file"):
        monkeypatch.setattr(f"{module}.DEFAULT_PATH", file)
    monkeypatch.setattr(sys, "argv", ["csp1d", "--check-config"])
    assert main() == 0
    assert capsys.readouterr().out == f"{file} not found, using defaults\n"
    (tmp_path / "csp1d.toml.d").mkdir()
    put(tmp_path, "csp1d.toml.d/10-hat.toml", "[adc]\ndevice = 'x'\n")
    assert main() == 0
    assert capsys.readouterr().out == f"{file} not found, using defaults and {file}.d\n"


@pytest.mark.parametrize("program", [csp1d, csp1ctl])
def test_version(tmp_path: Path, program: type[object]) -> None:
    output = program(tmp_path, "--version").stdout  # type: ignore[call-arg,attr-defined]
    assert output.decode().split()[1] == __version__


def quiet_capture(folder: Path, scans: int) -> None:
    """Nothing flows, at 1 kS/s."""
    channel = {"id": "voltage0", "phase": "L1", "index": 0, "type": "le:s16/16>>0"}
    description = {
        "sampling_frequency_hz": 1000,
        "scan_bytes": 2,
        "channels": [{**channel, "scale": 0.05, "offset": 0}],
        "timestamp": None,
    }
    put(folder, "quiet.json", json.dumps(description))
    # The least noise of a working ADC.
    (folder / "quiet.bin").write_bytes((b"\0\0\1\0" * scans)[: 2 * scans])


@pytest.mark.parametrize("scans", [0, 900])
def test_replay_reports_why_there_is_no_reading(tmp_path: Path, scans: int) -> None:
    quiet_capture(tmp_path, scans)
    done = csp1ctl(tmp_path, "replay", "quiet")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"quiet: no reading: the capture is shorter than one second, or too many" in done.stderr


def test_replay_prints_a_line_per_reading(tmp_path: Path) -> None:
    quiet_capture(tmp_path, 3500)
    done = csp1ctl(tmp_path, "replay", "quiet")
    assert done.returncode == 0, done.stderr
    readings = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(reading) for reading in readings] == [
        {
            "end_ns",
            "window_seconds",
            "frequency_hertz",
            "scans",
            "lost_scans",
            "current_amperes",
            "active_current_amperes",
            "clipped_samples",
        }
    ] * 3
    assert [reading["current_amperes"] for reading in readings] == [{"L1": 0.0}] * 3
