# SPDX-License-Identifier: Apache-2.0
"""The state that `systemctl status` shows."""

import pytest

from csp1d.interfaces.service import status_line
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.reading import SHOWN_NS, PhaseCurrent, Reading
from csp1d.phase import Phase

END_NS = 7_000_000_000
SATURATED = PhaseCurrent(1.0, 2.0, 0.0, 4000, at_rail=True)
READING = Reading(1, END_NS, 1.0, {}, 50.0, 4000, 0)
FAILED = Reading(1, END_NS, 1.0, {Phase.L1: SATURATED, Phase.L3: SATURATED}, 50.0, 4000, 0)
UP = Snapshot(adc_up=True, reading=READING, p1_up=True, p1_request=True)

LINES: list[tuple[Snapshot, int, str]] = [
    (Snapshot(), 0, "ADC not found or not delivering data; P1 port missing; request line missing"),
    (
        Snapshot(reading=READING, failed=FAILED, p1_up=True, p1_request=False),
        END_NS,
        "ADC not found or not delivering data; P1 port open; no request",
    ),
    (UP, END_NS + SHOWN_NS, "Measuring; P1 port open; requesting"),
    (UP, END_NS + SHOWN_NS + 1, "Waiting for a reading; P1 port open; requesting"),
    (
        Snapshot(adc_up=True, p1_request=False),
        END_NS,
        "Waiting for a reading; P1 port missing; no request",
    ),
    (
        Snapshot(adc_up=True, reading=READING, failed=FAILED, p1_up=True, p1_request=False),
        END_NS,
        "Input of L1 and L3 failed; P1 port open; no request",
    ),
    (
        Snapshot(adc_up=True, failed=FAILED, p1_up=True, p1_request=False),
        END_NS + SHOWN_NS + 1,
        "Waiting for a reading; P1 port open; no request",
    ),
]


@pytest.mark.parametrize(("state", "now_ns", "expected"), LINES)
def test_the_state_as_a_line(state: Snapshot, now_ns: int, expected: str) -> None:
    assert status_line(state, now_ns) == expected
