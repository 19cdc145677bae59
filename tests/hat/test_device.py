# SPDX-License-Identifier: Apache-2.0
"""Drivers end with a `with` block, once, and name themselves when they are used after that."""

import errno
import os
import pty
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from test_gpio import PipeLine
from test_iio import MCP3912, Tree
from test_leds import NAME, led_tree

from csp1d.config import Config, RequestConfig
from csp1d.errors import DeviceError
from csp1d.hat import gpio, sysfs
from csp1d.hat.device import Driver, open_error
from csp1d.hat.gpio import GpioLine
from csp1d.hat.kernel import KernelHat
from csp1d.hat.leds import SysfsLed
from csp1d.hat.scenario import parse
from csp1d.hat.simulated import SimulatedHat
from csp1d.hat.tty import TtyPort

Opened = tuple[Driver, str, list[Callable[[], object]]]
"""A driver, its name in messages, and ways to use it."""


def iio_adc(root: Path) -> Opened:
    adc = Tree(root, MCP3912).open()
    return adc, "ADC csp1-hat-adc (iio:device0)", [adc.read]


def tty_port(root: Path) -> Opened:
    _, port_fd = pty.openpty()
    port = TtyPort(os.ttyname(port_fd))
    return (
        port,
        os.ttyname(port_fd),
        [lambda: port.write(b"telegram"), port.waiting, port.flush],
    )


def gpio_line(root: Path) -> Opened:
    line = GpioLine(RequestConfig())
    return line, "/dev/gpiochip0, line 'P1_REQUEST'", [line.read_level]


def sysfs_led(root: Path) -> Opened:
    led_tree(root)
    led = SysfsLed(NAME, root)
    return led, f"LED {NAME}", [lambda: led.switch(True), lambda: led.light(20)]


def kernel_hat(root: Path) -> Opened:
    hat = KernelHat()
    return hat, "udev monitor", [hat.changed]


def simulated_adc(root: Path) -> Opened:
    adc = SimulatedHat(parse("")).open_adc(Config())
    return adc, "simulated ADC csp1-hat-adc", [adc.read]


def simulated_led(root: Path) -> Opened:
    led = SimulatedHat(parse("")).open_led("p1")
    return led, "simulated LED p1", [lambda: led.switch(True), lambda: led.light(20)]


@pytest.mark.parametrize(
    "opener",
    [iio_adc, tty_port, gpio_line, sysfs_led, kernel_hat, simulated_adc, simulated_led],
)
def test_a_closed_device_is_named_and_its_descriptor_never_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opener: Callable[[Path], Opened]
) -> None:
    monkeypatch.setattr(gpio, "GPIO", PipeLine)
    monkeypatch.setattr(sysfs, "gpio_chip", lambda node: ("hat", []))
    ours, theirs = socket.socketpair()
    ours.send(b"for another")
    ours.setblocking(False)
    driver, name, uses = opener(tmp_path)
    with driver as entered:
        assert entered is driver
        for use in uses:
            use()
        fd = driver.fileno()
    # Another file has the number now; an LED has none.
    stranger = theirs.fileno() if fd < 0 else os.dup2(theirs.fileno(), fd)
    for use in [*uses, driver.fileno]:
        with pytest.raises(DeviceError) as closed:
            use()
        assert str(closed.value) == f"{name} is closed"
    driver.close()
    with pytest.raises(BlockingIOError):
        ours.recv(100)
    assert os.read(stranger, 100) == b"for another"
    os.close(stranger)
    ours.close()
    theirs.detach() if fd < 0 else theirs.close()


def test_a_device_that_fails_to_stop_is_still_closed(tmp_path: Path) -> None:
    tree = Tree(tmp_path, MCP3912)
    adc = tree.open()
    fd = adc.fileno()
    enable = tree.folder / "buffer/enable"
    enable.unlink()
    enable.mkdir()
    with pytest.raises(IsADirectoryError):
        adc.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    adc.close()


def test_simulated_port_and_line_survive_their_close() -> None:
    hat = SimulatedHat(parse("L1=1"))
    with hat.open_request_line(Config()) as line, hat.open_port(Config()) as port:
        hat.changed()
        assert line.read_level() == (1, True)
        port.write(b"stale")
    assert line.read_level() == (0, True)
    assert hat.open_port(Config()) is port
    assert (port.waiting(), port.write(b"new")) == (0, 3)
    assert os.path.exists(hat.port_path)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EBUSY, "is in use by another process; stop it"),
        (
            errno.EACCES,
            "is not accessible; give the daemon's group access to it (udev rule: see DEVICES in"
            " csp1d(8))",
        ),
        (
            errno.EPERM,
            "is blocked by the service's device policy; restart csp1d (the driver was loaded"
            " later)",
        ),
        (errno.ENODEV, "cannot be opened: No such device"),
    ],
)
def test_a_node_that_cannot_be_opened_is_named_with_the_remedy(number: int, reason: str) -> None:
    error = open_error("/dev/x", OSError(number, os.strerror(number)), "stop it")
    assert str(error) == f"/dev/x {reason}"
