# SPDX-License-Identifier: Apache-2.0
"""Decides when a fault is reported: once when it begins and once when it ends.

No I/O but the log, and no clock: the caller passes what it observes and when (CLOCK_MONOTONIC), and
the return value says whether to report it. From its report to its end the fault is an active
problem, in the words of the report.
"""

from typing import Any

from csp1d.events import ActiveProblem, Event
from csp1d.units import SECOND_NS

_PATIENCE = 5
"""A fault whose reasons keep changing is reported after this many times `lasting_ns`."""

_MAX_REASONS = 8
"""Maximum distinct reasons reported per fault; later ones count as repeats."""

_FOLLOWS_NS = 2 * SECOND_NS
"""What is observed at most this time after another fault may be its consequence."""

BACK_NS = 2 * SECOND_NS
"""A fault that is observed again after this time has returned."""

NEVER_NS = -(1 << 62)

QUIET_NS = 10 * SECOND_NS
"""For faults that come in bursts: the time without one after which the fault has ended."""


class Fault:
    """The state of one fault: whether it is present, and which reasons have been reported."""

    def __init__(self, event: Event, device: str, quiet_ns: int = 0) -> None:
        """`event` reports the fault of `device`; `quiet_ns`: it ends when it was not observed for
        this time."""
        self.count = 0
        """Sum of the counts observed since the fault began."""
        self.problem: ActiveProblem | None = None
        """The fault as it was reported last, with the present reason if that was reported; None if
        the fault is absent or was not reported."""
        self.has_returned = False
        """Whether it was absent in between, since it began."""
        self._event = event
        self._device = device
        self._quiet_ns = quiet_ns
        self._reasons: set[str] = set()
        self._problems: dict[str, ActiveProblem] = {}
        self._is_reported = False
        self._reason: str | None = None
        self._reason_since_ns = self._last_ns = NEVER_NS
        self._since_ns: int | None = None

    def observe(
        self, now_ns: int, *, reason: str = "", lasting_ns: int = 0, count: int = 1
    ) -> bool:
        """The fault is present. Returns whether to report it.

        Each reason is reported once, after it was present, and the only one, for `lasting_ns`. If
        no reason lasts that long, the fault is eventually reported with the current one. The reason
        "" adds nothing to a fault that has been reported.
        """
        if self._since_ns is None:
            self._since_ns, self.count, self.has_returned = now_ns, 0, False
        elif now_ns - self._last_ns > BACK_NS:
            self.has_returned = True
        if reason != self._reason:
            self._reason, self._reason_since_ns = reason, now_ns
        self._last_ns = now_ns
        self.count += count
        self.problem = self._problems.get(reason, self.problem)
        known = reason in self._reasons or (self._reasons and not reason)
        if known or len(self._reasons) == _MAX_REASONS:
            return False
        if now_ns - self._reason_since_ns < lasting_ns and (
            self._is_reported or now_ns - self._since_ns < _PATIENCE * lasting_ns
        ):
            return False
        self._reasons.add(reason)
        self._is_reported = True
        return True

    def log(self, text: str, *args: object, **fields: Any) -> None:
        """Log the fault, which `observe()` said to report."""
        message = self._event.log(text, *args, stacklevel=3, device=self._device, **fields)
        reason, since_ns = self._reason or "", self._since_ns or 0
        self.problem = ActiveProblem(self._event, self._device, message, since_ns)
        self._problems[reason] = self.problem

    def recent(self, now_ns: int, within_ns: int = QUIET_NS) -> ActiveProblem | None:
        """The problem, None if it was not observed for `within_ns`: it may have ended unseen."""
        return self.problem if now_ns - self._last_ns < within_ns else None

    def follows(self, cause: "Fault") -> bool:
        """Whether it was last observed before the end of `cause`, or soon after it."""
        return self._last_ns <= cause._last_ns + _FOLLOWS_NS

    def clear(self, now_ns: int) -> bool:
        """The fault is absent. Returns whether to report its end."""
        self._reason = None  # It did not last.
        if self._since_ns is None or now_ns - self._last_ns < self._quiet_ns:
            return False
        was_reported = self._is_reported
        self.reset_reasons()
        self._is_reported, self._since_ns = False, None
        return was_reported

    def reset_reasons(self) -> None:
        """The configuration changed: report reasons again, even those reported before.

        Until then there is no problem: it may not concern the new configuration.
        """
        self._reasons.clear()
        self._problems.clear()
        self._reason = self.problem = None
