# SPDX-License-Identifier: Apache-2.0
"""Runs a day of signal through metering, telegram and port protocol at full speed.

The scans of an ADC whose clock is 37 ppm slow are read once per second. Checks amperes, gapless
windows, that no scan is lost, one telegram per reading, and that memory does not grow.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.extend(str(Path(__file__).resolve().parent / folder) for folder in ("..", "kernel"))

from campaign.judge import growth_percent
from signals import START_NS, codes_of, current, hat_format, metering_of, pack

from csp1d.config import P1Config
from csp1d.measuring.reading import Reading
from csp1d.p1.port import P1Port, Telegram, Write
from csp1d.p1.telegram import encode
from csp1d.phase import Phase

SECOND_NS = 1_000_000_000
RATE = 4000
HERTZ = 50.1
BLOCK_SECONDS = 10
"""Seconds per block: whole cycles, so that blocks join without a jump."""
PERIOD_NS = 250_009.25
LOADS = ((0.0, 0.0, 0.0), (24.0, 10.4, 3.0), (1.0, 1.0, 1.0), (80.0, 79.6, 0.0), (5.2, 17.0, 63.0))
LATENESS_NS, RETRY_NS = 1_000_000, 4_000_000
NOISE_FLOOR_AMPERES = 0.00524
"""RMS noise of one step of 16 bits, and of rounding to steps."""
MOST_PERCENT_OFF = 0.05
MOST_AMPERES_OFF = 0.005
WARM_UP_HOURS = 1.0
MOST_GROWTH_PERCENT = 1.0
"""Maximum growth per hour, after the warm-up."""


@dataclass
class Result:
    """The counts of a run. `problems` lists what is wrong."""

    readings: int = 0
    telegrams: int = 0
    scans: int = 0
    worst_percent: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)
    """Hours of signal, and bytes of resident memory at that time."""
    problems: list[str] = field(default_factory=list)


def soak(hours: float) -> Result:
    """Run this number of hours of signal."""
    scan_format = hat_format(bits=16, rate=RATE)
    metering = metering_of(scan_format, noise_floor_amperes=NOISE_FLOOR_AMPERES)
    port, result = P1Port(), Result()
    config = P1Config()
    count = RATE * BLOCK_SECONDS
    times = np.arange(count) / RATE
    noise = np.random.default_rng(3)
    assert scan_format.record.fields
    offset = scan_format.record.fields["timestamp"][1]
    blocks = [
        np.frombuffer(
            bytearray(
                pack(
                    scan_format,
                    [codes_of(current(times, HERTZ, a), noise=noise) for a in amperes],
                    np.zeros(count, np.int64),
                )
            ),
            np.uint8,
        ).reshape(count, scan_format.scan_bytes)
        for amperes in LOADS
    ]
    port.on_port_opened(START_NS, 0)
    port.on_request(True, START_NS, 0)
    before: Reading | None = None
    now_ns = START_NS
    for number in range(round(hours * 3600 / BLOCK_SECONDS)):
        block = blocks[number % len(LOADS)]
        stamps = START_NS + np.rint((np.arange(count) + number * count) * PERIOD_NS)
        block[:, offset : offset + 8] = stamps.astype("<i8")[:, None].view(np.uint8)
        read = 0
        while read < count:
            # Read when the metering expects a reading, as the sampler does.
            due_ns = metering.timeline.due_ns or START_NS
            now_ns = max(due_ns + LATENESS_NS, now_ns + RETRY_NS)
            end = int(np.searchsorted(stamps, now_ns, "right"))
            if end >= count:
                now_ns = int(stamps[-1])
            for reading in metering.feed(block[read:end].tobytes(), now_ns):
                _judge(reading, before, result)
                _send(reading, port, config, now_ns, result)
                before = reading
            read = end
        if number % (360 // BLOCK_SECONDS) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            result.memory.append((number * BLOCK_SECONDS / 3600, pages * 4096))
    result.scans = metering.scans_total
    if metering.timeline.lost_scans_total:
        result.problems.append(f"{metering.timeline.lost_scans_total} scans lost")
    if port.counts.sent != result.readings or port.counts.aborted or port.counts.dropped:
        result.problems.append(f"{result.readings} readings, but {port.counts}")
    return result


def _judge(reading: Reading, before: Reading | None, result: Result) -> None:
    result.readings += 1
    start_ns = reading.end_ns - reading.window_seconds * SECOND_NS
    if before:
        # Windows join to a fraction of a sample, without a gap.
        if abs(start_ns - before.end_ns) > PERIOD_NS / 10:
            result.problems.append(f"reading {reading.sequence} begins elsewhere")
        if reading.sequence != before.sequence + 1:
            result.problems.append(f"reading {reading.sequence} follows {before.sequence}")
    block_ns = PERIOD_NS * RATE * BLOCK_SECONDS
    first, last = ((ns - START_NS) // block_ns for ns in (start_ns, reading.end_ns))
    if first != last or reading.lost_scans:
        return
    for phase, amperes in zip(Phase, LOADS[int(first) % len(LOADS)], strict=True):
        off = abs(reading.amperes(phase) - amperes)
        if amperes:
            result.worst_percent = max(result.worst_percent, off / amperes * 100)
        if off > max(MOST_AMPERES_OFF, amperes * MOST_PERCENT_OFF / 100):
            result.problems.append(
                f"reading {reading.sequence}: {reading.amperes(phase)} A for {amperes} A"
            )


def _send(reading: Reading, port: P1Port, config: P1Config, now_ns: int, result: Result) -> None:
    data = encode(config, [reading.amperes(phase) for phase in Phase], time.localtime())
    for action in port.on_reading(Telegram(data, reading.end_ns), now_ns, 0):
        if isinstance(action, Write):
            result.telegrams += 1
            port.on_written(len(action.data))
    port.on_timer(now_ns + 80_000_000, 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=24.0, help="of signal; default: 24")
    hours = parser.parse_args().hours
    start = time.monotonic()
    result = soak(hours)
    growth = growth_percent(result.memory, WARM_UP_HOURS)
    if growth > MOST_GROWTH_PERCENT:
        result.problems.append("memory grows")
    print(
        f"{hours:g} h of signal in {time.monotonic() - start:.0f} s: {result.scans} scans, "
        f"{result.readings} readings, {result.telegrams} telegrams\n"
        f"worst reading {result.worst_percent:.3f} % off; memory "
        f"{result.memory[-1][1] / 2**20:.1f} MiB, growth {growth:.3f} % an hour"
    )
    for problem in result.problems[:20]:
        print(problem)
    print("good" if not result.problems else f"{len(result.problems)} problems")
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
