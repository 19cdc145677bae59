# SPDX-License-Identifier: Apache-2.0
"""The configuration: defaults, drop-ins, and a message for every problem."""

import dataclasses
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from csp1d import config_file
from csp1d.config import ChannelConfig, Config, DirectionConfig, split_address
from csp1d.config_file import doubts, load, origins
from csp1d.errors import ConfigError
from csp1d.phase import Phase

SHIPPED = Path(__file__).parents[1] / "etc/csp1d.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "csp1d.toml"


def drop_in(file: Path, name: str, content: str) -> Path:
    folder = file.with_name(file.name + ".d")
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    return folder / name


def test_a_missing_file_is_valid_and_means_the_defaults_unless_it_was_named(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "DEFAULT_PATH", file)
    assert load(None) == Config()
    drop_in(file, "10.toml", "[adc]\nbuffer_seconds = 5")
    assert load(None).adc.buffer_seconds == 5
    with pytest.raises(ConfigError, match=r"csp1d\.toml: cannot be read: No such file"):
        load(file)


def test_the_shipped_file_shows_every_key_with_its_default() -> None:
    assert load(SHIPPED) == Config()
    shown = tomllib.loads(SHIPPED.read_text())

    def keys(table: dict[str, Any], prefix: str = "") -> set[str]:
        found: set[str] = set()
        for name, value in table.items():
            found |= keys(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name}
        return found

    assert keys(shown) == keys(dataclasses.asdict(Config()))


def test_keys_replace_defaults(file: Path) -> None:
    file.write_text("""
        [adc]
        device = "mcp3912"
        [channels.L2]
        gain = 1.037
        [p1.request]
        line = 17
        always = true
    """)
    config = load(file)
    assert config.adc.device == "mcp3912"
    assert config.channels.L2.gain == 1.037
    assert config.channels.L2.input == "voltage1"
    assert config.p1.request.line == 17
    assert config.p1.request.always


NO_POWER = "would read 0 A; set the voltage of the mains, such as 230"
NO_SIGN = "without power, export would look like a load; set the voltage of the mains, such as 230"

# Profile, nominal voltage, reference and export_current, and why they are rejected, if they are.
VOLTAGES = [
    ("csp1", 0, "off", "magnitude", ""),
    ("csp1", 0, "voltage", "zero", ""),
    ("csp1", 0, "voltage", "magnitude", NO_SIGN),
    ("csp1", 0, "current", "magnitude", NO_SIGN),
    ("csp1", 230, "voltage", "magnitude", ""),
    *((profile, 0, "off", "magnitude", NO_POWER) for profile in ("smr5", "emucs")),
    *((profile, 0, "voltage", "magnitude", NO_POWER) for profile in ("smr5", "emucs")),
    *((profile, 0, "voltage", "zero", NO_POWER) for profile in ("smr5", "emucs")),
    *((profile, 1, "voltage", "magnitude", "") for profile in ("smr5", "emucs")),
    *((profile, 999, "off", "magnitude", "") for profile in ("smr5", "emucs")),
]


@pytest.mark.parametrize(("profile", "volts", "reference", "export", "reason"), VOLTAGES)
def test_no_configuration_lets_a_load_or_export_be_read_as_something_else(
    file: Path, profile: str, volts: int, reference: str, export: str, reason: str
) -> None:
    p1 = f'[p1]\nprofile = "{profile}"\nnominal_voltage = {volts}\n'
    file.write_text(f'{p1}[direction]\nreference = "{reference}"\nexport_current = "{export}"\n')
    if not reason:
        assert load(file).p1.nominal_voltage == volts
        return
    with pytest.raises(ConfigError) as raised:
        load(file)
    (problem,) = raised.value.problems
    assert (problem.file, problem.key) == (file, "p1.nominal_voltage")
    assert reason in problem.reason


def test_each_profile_has_a_voltage_by_default(file: Path) -> None:
    for profile in ("csp1", "smr5", "emucs"):
        file.write_text(f'[p1]\nprofile = "{profile}"')
        assert load(file).p1.nominal_voltage == 230


@pytest.mark.parametrize(
    ("content", "is_doubtful"),
    [
        ("", False),
        ('export_current = "magnitude"', False),
        ('reference = "voltage"', True),
        ('reference = "current"', True),
        ('reference = "voltage"\nexport_current = "magnitude"', True),
        ('reference = "voltage"\nexport_current = "zero"', False),
    ],
)
def test_a_direction_is_doubtful_until_a_drop_in_says_how_export_is_sent(
    file: Path, content: str, is_doubtful: bool
) -> None:
    file.write_text(f"[direction]\n{content}")
    load(file)
    assert [(doubt.file, doubt.key) for doubt in doubts(file)] == (
        [(file, "direction.export_current")] if is_doubtful else []
    )
    drop_in(file, "10.toml", '[direction]\nexport_current = "magnitude"')
    assert doubts(file) == []


def test_a_direction_in_a_drop_in_to_the_shipped_file_is_doubtful(file: Path) -> None:
    file.write_text(SHIPPED.read_text())
    assert doubts(file) == []
    drop_in(file, "10.toml", '[direction]\nreference = "voltage"')
    assert [doubt.key for doubt in doubts(file)] == ["direction.export_current"]


FOLDING = {
    50: [200, 204.9, 250, 300, 496, 800, 1000, 1100, 1600, 1995.5, 2000, 2004],
    60: [240, 300, 360, 1200, 1204.9, 2400],
}
NOT_FOLDING = {
    50: [206, 210, 240, 494, 860, 1024, 1050, 1150, 1953, 1994, 2006, 2050, 2100, 3906, 4000, 8000],
    60: [200, 250, 800, 860, 1000, 1260, 1600, 2000, 2410, 2520, 4000],
}


@pytest.mark.parametrize("nominal", FOLDING)
@pytest.mark.parametrize("folds", [True, False])
def test_a_rate_that_folds_harmonics_is_doubtful_until_a_drop_in_confirms_it(
    file: Path, nominal: int, folds: bool
) -> None:
    for hertz in (FOLDING if folds else NOT_FOLDING)[nominal]:
        content = f"[adc]\nsampling_frequency_hz = {hertz}\n"
        file.write_text(f"{content}[measurement]\nnominal_frequency_hz = {nominal}\n")
        found = [(doubt.key, doubt.reason.partition(";")[0]) for doubt in doubts(file)]
        text = f"{hertz:g} scans per second is a multiple of the mains frequency: harmonics of a"
        text += " load fold onto the mains, and currents may be wrong by percents"
        assert found == ([("adc.sampling_frequency_hz", text)] if folds else []), hertz
        drop_in(file, "10.toml", content)
        assert doubts(file) == []
        (file.parent / f"{file.name}.d/10.toml").unlink()


def test_the_serial_number_of_each_0_1_0_is_doubtful_until_a_drop_in_confirms_it(
    file: Path,
) -> None:
    content = '[p1]\nserial = "XMXCQA0000000000"\nequipment_id = "E0000000000000000"\n'
    file.write_text(content)
    assert [doubt.key for doubt in doubts(file)] == ["p1.serial"]
    drop_in(file, "10.toml", content)
    assert doubts(file) == []
    drop_in(file, "10.toml", '[p1]\nserial = "auto"')
    assert doubts(file) == []


def test_another_trigger_than_a_timer_may_be_fast(file: Path) -> None:
    file.write_text("[adc]\ntrigger = 'a'\nsampling_frequency_hz = 64000")
    assert load(file).adc.sampling_frequency_hz == 64_000
    file.write_text("[adc]\ntrigger = 'hrtimer:a'\nsampling_frequency_hz = 20000")
    assert load(file).adc.sampling_frequency_hz == 20_000


def test_a_reference_of_another_kind_has_its_own_scale(file: Path) -> None:
    phase = "[channels.L1]\nscale_millivolts = 0.5\ninput = "
    for l1, reference, scale in (
        ("voltage0", "voltage3", 0.5),
        ("current0", "current3", 0.5),
        ("current0", "voltage3", 0.0),
    ):
        file.write_text(f"{phase}'{l1}'\n[direction]\nreference = 'current'\ninput = '{reference}'")
        found = load(file).reference()
        assert found
        assert found.scale_millivolts == scale


def test_a_phase_without_input_is_not_measured(file: Path) -> None:
    file.write_text('[channels]\nL2.input = ""\nL3.input = ""')
    assert list(load(file).channels.used()) == [Phase.L1]


# A line in [direction], and the value that it sets.
DIRECTIONS: list[tuple[str, object]] = [
    ('reference = "off"', "off"),
    ('reference = "voltage"', "voltage"),
    ('reference = "current"', "current"),
    ('input = "altvoltage7"', "altvoltage7"),
    ('phase = "L3"', "L3"),
    ('phase_order = "L1-L3-L2"', "L1-L3-L2"),
    ('reference_flow = "producing"', "producing"),
    ("phase_error_degrees = -3.5", -3.5),
    ("minimum = 0.01", 0.01),
    ("minimum = 6.5", 6.5),
    ('export_current = "zero"', "zero"),
]


@pytest.mark.parametrize(("line", "value"), DIRECTIONS)
def test_the_keys_of_the_direction(file: Path, line: str, value: object) -> None:
    file.write_text(f"[direction]\n{line}")
    assert getattr(load(file).direction, line.split()[0]) == value


def test_without_direction_its_input_is_free(file: Path) -> None:
    file.write_text('[channels.L1]\ninput = "voltage3"')
    assert load(file).reference() is None


def test_the_reference_is_wired_like_its_phase_which_need_not_be_measured(file: Path) -> None:
    file.write_text("""
        [channels.L2]
        input = ""
        ct_ratio = 1000
        burden_ohms = 8.0
        type = "le:s24/32>>0"
        scale_millivolts = 0.5
        gain = 1.1
        reversed = true
        noise_floor_amperes = 0.2
        phase_error_degrees = 1.5
        [direction]
        reference = "current"
        phase = "L2"
        phase_error_degrees = -2.0
    """)
    assert load(file).reference() == ChannelConfig(
        input="voltage3",
        ct_ratio=1000,
        burden_ohms=8.0,
        type="le:s24/32>>0",
        scale_millivolts=0.5,
        phase_error_degrees=-2.0,
    )


@pytest.mark.parametrize(
    ("sensed", "order", "lags"),
    [
        ("L1", "L1-L2-L3", [0, 120, 240]),
        ("L1", "L1-L3-L2", [0, 240, 120]),
        ("L2", "L1-L2-L3", [240, 0, 120]),
        ("L2", "L1-L3-L2", [120, 0, 240]),
        ("L3", "L1-L2-L3", [120, 240, 0]),
        ("L3", "L1-L3-L2", [240, 120, 0]),
    ],
)
def test_the_lag_of_each_phase_after_that_of_the_reference(
    sensed: Any, order: Any, lags: list[int]
) -> None:
    direction = DirectionConfig(phase=sensed, phase_order=order)
    assert [direction.lag_degrees(phase) for phase in Phase] == lags


def test_drop_ins_override_key_by_key_and_the_last_name_wins(file: Path) -> None:
    file.write_text('[p1]\nserial = "MAIN"\nflag_id = "ABC"\n[channels.L1]\ngain = 1.1')
    drop_in(file, "50-calibration.toml", "[channels.L1]\ngain = 1.2\nnoise_floor_amperes = 0.02")
    drop_in(file, "90-site.toml", '[channels.L1]\ngain = 1.3\n[p1]\nserial = "SITE"')
    drop_in(file, "99-not-toml.bak", "gibberish")
    config = load(file)
    assert (config.p1.serial, config.p1.flag_id) == ("SITE", "ABC")
    assert (config.channels.L1.gain, config.channels.L1.noise_floor_amperes) == (1.3, 0.02)


def test_drop_ins_are_read_in_the_order_of_their_names(file: Path) -> None:
    file.touch()
    for number in (70, 20, 90, 40, 10, 80, 30, 60, 50):
        drop_in(file, f"{number}.toml", f'[p1]\nserial = "{number}"')
    assert load(file).p1.serial == "90"
    assert origins(file) == {"p1.serial": file.with_name("csp1d.toml.d") / "90.toml"}


def test_a_drop_in_that_leads_nowhere_is_reported(file: Path) -> None:
    link = drop_in(file, "10.toml", "")
    link.unlink()
    link.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"10\.toml: cannot be read: No such file"):
        load(file)


BAD = [
    ("[adc]\nsampling_frequency = 4000", "adc.sampling_frequency", "did you mean 'sampling_freq"),
    ("[nonsense]\nx = 1", "nonsense", "unknown key; known keys: site, adc, channels, measurement"),
    ("[channels.L4]", "channels.L4", "unknown key"),
    ("adc = 3", "adc", "must be a table of keys, got 3"),
    (
        '[adc]\nsampling_frequency_hz = "4000"',
        "adc.sampling_frequency_hz",
        "must be a number, got '4000'",
    ),
    (
        "[adc]\nsampling_frequency_hz = true",
        "adc.sampling_frequency_hz",
        "must be a number, got true",
    ),
    (
        "[adc]\nsampling_frequency_hz = 0",
        "adc.sampling_frequency_hz",
        "must be between 200 and 1000000, got 0",
    ),
    ("[adc]\nbuffer_seconds = nan", "adc.buffer_seconds", "must be a finite number"),
    (
        "[channels.L1]\nct_ratio = -2000",
        "channels.L1.ct_ratio",
        "must be between 1 and 100000, got -2000",
    ),
    ("[channels.L1]\ngain = inf", "channels.L1.gain", "must be a finite number"),
    ("[channels.L1]\nreversed = 1", "channels.L1.reversed", "must be true or false"),
    ('[channels.L1]\ntype = "s16"', "channels.L1.type", "is not a scan type"),
    ('[channels.L1]\ninput = "../x"', "channels.L1.input", "must be the IIO channel id of"),
    ('[channels.L3]\ninput = "voltage0"', "channels.L3.input", "is already the input of L1"),
    (
        '[channels]\nL1.input = ""\nL2.input = ""\nL3.input = ""',
        "channels",
        "no phase has an input",
    ),
    *(
        (f"[direction]\n{key} = {value}", f"direction.{key}", reason)
        for key, value, reason in (
            ("reference", '"on"', "must be one of 'off', 'voltage', 'current', got 'on'"),
            ("input", '""', "must be the IIO channel id of"),
            ("input", '"in_voltage3/raw"', "must be the IIO channel id of"),
            ("phase", '"L4"', "must be one of 'L1', 'L2', 'L3'"),
            ("phase_order", '"L2-L1-L3"', "must be one of 'L1-L2-L3', 'L1-L3-L2'"),
            ("reference_flow", '"both"', "must be one of 'consuming', 'producing'"),
            ("phase_error_degrees", "31", "must be between -30 and 30, got 31"),
            ("minimum", "0", "must be between 0.01 and 1000, got 0"),
            ("minimum", '"0.5"', "must be a number"),
            ("export_current", '"none"', "must be one of 'magnitude', 'zero'"),
        )
    ),
    (
        '[direction]\nreference = "voltage"\ninput = "voltage1"',
        "direction.input",
        "'voltage1' cannot serve both L2 and the reference; set direction.input and"
        " channels.L2.input to different inputs",
    ),
    (
        '[direction]\nreference = "current"\n[channels.L3]\ninput = "voltage3"',
        "channels.L3.input",
        "'voltage3' cannot serve both L3 and the reference",
    ),
    (
        '[direction]\nreference = "current"\ninput = "voltage5"\n[channels.L3]\ninput = "voltage5"',
        "direction.input",
        "'voltage5' cannot serve both L3 and the reference",
    ),
    *(
        (f"[{table}]\n{key} = {value}", f"{table}.{key}", f"must be between {limits}, got {value}")
        for table, key, value, limits in (
            ("measurement", "no_load_amperes", "5.01", "0 and 5"),
            ("channels.L1", "noise_floor_amperes", "5.01", "0 and 5"),
            ("channels.L1", "gain", "0.49", "0.5 and 2"),
            ("channels.L1", "gain", "2.01", "0.5 and 2"),
            ("channels.L2", "ct_ratio", "0.99", "1 and 100000"),
            ("channels.L2", "ct_ratio", "100001", "1 and 100000"),
            ("channels.L3", "burden_ohms", "0.009", "0.01 and 10000"),
            ("channels.L3", "burden_ohms", "10001", "0.01 and 10000"),
            ("channels.L3", "phase_error_degrees", "-31", "-30 and 30"),
        )
    ),
    *(
        (f"[channels.L1]\ninput = '{name}'", "channels.L1.input", "of a voltage or current")
        for name in ("temp", "power0", "voltage0_rms", "altcurrent1_rms", "timestamp", "v")
    ),
    (
        "[adc]\ntrigger = 'hrtimer:a'\nsampling_frequency_hz = 20001",
        "adc.sampling_frequency_hz",
        "must be at most 20000 with adc.trigger 'hrtimer:a', got 20001",
    ),
    (
        "[direction]\nreference = 'voltage'\ninput = 'current3'",
        "direction.input",
        "'current3' measures a current; select a voltage input",
    ),
    ("[measurement]\nnominal_frequency_hz = 55", "measurement.nominal_frequency_hz", "50, 60"),
    ("[measurement]\nnominal_frequency_hz = 50.0", "measurement.nominal_frequency_hz", "50, 60"),
    ('[p1]\nserial = "A/B"', "p1.serial", "no / !"),
    ('[p1]\nserial = ""', "p1.serial", "1 to 16 ASCII"),
    ('[p1]\nserial = "SEVENTEEN LETTERS"', "p1.serial", "1 to 16 ASCII"),
    ('[p1]\nfirmware_text = "SEVENTEEN LETTERS"', "p1.firmware_text", "at most 16"),
    ('[p1]\nequipment_id = "é"', "p1.equipment_id", "ASCII"),
    ('[p1]\nflag_id = "XM1"', "p1.flag_id", "three letters"),
    ("[p1]\ninterval_seconds = 1.5", "p1.interval_seconds", "must be a whole number"),
    ("[p1]\ninterval_seconds = 11", "p1.interval_seconds", "between 1 and 10"),
    ("[p1]\nnominal_voltage = 0.23", "p1.nominal_voltage", "must be 0 or at least 1"),
    ("[p1]\nnominal_voltage = 1000", "p1.nominal_voltage", "between 0 and 999"),
    ('[p1]\nprofile = "dsmr9"', "p1.profile", "must be one of 'csp1', 'smr5', 'emucs'"),
    ("[p1.request]\nline = 1.5", "p1.request.line", "a string or a whole number"),
    ('[p1.request]\nbias = "up"', "p1.request.bias", "must be one of 'default'"),
    ('[leds]\np1 = "a/b"', "leds.p1", "the name of an LED"),
    ('[leds]\npower = "a"\np1 = "a"', "leds.p1", "'a' is already leds.power; an LED can show"),
    ('[leds]\npower = "csp1:yellow:p1"', "leds.power", "'csp1:yellow:p1' is already leds.p1"),
    ('[http]\nlisten = "19510"', "http.listen", '"ADDRESS:PORT"'),
    ('[http]\nlisten = "0.0.0.0:99999"', "http.listen", '"ADDRESS:PORT"'),
    (f'[http]\nsocket = "/{"a" * 107}"', "http.socket", "must be at most 107 bytes, got '/aaa"),
    (f'[http]\nsocket = "/{"é" * 54}"', "http.socket", "must be at most 107 bytes, got '/éé"),
    ('[http]\ntls_key = "/k"', "http.tls_certificate", "must be set together with http.tls_key"),
    ('[http]\ntls_certificate = "/c"', "http.tls_certificate", "together with http.tls_key"),
    ('[http]\ntls_client_ca = "/a"', "http.tls_client_ca", "needs http.tls_certificate and"),
    ('[log]\nlevel = "loud"', "log.level", "must be one of 'debug'"),
    ('[channels.L1]\ninput = "voltage2"', "channels.L1.input", "is already the input of L3"),
    ('[channels.L1]\ntype = "le:s16/16X2>>0"', "channels.L1.type", "must be one value per scan"),
    ('[channels.L1]\ntype = "le:s64/64>>0"', "channels.L1.type", "at most 53 bits"),
    ('[p1]\ndevice = "/dev/\\u0000x"', "p1.device", "must be a path"),
    ('[leds]\npower = "a\\u0000"', "leds.power", "the name of an LED"),
    ("[p1.request]\nline = -1", "p1.request.line", "offset from 0 to 65535, got -1"),
    ('[http]\nlisten = "a\\u0000:1"', "http.listen", '"ADDRESS:PORT"'),
    ('[http]\nlisten = "é..x:80"', "http.listen", '"ADDRESS:PORT"'),
    ('[http]\nlisten = "sensor.local:80"', "http.listen", '"ADDRESS:PORT"'),
    ('[http]\nlisten = "::1:80"', "http.listen", '"ADDRESS:PORT"'),
    ('[http]\nlisten = "[127.0.0.1]:80"', "http.listen", '"ADDRESS:PORT"'),
    ('[http]\nlisten = "127.0.0.1:١٩"', "http.listen", '"ADDRESS:PORT"'),
    (f"[adc]\nsampling_frequency_hz = {'9' * 5000}", "", "is not TOML"),
    (
        f"[adc]\nsampling_frequency_hz = 0x{'f' * 5000}",
        "adc.sampling_frequency_hz",
        "a very long number",
    ),
    (f"[adc]\ndevice{'.a' * 5000} = 1", "adc.device", "must be a string, got a table"),
    (f"a{'.a' * 5000} = 1", "a", "unknown key"),
    ("[adc", "", "is not TOML"),
    ("x = [" * 5000, "", "is not TOML"),
]


@pytest.mark.parametrize(("content", "key", "reason"), BAD)
def test_each_problem_is_reported_with_file_key_and_reason(
    file: Path, content: str, key: str, reason: str
) -> None:
    file.write_text(content)
    with pytest.raises(ConfigError) as raised:
        load(file)
    (problem,) = raised.value.problems
    assert (problem.file, problem.key) == (file, key)
    assert reason in problem.reason


def test_all_problems_are_reported_at_once_each_with_its_file(file: Path) -> None:
    file.write_text("[adc]\nbuffer_seconds = 0\n[log]\nlvel = 1")
    other = drop_in(file, "10.toml", '[p1]\nflag_id = ""')
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert [(problem.file, problem.key) for problem in raised.value.problems] == [
        (file, "adc.buffer_seconds"),
        (file, "log.lvel"),
        (other, "p1.flag_id"),
    ]


@pytest.fixture
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A pipe that may never have content, or a device that never ends."""
    path = tmp_path / "no-file"
    match request.param:
        case "fifo":
            os.mkfifo(path)
        case device:
            path.symlink_to(device)
    return path


NO_FILES = pytest.mark.parametrize("no_file", ["/dev/zero", "fifo"], indirect=True)


@NO_FILES
def test_a_pipe_or_device_is_rejected_at_once(no_file: Path) -> None:
    with pytest.raises(ConfigError, match="is a pipe or a device; use a regular file"):
        load(no_file)


@NO_FILES
def test_a_drop_in_that_is_not_a_file_is_reported(file: Path, no_file: Path) -> None:
    file.touch()
    other = drop_in(file, "10.toml", "")
    other.unlink()
    other.symlink_to(no_file)
    drop_in(file, ".hidden.toml", "gibberish")
    with pytest.raises(ConfigError) as raised:
        load(file)
    assert [(problem.file, problem.key) for problem in raised.value.problems] == [(other, "")]


def test_a_link_to_dev_null_is_an_empty_file(file: Path) -> None:
    for link in (file, drop_in(file, "10.toml", "")):
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    assert load(file) == Config()


def test_a_byte_order_mark_is_reported(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf[log]\nlevel = 'info'")
    with pytest.raises(ConfigError, match="starts with a byte order mark; save it without one"):
        load(file)


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_a_path_that_is_not_a_file_is_reported(path: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(Path(path))


def test_a_drop_in_can_replace_a_wrong_value_of_the_file(file: Path) -> None:
    file.write_text("[adc]\nbuffer_seconds = 0")
    drop_in(file, "10.toml", "[adc]\nbuffer_seconds = 5")
    assert load(file).adc.buffer_seconds == 5


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.mkdir(), "cannot be read: Is a directory"),
        (lambda file: file.symlink_to(file), "cannot be read: Too many levels"),
        (lambda file: file.write_bytes(b"[adc]\n\xff"), "is not UTF-8 at byte 6"),
    ],
)
def test_an_unreadable_file_is_reported(file: Path, make: Any, reason: str) -> None:
    make(file)
    with pytest.raises(ConfigError, match=f"{file}: {reason}"):
        load(file)


@pytest.mark.parametrize(
    ("listen", "hosts", "port"),
    [
        ("127.0.0.1:19510", ("127.0.0.1",), 19510),
        ("[::1]:80", ("::1",), 80),
        (":9100", ("0.0.0.0", "::"), 9100),
        ("localhost:0", ("127.0.0.1", "::1"), 0),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0",), 80),
        ("[fe80::1%br-lan.7]:80", ("fe80::1%br-lan.7",), 80),
    ],
)
def test_addresses(listen: str, hosts: tuple[str, ...], port: int) -> None:
    assert split_address(listen) == (hosts, port)
