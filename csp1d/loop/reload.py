# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: read the configuration again and decide which parts it affects.

Parts that are not affected continue without a break. A rejected configuration changes nothing.
"""

import enum
from dataclasses import replace
from pathlib import Path

from csp1d.config import Config, HttpConfig
from csp1d.config_file import doubts, load
from csp1d.errors import ConfigError
from csp1d.events import Event
from csp1d.interfaces import journal
from csp1d.interfaces.http import Tls, load_certificates


class Part(enum.Enum):
    """A part of the daemon that can be reconfigured on its own."""

    SAMPLER = enum.auto()
    SENDER = enum.auto()
    INDICATORS = enum.auto()
    HTTP = enum.auto()
    SOCKET = enum.auto()


def read_again(named_file: Path | None) -> tuple[Config, Tls | None] | None:
    """Return the new configuration and its certificates, or None after logging why it is rejected.

    A certificate that cannot be used is a reason: the server keeps the one that it has.
    """
    try:
        config = load(named_file)
        return config, load_certificates(config.http, named_file)
    except ConfigError as error:
        journal.log_rejected(error, "keeping the previous configuration")
    except Exception:
        # A bug in reading a file must not end a sensor that works with the previous one.
        Event.INTERNAL_ERROR.log(
            "configuration rejected; keeping the previous configuration; please report this",
            exc_info=True,
        )
    return None


def log_doubts(path: Path) -> None:
    """Log what may mislead the charge point although the configuration is valid."""
    for doubt in doubts(path):
        Event.CONFIGURATION_DOUBTFUL.log(
            "%s", doubt, file=doubt.file, key=doubt.key, reason=doubt.reason
        )


def affected_parts(old: Config, new: Config) -> set[Part]:
    """Return the parts that must be reconfigured to get from `old` to `new`."""
    affected = {
        Part.SAMPLER: _measurement(old) != _measurement(new),
        Part.SENDER: _telegrams(old) != _telegrams(new),
        Part.INDICATORS: old.leds != new.leds,
        # A certificate may have been renewed under the same name.
        Part.HTTP: _network(old) != _network(new) or new.http.tls_certificate != "",
        Part.SOCKET: old.http.socket != new.http.socket,
    }
    return {part for part, is_affected in affected.items() if is_affected}


def _network(config: Config) -> HttpConfig:
    return replace(config.http, socket="")


def _telegrams(config: Config) -> tuple[object, ...]:
    """The part of the configuration that port, request line and telegrams depend on."""
    return config.p1, config.direction, config.channels.used().keys()


def _measurement(config: Config) -> tuple[object, ...]:
    """The part of the configuration that the ADC and the metering depend on."""
    # `export_current` only affects the telegram.
    direction = replace(config.direction, export_current="magnitude")
    return config.adc, config.channels, config.measurement, direction
