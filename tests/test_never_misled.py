# SPDX-License-Identifier: Apache-2.0
"""No accepted configuration misleads a reader: the oracle.

A configuration with any values is written as a file. If `load` accepts it, currents flow through a
model of transformers, ADC and driver, and the whole chain (`IioAdc`, `Sampler`, `Sender`) measures
them. Each telegram is read with arithmetic of its own, as consumers do: the current of 31.7.0, and
that of power divided by voltage. Both must be the current that flows, within the rounding of the
telegram, of the ADC and of the driver's scale, the configured gain, and the limits of the
specification for the noise floor and the no-load threshold, which the oracle knows independently.
Otherwise there must be no telegram. A current beyond the range of the ADC, or of the format, must
read as that range or more. A load that is an ampere above the thresholds never reads as 0 A.
"""

import dataclasses
import itertools
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import Phase as Phases
from hypothesis import strategies as st
from signals import START_NS, pack

from csp1d import config_file
from csp1d.config import ChannelConfig, Config, MeasurementConfig, P1Config
from csp1d.errors import ConfigError
from csp1d.hat import sysfs
from csp1d.hat.iio import IioAdc
from csp1d.loading import problem
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.measuring import ct, direction
from csp1d.measuring.reading import Reading
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

SECOND = 1_000_000_000
FOLDER = tempfile.TemporaryDirectory(prefix="csp1d-oracle-")
NUMBERS = itertools.count()

# What the specification allows, whatever the program accepts.
MOST_NO_LOAD_AMPERES = MOST_NOISE_AMPERES = 5.0
LEAST_GAIN, MOST_GAIN = 0.5, 2.0
ERROR = 0.01
"""Of the computation: this is no test of accuracy."""


# The world: what is wired, what flows, and what the driver reports.


@dataclass(frozen=True)
class World:
    voltage_type: str = "be:s24/32>>0"
    voltage_range: float = 2400.0
    """Millivolts from the lowest code to the highest."""
    current_type: str = "le:s16/16>>0"
    current_range: float = 330_000.0
    """Milliamperes."""
    decimals: int = 9
    """Of a scale, as the driver prints it."""
    amperes: tuple[float, float, float] = (24.0, 10.5, 3.0)
    """RMS; negative for export."""
    angles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Lag of each current after its voltage, in degrees."""
    hertz: float = 50.0
    reference: float = 1.0
    """Of the direction's reference: volts at the ADC, or tens of amperes."""
    noise: float = 0.5
    """Of the ADC, in codes RMS."""
    idle: Literal[0, -1] | None = None
    """The bits that an ADC without supply or with another address leaves on its bus."""

    def type_of(self, channel_id: str) -> str:
        return self.current_type if "current" in channel_id else self.voltage_type

    def scale_of(self, channel_id: str) -> float:
        full = self.current_range if "current" in channel_id else self.voltage_range
        return full / float(1 << ScanType.parse(self.type_of(channel_id)).bits)


INPUTS = [f"{kind}{n}" for kind in ("voltage", "current") for n in range(4)]


def tree(world: World) -> Path:
    """The ADC in sysfs, as its driver presents it."""
    folder = Path(FOLDER.name) / str(next(NUMBERS))
    files = {"name": "adc", "sampling_frequency": "4000", "trigger/current_trigger": ""}
    files |= {f"buffer/{name}": "0" for name in ("enable", "length", "watermark")}
    for index, name in enumerate([*INPUTS, "timestamp"]):
        type_ = "le:s64/64>>0" if name == "timestamp" else world.type_of(name)
        for key, value in (("en", "0"), ("index", str(index)), ("type", type_)):
            files[f"scan_elements/in_{name}_{key}"] = value
        if name != "timestamp":
            files[f"in_{name}_scale"] = f"{world.scale_of(name):.{world.decimals}f}"
    files |= {"../bus/trigger0/name": "t0", "../dev/iio:device0": ""}
    for file, content in files.items():
        path = folder / "iio:device0" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return folder


@dataclass(frozen=True)
class Wire:
    """A transformer and its input, as they are."""

    type: ScanType
    unit_per_code: float
    """Amperes in the conductor per code, or volts for a reference."""
    rounding: float
    """Part of the scale that the driver's decimals leave open."""

    @classmethod
    def of(cls, world: World, channel: ChannelConfig, is_voltage: bool = False) -> "Wire":
        declared = ScanType.parse(world.type_of(channel.input))
        type_ = ScanType.parse(channel.type) if channel.type else declared
        scale = channel.scale_millivolts or world.scale_of(channel.input)
        if not channel.scale_millivolts and (type_.bits, type_.shift) != (
            declared.bits,
            declared.shift,
        ):
            # The typing error of a user: the hardware does not follow it.
            type_ = declared
        rounding = 0.0 if channel.scale_millivolts else 0.5 * 10**-world.decimals / scale
        unit = scale / 1000
        if not is_voltage and "current" not in channel.input:
            unit *= channel.ct_ratio / channel.burden_ohms
        return cls(type_, unit, min(rounding, 1.0))

    def words(self, amounts: np.ndarray[Any, Any], world: World) -> np.ndarray[Any, Any]:
        """What the ADC stores."""
        type_ = self.type
        # A driver of an ADC with less noise may read such a code at no load.
        if world.idle is not None and (type_.bits >= 16 or not type_.signed):
            return np.full(len(amounts), world.idle << type_.shift)
        middle = 0 if type_.signed else 1 << type_.bits - 1
        noise = world.noise * np.random.default_rng(1).standard_normal(len(amounts))
        codes = np.rint(np.clip(amounts / self.unit_per_code, -1e18, 1e18) + noise) + middle
        codes = np.clip(codes, float(type_.lowest), float(type_.highest))
        return np.asarray(codes.astype(np.int64) << type_.shift)

    @property
    def range_amperes(self) -> float:
        return float(2**self.type.bits - 2) * self.unit_per_code / math.sqrt(8)


class Adc(IioAdc):
    """The driver of csp1d on the driver's files; scans come from the model."""

    def __init__(self, world: World, config: Config, board: "Board") -> None:
        folder = tree(world)
        super().__init__(
            folder / "iio:device0", config, folder / "bus", folder / "dev", folder / "config"
        )
        self._world, self._config, self._board = world, config, board
        self._next = 0

    def read(self) -> bytes:
        rate = self._config.adc.sampling_frequency_hz
        end = max(self._next, int((self._board.now_ns - START_NS) * rate / SECOND))
        numbers, self._next = np.arange(self._next, end), end
        rows = [self._words(channel.phase, numbers / rate) for channel in self.format.channels]
        return pack(self.format, rows, START_NS + np.rint(numbers / rate * SECOND)) if end else b""

    def _words(self, phase: str, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        config, world = self._config, self._world
        turns = 2 * np.pi * world.hertz * times
        order = config.direction.phase_order.split("-")
        if phase == "reference":
            reference = config.reference()
            assert reference
            is_voltage = config.direction.reference == "voltage"
            turns = turns + math.radians(config.direction.phase_error_degrees)
            amount = world.reference if is_voltage else 10 * world.reference
            if not is_voltage and config.direction.reference_flow == "producing":
                amount = -amount
            wire = Wire.of(world, reference, is_voltage)
        else:
            channel = config.channels.used()[Phase(phase)]
            number = list(Phase).index(Phase(phase))
            lag = 120 * ((order.index(phase) - order.index(config.direction.phase)) % 3)
            turns = turns + math.radians(channel.phase_error_degrees - lag - world.angles[number])
            amount = world.amperes[number] * (-1 if channel.reversed else 1)
            wire = Wire.of(world, channel)
        return wire.words(amount * math.sqrt(2) * np.sin(turns), world)


@dataclass
class Board:
    """A HAT whose ADC is modelled, with a port that accepts all and a line that is high."""

    world: World
    now_ns: int = START_NS
    sent: list[bytes] = field(default_factory=list)
    wake_ns: int | None = None
    poll_ns: int | None = None
    is_simulated: bool = True

    def open_adc(self, config: Config) -> Adc:
        return Adc(self.world, config, self)

    def open_request_line(self, config: Config) -> "Board":
        return self

    def open_port(self, config: Config) -> "Board":
        return self

    def open_led(self, name: str) -> "Board":
        return self

    def read_level(self) -> tuple[int, bool]:
        return 0, True

    def write(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)

    def switch(self, on: bool) -> None: ...

    def light(self, milliseconds: int) -> bool:
        return True

    def waiting(self) -> int:
        return 0

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def fileno(self) -> int:
        return -1

    def changed(self) -> bool:
        return False


def measure(config: Config, world: World) -> list[bytes]:
    """The telegrams that csp1d sends within a few seconds."""
    board = Board(world)
    sampler = Sampler(board, config, lambda: board.now_ns)
    sender = Sender(board, config, lambda: board.now_ns)
    board.now_ns += SECOND
    sender.reopen_missing()
    sender.poll(board.now_ns)
    rate = config.adc.sampling_frequency_hz
    end_ns = board.now_ns + int((3.5 if rate <= 20_000 else 1.5) * SECOND)
    readings: list[Reading] = []
    while board.now_ns < end_ns:
        for reading in sampler.poll(board.now_ns):
            readings.append(reading)
            sender.on_reading(reading)
        board.now_ns = max(board.now_ns + 1_000_000, sampler.wake_ns)
    sampler.close()
    assert bool(board.sent) == bool(readings)
    return board.sent


# The reader: what the amperes must be, and what a telegram says.


def expected(config: Config, world: World, phase: Phase) -> tuple[float, float]:
    """The least and the most amperes that may be shown for what flows."""
    channel = config.channels.used().get(phase)
    if channel is None:
        return 0.0, 0.0
    wire = Wire.of(world, channel)
    flows = abs(world.amperes[list(Phase).index(phase)])
    gain = min(max(channel.gain, LEAST_GAIN), MOST_GAIN)
    floor = min(channel.noise_floor_amperes, MOST_NOISE_AMPERES)
    no_load = min(config.measurement.no_load_amperes, MOST_NO_LOAD_AMPERES)
    slack = gain * wire.unit_per_code
    error = ERROR + (wire.rounding if wire.rounding < 0.5 else math.inf)

    def corrected(amperes: float) -> float:
        return math.sqrt(max(0.0, amperes**2 - floor**2))

    shown = gain * min(flows, wire.range_amperes)
    least = corrected(max(0.0, shown * (1 - error) - slack)) if error < 1 else shown
    if gain * flows > math.hypot(floor, no_load) + 1:
        least = max(least, no_load, 1.0)
    return (0.0 if least < no_load else least), corrected(gain * flows * (1 + error) + slack)


def values(telegram: bytes, pattern: str) -> dict[Phase, str]:
    """The values of an object by phase; `pattern` has the digit of each phase."""
    digits, rest = pattern.split("/")
    found = {}
    for phase, digit in zip(Phase, digits, strict=True):
        match = re.search(rf"\n1-0:{digit}{rest}\(([\d.]+)\*".encode(), telegram)
        if match:
            found[phase] = match[1].decode()
    return found


def check(config: Config, world: World) -> int:
    """Fails if a telegram misleads its reader. Returns the number of telegrams."""
    telegrams = measure(config, world)
    for telegram in telegrams:
        currents = values(telegram, "357/1\\.7\\.0")
        plus, minus = values(telegram, "246/1\\.7\\.0"), values(telegram, "246/2\\.7\\.0")
        volts = values(telegram, "357/2\\.7\\.0")
        measured = set(config.channels.used())
        assert measured <= set(currents)
        for phase, text in currents.items():
            least, most = expected(config, world, phase)
            exports = config.direction.reference != "off" and (
                world.amperes[list(Phase).index(phase)] < 0
            )
            note = f"{phase}: {text} A for {least:.3f} to {most:.3f} A\n{telegram.decode()}"
            decimals = len(text.partition(".")[2])
            half = 0.5 / 10**decimals + 1e-9
            largest = 1000 - 10.0**-decimals
            amperes = float(text)
            hidden = exports and config.direction.export_current == "zero" and amperes == 0
            assert hidden or min(least, largest) - half <= amperes <= most + half, note
            # A reader by power has the voltage of the telegram, or knows the nominal one; those
            # of the device's own telegram know that it has no power without direction.
            if not volts and (config.direction.reference == "off" or not config.p1.nominal_voltage):
                assert b"1-3:0.2.8(40)" in telegram, note
                continue
            voltage = max(1.0, float(volts[phase]) if volts else config.p1.nominal_voltage)
            by_power = 1000 * (float(plus[phase]) - float(minus[phase])) / voltage
            half, largest = 0.5 / voltage + 1e-9, min(999.0, 99_999 / voltage)
            if not volts:
                half += most * 0.06 / voltage  # 32.7.0 has one decimal, and power is made for it.
            if exports:
                by_power = abs(by_power)
            assert min(least, largest) - half <= by_power <= most + half, f"{by_power} A, {note}"
    return len(telegrams)


# Configurations with any values, and what flows.

TYPES = ["le:s16/16>>0", "be:u12/16>>4", "le:u16/16>>0", "be:s24/32>>0", "le:s24/32>>8"]
TEXTS: Mapping[str, list[str]] = {
    "adc.trigger": ["", "t0", "hrtimer:a", "none"],
    "adc.device": ["adc"],
    **{f"channels.{p}.input": ["", *INPUTS, "temp", "voltage0_rms"] for p in Phase},
    **{f"channels.{p}.type": ["", *TYPES, "be:s12/32>>0", "le:s16/32>>8"] for p in Phase},
    "direction.input": [*INPUTS, "voltage9"],
    "p1.request.line": ["P1_REQUEST"],
}
SIZES = [
    *(0, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 0.9, 1, 1.037, 1.5, 2, 3, 4.9, 5, 6, 8),
    *(10, 20, 30, 45, 50, 60, 90, 100, 120, 150, 200, 230, 240.05, 300, 400, 999, 1000, 2000),
    *(4000, 1e4, 2.1e4, 1e5, 1e6, 1e9),
]


def specs(kind: Any = Config, prefix: str = "") -> Iterator[tuple[str, Any, Any, str]]:
    """Each key of the configuration: its name, its type, its table's class and its own name."""
    hints = get_type_hints(kind)
    for spec in dataclasses.fields(kind):
        hint = hints[spec.name]
        if dataclasses.is_dataclass(hint):
            yield from specs(hint, f"{prefix}{spec.name}.")
        else:
            yield prefix + spec.name, hint, kind, spec.name


KEYS = {name: rest for name, *rest in specs() if not name.startswith(("leds.", "http.", "log."))}
"""Those of LEDs, pages and log do not reach a telegram."""

ALWAYS = (
    *("p1.profile", "p1.nominal_voltage", "direction.reference", "direction.export_current"),
    *("measurement.no_load_amperes", "channels.L1.noise_floor_amperes", "channels.L1.gain"),
)
"""Drawn for each configuration: each hides a load if its rule is missing."""


@st.composite
def settings_of(draw: st.DrawFn) -> dict[str, Any]:
    """Keys and values, each accepted by itself."""
    others = [name for name in KEYS if name not in ALWAYS]
    chosen = draw(st.lists(st.sampled_from(others), max_size=4, unique=True))
    return {name: draw(value_of(name)) for name in (*ALWAYS, *chosen)}


def value_of(name: str) -> st.SearchStrategy[Any]:
    hint, kind, own = KEYS[name]
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if hint is bool:
        return st.booleans()
    if hint is int:
        return st.integers(0, 12).filter(lambda value: not problem(kind, own, value))
    if hint is float:
        sizes = st.sampled_from([*SIZES, *(-size for size in SIZES[1:])]) | st.floats(0, 1000)
        accepted = [size for size in SIZES if not problem(kind, own, size)]
        return (st.sampled_from(accepted) | sizes).filter(lambda v: not problem(kind, own, v))
    return st.sampled_from(TEXTS[name]) if name in TEXTS else st.just(default_of(name))


def default_of(name: str) -> Any:
    value: Any = Config()
    for part in name.split("."):
        value = getattr(value, part)
    return value


amperes_of = st.sampled_from([0.0, 0.4, 0.6, 1.0, 6.0, 16.0, 25.0, 63.0, 80.0, 1200.0]) | st.floats(
    0, 99
)
world_of = st.builds(
    World,
    voltage_type=st.sampled_from(TYPES),
    voltage_range=st.sampled_from([1200.0, 3300.0, 20_000.0]),
    current_type=st.sampled_from(TYPES),
    current_range=st.sampled_from([60_000.0, 330_000.0, 3e6]),
    decimals=st.sampled_from([9, 6]),
    amperes=st.tuples(*[amperes_of | amperes_of.map(lambda value: -value)] * 3),
    angles=st.tuples(*[st.floats(-60, 60)] * 3),
    hertz=st.sampled_from([49.5, 50.0, 50.02, 60.0]),
    reference=st.sampled_from([0.0, 0.1, 0.3, 1.0]),
    noise=st.sampled_from([0.0, 0.5]),
    idle=st.sampled_from([None] * 8 + [0, -1]),
)


def accepted(keys: Mapping[str, Any]) -> Config | None:
    """The configuration of a file with these keys, if csp1d accepts it."""
    file = Path(FOLDER.name) / "csp1d.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in keys.items()))
    try:
        return config_file.load(file)
    except ConfigError:
        return None


@settings(
    max_examples=250,
    deadline=None,
    # A smaller example would take minutes.
    phases=(Phases.explicit, Phases.reuse, Phases.generate),
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(keys=settings_of(), world=world_of)
def test_no_accepted_configuration_misleads_a_reader(keys: dict[str, Any], world: World) -> None:
    config = accepted(keys)
    assume(config)
    assert config
    check(config, world)


PROFILES = get_args(get_type_hints(P1Config)["profile"])


@pytest.mark.parametrize("reference", ["off", "voltage", "current"])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("rate", [200, 4000, 1_000_000])
def test_a_usual_configuration_sends(profile: str, reference: str, rate: float) -> None:
    """Silence alone does not make the oracle pass."""
    keys = {
        "p1.profile": profile,
        "p1.nominal_voltage": 230,
        "direction.reference": reference,
        "adc.sampling_frequency_hz": rate,
    }
    config = accepted(keys)
    assert config
    assert check(config, World(amperes=(24.0, -10.5, 0.0), reference=0.6)) >= 1


# Faults that csp1d has had: the oracle fails if one comes back.


def accept_all(monkeypatch: pytest.MonkeyPatch, kind: Any, name: str) -> None:
    """Take away the limits of a key."""
    monkeypatch.setattr(kind.__dataclass_fields__[name], "metadata", {"checks": (), "parse": None})


def no_voltage_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_file, "_contradictions", lambda *arguments: iter(()))


def any_threshold_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    accept_all(monkeypatch, MeasurementConfig, "no_load_amperes")
    any_range_is_accepted(monkeypatch)


def any_noise_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    accept_all(monkeypatch, ChannelConfig, "noise_floor_amperes")
    any_range_is_accepted(monkeypatch)


def any_gain_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    accept_all(monkeypatch, ChannelConfig, "gain")
    any_range_is_accepted(monkeypatch)


def any_range_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct.Ct, "check_range", lambda *arguments: "")


def a_scale_of_zero_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    any_range_is_accepted(monkeypatch)
    for module in (ct, direction):
        monkeypatch.setattr(
            module,
            "units_per_code",
            lambda channel, config: (config.scale_millivolts or channel.scale) / 1000,
        )
    monkeypatch.setattr(
        sysfs,
        "channel_scale",
        lambda folder, channel: (float((folder / f"in_{channel}_scale").read_text()), 0.0),
    )


def a_current_is_taken_for_millivolts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct, "is_current", lambda channel_id: False)


def an_adc_that_does_not_answer_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reading, "is_frozen", False)


FAULTS: list[tuple[Any, dict[str, Any], World]] = [
    (no_voltage_is_accepted, {"p1.profile": "smr5", "p1.nominal_voltage": 0}, World()),
    (no_voltage_is_accepted, {"p1.profile": "emucs", "p1.nominal_voltage": 0}, World()),
    (any_threshold_is_accepted, {"measurement.no_load_amperes": 100}, World()),
    (any_noise_is_accepted, {"channels.L1.noise_floor_amperes": 1000}, World()),
    (any_gain_is_accepted, {"channels.L1.gain": 1e-9}, World()),
    (any_range_is_accepted, {"channels.L2.ct_ratio": 1}, World()),
    (any_range_is_accepted, {"channels.L3.burden_ohms": 10_000}, World()),
    (any_range_is_accepted, {"channels.L1.scale_millivolts": 1e-9}, World()),
    (
        any_range_is_accepted,
        {"channels.L2.burden_ohms": 0.01},
        World(voltage_type="be:u12/16>>4", voltage_range=20_000.0, noise=0.0),
    ),
    (a_scale_of_zero_is_accepted, {}, World(voltage_range=2.0, decimals=6)),
    (
        a_current_is_taken_for_millivolts,
        {f"channels.L{n}.input": f"current{n}" for n in (1, 2, 3)},
        World(),
    ),
    (an_adc_that_does_not_answer_is_believed, {}, World(idle=0)),
    (an_adc_that_does_not_answer_is_believed, {}, World(idle=-1)),
]


@pytest.mark.parametrize(("fault", "keys", "world"), FAULTS)
def test_the_oracle_notices_a_fault(
    fault: Any, keys: dict[str, Any], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    if config := accepted(keys):
        check(config, world)
    fault(monkeypatch)
    config = accepted(keys)
    assert config
    with pytest.raises(AssertionError, match=" A for "):
        check(config, world)
