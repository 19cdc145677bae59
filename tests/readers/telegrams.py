# SPDX-License-Identifier: Apache-2.0
"""Telegrams for the readers as JSON: profile, amperes, export ("" without a direction) and text."""

import json
import time
from typing import Any

from csp1d.config import DirectionConfig, P1Config
from csp1d.p1.telegram import encode

NOON = time.struct_time((2026, 7, 1, 12, 0, 0, 2, 182, 1))
LOADS = [(0, 0, 0), (1, 9.5, 9.49), (24.126, 10.4, 0.5), (80, 79.994, 79.995), (999, 434.5, 100)]
EXPORTS = [(-10, 10, 0), (-10.25, -24.126, 5.0), (-0.3, 80, -80)]
PROFILES: tuple[Any, ...] = ("csp1", "smr5", "emucs")
DIRECTIONS: dict[Any, DirectionConfig] = {
    "": DirectionConfig(),
    "magnitude": DirectionConfig(reference="voltage"),
    "zero": DirectionConfig(reference="voltage", export_current="zero"),
}

made = []
for profile in PROFILES:
    config = P1Config(profile=profile, serial="XMXCQA0000008879")
    for export, direction in DIRECTIONS.items():
        for amperes in LOADS + (EXPORTS if export else []):
            text = encode(config, amperes, NOON, direction).decode("ascii")
            made.append({"profile": profile, "amperes": amperes, "export": export, "text": text})
print(json.dumps(made))
