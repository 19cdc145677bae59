# SPDX-License-Identifier: Apache-2.0
"""Each command of csp1ctl loads only what it needs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_client import serving
from test_status import STATUS

from csp1d.interfaces.router import Page
from csp1d.status import to_json

ROOT = Path(__file__).parents[2]

NOT_FOR_THESE = {
    "asyncio",
    "csp1d.events",
    "csp1d.hat",
    "csp1d.interfaces",
    "csp1d.loop",
    "csp1d.measuring.metering",
    "csp1d.tool",
    "email",
    "gpiod",
    "http",
    "logging",
    "numpy",
    "periphery",
    "prometheus_client",
    "pyudev",
    "rich",
    "selectors",
    "socket",
    "ssl",
    "subprocess",
    "systemd",
}
"""What most commands do not need: a package stands for its modules."""

MEASURED_CTL = (sys.executable, "-X", "importtime", "-m", "csp1d.tool.ctl")

CTL = {"csp1d.tool", "csp1d.tool.ctl", "csp1d.tool.commands"}
CLIENT = CTL | {"csp1d.tool.client", "socket", "selectors"}

# The arguments and exit codes of a command, and the modules that it needs nevertheless.
COMMANDS: dict[str, tuple[set[int], set[str]]] = {
    "--help": ({0}, CTL),
    "--version": ({0}, CTL),
    "telegram 1 2 3": (
        {0},
        CTL | {"csp1d.tool.commands.telegram", "systemd", "systemd.id128"},
    ),
    "status": ({0}, CLIENT | {"csp1d.tool.commands.status"}),
    "status --json": ({0}, CLIENT | {"csp1d.tool.commands.status"}),
    "watch": ({69}, CLIENT | {"csp1d.tool.commands.watch", "csp1d.tool.watch"}),
    "discover": (
        {0, 69},
        CTL
        | {"csp1d.tool.access", "csp1d.tool.commands.discover", "csp1d.tool.output"}
        | {"csp1d.tool.suggest_config"}
        | {"csp1d.hat", "csp1d.hat.adc_drivers", "csp1d.hat.gpio", "csp1d.hat.hardware"}
        | {"csp1d.hat.sysfs"},
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_only_what_it_needs(tmp_path: Path, command: str) -> None:
    path = tmp_path / "http.sock"
    (tmp_path / "csp1d.toml").write_text(f'[http]\nsocket = "{path}"\n')
    page = Page("application/json", lambda: to_json(STATUS))
    # watch ends at once without an answer.
    with serving(path, {} if command == "watch" else {"/status.json": page}):
        done = subprocess.run(
            [*MEASURED_CTL, "--config", str(tmp_path / "csp1d.toml"), *command.split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    codes, needed = COMMANDS[command]
    assert done.returncode in codes, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    names = [line.rpartition("|")[2].strip() for line in lines[1:]]
    # A module is listed when its import ends; what Python itself and site-packages load ends here.
    loaded = set(names[names.index("site") + 1 :])
    unneeded = {
        name
        for name in loaded - needed
        if any(re.match(rf"{re.escape(module)}(\.|$)", name) for module in NOT_FOR_THESE)
    }
    assert unneeded == set()
