# SPDX-License-Identifier: Apache-2.0
"""The storage of one element of a scan, in the notation of the kernel's `in_..._type` files.

The notation is documented in Documentation/iio/iio_devbuf.rst. This module does not import NumPy:
checking a configuration and discovering devices do not need it.
"""

import re
from dataclasses import dataclass

from csp1d.errors import ScanTypeError

EXACT_BITS = 53
"""Maximum bits of a code that is measured: more do not fit into a float."""

_TYPE = re.compile(
    r"(?P<endian>be|le):(?P<sign>[su])(?P<bits>\d{1,3})/(?P<storage>\d{1,3})"
    r"(?:X(?P<repeat>\d{1,4}))?(?:>>(?P<shift>\d{1,3}))?"
)


@dataclass(frozen=True)
class ScanType:
    """The storage of one element: the content of an `in_..._type` file."""

    big_endian: bool
    signed: bool
    bits: int
    storage_bits: int
    shift: int = 0
    repeat: int = 1

    def __post_init__(self) -> None:
        if self.storage_bits not in (8, 16, 32, 64):
            raise ScanTypeError(f"{self}: storage must be 8, 16, 32 or 64 bits")
        if self.bits < 1 or self.bits + self.shift > self.storage_bits:
            raise ScanTypeError(f"{self}: bits and shift must fit into the storage")

    @classmethod
    def parse(cls, text: str) -> "ScanType":
        """Parse text such as "le:s12/16>>4" or "le:s16/32X2>>0"; raises ScanTypeError."""
        match = _TYPE.fullmatch(text.strip())
        if not match:
            raise ScanTypeError(
                f"{text[:40]!r} is not a scan type: write it like le:s12/16>>4"
                " (be or le, s or u, BITS/STORAGE, XREPEAT if above 1, >>SHIFT)"
            )
        return cls(
            big_endian=match["endian"] == "be",
            signed=match["sign"] == "s",
            bits=int(match["bits"]),
            storage_bits=int(match["storage"]),
            shift=int(match["shift"] or 0),
            repeat=max(1, int(match["repeat"] or 1)),
        )

    def __str__(self) -> str:
        endian = "be" if self.big_endian else "le"
        repeat = f"X{self.repeat}" if self.repeat > 1 else ""
        sign = "s" if self.signed else "u"
        return f"{endian}:{sign}{self.bits}/{self.storage_bits}{repeat}>>{self.shift}"

    @property
    def bytes(self) -> int:
        """Length of the element in a scan, with all repeats."""
        return self.storage_bits // 8 * self.repeat

    @property
    def lowest(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The highest code."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1
