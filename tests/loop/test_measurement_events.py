# SPDX-License-Identifier: Apache-2.0
"""What is logged of a measurement with faults."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest

from csp1d.config import Config
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.loop.measurement_events import MeasurementEvents
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.measuring.scan import ScanFormat
from csp1d.phase import Phase

SECOND = 1_000_000_000


def reading(clipped: dict[Phase, int], end_ns: int) -> Reading:
    # More than half of a second's samples at one end make a saturated input.
    phases = {
        phase: PhaseCurrent(1, 2, 0, count, count > 2000)
        for phase in Phase
        for count in [clipped.get(phase, 0)]
    }
    return Reading(1, end_ns, 1.0, phases, 50.0, 4000, 0)


Step = Callable[[MeasurementEvents, int], None]


def fed(lost: int = 0, clock: str | None = None, **clipped: int) -> Step:
    """A second's reading."""
    samples_by_phase = {Phase(phase): samples for phase, samples in clipped.items()}
    return lambda events, now_ns: events.on_readings(
        [reading(samples_by_phase, now_ns)], lost, clock, now_ns
    )


def late(seconds: float) -> Step:
    """A reading that is this old when it arrives."""
    return lambda events, now_ns: events.on_readings(
        [reading({}, now_ns - int(seconds * SECOND))], 0, None, now_ns
    )


def at_rate(fault: str | None) -> Step:
    return lambda events, now_ns: events.on_rate(fault, now_ns)


def measured(hertz: float, folds: bool) -> Step:
    return lambda events, now_ns: events.on_measured_rate(hertz, folds, now_ns)


def without(slow_hertz: float | None = None, lossy_windows: int = 0) -> Step:
    """A second's scans that make no reading."""

    def step(events: MeasurementEvents, now_ns: int) -> None:
        events.on_readings([], 0, None, now_ns)
        events.on_silence(slow_hertz, lossy_windows, now_ns)

    return step


def directed(fault: str = "", advice: str | None = None) -> Step:
    """A second's reading with direction on."""
    direction = DirectionReading(None if fault else {}, frozenset(), fault, advice)
    return lambda events, now_ns: events.on_readings(
        [replace(reading({}, now_ns), direction=direction)], 0, None, now_ns
    )


def noisy(*phases: Phase) -> Step:
    """A second's reading whose currents are noise on these phases."""

    def step(events: MeasurementEvents, now_ns: int) -> None:
        made = reading({}, now_ns)
        currents = {p: replace(c, is_noise=p in phases) for p, c in made.phases.items()}
        events.on_readings([replace(made, phases=currents)], 0, None, now_ns)

    return step


L1, L2, L3 = Phase


def no_reading(lost: int = 0) -> Step:
    return lambda events, now_ns: events.on_readings([], lost, None, now_ns)


def silent(events: MeasurementEvents, now_ns: int) -> None:
    events.on_stall(now_ns)


def heard(events: MeasurementEvents, now_ns: int) -> None:
    events.on_data(now_ns)


# What is observed, one step per second, and what is logged.
STORIES: dict[str, tuple[list[Step], list[str]]] = {
    "all is well": ([heard, fed()] * 20, []),
    "a backlog after a pause": ([late(3), late(2), fed()], []),
    "scans come too late": (
        [*[late(1.2)] * 20, *[fed()] * 20],
        ["adc-clock", "adc-clock-good"],
    ),
    "the device says a wrong rate": (
        [*[at_rate("says 1, gives 2"), at_rate("says 1, gives 3")] * 5, at_rate(None)],
        ["adc-rate-refused", "adc-rate-taken"],
    ),
    "the rate folds harmonics, then not": (
        [*[measured(1000 + n, True) for n in range(9)], *[measured(860, False)] * 20],
        ["adc-rate-doubtful", "adc-rate-plausible"],
    ),
    "the rate is at the edge": (
        [*[measured(1004.9, True), measured(1005.1, False)] * 20],
        ["adc-rate-doubtful"],
    ),
    "an input fails": (
        [fed(), *[fed(L2=4000)] * 5, *[fed()] * 20],
        ["input-failed L2", "input-good L2"],
    ),
    "scans are lost once": (
        [fed(), fed(lost=117), *[fed()] * 20],
        ["scans-lost 117", "scans-complete 117"],
    ),
    "scans are lost for a minute": (
        [fed(lost=5), fed()] * 30 + [fed()] * 20,
        ["scans-lost 5", "scans-complete 150"],
    ),
    "too many are lost for a reading": (
        [no_reading(lost=400)] + [no_reading()] * 30 + [fed()],
        ["scans-lost 400", "scans-complete 400"],
    ),
    "only readings end a loss": (
        [no_reading(lost=400)] + [no_reading()] * 30,
        ["scans-lost 400"],
    ),
    "the ADC is too slow, then fast enough": (
        [*[without(slow_hertz=99.7 + n / 10) for n in range(9)], *[without()] * 3, *[fed()] * 3],
        ["adc-slow", "adc-fast-enough"],
    ),
    "each second loses too many scans": (
        [*[without(lossy_windows=n) for n in range(1, 9)], *[fed()] * 20],
        ["readings-lost", "readings-found"],
    ),
    "a second now and then loses too many scans": (
        [without(lossy_windows=1), without(lossy_windows=2), *[fed()] * 3] * 9,
        [],
    ),
    "two phases clip": (
        [fed(L1=3), fed(L1=4), fed(L2=1), *[fed()] * 8, fed(), fed()],
        ["clipping L1 3", "clipping L2 1", "clipping-ended L1 7", "clipping-ended L2 1"],
    ),
    "the ADC stalls, now and then": (
        [heard, silent, silent, heard, silent, *[heard] * 12],
        ["adc-stalled", "adc-resumed"],
    ),
    "the reference vanishes, with other figures each time": (
        [directed(), *[directed(f"it has 0.{n} V") for n in range(30)], *[directed()] * 12],
        ["reference-lost", "reference-found"],
    ),
    "the reference comes and goes": (
        [directed("weak"), directed()] * 10 + [directed()] * 12,
        ["reference-lost", "reference-found"],
    ),
    "the wiring is doubtful until it matches": (
        [directed(), *[directed(advice="swap")] * 20, directed(), *[directed(advice="")] * 5],
        ["wiring-doubtful", "wiring-fits"],
    ),
    "another advice is logged, a repeated one is not": (
        [directed(advice=advice) for advice in ("swap", "turn", "swap", "turn")],
        ["wiring-doubtful", "wiring-doubtful"],
    ),
    "the wiring fits": ([directed(advice=None), *[directed(advice="")] * 20], []),
    "the currents of two phases are noise": (
        [*[noisy(L1, L3)] * 30, fed(), *[noisy(L1, L3)] * 9, *[fed()] * 12],
        ["currents-doubtful L1, L3", "currents-plausible"],
    ),
    "noise of one phase, and of several for a moment": (
        [*[noisy(L2)] * 30, *[*[noisy(L1, L2, L3)] * 4, fed()] * 9, no_reading(), *[fed()] * 12],
        [],
    ),
    "time stamps are bad": (
        [fed(clock="they go back"), fed(clock="they jump"), *[fed()] * 10],
        ["adc-clock", "adc-clock-good"],
    ),
}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Names of events, with what they count or name."""
    figures = ("CSP1D_PHASE", "CSP1D_CLIPPED_SAMPLES", "CSP1D_SCANS_LOST")
    return [
        " ".join(record.__dict__[key] for key in ("CSP1D_EVENT", *figures) if hasattr(record, key))
        for record in caplog.records
    ]


@pytest.mark.parametrize("story", STORIES)
def test_each_fault_is_logged_once_and_its_end_once(
    story: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    steps, expected = STORIES[story]
    events = MeasurementEvents()
    for second, step in enumerate(steps):
        step(events, second * SECOND)
    assert logged(caplog) == expected


def test_what_is_logged_of_the_direction_has_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    events = MeasurementEvents()
    directed("the reference has 0.1 V, less than")(events, 0)
    directed(advice="swap them")(events, SECOND)
    # After a new configuration, faults are reported again.
    events.reset()
    directed("the ADC has no input 'x'", "swap them")(events, 2 * SECOND)
    unknown = "direction unknown, all current counts as import"
    check = "check the plug of the reference, and input and minimum under [direction]"
    assert caplog.messages == [
        f"{unknown}: the reference has 0.1 V, less than; {check}",
        "wiring: swap them",
        f"{unknown}: the ADC has no input 'x'; {check}",
        "wiring: swap them",
    ]
    reasons = [record.__dict__["CSP1D_REASON"] for record in caplog.records]
    assert reasons[:2] == ["the reference has 0.1 V, less than", "swap them"]


def test_the_faults_of_a_set_up_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    adc = SimulatedHat(parse("")).open_adc(Config())
    events = MeasurementEvents()
    events.on_set_up(adc, [], 0)
    stamped, adc.rate_fault = adc.format, "4000 is refused; available: 3906"
    adc.format = ScanFormat(stamped.sampling_frequency_hz, stamped.channels, None)
    for _ in range(5):
        events.on_set_up(adc, [], 0)
    assert logged(caplog) == ["adc-unstamped", "adc-rate-refused"]
    assert caplog.messages[1].startswith("4000 is refused; available: 3906; measuring at")
    events.reset()
    events.on_set_up(adc, [], 0)
    adc.rate_fault = None
    events.on_set_up(adc, [], 0)
    assert logged(caplog)[2:] == ["adc-rate-refused", "adc-rate-taken"]


def test_the_message_on_noise_names_phases_and_keys(caplog: pytest.LogCaptureFixture) -> None:
    events = MeasurementEvents()
    for second in range(5):
        assert caplog.messages == []
        noisy(L1, L2, L3)(events, second * SECOND)
    assert caplog.messages == [
        "L1, L2, L3: the currents may be wrong: they are large, and without the waveform of the"
        " mains; check type (byte order) and input of these channels"
    ]


def test_each_doubt_about_the_scale_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    adc = SimulatedHat(parse("")).open_adc(Config())
    events = MeasurementEvents()
    adc.scale_doubts = ("0.000012 is coarse",)
    for _ in range(3):
        events.on_set_up(adc, ["L1 overloads above 3 A", "L2 overloads above 3 A"], 0)
    assert caplog.messages == [
        "0.000012 is coarse",
        "L1 overloads above 3 A",
        "L2 overloads above 3 A",
    ]
    assert logged(caplog) == ["adc-scale-doubtful"] * 3
    adc.scale_doubts = ()
    for _ in range(2):
        events.on_set_up(adc, [], 0)
    assert logged(caplog)[3:] == ["adc-scale-plausible"]


def test_an_adc_that_does_not_answer_is_logged_for_each_phase(
    caplog: pytest.LogCaptureFixture,
) -> None:
    still = {phase: PhaseCurrent(0.0, 0.0, 0.0, 0, is_still=True) for phase in Phase}
    events = MeasurementEvents()
    for second in range(3):
        events.on_readings([replace(reading({}, second * SECOND), phases=still)], 0, None, 0)
    assert logged(caplog) == [f"input-failed {phase}" for phase in Phase]
    assert (
        "L3: all samples are the same, the ADC does not answer: current unknown, no tele"
        in (caplog.messages[2])
    )


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (at_rate("says 1, gives 2"), "adc-rate-refused"),
        (measured(1000, True), "adc-rate-doubtful"),
        (fed(clock="they go back"), "adc-clock"),
        (directed("weak"), "reference-lost"),
        (directed(advice="swap"), "wiring-doubtful"),
    ],
)
def test_after_a_new_configuration_a_fault_is_logged_again(
    step: Step, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    events = MeasurementEvents()
    step(events, 0)
    step(events, SECOND)
    assert logged(caplog) == [name]
    events.reset()
    step(events, 2 * SECOND)
    step(events, 3 * SECOND)
    assert logged(caplog) == [name] * 2
