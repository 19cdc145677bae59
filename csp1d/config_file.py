# SPDX-License-Identifier: Apache-2.0
"""The configuration from its file and drop-ins.

Each file overrides the configuration of the files before it, key by key. A problem names the file
that sets the key, and all problems are reported at once.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csp1d.config import (
    FASTEST_HRTIMER_HERTZ,
    FOLDED,
    HRTIMER_PREFIX,
    Config,
    folds_harmonics,
    is_current,
)
from csp1d.errors import ConfigError, Problem
from csp1d.loading import Loader, decode_toml

DEFAULT_PATH = Path("/etc/csp1d/csp1d.toml")

_SERIAL_OF_0_1_0 = "XMXCQA0000000000"


def load(path: Path | None) -> Config:
    """Read a configuration file and its drop-ins.

    `path` is the file that the user has named; None: DEFAULT_PATH, which counts as empty if it is
    missing. Drop-ins are `PATH.d/*.toml` in the order of their names; they override key by key.
    Raises ConfigError with every problem of every file.
    """
    file = path or DEFAULT_PATH
    config, set_in, problems = _read_files(file, is_named=path is not None)
    if problems := problems or list(_contradictions(config, set_in, file)):
        raise ConfigError(problems)
    return config


def origins(path: Path) -> Mapping[str, Path]:
    """The file that sets each key, for all keys set by a configuration file and its drop-ins.

    For a configuration that `load()` accepts; problems are not reported.
    """
    return _read_files(path)[1]


def doubts(path: Path) -> list[Problem]:
    """What may be measured wrong, or misunderstood, although the configuration is valid."""
    config, set_in, _ = _read_files(path)
    found = {}
    if config.p1.serial == _SERIAL_OF_0_1_0:
        found["p1.serial"] = (
            "is that of each device with csp1d 0.1.0: consumers treat them as one meter; set"
            ' p1.serial and p1.equipment_id to "auto", or confirm the serial in a drop-in'
        )
    if config.direction.reference != "off" and config.direction.export_current == "magnitude":
        found["direction.export_current"] = (
            'export is sent as "magnitude": a consumer that reads only 31.7.0 (Home Assistant,'
            " ESPHome, dsmr-reader) counts it as load, one that reads 22.7.0 (evcc, SmartEVSE,"
            ' Domoticz) does not; set it in a drop-in: to "zero" for the former, to "magnitude"'
            " for the latter"
        )
    hertz = config.adc.sampling_frequency_hz
    if folds_harmonics(hertz, config.measurement.nominal_frequency_hz):
        found["adc.sampling_frequency_hz"] = (
            f"{hertz:g} {FOLDED}; set another rate, or confirm this one in a drop-in if an analog"
            " filter removes harmonics above half of it"
        )
    # The configuration as shipped sets every key: only in a drop-in is the value a choice.
    return [
        Problem(path, key, text) for key, text in found.items() if set_in.get(key, path) == path
    ]


def drop_in_folder(path: Path) -> Path:
    """The folder of a configuration file's drop-ins."""
    return path.parent / f"{path.name}.d"


def _read_files(
    path: Path, is_named: bool = False
) -> tuple[Config, dict[str, Path], list[Problem]]:
    """The configuration, the file that sets each key, and what is wrong."""
    config, set_in = Config(), dict[str, Path]()
    problems: list[Problem] = []
    for file in [path, *_drop_ins(path, problems)]:
        loader = Loader()
        try:
            config = loader.override(config, _read(file, required=is_named or file != path))
        except ValueError as error:
            problems.append(Problem(file, "", str(error)))
        set_in |= dict.fromkeys(loader.keys, file)
        problems += [Problem(file, key, reason) for key, reason in loader.problems]
    # A wrong value does not matter if a later file replaces it.
    problems = [p for p in problems if set_in.get(p.key, p.file) == p.file]
    return config, set_in, problems


def _drop_ins(path: Path, problems: list[Problem]) -> list[Path]:
    folder = drop_in_folder(path)
    try:
        # Not by glob(), which finds nothing in a folder that it may not read.
        names = sorted(os.listdir(folder))
        return [folder / n for n in names if n.endswith(".toml") and not n.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(Problem(folder, "", f"cannot be read: {error.strerror}"))
        return []


def read_regular(file: Path) -> bytes:
    """The content of a file. Raises OSError; ValueError for a pipe or a device, whose content may
    never come or never end, except /dev/null: a link to it is the usual empty file
    (systemd.unit(5))."""
    special = file.is_fifo() or file.is_char_device() or file.is_block_device()
    if special and file.stat().st_rdev != os.stat(os.devnull).st_rdev:
        raise ValueError("is a pipe or a device; use a regular file")
    return file.read_bytes()


def _read(file: Path, required: bool) -> Mapping[str, Any]:
    """Raises ValueError with the reason."""
    try:
        return decode_toml(read_regular(file))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not required:
            return {}
        raise ValueError(f"cannot be read: {error.strerror}") from error


def _contradictions(config: Config, set_in: Mapping[str, Path], path: Path) -> Iterator[Problem]:
    """Problems between keys that are each valid alone."""

    def problem(key: str, reason: str) -> Problem:
        return Problem(set_in.get(key, path), key, reason)

    owner: dict[str, str] = {}
    phase: str
    for phase, channel in config.channels.used().items():
        other = owner.setdefault(channel.input, phase)
        if other != phase:
            # The problem is in the key that the user has set, not in a default.
            if f"channels.{phase}.input" not in set_in:
                phase, other = other, phase
            yield problem(
                f"channels.{phase}.input",
                f"{channel.input!r} is already the input of {other}; each phase needs its own",
            )
    if not owner:
        yield problem("channels", "no phase has an input; set at least one")
    adc = config.adc
    is_hrtimer = adc.trigger.startswith(HRTIMER_PREFIX)
    if is_hrtimer and adc.sampling_frequency_hz > FASTEST_HRTIMER_HERTZ:
        yield problem(
            "adc.sampling_frequency_hz",
            f"must be at most {FASTEST_HRTIMER_HERTZ} with adc.trigger {adc.trigger!r},"
            f" got {adc.sampling_frequency_hz:g}",
        )
    direction = config.direction
    if direction.reference == "voltage" and is_current(direction.input):
        yield problem(
            "direction.input",
            f"{direction.input!r} measures a current; select a voltage input, or set"
            ' direction.reference to "current"',
        )
    if direction.reference != "off" and direction.input in owner:
        phase = owner[direction.input]
        key = f"channels.{phase}.input"
        if key not in set_in or "direction.input" in set_in:
            key = "direction.input"
        yield problem(
            key,
            f"{direction.input!r} cannot serve both {phase} and the reference; set"
            f" direction.input and channels.{phase}.input to different inputs",
        )
    roles: dict[str, str] = {}
    for role, led in vars(config.leds).items():
        other = roles.setdefault(led, role)
        if led and other != role:
            if f"leds.{role}" not in set_in:
                role, other = other, role
            yield problem(
                f"leds.{role}", f"{led!r} is already leds.{other}; an LED can show only one of them"
            )
    p1 = config.p1
    if p1.nominal_voltage == 0 and p1.profile != "csp1":
        yield problem(
            "p1.nominal_voltage",
            f"must not be 0 with p1.profile = {p1.profile!r}: a consumer that computes the current"
            " from power would read 0 A; set the voltage of the mains, such as 230",
        )
    elif (
        p1.nominal_voltage == 0
        and direction.reference != "off"
        and direction.export_current == "magnitude"
    ):
        yield problem(
            "p1.nominal_voltage",
            'must not be 0 with direction.export_current = "magnitude": without power, export'
            " would look like a load; set the voltage of the mains, such as 230, or"
            ' direction.export_current = "zero"',
        )
    http = config.http
    if bool(http.tls_certificate) != bool(http.tls_key):
        yield problem("http.tls_certificate", "must be set together with http.tls_key")
    if http.tls_client_ca and not http.tls_certificate:
        yield problem("http.tls_client_ca", "needs http.tls_certificate and http.tls_key")
