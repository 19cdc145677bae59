# SPDX-License-Identifier: Apache-2.0
"""The advice on wirings, by the angles of their currents."""

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
    configured = {phase: channels.get(phase, ChannelConfig()) for phase in Phase}
    return Wiring(direction or DirectionConfig(reference="voltage"), configured)


def see(wires: Wiring, *lags: float | None, amperes: float = 10.0, times: int = LASTING) -> str:
    """The advice after `times` readings of currents with these lags to L1's voltage (degrees)."""
    currents = {
        phase: cmath.rect(amperes, -math.radians(lag))
        for phase, lag in zip(Phase, lags, strict=True)
        if lag is not None
    }
    advice = None
    for _ in range(times):
        advice = wires.update(currents)
    return "unknown" if advice is None else advice


SWAPPED = (
    "if there is no export, the inputs of {0} and {1} are swapped:"
    " swap channels.{0}.input and channels.{1}.input"
)
AGAINST = (
    "if there is no export on {0}: turn the transformer of {0} around, or set"
    " channels.{0}.reversed = true"
)
REFERENCE = (
    "if there is no export on {0}: the reference is reversed: turn its plug around; or turn the"
    " transformer of {0} around, or set {1}"
)

# Lags against L1's voltage, which the reference senses; None: almost no current.
PICTURES: dict[str, tuple[tuple[float | None, ...], str]] = {
    "as configured": ((0, 120, 240), ""),
    "loads of a fair power factor": ((29, 120 - 29, 240 + 29), ""),
    "nothing flows": ((None, None, None), "unknown"),
    "one phase alone": ((0, None, None), "unknown"),
    "one phase alone, reversed": ((180, None, None), "unknown"),
    "one phase alone, at another's voltage": ((120, None, None), "unknown"),
    "L2 and L3 swapped, or the other phase order": (
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
        'if there is no export, the reference senses L3, not L1: set direction.phase = "L3",'
        " or, if that is wrong, rotate the channels.*.input of all three phases",
    ),
    "the reference senses L2": (
        (240, 0, 120),
        'if there is no export, the reference senses L2, not L1: set direction.phase = "L2",'
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
    # Little active and much reactive current: too far from the voltage of any phase.
    "feed-in with a heat pump": ((102 - 3, 222 - 3, 342 - 3), "unknown"),
    "all reactive": ((60, 120 + 60, 240 + 60), "unknown"),
    "all reactive the other way": ((-60, 120 - 60, 240 - 60), "unknown"),
    "one reactive": ((0, 120 + 60, 240), "unknown"),
    "one feeds in with reactive power, another is idle": ((0, 240, None), "unknown"),
    "one at the voltage of another that is correct": ((0, 240, 240), "unknown"),
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
def test_the_named_remedy_makes_it_fit(
    order: str, sensed: Phase, exchange: tuple[Phase, ...]
) -> None:
    """The input of each phase carries the current of its counterpart in `exchange`."""
    direction = DirectionConfig(phase=sensed, phase_order=order)  # type: ignore[arg-type]
    lags = [direction.lag_degrees(phase) for phase in exchange]
    advice = see(wiring(direction), *lags)
    moved = [phase for phase, to in zip(Phase, exchange, strict=True) if phase != to]
    if not moved:
        assert advice == ""
    elif len(moved) == 2:
        assert f"swap channels.{moved[0]}.input and channels.{moved[1]}.input" in advice
        (other,) = {*ORDERS} - {order}
        assert (f'direction.phase_order = "{other}"' in advice) == (sensed not in moved)
        turned = DirectionConfig(phase=sensed, phase_order=other)  # type: ignore[arg-type]
        assert (see(wiring(turned), *lags) == "") == (sensed not in moved)
    else:
        (sensed_phase,) = [p for p in Phase if f'direction.phase = "{p}"' in advice]
        right = DirectionConfig(phase=sensed_phase, phase_order=order)  # type: ignore[arg-type]
        assert see(wiring(right), *lags) == ""


def test_a_current_reference_has_a_key_for_its_flow() -> None:
    for flow, other in (("consuming", "producing"), ("producing", "consuming")):
        direction = DirectionConfig(reference="current", reference_flow=flow)  # type: ignore[arg-type]
        advice = see(wiring(direction), 0, 300, 60)
        assert (
            f'the reference is reversed: set direction.reference_flow = "{other}"; or turn'
            in advice
        )


def test_later_doubt_does_not_prove_earlier_suspects() -> None:
    wires = wiring()
    assert see(wires, 0, 300, None) == AGAINST.format("L2")
    assert see(wires, 0, None, 60) == AGAINST.format("L3")
    assert see(wires, 0, None, 240) == AGAINST.format("L3")
    assert see(wires, 0, 120, 240) == ""


def test_a_transformer_configured_as_reversed() -> None:
    advice = see(wiring(L1=ChannelConfig(reversed=True)), 180, 120, 240)
    assert "set channels.L1.reversed = false" in advice


def test_advice_stays_until_its_phases_are_seen_to_be_right() -> None:
    wires = wiring()
    advice = see(wires, 180, 120, 240)
    assert advice == AGAINST.format("L1")
    assert see(wires, None, None, None) == advice
    assert see(wires, None, 120, 240) == advice
    assert see(wires, 0, 120, 240, times=LASTING - 1) == advice
    assert see(wires, 0, 120, 240) == ""


def test_a_phase_that_was_seen_to_import_feeds_in_later() -> None:
    wires = wiring()
    assert see(wires, 0, 120, 240) == ""
    assert see(wires, 180, 120, 240) == ""
    assert see(wires, 0, 240, 120) == ""


def test_a_picture_has_to_last_without_a_break() -> None:
    wires = wiring()
    for _ in range(5):
        assert see(wires, 180, 120, 240, times=LASTING - 1) == "unknown"
        see(wires, None, None, None, times=1)


@given(
    st.tuples(st.floats(-29, 29), st.floats(-29, 29), st.floats(-29, 29)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_loads_and_feeds_of_a_fair_power_factor_are_never_called_swapped(
    lags: tuple[float, ...], feeds: tuple[bool, ...]
) -> None:
    at = [120 * n + lag + 180 * feed for n, (lag, feed) in enumerate(zip(lags, feeds, strict=True))]
    advice = see(wiring(), *at)
    assert "swapped" not in advice
    assert "sense" not in advice
    for phase, feed in zip(Phase, feeds, strict=True):
        assert (f"channels.{phase}.reversed" in advice) == feed
