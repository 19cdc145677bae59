# SPDX-License-Identifier: Apache-2.0
"""Exit codes of the commands (2 as in argparse, the others from sysexits(3))."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator

OK = 0
PROBLEM = 1
USAGE = 2
DEVICE_MISSING = 69
INTERNAL = 70
CONFIGURATION = 78


def guarded(
    program: str, run: Callable[[], int], report: Callable[[], bool] = lambda: False
) -> int:
    """Run a command and return its exit code; an unforeseen exception is reported and gives 70.

    `report` may report the current exception elsewhere; it returns whether it did.
    """
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # The outermost frame: nothing continues after it, it only sets the exit code.
        if not report():
            _print(program, error)
        return INTERNAL


def _print(program: str, error: Exception) -> None:
    """Print an unforeseen exception, the current one."""
    if isinstance(error, ImportError) and not f"{error.name}.".startswith("csp1d."):
        # A package is missing, as with a Python other than Debian's.
        remedy = "in a clone, run tools/demo once, then use /usr/bin/python3"
        print(f"{program}: {sys.executable}: {error}; {remedy}", file=sys.stderr)
        return
    import traceback  # Rarely needed, and slow to load.

    traceback.print_exc()
    print(f"{program}: internal error, please report it with the lines above", file=sys.stderr)


@contextlib.contextmanager
def printing(program: str, goes_on: bool = False) -> Iterator[None]:
    """Exit if standard output cannot be written: with the reason, or silently if its reader has
    exited, as `head` does; with `goes_on` do not exit then.

    Any other OSError must be handled in the block. What the output's encoding lacks is escaped, as
    on stderr.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            # Also of argparse, which prints and exits; None: it was closed before the start.
            if sys.stdout:
                sys.stdout.flush()
    except OSError as error:
        # The interpreter must not flush to it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            if goes_on:
                return
            sys.exit(OK)
        print(f"{program}: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.exit(INTERNAL)
