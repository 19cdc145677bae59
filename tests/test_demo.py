# SPDX-License-Identifier: Apache-2.0
"""The demo: the page is served while it runs, telegrams are shown in words, Ctrl-C ends it."""

import importlib
import itertools
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from child import child

from csp1d.hat import scenario

TOOLS = Path(__file__).parents[1] / "tools"


@pytest.mark.parametrize(
    ("number", "code", "end"), [(signal.SIGINT, 0, "\nStopped.\n"), (signal.SIGHUP, 129, "")]
)
def test_the_demo_shows_the_page_and_telegrams_until_ctrl_c_or_the_end_of_the_terminal(
    number: signal.Signals, code: int, end: str
) -> None:
    command: list[str | Path] = [sys.executable, TOOLS / "demo.py"]
    with child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines: list[str] = []
        while not lines or "checksum" not in lines[-1]:
            lines.append(demo.stdout.readline())
            assert lines[-1] or demo.poll() is None, "".join(lines)
        (page,) = re.findall(r"^Page: (\S+)", "".join(lines), re.MULTILINE)
        with urllib.request.urlopen(page, timeout=5) as reply:
            assert b"<html" in reply.read()
        demo.send_signal(number)
        rest, errors = demo.communicate(timeout=20)
    assert re.fullmatch(r"\d\d(:\d\d){2}( +L[123] +\d+ A){3} +checksum correct\n", lines[-1])
    assert rest.endswith(end)
    assert demo.returncode == code, errors
    assert "Traceback" not in errors
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(page, timeout=5)


def test_a_demo_that_cannot_print_ends_with_csp1d() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, TOOLS / "demo.py"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=30,
        )
    assert done.returncode == 1
    assert "csp1d stopped" in done.stderr
    assert done.stderr.endswith("demo: [Errno 28] No space left on device\n")
    assert "Traceback" not in done.stderr


def test_the_demo_installs_only_its_reader_from_pypi() -> None:
    text = (TOOLS / "demo-requirements.txt").read_text()
    assert re.findall(r"^[\w-]+", text, re.MULTILINE) == ["dsmr-parser"]
    assert "demo-requirements.txt" in (TOOLS / "demo").read_text()


def test_interruptions_are_those_of_the_scenario(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    demo = importlib.import_module("demo")
    steps = scenario.parse(str(TOOLS / "demo.toml"))
    changes = [
        now.at_seconds
        for before, now in itertools.pairwise(steps)
        if now.stall_seconds or now.request is not before.request
    ]
    assert [at_seconds for at_seconds, _ in demo.interruptions()] == changes
    assert len(changes) == 3


def test_the_demo_announces_an_interruption_before_it_reports_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(TOOLS)
    demo = importlib.import_module("demo")
    reader, port = pty.openpty()
    monkeypatch.setattr(demo, "interruptions", lambda: [(0.1, "a stall"), (0.5, "its end")])
    monkeypatch.setattr(demo, "SILENCE_SECONDS", 0.3)
    sensor = SimpleNamespace(
        port=os.ttyname(port),
        start=time.monotonic(),
        process=SimpleNamespace(poll=lambda: None),
        why_silent=lambda: "stalled",
    )
    assert demo.watch(sensor, 0.8) == 0
    os.close(reader)
    os.close(port)
    lines = [line[11:] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "--- a stall ---"
    assert "no telegram: stalled" in lines
    assert "--- its end ---" in lines
