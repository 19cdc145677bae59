# SPDX-License-Identifier: Apache-2.0
"""A fault that lasts says so once, and once when it ends.

No I/O and no clock: the caller says what it sees and when (any clock in nanoseconds that does not
jump), and is told whether that is news.
"""

from csp1d.units import SECOND_NS

_PATIENCE = 5
"""A fault whose reasons do not last is told after so many times the time that one has to last."""

_MOST_REASONS = 8
"""Of one fault: more are the same fault in ever new words."""

QUIET_NS = 10 * SECOND_NS
"""For faults that come in bursts: without one for so long, they are over."""


class Fault:
    """Knows whether a fault has been told, and with which reasons."""

    def __init__(self, quiet_ns: int = 0) -> None:
        """`quiet_ns`: how long nothing bad may have been seen before it has ended."""
        self.count = 0
        """Of what the fault counts, since it began."""
        self._quiet_ns = quiet_ns
        self._reasons: set[str] = set()
        self._is_told = False
        self._reason: str | None = None
        self._reason_since_ns = self._last_ns = 0
        self._since_ns: int | None = None

    def observe(
        self, now_ns: int, *, reason: str = "", lasting_ns: int = 0, count: int = 1
    ) -> bool:
        """It is seen; whether to tell it.

        A reason is told once, and only after it has been the only one for `lasting_ns`. Where no
        reason lasts, whichever it is tells the fault in the end. "" stands for no reason of its
        own, which adds nothing to a fault that has been told.
        """
        if self._since_ns is None:
            self._since_ns, self.count = now_ns, 0
        if reason != self._reason:
            self._reason, self._reason_since_ns = reason, now_ns
        self._last_ns = now_ns
        self.count += count
        known = reason in self._reasons or (self._reasons and not reason)
        if known or len(self._reasons) == _MOST_REASONS:
            return False
        if now_ns - self._reason_since_ns < lasting_ns and (
            self._is_told or now_ns - self._since_ns < _PATIENCE * lasting_ns
        ):
            return False
        self._reasons.add(reason)
        self._is_told = True
        return True

    def clear(self, now_ns: int) -> bool:
        """All is well at this moment; whether to tell the end of the fault."""
        if self._since_ns is None or now_ns - self._last_ns < self._quiet_ns:
            return False
        was_told = self._is_told
        self.reset_reasons()
        self._is_told, self._since_ns = False, None
        return was_told

    def reset_reasons(self) -> None:
        """What was told was of something else: tell what is wrong now, and the end as ever."""
        self._reasons.clear()
        self._reason = None
