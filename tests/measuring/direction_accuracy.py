# SPDX-License-Identifier: Apache-2.0
"""The error of the direction: currents at all angles against a voltage reference.

A capture carries one amplitude on three phases, each at its own angle, with a phase error of up to
4 degrees between current and reference. It is measured twice: with the errors configured, and
without.
"""

import math
from dataclasses import dataclass

import numpy as np
from signals import (
    DISTORTED,
    MILLIVOLTS_PER_AMPERE,
    RANGE_MILLIVOLTS,
    Array,
    codes_of,
    config_of,
    current,
    directed,
    hat_format,
    pack,
    stamps_of,
)

from csp1d.measuring.reading import Reading
from csp1d.phase import Phase

BITS = (12, 16)
AMPERES = (0.3, 1.0, 10.0, 80.0)
SIGNALS = ({1: 1.0}, DISTORTED)
ORDERS = ("L1-L2-L3", "L1-L3-L2")
HERTZ = (49.5, 50.0, 50.25, 59.9)
STEP_DEGREES = 5
ERRORS_DEGREES = (-4.0, 0.0, 4.0)
"""Phase errors of a current against the reference, positive if it leads."""
REFERENCE_AMPERES = 100.0
"""1 V at the ADC, in amperes of the HAT's CTs."""
RATE = 4000
SECONDS = 2.1
SEED = 21
BAND = math.sin(math.radians(6))
LEAST_AMPERES = 0.1
SURE = 1.05
"""Margin beyond the band that noise does not exceed."""


@dataclass
class Worst:
    """The worst of all readings of a cell."""

    percent: float = 0.0
    """Error of the active current in % of the fundamental, phase errors corrected."""
    wrong: int = 0
    """Signs that are wrong, or missing although the measured angle is outside the band."""
    signs: int = 0
    """The number of signs judged."""
    blind_degrees: int = 0
    """Largest distance from 90 degrees without export, phase errors uncorrected."""


Figures = dict[tuple[int, float], Worst]
"""By bits and amperes."""


@dataclass(frozen=True)
class _Load:
    """The current of one phase."""

    lag_degrees: float
    error_degrees: float
    amperes: float
    fundamental_amperes: float

    def active(self, error_degrees: float = 0.0) -> float:
        """The active current, as measured with a phase error."""
        return self.fundamental_amperes * math.cos(math.radians(self.lag_degrees - error_degrees))

    def is_sure(self, active_amperes: float) -> bool:
        return abs(active_amperes) > max(LEAST_AMPERES, BAND * self.amperes)


def measure_all() -> Figures:
    """The whole grid."""
    random = np.random.default_rng(SEED)
    figures = {(bits, amperes): Worst() for bits in BITS for amperes in AMPERES}
    for (bits, amperes), worst in figures.items():
        for harmonics in SIGNALS:
            share = 1 / math.sqrt(sum(part**2 for part in harmonics.values()))
            for order in ORDERS:
                for lag in range(0, 120, STEP_DEGREES):
                    loads = {
                        phase: _Load(
                            at, float(random.choice(ERRORS_DEGREES)), amperes, share * amperes
                        )
                        for phase, at in zip(Phase, (lag, lag + 120, lag + 240), strict=True)
                    }
                    _measure(worst, random, bits, harmonics, order, loads)
    return figures


def _measure(
    worst: Worst,
    random: np.random.Generator,
    bits: int,
    harmonics: dict[int, float],
    order: str,
    loads: dict[Phase, _Load],
) -> None:
    reference_error = float(random.choice(ERRORS_DEGREES)) / 2
    leads = {phase: reference_error + load.error_degrees for phase, load in loads.items()}
    plain = config_of({"phase_order": order})
    corrected = config_of(
        {"phase_order": order, "phase_error_degrees": reference_error},
        **{phase: {"phase_error_degrees": lead} for phase, lead in leads.items()},
    )
    times = np.arange(round(RATE * SECONDS)) / RATE
    hertz, start = float(random.choice(HERTZ)), random.uniform(0, 360)
    rows = [
        _one_phase(
            random,
            times,
            hertz,
            load.amperes,
            harmonics,
            start + leads[phase] - load.lag_degrees - plain.direction.lag_degrees(phase),
        )
        for phase, load in loads.items()
    ]
    angle = math.radians(start + reference_error)
    rows.append(current(times, hertz, REFERENCE_AMPERES, angles={1: angle}))
    scan_format = hat_format(bits, RATE, reference=True)
    data = pack(scan_format, [codes_of(row, bits, random) for row in rows], stamps_of(times))
    for config, uncorrected in ((corrected, False), (plain, True)):
        readings = directed(scan_format, config).feed(data)
        assert len(readings) == int(SECONDS)
        for phase, load in loads.items():
            _judge(worst, readings, phase, load, uncorrected)


def _judge(
    worst: Worst, readings: list[Reading], phase: Phase, load: _Load, uncorrected: bool
) -> None:
    exports = load.active() < 0
    for reading in readings:
        assert reading.direction
        assert reading.direction.active_current_amperes
        active = reading.direction.active_current_amperes[phase]
        if not uncorrected:
            percent = 100 * abs(active - load.active()) / load.fundamental_amperes
            worst.percent = max(worst.percent, percent)
        worst.signs += 1
        worst.wrong += load.is_sure(active) and (active < 0) != exports
    exported = readings[-1].signed_amperes(phase) < 0
    looks = load.active(load.error_degrees if uncorrected else 0.0)
    worst.wrong += exported != exports and (exported or load.is_sure(looks / SURE))
    if uncorrected and exports and not exported:
        from_90 = round(abs(math.degrees(math.asin(load.active() / load.fundamental_amperes))))
        worst.blind_degrees = max(worst.blind_degrees, from_90)


def _one_phase(
    random: np.random.Generator,
    times: Array,
    hertz: float,
    amperes: float,
    harmonics: dict[int, float],
    degrees: float,
) -> Array:
    """A current at this angle, with random harmonics whose peaks do not clip at 80 A."""
    while True:
        angles = {order: random.uniform(0, 2 * np.pi) for order in harmonics}
        angles[1] = math.radians(degrees)
        cycle = current(np.arange(1000) / 1000, 1.0, max(AMPERES), harmonics, angles)
        if np.abs(cycle).max() < 0.98 * RANGE_MILLIVOLTS / MILLIVOLTS_PER_AMPERE / 2:
            return current(times, hertz, amperes, harmonics, angles)


def table(figures: Figures) -> str:
    """The tables of docs/accuracy.md."""
    header = "| bits | " + " | ".join(f"{amperes:g} A" for amperes in AMPERES) + " |\n"
    header += "|---" * (1 + len(AMPERES)) + "|\n"
    parts = []
    for title, cell in (
        ("Active current, worst error in % of the fundamental, phase errors corrected", "percent"),
        ("Wrong signs outside the band, phase errors corrected and uncorrected", "wrong"),
        (
            "Largest distance from 90° at which export does not show, in degrees,"
            " phase errors uncorrected",
            "blind",
        ),
    ):
        parts.append(f"{title}:\n\n{header}")
        for bits in BITS:
            cells = [_cell(figures[bits, amperes], cell) for amperes in AMPERES]
            parts.append(f"| {bits} | {' | '.join(cells)} |\n")
        parts.append("\n")
    return "".join(parts[:-1])


def _cell(worst: Worst, which: str) -> str:
    if which == "percent":
        return f"{worst.percent:.3f}"
    return f"{worst.wrong} of {worst.signs}" if which == "wrong" else f"{worst.blind_degrees}"
