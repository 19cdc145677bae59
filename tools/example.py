#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the example capture, NAME.json and NAME.bin: three seconds of a house that charges a car.

    tools/example.py NAME

Three inputs of 16 bits, with timestamps, for the default configuration (2000:1, 20 ohms), at 2025
scans per second: a small multiple of the mains frequency would fold harmonics (docs/accuracy.md).
The package builds it, so this needs only the standard library.
"""

import argparse
import json
import math
import struct
from pathlib import Path

SECONDS, HERTZ, MAINS_HERTZ = 3, 2025, 49.98
MILLIVOLTS_PER_CODE = 3300 / 65536
MIDDLE = 32768
MILLIVOLTS_PER_AMPERE = 20 / 2000 * 1000
# RMS in amperes, and part of the third harmonic: a car on L1, electronics on L2, a kettle on L3.
PHASES = ((16.0, 0.02), (2.3, 0.6), (8.7, 0.0))


def code(amperes: float, third: float, angle: float) -> int:
    """What the ADC delivers for a phase at this angle of its fundamental."""
    shape = (math.sin(angle) + third * math.sin(3 * angle)) / math.hypot(1, third)
    millivolts = amperes * math.sqrt(2) * shape * MILLIVOLTS_PER_AMPERE
    return MIDDLE + round(millivolts / MILLIVOLTS_PER_CODE)


def scan(number: int) -> bytes:
    """In the layout of the kernel: the timestamp in the last 8 of 16 bytes."""
    angle = 2 * math.pi * MAINS_HERTZ * number / HERTZ
    codes = (code(*phase, angle - place * 2 * math.pi / 3) for place, phase in enumerate(PHASES))
    return struct.pack("<3Hxxq", *codes, number * 1_000_000_000 // HERTZ)


def main(name: str) -> None:
    channels = [
        {
            "id": f"voltage{index}",
            "phase": f"L{index + 1}",
            "index": index,
            "type": "le:u16/16>>0",
            "scale": MILLIVOLTS_PER_CODE,
            "offset": -MIDDLE,
        }
        for index in range(len(PHASES))
    ]
    description = {
        "sampling_frequency_hz": HERTZ,
        "scan_bytes": len(scan(0)),
        "channels": channels,
        "timestamp": {"index": len(PHASES), "type": "le:s64/64>>0"},
    }
    Path(f"{name}.json").write_text(json.dumps(description, indent=2) + "\n")
    Path(f"{name}.bin").write_bytes(b"".join(map(scan, range(SECONDS * HERTZ))))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="tools/example.py", description="Write a capture.")
    parser.add_argument("name", metavar="NAME", help="of NAME.json and NAME.bin")
    main(parser.parse_args().name)
