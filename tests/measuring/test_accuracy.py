# SPDX-License-Identifier: Apache-2.0
"""The limits of the error, for the grid of currents in docs/accuracy.md."""

import re

import accuracy
import pytest
from accuracy import AMPERES, BITS, RATES, Figures
from figures import section

from csp1d.config import folds_harmonics

PERCENT = {12: 0.5, 16: 0.05, 24: 0.05}
MILLIHERTZ = {16: 2.0, 24: 2.0}
BINDING_RATES = (4000, 8000)
BINDING_AMPERES = [amperes for amperes in AMPERES if amperes >= 1]


@pytest.fixture(scope="module")
def figures() -> Figures:
    return accuracy.measure_all()


@pytest.mark.parametrize("bits", PERCENT)
@pytest.mark.parametrize("rate", BINDING_RATES)
def test_currents(figures: Figures, bits: int, rate: int) -> None:
    for amperes in BINDING_AMPERES:
        assert figures[bits, rate, amperes].percent <= PERCENT[bits], amperes


@pytest.mark.parametrize("bits", MILLIHERTZ)
@pytest.mark.parametrize("rate", BINDING_RATES)
def test_frequencies(figures: Figures, bits: int, rate: int) -> None:
    for amperes in BINDING_AMPERES:
        millihertz = figures[bits, rate, amperes].millihertz
        assert millihertz is not None
        assert millihertz <= MILLIHERTZ[bits], amperes


def numbers(text: str) -> list[float]:
    return [float(cell) for cell in re.findall(r"(?<=\| )[\d.]+(?= \|)", text)]


def test_the_rates_that_fold_harmonics_are_those_that_are_warned_of() -> None:
    figures = accuracy.measure_folding()
    for rate, (_, electronic) in figures.items():
        if folds_harmonics(rate, 50):
            assert electronic.percent > 0.3, rate
        else:
            # With few samples per cycle, no rate is exact.
            assert electronic.percent < (0.2 if rate > 500 else 1.5), rate
    assert numbers(section(accuracy.PAGE, "folding")) == pytest.approx(
        numbers(accuracy.folding_table(figures)), rel=0.05, abs=0.002
    )


def test_the_page_shows_what_is_measured(figures: Figures) -> None:
    shown, measured = numbers(section(accuracy.PAGE, "figures")), numbers(accuracy.table(figures))
    assert len(shown) == 2 * len(BITS) * len(RATES) * (2 + len(AMPERES))
    # The noise is the same everywhere, but sines differ in the last bit between processors.
    assert shown == pytest.approx(measured, rel=0.05, abs=0.002)
