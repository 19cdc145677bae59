# SPDX-License-Identifier: Apache-2.0
"""The one loop, and the one place where everything is wired together.

    scans -> Sampler -> Reading -> Sender (P1 port, request line)
                                -> Indicators (LEDs)
                                -> Snapshot -> HTTP threads, systemd

Each part has a `wake_ns` (CLOCK_MONOTONIC): the time of its next work, or None. The loop sleeps
until the earliest of these times, an edge of the request line, a device event or a signal.
"""

import selectors
import time
from pathlib import Path

from csp1d import __version__
from csp1d.config import Config, HttpConfig
from csp1d.config_file import DEFAULT_PATH
from csp1d.events import ActiveProblem, Event
from csp1d.hat.device import Hat
from csp1d.interfaces import journal
from csp1d.interfaces.http import HttpServer, SocketServer
from csp1d.interfaces.pages import pages
from csp1d.interfaces.service import ServiceManager, status_line
from csp1d.interfaces.snapshot import Snapshot
from csp1d.interfaces.tls import Tls
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.indicators import Indicators
from csp1d.loop.reload import Part, Reloads, affected_parts
from csp1d.loop.report import active_problems, take_snapshot
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.loop.signals import Signals
from csp1d.measuring.reading import FRESH_NS, Reading
from csp1d.phase import Phase
from csp1d.units import MS_NS

_SEARCH_NS = 1200 * MS_NS
"""Time to the next search for missing devices, unless a device event or a reading comes first."""

_SLEEP_NS = 100 * MS_NS
"""A longer difference of the clocks is a suspend, not a pause between two calls."""

_TELEGRAM_NS = 250 * MS_NS
"""Maximum delay of a stop or reload by a telegram under way, which takes up to 90 ms. A stuck port
or an oscillating line does not delay it longer."""


class Daemon:
    """Measures and sends until SIGTERM or SIGINT."""

    def __init__(self, hat: Hat, config: Config, named_file: Path | None) -> None:
        self._config = config
        self._named_file = named_file
        self._search_ns = 0
        self._asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()

        # The HAT opens devices, and reports when one appears or disappears.
        self._hat = hat

        # The sampler reads the ADC when a reading's last scan is due, and computes the reading.
        self._sampler = Sampler(hat, config)

        # The sender sends each reading as a P1 telegram while the charge point requests it.
        self._sender = Sender(hat, config)

        # The indicators set the LEDs: power, the total current, the request line.
        self._indicators = Indicators(hat, config)

        # The result of the last reload of the configuration, for the reports.
        self._reloads = Reloads()

        # HTTP threads serve metrics and pages from the latest snapshot, and see nothing else.
        self._http = DeviceSlot[HttpServer]("HTTP server", Event.HTTP_LOST, Event.HTTP_FOUND)
        self._socket = DeviceSlot[SocketServer]("HTTP socket", Event.HTTP_LOST, Event.HTTP_FOUND)
        self._problems: tuple[ActiveProblem, ...] = ()
        self._snapshot = self._take_snapshot()
        self._pages = pages(lambda: self._snapshot)

        # systemd receives readiness, the state as text, and a sign of life per search.
        self._service = ServiceManager()

        # Signals end the loop's wait, and ask for a stop or a reload.
        self._signals = Signals()

    @property
    def url(self) -> str | None:
        """The address of the HTTP server; None if it is not listening."""
        return self._http.device.url if self._http.device else None

    def start(self) -> None:
        """Accept signals and HTTP clients."""
        self._signals.install()
        self._serve_http()

    def run(self) -> None:
        """Run the loop until a signal stops it, then leave the devices in their idle state."""
        Event.STARTED.log("csp1d %s started", __version__, version=__version__)
        self._reloads.log_doubts(self._named_file or DEFAULT_PATH)
        self._service.ready()
        try:
            while not self._signals.stop or self._waits_for_telegram():
                self._turn()
        finally:
            self._service.stopping()
            self._stop()
            self._service.close()
        Event.STOPPED.log("csp1d stopped")

    def _turn(self) -> None:
        """Wait for something to do, and do it."""
        ready = self._wait()
        now_ns = time.monotonic_ns()
        self._check_sleep()
        due = self._hat.wake_ns is not None and now_ns >= self._hat.wake_ns
        changed = (due or self._hat.fileno() in ready) and self._hat.changed()
        if changed or self._sampler.descriptors().keys() & ready:
            self._sampler.search_now(now_ns)
        # The request line first: it decides what may be sent.
        self._sender.on_ready(ready)
        self._indicators.on_request(bool(self._sender.requested))
        readings = self._sampler.poll(now_ns)
        if not self._check_sleep() and readings:
            # After a pause there may be several; only the newest can be fresh.
            self._publish(readings[-1])
        if changed or readings or now_ns >= self._search_ns:
            self._search_ns = now_ns + _SEARCH_NS
            self._sender.reopen_missing()
            self._indicators.reopen_missing(again=changed)
            self._serve_http()
            self._service.alive()
            self._problems = active_problems(*self._parts(), self._socket, now_ns)
        self._sender.poll(now_ns)
        self._indicators.on_request(bool(self._sender.requested))
        self._indicators.poll(now_ns)
        if self._signals.reload and not self._waits_for_telegram():
            self._signals.reload = False
            self._reload()
        self._snapshot = self._take_snapshot()
        self._service.status(status_line(self._snapshot, now_ns))

    def _parts(self) -> tuple[Sampler, Sender, Indicators, DeviceSlot[HttpServer], Reloads]:
        """The parts that are reported."""
        return self._sampler, self._sender, self._indicators, self._http, self._reloads

    def _take_snapshot(self) -> Snapshot:
        return take_snapshot(*self._parts(), self._config.site, self._problems)

    def _check_sleep(self) -> bool:
        """After a suspend nothing measured before it is fresh, although CLOCK_MONOTONIC stood.

        Returns whether there was one since the last call.
        """
        asleep_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()
        if has_slept := asleep_ns - self._asleep_ns > _SLEEP_NS:
            # First what is leaving now.
            self._sender.discard()
            self._sampler.configure(self._config)
            self._indicators.on_reading(0.0)
        # BOOTTIME is read first: if the process is held in between, the difference is too small.
        self._asleep_ns = max(self._asleep_ns, asleep_ns)
        return has_slept

    def _waits_for_telegram(self) -> bool:
        """Whether a stop or reload lets the telegram under way end whole.

        One that is cut while it is requested costs some consumers the next two.
        """
        is_early = time.monotonic_ns() < self._signals.since_ns + _TELEGRAM_NS
        return is_early and self._sender.sending

    def _wait(self) -> set[int]:
        """Wait until a part has work. Returns the descriptors that are ready."""
        times = (
            self._sampler.wake_ns,
            self._sender.wake_ns,
            self._indicators.wake_ns,
            self._hat.wake_ns,
            self._search_ns,
        )
        wake_ns = min(time_ns for time_ns in times if time_ns is not None)
        descriptors = {self._hat.fileno(): selectors.EVENT_READ}
        descriptors |= self._sampler.descriptors() | self._sender.descriptors()
        return self._signals.wait(descriptors, wake_ns)

    def _publish(self, reading: Reading) -> None:
        """Pass a new reading to the parts that send or show it."""
        age_ns = time.monotonic_ns() - reading.end_ns
        self._sender.on_reading(reading)
        # The sender checks the age itself.
        if age_ns <= FRESH_NS:
            self._indicators.on_reading(sum(reading.amperes(phase) for phase in Phase))

    def _reload(self) -> None:
        self._service.reloading()
        # The zone may have changed (/etc/localtime); the C library reads it once otherwise.
        time.tzset()
        if read := self._reloads.read_again(self._named_file):
            self._reconfigure(*read)
            Event.CONFIGURATION_RELOADED.log("configuration reloaded")
            self._reloads.log_doubts(self._named_file or DEFAULT_PATH)
        self._service.ready()

    def _reconfigure(self, config: Config, tls: Tls | None) -> None:
        """Replace the configuration; parts that it does not affect continue."""
        parts = affected_parts(self._config, config)
        self._config = config
        journal.set_up(config.log.level)
        if Part.SAMPLER in parts:
            self._sampler.configure(config)
            # The last reading was measured with the old configuration.
            self._sender.forget()
        if Part.SENDER in parts:
            self._sender.configure(config)
        if Part.INDICATORS in parts:
            self._indicators.close()
            self._indicators.configure(config)
        if Part.HTTP in parts:
            self._http.reset()
        if Part.SOCKET in parts:
            self._socket.reset()
        # With the certificates that have been checked: the files may have changed since.
        self._serve_http(tls)

    def _serve_http(self, tls: Tls | None = None) -> None:
        http = self._config.http
        if http.listen:
            self._http.ensure_open(
                lambda: HttpServer(http, self._pages, self._config.site.name, tls)
            )
        is_of_service = self._hat.is_simulated and http.socket == HttpConfig().socket
        if self._socket.device and not self._socket.device.is_in_place():
            self._socket.close()
        if http.socket and not is_of_service:
            self._socket.ensure_open(lambda: SocketServer(http.socket, self._pages))

    def _stop(self) -> None:
        self._sender.close()
        self._indicators.close()
        self._sampler.close()
        self._http.close()
        self._socket.close()
        self._signals.close()
