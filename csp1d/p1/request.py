# SPDX-License-Identifier: Apache-2.0
"""Turns the level and edges of the request line into requests, and limits what edges may cost.

No I/O: the caller passes levels and times. A new level counts once it has lasted the debounce time.
Each read of the line costs a wake-up and a token from a bucket: the few edges per second of a
charge point pass at once, an oscillating line is read `_READS_PER_SECOND` times per second.
"""

from csp1d.units import MS_NS, SECOND_NS

_READS_PER_SECOND = 100
_BURST = 50
_EDGES_KEPT = 16
"""Length of the kernel's queue of edges per line (gpiolib-cdev.c); it drops those beyond."""


class RequestFilter:
    """The debounced level of the line, initially low."""

    def __init__(self, debounce_ms: float = 0) -> None:
        self.high = False
        self._debounce_ns = int(debounce_ms * MS_NS)
        self._changed_ns: int | None = None
        self._extra = 0
        self._tokens = float(_BURST)
        self._paid_ns: int | None = None
        self._listen_ns: int | None = None

    @property
    def listening(self) -> bool:
        """Whether to read the line at the next edge; if not, wait until `wake_ns`."""
        return self._listen_ns is None

    @property
    def wake_ns(self) -> int | None:
        """When to read the line even without an edge, None for never."""
        settled = None if self._changed_ns is None else self._changed_ns + self._debounce_ns
        times = [time for time in (settled, self._listen_ns) if time is not None]
        return min(times, default=None)

    def update(self, edges: int, high: bool, now_ns: int) -> list[bool]:
        """Return the levels to act on, in order. `edges`: number reported since the last call.

        A line that fell and is high again is a low and a high level: the old request has ended.
        """
        self._take_token(now_ns)
        if self._debounce_ns:
            return self._debounced(edges > 0, high, now_ns)
        # The level and the edges are read one after the other, so an edge may be early or late.
        # Two more edges than the level explains mean that a change was missed. From a full queue
        # edges are missing: whether their number is odd is unknown.
        changed = high != self.high
        self._extra += edges - changed
        missed = self._extra >= 2
        self._extra = 0 if edges >= _EDGES_KEPT else min(self._extra, self._extra % 2)
        self.high = high
        if changed:
            return [high]
        return [False, True] if missed and high else []

    def _debounced(self, moved: bool, high: bool, now_ns: int) -> list[bool]:
        # After an edge the level has not lasted.
        if high == self.high:
            self._changed_ns = None
        elif moved or self._changed_ns is None:
            self._changed_ns = now_ns
        elif now_ns >= self._changed_ns + self._debounce_ns:
            self._changed_ns = None
            self.high = high
            return [high]
        return []

    def _take_token(self, now_ns: int) -> None:
        if self._paid_ns is not None:
            earned = (now_ns - self._paid_ns) * _READS_PER_SECOND / SECOND_NS
            self._tokens = min(self._tokens + earned, _BURST)
        self._paid_ns = now_ns
        self._tokens -= 1
        short = 1 - self._tokens
        self._listen_ns = now_ns + int(short * SECOND_NS / _READS_PER_SECOND) if short > 0 else None
