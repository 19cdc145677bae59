# SPDX-License-Identifier: Apache-2.0
"""Remove leaves the configuration, purge leaves nothing."""

from __future__ import annotations

import grp
import pwd
from pathlib import Path

import pytest
from guest.hat import Hat

from .service import DROP_IN, LOCAL_RULES, UNIT, run


def traces() -> list[str]:
    """All files with the name csp1d, except those of the tests and of the kernel."""
    brought = ("/csp1d", "/tmp/*", "/usr/local/*", "/var/log/*", "*/csp1_hat.*")
    unwanted = [word for path in brought for word in ("-not", "-path", path)]
    # Most files are in these two folders, and the package writes to neither.
    skipped = ("(", "-path", "/usr/src", "-o", "-path", "/usr/lib/modules", ")", "-prune", "-o")
    named = ("-iname", "*csp1*", *unwanted, "-print")
    return run("find", "/", "-xdev", *skipped, *named, check=False).split()


def test_remove_and_purge(hat: Hat) -> None:
    DROP_IN.unlink(missing_ok=True)
    run("apt-get", "remove", "--yes", "csp1d")
    assert "inactive" in run("systemctl", "is-active", UNIT, check=False)
    kept = ("/etc/", "/var/lib/dpkg/info/csp1d.", "/var/lib/systemd/deb-systemd-helper-")
    assert [path for path in traces() if not path.startswith(kept)] == []
    assert Path("/etc/csp1d/csp1d.toml").exists()
    given = (
        hat.adc.node,
        hat.adc.device / "buffer/enable",
        Path("/sys/class/leds/csp1:yellow:current/brightness"),
    )
    assert [path.stat().st_gid for path in given] == [0, 0, 0]
    assert not given[1].stat().st_mode & 0o020
    assert not Path("/dev/csp1d/adc").exists()

    run("apt-get", "purge", "--yes", "csp1d")
    LOCAL_RULES.unlink(missing_ok=True)
    assert traces() == []
    with pytest.raises(KeyError):
        pwd.getpwnam("csp1d")
    with pytest.raises(KeyError):
        grp.getgrnam("csp1d")
    assert "csp1d" not in run("journalctl", "--list-catalog")
    assert "csp1d" not in run("systemctl", "list-unit-files", "--no-pager", "--all")
