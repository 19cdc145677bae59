# SPDX-License-Identifier: Apache-2.0
"""A capture that is played in a loop: as it was recorded, without a jump where it begins again."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from csp1d.config import ChannelConfig, Config
from csp1d.errors import CaptureError, DeviceError
from csp1d.hat.recording import Recording
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import PlayingAdc, SimulatedHat
from csp1d.measuring.metering import Metering
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

RATE = 2000
TYPE = ScanType.parse("be:u16/16>>0")
CHANNELS = tuple(
    Channel(f"voltage{index}", f"L{index + 1}", index, TYPE, 3300 / 65536, -32768.0)
    for index in range(3)
)
STAMP = Timestamp(3, ScanType.parse("be:s64/64>>0"))
FORMAT = ScanFormat(RATE, CHANNELS, STAMP)
AMPERES = (16.0, 8.0, 3.0)


def recording(
    folder: Path,
    seconds: float = 3.0,
    hertz: float = 49.93,
    scan_format: ScanFormat = FORMAT,
    times: np.ndarray | None = None,  # type: ignore[type-arg]
) -> Recording:
    """That of three phases with a third harmonic, for the default configuration."""
    position = np.arange(round(seconds * RATE)) if times is None else times
    angles = 2 * np.pi * hertz * position / RATE
    records = np.zeros(len(position), scan_format.record)
    for index, amperes in enumerate(AMPERES):
        phase = angles - index * 2 * np.pi / 3
        shape = (np.sin(phase) + 0.4 * np.sin(3 * phase)) * np.sqrt(2 / 1.16)
        records[str(index)] = np.rint(32768 + amperes * 10 / (3300 / 65536) * shape)
    if scan_format.timestamp:
        # CLOCK_MONOTONIC of a machine that had been up for a while.
        records["timestamp"] = 10**15 + position * (10**9 // RATE)
    path = folder / "x.bin"
    path.write_bytes(records.tobytes())
    return Recording(scan_format, path)


def play(playing: Recording, seconds: int, monkeypatch: pytest.MonkeyPatch) -> Metering:
    """The metering of an ADC that is read for this time, at odd moments."""
    now_ns = time.monotonic_ns()
    adc = PlayingAdc(Config(), playing)
    metering = Metering(playing.format, Config().channels.used(), Config().measurement)
    end_ns = now_ns + seconds * 10**9
    while now_ns < end_ns:
        now_ns += 370_000_000
        monkeypatch.setattr(time, "monotonic_ns", lambda now_ns=now_ns: now_ns)
        for reading in metering.feed(adc.read(), now_ns):
            for phase, amperes in zip(Phase, AMPERES, strict=True):
                assert reading.amperes(phase) == pytest.approx(amperes, rel=1e-3)
            # Half a scan is 0.0125 of a cycle. Without stamps, the time is that of the reads.
            stamped = playing.format.timestamp is not None
            assert reading.frequency_hertz == pytest.approx(49.93, abs=0.006 if stamped else 0.03)
            assert reading.end_ns <= now_ns + 1_000_000
    monkeypatch.undo()
    adc.close()
    return metering


@pytest.mark.parametrize("stamped", [True, False])
@pytest.mark.parametrize("seconds", [1.5, 3.0, 3.003])
def test_a_loop_has_no_jump(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamped: bool, seconds: float
) -> None:
    scan_format = FORMAT if stamped else ScanFormat(RATE, CHANNELS)
    playing = recording(tmp_path, seconds, scan_format=scan_format)
    metering = play(playing, 20, monkeypatch)
    assert metering.scans_total == pytest.approx(20 * RATE, rel=0.02)
    assert metering.timeline.lost_scans_total == 0
    assert metering.timeline.clock_fault is None


def test_scans_that_were_lost_while_recording_are_lost_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = np.concatenate([np.arange(3000), np.arange(3040, 6000)])
    metering = play(recording(tmp_path, times=times), 18, monkeypatch)
    # Six turns, 40 scans in each.
    assert metering.timeline.lost_scans_total in (200, 240)


def test_stamps_that_are_no_times_are_played_as_they_are(tmp_path: Path) -> None:
    little = ScanFormat(RATE, CHANNELS, Timestamp(3, ScanType.parse("le:s64/64>>0")))
    wrong = Recording(little, recording(tmp_path).path)
    assert wrong.hertz == pytest.approx(RATE, rel=1e-3)
    assert wrong.count(10**9) == pytest.approx(RATE, abs=2)


def test_a_rate_that_was_not_declared_is_that_of_the_stamps(tmp_path: Path) -> None:
    undeclared = ScanFormat(0, CHANNELS, STAMP)
    assert recording(tmp_path, scan_format=undeclared).hertz == pytest.approx(RATE, rel=1e-3)
    with pytest.raises(CaptureError, match=r"x\.bin: has neither a sampling_frequency_hz nor"):
        recording(tmp_path, scan_format=ScanFormat(0, CHANNELS))


def test_stamps_that_stand_still_are_reported(tmp_path: Path) -> None:
    path = recording(tmp_path).path
    records = np.fromfile(path, FORMAT.record)
    records["timestamp"][:-1], records["timestamp"][-1] = 0, 3 * 10**9
    path.write_bytes(records.tobytes())
    with pytest.raises(CaptureError, match=r"x\.bin: its timestamps stand still; record it again"):
        Recording(FORMAT, path)


@pytest.mark.parametrize("hertz", [1, 2, 10, 24, 26, 40])
@pytest.mark.parametrize("seconds", [1, 2, 30])
def test_a_rate_below_the_mains_can_be_played(tmp_path: Path, hertz: int, seconds: int) -> None:
    slow = ScanFormat(hertz, CHANNELS)
    if (scans := seconds * hertz) > 1:
        playing = recording(tmp_path, scans / RATE, scan_format=slow)
        assert playing.hertz == pytest.approx(hertz)
        assert playing.count(10**9 * seconds) == pytest.approx(scans, abs=2)


def test_a_second_is_long_enough(tmp_path: Path) -> None:
    assert recording(tmp_path, 1.0).hertz == pytest.approx(RATE)


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0.0"), (0.0005, "0.0"), (0.9, "0.9")])
def test_a_short_recording_is_rejected(tmp_path: Path, seconds: float, shown: str) -> None:
    with pytest.raises(CaptureError, match=rf"x\.bin: {shown} s are too short to be played; reco"):
        recording(tmp_path, seconds)


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="cannot be read: No such file or directory; make"):
        Recording(FORMAT, tmp_path / "nothing.bin")


def test_the_buffer_drops_what_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    playing = recording(tmp_path)
    now_ns = time.monotonic_ns()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns)
    adc = PlayingAdc(Config(), playing)
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + 60 * 10**9)
    assert len(adc.read()) // FORMAT.scan_bytes == pytest.approx(4 * RATE, rel=1e-3)
    monkeypatch.setattr(time, "monotonic_ns", lambda: now_ns + 61 * 10**9)
    stamps = FORMAT.decode(adc.read()).timestamps
    assert stamps is not None
    assert len(stamps) == pytest.approx(RATE, abs=2)
    assert stamps[-1] - now_ns == pytest.approx(61 * 10**9, abs=10**6)
    adc.close()


def test_a_fast_recording_is_ready_quickly(tmp_path: Path) -> None:
    fast = ScanFormat(RATE * 250, CHANNELS)
    slow = recording(tmp_path, scan_format=ScanFormat(RATE, CHANNELS))
    data = np.repeat(np.fromfile(slow.path, slow.format.record), 250)
    slow.path.write_bytes(data.tobytes())
    start = time.process_time()
    assert Recording(fast, slow.path).hertz == pytest.approx(RATE * 250, rel=1e-3)
    assert time.process_time() - start < 5


def test_phases_and_reference_that_the_recording_lacks_are_named(tmp_path: Path) -> None:
    one = ScanFormat(RATE, CHANNELS[:1], Timestamp(1, ScanType.parse("be:s64/64>>0")))
    path = tmp_path / "one.bin"
    path.write_bytes(bytes(one.scan_bytes * RATE * 2))
    data = np.zeros(RATE * 2, one.record)
    data["timestamp"] = np.arange(RATE * 2) * 500_000
    path.write_bytes(data.tobytes())
    hat = SimulatedHat(parse(""), Recording(one, path))
    with pytest.raises(
        DeviceError, match=r"one\.bin has no channel of L2, L3; set channels\.L2\.in"
    ):
        hat.open_adc(Config())
    none = ChannelConfig(input="")
    config = replace(Config(), channels=replace(Config().channels, L2=none, L3=none))
    hat.open_adc(config).close()
    config = replace(config, direction=replace(config.direction, reference="voltage"))
    before = len(os.listdir("/proc/self/fd"))
    adc = hat.open_adc(config)
    assert adc.reference_fault == f"{path} has no reference"
    adc.close()
    assert len(os.listdir("/proc/self/fd")) == before
