# SPDX-License-Identifier: Apache-2.0
"""The state of the loop's parts as one `Snapshot`, for HTTP and systemd."""

from csp1d.config import SiteConfig
from csp1d.events import ActiveProblem
from csp1d.interfaces.http import HttpServer, SocketServer
from csp1d.interfaces.snapshot import Snapshot
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.indicators import Indicators
from csp1d.loop.reload import Reloads
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.p1.port import PortCounts


def active_problems(
    sampler: Sampler,
    sender: Sender,
    indicators: Indicators,
    http: DeviceSlot[HttpServer],
    reloads: Reloads,
    http_socket: DeviceSlot[SocketServer],
    now_ns: int,
) -> tuple[ActiveProblem, ...]:
    """The faults of all parts that last, the most important first."""
    problems = [
        *sampler.problems(now_ns),
        *sender.problems(now_ns),
        *reloads.problems,
        http.problem,
        http_socket.problem,
        *indicators.problems(now_ns),
    ]
    return tuple(problem for problem in problems if problem)


def take_snapshot(
    sampler: Sampler,
    sender: Sender,
    indicators: Indicators,
    http: DeviceSlot[HttpServer],
    reloads: Reloads,
    site: SiteConfig,
    problems: tuple[ActiveProblem, ...],
) -> Snapshot:
    """Copy the state of the parts. Later turns of the loop do not change the copy."""
    return Snapshot(
        site=site,
        p1=sender.p1,
        problems=problems,
        reading=sampler.reading,
        failed=sampler.failed,
        recent=sampler.recent,
        reading_timestamp_seconds=sampler.reading_timestamp_seconds,
        readings_total=sampler.readings_total,
        scans_total=sampler.scans_total,
        scans_lost_total=sampler.lost_scans_total,
        clipped_samples_total=dict(sampler.clipped_samples),
        history=sampler.history,
        charge_coulombs_total=dict(sampler.charge_coulombs),
        reload_successful=reloads.successful,
        reload_success_timestamp_seconds=reloads.success_timestamp_seconds,
        certificate_expiry_seconds=http.device.certificate_expiry_seconds if http.device else None,
        adc_up=sampler.is_up,
        adc_reconnects_total=sampler.reconnects,
        p1_up=sender.port.device is not None,
        p1_requested=sender.requested_lately,
        port=PortCounts(**vars(sender.counts)),
        latency_counts=tuple(sender.latency.counts),
        latency_sum_seconds=sender.latency.sum_seconds,
        leds_ms_per_second=indicators.ms_per_second,
        last_telegram=sender.last_telegram,
    )
