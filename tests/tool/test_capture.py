# SPDX-License-Identifier: Apache-2.0
"""Captures on disk, and the problems reported for wrong ones."""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from csp1d.errors import CaptureError, DeviceError
from csp1d.hat.scenario import parse as parse_scenario
from csp1d.hat.simulated import SimulatedHat
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.measuring.replay import Replay, reading_json
from csp1d.measuring.scan import Channel, ScanFormat
from csp1d.phase import Phase
from csp1d.scan_type import ScanType
from csp1d.tool import capture, ctl
from csp1d.tool.capture import Capture, load, save

L1, L2, L3 = Phase
ALL = dict.fromkeys(Phase, ChannelConfig())
MEASUREMENT = MeasurementConfig()


def replay(
    recorded: Capture, channels: Mapping[Phase, ChannelConfig], measurement: MeasurementConfig
) -> Replay:
    return capture.replay(recorded, configured(channels, measurement))


@pytest.fixture
def name(tmp_path: Path) -> Path:
    """Three seconds of 5, 10 and 20 A."""
    made, times = hat_format(), np.arange(12100) / 4000
    rows = [codes_of(current(times, 50.2, amperes)) for amperes in (5.0, 10.0, 20.0)]
    data = pack(made, rows, stamps_of(times))
    assert save(tmp_path / "house", made, [data[:16000], data[16000:]]) == 12100
    return tmp_path / "house"


def change(name: Path, **values: Any) -> None:
    path = Path(f"{name}.json")
    description = json.loads(path.read_text())
    for key, value in values.items():
        if value is ...:
            del description[key]
        else:
            description[key] = value
    path.write_text(json.dumps(description))


def test_a_capture_comes_back_as_it_was_saved(name: Path) -> None:
    recorded = load(name)
    assert recorded.format == hat_format()
    readings = list(replay(recorded, ALL, MEASUREMENT))
    assert [[round(r.amperes(phase), 2) for phase in Phase] for r in readings] == [[5, 10, 20]] * 3
    assert readings == metering_of(hat_format(), 0.1).feed(Path(f"{name}.bin").read_bytes())


def test_the_content_of_the_description(name: Path) -> None:
    description = json.loads(Path(f"{name}.json").read_text())
    assert description["sampling_frequency_hz"] == 4000
    assert description["scan_bytes"] == 16
    assert description["channels"][1] == {
        "id": "voltage1",
        "phase": "L2",
        "index": 1,
        "type": "le:u16/16>>0",
        "scale": 3300 / 65536,
        "offset": -32768,
    }
    assert description["timestamp"] == {"index": 3, "type": "le:s64/64>>0"}


def test_without_a_timestamp_but_with_a_reference(tmp_path: Path) -> None:
    type_ = ScanType.parse("be:s24/32>>8")
    made = ScanFormat(
        8000,
        (Channel("voltage0", "L2", 0, type_, 0.1), Channel("voltage3", "reference", 3, type_, 1.0)),
    )
    save(tmp_path / "x", made, [bytes(made.scan_bytes)])
    assert json.loads((tmp_path / "x.json").read_text())["timestamp"] is None
    assert load(tmp_path / "x").format == made
    assert list(replay(load(tmp_path / "x"), ALL, MEASUREMENT)) == []


CHANNEL = {
    "id": "voltage0",
    "phase": "L1",
    "index": 0,
    "type": "le:u16/16>>0",
    "scale": 1,
    "offset": 0,
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scan_bytes": 24}, "house.json: scan_bytes: must be 16 with these types, got 24"),
        ({"scan_bytes": "16"}, "scan_bytes: must be a whole number, got '16'"),
        ({"scan_bytes": 16.5}, "scan_bytes: must be a whole number, got 16.5"),
        ({"sampling_frequency_hz": ...}, "sampling_frequency_hz: is missing"),
        *(
            (
                {"sampling_frequency_hz": hertz},
                "json: sampling_frequency_hz: must be between 1 and",
            )
            for hertz in (-1, 1e-300, 0.9, 1.1e7)
        ),
        *(
            ({"sampling_frequency_hz": number}, "json: sampling_frequency_hz: (is|must be) ")
            for number in (math.nan, math.inf, -math.inf, 1e308, 10**400)
        ),
        *(
            (
                {"channels": [CHANNEL | {key: number}]},
                rf"json: channels\[0\]\.{key}: must be .*(finite|whole|e\+15).*, got ",
            )
            for key in ("scale", "offset", "index")
            for number in (math.nan, math.inf, 1e308, 10**400, -1e16)
        ),
        (
            {"scan_bytes": 10**400},
            r"scan_bytes: must be between -9\S+e.15 and 9\S+e.15, got a very long number",
        ),
        ({"scan_bytes": [[16]]}, "scan_bytes: must be a whole number, got a list"),
        ({"sampling_frequency_hz": True}, "sampling_frequency_hz: must be a number, got true"),
        ({"timestamp": ...}, "timestamp: is missing"),
        ({"timestamp": 3}, "timestamp: must be a table of keys, got 3"),
        ({"timestamp": {"index": 3, "type": "le:s32/32>>0"}}, "timestamp: type: must have 64 bits"),
        (
            {"timestamp": {"index": 2, "type": "le:s64/64>>0"}},
            "timestamp: index: must be the highest",
        ),
        ({"channels": {}}, "channels: must be a list, got a table"),
        ({"channels": []}, "channels: a scan needs at least one channel"),
        ({"channels": [1]}, r"channels\[0\]: must be a table of keys, got 1"),
        ({"channels": [CHANNEL | {"type": "u16"}]}, r"channels\[0\]\.type: 'u16' is not a scan"),
        (
            {"channels": [CHANNEL | {"phase": "L4"}]},
            r"channels\[0\]\.phase: must be one of 'L1', 'L2', 'L3', 'reference', got 'L4'",
        ),
        ({"channels": [CHANNEL | {"id": 7}]}, r"channels\[0\]\.id: must be a string, got 7"),
        ({"channels": [CHANNEL, CHANNEL]}, "channels: each needs its own index"),
        (
            {"channels": [CHANNEL, CHANNEL | {"id": "b", "index": 1}]},
            "channels: each needs its own phase",
        ),
    ],
)
def test_descriptions_that_are_wrong(name: Path, values: dict[str, Any], message: str) -> None:
    change(name, **values)
    with pytest.raises(CaptureError, match=message):
        load(name)


def test_all_problems_of_a_description_are_reported_at_once(name: Path) -> None:
    change(name, scan_bytes="16", channels=[CHANNEL | {"id": 7, "scale": None, "later": 1}, 3])
    with pytest.raises(CaptureError) as raised:
        load(name)
    assert {problem.file for problem in raised.value.problems} == {Path(f"{name}.json")}
    assert [problem.key for problem in raised.value.problems] == [
        "channels[0].id",
        "channels[0].scale",
        "channels[1]",
        "scan_bytes",
    ]


def test_keys_that_a_later_version_may_have_added_are_ignored(name: Path) -> None:
    channels = json.loads(Path(f"{name}.json").read_text())["channels"]
    change(name, comment="x", channels=[channel | {"later": 1} for channel in channels])
    assert load(name).format == hat_format()


def test_a_description_that_is_not_json(name: Path) -> None:
    Path(f"{name}.json").write_text("{")
    with pytest.raises(CaptureError, match=r"house\.json: is not JSON"):
        load(name)
    Path(f"{name}.json").write_text("[" * 100_000)
    with pytest.raises(CaptureError, match=r"house\.json: is not JSON .*recursion"):
        load(name)
    for value in ("[]", "null", "3", "NaN", '"x"'):
        Path(f"{name}.json").write_text(value)
        with pytest.raises(CaptureError, match=r"house\.json: must be a table of keys, got "):
            load(name)


@pytest.mark.parametrize("depth", range(100, 1100, 100))
def test_deep_nesting_is_reported(name: Path, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    description = Path(f"{name}.json").read_text().replace("4000", nested)
    Path(f"{name}.json").write_text(description)
    with pytest.raises(
        CaptureError, match=r"sampling_frequency_hz: must be a number, got a list|not JSON"
    ):
        load(name)


@pytest.mark.parametrize("missing", ["json", "bin"])
def test_half_a_capture(name: Path, missing: str) -> None:
    Path(f"{name}.{missing}").unlink()
    with pytest.raises(
        CaptureError, match=rf"house\.{missing}: No such file .* NAME.json and NAME.bin"
    ):
        load(name)


def test_an_incomplete_scan_is_reported(name: Path) -> None:
    with open(f"{name}.bin", "ab") as file:
        file.write(bytes(5))
    with pytest.raises(CaptureError, match=r"house\.bin: 193605 bytes .* truncate it to 193600"):
        load(name)


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_greatest_numbers_give_finite_readings(name: Path, sign: int) -> None:
    channels = json.loads(Path(f"{name}.json").read_text())["channels"]
    change(name, channels=[c | {"scale": sign * 14.14, "offset": 2.0**53} for c in channels])
    config = ChannelConfig(gain=2)
    for reading in replay(load(name), dict.fromkeys(Phase, config), MEASUREMENT):
        json.dumps(reading_json(reading), allow_nan=False)
        assert all(math.isfinite(c.dc_offset_amperes) for c in reading.phases.values())
        assert all(math.isfinite(c.peak_amperes) for c in reading.phases.values())


def test_currents_are_in_milliamperes_and_a_scale_of_zero_is_none(name: Path) -> None:
    channels = json.loads(Path(f"{name}.json").read_text())["channels"]
    volts = [r.amperes(Phase.L1) for r in replay(load(name), ALL, MEASUREMENT)]
    # The CTs of the capture make 10 mV per ampere.
    changes = [{"id": f"current{n}", "scale": 100 * c["scale"]} for n, c in enumerate(channels)]
    change(name, channels=[c | new for c, new in zip(channels, changes, strict=True)])
    amperes = [r.amperes(Phase.L1) for r in replay(load(name), ALL, MEASUREMENT)]
    assert amperes == pytest.approx(volts)
    change(name, channels=[c | {"scale": 0} for c in channels])
    with pytest.raises(CaptureError, match=r"bin: channels\.L1: \w+ has no scale; set scale_milli"):
        replay(load(name), ALL, MEASUREMENT)


def test_values_that_are_not_timestamps_are_reported(name: Path) -> None:
    right = replay(load(name), ALL, MEASUREMENT)
    assert len(list(right)) == 3
    assert right.metering.timeline.clock_fault is None
    change(name, timestamp={"index": 3, "type": "be:s64/64>>0"})
    wrong = replay(load(name), ALL, MEASUREMENT)
    assert len(list(wrong)) == 3
    assert wrong.metering.timeline.clock_fault is not None
    assert wrong.metering.timeline.clock_fault.startswith("not used because they ")


def test_scans_that_change_or_vanish_during_the_replay(name: Path) -> None:
    recorded = load(name)
    with open(f"{name}.bin", "ab") as file:
        file.write(bytes(5))
    with pytest.raises(
        CaptureError, match=r"house\.bin: still being recorded; wait until it is done"
    ):
        list(replay(recorded, ALL, MEASUREMENT))
    Path(f"{name}.bin").unlink()
    with pytest.raises(CaptureError, match=r"house\.bin: cannot be read: No such file"):
        list(replay(recorded, ALL, MEASUREMENT))


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"/x\.json: cannot be written: No such file"):
        save(tmp_path / "nothing/x", hat_format(), [])
    (tmp_path / "x.bin").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        CaptureError, match=r"/x\.bin: cannot be written: it is not a regular file; remove it, or"
    ):
        save(tmp_path / "x", hat_format(), [bytes(16)])
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


@pytest.mark.parametrize("end", [KeyboardInterrupt, DeviceError])
def test_what_came_before_the_end_of_the_source_is_kept(
    tmp_path: Path, end: type[BaseException]
) -> None:
    scans = bytes(hat_format().scan_bytes)

    def chunks() -> Iterator[bytes]:
        yield scans
        assert sorted(path.suffix for path in tmp_path.glob("[!.]*")) == []
        raise end("over")

    with pytest.raises(end, match="over"):
        save(tmp_path / "x", hat_format(), chunks())
    assert b"".join(load(tmp_path / "x").chunks()) == scans


def test_scans_in_a_pipe_are_rejected(name: Path) -> None:
    scans = Path(f"{name}.bin")
    scans.unlink()
    os.mkfifo(scans)
    with pytest.raises(
        CaptureError, match=r"house\.bin: is not a regular file; a capture consists"
    ):
        load(name)


@pytest.mark.parametrize("end", [KeyboardInterrupt, DeviceError, None])
def test_a_recording_without_scans_leaves_the_capture_that_is_there(
    name: Path, end: type[BaseException] | None
) -> None:
    before = {path: path.read_bytes() for path in name.parent.iterdir()}

    def chunks() -> Iterator[bytes]:
        yield b""
        if end:
            raise end("over")

    reason = "over" if end else "the ADC has delivered no scans; check its trigger"
    with pytest.raises(end or DeviceError, match=reason):
        save(name, hat_format(), chunks())
    assert {path: path.read_bytes() for path in name.parent.iterdir()} == before


def test_the_description_has_its_place_on_the_disk_before_the_scans(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        (draft,) = tmp_path.glob(".x.json.*")
        assert json.loads(draft.read_text()) == hat_format().description()
        yield bytes(16)

    save(tmp_path / "x", hat_format(), chunks())


def test_an_error_of_the_source_is_not_one_of_the_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield bytes(16)
        raise DeviceError("the ADC vanished")

    with pytest.raises(DeviceError, match="the ADC vanished"):
        save(tmp_path / "x", hat_format(), chunks())


def test_exit_codes_and_messages_of_the_commands(
    name: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = name.parent / "c.toml"
    config.touch()

    def csp1ctl(*arguments: object) -> tuple[int, str, str]:
        command = ["csp1ctl", "--config", config, *arguments]
        monkeypatch.setattr("sys.argv", [str(argument) for argument in command])
        return ctl.main(), *capsys.readouterr()

    code, usual, messages = csp1ctl("replay", name)
    assert (code, usual.count("\n"), messages) == (0, 3, "")
    change(name, timestamp={"index": 3, "type": "be:s64/64>>0"})
    code, lines, messages = csp1ctl("replay", name)
    assert (code, lines.count("\n"), messages.count("\n")) == (0, 3, 1)
    assert messages.startswith(f"csp1ctl: {name}: timestamps not used because they ")
    change(name, sampling_frequency_hz=math.nan)
    code, lines, messages = csp1ctl("replay", name)
    assert (code, lines) == (2, "")
    assert messages == (
        f"csp1ctl: {name}.json: sampling_frequency_hz: must be a finite number, got nan\n"
    )

    hat = SimulatedHat(parse_scenario("L1=5"))
    monkeypatch.setattr("csp1d.hat.kernel.KernelHat", lambda: hat)
    code, _, messages = csp1ctl("record", "0.1", name.parent / "nothing/x")
    assert code == 2
    assert "nothing/x.json: cannot be written: No such file" in messages


def test_phases_that_a_capture_does_not_hold_read_zero(name: Path) -> None:
    reading = next(replay(load(name), {L2: ChannelConfig()}, MEASUREMENT))
    assert list(reading.phases) == [L2]
    change(name, channels=[CHANNEL | {"phase": "reference"}])
    with pytest.raises(CaptureError, match="no channel of a configured phase"):
        replay(load(name), ALL, MEASUREMENT)


def test_a_configured_type_overrides(name: Path) -> None:
    recorded = load(name)
    swapped = ChannelConfig(type="be:u16/16>>0")
    usual, other = (
        next(replay(recorded, {L1: config}, MEASUREMENT)) for config in (ChannelConfig(), swapped)
    )
    assert other.amperes(L1) > 2 * usual.amperes(L1)
    with pytest.raises(CaptureError, match="keep the storage bits"):
        next(replay(recorded, {L1: ChannelConfig(type="le:s24/64>>0")}, MEASUREMENT))
    with pytest.raises(CaptureError, match="2 values per scan"):
        next(replay(recorded, {L1: ChannelConfig(type="le:u8/8X2>>0")}, MEASUREMENT))


def test_a_reading_as_json() -> None:
    current_ = PhaseCurrent(10.5, 15.0, 0.25, 3)
    reading = Reading(7, 12345, 0.98, {L1: current_, L3: current_}, None, 3920, 2)
    assert reading_json(reading) == {
        "end_ns": 12345,
        "window_seconds": 0.98,
        "frequency_hertz": None,
        "scans": 3920,
        "lost_scans": 2,
        "current_amperes": {"L1": 10.5, "L3": 10.5},
        "active_current_amperes": None,
        "clipped_samples": {"L1": 3, "L3": 3},
    }
    direction = DirectionReading({L1: -9.5}, frozenset({L1}), "", None)
    signed = Reading(7, 1, 1.0, {L1: current_}, 50.0, 4000, 0, direction)
    assert json.loads(json.dumps(reading_json(signed)))["active_current_amperes"] == {"L1": -9.5}


DIRECTION = '[direction]\nreference = "voltage"\n'


def house(folder: Path, lags: tuple[float, ...], volts: float = 1.0, seconds: float = 13.1) -> Path:
    """A capture of 10 A per phase, lagging the voltage of L1 by these degrees, and that voltage."""
    made, times = hat_format(reference=True), np.arange(round(4000 * seconds)) / 4000
    rows = [current(times, 50.0, 10.0, angles={1: -math.radians(lag)}) for lag in lags]
    rows.append(current(times, 50.0, 100 * volts))
    random = np.random.default_rng(8)
    codes = [codes_of(row, noise=random) for row in rows]
    save(folder / "house", made, [pack(made, codes, stamps_of(times))])
    return folder / "house"


# Lags of the currents, configuration, active current of L1, and the expected messages.
DIRECTION_CASES: dict[str, tuple[tuple[float, ...], str, float | None, list[str]]] = {
    "direction is off": ((180, 120, 240), "", None, []),
    "a good wiring": ((0, 120, 240), DIRECTION, 10, []),
    "L1 reversed": (
        (180, 120, 240),
        DIRECTION,
        -10,
        ["if there is no export on L1: .* set channels.L1.reversed = true"],
    ),
    "L1 reversed, and configured so": (
        (180, 120, 240),
        DIRECTION + "[channels.L1]\nreversed = true",
        10,
        [],
    ),
    "L2 and L3 swapped": (
        (0, 240, 120),
        DIRECTION,
        10,
        [
            "if there is no export, the inputs of L2 and L3 are swapped:"
            " .* set direction.phase_order = .L1-L3-L2."
        ],
    ),
    "the phases turn the other way, and are configured so": (
        (0, 240, 120),
        DIRECTION + 'phase_order = "L1-L3-L2"',
        10,
        [],
    ),
    "the reference is too weak": (
        (0, 120, 240),
        DIRECTION + "minimum = 1.5",
        None,
        ["direction unknown, currents count as import: the reference has 1 V, less than"],
    ),
}


@pytest.mark.parametrize("case", DIRECTION_CASES)
def test_messages_of_replay_about_the_direction(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lags, text, amperes, messages = DIRECTION_CASES[case]
    name = house(tmp_path, lags)
    (tmp_path / "c.toml").write_text(text)
    command = ["csp1ctl", "--config", tmp_path / "c.toml", "replay", name]
    monkeypatch.setattr("sys.argv", [str(argument) for argument in command])
    assert ctl.main() == 0
    lines, printed = capsys.readouterr()
    readings = [json.loads(line) for line in lines.splitlines()]
    assert len(readings) == 13
    for reading in readings:
        assert reading["current_amperes"]["L1"] == pytest.approx(10, rel=1e-3)
        active = reading["active_current_amperes"]
        assert (active is None) == (amperes is None)
        assert not active or active["L1"] == pytest.approx(amperes, rel=1e-3)
    assert len(printed.splitlines()) == len(messages)
    for line, pattern in zip(printed.splitlines(), messages, strict=True):
        assert re.match(f"csp1ctl: {name}: {pattern}", line)


def test_a_capture_without_a_reference_means_import(name: Path) -> None:
    config = config_of({})
    plain = list(replay(load(name), ALL, MEASUREMENT))
    found = list(capture.replay(load(name), replace(config, measurement=MEASUREMENT)))
    assert [reading.phases for reading in found] == [reading.phases for reading in plain]
    for reading in found:
        assert reading.direction
        assert reading.direction.reference_fault.startswith("direction.input: the scans contain no")
        assert reading_json(reading)["active_current_amperes"] is None


def test_a_configured_type_holds_for_the_reference_too(tmp_path: Path) -> None:
    name = house(tmp_path, (0, 120, 240), seconds=1.1)
    channels = json.loads(Path(f"{name}.json").read_text())["channels"]
    wrong = [c | ({"type": "be:u16/16>>0"} if c["index"] in (0, 3) else {}) for c in channels]
    change(name, channels=wrong)
    config = config_of({}, L1={"type": "le:u16/16>>0"})
    (reading,) = capture.replay(load(name), replace(config, measurement=MEASUREMENT))
    assert reading.direction
    assert reading.direction.active_current_amperes == pytest.approx(
        {L1: 10, L2: 10, L3: 10}, rel=1e-3
    )
