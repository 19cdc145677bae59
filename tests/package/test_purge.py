# SPDX-License-Identifier: Apache-2.0
"""The script that dpkg runs at a purge, on the files of an installation in a folder."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "debian/csp1d.postrm"

REMOVED = [
    "etc/csp1d/csp1d.toml.d/10-hat.toml",
    "etc/csp1d/csp1d.toml.d/50-calibration.toml",
    "etc/csp1d/csp1d.toml.d/.50-calibration.toml.0123abcd",
    "etc/udev/rules.d/39-csp1d.rules",
]
KEPT = ["etc/csp1d/server.key", "etc/udev/rules.d/50-site.rules"]


def test_a_purge_removes_what_a_new_installation_would_use(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in [*REMOVED, *KEPT]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    # The users of this machine are not those of the folder.
    (tmp_path / "getent").write_text("#!/bin/sh\nexit 2\n")
    (tmp_path / "getent").chmod(0o755)
    environment = {"DPKG_ROOT": str(root), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", SCRIPT, "purge"], env=environment, check=True, capture_output=True, text=True
    )
    left = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
    assert sorted(left) == KEPT
    assert not (root / "etc/csp1d/csp1d.toml.d").exists()
    assert done.stderr == f"csp1d: these files stay: {root}/etc/csp1d/server.key\n"
