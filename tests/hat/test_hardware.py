# SPDX-License-Identifier: Apache-2.0
"""Discovery in trees like /sys, /dev and /proc of a machine with a HAT."""

import fcntl
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from csp1d.hat import sysfs
from csp1d.hat.hardware import (
    GpioLine,
    Hardware,
    IioChannel,
    LedDevice,
    SerialPort,
    find_hardware,
)

MCP3912 = {
    "name": "mcp3912",
    "label": "csp1-hat-adc",
    "sampling_frequency": "3906",
    "sampling_frequency_available": "15625 7812 3906",
    "in_voltage_scale": "0.500000000",
    "in_voltage1_scale": "0.250000000",
    "trigger/current_trigger": "",
    "buffer0/enable": "1",
    "buffer0/in_timestamp_en": "0",
    **{
        f"buffer0/in_voltage{n}_{key}": value
        for n in (1, 0)
        for key, value in {"en": "1", "index": str(n), "type": "be:s24/32>>0"}.items()
    },
}


class Machine:
    """Empty trees that a test fills."""

    def __init__(self, root: Path) -> None:
        self.sys, self.dev, self.proc = (root / name for name in ("sys", "dev", "proc"))

    def put(self, folder: Path, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content + "\n")

    def adc(self, number: int, files: Mapping[str, str]) -> None:
        self.put(self.sys / f"bus/iio/devices/iio:device{number}", files)
        self.put(self.dev, {f"iio:device{number}": ""})

    def tty(self, name: str, device: str | None, **files: str) -> None:
        """`device`: its hardware in sysfs; None for a virtual terminal."""
        folder = self.sys / "class/tty" / name
        self.put(folder, files)
        if device:
            (self.sys / device).mkdir(parents=True)
            (folder / "device").symlink_to(self.sys / device)
        self.put(self.dev, {name: ""})

    def process(self, pid: int, name: str, terminal: int, *files: str) -> None:
        """A process with a controlling terminal, by number, and open files in /dev."""
        folder = self.proc / str(pid)
        self.put(folder, {"stat": f"{pid} ({name}) S 1 {pid} {pid} {terminal} -1 4194560"})
        (folder / "fd").mkdir()
        for number, file in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(self.dev / file)

    def find(self) -> Hardware:
        return find_hardware(self.sys, self.dev, self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine_with_nothing_has_nothing(machine: Machine) -> None:
    assert machine.find() == Hardware()


def test_an_adc_is_listed_with_inputs_rate_and_trigger(machine: Machine) -> None:
    machine.adc(0, MCP3912)
    (adc,) = machine.find().adcs
    assert (adc.sys_name, adc.name, adc.label) == ("iio:device0", "mcp3912", "csp1-hat-adc")
    assert adc.channels == (
        IioChannel("voltage0", 0, "be:s24/32>>0", 0.5),
        IioChannel("voltage1", 1, "be:s24/32>>0", 0.25),
    )
    assert adc.has_buffer
    assert adc.has_node
    assert adc.has_timestamp
    assert adc.is_capturing
    assert (adc.sampling_frequency_hz, adc.available_frequencies) == (3906, "15625 7812 3906")
    assert adc.trigger == ""


def test_files_of_older_kernels_and_those_shared_by_a_type_are_read(machine: Machine) -> None:
    machine.adc(
        3,
        {
            "name": "max1027",
            "in_voltage_sampling_frequency": "2000",
            "in_voltage_sampling_frequency_available": "[200 1 8000]",
            "buffer/enable": "0",
            "scan_elements/in_voltage0_en": "0",
            "scan_elements/in_voltage0_index": "0",
            "scan_elements/in_voltage0_type": "be:u10/16>>2",
        },
    )
    (adc,) = machine.find().adcs
    assert adc.channels == (IioChannel("voltage0", 0, "be:u10/16>>2", None),)
    assert not adc.has_timestamp
    assert not adc.is_capturing
    assert (adc.sampling_frequency_hz, adc.available_frequencies) == (2000, "[200 1 8000]")
    assert adc.trigger is None


def test_a_device_without_a_buffer_is_listed(machine: Machine) -> None:
    machine.put(
        machine.sys / "bus/iio/devices/iio:device1", {"name": "mcp3208", "in_voltage0_raw": "7"}
    )
    (adc,) = machine.find().adcs
    assert (adc.has_buffer, adc.has_node, adc.channels) == (False, False, ())


def test_triggers_are_listed_and_timers_among_them(machine: Machine) -> None:
    bus = machine.sys / "bus/iio/devices"
    machine.put(bus, {"trigger0/name": "mcp3912-dev0", "trigger1/name": "csp1d"})
    (machine.sys / "kernel/config/iio/triggers/hrtimer/csp1d").mkdir(parents=True)
    hardware = machine.find()
    assert hardware.triggers == ("mcp3912-dev0", "csp1d")
    assert hardware.hrtimers == ("csp1d",)


def test_a_trigger_below_the_same_hardware_is_the_adcs_own(machine: Machine) -> None:
    chip, bus = machine.sys / "devices/spi0.0", machine.sys / "bus/iio/devices"
    machine.put(chip / "iio:device0", MCP3912)
    machine.put(chip, {"trigger0/name": "data-ready"})
    machine.put(machine.sys, {"devices/trigger1/name": "csp1d"})
    bus.mkdir(parents=True)
    for path in (chip / "iio:device0", chip / "trigger0", machine.sys / "devices/trigger1"):
        (bus / path.name).symlink_to(path)
    hardware = machine.find()
    assert hardware.triggers == ("data-ready", "csp1d")
    assert hardware.adcs[0].own_triggers == ("data-ready",)


def test_serial_ports_are_those_with_hardware(machine: Machine) -> None:
    machine.tty("tty0", None, dev="4:0")
    machine.tty("ttyAMA0", "devices/soc/uart", dev="204:64", type="32")
    machine.tty("ttyS1", "devices/platform/serial8250", dev="4:65", type="0")
    machine.tty("ttyUSB0", "devices/pci/usb1/1-1/ttyUSB0", dev="188:0")
    machine.put(machine.sys / "class/tty/console", {"active": "tty0 ttyAMA0"})
    assert machine.find().ports == (
        SerialPort(machine.dev / "ttyAMA0", is_usb=False, is_console=True, users=()),
        SerialPort(machine.dev / "ttyUSB0", is_usb=True, is_console=False, users=()),
    )


def test_users_of_a_port_control_it_or_have_it_open(machine: Machine) -> None:
    machine.tty("ttyAMA0", "devices/soc/uart", dev="204:64")
    machine.tty("ttyUSB300", "devices/usb1/ttyUSB300", dev="188:300")
    machine.process(12, "agetty", 204 << 8 | 64)
    machine.process(13, "odd) S (name", 0, "null", "ttyAMA0")
    machine.process(14, "minicom", 188 << 8 | 300 & 0xFF | (300 & 0xFFF00) << 12)
    machine.process(15, "innocent", 4 << 8 | 1, "null")
    ama, usb = machine.find().ports
    assert ama.users == ("agetty", "odd) S (name")
    assert usb.users == ("minicom",)


def test_leds_are_listed_with_their_trigger(machine: Machine) -> None:
    triggers = {"a": "[none] transient timer", "b": "none [transient]", "c": "[none] timer"}
    for name, offered in triggers.items():
        machine.put(machine.sys / "class/leds" / name, {"trigger": offered})
    machine.put(machine.sys / "class/leds/d", {"brightness": "0"})
    assert machine.find().leds == (
        LedDevice("a", True),
        LedDevice("b", True),
        LedDevice("c", False),
        LedDevice("d", False),
    )


def test_names_given_by_udev_are_listed(machine: Machine) -> None:
    machine.put(machine.dev, {"csp1d/p1": "", "csp1d/request": ""})
    assert machine.find().links == (machine.dev / "csp1d/p1", machine.dev / "csp1d/request")


LINES = [("GPIO16", "", 0), ("P1_REQUEST", "csp1d", 1), ("", "", 1)]


def kernel(file: Any, request: int, data: bytes) -> bytes:
    """ioctl(2) of a chip of three lines, laid out as in linux/gpio.h."""
    if request == 0x8044B401:
        assert len(data) == 68
        return struct.pack("=32s32sI", b"gpiochip0", b"pinctrl-bcm2711", len(LINES))
    assert (request, len(data)) == (0xC100B405, 256)
    (offset,) = struct.unpack_from("=I", data, 64)
    name, consumer, flags = LINES[offset]
    return struct.pack("=32s32sIIQ176x", name.encode(), consumer.encode(), offset, 0, flags)


def test_a_chip_is_listed_with_its_lines_and_their_users(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", kernel)
    machine.put(machine.dev, {"gpiochip0": ""})
    (machine.dev / "gpiochip4").symlink_to("gpiochip0")
    (chip,) = machine.find().chips
    assert (chip.node, chip.label) == (machine.dev / "gpiochip0", "pinctrl-bcm2711")
    assert chip.lines == (
        GpioLine(0, "GPIO16", None),
        GpioLine(1, "P1_REQUEST", "csp1d"),
        GpioLine(2, "", "?"),
    )


def test_hidden_devices_are_listed_as_unseen(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.put(machine.dev, {"gpiochip0": ""})
    machine.tty("ttyAMA0", "devices/soc/uart", dev="204:64")
    machine.process(12, "agetty", 204 << 8 | 64)

    def refuse(path: Path, *arguments: Any, **more: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "iterdir", refuse)
    hardware = machine.find()
    assert hardware.chips == ()
    assert hardware.unseen == (
        f"the lines of {machine.dev}/gpiochip0: Permission denied; run as root",
        "which serial ports other users' processes have open; run as root",
    )


def test_only_a_denied_permission_is_a_reason_to_become_root(machine: Machine) -> None:
    machine.put(machine.dev, {"gpiochip0": ""})
    assert machine.find().unseen == (
        f"the lines of {machine.dev}/gpiochip0: Inappropriate ioctl for device",
    )


# As drivers of Linux 6.12 name them; the order is that of `__iio_device_attr_init`.
LEVELS = {
    "voltage1": ["in_voltage1_scale", "in_voltage_scale", "in_scale", "scale"],
    "voltage0-voltage1": [
        "in_voltage0-voltage1_scale",
        "in_voltage-voltage_scale",
        "in_scale",
        "scale",
    ],
    # xilinx-xadc: an extended name; ad7192: one of a differential input; stm32-adc: from a label.
    "voltage0_vccint": ["in_voltage0_vccint_scale", "in_voltage_scale", "in_scale", "scale"],
    "voltage2-voltage2_shorted": ["in_voltage2-voltage2_shorted_scale", "in_voltage-voltage_scale"],
    "voltage7_IN-2": ["in_voltage7_IN-2_scale", "in_voltage_scale"],
    # A modifier, and an input without an index.
    "current0_i": ["in_current0_i_scale", "in_current_scale", "in_scale", "scale"],
    "altvoltage": ["in_altvoltage_scale", "in_scale", "scale"],
}


@pytest.mark.parametrize("channel", LEVELS)
def test_an_attribute_is_found_at_each_level_and_the_channels_own_counts_first(
    tmp_path: Path, channel: str
) -> None:
    for name in ("in_temp_scale", "in_voltage9_scale", "in_voltage_vccint_scale", "out_scale"):
        (tmp_path / name).write_text("9\n")
    assert sysfs.channel_scale(tmp_path, channel) == (None, 0.0)
    assert sysfs.channel_number(tmp_path, channel, "scale") is None
    for number, name in reversed([*enumerate(LEVELS[channel], 1)]):
        (tmp_path / name).write_text(f"{number}\n")
        assert sysfs.channel_scale(tmp_path, channel) == (number, 0.0)
        assert sysfs.channel_number(tmp_path, channel, "scale") == number
    # One that cannot be read leaves it to the next level; for an offset, 0 is a number.
    (tmp_path / LEVELS[channel][0]).write_text("\n")
    assert sysfs.channel_number(tmp_path, channel, "scale") == 2
    (tmp_path / LEVELS[channel][0]).write_text("0\n")
    assert sysfs.channel_number(tmp_path, channel, "scale") == 0
    assert sysfs.channel_scale(tmp_path, channel) == (2, 0.0)


@pytest.mark.parametrize("level", ["in_voltage-voltage_", "in_", ""])
@pytest.mark.parametrize("available_level", ["in_voltage0-voltage1_", "in_", ""])
def test_the_rate_and_its_choices_are_found_at_different_levels(
    machine: Machine, level: str, available_level: str
) -> None:
    machine.adc(
        0,
        {
            "buffer0/in_voltage0-voltage1_en": "0",
            "buffer0/in_voltage0-voltage1_type": "be:s24/32>>0",
            "in_temp_sampling_frequency": "7",
            f"{level}sampling_frequency": "2000",
            f"{available_level}sampling_frequency_available": "1000 2000",
        },
    )
    (adc,) = machine.find().adcs
    assert (adc.sampling_frequency_hz, adc.available_frequencies) == (2000, "1000 2000")


@pytest.mark.parametrize(
    ("adc", "trigger", "is_own"),
    [
        ("spi0.0/iio:device0", "spi0.0/trigger0", True),
        ("spi0.0/iio:device0", "spi0.0/iio:device0/trigger0", True),
        ("spi0.0/iio:device0", "spi0.1/trigger0", False),
        ("spi0.0/iio:device0", "trigger0", False),
        # An ADC without hardware beside a timer of the kernel.
        ("iio:device0", "trigger0", False),
    ],
)
def test_own_triggers_are_those_of_the_same_hardware(
    tmp_path: Path, adc: str, trigger: str, is_own: bool
) -> None:
    for name in (adc, trigger):
        (tmp_path / "devices" / name).mkdir(parents=True, exist_ok=True)
    (tmp_path / "devices" / trigger / "name").write_text("timer\n")
    (tmp_path / "bus").symlink_to(tmp_path / "devices" / adc)
    assert list(sysfs.own_triggers(tmp_path / "bus")) == (["timer"] if is_own else [])
