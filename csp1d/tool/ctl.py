# SPDX-License-Identifier: Apache-2.0
"""The tool beside the daemon: `csp1ctl`."""

import argparse
import contextlib
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from csp1d import __version__
from csp1d.config import Config
from csp1d.config_file import DEFAULT_PATH, load
from csp1d.errors import CaptureError, ConfigError, DeviceError
from csp1d.exits import CONFIGURATION, DEVICE_MISSING, INTERNAL, OK, USAGE, guarded
from csp1d.hat.device import Adc
from csp1d.measuring.reading import Reading
from csp1d.p1.telegram import encode
from csp1d.phase import Phase
from csp1d.status import status_text
from csp1d.tool.calibrate import gain, point, zero
from csp1d.tool.client import Client


def main() -> int:
    """Run `csp1ctl`; the exit code."""
    return guarded("csp1ctl", _run)


def _run() -> int:
    arguments = _parser().parse_args()
    arguments.config = getattr(arguments, "config", DEFAULT_PATH)
    try:
        config = load(arguments.config) if arguments.configured else Config()
        return int(arguments.command(config, arguments))
    except ConfigError as error:
        for problem in error.problems:
            print(f"csp1ctl: {problem}", file=sys.stderr)
        return CONFIGURATION
    except CaptureError as error:
        print(f"csp1ctl: {error}", file=sys.stderr)
        return USAGE
    except DeviceError as error:
        for reason in str(error).splitlines():
            print(f"csp1ctl: {reason}", file=sys.stderr)
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
    from csp1d.measuring.replay import reading_json
    from csp1d.tool import capture

    replay = capture.replay(
        capture.load(arguments.name),
        config.channels.used(),
        config.measurement,
        config.direction,
        config.reference(),
    )
    told: set[str] = set()
    reading = None
    for reading in replay:
        print(json.dumps(reading_json(reading)))
        for key, remark in _remarks(reading).items():
            if key not in told:
                told.add(key)
                print(f"csp1ctl: {arguments.name}: {remark}", file=sys.stderr)
    for fault in (replay.clock_fault and f"timestamps {replay.clock_fault}", replay.rate_fault):
        if fault:
            print(f"csp1ctl: {arguments.name}: {fault}", file=sys.stderr)
    if reading is None:
        words = "no reading: it takes a second and more of scans, of which few are missing"
        print(f"csp1ctl: {arguments.name}: {words}", file=sys.stderr)
    return OK


def _remarks(reading: Reading) -> dict[str, str]:
    """What is worth saying of a reading, by a key: what has the same one is no news."""
    remarks: dict[str, str] = {}
    for phase in reading.failed_phases:
        remarks[phase] = f"{phase} lies at the end of the ADC's range: what flows is not known"
    direction = reading.direction
    if direction and (fault := direction.reference_fault):
        # The figures in it are others in each reading.
        remarks["fault"] = f"direction unknown, all counts as import: {fault}"
    if direction and (advice := direction.wiring_advice):
        remarks[advice] = advice
    return remarks


def _record(config: Config, arguments: argparse.Namespace) -> int:
    from csp1d.tool.capture import save
    from csp1d.tool.progress import progress

    seconds = arguments.seconds
    with (
        contextlib.closing(_recorded_adc(config)) as adc,
        progress(f"Recording {arguments.name}", seconds, "s") as show,
    ):
        scans = save(arguments.name, adc.format, _chunks(adc, seconds, show))
    print(f"{scans} scans in {arguments.name}.bin", file=sys.stderr)
    return OK


def _recorded_adc(config: Config) -> Adc:
    """The daemon's ADC in other hands. Its errors tell of the daemon's rights."""
    from csp1d.hat.kernel import KernelHat

    try:
        return KernelHat().open_adc(config)
    except DeviceError as error:
        cause = error.__cause__
        if isinstance(cause, PermissionError):
            raise DeviceError(f"{error}; or record as root (sudo)") from error
        if isinstance(cause, OSError) and cause.errno == errno.EBUSY:
            raise DeviceError(f"{error}; if it is csp1d: systemctl stop csp1d") from error
        raise


def _chunks(adc: Adc, seconds: float, show: Callable[[float], None]) -> Iterator[bytes]:
    """What the ADC delivers in so many seconds; `show` is told how many have passed."""
    end_seconds = time.monotonic() + seconds
    while (left := end_seconds - time.monotonic()) > 0:
        show(seconds - left)
        time.sleep(min(left, 0.25))
        try:
            yield adc.read()
        except OSError as error:
            raise DeviceError(f"the ADC vanished while recording: {error.strerror}") from error


def _client(config: Config, arguments: argparse.Namespace) -> Client:
    return Client(config.http, arguments.certificate, arguments.key)


def _discover(config: Config, arguments: argparse.Namespace) -> int:
    from csp1d.tool.discover import run

    return run(arguments.config)


def _status(config: Config, arguments: argparse.Namespace) -> int:
    client = _client(config, arguments)
    if arguments.json:
        print(client.status_json().decode())
    else:
        print(status_text(client.status(), client.url), end="")
    return OK


def _watch(config: Config, arguments: argparse.Namespace) -> int:
    from csp1d.tool.watch import run

    return run(_client(config, arguments), arguments.fuse)


def _zero(config: Config, arguments: argparse.Namespace) -> int:
    client = _client(config, arguments)
    return zero(config, arguments.config, client, arguments.phases, arguments.yes)


def _gain(config: Config, arguments: argparse.Namespace) -> int:
    client = _client(config, arguments)
    return gain(config, arguments.config, client, arguments.points, arguments.yes)


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


def _phase(text: str) -> Phase:
    try:
        return Phase(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(Phase)}") from None


def _fuse(text: str) -> float:
    amperes = _amperes(text)
    if amperes < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fuse: a number of amperes from 1 up")
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
        prog="csp1ctl", description="Sets csp1d up, calibrates it and watches it.", parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"csp1ctl {__version__}")
    parser.set_defaults(configured=True)
    client = argparse.ArgumentParser(add_help=False)
    client.add_argument(
        "--certificate",
        metavar="FILE",
        default="",
        help="PEM file to show to a csp1d that lets in only some clients (http.tls_client_ca)",
    )
    client.add_argument(
        "--key", metavar="FILE", default="", help="its key, where the certificate's file lacks it"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    telegram = commands.add_parser(
        "telegram", parents=[common], help="print the telegram for three currents"
    )
    for phase in Phase:
        telegram.add_argument(phase.lower(), metavar=phase, type=_amperes, help="amperes")
    telegram.set_defaults(command=_telegram)
    discover = commands.add_parser(
        "discover", parents=[common], help="look for devices, print a configuration for them"
    )
    # What is configured so far does not matter to it, nor whether that is right.
    discover.set_defaults(command=_discover, configured=False)
    status = commands.add_parser(
        "status", parents=[common, client], help="ask the running daemon for its state"
    )
    status.add_argument("--json", action="store_true", help="as the daemon gives it to scripts")
    status.set_defaults(command=_status)
    watch = commands.add_parser(
        "watch", parents=[common, client], help="watch the running daemon, until Ctrl-C"
    )
    watch.add_argument(
        "--fuse",
        metavar="AMPERES",
        type=_fuse,
        default=80.0,
        help="at which a bar is full and turns red (default 80)",
    )
    watch.set_defaults(command=_watch)
    calibrate = commands.add_parser(
        "calibrate", parents=[common], help="find noise floor and gain with the running daemon"
    )
    _add_calibrations(calibrate, [common, client])
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


def _add_calibrations(
    calibrate: argparse.ArgumentParser, parents: list[argparse.ArgumentParser]
) -> None:
    kinds = calibrate.add_subparsers(metavar="WHAT", required=True)
    yes = argparse.ArgumentParser(add_help=False)
    yes.add_argument("--yes", action="store_true", help="write the drop-in without asking")
    zero = kinds.add_parser(
        "zero", parents=[*parents, yes], help="the noise floor, while nothing flows"
    )
    zero.add_argument("phases", metavar="PHASE", nargs="*", type=_phase, help="default: all")
    zero.set_defaults(command=_zero)
    gain = kinds.add_parser(
        "gain", parents=[*parents, yes], help="the gain, against a reference meter"
    )
    gain.add_argument(
        "points",
        metavar="POINT",
        nargs="*",
        type=point,
        help="what the reference shows of a steady load, such as L1=10.02; asked for if left out",
    )
    gain.set_defaults(command=_gain)


if __name__ == "__main__":
    sys.exit(main())
