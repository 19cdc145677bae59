# SPDX-License-Identifier: Apache-2.0
"""csp1d with the kernel's own ADC driver, and each fault of its chip.

A charge point must never receive a wrong current, so each telegram of a test is compared, also
those around the beginning and the end of a fault.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from guest.board import SECOND, sleep_until, wait_for
from guest.chip import Chip
from guest.hat import Hat

from .conftest import AMPERES, MODEL, RETURN_SECONDS, Stock, discovered, expected

pytestmark = pytest.mark.usefixtures("quiet_line")

# How long a reading that was complete when the fault came may take to the wire.
UNDER_WAY_NS = SECOND // 4
# How many scans the driver and csp1d may hold that it has not counted yet: a tenth of a second.
UNDER_WAY_SCANS = 400
# The time without a lost scan before the first fault.
CALM_SECONDS = 3
# A fault is reported once; it has ended after this time without it.
QUIET_SECONDS = 10


@pytest.fixture(scope="module")
def faulty_board(hat: Hat, chip: Chip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    """One daemon for all faults, as it is in the field."""
    chip.plug(MODEL)
    chip.play(AMPERES[: chip.inputs])
    with Stock.running(hat, tmp_path_factory.mktemp("faults"), discovered()) as stock:
        stock.first_telegram()
        await_calm(stock)
        yield stock
    chip.repair()


def await_calm(stock: Stock) -> None:
    """An emulated machine that has started a process, or waits for its host, loses scans."""
    for _ in range(20):
        lost = stock.daemon.counter("csp1d_scans_lost_total")
        time.sleep(CALM_SECONDS)
        if stock.daemon.counter("csp1d_scans_lost_total") == lost:
            return
    raise AssertionError("the machine loses scans all the time")


@pytest.fixture(scope="module")
def reported() -> set[str]:
    """The events of the faults so far: they are not reported again. That ends when a fault was
    absent for ten seconds, which only long runs wait for.
    """
    return set()


def set_to(name: str, value: int | str) -> Callable[[Chip], None]:
    """A fault: a file of the module."""
    return lambda chip: chip.set(name, value)


def overdrive(chip: Chip) -> None:
    """The bias of an input is lost: it stands beyond the range."""
    chip.play(AMPERES[: chip.inputs])
    rows = chip.nanovolts
    rows[:, 0] += 2_000_000_000
    chip.play_nanovolts(rows)


def recover(chip: Chip) -> None:
    """End the fault."""
    chip.repair()
    chip.play(AMPERES[: chip.inputs])


def test_dropped_pulses_are_lost_scans(faulty_board: Stock, chip: Chip) -> None:
    """Few: counted, and the telegrams go on.  Half a second: no reading, and then they return."""
    stock, daemon = faulty_board, faulty_board.daemon

    def counts() -> tuple[int, int, int]:
        metrics = daemon.metrics()
        lost, scans = (int(metrics[f"csp1d_scans_{kind}"]) for kind in ("lost_total", "total"))
        return lost, scans, chip.conversions

    def is_lost(pulses: int) -> bool:
        """More may be lost while the emulated machine waits for its host: the chip counts them."""
        lost, scans, conversions = (now - then for now, then in zip(counts(), before, strict=True))
        # A few may belong to a loss before.
        return lost >= pulses - 10 and abs(lost + scans - conversions) < UNDER_WAY_SCANS

    for _ in range(3):
        stock.request()
        stock.wait_for_end_of_telegram()
        before = counts()
        chip.set("drop", 60)
        # The count, not the message: losses soon after earlier ones are not logged again.
        wait_for("60 lost", lambda: is_lost(60), 5)
        if counts()[0] - before[0] < 100:
            break  # The machine has not lost as many itself.
        await_calm(stock)
    assert "ADC scans lost" in daemon.log
    stock.wait_for_end_of_telegram()
    times = [telegram.start_ns for telegram in stock.complete()]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.5 * SECOND
    chip.set("drop", 2000)
    dropped_ns = time.monotonic_ns()
    wait_for("all lost", lambda: is_lost(2060), 5)
    stock.wait_for_telegram(RETURN_SECONDS, dropped_ns + SECOND)
    assert {telegram.amperes for telegram in stock.complete()} == {expected(chip.model)}


SILENT = "ADC stalled: present, but not delivering data"
STILL = "all samples are the same, the ADC does not answer"
SATURATED = "input saturated"


@pytest.mark.parametrize(
    ("fault", "event"),
    [
        pytest.param(set_to("powered", 0), SILENT, id="dead chip"),
        pytest.param(set_to("oscillator", 0), SILENT, id="oscillator stopped"),
        pytest.param(set_to("address", 2), STILL, id="wrong address"),
        pytest.param(set_to("miso", "low"), STILL, id="MISO stuck at 0"),
        pytest.param(set_to("miso", "high"), STILL, id="MISO stuck at 1"),
        pytest.param(set_to("vref_uv", 0), SATURATED, id="reference off"),
        pytest.param(overdrive, SATURATED, id="input beyond the range"),
    ],
)
def test_a_fault_is_silence_and_never_a_wrong_current(
    faulty_board: Stock,
    reported: set[str],
    chip: Chip,
    fault: Callable[[Chip], None],
    event: str,
    fault_seconds: float,
) -> None:
    stock, daemon = faulty_board, faulty_board.daemon
    right = expected(chip.model)
    stock.request()
    stock.wait_for_end_of_telegram()
    log = len(daemon.log)

    # Half a second later, so that it comes in the middle of a reading.
    time.sleep(0.45)
    fault(chip)
    fault_ns = time.monotonic_ns()
    sleep_until(fault_ns + 2 * SECOND)
    status = json.loads(urllib.request.urlopen("http://127.0.0.1:19510/status.json").read())
    metrics = daemon.metrics()
    shown = subprocess.run(
        ["python3", "-m", "csp1d.tool.ctl", "--config", str(daemon.config), "status"],
        capture_output=True,
        text=True,
        check=False,
    )
    sleep_until(fault_ns + int(fault_seconds * SECOND))
    end_ns = time.monotonic_ns()
    during = [
        telegram
        for telegram in stock.telegrams()
        if fault_ns + UNDER_WAY_NS < telegram.start_ns < end_ns
    ]
    recover(chip)
    recovered_ns = time.monotonic_ns()
    after = stock.wait_for_telegram(RETURN_SECONDS, recovered_ns)
    stock.wait_for_telegram(3, after.end_ns)

    assert during == []
    assert {telegram.amperes for telegram in stock.complete()} == {right}
    is_reported = event not in reported
    reported.add(event)
    if fault_seconds >= QUIET_SECONDS:
        end = "data again" if event == SILENT else "input OK again"
        daemon.wait_for_log(end, QUIET_SECONDS + 5, after=log)
        reported.clear()
    lines = [line for line in daemon.log[log:].splitlines() if " WARNING " in line]
    # What was lost meanwhile is counted.
    lines = [line for line in lines if "ADC scans lost" not in line]
    assert all(event in line for line in lines), lines
    used = ["L1", "L2", "L3"][: min(3, chip.inputs)]
    failed = used[:1] if fault is overdrive else used
    problems = {(it["event"], it["device"]) for it in status["problems"]}
    if event == SILENT:
        assert len(lines) == is_reported
        assert metrics["csp1d_adc_up"] == 0
        assert metrics['csp1d_problem{device="ADC",event="adc-stalled"}'] == 1
        assert ("adc-stalled", "ADC") in problems
        assert "ADC           not found or not delivering data" in shown.stdout
    else:
        assert len(lines) == len(failed) * is_reported
        assert all(f" {phase}: " in line for phase, line in zip(failed, lines, strict=False))
        assert status["failed_phases"] == failed
        assert {("input-failed", phase) for phase in failed} <= problems
        for phase in used:
            assert metrics[f'csp1d_input_failed{{phase="{phase}"}}'] == (phase in failed)
        assert "input failed: current unknown, no telegrams" in shown.stdout
    assert shown.returncode == 1, "there is a problem"
    assert event in " ".join(shown.stdout.split()), "with the words of the journal"
    assert status["reading"] is None
    assert "no current reading, no telegrams" in shown.stdout
    assert not [name for name in metrics if name.startswith("csp1d_current_amperes")]
