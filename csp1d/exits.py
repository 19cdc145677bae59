# SPDX-License-Identifier: Apache-2.0
"""Exit codes of the commands (2 as in argparse, the others from sysexits(3))."""

import sys
from collections.abc import Callable

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
    except Exception:
        # The outermost frame: nothing continues after it, it only sets the exit code.
        if not report():
            import traceback  # Rarely needed, and slow to load.

            traceback.print_exc()
            message = "internal error, please report it with the lines above"
            print(f"{program}: {message}", file=sys.stderr)
        return INTERNAL
