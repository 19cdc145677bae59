# SPDX-License-Identifier: Apache-2.0
"""Gain and noise floor from readings, readings that allow none, and the file for the result."""

import errno
import math
import os
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from csp1d.config_file import load
from csp1d.errors import ConfigError
from csp1d.measuring.reading import PhaseCurrent
from csp1d.phase import Phase
from csp1d.tool.calibration import (
    Correction,
    Point,
    RefusedError,
    find_gain,
    find_noise_floor,
)
from csp1d.tool.calibration_file import CalibrationFile

NOMINAL = Correction(1.0, 0.0)
SHAKE = (0.999, 1.001, 1.0, 0.998, 1.002)
"""Successive readings with noise, relative to their mean."""


def currents(
    uncorrected: float, shake: Sequence[float] = SHAKE, clipped: int = 0
) -> tuple[PhaseCurrent, ...]:
    # The other values depend on the present configuration and must not matter.
    return tuple(
        PhaseCurrent(-1.0, -1.0, 0.0, clipped, uncorrected_rms_amperes=uncorrected * factor)
        for factor in shake
    )


def point(reference: float, uncorrected: float) -> Point:
    return Point(reference, currents(uncorrected))


# The gain.


@pytest.mark.parametrize("old", [NOMINAL, Correction(1.1, 0.0), Correction(0.8, 0.2)])
@pytest.mark.parametrize("error", [1.037, 0.963, 1.0, 1.19, 0.84])
def test_the_gain_corrects_an_error_whatever_is_configured(old: Correction, error: float) -> None:
    noise = old.noise_floor_amperes / old.gain
    new = find_gain([point(10.0, math.hypot(10.0 * error, noise))], old)
    assert new.gain == pytest.approx(1 / error, rel=1e-5)
    # The noise stays the same at the ADC.
    assert new.noise_floor_amperes == pytest.approx(noise * new.gain, abs=1e-4)
    assert new.amperes(math.hypot(5.0 * error, noise), 0) == pytest.approx(5.0, rel=1e-4)


def test_a_calibration_that_is_repeated_changes_nothing() -> None:
    points = [point(10.0, 10.37)]
    once = find_gain(points, Correction(1.0, 0.08))
    twice = find_gain(points, once)
    assert twice.gain == pytest.approx(once.gain, abs=2e-6)
    assert twice.noise_floor_amperes == pytest.approx(once.noise_floor_amperes, abs=2e-4)


def test_of_several_points_the_larger_ones_count_more() -> None:
    points = [point(2.0, 2.0 * 1.005), point(20.0, 20.0 * 1.001)]
    assert 1 / find_gain(points, NOMINAL).gain == pytest.approx(1.00104, abs=1e-5)


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([point(10, 7.9)], "gain 1.266 is more than 20% off; check ct_ratio, burden_ohms"),
        ([point(10, 12.6)], "gain 0.794 is more than 20% off"),
        (
            [point(10, 0.08)],
            "the reference meter shows 10 A, this input measures 0.08 A; check that",
        ),
        ([Point(10, currents(10, clipped=1))], "the signal exceeds the ADC range"),
        (
            [Point(10, currents(10, (1.0, 1.0, 1.012)))],
            "the current varied between 10.00 A and 10.12 A; use a load that stays within 1%",
        ),
        ([point(5, 5.3), point(20, 20)], "the points disagree: .* 5 A would read 5.28 A"),
    ],
)
def test_points_that_give_no_gain(points: list[Point], reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        find_gain(points, NOMINAL)


def test_a_current_below_the_noise_floor_gives_no_gain() -> None:
    with pytest.raises(RefusedError, match="above this current; run csp1ctl calibrate zero"):
        find_gain([point(24, 24)], Correction(1.0, 30.0))


# The noise floor.


@pytest.mark.parametrize("old", [NOMINAL, Correction(1.037, 0.3)])
def test_with_the_noise_floor_nothing_reads_as_nothing(old: Correction) -> None:
    quiet = currents(0.085)
    new = find_noise_floor(quiet, old, no_load_amperes=0.1)
    assert new.gain == old.gain
    assert new.noise_floor_amperes == pytest.approx(0.085 * old.gain, abs=1e-4)
    assert {new.amperes(current.uncorrected_rms_amperes, 0.1) for current in quiet} == {0.0}


def test_the_noise_floor_is_the_mean_of_powers() -> None:
    new = find_noise_floor(currents(0.05, (0.2, 1.0)), NOMINAL, 0.1)
    assert new.noise_floor_amperes == pytest.approx(math.sqrt((0.01**2 + 0.05**2) / 2), abs=1e-4)


def test_an_adc_without_noise_has_no_noise_floor() -> None:
    assert find_noise_floor(currents(0.0), NOMINAL, 0.1) == NOMINAL


@pytest.mark.parametrize(
    ("quiet", "no_load", "reason"),
    [
        (currents(0.6), 0.1, "0.60 A is too much to be noise; switch the load off"),
        (currents(0.1, (1.0, 1.0, 1.6)), 0.1, "the current varied between 0.10 A and 0.16 A"),
        (currents(0.4, (0.97, 1.03)), 0.09, "still read up to 0.10 A; raise measurement.no_lo"),
        (currents(0.08, clipped=3), 0.1, "the signal exceeds the ADC range"),
    ],
)
def test_readings_that_give_no_noise_floor(
    quiet: tuple[PhaseCurrent, ...], no_load: float, reason: str
) -> None:
    with pytest.raises(RefusedError, match=reason):
        find_noise_floor(quiet, NOMINAL, no_load)


# The file.


def test_the_drop_in_lies_beside_the_configuration_and_takes_effect(tmp_path: Path) -> None:
    config = tmp_path / "house.toml"
    config.write_text("[channels.L1]\ngain = 2.0\nburden_ohms = 10\n")
    file = CalibrationFile(config, [Phase.L1])
    assert file.path == tmp_path / "house.toml.d/50-calibration.toml"
    before = os.umask(0o077)
    file.write({Phase.L1: {"gain": 0.9643, "noise_floor_amperes": 0.08}})
    os.umask(before)
    l1 = load(config).channels.L1
    assert (l1.gain, l1.noise_floor_amperes, l1.burden_ohms) == (0.9643, 0.08, 10)
    # Another user, the daemon's, must be able to read it.
    assert file.path.stat().st_mode & 0o777 == 0o644
    assert file.path.parent.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in file.path.parent.iterdir()] == ["50-calibration.toml"]


def test_names_that_others_have_prepared_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "c.toml.d"
    folder.mkdir()
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (folder / ".50-calibration.toml.new").symlink_to(precious)
    file = CalibrationFile(tmp_path / "c.toml", [])
    file.write({Phase.L1: {"gain": 1.1}})
    assert precious.read_text() == "precious"
    file.path.unlink()
    file.path.symlink_to(precious)
    with pytest.raises(ConfigError, match=r"-calibration\.toml: cannot be written: it is not a"):
        file.write({Phase.L1: {"gain": 1.2}})
    assert precious.read_text() == "precious"


def test_what_the_drop_in_holds_of_other_phases_stays(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    CalibrationFile(config, []).write({Phase.L2: {"gain": 1.1}, Phase.L1: {"gain": 1.2}})
    CalibrationFile(config, []).write({Phase.L1: {"noise_floor_amperes": 0.1}})
    text = CalibrationFile(config, []).path.read_text()
    assert tomllib.loads(text)["channels"] == {
        "L1": {"gain": 1.2, "noise_floor_amperes": 0.1},
        "L2": {"gain": 1.1},
    }
    assert text.startswith("# Written by csp1ctl calibrate")


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        (
            "90-site.toml",
            "[channels.L1]\ngain = 1.5",
            "90-site.toml: channels.L1.gain: overrides 50-calibration.toml; remove",
        ),
        (
            "50-calibration.toml",
            "[adc]\ntrigger = 'x'",
            "50-calibration.toml: adc: would be lost when csp1ctl rewrites this file; move it",
        ),
        (
            "50-calibration.toml",
            "[channels.L2]\nreversed = true",
            "50-calibration.toml: channels.L2.reversed: would be lost",
        ),
    ],
)
def test_a_file_without_effect_is_refused_before_the_measurement(
    tmp_path: Path, file: str, content: str, problem: str
) -> None:
    config = tmp_path / "c.toml"
    config.touch()
    folder = tmp_path / "c.toml.d"
    folder.mkdir()
    (folder / file).write_text(content)
    load(config)
    with pytest.raises(ConfigError, match=problem):
        CalibrationFile(config, [Phase.L1])


def test_keys_of_other_phases_and_of_earlier_files_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "c.toml.d"
    folder.mkdir()
    (folder / "10-first.toml").write_text("[channels.L1]\ngain = 1.5")
    (folder / "90-last.toml").write_text(
        "[channels.L2]\ngain = 1.5\n[channels.L1]\ninput = 'voltage9'"
    )
    CalibrationFile(tmp_path / "c.toml", [Phase.L1])


ROOTS, USERS = 0, 1000


@pytest.mark.parametrize(
    ("number", "user", "remedy"),
    [
        (errno.EROFS, ROOTS, r"Read-only file system; remount it .* \(mount -o remount,rw\)"),
        (errno.EROFS, USERS, r"Read-only file system; remount it .* \(mount -o remount,rw\)"),
        (errno.EACCES, USERS, r"Permission denied; run csp1ctl as root \(sudo\)"),
        (errno.EPERM, ROOTS, "Operation not permitted; root may not write it either: see lsattr"),
        (errno.ENOENT, ROOTS, "No such file or directory; create its folder"),
        (errno.ENOSPC, ROOTS, "No space left on device; free some space"),
        (errno.EIO, ROOTS, "Input/output error"),
    ],
)
@pytest.mark.parametrize("when", ["before the measurement", "after it"])
def test_a_file_that_cannot_be_written_is_reported_with_the_remedy_for_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    user: int,
    remedy: str,
    when: str,
) -> None:
    file = CalibrationFile(tmp_path / "c.toml", [])

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    if user == USERS and number == errno.EACCES and when == "before the measurement":
        # Another user may measure all the same.
        denied = CalibrationFile(tmp_path / "c.toml", []).denied
        assert denied == "cannot be written: Permission denied; run csp1ctl as root (sudo)"
        return
    use = CalibrationFile if when == "before the measurement" else lambda *_: file.write({})
    with pytest.raises(
        ConfigError, match=f"50-calibration.toml: cannot be written: {remedy}( |$)"
    ) as refused:
        use(tmp_path / "c.toml", [])
    assert ("as root" in str(refused.value)) == (user == USERS and number == errno.EACCES)
