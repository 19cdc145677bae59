# SPDX-License-Identifier: Apache-2.0
"""The frequency of signals whose fundamental is known."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import Array

from csp1d.measuring.frequency import FrequencyMeter

RATE = 4000
PERIOD_NS = 1e9 / RATE


def wave(hertz: float, amplitude: float = 1.0, seconds: float = 1.0, angle: float = 0.0) -> Array:
    times = np.arange(round(seconds * RATE)) / RATE
    return np.asarray(amplitude * np.sin(2 * np.pi * hertz * times + angle))


def measure(*rows: Array, amperes_per_code: Sequence[float] | None = None) -> float | None:
    """The frequency of the rows by a new meter."""
    return FrequencyMeter(amperes_per_code or [1.0] * len(rows)).measure(np.array(rows), PERIOD_NS)


@settings(max_examples=60, deadline=None)
@given(
    hertz=st.floats(42.1, 67.9),
    seconds=st.floats(0.99, 1.05),
    angle=st.floats(0, 6.28),
    rate=st.sampled_from([200, 1000, 8000]),
)
def test_a_sine_is_exact(hertz: float, seconds: float, angle: float, rate: int) -> None:
    times = np.arange(round(seconds * rate)) / rate
    row = np.sin(2 * np.pi * hertz * times + angle)
    found = FrequencyMeter([1.0]).measure(row[None], 1e9 / rate)
    assert found == pytest.approx(hertz, abs=1e-3)


@pytest.mark.parametrize(
    ("hertz", "found"), [(41.5, None), (42.02, 42.02), (67.98, 67.98), (68.5, None), (100, None)]
)
def test_mains_are_from_42_to_68_hertz(hertz: float, found: float | None) -> None:
    assert measure(wave(hertz)) == (found and pytest.approx(found, abs=1e-3))


def test_no_signal_has_no_frequency() -> None:
    assert measure(wave(50, 0.0)) is None


# The signal of each channel, what a code of each is worth, and the frequency that is found.
STRONGEST: dict[str, tuple[list[Array], list[float], float]] = {
    "the larger codes": ([wave(50, 1), wave(51, 3)], [1, 1], 51),
    "the larger amperes": ([wave(50, 1), wave(51, 3)], [4, 1], 50),
    "the larger amperes, far apart": ([wave(50, 1), wave(60, 3)], [4, 1], 50),
    "the weakest does if it is the only steady one": (
        [wave(50, 9) * (wave(2) > 0), wave(51, 0.1)],
        [1, 1],
        51,
    ),
}


@pytest.mark.parametrize("case", STRONGEST)
def test_the_strongest_steady_channel_counts(case: str) -> None:
    rows, amperes_per_code, hertz = STRONGEST[case]
    found = measure(*rows, amperes_per_code=amperes_per_code)
    assert found == pytest.approx(hertz, abs=2e-3)


@pytest.mark.parametrize(
    ("second_ago", "hertz"),
    [((), 50), ((0.5, 0.4), 50), ((0.4, 0.5), 51), ((0.4, 1.0), 51), ((0.4, 1.7), 50)],
)
def test_the_strongest_channel_of_a_second_ago_is_tried_first(
    second_ago: Sequence[float], hertz: float
) -> None:
    """It counts while it has half of the amplitude that it had."""
    series = np.array([wave(50, 1.0), wave(51, 0.9)])
    meter = FrequencyMeter([1.0, 1.0])
    found = meter.measure(series, PERIOD_NS, second_ago)
    assert found == pytest.approx(hertz, abs=2e-3)


def test_a_channel_that_is_no_longer_steady_does_not_count_because_it_was_strong() -> None:
    pattern = wave(50.2, seconds=0.99) * np.repeat([1, 0, 1, 0], 990)
    meter = FrequencyMeter([2.0, 1.0])
    found = meter.measure(np.array([pattern, wave(50.4, 0.3, seconds=0.99)]), PERIOD_NS, (0.1, 0.1))
    assert found == pytest.approx(50.4, abs=0.02)


def burst(on: Sequence[bool], hertz: float = 50.2) -> Array:
    """A current that flows in some of the quarters of the last 0.99 s."""
    row = wave(hertz, seconds=0.99)
    quarters = np.repeat(on, len(row) // 4)
    return np.asarray(row * quarters)


def test_a_pattern_that_repeats_counts_only_without_a_steady_channel() -> None:
    pattern = burst([True, False, True, False])
    steady = wave(50.4, 0.05, seconds=0.99)
    assert measure(pattern, 0 * steady) == pytest.approx(50.2, abs=0.02)
    assert measure(pattern, steady) == pytest.approx(50.4, abs=0.02)
    assert measure(pattern, burst([False, True, False, True]) / 2) == pytest.approx(50.2, abs=0.02)


@pytest.mark.parametrize("ratio", [0.3, 0.75, 0.85, 1.0, 1.15, 1.3, 3])
def test_both_halves_have_the_same_amplitude(ratio: float) -> None:
    row = wave(50.2, seconds=0.99)
    row[len(row) // 2 :] *= ratio
    found = measure(row)
    assert found == (pytest.approx(50.2, abs=0.01) if 0.8 < ratio < 1.25 else None)


@pytest.mark.parametrize(("share", "is_found"), [(0.005, False), (0.015, False), (0.025, True)])
def test_the_fundamental_has_two_percent_of_the_power(share: float, is_found: bool) -> None:
    # The rest is at 777 Hz, which no window lets pass.
    row = wave(50.2, share**0.5) + wave(777, (1 - share) ** 0.5)
    found = measure(row)
    assert found == (pytest.approx(50.2, abs=0.01) if is_found else None)


@pytest.mark.parametrize("seconds", [0.5, 0.7, 0.98])
def test_less_than_a_second_will_do(seconds: float) -> None:
    assert measure(wave(50.2, seconds=seconds)) == pytest.approx(50.2, abs=0.01)


def follow(*hertz: float, seconds: float = 1.0) -> list[float | None]:
    """Readings of a meter, a window at each frequency (0: nothing flows)."""
    meter = FrequencyMeter([1.0])
    return [meter.measure(wave(f, f > 0, seconds)[None], PERIOD_NS) for f in hertz]


@pytest.mark.parametrize(
    "hertz",
    [
        (50, 50.1, 50.2, 50.3, 50.4, 50.5, 50.9),
        (50, 50.9, 51.8, 50.2),
        (50, 51.01, 53, 60, 49),
        (50, 48.95, 47.9, 46.5, 47.55),
        (50, 0, 60, 0, 0, 45),
        (0, 50),
        (43, 67, 43),
    ],
)
def test_it_follows_drifts_and_jumps(hertz: tuple[float, ...]) -> None:
    for found, expected in zip(follow(*hertz), hertz, strict=True):
        assert found == (pytest.approx(expected, abs=1e-3) if expected else None)


def test_it_stays_with_the_frequency_that_it_follows() -> None:
    both = wave(50) + wave(55, 1.2)
    assert measure(both) == pytest.approx(55, abs=0.1)
    meter = FrequencyMeter([1.0])
    for row in (wave(50), both, both):
        series = np.array([row])
        assert meter.measure(series, PERIOD_NS) == pytest.approx(50, abs=0.1)


@pytest.mark.parametrize(("ratio", "is_steady"), [(0.7, False), (0.77, False), (0.83, True)])
def test_a_steady_channel_has_the_same_power_in_all_quarters(ratio: float, is_steady: bool) -> None:
    pattern = wave(50.2, seconds=0.99)
    pattern *= np.repeat([1, ratio, 1, ratio], len(pattern) // 4)
    found = measure(pattern, wave(50.4, 0.05, seconds=0.99))
    assert found == pytest.approx(50.2 if is_steady else 50.4, abs=0.01)


@pytest.mark.parametrize("lengths", [(1.0, 0.6, 1.0), (0.6, 1.0), (1.0, 0.985, 1.0)])
def test_windows_need_not_be_of_one_length(lengths: tuple[float, ...]) -> None:
    meter = FrequencyMeter([1.0])
    for seconds in lengths:
        found = meter.measure(wave(50.2, seconds=seconds)[None], PERIOD_NS)
        assert found == pytest.approx(50.2, abs=0.01)


def test_a_period_that_changes_a_little_is_followed() -> None:
    meter = FrequencyMeter([1.0])
    for ppm in (0, 100, 1000, 8000, 20_000, 0):
        found = meter.measure(wave(50.2)[None], PERIOD_NS * (1 + ppm * 1e-6))
        assert found == pytest.approx(50.2 / (1 + ppm * 1e-6), abs=1e-3)
