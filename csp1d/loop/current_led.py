# SPDX-License-Identifier: Apache-2.0
"""Timing of the current LED, without I/O: lit 20 ms per second and ampere.

Each reading lights the LED for its own time, so the LED goes dark when the readings stop. From 50 A
on that time extends just past the next reading, and the LED stays lit. Readings are not punctual:
after a late one, the next would come before its light has ended and fill the gap between the two.
So a light that would begin early waits until one second after the previous one began.

The kernel ends the light, whatever the daemon is busy with. But the longer a kernel timer, the
later it may fire: at 250 Hz, 4 ms for up to a quarter of a second, 32 ms for two seconds
(kernel/time/timer.c, "Level Offset Granularity"). So the last `_TRIM_MS` are set again.
"""

from csp1d.units import MS_NS, SECOND_NS

_MS_PER_AMPERE = 20
_CONTINUOUS_AMPERES = 50
_CONTINUOUS_MS = 1200
"""One second until the next reading, one mains cycle, a block of the ADC (0.1 s), and a margin."""
_TRIM_MS = 200
_EARLY_NS = 8 * MS_NS
"""A light that begins at most this early does not wait: the difference is not visible."""
_MAX_WAIT_NS = 50 * MS_NS
_TIMER_LATE_MS = 4
"""Maximum delay of a kernel timer of a quarter of a second; setting it takes about as long."""


class CurrentLed:
    """When the current LED is lit. It starts dark. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.start_ns: int | None = None
        """Start of the light for the last reading; None once it has begun."""
        self.off_ns: int | None = None
        """End of the light; None while the LED is dark."""
        self.trim_ns: int | None = None
        """When to set the remaining time (`rest_ms()`) again; None if that is not needed."""
        self.on_ms = 0
        """Length of the light for the last reading."""
        self._lit_ns: int | None = None

    def on_reading(self, total_amperes: float, now_ns: int) -> None:
        """A reading of L1+L2+L3 is ready: call `start()` at `start_ns`, which may be now."""
        self.on_ms = round(total_amperes * _MS_PER_AMPERE)
        if total_amperes >= _CONTINUOUS_AMPERES:
            self.on_ms = _CONTINUOUS_MS
        self.start_ns = now_ns
        if self._lit_ns is not None:
            second_ns = self._lit_ns + SECOND_NS - _EARLY_NS
            if now_ns < second_ns <= now_ns + _MAX_WAIT_NS:
                self.start_ns = second_ns

    def start(self, now_ns: int) -> int:
        """Begin the light. Returns its milliseconds, 0 for none."""
        self.start_ns = self.off_ns = self.trim_ns = None
        if self.on_ms:
            self._lit_ns = now_ns
            self.off_ns = now_ns + self.on_ms * MS_NS
            if _TRIM_MS < self.on_ms < _CONTINUOUS_AMPERES * _MS_PER_AMPERE:
                self.trim_ns = now_ns + (self.on_ms - _TRIM_MS) * MS_NS
        return self.on_ms

    def rest_ms(self, now_ns: int) -> int:
        """Milliseconds to request from the kernel so that the light ends at about `off_ns`."""
        return max(0, ((self.off_ns or now_ns) - now_ns) // MS_NS - _TIMER_LATE_MS)
