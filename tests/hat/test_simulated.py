# SPDX-License-Identifier: Apache-2.0
"""The simulated HAT measures what the scenario says, whatever is configured."""

import errno
import fcntl
import os
import termios
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csp1d.config import ChannelConfig, ChannelsConfig, Config
from csp1d.hat.scenario import Step, parse
from csp1d.hat.simulated import Player, SimulatedAdc, SimulatedHat
from csp1d.loading import problem
from csp1d.measuring.metering import Metering
from csp1d.phase import Phase
from csp1d.scan_type import EXACT_BITS, ScanType


@pytest.mark.parametrize(
    ("gain", "error_percent", "shown"),
    [
        (1.0, None, 10.0),
        (1.037, None, 10.0),
        (1.0, 3.7, 10.37),
        (1 / 1.037, 3.7, 10.0),
        (1.0, 0.0, 10.0),
        (1.037, 0.0, 10.37),
    ],
)
def test_a_gain_error_is_there_whatever_gain_is_configured(
    monkeypatch: pytest.MonkeyPatch, gain: float, error_percent: float | None, shown: float
) -> None:
    config = Config()
    l1 = ChannelConfig(input="voltage0", gain=gain)
    config = replace(config, channels=replace(config.channels, L1=l1))
    errors = {} if error_percent is None else {Phase.L1: error_percent}
    start_ns = time.monotonic_ns()
    step = Step(amperes={Phase.L1: 10.0}, gain_error_percent=errors)
    adc = SimulatedAdc(config, Player((step,), start_ns))
    monkeypatch.setattr(time, "monotonic_ns", lambda: start_ns + 1_500_000_000)
    (reading,) = Metering(adc.format, config.channels.used(), config.measurement).feed(adc.read())
    adc.close()
    assert reading.amperes(Phase.L1) == pytest.approx(shown, rel=5e-4)


def test_a_port_that_no_process_has_open_loses_its_bytes() -> None:
    hat = SimulatedHat(parse(""))
    port = hat.open_port(Config())
    assert port.write(b"x" * 700) == 700
    assert port.waiting() == 0
    consumer = os.open(hat.port_path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.read(consumer, 1)
    for _ in range(2):
        # Raw, whoever has opened and closed it before.
        assert port.write(b"a\r\nb") == 4
        # The kernel passes it on later.
        end = time.monotonic() + 10
        while port.waiting() < 4:
            assert time.monotonic() < end
        assert os.read(consumer, 10) == b"a\r\nb"
        assert port.waiting() == 0
        os.close(consumer)
        consumer = os.open(hat.port_path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    port.write(b"stale")
    os.close(consumer)
    assert port.waiting() == 0


def test_a_consumer_may_have_the_port_for_itself() -> None:
    hat = SimulatedHat(parse(""))
    port = hat.open_port(Config())
    consumer = os.open(hat.port_path, os.O_RDONLY | os.O_NOCTTY)
    fcntl.ioctl(consumer, termios.TIOCEXCL)

    def refuse(path: str, flags: int) -> int:
        raise OSError(errno.EBUSY, "Device or resource busy")

    with pytest.MonkeyPatch.context() as patch:
        # As the kernel does, except to root.
        patch.setattr(os, "open", refuse)
        port.write(b"abc")
        assert port.waiting() == 0
        port.flush()
        # A read waits for what the kernel passes on.
        assert os.read(consumer, 10) == b"abc"
    os.close(consumer)


@st.composite
def accepted_types(draw: st.DrawFn) -> ScanType:
    """Any that the configuration accepts; with fewer bits, the range is rejected."""
    storage_bits = draw(st.sampled_from([8, 16, 32, 64]))
    shift = draw(st.integers(0, storage_bits - 8))
    bits = draw(st.integers(8, min(EXACT_BITS, storage_bits - shift)))
    return ScanType(draw(st.booleans()), draw(st.booleans()), bits, storage_bits, shift)


@given(accepted_types())
@example(ScanType.parse("le:u53/64>>0"))
@example(ScanType.parse("be:s53/64>>11"))
@example(ScanType.parse("le:u8/64>>56"))
def test_every_type_that_the_configuration_accepts_is_measured(scan_type: ScanType) -> None:
    assert problem(ChannelConfig, "type", str(scan_type)) is None
    l1 = ChannelConfig(input="voltage0", type=str(scan_type))
    config = Config(channels=ChannelsConfig(L1=l1))
    start_ns = time.monotonic_ns()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic_ns", lambda: start_ns)
        adc = SimulatedAdc(config, Player((Step(amperes={Phase.L1: 10.0}),), start_ns))
        patch.setattr(time, "monotonic_ns", lambda: start_ns + 1_500_000_000)
        metering = Metering(adc.format, config.channels.used(), config.measurement)
        (reading,) = metering.feed(adc.read())
        adc.close()
    if scan_type.bits >= 12:
        assert reading.amperes(Phase.L1) == pytest.approx(10.0, rel=5e-3)


@pytest.mark.parametrize(
    "channel",
    [
        {"input": "current0"},
        {"input": "current0", "gain": 1.1, "scale_millivolts": 20.0, "type": "be:s24/32>>8"},
        {"input": "voltage0", "type": "le:u53/64>>0"},
        {"input": "voltage0", "type": "be:s53/64>>11"},
    ],
)
def test_any_kind_and_type_of_input_measures_right(
    monkeypatch: pytest.MonkeyPatch, channel: dict[str, Any]
) -> None:
    config = Config()
    config = replace(config, channels=replace(config.channels, L1=ChannelConfig(**channel)))
    start_ns = time.monotonic_ns()
    adc = SimulatedAdc(config, Player((Step(amperes={Phase.L1: 10.0}),), start_ns))
    monkeypatch.setattr(time, "monotonic_ns", lambda: start_ns + 1_500_000_000)
    (reading,) = Metering(adc.format, config.channels.used(), config.measurement).feed(adc.read())
    adc.close()
    assert reading.amperes(Phase.L1) == pytest.approx(10.0, rel=5e-4)
    assert reading.failed_phases == ()


def test_a_full_buffer_drops_new_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    config, start_ns = Config(), time.monotonic_ns()
    adc = SimulatedAdc(config, Player((Step(amperes={Phase.L1: 10.0}),), start_ns))
    monkeypatch.setattr(time, "monotonic_ns", lambda: start_ns + 10_000_000_000)
    scans = len(adc.read()) / adc.format.scan_bytes
    adc.close()
    assert scans == config.adc.buffer_seconds * config.adc.sampling_frequency_hz
    assert adc.format.sampling_frequency_hz == 4000


def test_an_input_without_its_bias_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    config, start_ns = Config(), time.monotonic_ns()
    amperes = {Phase.L1: 10.0, Phase.L2: 10.0}
    step = Step(amperes=amperes, shift_amperes={Phase.L2: -168.0})
    adc = SimulatedAdc(config, Player((step,), start_ns))
    monkeypatch.setattr(time, "monotonic_ns", lambda: start_ns + 1_500_000_000)
    (reading,) = Metering(adc.format, config.channels.used(), config.measurement).feed(adc.read())
    adc.close()
    assert reading.failed_phases == (Phase.L2,)
    assert reading.waveform
    wave = reading.waveform.current_amperes[Phase.L2]
    # Only the crests of the wave are left.
    assert max(wave) > 8
    assert -4 < min(wave) < 0
    assert sum(value == pytest.approx(min(wave), abs=0.1) for value in wave) > len(wave) / 2
