# SPDX-License-Identifier: Apache-2.0
"""Scenarios of the simulated HAT."""

from pathlib import Path

import pytest

from csp1d.errors import ScenarioError
from csp1d.hat.scenario import Request, parse


def test_words_give_steady_currents() -> None:
    (step,) = parse("L1=24, L2=10.5,L3=0", frequency_hz=60)
    assert step.amperes == {"L1": 24, "L2": 10.5, "L3": 0}
    assert (step.frequency_hz, step.request) == (60, Request.HIGH)


def test_a_phase_may_export() -> None:
    assert parse("L1=-3,L2=5")[0].amperes == {"L1": -3, "L2": 5}


def test_a_reference_may_vanish_and_return(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text("[[step]]\n[[step]]\nat_seconds = 5\nreference = 0\n[[step]]\nat_seconds = 6\n")
    assert [step.reference for step in parse(str(file))] == [1, 0, 0]


def test_steps_keep_what_they_do_not_change_but_a_stall(tmp_path: Path) -> None:
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
    ("text", "complaint"),
    [
        ("L4=1", "L4 is not one of L1, L2, L3"),
        ("L1=lots", "L1: 'lots' is not a number"),
        ("L1", "No such file"),
        ("L1=1e6", "is not a number below a million"),
        ("no-such-file.toml", "No such file"),
        ("steps = 3", "No such file"),
        ("L1=" + "9" * 5000, "is not a number below a million"),
    ],
)
def test_words_that_are_no_scenario(text: str, complaint: str) -> None:
    with pytest.raises(ScenarioError, match=complaint):
        parse(text)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[[step", "scenario .*Expected"),
        ("[steps]", r"only \[\[step\]\] tables"),
        ("step = 1", r"only \[\[step\]\] tables"),
        ("[[step]]\namps = 1", "step 1: unknown key 'amps'; known are at_seconds"),
        ('[[step]]\nrequest = "yes"', "step 1: request: 'yes' is not one of \"high\""),
        ("[[step]]\namperes = 24", "amperes: must be a table"),
        ("[[step]]\nharmonics_percent = { third = 1 }", "an order is a whole number from 2 to 999"),
        (f"[[step]]\nharmonics_percent = {{ {'9' * 5000} = 1 }}", "order is a whole number"),
        ("step = [1]", "step 1: must be a table"),
        ("x = " + "[" * 5000, "scenario .*scenario.toml"),
        ("[[step]]\namperes = { L1 = true }", "L1: True is not a number"),
        ("[[step]]\ngain_error_percent = { L1 = -100 }", "L1: -100 is not a number from -99 up"),
        (f"[[step]]\nat_seconds = {'9' * 400}", "is not a number"),
        ("[[step]]\nfrequency_hz = nan", "frequency_hz: nan is not a number"),
        ("[[step]]\nreference = -1", "reference: -1 is not a number from 0 up"),
        (
            "[[step]]\nat_seconds = 2\n[[step]]\nat_seconds = 1",
            "step 2: at_seconds must not go back",
        ),
    ],
)
def test_files_that_are_no_scenario(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(content)
    with pytest.raises(ScenarioError, match=complaint):
        parse(str(file))
