# SPDX-License-Identifier: Apache-2.0
"""The snapshot: the state of the parts, and a copy of it."""

import time

from signals import hat_format

from csp1d.config import Config, P1Config, RequestConfig
from csp1d.events import ActiveProblem, Event
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.interfaces.http import HttpServer
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.indicators import Indicators
from csp1d.loop.reload import Reloads
from csp1d.loop.report import take_snapshot
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.measuring.reading import PhaseCurrent, Reading
from csp1d.measuring.recent import RecentScans
from csp1d.phase import Phase

PROBLEMS = (ActiveProblem(Event.ADC_LOST, "ADC", "gone", 0),)
CONFIG = Config(p1=P1Config(request=RequestConfig(always=True)))


def test_a_snapshot_has_the_state_of_the_parts_and_keeps_it() -> None:
    hat = SimulatedHat(parse(""))
    sampler, sender = Sampler(hat, CONFIG), Sender(hat, CONFIG)
    indicators = Indicators(hat, CONFIG)
    http = DeviceSlot[HttpServer]("HTTP server", Event.HTTP_LOST, Event.HTTP_FOUND)
    parts = (sampler, sender, indicators, http, Reloads())
    before = take_snapshot(*parts, CONFIG.site, PROBLEMS)
    assert before.reading is None
    assert before.problems is PROBLEMS
    assert before.site is CONFIG.site
    assert before.p1.serial.startswith("XMXCQA"), "that of this machine"
    assert not before.adc_up
    assert before.p1_up
    assert before.p1_requested is True
    assert before.leds_ms_per_second == {"power": 1000, "current": 0, "p1": 0}

    phases = {Phase.L1: PhaseCurrent(2.0, 2.8, 0.0, 3)}
    reading = Reading(1, time.monotonic_ns(), 1.0, phases, 50.0, 4000, 0)
    sampler._record([reading])
    sampler.recent = RecentScans(hat_format(), 7)
    sender.on_reading(reading)
    indicators.on_request(True)
    indicators.on_reading(60.0)
    after = take_snapshot(*parts, CONFIG.site, PROBLEMS)
    assert after.reading is reading
    assert after.recent is sampler.recent
    assert after.readings_total == 1
    assert after.reading_timestamp_seconds is not None
    assert after.clipped_samples_total == {Phase.L1: 3, Phase.L2: 0, Phase.L3: 0}
    assert after.last_telegram == sender.last_telegram != b""
    assert sum(after.latency_counts) == 1
    assert after.leds_ms_per_second == {"power": 1000, "current": 1000, "p1": 0}

    sampler._record([reading, reading])
    sender.on_reading(reading)
    sender.counts.sent += 1
    assert after.readings_total == 1
    assert after.clipped_samples_total == {Phase.L1: 3, Phase.L2: 0, Phase.L3: 0}
    assert sum(after.latency_counts) == 1
    assert after.port != sender.counts
    assert before.port.sent == 0
