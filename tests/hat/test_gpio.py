# SPDX-License-Identifier: Apache-2.0
"""Nodes that are not GPIO chips, and edges of a line. Real lines are tested on the kernel, except
those of a chip without interrupts: there the ioctls of gpiolib-cdev.c are played."""

import errno
import fcntl
import logging
import os
import select
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from periphery import GPIOError

from csp1d.config import RequestConfig
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat import gpio, sysfs
from csp1d.hat.gpio import GpioLine
from csp1d.units import MS_NS


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


@pytest.mark.parametrize("chip", ["hat", "{}/gpiochip0"])
def test_a_chip_without_access_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chip: str
) -> None:
    def refuse(node: Path) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "gpiochip0").touch()
    monkeypatch.setattr(sysfs, "gpio_chip", refuse)
    remedy = r"gpiochip0 is not accessible; give .* access to it \(udev rule: see DEVICES in csp1d"
    with pytest.raises(DeviceError, match=remedy):
        GpioLine(RequestConfig(chip=chip.format(tmp_path)), tmp_path)


def chips(root: Path, monkeypatch: pytest.MonkeyPatch, labels: Mapping[str, str]) -> None:
    """Chips with these labels by node, each with two lines named TWICE; lines can be requested."""
    lines = [(0, "TWICE", None), (1, "P1_REQUEST", None), (2, "TWICE", None)]
    for name in labels:
        (root / name).touch()
    monkeypatch.setattr(gpio, "GPIO", PipeLine)
    monkeypatch.setattr(sysfs, "gpio_chip", lambda node: (labels[node.name], lines))


def test_a_label_of_two_chips_is_refused_with_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"gpiochip0": "soc", "gpiochip1": "expander", "gpiochip2": "expander"}
    chips(tmp_path, monkeypatch, labels)
    # The second name of a chip is not a second chip.
    (tmp_path / "gpiochip4").symlink_to("gpiochip0")
    with pytest.raises(DeviceError) as refused:
        GpioLine(RequestConfig(chip="expander"), tmp_path)
    assert str(refused.value) == (
        f"GPIO chip label 'expander' is ambiguous (2 chips: {tmp_path}/gpiochip1, "
        f"{tmp_path}/gpiochip2); set p1.request.chip to the path of one of them"
    )
    for chip in ("soc", str(tmp_path / "gpiochip2")):
        GpioLine(RequestConfig(chip=chip), tmp_path).close()


def test_a_name_of_two_lines_is_refused_with_their_offsets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chips(tmp_path, monkeypatch, {"gpiochip0": "soc"})
    for chip in ("soc", str(tmp_path / "gpiochip0")):
        with pytest.raises(DeviceError) as refused:
            GpioLine(RequestConfig(chip=chip, line="TWICE"), tmp_path)
        assert str(refused.value) == (
            f"{tmp_path}/gpiochip0 has 2 lines named 'TWICE' (offsets 0, 2); "
            "set p1.request.line to one of these offsets"
        )
        GpioLine(RequestConfig(chip=chip, line=2), tmp_path).close()


def test_a_line_that_disappears_is_told_in_the_words_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(pipe: PipeLine) -> None:
        raise GPIOError(errno.ENODEV, "Reading GPIO event: No such device")

    chips(tmp_path, monkeypatch, {"gpiochip0": "soc"})
    monkeypatch.setattr(PipeLine, "read", vanished)
    words = rf"^\[Errno {errno.ENODEV}\] No such device$"
    line = GpioLine(RequestConfig(chip="soc"), tmp_path)
    with line, pytest.raises(OSError, match=words):
        line.read_level()


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


class ChipWithoutInterrupts:
    """The ioctls of a chip without `to_irq`, of both versions of the interface
    (include/uapi/linux/gpio.h), as python-periphery 2.3 and 2.4 call them."""

    EDGES = 0b11 << 4
    """GPIO_V2_LINE_FLAG_EDGE_RISING and _FALLING."""

    def __init__(self) -> None:
        self.high = False
        self.refused: int | None = None
        """The error of every request."""

    def ioctl(self, fd: int, request: int, argument: Any = 0) -> int:
        if request in (0xC016B404, 0xC030B404):  # GPIO_GET_LINEEVENT_IOCTL
            raise OSError(self.refused or errno.ENODEV, "no edges")
        if request == 0xC16CB403:  # GPIO_GET_LINEHANDLE_IOCTL
            self._request(argument)
        elif request == 0xC250B407:  # GPIO_V2_GET_LINE_IOCTL
            if argument.config.flags & self.EDGES:
                raise OSError(self.refused or errno.ENXIO, "no edges")
            self._request(argument)
        elif request == 0xC040B408:  # GPIOHANDLE_GET_LINE_VALUES_IOCTL
            argument.values[0] = self.high
        elif request == 0xC010B40E:  # GPIO_V2_LINE_GET_VALUES_IOCTL
            argument.bits = int(self.high)
        else:
            raise AssertionError(hex(request))
        return 0

    def _request(self, argument: Any) -> None:
        if self.refused:
            raise OSError(self.refused, os.strerror(self.refused))
        # A handle without edges is always readable: poll() of a file that has none.
        argument.fd = os.open(os.devnull, os.O_RDONLY)


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch) -> ChipWithoutInterrupts:
    made = ChipWithoutInterrupts()
    monkeypatch.setattr(sysfs, "gpio_chip", lambda node: ("expander", []))
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    return made


REQUEST = RequestConfig(chip="/dev/null", line=3)


def test_a_line_of_a_chip_without_interrupts_is_polled(
    chip: ChipWithoutInterrupts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = os.listdir("/proc/self/fd")
    line = GpioLine(REQUEST)
    assert line.poll_ns == 20 * MS_NS
    (message,) = caplog.messages
    assert message.startswith("/dev/null, line 3 has no interrupts (")
    assert message.endswith("): reading it every 20 ms")
    found = []
    for high in (False, False, True, True, False):
        chip.high = high
        found.append(line.read_level())
    assert found == [(0, False), (0, False), (1, True), (0, True), (1, False)]
    line.close()
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINVAL, errno.EPERM])
def test_a_line_that_cannot_be_requested_without_edges_either_is_refused(
    chip: ChipWithoutInterrupts, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    chip.refused = number
    with pytest.raises(DeviceError, match=rf"line 3 cannot be requested: .*{os.strerror(number)}"):
        GpioLine(REQUEST)
    assert caplog.messages == []
