# SPDX-License-Identifier: Apache-2.0
"""The example capture of the package: small, the same from every build, and played by csp1d."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_daemon import ROOT, running, telegrams

from csp1d.config import Config
from csp1d.phase import Phase
from csp1d.tool import capture

AMPERES = (16.0, 2.3, 8.7)


@pytest.fixture
def name(tmp_path: Path) -> Path:
    # As the package builds it, without the modules of csp1d.
    subprocess.run(
        [sys.executable, "-I", ROOT / "tools/example.py", tmp_path / "house"],
        check=True,
        timeout=60,
    )
    return tmp_path / "house"


def test_it_is_measured_with_the_default_configuration(name: Path) -> None:
    readings = list(capture.replay(capture.load(name), Config()))
    assert len(readings) == 3
    for reading in readings:
        assert reading.frequency_hertz == pytest.approx(49.98, abs=0.001)
        for phase, amperes in zip(Phase, AMPERES, strict=True):
            assert reading.amperes(phase) == pytest.approx(amperes, rel=5e-4)


def test_it_is_small_and_reproducible(name: Path) -> None:
    files = [Path(f"{name}.{suffix}") for suffix in ("json", "bin")]
    assert sum(file.stat().st_size for file in files) < 100_000
    before = [file.read_bytes() for file in files]
    subprocess.run([sys.executable, ROOT / "tools/example.py", name], check=True, timeout=60)
    assert [file.read_bytes() for file in files] == before


def test_csp1d_plays_it_in_a_loop(name: Path) -> None:
    with running(name.parent, "--simulate", f"{name}.json") as daemon:
        received = b""
        end = time.monotonic() + 60
        # Three rounds of the recording.
        while len(seen := telegrams(received)) < 6:
            assert time.monotonic() < end, daemon.log()
            received += daemon.receive(1)
        assert set(seen) == {(16, 2, 9)}
        metrics = daemon.metrics()
        assert metrics["csp1d_scans_lost_total"] == 0
        assert metrics["csp1d_mains_frequency_hertz"] == pytest.approx(49.98, abs=0.01)
        assert "WARNING" not in daemon.log()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("remove", "house.json: No such file or directory; a capture consists of"),
        ("cut", "house.bin: 97205 bytes are not a whole number of scans"),
        ("shorten", "house.bin: 0.5 s are too short to be played; record 1 s or more"),
    ],
)
def test_a_capture_that_cannot_be_played_is_a_usage_error(
    name: Path, change: str, message: str
) -> None:
    scans = Path(f"{name}.bin")
    if change == "remove":
        Path(f"{name}.json").unlink()
    else:
        scans.write_bytes(scans.read_bytes() + bytes(5) if change == "cut" else bytes(16 * 1000))
    done = subprocess.run(
        [sys.executable, "-m", "csp1d", "--simulate", f"{name}.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
