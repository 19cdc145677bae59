# SPDX-License-Identifier: Apache-2.0
"""Process signals, and the loop's wait for a descriptor, a time or a signal.

A signal handler only sets a flag. Python also writes a byte to a pipe (set_wakeup_fd), which ends
the wait even if the signal arrives just before it begins.
"""

import contextlib
import os
import select
import selectors
import signal
import time
from types import FrameType

from csp1d.units import SECOND_NS


class Signals:
    """SIGTERM and SIGINT set `stop`, SIGHUP sets `reload`; all end the wait."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self.since_ns = 0
        """When the signal came that set `stop` or `reload` (CLOCK_MONOTONIC)."""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def install(self) -> None:
        """Install the handlers. Call it in the main thread."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, self._on_signal)

    def wait(self, descriptors: dict[int, int], wake_ns: int) -> set[int]:
        """Wait for a descriptor, a signal or `wake_ns` (CLOCK_MONOTONIC).

        `descriptors` maps each descriptor to its selector events. Returns those that are ready.
        """
        seconds = max(0, wake_ns - time.monotonic_ns()) / SECOND_NS
        # A select() timeout may be late by 0.1 % (select_estimate_accuracy in the kernel's
        # fs/select.c): nearly a millisecond before each reading. A timer's signal is not.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # No selector: one that is kept would hold descriptors that devices have closed, whose
        # numbers the kernel reuses, and a new one per wait takes more time.
        readers = [fd for fd, events in descriptors.items() if events & selectors.EVENT_READ]
        writers = [fd for fd, events in descriptors.items() if events & selectors.EVENT_WRITE]
        ready = select.select([self._reader, *readers], writers, [], seconds)
        # Unconditionally: select() does not report the byte of a signal that interrupted it.
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        return {fd for part in ready for fd in part} - {self._reader}

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # A SIGALRM from another process must not end this one during its last steps.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """SIGALRM, the timer's, sets no flag: its arrival ends the wait."""
        if number != signal.SIGALRM:
            self.since_ns = time.monotonic_ns()
        self.stop |= number in (signal.SIGTERM, signal.SIGINT)
        self.reload |= number == signal.SIGHUP
