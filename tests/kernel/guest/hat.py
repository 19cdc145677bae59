# SPDX-License-Identifier: Apache-2.0
"""Handle of the virtual HAT: feed scans, drive the request line, read the output.

Runs as root in the guest, on the kernel module csp1_hat; tests/kernel/module/csp1_hat.c describes
its files.  All times are CLOCK_MONOTONIC nanoseconds, the clock of
``time.monotonic_ns()``.

    hat = Hat()
    with Feeder(hat.adc, rate=4000, amperes=(24, 10.5, 0)) as feeder:
        hat.line.set(True)
        ...
        feeder.stall(2.5)
    telegrams = hat.tty.received()
"""

from __future__ import annotations

import errno
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

CONTROL = Path("/sys/kernel/debug/csp1_hat")
DEVICE = Path("/sys/devices/platform/csp1_hat")
LED_NAMES = ("csp1:yellow:power", "csp1:yellow:current", "csp1:yellow:p1")
TTY = "/dev/ttyHAT0"

# The sizes of the module's logs: a full one says that something is missing.
LEDS_LOG_RECORDS = 1 << 16
LINE_LOG_RECORDS = 1 << 18
TTY_LOG_RECORDS = 1 << 20

CHANNELS = 4
MILLIVOLTS_PER_AMPERE = 10.0  # 2000:1 into 20 ohm
FEED_SECONDS = 0.05
FEED_SCANS = 1 << 16


class _Part:
    """A part of the board that can be unplugged and come back; what stays open stays dead."""

    def __init__(self, part: str) -> None:
        self._plug_file = CONTROL / f"{part}_plugged"

    @property
    def plugged(self) -> bool:
        """Whether the kernel has the device."""
        return _read(self._plug_file) == "1"

    def plug(self) -> None:
        """Let the device appear.  Returns before udev has seen to its node."""
        _write(self._plug_file, "1")

    def unplug(self) -> None:
        """Remove the device, even while it is in use.

        EBUSY where the kernel cannot stand that: the GPIO chip before 6.9.
        """
        _write(self._plug_file, "0")


class Adc(_Part):
    """The IIO device ``csp1-hat-adc``: voltage0 to 3 and a timestamp; the test makes the bytes."""

    def __init__(self) -> None:
        super().__init__("adc")

    def configure(
        self,
        *,
        scan_type: str | None = None,
        triggered: bool | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        separate: bool | None = None,
    ) -> None:
        """Replace the ADC by another one; None keeps a property.

        ``scan_type`` is that of all channels, as in "be:u12/16>>4".  ``scale`` (millivolts a step)
        and ``offset`` are one value or four; an empty sequence leaves the attribute out.
        ``separate`` gives each channel its own files.  ``triggered`` asks for an IIO trigger before
        the buffer can be enabled.
        """
        self.unplug()
        flags = (("adc_triggered", triggered), ("adc_separate", separate))
        settings = {name: str(int(flag)) for name, flag in flags if flag is not None}
        if scan_type is not None:
            settings["adc_type"] = scan_type
        for name, value in (("adc_scale", scale), ("adc_offset", offset)):
            if value is not None:
                values = [value] if isinstance(value, (int, float)) else value
                settings[name] = " ".join(f"{float(one):.9f}" for one in values) or "none"
        for name, text in settings.items():
            _write(CONTROL / name, text)
        self.plug()

    @property
    def device(self) -> Path:
        """Its directory in /sys; another one if it came back while a reader held the last one."""
        for path in DEVICE.glob("iio:device*"):
            return path
        raise FileNotFoundError(errno.ENOENT, "no IIO device: the ADC is unplugged", str(DEVICE))

    @property
    def node(self) -> Path:
        """Its character device."""
        return Path("/dev") / self.device.name

    @property
    def enabled(self) -> bool:
        """Whether the buffer is on."""
        return self.enabled_ns != 0

    @property
    def enabled_ns(self) -> int:
        """When the buffer was enabled, 0 while it is off."""
        return int(_read(CONTROL / "adc_enabled_ns"))

    @property
    def scan_bytes(self) -> int:
        """Size of a scan as the kernel has it now, 0 while the buffer is off."""
        return int(_read(CONTROL / "adc_scan_bytes"))

    def fail(self, number: int) -> None:
        """Let its attributes and the enabling of its buffer fail with this errno; 0: work again."""
        _write(CONTROL / "adc_errno", str(number))

    @property
    def dropped(self) -> int:
        """Scans that a full buffer has refused since the module was loaded."""
        return int(_read(CONTROL / "adc_dropped"))

    def push(self, data: bytes) -> None:
        """Put whole scans into the buffer, byte for byte.

        EAGAIN: the buffer is off.  ENODEV: the ADC is unplugged.  EINVAL: not whole scans.
        """
        with PushFile() as file:
            file.push(data)


class PushFile:
    """The input of the buffer while it stays enabled; afterwards it returns EAGAIN."""

    def __init__(self) -> None:
        self._fd = os.open(CONTROL / "adc_push", os.O_WRONLY | os.O_CLOEXEC)

    def push(self, data: bytes) -> None:
        os.write(self._fd, data)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> PushFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Channel:
    """How amperes become the bytes of one channel."""

    number: int
    index: int
    big_endian: bool
    signed: bool
    bits: int
    storage_bits: int
    shift: int
    scale: float
    offset: float

    @classmethod
    def of(cls, device: Path, number: int) -> _Channel:
        element = device / "scan_elements" / f"in_voltage{number}"
        text = _read(Path(f"{element}_type"))
        match = re.fullmatch(r"([bl])e:([su])(\d+)/(\d+)>>(\d+)", text)
        if match is None:
            raise ValueError(f"{element}_type: {text!r} is not understood here")
        endian, sign, bits, storage_bits, shift = match.groups()
        return cls(
            number=number,
            index=int(_read(Path(f"{element}_index"))),
            big_endian=endian == "b",
            signed=sign == "s",
            bits=int(bits),
            storage_bits=int(storage_bits),
            shift=int(shift),
            scale=_attribute(device, number, "scale", 1.0),
            offset=_attribute(device, number, "offset", 0.0),
        )

    @property
    def dtype(self) -> str:
        return f"{'>' if self.big_endian else '<'}u{self.storage_bits // 8}"

    @property
    def bias(self) -> float:
        """The code of 0 mV. Unsigned and without an offset: the circuit is biased to mid-scale."""
        return 2.0 ** (self.bits - 1) if not self.signed and self.offset == 0 else -self.offset

    @property
    def low(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0


@dataclass(frozen=True)
class _Layout:
    """The scan as enabled: every element aligned to its own size, the whole to the largest."""

    channels: tuple[_Channel, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, device: Path) -> _Layout:
        elements = device / "scan_elements"
        enabled = [n for n in range(CHANNELS) if _read(elements / f"in_voltage{n}_en") == "1"]
        channels = tuple(
            sorted((_Channel.of(device, n) for n in enabled), key=lambda channel: channel.index)
        )
        fields = [(f"voltage{channel.number}", channel.dtype) for channel in channels]
        if _read(elements / "in_timestamp_en") == "1":
            fields.append(("timestamp", "<i8"))
        offsets: list[int] = []
        end = largest = 0
        for _, form in fields:
            size = np.dtype(form).itemsize
            offsets.append(-(-end // size) * size)
            end = offsets[-1] + size
            largest = max(largest, size)
        dtype = np.dtype(
            {
                "names": [name for name, _ in fields],
                "formats": [form for _, form in fields],
                "offsets": offsets,
                "itemsize": -(-end // largest) * largest,
            }
        )
        return cls(channels, dtype)

    def words(self, millivolts: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
        """Codes as stored, (scans, channels): rounded, clipped like those of a real converter,
        unused bits zero.
        """
        # All channels at once, since calls are expensive under emulation.
        scale, bias, low, high = np.array(
            [(c.scale, c.bias, c.low, c.low + (1 << c.bits) - 1) for c in self.channels]
        ).T
        codes = np.minimum(np.maximum(np.rint(millivolts / scale + bias), low), high)
        whole = codes.astype(np.int64)
        for column, channel in enumerate(self.channels):
            if channel.signed and channel.bits >= 16 and not millivolts[:, column].any():
                # One code of dither: inputs that stand still are those of an ADC that does not
                # answer.
                whole[::2, column] += 1
        masks, shifts = np.array(
            [((1 << c.bits) - 1, c.shift) for c in self.channels], dtype=np.uint64
        ).T
        words: npt.NDArray[np.uint64] = (whole.view(np.uint64) & masks) << shifts
        return words


class Made(NamedTuple):
    """Scans that the kernel's buffer took without a gap, up to where the next would have been."""

    start_ns: int
    end_ns: int
    amperes: tuple[float, ...]


class Feeder:
    """Converts currents in real time, as the ADC of a HAT would, while the buffer is on.

    Scan n is made at t0 + n/rate, exactly; ``rate`` and ``frequency`` are hertz.  ``amperes`` are
    RMS, harmonics included, for voltage0 and on; ``angles`` are degrees; ``harmonics`` are
    fractions of the fundamental by order; ``noise`` is the RMS of white noise, in amperes.  A stamp
    is up to ``jitter_ns`` late.  The kernel gets the scans about every ``feed_seconds``.  What is
    made while the buffer is off or the device away is lost, as it should be.  An error in the
    thread is raised when the block ends.
    """

    def __init__(
        self,
        adc: Adc,
        rate: float = 4000,
        amperes: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        frequency: float = 50.02,
        angles: Sequence[float] = (0.0, -120.0, 120.0, 0.0),
        harmonics: Mapping[int, float] | None = None,
        jitter_ns: int = 0,
        feed_seconds: float = FEED_SECONDS,
    ) -> None:
        self._adc = adc
        self._feed_seconds = feed_seconds
        self._rate = Fraction(rate).limit_denominator(1000)
        self._jitter_ns = jitter_ns
        self._random = np.random.default_rng(1)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self._error: BaseException | None = None
        self._file: PushFile | None = None
        self._layout: _Layout | None = None
        self._next = 0  # number of the first scan not yet made
        self._left_out: list[
            tuple[int, int]
        ] = []  # numbers of scans that are never made, first and end
        self._turns = 0.0  # of the mains at scan number _turns_at
        self._turns_at = 0
        self._pushed = 0
        self.made: list[Made] = []
        self._noise = 0.0
        self.set(amperes=amperes, frequency=frequency, angles=angles, harmonics=harmonics or {})
        self._t0 = time.monotonic_ns()

    def set(
        self,
        *,
        amperes: Sequence[float] | None = None,
        frequency: float | None = None,
        angles: Sequence[float] | None = None,
        harmonics: Mapping[int, float] | None = None,
        noise: float | None = None,
    ) -> None:
        """Change the mains or the load from the next scans on; None keeps a value."""
        with self._lock:
            if amperes is not None:
                self._amperes = _four(amperes)
            if frequency is not None:
                self._frequency = frequency
            if angles is not None:
                self._angles = _four(angles)
            if harmonics is not None:
                self._harmonics = dict(harmonics)
            if noise is not None:
                self._noise = noise

    def stall(self, seconds: float) -> int:
        """Generate no scans for some seconds.  Returns the time of the first missing scan."""
        now = time.monotonic_ns()
        return self._leave_out(self._number(now + round(seconds * 1e9)) - self._number(now))

    def hole(self, scans: int) -> int:
        """Omit a number of scans from now.  Returns the time of the first missing scan."""
        return self._leave_out(scans)

    @property
    def pushed(self) -> int:
        """Scans handed to the kernel so far; those that its buffer refused are in Adc.dropped."""
        with self._lock:
            return self._pushed

    def __enter__(self) -> Feeder:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._let_go()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._feed_seconds):
                try:
                    self._feed()
                except OSError as error:
                    # ENOENT is sysfs's word for a device that went away meanwhile.
                    if error.errno not in (errno.EAGAIN, errno.ENODEV, errno.ENOENT):
                        raise
                    self._let_go()
        except BaseException as error:
            self._error = error

    def _feed(self) -> None:
        if self._file is None and not self._begin():
            return
        assert self._file is not None
        assert self._layout is not None
        end = self._number(time.monotonic_ns())
        while self._next < end:
            stop = min(end, self._next + FEED_SCANS)
            with self._lock:
                numbers, data = self._scans(self._layout, self._next, stop)
                amperes = self._amperes[:3]
            dropped = self._adc.dropped
            if data:
                self._file.push(data)
            self._next = stop  # After the push: of what was refused nothing was delivered.
            with self._lock:
                self._pushed += len(numbers)
            # A full buffer refuses the newest.
            self._note(numbers[: len(numbers) - (self._adc.dropped - dropped)], amperes)

    def _note(self, numbers: npt.NDArray[np.int64], amperes: tuple[float, ...]) -> None:
        if not numbers.size:
            return
        runs = [numbers]
        if numbers[-1] - numbers[0] >= numbers.size:
            runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
        for run in runs:
            start_ns, end_ns = (int(ns) for ns in self._stamps(np.array([run[0], run[-1] + 1])))
            last = self.made[-1] if self.made else None
            if last and last.end_ns == start_ns and last.amperes == amperes:
                self.made[-1] = last._replace(end_ns=end_ns)
            else:
                self.made.append(Made(start_ns, end_ns, amperes))

    def _begin(self) -> bool:
        """Take up an enabling of the buffer, from its start.  False while it is off."""
        # First: if the buffer is enabled again in the middle of this, the file refuses.
        self._file = PushFile()
        since = self._adc.enabled_ns
        if not since:
            self._let_go()
            return False
        self._layout = _Layout.of(self._adc.device)
        scan_bytes = self._adc.scan_bytes
        if scan_bytes != self._layout.dtype.itemsize and self._adc.enabled_ns == since:
            raise AssertionError(
                f"the kernel's scan has {scan_bytes} bytes, expected {self._layout.dtype}"
            )
        self._next = max(self._number(since), self._next)
        return True

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _number(self, ns: int) -> int:
        """Number of the first scan at or after ``ns``."""
        return max(0, -((self._t0 - ns) * self._rate.numerator // (10**9 * self._rate.denominator)))

    def _stamps(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Times of the scans of these numbers, on the grid to the nanosecond (rounded down)."""
        # In whole numbers; relative to the first one, so that 64 bits are enough.
        second = 10**9 * self._rate.denominator
        base, rest = divmod(int(numbers[0]) * second, self._rate.numerator)
        stamps: npt.NDArray[np.int64] = (
            self._t0 + base + (rest + (numbers - numbers[0]) * second) // self._rate.numerator
        )
        return stamps

    def _leave_out(self, scans: int) -> int:
        with self._lock:
            first = max(
                self._number(time.monotonic_ns()), self._left_out[-1][1] if self._left_out else 0
            )
            self._left_out.append((first, first + scans))
        return int(self._stamps(np.array([first]))[0])

    def _scans(self, layout: _Layout, first: int, end: int) -> tuple[npt.NDArray[np.int64], bytes]:
        """The scans ``first`` to ``end``, less those that are left out: their numbers, and their
        bytes.
        """
        self._left_out = [span for span in self._left_out if span[1] > first]
        numbers: npt.NDArray[np.int64] = np.arange(first, end, dtype=np.int64)
        for out_first, out_end in self._left_out:
            numbers = numbers[(numbers < out_first) | (numbers >= out_end)]
        rate = float(self._rate)
        turns = self._turns + (numbers - self._turns_at) * (self._frequency / rate)
        self._turns = (self._turns + (end - self._turns_at) * (self._frequency / rate)) % 1.0
        self._turns_at = end
        if not numbers.size:
            return numbers, b""
        shares = {1: 1.0, **self._harmonics}
        peak = MILLIVOLTS_PER_AMPERE * math.sqrt(
            2.0 / sum(share * share for share in shares.values())
        )
        amperes, angles = np.array(
            [(self._amperes[c.number], self._angles[c.number]) for c in layout.channels]
        ).T
        phases = 2 * math.pi * (turns[:, np.newaxis] + angles / 360.0)
        waves = sum(share * np.sin(order * phases) for order, share in shares.items())
        millivolts = peak * amperes * waves
        if self._noise:
            noise = self._random.standard_normal(phases.shape)
            millivolts += MILLIVOLTS_PER_AMPERE * self._noise * noise
        words = layout.words(millivolts)
        scans = np.zeros(numbers.size, layout.dtype)
        for column, channel in enumerate(layout.channels):
            scans[f"voltage{channel.number}"] = words[:, column]
        if "timestamp" in (layout.dtype.names or ()):
            scans["timestamp"] = self._stamps(numbers)
            if self._jitter_ns:
                late = self._random.integers(0, self._jitter_ns, numbers.size, endpoint=True)
                scans["timestamp"] += late
        return numbers, scans.tobytes()


class Line(_Part):
    """The request line, line 0 ``P1_REQUEST`` of the GPIO chip labelled ``csp1-hat``."""

    def __init__(self) -> None:
        super().__init__("gpio")

    @property
    def chip(self) -> Path:
        """Character device of the chip."""
        for path in DEVICE.glob("gpiochip*"):
            return Path("/dev") / path.name
        raise FileNotFoundError(errno.ENOENT, "no GPIO chip: it is unplugged", str(DEVICE))

    @property
    def level(self) -> bool:
        """The physical level."""
        return _read(CONTROL / "line") == "1"

    def set(self, level: bool) -> None:
        """Drive the line."""
        _write(CONTROL / "line", str(int(level)))

    def storm(self, half_period_us: int, edges: int, *, wait: bool = True) -> None:
        """Toggle the line ``edges`` times, in the kernel.  With ``wait`` it is over on return."""
        _write(CONTROL / "line_storm", f"{half_period_us} {edges}")
        while wait and self.storm_left:
            time.sleep(0.01)

    def log(self) -> npt.NDArray[np.void]:
        """Every change, a structured array: ``ns`` and the new ``level``."""
        return _log("line_log", [("ns", "<u8"), ("level", "<u8")], LINE_LOG_RECORDS)

    def clear(self) -> None:
        """Forget the changes so far."""
        _write(CONTROL / "line_log", "0")

    @property
    def storm_left(self) -> int:
        """Edges still to come."""
        return int(_read(CONTROL / "line_storm"))


class LedChange(NamedTuple):
    """An LED was switched."""

    ns: int
    name: str
    brightness: int


class Leds(_Part):
    """The three LEDs, and their changes."""

    def __init__(self) -> None:
        super().__init__("leds")

    def log(self) -> list[LedChange]:
        """All changes since ``clear()``; setting an LED to its present state is no change."""
        records = _log(
            "leds_log", [("ns", "<u8"), ("led", "<u4"), ("brightness", "<u4")], LEDS_LOG_RECORDS
        )
        return [
            LedChange(int(ns), LED_NAMES[led], int(brightness)) for ns, led, brightness in records
        ]

    def clear(self) -> None:
        """Forget the changes so far."""
        _write(CONTROL / "leds_log", "0")

    def brightness(self, name: str) -> int:
        """Brightness in /sys/class/leds now."""
        return int(_read(Path("/sys/class/leds") / name / "brightness"))


class Tty(_Part):
    """The serial port /dev/ttyHAT0; bytes leave on its wire at the speed that termios says."""

    def __init__(self) -> None:
        super().__init__("tty")

    def log(self) -> npt.NDArray[np.void]:
        """Every byte sent, a structured array: ``ns`` (end of its stop bit) and ``byte``."""
        return _log("tty_log", [("ns", "<u8"), ("byte", "<u8")], TTY_LOG_RECORDS)

    def received(self) -> bytes:
        """The bytes received at the other end of the wire."""
        return self.log()["byte"].astype(np.uint8).tobytes()

    def clear(self) -> None:
        """Forget the bytes so far."""
        _write(CONTROL / "tty_log", "0")

    @property
    def stuck(self) -> bool:
        """Whether the wire is blocked; the output buffer (4096 bytes) still fills."""
        return _read(CONTROL / "tty_stuck") == "1"

    @stuck.setter
    def stuck(self, stuck: bool) -> None:
        _write(CONTROL / "tty_stuck", str(int(stuck)))

    @property
    def adapter(self) -> bool:
        """Whether the port behaves as a USB adapter: a flush does nothing, and the 128 bytes that
        leave next do not count as waiting.
        """
        return _read(CONTROL / "tty_adapter") == "1"

    @adapter.setter
    def adapter(self, adapter: bool) -> None:
        _write(CONTROL / "tty_adapter", str(int(adapter)))


class Hat:
    """The whole board.  Raises FileNotFoundError while the module is not loaded."""

    def __init__(self) -> None:
        if not CONTROL.is_dir():
            raise FileNotFoundError(
                errno.ENOENT, "the HAT's module is not loaded (insmod csp1_hat.ko)", str(CONTROL)
            )
        self.adc = Adc()
        self.line = Line()
        self.leds = Leds()
        self.tty = Tty()

    @staticmethod
    def load(module: Path, **parameters: int) -> Hat:
        """Load the kernel object and what it stands on.  Parameters: ``adc_plugged=0`` and such."""
        needed = ["kfifo_buf", "industrialio-triggered-buffer", "ledtrig-oneshot"]
        subprocess.run(["modprobe", "-a", *needed], check=True)
        settings = [f"{name}={value}" for name, value in parameters.items()]
        subprocess.run(["insmod", str(module), *settings], check=True)
        return Hat()

    def unload(self) -> None:
        """Remove the module.  No process may have one of its devices open."""
        self.adc.unplug()  # A trigger that is still attached to it would hold the module.
        subprocess.run(["rmmod", "csp1_hat"], check=True)


def _read(path: Path) -> str:
    return path.read_text().strip()


def _write(path: Path, text: str) -> None:
    # Not O_CREAT: in a directory that has vanished the honest error is ENOENT.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _log(name: str, fields: list[tuple[str, str]], records: int) -> npt.NDArray[np.void]:
    log: npt.NDArray[np.void] = np.frombuffer((CONTROL / name).read_bytes(), np.dtype(fields))
    if log.size == records:
        raise OverflowError(f"{CONTROL / name} is full: clear it more often")
    return log


def _attribute(device: Path, number: int, name: str, default: float) -> float:
    for path in (device / f"in_voltage{number}_{name}", device / f"in_voltage_{name}"):
        if path.exists():
            return float(_read(path))
    return default


def _four(values: Sequence[float]) -> tuple[float, ...]:
    if len(values) > CHANNELS:
        raise ValueError(f"{len(values)} values for {CHANNELS} channels")
    return (*values, *[0.0] * (CHANNELS - len(values)))
