# SPDX-License-Identifier: Apache-2.0
"""What is said of a device that comes and goes."""

import logging
from collections.abc import Callable

import pytest

from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.events import Event
from csp1d.loop.device_slot import DeviceSlot

SECOND = 1_000_000_000


class Device:
    def close(self) -> None:
        pass


def absent() -> Device:
    raise DeviceAbsentError("it is not there; plug it in")


def forbidden() -> Device:
    raise DeviceError("it may not be opened; allow it")


def in_use() -> Device:
    raise DeviceError("it is in use; stop the other")


class Told:
    """A slot, the clock that it sees, and what it says."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.now_ns = 0
        self.slot: DeviceSlot[Device] = DeviceSlot(
            "thing", Event.ADC_LOST, Event.ADC_FOUND, lambda: self.now_ns
        )

    def seconds(self, count: float, opener: Callable[[], Device]) -> None:
        """Look for it each second, for so long."""
        for _ in range(int(count)):
            self.slot.ensure_open(opener)
            self.now_ns += SECOND

    def words(self) -> list[str]:
        """What was said since the last call."""
        said = [record.message for record in self._caplog.records]
        self._caplog.clear()
        return said


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


def test_a_device_that_is_there_is_no_news(told: Told) -> None:
    told.seconds(5, Device)
    assert told.words() == []


def test_a_device_that_worked_and_fails_is_said_at_once_and_its_absence_is_nothing_new(
    told: Told,
) -> None:
    told.seconds(3, Device)
    told.slot.mark_failed(OSError(19, "No such device"), "its name")
    assert told.words() == ["thing lost: its name: No such device"]
    told.seconds(60, absent)
    assert told.words() == []
    told.seconds(1, forbidden)  # udev has not given it its group yet
    told.seconds(1, Device)
    assert told.words() == [], "it was opened, but has not worked yet"
    told.slot.mark_working()
    told.slot.mark_working()
    assert told.words() == ["thing found"]


def test_a_device_that_is_missing_from_the_start_is_said_when_that_lasts(told: Told) -> None:
    told.seconds(2, absent)
    assert told.words() == []
    told.seconds(60, absent)
    assert told.words() == ["thing missing: it is not there; plug it in"]
    told.seconds(2, Device)
    assert told.words() == ["thing found"]


def test_what_passes_while_devices_come_up_is_not_said(told: Told) -> None:
    told.seconds(1, absent)
    told.seconds(2, forbidden)
    told.seconds(5, Device)
    assert told.words() == []


def test_a_new_reason_that_lasts_is_said_once(told: Told) -> None:
    told.seconds(3, absent)
    told.words()
    for _ in range(5):
        told.seconds(4, forbidden)
        told.seconds(4, in_use)
        told.seconds(4, absent)
    assert told.words() == [
        "thing missing: it may not be opened; allow it",
        "thing missing: it is in use; stop the other",
    ]


def test_a_device_that_opens_and_fails_again_and_again_is_said_once(told: Told) -> None:
    for _ in range(60):
        told.seconds(1, Device)
        told.slot.mark_failed(OSError(5, "Input/output error"))
    assert told.words() == ["thing lost: [Errno 5] Input/output error"]
    told.seconds(2, Device)
    assert told.words() == ["thing found"]


def test_a_device_that_fails_before_it_has_worked_is_not_said_at_once(told: Told) -> None:
    told.seconds(1, Device)
    told.slot.mark_failed(OSError(5, "Input/output error"))
    told.seconds(3, Device)
    assert told.words() == []


def test_a_device_that_works_but_has_to_wait_for_udev_is_not_said(told: Told) -> None:
    # As an LED does, whose trigger brings files that are root's for a moment.
    told.seconds(3, Device)
    told.slot.mark_failed(
        DeviceError("duration may not be written; give the daemon's group the file")
    )
    told.seconds(1, forbidden)
    told.seconds(3, Device)
    assert told.words() == []


def test_of_another_device_all_is_news(told: Told) -> None:
    told.seconds(3, absent)
    assert len(told.words()) == 1
    told.slot.reset()
    told.seconds(3, absent)
    assert told.words() == ["thing missing: it is not there; plug it in"]
    told.slot.reset()
    told.seconds(2, Device)
    assert told.words() == ["thing found"]


def test_what_is_said_has_its_fields(told: Told, caplog: pytest.LogCaptureFixture) -> None:
    told.seconds(3, absent)
    told.seconds(2, Device)
    lost, found = caplog.records
    assert lost.levelno == logging.WARNING
    assert lost.__dict__["CSP1D_EVENT"] == "adc-lost"
    assert lost.__dict__["MESSAGE_ID"] == Event.ADC_LOST.message_id
    assert lost.__dict__["CSP1D_DEVICE"] == "thing"
    assert lost.__dict__["CSP1D_REASON"] == "it is not there; plug it in"
    assert found.levelno == logging.INFO
    assert found.__dict__["CSP1D_EVENT"] == "adc-found"
