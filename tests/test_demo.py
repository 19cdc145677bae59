# SPDX-License-Identifier: Apache-2.0
"""The demo: the page is served while it runs, telegrams are shown in words, Ctrl-C ends it."""

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

TOOLS = Path(__file__).parents[1] / "tools"


def test_the_demo_shows_the_page_and_telegrams_until_ctrl_c() -> None:
    with subprocess.Popen(
        [sys.executable, TOOLS / "demo.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        while not lines or "checksum" not in lines[-1]:
            lines.append(demo.stdout.readline())
            assert lines[-1] or demo.poll() is None, "".join(lines)
        (page,) = re.findall(r"^Page: (\S+)", "".join(lines), re.MULTILINE)
        with urllib.request.urlopen(page, timeout=5) as reply:
            assert b"<html" in reply.read()
        demo.send_signal(signal.SIGINT)
        rest, errors = demo.communicate(timeout=20)
    assert re.fullmatch(r"\d\d(:\d\d){2}( +L[123] +\d+ A){3} +checksum correct\n", lines[-1])
    assert rest.endswith("\nStopped.\n")
    assert demo.returncode == 0, errors
    assert "Traceback" not in errors


def test_the_demo_installs_only_its_reader_from_pypi() -> None:
    text = (TOOLS / "demo-requirements.txt").read_text()
    assert re.findall(r"^[\w-]+", text, re.MULTILINE) == ["dsmr-parser"]
    assert "demo-requirements.txt" in (TOOLS / "demo").read_text()
