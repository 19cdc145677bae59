# SPDX-License-Identifier: Apache-2.0
"""Measures how the virtual HAT generates its scans: reads of the ADC, once per second."""

import sys
import time
from pathlib import Path

from csp1d.config_file import load
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat


def main() -> None:
    """Print CPU milliseconds per second of signal."""
    config_path, scenario, seconds = sys.argv[1:]
    adc = SimulatedHat(parse(scenario)).open_adc(load(Path(config_path)))
    used_ns = 0
    for _ in range(int(seconds)):
        time.sleep(1)
        start_ns = time.thread_time_ns()
        adc.read()
        used_ns += time.thread_time_ns() - start_ns
    print(used_ns / 1e6 / int(seconds))


if __name__ == "__main__":
    main()
