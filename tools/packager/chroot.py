# SPDX-License-Identifier: Apache-2.0
"""Minimal chroots of the Debian suites, kept in the user's cache, and commands run in copies.

The name of a chroot contains a hash of its content, so a change creates another one; chroots that
have not been used for a week are removed. A chroot uses the mirror of this machine's apt, as
tests/kernel/image.py finds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from image import apt_options, apt_sources, cache_directory, privileged
from image import run as run_as_root

from packager.source import PackageError

HERE = Path(__file__).resolve().parent
KEPT_SECONDS = 7 * 24 * 3600
BUILDER = "builder"
"""The unprivileged user in each chroot."""


@dataclass(frozen=True)
class Recipe:
    """Content of a chroot beside a minimal system. Dependencies as in a control file."""

    name: str
    installed: str = ""
    downloaded: str = ""
    """Packages in apt's cache only."""

    base: Recipe | None = None
    """The chroot that this one extends, which saves most of the time."""

    def digest(self) -> str:
        how = [inspect.getsource(function) for function in (make, from_mirror, from_base)]
        made_of = "\0".join([*how, repr(self)])
        return hashlib.sha256(made_of.encode()).hexdigest()[:12]


def field(control: Path, name: str, paragraph: int = 0) -> str:
    """A field of a control file on one line, without comments; "" where it is missing."""
    text = re.sub(r"^#.*\n", "", control.read_text(), flags=re.MULTILINE)
    found = re.search(
        rf"^{name}:((?:.|\n[ \t])*)", re.split(r"\n\n+", text)[paragraph], re.MULTILINE
    )
    return " ".join(found[1].split()) if found else ""


def recipes(tree: Path) -> dict[str, Recipe]:
    """The chroots in which the package of ``tree`` is built and tested.

    ``plain`` has none of the package's dependencies, so lifecycle notices one that is missing in
    Depends; they are only downloaded. ``check`` has them and those of the build, which saves time:
    autopkgtest does not notice one of these that is missing in debian/tests/control.
    """
    control, tests = tree / "debian/control", tree / "debian/tests/control"
    build_depends = field(control, "Build-Depends")
    python = re.findall(r"python3-[a-z-]+", build_depends)
    depends = [part.strip() for part in field(control, "Depends", 1).split(",")]
    fixed = [part for part in depends if not part.startswith("$")]
    paragraphs = len(re.split(r"\n\n+", tests.read_text().strip()))
    needed = ",".join(field(tests, "Depends", number) for number in range(paragraphs))
    of_tests = sorted({part.strip() for part in needed.split(",")} - {"@", ""})
    at_hand = ", ".join([*fixed, *sorted(set(python)), *of_tests])
    plain = Recipe("plain", downloaded=at_hand)
    build = Recipe("build", f"build-essential, faketime, {build_depends}", base=plain)
    check = Recipe("check", f"autopkgtest, lintian, {at_hand}", base=build)
    return {recipe.name: recipe for recipe in (plain, build, check)}


@contextlib.contextmanager
def chroot(suite: str, recipe: Recipe) -> Iterator[Path]:
    """The chroot of ``suite`` made by ``recipe``; it is kept while the lock is held."""
    cache = cache_directory().parent / "package"
    cache.mkdir(parents=True, exist_ok=True)
    root = cache / f"{suite}-{recipe.name}-{recipe.digest()}"
    with Path(f"{root}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.utime(lock.name)  # so that it is not removed as unused
        for leftover in cache.glob(f"{root.name}.partial-*"):
            remove(leftover)
        if not root.is_dir():
            forget(cache, but=root)
            make(suite, recipe, root)
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield root


def make(suite: str, recipe: Recipe, root: Path) -> None:
    """Make the chroot in the directory ``root``, which exists only once it is complete."""
    start = time.monotonic()
    with contextlib.ExitStack() as held:
        options = (
            from_base(held.enter_context(chroot(suite, recipe.base)))
            if recipe.base
            else from_mirror()
        )
        satisfy = 'chroot "$1" apt-get satisfy --quiet --yes --no-install-recommends'
        if recipe.installed:
            options += [f"--customize-hook={satisfy} {shlex.quote(recipe.installed)}"]
        if recipe.downloaded:
            wanted = shlex.quote(recipe.downloaded)
            options += [f"--customize-hook={satisfy} --download-only {wanted}"]
        partial = Path(tempfile.mkdtemp(prefix=f"{root.name}.partial-", dir=root.parent))
        partial.chmod(0o755)
        # Keep apt's downloads.
        options += ["--mode=root", "--skip=cleanup/apt", *apt_options()]
        run_as_root(
            ["mmdebstrap", *options, suite, str(partial), "-"],
            Path(f"{root}.log"),
            stdin=apt_sources(suite),
        )
        partial.rename(root)
    print(f"{root.name}: made in {time.monotonic() - start:.0f} s", file=sys.stderr)


def from_mirror() -> list[str]:
    """Options of mmdebstrap for a minimal system with an unprivileged user."""
    return [
        "--variant=apt",
        "--include=passwd",
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Dpkg::Use-Pty "0"',  # no progress in the logs
        f'--customize-hook=chroot "$1" useradd --create-home {BUILDER}',
        '--customize-hook=chroot "$1" apt-get clean',
    ]


def from_base(base: Path) -> list[str]:
    """Options of mmdebstrap to use the chroot ``base`` unchanged."""
    return [
        "--variant=custom",
        "--skip=check/empty,setup,update,cleanup/mmdebstrap",
        f'--setup-hook=cp -a {shlex.quote(str(base))}/. "$1"',
    ]


def forget(cache: Path, but: Path) -> None:
    """Remove chroots that have not been used recently and are not in use."""
    for lock in cache.glob("*.lock"):
        old = lock.with_suffix("")
        if old == but or time.time() - lock.stat().st_mtime < KEPT_SECONDS:
            continue
        with lock.open("r") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in (old, *cache.glob(f"{old.name}.partial-*")):
                remove(part)
            Path(f"{old}.log").unlink(missing_ok=True)


def remove(directory: Path) -> None:
    subprocess.run(privileged(["rm", "-rf", "--one-file-system", str(directory)]), check=True)


def has_namespace(kind: str) -> bool:
    """Whether this machine allows a namespace of that kind."""
    command = privileged(["unshare", f"--{kind}", "true"])
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0


def run(
    root: Path,
    command: Sequence[str],
    log: Path,
    *,
    user: str = BUILDER,
    network: bool = False,
    binds: Mapping[Path, str] | None = None,
) -> None:
    """Run ``command`` in a copy of the chroot ``root``, with its outputs in ``log``.

    ``binds`` maps directories of this machine to paths in the chroot.
    """
    isolation = ["--mount", "--pid", "--fork", "--kill-child"]
    if not network:
        if has_namespace("net"):
            isolation += ["--net"]
        else:
            print(f"{log.stem}: RUNS WITH THE NETWORK: unshare --net is not permitted here")
    bound = ",".join(f"{outside}:{inside}" for outside, inside in (binds or {}).items())
    with tempfile.TemporaryDirectory(prefix="csp1d-chroot-") as scratch, log.open("w") as output:
        done = subprocess.run(
            privileged(
                [
                    *("unshare", *isolation, "/usr/bin/python3", str(HERE / "enter.py")),
                    *(str(root), scratch, user, bound, "--", *command),
                ]
            ),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=os.sep,
        )
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise PackageError(f"{log.stem} failed ({done.returncode}); the end of {log}:\n{tail}")
