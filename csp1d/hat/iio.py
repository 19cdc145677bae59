# SPDX-License-Identifier: Apache-2.0
"""The ADC: a buffered capture of the kernel's Industrial I/O subsystem.

Set-up goes through sysfs, scans come from the character device (Documentation/ABI/testing/
sysfs-bus-iio, drivers/iio/industrialio-buffer.c). The device is opened before anything is written:
the kernel admits one process, which may then disable a buffer that a killed predecessor left
running. The node is not polled: an unplug would not wake the poll, and one read per second finds
all scans there.

A DMA buffer (industrialio-buffer-dmaengine.c) differs: it consists of two blocks of half its
`length`, which are read whole, and its `watermark` is one block and read-only. A block that is not
read before the other is full stops the capture. So the blocks are short, and each is read at once.

What a driver reports is believed, except where `adc_drivers` knows better.
"""

import contextlib
import errno
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from csp1d.config import HRTIMER_PREFIX, ChannelConfig, Config, is_current
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat import sysfs
from csp1d.hat.adc_drivers import driver_of, own_trigger
from csp1d.hat.device import Driver, open_error
from csp1d.measuring.scan import SLOWEST_HERTZ, Channel, ScanFormat, Timestamp
from csp1d.scan_type import ScanType

_WATERMARK_SECONDS = 0.02
"""Interval of reads from a hardware FIFO: long enough to be cheap, short enough to be fresh."""
_BLOCK_SECONDS = 0.1
"""Length of a DMA block: readings wait for it, and scans are lost if the daemon is late by it."""


class IioAdc(Driver):
    """See `Adc`. Captures the configured channels and the timestamp."""

    format: ScanFormat
    rate_fault: str | None = None
    scale_doubts: tuple[str, ...] = ()
    reference_fault: str = ""
    in_blocks: bool = False
    buffer_hertz: float

    def __init__(
        self,
        folder: Path,
        config: Config,
        bus: Path = sysfs.IIO_DEVICES,
        dev: Path = Path("/dev"),
        configfs: Path = Path("/sys/kernel/config"),
    ) -> None:
        """`folder`: the device in sysfs. Raises DeviceError."""
        super().__init__(f"ADC {config.adc.device} ({folder.name})")
        self._folder = folder
        self._bus = bus
        self._driver = driver_of(sysfs.text(folder / "name"))
        self._own_triggers = sysfs.own_triggers(folder)
        self._buffer = sysfs.buffer_folder(folder)
        if not self._buffer.is_dir():
            raise DeviceError(
                f"{self._name} has no buffer: its driver cannot capture continuously; "
                "use an ADC with an IIO buffer"
            )
        if self._driver.fault:
            raise DeviceError(f"{self._name}: {self._driver.fault}; use another ADC")
        self._elements = sysfs.element_folder(folder)
        node = dev / folder.name
        try:
            self._fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise open_error(f"{self._name}: {node}", error, "stop it first") from error
        self._on_close.callback(os.close, self._fd)
        try:
            self._set_up(config, configfs)
        except BaseException as error:
            self.close()
            if isinstance(error, ValueError):
                raise DeviceError(f"{self._name} reports an invalid value: {error}") from error
            raise
        # Closing the node would not stop the capture.
        self._on_close.callback((self._buffer / "enable").write_text, "0")

    def _set_up(self, config: Config, configfs: Path) -> None:
        self._adc = adc = config.adc
        self._write(self._buffer / "enable", "0")
        trigger = self._attach_trigger(adc.trigger, configfs) if adc.trigger else None
        used = (*config.channels.used().values(), config.reference())
        inputs = [channel.input for channel in used if channel]
        rate = self._set_rate(adc.sampling_frequency_hz, inputs, trigger)
        selected, timestamp = self._select(config), self._select_timestamp()
        if not rate and timestamp is None:
            # Neither the driver nor timestamps give the rate: use the configured one.
            rate = adc.sampling_frequency_hz
        self.format = ScanFormat(rate, selected, timestamp)
        self._stored_format = ScanFormat(rate, (*selected, *self._enable_gaps(selected)), timestamp)
        self.in_blocks = sysfs.is_read_only(self._buffer / "watermark")
        self._start(rate or adc.sampling_frequency_hz)

    def resize(self, hertz: float) -> None:
        """See `Adc.resize`."""
        before_hertz = self.buffer_hertz
        self._write(self._buffer / "enable", "0")
        try:
            self._start(hertz)
        except DeviceError:
            # The memory may not suffice, but did for the buffer before.
            self._start(before_hertz)
            self.buffer_hertz = hertz

    def _start(self, hertz: float) -> None:
        """Start the capture, with a buffer for this rate."""
        adc, self.buffer_hertz = self._adc, hertz
        length = self._two_blocks(hertz) if self.in_blocks else int(adc.buffer_seconds * hertz)
        # Twice the buffer, since the driver adds scans during a read.
        self._read_bytes = length * 2 * self._stored_format.scan_bytes
        # The kernel lowers a watermark that is above a new length.
        self._write(self._buffer / "length", str(length))
        if not self.in_blocks:
            # The kernel rejects 0, which a driver with a low rate would give.
            watermark = max(1, int(_WATERMARK_SECONDS * length / adc.buffer_seconds))
            self._write(self._buffer / "watermark", str(watermark))
        try:
            (self._buffer / "enable").write_text("1")
        except OSError as error:
            reason = f"{self._name} cannot start capturing: {error.strerror}"
            if error.errno == errno.EINVAL and (remedy := self._fitting_trigger()):
                reason += f"; {remedy}"
            elif error.errno == errno.EINVAL and not adc.trigger:
                known = ", ".join(sysfs.triggers(self._bus)) or "none yet"
                reason += f"; it may need a trigger: set adc.trigger (triggers: {known})"
            elif error.errno == errno.ENOMEM:
                reason += "; reduce adc.buffer_seconds or adc.sampling_frequency_hz"
            raise DeviceError(reason) from error

    def _two_blocks(self, rate: float) -> int:
        """The length of a DMA buffer, in scans. Its blocks are whole scans, and of a length that
        the DMA controller can transfer: it would drop the rest."""
        align = self._buffer / "length_align_bytes"
        align_bytes = max(1, int(self._read(align))) if align.exists() else 1
        step = align_bytes // math.gcd(align_bytes, self._stored_format.scan_bytes)
        return 2 * step * math.ceil(_BLOCK_SECONDS * rate / step)

    def read(self) -> bytes:
        """See `Adc.read`."""
        parts: list[bytes] = []
        # A block ends a read although another may follow.
        continued_bytes = 1 if self.in_blocks else self._read_bytes
        with contextlib.suppress(BlockingIOError):
            while not parts or len(parts[-1]) >= continued_bytes:
                parts.append(os.read(self.fileno(), self._read_bytes))
        return self._stored_format.select(b"".join(parts), self.format)

    def _select(self, config: Config) -> tuple[Channel, ...]:
        """Enable only the elements that are used, and read their layout in a scan."""
        for name in sysfs.elements(self._elements):
            self._write(self._elements / f"in_{name}_en", "0")
        selected = [
            self._enable(phase, channel, f"channels.{phase}.input", f"channels.{phase}")
            for phase, channel in config.channels.used().items()
        ]
        if reference := config.reference():
            table = f"channels.{config.direction.phase}"
            try:
                selected.append(self._enable("reference", reference, "direction.input", table))
            except (DeviceError, ValueError) as error:
                # The currents can be measured without it.
                self.reference_fault = str(error)
        return tuple(selected)

    def _enable(self, phase: str, config: ChannelConfig, key: str, table: str) -> Channel:
        """Add an element to the scans, unless this raises DeviceError or ValueError.

        `key` of the configuration names the input, `table` holds its type and scale.
        """
        element = self._elements / f"in_{config.input}"
        if not Path(f"{element}_en").exists():
            inputs = [name for name in sysfs.elements(self._elements) if name != "timestamp"]
            raise DeviceError(
                f"{self._name} has no input {config.input!r} for {key}; "
                f"it has: {', '.join(inputs) or 'none'}"
            )
        declared = ScanType.parse(self._read(Path(f"{element}_type")))
        stored = self._driver.stored(declared, sys.byteorder)
        chosen = ScanType.parse(config.type) if config.type else stored
        if (chosen.storage_bits, chosen.repeat) != (declared.storage_bits, declared.repeat):
            raise DeviceError(
                f"{self._name}: {table}.type {config.type!r} does not fit: the driver "
                f"declares {str(declared)!r}, and storage and repeat cannot be overridden"
            )
        scale = config.scale_millivolts or self._driver_scale(config.input, table)
        has_its_codes = (chosen.bits, chosen.shift) == (declared.bits, declared.shift)
        if not (has_its_codes or config.scale_millivolts):
            raise DeviceError(
                f"{self._name}: {table}.type {config.type!r} has other bits or another shift than "
                f"the driver's type {str(declared)!r}, so the driver's scale does not apply; "
                f"correct type, or set {table}.scale_millivolts too"
            )
        channel = Channel(
            id=config.input,
            phase=phase,
            index=int(self._read(Path(f"{element}_index"))),
            type=chosen,
            scale=scale,
            offset=self._offset(config.input),
        )
        try:
            Path(f"{element}_en").write_text("1")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise self._write_error(Path(f"{element}_en"), "1", error) from error
            remedy = 'direction.reference = "off"' if phase == "reference" else f'{key} = ""'
            raise DeviceError(
                f"{self._name} cannot capture {config.input} as well ({error.strerror}); "
                f"if it converts one input per scan, it serves one phase: set {remedy}"
            ) from error
        return channel

    def _offset(self, channel: str) -> float:
        if self._driver.has_false_offset:
            return 0.0
        return sysfs.channel_number(self._folder, channel, "offset") or 0.0

    def _enable_gaps(self, selected: tuple[Channel, ...]) -> Iterator[Channel]:
        """Enable the inputs before and between the selected ones if the driver stores them anyway.

        Their phase is their id: none has that.
        """
        used = {channel.index: channel for channel in selected}
        for name in sysfs.elements(self._elements) if self._driver.ignores_scan_mask else ():
            element = self._elements / f"in_{name}"
            index = int(self._read(Path(f"{element}_index")))
            if index < max(used) and index not in used:
                type_ = ScanType.parse(self._read(Path(f"{element}_type")))
                self._write(Path(f"{element}_en"), "1")
                yield Channel(name, name, index, type_, 0.0)

    def _driver_scale(self, channel: str, table: str) -> float:
        """The scale that the driver reports, noted in `scale_doubts` if it is too coarse."""
        scale, open_part = sysfs.channel_scale(self._folder, channel)
        unit = "mA" if is_current(channel) else "mV"
        remedy = f"set {table}.scale_millivolts ({unit} per code)"
        if scale is None:
            raise DeviceError(f"{self._name} does not report the scale of {channel}; {remedy}")
        if open_part > sysfs.COARSE:
            self.scale_doubts += (
                f"{self._name} reports the scale of {channel} rounded to {scale:g} {unit} per code:"
                f" currents may be wrong by {open_part:.1%}; {remedy}",
            )
        return scale

    def _select_timestamp(self) -> Timestamp | None:
        enable = self._elements / "in_timestamp_en"
        if not enable.exists():
            return None
        self._write(enable, "1")
        # The default, CLOCK_REALTIME, jumps.
        clock = self._folder / "current_timestamp_clock"
        if clock.exists():
            self._write(clock, "monotonic")
        return Timestamp(
            int(self._read(self._elements / "in_timestamp_index")),
            ScanType.parse(self._read(self._elements / "in_timestamp_type")),
        )

    def _set_rate(self, rate: float, inputs: Iterable[str], trigger: Path | None) -> float:
        """Request the rate in hertz. Returns the rate in force, 0 where it is not known."""
        # Wide attributes before narrow ones and the trigger's, which override them.
        files: dict[Path, list[Path]] = {}
        for name in inputs:
            available = sysfs.attributes(self._folder, name, "sampling_frequency_available")
            own = sysfs.attributes(self._folder, name, "sampling_frequency")
            files |= dict.fromkeys(reversed(own), available)
        timer = trigger and trigger / "sampling_frequency"
        if timer and timer.exists():
            files[timer] = []
        actual = 0.0
        for file, available in files.items():
            fault = None
            unit = self._driver.hertz_per_unit if file.parent == self._folder else 1
            number = rate / (unit or 1)
            try:
                file.write_text(f"{number:.9g}")
            except OSError as error:
                if isinstance(error, PermissionError) and not sysfs.is_read_only(file):
                    # A new trigger runs at 100 Hz; its file is root's until udev has handled it.
                    raise self._write_error(file, f"{rate:.9g}", error) from error
                choices = self._driver.in_hertz(" ".join(map(sysfs.text, available[:1])))
                fault = (
                    f"{self._name} rejects adc.sampling_frequency_hz = {rate:.9g} "
                    f"({error.strerror}); available: {choices or 'not reported'}"
                )
            actual = float(self._read(file)) * unit
            # A timer starts the scans, whatever else such an ADC reports.
            if actual != rate and (unit or timer not in files):
                self.rate_fault = fault or self.rate_fault
        # Below that it is of no use, or in another unit: timestamps or the reads give it.
        return actual if actual >= SLOWEST_HERTZ else 0.0

    def _attach_trigger(self, trigger: str, configfs: Path) -> Path:
        """Attach the trigger, created first with `HRTIMER_PREFIX`; returns its folder."""
        name = trigger.removeprefix(HRTIMER_PREFIX)
        if trigger != name:
            try:
                (configfs / "iio/triggers/hrtimer" / name).mkdir(exist_ok=True)
            except OSError as error:
                remedies = {
                    errno.EEXIST: "; another trigger has this name: choose another",
                    errno.ENOENT: ": load the module iio-trig-hrtimer and mount configfs",
                    errno.EACCES: "; restart csp1d: its service makes the folder writable",
                    errno.EROFS: "; restart csp1d: its service makes the folder writable",
                }
                raise DeviceError(
                    f"{self._name}: adc.trigger {trigger!r} cannot be created "
                    f"({error.strerror}){remedies.get(error.errno or 0, '')}"
                ) from error
        if trigger == name:
            name = own_trigger(name, self._own_triggers)
        triggers = sysfs.triggers(self._bus)
        current = self._folder / "trigger/current_trigger"
        reason = ""
        if name in triggers:
            try:
                current.write_text(name)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise self._write_error(current, name, error) from error
                reason = f" ({error.strerror})"
        # The kernel accepts an unknown name without an error, and detaches.
        if reason or name not in triggers or self._read(current) != name:
            raise DeviceError(
                f"{self._name}: adc.trigger {trigger!r} cannot be attached{reason}; "
                + (self._fitting_trigger() or f"triggers: {', '.join(triggers) or 'none'}")
            )
        return triggers[name]

    def _fitting_trigger(self) -> str:
        """The remedy if the ADC has a trigger made for it that is not attached, else ""."""
        fitting = self._driver.fitting_triggers(self._own_triggers, sysfs.triggers(self._bus))
        if not fitting or sysfs.text(self._folder / "trigger/current_trigger") in fitting:
            return ""
        return f"set adc.trigger to the trigger of this ADC: {', '.join(fitting)}"

    def _read(self, file: Path) -> str:
        try:
            return sysfs.read(file)
        except OSError as error:
            raise DeviceError(f"{self._name}: {file} cannot be read: {error.strerror}") from error

    def _write(self, file: Path, value: str) -> None:
        try:
            file.write_text(value)
        except OSError as error:
            raise self._write_error(file, value, error) from error

    def _write_error(self, file: Path, value: str, error: OSError) -> DeviceError:
        return DeviceError(
            f"{self._name}: {file} rejects {value!r}: {error.strerror}{sysfs.write_remedy(error)}"
        )


def find_adc(wanted: str, bus: Path = sysfs.IIO_DEVICES) -> Path:
    """The folder of the one IIO device with this name, label or number. Raises DeviceError."""
    names = {}
    for folder in sorted(bus.glob("iio:device*")):
        titles = (folder.name, sysfs.text(folder / "name"), sysfs.text(folder / "label"))
        names[folder] = [title for title in titles if title]
    found = [folder for folder in names if wanted in names[folder]]
    if not found:
        known = ", ".join(map(" ".join, names.values())) or "none"
        raise DeviceAbsentError(
            f"ADC {wanted!r} not found; IIO devices: {known} "
            "(adc.device accepts a name, a label or iio:deviceN)"
        )
    if len(found) > 1:
        choices = ", ".join(folder.name for folder in found)
        raise DeviceError(
            f"ADC name {wanted!r} is ambiguous ({len(found)} devices: {choices}); "
            "set adc.device to one of them"
        )
    return found[0]
