# SPDX-License-Identifier: Apache-2.0
"""The state of the daemon's loop for the HTTP threads: one immutable value, replaced as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from csp1d import __version__
from csp1d.measuring.reading import SHOWN_NS, Reading
from csp1d.measuring.recent import RecentScans
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import LiveReading, Status
from csp1d.units import SECOND_NS

_LED_ROLES = ("power", "current", "p1")


@dataclass(frozen=True)
class Snapshot:
    """The state after a turn of the loop. Times are CLOCK_MONOTONIC unless named otherwise."""

    reading: Reading | None = None
    failed: Reading | None = None
    """The last reading with a failed input: for diagnosis, its currents are not valid."""
    recent: RecentScans | None = None
    """The last raw scans, however old; None before the first ones."""
    reading_timestamp_seconds: float | None = None
    """Unix time of the end of the last reading."""
    readings_total: int = 0
    scans_total: int = 0
    scans_lost_total: int = 0
    clipped_samples_total: Mapping[Phase, int] = field(default_factory=dict)
    adc_up: bool = False
    adc_reconnects_total: int = 0
    p1_up: bool = False
    p1_request: bool | None = None
    """None: the request line is not available."""
    port: PortCounts = field(default_factory=PortCounts)
    latency_counts: tuple[int, ...] = ()
    """One per bucket of `LATENCY_BUCKETS_SECONDS`, then one for all longer latencies."""
    latency_sum_seconds: float = 0.0
    leds_lit: Mapping[str, bool] = field(default_factory=dict)
    """By role: whether each available LED is lit."""
    current_led_off_ns: int | None = None
    """When the current LED goes dark without another turn of the loop."""
    last_telegram: bytes = b""

    def fresh(self, now_ns: int) -> Reading | None:
        """The last reading, or None if it is too old to describe the present current."""
        return _if_fresh(self.reading, now_ns)

    def fresh_failed(self, now_ns: int) -> Reading | None:
        """The last reading with a failed input, or None if it is too old."""
        return _if_fresh(self.failed, now_ns)

    def status(self, now_ns: int) -> Status:
        """The content of /status.json."""
        reading, failed = self.fresh(now_ns), self.fresh_failed(now_ns)
        off_ns = self.current_led_off_ns
        leds: dict[str, bool | None] = {role: self.leds_lit.get(role) for role in _LED_ROLES}
        if leds["current"] and off_ns is not None and now_ns >= off_ns:
            leds["current"] = False
        return Status(
            version=__version__,
            adc_up=self.adc_up,
            p1_up=self.p1_up,
            p1_request=self.p1_request,
            reading=_live(reading, now_ns) if reading else None,
            failed_phases=failed.failed_phases if failed else (),
            scans_lost_total=self.scans_lost_total,
            telegrams=self.port,
            leds=leds,
            last_telegram=self.last_telegram.decode("ascii") or None,
        )


def _if_fresh(reading: Reading | None, now_ns: int) -> Reading | None:
    return reading if reading and now_ns - reading.end_ns <= SHOWN_NS else None


def _live(reading: Reading, now_ns: int) -> LiveReading:
    names = {spec.name for spec in fields(LiveReading)} & vars(reading).keys()
    values = {name: getattr(reading, name) for name in names}
    return LiveReading(age_seconds=round((now_ns - reading.end_ns) / SECOND_NS, 3), **values)
