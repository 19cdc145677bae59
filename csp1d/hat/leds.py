# SPDX-License-Identifier: Apache-2.0
"""The LEDs: LED class devices in sysfs (Documentation/leds/leds-class.rst).

An LED that must not stay lit after csp1d dies is lit through the kernel's `transient` trigger
(Documentation/leds/ledtrig-transient.rst): the kernel switches it off after its duration, which can
be set again before that. The `oneshot` trigger does not serve: it ignores a shot during another, so
light longer than a second is interrupted, and a shot of nearly a second, which ends up to 32 ms
late, swallows the next. Any other trigger (mmc0, heartbeat) would light the LED for itself: it is
taken off when the LED is opened.
"""

from pathlib import Path

from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat import sysfs
from csp1d.hat.device import Driver

_TRIGGER = "transient"


class SysfsLed(Driver):
    """See `Led`. Raises DeviceError when there is no such LED."""

    def __init__(self, name: str, root: Path = Path("/sys/class/leds")) -> None:
        super().__init__(f"LED {name}")
        self._folder = root / name
        try:
            self._full = sysfs.read(self._folder / "max_brightness")
            self._has_trigger = f"[{_TRIGGER}]" in self._triggers()
        except FileNotFoundError as error:
            raise DeviceAbsentError(
                f'{self._folder} not found; set its name under [leds], or ""'
            ) from error
        in_force = [name for name in self._triggers() if name.startswith("[")]
        if in_force and in_force[0] not in ("[none]", f"[{_TRIGGER}]"):
            self._write("trigger", "none")

    def switch(self, on: bool) -> None:
        if self._has_trigger and not on:
            # To write 0 to the brightness would detach the trigger.
            self._write("activate", "0")
            return
        if self._has_trigger:
            # The trigger would not end a light that it did not begin.
            self._write("trigger", "none")
            self._has_trigger = False
        self._write("brightness", self._full if on else "0")

    def light(self, milliseconds: int) -> bool:
        if not self._has_trigger and _TRIGGER in self._triggers():
            self._write("trigger", _TRIGGER)
            self._has_trigger = True
        if not self._has_trigger:
            self._write("brightness", self._full)
            return False
        self._write("state", "1")
        self._write("duration", str(milliseconds))
        # The kernel ignores a new duration while one runs. Ended and started at once, the LED does
        # not flicker.
        self._write("activate", "0", "1")
        return True

    def _triggers(self) -> list[str]:
        """The triggers that the kernel offers, the one in force in brackets."""
        return sysfs.text(self._folder / "trigger").split()

    def _write(self, attribute: str, *values: str) -> None:
        self._check_open()
        file = self._folder / attribute
        try:
            with file.open("wb", buffering=0) as opened:
                for value in values:
                    opened.write(value.encode())
        except OSError as error:
            # A trigger's files belong to root until udev has handled them.
            if remedy := sysfs.write_remedy(error):
                raise DeviceError(f"{file}: {error.strerror}{remedy}") from error
            raise
