# SPDX-License-Identifier: Apache-2.0
"""Recorded scans against a configuration that need not be theirs."""

from dataclasses import replace

import numpy as np
import pytest
from signals import (
    codes_of,
    config_of,
    configured,
    current,
    hat_format,
    metering_of,
    pack,
    stamps_of,
)

from csp1d.config import ChannelConfig, MeasurementConfig
from csp1d.measuring.replay import Replay
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

L1, L2, L3 = Phase
HAT = hat_format(reference=True)
TIMES = np.arange(4400) / 4000
CODES = [codes_of(current(TIMES, 50.1, amperes)) for amperes in (5.0, 10.0, 20.0, 100.0)]
SCANS = pack(HAT, CODES, stamps_of(TIMES))
MEASUREMENT = MeasurementConfig(no_load_amperes=0.0)
DEFAULT = ChannelConfig()


def replay(**channels: ChannelConfig) -> Replay:
    phases = {Phase(phase): config for phase, config in channels.items()}
    return Replay(HAT, [SCANS], configured(phases, MEASUREMENT))


def test_readings_are_those_of_a_metering_however_scans_are_cut() -> None:
    made = hat_format()
    data = pack(made, CODES[:3], stamps_of(TIMES))
    (whole,) = metering_of(made).feed(data)
    chunks = (data[begin : begin + 160] for begin in range(0, len(data), 160))
    replay = Replay(made, chunks, configured(dict.fromkeys(Phase, DEFAULT), MEASUREMENT))
    assert next(replay) == whole
    assert list(replay) == []
    assert replay.metering.scans_total == len(TIMES)


@pytest.mark.parametrize(
    ("channels", "named"), [({}, "none is configured"), ({L2: DEFAULT, L3: DEFAULT}, "L2, L3")]
)
def test_a_recording_of_other_phases(channels: dict[Phase, ChannelConfig], named: str) -> None:
    made = replace(HAT, channels=HAT.channels[:1])
    with pytest.raises(ValueError, match="configured") as caught:
        Replay(made, [], configured(channels, MEASUREMENT))
    assert str(caught.value) == (
        f"contains no channel of a configured phase ({named}); configure one of its phases"
    )


def test_a_configured_type_replaces_that_of_its_channel_only() -> None:
    """Codes of 12 bits in 16 are read as they are, or as the upper 12."""
    (plain,) = replay(L1=DEFAULT, L2=DEFAULT)
    (cut,) = replay(L1=DEFAULT, L2=ChannelConfig(type="le:u12/16>>4"))
    assert cut.amperes(L1) == pytest.approx(plain.amperes(L1), rel=1e-6)
    assert cut.amperes(L2) == pytest.approx(plain.amperes(L2) / 16, rel=1e-2)


def test_a_configured_type_replaces_that_of_the_reference() -> None:
    cut = replace(HAT.channels[3], type=ScanType.parse("le:u12/16>>4"))
    made = replace(HAT, channels=(*HAT.channels[:3], cut))
    # The reference takes the type of its phase's channel, here L1, which is recorded in full.
    for scan_type, volts in (("", 1 / 16), ("le:u16/16>>0", 1.0)):
        config = config_of({"minimum": 2.0}, L1={"type": scan_type})
        (reading,) = Replay(made, [SCANS], config)
        assert reading.direction
        assert f"the reference has {volts:.3g} V" in reading.direction.reference_fault


def test_direction_needs_a_reference() -> None:
    (without,) = Replay(HAT, [SCANS], config_of({"reference": "off"}))
    assert without.direction is None
    (usual,) = Replay(HAT, [SCANS], config_of({}))
    assert usual.direction


def test_types_that_change_the_length_of_a_scan() -> None:
    with pytest.raises(ValueError, match="configured types") as caught:
        replay(L1=ChannelConfig(type="le:s24/64>>0"), L3=ChannelConfig(type="le:u16/16>>0"))
    assert str(caught.value) == (
        "the configured types le:s24/64>>0, le:u16/16>>0 give a scan of 24 bytes instead of 16;"
        " keep the storage bits of the capture"
    )


def test_rejected_timestamps_cost_no_scans() -> None:
    """At 250 S/s the stamps are sample data: all scans are timed by count instead."""
    form = hat_format(rate=250)
    times = np.arange(6 * 250 + 100) / 250
    codes = [codes_of(current(times, 50, amperes)) for amperes in (5.0, 10.0, 20.0)]
    data = pack(form, codes, stamps_of(times / 1e6))
    replayed = Replay(form, [data], configured(dict.fromkeys(Phase, DEFAULT), MEASUREMENT))
    assert [round(reading.amperes(L3)) for reading in replayed] == [20] * 6
    assert "not used because they imply" in str(replayed.metering.timeline.clock_fault)
