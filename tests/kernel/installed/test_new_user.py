# SPDX-License-Identifier: Apache-2.0
"""The first hour with the package, as its handbook tells it: discover, save, look, calibrate.

Uses only csp1d's commands and their output. Runs before the other tests, while
the package is as installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from guest.board import wait_for
from guest.conftest import AMPERES, restore
from guest.hat import Feeder, Hat

from .service import (
    CONFIG,
    UNIT,
    InstalledBoard,
    check_unprivileged,
    events,
    run,
    show,
)

HAT_FILE = Path("/etc/csp1d/csp1d.toml.d/10-hat.toml")
ACCESS = Path("/etc/udev/rules.d/39-csp1d.rules")
CALIBRATION = Path("/etc/csp1d/csp1d.toml.d/50-calibration.toml")
HTTP_FILE = Path("/etc/csp1d/csp1d.toml.d/60-http.toml")
GAIN_ERROR = 1.037
REFERENCE_AMPERES = 10.0
# A typical ADC of 12 bits and 3.3 V: one code is 0.08 A, and so is its noise.
SCAN_TYPE, SCALE, NOISE_AMPERES = "be:u12/16>>4", 3300 / 4096, 0.08


def csp1ctl(
    *arguments: str, user: str = "root", group: str = "", seconds: int = 0
) -> subprocess.CompletedProcess[str]:
    """As this user types it, perhaps as a member of a group, with both streams apart, and perhaps
    with a Ctrl-C after some seconds."""
    member = ["-G", group] if group else []
    limit = ["timeout", "--signal=INT", str(seconds)] if seconds else []
    command = ["runuser", "-u", user, *member, "--", *limit, "csp1ctl", *arguments]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/sbin:/usr/bin"},
    )


def good(*arguments: str) -> str:
    """What root's command prints, on both streams."""
    done = csp1ctl(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def discover() -> subprocess.CompletedProcess[str]:
    """As the handbook has it, with a new file."""
    HAT_FILE.unlink(missing_ok=True)
    done = csp1ctl("discover", "--output", str(HAT_FILE))
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def board(hat: Hat, feeder: Feeder) -> Iterator[InstalledBoard]:
    """The package as installed, on a HAT that is not configured."""
    restore(hat)
    hat.line.set(True)
    yield InstalledBoard(hat, feeder)
    assert run("dpkg", "--verify", "csp1d") == "", "the conffile is as shipped"
    for file in (HAT_FILE, CALIBRATION, ACCESS):
        file.unlink(missing_ok=True)
    run("udevadm", "control", "--reload")
    hat.adc.configure(scan_type="le:s16/16>>0", scale=3300 / 65536)
    feeder.set(amperes=AMPERES, noise=0.0)
    run("systemctl", "restart", UNIT)


def test_what_is_missing_is_said_and_who_can_tell(board: InstalledBoard) -> None:
    wait_for("the event", lambda: "p1-port-lost" in events("--boot"), 10)
    explained = run("journalctl", "-x", "--boot", "--no-pager", "--unit", UNIT)
    assert "/dev/ttyAMA0 not found" in explained
    assert "csp1ctl discover" in explained


def test_discover_as_an_ordinary_user_says_who_sees_more(board: InstalledBoard) -> None:
    done = csp1ctl("discover", user="nobody")
    assert done.returncode == 69
    assert "Missing: a request line" in done.stderr
    assert "try again with sudo" in done.stderr


def test_discover_finds_the_hat_and_its_configuration_measures(board: InstalledBoard) -> None:
    found = discover()
    for line in (
        "  + iio:device0: csp1-hat-adc, label csp1-hat",
        "      inputs: voltage0, voltage1, voltage2, voltage3 (le:s16/16>>0)",
        "  triggers: csp1-hat-trigger",
        "  + /dev/ttyHAT0: free",
        "    + 0 P1_REQUEST: free",
        *(f"  + csp1:yellow:{role}" for role in ("power", "current", "p1")),
    ):
        assert line in found.stderr.splitlines(), found.stderr
    assert re.search(r"- /dev/ttyS0: not usable: kernel console", found.stderr)
    assert re.search(r"/dev/gpiochip\d+: csp1-hat, 4 lines, 1 named", found.stderr)

    # No device tree names its chip, so csp1d needs a rule; the other devices have their names.
    assert f"\nWrote {HAT_FILE}.\nWrote {ACCESS}: " in found.stderr
    assert ACCESS.read_text().splitlines()[1:] == [
        'SUBSYSTEM=="gpio", KERNELS=="csp1_hat", ENV{CSP1D_ACCESS}="1"'
    ]
    assert run("csp1d", "--check-config") == f"{CONFIG}: OK\n"
    board.hat.tty.clear()
    run("systemctl", "reload", UNIT)
    board.wait_until_measuring(AMPERES)
    assert board.wait_for_telegram(3).amperes == AMPERES
    check_unprivileged(int(show("MainPID")))


def test_others_are_refused_with_the_remedy(board: InstalledBoard) -> None:
    refused = csp1ctl("status", user="nobody")
    assert refused.returncode == 69
    assert "sudo usermod -aG csp1d nobody" in refused.stderr
    assert run("stat", "--format=%U %G %a", "/run/csp1d/http.sock") == "csp1d csp1d 660\n"
    refused = csp1ctl("calibrate", "zero", "--yes", user="nobody")
    assert (refused.returncode, CALIBRATION.exists()) == (78, False)
    assert "run csp1ctl as root (sudo)" in refused.stderr
    refused = csp1ctl("record", "1", "/tmp/house", user="nobody")
    assert refused.returncode == 69
    assert "run csp1ctl as root (sudo)" in refused.stderr
    with urllib.request.urlopen("http://localhost:19510/", timeout=10) as answer:
        assert b'<h1><span id="site">csp1d' in answer.read()


CERTIFICATE = (Path("/etc/csp1d/sensor.pem"), Path("/etc/csp1d/sensor.key"))
TLS = """
tls_certificate = "/etc/csp1d/sensor.pem"
tls_key = "/etc/csp1d/sensor.key"
tls_client_ca = "/etc/csp1d/sensor.pem"
"""


@pytest.fixture
def network(board: InstalledBoard, request: pytest.FixtureRequest) -> Iterator[None]:
    """What the network gets: these settings of [http]."""
    for file in CERTIFICATE:
        run("install", "-g", "csp1d", "-m", "640", f"/results/{file.name}", str(file))
    HTTP_FILE.write_text(f"[http]\n{request.param}")
    run("systemctl", "reload", UNIT)
    yield
    for file in (HTTP_FILE, *CERTIFICATE):
        file.unlink()
    run("systemctl", "reload", UNIT)


# Each suite takes two of the four.
NETWORKS = [TLS, 'listen = ""'] if sys.version_info < (3, 12) else ['listen = ""', TLS]


@pytest.mark.parametrize(
    ("user", "group", "network"),
    [("root", "", NETWORKS[0]), ("nobody", "csp1d", NETWORKS[1])],
    indirect=["network"],
    ids=["root", "the group"],
)
@pytest.mark.usefixtures("network")
def test_root_and_the_group_may_look_whatever_the_network_gets(
    board: InstalledBoard, user: str, group: str
) -> None:
    status = csp1ctl("status", user=user, group=group)
    assert status.returncode == 0, status.stdout + status.stderr
    assert re.search(r"^L1 +24\.00 A", status.stdout, re.MULTILINE), status.stdout
    assert "request line  requesting telegrams" in status.stdout
    assert "LEDs          power on" in status.stdout
    watch = csp1ctl("watch", user=user, group=group, seconds=5).stdout
    assert re.search(r"L1 24\.00 A  L2 10\.00 A  L3 3\.00 A  50\.0\d\d Hz  requesting", watch), (
        watch
    )
    # Only root may write the result, and is asked first; others get it to save as root.
    calibrated = csp1ctl("calibrate", "gain", f"L1={AMPERES[0]}", user=user, group=group)
    printed = calibrated.stdout + calibrated.stderr
    assert re.search(r"^L1 .* 1\.0000 -> (0\.99|1\.00)", printed, re.MULTILINE), printed
    is_asked = "Write /etc/csp1d/csp1d.toml.d/50-calibration.toml? [y/N]" in calibrated.stderr
    assert (is_asked, "[channels.L1]\ngain = " in calibrated.stdout) == (not group, bool(group))
    assert calibrated.returncode == (0 if group else 2), calibrated.stderr
    assert not CALIBRATION.exists()
    name = f"/tmp/house-{user}"
    recorded = csp1ctl("record", "3", name, user=user, group=group)
    assert recorded.returncode == 0, recorded.stderr
    reading = json.loads(csp1ctl("replay", name).stdout.splitlines()[-1])
    assert reading["current_amperes"]["L1"] == pytest.approx(AMPERES[0], abs=0.1)
    report = f"/tmp/report-{user}.tar.gz"
    reported = csp1ctl("report", report, user=user, group=group)
    assert reported.returncode == 0, reported.stderr
    assert "capture        ten seconds of raw scans" in reported.stdout
    content = {name.rpartition("/")[2] for name in run("tar", "-tf", report).split()}
    assert content >= {"configuration.toml", "discover.txt", "metrics.txt", "capture.bin"}
    assert (f"journal{'' if user == 'root' else '-missing'}.txt") in content
    assert board.wait_for_telegram(3).amperes == AMPERES


def test_an_adc_that_wants_a_trigger_is_given_its_own(board: InstalledBoard) -> None:
    board.hat.adc.configure(triggered=True)
    try:
        run("udevadm", "settle")
        discover()
        assert 'trigger = "csp1-hat-trigger"' in HAT_FILE.read_text()
        run("systemctl", "reload", UNIT)
        board.wait_until_measuring(AMPERES)
    finally:
        board.hat.adc.configure(triggered=False)
    run("udevadm", "settle")
    discover()
    run("systemctl", "reload", UNIT)


def test_a_calibration_takes_noise_and_a_gain_error_out(board: InstalledBoard) -> None:
    board.hat.adc.configure(scan_type=SCAN_TYPE, scale=SCALE)
    board.feeder.set(amperes=(0, 0, 0), noise=NOISE_AMPERES)
    board.wait_until_measuring((0, 0, 0))
    time.sleep(2)
    assert "Wrote " in good("calibrate", "zero", "--yes")
    run("systemctl", "reload", UNIT)

    flowing = REFERENCE_AMPERES * GAIN_ERROR
    board.measure(flowing, flowing, flowing)
    time.sleep(2)
    points = [f"{phase}={REFERENCE_AMPERES}" for phase in ("L1", "L2", "L3")]
    assert "1.0000 -> 0.96" in good("calibrate", "gain", *points, "--yes")
    run("systemctl", "reload", UNIT)
    board.wait_until_measuring([REFERENCE_AMPERES] * 3)
    for _ in range(3):
        time.sleep(1)
        for amperes in shown(board):
            assert amperes == pytest.approx(REFERENCE_AMPERES, rel=0.001)

    board.measure(0, 0, 0)
    for _ in range(3):
        time.sleep(1)
        assert shown(board) == [0, 0, 0]
    board.hat.tty.clear()
    assert board.wait_for_telegram(3).amperes == (0, 0, 0)


def shown(board: InstalledBoard) -> list[float]:
    """The currents of the three phases in a scrape."""
    metrics = board.daemon.metrics()
    return [metrics[f'csp1d_current_amperes{{phase="L{n}"}}'] for n in (1, 2, 3)]
