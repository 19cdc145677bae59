# SPDX-License-Identifier: Apache-2.0
"""The rhythm of the current lamp."""

import pytest

from csp1d.hat.lamp import CurrentLamp

MS = 1_000_000


@pytest.mark.parametrize(
    ("amperes", "on_ms", "trim_ms"),
    [
        (0.0, 0, None),
        (0.02, 0, None),
        (1.0, 20, None),
        (10.0, 200, None),
        (10.1, 202, 2),
        (24.5, 490, 290),
        (49.0, 980, 780),
        (49.99, 1000, 800),
    ],
)
def test_twenty_milliseconds_of_light_an_ampere(
    amperes: float, on_ms: int, trim_ms: int | None
) -> None:
    lamp = CurrentLamp()
    assert lamp.reading(amperes, 7000 * MS) == on_ms
    assert lamp.off_ns == ((7000 + on_ms) * MS if on_ms else None)
    assert lamp.trim_ns == (None if trim_ms is None else (7000 + trim_ms) * MS)


@pytest.mark.parametrize(("late_ms", "rest_ms"), [(0, 196), (30, 166), (250, 0)])
def test_what_is_left_to_light_is_told_however_late_it_is_asked(late_ms: int, rest_ms: int) -> None:
    lamp = CurrentLamp()
    lamp.reading(49, 0)
    assert lamp.trim_ns is not None
    assert lamp.rest_ms(lamp.trim_ns + late_ms * MS) == rest_ms


@pytest.mark.parametrize("amperes", [50.0, 60.0, 2997.0])
def test_from_fifty_amperes_on_the_light_reaches_past_the_next_reading(amperes: float) -> None:
    lamp = CurrentLamp()
    # Readings come a mains cycle around a second apart.
    assert lamp.reading(amperes, 0) > 1020
    assert lamp.trim_ns is None
