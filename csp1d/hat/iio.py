# SPDX-License-Identifier: Apache-2.0
"""The ADC: a buffered capture of the kernel's Industrial I/O subsystem.

Set-up goes through sysfs, scans come from the character device (Documentation/ABI/testing/
sysfs-bus-iio, drivers/iio/industrialio-buffer.c). The device is opened before anything is
written, since the kernel lets one process in: who holds the node may disable a buffer that a
killed predecessor left running. Nobody polls the node: an unplug would not wake the poll, and one
read a second finds all scans there.
"""

import errno
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from csp1d.config import AdcConfig, ChannelConfig
from csp1d.errors import DeviceError
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

HRTIMER_PREFIX = "hrtimer:"
_WATERMARK_SECONDS = 0.02
"""Of a hardware FIFO: seldom enough to be cheap, often enough to be fresh."""


class IioAdc:
    """A running capture of the configured channels and the time stamp."""

    format: ScanFormat
    rate_fault: str | None = None
    reference_fault: str = ""

    def __init__(
        self,
        folder: Path,
        node: Path,
        adc: AdcConfig,
        channels: Mapping[Phase, ChannelConfig],
        reference: ChannelConfig | None = None,
        bus: Path = Path("/sys/bus/iio/devices"),
        configfs: Path = Path("/sys/kernel/config"),
    ) -> None:
        """`folder`: the device in sysfs; `node`: its character device. Raises DeviceError."""
        self._folder = folder
        self._bus = bus
        self._name = f"ADC {adc.device} ({folder.name})"
        self._buffer = next(
            (path for path in (folder / "buffer0", folder / "buffer") if path.is_dir()),
            folder / "buffer",
        )
        if not self._buffer.is_dir():
            raise DeviceError(
                f"{self._name} has no buffer: its driver can not capture continuously; "
                "use an ADC with an IIO buffer"
            )
        elements = [self._buffer, folder / "scan_elements"]
        self._elements = next((p for p in elements if [*p.glob("in_*_en")]), elements[-1])
        try:
            self._fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"{self._name}: {node} {_open_mend(error)}") from error
        try:
            self._set_up(adc, channels, reference, configfs)
        except BaseException as error:
            os.close(self._fd)
            if isinstance(error, ValueError):
                raise DeviceError(
                    f"{self._name}: its driver says what can not be: {error}"
                ) from error
            raise

    def _set_up(
        self,
        adc: AdcConfig,
        channels: Mapping[Phase, ChannelConfig],
        reference: ChannelConfig | None,
        configfs: Path,
    ) -> None:
        self._write(self._buffer / "enable", "0")
        rate = adc.sampling_frequency_hz
        holders = [self._folder]
        if adc.trigger:
            holders.append(self._attach_trigger(adc.trigger, rate, configfs))
        used = [*channels.values(), *([reference] if reference else [])]
        rate = self._set_rate(holders, rate, [channel.input for channel in used])
        selected, timestamp = self._select(channels, reference), self._select_timestamp()
        if not rate and timestamp is None:
            # Neither the driver nor the stamps tell it: the operator may.
            rate = adc.sampling_frequency_hz
        self.format = ScanFormat(rate, selected, timestamp)
        length = int(adc.buffer_seconds * (rate or adc.sampling_frequency_hz))
        self._read_bytes = length * 2 * self.format.scan_bytes
        # A watermark above the length is refused, whichever of the two is written first.
        self._write(self._buffer / "watermark", "1")
        self._write(self._buffer / "length", str(length))
        watermark = max(1, int(_WATERMARK_SECONDS * length / adc.buffer_seconds))
        self._write(self._buffer / "watermark", str(watermark))
        try:
            (self._buffer / "enable").write_text("1")
        except OSError as error:
            raise DeviceError(self._enable_mend(adc.trigger, error)) from error

    def read(self) -> bytes:
        """See `Adc.read`."""
        parts = []
        while True:
            try:
                part = os.read(self._fd, self._read_bytes)
            except BlockingIOError:
                break
            parts.append(part)
            if len(part) < self._read_bytes:
                break
        return b"".join(parts)

    def close(self) -> None:
        """Stop the capture; closing the node alone would not."""
        try:
            (self._buffer / "enable").write_text("0")
        finally:
            os.close(self._fd)

    def _select(
        self, channels: Mapping[Phase, ChannelConfig], reference: ChannelConfig | None
    ) -> tuple[Channel, ...]:
        """Enable just the elements that are used, and learn how they lie in a scan."""
        for enable in sorted(self._elements.glob("in_*_en")):
            self._write(enable, "0")
        selected = [
            self._enable(phase, config, f"channels.{phase}.input", f"channels.{phase}")
            for phase, config in channels.items()
        ]
        if reference:
            like = "channels.(direction.phase)"
            try:
                selected.append(self._enable("reference", reference, "direction.input", like))
            except (DeviceError, ValueError) as error:
                # The currents can be measured without it.
                self.reference_fault = str(error)
        return tuple(selected)

    def _enable(self, phase: str, config: ChannelConfig, key: str, table: str) -> Channel:
        """Add an element to the scans; where that raises, it is not one of them.

        `key` and `table` are where the configuration names it, and tells its type and scale.
        """
        element = self._elements / f"in_{config.input}"
        if not Path(f"{element}_en").exists():
            raise DeviceError(
                f"{self._name} has no input {config.input!r} for {key}; "
                f"it has: {', '.join(self._inputs()) or 'none'}"
            )
        declared = ScanType.parse(self._read(Path(f"{element}_type")))
        chosen = ScanType.parse(config.type) if config.type else declared
        if (chosen.storage_bits, chosen.repeat) != (declared.storage_bits, declared.repeat):
            raise DeviceError(
                f"{self._name}: {table}.type {config.type!r} does not fit: the driver "
                f"declares {str(declared)!r}, and storage and repeat can not be overridden"
            )
        channel = Channel(
            id=config.input,
            phase=phase,
            index=int(self._read(Path(f"{element}_index"))),
            type=chosen,
            scale=config.scale_millivolts or self._scale(config.input, table),
            offset=self._attribute(config.input, "offset") or 0.0,
        )
        self._write(Path(f"{element}_en"), "1")
        return channel

    def _select_timestamp(self) -> Timestamp | None:
        element = self._elements / "in_timestamp"
        if not Path(f"{element}_en").exists():
            return None
        self._write(Path(f"{element}_en"), "1")
        # The default, CLOCK_REALTIME, jumps.
        clock = self._folder / "current_timestamp_clock"
        if clock.exists():
            self._write(clock, "monotonic")
        return Timestamp(
            int(self._read(Path(f"{element}_index"))),
            ScanType.parse(self._read(Path(f"{element}_type"))),
        )

    def _inputs(self) -> list[str]:
        names = (path.name[len("in_") : -len("_en")] for path in self._elements.glob("in_*_en"))
        return sorted(name for name in names if name != "timestamp")

    def _scale(self, input_id: str, table: str) -> float:
        scale = self._attribute(input_id, "scale")
        if scale is None:
            raise DeviceError(
                f"{self._name} does not tell the scale of {input_id}; "
                f"set {table}.scale_millivolts (mV a code)"
            )
        return scale

    def _attribute(self, input_id: str, what: str) -> float | None:
        """A channel's attribute: its own, or the one that it shares with its kind."""
        for owner in (input_id, re.sub(r"\d+", "", input_id)):
            try:
                return float((self._folder / f"in_{owner}_{what}").read_text())
            except (OSError, ValueError):
                # Some drivers have the file and fail on reading it.
                continue
        return None

    def _set_rate(self, holders: list[Path], rate: float, inputs: Iterable[str]) -> float:
        """Ask for the rate where the driver takes it; what it is then, 0 where nobody tells."""
        owners = {"": None, **{f"in_{name}_": None for name in inputs}}
        owners |= {re.sub(r"\d+", "", owner): None for owner in owners}
        files = [holder / f"{owner}sampling_frequency" for holder in holders for owner in owners]
        actual = 0.0
        for file in filter(Path.exists, files):
            try:
                file.write_text(f"{rate:g}" if rate % 1 else str(int(rate)))
            except PermissionError as error:
                # A trigger that was just made runs at 100 Hz, and its file is root's, until udev
                # has seen to it.
                raise DeviceError(_write_mend(self._name, file, f"{rate:g}", error)) from error
            except OSError as error:
                available = Path(f"{file}_available")
                choices = self._read(available) if available.exists() else "not told"
                self.rate_fault = (
                    f"{self._name} does not take adc.sampling_frequency_hz = {rate:g} "
                    f"({error.strerror}); available: {choices}"
                )
            actual = float(self._read(file))
        return actual

    def _attach_trigger(self, trigger: str, rate: float, configfs: Path) -> Path:
        """Make the trigger if it is to be made, attach it, and see that it is attached."""
        name = trigger.removeprefix(HRTIMER_PREFIX)
        if trigger != name:
            try:
                (configfs / "iio/triggers/hrtimer" / name).mkdir(exist_ok=True)
            except OSError as error:
                raise DeviceError(
                    f"{self._name}: adc.trigger {trigger!r} can not be made "
                    f"({error.strerror}): load the module iio-trig-hrtimer and mount configfs"
                ) from error
        folder = next((path for path in self._triggers() if _name(path) == name), None)
        current = self._folder / "trigger/current_trigger"
        if folder is not None:
            self._write(current, name)
        # The kernel takes an unknown name without an error, and detaches.
        if folder is None or self._read(current) != name:
            known = ", ".join(filter(None, map(_name, self._triggers()))) or "none"
            raise DeviceError(
                f"{self._name}: adc.trigger {trigger!r} can not be attached; triggers: {known}"
            )
        return folder

    def _triggers(self) -> list[Path]:
        return sorted(self._bus.glob("trigger[0-9]*"))

    def _enable_mend(self, trigger: str, error: OSError) -> str:
        reason = f"{self._name} does not start capturing: {error.strerror}"
        if error.errno == errno.EINVAL and not trigger:
            known = ", ".join(filter(None, map(_name, self._triggers()))) or "none yet"
            reason += f"; it may need a trigger: set adc.trigger (triggers: {known})"
        return reason

    def _read(self, file: Path) -> str:
        try:
            return file.read_text().strip()
        except OSError as error:
            raise DeviceError(f"{self._name}: {file} can not be read: {error.strerror}") from error

    def _write(self, file: Path, value: str) -> None:
        try:
            file.write_text(value)
        except OSError as error:
            raise DeviceError(_write_mend(self._name, file, value, error)) from error


def _name(folder: Path) -> str:
    try:
        return (folder / "name").read_text().strip()
    except OSError:
        return ""


def _write_mend(name: str, file: Path, value: str, error: OSError) -> str:
    mend = ""
    if isinstance(error, PermissionError):
        mend = "; give the daemon's group the file (udev rule)"
    return f"{name}: {file} does not take {value!r}: {error.strerror}{mend}"


def _open_mend(error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return "is in use by another process; stop it first"
    if error.errno == errno.EACCES:
        return "may not be read; give the daemon's group the device (udev rule)"
    if error.errno == errno.EPERM:
        return "is kept from the service; restart it, its driver may have come later"
    return f"can not be opened: {error.strerror}"
