# SPDX-License-Identifier: Apache-2.0
"""Nodes that are not GPIO chips, and edges of a line. Real lines are tested on the kernel."""

import os
import select
from pathlib import Path

import pytest

from csp1d.config import RequestConfig
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat import gpio, sysfs
from csp1d.hat.gpio import GpioLine


class PipeLine:
    """A GPIO of python-periphery whose edges arrive through a pipe."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.fd, self._write_fd = os.pipe()

    def move(self, edges: int) -> None:
        os.write(self._write_fd, b"edge" * edges)

    def poll(self, seconds: float) -> bool:
        return bool(select.select([self.fd], [], [], seconds)[0])

    def read_event(self) -> None:
        os.read(self.fd, 4)

    def read(self) -> bool:
        return True

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._write_fd)


@pytest.mark.parametrize("line", ["P1_REQUEST", 3])
@pytest.mark.parametrize("name", ["/dev/null", "fifo", "file", "."])
def test_a_node_that_is_no_chip_is_named_and_left_closed(
    name: str, line: str | int, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").touch()
    before = os.listdir("/proc/self/fd")
    chip = str(tmp_path / name)
    with pytest.raises(DeviceError, match=r"is not a GPIO chip: .*; set p1\.request\.chip"):
        GpioLine(RequestConfig(chip=chip, line=line))
    assert os.listdir("/proc/self/fd") == before


def test_a_missing_chip_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeviceAbsentError, match=r"gpiochip9 not found; set p1\.request\.chip"):
        GpioLine(RequestConfig(chip=str(tmp_path / "gpiochip9")))
    (tmp_path / "gpiochip0").touch()
    with pytest.raises(DeviceAbsentError, match=r"no GPIO chip has the label 'hat'.*: none"):
        GpioLine(RequestConfig(chip="hat"), tmp_path)


def test_edges_are_counted_without_waiting_and_in_bounded_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = PipeLine()
    monkeypatch.setattr(gpio, "GPIO", lambda *arguments, **options: pipe)
    monkeypatch.setattr(sysfs, "gpio_chip", lambda node: ("hat", []))
    with GpioLine(RequestConfig()) as line:
        assert not os.get_blocking(line.fileno())
        assert line.read_level() == (0, True)
        pipe.move(70)
        assert line.read_level() == (64, True)
        assert line.read_level() == (6, True)
