# SPDX-License-Identifier: Apache-2.0
"""The state of the daemon's loop for the HTTP threads: one immutable value, replaced as a whole."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from csp1d import __version__
from csp1d.config import P1Config, SiteConfig
from csp1d.events import CHAPTERS, ActiveProblem
from csp1d.measuring.history import History
from csp1d.measuring.reading import SHOWN_NS, Reading
from csp1d.measuring.recent import RecentScans
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import LiveReading, Problem, Status
from csp1d.units import SECOND_NS

_LED_ROLES = ("power", "current", "p1")


@dataclass(frozen=True)
class Snapshot:
    """The state after a turn of the loop. Times are CLOCK_MONOTONIC unless named otherwise."""

    site: SiteConfig = SiteConfig()
    p1: P1Config = P1Config()
    """With the identity of this machine in the place of "auto"."""
    problems: tuple[ActiveProblem, ...] = ()
    """Faults that last, the most important first."""
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
    history: History = History()
    charge_coulombs_total: Mapping[Phase, float] = field(default_factory=dict)
    reload_successful: bool = True
    reload_success_timestamp_seconds: float | None = None
    """Unix time of the start, or of the last successful reload."""
    certificate_expiry_seconds: float | None = None
    """Unix time after which the certificate of the HTTP server is not valid."""
    adc_up: bool = False
    adc_reconnects_total: int = 0
    p1_up: bool = False
    p1_requested: bool | None = None
    """Whether the request line is high or was within 10 s; None: it is not available."""
    port: PortCounts = field(default_factory=PortCounts)
    latency_counts: tuple[int, ...] = ()
    """One per bucket of `LATENCY_BUCKETS_SECONDS`, then one for all longer latencies."""
    latency_sum_seconds: float = 0.0
    leds_ms_per_second: Mapping[str, int] = field(default_factory=dict)
    """By role: how long each available LED is lit per second, the current LED after a reading."""
    last_telegram: bytes = b""

    def fresh(self, now_ns: int) -> Reading | None:
        """The last reading; None if it is too old to describe the present current, or an input has
        failed since."""
        return None if self.fresh_failed(now_ns) else _if_fresh(self.reading, now_ns)

    def fresh_failed(self, now_ns: int) -> Reading | None:
        """The last reading with a failed input, or None if it is too old."""
        return _if_fresh(self.failed, now_ns)

    def status(self, now_ns: int, unix_seconds: float) -> Status:
        """The content of /status.json. Both arguments are the present time."""
        reading, failed = self.fresh(now_ns), self.fresh_failed(now_ns)
        leds = {role: self.leds_ms_per_second.get(role) for role in _LED_ROLES}
        if leds["current"] and reading is None:
            leds["current"] = 0
        return Status(
            version=__version__,
            site=self.site.name,
            main_fuse_amperes=self.site.main_fuse_amperes or None,
            serial=self.p1.serial,
            equipment_id=self.p1.equipment_id,
            profile=self.p1.profile,
            problems=tuple(_reported(it, now_ns, unix_seconds) for it in self.problems),
            adc_up=self.adc_up,
            p1_up=self.p1_up,
            p1_requested=self.p1_requested,
            reading=_live(reading, now_ns) if reading else None,
            failed_phases=failed.failed_phases if failed else (),
            scans_lost_total=self.scans_lost_total,
            telegrams=self.port,
            leds_ms_per_second=leds,
            last_telegram=self.last_telegram.decode("ascii") or None,
        )


def _reported(problem: ActiveProblem, now_ns: int, unix_seconds: float) -> Problem:
    return Problem(
        event=problem.event.event_name,
        device=problem.device,
        reason=problem.reason,
        # A clock that is set later, as at boot, corrects it.
        since=round(unix_seconds - (now_ns - problem.since_ns) / SECOND_NS),
        chapter=CHAPTERS[problem.event] or "",
    )


def _if_fresh(reading: Reading | None, now_ns: int) -> Reading | None:
    return reading if reading and now_ns - reading.end_ns <= SHOWN_NS else None


def _live(reading: Reading, now_ns: int) -> LiveReading:
    names = {spec.name for spec in fields(LiveReading)} & vars(reading).keys()
    values = {name: getattr(reading, name) for name in names}
    return LiveReading(age_seconds=round((now_ns - reading.end_ns) / SECOND_NS, 3), **values)
