# SPDX-License-Identifier: Apache-2.0
"""Readings of currents whose samples all arrive in time."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from signals import (
    DISTORTED,
    START_NS,
    Array,
    codes_of,
    current,
    hat_format,
    metering_of,
    pack,
    stamps_of,
)

from csp1d.config import ChannelConfig, MeasurementConfig
from csp1d.errors import ScanFormatError
from csp1d.measuring.clock import estimate_period_ns
from csp1d.measuring.ct import Ct
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.measuring.scan import Channel, ScanFormat
from csp1d.measuring.window import Moments, Window
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

RATE = 4000
L1, L2, L3 = Phase


def seconds(length: float, rate: float = RATE) -> Array:
    return np.arange(round(length * rate)) / rate


def measure(times: Array, amperes: Array, no_load: float = 0.0, **channel: Any) -> list[Reading]:
    """Readings with the same current on all phases."""
    made = hat_format()
    data = pack(made, [codes_of(amperes)] * 3, stamps_of(times))
    return metering_of(made, no_load, **channel).feed(data)


@pytest.mark.parametrize("hertz", [45, 47.3, 49.5, 50, 50.25, 50.37, 51.3, 55, 59.9, 60, 65])
@pytest.mark.parametrize("nominal", [50, 60])
@pytest.mark.parametrize("harmonics", [{1: 1.0}, DISTORTED])
def test_whole_cycles_of_any_mains(hertz: float, nominal: int, harmonics: dict[int, float]) -> None:
    made, times = hat_format(), seconds(3.1)
    random = np.random.default_rng(1)
    amperes = [current(times, hertz, rms, harmonics, {1: rms}) for rms in (1.0, 10.0, 40.0)]
    data = pack(made, [codes_of(row, noise=random) for row in amperes], stamps_of(times))
    channels = dict.fromkeys(Phase, ChannelConfig(noise_floor_amperes=3300 / 65536 / 10))
    measurement = MeasurementConfig(nominal_frequency_hz=nominal, no_load_amperes=0.0)  # type: ignore[arg-type]
    readings = Metering(made, channels, measurement).feed(data)
    assert [reading.sequence for reading in readings] == [1, 2, 3]
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(hertz, abs=0.002)
        assert [reading.amperes(phase) for phase in Phase] == pytest.approx([1, 10, 40], rel=5e-4)
        cycles = reading.window_seconds * hertz
        assert cycles == pytest.approx(round(cycles), abs=1e-4)
        assert abs(cycles - hertz) < 1.01


def test_windows_follow_each_other_once_a_second() -> None:
    times = seconds(60.5)
    readings = measure(times, current(times, 50.37, 10.0))
    assert len(readings) == 60
    end = START_NS
    for number, reading in enumerate(readings, 1):
        assert reading.end_ns == pytest.approx(end + reading.window_seconds * 1e9, abs=2000)
        end = reading.end_ns
        assert 0 <= START_NS + number * 1e9 - end < 1e9 / 50 + 2000
        assert reading.lost_scans == 0
    assert sum(reading.scans for reading in readings) == math.ceil((end - START_NS) / 1e9 * RATE)


def test_a_reading_comes_with_the_first_sample_after_its_last_cycle() -> None:
    made, times = hat_format(), seconds(4)
    data = pack(made, [codes_of(current(times, 50.1, 10.0))] * 3, stamps_of(times))
    metering = metering_of(made)
    assert metering.timeline.due_ns is None
    fed = 0
    # The first window takes its whole second: the mains frequency is not known yet.
    for due_seconds in (1.0, 100 / 50.1 + 0.0005, 150 / 50.1 + 0.0005):
        samples = math.ceil(due_seconds * RATE)
        last, end = (samples - 1) * made.scan_bytes, samples * made.scan_bytes
        assert metering.feed(data[fed:last]) == []
        due_ns = metering.timeline.due_ns
        assert due_ns == pytest.approx(START_NS + due_seconds * 1e9, abs=20_000)
        (reading,) = metering.feed(data[last:end])
        fed = end
    assert due_ns is not None
    assert due_ns - reading.end_ns == pytest.approx(500_000, abs=20_000)


def test_bursts_are_added_up_in_full() -> None:
    random = np.random.default_rng(4)
    times = seconds(60.5)
    level = np.zeros(len(times))
    begin = 0
    while begin < len(times):
        # Whole half cycles, as a thyristor switches, so that no window has DC.
        length = 40 * int(random.integers(1, 100))
        level[begin : begin + length] = random.choice([0.0, 0.0, 5.0, 25.0, 60.0])
        begin += length
    amperes = level * current(times, 50.0, 1.0)
    readings = measure(times, amperes)
    assert len(readings) == 60
    summed = sum(reading.amperes(L1) ** 2 * reading.window_seconds for reading in readings)
    used = sum(reading.scans for reading in readings)
    assert summed == pytest.approx(float((amperes[:used] ** 2).sum()) / RATE, rel=1e-4)


@settings(max_examples=25)
@given(hertz=st.floats(45, 65), seed=st.integers(0, 1 << 32), share=st.floats(0.1, 5))
def test_every_sample_counts_exactly_once(hertz: float, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    times = seconds(4.2)
    codes = codes_of(current(times, hertz, 10.0) + share * random.standard_normal(len(times)))
    made = hat_format()
    readings = metering_of(made).feed(pack(made, [codes] * 3, stamps_of(times)))
    # Mean and mean square over all windows, from those of each reading.
    exact = (codes - 32768) * 3300 / 65536 / 10
    weights = [reading.window_seconds * RATE for reading in readings]
    end = sum(weights)
    whole = int(end)
    dc = [reading.phases[L1].dc_offset_amperes for reading in readings]
    squares = [
        reading.amperes(L1) ** 2 + mean**2 for reading, mean in zip(readings, dc, strict=True)
    ]
    for values, power in ((dc, 1), (squares, 2)):
        total = sum(value * weight for value, weight in zip(values, weights, strict=True))
        rest = (end - whole) * exact[whole] ** power if whole < len(exact) else 0.0
        # The window lengths are from the clock, whose period is known to some 1e-10.
        assert total == pytest.approx(float((exact[:whole] ** power).sum()) + rest, abs=1e-2)


@settings(max_examples=20)
@given(
    sizes=st.lists(st.integers(1, 6000), min_size=1, max_size=40),
    late=st.sampled_from([0.0, 2e6]),
)
def test_readings_do_not_depend_on_the_sizes_of_reads(sizes: list[int], late: float) -> None:
    made, times, random = hat_format(), seconds(6), np.random.default_rng(5)
    stamps = stamps_of(times, late * random.random(len(times)))
    kept = np.ones(len(times), bool)
    kept[5000:5100] = kept[7990:8010] = kept[12000:15000] = False
    codes = codes_of(current(times, 50.1, 10.0))
    data = pack(made, [codes[kept]] * 3, stamps[kept])
    whole = metering_of(made).feed(data)
    assert len(whole) == 5
    cut, metering, begin = [], metering_of(made), 0
    while begin < len(data):
        for size in sizes:
            cut += metering.feed(data[begin : begin + size * made.scan_bytes])
            begin += size * made.scan_bytes
    assert cut == whole


def test_a_quarter_second_of_ten_amperes_reads_five() -> None:
    times = seconds(3)
    burst = (times >= 1) & (times < 1.25)
    readings = measure(times, burst * current(times, 50.0, 10.0))
    assert [reading.amperes(L1) for reading in readings] == pytest.approx([0, 5, 0], abs=0.002)


def test_without_current_windows_are_plain_seconds() -> None:
    times = seconds(3)
    made, random = hat_format(), np.random.default_rng(3)
    rows = [codes_of(0 * times, noise=random) for _ in Phase]
    readings = metering_of(made).feed(pack(made, rows, stamps_of(times)))
    assert [reading.frequency_hertz for reading in readings] == [None] * 3
    assert [reading.window_seconds for reading in readings] == pytest.approx([1.0] * 3)


def test_the_frequency_comes_from_a_steady_phase() -> None:
    times = seconds(4)
    made = hat_format()
    switching = codes_of((times % 0.7 < 0.3) * current(times, 50.2, 30.0))
    steady = codes_of(current(times, 50.2, 2.0))
    readings = metering_of(made).feed(pack(made, [switching, steady, steady], stamps_of(times)))
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(50.2, abs=0.002)


def test_the_frequency_is_followed() -> None:
    times = seconds(20)
    drifting = 50 + 0.05 * times  # Hz
    amperes = 10 * np.sqrt(2) * np.sin(2 * np.pi * np.cumsum(drifting) / RATE)
    for reading in measure(times, amperes):
        middle = (reading.end_ns - START_NS) / 1e9 - reading.window_seconds / 2
        assert reading.frequency_hertz == pytest.approx(50 + 0.05 * middle, abs=0.003)


@pytest.mark.parametrize("jump", [46.0, 51.4, 52.3, 60.0])
def test_a_jump_of_the_mains_is_found_again(jump: float) -> None:
    times = seconds(6)
    amperes = np.where(times < 3, current(times, 50.0, 10.0), current(times, jump, 10.0))
    for reading in measure(times, amperes)[-2:]:
        assert reading.frequency_hertz == pytest.approx(jump, abs=0.002)


def test_noise_is_subtracted_and_no_load_reads_zero() -> None:
    made, times, random = hat_format(12), seconds(10), np.random.default_rng(6)
    rows = [codes_of(0 * times, 12, random) for _ in Phase]
    data = pack(made, rows, stamps_of(times))
    noise = 3300 / 4096 / 10 * math.sqrt(1 + 1 / 12)
    plain = [reading.amperes(L1) for reading in metering_of(made).feed(data)]
    assert plain == pytest.approx([noise] * 10, rel=0.05)
    floored = metering_of(made, noise_floor_amperes=noise).feed(data)
    assert max(reading.amperes(phase) for reading in floored for phase in Phase) < 0.03
    unloaded = metering_of(made, 0.1, noise_floor_amperes=noise).feed(data)
    assert {reading.amperes(phase) for reading in unloaded for phase in Phase} == {0.0}
    assert all(reading.phases[L1].peak_amperes > 0 for reading in unloaded)


@pytest.mark.parametrize(("gain", "floor", "no_load"), [(1.0, 0.0, 0.0), (1.037, 0.3, 0.5)])
def test_the_uncorrected_current_has_no_correction(
    gain: float, floor: float, no_load: float
) -> None:
    times = seconds(1.5)
    corrected = measure(
        times, current(times, 50.0, 0.4), no_load, gain=gain, noise_floor_amperes=floor
    )
    assert corrected[0].phases[L1].uncorrected_rms_amperes == pytest.approx(0.4, rel=1e-3)


@pytest.mark.parametrize(("amperes", "expected"), [(0.09, 0.0), (0.11, 0.11)])
def test_the_threshold_of_no_load(amperes: float, expected: float) -> None:
    times = seconds(1)
    (reading,) = measure(times, current(times, 50.0, amperes), no_load=0.1)
    assert reading.amperes(L1) == pytest.approx(expected, abs=0.01)


def test_clipped_samples_are_counted() -> None:
    times = seconds(3)
    codes = codes_of(current(times, 50.25, 160.0))
    at_rail = (codes == 0) | (codes == 65535)
    readings = measure(times, current(times, 50.25, 160.0))
    assert readings[0].phases[L1].clipped_samples > 1000
    used = sum(reading.scans for reading in readings)
    clipped = sum(reading.phases[L1].clipped_samples for reading in readings)
    assert clipped == at_rail[:used].sum()
    assert readings[0].amperes(L1) == pytest.approx(160 * (1 - 0.156), rel=0.01)
    (below,) = measure(seconds(1), current(seconds(1), 50.25, 116.0))
    assert below.phases[L1].clipped_samples == 0


@pytest.mark.parametrize(
    ("codes", "failed"),
    [
        # A current far beyond the range clips at both ends: it is known to be large.
        (codes_of(current(seconds(1), 50.0, 1000.0)), False),
        (codes_of(current(seconds(1), 50.0, 40.0), bias=190.0), True),
        (np.full(RATE, 65535), True),
        (np.zeros(RATE, int), True),
        (np.full(RATE, 65534), False),
    ],
)
def test_an_input_at_one_end_of_the_range_has_failed(codes: Array, failed: bool) -> None:
    made = hat_format()
    good = codes_of(current(seconds(1), 50.0, 10.0))
    stamps = stamps_of(seconds(1))
    (reading,) = metering_of(made).feed(pack(made, [good, codes, good], stamps))
    assert reading.failed_phases == ((L2,) if failed else ())


@pytest.mark.parametrize(
    ("scan_type", "frozen"),
    [
        ("be:s16/16>>0", True),
        ("be:s24/32>>0", True),
        # Its noise may be less than a code.
        ("be:s12/16>>0", False),
        ("be:s15/16>>0", False),
        # An unsigned one that does not answer stands at an end of its range.
        ("be:u16/16>>0", False),
    ],
)
def test_an_adc_that_stands_still_has_failed(scan_type: str, frozen: bool) -> None:
    made = ScanFormat(
        RATE,
        tuple(
            Channel(f"voltage{n}", phase, n, ScanType.parse(scan_type), 0.05)
            for n, phase in enumerate(Phase)
        ),
    )
    still = np.zeros(RATE, int)
    moving = still.copy()
    moving[RATE // 2] = 1
    for codes, failed in (
        ((still + 5, still, still - 1 if scan_type[3] == "s" else still + 1), frozen),
        ((still, still, moving), False),
        ((moving, moving, moving), False),
    ):
        (reading,) = metering_of(made).feed(pack(made, codes))
        if scan_type[3] == "s":
            assert reading.failed_phases == (tuple(Phase) if failed else ())
            assert reading.is_frozen == failed
        else:
            assert not reading.is_frozen


@pytest.mark.parametrize("first", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("value", [0, -1, 5000])
def test_an_adc_that_stands_still_for_a_part_of_a_reading_has_failed(
    first: float, value: int
) -> None:
    """A bus that breaks in the middle of a second: the RMS over it is that of no current."""
    type_ = ScanType.parse("be:s24/32>>0")
    made = ScanFormat(
        RATE, tuple(Channel(f"voltage{n}", p, n, type_, 0.0001) for n, p in enumerate(Phase))
    )
    turns = 50 * seconds(1)[:, None] + np.arange(3) / 3
    noise = np.random.default_rng(1).integers(-9, 9, (RATE, 3))
    for amplitude, seconds_still, failed in (
        (1e6, 0.1, True),
        # Less than what may be lost of a reading.
        (1e6, 0.01, False),
        # Without a current, a part of a reading says nothing.
        (0, 0.1, False),
    ):
        codes = np.rint(amplitude * np.sin(2 * np.pi * turns)).astype(np.int64)
        codes += noise if amplitude else noise // 9
        begin = int(first * RATE)
        codes[begin : begin + int(seconds_still * RATE)] = value if amplitude else 0
        (reading,) = metering_of(made).feed(pack(made, list(codes.T)))
        assert reading.failed_phases == (tuple(Phase) if failed else ())


@pytest.mark.parametrize(("bits", "failed"), [(16, False), (18, True), (24, True)])
def test_a_quiet_16_bit_adc_whose_load_is_switched_off_has_not_failed(
    bits: int, failed: bool
) -> None:
    """An ADS1115 has noise of a sixth of a code, and so repeats one code without a load. With more
    bits, it is the ADC that does not answer any more."""
    type_ = ScanType.parse(f"le:s{bits}/32>>0")
    made = ScanFormat(860, (Channel("voltage0", L1, 0, type_, 0.03125),), None)
    times = seconds(1, 860)
    load = np.where(times < 0.5, 1000 * np.sin(2 * np.pi * 50.02 * times), 0.2)
    codes = np.rint(load + np.random.default_rng(1).normal(scale=0.15, size=860)).astype(int)
    (reading,) = metering_of(made).feed(pack(made, [codes]))
    assert reading.is_frozen == failed


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_an_adc_without_its_reference_has_failed(share: float) -> None:
    """Each code is at the end of its sign, for a part of a reading or all of it."""
    type_ = ScanType.parse("be:s24/32>>0")
    made = ScanFormat(
        RATE, tuple(Channel(f"voltage{n}", p, n, type_, 0.0001) for n, p in enumerate(Phase))
    )
    wave = np.rint(1e6 * np.sin(2 * np.pi * 50 * seconds(1) + 0.1)).astype(np.int64)
    off = int(share * RATE)
    wave[:off] = np.where(wave[:off] < 0, -(1 << 23), (1 << 23) - 1)
    (reading,) = metering_of(made).feed(pack(made, [wave] * 3))
    assert reading.failed_phases == tuple(Phase)
    assert not reading.is_frozen


def test_rails_of_signed_codes() -> None:
    type_ = ScanType.parse("be:s12/16>>4")
    made = ScanFormat(RATE, (Channel("voltage0", "L2", 0, type_, 0.8),))
    wave = np.clip(np.rint(2500 * np.sin(2 * np.pi * 50 * seconds(1))), -2048, 2047)
    (reading,) = metering_of(made).feed(pack(made, [wave.astype(np.int64) << 4]))
    clipped = np.count_nonzero((wave == -2048) | (wave == 2047))
    assert reading.phases[L2].clipped_samples == clipped


@pytest.mark.parametrize("lowest", [0, 1])
@pytest.mark.parametrize("highest", [65534, 65535])
def test_samples_at_a_rail_are_counted_to_a_code(lowest: int, highest: int) -> None:
    """One sample at each rail; the mean of the codes is not a whole number."""
    codes = codes_of(current(seconds(1), 50.0, 10.0), noise=np.random.default_rng(9))
    codes[1234], codes[2345] = lowest, highest
    made = hat_format()
    (reading,) = metering_of(made).feed(pack(made, [codes] * 3, stamps_of(seconds(1))))
    assert reading.phases[L1].clipped_samples == (lowest == 0) + (highest == 65535)


@pytest.mark.parametrize(("at_top", "failed"), [(2000, False), (2001, True)])
@pytest.mark.parametrize("rail", [0, 65535])
def test_more_than_half_of_the_samples_at_one_end(rail: int, at_top: int, failed: bool) -> None:
    made = hat_format(timestamp=False)
    codes = np.full(RATE, 30_000)
    codes[::2] = rail
    codes[1 : 2 * (at_top - 2000) : 2] = rail
    (reading,) = metering_of(made).feed(pack(made, [codes] * 3))
    assert reading.scans == RATE
    assert reading.phases[L1].clipped_samples == at_top
    assert reading.failed_phases == (tuple(Phase) if failed else ())


WIDTHS = (
    "le:u8/16>>4 be:u10/16>>2 be:u12/16>>0 le:s12/16>>4 le:s16/16>>0 be:u16/16>>0 be:u24/32>>0"
    " le:s24/32>>0 be:s24/32>>8"
)


@pytest.mark.parametrize("end", ["lowest", "highest"])
@pytest.mark.parametrize("name", WIDTHS.split())
def test_an_input_at_an_end_of_its_range_has_failed_at_any_width(name: str, end: str) -> None:
    """A bus that delivers only ones or only zeros; two other inputs still measure."""
    type_ = ScanType.parse(name)
    scale = 1000.0 / 2**type_.bits
    made = ScanFormat(
        RATE, tuple(Channel(f"voltage{n}", p, n, type_, scale) for n, p in enumerate(Phase))
    )
    middle = (type_.lowest + type_.highest) // 2
    good = middle + np.rint(2**type_.bits / 4 * np.sin(2 * np.pi * 50 * seconds(1))).astype(int)
    stuck = np.full(RATE, getattr(type_, end))
    words = [(codes << type_.shift).astype(f"=i{type_.bytes}") for codes in (good, stuck, good)]
    (reading,) = metering_of(made).feed(pack(made, words))
    assert reading.failed_phases == (L2,)
    assert reading.amperes(L1) == pytest.approx(25 / math.sqrt(2), rel=0.02)


UNIT = ScanFormat(RATE, (Channel("voltage0", "L1", 0, ScanType.parse("le:s16/16>>0"), 10.0),))
"""1 A per code."""


@pytest.mark.parametrize(
    ("moments", "channel", "no_load", "rms", "peak", "dc"),
    [
        (Moments(0.0, 9.0, -4.0, 4.0), {}, 3.0, 3.0, 4.0, 100.0),
        (Moments(0.0, 9.0, -4.0, 4.0), {}, 3.001, 0.0, 4.0, 100.0),
        (Moments(1.0, 9.0, -4.0, 4.0), {}, 0.0, 3.0, 5.0, 101.0),
        (Moments(-1.0, 9.0, -4.0, 4.0), {}, 0.0, 3.0, 5.0, 99.0),
        (Moments(1.0, 25.0, -4.0, 4.0), {"noise_floor_amperes": 3.0}, 0.0, 4.0, 5.0, 101.0),
        (Moments(0.0, 9.0, -4.0, 4.0), {"noise_floor_amperes": 4.0}, 0.0, 0.0, 4.0, 100.0),
        (Moments(1.0, 9.0, -4.0, 4.0), {"gain": 1.5, "reversed": True}, 0.0, 4.5, 7.5, -151.5),
    ],
)
def test_a_current_from_the_moments_of_its_codes(
    moments: Moments, channel: dict[str, Any], no_load: float, rms: float, peak: float, dc: float
) -> None:
    ct = Ct(UNIT, L1, ChannelConfig(**channel))
    window = Window.of(np.arange(4), 0.0, 4.0)
    found = ct.current(window, np.zeros(4), moments, 100.0, no_load, 80.0)
    assert found.rms_amperes == pytest.approx(rms)
    assert found.peak_amperes == pytest.approx(peak)
    assert found.dc_offset_amperes == pytest.approx(dc)
    assert found.uncorrected_rms_amperes == pytest.approx(math.sqrt(moments.variance))
    assert (found.clipped_samples, found.at_rail) == (0, False)


# Scales of the ADS8688 at 10.24 V and of an MCP3911 at 3.3 V, in millivolts per code.
MISREAD = {"ads8688": (16, 65536, 20480 / 65536), "mcp3911": (24, 0, 4400 / 2**24)}


@pytest.mark.parametrize("rate", [1600, 4000, 16_000])
@pytest.mark.parametrize("driver", MISREAD)
def test_samples_in_a_wrong_byte_order_are_noise(driver: str, rate: int) -> None:
    """Their drivers declare big-endian words, but store the processor's."""
    bits, levels, scale = MISREAD[driver]
    sign, storage = ("u", 16) if levels else ("s", 32)
    right = f"le:{sign}{bits}/{storage}>>0"
    channels = tuple(
        Channel(f"voltage{n}", phase, n, ScanType.parse(right), scale)
        for n, phase in enumerate(Phase)
    )
    stored = replace(hat_format(rate=rate), channels=channels)
    wrong = tuple(replace(c, type=replace(c.type, big_endian=True)) for c in channels)
    declared = replace(stored, channels=wrong)
    times, random = seconds(4.1, rate), np.random.default_rng(rate)
    rows = [
        np.rint(
            10 * current(times, 50.02, rms) / scale + levels / 2 + random.normal(size=len(times))
        )
        for rms in (10.5, 20, 24)
    ]
    data = pack(stored, rows, stamps_of(times))
    for reading in metering_of(stored).feed(data):
        assert reading.amperes(L1) == pytest.approx(10.5, rel=1e-3)
        assert not any(current.is_noise for current in reading.phases.values())
    readings = metering_of(declared).feed(data)
    assert len(readings) == 4
    for reading in readings:
        assert min(map(reading.amperes, Phase)) > 70
        assert sum(current.is_noise for current in reading.phases.values()) >= 2


def loads(times: Array) -> dict[str, Array]:
    """Currents without a mains frequency, or with strong harmonics, of about 15 to 40 A."""
    turn, random = 50.02 * times, np.random.default_rng(1)
    sine = 40 * np.sin(2 * np.pi * turn)
    half = turn % 0.5
    burst = np.where(times % 1.02 < 0.5, sine, 0.0)
    sweep = 25 + 22 * times  # hertz: it turns by its integral
    return {
        "nothing": np.zeros_like(times),
        "a single conductor of a railway": 40 * np.sin(2 * np.pi * 16.7 * times),
        "a generator at 47 Hz": 40 * np.sin(2 * np.pi * 47 * times),
        "a generator that speeds up": 40 * np.sin(2 * np.pi * np.cumsum(sweep) * times[1]),
        "bursts of half a second": burst,
        "bursts of single cycles": np.where(turn % 5 < 2, sine, 0.0),
        "a motor that starts": sine * (1 + 5 * np.exp(-times / 0.3)) / 3,
        "a dimmer": np.where(half > 0.4, sine, 0.0),
        "a six-pulse rectifier": 30 * np.sign(sine) * ((half > 1 / 12) & (half < 5 / 12)),
        "rectifiers with capacitors": 80 * np.sign(sine) * (abs(half - 0.25) < 0.05),
        "an inverter with ripple": sine + random.normal(scale=15, size=len(times)),
        "ripple of direct current": 40 * np.abs(np.sin(2 * np.pi * turn)),
    }


@pytest.mark.parametrize("rate", [200, 860, 1000, 1600, 4000, 16_000])
@pytest.mark.parametrize("load", loads(np.arange(2.0)))
def test_no_load_is_noise(load: str, rate: int) -> None:
    made, times = hat_format(rate=rate), seconds(4.1, rate)
    codes = codes_of(loads(times)[load], noise=np.random.default_rng(2))
    readings = metering_of(made).feed(pack(made, [codes] * 3, stamps_of(times)))
    assert len(readings) >= 3
    assert not any(c.is_noise for reading in readings for c in reading.phases.values())


@pytest.mark.parametrize(("rms", "is_noise"), [(9.9, False), (10.2, True)])
def test_only_a_large_current_is_noise(rms: float, is_noise: bool) -> None:
    times = seconds(2.1)
    noise = np.random.default_rng(1).normal(scale=rms, size=len(times))
    for reading in measure(times, noise):
        assert reading.phases[L1].is_noise == is_noise


def test_dc_is_reported_and_removed() -> None:
    times = seconds(2)
    amperes = current(times, 50.0, 10.0) + 3.0
    for reading in measure(times, amperes):
        assert reading.amperes(L1) == pytest.approx(10.0, rel=1e-4)
        assert reading.phases[L1].dc_offset_amperes == pytest.approx(3.0, abs=1e-3)
        assert reading.phases[L1].peak_amperes == pytest.approx(10 * math.sqrt(2), rel=1e-3)
    reversed_ = measure(times, amperes, reversed=True)[0].phases[L1]
    assert reversed_.dc_offset_amperes == pytest.approx(-3.0, abs=1e-3)
    assert reversed_.rms_amperes == pytest.approx(10.0, rel=1e-4)


@pytest.mark.parametrize(
    ("channel", "factor"),
    [
        ({}, 1.0),
        ({"gain": 1.037}, 1.037),
        ({"ct_ratio": 3000}, 1.5),
        ({"burden_ohms": 10.0}, 2.0),
        ({"scale_millivolts": 2 * 3300 / 65536}, 2.0),
        ({"reversed": True}, 1.0),
    ],
)
def test_factors_from_codes_to_amperes(channel: dict[str, Any], factor: float) -> None:
    times = seconds(1)
    (reading,) = measure(times, current(times, 50.0, 10.0), **channel)
    assert reading.amperes(L1) == pytest.approx(10.0 * factor, rel=1e-4)


CURRENT = ScanFormat(RATE, (Channel("current0", "L1", 0, ScanType.parse("le:s16/16>>0"), 10.0),))
"""10 mA per code."""


@pytest.mark.parametrize(
    ("channel", "amperes"),
    [
        ({}, 10.0),
        ({"gain": 1.1, "reversed": True}, 11.0),
        ({"scale_millivolts": 20.0}, 20.0),
        # It has neither burden nor ratio.
        ({"ct_ratio": 100, "burden_ohms": 33.0}, 10.0),
    ],
)
def test_an_input_of_a_current_carries_milliamperes(
    channel: dict[str, Any], amperes: float
) -> None:
    codes = np.rint(current(seconds(1), 50.0, 1000.0)).astype(np.int64)
    (reading,) = metering_of(CURRENT, **channel).feed(pack(CURRENT, [codes]))
    assert reading.amperes(L1) == pytest.approx(amperes, rel=1e-4)
    assert reading.waveform
    assert max(abs(reading.waveform.current_amperes[L1])) == pytest.approx(
        amperes * math.sqrt(2), rel=0.02
    )


@pytest.mark.parametrize(
    ("channel", "no_load", "doubt"),
    [
        # The range of the HAT is 116.7 A RMS.
        ({}, 5.0, ""),
        ({"burden_ohms": 140.0}, 0.1, ""),
        ({"burden_ohms": 200.0}, 0.1, "the ADC overloads above 11.7 A RMS"),
        ({"ct_ratio": 20}, 0.1, "the ADC overloads above 1.17 A RMS"),
        ({"ct_ratio": 20}, 1.1, "the ADC overloads above 1.17 A RMS"),
        ({"burden_ohms": 0.01, "ct_ratio": 560}, 0.1, ""),
    ],
)
def test_a_small_range_is_doubtful(channel: dict[str, Any], no_load: float, doubt: str) -> None:
    doubts = metering_of(hat_format(), no_load, **channel).range_doubts
    assert len(doubts) == (3 if doubt else 0)
    for phase, found in zip(Phase, doubts, strict=False):
        key = f"channels.{phase}"
        assert found == (
            f"{key}: {doubt}; check the scale, and ct_ratio, burden_ohms and type in [{key}]"
        )


@pytest.mark.parametrize(
    ("channel", "no_load", "reason"),
    [
        (
            {"ct_ratio": 20},
            1.2,
            r"range of the ADC is 1\.17 A RMS .*, but must be more than 1\.2",
        ),
        (
            {"ct_ratio": 20, "noise_floor_amperes": 0.9},
            0.9,
            r"range of the ADC is 1\.17 A RMS .*, but must be more than 1\.27 A",
        ),
        ({"ct_ratio": 1}, 0.1, r"range of the ADC is 0\.0583 A RMS .* must be more than 1 A"),
        ({"scale_millivolts": 1e-9}, 0.1, r"range of the ADC is 2\.32e-06 A RMS"),
        ({"burden_ohms": 0.01, "ct_ratio": 570}, 0.1, r"a code of the ADC is 2\.87 A, so small"),
    ],
)
def test_a_range_in_which_a_load_reads_zero_is_rejected(
    channel: dict[str, Any], no_load: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=rf"channels\.L1: (the )?{reason}.*; check the scale, and"):
        metering_of(hat_format(), no_load, **channel)


def test_a_scale_of_zero_is_no_scale() -> None:
    (channel,) = UNIT.channels
    made = replace(UNIT, channels=(replace(channel, scale=0.0),))
    with pytest.raises(ValueError, match=r"channels\.L1: voltage0 has no scale; set scale_mill"):
        metering_of(made)
    assert metering_of(made, scale_millivolts=10.0)


@pytest.mark.parametrize(
    ("fuse_amperes", "doubt"),
    [
        (0.0, ""),
        (25.0, ""),
        (116.0, ""),
        (
            125.0,
            "channels.L1: the ADC overloads above 117 A RMS, below the main fuse of 125 A; check"
            " the scale, and ct_ratio, burden_ohms and type in [channels.L1]",
        ),
    ],
)
def test_the_range_should_reach_the_main_fuse(fuse_amperes: float, doubt: str) -> None:
    channels, measurement = {L1: ChannelConfig()}, MeasurementConfig()
    metering = Metering(hat_format(), channels, measurement, None, fuse_amperes)
    assert metering.range_doubts == ((doubt,) if doubt else ())
    # A small fuse is reached by a range that is small for others.
    channels = {L1: ChannelConfig(burden_ohms=200.0)}
    metering = Metering(hat_format(), channels, measurement, None, fuse_amperes and 10.0)
    assert bool(metering.range_doubts) == (not fuse_amperes)


def test_a_phase_without_a_channel_reads_zero() -> None:
    made, times = hat_format(), seconds(1)
    data = pack(made, [codes_of(current(times, 50.0, 10.0))] * 3, stamps_of(times))
    (reading,) = Metering(made, {L2: ChannelConfig()}, MeasurementConfig()).feed(data)
    assert list(reading.phases) == [L2]
    assert [reading.amperes(phase) for phase in Phase] == pytest.approx([0, 10, 0], rel=1e-4)


@pytest.mark.parametrize(
    ("type_", "message"),
    [
        (
            "le:u16/16X2>>0",
            "channels.L1: voltage0 has 2 values per scan (le:u16/16X2>>0);"
            " select an input with one",
        ),
        (
            "le:s64/64>>0",
            "channels.L1: voltage0 must have at most 53 bits, got 64 (le:s64/64>>0)",
        ),
        (
            "le:u54/64>>0",
            "channels.L1: voltage0 must have at most 53 bits, got 54 (le:u54/64>>0)",
        ),
    ],
)
def test_channels_that_cannot_be_measured(type_: str, message: str) -> None:
    made = ScanFormat(RATE, (Channel("voltage0", "L1", 0, ScanType.parse(type_), 1.0),))
    with pytest.raises(ValueError, match="voltage0") as caught:
        metering_of(made)
    assert str(caught.value) == message


def test_codes_of_53_bits_are_measured() -> None:
    made = ScanFormat(RATE, (Channel("voltage0", "L1", 0, ScanType.parse("le:s53/64>>0"), 1e-12),))
    wave = np.rint(2**51 * np.sin(2 * np.pi * 50 * seconds(1))).astype(np.int64)
    (reading,) = metering_of(made).feed(pack(made, [wave]))
    # 1e-12 mV per code, 100 A per volt.
    assert reading.amperes(L1) == pytest.approx(2**51 / math.sqrt(2) * 1e-15 * 100, rel=1e-5)


def test_a_configured_phase_must_be_there() -> None:
    made = ScanFormat(RATE, (Channel("a", "L1", 0, ScanType.parse("le:u16/16>>0"), 1.0),))
    with pytest.raises(ValueError, match=r"channels\.L3"):
        Metering(made, {L3: ChannelConfig()}, MeasurementConfig())


def test_scans_are_counted() -> None:
    made, metering = hat_format(), metering_of(hat_format())
    times = seconds(3.5)
    data = pack(made, [codes_of(current(times, 50.0, 10.0))] * 3, stamps_of(times))
    assert metering.scans_total == 0
    for begin, end, scans in ((0, 1600, 100), (1600, 1600, 100), (1600, len(data), 14_000)):
        metering.feed(data[begin:end])
        assert metering.scans_total == scans


def test_part_of_a_scan_is_rejected() -> None:
    with pytest.raises(ScanFormatError, match="a whole number of scans"):
        metering_of(hat_format()).feed(bytes(15))


def test_all_bits_of_24_count() -> None:
    # 1 mA with a bias that takes 23 of the bits, at 8 kS/s.
    made, times = hat_format(24, 8000), seconds(2, 8000)
    codes = codes_of(current(times, 50.25, 0.001), 24, bias=-160.0)
    for reading in metering_of(made).feed(pack(made, [codes] * 3, stamps_of(times))):
        assert reading.amperes(L1) == pytest.approx(0.001, rel=1e-3)
        assert reading.phases[L1].dc_offset_amperes == pytest.approx(-160.0, abs=1e-6)


def test_the_period_of_even_stamps_is_exact() -> None:
    assert estimate_period_ns(stamps_of(seconds(0.5, 4120))) == pytest.approx(1e9 / 4120, rel=1e-6)


@pytest.mark.parametrize("rate", [3906.25, 4000])
def test_a_cycle_that_ends_at_the_second_belongs_to_its_window(rate: float) -> None:
    form = hat_format(rate=rate)
    times = np.arange(int(20 * rate)) / rate
    codes = [codes_of(current(times, 60, amperes)) for amperes in (24, 10, 3)]
    metering, data = metering_of(form), pack(form, codes, stamps_of(times))
    size = int(rate * 0.37) * form.scan_bytes
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    seconds = [reading.window_seconds for part in parts for reading in metering.feed(part)]
    assert seconds == [pytest.approx(1.0, abs=1e-4)] * 20
