# SPDX-License-Identifier: Apache-2.0
"""Handles of the simulated chips that the kernel's own ADC drivers bind to.

`Chip`: an MCP3912 or MCP3911 at register level; tests/kernel/module/csp1_mcp391x.c describes its
files.  `StaticAdc`: an AD7994 made of i2c-stub, whose registers hold what was written to them.
Both run as root in the guest.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

MODULES = Path("/module")
CONTROL = Path("/sys/kernel/debug/csp1_mcp391x")
DRIVER = Path("/sys/bus/spi/drivers/mcp3911")
IIO = Path("/sys/bus/iio/devices")

INPUTS = {"mcp3911": 2, "mcp3912": 4}
CLOCK_HZ = 4_096_000
VREF_UV = 1_200_000
CODE_MAX = (1 << 23) - 1
MILLIVOLTS_PER_AMPERE = 10.0  # 2000:1 into 20 ohm, as csp1ctl discover assumes
# Of a real converter: without it, an input without a load would stand at one code.
NOISE_NANOVOLTS = 2000


class Chip:
    """The emulated chip, plugged, with the driver bound.  Loads the module when needed."""

    def __init__(self) -> None:
        if not CONTROL.is_dir():
            subprocess.run(["insmod", str(MODULES / "csp1_mcp391x.ko")], check=True)
            _settle()
        self._samples = np.zeros((1, 4), "<i4")

    @property
    def model(self) -> str:
        """Name of the chip, and of its IIO device."""
        return self._read("chip")

    @property
    def inputs(self) -> int:
        """Number of its inputs."""
        return INPUTS[self.model]

    def plug(self, model: str) -> None:
        """Let a new chip of this model appear, as a board has it that was just switched on."""
        self.unplug()
        self.repair()
        self._write("chip", model)
        self._write("plugged", "1")
        _settle()

    def unplug(self) -> None:
        """Remove the chip from the bus."""
        self._write("plugged", "0")

    def unbind(self) -> str:
        """Take the driver off the chip; returns the name of the SPI device, for `bind()`."""
        name = self._spi_device.name
        _write(DRIVER / "unbind", name)
        return name

    def bind(self, name: str) -> None:
        """Give the driver back."""
        _write(DRIVER / "bind", name)
        _settle()

    @property
    def device(self) -> Path:
        """Directory of its IIO device."""
        return next(self._spi_device.glob("iio:device*"))

    @property
    def trigger(self) -> str:
        """Name of its own trigger."""
        return (next(self._spi_device.glob("trigger*/name"))).read_text().strip()

    def attribute(self, name: str) -> str:
        """An attribute of its IIO device."""
        return (self.device / name).read_text().strip()

    def set_attribute(self, name: str, value: str) -> None:
        """Write an attribute of its IIO device."""
        _write(self.device / name, value)

    # ---- what is at its inputs ----

    def play(
        self,
        amperes: Sequence[float],
        *,
        rate: int = 4000,
        angles: Sequence[float] = (0.0, -120.0, 120.0),
        reference_millivolts: float = 0.0,
        millivolts_per_ampere: float = MILLIVOLTS_PER_AMPERE,
    ) -> None:
        """Currents of 50 Hz at the first inputs, for as many of them as there are `amperes` (RMS),
        and at the last input a voltage in phase with the mains.  `rate`: conversions per second.
        """
        millivolts = [current * millivolts_per_ampere for current in amperes]
        degrees = list(angles[: len(millivolts)])
        missing = self.inputs - len(millivolts)
        millivolts += [0.0] * missing
        degrees += [0.0] * missing
        if reference_millivolts:
            millivolts[-1] = reference_millivolts
        turns = np.arange(rate)[:, None] * (50 / rate) + np.array(degrees) / 360
        waves = math.sqrt(2) * 1e6 * np.array(millivolts) * np.sin(2 * math.pi * turns)
        noise = np.random.default_rng(1).integers(-NOISE_NANOVOLTS, NOISE_NANOVOLTS, waves.shape)
        self.play_nanovolts(np.rint(waves).astype(np.int64) + noise)

    def play_nanovolts(self, rows: npt.NDArray[np.int64]) -> None:
        """Voltages at the inputs, a row per conversion, over and over."""
        self._samples = np.zeros((len(rows), 4), "<i4")
        self._samples[:, : rows.shape[1]] = np.clip(rows, -(1 << 31), (1 << 31) - 1)
        (CONTROL / "samples").write_bytes(self._samples.tobytes())

    @property
    def nanovolts(self) -> npt.NDArray[np.int64]:
        """The voltages that are played: a row per conversion, all inputs."""
        return self._samples[:, : self.inputs].astype(np.int64)

    def codes(self, gain: int = 1) -> npt.NDArray[np.int64]:
        """The codes that the chip makes of the voltages: a row per conversion, all inputs."""
        rows = self._samples[:, : self.inputs].astype(object)
        numerators, denominator = rows * (3 << 22) * gain, VREF_UV * 1000
        rounded = [
            [
                (abs(value) + denominator // 2) // denominator * (1 if value >= 0 else -1)
                for value in row
            ]
            for row in numerators
        ]
        return np.clip(np.array(rounded, np.int64), -CODE_MAX - 1, CODE_MAX)

    @property
    def conversions(self) -> int:
        """Conversions since the last `play()`."""
        return int(self._read("conversions"))

    # ---- faults ----

    def set(self, name: str, value: int | str) -> None:
        """Write one of the module's files."""
        self._write(name, str(value))

    def repair(self) -> None:
        """End all faults."""
        for name in ("powered", "oscillator", "address"):
            self.set(name, 1)
        self.set("miso", "chip")
        self.set("drop", 0)
        self.set("vref_uv", VREF_UV)

    @property
    def _spi_device(self) -> Path:
        return next(Path("/sys/devices/platform/csp1_mcp391x").glob("spi_master/spi*/spi*"))

    def _read(self, name: str) -> str:
        return (CONTROL / name).read_text().strip()

    def _write(self, name: str, value: str) -> None:
        _write(CONTROL / name, value)


class StaticAdc:
    """An AD7994 on i2c-stub: four inputs of 12 bits, 3.3 V, scans by a trigger.

    Its inputs stand where they were set; `play()` keeps setting them.  A context manager that
    removes it.
    """

    NAME = "ad7994"
    ADDRESS = 0x22

    def __enter__(self) -> StaticAdc:
        modules = ["i2c-stub", "i2c-dev", "iio-trig-hrtimer"]
        for module in modules:
            options = [f"chip_addr={self.ADDRESS}"] if module == "i2c-stub" else []
            subprocess.run(["modprobe", module, *options], check=True)
        names = Path("/sys/bus/i2c/devices").glob("i2c-*/name")
        self._bus = next(path for path in names if "SMBus stub" in path.read_text()).parent
        self._number = int(self._bus.name.removeprefix("i2c-"))
        # Without a supply its driver reports no scale.
        subprocess.run(
            ["insmod", str(MODULES / "csp1_supply.ko"), f"consumer={self._number}-0022"], check=True
        )
        self._player: subprocess.Popen[bytes] | None = None
        self.make()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self.remove()

    def make(self) -> None:
        """Let the chip appear."""
        _write(self._bus / "new_device", f"{self.NAME} {self.ADDRESS:#x}")
        _settle()

    def remove(self) -> None:
        """Let the chip disappear."""
        _write(self._bus / "delete_device", f"{self.ADDRESS:#x}")

    def play(self, amperes: Sequence[float]) -> None:
        """Currents of 50 Hz at the first inputs, some thousand times per second."""
        self.stop()
        self._player = subprocess.Popen(
            [sys.executable, "-m", "guest.poke", str(self._number), *map(str, amperes)]
        )

    def stop(self) -> None:
        """Leave the inputs where they are."""
        if self._player is not None:
            self._player.kill()
            self._player.wait()
            self._player = None


def _settle() -> None:
    subprocess.run(["udevadm", "settle", "--timeout=20"], check=True)


def _write(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
