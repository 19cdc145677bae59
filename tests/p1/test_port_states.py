# SPDX-License-Identifier: Apache-2.0
"""The states of the P1 port: each one handles each event, and the manual shows the same table."""

from collections.abc import Callable

import pytest
from state_diagram import PAGE, with_diagram

from csp1d.p1.port import (
    TRANSITIONS,
    Action,
    Flush,
    P1Port,
    PortEvent,
    PortState,
    Telegram,
    Write,
)
from csp1d.units import SECOND_NS

NOW_NS = 100 * SECOND_NS
DATA = bytes(755)
HELD = 700
"""Of a telegram that has begun."""
TELEGRAM = Telegram(DATA, NOW_NS)

Step = Callable[[P1Port], list[Action] | None]


def high(port: P1Port) -> list[Action]:
    return port.on_request(True, NOW_NS, HELD)


def low(port: P1Port) -> list[Action]:
    return port.on_request(False, NOW_NS, HELD)


def opened(port: P1Port) -> list[Action]:
    return port.on_port_opened(NOW_NS, 0)


def reading(port: P1Port) -> list[Action]:
    return port.on_reading(TELEGRAM, NOW_NS, HELD if port.state is PortState.SENDING else 0)


def transmitted(port: P1Port) -> list[Action]:
    return port.on_timer(NOW_NS + SECOND_NS // 10, 0)


def stuck(port: P1Port) -> list[Action]:
    return port.on_timer(NOW_NS + 2 * SECOND_NS, HELD)


def play(port: P1Port, step: Step, can_flush: bool) -> None:
    """The step, and the actions that it causes."""
    actions = step(port) or []
    while actions:
        action = actions.pop(0)
        if isinstance(action, Write):
            port.on_written(len(action.data))
        elif isinstance(action, Flush):
            actions += port.on_flushed(NOW_NS, 0 if can_flush else HELD)
        else:
            port.on_port_lost()


STATES: dict[PortState, list[Step]] = {
    PortState.CLOSED: [],
    PortState.CLOSED_REQUESTED: [high],
    PortState.IDLE: [opened],
    PortState.WAITING: [opened, high],
    PortState.SENDING: [opened, high, reading],
}
EVENTS: dict[PortEvent, Step] = {
    PortEvent.REQUEST_HIGH: high,
    PortEvent.REQUEST_LOW: low,
    PortEvent.PORT_OPENED: opened,
    PortEvent.PORT_LOST: P1Port.on_port_lost,
    PortEvent.STARTED: reading,
    PortEvent.SENT: transmitted,
    PortEvent.DROPPED: stuck,
}
OUTSIDE = {
    PortEvent.REQUEST_HIGH,
    PortEvent.REQUEST_LOW,
    PortEvent.PORT_OPENED,
    PortEvent.PORT_LOST,
}


@pytest.mark.parametrize("can_flush", [True, False])
@pytest.mark.parametrize("state", PortState)
@pytest.mark.parametrize("event", PortEvent)
def test_each_state_handles_each_event(state: PortState, event: PortEvent, can_flush: bool) -> None:
    port = P1Port()
    for step in STATES[state]:
        play(port, step, can_flush)
    assert port.state is state
    play(port, EVENTS[event], can_flush)
    # What leads to the event elsewhere leads to nothing where the event cannot happen.
    after = TRANSITIONS.get((state, event), state)
    if event is PortEvent.DROPPED and after is not state and not can_flush:
        # What cannot be flushed is discarded by closing the port.
        after = TRANSITIONS[after, PortEvent.PORT_LOST]
    assert port.state is after


LEAVING = [opened, high, reading, low]
"""At a port that cannot flush, the rest of the aborted telegram is leaving now."""


@pytest.mark.parametrize("steps", [LEAVING, [*LEAVING, high]], ids=["IDLE", "WAITING"])
@pytest.mark.parametrize("event", PortEvent)
def test_each_event_while_an_aborted_telegram_leaves(steps: list[Step], event: PortEvent) -> None:
    port = P1Port()
    for step in steps:
        play(port, step, can_flush=False)
    state = port.state
    play(port, EVENTS[event], can_flush=False)
    ignored = {PortEvent.STARTED, PortEvent.SENT, PortEvent.DROPPED}
    lost = PortEvent.PORT_LOST
    if event is PortEvent.DROPPED:
        # Still there after its time: it is stuck.
        assert port.state is TRANSITIONS[state, lost]
    else:
        assert port.state is (state if event in ignored else TRANSITIONS[state, event])


def test_a_telegram_starts_when_the_aborted_one_has_left() -> None:
    port = P1Port()
    for step in (*LEAVING, high, reading):
        play(port, step, can_flush=False)
    assert port.wake_ns is not None
    assert port.on_timer(port.wake_ns - 1, 0) == []
    assert port.on_timer(port.wake_ns, 0) == [Write(DATA, NOW_NS)]
    assert port.state is PortState.SENDING


def test_a_port_sends_until_the_rest_of_an_aborted_telegram_has_left() -> None:
    port = P1Port()
    assert not port.sending
    for number, step in enumerate(LEAVING, 1):
        play(port, step, can_flush=False)
        assert port.sending == (number >= 3)
    assert port.wake_ns is not None
    port.on_timer(port.wake_ns, 0)
    assert not port.sending


def test_what_comes_from_outside_can_happen_in_each_state() -> None:
    assert {pair for pair in TRANSITIONS if pair[1] in OUTSIDE} == {
        (state, event) for state in PortState for event in OUTSIDE
    }


def test_a_telegram_starts_while_waiting_and_ends_while_sending() -> None:
    assert {pair for pair in TRANSITIONS if pair[1] not in OUTSIDE} == {
        (PortState.WAITING, PortEvent.STARTED),
        (PortState.SENDING, PortEvent.SENT),
        (PortState.SENDING, PortEvent.DROPPED),
    }


def test_the_manual_shows_the_table() -> None:
    page = PAGE.read_text()
    assert with_diagram(page) == page, "write it again: python3 tests/p1/state_diagram.py"
