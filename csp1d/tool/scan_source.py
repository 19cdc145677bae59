# SPDX-License-Identifier: Apache-2.0
"""Raw scans for `record` and `report`: from the running daemon, or from the ADC where none runs.

Only one process can read an ADC. The daemon serves the scans of the last ten seconds, so a capture
needs no stop of the daemon, after which its charge point would fall back to its safe current.
"""

import contextlib
import errno
import json
import math
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

from csp1d.config import Config
from csp1d.errors import CaptureError, DeviceError
from csp1d.hat.device import Adc
from csp1d.measuring.recent import MOST_BYTES
from csp1d.measuring.scan import ScanFormat
from csp1d.tool.capture import parse_format
from csp1d.tool.client import Client, NoAnswerError, NoDaemonError

_POLL_SECONDS = 0.25
_SILENT_SECONDS = 5.0
"""Without new scans for this time, a recording ends."""
_OLD_SECONDS = 3.0
"""An ADC that has delivered nothing for this time has stopped."""

_HEAD_BYTES = 1 << 12

Show = Callable[[float], None]
"""Gets the duration of the scans so far, in seconds."""


class ScanSource(Protocol):
    """Scans of the configured ADC."""

    format: ScanFormat

    warning: str
    """What the user should know about these scans, or ""."""

    def chunks(self, seconds: float, show: Show) -> Iterator[bytes]:
        """Successive scans of this duration, without a gap. Raises DeviceError if they end early:
        those before it are valid."""


@contextlib.contextmanager
def open_source(config: Config) -> Iterator[ScanSource]:
    """Raises DeviceError."""
    try:
        source = DaemonScans(config) if config.http.socket else None
    except NoDaemonError:
        source = None
    except NoAnswerError as error:
        if error.http_status != HTTPStatus.SERVICE_UNAVAILABLE:
            raise
        # An ADC that is open here could not be opened by the daemon.
        raise DeviceError(
            "csp1d runs and has had no scans since its start: see csp1ctl status; to record from"
            " the ADC itself, stop csp1d first"
        ) from error
    if source:
        yield source
        return
    with contextlib.closing(_open_adc(config)) as adc:
        yield AdcScans(adc)


class DaemonScans:
    """The scans that the running daemon keeps, and those that follow."""

    def __init__(self, config: Config) -> None:
        """Raises NoAnswerError: NoDaemonError if none runs, with status 503 if it has no scans."""
        self._client = Client(config.http)
        self._update()
        self.warning = ""
        own = {channel.phase: channel.id for channel in self.format.channels}
        inputs = {str(phase): channel.input for phase, channel in config.channels.used().items()}
        # An ADC may lack the reference.
        if (reference := config.reference()) and "reference" in own:
            inputs["reference"] = reference.input
        if own != inputs:
            listed = ", ".join(f"{phase} {name}" for phase, name in own.items())
            self.warning = (
                f"csp1d runs with another configuration, and these are its inputs: {listed}"
            )
        if self._age_seconds > _OLD_SECONDS:
            self.warning = (
                f"the ADC has delivered nothing for {self._age_seconds:.0f} s:"
                " these are its last scans; see csp1ctl status"
            )

    def _update(self) -> None:
        """What the daemon keeps now."""
        body = self._client.get("/capture.json")
        try:
            place = json.loads(body)
            self.format = parse_format(place, Path("/capture.json"))
            self._capture = str(place["capture"])
            self._first, self._scans = int(place["first"]), int(place["scans"])
            self._age_seconds = float(place["age_seconds"])
            measured_hertz = place["scans_per_second"]
            self._hertz = float(measured_hertz or self.format.sampling_frequency_hz)
        except (CaptureError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise NoAnswerError(
                f"csp1d describes its scans in another way ({error!r:.200}); restart it if it is"
                " older than csp1ctl"
            ) from error

    def chunks(self, seconds: float, show: Show) -> Iterator[bytes]:
        """See `ScanSource`."""
        capture_, size = self._capture, self.format.scan_bytes
        begin = number = self._beginning(seconds)
        last_seconds = time.monotonic()
        # The rate may become known only now, and better with each read.
        while (left := begin + self._count(seconds) - number) > 0:
            try:
                target = f"/capture.bin?capture={capture_}&first={number}"
                data = self._client.get(target, MOST_BYTES + _HEAD_BYTES)[: left * size]
            except NoAnswerError as error:
                if error.http_status != HTTPStatus.GONE:
                    raise
                self._update()
                is_same = self._capture == capture_
                if is_same and number == begin < (later := self._beginning(seconds)):
                    # The oldest scans were dropped before they were fetched.
                    begin = number = later
                    continue
                raise DeviceError(self._gap(capture_)) from error
            if data:
                last_seconds = time.monotonic()
                number += len(data) // size
                show((number - begin) / (self._hertz or math.inf))
                yield data
                continue
            if time.monotonic() - last_seconds > _SILENT_SECONDS:
                raise DeviceError(
                    f"the ADC has delivered nothing for {_SILENT_SECONDS:.0f} s; see csp1ctl status"
                )
            time.sleep(_POLL_SECONDS)
            self._update()

    def _count(self, seconds: float) -> int:
        """The number of scans in this time: more than can come if the rate is not known."""
        return math.ceil(seconds * self._hertz) if self._hertz else sys.maxsize // 2

    def _beginning(self, seconds: float) -> int:
        """The number of the first scan, if the last ones of this time are wanted."""
        return max(self._first, self._first + self._scans - self._count(seconds))

    def _gap(self, capture_: str) -> str:
        """Why the scans that follow those of this capture are not there."""
        if self._capture != capture_:
            return "csp1d has set up its ADC again; see journalctl -u csp1d, and record again"
        return (
            f"csp1d keeps only the last {self._scans} scans, and more have come in the meantime;"
            " record a shorter time"
        )


class AdcScans:
    """The scans of an ADC that no other process uses."""

    warning = ""

    def __init__(self, adc: Adc) -> None:
        self._adc = adc
        self.format = adc.format

    def chunks(self, seconds: float, show: Show) -> Iterator[bytes]:
        """See `ScanSource`."""
        adc = self._adc
        end_seconds = time.monotonic() + seconds
        while (left := end_seconds - time.monotonic()) > 0:
            show(seconds - left)
            select.select([adc] if adc.in_blocks else [], [], [], min(left, _POLL_SECONDS))
            try:
                yield adc.read()
            except OSError as error:
                raise DeviceError(f"ADC lost while recording: {error.strerror}") from error


def _open_adc(config: Config) -> Adc:
    """The configured ADC. Its own errors name the remedies of the service, not those of a user."""
    from csp1d.hat.kernel import KernelHat  # It takes long to load, and the daemon rarely rests.

    try:
        return KernelHat().open_adc(config)
    except DeviceError as error:
        cause = error.__cause__
        if isinstance(cause, PermissionError) and os.geteuid():
            raise DeviceError(f"{error}; or record as root (sudo)") from error
        if isinstance(cause, OSError) and cause.errno == errno.EBUSY:
            raise DeviceError(
                f"{error}; if csp1d uses it, http.socket must be that of its configuration"
                " (--config)"
            ) from error
        raise
