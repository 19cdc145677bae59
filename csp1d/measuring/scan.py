# SPDX-License-Identifier: Apache-2.0
"""From the bytes of an IIO buffer to raw codes.

A scan contains one element per enabled channel, by index, and the timestamp last. The offsets of
the elements and the length of a scan follow from the types alone, by the kernel's rules:
`iio_storage_bytes_for_si` and `iio_compute_scan_bytes` in drivers/iio/industrialio-buffer.c, and
`iio_push_to_buffers_with_timestamp` in include/linux/iio/buffer.h (the same in 6.1 and 6.12).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from csp1d.errors import ScanFormatError
from csp1d.loading import key, matches, within
from csp1d.measuring.arrays import Array, Integers, Rows
from csp1d.scan_type import EXACT_BITS, ScanType

SLOWEST_HERTZ, FASTEST_HERTZ = 200.0, 1e7
"""Sampling frequencies that can be measured. With fewer than four scans per mains cycle, the RMS
depends on their position in the cycle."""

LARGEST = 2.0**EXACT_BITS
"""Maximum absolute scale and offset: the offset may be any code that is measured, and with any
configuration the results are finite."""

_NUMBER = within(-LARGEST, LARGEST)


@dataclass(frozen=True)
class Channel:
    """One element of a scan besides the timestamp."""

    id: str = key(matches("[!-~]+", "an IIO channel id"))
    """IIO channel id, such as "voltage0"."""
    phase: str = key(matches("L[123]|reference", "one of 'L1', 'L2', 'L3', 'reference'"))
    index: int = key(_NUMBER)
    type: ScanType = key(parse=ScanType.parse)
    scale: float = key(_NUMBER)
    """Millivolts per code."""
    offset: float = key(_NUMBER, default=0.0)
    """Codes, added before scaling."""


@dataclass(frozen=True)
class Timestamp:
    """The timestamp element."""

    index: int = key(_NUMBER)
    type: ScanType = key(parse=ScanType.parse)


@dataclass(frozen=True)
class Scans:
    """Decoded scans."""

    codes: Rows
    """For each channel of the format: (scans,), or (scans, repeat) if it repeats; possibly strided
    views of the decoded bytes."""
    timestamps: Integers | None
    """(scans,), nanoseconds; None if the format has no timestamp."""


def _word_dtype(scan_type: ScanType) -> np.dtype[Any]:
    """The storage word of an element, in the byte order of the scan."""
    sign, order = "i" if scan_type.signed else "u", ">" if scan_type.big_endian else "<"
    return np.dtype(f"{order}{sign}{scan_type.storage_bits // 8}")


def _codes_of(words: Array, scan_type: ScanType) -> Array:
    """Codes of storage words (any shape), as integers of the storage's width.

    One shift to the left and one to the right drop the bits above and below the code, which may
    hold other data, and extend the sign. Without such bits, the words are returned.
    """
    above = scan_type.storage_bits - scan_type.shift - scan_type.bits
    if above or scan_type.shift:
        words = words.astype(words.dtype.newbyteorder("="), order="C")
        words <<= above
        words >>= above + scan_type.shift
    return words


def _align(position: int, length: int) -> int:
    # The kernel's ALIGN(), which does not round up if length is not a power of two.
    return (position + length - 1) & ~(length - 1)


@dataclass(frozen=True)
class ScanFormat:
    """The layout and the rate of scans.

    Raises ScanFormatError; the message starts with the name of the wrong field.
    """

    sampling_frequency_hz: float
    """As the device declares it, 1 to FASTEST_HERTZ; 0: not declared."""
    channels: tuple[Channel, ...]
    timestamp: Timestamp | None = None

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "channels", tuple(sorted(self.channels, key=lambda channel: channel.index))
        )
        # Written so that NaN, for which each comparison is false, is rejected.
        hertz = self.sampling_frequency_hz
        if not (hertz == 0 or 1 <= hertz <= FASTEST_HERTZ):
            raise ScanFormatError(
                f"sampling_frequency_hz: must be between 1 and {FASTEST_HERTZ:.0f},"
                f" or 0 if unknown, got {hertz!r:.40}"
            )
        if not self.channels:
            raise ScanFormatError("channels: a scan needs at least one channel")
        for name in ("index", "id", "phase"):
            values = [getattr(channel, name) for channel in self.channels]
            if len(set(values)) < len(values):
                raise ScanFormatError(
                    f"channels: each needs its own {name}, got {', '.join(map(str, values))}"
                )
        for channel in self.channels:
            for name in ("scale", "offset"):
                if not abs(value := getattr(channel, name)) <= LARGEST:
                    raise ScanFormatError(
                        f"channels: the {name} of {channel.id} is not plausible: {value!r:.40}"
                    )
        if self.timestamp:
            self._check_timestamp(self.timestamp)

    def _check_timestamp(self, timestamp: Timestamp) -> None:
        if (timestamp.type.storage_bits, timestamp.type.repeat) != (64, 1):
            raise ScanFormatError(f"timestamp: type: must have 64 bits, got {timestamp.type}")
        if timestamp.index <= (last := self.channels[-1]).index:
            raise ScanFormatError(
                "timestamp: index: must be the highest, since the timestamp is last in a scan,"
                f" got {timestamp.index} ({last.id} has {last.index})"
            )

    @property
    def scan_bytes(self) -> int:
        """Length of a scan, with padding."""
        return self.record.itemsize

    def description(self) -> dict[str, Any]:
        """The content of the NAME.json of a capture; a ScanType is text in the kernel's notation.

        The length of a scan is included although it follows from the rest: if the two disagree, the
        description or the scans are wrong, and so would be every current.
        """

        def element(values: Channel | Timestamp) -> dict[str, Any]:
            return {**vars(values), "type": str(values.type)}

        return {
            "sampling_frequency_hz": self.sampling_frequency_hz,
            "scan_bytes": self.scan_bytes,
            "channels": [element(channel) for channel in self.channels],
            "timestamp": self.timestamp and element(self.timestamp),
        }

    @cached_property
    def record(self) -> np.dtype[Any]:
        """One scan as a NumPy type: fields "0", "1" and so on for the channels, and "timestamp".

        The fields are storage words, not shifted or masked yet.
        """
        types = [channel.type for channel in self.channels]
        names = [str(number) for number in range(len(types))]
        if self.timestamp:
            types.append(self.timestamp.type)
            names.append("timestamp")
        offsets, end = [], 0
        for type_ in types:
            offsets.append(_align(end, type_.bytes))
            end = offsets[-1] + type_.bytes
        end = _align(end, max(type_.bytes for type_ in types))
        if self.timestamp:
            # The kernel stores it in the last 8 bytes: after the padding, not before it.
            offsets[-1] = (end // 8 - 1) * 8
        formats: list[Any] = [
            (_word_dtype(type_), (type_.repeat,)) if type_.repeat > 1 else _word_dtype(type_)
            for type_ in types
        ]
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": end})

    @cached_property
    def _common_type(self) -> ScanType | None:
        """The type of all channels if it is the same, of one word."""
        type_ = self.channels[0].type
        same = type_.repeat == 1 and all(channel.type == type_ for channel in self.channels)
        return type_ if same else None

    def select(self, data: bytes, part: "ScanFormat") -> bytes:
        """Whole scans `data` with only the channels of `part`, which are some of this format."""
        if part.channels == self.channels:
            return data
        scans = np.frombuffer(data, self.record)
        selected = np.zeros(len(scans), part.record)
        for number, channel in enumerate(part.channels):
            selected[str(number)] = scans[str(self.channels.index(channel))]
        if part.timestamp:
            selected["timestamp"] = scans["timestamp"]
        return selected.tobytes()

    def decode(self, data: bytes | bytearray | memoryview) -> Scans:
        """Codes and timestamps; raises ScanFormatError if `data` is not whole scans."""
        if len(data) % self.scan_bytes:
            raise ScanFormatError(
                f"{len(data)} bytes are not a whole number of scans of {self.scan_bytes} bytes"
            )
        records = np.frombuffer(data, self.record)
        if common := self._common_type:
            # One word after the other, so all channels can be shifted at once.
            shape, strides = (len(self.channels), len(records)), (common.bytes, self.scan_bytes)
            words: Array = np.ndarray(shape, self.record[0], records, strides=strides)
            codes: Rows = _codes_of(words, common)
        else:
            codes = tuple(
                _codes_of(records[str(number)], channel.type)
                for number, channel in enumerate(self.channels)
            )
        if not self.timestamp:
            return Scans(codes, None)
        stamps = _codes_of(records["timestamp"], self.timestamp.type)
        return Scans(codes, np.ascontiguousarray(stamps, np.int64))
