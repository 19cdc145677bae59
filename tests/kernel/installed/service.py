# SPDX-License-Identifier: Apache-2.0
"""csp1d as the package has installed it, seen through the service manager and the journal."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
from guest.board import HAT_CONFIGURATION, Board, Daemon, wait_for
from guest.conftest import AMPERES
from guest.hat import Feeder, Hat

UNIT = "csp1d.service"
CONFIG = Path("/etc/csp1d/csp1d.toml")
DROP_IN = Path("/etc/csp1d/csp1d.toml.d/test.toml")
# For the next boot: what this machine was before.
IDENTITY = Path("/results/identity.json")

# A HAT whose parts no device tree names: what docs/hat.md tells its owner to write.
LOCAL_RULES = Path("/etc/udev/rules.d/30-local-hat.rules")
RULES = """
SUBSYSTEM=="tty", KERNEL=="ttyHAT0", SYMLINK+="csp1d/p1"
SUBSYSTEM=="gpio", KERNELS=="csp1_hat", SYMLINK+="csp1d/request"
"""


def run(*command: str, check: bool = True) -> str:
    """What a command prints on both streams; a failure shows it."""
    # The Python environment of the tests would mislead Debian's tools.
    environment = {name: value for name, value in os.environ.items() if "PYTHON" not in name}
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=environment,
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
    return done.stdout


def show(name: str) -> str:
    """A property of the unit."""
    return run("systemctl", "show", "--value", "--property", name, UNIT).strip()


def entries(*options: str) -> list[dict[str, str]]:
    """csp1d's own lines in the journal, with all their fields."""
    lines = run("journalctl", "--unit", UNIT, "--output", "json", *options).splitlines()
    found: list[dict[str, str]] = [json.loads(line) for line in lines]
    return [entry for entry in found if entry.get("SYSLOG_IDENTIFIER") == "csp1d"]


def cursor() -> str:
    """The present end of csp1d's journal, as an option for a later query."""
    # journalctl 252 skips a line of the unit if that of the cursor is of another one.
    shown = run("journalctl", "--unit", UNIT, "--lines=1", "--show-cursor")
    last = shown.strip().rpartition("-- cursor: ")[2]
    return f"--after-cursor={last}"


def events(*options: str) -> list[str]:
    """The events among them."""
    return [entry["CSP1D_EVENT"] for entry in entries(*options) if "CSP1D_EVENT" in entry]


class Service(Daemon):
    """The unit, with the same questions as a process under test."""

    def __init__(self) -> None:
        self.config = DROP_IN

    @property
    def pid(self) -> int:
        pid = int(show("MainPID"))
        assert pid > 0, "the service does not run"
        return pid

    @property
    def running(self) -> bool:
        return show("ActiveState") == "active"

    @property
    def log(self) -> str:
        return "\n".join(entry["MESSAGE"] for entry in entries())

    def start(self) -> None:
        run("systemctl", "start", UNIT)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        run("systemctl", "stop", UNIT)


class InstalledBoard(Board):
    """The virtual HAT with currents flowing, and the service measuring them."""

    def __init__(self, hat: Hat, feeder: Feeder) -> None:
        super().__init__(hat, feeder, Service())

    def wire(self) -> npt.NDArray[np.void]:
        """As for every board, but the log may have been cleared in the middle of a telegram."""
        log = super().wire()
        starts = np.flatnonzero(log["byte"] == ord("/"))
        return log[starts[0] if starts.size else len(log) :]

    def telegram_after(self, ns: int, seconds: float) -> float:
        """Seconds from a time until the first whole telegram after it; waits for that long."""
        telegram = self.wait_for_telegram(seconds + (time.monotonic_ns() - ns) / 1e9, ns)
        assert telegram.amperes == AMPERES
        return (telegram.start_ns - ns) / 1e9


def configure(text: str = "") -> None:
    """The configuration of this HAT, and that of the test."""
    DROP_IN.write_text(HAT_CONFIGURATION + text)


def identity(board: Board) -> list[str]:
    """Serial and equipment id in the telegrams that the service sends by default."""
    data = board.wait_for_telegram(3).data.decode()
    (serial,) = re.findall(r"^/XMX5(XMXCQA\d{10})\r", data)
    (equipment_id,) = re.findall(r"0-0:96\.1\.1\(([0-9A-F]{34})\)", data)
    return [serial, bytes.fromhex(equipment_id).decode()]


def check_unprivileged(pid: int) -> None:
    """The process runs as csp1d, has no privileges of root and cannot gain them."""
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    uid = pwd.getpwnam("csp1d").pw_uid
    assert uid != 0
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(grp.getgrnam("csp1d").gr_gid)] * 4
    for capabilities in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
        assert int(status[capabilities], 16) == 0, capabilities
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"


def check_devices(hat: Hat) -> None:
    """Only the group csp1d may use the devices of the HAT, and their names are stable."""
    run("udevadm", "settle", "--timeout=20")
    group = grp.getgrnam("csp1d").gr_gid
    for name, node in (
        ("adc", hat.adc.node),
        ("p1", Path("/dev/ttyHAT0")),
        ("request", next(Path("/sys/devices/platform/csp1_hat").glob("gpiochip*"))),
    ):
        assert Path("/dev/csp1d", name).resolve() == Path("/dev", node.name), name
    for path in (hat.adc.node, Path("/dev/csp1d/request").resolve()):
        status = path.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (0, group, 0o660), path
    serial = Path("/dev/ttyHAT0").stat()
    assert grp.getgrgid(serial.st_gid).gr_name == "dialout"
    assert serial.st_mode & 0o777 == 0o660
    for path in (
        hat.adc.device / "buffer/enable",
        hat.adc.device / "scan_elements/in_voltage0_en",
        Path("/sys/class/leds/csp1:yellow:current/trigger"),
        Path("/sys/class/leds/csp1:yellow:p1/brightness"),
    ):
        status = path.stat()
        assert (status.st_gid, bool(status.st_mode & 0o020)) == (group, True), path


def check_other_devices() -> None:
    """csp1d's group has no LED, chip or file in sysfs other than those of the HAT."""
    group = grp.getgrnam("csp1d").gr_gid
    written = (
        r"enable|length|watermark|in_\w+_en|current_(timestamp_clock|trigger)|\w*sampling_frequency"
    )
    given = run("find", "/sys/devices", "-group", str(group)).split()
    for path in map(Path, given):
        if "/leds/" in str(path):
            assert "/leds/csp1:" in str(path), path
        else:
            assert re.fullmatch(written, path.name), path
    chips = [chip for chip in Path("/dev").glob("gpiochip*") if chip.stat().st_gid == group]
    assert chips == [Path("/dev/csp1d/request").resolve()]


def measuring_again(board: Board, since_ns: int, seconds: float = 5) -> None:
    """Wait at most this number of seconds for telegrams."""
    left = seconds - (time.monotonic_ns() - since_ns) / 1e9
    board.wait_for_telegram(left, since_ns)


def wait_for_event(name: str, since: str, seconds: float = 10, reason: str = "") -> dict[str, str]:
    """The first such event after a cursor whose reason has these words."""

    def found() -> list[dict[str, str]]:
        told = [entry for entry in entries(since) if entry.get("CSP1D_EVENT") == name]
        return [entry for entry in told if reason in entry.get("CSP1D_REASON", "")]

    wait_for(f"the event {name} {reason}", lambda: bool(found()), seconds)
    return found()[0]
