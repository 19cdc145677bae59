# SPDX-License-Identifier: Apache-2.0
"""Checks the instrument: the emulated chip as the kernel's driver sees it, without csp1d."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
import pytest
from guest.chip import CODE_MAX, Chip

from .conftest import MODEL, NEW_KERNEL

STEP_NS = 250_000
# Of the 400 scans of a tenth of a second: an emulated machine that waits for its host loses some.
MANY = 40


def capture(
    chip: Chip, seconds: float, meanwhile: Callable[[], None] = lambda: None
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Codes (scans, inputs) and stamps of all inputs, by the chip's own trigger.

    `meanwhile` is called after half of the time.
    """
    chip.set_attribute("trigger/current_trigger", chip.trigger)
    for number in range(chip.inputs):
        chip.set_attribute(f"scan_elements/in_voltage{number}_en", "1")
    chip.set_attribute("scan_elements/in_timestamp_en", "1")
    chip.set_attribute("current_timestamp_clock", "monotonic")
    chip.set_attribute("buffer/length", "65536")
    # The driver declares big-endian words and stores those of the processor.
    assert chip.attribute("scan_elements/in_voltage0_type") == "be:s24/32>>0"
    scan = np.dtype([("codes", "<u4", (chip.inputs,)), ("ns", "<i8")])
    fd = os.open(f"/dev/{chip.device.name}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        chip.set_attribute("buffer/enable", "1")
        time.sleep(seconds / 2)
        meanwhile()
        time.sleep(seconds / 2)
        chip.set_attribute("buffer/enable", "0")
        scans = np.frombuffer(os.read(fd, 65536 * scan.itemsize), scan)
    except BlockingIOError:  # No scan.
        scans = np.zeros(0, scan)
    finally:
        os.close(fd)
    codes: npt.NDArray[np.int32] = (scans["codes"].astype(np.uint32) << 8).view(np.int32) >> 8
    return codes, scans["ns"]


def steps_of(
    chip: Chip, seconds: float, wanted: list[int], meanwhile: Callable[[], None] = lambda: None
) -> npt.NDArray[np.int64]:
    """The times of a capture of the staircase, in which the scans that follow by more than one row
    are these.  One of ten is enough: an emulated machine that waits for its host loses a scan.
    """
    for _ in range(10):
        codes, stamps = capture(chip, seconds, meanwhile)
        steps = np.diff(rows_of(codes, chip.codes()))
        if sorted(steps[steps != 1]) == wanted:
            break
    assert sorted(steps[steps != 1]) == wanted, "a scan is missing or doubled"
    return stamps


def staircase(steps: int = 4000) -> npt.NDArray[np.int64]:
    """Nanovolts over most of the range, a different row for each step."""
    ramp = np.arange(steps)[:, None] * (1_200_000_000 // steps) - 600_000_000
    rows: npt.NDArray[np.int64] = ramp // np.array([1, -2, 3, -4])
    return rows


def rows_of(codes: npt.NDArray[np.int32], table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row of the table that each scan is, counted on over its end."""
    of_table, scans = (cast("list[list[int]]", array.tolist()) for array in (table, codes))
    numbers = {tuple(row): number for number, row in enumerate(of_table)}
    assert len(numbers) == len(table), "rows must differ, to tell which one a scan is"
    rows = np.array([numbers[tuple(scan)] for scan in scans])
    turns = np.cumsum(np.diff(rows, prepend=rows[0]) < 0)
    counted: npt.NDArray[np.int64] = rows + turns * len(table)
    return counted


def test_raw_codes_are_exact(chip: Chip) -> None:
    chip.plug(MODEL)
    assert chip.attribute("name") == MODEL
    assert chip.attribute("label") == "csp1-hat-adc"
    assert chip.trigger == f"{MODEL}-dev0"
    chip.play_nanovolts(staircase())
    stamps = steps_of(chip, 1.2, [])
    assert len(stamps) > 4700
    assert np.ptp(stamps - STEP_NS * np.arange(len(stamps))) < 4 * STEP_NS


def test_dropped_pulses_are_missing_scans(chip: Chip) -> None:
    chip.plug(MODEL)
    chip.play_nanovolts(staircase())
    steps_of(chip, 0.5, [61], lambda: chip.set("drop", 60))


def test_the_range_ends_at_the_rails(chip: Chip) -> None:
    chip.plug(MODEL)
    full = [799_998_950, -799_998_950, 900_000_000, -900_000_000]
    chip.play_nanovolts(np.array([[value] * 4 for value in full]))
    codes, _ = capture(chip, 0.1)
    expected = {8388597, -8388597, CODE_MAX, -CODE_MAX - 1}
    assert {int(code) for code in codes[:, 0]} == expected == {int(c) for c in chip.codes()[:, 0]}


@pytest.mark.parametrize(
    ("fault", "value", "code"),
    [
        ("miso", "low", 0),
        ("miso", "high", -1),
        ("address", 2, 0),
        ("vref_uv", 0, CODE_MAX),
    ],
)
def test_a_fault_gives_its_code_with_data_ready(
    chip: Chip, fault: str, value: int | str, code: int
) -> None:
    chip.plug(MODEL)
    chip.play_nanovolts(np.full((1, 4), 1_000_000))
    chip.set(fault, value)
    codes, _ = capture(chip, 0.1)
    assert len(codes) > MANY
    assert np.all(codes == code)
    chip.repair()
    codes, _ = capture(chip, 0.1)
    assert np.all(codes == chip.codes()[0])


@pytest.mark.parametrize("fault", ["powered", "oscillator"])
def test_a_chip_that_stands_still_gives_no_scan(chip: Chip, fault: str) -> None:
    chip.plug(MODEL)
    chip.set(fault, 0)
    # An edge may have been pending.
    assert len(capture(chip, 0.1)[0]) <= 1
    chip.repair()
    assert len(capture(chip, 0.1)[0]) > MANY


@pytest.mark.parametrize("ratio", [512, 1024])
def test_oversampling_sets_the_rate(chip: Chip, ratio: int) -> None:
    chip.plug(MODEL)
    chip.play_nanovolts(staircase())
    chip.set_attribute("in_voltage_oversampling_ratio", str(ratio))
    stamps = steps_of(chip, 0.3, [])
    rate = 4_096_000 / 4 / ratio
    assert (len(stamps) - 1) / (stamps[-1] - stamps[0]) * 1e9 == pytest.approx(rate, rel=0.02)


def test_gain_belongs_to_a_channel(chip: Chip) -> None:
    """Linux 6.1 has no gain: its driver reports one scale and accepts no other."""
    chip.plug(MODEL)
    chip.play_nanovolts(np.full((1, 4), 20_000_000))
    if not NEW_KERNEL:
        with pytest.raises(OSError, match="Invalid argument"):
            chip.set_attribute("in_voltage1_scale", "0.000011920")
        return
    chip.set_attribute("in_voltage1_scale", "0.000011920")
    codes, _ = capture(chip, 0.1)
    expected = chip.codes()[0]
    expected[1] = chip.codes(gain=8)[0, 1]
    assert np.all(codes == expected)
    # The registers return with the power as they are after a reset, and the driver does not know.
    chip.set("powered", 0)
    chip.set("powered", 1)
    codes, _ = capture(chip, 0.1)
    assert np.all(codes == chip.codes()[0])
