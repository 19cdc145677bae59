# SPDX-License-Identifier: Apache-2.0
"""What `csp1ctl watch` shows: the daemon's state as it changes, and what happened meanwhile.

`Watch` is told each answer and each failure, and can say at any time what is to be shown; it
asks no clock and no daemon itself.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator

from csp1d.exits import OK
from csp1d.status import Status, faults
from csp1d.tool.client import Client, NoAnswerError

_RATE_SECONDS = 10.0
_NOTES = 5
_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 1.0


class Watch:
    """The last state of one daemon. `time_of_day` is what a note begins with."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status: Status | None = None
        """None: it does not answer."""
        self.notes: deque[str] = deque(maxlen=_NOTES)
        """What happened, the newest last."""
        self._sequence = 0
        self._sent: deque[tuple[float, int]] = deque()

    def answered(self, status: Status, now_seconds: float, time_of_day: str) -> str | None:
        """The daemon told its state. `now_seconds`: of any clock that does not jump.

        Returns the note that this is worth, if any.
        """
        sequence = status.reading.sequence if status.reading else 0
        sent = status.telegrams.sent
        note = None
        if self.status is None and self._sent:
            note = self._note(f"{time_of_day} csp1d answers again")
        elif 0 < sequence < self._sequence:
            note = self._note(f"{time_of_day} csp1d measures anew: it was reloaded or restarted")
        if self._sent and sent < self._sent[-1][1]:
            self._sent.clear()
        # A second without a reading is not the beginning of something new.
        self._sequence = sequence or self._sequence
        self.status = status
        self._sent.append((now_seconds, sent))
        while now_seconds - self._sent[0][0] > _RATE_SECONDS:
            self._sent.popleft()
        return note

    def failed(self, error: NoAnswerError, time_of_day: str) -> str | None:
        """The daemon did not answer. Returns the note that this is worth: once."""
        if self.status is None:
            return None
        self.status = None
        self._sequence = 0
        return self._note(f"{time_of_day} {error}")

    def _note(self, words: str) -> str:
        self.notes.append(words)
        return words

    @property
    def telegrams_per_second(self) -> float | None:
        """Over the last seconds; None until some have passed."""
        if self.status is None or len(self._sent) < 2:
            return None
        (first_seconds, first), (last_seconds, last) = self._sent[0], self._sent[-1]
        return (last - first) / (last_seconds - first_seconds)

    def line(self, time_of_day: str) -> str:
        """All in a line, for where there is no terminal."""
        return f"{time_of_day} {'  '.join(self._parts())}"

    def _parts(self) -> Iterator[str]:
        status = self.status
        if status is None:
            yield "csp1d does not answer"
            return
        if status.reading is None:
            yield "; ".join(faults(status))
        else:
            for phase, current in status.reading.phases.items():
                yield f"{phase} {current.rms_amperes:.2f} A"
            hertz = status.reading.frequency_hertz
            yield "no frequency" if hertz is None else f"{hertz:.3f} Hz"
        yield {None: "no request line", True: "asked", False: "not asked"}[status.p1_request]
        yield f"{status.telegrams.sent} sent"
        yield f"{status.scans_lost_total} scans lost"


def run(client: Client, fuse_amperes: float) -> int:
    """Show until Ctrl-C. Raises NoAnswerError where nobody answers to begin with."""
    watch = Watch(client.url)
    watch.answered(client.status(), time.monotonic(), _time_of_day())
    try:
        if sys.stdout.isatty():
            _draw(client, watch, fuse_amperes)
        else:
            _print(client, watch)
    except KeyboardInterrupt:
        pass
    return OK


def _draw(client: Client, watch: Watch, fuse_amperes: float) -> None:
    # Late, since a pipe needs no screen.
    from csp1d.tool.screen import Screen, is_drawable

    if not is_drawable():
        _print(client, watch)
        return
    with Screen(watch, fuse_amperes) as screen:
        for _ in _ticks(_REFRESH_SECONDS):
            _ask(client, watch)
            screen.refresh()


def _print(client: Client, watch: Watch) -> None:
    for _ in _ticks(_LINE_SECONDS):
        if note := _ask(client, watch):
            print(note)
        print(watch.line(_time_of_day()), flush=True)


def _ask(client: Client, watch: Watch) -> str | None:
    try:
        status = client.status()
    except NoAnswerError as error:
        return watch.failed(error, _time_of_day())
    return watch.answered(status, time.monotonic(), _time_of_day())


def _ticks(every_seconds: float) -> Iterator[None]:
    due_seconds = time.monotonic()
    while True:
        yield
        now_seconds = time.monotonic()
        # What took too long is not caught up with.
        due_seconds = max(due_seconds + every_seconds, now_seconds)
        time.sleep(due_seconds - now_seconds)


def _time_of_day() -> str:
    return time.strftime("%H:%M:%S")
