#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Build csp1d's Debian package in a clean chroot of each suite, and test it.

    tools/package [--check] [SUITE...]

The working tree becomes a source package for each suite, with a version of its own (for Debian 12
0.1.0-1~deb12u1), which an unprivileged user without network builds there. The results are in
dist/SUITE/, with a log of each step. ``--check`` also tests:

    reproducible  a second build, elsewhere and at another time, gives the same bytes
    lintian       reports no error and no warning, without overrides
    lifecycle     install, upgrade, remove and purge leave nothing behind, and Depends suffices to
                  import each module
    autopkgtest   the tests of debian/tests pass on the installed package, run by an ordinary user;
                  the build runs none

The suites run in parallel. Chroots are made at first use, which needs root (or sudo) and
some minutes, and are kept in the user's cache.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TREE / "tools"), str(TREE / "tests/kernel")]

from image import HOST_PACKAGES, SUITES, ImageError, install_tools  # noqa: E402
from packager import source  # noqa: E402
from packager.chroot import BUILDER, HERE, Recipe, chroot, recipes, run  # noqa: E402
from packager.source import PackageError  # noqa: E402

INSIDE = HERE / "inside"


class Suite:
    """Build and tests of the package in one suite."""

    def __init__(self, name: str, source_package: Path, made_of: dict[str, Recipe]) -> None:
        self.name = name
        self.results = TREE / "dist" / name
        self._source = source_package
        self._recipes = made_of

    def build(self, *options: str) -> None:
        shutil.rmtree(self.results, ignore_errors=True)
        self.results.mkdir(parents=True)
        self._build_into(self.results, "build", *options)
        for file in self._source.iterdir():
            shutil.copy(file, self.results)

    def untested(self) -> None:
        """Build without the tests: autopkgtest runs them all, and more, as the same user."""
        self.build("--untested")

    def reproducible(self) -> None:
        with tempfile.TemporaryDirectory(prefix="csp1d-again-") as directory:
            again = Path(directory)
            self._build_into(again, "reproducible", "--otherwise")
            for package in again.glob("*.deb"):
                if not filecmp.cmp(package, self.results / package.name, shallow=False):
                    kept = self.results / f"{package.name}.again"
                    shutil.copy(package, kept)
                    raise PackageError(
                        f"two builds differ: diffoscope {self.results / package.name} {kept}"
                    )

    def lintian(self) -> None:
        options = ["--fail-on=error,warning", "--display-info", "--pedantic", "--show-overrides"]
        with chroot(self.name, self._recipes["check"]) as root:
            # Both are named, since the .changes file is that of a binary build.
            command = f"lintian {' '.join(options)} /results/*.dsc /results/*.changes"
            run(root, ["sh", "-c", command], self._log("lintian"), binds={self.results: "/results"})
        output = self._log("lintian").read_text()
        if "O: " in output or "overridden" in output:
            raise PackageError(f"lintian overrides are in use:\n{output}")

    def lifecycle(self) -> None:
        with chroot(self.name, self._recipes["plain"]) as root:
            self._run_as_root(root, ["/inside/lifecycle"], "lifecycle")

    def autopkgtest(self) -> None:
        packages = "/results/*.dsc /results/*.deb"
        command = f"autopkgtest --user={BUILDER} --no-built-binaries {packages} -- null"
        with chroot(self.name, self._recipes["check"]) as root:
            self._run_as_root(root, ["sh", "-c", command], "autopkgtest")

    def _log(self, step: str) -> Path:
        return self.results / f"{step}.log"

    def _run_as_root(self, root: Path, command: Sequence[str], step: str) -> None:
        # With the network, since Depends may require packages that are not in the chroot.
        run(
            root,
            command,
            self._log(step),
            user="root",
            network=True,
            binds={self.results: "/results", INSIDE: "/inside"},
        )

    def _build_into(self, directory: Path, step: str, *options: str) -> None:
        with (
            chroot(self.name, self._recipes["build"]) as root,
            tempfile.TemporaryDirectory(prefix="csp1d-results-") as results,
        ):
            Path(results).chmod(0o777)  # for the user of the build
            run(
                root,
                ["/inside/build", *options],
                self._log(step),
                binds={
                    self._source: "/source",
                    INSIDE: "/inside",
                    Path(results): "/results",
                },
            )
            for file in Path(results).iterdir():
                shutil.copyfile(file, directory / file.name)


def steps(suite: Suite, check: bool) -> list[Callable[[], None]]:
    if not check:
        return [suite.build]
    return [
        suite.untested,
        suite.reproducible,
        suite.lintian,
        suite.lifecycle,
        suite.autopkgtest,
    ]


def package(suite: Suite, check: bool) -> bool:
    """Whether build and tests of the suite passed. All tests run, even after a failure, unless the
    build failed.
    """
    good = True
    for step in steps(suite, check):
        start = time.monotonic()
        try:
            step()
        except (PackageError, ImageError, OSError, subprocess.CalledProcessError) as error:
            print(f"{suite.name}: {step.__name__} FAILED: {error}", flush=True)
            good = False
            if step in (suite.build, suite.untested):
                break
        else:
            seconds = time.monotonic() - start
            print(f"{suite.name}: {step.__name__} good ({seconds:.0f} s)", flush=True)
    return good


def make_source(directory: Path, suite: str, check: bool) -> Path:
    """Make ``directory`` with the source package; with ``check``, twice, to compare."""
    directory.mkdir()
    directory.chmod(0o755)
    dsc = source.build(TREE, directory, suite)
    if check:
        with tempfile.TemporaryDirectory(prefix="csp1d-source-") as again:
            source.build(TREE, Path(again), suite)
            for file in directory.iterdir():
                if not filecmp.cmp(file, Path(again) / file.name, shallow=False):
                    raise PackageError(f"two source packages differ in {file.name}")
    print(f"source package: {dsc.name}", flush=True)
    return directory


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tools/package", description="Build csp1d's Debian package in a clean chroot."
    )
    parser.add_argument(
        "suites", metavar="SUITE", nargs="*", help=f"{', '.join(SUITES)} (default: all)"
    )
    parser.add_argument("--check", action="store_true", help="test the package, too")
    options = parser.parse_args()
    unknown = set(options.suites) - set(SUITES)
    if unknown:
        parser.error(f"unknown suite {', '.join(unknown)}; there are {', '.join(SUITES)}")
    try:
        install_tools(HOST_PACKAGES | {"dpkg-dev": "/usr/bin/dpkg-source", "git": "/usr/bin/git"})
        made_of = recipes(TREE)
        with tempfile.TemporaryDirectory(prefix="csp1d-source-") as directory:
            Path(directory).chmod(0o755)
            names = list(dict.fromkeys(options.suites or SUITES))

            def made(name: str) -> bool:
                try:
                    files = make_source(Path(directory) / name, name, options.check)
                except (PackageError, OSError, subprocess.CalledProcessError) as error:
                    print(f"{name}: source package FAILED: {error}", flush=True)
                    return False
                return package(Suite(name, files, made_of), options.check)

            with ThreadPoolExecutor(len(names)) as pool:
                verdicts = list(pool.map(made, names))
    except (PackageError, ImageError, OSError, subprocess.CalledProcessError) as error:
        print(f"package: {error}", file=sys.stderr)
        return 1
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
