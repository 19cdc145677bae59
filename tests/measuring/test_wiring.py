# SPDX-License-Identifier: Apache-2.0
"""What is said of wirings by the angles that they give."""

import cmath
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp1d.config import ChannelConfig, DirectionConfig
from csp1d.measuring.wiring import Wiring
from csp1d.phase import Phase

L1, L2, L3 = Phase
LASTING = 5
ORDERS = ("L1-L2-L3", "L1-L3-L2")


def wiring(direction: DirectionConfig | None = None, **channels: ChannelConfig) -> Wiring:
    every = {phase: channels.get(phase, ChannelConfig()) for phase in Phase}
    return Wiring(direction or DirectionConfig(reference="voltage"), every)


def see(judge: Wiring, *lags: float | None, amperes: float = 10.0, times: int = LASTING) -> str:
    """What is said after so many readings of currents that lag L1's voltage so many degrees."""
    currents = {
        phase: cmath.rect(amperes, -math.radians(lag))
        for phase, lag in zip(Phase, lags, strict=True)
        if lag is not None
    }
    said = None
    for _ in range(times):
        said = judge.update(currents)
    return "unknown" if said is None else said


SWAPPED = (
    "if nothing feeds in, the inputs of {0} and {1} are swapped:"
    " swap channels.{0}.input and channels.{1}.input"
)
AGAINST = (
    "if nothing feeds in on {0}: turn the transformer of {0} around, or set"
    " channels.{0}.reversed = true"
)
REFERENCE = (
    "if nothing feeds in on {0}: the reference is reversed: turn its plug around; or turn the"
    " transformer of {0} around, or set {1}"
)

# Lags against L1's voltage, which the reference senses; None stands for no current to speak of.
PICTURES: dict[str, tuple[tuple[float | None, ...], str]] = {
    "as configured": ((0, 120, 240), ""),
    "loads of a fair power factor": ((29, 120 - 29, 240 + 29), ""),
    "nothing flows": ((None, None, None), "unknown"),
    "one phase alone": ((0, None, None), "unknown"),
    "one phase alone, against": ((180, None, None), "unknown"),
    "one phase alone, at another's voltage": ((120, None, None), "unknown"),
    "L2 and L3 swapped, or turning the other way": (
        (0, 240, 120),
        SWAPPED.format("L2", "L3")
        + ', or set direction.phase_order = "L1-L3-L2" if that is the phase order',
    ),
    "the same without a load on L1": (
        (None, 240, 120),
        SWAPPED.format("L2", "L3")
        + ', or set direction.phase_order = "L1-L3-L2" if that is the phase order',
    ),
    "the same with a reactive load on L1": (
        (60, 240, 120),
        SWAPPED.format("L2", "L3")
        + ', or set direction.phase_order = "L1-L3-L2" if that is the phase order',
    ),
    "L1 and L2 swapped": ((120, 0, 240), SWAPPED.format("L1", "L2")),
    "L1 and L3 swapped, L2 idle": ((240, None, 0), SWAPPED.format("L1", "L3")),
    "the reference senses L3": (
        (120, 240, 0),
        'if nothing feeds in, the reference senses L3, not L1: set direction.phase = "L3",'
        " or, if that is wrong, rotate the channels.*.input of all three phases",
    ),
    "the reference senses L2": (
        (240, 0, 120),
        'if nothing feeds in, the reference senses L2, not L1: set direction.phase = "L2",'
        " or, if that is wrong, rotate the channels.*.input of all three phases",
    ),
    "L1 reversed, or feeding in": ((180, 120, 240), AGAINST.format("L1")),
    "L3 reversed": ((None, 120, 240 + 180), AGAINST.format("L3")),
    "two reversed": (
        (180, 120 + 180, 240),
        REFERENCE.format("L1 and L2", "channels.L1.reversed = true, channels.L2.reversed = true"),
    ),
    "all feed in, or the reference is reversed": (
        (180, 120 + 180, 240 + 180),
        REFERENCE.format(
            "L1 and L2 and L3",
            "channels.L1.reversed = true, channels.L2.reversed = true, channels.L3.reversed = true",
        ),
    ),
    # Active current of little, and reactive of much: at no other voltage, to be sure of it.
    "feed-in with a heat pump": ((102 - 3, 222 - 3, 342 - 3), "unknown"),
    "all reactive": ((60, 120 + 60, 240 + 60), "unknown"),
    "all reactive the other way": ((-60, 120 - 60, 240 - 60), "unknown"),
    "one reactive": ((0, 120 + 60, 240), "unknown"),
    "one feeds in with reactive power, another is idle": ((0, 240, None), "unknown"),
    "one at another's voltage, which has its own": ((0, 240, 240), "unknown"),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_that_last(picture: str) -> None:
    lags, advice = PICTURES[picture]
    assert see(wiring(), *lags, times=LASTING - 1) == "unknown"
    assert see(wiring(), *lags) == advice
    assert see(wiring(), *lags, amperes=0.99) == "unknown"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sensed", Phase)
@pytest.mark.parametrize("exchange", itertools.permutations(Phase))
def test_the_mend_that_is_named_makes_it_fit(
    order: str, sensed: Phase, exchange: tuple[Phase, ...]
) -> None:
    """Currents as they are when the inputs of the phases lead to those of `exchange`."""
    direction = DirectionConfig(phase=sensed, phase_order=order)  # type: ignore[arg-type]
    lags = [direction.lag_degrees(phase) for phase in exchange]
    said = see(wiring(direction), *lags)
    moved = [phase for phase, to in zip(Phase, exchange, strict=True) if phase != to]
    if not moved:
        assert said == ""
    elif len(moved) == 2:
        assert f"swap channels.{moved[0]}.input and channels.{moved[1]}.input" in said
        (other,) = {*ORDERS} - {order}
        assert (f'direction.phase_order = "{other}"' in said) == (sensed not in moved)
        turned = DirectionConfig(phase=sensed, phase_order=other)  # type: ignore[arg-type]
        assert (see(wiring(turned), *lags) == "") == (sensed not in moved)
    else:
        (mended,) = [p for p in Phase if f'direction.phase = "{p}"' in said]
        right = DirectionConfig(phase=mended, phase_order=order)  # type: ignore[arg-type]
        assert see(wiring(right), *lags) == ""


def test_a_current_reference_has_a_key_for_its_flow() -> None:
    for flow, other in (("consuming", "producing"), ("producing", "consuming")):
        direction = DirectionConfig(reference="current", reference_flow=flow)  # type: ignore[arg-type]
        said = see(wiring(direction), 0, 300, 60)
        assert (
            f'the reference is reversed: set direction.reference_flow = "{other}"; or turn' in said
        )


def test_what_is_doubted_later_does_not_prove_what_was_before() -> None:
    judge = wiring()
    assert see(judge, 0, 300, None) == AGAINST.format("L2")
    assert see(judge, 0, None, 60) == AGAINST.format("L3")
    assert see(judge, 0, None, 240) == AGAINST.format("L3")
    assert see(judge, 0, 120, 240) == ""


def test_a_reversed_transformer_that_is_said_to_be_is_told_the_other_way() -> None:
    said = see(wiring(L1=ChannelConfig(reversed=True)), 180, 120, 240)
    assert "set channels.L1.reversed = false" in said


def test_advice_stays_until_its_phases_are_seen_to_be_right() -> None:
    judge = wiring()
    said = see(judge, 180, 120, 240)
    assert said == AGAINST.format("L1")
    assert see(judge, None, None, None) == said
    assert see(judge, None, 120, 240) == said
    assert see(judge, 0, 120, 240, times=LASTING - 1) == said
    assert see(judge, 0, 120, 240) == ""


def test_a_phase_that_was_seen_to_import_feeds_in_later() -> None:
    judge = wiring()
    assert see(judge, 0, 120, 240) == ""
    assert see(judge, 180, 120, 240) == ""
    assert see(judge, 0, 240, 120) == ""


def test_a_picture_has_to_last_without_a_break() -> None:
    judge = wiring()
    for _ in range(5):
        assert see(judge, 180, 120, 240, times=LASTING - 1) == "unknown"
        see(judge, None, None, None, times=1)


@given(
    st.tuples(st.floats(-29, 29), st.floats(-29, 29), st.floats(-29, 29)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_loads_and_feeds_of_a_fair_power_factor_are_never_called_swapped(
    lags: tuple[float, ...], feeds: tuple[bool, ...]
) -> None:
    at = [120 * n + lag + 180 * feed for n, (lag, feed) in enumerate(zip(lags, feeds, strict=True))]
    said = see(wiring(), *at)
    assert "swapped" not in said
    assert "sense" not in said
    for phase, feed in zip(Phase, feeds, strict=True):
        assert (f"channels.{phase}.reversed" in said) == feed
