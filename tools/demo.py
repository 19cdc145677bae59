# SPDX-License-Identifier: Apache-2.0
"""The demo: csp1d on its virtual HAT, and dsmr-parser reading telegrams as a charge point does.

The reader knows nothing of csp1d but the port; only the reason for silence comes from the HTTP
server of csp1d. Exits with 1 if a telegram could not be parsed, or if there was none.
"""

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import tty
import urllib.request
from pathlib import Path
from typing import Any

from dsmr_parser import telegram_specifications
from dsmr_parser.exceptions import InvalidChecksumError, ParseError
from dsmr_parser.parsers import TelegramParser

HERE = Path(__file__).parent
SCENARIO = HERE / "demo.toml"
SILENCE_SECONDS = 1.5


class Consumer:
    """A P1 reader on the port."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_NOCTTY)
        tty.setraw(self.fd)
        self._parser = TelegramParser(telegram_specifications.V5)
        self._buffer = b""

    def read(self) -> list[str]:
        """In words, each telegram that is complete now."""
        self._buffer += os.read(self.fd, 4096)
        telegrams = re.findall(rb"(?s).*?\n![^\n]*\n", self._buffer)
        self._buffer = self._buffer[sum(map(len, telegrams)) :]
        return [self._in_words(telegram.decode("ascii")) for telegram in telegrams]

    def _in_words(self, telegram: str) -> str:
        # Raises if the checksum or an object is wrong.
        objects = self._parser.parse(telegram, throw_ex=True)
        currents = [
            f"{phase} {getattr(objects, f'INSTANTANEOUS_CURRENT_{phase}').value:>3} A"
            for phase in ("L1", "L2", "L3")
        ]
        return f"{'   '.join(currents)}   checksum correct"


class Sensor:
    """csp1d, and its state."""

    def __init__(self, folder: Path) -> None:
        config = folder / "csp1d.toml"
        config.write_text('[http]\nlisten = "127.0.0.1:0"\n')
        options: list[str | Path] = ["--config", config, "--simulate", SCENARIO]
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-m", "csp1d", *options],
            cwd=HERE.parent,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        try:
            lines = [self.process.stdout.readline() for _ in range(2)]
        except BaseException:
            self.stop()
            raise
        self.start = time.monotonic()  # of the scenario, which is about to begin
        self.port, self.page = (line.partition(": ")[2].strip() for line in lines)
        if not self.page:
            raise SystemExit("csp1d did not start; see its messages above")

    def why_silent(self) -> str:
        """Why csp1d sends no telegram."""
        with urllib.request.urlopen(f"{self.page}status.json", timeout=5) as reply:
            status: dict[str, Any] = json.load(reply)
        return str(status["headline"]) if status["reading"] is None else "none is requested"

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(10)


def interruptions() -> list[tuple[float, str]]:
    """When, in seconds, and how the scenario interrupts the telegrams."""
    found: list[tuple[float, str]] = []
    for step in tomllib.loads(SCENARIO.read_text())["step"]:
        match step:
            case {"stall_seconds": seconds}:
                what = f"the ADC stalls for {seconds} s"
            case {"request": "low"}:
                what = "the charge point stops requesting telegrams"
            case {"request": "high"}:
                what = "the charge point requests telegrams again"
            case _:
                continue
        found.append((step["at_seconds"], what))
    return found


def watch(sensor: Sensor, seconds: float) -> int:
    """Print each interruption, each telegram, and the reason for silence. Returns the number of
    telegrams."""
    consumer = Consumer(sensor.port)
    end = time.monotonic() + seconds
    coming = [(sensor.start + at_seconds, what) for at_seconds, what in interruptions()]
    spoke = time.monotonic()
    count = 0
    while (now := time.monotonic()) < end:
        due = min([end, spoke + SILENCE_SECONDS, *(at for at, _ in coming[:1])])
        is_readable = bool(select.select([consumer.fd], [], [], max(due - now, 0))[0])
        if sensor.process.poll() is not None:
            raise SystemExit("csp1d ended; see its messages above")
        now = time.monotonic()
        lines = [f"--- {what} ---" for at, what in coming if at <= now]
        del coming[: len(lines)]
        if is_readable:
            telegrams = consumer.read()
            count += len(telegrams)
            lines += telegrams
            spoke = now
        elif now >= spoke + SILENCE_SECONDS:
            lines.append(f"no telegram: {sensor.why_silent()}")
            spoke = now
        for line in lines:
            print(f"{time.strftime('%H:%M:%S')}   {line}", flush=True)
    return count


def main() -> int:
    # These must end csp1d, too; SIGHUP comes when the terminal is closed.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    wanted = os.environ.get("DEMO_SECONDS", "inf")
    try:
        seconds = float(wanted)
    except ValueError:
        seconds = 0
    if not seconds > 0:
        sys.exit(f"DEMO_SECONDS must be a number above 0, got {wanted!r}")
    with tempfile.TemporaryDirectory() as folder:
        sensor = Sensor(Path(folder))
        count = 0
        try:
            print(f"Page: {sensor.page} (currents, waveforms and LEDs, in a browser)")
            reader = "read by dsmr-parser as a charge point does, once per second"
            print(f"P1 port: {sensor.port}, {reader}")
            print("The telegram has whole amperes. INFO and WARNING begin csp1d's own messages.")
            print("Currents change, and telegrams stop twice in the first minute: tools/demo.toml")
            print("Ctrl-C ends the demo.\n", flush=True)
            count = watch(sensor, seconds)
        except KeyboardInterrupt:
            print("\nStopped.")
            return sensor.stop()
        except (InvalidChecksumError, ParseError) as error:
            print(f"\ndsmr-parser rejected a telegram: {error}", file=sys.stderr)
            return 1
        finally:
            sensor.stop()
    print(f"\n{count} telegrams, all parsed." if count else "\nNo telegram.", flush=True)
    return 0 if count else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # csp1d was starting, and has received the signal too.
    except OSError as error:
        # Mostly of standard output, whose reader may have ended: what is left must not be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(None if isinstance(error, BrokenPipeError) else f"demo: {error}")
