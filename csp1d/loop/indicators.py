# SPDX-License-Identifier: Apache-2.0
"""The three lamps of the HAT and what each of them tells the installer."""

import functools
import time
from collections.abc import Callable, Mapping

from csp1d.config import Config
from csp1d.events import Event
from csp1d.hat.device import Hat, Led
from csp1d.loop.current_led import CurrentLed
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.fault import Fault


class Indicators:
    """power: the daemon runs or ran; current: amperes; p1: the request line."""

    def __init__(
        self, hat: Hat, config: Config, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._hat = hat
        self._clock = clock
        self._trigger_fault = Fault()
        self._rhythm = CurrentLed()
        self._ends_by_itself = False
        self._requested = False
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Take over the names of the LEDs; "" stands for none."""
        names = {
            "power": config.leds.power,
            "current": config.leds.current,
            "p1": config.leds.p1,
        }
        self._names = {role: name for role, name in names.items() if name}
        self._slots: dict[str, DeviceSlot[Led]] = {
            role: DeviceSlot(f"LED {name}", Event.LED_LOST, Event.LED_FOUND, self._clock)
            for role, name in self._names.items()
        }
        self.reopen_missing()

    @property
    def lit(self) -> Mapping[str, bool]:
        """What each lamp that is there shows, by role."""
        shown = {
            "power": True,
            "current": self._rest_ms() > 0,
            "p1": self._requested,
        }
        return {role: shown[role] for role, slot in self._slots.items() if slot.device}

    @property
    def wake_ns(self) -> int | None:
        rhythm = self._rhythm
        off_ns = None if self._ends_by_itself else rhythm.off_ns
        times = (rhythm.start_ns, rhythm.trim_ns, off_ns)
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    @property
    def off_ns(self) -> int | None:
        """When the current lamp goes dark, CLOCK_MONOTONIC; None while it is."""
        return self._rhythm.off_ns

    def reopen_missing(self, again: bool = False) -> None:
        """Look for the LEDs that are missing, and set those found to what they should show.

        `again`: look for those that seem to be there as well. An LED that was replugged has the
        same name and nothing that tells it from the one before.
        """
        for role, slot in self._slots.items():
            if again:
                slot.close()
            slot.ensure_open(functools.partial(self._open, role))

    def _open(self, role: str) -> Led:
        """The LED, set to what it should show: one that can not be set is not there."""
        led = self._hat.open_led(self._names[role])
        if role == "current" and self._rest_ms():
            self._light_led(led, self._rest_ms())
        else:
            led.switch({"power": True, "p1": self._requested}.get(role, False))
        return led

    def on_request(self, high: bool) -> None:
        """The request line is high or low."""
        if high != self._requested:
            self._requested = high
            self._switch("p1", high)

    def on_reading(self, total_amperes: float) -> None:
        """A fresh reading: light for it."""
        now_ns = self._clock()
        self._rhythm.on_reading(total_amperes, now_ns)
        self.poll(now_ns)

    def poll(self, now_ns: int) -> None:
        rhythm = self._rhythm
        if rhythm.start_ns is not None and now_ns >= rhythm.start_ns:
            if on_ms := rhythm.start(now_ns):
                self._light(on_ms)
            else:
                # The light of a reading before may still be on.
                self._switch("current", False)
        if rhythm.trim_ns is not None and now_ns >= rhythm.trim_ns:
            rhythm.trim_ns = None
            if rest_ms := self._rest_ms():
                self._light(rest_ms)
        if rhythm.off_ns is not None and now_ns >= rhythm.off_ns:
            rhythm.off_ns = None
            if not self._ends_by_itself:
                self._switch("current", False)

    def close(self) -> None:
        """All dark but power, which shows that the board has power."""
        for role in ("current", "p1"):
            self._switch(role, False)

    def _rest_ms(self) -> int:
        """Milliseconds that the current lamp has still to be lit."""
        return self._rhythm.rest_ms(self._clock())

    def _light(self, on_ms: int) -> None:
        slot = self._slots.get("current")
        if slot and slot.device:
            try:
                self._light_led(slot.device, on_ms)
            except OSError as error:
                slot.mark_failed(error)

    def _light_led(self, led: Led, on_ms: int) -> None:
        self._ends_by_itself = led.light(on_ms)
        name = f"LED {self._names['current']}"
        if self._ends_by_itself:
            if self._trigger_fault.clear(self._clock()):
                Event.LED_TRIGGER_FOUND.log("%s goes dark by itself again", name, device=name)
        elif self._trigger_fault.observe(self._clock()):
            Event.LED_TRIGGER_LOST.log(
                "%s: the kernel's trigger transient is not loaded (modprobe "
                "ledtrig-transient); it is switched directly, and stays as it is if csp1d is "
                "killed",
                name,
                device=name,
            )

    def _switch(self, role: str, on: bool) -> None:
        slot = self._slots.get(role)
        if slot and slot.device:
            try:
                slot.device.switch(on)
            except OSError as error:
                slot.mark_failed(error)
