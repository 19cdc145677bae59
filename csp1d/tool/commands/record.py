# SPDX-License-Identifier: Apache-2.0
"""`csp1ctl record`: raw scans from the ADC into a capture."""

import argparse
import contextlib
import errno
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

from csp1d.config import Config
from csp1d.errors import DeviceError
from csp1d.exits import OK
from csp1d.hat.device import Adc
from csp1d.hat.kernel import KernelHat
from csp1d.tool.capture import save
from csp1d.tool.progress import progress


def run(config: Config, arguments: argparse.Namespace) -> int:
    seconds = arguments.seconds
    with (
        contextlib.closing(_open_adc(config)) as adc,
        progress(f"Recording {arguments.name}", seconds, "s") as show,
    ):
        scans = save(arguments.name, adc.format, _chunks(adc, seconds, show))
    print(f"{scans} scans in {arguments.name}.bin", file=sys.stderr)
    return OK


def _open_adc(config: Config) -> Adc:
    """The configured ADC. Its own errors name the remedies of the service, not those of a user."""
    try:
        return KernelHat().open_adc(config)
    except DeviceError as error:
        cause = error.__cause__
        if isinstance(cause, PermissionError) and os.geteuid():
            raise DeviceError(f"{error}; or record as root (sudo)") from error
        if isinstance(cause, OSError) and cause.errno == errno.EBUSY:
            raise DeviceError(f"{error}; if csp1d uses it: systemctl stop csp1d") from error
        raise


def _chunks(adc: Adc, seconds: float, show: Callable[[float], None]) -> Iterator[bytes]:
    """The scans of this many seconds; `show` gets the seconds that have passed."""
    end_seconds = time.monotonic() + seconds
    while (left := end_seconds - time.monotonic()) > 0:
        show(seconds - left)
        select.select([adc] if adc.in_blocks else [], [], [], min(left, 0.25))
        try:
            yield adc.read()
        except OSError as error:
            raise DeviceError(f"ADC lost while recording: {error.strerror}") from error
