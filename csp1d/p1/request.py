# SPDX-License-Identifier: Apache-2.0
"""From the request line's edges to requests: debouncing, and a limit on what edges may cost.

No I/O: the caller tells levels and times. A new level counts once it has lasted the debounce time.
Each look at the line costs a wake-up, so a token bucket pays for them: a charge point's few edges
a second pass at once, a line that oscillates is looked at `_LOOKS_PER_SECOND` times a second.
"""

from csp1d.units import MS_NS, SECOND_NS

_LOOKS_PER_SECOND = 100
_BURST = 50
_EDGES_KEPT = 16
"""The kernel keeps as many for a line (gpiolib-cdev.c); of more some are lost."""


class RequestFilter:
    """The debounced level of the line; low until told otherwise."""

    def __init__(self, debounce_ms: float = 0) -> None:
        self.high = False
        self._debounce_ns = int(debounce_ms * MS_NS)
        self._changed_ns: int | None = None
        self._edges = 0
        self._tokens = float(_BURST)
        self._paid_ns: int | None = None
        self._listen_ns: int | None = None

    @property
    def listening(self) -> bool:
        """Whether the next edge is worth a wake-up; if not, look again at `wake_ns`."""
        return self._listen_ns is None

    @property
    def wake_ns(self) -> int | None:
        """When the line is to be looked at without an edge, None for never."""
        settled = None if self._changed_ns is None else self._changed_ns + self._debounce_ns
        times = [time for time in (settled, self._listen_ns) if time is not None]
        return min(times, default=None)

    def update(self, edges: int, high: bool, now_ns: int) -> list[bool]:
        """The levels to act on, in order; `edges`: how many were told since the last look.

        A line that is high again has been low: what was asked for before is not wanted any more.
        """
        self._take_token(now_ns)
        if self._debounce_ns:
            return self._debounced(edges > 0, high, now_ns)
        # The level may be ahead of the edges that are told, or behind them, by one: two more edges
        # than the level explains are a level that was missed.
        changed = high != self.high
        self._edges += edges - changed
        missed = self._edges >= 2
        self._edges = 0 if edges >= _EDGES_KEPT else min(self._edges, self._edges % 2)
        self.high = high
        if changed:
            return [high]
        return [False, True] if missed and high else []

    def _debounced(self, moved: bool, high: bool, now_ns: int) -> list[bool]:
        # Edges since the last look mean that the level has not lasted.
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
            earned = (now_ns - self._paid_ns) * _LOOKS_PER_SECOND / SECOND_NS
            self._tokens = min(self._tokens + earned, _BURST)
        self._paid_ns = now_ns
        self._tokens -= 1
        short = 1 - self._tokens
        self._listen_ns = now_ns + int(short * SECOND_NS / _LOOKS_PER_SECOND) if short > 0 else None
