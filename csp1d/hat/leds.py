# SPDX-License-Identifier: Apache-2.0
"""The lamps: LED class devices in sysfs (Documentation/leds/leds-class.rst).

A lamp that shall not outlive its reason is lit through the kernel's `transient` trigger
(Documentation/leds/ledtrig-transient.rst): the kernel switches it off when its time is over, also
if nobody is left to ask for it, and the time can be set anew while it runs. The `oneshot` trigger
can not serve: it ignores a shot while one runs, so a light longer than a second breaks, and one of
nearly a second, which ends up to 32 ms late, swallows the next.
"""

from pathlib import Path

from csp1d.errors import DeviceAbsentError, DeviceError

_TRIGGER = "transient"


class SysfsLed:
    """See `Led`. Raises DeviceError when there is no such LED."""

    def __init__(self, name: str, root: Path = Path("/sys/class/leds")) -> None:
        self._folder = root / name
        try:
            self._full = self._get("max_brightness")
            self._has_trigger = f"[{_TRIGGER}]" in self._triggers()
        except FileNotFoundError as error:
            raise DeviceAbsentError(
                f'there is no {self._folder}; set leds to its name, or to ""'
            ) from error

    def switch(self, on: bool) -> None:
        if self._has_trigger and not on:
            self._put("activate", "0")
        else:
            # Writing 0 would detach a trigger.
            self._put("brightness", self._full if on else "0")

    def light(self, milliseconds: int) -> bool:
        if not self._has_trigger and not self._attach():
            self._put("brightness", self._full)
            return False
        self._put("state", "1")
        self._put("duration", str(milliseconds))
        # A time that still runs has to be ended first, or the kernel ignores the new one. The two
        # follow each other at once, so that nobody sees the lamp go dark in between.
        self._put("activate", "0", "1")
        return True

    def close(self) -> None:
        """Nothing is held open; what the lamp shows at the end is the caller's to say."""

    def _attach(self) -> bool:
        if _TRIGGER in self._triggers():
            self._put("trigger", _TRIGGER)
            self._has_trigger = True
        return self._has_trigger

    def _triggers(self) -> list[str]:
        """Those that the kernel offers, the one in force in brackets."""
        try:
            return self._get("trigger").split()
        except FileNotFoundError:
            # A kernel without LED triggers has no such file; is the LED itself there?
            self._get("brightness")
            return []

    def _get(self, attribute: str) -> str:
        return (self._folder / attribute).read_text().strip()

    def _put(self, attribute: str, *values: str) -> None:
        file = self._folder / attribute
        try:
            with file.open("wb", buffering=0) as opened:
                for value in values:
                    opened.write(value.encode())
        except PermissionError as error:
            # A trigger's files are root's until udev has dealt with them.
            raise DeviceError(
                f"{file} may not be written; give the daemon's group the file (udev rule)"
            ) from error
