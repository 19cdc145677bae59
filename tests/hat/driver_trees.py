# SPDX-License-Identifier: Apache-2.0
"""ADCs as the kernel's drivers present them: their trees in sysfs, and the scans that they store.

Read in drivers/iio/adc of Linux 6.12 (the files are named in csp1d/hat/adc_drivers.py), not taken
from csp1d: the tests compare the two.
"""

import errno
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

NATIVE = "le" if sys.byteorder == "little" else "be"
RATES_1115 = "8 16 32 64 128 250 475 860"


@dataclass(frozen=True)
class Adc:
    """One device of a driver. Defaults: four single-ended 12-bit inputs, started by a timer."""

    name: str
    type: str = "be:u12/16>>0"
    """As declared, for all inputs."""
    inputs: Mapping[str, int] = field(default_factory=lambda: singles(4))
    """Index in a scan by id; {} for a driver without a buffer."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Attributes; those that are only in one file are at the level at which the driver has them."""
    scale: float = 0.610351562
    """Millivolts per code, or milliamperes."""
    scale_file: str = "in_voltage_scale"
    """For "in_{}_scale", each input has its own."""
    offset: int | None = None
    """As reported, for all inputs."""
    has_timestamp: bool = True
    own_triggers: tuple[str, ...] = ()
    is_attached: bool = False
    accepts: tuple[str, ...] | None = ()
    """Triggers that it accepts, () for any; None: it accepts none, and has no such file."""
    other_triggers: tuple[str, ...] = ()
    """Triggers of other hardware."""
    hertz: float = 4000.0
    """Scans per second with the suggested configuration."""

    # How it stores its samples.

    byteorder: str = ""
    """"le" or "be" if not as declared."""
    has_channel_bits: bool = False
    """The bits above a code hold the number of the channel."""
    ignores_mask: bool = False
    one_input: bool = False
    has_dma: bool = False

    # What csp1d has to make of it.

    phases: int = 3
    fault: str = ""
    """The beginning of the reason why it cannot be used."""
    trigger: str | None = "hrtimer:csp1d"
    rate: float | None = None
    """The suggested sampling_frequency_hz."""
    note: str = ""
    """Part of what discover reports."""

    @property
    def is_bipolar(self) -> bool:
        return self.type[3] == "s" or bool(self.offset)

    @property
    def bits(self) -> int:
        return int(self.type[4:].partition("/")[0])

    @property
    def storage_bits(self) -> int:
        return int(self.type.partition("/")[2].partition(">>")[0])


def singles(count: int, first_index: int = 0, first: int = 0) -> dict[str, int]:
    return {f"voltage{first + n}": first_index + n for n in range(count)}


PAIRS = {"voltage0-voltage1": 0, "voltage2-voltage3": 1, "voltage4-voltage5": 2}
MCP3911 = Adc(
    "mcp3911",
    type="be:s24/32>>0",
    inputs=singles(2),
    files={"in_voltage_oversampling_ratio": "256", "in_voltage1_offset": "-4711"},
    scale=0.000095367,
    scale_file="in_{}_scale",
    own_triggers=("mcp3911-dev0",),
    accepts=("mcp3911-dev0", "csp1d"),
    byteorder=NATIVE,
    trigger="mcp3911-dev0",
    phases=2,
    note="inputs for 2 of 3 phases",
)
AD7606 = Adc(
    "ad7606-8",
    type=f"{NATIVE}:s16/16>>0",
    inputs=singles(8),
    files={"oversampling_ratio": "1", "in_voltage_scale_available": "0.152588 0.305176"},
    scale=0.152588,
    own_triggers=("ad7606-8-dev0",),
    is_attached=True,
    accepts=("ad7606-8-dev0",),
    ignores_mask=True,
    trigger="ad7606-8-dev0",
)
ADS8688 = Adc(
    "ads8688",
    type="be:u16/16>>0",
    inputs=singles(8),
    files={"in_voltage_offset_available": "-32768 0"},
    scale=0.31250432,
    scale_file="in_{}_scale",
    offset=-32768,
    has_timestamp=False,
    byteorder=NATIVE,
)
SIGMA_DELTA = Adc(
    "ad7124-8",
    type="be:u24/32>>0",
    inputs=PAIRS,
    files={f"in_{pair}_sampling_frequency": "10" for pair in PAIRS},
    scale=0.000298023,
    scale_file="in_{}_scale",
    offset=-(1 << 23),
    has_timestamp=False,
    own_triggers=("ad7124-8-dev0",),
    is_attached=True,
    accepts=("ad7124-8-dev0",),
    trigger="ad7124-8-dev0",
    hertz=1600,
    note="set adc.sampling_frequency_hz to the highest rate that it accepts",
)
ADS1115 = Adc(
    "ads1015",
    type=f"{NATIVE}:s16/16>>0",
    inputs={"voltage0-voltage1": 0, "voltage2-voltage3": 3, **singles(4, 4)},
    files={
        **{f"in_voltage{n}_sampling_frequency": "128" for n in range(4)},
        "sampling_frequency_available": RATES_1115,
        "scale_available": "0.125000000 0.062500000",
    },
    scale=0.0625,
    scale_file="in_{}_scale",
    one_input=True,
    hertz=860,
    phases=1,
    rate=860,
    note="one input per scan: serves one phase",
)
NO_BUFFER = Adc("mcp3208", inputs={}, accepts=None, fault="no buffer: its driver cannot capture")

ADCS = (
    MCP3911,
    Adc(
        "mcp3912",
        type="be:s24/32>>0",
        files={
            "label": "csp1-hat-adc",
            "in_voltage0_label": "clamp L1",
            # A sample of another input.
            **{f"in_voltage{n}_offset": "8123456" for n in range(4)},
        },
        scale=0.000095367,
        scale_file="in_{}_scale",
        own_triggers=("mcp3912-dev0",),
        accepts=("mcp3912-dev0", "csp1d"),
        byteorder=NATIVE,
        trigger="mcp3912-dev0",
        note='inputs: voltage0 "clamp L1", voltage1,',
    ),
    AD7606,
    Adc(
        "ad7616",
        type=f"{NATIVE}:s16/16>>0",
        inputs=singles(16),
        scale=0.305176,
        scale_file="in_{}_scale",
        own_triggers=("ad7616-dev0",),
        is_attached=True,
        accepts=("ad7616-dev0",),
        ignores_mask=True,
        trigger="ad7616-dev0",
    ),
    ADS8688,
    Adc(
        "ad7994", files={"events/sampling_frequency": "0"}, scale=0.805664062, has_channel_bits=True
    ),
    Adc("ad7991", scale=0.805664062, has_channel_bits=True),
    Adc(
        "ads131e08",
        type="be:s24/32>>8",
        inputs=singles(8),
        files={
            "in_voltage_sampling_frequency": "1",
            "sampling_frequency_available": "1 2 4 8 16 32 64",
        },
        scale=0.000286102,
        scale_file="in_{}_scale",
        has_timestamp=False,
        own_triggers=("ads131e08-dev0",),
        is_attached=True,
        accepts=("ads131e08-dev0",),
        trigger="ads131e08-dev0",
        rate=4000,
        note="rate: 1000 Hz; available: 1000 2000 4000",
    ),
    Adc("ads7950", type=f"{NATIVE}:u12/16>>0", scale=0.61050061, has_channel_bits=True),
    Adc(
        "ads7959",
        type=f"{NATIVE}:u8/16>>4",
        inputs=singles(16),
        scale=9.803921568,
        has_channel_bits=True,
    ),
    Adc("ad7923", has_channel_bits=True),
    Adc("ad7914", type="be:u10/16>>2", scale=2.44140625, has_channel_bits=True),
    Adc("ad7298", inputs=singles(8), has_channel_bits=True),
    Adc("max11644", inputs={**singles(2), "voltage0-voltage1": 12}, scale=0.5, phases=2),
    Adc("max1363", inputs=singles(4), scale=1.0),
    Adc(
        "max1027",
        type="be:u10/16>>2",
        inputs={"temp": 0, **singles(8, 1)},
        scale=2.44140625,
        has_timestamp=False,
        own_triggers=("max1027-trigger",),
    ),
    SIGMA_DELTA,
    Adc(
        "ad7192",
        type="be:u24/32>>0",
        inputs={"voltage1-voltage2": 0, "voltage3-voltage4": 1, "temp": 2, **singles(4, 4, 1)},
        files={"sampling_frequency": "1200"},
        scale=0.000298023,
        offset=-(1 << 23),
        own_triggers=("ad7192-dev0",),
        is_attached=True,
        accepts=("ad7192-dev0",),
        trigger="ad7192-dev0",
        hertz=400,
        note="set adc.sampling_frequency_hz to the highest rate that it accepts",
    ),
    Adc(
        "ad7175-2",
        type="be:u24/32>>0",
        inputs={**PAIRS, "temp": 3},
        files={f"in_{pair}_sampling_frequency": "250000.000000" for pair in PAIRS},
        scale=0.000298023,
        scale_file="in_{}_scale",
        offset=-(1 << 23),
        has_timestamp=False,
        own_triggers=("ad7175-2-dev0",),
        is_attached=True,
        accepts=("ad7175-2-dev0",),
        hertz=1300,
        trigger="ad7175-2-dev0",
        note="set adc.sampling_frequency_hz to the highest rate that it accepts",
    ),
    Adc(
        "ad7793",
        type="be:u24/32>>0",
        inputs={
            **{f"voltage{n}-voltage{n}": n for n in range(3)},
            "voltage0-voltage0_shorted": 3,
            "temp": 4,
            "voltage3_supply": 5,
        },
        files={
            "sampling_frequency": "10",
            "sampling_frequency_available": "470 242 123 62 50 39 33 19 17 16 12 10 8 6 4",
        },
        scale=0.000139474,
        offset=-(1 << 23),
        own_triggers=("ad7793-dev0",),
        is_attached=True,
        accepts=("ad7793-dev0",),
        one_input=True,
        hertz=470,
        phases=1,
        trigger="ad7793-dev0",
        rate=470,
        note="inputs: voltage0-voltage0, voltage1-voltage1, voltage2-voltage2 (",
    ),
    Adc(
        "TI-am335x-adc.0.auto",
        type=f"{NATIVE}:u12/16>>0",
        inputs=singles(7),
        scale=0.439453125,
        has_timestamp=False,
        accepts=None,
        trigger=None,
        note="set adc.sampling_frequency_hz to its true rate",
    ),
    Adc(
        "48003000.adc:adc@0",
        type=f"{NATIVE}:u16/16>>0",
        files={"in_voltage_offset": "0"},
        scale=0.050354003,
        has_timestamp=False,
        accepts=("tim1_trgo", "tim2_ch1"),
        other_triggers=("tim1_trgo", "tim2_ch1"),
        trigger="tim1_trgo",
        note="only a timer of the processor can start its scans",
    ),
    Adc(
        "fe720000.saradc",
        type=f"{NATIVE}:u10/16>>0",
        inputs=singles(8),
        scale=1.7578125,
        has_timestamp=False,
    ),
    ADS1115,
    Adc(
        "ads1015",
        type=f"{NATIVE}:s12/16>>4",
        inputs=singles(4, 4),
        files={
            **{f"in_voltage{n}_sampling_frequency": "1600" for n in range(4)},
            "sampling_frequency_available": "128 250 490 920 1600 2400 3300",
        },
        scale=1.0,
        scale_file="in_{}_scale",
        one_input=True,
        hertz=3300,
        phases=1,
        rate=3300,
    ),
    Adc(
        "ads1119",
        type=f"{NATIVE}:s16/16>>0",
        files={
            **{f"in_voltage{n}_sampling_frequency": "90" for n in range(4)},
            "sampling_frequency_available": "20 90 330 1000",
        },
        scale=0.0625,
        scale_file="in_{}_scale",
        offset=3,
        own_triggers=("ads1119-dev0",),
        accepts=("ads1119-dev0", "csp1d"),
        one_input=True,
        hertz=330,
        phases=1,
        trigger="ads1119-dev0",
        rate=330,
    ),
    Adc(
        "ad9643",
        type=f"{NATIVE}:s14/16>>0",
        inputs=singles(2),
        files={"in_voltage_sampling_frequency": "250000"},
        scale=0.106811,
        has_timestamp=False,
        accepts=None,
        has_dma=True,
        hertz=250_000,
        phases=2,
        trigger=None,
        note="its DMA controller delivers blocks",
    ),
    Adc(
        "ade9000",
        type="be:s32/32>>0",
        inputs={**{f"current{n}": n for n in range(3)}, **singles(3, 1)},
        scale=0.000000013,
        scale_file="in_{}_scale",
        has_timestamp=False,
        accepts=None,
        fault="its driver stores voltages in the place of currents",
    ),
    Adc(
        "ad7766-1",
        type="be:s24/32>>0",
        inputs={"voltage0": 0},
        files={"sampling_frequency": "64000"},
        scale=0.000298023,
        own_triggers=("ad7766-1-dev0",),
        accepts=("ad7766-1-dev0", "csp1d"),
        hertz=64_000,
        phases=1,
        trigger="ad7766-1-dev0",
    ),
    Adc(
        "ad7768-1",
        type="be:s24/32>>8",
        inputs={"voltage0": 0},
        files={"sampling_frequency": "32000"},
        scale=0.000488281,
        has_timestamp=False,
        own_triggers=("ad7768-1-dev0",),
        is_attached=True,
        accepts=("ad7768-1-dev0", "csp1d"),
        hertz=4000,
        phases=1,
        trigger="ad7768-1-dev0",
        note="inputs for 1 of 3 phases",
    ),
    Adc(
        "xadc",
        type=f"{NATIVE}:u12/16>>4",
        inputs={"voltage0_vccint": 9, "voltage8": 11, "voltage6_vrefp": 12, **singles(16, 16, 9)},
        files={"sampling_frequency": "1000000"},
        scale=0.244140625,
        scale_file="in_{}_scale",
        has_timestamp=False,
        own_triggers=("xadc0-convst", "xadc0-samplerate"),
        accepts=("xadc0-convst", "xadc0-samplerate", "csp1d"),
        trigger="xadc0-samplerate",
    ),
    Adc(
        "mxs-lradc-adc",
        type=f"{NATIVE}:u12/32>>0",
        inputs=singles(8),
        scale=0.451660156,
        scale_file="in_{}_scale",
        has_timestamp=False,
        own_triggers=("mxs-lradc-adc-dev0",),
        accepts=("mxs-lradc-adc-dev0", "csp1d"),
        trigger="mxs-lradc-adc-dev0",
    ),
    Adc(
        "fc030000.adc",
        type=f"{NATIVE}:u14/16>>0",
        inputs={**singles(12), "voltage0-voltage1": 12},
        files={"sampling_frequency": "1000000"},
        scale=0.201416015,
        own_triggers=("fc030000.adc-dev0-external_rising",),
    ),
    Adc(
        "ad4130",
        type="be:u24/24>>0",
        fault="no voltage or current input in its buffer that csp1d can read: be:u24/24",
    ),
    NO_BUFFER,
    *(
        Adc(name, inputs={}, accepts=None, fault=NO_BUFFER.fault)
        for name in ("mcp3564", "30610000.adc", "imx8qxp-adc", "imx93-adc", "meson-g12a-saradc")
    ),
)


class Machine:
    """A machine with one ADC. Writes to its sysfs are accepted or rejected as by the driver."""

    def __init__(self, root: Path, adc: Adc, number: int = 0) -> None:
        self.adc = adc
        self.sys, self.dev, self.proc = (root / name for name in ("sys", "dev", "proc"))
        self.bus = self.sys / "bus/iio/devices"
        self.configfs = self.sys / "kernel/config"
        self.hardware = self.sys / "devices/platform/soc/spi0.0"
        self.folder = self.hardware / f"iio:device{number}"
        self.buffer = self.folder / "buffer0"
        self.node = self.dev / self.folder.name
        for folder in (self.bus, self.dev, self.configfs / "iio/triggers/hrtimer"):
            folder.mkdir(parents=True)
        for file, text in self._files().items():
            self._put(self.folder / file, text)
        (self.bus / self.folder.name).symlink_to(self.folder)
        for index, trigger in enumerate(adc.own_triggers):
            self._trigger(index, self.hardware, trigger)
        for index, trigger in enumerate(adc.other_triggers, 5):
            self._trigger(index, self.sys / "devices/platform/soc/timer", trigger)
        if adc.has_dma:
            (self.buffer / "watermark").chmod(0o444)
        if adc.inputs:
            os.mkfifo(self.node)

    def add_hrtimer(self, name: str) -> None:
        """What the kernel does when the folder is made in configfs."""
        self._trigger(9, self.sys / "devices", name)
        self._put(self.sys / "devices/trigger9/sampling_frequency", "100.000")

    def accept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on, reject what the driver rejects."""
        write = Path.write_text

        def write_text(path: Path, text: str) -> int:
            if not self._accepts(path, text.strip()):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
            return write(path, text)

        monkeypatch.setattr(Path, "write_text", write_text)

    def scans(self, millivolts: Mapping[str, npt.NDArray[np.float64]]) -> bytes:
        """The scans that it stores of these signals, by input, with what is enabled now."""
        adc = self.adc
        enabled = [name for name in self._order() if self._is_enabled(name)]
        stored = self._order()[: len(enabled)] if adc.ignores_mask else enabled
        length = adc.storage_bits // 8
        words = np.stack([self._words(name, millivolts[name]) for name in stored], axis=1)
        order = {"le": "<", "be": ">"}[adc.byteorder or adc.type[:2]]
        data = words.astype(f"{order}u{length}").view(np.uint8).reshape(len(words), -1)
        if self._is_enabled("timestamp"):
            stamps = 10**12 + np.rint(np.arange(len(words)) * 1e9 / adc.hertz).astype("=i8")
            padding = np.zeros((len(words), -data.shape[1] % 8), np.uint8)
            data = np.hstack((data, padding, stamps[:, None].view(np.uint8)))
        return data.tobytes()

    def _files(self) -> dict[str, str]:
        adc = self.adc
        files = {"name": adc.name, **adc.files}
        for name, index in adc.inputs.items():
            files[f"buffer0/in_{name}_en"] = "0"
            files[f"buffer0/in_{name}_index"] = str(index)
            files[f"buffer0/in_{name}_type"] = adc.type
            shared = "in_voltage-voltage_scale" if "-" in name else adc.scale_file
            file = adc.scale_file.format(name) if "{}" in adc.scale_file else shared
            files[file] = f"{adc.scale:.9f}"
            if adc.offset is not None:
                files[f"in_{name}_offset"] = str(adc.offset)
        if not adc.inputs:
            return files | {"in_voltage0_raw": "7"}
        files |= {"buffer0/enable": "0", "buffer0/length": "2", "buffer0/watermark": "1"}
        if adc.has_timestamp:
            files["current_timestamp_clock"] = "realtime"
            files["buffer0/in_timestamp_en"] = "0"
            files["buffer0/in_timestamp_index"] = str(max(adc.inputs.values()) + 1)
            files["buffer0/in_timestamp_type"] = f"{NATIVE}:s64/64>>0"
        if adc.accepts is not None:
            attached = adc.own_triggers[0] if adc.is_attached else ""
            files["trigger/current_trigger"] = attached
        return files

    def _accepts(self, path: Path, text: str) -> bool:
        adc = self.adc
        if path.name == "current_trigger" and adc.accepts:
            return text in ("", *adc.accepts)
        if path.parent != path.parent.parent / "buffer0" and path.name.endswith(
            "sampling_frequency"
        ):
            choices = [f for name, f in adc.files.items() if name.endswith("frequency_available")]
            return self.folder.name not in path.parts or not choices or text in choices[0].split()
        if (
            adc.one_input
            and path.name.endswith("_en")
            and text == "1"
            and "timestamp" not in path.name
        ):
            return not any(map(self._is_enabled, adc.inputs))
        return True

    def _order(self) -> list[str]:
        return sorted(self.adc.inputs, key=lambda name: self.adc.inputs[name])

    def _is_enabled(self, name: str) -> bool:
        file = self.buffer / f"in_{name}_en"
        return file.exists() and file.read_text().strip() == "1"

    def _words(self, name: str, millivolts: npt.NDArray[np.float64]) -> npt.NDArray[np.uint64]:
        adc = self.adc
        exact = millivolts / adc.scale - (adc.offset or 0)
        codes = np.rint(exact).astype(np.int64)
        lowest = -(1 << (adc.bits - 1)) if adc.type[3] == "s" else 0
        assert lowest < codes.min() < codes.max() < lowest + (1 << adc.bits) - 1
        shift = int(adc.type.partition(">>")[2])
        words = (codes & ((1 << adc.bits) - 1)) << shift
        if adc.has_channel_bits:
            words |= adc.inputs[name] << (adc.bits + shift)
        stored: npt.NDArray[np.uint64] = words.astype(np.uint64)
        return stored

    def _trigger(self, number: int, parent: Path, name: str) -> None:
        self._put(parent / f"trigger{number}/name", name)
        (self.bus / f"trigger{number}").symlink_to(parent / f"trigger{number}")

    def _put(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
