# SPDX-License-Identifier: Apache-2.0
"""24 hours by the minute: what is kept of the readings, what is a gap, what is dropped."""

import tracemalloc
from dataclasses import replace
from math import isnan

import pytest

from csp1d.measuring.history import KEPT_MINUTES, MINUTE_NS, History
from csp1d.measuring.reading import PhaseCurrent, Reading
from csp1d.phase import Phase
from csp1d.units import SECOND_NS

L1, L2, L3 = Phase
CURRENT = PhaseCurrent(0.0, 0.0, 0.0, 0)
BOOT_NS = 7000 * MINUTE_NS


def reading(**amperes: float) -> Reading:
    phases = {Phase[name]: replace(CURRENT, rms_amperes=value) for name, value in amperes.items()}
    return Reading(1, 0, 1.0, phases, 50.0, 4000, 0)


def history(*readings: tuple[float, float]) -> History:
    """Of readings of L1: the time in minutes, and the amperes."""
    made = History()
    for minutes, amperes in readings:
        made = made.append(reading(L1=amperes), BOOT_NS + round(minutes * MINUTE_NS))
    return made


def last(made: History, count: int, minutes: float, phase: Phase = L1) -> list[tuple[float, ...]]:
    """The last values of a phase as (lowest, mean, highest), () for a gap, at this time."""
    columns = made.columns(BOOT_NS + round(minutes * MINUTE_NS))[phase]
    assert [*columns] == ["lowest", "mean", "highest"]
    assert {len(values) for values in columns.values()} == {KEPT_MINUTES}
    rows = list(zip(*columns.values(), strict=True))[-count:]
    assert all(len({isnan(value) for value in row}) == 1 for row in rows)
    return [() if isnan(row[0]) else row for row in rows]


def test_a_minute_has_its_lowest_mean_and_highest_reading() -> None:
    made = history((0.0, 1.0), (0.5, 6.0), (0.99, 2.0), (1.0, 4.0))
    assert last(made, 3, 1.5) == [(), (1.0, 3.0, 6.0), (4.0, 4.0, 4.0)]


def test_a_minute_without_a_reading_is_a_gap_and_no_load_is_not() -> None:
    made = history((0.5, 0.0), (3.5, 2.0))
    assert last(made, 5, 3.9) == [(), (0.0, 0.0, 0.0), (), (), (2.0, 2.0, 2.0)]


def test_the_minutes_go_on_without_readings() -> None:
    made = history((0.5, 1.0))
    assert last(made, 3, 2.1) == [(1.0, 1.0, 1.0), (), ()]
    assert last(made, 1, KEPT_MINUTES) == [()]
    assert last(made, KEPT_MINUTES, KEPT_MINUTES) == [()] * KEPT_MINUTES


def test_before_the_first_reading_all_is_a_gap() -> None:
    assert last(History(), KEPT_MINUTES, 0) == [()] * KEPT_MINUTES
    # Also on a system that was started a moment ago.
    columns = History().append(reading(L1=1.0), SECOND_NS).columns(2 * SECOND_NS)[L1]
    assert [isnan(value) for value in columns["mean"]] == [True] * (KEPT_MINUTES - 1) + [False]


@pytest.mark.parametrize("pause", [KEPT_MINUTES - 1, KEPT_MINUTES, 100_000])
def test_after_24_hours_a_minute_is_dropped(pause: int) -> None:
    made = history((0, 1.0), (pause, 2.0))
    first = [(1.0, 1.0, 1.0)] if pause < KEPT_MINUTES else [()]
    gaps = [()] * (KEPT_MINUTES - 2)
    assert last(made, KEPT_MINUTES, pause) == [*first, *gaps, (2.0, 2.0, 2.0)]


def test_a_phase_that_is_not_configured_is_a_gap() -> None:
    made = History().append(reading(L1=1.0), BOOT_NS).append(reading(L2=2.0), BOOT_NS)
    made = made.append(reading(L2=4.0), BOOT_NS + SECOND_NS)
    # A reload in mid-minute changed the phases.
    assert last(made, 1, 0.5, L1) == [(1.0, 1.0, 1.0)]
    assert last(made, 1, 0.5, L2) == [(2.0, 3.0, 4.0)]
    assert last(made, 1, 0.5, L3) == [()]


def test_a_reading_that_is_late_counts_in_the_present_minute() -> None:
    made = history((1.0, 5.0), (0.99, 3.0))
    assert last(made, 2, 1.5) == [(), (3.0, 4.0, 5.0)]


def test_the_highest_reading_is_that_of_the_last_60_seconds_across_minutes() -> None:
    made = History()
    for second in range(30, 330, 3):
        made = made.append(reading(L1=500 - second, L2=1.0), BOOT_NS + second * SECOND_NS)
    assert len(made.readings) == 20
    # The last one ended at 327 s.
    for second, highest in ((327, 500 - 270), (330, 500 - 273), (386, 500 - 327), (387, None)):
        found = made.highest_amperes(BOOT_NS + second * SECOND_NS)
        assert found == ({L1: highest, L2: 1.0} if highest else {})


def test_what_a_thread_reads_does_not_change() -> None:
    taken = history((0.0, 1.0))
    before = last(taken, 2, 0.1)
    taken.append(reading(L1=9.0), BOOT_NS).append(reading(L1=9.0), BOOT_NS + MINUTE_NS)
    assert last(taken, 2, 0.1) == before


def test_a_day_takes_little_memory() -> None:
    made = History()
    tracemalloc.start()
    for second in range(0, 26 * 3600, 20):
        made = made.append(reading(L1=1.5, L2=2.5, L3=second), BOOT_NS + second * SECOND_NS)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 80_000
    assert last(made, 1, 26 * 60 - 1, L3) == [(26 * 3600 - 60, 26 * 3600 - 40, 26 * 3600 - 20)]
