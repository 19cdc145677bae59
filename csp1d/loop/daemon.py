# SPDX-License-Identifier: Apache-2.0
"""The one loop, and the one place where everything is wired together.

    scans -> Sampler -> Reading -> Sender (P1 port, request line)
                                -> Indicators
                                -> Snapshot -> HTTP thread

Each part says when it wants to be called again (`wake_ns`, CLOCK_MONOTONIC); the loop sleeps until
the earliest of these times, an edge of the request line, a device event or a signal.
"""

import contextlib
import selectors
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

from csp1d import __version__
from csp1d.config import Config
from csp1d.config_file import load
from csp1d.errors import ConfigError
from csp1d.events import Event
from csp1d.hat.device import Hat
from csp1d.interfaces import journal
from csp1d.interfaces.http import HttpServer
from csp1d.interfaces.pages import pages
from csp1d.interfaces.service import ServiceManager
from csp1d.interfaces.snapshot import Snapshot
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.indicators import Indicators
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.measuring.reading import FRESH_NS, Reading
from csp1d.phase import Phase
from csp1d.units import MS_NS

_SEARCH_NS = 1200 * MS_NS
"""How long until the next look for what is missing, unless udev or a reading is earlier."""


class Daemon:
    """Measures and sends until told to stop."""

    def __init__(self, hat: Hat, config: Config, config_path: Path) -> None:
        self._hat = hat
        self._config = config
        self._config_path = config_path
        self._reading: Reading | None = None
        self._reading_timestamp_seconds: float | None = None
        self._readings_total = 0
        self._search_ns = 0
        self._stopping = False
        self._reload = False
        self._service = ServiceManager()
        self._sampler = Sampler(hat, config)
        self._sender = Sender(hat, config)
        self._indicators = Indicators(hat, config)
        self._snapshot = self._take_snapshot()
        self._pages = pages(lambda: self._snapshot)
        self._http: DeviceSlot[HttpServer] = DeviceSlot("HTTP", Event.HTTP_LOST, Event.HTTP_FOUND)
        self._signals, self._signals_in = socket.socketpair()

    @property
    def url(self) -> str | None:
        """Where HTTP answers, None where it is off."""
        return self._http.device.url if self._http.device else None

    def start(self) -> None:
        """Listen to signals and clients."""
        self._signals.setblocking(False)
        self._signals_in.setblocking(False)
        signal.set_wakeup_fd(self._signals_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)
        signal.signal(signal.SIGALRM, self._on_time)
        self._serve_http()

    def run(self) -> None:
        """The loop. Returns after SIGTERM or SIGINT, with the devices left as they should be."""
        Event.STARTED.log("csp1d %s started", __version__, version=__version__)
        self._service.ready()
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._service.stopping()
            self._stop()
            self._service.close()
        Event.STOPPED.log("csp1d stopped")

    def _turn(self) -> None:
        """Sleep until something is to be done, and do it."""
        ready = self._wait()
        now_ns = time.monotonic_ns()
        # Always: of a signal that ended the wait, select does not tell.
        with contextlib.suppress(BlockingIOError):
            self._signals.recv(4096)
        if self._reload:
            self._reload = False
            self._reload_configuration()
        due = self._hat.wake_ns is not None and now_ns >= self._hat.wake_ns
        changed = (due or self._hat.fileno() in ready) and self._hat.changed()
        if changed:
            self._sampler.search_now(now_ns)
        # The line first: what it says decides what may be sent.
        self._sender.on_ready(ready)
        self._indicators.on_request(bool(self._sender.requested))
        readings = self._sampler.poll(now_ns)
        if readings:
            self._publish(readings)
        if changed or readings or now_ns >= self._search_ns:
            self._search_ns = now_ns + _SEARCH_NS
            self._sender.reopen_missing()
            self._indicators.reopen_missing(again=changed)
            self._serve_http()
            self._service.alive()
        self._sender.poll(now_ns)
        self._indicators.on_request(bool(self._sender.requested))
        self._indicators.poll(now_ns)
        self._snapshot = self._take_snapshot()
        self._service.status(_words(self._snapshot, now_ns))

    def _wait(self) -> set[int]:
        """The descriptors that became ready before the earliest time that a part waits for."""
        wanted = {self._signals.fileno(): selectors.EVENT_READ}
        wanted[self._hat.fileno()] = selectors.EVENT_READ
        wanted |= self._sender.descriptors()
        times = (
            self._sampler.wake_ns,
            self._sender.wake_ns,
            self._indicators.wake_ns,
            self._hat.wake_ns,
            self._search_ns,
        )
        wake_ns = min(time_ns for time_ns in times if time_ns is not None)
        seconds = max(0, wake_ns - time.monotonic_ns()) / 1e9
        # A time-out may be late by a thousandth (select_estimate_accuracy in the kernel's
        # fs/select.c), which is nearly a millisecond before each reading. A timer's signal is not.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        # A new one each turn, of the kind that needs no descriptor: devices close theirs, and
        # numbers are given again.
        with selectors.SelectSelector() as selector:
            for descriptor, events in wanted.items():
                selector.register(descriptor, events)
            return {key.fd for key, _ in selector.select(seconds)}

    def _publish(self, readings: list[Reading]) -> None:
        """A reading goes to those who show or send it; of several the last one counts."""
        reading = readings[-1]
        age_ns = time.monotonic_ns() - reading.end_ns
        self._readings_total += len(readings)
        self._reading = reading
        self._reading_timestamp_seconds = time.time() - age_ns / 1e9
        self._sender.on_reading(reading)
        if age_ns <= FRESH_NS:
            self._indicators.on_reading(sum(reading.amperes(phase) for phase in Phase))

    def _take_snapshot(self) -> Snapshot:
        sampler, sender = self._sampler, self._sender
        return Snapshot(
            reading=self._reading,
            failed=sampler.failed,
            reading_timestamp_seconds=self._reading_timestamp_seconds,
            readings_total=self._readings_total,
            scans_total=sampler.scans_total,
            scans_lost_total=sampler.lost_scans_total,
            clipped_samples_total=dict(sampler.clipped_samples),
            adc_up=sampler.is_up,
            adc_reconnects_total=sampler.reconnects,
            p1_up=sender.port.device is not None,
            p1_request=sender.requested,
            port=replace(sender.counts),
            latency_counts=tuple(sender.latency.counts),
            latency_sum_seconds=sender.latency.sum_seconds,
            leds_lit=dict(self._indicators.lit),
            current_led_off_ns=self._indicators.off_ns,
            last_telegram=sender.last_telegram,
        )

    def _reload_configuration(self) -> None:
        """Swap the configuration if the new one is good; parts that do not change go on."""
        self._service.reloading()
        try:
            config = load(self._config_path)
        except ConfigError as error:
            journal.log_rejected(error, "the old one stays")
        except Exception:
            # A fault of ours in reading a file must not end a sensor that works with the old one.
            Event.INTERNAL_ERROR.log(
                "configuration rejected, the old one stays; please report this", exc_info=True
            )
        else:
            self._swap(config)
            Event.CONFIGURATION_RELOADED.log("configuration reloaded")
        self._service.ready()

    def _swap(self, config: Config) -> None:
        old, self._config = self._config, config
        journal.set_up(config.log.level)
        if _measures(old) != _measures(config):
            self._sampler.configure(config)
            # It was measured by other rules: nobody shall take it for what these say.
            self._reading = None
            self._sender.forget()
        if (old.p1, old.direction) != (config.p1, config.direction):
            self._sender.configure(config)
        if old.leds != config.leds:
            self._indicators.close()
            self._indicators.configure(config)
        # A certificate may have been renewed in its place.
        if old.http != config.http or config.http.tls_certificate:
            self._http.reset()
            self._serve_http()

    def _serve_http(self) -> None:
        if self._config.http.listen:
            self._http.ensure_open(lambda: HttpServer(self._config.http, self._pages))

    def _stop(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # One from elsewhere must not end the process on its last steps.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        self._sender.close()
        self._indicators.close()
        self._sampler.close()
        self._http.close()
        signal.set_wakeup_fd(-1)
        self._signals.close()
        self._signals_in.close()

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self._reload = True

    def _on_time(self, number: int, frame: FrameType | None) -> None:
        """Nothing: that a signal came ends the wait."""


def _measures(config: Config) -> tuple[object, ...]:
    """What the ADC and the metering are set up by."""
    # How export is told is the telegram's business.
    direction = replace(config.direction, export_current="magnitude")
    return config.adc, config.channels, config.measurement, direction


def _words(state: Snapshot, now_ns: int) -> str:
    """The state for `systemctl status`, in words that change only when something does."""
    if not state.adc_up:
        measuring = "No ADC or no scans from it"
    elif failed := state.fresh_failed(now_ns):
        measuring = f"Input of {' and '.join(failed.failed_phases)} failed"
    elif state.fresh(now_ns) is None:
        measuring = "Waiting for a reading"
    else:
        measuring = "Measuring"
    port = "P1 port open" if state.p1_up else "P1 port missing"
    request = {None: "request line missing", True: "telegrams asked for", False: "nobody asks"}
    return f"{measuring}; {port}; {request[state.p1_request]}"
