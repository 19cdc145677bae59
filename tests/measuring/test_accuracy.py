# SPDX-License-Identifier: Apache-2.0
"""The limits of the error, for the grid of currents in docs/accuracy.md."""

import re

import accuracy
import pytest
from accuracy import AMPERES, BITS, RATES, Figures

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


def test_the_page_shows_what_is_measured(figures: Figures) -> None:
    def numbers(text: str) -> list[float]:
        return [float(cell) for cell in re.findall(r"(?<=\| )[\d.]+(?= \|)", text)]

    shown, measured = numbers(accuracy.page_table("figures")), numbers(accuracy.table(figures))
    assert len(shown) == 2 * len(BITS) * len(RATES) * (2 + len(AMPERES))
    # The noise is the same everywhere, but sines differ in the last bit between processors.
    assert shown == pytest.approx(measured, rel=0.05, abs=0.002)
