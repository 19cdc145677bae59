# SPDX-License-Identifier: Apache-2.0
"""A calibration as an installer sees it, with a simulated daemon."""

import errno
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from test_status import STATUS

from csp1d.config import ChannelConfig, Config
from csp1d.config_file import load
from csp1d.errors import ConfigError, DeviceError
from csp1d.measuring.reading import PhaseCurrent
from csp1d.phase import Phase
from csp1d.status import LiveReading, Status
from csp1d.tool.client import Client
from csp1d.tool.commands import calibrate

L1, L2, L3 = Phase


class Daemon(Client):
    """Gives one reading after the other, each twice, as if polled twice per second."""

    def __init__(self, amperes: Mapping[Phase, float], sequences: Iterable[int] = range(5, 1000)):
        self._amperes = amperes
        self._sequences = [number for number in sequences for _ in range(2)]
        self.polls = 0

    def status(self) -> Status:
        sequence = self._sequences.pop(0)
        self.polls += 1
        phases = {
            # The first two readings began before the calibration, with another load.
            phase: PhaseCurrent(
                0, 0, 0, 0, uncorrected_rms_amperes=50.0 if self.polls <= 4 else amperes
            )
            for phase, amperes in self._amperes.items()
        }
        reading = LiveReading(sequence, 0.1, 1.0, 50.0, 4000, 0, phases) if sequence else None
        return replace(STATUS, reading=reading)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "csp1d.toml").touch()
    return tmp_path / "csp1d.toml"


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_a_gain_for_some_phases(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    daemon = Daemon({L1: 10.37, L2: 9.63, L3: 20.0})
    assert calibrate.gain(Config(), file, daemon, [(L1, 10.0), (L2, 10.0)], yes=True) == 0
    printed = capsys.readouterr()
    assert printed.out == (
        "      reference     before      after                 gain\n"
        "L1      10.00 A    10.37 A    10.00 A     1.0000 -> 0.9643\n"
        "L2      10.00 A     9.63 A    10.00 A     1.0000 -> 1.0384\n"
    )
    drop_in = f"{file}.d/50-calibration.toml"
    assert printed.err == f"Wrote {drop_in}. It applies when csp1d reloads {file}.\n"
    channels = load(file).channels
    assert (channels.L1.gain, channels.L2.gain) == (0.96432, 1.038422)
    assert channels.L3.gain == 1
    # The last of ten readings, after two that began before the calibration; two polls each.
    assert daemon.polls == 2 * 11 + 1


def test_the_noise_floor_of_all_phases_that_are_measured(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(Config(), channels=replace(Config().channels, L3=ChannelConfig()))
    daemon = Daemon({L1: 0.09, L2: 0.2})
    assert calibrate.zero(config, file, daemon, [], yes=True) == 0
    assert capsys.readouterr().out == (
        "        before     after               noise floor\n"
        "L1      0.00 A    0.00 A      0.0000 A ->  0.0900 A\n"
        "L2      0.20 A    0.00 A      0.0000 A ->  0.2000 A\n"
    )
    written = (Path(f"{file}.d") / "50-calibration.toml").read_text()
    assert written.partition("[")[2] == (
        "channels.L1]\nnoise_floor_amperes = 0.09\n\n[channels.L2]\nnoise_floor_amperes = 0.2\n"
    )


def test_a_prompt_for_several_loads(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "L1 is 10\nL1=1\nL1=20\nL1=10 L1=10\nL1=10.0 L2=10\nL1=10\n\ny\n")
    daemon = Daemon({L1: 10.1, L2: 10.2})
    assert calibrate.gain(Config(), file, daemon, [], yes=False) == 0
    printed = capsys.readouterr()
    assert "must be a phase and its reference reading, such as L1=10.02, got 'L1'" in printed.err
    assert "must be between 2 and 1000 A (10 A or more is better), got 'L1=1'" in printed.err
    assert "L1: gain 1.980 is more than 20% off" in printed.err
    assert "L1 is given twice" in printed.err
    assert "gain: L1 0.9901, L2 0.9804\n" in printed.err
    assert [line.split()[0] for line in printed.out.splitlines()[1:]] == ["L1", "L1", "L2"]
    assert load(file).channels.L2.gain == pytest.approx(1 / 1.02, abs=1e-6)


@pytest.mark.parametrize(
    ("answers", "code", "message"),
    [
        ("n\n", 0, "No changes written."),
        ("\n", 0, "No changes written."),
        ("", 2, "csp1ctl: no answer; use --yes to write without confirmation"),
    ],
)
def test_only_a_yes_writes(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: str,
    code: int,
    message: str,
) -> None:
    answer(monkeypatch, answers)
    daemon = Daemon({L1: 10.1})
    assert calibrate.gain(Config(), file, daemon, [(L1, 10.0)], yes=False) == code
    printed = capsys.readouterr().err
    assert f"Write {file}.d/50-calibration.toml? [y/N]" in printed
    assert message in printed
    assert not Path(f"{file}.d").exists()


@pytest.fixture
def other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tempfile, "TemporaryFile", deny)


@pytest.mark.usefixtures("other_user")
def test_who_may_not_write_the_drop_in_gets_its_lines(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drop_in = Path(f"{file}.d/50-calibration.toml")
    drop_in.parent.mkdir()
    drop_in.write_text("[channels.L2]\ngain = 1.1\n")
    assert calibrate.gain(Config(), file, Daemon({L1: 10.1}), [(L1, 10.0)], yes=False) == 0
    printed = capsys.readouterr()
    assert printed.err == (
        f"csp1ctl: {drop_in} cannot be written: Permission denied; run csp1ctl as root (sudo),"
        " or save what standard output gets as root\n"
        "      reference     before      after                 gain\n"
        "L1      10.00 A    10.10 A    10.00 A     1.0000 -> 0.9901\n"
    )
    # As "| sudo tee" does.
    drop_in.write_text(printed.out)
    channels = load(file).channels
    assert (channels.L1.gain, channels.L2.gain) == (0.990099, 1.1)


@pytest.mark.usefixtures("other_user")
def test_a_script_that_may_not_write_the_drop_in_fails_at_once(file: Path) -> None:
    daemon = Daemon({L1: 10.1})
    with pytest.raises(ConfigError, match="run csp1ctl as root"):
        calibrate.zero(Config(), file, daemon, [], yes=True)
    assert daemon.polls == 0


@pytest.mark.parametrize(
    ("answers", "user", "reloads"),
    [("y\ny\n", 0, 1), ("y\n\n", 0, 0), ("y\n", 0, 0), ("y\ny\n", 1000, 0)],
)
def test_root_is_offered_the_reload(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: str,
    user: int,
    reloads: int,
) -> None:
    commands: list[Sequence[str]] = []

    def fail(mode: int, name: str, command: Sequence[str]) -> int:
        commands.append(command)
        return 1

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "spawnvp", fail)
    monkeypatch.setattr(calibrate, "DEFAULT_PATH", file)
    answer(monkeypatch, answers)
    # The exit code is that of the reload, if it was made.
    daemon = Daemon({L1: 10.1})
    assert calibrate.gain(Config(), file, daemon, [(L1, 10.0)], yes=False) == reloads
    assert commands == [["systemctl", "reload", "csp1d"]] * reloads
    printed = capsys.readouterr().err
    assert "Apply it with: sudo systemctl reload csp1d\n" in printed
    assert printed.count("csp1ctl: systemctl reload csp1d failed with 1") == reloads


def test_a_pipe_has_the_table_before_the_question(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = io.BytesIO()

    class Answers:
        def readline(self) -> str:
            assert b"0.0900 A" in pipe.getvalue()
            return "n\n"

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))
    monkeypatch.setattr(sys, "stdin", Answers())
    assert calibrate.zero(Config(), file, Daemon({L1: 0.09}), [L1], yes=False) == 0


def test_without_any_reference_nothing_is_done(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, "\n")
    assert calibrate.gain(Config(), file, Daemon({}), [], yes=True) == 2
    assert "no reference reading given; no changes written" in capsys.readouterr().err


def test_all_reasons_are_reported_and_nothing_is_written(file: Path) -> None:
    loads = [(L1, 20.0), (L2, 20.0), (L3, 20.0)]
    with pytest.raises(DeviceError) as raised:
        calibrate.gain(Config(), file, Daemon({L1: 10, L2: 0.1, L3: 20}), loads, yes=True)
    l1, l2, end = str(raised.value).splitlines()
    assert l1.startswith("L1: gain 2.000 is more than 20% off")
    assert l2.startswith("L2: the reference meter shows 20 A, this input measures 0.10 A")
    assert end == "no changes written"
    assert not Path(f"{file}.d").exists()


@pytest.mark.parametrize(
    ("config", "loads", "message"),
    [
        (
            replace(Config(), channels=replace(Config().channels, L3=ChannelConfig())),
            [(L1, 10.0), (L3, 10.0)],
            "L3 is not measured: channels.L3.input is empty",
        ),
        (Config(), [(L1, 10.0), (L1, 11.0)], "L1 is given twice"),
    ],
)
def test_phases_that_are_not_measured_or_given_twice(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    config: Config,
    loads: list[calibrate.Load],
    message: str,
) -> None:
    daemon = Daemon({})
    assert calibrate.gain(config, file, daemon, loads, yes=True) == 2
    assert message in capsys.readouterr().err
    assert daemon.polls == 0


def test_an_unusable_file_is_reported_before_the_measurement(file: Path) -> None:
    Path(f"{file}.d").mkdir()
    Path(f"{file}.d/60-site.toml").write_text("[channels.L1]\ngain = 1.1\n")
    daemon = Daemon({L1: 10.0})
    with pytest.raises(ConfigError, match=r"60-site.toml: channels.L1.gain: overrides 50-cal"):
        calibrate.gain(load(file), file, daemon, [(L1, 10.0)], yes=True)
    assert daemon.polls == 0
    # Its keys for other phases do not matter.
    assert calibrate.gain(load(file), file, Daemon({L2: 10.0}), [(L2, 10.0)], yes=True) == 0


@pytest.mark.parametrize(
    ("amperes", "sequences", "message"),
    [
        ({L1: 10.0}, [7, 8, 9, 1], "csp1d or its ADC restarted during the measurement"),
        ({L2: 10.0}, range(99), "csp1d does not measure L1; if it is configured, reload csp1d"),
        ({L1: 10.0}, [0] * 99, "csp1d delivers no readings"),
        ({L1: 10.0}, [4] * 99, "csp1d delivers no readings"),
    ],
)
def test_a_daemon_that_restarts_or_stops_measuring(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    amperes: Mapping[Phase, float],
    sequences: Iterable[int],
    message: str,
) -> None:
    # The clock advances by 0.25 s whenever it is read.
    clock = iter(range(10000))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 4)
    with pytest.raises(DeviceError, match=message):
        calibrate.gain(Config(), file, Daemon(amperes, sequences), [(L1, 10.0)], yes=True)
