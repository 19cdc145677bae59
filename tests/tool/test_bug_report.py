# SPDX-License-Identifier: Apache-2.0
"""The archive for a bug report: what is in it, what is not, and why."""

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from signals import codes_of, current, hat_format, pack, stamps_of
from states import MEASURING

from csp1d import __version__
from csp1d.config import Config, HttpConfig
from csp1d.config_file import load as load_config
from csp1d.hat.scenario import parse as parse_scenario
from csp1d.hat.simulated import SimulatedHat
from csp1d.interfaces.http import SocketServer
from csp1d.interfaces.pages import pages
from csp1d.measuring.recent import RecentScans
from csp1d.status import parse
from csp1d.tool import capture, ctl
from csp1d.tool.commands import report
from csp1d.units import SECOND_NS

JOURNAL = "2026-11-29T10:00:00.000000+00:00 csp1 csp1d[7]: csp1d 0.1.0 started\n"
SECRET = "c2VjcmV0IGtleQ"
MISSING = {"discover", "status", "metrics", "history", "journal", "capture"}


def recent(seconds: int) -> RecentScans:
    """Scans of 5, 10 and 20 A."""
    made = hat_format()
    recent = RecentScans(made, 0)
    start_ns = time.monotonic_ns() - (seconds - 1) * SECOND_NS
    for second in range(seconds):
        times = second + np.arange(4000) / 4000
        rows = [codes_of(current(times, 50.0, amperes)) for amperes in (5.0, 10.0, 20.0)]
        read_ns = start_ns + second * SECOND_NS
        recent = recent.append(pack(made, rows, stamps_of(times)), read_ns)
    return recent


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, and a journal."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    journalctl(tmp_path, f"printf '%s' '{JOURNAL}'")
    (tmp_path / "secret.pem").write_text(SECRET)
    (tmp_path / "c.toml").write_text(
        f'[http]\nsocket = "{tmp_path}/sock"\n'
        f'tls_certificate = "{tmp_path}/secret.pem"\ntls_key = "{tmp_path}/secret.pem"\n'
        '[channels.L1]\ngain = 1.5 # a remark \n[leds]\npower = "a\\u007f\\"b"\n'
    )
    monkeypatch.chdir(tmp_path)


def journalctl(folder: Path, script: str) -> None:
    program = folder / "programs/journalctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[None]:
    kept = recent(12)
    server = SocketServer(str(tmp_path / "sock"), pages(lambda: replace(MEASURING, recent=kept)))
    try:
        yield
    finally:
        server.close()


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["csp1ctl", "--config", "c.toml", "report", *arguments])
    return ctl.main()


def contents(name: str = "r.tar.gz") -> dict[str, bytes]:
    """The files in the archive, all in one folder."""
    found = {}
    with tarfile.open(name) as archive:
        for member in archive:
            assert (member.isreg(), member.mode) == (True, 0o600)
            folder, _, file = member.name.partition("/")
            assert folder == name.partition(".")[0]
            extracted = archive.extractfile(member)
            assert extracted
            found[file] = extracted.read()
    return found


@pytest.mark.usefixtures("daemon")
def test_all_of_a_running_daemon_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    umask = os.umask(0)
    try:
        assert run(monkeypatch, "r.tar.gz") == 0
    finally:
        os.umask(umask)
    assert (tmp_path / "r.tar.gz").stat().st_mode & 0o7777 == 0o600
    files = contents()
    assert set(files) >= {"versions.txt", "configuration.toml", "discover.txt", "journal.txt"}
    assert f"csp1d {__version__} in ".encode() in files["versions.txt"]
    assert b"not found" not in files["versions.txt"]
    assert files["journal.txt"].decode() == JOURNAL
    assert files["discover.txt"].startswith(b"ADCs (IIO devices)\n")
    assert b"\n[p1]\n" in files["discover.txt"]
    assert parse(files["status.json"]).reading is None
    assert b"csp1d_readings_total 3.0\n" in files["metrics.txt"]
    (tmp_path / "r").mkdir()
    for name in ("capture.json", "capture.bin", "configuration.toml"):
        (tmp_path / "r" / name).write_bytes(files[name])
    config = load_config(tmp_path / "r/configuration.toml")
    assert config == load_config(tmp_path / "c.toml")
    readings = list(capture.replay(capture.load("r/capture"), config))
    assert len(readings) == 10
    # With the configured gain.
    assert readings[-1].amperes(next(iter(readings[-1].phases))) == pytest.approx(7.5, rel=1e-3)
    shown = capsys.readouterr().out
    assert "capture        ten seconds of raw scans" in shown
    assert f"fault, to {report.MAINTAINER}.\n" in shown


@pytest.mark.usefixtures("daemon")
def test_no_key_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "r.tar.gz") == 0
    settings = contents()["configuration.toml"].decode()
    assert 'http.tls_key = "' in settings
    assert "remark" not in settings
    assert SECRET.encode() not in b"".join(contents().values())


def test_without_anything_each_part_is_replaced_by_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text('[http]\nsocket = ""\n[adc]\ndevise = "x"\n')
    (tmp_path / "programs/journalctl").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    usual = Config(http=HttpConfig(socket=str(tmp_path / "nothing")))
    monkeypatch.setattr(report, "Config", lambda: usual)
    monkeypatch.setattr(report, "_COMMAND_SECONDS", 0.001)
    assert run(monkeypatch, "r.tar.gz") == 0
    files = contents()
    assert set(files) == {"versions.txt"} | {
        f"{name}-missing.txt" for name in MISSING | {"configuration"}
    }
    reasons = {name.removesuffix("-missing.txt"): text.decode() for name, text in files.items()}
    assert reasons["configuration"] == "c.toml: adc.devise: unknown key; did you mean 'device'?\n"
    assert "timed out after 0.001 seconds" in reasons["discover"]
    for name in ("status", "metrics", "history"):
        assert "is csp1d running with this configuration?" in reasons[name]
    assert "No such file or directory: 'journalctl'" in reasons["journal"]
    assert reasons["capture"].startswith("ADC 'csp1-hat-adc' not found")
    shown = capsys.readouterr().out
    for name, reason in reasons.items():
        if name != "versions.txt":
            assert f"  {name:<14} {reason}" in shown


def test_without_a_daemon_the_scans_come_from_the_adc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "_SCANS_SECONDS", 0.5)
    hat = SimulatedHat(parse_scenario("L1=5"))
    monkeypatch.setattr("csp1d.hat.kernel.KernelHat", lambda: hat)
    assert run(monkeypatch, "r.tar.gz") == 0
    # A busy machine may read late.
    assert 1600 <= len(contents()["capture.bin"]) / 16 < 8000


def test_an_adc_that_delivers_no_scans_gives_no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_SCANS_SECONDS", 0.1)
    hat = SimulatedHat(parse_scenario("L1=5"))
    monkeypatch.setattr("csp1d.hat.kernel.KernelHat", lambda: hat)
    monkeypatch.setattr("csp1d.hat.simulated.SimulatedAdc.read", lambda _: b"")
    assert run(monkeypatch, "r.tar.gz") == 0
    files = contents()
    assert "capture.bin" not in files
    assert files["capture-missing.txt"] == b"the ADC has delivered no scans; check its trigger\n"


def test_scans_that_end_early_are_kept_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("csp1d.tool.scan_source._SILENT_SECONDS", 0.3)
    kept = recent(3)
    server = SocketServer(str(tmp_path / "sock"), pages(lambda: replace(MEASURING, recent=kept)))
    try:
        assert run(monkeypatch, "r.tar.gz") == 0
    finally:
        server.close()
    files = contents()
    assert len(files["capture.bin"]) == 3 * 4000 * 16
    assert files["capture-note.txt"].startswith(b"the ADC has delivered nothing for ")


@pytest.mark.parametrize("is_link", [False, True])
def test_no_file_is_overwritten_and_no_link_followed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_link: bool,
) -> None:
    target = tmp_path / "r.tar.gz"
    if is_link:
        target.symlink_to(tmp_path / "elsewhere")
    else:
        target.write_text("mine")
    assert run(monkeypatch, "r.tar.gz") == 2
    reason = "cannot be written: File exists; remove it, or choose another name"
    assert capsys.readouterr().err == f"csp1ctl: r.tar.gz: {reason}\n"
    assert not (tmp_path / "elsewhere").exists()
    assert is_link or target.read_text() == "mine"


def test_what_cannot_be_written_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "_write", full)
    assert run(monkeypatch, "r.tar.gz") == 2
    message = "csp1ctl: r.tar.gz: cannot be written: No space left on device; free some space\n"
    assert capsys.readouterr().err == message
    assert not (tmp_path / "r.tar.gz").exists()


def test_a_command_that_a_driver_holds_does_not_hold_up_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a process (in state D, proc(5)) does not end when it is killed."""
    journalctl(tmp_path, "exec sleep 60")
    held: list[subprocess.Popen[bytes]] = []
    with monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "kill", held.append)
        patched.setattr(report, "_COMMAND_SECONDS", 0.2)
        begin = time.monotonic()
        assert run(monkeypatch, "r.tar.gz") == 0
        assert time.monotonic() - begin < 30
    for process in held:
        process.kill()
        process.communicate()
    assert b"timed out after 0.2 seconds" in contents()["journal-missing.txt"]


def test_a_bug_of_a_part_is_reported_with_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "_versions", lambda: 1 // 0)
    assert run(monkeypatch, "r.tar.gz") == 0
    assert contents()["versions-missing.txt"].startswith(b"Traceback (most recent call last):\n")
    assert b"ADCs (IIO devices)" in contents()["discover.txt"]
    assert "  versions       internal error: ZeroDivisionError(" in capsys.readouterr().out


@pytest.mark.parametrize("is_root", [False, True])
@pytest.mark.parametrize(
    "script",
    [
        "echo 'No journal files were opened due to insufficient permissions.' >&2; exit 1",
        "echo 'Hint: You are currently not seeing messages' >&2; echo '      Pass -q' >&2;"
        " echo '-- No entries --'",
    ],
)
def test_a_journal_that_may_not_be_read_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, is_root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if is_root else 1000)
    journalctl(tmp_path, script)
    assert run(monkeypatch, "r.tar.gz") == 0
    reason = contents()["journal-missing.txt"].decode()
    assert script.split("'")[1] in reason
    assert "  " not in reason, "the lines of journalctl are indented"
    remedy = "as root (sudo), or as a member of the group systemd-journal\n"
    assert reason.endswith(remedy) != is_root


def test_the_end_of_a_long_journal_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journalctl(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert run(monkeypatch, "r.tar.gz") == 0
    journal = contents()["journal.txt"]
    assert len(journal) == 1 << 20
    assert journal.endswith(b"x\nlast\n")


def test_nothing_in_the_folder_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "csp1d").mkdir()
    (tmp_path / "csp1d/__init__.py").write_text("print('hostile')")
    (tmp_path / "argparse.py").write_text("print('hostile')")
    assert run(monkeypatch, "r.tar.gz") == 0
    assert b"ADCs (IIO devices)" in contents()["discover.txt"]
    assert b"hostile" not in contents()["discover.txt"]


def test_the_default_name_has_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch) == 0
    (found,) = tmp_path.glob("csp1d-report-*.tar.gz")
    time.strptime(found.name, "csp1d-report-%Y%m%d-%H%M%S.tar.gz")
    assert contents(found.name)


def test_settings_are_shown_with_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "r.tar.gz") == 0
    lines = contents()["configuration.toml"].decode().splitlines()
    assert "channels.L1.gain = 1.5  # c.toml" in lines
    assert "channels.L2.gain = 1.0" in lines
    assert 'leds.power = "a\\u007f\\"b"  # c.toml' in lines
