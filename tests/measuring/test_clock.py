# SPDX-License-Identifier: Apache-2.0
"""The line through the earliest stamps, and lost scans, at the limits of their rules."""

import numpy as np
import pytest
from signals import Array

from csp1d.measuring.clock import (
    SampleClock,
    confirm_scans,
    estimate_period_ns,
    find_lost,
    is_settled,
)

P = 1_000_000
"""Nanoseconds between samples: 60 of them confirm a loss among uneven stamps."""


def late(*periods: float) -> Array:
    return P * np.array(periods, float)


@pytest.mark.parametrize(
    ("lateness", "lost"),
    [
        # What the clock was late by before the first stamp.
        (late(0), []),
        (late(0.4), []),
        (late(0.6), [(0, 1)]),
        (late(-3), []),
        (late(3.1), [(0, 3)]),
        (late(2, 2, 2.2), [(0, 2)]),
        (late(1, 1, 1, 3, 3, 3, 3, 3), [(0, 1), (3, 2)]),
        # Even stamps: five after the loss confirm it.
        (late(0, 0, 0, 2, 2, 2, 2, 2), [(3, 2)]),
        (late(0, 0, 0, 2, 2, 2, 2), []),
        (late(0, 7, 7, 7, 7, 7), [(1, 7)]),
        (late(0, 1, 2, 2, 2, 2, 2), [(1, 1), (2, 1)]),
        # Up to a quarter of a period off is even.
        (late(0, 0.25, 1.5, 1.5, 1.5, 1.5, 1.5), [(2, 1)]),
        (late(0, 0.26, 1.5, 1.5, 1.5, 1.5, 1.5, *[1.5] * 60), [(2, 2)]),
        # A step back is lateness that ended.
        (late(0, 2, 0, 0, 0, 0, 0), []),
        (late(0, 0.2, 0.1, 0.3, 0.1), []),
    ],
)
def test_lost_scans_are_whole_periods_of_even_stamps(
    lateness: Array, lost: list[tuple[int, int]]
) -> None:
    assert find_lost(lateness, P) == lost


def uneven(count: int, seed: int = 1) -> Array:
    """Up to 2.4 periods late, the earliest of each ten on time."""
    noise = P * np.random.default_rng(seed).uniform(0, 2.4, count)
    noise[::10] = 0
    return noise


@pytest.mark.parametrize("first", [70, 200, 310])
@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_floor_that_rises_is_a_loss_among_uneven_stamps(first: int, count: int) -> None:
    lateness = uneven(400)
    lateness[first:] += count * P
    ((index, lost),) = find_lost(lateness, P)
    assert lost == count
    assert first - 10 <= index <= first


def test_losses_far_apart_are_found_each() -> None:
    lateness = uneven(600)
    lateness[100:] += 5 * P
    lateness[250:] += 7 * P
    lateness[400:] += 2 * P
    found = find_lost(lateness, P)
    assert [lost for _, lost in found] == [5, 7, 2]
    assert [index for index, _ in found] == pytest.approx([100, 250, 400], abs=10)


@pytest.mark.parametrize(("after", "confirmed"), [(59, False), (60, True), (90, True)])
def test_a_loss_among_uneven_stamps_is_confirmed_by_those_of_60_ms(
    after: int, confirmed: bool
) -> None:
    lateness = uneven(400)[: 300 + after]
    lateness[290:300] = 0
    lateness[300:] += 20 * P
    assert [lost for _, lost in find_lost(lateness, P)] == ([20] if confirmed else [])


def test_lateness_that_ends_is_no_loss_among_uneven_stamps() -> None:
    lateness = uneven(400)
    lateness[150:200] += 30 * P
    assert find_lost(lateness, P) == []


def test_a_clock_that_was_late_before_uneven_stamps_lost_scans_before_them() -> None:
    assert find_lost(uneven(200) + 6.0 * P, P) == [(0, 6)]
    assert find_lost(uneven(200) + 0.45 * P, P) == []


def test_a_step_within_the_noise_of_the_floor_is_no_loss() -> None:
    """The earliest stamps of each 60 ms differ by two periods from each other."""
    lateness = P * np.random.default_rng(1).uniform(0, 0.3, 600)
    for block in range(10):
        lateness[60 * block : 60 * block + 60] += P * (2 * (block % 2) + (2 if block >= 5 else 0))
    assert find_lost(lateness, P) == []
    lateness[300:] += 10 * P
    assert [lost for _, lost in find_lost(lateness, P)] == [pytest.approx(12, abs=1)]


@pytest.mark.parametrize(
    ("lateness", "settled"),
    [
        (late(0, 0), True),
        (late(0, 0.4), True),
        (late(0, 1), True),
        (late(0, 0.6), False),
        (late(0, 0.5), False),
        (late(0, 0.3, 5, 0.3), True),
        (late(0, 0.3, 5.2, 5.6), False),
        (late(0, 3, 0, 3), True),
        (late(3, 3, 0, 0), False),
        (late(0, 0, 3, 3), True),
        (late(0, 0.2, 3, 3), True),
        (late(-3.3, -3, 3, 3.3), False),
        (late(3, 6, 5, 8), False),
    ],
)
def test_stamps_are_settled_unless_uneven_ones_step(lateness: Array, settled: bool) -> None:
    assert is_settled(lateness, P) == settled


@pytest.mark.parametrize(
    ("period_ns", "scans"), [(1_000_000, 60), (250_000, 240), (7_500_000, 8), (10_000_000, 8)]
)
def test_60_ms_or_eight_scans_confirm(period_ns: int, scans: int) -> None:
    assert confirm_scans(period_ns) == scans


def line(count: int, period: float = P, start: int = 10**12) -> tuple[Array, Array]:
    """Stamps and positions of even samples."""
    positions = np.arange(count)
    return start + np.rint(period * positions).astype(np.int64), positions


def clock_of(period_ns: float, stamps: Array, positions: Array) -> SampleClock:
    """The clock of this period under the stamps."""
    clock = SampleClock(period_ns)
    clock.restart(stamps, positions)
    return clock


def test_the_clock_touches_the_earliest_stamp() -> None:
    stamps, positions = line(100)
    stamps[3:] += 700
    stamps[50] -= 900
    clock = clock_of(P, stamps, positions + 1000)
    assert clock.time_ns(1050) == stamps[50]
    assert clock.time_ns(1000) == 10**12 - 200
    assert clock.position(int(stamps[50])) == pytest.approx(1050)
    assert clock.position(10**12 - 200 + P // 2) == pytest.approx(1000.5)
    assert clock.lateness_ns(stamps, positions + 1000)[[0, 3, 50]].tolist() == [200, 900, 0]
    assert clock.error == 1


def test_the_clock_takes_the_period_of_the_last_block_of_even_stamps() -> None:
    stamps, positions = line(4000, P * 1.001)
    clock = clock_of(P, stamps[:100], positions[:100])
    for begin in (0, 1000, 2000):
        part = slice(begin, begin + 1000)
        late_ns = clock.lateness_ns(stamps[part], positions[part])
        clock.fit(stamps[part], positions[part], late_ns)
        assert clock.error < 1e-6
        assert clock.period_ns == pytest.approx(P * 1.001, rel=1e-9)
        assert clock.time_ns(begin + 999) == pytest.approx(stamps[begin + 999], abs=2)
    # From there on it drifts, which the next block alone shows.
    stamps[3000:] += 500 * (positions[3000:] - 3000)
    part = slice(3000, 4000)
    clock.fit(stamps[part], positions[part], clock.lateness_ns(stamps[part], positions[part]))
    assert clock.period_ns == pytest.approx(P * 1.001 + 500, rel=1e-9)


@pytest.mark.parametrize(("count", "fitted"), [(15, False), (16, True), (31, True)])
def test_a_block_has_sixteen_points(count: int, fitted: bool) -> None:
    stamps, positions = line(count)
    clock = clock_of(P * 1.0001, stamps, positions)
    clock.fit(stamps, positions, clock.lateness_ns(stamps, positions))
    assert (clock.error < 1) == fitted
    assert (clock.period_ns == pytest.approx(P, rel=1e-9)) == fitted


def test_previous_blocks_help_where_stamps_are_late_at_random() -> None:
    """The error of the period falls far below that of a block alone, and a restart forgets them."""
    random = np.random.default_rng(5)
    stamps, positions = line(16_000)
    stamps += random.uniform(0, 5 * P, len(stamps)).astype(np.int64)
    clock = clock_of(P, stamps[:1000], positions[:1000])
    errors = []
    for begin in range(0, 16_000, 1000):
        part = slice(begin, begin + 1000)
        late_ns = clock.lateness_ns(stamps[part], positions[part])
        clock.fit(stamps[part], positions[part], late_ns)
        errors.append(abs(clock.period_ns / P - 1))
    assert max(errors[:2]) > 1e-5
    assert max(errors[7:]) < 3e-5
    alone = clock_of(P, stamps[-1000:], positions[-1000:])
    clock.restart(stamps[-1000:], positions[-1000:])
    for again in (alone, clock):
        again.period_ns = P
        again.restart(stamps[-1000:], positions[-1000:])
        late_ns = again.lateness_ns(stamps[-1000:], positions[-1000:])
        again.fit(stamps[-1000:], positions[-1000:], late_ns)
    assert clock.period_ns == alone.period_ns


@pytest.mark.parametrize("first", [0, 200, 520, 940])
def test_a_sixteenth_that_is_late_as_a_whole_does_not_turn_the_line(first: int) -> None:
    stamps, positions = line(1000)
    clock = clock_of(P, stamps, positions)
    stamps[first : first + 130] += 40 * P
    clock.fit(stamps, positions, clock.lateness_ns(stamps, positions))
    assert clock.period_ns == pytest.approx(P, rel=1e-9)


def test_the_period_is_estimated_in_spite_of_a_gap_and_of_late_stamps() -> None:
    stamps, _ = line(400)
    stamps[130:] += 300 * P
    assert estimate_period_ns(stamps) == pytest.approx(P, rel=1e-9)
    stamps, _ = line(400)
    stamps[::12] += P // 3
    assert estimate_period_ns(stamps) == pytest.approx(P, rel=1e-4)
    stamps, _ = line(1600)
    stamps += np.random.default_rng(2).uniform(0, 3 * P, 1600).astype(np.int64)
    assert estimate_period_ns(stamps) == pytest.approx(P, rel=5e-4)
    stamps[800:] += 50 * P
    assert estimate_period_ns(stamps) == pytest.approx(P, rel=2e-3)
