# SPDX-License-Identifier: Apache-2.0
"""What the daemon's loop shows to others: one immutable value, replaced as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from csp1d.measuring.reading import CURRENT_NS, Reading
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase


@dataclass(frozen=True)
class Snapshot:
    """The state after a turn of the loop. Times are CLOCK_MONOTONIC unless named otherwise."""

    reading: Reading | None = None
    failed: Reading | None = None
    """The last reading, where an input has failed: it shows what is wrong, not what flows."""
    reading_timestamp_seconds: float | None = None
    """When the last reading ended, in Unix time."""
    readings_total: int = 0
    scans_total: int = 0
    scans_lost_total: int = 0
    clipped_samples_total: Mapping[Phase, int] = field(default_factory=dict)
    adc_up: bool = False
    adc_reconnects_total: int = 0
    p1_up: bool = False
    p1_request: bool | None = None
    """None: the request line is not there to tell."""
    port: PortCounts = field(default_factory=PortCounts)
    latency_counts: tuple[int, ...] = ()
    """One per bucket of `LATENCY_BUCKETS_SECONDS` and one for above."""
    latency_sum_seconds: float = 0.0
    lamps: Mapping[str, bool] = field(default_factory=dict)
    """Which of the LEDs that are there are lit, by role."""
    current_lamp_off_ns: int | None = None
    """When the current lamp goes dark, with nothing else to be done then."""
    last_telegram: bytes = b""

    def fresh(self, now_ns: int) -> Reading | None:
        """The reading, while it says what flows now."""
        return _while_fresh(self.reading, now_ns)

    def fresh_failed(self, now_ns: int) -> Reading | None:
        """The one of the failed input, while it says how that is now."""
        return _while_fresh(self.failed, now_ns)

    def lit(self, now_ns: int) -> Mapping[str, bool]:
        """As `lamps`, at a time."""
        off_ns = self.current_lamp_off_ns
        if off_ns is None or now_ns < off_ns or "current" not in self.lamps:
            return self.lamps
        return {**self.lamps, "current": False}


def _while_fresh(reading: Reading | None, now_ns: int) -> Reading | None:
    if reading is None or now_ns - reading.end_ns > CURRENT_NS:
        return None
    return reading
