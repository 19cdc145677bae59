# SPDX-License-Identifier: Apache-2.0
"""The active problems: each event that can last is one from its report to its end."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from csp1d.config import Config, HttpConfig, RequestConfig
from csp1d.events import CHAPTERS, ActiveProblem, Event
from csp1d.hat.gpio import GpioLine
from csp1d.hat.iio import find_adc
from csp1d.hat.leds import SysfsLed
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import (
    PlayingAdc,
    SimulatedAdc,
    SimulatedHat,
    SimulatedLed,
    SimulatedLine,
    SimulatedPort,
)
from csp1d.hat.tty import TtyPort
from csp1d.interfaces.http import HttpServer, SocketServer
from csp1d.loop.device_slot import DeviceSlot
from csp1d.loop.indicators import Indicators
from csp1d.loop.reload import Reloads
from csp1d.loop.report import active_problems
from csp1d.loop.sampler import Sampler
from csp1d.loop.sender import Sender
from csp1d.measuring.reading import DirectionReading, PhaseCurrent, Reading
from csp1d.p1.port import Action
from csp1d.phase import Phase

SECOND = 1_000_000_000
GOOD = PhaseCurrent(1.0, 2.0, 0.0, 0)
NOISE = PhaseCurrent(30.0, 60.0, 0.0, 0, is_noise=True)


LED = Config().leds.p1
NOWHERE = Path("/nowhere")
# What opens a device that does not exist, or an address that this machine does not have.
OPENERS: dict[str, Callable[[], object]] = {
    "ADC": lambda: find_adc(Config().adc.device, NOWHERE),
    "P1 port": lambda: TtyPort(str(NOWHERE / "tty")),
    "request line": lambda: GpioLine(RequestConfig(chip=str(NOWHERE / "gpiochip0"))),
    LED: lambda: SysfsLed(LED, NOWHERE),
    "HTTP server": lambda: HttpServer(HttpConfig(listen="192.0.2.1:1"), {}),
}
REMEDY = re.compile(r"\b(accepts|check|find|must be|reduce|report|run|set|swap)\b")


class FaultyHat(SimulatedHat):
    """A HAT whose devices can be broken, with the reasons of the drivers."""

    def __init__(self) -> None:
        super().__init__(parse(""))
        self.broken: set[str] = set()
        self.has_trigger = True

    def check(self, device: str) -> None:
        if device in self.broken:
            OPENERS[device]()

    def open_port(self, config: Config) -> SimulatedPort:
        self.check("P1 port")
        return super().open_port(config)

    def open_request_line(self, config: Config) -> SimulatedLine:
        self.check("request line")
        return super().open_request_line(config)

    def open_led(self, name: str) -> SimulatedLed:
        self.check(name)
        led = super().open_led(name)
        led.light = lambda milliseconds: self.has_trigger  # type: ignore[method-assign]
        return led


class Bench:
    """The parts that have faults, with a clock that stands still between two steps."""

    def __init__(self, folder: Path) -> None:
        self.now_ns = 0
        self.hat, config = FaultyHat(), Config()
        self.adc = self.hat.open_adc(config)
        self.sampler = Sampler(self.hat, config, self.clock)
        self.events = self.sampler._events
        self.sender = Sender(self.hat, config, self.clock)
        self.indicators = Indicators(self.hat, config, self.clock)
        self.http = DeviceSlot[HttpServer](
            "HTTP server", Event.HTTP_LOST, Event.HTTP_FOUND, self.clock
        )
        self.socket = DeviceSlot[SocketServer](
            "HTTP socket", Event.HTTP_LOST, Event.HTTP_FOUND, self.clock
        )
        self.reloads = Reloads()
        self.file = folder / "csp1d.toml"
        self.file.touch()

    def clock(self) -> int:
        return self.now_ns

    def repeat(self, step: Callable[["Bench"], None], seconds: int) -> None:
        """Take a step per second."""
        for _ in range(seconds):
            self.now_ns += SECOND
            step(self)

    @property
    def problems(self) -> tuple[ActiveProblem, ...]:
        parts = (self.sampler, self.sender, self.indicators, self.http, self.reloads)
        return active_problems(*parts, self.socket, self.now_ns)

    def read(
        self,
        phase: PhaseCurrent = GOOD,
        other: PhaseCurrent = GOOD,
        lost: int = 0,
        clock_fault: str | None = None,
        direction: DirectionReading | None = None,
    ) -> None:
        """A reading with the currents of L2 and L1."""
        phases = {Phase.L1: other, Phase.L2: phase}
        reading = Reading(1, self.now_ns, 1.0, phases, 50.0, 4000, 0, direction)
        self.events.on_readings([reading], lost, clock_fault, self.now_ns)

    def find(self, slot: DeviceSlot[Any], broken: str) -> None:
        def opener() -> PlayingAdc | SimulatedAdc:
            self.hat.check(broken)
            return self.adc

        slot.ensure_open(opener)


Step = Callable[[Bench], None]


def breaks(device: str, search: Step) -> tuple[Step, Step]:
    """The device is broken, then repaired."""

    def begin(bench: Bench) -> None:
        bench.hat.broken.add(device)
        search(bench)

    def end(bench: Bench) -> None:
        bench.hat.broken.clear()
        search(bench)

    return begin, end


def loses(name: str, search: Step) -> tuple[Step, Step]:
    """The device of the sender that has this name is lost, then found."""
    break_it, repair = breaks(name, search)

    def begin(bench: Bench) -> None:
        slot = bench.sender.port if name == "P1 port" else bench.sender.line
        slot.close()
        break_it(bench)

    return begin, repair


def sets_up(rate_fault: str | None = None, doubts: tuple[str, ...] = ()) -> Step:
    def step(bench: Bench) -> None:
        bench.adc.rate_fault = rate_fault
        bench.events.on_set_up(bench.adc, doubts, bench.now_ns)

    return step


def counted(name: str, times: int = 1) -> Step:
    """The port counts a telegram of this kind: dropped, aborted or sent."""

    def step(bench: Bench) -> None:
        def event(now_ns: int, waiting: int) -> list[Action]:
            counts = bench.sender.counts
            setattr(counts, name, getattr(counts, name) + 1)
            return []

        for _ in range(times):
            bench.sender._dispatch(event)

    return step


dropped, aborted, sent = counted("dropped"), counted("aborted", 10), counted("sent")


def lights(has_trigger: bool) -> Step:
    def step(bench: Bench) -> None:
        bench.hat.has_trigger = has_trigger
        bench.indicators.on_reading(20.0)

    return step


def reloads(text: str) -> Step:
    def step(bench: Bench) -> None:
        bench.file.write_text(text)
        bench.reloads.read_again(bench.file)

    return step


def doubts(text: str) -> Step:
    def step(bench: Bench) -> None:
        bench.file.write_text(text)
        bench.reloads.log_doubts(bench.file)

    return step


def noisy(bench: Bench) -> None:
    for _ in range(5):
        bench.read(NOISE, other=NOISE)


def good(bench: Bench) -> None:
    bench.read()


UNKNOWN = DirectionReading(None, frozenset(), "the reference has 0.1 V", None)
ADVISED = DirectionReading({}, frozenset(), "", "swap L1 and L2")
KNOWN = DirectionReading({}, frozenset(), "", "")
REFUSED = "ADC rejects adc.sampling_frequency_hz = 4000; available: 3906"

# By event that can last: the device, a step per second that makes it begin, and one that ends it.
STORIES: dict[Event, tuple[str, Step, Step]] = {
    Event.CONFIGURATION_REJECTED: (
        "configuration",
        reloads("[p1]\ninterval_seconds = 0\n"),
        reloads(""),
    ),
    Event.CONFIGURATION_DOUBTFUL: (
        "configuration",
        doubts('[direction]\nreference = "voltage"\n'),
        doubts(""),
    ),
    Event.ADC_LOST: (
        "ADC",
        *breaks("ADC", lambda bench: bench.find(bench.sampler._adc, "ADC")),
    ),
    Event.ADC_STALLED: (
        "ADC",
        lambda bench: bench.events.on_stall(bench.now_ns),
        lambda bench: bench.events.on_data(bench.now_ns),
    ),
    Event.ADC_SLOW: ("ADC", lambda bench: bench.events.on_silence(99.0, 0, bench.now_ns), good),
    Event.ADC_CLOCK: (
        "ADC",
        lambda bench: bench.read(clock_fault="not used because they jump"),
        good,
    ),
    Event.ADC_RATE_REFUSED: ("ADC", sets_up(rate_fault=REFUSED), sets_up()),
    Event.ADC_RATE_DOUBTFUL: (
        "ADC",
        lambda bench: bench.events.on_measured_rate(1000.0, True, bench.now_ns),
        lambda bench: bench.events.on_measured_rate(1010.0, False, bench.now_ns),
    ),
    Event.ADC_SCALE_DOUBTFUL: ("ADC", sets_up(doubts=("3 A only; set burden_ohms",)), sets_up()),
    Event.SCANS_LOST: ("ADC", lambda bench: bench.read(lost=5), good),
    Event.READINGS_LOST: (
        "ADC",
        lambda bench: bench.events.on_silence(None, 3, bench.now_ns),
        good,
    ),
    Event.CLIPPING: ("L2", lambda bench: bench.read(replace(GOOD, clipped_samples=3)), good),
    Event.INPUT_FAILED: ("L2", lambda bench: bench.read(replace(GOOD, at_rail=True)), good),
    Event.CURRENTS_DOUBTFUL: ("ADC", noisy, good),
    Event.REFERENCE_LOST: (
        "reference",
        lambda bench: bench.read(direction=UNKNOWN),
        lambda bench: bench.read(direction=KNOWN),
    ),
    Event.WIRING_DOUBTFUL: (
        "wiring",
        lambda bench: bench.read(direction=ADVISED),
        lambda bench: bench.read(direction=KNOWN),
    ),
    Event.P1_PORT_LOST: ("P1 port", *loses("P1 port", lambda b: b.sender.reopen_missing())),
    Event.TELEGRAM_DROPPED: ("P1 port", dropped, sent),
    Event.TELEGRAMS_ABORTED: ("P1 port", aborted, sent),
    Event.REQUEST_LINE_LOST: (
        "request line",
        *loses("request line", lambda b: b.sender.reopen_missing()),
    ),
    Event.LED_LOST: (
        f"LED {LED}",
        *breaks(LED, lambda b: b.indicators.reopen_missing(again=LED in b.hat.broken)),
    ),
    Event.LED_TRIGGER_LOST: (f"LED {Config().leds.current}", lights(False), lights(True)),
    Event.HTTP_LOST: (
        "HTTP server",
        *breaks("HTTP server", lambda bench: bench.find(bench.http, "HTTP server")),
    ),
}


@pytest.fixture
def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Bench]:
    caplog.set_level(logging.INFO)
    made = Bench(tmp_path)
    made.sender.reopen_missing()
    assert made.problems == ()
    yield made
    made.sender.close()


def test_the_table_says_of_each_event_whether_it_can_last() -> None:
    assert list(CHAPTERS) == list(Event)
    lasting = {event for event, chapter in CHAPTERS.items() if chapter}
    assert lasting == set(STORIES)
    # A message for the operator is a problem unless it is over when it is logged.
    only_occur = {event for event in Event if event.level >= logging.WARNING} - lasting
    assert only_occur == {Event.INTERNAL_ERROR, Event.P1_PORT_CANNOT_FLUSH}


def test_each_chapter_is_one_of_the_handbook() -> None:
    page = (Path(__file__).parents[2] / "docs/troubleshoot.md").read_text()
    titles = re.findall(r"^##+ (.*)$", page, re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    assert {chapter for chapter in CHAPTERS.values() if chapter} <= anchors


@pytest.mark.parametrize("event", STORIES, ids=lambda event: event.event_name)
def test_an_event_that_lasts_is_a_problem_until_it_ends(
    event: Event, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    device, begin, end = STORIES[event]
    bench.repeat(begin, 12)
    (problem,) = bench.problems
    assert (problem.event, problem.device) == (event, device)
    logged = {
        record.message
        for record in caplog.records
        if event.message_id == record.__dict__["MESSAGE_ID"]
    }
    assert logged == {problem.reason}, "the journal's own words"
    assert REMEDY.search(problem.reason)
    if device != "configuration":
        assert problem.since_ns == SECOND
    bench.repeat(end, 12)
    assert bench.problems == ()


def test_while_the_adc_is_missing_nothing_else_is_known_of_it(bench: Bench) -> None:
    bench.repeat(STORIES[Event.INPUT_FAILED][1], 3)
    bench.repeat(sets_up(doubts=("3 A only",)), 1)
    bench.repeat(STORIES[Event.ADC_LOST][1], 4)
    assert [problem.event for problem in bench.problems] == [Event.ADC_LOST]


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [
        # After a stall its scans are lost, and so they are where each second loses too many.
        (Event.ADC_STALLED, Event.SCANS_LOST),
        (Event.READINGS_LOST, Event.SCANS_LOST),
        # An input that fails within a second is overloaded for the rest of it.
        (Event.INPUT_FAILED, Event.CLIPPING),
    ],
)
def test_a_consequence_of_a_problem_is_no_other_problem(
    cause: Event, consequence: Event, bench: Bench
) -> None:
    bench.repeat(STORIES[consequence][1], 1)
    assert [problem.event for problem in bench.problems] == [consequence]
    STORIES[cause][1](bench)
    bench.repeat(STORIES[consequence][1], 2)
    while problems := bench.problems:
        assert [problem.event for problem in problems] == [cause]
        bench.repeat(good, 1)
    # But not if it goes on.
    STORIES[cause][1](bench)
    bench.repeat(STORIES[consequence][1], 3)
    assert consequence in [problem.event for problem in bench.problems]


@pytest.mark.parametrize(
    "event",
    [
        *(Event.INPUT_FAILED, Event.CLIPPING, Event.WIRING_DOUBTFUL),
        *(Event.TELEGRAM_DROPPED, Event.TELEGRAMS_ABORTED),
    ],
)
def test_what_is_not_observed_any_more_is_no_problem(event: Event, bench: Bench) -> None:
    bench.repeat(STORIES[event][1], 3)
    assert [problem.event for problem in bench.problems] == [event]
    # As while the ADC stalls, or no telegram is requested.
    bench.repeat(lambda bench: None, 12)
    assert not bench.problems
    bench.repeat(STORIES[event][1], 1)
    assert [problem.event for problem in bench.problems] == [event]


def test_a_new_configuration_ends_the_problems_that_it_does_not_have(bench: Bench) -> None:
    bench.repeat(STORIES[Event.REFERENCE_LOST][1], 3)
    bench.repeat(STORIES[Event.INPUT_FAILED][1], 3)
    assert {problem.event for problem in bench.problems} == {
        Event.REFERENCE_LOST,
        Event.INPUT_FAILED,
    }
    bench.events.reset()
    assert bench.problems == ()


def test_each_doubt_is_a_problem_and_the_reasons_of_a_rejection_are_limited(bench: Bench) -> None:
    bench.repeat(sets_up(doubts=("L1 is small", "L2 is small")), 2)
    assert [problem.reason for problem in bench.problems] == ["L1 is small", "L2 is small"]
    bench.repeat(sets_up(doubts=("L2 is small",)), 1)
    assert [problem.reason for problem in bench.problems] == ["L2 is small"]
    bench.repeat(sets_up(), 1)
    assert bench.problems == ()
    bench.repeat(reloads("".join(f"key{n} = 1\n" for n in range(50))), 1)
    assert len(bench.problems) == 8
