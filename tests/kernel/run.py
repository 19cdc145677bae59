#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Run the tests of tests/kernel/guest and tests/kernel/stock on Debian's own kernels.

    tests/kernel/run [--package DIR] [--results DIR] [SUITE...] [-- pytest arguments]
    tests/kernel/run --stock SECONDS [SUITE...]
    tests/kernel/run --package DIR --only [--campaign FAULTS] [--seed N] [--mutants FAULTS]
                     [--soak MINUTES] [SUITE...]

For each suite: take its image (built when missing), compile the modules of virtual hardware for
its kernel, boot, load that of the HAT, run pytest in the guest.  The suites run side by side.
``--package`` tests the packages in DIR first, in the same machine.

``--campaign`` injects this number of faults into the installed package, after its tests or (with
``--only``) instead of all tests, and judges every byte sent (campaign/judge.py).  ``--mutants``
injects this number of faults into csp1d without each safeguard of campaign/mutants.py in turn: the
judge must detect it.  ``--soak`` runs the service for this number of minutes without a fault.

``--stock`` tests the kernel's own ADC drivers alone, with faults of this number of seconds
(otherwise 2.5), and over a boot.

Nothing is skipped here: a machine that cannot be built or booted, a skipped test, a run without
tests and a kernel warning all count as failures.  The last line before the verdict is ``N
passed, N failed`` over all suites.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import random
import re
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from campaign.mutants import MUTANTS
from certificates import make_certificate
from image import SUITES, ImageError, cache_directory, compiled_module, image, install_tools
from machine import HOST_PACKAGES, CommandError, Machine, MachineError, Share, source_tree

SUITE_SECONDS = 1200.0
# What the tests of the package need on this machine.
PACKAGES = {
    "openssl": "/usr/bin/openssl",
    "python3-numpy": "/usr/lib/python3/dist-packages/numpy",
}
PYTEST_OPTIONS = [
    "--rootdir=/csp1d/tests/kernel",
    # The project's settings for pytest are for the tests that run on the host.
    "-c/dev/null",
    "-pno:cacheprovider",
    "-ra",
    "--durations=8",
    "--override-ini=faulthandler_timeout=300",
]
PYTHON = {
    "PYTHONPATH": "/csp1d:/csp1d/tests/kernel",
    "PYTHONUNBUFFERED": "1",
}
# The machine id of the second boot: another machine made from the same image.
OTHER_MACHINE = "0f2d9f6f5e4c4b5a8e1d3c7b9a6f4e2d"
# Machine seconds of the longest fault, including recovery.
FAULT_SECONDS = 30
# The verdicts on telegrams that must not be sent.
SENT = {"wrong", "stale", "torn", "early"}
# Of a soak: the part until memory has settled, and how much it may grow after that.
WARM_UP = 0.25
MOST_GROWTH_PERCENT = 1.0
# The LED triggers are modules here, but built into the kernels of most boards; on boards that have
# them as modules, loading them is the business of csp1d's package.
LOAD_TRIGGERS = """
modprobe -a ledtrig-oneshot ledtrig-transient
"""
LOAD_MODULE = """
modprobe -a $(modinfo -F depends /module/csp1_hat.ko | tr , ' ')
insmod /module/csp1_hat.ko
udevadm settle --timeout=20
"""
# So that the HAT is there when the machine boots, as a real one would be. By a command of its own
# (modprobe.d(5)), since depmod would read every module of the kernel: a minute under emulation.
KEEP_MODULE = """
mkdir -p /etc/modprobe.d
cp /module/csp1_hat.ko /usr/local/lib
dependencies=$(modinfo -F depends /module/csp1_hat.ko | tr , ' ')
insmod="insmod /usr/local/lib/csp1_hat.ko"' $CMDLINE_OPTS'
echo "install csp1_hat modprobe -a $dependencies && $insmod" >/etc/modprobe.d/csp1_hat.conf
echo csp1_hat >/etc/modules-load.d/csp1_hat.conf
"""
# So that the tests of the source tree load it, with every part plugged.
FORGET_MODULE = """
udevadm settle --timeout=20
rm /etc/modules-load.d/csp1_hat.conf /etc/modprobe.d/csp1_hat.conf /etc/modprobe.d/hat.conf
rmmod csp1_hat
"""
# Kernel messages that reveal a fault of the module.
COMPLAINT = re.compile(
    r" kernel: (watchdog: )?(BUG:|WARNING: |Oops|general protection|INFO: task .* blocked)"
)


@dataclasses.dataclass
class Outcome:
    """The result of one suite."""

    passed: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def read_junit(path: Path) -> Outcome:
    """The results recorded by pytest; every case that did not pass is a problem."""
    outcome = Outcome()
    cases = list(ElementTree.parse(path).iter("testcase"))
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        verdicts = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        if verdicts:
            outcome.problems.append(f"{name}: {verdicts[0]}")
        else:
            outcome.passed += 1
    if not cases:
        outcome.problems.append("no test was collected")
    return outcome


def copy_source(target: Path) -> None:
    """Copy what the guest needs, so that later edits of the tree do not change the tests."""
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    for folder in ("csp1d", "overlays", "tests/kernel"):
        shutil.copytree(source_tree() / folder, target / folder, symlinks=True, ignore=unwanted)


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be tested."""

    arguments: Sequence[str] = ()
    """For pytest."""
    packages: Path | None = None
    """Where a package for each suite is; None: the source tree alone is tested."""
    faults: int = 0
    """Of the campaign."""
    only: bool = False
    """The campaign without other tests."""
    seed: int = 0
    faults_a_mutant: int = 0
    soak_minutes: float = 0
    fault_seconds: float = 0
    """Of the tests with the kernel's own ADC drivers, and these alone."""


def run_suite(suite: str, results: Path, task: Task) -> Outcome:
    """Boot ``suite`` and run the tests in it, passing on what they print."""

    def say(text: str) -> None:
        for line in text.splitlines():
            print(f"[{suite}] {line}", flush=True)

    start = time.monotonic()
    shutil.rmtree(results, ignore_errors=True)
    source = results / "source"
    outcome = Outcome()
    try:
        copy_source(source)
        directory = image(suite)
        module = compiled_module(directory, source / "tests/kernel/module")
        # Python stores the compiled tree beside it: compiling is slow under emulation.
        shares = {"csp1d": Share(source, read_only=False), "module": Share(module)}
        if task.packages is not None:
            shares["package"] = Share(task.packages / suite)
        prepared = time.monotonic()
        with Machine(directory, results, shares=shares) as machine:
            say(f"up in {time.monotonic() - prepared:.0f} s, results in {results}")
            guest = Guest(machine, results, task, say, outcome)
            try:
                if task.packages is not None:
                    guest.test_package()
                if not task.only:
                    guest.test_tree()
            except CommandError as error:
                outcome.problems.append(f"nothing more is tested: {error}")
            guest.keep_log()
    except (ImageError, MachineError, OSError, subprocess.CalledProcessError) as error:
        outcome.problems.append(f"{type(error).__name__}: {error}")
    for problem in outcome.problems:
        say(f"FAILED {problem}")
    seconds = time.monotonic() - start
    say(f"{outcome.passed} passed, {len(outcome.problems)} failed in {seconds:.0f} s")
    return outcome


class Guest:
    """The tests of one booted machine, and their results."""

    def __init__(
        self,
        machine: Machine,
        results: Path,
        task: Task,
        say: Callable[[str], None],
        outcome: Outcome,
    ) -> None:
        self.outcome = outcome
        self._machine = machine
        self._results = results
        self._task = task
        self._say = say

    def test_tree(self) -> None:
        """csp1d from the source tree: with the virtual HAT, and with the kernel's own ADC drivers;
        with long faults, the latter alone, and over a boot.
        """
        machine, seconds = self._machine, self._task.fault_seconds
        machine.shell(LOAD_TRIGGERS + LOAD_MODULE)
        if not seconds:
            self._pytest(["guest", "stock"])
            return
        self._pytest(["stock"], f"--fault-seconds={seconds}")
        self.keep_log()
        machine.reboot()
        machine.shell(LOAD_TRIGGERS + LOAD_MODULE)
        self._pytest(["stock"], "--rebooted")

    def test_package(self) -> None:
        """The package: installed, used, over boots, and removed.  Its dependencies are installed;
        tools/package tests in a chroot that Depends names them.
        """
        machine = self._machine
        make_certificate(self._results, "sensor")
        machine.shell(KEEP_MODULE + LOAD_MODULE, timeout=300)
        # Without looking for a terminal, which takes seconds.
        install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes /package/csp1d_*_all.deb"
        machine.shell(install, timeout=300)
        machine.shell("systemctl is-active csp1d && pidof -x csp1d")
        task = self._task
        if not task.only:
            self._pytest(["installed/test_new_user.py", "installed/test_service.py"])
        for mutant in MUTANTS if task.faults_a_mutant else ():
            self._campaign(task.faults_a_mutant, mutant)
        if task.faults:
            self._campaign(task.faults, None)
        if task.soak_minutes:
            self._soak()
        if task.only:
            return
        boots = "installed/test_boot.py::test_boot_"
        for plugged, tests in (
            (1, [f"{boots}with_the_adc"]),
            (
                0,
                [f"{boots}without_the_adc_that_is_plugged_30_s_later", "installed/test_removal.py"],
            ),
        ):
            machine.shell(f"echo options csp1_hat adc_plugged={plugged} >/etc/modprobe.d/hat.conf")
            self.keep_log()
            if not plugged:
                machine.shell(f"echo {OTHER_MACHINE} >/etc/machine-id")
            machine.reboot()
            self._pytest(tests)
        machine.shell(FORGET_MODULE)

    def _campaign(self, faults: int, mutant: str | None) -> None:
        """Faults, and the verdict on the evidence. A mutant must be detected by the bytes
        that it sends.
        """
        seed = self._task.seed
        self._say(f"campaign: {faults} faults, seed {seed}{f', {mutant}' if mutant else ''}")
        failures = self._witness(
            FAULT_SECONDS * faults + 300,
            "campaign",
            *(str(faults), str(seed)),
            *([mutant] if mutant else []),
        )
        if mutant:
            sent = [failure for failure in failures if failure.split()[0] in SENT]
            failures = [] if sent else [f"mutant not found: {mutant}"]
        self._conclude("campaign", failures)

    def _conclude(self, what: str, failures: Sequence[str]) -> None:
        if failures:
            self.outcome.problems.append(f"{what}: {', '.join(failures)}")
        else:
            self.outcome.passed += 1

    def _soak(self) -> None:
        """A long run without faults: every telegram right, no scan lost, no growth."""
        from campaign.judge import growth_percent

        minutes = self._task.soak_minutes
        failures = self._witness(minutes * 60 + 1800, "campaign.soak", str(minutes))
        seen = json.loads((self._evidence / "soak.json").read_text())
        for number, what in ((1, "resident bytes"), (2, "descriptors")):
            values = [(sample[0], sample[number]) for sample in seen["samples"]]
            growth = growth_percent(values, minutes / 60 * WARM_UP)
            self._say(f"{what}: {values[-1][1]} at the end, growth {growth:.3f} % an hour")
            if growth > MOST_GROWTH_PERCENT:
                failures.append(f"{what} grow by {growth:.2f} % an hour")
        grew = seen["grew"]
        self._say(
            ", ".join(
                f"{name.removeprefix('csp1d_')} +{count:.0f}"
                for name, count in grew.items()
                if count and name.startswith("csp1d_")
            )
        )
        if lost := grew["csp1d_scans_lost_total"]:
            failures.append(f"{lost:.0f} scans lost")
        self._conclude("soak", failures)

    def _witness(self, seconds: float, module: str, *arguments: str) -> list[str]:
        """Run a module that records evidence; return the problems that the judge finds."""
        # Late, since they need NumPy.
        from campaign.judge import judge
        from campaign.record import load

        start = time.monotonic()
        number = len(list(self._results.glob("evidence-*")))
        self._evidence = self._results / f"evidence-{number}"
        self._machine.run(
            ["python3", "-m", module, f"/results/{self._evidence.name}", *arguments],
            environment=PYTHON,
            directory="/tmp",
            timeout=seconds,
            on_output=self._say,
        )
        evidence = load(self._evidence)
        verdict = judge(evidence, (source_tree() / "tests/p1/golden-24A.p1").read_bytes())
        self._say(verdict.text())
        self._say(
            f"{(evidence.end_ns - evidence.start_ns) / 1e9:.0f} s of the machine in "
            f"{time.monotonic() - start:.0f} s"
        )
        failures = [f"{name} {count}" for name, count in verdict.failures().items()]
        return [*failures, *evidence.problems]

    def keep_log(self) -> None:
        """Store the journal of this boot; a kernel warning in it is a problem."""
        journal = self._machine.shell("journalctl --no-pager").stdout
        with (self._results / "journal.log").open("a") as log:
            log.write(journal)
        self.outcome.problems += [line for line in journal.splitlines() if COMPLAINT.search(line)]

    def _pytest(self, tests: Sequence[str], *options: str) -> None:
        junit = self._results / f"junit-{len(list(self._results.glob('junit-*.xml')))}.xml"
        completed = self._machine.run(
            [
                *("python3", "-m", "pytest", *(f"/csp1d/tests/kernel/{test}" for test in tests)),
                *(*PYTEST_OPTIONS, f"--junitxml=/results/{junit.name}", *options),
                *self._task.arguments,
            ],
            environment=PYTHON,
            directory="/tmp",
            timeout=SUITE_SECONDS,
            on_output=self._say,
            check=False,
        )
        self._say(completed.stderr)
        outcome = read_junit(junit) if junit.exists() else Outcome()
        if completed.returncode != 0 and not outcome.problems:
            ended = "ran out of time" if completed.timed_out else f"exit {completed.returncode}"
            outcome.problems.append(f"{tests[0]}: pytest {ended}")
        self.outcome.passed += outcome.passed
        self.outcome.problems += outcome.problems


def main(arguments: Sequence[str]) -> int:
    """Run the suites asked for; 0 when every test of each of them passed."""
    own, pytest = list(arguments), []
    if "--" in own:
        own, pytest = own[: own.index("--")], own[own.index("--") + 1 :]
    parser = argparse.ArgumentParser(
        prog="run", description="Test csp1d on Debian's kernels, in QEMU."
    )
    parser.add_argument(
        "suites", nargs="*", metavar="SUITE", help=f"{' or '.join(SUITES)}; default: all of them"
    )
    parser.add_argument(
        "--package",
        type=Path,
        metavar="DIR",
        help="also test the packages that tools/package has built there",
    )
    parser.add_argument(
        "--campaign",
        type=int,
        default=0,
        metavar="FAULTS",
        help="inject this number of faults in each suite",
    )
    parser.add_argument("--only", action="store_true", help="the campaign without other tests")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 16), help="of the faults")
    parser.add_argument("--soak", type=float, default=0, metavar="MINUTES", help="without a fault")
    parser.add_argument("--mutants", type=int, default=0, metavar="FAULTS", help="for each of them")
    parser.add_argument(
        "--stock",
        type=float,
        default=0,
        metavar="SECONDS",
        help="only the tests with the kernel's own ADC drivers; each fault lasts this long",
    )
    parser.add_argument(
        "--results", type=Path, default=cache_directory() / "results", help="default: %(default)s"
    )
    options = parser.parse_args(own)
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; known: {', '.join(SUITES)}")
    long_runs = options.campaign or options.mutants or options.soak
    if options.only and not long_runs:
        parser.error("nothing to do: --only is for --campaign, --mutants and --soak")
    if long_runs and not options.package:
        parser.error("faults and soaks are for an installed package: --package DIR")
    task = Task(
        pytest,
        options.package and options.package.resolve(),
        options.campaign,
        options.only,
        options.seed,
        options.mutants,
        options.soak,
        options.stock,
    )
    results: Path = options.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    with (results / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another run to end", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        install_tools(HOST_PACKAGES | (PACKAGES if options.package else {}))
        suites = options.suites or SUITES
        with ThreadPoolExecutor(len(suites)) as pool:
            outcomes = list(pool.map(lambda suite: run_suite(suite, results / suite, task), suites))
    passed, failed = sum(o.passed for o in outcomes), sum(len(o.problems) for o in outcomes)
    print(f"{passed} passed, {failed} failed")
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
