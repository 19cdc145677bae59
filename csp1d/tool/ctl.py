# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl`: its command line. Each command is a module of its own, imported only when it runs."""

import argparse
import math
import signal
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from csp1d import __version__
from csp1d.config import Config
from csp1d.config_file import DEFAULT_PATH, load
from csp1d.errors import CaptureError, ConfigError, DeviceError, FileError, printable
from csp1d.exits import CONFIGURATION, DEVICE_MISSING, USAGE, guarded, printing
from csp1d.phase import Phase


def main() -> int:
    """Run `csp1ctl`; the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # As Ctrl-C, so that no draft of a file stays and a screen is left. nohup(1) ignores SIGHUP.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    return guarded("csp1ctl", _run)


def _run() -> int:
    with printing("csp1ctl"):
        arguments = _parser().parse_args()
        named = getattr(arguments, "config", None)
        arguments.config = named or DEFAULT_PATH
        try:
            # discover makes a configuration, and report reads it: the present one may be wrong.
            is_needed = arguments.command not in ("discover", "report")
            config = load(named) if is_needed else Config()
        except ConfigError as error:
            _report(error)
            if arguments.command in ("status", "watch"):
                # The daemon continues with the one before, whose socket usually is the default.
                _command(Config(), arguments)
            return CONFIGURATION
        return _command(config, arguments)


def _command(config: Config, arguments: argparse.Namespace) -> int:
    """Run the command; its exit code."""
    try:
        command = import_module(f"csp1d.tool.commands.{arguments.command}")
        return int(command.run(config, arguments))
    except (FileError, DeviceError) as error:
        _report(error)
        if isinstance(error, ConfigError):
            return CONFIGURATION
        return USAGE if isinstance(error, CaptureError) else DEVICE_MISSING


def _report(error: Exception) -> None:
    for line in str(error).splitlines():
        print(f"csp1ctl: {printable(line)}", file=sys.stderr)


def _number(meaning: str, is_valid: Callable[[float], bool]) -> Callable[[str], float]:
    """A type of arguments for argparse: finite numbers that are valid."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and is_valid(value)):
            raise argparse.ArgumentTypeError(f"must be {meaning}, got {text!r}")
        return value

    return parse


_SECONDS = _number(
    "a number of seconds above 0, at most 86400", lambda seconds: 0 < seconds <= 86400
)
_AMPERES = _number("a number of amperes", lambda amperes: True)
_FUSE = _number("a number of amperes, at least 1", lambda amperes: amperes >= 1)


def _phase(text: str) -> Phase:
    try:
        return Phase(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(Phase)}, got {text!r}"
        ) from None


def _point(text: str) -> tuple[Phase, float]:
    from csp1d.tool.commands.calibrate import parse_point

    return parse_point(text)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS,
        help=f"configuration file (default {DEFAULT_PATH}; drop-ins in FILE.d/)",
    )
    parser = argparse.ArgumentParser(
        prog="csp1ctl", description="Set up, calibrate and watch csp1d.", parents=[common]
    )
    parser.add_argument("--version", action="version", version=f"csp1ctl {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    add = partial(commands.add_parser, parents=[common])

    telegram = add("telegram", help="print the telegram for three currents")
    for phase in Phase:
        telegram.add_argument(
            phase.lower(), metavar=phase, type=_AMPERES, help=f"current of {phase} in amperes"
        )

    discover = add("discover", help="find devices and print a configuration for them")
    discover.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write the configuration to this file, such as a drop-in",
    )

    status = add("status", help="print the state of the running daemon")
    status.add_argument("--json", action="store_true", help="print /status.json as served")

    watch = add("watch", help="show the state of the running daemon until Ctrl-C")
    watch.add_argument(
        "--fuse",
        metavar="AMPERES",
        type=_FUSE,
        help="current at which a bar is full and turns red (default: that of the main fuse, or 80)",
    )

    calibrate = add("calibrate", help="find noise floor and gain with the running daemon")
    yes = argparse.ArgumentParser(add_help=False)
    yes.add_argument("--yes", action="store_true", help="write the drop-in without confirmation")
    kinds = calibrate.add_subparsers(metavar="WHAT", dest="kind", required=True)
    add_kind = partial(kinds.add_parser, parents=[common, yes])
    zero = add_kind("zero", help="find the noise floor, with no current flowing")
    zero.add_argument("phases", metavar="PHASE", nargs="*", type=_phase, help="default: all")
    gain = add_kind("gain", help="find the gain, against a reference meter")
    gain.add_argument(
        "points",
        metavar="POINT",
        nargs="*",
        type=_point,
        help="reading of the reference meter at a steady load, such as L1=10.02 (default: ask)",
    )

    record = add("record", help="record raw scans, from the running daemon or from the ADC")
    record.add_argument("seconds", metavar="SECONDS", type=_SECONDS, help="duration")
    record.add_argument("name", metavar="NAME", help="write NAME.json and NAME.bin")

    replay = add("replay", help="measure a capture, one JSON line per reading")
    replay.add_argument("name", metavar="NAME", help="read NAME.json and NAME.bin")

    report = add("report", help="write one archive for a bug report")
    report.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="write this new file (default: csp1d-report-DATE-TIME.tar.gz)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
