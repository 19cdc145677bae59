# SPDX-License-Identifier: Apache-2.0
"""csp1d under the real service manager, logging to the real journal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .board import Board, wait_for

UNIT = "csp1d-under-test.service"


def run(*command: str) -> str:
    """The output of a command; a failure shows its errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def show(name: str) -> str:
    """A property of the unit."""
    return run("systemctl", "show", "--value", "--property", name, UNIT).strip()


def entries() -> list[dict[str, str]]:
    """The daemon's journal entries with all their fields."""
    lines = run("journalctl", "--unit", UNIT, "--output", "json").splitlines()
    found: list[dict[str, str]] = [json.loads(line) for line in lines]
    return [entry for entry in found if entry.get("SYSLOG_IDENTIFIER") == "csp1d"]


def events() -> list[str]:
    """The events among them."""
    return [entry["CSP1D_EVENT"] for entry in entries() if "CSP1D_EVENT" in entry]


@pytest.fixture
def unit(own_board: Board) -> Iterator[Board]:
    """The daemon as a unit of systemd, which returns from starting it when it is ready."""
    run("systemctl", "reset-failed")
    run(
        "systemd-run",
        f"--unit={UNIT}",
        "--property=Type=notify",
        "--property=WatchdogSec=30",
        "--property=ExecReload=/bin/kill -HUP $MAINPID",
        "--setenv=PYTHONPATH=/csp1d",
        *(sys.executable, "-m", "csp1d", "--config", str(own_board.daemon.config)),
    )
    yield own_board
    # The test may have stopped it already; then the unit is gone.
    subprocess.run(["systemctl", "stop", UNIT], check=False, timeout=60)


def test_the_service_tells_its_state_and_its_journal_has_fields(unit: Board) -> None:
    assert show("ActiveState") == "active"
    unit.wait_until_measuring()
    wait_for("the state in words", lambda: show("StatusText").startswith("Measuring"), 10)
    assert show("StatusText") == "Measuring; P1 port open; no request"
    assert int(show("WatchdogTimestampMonotonic")) > int(show("ActiveEnterTimestampMonotonic"))

    (started,) = [entry for entry in entries() if entry.get("CSP1D_EVENT") == "started"]
    assert started["MESSAGE"].startswith("csp1d ")
    assert started["PRIORITY"] == "6"

    unit.hat.adc.unplug()
    wait_for("the loss in the journal", lambda: "adc-lost" in events(), 10)
    unit.hat.adc.plug()
    wait_for("the return in the journal", lambda: "adc-found" in events(), 10)
    (lost,) = [entry for entry in entries() if entry.get("CSP1D_EVENT") == "adc-lost"]
    assert (lost["CSP1D_DEVICE"], lost["PRIORITY"]) == ("ADC", "4")
    assert lost["CSP1D_REASON"]


def test_a_reload_is_waited_for_and_a_stop_is_clean(unit: Board) -> None:
    unit.daemon.config.write_text(unit.daemon.config.read_text() + "\n[log]\nlvel = 1\n")
    run("systemctl", "reload", UNIT)
    wait_for("the refusal in the journal", lambda: "configuration-rejected" in events(), 10)
    assert show("ActiveState") == "active"
    run("systemctl", "stop", UNIT)
    assert show("ActiveState") == "inactive", "not failed"
    assert "stopped" in events()
    assert unit.hat.adc.enabled is False
