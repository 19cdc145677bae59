# SPDX-License-Identifier: Apache-2.0
"""The snapshot: the state of the parts, and a copy of it."""

import time

from signals import hat_format

from csp1d.config import Config, P1Config, RequestConfig
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.loop.indicators import Indicators
from csp1d.loop.report import take_snapshot
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.measuring.reading import PhaseCurrent, Reading
from csp1d.measuring.recent import RecentScans
from csp1d.phase import Phase

CONFIG = Config(p1=P1Config(request=RequestConfig(always=True)))


def test_a_snapshot_has_the_state_of_the_parts_and_keeps_it() -> None:
    hat = SimulatedHat(parse(""))
    sampler, sender = Sampler(hat, CONFIG), Sender(hat, CONFIG)
    indicators = Indicators(hat, CONFIG)
    before = take_snapshot(sampler, sender, indicators)
    assert before.reading is None
    assert not before.adc_up
    assert before.p1_up
    assert before.p1_request is True
    assert before.leds_lit == {"power": True, "current": False, "p1": False}

    phases = {Phase.L1: PhaseCurrent(2.0, 2.8, 0.0, 3)}
    reading = Reading(1, time.monotonic_ns(), 1.0, phases, 50.0, 4000, 0)
    sampler._record([reading])
    sampler.recent = RecentScans(hat_format(), 7)
    sender.on_reading(reading)
    indicators.on_request(True)
    indicators.on_reading(60.0)
    after = take_snapshot(sampler, sender, indicators)
    assert after.reading is reading
    assert after.recent is sampler.recent
    assert after.readings_total == 1
    assert after.reading_timestamp_seconds is not None
    assert after.clipped_samples_total == {Phase.L1: 3}
    assert after.last_telegram == sender.last_telegram != b""
    assert sum(after.latency_counts) == 1
    assert after.leds_lit == {"power": True, "current": True, "p1": True}
    assert after.current_led_off_ns == indicators.off_ns

    sampler._record([reading, reading])
    sender.on_reading(reading)
    sender.counts.sent += 1
    assert after.readings_total == 1
    assert after.clipped_samples_total == {Phase.L1: 3}
    assert sum(after.latency_counts) == 1
    assert after.port != sender.counts
    assert before.port.sent == 0
