# SPDX-License-Identifier: Apache-2.0
"""``csp1d --simulate`` on this machine with all its processors busy, judged as in the campaign.

Here the clock is real, so the figures are those of this machine, and of what else it does. A
telegram that is wrong, stale, torn or early is a failure; missing ones are reported.
"""

import argparse
import os
import random
import re
import select
import subprocess
import sys
import tempfile
import time
import tty
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parent / "kernel"))

from campaign.judge import Evidence, Verdict, judge
from guest.hat import Made

HERE = Path(__file__).resolve().parent

SECOND = 1_000_000_000
HOGS_A_PROCESSOR = 2
START_SECONDS = 60.0
# The scenario begins inside the daemon; this finds the time.
DAEMON = """
import sys
from csp1d.hat import simulated
class Player(simulated.Player):
    def __init__(self, scenario, start_ns):
        print("Begins:", start_ns, flush=True)
        super().__init__(scenario, start_ns)
simulated.Player = Player
from csp1d.__main__ import main
sys.exit(main())
"""


def weather(seconds: float) -> list[tuple[float, tuple[float, ...]]]:
    """Times and values of the changes of the currents."""
    source, steps, at_seconds = random.Random(7), [], 0.0
    while at_seconds < seconds:
        steps.append((at_seconds, tuple(round(source.uniform(0, 80), 1) for _ in range(3))))
        at_seconds += round(source.uniform(0.3, 1.2), 3)
    return steps


def scenario(steps: list[tuple[float, tuple[float, ...]]]) -> str:
    return "".join(
        f"[[step]]\nat_seconds = {at}\nrequest = 'high'\n"
        f"amperes = {{ L1 = {l1}, L2 = {l2}, L3 = {l3} }}\n"
        for at, (l1, l2, l3) in steps
    )


def read(port: int, seconds: float) -> tuple[bytes, list[int]]:
    """The received bytes and their times."""
    data, times, end = b"", [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([port], [], [], left)[0]:
            part = os.read(port, 4096)
            times += [time.monotonic_ns()] * len(part)
            data += part
    return data, times


def run(seconds: float) -> Verdict:
    """Run the daemon for a number of seconds beside the busy processes."""
    steps = weather(seconds + START_SECONDS)
    with tempfile.TemporaryDirectory() as directory:
        config, played = Path(directory, "csp1d.toml"), Path(directory, "scenario.toml")
        config.write_text(
            "[http]\nlisten = ''\n"
            "[p1]\nserial = 'XMXCQA0000008879'\nequipment_id = 'E0000000000000000'\n"
            "firmware_text = 'XMX_P1CS_V05'\n"
        )
        played.write_text(scenario(steps))
        daemon = subprocess.Popen(
            [sys.executable, "-c", DAEMON, "--config", config, "--simulate", played],
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
        )
        hog = [sys.executable, "-c", "while True: pass"]
        hogs = [subprocess.Popen(hog) for _ in range(HOGS_A_PROCESSOR * (os.cpu_count() or 1))]
        try:
            assert daemon.stdout is not None
            begins = re.match(r"Begins: (\d+)", daemon.stdout.readline())
            named = re.match(r"P1 port: (\S+)", daemon.stdout.readline())
            assert begins is not None
            assert named is not None
            port = os.open(named[1], os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(port)
            start_ns = time.monotonic_ns()
            data, times = read(port, seconds)
        finally:
            daemon.kill()
            daemon.wait()
            for busy in hogs:
                busy.kill()
                busy.wait()
    # The last one may be under way.
    last = data.rfind(b"/")
    if not data.endswith(b"\r\n"):
        data, times = data[:last], times[:last]
    t0 = int(begins[1])
    ends = [t0 + round(at * SECOND) for at, _ in steps]
    made = [
        Made(from_ns, to_ns, amperes)
        for from_ns, to_ns, (_, amperes) in zip(ends, ends[1:], steps, strict=False)
    ]
    published = (HERE / "p1/golden-24A.p1").read_bytes()
    line = [(start_ns - SECOND, True)]
    evidence = Evidence(start_ns, times[-1], data, np.array(times, np.int64), line, made, [])
    return judge(evidence, published)


def main() -> int:
    parser = argparse.ArgumentParser(prog="busy", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0)
    seconds = parser.parse_args().seconds
    verdict = run(seconds)
    print(
        f"{seconds:g} s with {HOGS_A_PROCESSOR} hogs on each of {os.cpu_count()} processors, load "
        f"{os.getloadavg()[0]:.1f}: {verdict.telegrams} telegrams, wrong {verdict.wrong}, stale "
        f"{verdict.stale}, torn {verdict.torn}, early {verdict.early}; oldest "
        f"{verdict.oldest_seconds:.3f} s, longest pause {verdict.pause_seconds:.3f} s"
    )
    bad = set(verdict.failures()) - {"missing_seconds"}
    if bad:
        print(*verdict.details, sep="\n")
    return 1 if bad or not verdict.telegrams else 0


if __name__ == "__main__":
    sys.exit(main())
