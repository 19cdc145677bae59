# SPDX-License-Identifier: Apache-2.0
"""A HAT without hardware, for `csp1d --simulate`.

At each read the ADC computes scans in the kernel's format for the time that has passed, and passes
them through a pipe; the P1 port is a pty; the request line and the LEDs are in memory. The scans
follow the configuration of the channels, so that what is measured is what the scenario says.
"""

import contextlib
import fcntl
import logging
import math
import os
import pty
import struct
import termios
import time
import tty
from collections.abc import Iterator

import numpy as np

from csp1d.config import ChannelConfig, Config, is_current
from csp1d.hat.device import Driver
from csp1d.hat.scenario import Request, Scenario, Step
from csp1d.measuring.arrays import Floats, Integers
from csp1d.measuring.ct import amperes_per_code
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.phase import Phase
from csp1d.scan_type import ScanType
from csp1d.units import MS_NS, SECOND_NS

log = logging.getLogger("csp1d")

_RANGE_MILLIVOLTS, _RANGE_MILLIAMPERES = 3300.0, 330_000.0
_DEFAULT_TYPE = "le:u16/16>>0"
_REFERENCE_VOLTS, _REFERENCE_AMPERES = 1.0, 10.0
_PIPE_BYTES = 4096
"""Passed through the pipe at a time: every pipe holds that."""

_TELEGRAM_NS = 100 * MS_NS
"""After this time a polling charge point has its telegram and drops the line."""

_WORK_NS = 300 * MS_NS
"""After this time it raises the line again."""


class SimulatedHat(Driver):
    """See `Hat`. Plays a scenario from its construction on."""

    is_simulated: bool = True

    def __init__(self, scenario: Scenario) -> None:
        super().__init__("simulated HAT")
        self.player = Player(scenario, time.monotonic_ns())
        self._line = SimulatedLine(self.player)
        self._port = SimulatedPort(self._line)
        # Never readable.
        self._fd = os.eventfd(0, os.EFD_CLOEXEC)

    @property
    def port_path(self) -> str:
        """The path at which a consumer reads the telegrams."""
        return self._port.path

    @property
    def wake_ns(self) -> int | None:
        return self._line.wake_ns

    def open_adc(self, config: Config) -> "SimulatedAdc":
        return SimulatedAdc(config, self.player)

    def open_request_line(self, config: Config) -> "SimulatedLine":
        return self._line

    def open_port(self, config: Config) -> "SimulatedPort":
        return self._port

    def open_led(self, name: str) -> "SimulatedLed":
        return SimulatedLed(f"simulated LED {name}")

    def changed(self) -> bool:
        self._line.play(time.monotonic_ns())
        return False


class Player:
    """The steps of a scenario in time, CLOCK_MONOTONIC."""

    def __init__(self, scenario: Scenario, start_ns: int) -> None:
        self._steps = [(start_ns + int(step.at_seconds * SECOND_NS), step) for step in scenario]

    def at(self, now_ns: int) -> Step:
        return [step for start_ns, step in self._steps if start_ns <= now_ns][-1]

    def next_ns(self, now_ns: int) -> int | None:
        return next((start_ns for start_ns, _ in self._steps if start_ns > now_ns), None)

    def spans(self, from_ns: int, to_ns: int) -> Iterator[tuple[int, int, Step]]:
        """Start, end and step of the parts between two times in which the ADC does not stall."""
        ends = [start_ns for start_ns, _ in self._steps[1:]] + [to_ns]
        for (start_ns, step), end_ns in zip(self._steps, ends, strict=True):
            first_ns = max(from_ns, start_ns + int(step.stall_seconds * SECOND_NS))
            last_ns = min(to_ns, end_ns)
            if first_ns < last_ns:
                yield first_ns, last_ns, step


class SimulatedAdc(Driver):
    """See `Adc`. An ADC on an ideal clock, with one code of noise."""

    rate_fault: str | None = None
    scale_doubts: tuple[str, ...] = ()
    reference_fault: str = ""
    in_blocks: bool = False

    def __init__(self, config: Config, player: Player) -> None:
        super().__init__(f"simulated ADC {config.adc.device}")
        self._player = player
        self._rate = float(config.adc.sampling_frequency_hz)
        self._direction = config.direction
        self._channels: list[tuple[Phase | None, ChannelConfig]] = [*config.channels.used().items()]
        if reference := config.reference():
            self._channels.append((None, reference))
        self.buffer_hertz = self._rate
        self._buffer_ns = int(config.adc.buffer_seconds * SECOND_NS)
        channels = [
            _channel(index, phase or "reference", channel)
            for index, (phase, channel) in enumerate(self._channels)
        ]
        timestamp = Timestamp(len(channels), ScanType.parse("le:s64/64>>0"))
        self.format = ScanFormat(self._rate, tuple(channels), timestamp)
        self._start_ns = time.monotonic_ns()
        self._next_scan = 0
        self._angle = 0.0
        self._noise = np.random.default_rng(1)
        self._fd, self._write_fd = os.pipe()
        for fd in (self._fd, self._write_fd):
            self._on_close.callback(os.close, fd)

    def resize(self, hertz: float) -> None:
        self.buffer_hertz = hertz

    def read(self) -> bytes:
        self._check_open()
        first_ns = self._start_ns + round(self._next_scan * SECOND_NS / self._rate)
        now_ns = time.monotonic_ns()
        # A full buffer drops new scans, as the kernel's does.
        full_ns = min(now_ns, first_ns + self._buffer_ns)
        data = b"".join(self._scans(span) for span in self._player.spans(first_ns, full_ns))
        self._next_scan = self._scan_at(now_ns)
        parts = []
        for start in range(0, len(data), _PIPE_BYTES):
            os.write(self._write_fd, data[start : start + _PIPE_BYTES])
            parts.append(os.read(self._fd, _PIPE_BYTES))
        return b"".join(parts)

    def _scan_at(self, time_ns: int) -> int:
        """The number of the first scan that is not before this time."""
        # A time is rounded to nanoseconds: one just before a scan stands for that scan's.
        return math.ceil((time_ns - self._start_ns) * self._rate / SECOND_NS - 1e-3)

    def _scans(self, span: tuple[int, int, Step]) -> bytes:
        from_ns, to_ns, step = span
        numbers = np.arange(self._scan_at(from_ns), self._scan_at(to_ns))
        records = np.zeros(len(numbers), self.format.record)
        records["timestamp"] = self._start_ns + np.round(numbers * (SECOND_NS / self._rate))
        turn = 2 * np.pi * step.frequency_hz / self._rate
        angles = self._angle + turn * np.arange(len(numbers))
        self._angle = float((self._angle + turn * len(numbers)) % (2 * np.pi))
        for number, (phase, config) in enumerate(self._channels):
            error = np.radians(config.phase_error_degrees)
            if phase:
                lag = np.radians(self._direction.lag_degrees(phase))
                amperes = step.amperes.get(phase, 0.0) * _shape(angles + error - lag, step)
                gain_error = step.gain_error_percent.get(phase)
                if gain_error is not None:
                    # The error is absolute: `_codes` divides by the configured gain.
                    amperes *= config.gain * (1 + gain_error / 100)
                amperes += step.shift_amperes.get(phase, 0.0)
            else:
                amperes = step.reference * self._reference(angles + error, config)
            records[str(number)] = self._codes(amperes, config, self.format.channels[number])
        return records.tobytes()

    def _reference(self, angles: Floats, config: ChannelConfig) -> Floats:
        """The current through a CT that would give the signal of the reference's channel."""
        amperes = _REFERENCE_AMPERES
        if self._direction.reference == "voltage":
            amperes = _REFERENCE_VOLTS / config.burden_ohms * config.ct_ratio
        elif self._direction.reference_flow == "producing":
            amperes = -amperes
        signal: Floats = amperes * np.sqrt(2) * np.sin(angles)
        return signal

    def _codes(self, amperes: Floats, config: ChannelConfig, channel: Channel) -> Integers:
        sign = -1 if config.reversed else 1
        exact = sign * amperes / config.gain / amperes_per_code(channel, config) - channel.offset
        # A code beyond all floats clips like any other.
        with np.errstate(over="ignore"):
            codes = np.rint(exact + self._noise.standard_normal(len(amperes)))
        lowest, highest = channel.type.lowest, channel.type.highest
        clipped: Integers = np.clip(codes, lowest, highest).astype(np.int64)
        return clipped << channel.type.shift


def _channel(index: int, phase: str, config: ChannelConfig) -> Channel:
    scan_type = ScanType.parse(config.type or _DEFAULT_TYPE)
    full_range = _RANGE_MILLIAMPERES if is_current(config.input) else _RANGE_MILLIVOLTS
    scale = config.scale_millivolts or full_range / 2**scan_type.bits
    offset = 0.0 if scan_type.signed else -(2.0 ** (scan_type.bits - 1))
    return Channel(config.input, phase, index, scan_type, scale, offset)


def _shape(angles: Floats, step: Step) -> Floats:
    """A current of 1 A RMS with the step's harmonics, at these angles of the fundamental."""
    parts = {1: 1.0} | {order: part / 100 for order, part in step.harmonics_percent.items()}
    wave = sum(part * np.sin(order * angles) for order, part in parts.items())
    shape: Floats = np.sqrt(2.0 / sum(part * part for part in parts.values())) * wave
    return shape


class SimulatedLine(Driver):
    """See `RequestLine`. Moves with the scenario, and as a polling charge point does."""

    poll_ns: int | None = None

    def __init__(self, player: Player) -> None:
        super().__init__("simulated request line")
        self._player = player
        self._high = False
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._drop_ns: int | None = None
        self._raise_ns: int | None = None
        self.wake_ns: int | None = 0

    def read_level(self) -> tuple[int, bool]:
        edges = 0
        with contextlib.suppress(BlockingIOError):
            edges = os.eventfd_read(self._fd)
        return edges, self._high

    def close(self) -> None:
        """Stays open: the HAT hands out this one line again."""

    def on_telegram(self) -> None:
        """The port has accepted bytes of a telegram."""
        now_ns = time.monotonic_ns()
        if self._player.at(now_ns).request is Request.POLL:
            self._drop_ns = now_ns + _TELEGRAM_NS
            self._plan(now_ns)

    def play(self, now_ns: int) -> None:
        """Make the moves that are due."""
        request = self._player.at(now_ns).request
        if request is not Request.POLL:
            self._drop_ns = self._raise_ns = None
            self._move(request is Request.HIGH)
        elif self._drop_ns is not None and now_ns >= self._drop_ns:
            self._drop_ns, self._raise_ns = None, now_ns + _WORK_NS
            self._move(False)
        elif self._drop_ns is None and now_ns >= (self._raise_ns or 0):
            self._raise_ns = None
            self._move(True)
        self._plan(now_ns)

    def _plan(self, now_ns: int) -> None:
        times = (self._player.next_ns(now_ns), self._drop_ns, self._raise_ns)
        self.wake_ns = min((time_ns for time_ns in times if time_ns is not None), default=None)

    def _move(self, high: bool) -> None:
        if high != self._high:
            self._high = high
            os.eventfd_write(self._fd, 1)


class SimulatedPort(Driver):
    """See `Port`. A pty: bytes that the consumer has not read count as not having left."""

    def __init__(self, line: SimulatedLine) -> None:
        super().__init__("simulated P1 port")
        self._line = line
        self._fd, self._consumer_fd = pty.openpty()
        tty.setraw(self._consumer_fd)
        os.set_blocking(self._fd, False)
        self.path = os.ttyname(self._consumer_fd)

    def write(self, data: bytes) -> int:
        try:
            count = os.write(self._fd, data)
        except BlockingIOError:
            return 0
        self._line.on_telegram()
        return count

    def waiting(self) -> int:
        # TIOCOUTQ is always 0 on a pty, but the other end reports the bytes waiting to be read.
        reply = fcntl.ioctl(self._consumer_fd, termios.FIONREAD, bytes(4))
        return int(struct.unpack("i", reply)[0])

    def flush(self) -> None:
        termios.tcflush(self._consumer_fd, termios.TCIFLUSH)

    def close(self) -> None:
        """Stays open, so that the path that was printed remains valid."""
        self.flush()


class SimulatedLed(Driver):
    """See `Led`. `Indicators` remembers what it shows."""

    def switch(self, on: bool) -> None:
        self._check_open()
        log.debug("%s %s", self._name, "on" if on else "off")

    def light(self, milliseconds: int) -> bool:
        self._check_open()
        log.debug("%s on for %d ms", self._name, milliseconds)
        return True
