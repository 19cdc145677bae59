# SPDX-License-Identifier: Apache-2.0
"""The last ten seconds of raw scans: after a fault, they show what the ADC delivered before it.

Each read of the ADC is kept as it was read, without a copy. The value is immutable, so that other
threads may use it while the next one is made.
"""

from dataclasses import dataclass

from csp1d.measuring.scan import ScanFormat
from csp1d.units import SECOND_NS

KEPT_NS = 10 * SECOND_NS
"""Older reads are dropped, so that those kept hold the last ten seconds and at most one read more.
Scans of an ADC that has stopped are kept until new ones come."""

_LEAST_SPAN_NS = SECOND_NS // 2
"""Scans that come in bursts give no rate before that."""

MOST_BYTES = 4 << 20
"""Limit for all kept scans; it is reached from 26 000 scans per second on, with 16 bytes each."""


@dataclass(frozen=True)
class RecentScans:
    """Successive scans of one set-up of the ADC, without a gap besides those of the ADC itself.

    Times are CLOCK_MONOTONIC.
    """

    format: ScanFormat
    set_up_ns: int
    """When the ADC was set up: scans of another set-up do not continue these."""
    first: int = 0
    """Number of the oldest kept scan, counted from the set-up."""
    reads: tuple[tuple[int, bytes], ...] = ()
    """The time and the whole scans of each read, oldest first."""

    @property
    def scans(self) -> int:
        """The number of scans kept."""
        return sum(len(data) for _, data in self.reads) // self.format.scan_bytes

    @property
    def hertz(self) -> float | None:
        """The measured rate; None before the reads span long enough."""
        if not self.reads or (span_ns := self.reads[-1][0] - self.reads[0][0]) < _LEAST_SPAN_NS:
            return None
        # When the scans of the first read began is not known.
        count = self.scans - len(self.reads[0][1]) // self.format.scan_bytes
        return count * SECOND_NS / span_ns

    def append(self, data: bytes, read_ns: int) -> "RecentScans":
        """These scans and those of another read, without those that have become too old."""
        size = self.format.scan_bytes
        most = MOST_BYTES // size * size
        skipped = max(0, len(data) - most)
        reads = [*self.reads, (read_ns, data[skipped:])]
        kept = sum(len(scans) for _, scans in reads)
        dropped = skipped
        while kept > most or read_ns - reads[0][0] >= KEPT_NS:
            kept -= len(reads[0][1])
            dropped += len(reads.pop(0)[1])
        first = self.first + dropped // size
        return RecentScans(self.format, self.set_up_ns, first, tuple(reads))

    def since(self, number: int) -> list[memoryview] | None:
        """The scans from this number on; None if some of them are not kept, or not yet taken."""
        skipped = (number - self.first) * self.format.scan_bytes
        if skipped < 0:
            return None
        parts = []
        for _, data in self.reads:
            if skipped < len(data):
                parts.append(memoryview(data)[skipped:])
            skipped = max(0, skipped - len(data))
        return None if skipped else parts
