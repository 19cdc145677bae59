# SPDX-License-Identifier: Apache-2.0
"""The overlays on real trees, their drop-ins, and the pages that describe them against both.

The trees are those of Debian's kernel package. Raspberry Pi's own are in no Debian package:
sketches with their labels stand for them.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from device_trees import (
    Tree,
    cells,
    compiled,
    debian_trees,
    is_enabled,
    node_of,
    read_tree,
    run,
    strings,
    the_node,
)

from csp1d.config import ChannelConfig, Config, MeasurementConfig
from csp1d.config_file import load
from csp1d.measuring.metering import Metering
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.phase import Phase
from csp1d.scan_type import ScanType

ROOT = Path(__file__).parents[1]
OVERLAYS = ROOT / "overlays"


@dataclass(frozen=True)
class Hat:
    """A board in overlays/, and the scans that the driver of its ADC stores."""

    name: str
    manual: str
    chip: str
    reg: int
    bias: int
    """The code without current."""
    limit_millivolts: float
    """The highest voltage that the ADC measures, from the bias."""
    layout: list[tuple[str, str] | tuple[str, str, int]]
    type: str
    """As the driver declares it."""
    scale: float
    """Millivolts per code."""
    marks: tuple[int, ...] = (0, 0, 0)
    """Set in the words of the channels, besides the code."""

    def __str__(self) -> str:
        return self.name

    @property
    def overlay(self) -> Path:
        return OVERLAYS / f"{self.name}.dts"

    @property
    def drop_in(self) -> Path:
        return self.overlay.with_suffix(".toml")


# mcp3911.c fills the upper byte with zeros and reports 1200 mV / (1.5 * 2**23) in nanovolts.
# ad799x.c stores the ADC's two bytes, with the channel's number above the code, and reports the
# supply / 2**12. Neither has a sampling frequency; both stamp each scan.
MCP3912 = Hat(
    "csp1-hat", "hat.md", "microchip,mcp3912", 0, 0, 600,
    [("codes", "<u4", 3), ("padding", "<u4"), ("time", "<i8")], "be:s24/32>>0", 0.000095367,
)  # fmt: skip
AD7991 = Hat(
    "csp1-ad7991", "buy.md", "adi,ad7991", 0x28, 2048, 1650,
    [("codes", ">u2", 3), ("padding", "<u2"), ("time", "<i8")], "be:u12/16>>0", 3300 / 2**12,
    (0x0000, 0x1000, 0x2000),
)  # fmt: skip
HATS = [MCP3912, AD7991]

BOARDS = [
    "bcm2711-rpi-4-b",
    "bcm2711-rpi-400",
    "bcm2711-rpi-cm4-io",
    "bcm2837-rpi-3-a-plus",
    "bcm2837-rpi-3-b",
    "bcm2837-rpi-3-b-plus",
    "bcm2837-rpi-cm3-io3",
    "bcm2837-rpi-zero-2-w",
]

# The parts of Raspberry Pi's own trees that the overlays need: labels, the node names below the SPI
# controller and the UART, and the owners of the pins. Only the Pi 5's tree lacks the label "spi".
SKETCH = """
/dts-v1/;
/ {
    #address-cells = <1>;
    #size-cells = <1>;
    compatible = "%(compatible)s";
    aliases { serial0 = &uart1; };
    soc {
        #address-cells = <1>;
        #size-cells = <1>;
        ranges;
        gpio: gpio@0 {
            reg = <0 1>;
            gpio-controller;
            #gpio-cells = <2>;
            interrupt-controller;
            #interrupt-cells = <2>;
            gpio-line-names = "ID_SD", "ID_SC", "PIN3";
            spi_pins: spi { brcm,pins = <9 10 11>; };
            select_pins: select { brcm,pins = <8 7>; };
            uart0_pins: uart0 { brcm,pins = <32 33>; };
            uart1_pins: uart1 { brcm,pins = <14 15>; };
        };
        %(labels)s: spi@1000 {
            reg = <0x1000 1>;
            #address-cells = <1>;
            #size-cells = <0>;
            status = "disabled";
            pinctrl-0 = <&spi_pins &select_pins>;
            cs-gpios = <&gpio 8 1>, <&gpio 7 1>;
            spidev@0 { compatible = "spidev"; reg = <0>; };
            spidev@1 { compatible = "spidev"; reg = <1>; };
        };
        i2c1: i2c@4000 { reg = <0x4000 1>; status = "disabled"; };
        uart0: serial@2000 {
            reg = <0x2000 1>;
            pinctrl-0 = <&uart0_pins>;
            bluetooth { compatible = "brcm,bcm43438-bt"; };
        };
        uart1: serial@3000 { reg = <0x3000 1>; pinctrl-0 = <&uart1_pins>; };
    };
};
"""
SKETCHES = {
    "raspberrypi,4-model-b": "spi0: spi",
    "raspberrypi,5-model-b": "spi0",
}


@pytest.fixture(scope="module", params=HATS, ids=str)
def hat(request: pytest.FixtureRequest) -> Hat:
    chosen: Hat = request.param
    return chosen


@pytest.fixture(scope="module")
def manual(hat: Hat) -> str:
    return (ROOT / "docs" / hat.manual).read_text()


@pytest.fixture(scope="module")
def overlay(hat: Hat, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return read_tree(compiled(hat.overlay.read_text(), tmp_path_factory.mktemp("overlay") / "dtbo"))


@pytest.fixture(scope="module", params=[*BOARDS, *SKETCHES])
def tree(
    request: pytest.FixtureRequest, hat: Hat, tmp_path_factory: pytest.TempPathFactory
) -> Tree:
    """A board's tree with the overlay applied."""
    return applied(hat.overlay.read_text(), request.param, tmp_path_factory.mktemp("tree"))


def applied(source: str, board: str, folder: Path) -> Tree:
    if board in SKETCHES:
        sketch = SKETCH % {"compatible": board, "labels": SKETCHES[board]}
        base = compiled(sketch, folder / "base.dtb", warnings=False)
        if ": spi" not in SKETCHES[board]:
            # As the manual says for the Pi 5.
            manual = (ROOT / "docs/hat.md").read_text()
            (edit,) = re.findall(r"sed '(.+)' overlays/csp1-hat\.dts", manual)
            source = run("sed", edit, stdin=source)
    else:
        base = debian_trees(BOARDS) / f"{board}.dtb"
    target = folder / "applied.dtb"
    run("fdtoverlay", "-i", base, "-o", target, compiled(source, folder / "dtbo"))
    return read_tree(target)


def test_the_adc_has_the_names_that_its_driver_and_csp1d_search(hat: Hat, tree: Tree) -> None:
    path = the_node(tree, "label", Config().adc.device)
    assert strings(tree[path]["compatible"]) == [hat.chip]
    assert cells(tree[path]["reg"]) == [hat.reg]
    assert is_enabled(tree, path)


@pytest.mark.parametrize("hat", [MCP3912], ids=str, indirect=True)
def test_the_spi_adc_has_its_pins_and_its_clock(tree: Tree) -> None:
    path = the_node(tree, "label", Config().adc.device)
    adc, bus = tree[path], str(Path(path).parent)
    gpio = the_node(tree, "csp1d,name", "request")
    chip, *line = cells(tree[bus]["cs-gpios"])
    assert (node_of(tree, chip), line) == (gpio, [8, 1])
    assert node_of(tree, *cells(adc["interrupt-parent"])) == gpio
    assert cells(adc["interrupts"]) == [25, 2]
    clock = tree[node_of(tree, *cells(adc["clocks"]))]
    assert strings(clock["compatible"]) == ["fixed-clock"]
    neighbours = [node for node in tree if node.startswith(f"{bus}/") and node != path]
    assert not [node for node in neighbours if is_enabled(tree, node)]


@pytest.mark.parametrize("hat", [AD7991], ids=str, indirect=True)
def test_the_i2c_adc_has_a_scale_and_a_fast_bus(hat: Hat, tree: Tree) -> None:
    path = the_node(tree, "label", Config().adc.device)
    assert cells(tree[str(Path(path).parent)]["clock-frequency"]) == [400_000]
    # The driver computes the scale from vcc; vref would turn the fourth input into a reference.
    supply = tree[node_of(tree, *cells(tree[path]["vcc-supply"]))]
    assert "vref-supply" not in tree[path]
    assert strings(supply["compatible"]) == ["regulator-fixed"]
    for limit in ("regulator-min-microvolt", "regulator-max-microvolt"):
        assert cells(supply[limit]) == [2 * hat.limit_millivolts * 1000]


def test_the_leds_have_the_names_of_the_configuration(tree: Tree) -> None:
    leds = Config().leds
    states = {leds.power: "on", leds.current: "off", leds.p1: "off"}
    for name, state in states.items():
        path = the_node(tree, "label", name)
        assert is_enabled(tree, path)
        assert strings(tree[path]["default-state"]) == [state]
        assert strings(tree[str(Path(path).parent)]["compatible"]) == ["gpio-leds"]
        chip = node_of(tree, cells(tree[path]["gpios"])[0])
        assert chip == the_node(tree, "csp1d,name", "request")


def test_the_request_line_has_its_name_and_the_header_keeps_others(tree: Tree) -> None:
    gpio = the_node(tree, "csp1d,name", "request")
    assert "gpio-controller" in tree[gpio]
    names = strings(tree[gpio]["gpio-line-names"])
    assert names.index(str(Config().p1.request.line)) == 17
    assert len(names) == len(set(names)) == 28


def test_the_port_is_a_tty_of_its_own(tree: Tree) -> None:
    port = the_node(tree, "csp1d,name", "p1")
    assert Path(port).name.startswith("serial@")
    assert is_enabled(tree, port)
    below = [node for node in tree if node.startswith(f"{port}/")]
    assert not [node for node in below if is_enabled(tree, node)]


def test_no_other_device_claims_a_pin_of_the_hat(tree: Tree, overlay: Tree) -> None:
    owners: dict[int, list[str]] = {pin: [] for pin in hat_pins(overlay)}
    for path, node in tree.items():
        if "pinctrl-0" in node and is_enabled(tree, path):
            for group in cells(node["pinctrl-0"]):
                for pin in cells(tree[node_of(tree, group)].get("brcm,pins", b"")):
                    owners.setdefault(pin, []).append(path)
    assert {pin: owners[pin] for pin in hat_pins(overlay) if len(owners[pin]) != 1} == {}


def hat_pins(overlay: Tree) -> list[int]:
    groups = (cells(node["brcm,pins"]) for node in overlay.values() if "brcm,pins" in node)
    return sorted(pin for group in groups for pin in group)


@pytest.fixture
def fitted(hat: Hat, tmp_path: Path) -> Config:
    """The configuration with the drop-in."""
    folder = tmp_path / "csp1d.toml.d"
    folder.mkdir()
    shutil.copy(hat.drop_in, folder / f"50-{hat.name}.toml")
    (tmp_path / "csp1d.toml").touch()
    return load(tmp_path / "csp1d.toml")


def test_the_drop_in_fits_the_overlay(fitted: Config, overlay: Tree) -> None:
    assert the_node(overlay, "label", fitted.adc.device)
    names = [strings(node["csp1d,name"])[0] for node in overlay.values() if "csp1d,name" in node]
    assert [fitted.p1.request.chip, fitted.p1.device] == [f"/dev/csp1d/{name}" for name in names]
    gpio = overlay[the_node(overlay, "csp1d,name", "request")]
    assert fitted.p1.request.line in strings(gpio["gpio-line-names"])
    assert fitted.p1.request.active_low
    assert fitted.leds == Config().leds


@pytest.mark.parametrize("hat", [MCP3912], ids=str, indirect=True)
def test_the_spi_adcs_clock_gives_the_rate(hat: Hat, fitted: Config, overlay: Tree) -> None:
    assert fitted.adc.trigger == f"{hat.chip.removeprefix('microchip,')}-dev0"
    clock = overlay[the_node(overlay, "compatible", "fixed-clock")]
    (hertz,) = cells(clock["clock-frequency"])
    assert hertz / 4 / 256 == fitted.adc.sampling_frequency_hz


@pytest.mark.parametrize("hat", [AD7991], ids=str, indirect=True)
def test_the_i2c_bus_carries_the_rate(fitted: Config, manual: str) -> None:
    """As docs/buy.md computes it: two address bytes, a command byte and two bytes per input."""
    rate = fitted.adc.sampling_frequency_hz
    for inputs in (3, 4):
        seconds = (9 * (3 + 2 * inputs) + 3) / 400e3
        load = round(100 * seconds * rate)
        assert f"| {inputs} | {seconds * 1e6:.0f} µs | {1 / seconds:.0f} | {load} % |" in manual
        assert load < 60
    # No odd harmonic below twice the rate folds to within 10 Hz of another one.
    for mains in (50, 60):
        for harmonic in range(mains, 2 * int(rate), 2 * mains):
            if cycles := round(harmonic / rate):
                folded = abs(harmonic - rate * cycles) % (2 * mains)
                assert abs(folded - mains) > 10


def test_the_drop_in_measures_what_the_driver_stores(hat: Hat, fitted: Config) -> None:
    """80 A are within the ADC's range, and are read correctly from the driver's words."""
    channels, rate = fitted.channels.used(), fitted.adc.sampling_frequency_hz
    codes_per_ampere = {
        phase: 1000 * c.burden_ohms / c.ct_ratio / hat.scale for phase, c in channels.items()
    }
    peak = 80 * 2**0.5
    assert max(codes_per_ampere.values()) * hat.scale * peak < hat.limit_millivolts
    seconds = np.arange(int(3 * rate)) / rate
    records = np.zeros(len(seconds), hat.layout)
    declared = ScanType.parse(hat.type)
    for row, factor in enumerate(codes_per_ampere.values()):
        wave = factor * peak * np.sin(2 * np.pi * (50 * seconds - row / 3))
        codes = hat.bias + np.rint(wave).astype(np.int64)
        records["codes"][:, row] = codes & ((1 << declared.bits) - 1) | hat.marks[row]
    records["time"] = 1e12 + seconds * 1e9
    scan_format = ScanFormat(
        0.0,
        tuple(
            Channel(c.input, phase, index, ScanType.parse(c.type or hat.type), hat.scale, 0)
            for index, (phase, c) in enumerate(channels.items())
        ),
        Timestamp(4, ScanType.parse("le:s64/64>>0")),
    )
    readings = Metering(scan_format, channels, fitted.measurement).feed(records.tobytes())
    assert readings
    for reading in readings:
        for phase, current in reading.phases.items():
            offset = hat.bias / codes_per_ampere[phase]
            assert current.rms_amperes == pytest.approx(80, rel=1e-4)
            assert current.dc_offset_amperes == pytest.approx(offset, abs=2e-3)
            assert current.clipped_samples == 0


# Raspberry Pi's header: GPIO by pin.
HEADER = {
    3: 2, 5: 3, 8: 14, 10: 15, 11: 17, 15: 22, 16: 23, 18: 24, 19: 10, 21: 9, 22: 25, 23: 11, 24: 8,
}  # fmt: skip


def test_the_manual_lists_the_pins(manual: str, overlay: Tree) -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (?:in|out|both) \|", manual, re.MULTILINE)
    assert sorted(int(gpio) for _, gpio in rows) == hat_pins(overlay)
    assert all(HEADER[int(pin)] == int(gpio) for pin, gpio in rows)


def test_the_manuals_budget_adds_up(manual: str) -> None:
    rows = re.findall(r"^\| (.+?) \|((?: \**\d+\.\d\d\** \|)+)$", manual, re.MULTILINE)
    numbers = [np.array(re.findall(r"[\d.]+", cells), float) for _, cells in rows]
    *causes, total, likely = numbers
    assert np.sum(causes, axis=0) == pytest.approx(total)
    assert np.sqrt(np.sum(np.square(causes), axis=0)) == pytest.approx(likely, abs=0.005)


def test_the_manuals_nonlinearity_is_that_of_the_codes() -> None:
    """Of 1, 2 and 1 codes beside the peak of 16 A."""
    codes = ((3300 / 2**12, 19.5), (2 * 1800 / 2**12, 10.0), (1024 / 2**15, 13.5))
    shares = [f"{volts / (16 * 2**0.5 * ohms / 2) * 100:.2f}" for volts, ohms in codes]
    row = re.search(r"^\| nonlinearity [^|]+\|(.+)\|$", (ROOT / "docs/buy.md").read_text(), re.M)
    assert row
    assert row[1].split(" | ")[::2] == [f" {shares[0]}", *shares[1:]]


def test_each_overlay_is_tested() -> None:
    assert {hat.overlay for hat in HATS} == {*OVERLAYS.glob("*.dts")}


@pytest.mark.parametrize(
    ("way", "burden", "limit_millivolts", "scale"),
    [
        ("A", 19.5, 1650, 3300 / 2**12),
        ("B", 10, 900, 1800 / 2**12),
        ("C", 13.5, 1024, 1024 / 2**15),
    ],
)
def test_the_manuals_ranges(way: str, burden: float, limit_millivolts: float, scale: float) -> None:
    """Of transformers of 2000:1, for the ADCs of docs/buy.md."""
    per_ampere = burden / 2
    row = (
        f"| {way} | {burden:g} Ω | {per_ampere:g} mV | {80 * per_ampere:g} mV"
        f" | {80 * per_ampere * 2**0.5:.0f} mV | {limit_millivolts:g} mV"
        f" | {limit_millivolts / (80 * per_ampere):.2f}"
        f" | {limit_millivolts / per_ampere / 2**0.5:.0f} A | {1000 * scale / per_ampere:.2g} mA |"
    )
    assert row in (ROOT / "docs/buy.md").read_text()


def test_the_manuals_node_of_another_adc_fits_the_overlay(tmp_path: Path) -> None:
    """The ADS1115 that docs/buy.md puts in the place of the AD7991."""
    manual = (ROOT / "docs/buy.md").read_text()
    (node,) = re.findall(r"^    (adc@48 \{\n(?:    .*\n)+?    \};\n)", manual, re.MULTILINE)
    source, count = re.subn(r"adc@28 \{[^}]+\};\n", node, AD7991.overlay.read_text())
    assert count == 1
    tree = applied(source, BOARDS[0], tmp_path)
    path = the_node(tree, "label", Config().adc.device)
    assert strings(tree[path]["compatible"]) == ["ti,ads1115"]
    (channel,) = (name for name in tree if name.startswith(f"{path}/"))
    # ti,ads1015.yaml: the input voltage0-voltage1, a range of 1024 mV, 860 samples per second.
    assert {key: cells(tree[channel][key]) for key in ("reg", "ti,gain", "ti,datarate")} == {
        "reg": [0], "ti,gain": [3], "ti,datarate": [7],
    }  # fmt: skip


@pytest.mark.parametrize("clock", [0.9, 0.9225, 0.95, 1.0, 1.0575, 1.0775, 1.1])
@pytest.mark.parametrize(
    ("harmonics", "limit"),
    [({1: 1.0}, 0.01), ({1: 1.0, 3: 0.2}, 0.015), ({1: 1.0, 3: 0.6, 5: 0.3}, 0.04)],
)
def test_conversions_out_of_step_cost_little(
    harmonics: dict[int, float], limit: float, clock: float
) -> None:
    """Each scan of an ADS1115 takes its last conversion, a mean over 1/860 s of its own clock.

    Compared with the current after that mean, which is a filter.
    """
    channels = {Phase.L1: ChannelConfig("voltage0-voltage1", burden_ohms=13.5)}
    channel = Channel("voltage0-voltage1", "L1", 0, ScanType.parse("le:s16/16>>0"), 1024 / 2**15, 0)
    stamps = Timestamp(8, ScanType.parse("le:s64/64>>0"))
    metering = Metering(ScanFormat(0.0, (channel,), stamps), channels, MeasurementConfig())
    conversions, seconds = 860 * clock, np.arange(5 * 860) / 860
    taken = np.floor(seconds * conversions + 0.4) / conversions
    hertz = 50.05 * np.array([*harmonics])
    peaks = 20 * np.array([*harmonics.values()]) * np.sinc(hertz / conversions)
    angles = 2 * np.pi * np.outer(taken - 0.5 / conversions, hertz) + [*harmonics]
    records = np.zeros(len(taken), [("code", "<i2"), ("padding", "<u2", 3), ("time", "<i8")])
    records["code"] = np.rint(np.sin(angles) @ peaks / 2000 * 13.5 * 1000 / channel.scale)
    records["time"] = 1e12 + seconds * 1e9
    readings = metering.feed(records.tobytes())
    assert len(readings) > 2
    for reading in readings:
        expected = np.sqrt(np.sum(peaks**2) / 2)
        assert reading.phases[Phase.L1].rms_amperes == pytest.approx(expected, rel=limit)
