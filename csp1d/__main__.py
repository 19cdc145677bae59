# SPDX-License-Identifier: Apache-2.0
"""The daemon's command line."""

import argparse
import contextlib
import os
import sys
from pathlib import Path

from csp1d import __version__
from csp1d.config_file import DEFAULT_PATH, load
from csp1d.errors import ConfigError
from csp1d.events import Event
from csp1d.exits import CONFIGURATION, OK, USAGE, guarded
from csp1d.interfaces import journal
from csp1d.interfaces.service import ServiceManager


def main() -> int:
    """Run `csp1d`; the exit code."""
    code = guarded("csp1d", _run, _tell_internal_error)
    if not journal.leave():
        # The interpreter would wait for the one who does not take the log.
        os._exit(code)
    return code


def _run() -> int:
    arguments = _parser().parse_args()
    try:
        config = load(arguments.config)
    except ConfigError as error:
        if not arguments.check_config:
            _tell_manager(error)
        if journal.listens():
            journal.set_up("info")
            checked = "it is not taken over" if arguments.check_config else "csp1d does not start"
            journal.log_rejected(error, checked)
        else:
            for problem in error.problems:
                print(f"csp1d: {problem}", file=sys.stderr)
        return CONFIGURATION
    if arguments.check_config:
        there = arguments.config.exists()
        print(f"{arguments.config}: good{'' if there else ', as it is not there: all defaults'}")
        return OK
    journal.set_up(config.log.level)

    # Late, so that checking a configuration does not load what only a run needs.
    from csp1d.hat.device import Hat
    from csp1d.loop.daemon import Daemon

    hat: Hat
    if arguments.simulate is not None:
        from csp1d.errors import ScenarioError
        from csp1d.hat.scenario import parse
        from csp1d.hat.simulated import SimulatedHat

        try:
            scenario = parse(arguments.simulate, config.measurement.nominal_frequency_hz)
        except ScenarioError as error:
            print(f"csp1d: {error}", file=sys.stderr)
            return USAGE
        hat = simulated = SimulatedHat(scenario)
    else:
        from csp1d.hat.kernel import KernelHat

        hat = KernelHat()
    daemon = Daemon(hat, config, arguments.config)
    daemon.start()
    if arguments.simulate is not None:
        with contextlib.suppress(BrokenPipeError):
            print(f"P1 port: {simulated.port_path}")
            off = "not served yet" if config.http.listen else "off (http.listen is empty)"
            print(f"Page: {daemon.url or off}", flush=True)
    daemon.run()
    return OK


def _tell_manager(error: ConfigError) -> None:
    """What `systemctl status` shows of a service that did not start."""
    manager = ServiceManager()
    manager.status(f"Configuration rejected: {error.problems[0]}")
    manager.close()


def _tell_internal_error() -> bool:
    """Put the exception that is being handled into the journal, if that is where we log to."""
    if not journal.listens():
        return False
    journal.set_up("info")
    Event.INTERNAL_ERROR.log("internal error, please report it with the lines below", exc_info=True)
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="csp1d",
        description="Measures mains currents with an IIO ADC and sends them as P1 telegrams.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=DEFAULT_PATH,
        help=f"configuration (default {DEFAULT_PATH}; drop-ins lie in FILE.d/)",
    )
    parser.add_argument(
        "--check-config",
        action="store_true",
        help="say what is wrong with the configuration, and exit with 78 if anything is",
    )
    parser.add_argument(
        "--simulate",
        metavar="SCENARIO",
        nargs="?",
        const="",
        help='run on a HAT in memory: "L1=24,L2=10.5,L3=0" or a TOML file of steps',
    )
    parser.add_argument("--version", action="version", version=f"csp1d {__version__}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
