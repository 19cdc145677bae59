# SPDX-License-Identifier: Apache-2.0
"""The three LEDs of the HAT: what each one shows, and the devices behind them."""

import functools
import time
from collections.abc import Callable, Mapping

from csp1d.config import Config
from csp1d.events import ActiveProblem, Event
from csp1d.hat.device import Hat, Led
from csp1d.loop.current_led import CurrentLed
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.fault import Fault
from csp1d.units import SECOND_NS


class Indicators:
    """The LEDs by role: power (always lit), current (L1+L2+L3), p1 (the request line)."""

    def __init__(
        self, hat: Hat, config: Config, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._hat = hat
        self._clock = clock
        self._current = CurrentLed()
        self._turns_off_alone = False
        self._requested = False
        self._p1_ms = 0
        self._p1_lit_ns = 0
        self._p1_since_ns = self._p1_counted_ns = clock()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use the LEDs that `config` names by role; "" stands for none."""
        self._names = {role: name for role, name in vars(config.leds).items() if name}
        self._slots: dict[str, DeviceSlot[Led]] = {
            role: DeviceSlot(f"LED {name}", Event.LED_LOST, Event.LED_FOUND, self._clock)
            for role, name in self._names.items()
        }
        name = self._names.get("current", "")
        self._trigger_fault = Fault(Event.LED_TRIGGER_LOST, f"LED {name}")
        self.reopen_missing()

    def problems(self, now_ns: int) -> list[ActiveProblem | None]:
        """The active problems of the LEDs; None stands for none."""
        lost = [slot.problem for slot in self._slots.values()]
        return [*lost, self._trigger_fault.recent(now_ns)]

    @property
    def ms_per_second(self) -> Mapping[str, int]:
        """By role: how long each available LED is lit per second, p1 over the last second."""
        shown = {"power": 1000, "current": min(1000, self._current.on_ms), "p1": self._p1_ms}
        return {role: shown[role] for role, slot in self._slots.items() if slot.device}

    @property
    def wake_ns(self) -> int | None:
        current = self._current
        off_ns = None if self._turns_off_alone else current.off_ns
        times = (current.start_ns, current.trim_ns, off_ns)
        return min((time_ns for time_ns in times if time_ns is not None), default=None)

    def reopen_missing(self, again: bool = False) -> None:
        """Open the missing LEDs and set them to what they should show.

        `again`: open all LEDs again. One that was unplugged and plugged in has the same name, and
        nothing distinguishes it from the one before.
        """
        for role, slot in self._slots.items():
            if again:
                slot.close()
            slot.ensure_open(functools.partial(self._open, role))

    def _open(self, role: str) -> Led:
        """Open an LED and set it to what it should show; one that cannot be set is missing."""
        led = self._hat.open_led(self._names[role])
        if role == "current" and self._rest_ms():
            self._light_led(led, self._rest_ms())
        else:
            led.switch({"power": True, "p1": self._requested}.get(role, False))
        return led

    def on_request(self, high: bool) -> None:
        """The request line is high or low."""
        if high != self._requested:
            self._count_p1(self._clock())
            self._requested = high
            self._switch("p1", high)

    def on_reading(self, total_amperes: float) -> None:
        """A fresh reading of L1+L2+L3: light the current LED for it."""
        now_ns = self._clock()
        self._current.on_reading(total_amperes, now_ns)
        self.poll(now_ns)

    def poll(self, now_ns: int) -> None:
        """Start, trim or end the light of the current LED if it is time."""
        self._count_p1(now_ns)
        current = self._current
        if current.start_ns is not None and now_ns >= current.start_ns:
            if on_ms := current.start(now_ns):
                self._light(on_ms)
            else:
                # The light of the previous reading may still be on.
                self._switch("current", False)
        if current.trim_ns is not None and now_ns >= current.trim_ns:
            current.trim_ns = None
            if rest_ms := self._rest_ms():
                self._light(rest_ms)
        if current.off_ns is not None and now_ns >= current.off_ns:
            current.off_ns = None
            if not self._turns_off_alone:
                self._switch("current", False)

    def _count_p1(self, now_ns: int) -> None:
        """Add the time since the last call to the light of p1, which is as long as its requests."""
        if self._requested:
            self._p1_lit_ns += now_ns - self._p1_counted_ns
        self._p1_counted_ns = now_ns
        if (span_ns := now_ns - self._p1_since_ns) >= SECOND_NS:
            self._p1_ms = round(1000 * self._p1_lit_ns / span_ns)
            self._p1_lit_ns, self._p1_since_ns = 0, now_ns

    def close(self) -> None:
        """Turn off all LEDs except power, which shows that the board has power."""
        for role in ("current", "p1"):
            self._switch(role, False)

    def _rest_ms(self) -> int:
        """Remaining milliseconds of light of the current LED."""
        return self._current.rest_ms(self._clock())

    def _light(self, on_ms: int) -> None:
        self._set("current", lambda led: self._light_led(led, on_ms))

    def _light_led(self, led: Led, on_ms: int) -> None:
        self._turns_off_alone = led.light(on_ms)
        name = f"LED {self._names['current']}"
        if self._turns_off_alone:
            if self._trigger_fault.clear(self._clock()):
                Event.LED_TRIGGER_FOUND.log("%s: kernel trigger in use again", name, device=name)
        elif self._trigger_fault.observe(self._clock()):
            self._trigger_fault.log(
                "%s: kernel LED trigger transient not loaded, the LED may stay on if csp1d is"
                " killed; run: modprobe ledtrig-transient",
                name,
            )

    def _switch(self, role: str, on: bool) -> None:
        self._set(role, lambda led: led.switch(on))

    def _set(self, role: str, action: Callable[[Led], None]) -> None:
        slot = self._slots.get(role)
        if slot and slot.device:
            try:
                action(slot.device)
            except OSError as error:
                slot.mark_failed(error)
