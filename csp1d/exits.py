# SPDX-License-Identifier: Apache-2.0
"""Exit codes of the commands (2 as argparse has it, the others after sysexits(3))."""

import sys
import traceback
from collections.abc import Callable

OK = 0
USAGE = 2
DEVICE_MISSING = 69
INTERNAL = 70
CONFIGURATION = 78


def guarded(program: str, run: Callable[[], int], told: Callable[[], bool] = lambda: False) -> int:
    """Run a command; what nobody foresaw is shown whole and ends in 70.

    `told`: tells the exception that is being handled elsewhere, if it can; whether it did.
    """
    try:
        return run()
    except KeyboardInterrupt:
        return 130
    except Exception:
        # The outermost frame: nothing goes on after it, it only gives the fault its exit code.
        if not told():
            traceback.print_exc()
            words = "internal error, please report it with the lines above"
            print(f"{program}: {words}", file=sys.stderr)
        return INTERNAL
