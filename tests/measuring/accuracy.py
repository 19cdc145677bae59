# SPDX-License-Identifier: Apache-2.0
"""The error of readings: captures of known currents, written to files and replayed.

Each capture carries one amplitude on three phases, each with its own angles. The worst reading
counts.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import direction_accuracy
import numpy as np
from figures import build, write_section
from signals import (
    DISTORTED,
    MILLIVOLTS_PER_AMPERE,
    RANGE_MILLIVOLTS,
    Array,
    codes_of,
    configured,
    current,
    hat_format,
    pack,
    stamps_of,
)

from csp1d.config import ChannelConfig, MeasurementConfig, folds_harmonics
from csp1d.phase import Phase
from csp1d.tool.capture import load, replay, save

BITS = (12, 16, 24)
RATES = (1600, 4000, 8000)
AMPERES = (0.05, 0.5, 1.0, 10.0, 80.0)
HERTZ = (49.5, 50.0, 50.25, 50.37, 59.9, 60.0)
SIGNALS = ({1: 1.0}, DISTORTED)
SECONDS = 4.1
SEED = 20

FOLDING_RATES = (
    *(200, 210, 250, 300, 390, 400, 500, 600, 800, 860, 1000, 1024, 1100, 1200, 1250),
    *(1400, 1600, 1953, 2000, 2200, 2400, 4000),
)
FOLDING_HERTZ = (49.95, 50.0, 50.05)
FOLDING_AMPERES = 20.0
ELECTRONIC = {1: 1.0, 3: 0.6, 5: 0.3} | {order: 7.0 / order**2 for order in range(7, 41, 2)}
"""Rectifiers without a filter of their own: the 21st has 1.6 %, the 39th 0.5 %."""

PAGE = Path(__file__).resolve().parents[2] / "docs" / "accuracy.md"


@dataclass(frozen=True)
class Worst:
    """The errors of the worst reading."""

    percent: float
    millihertz: float | None
    """None if one of the readings had no frequency."""


Figures = dict[tuple[int, int, float], Worst]
"""By bits, samples per second and amperes."""


def measure_all() -> Figures:
    """The whole grid."""
    random = np.random.default_rng(SEED)
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for bits in BITS:
            for rate in RATES:
                for amperes in AMPERES:
                    runs = [
                        _measure(Path(folder), random, bits, rate, amperes, hertz, harmonics)
                        for hertz in HERTZ
                        for harmonics in SIGNALS
                    ]
                    figures[bits, rate, amperes] = _worst(runs)
    return figures


def measure_folding() -> dict[int, list[Worst]]:
    """By samples per second: a sine with 20 % of the third harmonic, and many harmonics."""
    random = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as folder:
        return {
            rate: [
                _worst(
                    [
                        _measure(Path(folder), random, 16, rate, FOLDING_AMPERES, hertz, harmonics)
                        for hertz in FOLDING_HERTZ
                        for _ in range(4)
                    ]
                )
                for harmonics in ({1: 1.0, 3: 0.2}, ELECTRONIC)
            ]
            for rate in FOLDING_RATES
        }


def _worst(runs: list[Worst]) -> Worst:
    frequencies = [run.millihertz for run in runs]
    known = [value for value in frequencies if value is not None]
    return Worst(
        max(run.percent for run in runs), max(known) if len(known) == len(frequencies) else None
    )


def _measure(
    folder: Path,
    random: np.random.Generator,
    bits: int,
    rate: int,
    amperes: float,
    hertz: float,
    harmonics: dict[int, float],
) -> Worst:
    times = np.arange(round(rate * SECONDS)) / rate
    codes = [
        codes_of(_one_phase(random, times, hertz, amperes, harmonics), bits, random) for _ in Phase
    ]
    scan_format = hat_format(bits, rate)
    name = folder / "capture"
    save(name, scan_format, [pack(scan_format, codes, stamps_of(times))])
    # As a calibration without current finds it: noise, and rounding to codes.
    lsb_amperes = RANGE_MILLIVOLTS / 2**bits / MILLIVOLTS_PER_AMPERE
    config = ChannelConfig(noise_floor_amperes=lsb_amperes * (1 + 1 / 12) ** 0.5)
    readings = list(
        replay(
            load(name),
            configured(dict.fromkeys(Phase, config), MeasurementConfig(no_load_amperes=0.0)),
        )
    )
    assert len(readings) == int(SECONDS)
    return _worst(
        [
            Worst(
                max(abs(reading.amperes(phase) / amperes - 1) * 100 for phase in Phase),
                None
                if reading.frequency_hertz is None
                else abs(reading.frequency_hertz - hertz) * 1000,
            )
            for reading in readings
        ]
    )


def _one_phase(
    random: np.random.Generator,
    times: Array,
    hertz: float,
    amperes: float,
    harmonics: dict[int, float],
) -> Array:
    """A current at random angles, without peaks that would clip at 80 A."""
    while True:
        angles = {order: random.uniform(0, 2 * np.pi) for order in harmonics}
        cycle = current(np.arange(1000) / 1000, 1.0, max(AMPERES), harmonics, angles)
        if np.abs(cycle).max() < 0.98 * RANGE_MILLIVOLTS / MILLIVOLTS_PER_AMPERE / 2:
            return current(times, hertz, amperes, harmonics, angles)


def table(figures: Figures) -> str:
    """Both tables of docs/accuracy.md."""
    header = "| bits | S/s | " + " | ".join(f"{amperes:g} A" for amperes in AMPERES) + " |\n"
    header += "|---" * (2 + len(AMPERES)) + "|\n"
    parts = ["Current, worst error in %:\n\n" + header]
    for bits in BITS:
        for rate in RATES:
            cells = [f"{figures[bits, rate, amperes].percent:.3f}" for amperes in AMPERES]
            parts.append(f"| {bits} | {rate} | {' | '.join(cells)} |\n")
    parts.append("\nFrequency, worst error in mHz:\n\n" + header)
    for bits in BITS:
        for rate in RATES:
            cells = []
            for amperes in AMPERES:
                millihertz = figures[bits, rate, amperes].millihertz
                cells.append("none" if millihertz is None else f"{millihertz:.3f}")
            parts.append(f"| {bits} | {rate} | {' | '.join(cells)} |\n")
    return "".join(parts)


def folding_table(figures: dict[int, list[Worst]]) -> str:
    """The table of docs/accuracy.md on harmonics above half the rate."""
    lines = ["| S/s | warned of | 20 % third | electronic load |", "|---|---|---|---|"]
    for rate, worst in figures.items():
        warned = "yes" if folds_harmonics(rate, 50) else ""
        lines.append(f"| {rate} | {warned} | {' | '.join(f'{w.percent:.3f}' for w in worst)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/accuracy", description="Measure the error of readings over grids of currents."
    )
    parser.add_argument("--write", action="store_true", help=f"update the tables in {PAGE.name}")
    arguments = parser.parse_args()
    print(f"seeds {SEED} and {direction_accuracy.SEED}, numpy {np.__version__}")
    for name, made in (
        ("build", f"All tables of this page: {build()}.\n"),
        ("figures", table(measure_all())),
        ("folding", folding_table(measure_folding())),
        ("direction", direction_accuracy.table(direction_accuracy.measure_all())),
    ):
        print(f"\n{made}", end="")
        if arguments.write:
            write_section(PAGE, name, made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
