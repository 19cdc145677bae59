# SPDX-License-Identifier: Apache-2.0
"""The state of the loop's parts as one `Snapshot`, for HTTP and systemd."""

from dataclasses import replace

from csp1d.interfaces.snapshot import Snapshot
from csp1d.loop.indicators import Indicators
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender


def take_snapshot(sampler: Sampler, sender: Sender, indicators: Indicators) -> Snapshot:
    """Copy the state of the parts. Later turns of the loop do not change the copy."""
    return Snapshot(
        reading=sampler.reading,
        failed=sampler.failed,
        recent=sampler.recent,
        reading_timestamp_seconds=sampler.reading_timestamp_seconds,
        readings_total=sampler.readings_total,
        scans_total=sampler.scans_total,
        scans_lost_total=sampler.lost_scans_total,
        clipped_samples_total=dict(sampler.clipped_samples),
        adc_up=sampler.is_up,
        adc_reconnects_total=sampler.reconnects,
        p1_up=sender.port.device is not None,
        p1_request=sender.requested,
        port=replace(sender.counts),
        latency_counts=tuple(sender.latency.counts),
        latency_sum_seconds=sender.latency.sum_seconds,
        leds_lit=indicators.lit,
        current_led_off_ns=indicators.off_ns,
        last_telegram=sender.last_telegram,
    )
