# SPDX-License-Identifier: Apache-2.0
"""States of the daemon that several tests share."""

import json
from dataclasses import replace
from typing import Any

from csp1d.config import P1Config, SiteConfig
from csp1d.events import ActiveProblem, Event
from csp1d.interfaces.snapshot import Snapshot
from csp1d.measuring.history import History
from csp1d.measuring.reading import PhaseCurrent, Reading
from csp1d.p1.port import PortCounts
from csp1d.phase import Phase
from csp1d.status import to_json

END_NS = 50_000_000_000
UNIX_SECONDS = 1_700_000_000.0

READING = Reading(
    sequence=3,
    end_ns=END_NS,
    window_seconds=0.9995,
    phases={
        Phase.L1: PhaseCurrent(24.0, 33.9, 0.25, 0),
        Phase.L2: PhaseCurrent(0.0, 0.1, -0.25, 7),
    },
    frequency_hertz=50.02,
    scans=3998,
    lost_scans=2,
)
FAILED = replace(
    READING, phases={**READING.phases, Phase.L2: PhaseCurrent(0.0, 0.1, 165.0, 3998, at_rail=True)}
)
DROPPED = ActiveProblem(
    Event.TELEGRAM_DROPPED, "P1 port", "telegram dropped: port stuck", END_NS - 20_000_000_000
)
OVERLOAD = ActiveProblem(
    Event.CLIPPING, Phase.L2, "L2 overload: check the burden", END_NS - 3_600_000_000_000
)
MEASURING = Snapshot(
    site=SiteConfig("House 7", 25.0),
    p1=P1Config(serial="XMXCQA0000000007", equipment_id="E0000000000000007"),
    reading=READING,
    reading_timestamp_seconds=1_700_000_000.25,
    readings_total=3,
    scans_total=12_000,
    scans_lost_total=2,
    clipped_samples_total={Phase.L1: 0, Phase.L2: 7},
    adc_up=True,
    charge_coulombs_total={Phase.L1: 86_400.5, Phase.L2: 0.0},
    # Here CLOCK_BOOTTIME is CLOCK_MONOTONIC.
    history=History(
        readings=(
            (END_NS - 60_000_000_000, {Phase.L1: 99.0, Phase.L2: 0.0}),
            (END_NS - 1_000_000_000, {Phase.L1: 31.5, Phase.L2: 0.0}),
            (END_NS, {Phase.L1: 24.0, Phase.L2: 0.0}),
        )
    ),
    reload_success_timestamp_seconds=1_699_990_000.0,
    certificate_expiry_seconds=1_800_000_000.0,
    adc_reconnects_total=1,
    p1_up=True,
    p1_requested=False,
    port=PortCounts(requests=4, sent=2, aborted=1, dropped=1),
    latency_counts=(0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 1),
    latency_sum_seconds=1.5,
)


def status_json(state: Snapshot, now_ns: int) -> Any:
    """/status.json as a client reads it."""
    return json.loads(to_json(state.status(now_ns, UNIX_SECONDS)))
