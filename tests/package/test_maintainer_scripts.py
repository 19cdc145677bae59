# SPDX-License-Identifier: Apache-2.0
"""The maintainer scripts with programs that only record their calls, mostly on the file system of
another machine, which dpkg names in DPKG_ROOT. What they really do is tested in a chroot
(tools/packager/inside/lifecycle)."""

import os
import subprocess
from pathlib import Path

import pytest

DEBIAN = Path(__file__).parents[2] / "debian"
REMOVED = [
    "csp1d/csp1d.toml.d/10-hat.toml",
    "csp1d/csp1d.toml.d/50-calibration.toml",
    "csp1d/csp1d.toml.d/.50-calibration.toml.0123abcd",
    "udev/rules.d/39-csp1d.rules",
]
KEPT = ["csp1d/server.key", "udev/rules.d/50-site.rules"]
"""In /etc: what a purge removes and keeps."""
PROGRAMS = ("csp1d", "gpasswd", "groupdel", "python3", "systemd-sysusers", "udevadm", "userdel")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root of another machine with csp1d; this one has the user csp1d, too."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/calls"\n')
    (programs / "getent").write_text("#!/bin/sh\necho csp1d:x:999:999::/:/usr/sbin/nologin\n")
    (programs / "id").write_text("#!/bin/sh\necho csp1d dialout gpio\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    for name in [*REMOVED, *KEPT]:
        (tmp_path / "root/etc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root/etc" / name).touch()
    return tmp_path


def run(machine: Path, script: str, *arguments: str, root: str = "") -> str:
    """Run a script; what it writes to stderr."""
    return subprocess.run(
        ["sh", DEBIAN / f"csp1d.{script}", *arguments],
        check=True,
        env={"DPKG_ROOT": root, "PATH": f"{machine}/programs:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
    ).stderr


def called(machine: Path, script: str, *arguments: str) -> list[str]:
    """Run a script for DPKG_ROOT twice, since dpkg may; the commands of the second time."""
    for _ in range(2):
        (machine / "calls").write_text("")
        run(machine, script, *arguments, root=f"{machine}/root")
    return (machine / "calls").read_text().splitlines()


def test_purge_spares_the_user_of_this_machine(machine: Path) -> None:
    assert called(machine, "postrm", "remove") == []
    assert (machine / "root/etc/csp1d/csp1d.toml.d/50-calibration.toml").exists()
    assert called(machine, "postrm", "purge") == []


def test_a_purge_removes_what_a_new_installation_would_use(machine: Path) -> None:
    etc = machine / "root/etc"
    reported = run(machine, "postrm", "purge", root=f"{machine}/root")
    left = [str(path.relative_to(etc)) for path in etc.rglob("*") if path.is_file()]
    assert sorted(left) == KEPT
    assert not (etc / "csp1d/csp1d.toml.d").exists()
    assert reported == f"csp1d: these files stay: {etc}/csp1d/server.key\n"
    (etc / "csp1d/server.key").unlink()
    run(machine, "postrm", "purge", root=f"{machine}/root")
    assert [path.name for path in (machine / "root").rglob("*csp1d*")] == []


@pytest.mark.parametrize("arguments", [["configure", ""], ["configure", "0.1.0-1"]])
def test_the_user_is_that_of_the_other_machine(machine: Path, arguments: list[str]) -> None:
    assert called(machine, "postinst", *arguments) == [
        f"systemd-sysusers --root={machine}/root csp1d.conf"
    ]


@pytest.mark.parametrize(("before", "is_upgrade"), [("", False), ("0.2.0-1", True), ("1.0", False)])
def test_an_upgrade_takes_all_gpio_chips_from_csp1d_but_that_of_its_configuration(
    machine: Path, before: str, is_upgrade: bool
) -> None:
    (machine / "calls").touch()
    run(machine, "postinst", "configure", before)
    calls = (machine / "calls").read_text()
    expected = "python3 -Im csp1d.tool.access\ngpasswd --delete csp1d gpio\n"
    assert (expected in calls) == ("gpasswd" in calls) == is_upgrade


@pytest.mark.parametrize(
    ("program", "text"),
    [("python3", "exit 1"), ("id", "echo csp1d gpio-users"), ("gpasswd", "exit 1")],
)
def test_an_upgrade_goes_on_with_the_chips_that_csp1d_has(
    machine: Path, program: str, text: str
) -> None:
    (machine / "calls").touch()
    (machine / "programs" / program).write_text(f"#!/bin/sh\n{text}\n")
    reported = run(machine, "postinst", "configure", "0.2.0-1")
    assert "gpasswd" not in (machine / "calls").read_text()
    remedy = "boot: python3 -Im csp1d.tool.access && gpasswd --delete csp1d gpio\n"
    assert (remedy in reported) == (program != "id")


@pytest.mark.parametrize("code", [0, 78])
def test_an_upgrade_reports_a_configuration_with_which_csp1d_cannot_start(
    machine: Path, code: int
) -> None:
    (machine / "programs/csp1d").write_text(
        f'#!/bin/sh\n[ "$*" = --check-config ] && echo reason >&2\nexit {code}\n'
    )
    reported = run(machine, "postinst", "configure", "0.2.0-1")
    assert reported.startswith("reason\n")
    assert ("the service cannot start" in reported) == (code != 0)
