# SPDX-License-Identifier: Apache-2.0
"""SIGHUP: read the configuration again and decide which parts it affects.

Parts that are not affected continue without a break. A rejected configuration changes nothing.
"""

import enum
import time
from dataclasses import replace
from pathlib import Path

from csp1d.config import Config, HttpConfig
from csp1d.config_file import doubts, load
from csp1d.errors import ConfigError
from csp1d.events import ActiveProblem, Event
from csp1d.interfaces import journal
from csp1d.interfaces.tls import Tls, load_certificates


class Part(enum.Enum):
    """A part of the daemon that can be reconfigured on its own."""

    SAMPLER = enum.auto()
    SENDER = enum.auto()
    INDICATORS = enum.auto()
    HTTP = enum.auto()
    SOCKET = enum.auto()


_MOST_PROBLEMS = 8
"""Limit for the reasons of a rejection that are kept; the journal has all."""


class Reloads:
    """The result of the last reload, and what is doubtful about the configuration in effect."""

    def __init__(self) -> None:
        self.successful = True
        self.success_timestamp_seconds = time.time()
        """Unix time of the start, or of the last successful reload."""
        self._rejected: list[ActiveProblem] = []
        self._doubtful: list[ActiveProblem] = []

    @property
    def problems(self) -> list[ActiveProblem]:
        """The reasons of a rejection until a reload succeeds, and the doubts."""
        return [*self._rejected, *self._doubtful]

    def read_again(self, named_file: Path | None) -> tuple[Config, Tls | None] | None:
        """Return the new configuration and its certificates, or None after logging why it is
        rejected.

        A certificate that cannot be used is a reason: the server keeps the one that it has.
        """
        self.successful = False
        try:
            config = load(named_file)
            tls = load_certificates(config.http, named_file)
        except ConfigError as error:
            messages = journal.log_rejected(error, "keeping the previous configuration")
            self._rejected = _problems(Event.CONFIGURATION_REJECTED, messages[:_MOST_PROBLEMS])
            return None
        except Exception:
            # A bug in reading a file must not end a sensor that works with the previous one.
            message = Event.INTERNAL_ERROR.log(
                "configuration rejected; keeping the previous configuration; please report this",
                exc_info=True,
            )
            self._rejected = _problems(Event.CONFIGURATION_REJECTED, [message])
            return None
        self.successful = True
        self.success_timestamp_seconds = time.time()
        self._rejected = []
        return config, tls

    def log_doubts(self, path: Path) -> None:
        """Log what may mislead the charge point although the configuration is valid."""
        messages = [
            Event.CONFIGURATION_DOUBTFUL.log(
                "%s", doubt, file=doubt.file, key=doubt.key, reason=doubt.reason
            )
            for doubt in doubts(path)
        ]
        self._doubtful = _problems(Event.CONFIGURATION_DOUBTFUL, messages)


def _problems(event: Event, messages: list[str]) -> list[ActiveProblem]:
    now_ns = time.monotonic_ns()
    return [ActiveProblem(event, "configuration", message, now_ns) for message in messages]


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


def _network(config: Config) -> tuple[HttpConfig, str]:
    """The part of the configuration that the server on the network depends on."""
    return replace(config.http, socket=""), config.site.name


def _telegrams(config: Config) -> tuple[object, ...]:
    """The part of the configuration that port, request line and telegrams depend on."""
    return config.p1, config.direction, config.channels.used().keys()


def _measurement(config: Config) -> tuple[object, ...]:
    """The part of the configuration that the ADC and the metering depend on."""
    # `export_current` only affects the telegram.
    direction = replace(config.direction, export_current="magnitude")
    fuse_amperes = config.site.main_fuse_amperes
    return config.adc, config.channels, config.measurement, direction, fuse_amperes
