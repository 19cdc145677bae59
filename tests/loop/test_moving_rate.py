# SPDX-License-Identifier: Apache-2.0
"""The sampler with an ADC that reports a wrong rate or changes its rate.

The test provides the clock. The current rises by 2 A per second and so shows the time of a reading.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from signals import codes_of, hat_format, pack

from csp1d.config import AdcConfig, Config, MeasurementConfig
from csp1d.hat.device import Adc
from csp1d.loop.sampler import Sampler
from csp1d.measuring.observations import Timestamps
from csp1d.measuring.reading import Reading
from csp1d.measuring.scan import ScanFormat
from csp1d.phase import Phase

BEGIN_NS = 1_000_000_000_000
SECOND_NS = 1_000_000_000
HERTZ = 50.02


def amperes_at(seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 5 + 2 * seconds


@dataclass
class Run:
    """A sampler, the scans of its ADC, and the readings made from them."""

    times: npt.NDArray[np.float64]
    format: ScanFormat
    now_ns: int = BEGIN_NS
    turns: int = 0
    readings: list[tuple[float, Reading]] = field(default_factory=list)
    buffers: list[float] = field(default_factory=list)
    """The rates for which the buffer was sized."""

    def __post_init__(self) -> None:
        self.stamps = BEGIN_NS + np.rint(self.times * 1e9).astype(np.int64)
        wave = np.sqrt(2) * amperes_at(self.times) * np.sin(2 * np.pi * HERTZ * self.times)
        self.codes = codes_of(wave)
        self.sampler = Sampler(self, Config(), lambda: self.now_ns)  # type: ignore[arg-type]

    def open_adc(self, config: Config) -> Adc:
        """Open an ADC whose buffer begins to fill now."""
        return RunningAdc(self)

    def play(self, seconds: float) -> "Run":
        while self.now_ns < BEGIN_NS + seconds * SECOND_NS:
            self.now_ns = max(self.now_ns + 1000, self.sampler.wake_ns)
            for reading in self.sampler.poll(self.now_ns):
                self.readings.append(((self.now_ns - BEGIN_NS) / SECOND_NS, reading))
            self.turns += 1
        return self

    def pauses(self) -> Iterator[float]:
        at = [0.0, *(seconds for seconds, _ in self.readings)]
        return (after - before for before, after in pairwise(at))


class RunningAdc:
    rate_fault: str | None = None
    scale_doubts: tuple[str, ...] = ()
    reference_fault = ""
    in_blocks = False

    def __init__(self, run: Run) -> None:
        self.format = run.format
        self.run = run
        self.resize(4000)

    def resize(self, hertz: float) -> None:
        """The buffer holds four seconds at this rate, or more as the kernel's kfifo does."""
        self.buffer_hertz = hertz
        self._length = 1 << (int(4 * hertz) - 1).bit_length()
        self.run.buffers.append(hertz)
        self._next = self._there()

    def fileno(self) -> int:
        raise NotImplementedError

    def read(self) -> bytes:
        first, self._next = self._next, self._there()
        # A full buffer drops new scans.
        part = slice(first, min(self._next, first + self._length))
        stamps = self.run.stamps[part] if self.format.timestamp else None
        return pack(self.format, [self.run.codes[part]] * 3, stamps) if part.stop > first else b""

    def close(self) -> None:
        pass

    def _there(self) -> int:
        return int(self.run.stamps.searchsorted(self.run.now_ns - 200_000, side="right"))


def check(run: Run) -> None:
    """Check that each reading is from the time that it claims. While the clock is learnt, it may be
    from a later time, which makes it look older."""
    for now, reading in run.readings:
        end = (reading.end_ns - BEGIN_NS) / SECOND_NS
        assert end <= now
        claimed = 5 + 2 * (end - reading.window_seconds / 2)
        assert -0.15 < reading.amperes(Phase.L1) - claimed < 0.9


@pytest.mark.parametrize("timestamp", [True, False])
@pytest.mark.parametrize("rate", [2000, 2500, 3000, 3200, 3500, 8000])
def test_an_adc_that_changes_its_rate_is_measured_again(rate: int, timestamp: bool) -> None:
    times = np.concatenate([np.arange(0, 8, 1 / 4000), np.arange(8, 20, 1 / rate)])
    run = Run(times, hat_format(timestamp=timestamp)).play(19.9)
    check(run)
    assert max(run.pauses()) < 5
    assert len(run.readings) >= 14
    assert run.turns < 20 * 15
    # Only the scans that seem lost until the rate is known.
    assert run.sampler.lost_scans_total < 5000


@pytest.mark.parametrize("seconds", [0.4, 0.6, 0.8])
@pytest.mark.parametrize("at", [0.8, 0.9])
def test_a_gap_while_the_rate_is_learnt_ages_no_reading(at: float, seconds: float) -> None:
    times = np.arange(9 * 4000) / 4000
    times = times[(times < at) | (times >= at + seconds)]
    run = Run(times, hat_format(timestamp=False)).play(8.9)
    check(run)
    assert len(run.readings) >= 3


def test_pauses_of_the_reads_are_no_fault_of_the_stamps() -> None:
    """The daemon is stopped repeatedly, for longer than the buffer holds scans."""
    timestamps, newest_ns = Timestamps(), BEGIN_NS
    now_ns = BEGIN_NS
    for number in range(40):
        pause_ns = (1, 6, 1, 7, 5, 1)[number % 6] * SECOND_NS
        kept_ns = min(pause_ns, 4 * SECOND_NS)
        # The oldest scans are kept, the newest dropped.
        stamps = now_ns + np.arange(250_000, kept_ns + 1, 250_000)
        now_ns += pause_ns
        assert timestamps.check(stamps, now_ns, now_ns, True) == (len(stamps), "")
        newest_ns = int(stamps[-1])
    assert now_ns - newest_ns < 4 * SECOND_NS


@pytest.mark.parametrize("timestamp", [True, False])
@pytest.mark.parametrize("reported", [20_000.0, 100_000.0, 1e6])
def test_a_reported_rate_that_is_too_high_delays_nothing(reported: float, timestamp: bool) -> None:
    run = Run(np.arange(8 * 4000) / 4000, hat_format(said_rate=reported, timestamp=timestamp)).play(
        7.9
    )
    check(run)
    assert run.readings[0][0] < 2.7
    assert len(run.readings) >= 5


@pytest.mark.parametrize("timestamp", [True, False])
@pytest.mark.parametrize("rate", [250, 1000, 16_000, 40_000, 100_000])
def test_a_buffer_that_does_not_fit_the_measured_rate_is_resized_once(
    rate: int, timestamp: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """At 16 kS/s it holds one second, at more it is full before the daemon reads it."""
    caplog.set_level(logging.INFO)
    said_rate = 0 if timestamp else 4000
    run = Run(np.arange(12 * rate) / rate, hat_format(said_rate=said_rate, timestamp=timestamp))
    run.play(11.95)
    check(run)
    assert run.buffers == [4000, pytest.approx(rate, rel=1e-3)]
    told = [text for text in caplog.messages if "its buffer" in text]
    assert told == [
        f"ADC delivers {rate} scans per second: its buffer was for 4000, setting it for this rate"
    ]
    # With timestamps and all scans, nothing shows; else it costs the readings of two seconds.
    is_seamless = timestamp and rate <= 16_000
    assert run.readings[0][0] < (1.05 if is_seamless else 3.1)
    assert max(list(run.pauses())[1:]) < (1.05 if timestamp else 2.05)
    assert len(run.readings) >= (11 if is_seamless else 8)
    # Each is reported once.
    assert len(set(caplog.messages)) == len(caplog.messages)


@pytest.mark.parametrize("rate", [3300, 4800, 7000])
def test_a_buffer_that_fits_roughly_is_left_and_a_moving_rate_soon_has_one(rate: int) -> None:
    run = Run(np.arange(5 * rate) / rate, hat_format(said_rate=0)).play(4.9)
    fitting = [4000, 7000] if rate == 7000 else [4000]
    assert [round(hertz) for hertz in run.buffers] == fitting
    times = np.concatenate([np.arange(n, n + 5, 1 / (rate, 4000)[n // 5 % 2]) for n in (0, 5, 10)])
    run = Run(times, hat_format(said_rate=0)).play(14.9)
    assert len(run.buffers) <= 2


def test_an_adc_that_cannot_be_restarted_with_another_buffer_is_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resize = RunningAdc.resize

    def gone(adc: RunningAdc, hertz: float) -> None:
        resize(adc, hertz)
        if len(adc.run.buffers) == 2:
            raise OSError(19, "No such device")

    monkeypatch.setattr(RunningAdc, "resize", gone)
    run = Run(np.arange(12 * 16_000) / 16_000, hat_format(said_rate=0)).play(11.95)
    check(run)
    assert [round(hertz) for hertz in run.buffers] == [4000, 16_000, 4000, 16_000]
    assert len(run.readings) >= 9


@pytest.mark.parametrize(
    ("rate", "configured", "nominal", "is_told"),
    [
        (1000, 4000, 50, True),
        # The configuration is doubted itself, or a drop-in has confirmed it.
        (1000, 1001, 50, False),
        (860, 4000, 50, False),
        (1200, 4000, 60, True),
        (1000, 4000, 60, False),
    ],
)
def test_a_measured_rate_that_folds_harmonics_is_reported_unless_it_is_the_configured_one(
    rate: int, configured: float, nominal: Any, is_told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(np.arange(5 * rate) / rate, hat_format(said_rate=0))
    config = Config(
        adc=AdcConfig(sampling_frequency_hz=configured),
        measurement=MeasurementConfig(nominal_frequency_hz=nominal),
    )
    run.sampler.configure(config)
    run.play(4.9)
    assert len(run.readings) >= 4
    told = [text for text in caplog.messages if "fold" in text]
    assert len(told) == is_told
    assert all(
        text.startswith(
            f"ADC: {rate} scans per second is a multiple of the mains frequency: harmonics of a"
            " load fold onto the mains, and currents may be wrong by percents; set another rate"
        )
        for text in told
    )
