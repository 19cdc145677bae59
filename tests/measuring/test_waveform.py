# SPDX-License-Identifier: Apache-2.0
"""The waveform of the last mains cycles in a reading."""

from typing import Any

import numpy as np
import pytest
from signals import (
    Array,
    codes_of,
    config_of,
    current,
    directed,
    hat_format,
    metering_of,
    pack,
    stamps_of,
)

from csp1d.config import ChannelConfig, DirectionConfig, MeasurementConfig
from csp1d.measuring.direction import DirectionMeter
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Waveform
from csp1d.measuring.waveform import MOST_POINTS, last_cycles
from csp1d.phase import Phase


def waveforms(rate: float = 4000, hertz: float = 50, **channel: Any) -> list[Waveform]:
    """Waveforms of three readings of 10 A, 5 A with 3 A DC, and 0 A."""
    made, times = hat_format(rate=rate), np.arange(round(3.1 * rate)) / rate
    amperes = [current(times, hertz, 10.0), current(times, hertz, 5.0) + 3.0, 0 * times]
    data = pack(made, [codes_of(row) for row in amperes], stamps_of(times))
    found = [reading.waveform for reading in metering_of(made, **channel).feed(data)]
    return [waveform for waveform in found if waveform]


def sine(waveform: Waveform, hertz: float, rms: float) -> Array:
    """A current that rises through zero at the end of the waveform."""
    points = len(waveform.current_amperes[Phase.L1])
    ages = (np.arange(points) + 0.5 - points) * waveform.spacing_seconds
    values: Array = rms * np.sqrt(2) * np.sin(2 * np.pi * hertz * ages)
    return values


@pytest.mark.parametrize("hertz", [50, 60])
@pytest.mark.parametrize("rate", [200, 2000, 4000, 48_000])
def test_three_cycles_in_a_few_points(rate: float, hertz: float) -> None:
    for waveform in waveforms(rate, hertz):
        (points,) = {len(row) for row in waveform.current_amperes.values()}
        assert points <= MOST_POINTS
        spacing = waveform.spacing_seconds
        assert points * spacing == pytest.approx(3 / hertz, rel=0.1, abs=spacing)


@pytest.mark.parametrize(
    ("cycle", "step", "points"), [(4.0, 1, 12), (80.0, 1, 240), (80.2, 2, 120), (161.0, 3, 161)]
)
def test_points_are_means_of_the_last_samples(cycle: float, step: int, points: int) -> None:
    series = np.random.default_rng(1).standard_normal((2, 1000))
    found, samples = last_cycles(series, 900, cycle)
    assert samples == step
    assert found.shape == (2, points)
    for row, values in zip(series, found, strict=True):
        before = row[900 - points * step : 900]
        means = [sum(before[n * step : (n + 1) * step]) / step for n in range(points)]
        assert values == pytest.approx(np.array(means), abs=1e-12)


def test_it_shows_the_current_up_to_the_end_of_the_reading() -> None:
    # Windows are whole cycles, so each ends at the same angle: plots do not move.
    for waveform in waveforms():
        l1, l2, l3 = (waveform.current_amperes[phase] for phase in Phase)
        # A sample is half a sample before the middle of its cell.
        assert l1 == pytest.approx(sine(waveform, 50, 10.0), abs=0.6)
        assert max(l1) == pytest.approx(10 * np.sqrt(2), rel=0.01)
        assert l2 == pytest.approx([value / 2 for value in l1], abs=0.1)
        assert l3 == pytest.approx([0.0] * len(l1), abs=0.1)
        assert (waveform.reference, waveform.reference_unit) == (None, "")


def test_it_has_the_configured_polarity_and_gain() -> None:
    plain = waveforms()[-1].current_amperes[Phase.L1]
    turned = waveforms(gain=1.5, reversed=True)[-1].current_amperes[Phase.L1]
    assert turned == pytest.approx([-1.5 * value for value in plain])


@pytest.mark.parametrize(
    ("direction", "unit", "rms"),
    [
        (DirectionConfig(reference="voltage"), "V", 0.1),
        (DirectionConfig(reference="current"), "A", 10.0),
        (DirectionConfig(reference="current", reference_flow="producing"), "A", -10.0),
    ],
)
def test_the_reference_has_its_unit_and_sign(
    direction: DirectionConfig, unit: str, rms: float
) -> None:
    made, times = hat_format(reference=True), np.arange(8400) / 4000
    rows = [codes_of(current(times, 50, amperes)) for amperes in (10.0, 5.0, 2.0, 10.0)]
    channels = dict.fromkeys(Phase, ChannelConfig())
    meter = DirectionMeter(made, channels, direction, ChannelConfig())
    metering = Metering(made, channels, MeasurementConfig(), meter)
    for reading in metering.feed(pack(made, rows, stamps_of(times))):
        waveform = reading.waveform
        assert waveform
        assert waveform.reference_unit == unit
        assert waveform.reference == pytest.approx(
            [value * rms / 10 for value in waveform.current_amperes[Phase.L1]]
        )


def test_without_a_channel_for_the_reference_it_has_none() -> None:
    made, times = hat_format(), np.arange(4400) / 4000
    data = pack(made, [codes_of(current(times, 50, 10.0))] * 3, stamps_of(times))
    (reading,) = directed(made, config_of({})).feed(data)
    assert reading.waveform
    assert (reading.waveform.reference, reading.waveform.reference_unit) == (None, "")


def test_lost_scans_do_not_shift_it() -> None:
    made, times = hat_format(), np.arange(8400) / 4000
    kept = np.ones(len(times), bool)
    # In the waveform of the second reading.
    kept[7850:7900] = False
    codes = codes_of(current(times, 50, 10.0))
    data = pack(made, [codes[kept]] * 3, stamps_of(times)[kept])
    whole, holed = (reading.waveform for reading in metering_of(made).feed(data))
    assert whole
    assert holed
    assert holed.current_amperes[Phase.L1] == pytest.approx(
        whole.current_amperes[Phase.L1], abs=0.6
    )
