# SPDX-License-Identifier: Apache-2.0
"""csp1d with the kernel's own ADC drivers: from `csp1ctl discover` to telegrams, again after the
driver was rebound, the reference HAT's drop-in, and each fault of a chip.

A charge point must never receive a wrong current, so each telegram of a test is compared, also
those around the beginning and the end of a fault.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from guest.board import SECOND, sleep_until, wait_for
from guest.chip import Chip, StaticAdc
from guest.hat import TTY, Hat

from .conftest import AMPERES, KEPT, MODELS, NEW_KERNEL, Stock, discovered, expected

pytestmark = pytest.mark.usefixtures("quiet_line")

HAT_DROP_IN = Path("/csp1d/overlays/csp1-hat.toml")
# How long a reading that was complete when the fault came may take to the wire.
UNDER_WAY_NS = SECOND // 4
RETURN_SECONDS = 5
# The last one is the board of most tests.
MODEL = MODELS[0]


@pytest.mark.parametrize("model", MODELS)
def test_discovered_when_fresh_and_after_a_run(
    hat: Hat, chip: Chip, tmp_path: Path, model: str
) -> None:
    """The driver does not attach its trigger; after a run it is attached."""
    chip.plug(model)
    chip.play(AMPERES[: chip.inputs])
    fresh = discovered()
    with Stock.running(hat, tmp_path / "fresh", fresh) as stock:
        assert stock.first_telegram() == expected(model)
    used = discovered()
    for text in (fresh, used):
        found = tomllib.loads(text)
        assert found["adc"]["device"] == "csp1-hat-adc"
        assert found["adc"]["trigger"] == chip.trigger
        assert found["p1"]["device"] == TTY
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{model}-fresh.toml").write_text(fresh)
    (KEPT / f"{model}-used.toml").write_text(used)
    chip.bind(chip.unbind())
    assert chip.attribute("trigger/current_trigger") == ""
    with Stock.running(hat, tmp_path / "used", used) as stock:
        assert stock.first_telegram() == expected(model)
        # Rebound while csp1d measures: at once, when it still holds the old device, and later.
        for pause in (0.0, 2.0):
            log = len(stock.daemon.log)
            device = chip.unbind()
            time.sleep(pause)
            chip.bind(device)
            bound_ns = time.monotonic_ns()
            stock.daemon.wait_for_log("ADC.*available again", RETURN_SECONDS, after=log)
            telegram = stock.wait_for_telegram(RETURN_SECONDS, bound_ns)
            assert telegram.start_ns < bound_ns + RETURN_SECONDS * SECOND
        assert {telegram.amperes for telegram in stock.complete()} == {expected(model)}


def test_the_reference_hats_drop_in(hat: Hat, chip: Chip, tmp_path: Path) -> None:
    """overlays/csp1-hat.toml as it is: 8 ohm, an inverted request line, names made by udev.

    On Linux 6.1, where no driver knows the MCP3912, its first two channels on an MCP3911.
    """
    chip.plug(MODEL)
    chip.play(AMPERES[: chip.inputs], millivolts_per_ampere=4.0)
    names = Path("/dev/csp1d")
    names.mkdir(exist_ok=True)
    for name, target in (("p1", Path(TTY)), ("request", hat.line.chip)):
        (names / name).unlink(missing_ok=True)
        (names / name).symlink_to(target)
    text = HAT_DROP_IN.read_text()
    if MODEL == "mcp3911":
        assert 'trigger = "mcp3912-dev0"' in text
        text = text.replace("mcp3912-dev0", "mcp3911-dev0")
        text = text.replace('input = "voltage2"', 'input = ""')
    hat.line.set(True)  # Inverted: no request.
    try:
        with Stock.running(hat, tmp_path, text) as stock:
            assert stock.first_telegram(active_level=False) == expected(MODEL)
            amperes = [
                stock.daemon.metric(f'csp1d_current_amperes{{phase="{phase}"}}')
                for phase in ("L1", "L2", "L3")[: min(3, chip.inputs)]
            ]
            assert amperes == pytest.approx(AMPERES[: len(amperes)], abs=0.002)
            hertz = stock.daemon.metric("csp1d_mains_frequency_hertz")
            assert hertz == pytest.approx(50, abs=0.002)
            hat.line.set(True)
    finally:
        hat.line.set(False)
        shutil.rmtree(names)


# ---- faults ----


@pytest.fixture(scope="module")
def faulty_board(hat: Hat, chip: Chip, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    """One daemon for all faults, as it is in the field."""
    chip.plug(MODEL)
    chip.play(AMPERES[: chip.inputs])
    with Stock.running(hat, tmp_path_factory.mktemp("faults"), discovered()) as stock:
        stock.first_telegram()
        yield stock
    chip.repair()


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
    stock.request()
    stock.wait_for_end_of_telegram()
    lost = daemon.counter("csp1d_scans_lost_total")
    chip.set("drop", 60)
    # The count, not the message: losses within ten seconds of earlier ones are not logged again.
    wait_for("60 lost", lambda: daemon.counter("csp1d_scans_lost_total") == lost + 60, 5)
    assert "ADC scans lost" in daemon.log
    stock.wait_for_end_of_telegram()
    times = [telegram.start_ns for telegram in stock.complete()]
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 1.5 * SECOND
    chip.set("drop", 2000)
    dropped_ns = time.monotonic_ns()
    wait_for("all lost", lambda: daemon.counter("csp1d_scans_lost_total") == lost + 2060, 5)
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
    silent = event == SILENT
    problem = (
        'csp1d_problem{device="ADC",event="adc-stalled"}'
        if silent
        else 'csp1d_problem{device="L1",event="input-failed"}'
    )
    daemon.wait_for_metric(problem, 1, 4)
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
    # Ten seconds without it, and the fault has ended.
    daemon.wait_for_log("data again" if event == SILENT else "input OK again", 15, after=log)
    lines = [line for line in daemon.log[log:].splitlines() if " WARNING " in line]
    # What was lost meanwhile is counted.
    lines = [line for line in lines if "ADC scans lost" not in line]
    told = [line for line in lines if event in line]
    failed = [phase for phase in ("L1", "L2", "L3") if any(f"{phase}: " in line for line in told)]
    used = ["L1", "L2", "L3"][: min(3, chip.inputs)]
    problems = {(it["event"], it["device"]) for it in status["problems"]} - {("scans-lost", "ADC")}
    if silent:
        assert len(lines) == 1 == len(told), lines
        assert metrics["csp1d_adc_up"] == 0
        assert problems == {("adc-stalled", "ADC")}
        assert "ADC           not found or not delivering data" in shown.stdout
    else:
        assert len(lines) == len(told) == len(failed), lines
        assert failed == (used[:1] if fault is overdrive else used)
        assert status["failed_phases"] == failed
        assert problems == {("input-failed", phase) for phase in failed}
        for phase in used:
            assert metrics[f'csp1d_input_failed{{phase="{phase}"}}'] == (phase in failed)
        assert "input failed: current unknown, no telegrams" in shown.stdout
    assert shown.returncode == 1, "there is a problem"
    assert event in " ".join(shown.stdout.split()), "with the words of the journal"
    assert status["reading"] is None
    assert "no current reading, no telegrams" in shown.stdout
    assert not [name for name in metrics if name.startswith("csp1d_current_amperes")]


# ---- other settings of the chip ----


@pytest.mark.parametrize("ratio", [64, 1024])
def test_oversampling_changes_the_rate(hat: Hat, chip: Chip, tmp_path: Path, ratio: int) -> None:
    """The driver reports no rate: csp1d measures it, and the currents stay right."""
    rate = 4_096_000 // 4 // ratio
    chip.plug(MODEL)
    chip.set_attribute("in_voltage_oversampling_ratio", str(ratio))
    chip.play(AMPERES[: chip.inputs], rate=rate)
    with Stock.running(hat, tmp_path, discovered()) as stock:
        assert stock.first_telegram() == expected(MODEL)
        stock.wait_for_end_of_telegram()
        scans = json.loads(urllib.request.urlopen("http://127.0.0.1:19510/status.json").read())[
            "reading"
        ]["scans"]
        assert scans == pytest.approx(rate, rel=0.03)
        assert {telegram.amperes for telegram in stock.complete()} == {expected(MODEL)}


def test_gain_and_overload(hat: Hat, chip: Chip, tmp_path: Path) -> None:
    """With gain 8 the range ends at 7 A RMS: 3 A are right, 10 A are reported as overload.

    Linux 6.1 has no gain; there the range ends at 56 A.
    """
    chip.plug(MODEL)
    small, large = (3.0, 10.0) if NEW_KERNEL else (24.0, 70.0)
    if NEW_KERNEL:
        chip.set_attribute("in_voltage0_scale", "0.000011920")
    chip.play((small, 2.0, 1.0)[: chip.inputs])
    with Stock.running(hat, tmp_path, discovered()) as stock:
        assert stock.first_telegram() == expected(MODEL, (small, 2, 1))
        amperes = stock.daemon.metric('csp1d_current_amperes{phase="L1"}')
        assert amperes == pytest.approx(small, rel=0.001)
        log = len(stock.daemon.log)
        chip.play((large, 2.0, 1.0)[: chip.inputs])
        stock.daemon.wait_for_log("L1 overload: .*the reading is too low", 5, after=log)
        assert stock.daemon.counter('csp1d_clipped_samples_total{phase="L1"}') > 0
        stock.wait_for_end_of_telegram()
        assert small < stock.wait_for_telegram(3).amperes[0] < large


def test_direction_from_the_last_input(hat: Hat, chip: Chip, tmp_path: Path) -> None:
    """The reference HAT's fourth channel senses the voltage; L1 exports, the others import.

    An MCP3911 has its second one for that, and one phase.
    """
    chip.plug(MODEL)
    phases = chip.inputs - 1
    angles = (180.0, -120.0, 120.0)
    chip.play(AMPERES[:phases], angles=angles, reference_millivolts=320)
    configuration = discovered()
    if MODEL == "mcp3911":
        configuration = configuration.replace('input = "voltage1"', 'input = ""')
    configuration += f"""
[direction]
reference = "voltage"
input = "voltage{chip.inputs - 1}"
minimum = 0.1
"""
    with Stock.running(hat, tmp_path, configuration) as stock:
        name = 'csp1d_active_current_amperes{phase="L1"}'
        wait_for("a direction", lambda: stock.daemon.metric(name) is not None, 15)
        active = [
            stock.daemon.metric(f'csp1d_active_current_amperes{{phase="{phase}"}}')
            for phase in ("L1", "L2", "L3")[:phases]
        ]
        signed = (-AMPERES[0], *AMPERES[1:])[:phases]
        assert active == pytest.approx(signed, rel=0.001)
        stock.request()
        telegram = stock.wait_for_telegram(5)
        assert telegram.amperes[0] == round(AMPERES[0])
        assert re.search(rb"1-0:22\.7\.0\(05\.5[12]\d\*kW\)", telegram.data)


# ---- an ADC that needs a trigger: AD7994 on I2C, whose trigger is a kernel timer ----


if NEW_KERNEL:  # Debian's 6.1 has no hrtimer trigger.

    def test_ad7994_with_an_hrtimer_trigger(hat: Hat, chip: Chip, tmp_path: Path) -> None:
        chip.unplug()
        with StaticAdc() as adc:
            configuration = discovered()
            found = tomllib.loads(configuration)
            assert found["adc"]["device"] == "ad7994"
            assert found["adc"]["trigger"].startswith("hrtimer:")
            KEPT.mkdir(exist_ok=True)
            (KEPT / "ad7994-fresh.toml").write_text(configuration)
            adc.play(AMPERES)
            with Stock.running(hat, tmp_path / "fresh", configuration) as stock:
                assert stock.first_telegram() == expected("ad7994")
                log = len(stock.daemon.log)
                adc.remove()
                stock.daemon.wait_for_metric("csp1d_adc_up", 0, 5)
                adc.make()
                made_ns = time.monotonic_ns()
                stock.daemon.wait_for_log("ADC.*available again", RETURN_SECONDS, after=log)
                assert stock.wait_for_telegram(RETURN_SECONDS, made_ns).amperes == expected(
                    "ad7994"
                )
                assert {telegram.amperes for telegram in stock.complete()} == {expected("ad7994")}
            # As a run leaves it.
            used = discovered()
            (KEPT / "ad7994-used.toml").write_text(used)
            assert tomllib.loads(used)["adc"]["trigger"] == found["adc"]["trigger"]
            with Stock.running(hat, tmp_path / "used", used) as stock:
                assert stock.first_telegram() == expected("ad7994")
