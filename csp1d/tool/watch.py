# SPDX-License-Identifier: Apache-2.0
"""What `csp1ctl watch` shows: the daemon's last state, its rate of telegrams and what happened.

It takes each answer of the daemon and each failure, and does no I/O and reads no clock itself.
"""

from collections import deque
from collections.abc import Iterator

from csp1d.status import Status

_RATE_SECONDS = 10.0
_NOTES = 5


class Watch:
    """The state of one daemon. `time_of_day` is the text that a note begins with."""

    def __init__(self) -> None:
        self.status: Status | None = None
        """None: the daemon does not answer."""
        self.notes: deque[str] = deque(maxlen=_NOTES)
        """What happened, the newest last."""
        self._sequence = 0
        self._sent: deque[tuple[float, int]] = deque()

    def answered(self, status: Status, now_seconds: float, time_of_day: str) -> str | None:
        """The daemon answered. `now_seconds` is the time on any clock that does not jump.

        Returns a note where something has happened since the last answer, else None.
        """
        sequence = status.reading.sequence if status.reading else 0
        sent = status.telegrams.sent
        note = None
        if self.status is None and self._sent:
            note = self._note(f"{time_of_day} csp1d is available again")
        elif 0 < sequence < self._sequence:
            note = self._note(f"{time_of_day} csp1d was reloaded or restarted")
        if self._sent and sent < self._sent[-1][1]:
            self._sent.clear()
        # An answer without a reading does not make the next reading the first of a new metering.
        self._sequence = sequence or self._sequence
        self.status = status
        self._sent.append((now_seconds, sent))
        while now_seconds - self._sent[0][0] > _RATE_SECONDS:
            self._sent.popleft()
        return note

    def failed(self, reason: str, time_of_day: str) -> str | None:
        """The daemon did not answer. Returns a note for the first failure in a row, else None."""
        if self.status is None:
            return None
        self.status = None
        self._sequence = 0
        return self._note(f"{time_of_day} {reason}")

    def _note(self, text: str) -> str:
        self.notes.append(text)
        return text

    @property
    def telegrams_per_second(self) -> float | None:
        """Over the last 10 s; None after fewer than two answers."""
        if self.status is None or len(self._sent) < 2:
            return None
        (first_seconds, first), (last_seconds, last) = self._sent[0], self._sent[-1]
        return (last - first) / (last_seconds - first_seconds)

    def line(self, time_of_day: str) -> str:
        """The state in one line, for output to a pipe or a file."""
        return f"{time_of_day} {'  '.join(self._parts())}"

    def _parts(self) -> Iterator[str]:
        status = self.status
        if status is None:
            yield "no answer from csp1d"
            return
        if status.reading:
            for phase, current in status.reading.phases.items():
                yield f"{phase} {current.rms_amperes:.2f} A"
            hertz = status.reading.frequency_hertz
            yield "no frequency" if hertz is None else f"{hertz:.3f} Hz"
        else:
            yield "no current reading"
        yield from (problem.reason for problem in status.problems)
        if status.p1_requested is not None:
            yield "requesting" if status.p1_requested else "no request"
        yield f"{status.telegrams.sent} sent"
        yield f"{status.scans_lost_total} scans lost"
