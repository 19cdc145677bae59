# SPDX-License-Identifier: Apache-2.0
"""The states of the P1 port: each one handles each event, and the manual shows the same table."""

from collections.abc import Callable

import pytest
from state_diagram import PAGE, with_diagram

from csp1d.p1.port import TRANSITIONS, P1Port, PortEvent, PortState, Telegram
from csp1d.units import SECOND_NS

NOW_NS = 100 * SECOND_NS
DATA = bytes(755)
TELEGRAM = Telegram(DATA, NOW_NS)

Step = Callable[[P1Port], object]


def high(port: P1Port) -> object:
    return port.on_request(True, NOW_NS, len(DATA))


def low(port: P1Port) -> object:
    return port.on_request(False, NOW_NS, len(DATA))


def opened(port: P1Port) -> object:
    return port.on_port_opened(NOW_NS, 0)


def reading(port: P1Port) -> None:
    if port.on_reading(TELEGRAM, NOW_NS, len(DATA)):
        port.on_written(len(DATA))


def transmitted(port: P1Port) -> object:
    return port.on_timer(NOW_NS + SECOND_NS // 10, 0)


def stuck(port: P1Port) -> object:
    return port.on_timer(NOW_NS + 2 * SECOND_NS, len(DATA))


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


@pytest.mark.parametrize("state", PortState)
@pytest.mark.parametrize("event", PortEvent)
def test_each_state_handles_each_event(state: PortState, event: PortEvent) -> None:
    port = P1Port()
    for step in STATES[state]:
        step(port)
    assert port.state is state
    EVENTS[event](port)
    # What leads to the event elsewhere leads to nothing where the event cannot happen.
    assert port.state is TRANSITIONS.get((state, event), state)


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
