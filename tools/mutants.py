# SPDX-License-Identifier: Apache-2.0
"""Mutation testing of the pure code: tools/mutants [p1|measuring] [MODULE ...].

mutmut changes one expression at a time, in a copy of the work tree, and runs the tests that reach
it. A mutant that passes them all survives: a rule without a test. Survivors are printed as diffs.
Those in mutants-explained.toml do not count; the exit status is 1 if more than AREAS allows remain.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

from mutmut.mutation.diff_apply import get_diff_for_mutant

TREE = Path(__file__).resolve().parent.parent
EXPLAINED = TREE / "tools/mutants-explained.toml"
MUTMUT = Path(sys.executable).parent / "mutmut"
SURVIVED = 0, 5, 33
"""Exit statuses: the tests passed, or none reaches the mutant."""


@dataclass(frozen=True)
class Area:
    """The tests for a folder of csp1d/, and the share of unexplained survivors allowed there."""

    tests: tuple[str, ...]
    allowed: float


AREAS = {
    "p1": Area(("tests/p1", "tests/loop/test_sender.py"), 0.0),
    "measuring": Area(
        (
            "tests/measuring",
            "tests/loop/test_sampler.py",
            "tests/loop/test_moving_rate.py",
            "tests/tool/test_capture.py",
        ),
        0.05,
    ),
}


@dataclass(frozen=True)
class Survivor:
    """A mutant that passed the tests: its module (p1/port.py), function and diff."""

    module: str
    function: str
    diff: str

    @property
    def changed(self) -> list[str]:
        """The new text of the changed lines."""
        lines = self.diff.splitlines()
        return [line[1:].strip() for line in lines if re.match(r"\+(?!\+\+)", line)]


@dataclass(frozen=True)
class Explanation:
    """An entry of mutants-explained.toml."""

    module: str
    function: str
    line: str
    reason: str

    def fits(self, survivor: Survivor) -> bool:
        return (self.module, self.function) == (survivor.module, survivor.function) and any(
            self.line in line for line in survivor.changed
        )


def run_mutmut(copy: Path, area: str, modules: list[str], children: int | None) -> None:
    """Copy the work tree and test the mutants there. The results are in the copy's mutants/."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=TREE, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        if (TREE / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, copy / name)
    folders = [path.name for path in copy.iterdir() if path.is_dir() and path.name != "csp1d"]
    settings = {
        "source_paths": ["csp1d"],
        "only_mutate": [f"csp1d/{area}/{module}.py" for module in modules or ["*"]],
        "also_copy": folders,
        "pytest_add_cli_args_test_selection": list(AREAS[area].tests),
        "pytest_add_cli_args": ["-pno:cacheprovider"],
        "use_git_change_detection": False,
    }
    with (copy / "pyproject.toml").open("a") as file:
        # Lists of plain words and booleans are written alike in JSON and TOML.
        file.write("\n[tool.mutmut]\n")
        file.writelines(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    command = [str(MUTMUT), "run", *([f"--max-children={children}"] if children else [])]
    log = copy / "mutmut.log"
    with log.open("wb") as output:
        status = subprocess.run(command, cwd=copy, stdout=output, stderr=output).returncode
    if status:
        # Without the frames of its animation.
        said = re.sub("[^\n]*\r", "", log.read_bytes().decode())
        sys.exit(f"mutmut failed with status {status}:\n{said[-4000:]}")


def function_name(mutant: str) -> str:
    """The mutated function: `csp1d.p1.port.xǁP1Portǁ_start__mutmut_3` is in P1Port._start."""
    name = mutant.rpartition(".")[2].rpartition("__mutmut_")[0]
    return name.removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def read_results(copy: Path) -> tuple[Counter[str], list[Survivor]]:
    """The number of mutants of each module, and the survivors."""
    total: Counter[str] = Counter()
    survivors = []
    with chdir(copy):
        for meta in sorted(Path("mutants/csp1d").rglob("*.meta")):
            source = meta.relative_to("mutants").with_suffix("")
            module = str(source.relative_to("csp1d"))
            for mutant, status in json.loads(meta.read_text())["exit_code_by_key"].items():
                total[module] += 1
                if status is None:
                    sys.exit(f"mutmut was interrupted before {mutant}")
                if status in SURVIVED:
                    diff = get_diff_for_mutant(mutant, path=source)
                    survivors.append(Survivor(module, function_name(mutant), diff))
    return total, survivors


def report(
    area: str, total: Counter[str], survivors: list[Survivor], explanations: list[Explanation]
) -> bool:
    """Print the unexplained survivors and the counts. Return whether the target is reached."""
    unexplained = [
        survivor
        for survivor in survivors
        if not any(explanation.fits(survivor) for explanation in explanations)
    ]
    for survivor in unexplained:
        print(f"\n{survivor.module}: {survivor.function}\n{survivor.diff}")
    for explanation in explanations:
        if explanation.module in total and not any(map(explanation.fits, survivors)):
            print(f"not needed: {explanation}")
    survived = Counter(survivor.module for survivor in survivors)
    left = Counter(survivor.module for survivor in unexplained)
    print(f"\n{'module':28}{'mutants':>9}{'killed':>9}{'survived':>10}{'unexplained':>13}")
    for module, count in total.items():
        killed = count - survived[module]
        print(f"{module:28}{count:9}{killed:9}{survived[module]:10}{left[module]:13}")
    allowed = int(AREAS[area].allowed * total.total())
    print(f"csp1d/{area}: {len(unexplained)} unexplained survivors, at most {allowed} allowed")
    return len(unexplained) <= allowed


def main() -> int:
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__.splitlines()[0])
    parser.add_argument("area", nargs="?", choices=AREAS, help="default: each")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as port; default: all")
    parser.add_argument("--children", type=int, help="processes; default: one per processor")
    options = parser.parse_args()
    entries = tomllib.loads(EXPLAINED.read_text()).get("mutant", [])
    explanations = [Explanation(**entry) for entry in entries]
    is_good = True
    for area in [options.area] if options.area else AREAS:
        with tempfile.TemporaryDirectory(prefix="csp1d-mutants-") as copy:
            run_mutmut(Path(copy), area, options.modules, options.children)
            total, survivors = read_results(Path(copy))
        is_good &= report(area, total, survivors, explanations)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
