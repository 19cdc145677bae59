# SPDX-License-Identifier: Apache-2.0
"""How far the direction is off: currents all round the clock against a voltage reference.

A capture carries one amplitude on three phases, each at an angle of its own, with a phase error of
up to 4 degrees between current and reference. It is measured twice: with the errors taken out, and
as if nobody knew of them.
"""

import math
from dataclasses import dataclass

import numpy as np
from signals import (
    DISTORTED,
    MILLIVOLTS_AN_AMPERE,
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
"""By how much a current leads the reference too far, as the ADC sees it."""
REFERENCE_AMPERES = 100.0
"""Of the HAT's CTs: the millivolts of 1 V."""
RATE = 4000
SECONDS = 2.1
SEED = 21
BAND = math.sin(math.radians(6))
LEAST_AMPERES = 0.1
SURE = 1.05
"""How far beyond the band noise does not bring back what is measured."""


@dataclass
class Worst:
    """Of all readings of a cell."""

    percent: float = 0.0
    """Error of the active current, phase errors taken out, of the RMS of the fundamental."""
    wrong: int = 0
    """Signs that are wrong, or not told although the angle as measured is outside the band."""
    signs: int = 0
    """Of how many."""
    blind_degrees: int = 0
    """Farthest from 90 degrees at which export was not told, phase errors left in."""


Figures = dict[tuple[int, float], Worst]
"""By bits and amperes."""


@dataclass(frozen=True)
class _Load:
    """What one phase carries."""

    lag_degrees: float
    error_degrees: float
    amperes: float
    fundamental_amperes: float

    def active(self, error_degrees: float = 0.0) -> float:
        """Amperes in phase with the voltage, as they look with a phase error."""
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
    unaware = config_of({"phase_order": order})
    aware = config_of(
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
            start + leads[phase] - load.lag_degrees - unaware.direction.lag_degrees(phase),
        )
        for phase, load in loads.items()
    ]
    angle = math.radians(start + reference_error)
    rows.append(current(times, hertz, REFERENCE_AMPERES, angles={1: angle}))
    scan_format = hat_format(bits, RATE, reference=True)
    data = pack(scan_format, [codes_of(row, bits, random) for row in rows], stamps_of(times))
    for config, errors_left in ((aware, False), (unaware, True)):
        readings = directed(scan_format, config).feed(data)
        assert len(readings) == int(SECONDS)
        for phase, load in loads.items():
            _judge(worst, readings, phase, load, errors_left)


def _judge(
    worst: Worst, readings: list[Reading], phase: Phase, load: _Load, errors_left: bool
) -> None:
    exports = load.active() < 0
    for reading in readings:
        assert reading.direction
        assert reading.direction.active_current_amperes
        active = reading.direction.active_current_amperes[phase]
        if not errors_left:
            percent = 100 * abs(active - load.active()) / load.fundamental_amperes
            worst.percent = max(worst.percent, percent)
        worst.signs += 1
        worst.wrong += load.is_sure(active) and (active < 0) != exports
    told = readings[-1].signed_amperes(phase) < 0
    looks = load.active(load.error_degrees if errors_left else 0.0)
    worst.wrong += told != exports and (told or load.is_sure(looks / SURE))
    if errors_left and exports and not told:
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
    """A current at this angle, its harmonics at random ones without peaks that clip at 80 A."""
    while True:
        angles = {order: random.uniform(0, 2 * np.pi) for order in harmonics}
        angles[1] = math.radians(degrees)
        cycle = current(np.arange(1000) / 1000, 1.0, max(AMPERES), harmonics, angles)
        if np.abs(cycle).max() < 0.98 * RANGE_MILLIVOLTS / MILLIVOLTS_AN_AMPERE / 2:
            return current(times, hertz, amperes, harmonics, angles)


def table(figures: Figures) -> str:
    """The tables of docs/accuracy.md."""
    header = "| bits | " + " | ".join(f"{amperes:g} A" for amperes in AMPERES) + " |\n"
    header += "|---" * (1 + len(AMPERES)) + "|\n"
    parts = []
    for title, cell in (
        ("Active current, worst error in % of the fundamental, phase errors taken out", "percent"),
        ("Signs that are wrong outside the band, phase errors taken out and left in", "wrong"),
        ("Farthest from 90° that export does not show, in degrees, phase errors left in", "blind"),
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
