# SPDX-License-Identifier: Apache-2.0
"""The soak in short."""

from soak import soak


def test_twenty_minutes_of_signal() -> None:
    result = soak(1 / 3)
    assert result.problems == []
    assert result.scans == 4000 * 1200
    assert result.readings == result.telegrams == 1200
    assert 0 < result.worst_percent < 0.05
