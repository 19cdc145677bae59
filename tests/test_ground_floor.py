# SPDX-License-Identifier: Apache-2.0
"""Commands that need little load little: the modules that each of them may not import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NOT_FOR_ANY = {
    "asyncio",
    "gpiod",
    "numpy",
    "periphery",
    "prometheus_client",
    "pyudev",
    "systemd",
    "csp1d.loop",
    "csp1d.measuring.metering",
}
NOT_FOR_CSP1D = NOT_FOR_ANY | {
    "csp1d.events",
    "csp1d.hat",
    "csp1d.interfaces",
    "csp1d.measuring",
    "csp1d.p1",
    "csp1d.status",
    "csp1d.tool",
    "csv",
    "difflib",
    "email",
    "hashlib",
    "http",
    "json",
    "logging",
    "queue",
    "random",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "traceback",
    "xml",
}

# The arguments of a Python that runs a command, and the modules that it may not import. A package
# stands for all of its modules.
COMMANDS: dict[tuple[str, ...], set[str]] = {
    ("-m", "csp1d", "--check-config"): NOT_FOR_CSP1D,
    ("-m", "csp1d", "--check-config", "--config", "etc/csp1d.toml"): NOT_FOR_CSP1D,
    ("-m", "csp1d", "--help"): NOT_FOR_CSP1D,
    ("-m", "csp1d", "--version"): NOT_FOR_CSP1D,
}


def imported(command: tuple[str, ...]) -> set[str]:
    """The modules that a command imports, without those of Python's own start."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = [line.rpartition("|")[2].strip() for line in lines[1:]]
    # A module is listed when its import ends: Python's own, and what site-packages adds, end here.
    return set(names[names.index("site") + 1 :])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_loads_only_what_it_needs(command: tuple[str, ...]) -> None:
    forbidden = {
        name
        for name in imported(command)
        for module in COMMANDS[command]
        if re.match(rf"{re.escape(module)}(\.|$)", name)
    }
    assert forbidden == set()
