# SPDX-License-Identifier: Apache-2.0
"""What ends the loop's wait, and what each signal asks for."""

import os
import selectors
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from csp1d.loop.signals import Signals

MS = 1_000_000


@pytest.fixture
def signals() -> Iterator[Signals]:
    """Installed; afterwards the signals have their handlers back."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in numbers]
    signals = Signals()
    signals.install()
    yield signals
    signals.close()
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def waited_seconds(signals: Signals, descriptors: dict[int, int], milliseconds: int) -> float:
    start_ns = time.monotonic_ns()
    assert signals.wait(descriptors, start_ns + milliseconds * MS) <= set(descriptors)
    return (time.monotonic_ns() - start_ns) / 1e9


@pytest.mark.parametrize(
    ("number", "stop", "reload"),
    [
        (signal.SIGTERM, True, False),
        (signal.SIGINT, True, False),
        (signal.SIGHUP, False, True),
        (signal.SIGALRM, False, False),
    ],
)
@pytest.mark.parametrize("during", [False, True])
def test_a_signal_before_or_during_the_wait_ends_it(
    signals: Signals, number: signal.Signals, stop: bool, reload: bool, during: bool
) -> None:
    assert (signals.stop, signals.reload) == (False, False)
    if during:
        threading.Timer(0.05, os.kill, [os.getpid(), number]).start()
    else:
        signal.raise_signal(number)
    waited = signals.wait({}, time.monotonic_ns() + 10_000 * MS)
    assert (signals.stop, signals.reload) == (stop, reload)
    assert waited == set()
    # One signal ends one wait.
    assert waited_seconds(signals, {}, 50) >= 0.05


def test_a_flag_stays_until_it_is_reset(signals: Signals) -> None:
    signal.raise_signal(signal.SIGHUP)
    signal.raise_signal(signal.SIGALRM)
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGALRM)
    assert (signals.stop, signals.reload) == (True, True)


def test_a_ready_descriptor_or_a_time_in_the_past_ends_the_wait(signals: Signals) -> None:
    readable, writable = os.pipe()
    wanted = {readable: selectors.EVENT_READ}
    assert signals.wait(wanted, time.monotonic_ns() + 20 * MS) == set()
    os.write(writable, b"x")
    assert signals.wait(wanted, time.monotonic_ns() + 10_000 * MS) == {readable}
    assert signals.wait({}, time.monotonic_ns() - 10_000 * MS) == set()
    os.close(readable)
    os.close(writable)


def test_a_timer_that_ends_after_the_close_does_not_end_the_process() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM)
    handlers = [signal.getsignal(number) for number in numbers]
    signals = Signals()
    signals.install()
    signals.close()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def test_a_signal_that_another_thread_receives_ends_the_wait(signals: Signals) -> None:
    """The kernel chooses the thread; then nothing interrupts the wait but the pipe."""

    def receive() -> None:
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGALRM)

    thread = threading.Thread(target=receive)
    thread.start()
    start_ns = time.monotonic_ns()
    assert signals.wait({}, start_ns + 10_000 * MS) == set()
    assert time.monotonic_ns() - start_ns < 9_000 * MS
    thread.join()
