# SPDX-License-Identifier: Apache-2.0
"""Scans not yet used by a window, one contiguous row per channel."""

import numpy as np

from csp1d.measuring.arrays import Floats, Integers, Rows

_FIRST_CAPACITY = 4096


class PendingScans:
    """Codes (floats, exact up to 53 bits), stamps and positions of successive scans."""

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.next_position = 0
        self._codes: Floats = np.empty((channels, _FIRST_CAPACITY))
        self._times: Integers = np.empty((2, _FIRST_CAPACITY), np.int64)

    @property
    def codes(self) -> Floats:
        """(channels, count)."""
        return self._codes[:, : self.count]

    @property
    def stamps(self) -> Integers:
        """(count,) nanoseconds."""
        return self._times[0, : self.count]

    @property
    def positions(self) -> Integers:
        """(count,) sample counts, lost samples included."""
        return self._times[1, : self.count]

    def append(self, codes: Rows, stamps: Integers | None) -> None:
        """Add scans: one row of codes per channel, and their stamps, if they have any."""
        count = len(codes[0])
        before, self.count = self.count, self.count + count
        if self.count > self._times.shape[1]:
            spare = ((0, 0), (0, 2 * self.count - self._times.shape[1]))
            self._codes = np.pad(self._codes, spare)
            self._times = np.pad(self._times, spare)
        self._codes[:, before : self.count] = codes
        if stamps is not None:
            self._times[0, before : self.count] = stamps
        after = self.next_position + count
        self._times[1, before : self.count] = np.arange(self.next_position, after)
        self.next_position = after

    def insert_lost(self, index: int, lost: int) -> None:
        """Shift positions from `index` on: `lost` scans were lost before it."""
        self._times[1, index : self.count] += lost
        self.next_position += lost

    def drop(self, count: int) -> None:
        """Remove the `count` oldest scans."""
        left = self.count - count
        for rows in (self._codes, self._times):
            rows[:, :left] = rows[:, count : self.count]
        self.count = left
