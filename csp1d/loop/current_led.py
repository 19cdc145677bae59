# SPDX-License-Identifier: Apache-2.0
"""The current lamp's rhythm, without I/O: 20 ms of light a second for each ampere.

Each reading lights the lamp for its own time, so that it goes dark by itself when the readings
stop. From 50 A on that time reaches past the next reading, and the light does not break. Readings
are not punctual: behind a late one the next would come before the light for it has ended, and fill
the dark between the two. So a light that would begin early waits for its second.

It is the kernel that ends the light, whatever the daemon is busy with; but the longer a kernel
timer, the later it may be: 4 ms of the first quarter of a second at 250 Hz, then 32 ms of two
seconds (kernel/time/timer.c, "Level Offset Granularity"). So the last `_FINE_MS` are set anew.
"""

from csp1d.measuring.reading import CURRENT_NS
from csp1d.units import MS_NS, SECOND_NS

_MS_PER_AMPERE = 20
_CONTINUOUS_AMPERES = 50
_FINE_MS = 200
_EARLY_NS = 8 * MS_NS
"""A light that begins no more than this before its second does not wait: nobody sees it."""
_LONGEST_WAIT_NS = 50 * MS_NS
_TIMER_LATE_MS = 4
"""What a kernel timer adds to a quarter of a second, at most, and setting it about as much."""


class CurrentLed:
    """When the current lamp is lit. It starts dark. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.start_ns: int | None = None
        """When the light of the last reading is to begin; None once it has."""
        self.off_ns: int | None = None
        """When it goes dark; None while it is."""
        self.trim_ns: int | None = None
        """When `rest_ms()` of light has to be set anew; None where it has not."""
        self._on_ms = 0
        self._lit_ns: int | None = None

    def on_reading(self, total_amperes: float, now_ns: int) -> None:
        """A reading of L1+L2+L3 is ready: call `start()` at `start_ns`, which may be now."""
        self._on_ms = round(total_amperes * _MS_PER_AMPERE)
        if total_amperes >= _CONTINUOUS_AMPERES:
            self._on_ms = CURRENT_NS // MS_NS
        self.start_ns = now_ns
        if self._lit_ns is not None:
            second_ns = self._lit_ns + SECOND_NS - _EARLY_NS
            if now_ns < second_ns <= now_ns + _LONGEST_WAIT_NS:
                self.start_ns = second_ns

    def start(self, now_ns: int) -> int:
        """Milliseconds of light from now on; 0 for none."""
        self.start_ns = self.off_ns = self.trim_ns = None
        if self._on_ms:
            self._lit_ns = now_ns
            self.off_ns = now_ns + self._on_ms * MS_NS
            if _FINE_MS < self._on_ms < _CONTINUOUS_AMPERES * _MS_PER_AMPERE:
                self.trim_ns = now_ns + (self._on_ms - _FINE_MS) * MS_NS
        return self._on_ms

    def rest_ms(self, now_ns: int) -> int:
        """Milliseconds of light to ask the kernel for, so that it ends at about `off_ns`."""
        return max(0, ((self.off_ns or now_ns) - now_ns) // MS_NS - _TIMER_LATE_MS)
