# SPDX-License-Identifier: Apache-2.0
"""csp1d on its virtual HAT, telling on standard output when things happen: what a bench reads.

    bench_hat.py high|asked CONFIG

"high": the request line stays high. "asked": it rises at random while a fresh reading waits, and
falls when a telegram has gone. A line each: "port PATH", "read NS" (end of a reading), "ready NS"
(when that reading was there), "rise NS" and, at the end, "made NS" (processor time that the
virtual HAT spent on its signal). Times are CLOCK_MONOTONIC.
"""

import random
import sys
import time
from pathlib import Path

from csp1d.config_file import load
from csp1d.daemon import Daemon
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedAdc, SimulatedHat, SimulatedLine
from csp1d.measuring.reading import Reading
from csp1d.p1.sender import Sender

_TELEGRAM_NS = 100_000_000
_made_ns = 0
_rise_ns: int | None = None


def tell(what: str, value: object) -> None:
    """One line."""
    print(what, value, flush=True)


def watch_adc() -> None:
    """Count what making the signal costs."""
    read = SimulatedAdc.read

    def timed(adc: SimulatedAdc) -> bytes:
        global _made_ns
        start = time.thread_time_ns()
        data = read(adc)
        _made_ns += time.thread_time_ns() - start
        return data

    SimulatedAdc.read = timed  # type: ignore[assignment, method-assign]


def watch_readings() -> None:
    """Tell each; with the line low, have it rise soon after."""
    take = Sender.reading

    def told(sender: Sender, reading: Reading) -> None:
        global _rise_ns
        now_ns = time.monotonic_ns()
        take(sender, reading)
        tell("read", reading.end_ns)
        tell("ready", now_ns)
        _rise_ns = now_ns + random.randrange(50_000_000, 600_000_000)

    Sender.reading = told  # type: ignore[assignment, method-assign]


class AskingLine(SimulatedLine):
    """Rises when it is told to, and falls a while after a telegram."""

    def play(self, now_ns: int) -> None:
        global _rise_ns
        if self._drop_ns is not None and now_ns >= self._drop_ns:
            self._drop_ns = None
            self._move(False)
        elif not self._high and _rise_ns is not None and now_ns >= _rise_ns:
            _rise_ns = None
            self._move(True)
            tell("rise", time.monotonic_ns())
        self.wake_ns = now_ns + 20_000_000

    def written(self) -> None:
        self._drop_ns = time.monotonic_ns() + _TELEGRAM_NS


def main() -> None:
    """Until SIGTERM."""
    mode, path = sys.argv[1], Path(sys.argv[2])
    watch_adc()
    watch_readings()
    hat = SimulatedHat(parse("L1=24,L2=10.5,L3=3"))
    if mode == "asked":
        # The port holds the line as well, so that it stays the same one.
        hat._line.__class__ = AskingLine
    daemon = Daemon(hat, load(path), path)
    daemon.start()
    tell("port", hat.port_path)
    daemon.run()
    tell("made", _made_ns)


if __name__ == "__main__":
    main()
