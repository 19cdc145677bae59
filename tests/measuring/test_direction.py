# SPDX-License-Identifier: Apache-2.0
"""Import and export, by the angle of a current to the reference.

Angles are degrees by which a current lags the voltage of its own phase.
"""

import cmath
import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import (
    DISTORTED,
    Array,
    codes_of,
    config_of,
    current,
    directed,
    direction_of,
    hat_format,
    metering_of,
    pack,
    stamps_of,
)

from csp1d.config import ChannelConfig, Config, DirectionConfig
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import PlayingAdc, SimulatedAdc, SimulatedHat
from csp1d.loop.sampler import Sampler
from csp1d.measuring.direction import DirectionMeter, phasors
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.measuring.scan import Channel, ScanFormat
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

RATE = 4000
L1, L2, L3 = Phase
HAT = hat_format(reference=True)
VOLT = 100.0
"""1 V at the ADC, in amperes of the HAT's CTs."""
ORDERS = {"L1-L2-L3": (0, 120, 240), "L1-L3-L2": (0, 240, 120)}
"""Lags of the voltages of L1, L2 and L3 against that of L1."""


def wave(times: Array, amperes: float, lag: float, hertz: float = 50.1, **more: Any) -> Array:
    return current(times, hertz, amperes, angles={1: -math.radians(lag)}, **more)


def measure(
    rows: Sequence[Array], times: Array, direction: Mapping[str, Any], **channels: Any
) -> list[Reading]:
    """Readings of the currents and, in the last row, the reference; without noise."""
    data = pack(HAT, [codes_of(row) for row in rows], stamps_of(times))
    return directed(HAT, config_of(direction, **channels)).feed(data)


def seconds(length: float) -> Array:
    return np.arange(round(length * RATE)) / RATE


def active(reading: Reading) -> list[float]:
    assert reading.direction
    assert reading.direction.active_current_amperes
    return list(reading.direction.active_current_amperes.values())


def exporting(readings: Sequence[Reading], phase: Phase) -> str:
    """One letter per reading: i for import, E for export."""
    assert all(reading.direction for reading in readings)
    return "".join("E" if reading.signed_amperes(phase) < 0 else "i" for reading in readings)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("sensed", Phase)
@pytest.mark.parametrize("harmonics", [{1: 1.0}, DISTORTED])
def test_one_reference_gives_the_direction_of_three_phases(
    order: str, sensed: Phase, harmonics: dict[int, float]
) -> None:
    times, lags = seconds(2.1), (30, 180, -100)
    voltages = dict(zip(Phase, ORDERS[order], strict=True))
    rows = [
        wave(times, 10.0, voltages[phase] + lag, harmonics=harmonics)
        for phase, lag in zip(Phase, lags, strict=True)
    ]
    rows.append(wave(times, VOLT, voltages[sensed]))
    readings = measure(rows, times, {"phase": sensed, "phase_order": order})
    fundamental = 10 / math.sqrt(sum(part**2 for part in harmonics.values()))
    for reading in readings:
        expected = [fundamental * math.cos(math.radians(lag)) for lag in lags]
        assert active(reading) == pytest.approx(expected, abs=0.005)
    assert [exporting(readings, phase) for phase in Phase] == ["ii", "iE", "iE"]
    assert readings[-1].signed_amperes(L2) == -readings[-1].amperes(L2)
    assert readings[-1].signed_amperes(L1) == readings[-1].amperes(L1)


# Settings of [direction] and of [channels.L1], the lags of current and reference at the ADC, and
# the active current of 10 A.
WIRED: dict[str, tuple[dict[str, Any], dict[str, Any], float, float, float]] = {
    "a load": ({}, {}, 0, 0, 10),
    "a feed-in": ({}, {}, 180, 0, -10),
    "a reversed CT, configured so": ({}, {"reversed": True}, 180, 0, 10),
    "a gain": ({}, {"gain": 1.1}, 0, 0, 11),
    "a CT that leads": ({}, {"phase_error_degrees": 4.0}, 60 - 4, 0, 5),
    "a CT that lags": ({}, {"phase_error_degrees": -4.0}, 60 + 4, 0, 5),
    "a CT that leads, not configured": ({}, {}, 90 - 4, 0, 0.698),
    # 0.5 ms later at 50.1 Hz is 9 degrees ahead.
    "a CT sampled 0.5 ms late": ({}, {"phase_error_degrees": 9.018}, 60 - 9.018, 0, 5),
    "a reference that leads": ({"phase_error_degrees": 20.0}, {}, 60, -20, 5),
    "a consumer's current": ({"reference": "current"}, {}, 0, 0, 10),
    "a producer's current": (
        {"reference": "current", "reference_flow": "producing"},
        {},
        0,
        180,
        10,
    ),
    "a voltage has no flow": ({"reference_flow": "producing"}, {}, 0, 0, 10),
    "a reference on another phase": ({"phase": "L2"}, {}, 0, 120, 10),
    "the same with the other phase order": (
        {"phase": "L2", "phase_order": "L1-L3-L2"},
        {},
        0,
        240,
        10,
    ),
}


@pytest.mark.parametrize("case", WIRED)
def test_settings_that_change_the_active_current(case: str) -> None:
    direction, channel, lag, reference_lag, expected = WIRED[case]
    times = seconds(1.1)
    rows = [wave(times, 10.0, lag), 0 * times, 0 * times, wave(times, VOLT, reference_lag)]
    (reading,) = measure(rows, times, direction, L1=channel)
    assert active(reading)[0] == pytest.approx(expected, abs=0.005)


# [direction], RMS of the reference in amperes of the CT of L1, and the fault or "".
MINIMUM = [
    ({}, 0.51 * VOLT, ""),
    ({}, 0.49 * VOLT, "the reference has 0.49 V, less than direction.minimum = 0.5"),
    ({"minimum": 0.1}, 0.12 * VOLT, ""),
    ({"minimum": 2.0}, 1.0 * VOLT, "the reference has 1 V, less than direction.minimum = 2"),
    ({"minimum": 0.0}, 0.001 * VOLT, ""),
    ({"reference": "current"}, 0.51, ""),
    ({"reference": "current"}, 0.49, "the reference has 0.49 A, less than"),
    ({"reference": "current", "minimum": 6.0}, 5.0, "the reference has 5 A, less than"),
    ({"minimum": 0.0}, 0.0, "the reference carries no mains frequency"),
]


@pytest.mark.parametrize(("direction", "amperes", "fault"), MINIMUM)
def test_below_the_minimum_all_is_import_and_currents_stay(
    direction: dict[str, Any], amperes: float, fault: str
) -> None:
    times = seconds(3.1)
    rows = [wave(times, 10.0, 180), 0 * times, 0 * times, wave(times, amperes, 0)]
    readings = measure(rows, times, direction)
    assert exporting(readings, L1) == ("iii" if fault else "iEE")
    for reading in readings:
        assert reading.amperes(L1) == pytest.approx(10.0, rel=1e-3)
        assert reading.direction
        assert reading.direction.reference_fault.startswith(fault)
        assert bool(reading.direction.reference_fault) == bool(fault)
        assert (reading.direction.active_current_amperes is None) == bool(fault)


VOLTS = ScanFormat(
    RATE,
    (
        # 1 A and 1 V per code.
        Channel("voltage0", "L1", 0, ScanType.parse("le:s16/16>>0"), 10.0),
        Channel("voltage3", "reference", 3, ScanType.parse("le:s16/16>>0"), 1000.0),
    ),
)


def judge(
    *readings: tuple[complex, complex, float], rms_amperes: float = 0.0, **direction: Any
) -> list[DirectionReading]:
    """Of the phasor of L1, that of the reference and its RMS, in amperes and volts."""
    config = DirectionConfig(reference="voltage", **direction)
    meter = DirectionMeter(VOLTS, {L1: ChannelConfig()}, config, ChannelConfig())
    currents = {L1: PhaseCurrent(rms_amperes, 0.0, 0.0, 0)}
    return [meter.measure(np.array([a, v]), currents, rms) for a, v, rms in readings]


@pytest.mark.parametrize(
    ("volts", "weak"),
    [
        ([0.5], "."),
        ([0.4999], "w"),
        # Once too weak, it must be a tenth above the minimum to be used again.
        ([0.4999, 0.5, 0.5499, 0.55001, 0.5], "www.."),
        ([0.5, 0.4, 0.6, 0.5], ".w.."),
    ],
)
def test_the_minimum_and_its_hysteresis(volts: list[float], weak: str) -> None:
    found = judge(*((1 + 0j, complex(value), value) for value in volts))
    assert "".join("w" if reading.reference_fault else "." for reading in found) == weak
    assert all(reading.active_current_amperes in (None, {L1: 1.0}) for reading in found)


@pytest.mark.parametrize(
    ("fundamental", "rms", "is_fit"),
    [(0.1, 0.2, True), (0.1, 0.315, True), (0.1, 0.317, False), (10, 30, True), (10, 33, False)],
)
def test_a_tenth_of_the_references_power_is_in_its_fundamental(
    fundamental: float, rms: float, is_fit: bool
) -> None:
    (found,) = judge((1 + 0j, complex(0, fundamental), rms), minimum=0.0)
    assert found.reference_fault == ("" if is_fit else "the reference carries no mains frequency")


@pytest.mark.parametrize(
    ("amperes", "rms", "exports"),
    [
        (-0.1, 0.1, False),
        (-0.1001, 0.1, True),
        # 6 degrees: 10.45 % of the RMS current, harmonics included.
        (-1.04, 10.0, False),
        (-1.05, 10.0, True),
    ],
)
def test_the_least_active_current_that_changes_the_sign(
    amperes: float, rms: float, exports: bool
) -> None:
    *_, last = judge(*[(complex(amperes), 1 + 0j, 1.0)] * 2, rms_amperes=rms)
    assert last.exporting == ({L1} if exports else frozenset())


def test_advice_outlasts_a_reference_that_fails() -> None:
    meter = direction_of(HAT, config_of({}))
    exchanged, currents, rms = phases_at(0.0, 10.0)
    exchanged[1:3] = exchanged[2], exchanged[1]
    for _ in range(5):
        before = meter.measure(exchanged, currents, rms)
    after = meter.measure(None, currents, rms)
    assert before.wiring_advice
    assert after.wiring_advice == before.wiring_advice


def test_the_strength_of_the_reference_is_that_of_a_default_ct() -> None:
    odd = ChannelConfig(ct_ratio=1000, burden_ohms=5.0, gain=1.5)
    for reference in (odd, replace(odd, scale_millivolts=-33.0)):
        for kind in ("voltage", "current"):
            config = DirectionConfig(reference=kind)
            meter = DirectionMeter(HAT, {}, config, reference)
            millivolts = reference.scale_millivolts or 3300 / 65536
            assert meter.row == 3
            assert meter.amperes_per_code == pytest.approx(abs(millivolts) / 1000 / 20 * 2000)
            turned = 1000 / 5 if kind == "current" else 1
            assert meter.unit_per_code == pytest.approx(millivolts / 1000 * turned)


def test_a_reference_of_milliamperes_has_neither_burden_nor_ratio() -> None:
    *phases, last = HAT.channels
    format_ = replace(HAT, channels=(*phases, replace(last, id="current3", scale=10.0)))
    config = DirectionConfig(reference="current", reference_flow="producing")
    meter = DirectionMeter(format_, {}, config, ChannelConfig(ct_ratio=1000, burden_ohms=5.0))
    assert (meter.unit, meter.unit_per_code, meter.amperes_per_code) == ("A", -0.01, 0.01)


def test_a_reference_without_a_scale_has_a_fault() -> None:
    *phases, last = HAT.channels
    format_ = replace(HAT, channels=(*phases, replace(last, scale=0.0)))
    meter = DirectionMeter(format_, {}, DirectionConfig(reference="voltage"), ChannelConfig())
    assert meter.row is None
    found = meter.measure(None, {}, 0.0)
    assert "voltage3 has no scale; set scale_millivolts" in found.reference_fault


def test_the_reference_is_wired_like_the_channel_of_its_phase() -> None:
    # 5 A at 1000:1 into 10 ohm are the 50 mV of 5 A at 2000:1 into 20 ohm.
    times = seconds(1.1)
    rows = [wave(times, 10.0, 0), 0 * times, 0 * times, wave(times, 5.0, 0)]
    for channel, text in (
        ({}, "has 5 A"),
        ({"ct_ratio": 1000}, "has 2.5 A"),
        ({"burden_ohms": 10.0}, "has 10 A"),
        ({"scale_millivolts": 3300 / 65536 / 5}, "has 1 A"),
        ({"gain": 3.0, "noise_floor_amperes": 7.0, "phase_error_degrees": 80.0}, "has 5 A"),
    ):
        direction = {"reference": "current", "minimum": 100.0}
        (reading,) = measure(rows, times, direction, L1=channel)
        assert reading.direction
        assert text in reading.direction.reference_fault


@pytest.mark.parametrize(
    ("angles", "expected"),
    [
        # A single reading does not change the sign.
        ((0, 180, 0, 180, 0), "iiiii"),
        ((0, 0, 180, 180, 180), "iiiEE"),
        ((180, 180, 0, 0, 0), "iEEii"),
        ((180, 180, 0, 180, 180, 0, 0), "iEEEEEi"),
        # Too close to 90 degrees: unchanged.
        ((180, 180, 85, 86, 90, 95, 85), "iEEEEEE"),
        ((0, 95, 94, 95, 94, 90, 90), "iiiiiii"),
        # Twice in a row: an unsure reading starts the count again.
        ((0, 180, 95, 180, 180), "iiiiE"),
        # A lost reference resets the sign.
        ((180, 180, None, 180, 180), "iEiiE"),
        ((180, None, 180, 180), "iiiE"),
    ],
)
def test_a_sign_changes_when_it_is_sure_twice_in_a_row(
    angles: tuple[float | None, ...], expected: str
) -> None:
    meter = direction_of(HAT, config_of({}))
    found = ""
    for angle in angles:
        reading = meter.measure(*phases_at(angle, 10.0))
        found += "E" if L1 in reading.exporting else "i"
        assert bool(reading.reference_fault) == (angle is None)
    assert found == expected


def phases_at(lag: float | None, amperes: float) -> tuple[Any, dict[Phase, PhaseCurrent], float]:
    """Arguments of `measure`, with L1 at an angle; None: no frequency."""
    currents = {phase: PhaseCurrent(amperes, 0.0, 0.0, 0) for phase in Phase}
    if lag is None:
        return None, currents, 0.0
    code = amperes / (3300 / 65536 / 10)
    at = [math.radians(lag), 2 * np.pi / 3, 4 * np.pi / 3]
    return np.array([*(code * np.exp(-1j * np.array(at))), 1e5 + 0j]), currents, 1e5


@given(
    lags=st.lists(st.floats(84.01, 95.99) | st.floats(-95.99, -84.01), min_size=3, max_size=30),
    amperes=st.floats(0.01, 80),
    begins_exporting=st.booleans(),
)
def test_a_load_that_hovers_at_90_degrees_never_flaps(
    lags: list[float], amperes: float, begins_exporting: bool
) -> None:
    meter = direction_of(HAT, config_of({}))
    for _ in range(2):
        meter.measure(*phases_at(180.0 if begins_exporting else 0.0, 10.0))
    for lag in lags:
        exports = L1 in meter.measure(*phases_at(lag, amperes)).exporting
        assert exports == begins_exporting


@given(lag=st.floats(-180, 180), amperes=st.floats(0.2, 80))
def test_a_sure_direction_shows_after_two_readings(lag: float, amperes: float) -> None:
    part = amperes * math.cos(math.radians(lag))
    meter = direction_of(HAT, config_of({}))
    for _ in range(2):
        reading = meter.measure(*phases_at(lag, amperes))
    if abs(part) > 1.001 * max(0.1, math.sin(math.radians(6)) * amperes):
        assert (L1 in reading.exporting) == (part < 0)


@pytest.mark.parametrize("at", [2.0, 2.3, 2.5, 2.9])
def test_a_change_shows_with_the_second_whole_second_after_it(at: float) -> None:
    times = seconds(8.1)
    turned = np.where(times < at, wave(times, 10.0, 0), wave(times, 10.0, 180))
    readings = measure([turned, 0 * times, 0 * times, wave(times, VOLT, 0)], times, {})
    begins = [math.fsum(r.window_seconds for r in readings[:n]) for n in range(len(readings))]
    whole = [n for n, begin in enumerate(begins) if begin >= at - 0.001]
    seen = exporting(readings, L1)
    assert "E" not in seen[: whole[0]]
    assert set(seen[whole[1] :]) == {"E"}


def test_a_noisy_load_at_90_degrees_holds_its_sign() -> None:
    times, random = seconds(40.1), np.random.default_rng(7)
    made = hat_format(12, reference=True)
    hovering = 90 + 5 * np.sin(0.7 * times)
    hovers = 0.5 * math.sqrt(2) * np.sin(2 * np.pi * 50.1 * times - np.radians(hovering))
    rows = [hovers, 0 * times, 0 * times, wave(times, VOLT, 0)]
    data = pack(made, [codes_of(row, 12, random) for row in rows], stamps_of(times))
    readings = directed(made, config_of({})).feed(data)
    assert exporting(readings, L1) == "i" * 40


@settings(max_examples=60)
@given(
    cycle=st.floats(40, 400),
    cycles=st.integers(10, 60),
    start=st.floats(0, 1, exclude_max=True),
    lag=st.floats(-180, 180),
)
def test_phasors_of_whole_cycles(cycle: float, cycles: int, start: float, lag: float) -> None:
    end = start + cycles * cycle
    samples = np.arange(math.ceil(end) + 3)
    angle = 2 * np.pi * samples / cycle
    series = np.array(
        [
            3 * math.sqrt(2) * np.sin(angle) + np.sin(3 * angle),
            5 * math.sqrt(2) * np.sin(angle - math.radians(lag)) + 0.2,
        ]
    )
    first, second = phasors(series, end, cycle)
    assert abs(first) == pytest.approx(3, rel=4e-3)
    assert abs(second) == pytest.approx(5, rel=4e-3)
    off = np.angle(second / first * np.exp(1j * math.radians(lag)))
    assert off == pytest.approx(0, abs=4e-3)


@pytest.mark.parametrize(("end", "cycle"), [(100, 20), (95.25, 20), (61.5, 7.3), (99.99, 33.3)])
def test_phasors_weigh_samples_by_the_part_of_their_cell(end: float, cycle: float) -> None:
    start = end - math.floor(end / cycle) * cycle
    series = np.random.default_rng(3).standard_normal((2, 102))
    expected = [0j, 0j]
    for at in range(102):
        part = max(0.0, min(at + 1, end) - max(at, start))
        turn = cmath.exp(-2j * math.pi * (at - math.floor(start)) / cycle)
        for row in range(2):
            expected[row] += math.sqrt(2) * part * series[row, at] * turn / (end - start)
    assert phasors(series, end, cycle) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "lost", [[(5000, 5150)], [(4000, 4190)], [(4100, 4140), (6000, 6100)], [(7900, 8060)]]
)
def test_lost_scans_do_not_change_the_angle(lost: list[tuple[int, int]]) -> None:
    times, kept = seconds(4.2), np.ones(round(4.2 * RATE), bool)
    for first, after in lost:
        kept[first:after] = False
    rows = [
        wave(times, 10.0, lag, harmonics=DISTORTED if lag == 80 else {1: 1.0})
        for lag in (80, 120 + 100, 240 + 180)
    ]
    rows.append(wave(times, VOLT, 0))
    data = pack(HAT, [codes_of(row[kept]) for row in rows], stamps_of(times[kept]))
    readings = directed(HAT, config_of({})).feed(data)
    assert len(readings) == 4
    assert sum(reading.lost_scans for reading in readings) == np.count_nonzero(~kept)
    fundamental = 10 / math.sqrt(1 + 0.6**2 + 0.3**2)
    for reading in readings:
        expected = [
            fundamental * math.cos(math.radians(80)),
            10 * math.cos(math.radians(100)),
            -10,
        ]
        assert active(reading) == pytest.approx(expected, abs=0.05)


def test_a_voltage_gives_the_frequency_without_a_current() -> None:
    times = seconds(3.1)
    rows = [0 * times, 0 * times, 0 * times, wave(times, VOLT, 0, hertz=50.37)]
    for reading in measure(rows, times, {}):
        assert reading.frequency_hertz == pytest.approx(50.37, abs=0.001)
        assert active(reading) == pytest.approx([0, 0, 0], abs=0.001)


def test_without_a_frequency_there_is_no_direction() -> None:
    times = seconds(2.1)
    for reading in measure([0 * times] * 4, times, {}):
        assert reading.frequency_hertz is None
        assert reading.direction == DirectionReading(
            None, frozenset(), "no channel carries a steady mains frequency", None
        )


def test_without_the_reference_currents_are_still_measured() -> None:
    times, made = seconds(2.1), hat_format()
    data = pack(made, [codes_of(wave(times, 10.0, 180))] * 3, stamps_of(times))
    plain = metering_of(made).feed(data)
    for reading, same in zip(directed(made, config_of({})).feed(data), plain, strict=True):
        assert reading.phases == same.phases
        assert reading.direction
        assert not reading.direction.exporting
        assert reading.direction.reference_fault == (
            "direction.input: the scans contain no channel for it"
        )


def test_with_direction_off_the_reference_is_not_used() -> None:
    times = seconds(2.1)
    rows = [codes_of(wave(times, 10.0, 180))] * 4
    without = hat_format()
    plain = metering_of(without).feed(pack(without, rows[:3], stamps_of(times)))
    config = config_of({"reference": "off"})
    assert config.reference() is None
    metering = metering_of(without)
    assert metering.feed(pack(without, rows[:3], stamps_of(times))) == plain
    assert [reading.direction for reading in plain] == [None, None]
    assert plain[0].signed_amperes(L1) == plain[0].amperes(L1)


def test_each_reading_reports_why_the_adc_has_no_reference() -> None:
    class Board(SimulatedHat):
        """Its ADC has no input for the reference."""

        def open_adc(self, config: Config) -> PlayingAdc | SimulatedAdc:
            adc = super().open_adc(replace(config, direction=DirectionConfig()))
            adc.reference_fault = "the ADC has no input 'voltage3' for direction.input"
            return adc

    sampler = Sampler(Board(parse("L1=-10")), config_of({}))
    readings: list[Reading] = []
    while not readings:
        time.sleep(0.05)
        readings = sampler.poll(time.monotonic_ns())
    sampler.close()
    (reading,) = readings
    assert reading.signed_amperes(L1) == pytest.approx(10, rel=1e-3)
    assert reading.direction
    assert reading.direction.reference_fault.startswith("the ADC has no input 'voltage3'")


def test_noise_is_not_a_reference_with_any_minimum() -> None:
    times = seconds(12)
    noise = np.random.default_rng(5).standard_normal(len(times)) * 0.01
    rows = [wave(times, 10.0, 0), 0 * times, 0 * times, noise]
    readings = measure(rows, times, {"minimum": 0.0})
    assert len(readings) == 12
    for reading in readings:
        assert reading.direction
        assert reading.direction.exporting == frozenset()
        assert "no mains frequency" in reading.direction.reference_fault


def test_a_reference_at_its_minimum_does_not_flap() -> None:
    times = seconds(12)
    swing = 0.5 + 0.02 * np.sin(2 * np.pi * times / 3.7)
    rows = [wave(times, 10.0, 180), 0 * times, 0 * times, wave(times, VOLT, 0) * swing]
    faults = [bool(r.direction and r.direction.reference_fault) for r in measure(rows, times, {})]
    assert faults.count(False) <= 2
    assert sum(a != b for a, b in itertools.pairwise(faults)) <= 1


@pytest.mark.parametrize("cycle", [79.9 + step / 1000 for step in range(200)])
def test_phasors_include_a_cycle_that_begins_with_the_series(cycle: float) -> None:
    end = 10 * cycle
    series = np.ones((1, math.ceil(end)))
    # A pulse in the first half of the first cycle; all else sums to 0.
    series[0, : int(cycle / 2)] = 3.0
    (first,) = phasors(series, end, cycle)
    assert abs(first) > 0.05
