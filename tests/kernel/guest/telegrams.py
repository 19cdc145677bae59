# SPDX-License-Identifier: Apache-2.0
"""A charge point's view of the wire: bytes with their times become telegrams, or the beginnings of
broken ones.

Independent of csp1d on purpose: the checksum is computed bit by bit, the currents are cut out by a
plain pattern (DSMR 5.0.2 P1 companion standard, 6.2 and 6.12).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

LINE_BYTES_PER_SECOND = 11520


@dataclass(frozen=True)
class Received:
    """Bytes from one ``/`` up to the next: a telegram, or what came of one.  Times are
    CLOCK_MONOTONIC ns.
    """

    data: bytes
    start_ns: int
    end_ns: int

    @property
    def complete(self) -> bool:
        """Whether the telegram came to its end."""
        return re.search(rb"![0-9A-F]{4}\r\n\Z", self.data) is not None

    @property
    def amperes(self) -> tuple[int, int, int]:
        """Currents of L1, L2 and L3 in a complete telegram."""
        l1, l2, l3 = (
            int(re.findall(rb"^1-0:%d\.7\.0\((\d{3})\*A\)\r$" % code, self.data, re.MULTILINE)[0])
            for code in (31, 51, 71)
        )
        return l1, l2, l3

    def check(self) -> None:
        """Raise AssertionError unless this is a whole telegram with a right checksum."""
        assert self.complete, f"the telegram breaks off: {self.data!r}"
        body, checksum = self.data[:-6], self.data[-6:-2]
        assert checksum == b"%04X" % crc16(body), f"wrong checksum: {self.data!r}"
        assert re.match(rb"/[A-Za-z]{3}5\S+\r\n\r\n", body), f"wrong header: {self.data!r}"
        assert b"\n" not in self.data.replace(b"\r\n", b""), "a line ends without CR"


def with_amperes(telegram: bytes, amperes: Sequence[int]) -> bytes:
    """``telegram`` with other currents of L1, L2 and L3, and the checksum of that."""
    shown = iter(b"%03d" % a for a in amperes)
    body = re.sub(rb"(?<=\()\d{3}(?=\*A\))", lambda _: next(shown), telegram[:-6])
    return body + b"%04X\r\n" % crc16(body)


@functools.cache  # One load makes one telegram, over and over.
def crc16(data: bytes) -> int:
    """CRC-16/ARC of ``data``."""
    register = 0
    for byte in data:
        for bit in range(8):
            carry = (register ^ (byte >> bit)) & 1
            register = (register >> 1) ^ (0xA001 if carry else 0)
    return register


def split(data: bytes, times_ns: Sequence[int] | None = None) -> list[Received]:
    """Cut what came over a wire into pieces that start with ``/``.

    ``times_ns`` holds the time of each byte's end; without it all times are 0.  Raises
    AssertionError for bytes that do not belong to a telegram: rests of one that had been stopped.
    """
    starts = [match.start() for match in re.finditer(b"/", data)]
    assert starts[:1] == [0] or not data, f"begins in the middle of a telegram: {data[:80]!r}"
    pieces = []
    for start, end in pairwise([*starts, len(data)]):
        piece = data[start:end]
        whole = re.match(rb"[^!]*![0-9A-F]{4}\r\n", piece)
        rest = piece[whole.end() :] if whole else b""
        assert not rest, f"bytes outside a telegram: {rest[:80]!r}"
        first_ns, last_ns = (times_ns[start], times_ns[end - 1]) if times_ns else (0, 0)
        pieces.append(Received(piece, first_ns, last_ns))
    return pieces
