# SPDX-License-Identifier: Apache-2.0
"""The soak in short, and what it has to notice."""

import pytest
from soak import growth_percent, soak


def test_twenty_minutes_of_signal() -> None:
    result = soak(1 / 3)
    assert result.problems == []
    assert result.scans == 4000 * 1200
    assert result.readings == result.telegrams == 1200
    assert 0 < result.worst_percent < 0.05


@pytest.mark.parametrize(
    ("after", "percent"), [(100.0, 0.0), (102.0, 1.98), (90.0, -10.5)], ids=["flat", "up", "down"]
)
def test_growth_is_that_of_an_hour(after: float, percent: float) -> None:
    warm_up = [(hours / 10, 50.0 + hours) for hours in range(10)]
    samples = warm_up + [(1 + n / 10, 100 + (after - 100) * n / 10) for n in range(11)]
    assert growth_percent(samples, 1.0) == pytest.approx(percent, abs=0.1)
