# SPDX-License-Identifier: Apache-2.0
"""What is logged of a device that disappears and returns."""

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


class Bench:
    """A slot, its clock, and what it logs."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self.now_ns = 0
        self.slot: DeviceSlot[Device] = DeviceSlot(
            "thing", Event.ADC_LOST, Event.ADC_FOUND, lambda: self.now_ns
        )

    def seconds(self, count: float, opener: Callable[[], Device]) -> None:
        """Search for the device once per second."""
        for _ in range(int(count)):
            self.slot.ensure_open(opener)
            self.now_ns += SECOND

    def messages(self) -> list[str]:
        """What was logged since the last call."""
        messages = [record.message for record in self._caplog.records]
        self._caplog.clear()
        return messages


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    return Bench(caplog)


def test_an_available_device_is_no_news(bench: Bench) -> None:
    bench.seconds(5, Device)
    assert bench.messages() == []


def test_a_device_that_worked_and_fails_is_logged_at_once_and_its_absence_is_no_news(
    bench: Bench,
) -> None:
    bench.seconds(3, Device)
    bench.slot.mark_failed(OSError(19, "No such device"), "its name")
    assert bench.messages() == ["thing lost: its name: No such device; check its connection"]
    bench.seconds(60, absent)
    assert bench.messages() == []
    bench.seconds(1, forbidden)  # udev has not given it its group yet
    bench.seconds(1, Device)
    assert bench.messages() == [], "it was opened, but has not worked yet"
    bench.slot.mark_working()
    bench.slot.mark_working()
    assert bench.messages() == ["thing available again"]


def test_a_device_that_is_missing_from_the_start_is_logged_when_that_lasts(bench: Bench) -> None:
    bench.seconds(2, absent)
    assert bench.messages() == []
    bench.seconds(60, absent)
    assert bench.messages() == ["thing missing: it is not there; plug it in"]
    bench.seconds(2, Device)
    assert bench.messages() == ["thing available again"]


def test_what_passes_while_devices_appear_is_not_logged(bench: Bench) -> None:
    bench.seconds(1, absent)
    bench.seconds(2, forbidden)
    bench.seconds(5, Device)
    assert bench.messages() == []


def test_a_new_reason_that_lasts_is_logged_once(bench: Bench) -> None:
    bench.seconds(3, absent)
    bench.messages()
    for _ in range(5):
        bench.seconds(4, forbidden)
        bench.seconds(4, in_use)
        bench.seconds(4, absent)
    assert bench.messages() == [
        "thing missing: it may not be opened; allow it",
        "thing missing: it is in use; stop the other",
    ]


def test_a_device_that_opens_and_fails_repeatedly_is_logged_once(bench: Bench) -> None:
    for _ in range(60):
        bench.seconds(1, Device)
        bench.slot.mark_failed(OSError(5, "Input/output error"))
    assert bench.messages() == ["thing lost: Input/output error; check its connection"]
    bench.seconds(2, Device)
    assert bench.messages() == ["thing available again"]


def test_a_device_that_fails_before_it_has_worked_is_not_logged_at_once(bench: Bench) -> None:
    bench.seconds(1, Device)
    bench.slot.mark_failed(OSError(5, "Input/output error"))
    bench.seconds(3, Device)
    assert bench.messages() == []


def test_a_device_that_works_but_has_to_wait_for_udev_is_not_logged(bench: Bench) -> None:
    # As an LED does: the files of its trigger belong to root for a moment.
    bench.seconds(3, Device)
    bench.slot.mark_failed(
        DeviceError("duration may not be written; give the daemon's group the file")
    )
    bench.seconds(1, forbidden)
    bench.seconds(3, Device)
    assert bench.messages() == []


def test_everything_about_another_device_is_news(bench: Bench) -> None:
    bench.seconds(3, absent)
    assert len(bench.messages()) == 1
    bench.slot.reset()
    bench.seconds(3, absent)
    assert bench.messages() == ["thing missing: it is not there; plug it in"]
    bench.slot.reset()
    bench.seconds(2, Device)
    assert bench.messages() == ["thing available again"]


def test_what_is_logged_has_its_fields(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.seconds(3, absent)
    bench.seconds(2, Device)
    lost, found = caplog.records
    assert lost.levelno == logging.WARNING
    assert lost.__dict__["CSP1D_EVENT"] == "adc-lost"
    assert lost.__dict__["MESSAGE_ID"] == Event.ADC_LOST.message_id
    assert lost.__dict__["CSP1D_DEVICE"] == "thing"
    assert lost.__dict__["CSP1D_REASON"] == "it is not there; plug it in"
    assert found.levelno == logging.INFO
    assert found.__dict__["CSP1D_EVENT"] == "adc-found"


def test_a_device_that_was_opened_again_has_not_worked_yet(bench: Bench) -> None:
    bench.seconds(3, Device)
    bench.slot.close()
    bench.seconds(1, Device)
    bench.slot.mark_failed(OSError(5, "Input/output error"))
    assert bench.messages() == []


def test_a_device_that_cannot_be_closed_is_gone_nevertheless(bench: Bench) -> None:
    class Vanished(Device):
        def close(self) -> None:
            raise OSError(5, "Input/output error")

    bench.seconds(3, Vanished)
    bench.slot.close()
    assert bench.slot.device is None
    assert bench.messages() == []
