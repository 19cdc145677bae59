# SPDX-License-Identifier: Apache-2.0
"""The current lamp's rhythm, without I/O: 20 ms of light a second for each ampere.

Each reading lights the lamp for its own time, so that it goes dark by itself when the readings
stop. From 50 A on that time reaches past the next reading, and the light does not break.

It is the kernel that ends the light, whatever the daemon is busy with; but the longer a kernel
timer, the later it may be: 4 ms of the first quarter of a second at 250 Hz, then 32 ms of two
seconds (kernel/time/timer.c, "Level Offset Granularity"). So the last `_FINE_MS` are set anew.
"""

from csp1d.measuring.reading import CURRENT_NS

_MS = 1_000_000
_MS_PER_AMPERE = 20
_CONTINUOUS_AMPERES = 50
_FINE_MS = 200
_TIMER_LATE_MS = 4
"""What a kernel timer adds to a quarter of a second, at most, and setting it about as much."""


class CurrentLamp:
    """When the current lamp is lit. It starts dark. Times are CLOCK_MONOTONIC."""

    def __init__(self) -> None:
        self.off_ns: int | None = None
        """When it goes dark; None while it is."""
        self.trim_ns: int | None = None
        """When `rest_ms()` of light has to be set anew; None where it has not."""

    def reading(self, total_amperes: float, now_ns: int) -> int:
        """Milliseconds of light for a reading of L1+L2+L3, from now on; 0 for none."""
        on_ms = round(total_amperes * _MS_PER_AMPERE)
        self.off_ns = self.trim_ns = None
        if total_amperes >= _CONTINUOUS_AMPERES:
            on_ms = CURRENT_NS // _MS
        elif on_ms > _FINE_MS:
            self.trim_ns = now_ns + (on_ms - _FINE_MS) * _MS
        if on_ms:
            self.off_ns = now_ns + on_ms * _MS
        return on_ms

    def rest_ms(self, now_ns: int) -> int:
        """Milliseconds of light to ask the kernel for, so that it ends at about `off_ns`."""
        return max(0, ((self.off_ns or now_ns) - now_ns) // _MS - _TIMER_LATE_MS)
