# SPDX-License-Identifier: Apache-2.0
"""The demo's view: csp1d on its virtual HAT, and beside it dsmr-parser, which reads the telegrams.

The consumer knows nothing of csp1d but the port. What the sensor says of itself (currents, lamps)
comes from its HTTP side. Exits with 1 if a telegram was not understood, or none came.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import tty
import urllib.request
from pathlib import Path
from typing import Any

from dsmr_parser import telegram_specifications
from dsmr_parser.exceptions import InvalidChecksumError, ParseError
from dsmr_parser.parsers import TelegramParser

HERE = Path(__file__).parent
LOOK_SECONDS = 0.05
CURRENTS = ("INSTANTANEOUS_CURRENT_L1", "INSTANTANEOUS_CURRENT_L2", "INSTANTANEOUS_CURRENT_L3")


class Consumer:
    """A P1 reader on the port."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        tty.setraw(self.fd)
        self._parser = TelegramParser(telegram_specifications.V5)
        self._buffer = b""

    def read(self) -> list[str]:
        """What was understood of each telegram that is complete now."""
        self._buffer += os.read(self.fd, 4096)
        understood = []
        while (end := self._buffer.find(b"\n", self._buffer.find(b"\n!") + 1)) > 0 and (
            b"\n!" in self._buffer
        ):
            telegram, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
            understood.append(self._understand(telegram.decode("ascii")))
        return understood

    def _understand(self, telegram: str) -> str:
        # Raises where the checksum or an object is wrong.
        objects = self._parser.parse(telegram, throw_ex=True)
        amperes = [f"{getattr(objects, name).value:>3}" for name in CURRENTS]
        return f"{' '.join(amperes)} A  CRC {telegram[-6:-2]} right"


class Sensor:
    """csp1d, and what it tells of itself."""

    def __init__(self, folder: Path) -> None:
        config = folder / "csp1d.toml"
        config.write_text('[http]\nlisten = "127.0.0.1:0"\n')
        self.process = subprocess.Popen(
            f"/usr/bin/python3 -m csp1d --config {config} --simulate tools/demo.toml".split(),
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        told = [self.process.stdout.readline().partition(": ")[2].strip() for _ in range(2)]
        self.port, self.page = told
        if not self.page:
            raise SystemExit("csp1d did not start; its own words stand above")

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.page}status.json", timeout=5) as reply:
            answer: dict[str, Any] = json.load(reply)
        return answer

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def measured(status: dict[str, Any]) -> str:
    """The currents as the sensor has them."""
    reading = status["reading"]
    if reading is None:
        return "no fresh reading        "
    amperes = [f"{phase['rms_amperes']:6.2f}" for phase in reading["phases"].values()]
    return f"{' '.join(amperes)} A  {reading['frequency_hertz'] or 0:6.3f} Hz"


def lamps(status: dict[str, Any]) -> str:
    return "  ".join(f"{'●' if lit else '○'} {name}" for name, lit in status["leds"].items())


def watch(sensor: Sensor, seconds: float) -> int:
    """Show it all until the time is over; the number of telegrams."""
    consumer = Consumer(sensor.port)
    live = sys.stdout.isatty()
    begin = time.monotonic()
    count, printed = 0, begin
    print("  time  measured L1, L2, L3                what dsmr-parser reads           LEDs")
    while (elapsed := time.monotonic() - begin) < seconds:
        if sensor.process.poll() is not None:
            raise SystemExit("csp1d ended by itself; its own words stand above")
        status = sensor.status()
        line = f"{elapsed:5.1f} s  {measured(status):34}"
        for understood in consumer.read() if select.select([consumer.fd], [], [], 0)[0] else []:
            count, printed = count + 1, time.monotonic()
            print(f"{line} {understood:32} {lamps(status)}", flush=True)
        if time.monotonic() - printed > 1.5:
            printed = time.monotonic()
            print(f"{line} {'(no telegram)':32} {lamps(status)}", flush=True)
        if live:
            print(f"{line} {'':32} {lamps(status)}", end="\r", flush=True)
        time.sleep(LOOK_SECONDS)
    return count


def main() -> int:
    # So that whoever ends the demo ends the sensor with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seconds = float(os.environ.get("DEMO_SECONDS", "inf"))
    with tempfile.TemporaryDirectory() as folder:
        sensor = Sensor(Path(folder))
        print(f"csp1d runs on a virtual HAT. P1 port {sensor.port}, metrics {sensor.page}metrics")
        print("Ctrl-C ends it. What happens: tools/demo.toml\n", flush=True)
        count = 0
        try:
            count = watch(sensor, seconds)
        except KeyboardInterrupt:
            print("\nStopped.")
            return sensor.stop()
        except (InvalidChecksumError, ParseError) as error:
            print(f"\ndsmr-parser did not understand a telegram: {error}", file=sys.stderr)
            return 1
        finally:
            sensor.stop()
    print(f"\n{count} telegrams, all understood.")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
