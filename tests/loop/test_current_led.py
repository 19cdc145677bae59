# SPDX-License-Identifier: Apache-2.0
"""The timing of the current LED."""

import pytest

from csp1d.loop.current_led import CurrentLed

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
        (49.9, 998, 798),
    ],
)
def test_twenty_milliseconds_of_light_per_ampere(
    amperes: float, on_ms: int, trim_ms: int | None
) -> None:
    led = CurrentLed()
    led.on_reading(amperes, 7000 * MS)
    assert led.start_ns == 7000 * MS
    assert led.start(7000 * MS) == on_ms
    assert led.off_ns == ((7000 + on_ms) * MS if on_ms else None)
    assert led.trim_ns == (None if trim_ms is None else (7000 + trim_ms) * MS)


@pytest.mark.parametrize(("late_ms", "rest_ms"), [(0, 196), (30, 166), (250, 0)])
def test_the_remaining_light_is_right_however_late_it_is_asked_for(
    late_ms: int, rest_ms: int
) -> None:
    led = CurrentLed()
    led.on_reading(49, 0)
    led.start(0)
    assert led.trim_ns is not None
    assert led.rest_ms(led.trim_ns + late_ms * MS) == rest_ms


@pytest.mark.parametrize("amperes", [50.0, 60.0, 2997.0])
def test_from_fifty_amperes_the_light_extends_just_past_the_next_reading(amperes: float) -> None:
    led = CurrentLed()
    led.on_reading(amperes, 0)
    # Readings come a mains cycle and a block of the ADC around a second apart. When they stop, the
    # LED must not say for longer that it measures.
    assert 1120 < led.start(0) < 1250
    assert led.trim_ns is None


@pytest.mark.parametrize(
    ("ready_ms", "start_ms"),
    [
        # The first late, the next in time: each light begins with its second, or up to 8 ms early.
        ([0, 1024, 2000, 3000, 4000], [0, 1024, 2016, 3008, 4000]),
        ([0, 995, 1990], [0, 995, 1990]),
        # Much too early: the metering has restarted.
        ([0, 800, 1800], [0, 800, 1800]),
        ([0, 5000, 6000], [0, 5000, 6000]),
    ],
)
def test_after_a_late_light_the_next_one_waits_for_its_second(
    ready_ms: list[int], start_ms: list[int]
) -> None:
    led = CurrentLed()
    started = []
    for ready in ready_ms:
        led.on_reading(49, ready * MS)
        assert led.start_ns is not None
        led.start(led.start_ns)
        assert led.off_ns is not None
        started.append(led.off_ns // MS - 980)
    assert started == start_ms
