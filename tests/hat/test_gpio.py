# SPDX-License-Identifier: Apache-2.0
"""What is no GPIO chip. What is one is tested on the kernel."""

import os
from pathlib import Path

import pytest

from csp1d.config import RequestConfig
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat.gpio import GpioLine


@pytest.mark.parametrize("line", ["P1_REQUEST", 3])
@pytest.mark.parametrize("name", ["/dev/null", "fifo", "file", "."])
def test_what_is_no_chip_is_named_and_left_closed(
    name: str, line: str | int, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    before = os.listdir("/proc/self/fd")
    chip = str(tmp_path / name)
    with pytest.raises(DeviceError, match=r"is not a GPIO chip: .*; set p1\.request\.chip"):
        GpioLine(RequestConfig(chip=chip, line=line))
    assert os.listdir("/proc/self/fd") == before


def test_a_chip_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceAbsentError, match=r"gpiochip9 not found; set p1\.request\.chip"):
        GpioLine(RequestConfig(chip=str(tmp_path / "gpiochip9")))
    (tmp_path / "gpiochip0").touch()
    with pytest.raises(DeviceAbsentError, match=r"no GPIO chip has the label 'hat'.*: none"):
        GpioLine(RequestConfig(chip="hat"), tmp_path)
