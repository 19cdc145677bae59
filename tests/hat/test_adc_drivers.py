# SPDX-License-Identifier: Apache-2.0
"""Each driver of the table: its ADC is discovered, configured, opened, and read correctly."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from driver_trees import AD7606, ADCS, ADS1115, Adc, Machine

from csp1d.config import (
    AdcConfig,
    ChannelConfig,
    ChannelsConfig,
    Config,
    DirectionConfig,
    MeasurementConfig,
)
from csp1d.config_file import load
from csp1d.errors import DeviceError
from csp1d.hat.adc_drivers import DRIVERS, driver_of
from csp1d.hat.hardware import find_hardware
from csp1d.hat.iio import IioAdc, find_adc
from csp1d.measuring.metering import Metering
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase
from csp1d.scan_type import ScanType
from csp1d.tool.commands import discover
from csp1d.tool.suggest_config import adc_fault, choose_adc, configuration, phases

PORT = Path(__file__).parents[2] / "docs/port.md"
HERTZ = 50.02
START_NS = 10**12
PIPE_BYTES = 65_536
Floats = npt.NDArray[np.float64]


def ids(adc: Adc) -> str:
    return f"{adc.name} {adc.type}"


def test_each_driver_of_the_table_has_a_tree() -> None:
    assert {driver_of(adc.name) for adc in ADCS} == set(DRIVERS)


def test_the_adc_of_another_soc_at_another_address_is_no_at91() -> None:
    at91 = driver_of("fc030000.adc")
    assert at91 in DRIVERS
    assert driver_of("f804c000.adc") is driver_of("e1000000.adc") is at91
    assert driver_of("4003b000.adc") not in DRIVERS


def test_each_line_of_the_table_has_a_source() -> None:
    for driver in DRIVERS:
        assert re.match(r"[a-z0-9_-]+\.c(:\d+| of Linux)", driver.source), driver


@pytest.mark.parametrize(
    ("name", "declared", "byteorder", "stored"),
    [
        ("mcp3911", "be:s24/32>>0", "little", "le:s24/32>>0"),
        ("mcp3919", "be:s24/32>>0", "little", "le:s24/32>>0"),
        ("ads8684", "be:u16/16>>0", "little", "le:u16/16>>0"),
        ("mcp3911", "be:s24/32>>0", "big", "be:s24/32>>0"),
        # A driver that declares what it stores.
        ("mcp3911", "le:s24/32>>0", "little", "le:s24/32>>0"),
        ("mcp3911x", "be:s24/32>>0", "little", "be:s24/32>>0"),
        ("", "be:s24/32>>0", "little", "be:s24/32>>0"),
    ],
)
def test_the_byte_order_of_two_drivers_is_that_of_the_cpu(
    name: str, declared: str, byteorder: str, stored: str
) -> None:
    assert str(driver_of(name).stored(ScanType.parse(declared), byteorder)) == stored


@pytest.mark.parametrize(
    ("name", "reported", "hertz"),
    [
        ("ads131e08", "1 2 64", "1000 2000 64000"),
        ("ads131e08", "[0.5 0.5 64]", "[500 500 64000]"),
        ("ad7192", "1200", "1200"),
        ("unlisted", "3906.25 fast 1000000", "3906.25 fast 1000000"),
    ],
)
def test_rates_are_converted_to_hertz(name: str, reported: str, hertz: str) -> None:
    assert driver_of(name).in_hertz(reported) == hertz


@pytest.mark.parametrize("adc", ADCS, ids=ids)
def test_the_manual_has_each_driver_with_its_verdict(adc: Adc) -> None:
    files = re.findall(r"(?<![./\w-])([\w-]+)\.c\b", driver_of(adc.name).source)
    drivers = [file for file in files if file != "ad_sigma_delta"]
    rows = [row for row in PORT.read_text().splitlines() if row.startswith("| `")]
    (row,) = [row for row in rows if f"`{drivers[0]}`" in row]
    assert all(f"`{driver}`" in row for driver in drivers)
    verdict = "does not fit" if adc.fault else "fits one phase" if adc.phases == 1 else "fits"
    _, _, _, starts, *_, judged, _ = re.split(r"\s*\|\s*", row)
    assert re.match(rf"{verdict}\b", judged), row
    if not adc.fault:
        own = "own" if adc.trigger in adc.own_triggers else "timer"
        assert {None: "none", "hrtimer:csp1d": "hrtimer"}.get(adc.trigger, own) in starts, row


@pytest.mark.parametrize("adc", ADCS, ids=ids)
def test_each_driver(adc: Adc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, adc)
    hardware = find_hardware(machine.sys, machine.dev, machine.proc)
    (found,) = hardware.adcs
    report = "\n".join(discover.report(hardware))
    assert adc.note in report

    assert adc_fault(found).startswith(adc.fault)
    assert bool(adc_fault(found)) == bool(adc.fault)
    assert (choose_adc(hardware.adcs) is None) == bool(adc.fault)
    if adc.fault:
        assert f"not usable: {adc.fault}" in report
        with pytest.raises(DeviceError):
            opened_with(machine, {Phase.L1: next(iter(adc.inputs), "voltage0")}, DirectionConfig())
        return
    assert phases(found) == adc.phases

    suggested = configuration(hardware)
    table = tomllib.loads(suggested)["adc"]
    assert table.get("trigger") == adc.trigger
    assert table.get("sampling_frequency_hz") == adc.rate
    (tmp_path / "csp1d.toml").write_text(suggested)
    config = load(tmp_path / "csp1d.toml")
    assert list(config.channels.used()) == list(Phase)[: adc.phases]

    machine.add_hrtimer("csp1d")
    machine.accept(monkeypatch)
    folder = find_adc(config.adc.device, machine.bus)
    with IioAdc(folder, config, machine.bus, machine.dev, machine.configfs) as opened:
        assert opened.rate_fault is None
        assert opened.scale_doubts == ()
        assert opened.in_blocks == adc.has_dma
        if adc.trigger:
            attached = (machine.folder / "trigger/current_trigger").read_text().strip()
            assert attached == adc.trigger.removeprefix("hrtimer:")
        metering = Metering(opened.format, config.channels.used(), config.measurement)
        readings = list(played(machine, opened, metering))
    # The trigger is attached now, and the timer exists.
    assert configuration(find_hardware(machine.sys, machine.dev, machine.proc)) == suggested
    assert len(readings) >= 2
    assert readings[-1].frequency_hertz == pytest.approx(HERTZ, abs=0.01)
    assert metering.timeline.lost_scans_total == 0
    for phase, current in readings[-1].phases.items():
        channel = config.channels.used()[phase].input
        code_amperes = adc.scale / unit(channel)
        bias = 7.0 if adc.is_bipolar else code_amperes * 2 ** (adc.bits - 1)
        assert current.rms_amperes == pytest.approx(
            amperes(adc.inputs[channel]), rel=5e-4, abs=code_amperes / 4
        )
        assert current.dc_offset_amperes == pytest.approx(bias, rel=1e-3, abs=code_amperes / 4)


@pytest.mark.parametrize("adc", [adc for adc in ADCS if adc.trigger in adc.own_triggers], ids=ids)
def test_the_suggested_configuration_holds_for_another_number_of_the_device(
    adc: Adc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a new start, or after the driver was unbound and bound while the ADC was open."""
    before = Machine(tmp_path / "before", adc)
    suggested = configuration(find_hardware(before.sys, before.dev, before.proc))
    (tmp_path / "csp1d.toml").write_text(suggested)
    config = load(tmp_path / "csp1d.toml")

    def renumbered(triggers: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(re.sub("0(-samplerate|-convst|)$", r"1\1", name) for name in triggers)

    own, accepts = renumbered(adc.own_triggers), renumbered(adc.accepts or ())
    after = Machine(tmp_path / "after", replace(adc, own_triggers=own, accepts=accepts), number=1)
    after.accept(monkeypatch)
    folder = find_adc(config.adc.device, after.bus)
    with IioAdc(folder, config, after.bus, after.dev, after.configfs):
        trigger = (after.folder / "trigger/current_trigger").read_text().strip()
    assert trigger in own
    assert trigger not in adc.own_triggers


def opened_with(
    machine: Machine, inputs: Mapping[Phase, str], direction: DirectionConfig
) -> IioAdc:
    channels = {phase: ChannelConfig(input=inputs.get(phase, "")) for phase in Phase}
    config = Config(
        adc=AdcConfig(machine.adc.name, sampling_frequency_hz=machine.adc.hertz),
        channels=ChannelsConfig(**channels),
        direction=direction,
    )
    folder = find_adc(machine.adc.name, machine.bus)
    return IioAdc(folder, config, machine.bus, machine.dev, machine.configfs)


@pytest.mark.parametrize("inputs", [(1, 2, 3), (0, 2, 5), (6, 3, 4), (7,)])
def test_the_inputs_of_an_adc_that_ignores_the_scan_mask_are_the_configured_ones(
    tmp_path: Path, inputs: tuple[int, ...]
) -> None:
    machine = Machine(tmp_path, AD7606)
    used = {phase: f"voltage{n}" for phase, n in zip(Phase, inputs, strict=False)}
    channels = {phase: ChannelConfig(input=name) for phase, name in used.items()}
    with opened_with(machine, used, DirectionConfig()) as opened:
        assert sorted(channel.id for channel in opened.format.channels) == sorted(used.values())
        enabled = {
            file.name for file in machine.buffer.glob("in_voltage*_en") if "1" in file.read_text()
        }
        assert enabled == {f"in_voltage{n}_en" for n in range(max(inputs) + 1)}
        metering = Metering(opened.format, channels, MeasurementConfig())
        reading = list(played(machine, opened, metering))[-1]
    for phase, n in zip(Phase, inputs, strict=False):
        assert reading.amperes(phase) == pytest.approx(amperes(n), rel=5e-4)


def test_an_adc_that_converts_one_input_per_scan_serves_one_phase(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(tmp_path, ADS1115)
    machine.accept(monkeypatch)
    reason = r"cannot capture voltage1 as well .* serves one phase: set channels\.L2\.input = \"\"$"
    with pytest.raises(DeviceError, match=reason):
        opened_with(machine, {Phase.L1: "voltage0", Phase.L2: "voltage1"}, DirectionConfig())
    with opened_with(machine, {Phase.L3: "voltage2"}, DirectionConfig("voltage")) as opened:
        assert [channel.id for channel in opened.format.channels] == ["voltage2"]
        assert opened.reference_fault.endswith('set direction.reference = "off"')


def played(machine: Machine, opened: IioAdc, metering: Metering) -> Iterator[Reading]:
    """The readings of an ADC that is read four times per second or more often."""
    adc = machine.adc
    # Without timestamps, the reads have to give the rate.
    seconds = 3.2 if adc.has_timestamp else 10.0
    times = np.arange(0, seconds, 1 / adc.hertz, dtype=np.float64)
    data = machine.scans(signals(adc, times))
    scan_bytes = len(data) // len(times)
    step = min(int(adc.hertz / 4), PIPE_BYTES // scan_bytes)
    writer = os.open(machine.node, os.O_WRONLY)
    for first in range(0, len(times), step):
        os.write(writer, data[first * scan_bytes : (first + step) * scan_bytes])
        read_ns = START_NS + round((first + step) / adc.hertz * 1e9)
        yield from metering.feed(opened.read(), read_ns)
    os.close(writer)


def signals(adc: Adc, times: Floats) -> dict[str, Floats]:
    """Millivolts at each input, or milliamperes: another current for each, and a bias."""
    noise = np.random.default_rng(1)
    waves = {}
    for name, index in adc.inputs.items():
        bias = 7 * unit(name) if adc.is_bipolar else adc.scale * 2 ** (adc.bits - 1)
        wave = np.sqrt(2) * amperes(index) * np.sin(2 * np.pi * HERTZ * times + index)
        dither = noise.standard_normal(len(times)) * adc.scale
        waves[name] = bias + wave * unit(name) + dither
    return waves


def amperes(index: int) -> float:
    return 4.0 + 2.5 * index % 24


def unit(name: str) -> float:
    """Millivolts per ampere at an input, or milliamperes."""
    return 1000.0 if name.startswith("current") else 10.0
