# SPDX-License-Identifier: Apache-2.0
"""After a boot: the configurations that test_drivers.py has discovered still give telegrams."""

from __future__ import annotations

from pathlib import Path

import pytest
from guest.chip import Chip, StaticAdc
from guest.hat import Hat

from .conftest import AMPERES, KEPT, MODEL, NEW_KERNEL, Stock, discovered, expected


@pytest.mark.usefixtures("quiet_line")
def test_discovered_configurations_outlive_a_boot(hat: Hat, chip: Chip, tmp_path: Path) -> None:
    chip.plug(MODEL)
    chip.play(AMPERES[: chip.inputs])
    fresh, used = (KEPT / f"{MODEL}-{state}.toml" for state in ("fresh", "used"))
    assert discovered() == fresh.read_text(), "the first boot and this one are alike"
    for configuration in {fresh.read_text(), used.read_text()}:
        with Stock.running(hat, tmp_path, configuration) as stock:
            assert stock.first_telegram() == expected(MODEL)


if NEW_KERNEL:  # Debian's 6.1 has no hrtimer trigger.

    @pytest.mark.usefixtures("quiet_line")
    def test_ad7994_after_a_boot(hat: Hat, tmp_path: Path) -> None:
        with StaticAdc() as adc:
            adc.play(AMPERES)
            for state in ("fresh", "used"):
                configuration = (KEPT / f"ad7994-{state}.toml").read_text()
                with Stock.running(hat, tmp_path, configuration) as stock:
                    assert stock.first_telegram() == expected("ad7994")
