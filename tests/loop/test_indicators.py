# SPDX-License-Identifier: Apache-2.0
"""The three indicators, with LEDs that disappear, return and cannot be set."""

import logging
import time

import pytest

from csp1d.config import Config
from csp1d.errors import DeviceError
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.loop.indicators import Indicators

ROLES = {
    Config().leds.power: "power",
    Config().leds.current: "current",
    Config().leds.p1: "p1",
}


class RecordedLed:
    """What the LED shows, and for how many milliseconds."""

    def __init__(self, turns_off_alone: bool) -> None:
        self._turns_off_alone = turns_off_alone
        self.shows: bool | int | None = None
        self.refuses = False
        self.writes = 0

    def switch(self, on: bool) -> None:
        if self.refuses:
            raise DeviceError("may not be written")
        self.shows = on
        self.writes += 1

    def light(self, milliseconds: int) -> bool:
        self.switch(True)
        self.shows = milliseconds
        return self._turns_off_alone

    def close(self) -> None:
        pass


class LedHat(SimulatedHat):
    """A HAT with LEDs that are recorded."""

    def __init__(self, turns_off_alone: bool = True) -> None:
        super().__init__(parse(""))
        self.leds = {role: RecordedLed(turns_off_alone) for role in ROLES.values()}

    def open_led(self, name: str) -> RecordedLed:  # type: ignore[override]
        return self.leds[ROLES[name]]

    def shown(self) -> dict[str, bool | int | None]:
        return {role: led.shows for role, led in self.leds.items()}


def test_at_the_start_power_is_on_and_the_others_are_off() -> None:
    hat = LedHat()
    indicators = Indicators(hat, Config())
    assert hat.shown() == {"power": True, "current": False, "p1": False}
    assert indicators.ms_per_second == {"power": 1000, "current": 0, "p1": 0}


@pytest.mark.parametrize("turns_off_alone", [True, False])
def test_no_current_ends_the_light_of_the_reading_before(turns_off_alone: bool) -> None:
    hat = LedHat(turns_off_alone)
    indicators = Indicators(hat, Config())
    indicators.on_reading(60.0)
    assert hat.leds["current"].shows == 1200
    indicators.on_reading(0.0)
    assert hat.leds["current"].shows is False
    assert indicators.ms_per_second["current"] == 0


@pytest.mark.parametrize(("turns_off_alone", "shows"), [(True, 20), (False, False)])
def test_what_ends_the_light(turns_off_alone: bool, shows: int | bool) -> None:
    hat = LedHat(turns_off_alone)
    indicators = Indicators(hat, Config())
    indicators.on_reading(1.0)
    off_ns = indicators._current.off_ns
    assert off_ns is not None
    assert indicators.wake_ns == (None if turns_off_alone else off_ns), "no wake-up without need"
    indicators.poll(off_ns)
    assert hat.leds["current"].shows == shows


def test_the_end_of_a_long_light_is_set_again() -> None:
    hat = LedHat()
    indicators = Indicators(hat, Config())
    indicators.on_reading(12.0)
    assert hat.leds["current"].shows == 240
    time.sleep(0.05)
    indicators.poll(time.monotonic_ns())
    assert hat.leds["current"].shows != 240


def test_leds_that_were_unplugged_show_their_state_again() -> None:
    hat = LedHat()
    indicators = Indicators(hat, Config())
    indicators.on_request(True)
    indicators.on_reading(60.0)
    for led in hat.leds.values():
        led.shows = None
    indicators.reopen_missing(again=True)
    shown = hat.shown()
    assert (shown["power"], shown["p1"]) == (True, True)
    assert 1000 < (shown["current"] or 0) <= 1200


def test_an_led_that_cannot_be_set_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    hat = LedHat()
    hat.leds["p1"].refuses = True
    now_ns = 0
    indicators = Indicators(hat, Config(), lambda: now_ns)
    for _ in range(5):
        now_ns += 1_000_000_000
        indicators.reopen_missing()
    assert [record.message for record in caplog.records] == [
        "LED csp1:yellow:p1 missing: may not be written"
    ]
    hat.leds["p1"].refuses = False
    indicators.reopen_missing()
    indicators.reopen_missing()
    assert caplog.records[-1].message == "LED csp1:yellow:p1 available again"


def test_files_that_belong_to_root_for_a_moment_are_no_news(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hat = LedHat()
    now_ns = 0
    indicators = Indicators(hat, Config(), lambda: now_ns)
    indicators.reopen_missing()
    hat.leds["current"].refuses = True
    indicators.on_reading(20.0)
    indicators.reopen_missing()
    now_ns += 300_000_000
    indicators.reopen_missing(again=True)
    hat.leds["current"].refuses = False
    for _ in range(5):
        now_ns += 1_000_000_000
        indicators.on_reading(20.0)
        indicators.reopen_missing()
    assert indicators.ms_per_second["current"] == 400
    assert caplog.messages == []


def test_an_led_that_does_not_turn_off_alone_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    hat = LedHat(turns_off_alone=False)
    indicators = Indicators(hat, Config())
    for _ in range(3):
        indicators.on_reading(20.0)
        indicators.reopen_missing(again=True)
    hat.leds = LedHat().leds
    for _ in range(3):
        indicators.reopen_missing(again=True)
        indicators.on_reading(20.0)
    assert [record.__dict__["CSP1D_EVENT"] for record in caplog.records] == [
        "led-trigger-lost",
        "led-trigger-found",
    ]
    assert "LED csp1:yellow:current: kernel LED trigger transient not loaded" in caplog.messages[0]


def test_the_request_led_is_written_when_the_request_changes() -> None:
    hat = LedHat()
    indicators = Indicators(hat, Config())
    hat.leds["p1"].writes = 0
    for _ in range(3):
        indicators.on_request(True)
    assert hat.leds["p1"].shows is True
    assert hat.leds["p1"].writes == 1


def test_the_light_of_a_led_is_reported_per_second() -> None:
    now_ns = 0
    indicators = Indicators(LedHat(), Config(), lambda: now_ns)
    indicators.on_reading(34.5)
    assert indicators.ms_per_second == {"power": 1000, "current": 690, "p1": 0}
    # A charge point that polls: 300 ms of each second.
    for millisecond in range(0, 5000, 100):
        now_ns = millisecond * 1_000_000
        indicators.on_request(millisecond % 1000 < 300)
        indicators.poll(now_ns)
        assert indicators.ms_per_second["p1"] == (300 if millisecond >= 1000 else 0)
    indicators.on_request(True)
    for now_ns in (6_500_000_000, 8_000_000_000):
        indicators.poll(now_ns)
    assert indicators.ms_per_second["p1"] == 1000


def test_at_the_end_only_power_stays_on() -> None:
    hat = LedHat()
    indicators = Indicators(hat, Config())
    indicators.on_request(True)
    indicators.on_reading(60.0)
    indicators.close()
    assert hat.shown() == {"power": True, "current": False, "p1": False}
