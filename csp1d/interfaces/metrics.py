# SPDX-License-Identifier: Apache-2.0
"""The Prometheus metrics, built from one snapshot per scrape.

An unknown value is absent: 0 would mean "no current".
"""

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily as Counter
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily as Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from csp1d import __version__
from csp1d.interfaces.snapshot import Snapshot
from csp1d.p1.latency import LATENCY_BUCKETS_SECONDS


class SnapshotCollector(Collector):
    """Converts the result of `snapshot()` into metrics."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        now_ns: Callable[[], int] = time.monotonic_ns,
        boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        start_seconds: float | None = None,
    ) -> None:
        """`now_ns`: CLOCK_MONOTONIC; `boot_ns`: CLOCK_BOOTTIME; `start_seconds`: Unix time of the
        start of the process, None for now."""
        self._snapshot = snapshot
        self._now_ns, self._boot_ns = now_ns, boot_ns
        self._start_seconds = time.time() if start_seconds is None else start_seconds

    def collect(self) -> Iterator[Metric]:
        state = self._snapshot()
        yield from self._currents(state)
        yield from self._inputs(state)
        yield from _measuring(state)
        yield from _p1(state)
        yield from _service(state)
        yield Gauge(
            "process_start_time_seconds",
            "Unix time of the start of csp1d.",
            self._start_seconds,
        )
        yield Gauge(
            "csp1d_main_fuse_amperes",
            "Rating of the main fuse; absent if it is unknown.",
            state.site.main_fuse_amperes or None,
        )
        device = {
            "site": state.site.name,
            "serial": state.p1.serial,
            "equipment_id": state.p1.equipment_id,
            "profile": state.p1.profile,
        }
        info = Gauge("csp1d_device_info", "Always 1; identity of the device.", labels=[*device])
        info.add_metric([*device.values()], 1)
        yield info
        build = Gauge("csp1d_build_info", "Always 1; the label is the version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build

    def _currents(self, state: Snapshot) -> Iterator[Metric]:
        current = _by_phase("csp1d_current_amperes", "RMS current over the last second.")
        peak = _by_phase(
            "csp1d_peak_current_amperes", "Peak instantaneous current, absolute value."
        )
        offset = _by_phase("csp1d_dc_offset_amperes", "DC offset of the samples, as a current.")
        reading = state.fresh(self._now_ns())
        if reading:
            for phase, values in reading.phases.items():
                current.add_metric([phase], values.rms_amperes)
                peak.add_metric([phase], values.peak_amperes)
                offset.add_metric([phase], values.dc_offset_amperes)
        yield from (current, peak, offset)
        yield Gauge(
            "csp1d_mains_frequency_hertz",
            "Mains frequency; absent without a steady current.",
            reading.frequency_hertz if reading else None,
        )
        if reading and reading.direction and reading.direction.active_current_amperes is not None:
            active = _by_phase(
                "csp1d_active_current_amperes", "In-phase current; negative for export."
            )
            for phase, amperes in reading.direction.active_current_amperes.items():
                active.add_metric([phase], amperes)
            yield active

    def _inputs(self, state: Snapshot) -> Iterator[Metric]:
        now_ns = self._now_ns()
        failed = _by_phase(
            "csp1d_input_failed", "1 if the input has failed; absent without a fresh reading."
        )
        if reading := state.fresh_failed(now_ns) or state.fresh(now_ns):
            for phase in reading.phases:
                failed.add_metric([phase], phase in reading.failed_phases)
        highest = _by_phase(
            "csp1d_current_max_amperes", "Highest RMS current of a reading in the last 60 s."
        )
        for phase, amperes in state.history.highest_amperes(self._boot_ns()).items():
            highest.add_metric([phase], amperes)
        yield from (failed, highest)


def _measuring(state: Snapshot) -> Iterator[Metric]:
    yield Gauge(
        "csp1d_reading_timestamp_seconds",
        "Unix time of the end of the last reading.",
        state.reading_timestamp_seconds,
    )
    yield Counter(
        "csp1d_readings", "Readings with a valid current of each input.", state.readings_total
    )
    yield Counter("csp1d_scans", "Scans read from the ADC.", state.scans_total)
    yield Counter("csp1d_scans_lost", "Scans missing from the data.", state.scans_lost_total)
    clipped = Counter(
        "csp1d_clipped_samples", "Samples at a limit of the ADC range.", labels=["phase"]
    )
    for phase, count in state.clipped_samples_total.items():
        clipped.add_metric([phase], count)
    yield clipped
    charge = Counter(
        "csp1d_charge_coulombs",
        "RMS current, integrated over the windows of all readings.",
        labels=["phase"],
    )
    for phase, coulombs in state.charge_coulombs_total.items():
        charge.add_metric([phase], coulombs)
    yield charge
    yield Gauge(
        "csp1d_adc_up", "1 while the ADC delivers scans, at least 200 per second.", state.adc_up
    )
    yield Counter("csp1d_adc_reconnects", "ADC re-initialisations.", state.adc_reconnects_total)


def _p1(state: Snapshot) -> Iterator[Metric]:
    counts = state.port
    yield Gauge("csp1d_p1_up", "1 while the P1 port is open.", state.p1_up)
    yield Gauge(
        "csp1d_p1_requested",
        "1 while the request line is high or was within 10 s; absent while it is missing.",
        state.p1_requested,
    )
    yield Counter("csp1d_p1_requests", "Rising edges of the request line.", counts.requests)
    yield Counter("csp1d_telegrams_sent", "Telegrams sent completely.", counts.sent)
    yield Counter(
        "csp1d_telegrams_aborted", "Telegrams aborted, mostly by a falling request.", counts.aborted
    )
    yield Counter("csp1d_telegrams_dropped", "Telegrams not transmitted in time.", counts.dropped)
    latency = Histogram(
        "csp1d_telegram_latency_seconds",
        "Delay of the write after reading end or rising request, whichever is later.",
    )
    cumulative, buckets = 0, []
    limits = [*map(str, LATENCY_BUCKETS_SECONDS), "+Inf"]
    for limit, count in zip(limits, state.latency_counts or [0] * len(limits), strict=True):
        cumulative += count
        buckets.append((limit, cumulative))
    latency.add_metric([], buckets=buckets, sum_value=state.latency_sum_seconds)
    yield latency


def _service(state: Snapshot) -> Iterator[Metric]:
    problem = Gauge(
        "csp1d_problem",
        "1 while a fault lasts; events as in the journal.",
        labels=["event", "device"],
    )
    for labels in sorted({(it.event.event_name, it.device) for it in state.problems}):
        problem.add_metric(labels, 1)
    yield problem
    yield Gauge(
        "csp1d_config_last_reload_successful",
        "0 if the last reload of the configuration was rejected.",
        state.reload_successful,
    )
    yield Gauge(
        "csp1d_config_last_reload_success_timestamp_seconds",
        "Unix time of the start, or of the last successful reload.",
        state.reload_success_timestamp_seconds,
    )
    yield Gauge(
        "csp1d_http_certificate_expiry_timestamp_seconds",
        "Unix time after which the HTTP server's certificate is not valid; absent without TLS.",
        state.certificate_expiry_seconds,
    )


def _by_phase(name: str, text: str) -> Gauge:
    return Gauge(name, text, labels=["phase"])
