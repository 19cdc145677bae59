# SPDX-License-Identifier: Apache-2.0
"""Scenarios of the simulated HAT."""

import os
from pathlib import Path

import pytest

from csp1d.errors import ScenarioError
from csp1d.hat.scenario import Request, parse


def test_an_argument_gives_constant_currents() -> None:
    (step,) = parse("L1=24, L2=10.5,L3=0", frequency_hz=60)
    assert step.amperes == {"L1": 24, "L2": 10.5, "L3": 0}
    assert (step.frequency_hz, step.request) == (60, Request.HIGH)


def test_a_phase_may_export() -> None:
    assert parse("L1=-3,L2=5")[0].amperes == {"L1": -3, "L2": 5}


def test_a_reference_may_vanish_and_return(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("[[step]]\n[[step]]\nat_seconds = 5\nreference = 0\n[[step]]\nat_seconds = 6\n")
    assert [step.reference for step in parse(str(file))] == [1, 0, 0]


def test_values_last_until_a_later_step_changes_them_but_a_stall_ends(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("""
        [[step]]
        amperes = { L1 = 24 }
        request = "poll"
        [[step]]
        at_seconds = 10
        stall_seconds = 2
        harmonics_percent = { 3 = 60, 5 = 30 }
        gain_error_percent = { L1 = 3.7, L2 = -1.2 }
        shift_amperes = { L3 = -200 }
        [[step]]
        at_seconds = 20
        frequency_hz = 49.9
    """)
    first, second, third = parse(str(file))
    assert (first.at_seconds, first.amperes, first.request) == (0, {"L1": 24}, Request.POLL)
    assert (second.stall_seconds, second.harmonics_percent) == (2, {3: 60, 5: 30})
    assert (third.stall_seconds, third.amperes, third.request) == (0, {"L1": 24}, Request.POLL)
    assert third.frequency_hz == 49.9
    assert third.gain_error_percent == {"L1": 3.7, "L2": -1.2}
    assert third.shift_amperes == {"L3": -200}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L4=1", "L4=1: amperes.L4: must be one of 'L1', 'L2', 'L3', got 'L4'"),
        ("L1=lots", "L1=lots: amperes.L1: must be a number, got 'lots'"),
        ("L1", "No such file"),
        ("L1=1e6", "L1: must be between -999999 and 999999, got 1000000.0"),
        ("no-such-file.toml", "No such file"),
        ("steps = 3", "No such file"),
        ("L1=" + "9" * 5000, "L1: must be a finite number, got inf"),
    ],
)
def test_arguments_that_are_not_a_scenario(text: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[step", r"scenario\.toml: is not TOML: .*Expected"),
        ("[steps]", "scenario.toml: steps: unknown key; did you mean 'step'"),
        ("step = 1", "scenario.toml: step: must be a list, got 1"),
        ("[[step]]\namps = 1", r"step\[0\]\.amps: unknown key; did you mean 'amperes'"),
        (
            '[[step]]\nrequest = "yes"',
            r"step\[0\]\.request: must be one of 'high', 'low', 'poll', got 'yes'",
        ),
        ("[[step]]\nharmonics_percent = { 1 = 5 }", "1: must be the order of a harmonic"),
        ("[[step]]\namperes = 24", r"step\[0\]\.amperes: must be a table of keys, got 24"),
        (
            "[[step]]\nharmonics_percent = { third = 1 }",
            "third: must be the order of a harmonic, a whole number from 2 to 999",
        ),
        (
            f"[[step]]\nharmonics_percent = {{ {'9' * 5000} = 1 }}",
            "9: must be the order of a harmonic",
        ),
        ("step = [1]", r"step\[0\]: must be a table of keys, got 1"),
        ("x = " + "[" * 5000, r"scenario\.toml: is not TOML"),
        ("[[step]]\namperes = { L1 = true }", "L1: must be a number, got true"),
        (
            "[[step]]\ngain_error_percent = { L1 = -100 }",
            "L1: must be between -99 and 999999, got -100",
        ),
        (
            f"[[step]]\nat_seconds = {'9' * 400}",
            "at_seconds: must be a finite number, got a very long number",
        ),
        ("[[step]]\nfrequency_hz = nan", "frequency_hz: must be a finite number, got nan"),
        ("[[step]]\nreference = -1", "reference: must be between 0 and 999999, got -1"),
        (
            "[[step]]\nat_seconds = 2\n[[step]]\nat_seconds = 1",
            r"step\[1\]\.at_seconds: must not be before the previous step",
        ),
    ],
)
def test_files_that_are_not_a_scenario(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(content)
    with pytest.raises(ScenarioError, match=message):
        parse(str(file))


def test_all_problems_of_a_scenario_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("[[step]]\namperes = { L1 = true, L9 = 1 }\n[[step]]\namps = 1\nreference = -1")
    with pytest.raises(ScenarioError) as raised:
        parse(str(file))
    assert {problem.file for problem in raised.value.problems} == {file}
    assert [problem.key for problem in raised.value.problems] == [
        "step[0].amperes.L1",
        "step[0].amperes.L9",
        "step[1].amps",
        "step[1].reference",
    ]


def test_a_pipe_is_no_scenario(tmp_path: Path) -> None:
    """It would be waited for."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScenarioError, match="is a pipe or a device; use a regular file"):
        parse(str(tmp_path / "pipe"))


@pytest.mark.parametrize("text", ["l1=1", "=1", "L9=1"])
def test_currents_of_an_unknown_phase_are_no_file(text: str) -> None:
    with pytest.raises(ScenarioError, match=r"amperes\.\S*: must be one of"):
        parse(text)
