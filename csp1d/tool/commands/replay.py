# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl replay`: the readings of a capture, a JSON line each."""

import argparse
import json
import sys

from csp1d.config import Config
from csp1d.exits import OK
from csp1d.measuring.reading import Reading
from csp1d.measuring.replay import reading_json
from csp1d.measuring.scan import SLOWEST_HERTZ
from csp1d.tool import capture


def run(config: Config, arguments: argparse.Namespace) -> int:
    replay = capture.replay(capture.load(arguments.name), config)

    def warn(message: str) -> None:
        print(f"csp1ctl: {arguments.name}: {message}", file=sys.stderr)

    for doubt in replay.metering.range_doubts:
        warn(doubt)
    reported: set[str] = set()
    reading = None
    for reading in replay:
        print(json.dumps(reading_json(reading)))
        for key, message in _warnings(reading).items():
            if key not in reported:
                reported.add(key)
                warn(message)
    if replay.metering.timeline.clock_fault:
        warn(f"timestamps {replay.metering.timeline.clock_fault}")
    if replay.metering.timeline.rate_fault:
        warn(replay.metering.timeline.rate_fault)
    if hertz := replay.metering.timeline.slow_hertz:
        warn(f"{hertz:.4g} scans per second are too few: csp1d needs at least {SLOWEST_HERTZ:.0f}")
    elif reading is None:
        warn("no reading: the capture is shorter than one second, or too many scans are missing")
    return OK


def _warnings(reading: Reading) -> dict[str, str]:
    """Messages about a reading, by a key that stays the same where only figures change."""
    warnings: dict[str, str] = {}
    for phase in reading.failed_phases:
        reason = "the ADC does not answer" if reading.is_frozen else "input saturated"
        warnings[phase] = f"{phase}: {reason}: current unknown; check its wiring"
    direction = reading.direction
    if direction and (fault := direction.reference_fault):
        warnings["reference"] = f"direction unknown, currents count as import: {fault}"
    if direction and (advice := direction.wiring_advice):
        warnings[advice] = advice
    return warnings
