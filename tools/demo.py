# SPDX-License-Identifier: Apache-2.0
"""The demo: csp1d on its virtual HAT, and dsmr-parser reading its telegrams.

The reader knows nothing of csp1d but the port. Currents and LEDs come from the HTTP server of
csp1d. Exits with 1 if a telegram could not be parsed, or if there was none.
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
POLL_SECONDS = 0.05
CURRENTS = ("INSTANTANEOUS_CURRENT_L1", "INSTANTANEOUS_CURRENT_L2", "INSTANTANEOUS_CURRENT_L3")


class Consumer:
    """A P1 reader on the port."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        tty.setraw(self.fd)
        self._parser = TelegramParser(telegram_specifications.V5)
        self._buffer = b""

    def read(self) -> list[str]:
        """A summary of each telegram that is complete now."""
        self._buffer += os.read(self.fd, 4096)
        summaries = []
        while (end := self._buffer.find(b"\n", self._buffer.find(b"\n!") + 1)) > 0 and (
            b"\n!" in self._buffer
        ):
            telegram, self._buffer = self._buffer[: end + 1], self._buffer[end + 1 :]
            summaries.append(self._summary(telegram.decode("ascii")))
        return summaries

    def _summary(self, telegram: str) -> str:
        # Raises if the checksum or an object is wrong.
        objects = self._parser.parse(telegram, throw_ex=True)
        amperes = [f"{getattr(objects, name).value:>3}" for name in CURRENTS]
        return f"{' '.join(amperes)} A  CRC {telegram[-6:-2]} OK"


class Sensor:
    """csp1d, and its state."""

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
        lines = [self.process.stdout.readline() for _ in range(2)]
        self.port, self.page = (line.partition(": ")[2].strip() for line in lines)
        if not self.page:
            raise SystemExit("csp1d did not start; see its messages above")

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.page}status.json", timeout=5) as reply:
            answer: dict[str, Any] = json.load(reply)
        return answer

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def measured(status: dict[str, Any]) -> str:
    """The currents that csp1d measures."""
    reading = status["reading"]
    if reading is None:
        return "no current reading      "
    amperes = [f"{phase['rms_amperes']:6.2f}" for phase in reading["phases"].values()]
    return f"{' '.join(amperes)} A  {reading['frequency_hertz'] or 0:6.3f} Hz"


def leds(status: dict[str, Any]) -> str:
    lights = status["leds_ms_per_second"].items()
    return "  ".join(f"{'●' if ms else '○'} {name} {ms or 0:4} ms" for name, ms in lights)


def watch(sensor: Sensor, seconds: float) -> int:
    """Show everything for this many seconds. Returns the number of telegrams."""
    consumer = Consumer(sensor.port)
    live = sys.stdout.isatty()
    begin = time.monotonic()
    count, printed = 0, begin
    print("  time  measured L1, L2, L3                dsmr-parser reads                LEDs")
    while (elapsed := time.monotonic() - begin) < seconds:
        if sensor.process.poll() is not None:
            raise SystemExit("csp1d ended; see its messages above")
        summaries = consumer.read() if select.select([consumer.fd], [], [], 0)[0] else []
        status = sensor.status()  # after the telegram, which so shows the same reading
        line = f"{elapsed:5.1f} s  {measured(status):34}"
        for summary in summaries:
            count, printed = count + 1, time.monotonic()
            print(f"{line} {summary:32} {leds(status)}", flush=True)
        if time.monotonic() - printed > 1.5:
            printed = time.monotonic()
            print(f"{line} {'(no telegram)':32} {leds(status)}", flush=True)
        if live:
            print(f"{line} {'':32} {leds(status)}", end="\r", flush=True)
        time.sleep(POLL_SECONDS)
    return count


def main() -> int:
    # SIGTERM must end csp1d, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    seconds = float(os.environ.get("DEMO_SECONDS", "inf"))
    with tempfile.TemporaryDirectory() as folder:
        sensor = Sensor(Path(folder))
        print(f"csp1d runs on a virtual HAT. P1 port {sensor.port}, metrics {sensor.page}metrics")
        print("Ctrl-C to quit. Its events: tools/demo.toml\n", flush=True)
        count = 0
        try:
            count = watch(sensor, seconds)
        except KeyboardInterrupt:
            print("\nStopped.")
            return sensor.stop()
        except (InvalidChecksumError, ParseError) as error:
            print(f"\ndsmr-parser rejected a telegram: {error}", file=sys.stderr)
            return 1
        finally:
            sensor.stop()
    print(f"\n{count} telegrams, all parsed.")
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
