# SPDX-License-Identifier: Apache-2.0
"""What reportbug runs, and what csp1ctl report says of this source tree."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from csp1d.tool.commands.report import LIBRARIES, MAINTAINER

ROOT = Path(__file__).parents[2]

# As reportbug's handle_bugscript: functions of bash, and descriptor 3.
HANDLER = """
yesno() { read -r -p "$1" REPLY; REPLY=${REPLY:-$2}; }
export -f yesno
exec "$SCRIPT" 3>"$REPORT"
"""


@pytest.mark.parametrize("answer", ["", "yep", "nop", "yep, but it fails", "yep, but no folder"])
def test_reportbug_attaches_the_archive(tmp_path: Path, answer: str) -> None:
    program = tmp_path / "csp1ctl"
    program.write_text('#!/bin/sh\n[ "$1" = report ] && $RUNS && echo archive >"$2"\n')
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", HANDLER],
        input=answer.partition(",")[0] + "\n",
        text=True,
        check=True,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SCRIPT": str(ROOT / "debian/csp1d.bug-script"),
            "REPORT": str(tmp_path / "report"),
            "TMPDIR": str(tmp_path / ("nothing" if "folder" in answer else "")),
            "RUNS": "false" if "fails" in answer else "true",
        },
        capture_output=True,
    )
    assert (done.stderr == "") == ("folder" not in answer)
    lines = (tmp_path / "report").read_text().splitlines()
    if answer in ("", "yep"):
        begin, attached, end = lines
        assert (begin, end) == ("-- BEGIN ATTACHMENTS --", "-- END ATTACHMENTS --")
        assert Path(attached).read_text() == "archive\n"
        assert Path(attached).parent.stat().st_mode & 0o077 == 0
    else:
        assert len(lines) == 1
        assert re.fullmatch(r".* (is not attached|has failed)\.", lines[0])


def test_the_report_names_the_libraries_and_the_maintainer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert [re.split("[<>=]", line)[0] for line in project["dependencies"]] == [*LIBRARIES]
    assert f"\nMaintainer: {MAINTAINER}\n" in (ROOT / "debian/control").read_text()
