# SPDX-License-Identifier: Apache-2.0
"""The daemon's command line.

Modules that only a running daemon or a fault needs are imported late: checking a configuration is
quick, and loads neither NumPy nor the log.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from csp1d import __version__
from csp1d.config import Config
from csp1d.config_file import DEFAULT_PATH, doubts, drop_in_folder, load, origins
from csp1d.errors import ConfigError, printable
from csp1d.exits import CONFIGURATION, OK, USAGE, guarded, printing

if TYPE_CHECKING:
    from csp1d.hat.simulated import SimulatedHat


def main() -> int:
    """Run `csp1d`. Returns the exit code."""
    code = guarded("csp1d", _run, _log_internal_error)
    if "logging" in sys.modules:
        from csp1d.interfaces import journal

        if not journal.leave():
            # A normal exit would wait for a log that is not being read.
            os._exit(code)
    return code


def _run() -> int:
    with printing("csp1d"):
        arguments = _parser().parse_args()
        named: Path | None = arguments.config
        try:
            config = load(named)
            if arguments.check_config and config.http.tls_certificate:
                from csp1d.interfaces.tls import load_certificates

                load_certificates(config.http, named)
        except ConfigError as error:
            _report_rejected(error, arguments.check_config)
            return CONFIGURATION
        if arguments.check_config:
            file = named or DEFAULT_PATH
            for doubt in doubts(file):
                print(printable(f"csp1d: warning: {doubt}"), file=sys.stderr)
            others = f" and {drop_in_folder(file)}" if origins(file) else ""
            print(f"{file}: OK" if file.exists() else f"{file} not found, using defaults{others}")
            return OK
    return _serve(config, named, arguments.simulate)


def _serve(config: Config, named: Path | None, scenario_text: str | None) -> int:
    """Run the daemon until it is stopped, on the simulated HAT if there is a scenario."""
    from csp1d.hat.device import Hat
    from csp1d.interfaces import journal
    from csp1d.loop.daemon import Daemon

    journal.set_up(config.log.level)
    hat: Hat
    if scenario_text is None:
        from csp1d.hat.kernel import KernelHat

        hat = KernelHat()
    else:
        from csp1d.errors import FileError

        try:
            hat = simulated = _simulated(scenario_text, config)
        except FileError as error:
            for problem in str(error).splitlines():
                print(f"csp1d: {problem}", file=sys.stderr)
            return USAGE
    daemon = Daemon(hat, config, named)
    daemon.start()
    if scenario_text is not None:
        with printing("csp1d", goes_on=True):
            print(f"P1 port: {simulated.port_path}")
            off = "not served yet" if config.http.listen else "off (http.listen is empty)"
            print(f"Page: {daemon.url or off}")
            print(f"Telegrams: cat {simulated.port_path}", flush=True)
    daemon.run()
    return OK


def _simulated(text: str, config: Config) -> "SimulatedHat":
    """The HAT of a scenario or of a capture. Raises FileError."""
    from csp1d.hat.scenario import parse
    from csp1d.hat.simulated import SimulatedHat

    hertz = config.measurement.nominal_frequency_hz
    if not text.endswith(".json"):
        return SimulatedHat(parse(text, hertz))
    from csp1d.hat.recording import Recording
    from csp1d.tool import capture

    recorded = capture.load(text)
    return SimulatedHat(parse("", hertz), Recording(recorded.format, recorded.scans_path))


def _report_rejected(error: ConfigError, is_check: bool) -> None:
    """Report a rejected configuration: a check on stderr, a start also to the journal and systemd.

    The check of a reload is no event: the daemon logs its own.
    """
    from csp1d.interfaces import journal
    from csp1d.interfaces.service import ServiceManager

    if not is_check:
        manager = ServiceManager()
        manager.status(printable(f"Configuration rejected: {error.problems[0]}"))
        manager.close()
        if journal.listens():
            journal.set_up("info")
            journal.log_rejected(error)
            return
    for line in str(error).splitlines():
        print(f"csp1d: {printable(line)}", file=sys.stderr)


def _log_internal_error() -> bool:
    """Log the current exception if stderr is the journal. Returns whether it is."""
    from csp1d.events import Event
    from csp1d.interfaces import journal

    if not journal.listens():
        return False
    journal.set_up("info")
    Event.INTERNAL_ERROR.log("internal error, please report it with the lines below", exc_info=True)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="csp1d",
        description="Measure mains currents with an IIO ADC and send them as P1 telegrams.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"configuration file (default {DEFAULT_PATH}; drop-ins in FILE.d/)",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="check the configuration and exit: 0 if it is valid, 78 with the reasons if not",
    )
    parser.add_argument(
        "--simulate",
        metavar="SCENARIO",
        nargs="?",
        const="",
        help='run with a simulated HAT: "L1=24,L2=10.5,L3=0", a TOML file of steps, or NAME.json of'
        " a capture",
    )
    parser.add_argument("--version", action="version", version=f"csp1d {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
