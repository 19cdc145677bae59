# SPDX-License-Identifier: Apache-2.0
"""When a fault is reported: once when it begins, once when it has ended."""

import pytest

from csp1d.events import ActiveProblem, Event
from csp1d.loop.fault import QUIET_NS, Fault

SECOND = 1_000_000_000

# What is observed by second ("" is a fault without a reason of its own, "good" none), the time that
# a reason must last, the time without the fault after which it ends, and the seconds of reports.
STORIES: dict[str, tuple[dict[float, str], float, float, list[float]]] = {
    "nothing was ever wrong": ({0: "good", 1: "good"}, 0, 0, []),
    "a fault that lasts": ({0: "", 1: "", 9: "", 10: "good", 11: "good"}, 0, 0, [0, 10]),
    "a fault that returns": ({0: "", 1: "good", 2: "", 3: "good"}, 0, 0, [0, 1, 2, 3]),
    "bursts are one fault": ({0: "", 1: "good", 2: "", 11: "good", 12: "good"}, 0, 10, [0, 12]),
    "its end needs something good": ({0: "", 30: "", 31: "good", 40: "good"}, 0, 10, [0, 40]),
    "a reason that lasts": ({0: "a", 1: "a", 2: "a", 3: "a", 4: "good"}, 2, 0, [2, 4]),
    "a reason that passes": ({0: "a", 1.9: "a", 2: "good", 3: "good"}, 2, 0, []),
    "reasons that pass": ({0: "a", 1.5: "b", 3: "c", 4: "good"}, 2, 0, []),
    "a reason that came back did not last": ({0: "a", 1: "b", 2: "a", 3: "good"}, 2, 0, []),
    "what came back in its quiet time did not last": (
        {0: "", 1: "good", 7: "", 8: "good", 20: "good"},
        5,
        10,
        [],
    ),
    "what lasts in its quiet time": ({0: "", 1: "good", 7: "", 12: "", 13: "good"}, 5, 10, [12]),
    "another reason that lasts": ({0: "a", 2: "a", 3: "b", 5: "b", 6: "good"}, 2, 0, [2, 5, 6]),
    "no reason adds nothing": ({0: "a", 2: "a", 3: "", 6: "", 7: "good"}, 2, 0, [2, 7]),
    "a reason adds to none": ({0: "", 2: "", 3: "a", 5: "a", 6: "a"}, 2, 0, [2, 5]),
    "reasons that alternate are reported once": (
        {0: "a", 2: "a", 3: "b", 5: "b", 6: "a", 9: "a", 10: "b", 13: "b"},
        2,
        0,
        [2, 5],
    ),
    "if none lasts, one is reported": (
        {0: "a", 1: "b", 3: "a", 5: "b", 7: "a", 9: "b", 11: "a", 12: "b", 13: "good"},
        2,
        0,
        [11, 13],
    ),
    "the number of reasons is limited": (
        {second: f"reason {second}" for second in range(20)},
        0,
        0,
        list(range(8)),
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_what_is_reported(story: str) -> None:
    seen, lasting, quiet, expected = STORIES[story]
    fault = Fault(Event.ADC_CLOCK, "ADC", int(quiet * SECOND))
    reported = []
    for second, reason in seen.items():
        now_ns = int(second * SECOND)
        if reason == "good":
            is_news = fault.clear(now_ns)
        else:
            is_news = fault.observe(now_ns, reason=reason, lasting_ns=int(lasting * SECOND))
        if is_news:
            reported.append(second)
    assert reported == expected


def test_it_counts_from_its_beginning_to_its_end() -> None:
    fault = Fault(Event.ADC_CLOCK, "ADC", 10 * SECOND)
    fault.observe(0, count=3)
    fault.observe(1 * SECOND, count=4)
    assert fault.clear(11 * SECOND)
    assert fault.count == 7
    fault.observe(12 * SECOND, count=1)
    assert fault.count == 1


def test_after_a_reset_reasons_are_reported_again_and_the_end_as_before() -> None:
    fault = Fault(Event.ADC_CLOCK, "ADC")
    assert fault.observe(0, reason="a")
    assert not fault.observe(1, reason="a")
    fault.reset_reasons()
    assert fault.observe(2, reason="a")
    fault.reset_reasons()
    assert fault.clear(3)


def test_it_has_returned_if_it_was_absent_since_it_began() -> None:
    fault = Fault(Event.INPUT_FAILED, "L1", QUIET_NS)
    for second, has_returned in ((1, False), (3, False), (6, True), (7, True)):
        fault.observe(second * SECOND)
        assert fault.has_returned == has_returned
    fault.clear(17 * SECOND)
    fault.observe(30 * SECOND)
    assert not fault.has_returned


def test_it_is_a_problem_from_its_report_to_its_end() -> None:
    fault = Fault(Event.ADC_LOST, "ADC")

    def observe(second: int, reason: str) -> str | None:
        if fault.observe(second * SECOND, reason=reason, lasting_ns=2 * SECOND):
            fault.log("%s; remove it", reason)
        return fault.problem.reason if fault.problem else None

    assert observe(1, "a") is None, "it may pass"
    assert observe(3, "a") == "a; remove it"
    assert fault.problem == ActiveProblem(Event.ADC_LOST, "ADC", "a; remove it", 1 * SECOND)
    assert observe(4, "b") == "a; remove it", "b is not reported yet"
    assert observe(6, "b") == "b; remove it"
    assert observe(7, "a") == "a; remove it", "a is present again, and known"
    assert observe(8, "") == "a; remove it"
    assert fault.problem.since_ns == 1 * SECOND
    assert fault.recent(17 * SECOND) == fault.problem
    assert fault.recent(18 * SECOND) is None
    fault.clear(9 * SECOND)
    assert fault.problem is None
    assert observe(10, "a") is None


def test_after_a_reset_there_is_no_problem_until_it_is_reported_again() -> None:
    fault = Fault(Event.ADC_CLOCK, "ADC")
    fault.observe(0)
    fault.log("bad")
    fault.reset_reasons()
    assert fault.problem is None
    fault.observe(1)
    fault.log("bad")
    assert fault.problem == ActiveProblem(Event.ADC_CLOCK, "ADC", "bad", 0)
