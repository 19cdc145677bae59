# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an IIO buffer to raw codes.

A scan holds one element of every enabled channel, by index, and the timestamp last. Where an
element stands and how long a scan is follow from the types alone, by the kernel's own rules:
`iio_storage_bytes_for_si` and `iio_compute_scan_bytes` in drivers/iio/industrialio-buffer.c, and
`iio_push_to_buffers_with_timestamp` in include/linux/iio/buffer.h (the same in 6.1 and 6.12).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from csp1d.errors import ScanFormatError
from csp1d.measuring.arrays import Array, Integers
from csp1d.scan_type import ScanType

SLOWEST_HERTZ, FASTEST_HERTZ = 200.0, 1e7
"""Sampling frequencies that can be measured with. Below four scans a mains cycle the result depends
on where in the cycle they fall."""

LARGEST = 1e12
"""Greatest scale and offset either way: what is made of them with any configuration is finite."""


@dataclass(frozen=True)
class Channel:
    """One element of a scan besides the timestamp."""

    id: str
    """IIO channel id, such as "voltage0"."""
    phase: str
    """"L1", "L2", "L3" or "reference"."""
    index: int
    type: ScanType
    scale: float
    """Millivolts a code."""
    offset: float = 0.0
    """Codes, added before scaling."""


@dataclass(frozen=True)
class Timestamp:
    """The timestamp element."""

    index: int
    type: ScanType


@dataclass(frozen=True)
class Scans:
    """Decoded scans."""

    codes: tuple[Array, ...]
    """For each channel of the format: (scans,), or (scans, repeat) where it repeats. They may lie
    scattered in the bytes that they came from."""
    timestamps: Integers | None
    """(scans,), nanoseconds, or None where the format has none."""


def word_dtype(scan_type: ScanType) -> np.dtype[Any]:
    """The storage word of an element, in the byte order of the scan."""
    sign, order = "i" if scan_type.signed else "u", ">" if scan_type.big_endian else "<"
    return np.dtype(f"{order}{sign}{scan_type.storage_bits // 8}")


def codes_of(words: Array, scan_type: ScanType) -> Array:
    """Codes of storage words (any shape), as integers of the storage's width.

    Drops the bits above and below the code, which may hold other data: one shift to the left
    and one to the right do that and extend the sign. Without such bits the words are the codes.
    """
    above = scan_type.storage_bits - scan_type.shift - scan_type.bits
    if above or scan_type.shift:
        words = words.astype(words.dtype.newbyteorder("="))
        words <<= above
        words >>= above + scan_type.shift
    return words


def _align(position: int, length: int) -> int:
    # The kernel's ALIGN(), which is no rounding up where length is not a power of two.
    return (position + length - 1) & ~(length - 1)


def layout(lengths: Iterable[int], timestamp: bool) -> tuple[list[int], int | None, int]:
    """Offsets of elements of these lengths (by index), offset of the timestamp, bytes of a scan."""
    offsets, end, largest = [], 0, 1
    for length in lengths:
        offsets.append(_align(end, length))
        end = offsets[-1] + length
        largest = max(largest, length)
    if timestamp:
        end = _align(end, 8) + 8
        largest = max(largest, 8)
    end = _align(end, largest)
    # The kernel stores the timestamp into the last 8 bytes: behind the padding, not before it.
    return offsets, (end // 8 - 1) * 8 if timestamp else None, end


@dataclass(frozen=True)
class ScanFormat:
    """The scans of a capture: what they hold, where, and how often they come.

    Raises ScanFormatError, which begins with the name of the field that is wrong.
    """

    sampling_frequency_hz: float
    """As the device says, SLOWEST_HERTZ to FASTEST_HERTZ; 0 where it does not."""
    channels: tuple[Channel, ...]
    timestamp: Timestamp | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "channels", tuple(sorted(self.channels, key=lambda channel: channel.index))
        )
        # Written so that NaN, which compares false with everything, does not pass.
        if not (
            self.sampling_frequency_hz == 0
            or SLOWEST_HERTZ <= self.sampling_frequency_hz <= FASTEST_HERTZ
        ):
            raise ScanFormatError(
                f"sampling_frequency_hz: is {self.sampling_frequency_hz!r:.40}; must be"
                f" {SLOWEST_HERTZ:g} to {FASTEST_HERTZ:g}, or 0 where it is not known"
            )
        if not self.channels:
            raise ScanFormatError("channels: a scan needs at least one channel")
        for what in ("index", "id", "phase"):
            values = [getattr(channel, what) for channel in self.channels]
            if len(set(values)) < len(values):
                raise ScanFormatError(
                    f"channels: two of a scan have the same {what}"
                    f" ({', '.join(map(str, values))}); each needs its own"
                )
        for channel in self.channels:
            for what in ("scale", "offset"):
                if not abs(value := getattr(channel, what)) <= LARGEST:
                    raise ScanFormatError(
                        f"channels: {channel.id} has the {what} {value!r:.40};"
                        f" must be {-LARGEST:g} to {LARGEST:g}"
                    )
        if self.timestamp:
            self._check_timestamp(self.timestamp)

    def _check_timestamp(self, timestamp: Timestamp) -> None:
        if (timestamp.type.storage_bits, timestamp.type.repeat) != (64, 1):
            raise ScanFormatError(f"timestamp: type {timestamp.type}: one of 64 bits is needed")
        if timestamp.index <= (last := self.channels[-1]).index:
            raise ScanFormatError(
                f"timestamp: has index {timestamp.index}, before {last.id} with {last.index};"
                " the timestamp comes last in a scan, so its index must be the highest"
            )

    @cached_property
    def _layout(self) -> tuple[list[int], int | None, int]:
        lengths = [channel.type.bytes for channel in self.channels]
        return layout(lengths, self.timestamp is not None)

    @property
    def scan_bytes(self) -> int:
        """Length of a scan, padding included."""
        return self._layout[2]

    @property
    def offsets(self) -> dict[str, int]:
        """Where in a scan each channel stands, by id."""
        ids = [channel.id for channel in self.channels]
        return dict(zip(ids, self._layout[0], strict=True))

    @property
    def timestamp_offset(self) -> int | None:
        """Where in a scan the timestamp stands."""
        return self._layout[1]

    @cached_property
    def record(self) -> np.dtype[Any]:
        """One scan for numpy: fields "0", "1" and so on for the channels, and "timestamp".

        The words in them are as stored: shift and what lies beside the code are left in.
        """
        offsets, timestamp_offset, scan_bytes = self._layout
        names = [str(number) for number in range(len(offsets))]
        formats: list[Any] = [
            (word_dtype(channel.type), (channel.type.repeat,))
            if channel.type.repeat > 1
            else word_dtype(channel.type)
            for channel in self.channels
        ]
        if self.timestamp and timestamp_offset is not None:
            names.append("timestamp")
            formats.append(word_dtype(self.timestamp.type))
            offsets = [*offsets, timestamp_offset]
        return np.dtype(
            {"names": names, "formats": formats, "offsets": offsets, "itemsize": scan_bytes}
        )

    def decode(self, data: bytes | bytearray | memoryview) -> Scans:
        """Codes and timestamps of whole scans; raises ScanFormatError where there is a rest."""
        if len(data) % self.scan_bytes:
            raise ScanFormatError(
                f"{len(data)} bytes are not whole scans of {self.scan_bytes} bytes"
            )
        records = np.frombuffer(data, self.record)
        codes = tuple(
            codes_of(records[str(number)], channel.type)
            for number, channel in enumerate(self.channels)
        )
        if not self.timestamp:
            return Scans(codes, None)
        stamps = codes_of(records["timestamp"], self.timestamp.type)
        return Scans(codes, np.ascontiguousarray(stamps).astype(np.int64, copy=False))
