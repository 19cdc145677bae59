# SPDX-License-Identifier: Apache-2.0
"""csp1d with the kernel's own ADC drivers: from `csp1ctl discover` to telegrams, again after the
driver was rebound, the reference HAT's drop-in, and other settings of the chip.
"""

from __future__ import annotations

import json
import re
import shutil
import time
import tomllib
import urllib.request
from pathlib import Path

import pytest
from guest.board import SECOND, wait_for
from guest.chip import Chip, StaticAdc
from guest.hat import TTY, Hat

from .conftest import AMPERES, KEPT, MODEL, NEW_KERNEL, RETURN_SECONDS, Stock, discovered, expected

pytestmark = pytest.mark.usefixtures("quiet_line")

HAT_DROP_IN = Path("/csp1d/overlays/csp1-hat.toml")


def test_discovered_when_fresh_and_after_a_run(hat: Hat, chip: Chip, tmp_path: Path) -> None:
    """The driver does not attach its trigger; after a run it is attached."""
    chip.plug(MODEL)
    chip.play(AMPERES[: chip.inputs])
    fresh = discovered()
    with Stock.running(hat, tmp_path / "fresh", fresh) as stock:
        assert stock.first_telegram() == expected(MODEL)
    used = discovered()
    assert used == fresh
    found = tomllib.loads(used)
    assert found["adc"]["device"] == "csp1-hat-adc"
    assert found["adc"]["trigger"] == chip.trigger
    assert found["p1"]["device"] == TTY
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{MODEL}-fresh.toml").write_text(fresh)
    (KEPT / f"{MODEL}-used.toml").write_text(used)
    chip.bind(chip.unbind())
    assert chip.attribute("trigger/current_trigger") == ""
    with Stock.running(hat, tmp_path / "used", used) as stock:
        assert stock.first_telegram() == expected(MODEL)
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
        assert {telegram.amperes for telegram in stock.complete()} == {expected(MODEL)}


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
            phases = ("L1", "L2", "L3")[: min(3, chip.inputs)]

            def amperes() -> list[float | None]:
                names = [f'csp1d_current_amperes{{phase="{phase}"}}' for phase in phases]
                return [stock.daemon.metric(name) for name in names]

            # In one of some readings: a scan that the emulated machine loses costs a little.
            right = pytest.approx(AMPERES[: len(phases)], abs=0.002)
            wait_for("the exact amperes", lambda: amperes() == right, 5)
            hertz = stock.daemon.metric("csp1d_mains_frequency_hertz")
            assert hertz == pytest.approx(50, abs=0.002)
            hat.line.set(True)
    finally:
        hat.line.set(False)
        shutil.rmtree(names)


@pytest.mark.parametrize("ratio", [512, 1024])
def test_oversampling_changes_the_rate(hat: Hat, chip: Chip, tmp_path: Path, ratio: int) -> None:
    """The driver reports no rate: csp1d measures it, and the currents stay right."""
    rate = 4_096_000 // 4 // ratio
    chip.plug(MODEL)
    chip.set_attribute("in_voltage_oversampling_ratio", str(ratio))
    chip.play(AMPERES[: chip.inputs], rate=rate)
    with Stock.running(hat, tmp_path, discovered()) as stock:
        assert stock.first_telegram() == expected(MODEL)
        stock.wait_for_end_of_telegram()

        def has_all_scans() -> bool:
            status = json.loads(urllib.request.urlopen("http://127.0.0.1:19510/status.json").read())
            reading = status["reading"]
            return bool(reading) and reading["scans"] == pytest.approx(rate, rel=0.03)

        # Not the reading in which csp1d sets the buffer for this rate.
        wait_for("a reading with all scans", has_all_scans, 5)
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
        name, exact = 'csp1d_current_amperes{phase="L1"}', pytest.approx(small, rel=0.002)
        wait_for("the exact amperes", lambda: stock.daemon.metric(name) == exact, 5)
        log = len(stock.daemon.log)
        chip.play((large, 2.0, 1.0)[: chip.inputs])
        stock.daemon.wait_for_log("L1 overload: .*the reading is too low", 5, after=log)
        clipped = 'csp1d_clipped_samples_total{phase="L1"}'
        wait_for("the count of samples", lambda: stock.daemon.counter(clipped) > 0, 2)
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
        signed = pytest.approx((-AMPERES[0], *AMPERES[1:])[:phases], rel=0.002)
        names = [f'csp1d_active_current_amperes{{phase="{phase}"}}' for phase in ("L1", "L2", "L3")]

        def active() -> tuple[float | None, ...]:
            metrics = stock.daemon.metrics()
            return tuple(metrics.get(name) for name in names[:phases])

        wait_for("the active currents", lambda: active() == signed, 5)
        stock.request()
        # A sign changes with the second reading that has it.
        telegram = stock.wait_for_telegram(5)
        for _ in range(2):
            telegram = stock.wait_for_telegram(5, telegram.end_ns)
        assert telegram.amperes[0] == round(AMPERES[0])
        exported = re.search(rb"1-0:22\.7\.0\((\d\d\.\d{3})\*kW\)", telegram.data)
        assert exported
        # As exact as the active current, at 230 V, and a digit of the telegram.
        assert float(exported[1]) == pytest.approx(AMPERES[0] * 0.230, rel=0.002, abs=0.001)


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
