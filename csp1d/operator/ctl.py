# SPDX-License-Identifier: Apache-2.0
"""The tool beside the daemon: `csp1ctl`."""

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from csp1d import __version__
from csp1d.config import Config
from csp1d.config_file import DEFAULT_PATH, ConfigError, load
from csp1d.exits import CONFIGURATION, DEVICE_MISSING, INTERNAL, OK, USAGE, guarded
from csp1d.hat.device import Adc, DeviceError
from csp1d.measuring.capture import CaptureError
from csp1d.measuring.reading import DirectionReading, Phase
from csp1d.p1.telegram import encode


def main() -> int:
    """Run `csp1ctl`; the exit code."""
    return guarded("csp1ctl", _run)


def _run() -> int:
    arguments = _parser().parse_args()
    try:
        config = load(getattr(arguments, "config", DEFAULT_PATH))
        return int(arguments.command(config, arguments))
    except ConfigError as error:
        for problem in error.problems:
            print(f"csp1ctl: {problem}", file=sys.stderr)
        return CONFIGURATION
    except CaptureError as error:
        print(f"csp1ctl: {error}", file=sys.stderr)
        return USAGE
    except DeviceError as error:
        print(f"csp1ctl: {error}", file=sys.stderr)
        return DEVICE_MISSING
    except BrokenPipeError:
        # The reader of our output left, as `head` does; nor shall the interpreter flush to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        print(f"csp1ctl: the output can not be written: {error}", file=sys.stderr)
        return INTERNAL


def _telegram(config: Config, arguments: argparse.Namespace) -> int:
    amperes = (arguments.l1, arguments.l2, arguments.l3)
    try:
        data = encode(config.p1, amperes, time.localtime(), config.direction)
    except ValueError as error:
        print(f"csp1ctl: {error}", file=sys.stderr)
        return USAGE
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    return OK


def _replay(config: Config, arguments: argparse.Namespace) -> int:
    from csp1d.measuring.capture import Replay, reading_json
    from csp1d.measuring.capture import load as load_capture

    capture = load_capture(arguments.name)
    replay = Replay(
        capture,
        config.channels.used(),
        config.measurement,
        config.direction,
        config.reference(),
    )
    told: set[str] = set()
    for reading in replay:
        print(json.dumps(reading_json(reading)))
        for key, words in _remarks(reading.direction).items():
            if key not in told:
                told.add(key)
                print(f"csp1ctl: {arguments.name}: {words}", file=sys.stderr)
    if replay.clock_fault:
        print(f"csp1ctl: {arguments.name}: timestamps {replay.clock_fault}", file=sys.stderr)
    return OK


def _remarks(direction: DirectionReading | None) -> dict[str, str]:
    """What is worth saying of a direction, by a key: what has the same one is no news."""
    remarks = {}
    if direction and (fault := direction.reference_fault):
        # The figures in it are others in each reading.
        remarks["fault"] = f"direction unknown, all counts as import: {fault}"
    if direction and (advice := direction.wiring_advice):
        remarks[advice] = advice
    return remarks


def _record(config: Config, arguments: argparse.Namespace) -> int:
    from csp1d.hat.kernel import KernelHat
    from csp1d.measuring.capture import save

    with contextlib.closing(KernelHat().open_adc(config)) as adc:
        scans = save(arguments.name, adc.format, _chunks(adc, arguments.seconds))
    print(f"{scans} scans in {arguments.name}.bin", file=sys.stderr)
    return OK


def _chunks(adc: Adc, seconds: float) -> Iterator[bytes]:
    """What the ADC delivers in so many seconds."""
    end_seconds = time.monotonic() + seconds
    while (left := end_seconds - time.monotonic()) > 0:
        time.sleep(min(left, 0.25))
        try:
            yield adc.read()
        except OSError as error:
            raise DeviceError(f"the ADC vanished while recording: {error.strerror}") from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: a number of seconds above 0")
    return seconds


def _amperes(text: str) -> float:
    try:
        amperes = float(text)
    except ValueError:
        amperes = math.nan
    if not math.isfinite(amperes):
        raise argparse.ArgumentTypeError(f"{text!r} is not a current: a number of amperes")
    return amperes


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS,
        help=f"configuration (default {DEFAULT_PATH}; drop-ins lie in FILE.d/)",
    )
    parser = argparse.ArgumentParser(
        prog="csp1ctl", description="Looks into csp1d and its captures.", parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"csp1ctl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    telegram = commands.add_parser(
        "telegram", parents=[common], help="print the telegram for three currents"
    )
    for phase in Phase:
        telegram.add_argument(phase.lower(), metavar=phase, type=_amperes, help="amperes")
    telegram.set_defaults(command=_telegram)
    record = commands.add_parser(
        "record", parents=[common], help="record the ADC's scans (stop the daemon first)"
    )
    record.add_argument("seconds", metavar="SECONDS", type=_seconds)
    record.add_argument("name", metavar="NAME", help="writes NAME.json and NAME.bin")
    record.set_defaults(command=_record)
    replay = commands.add_parser(
        "replay", parents=[common], help="run the metering over a capture, a JSON line a reading"
    )
    replay.add_argument("name", metavar="NAME", help="of NAME.json and NAME.bin")
    replay.set_defaults(command=_replay)
    return parser


if __name__ == "__main__":
    sys.exit(main())
