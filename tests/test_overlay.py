# SPDX-License-Identifier: Apache-2.0
"""The reference HAT: its overlay on real trees, its drop-in, and docs/hat.md against both.

The trees are those of Debian's kernel package. Raspberry Pi's own are in no Debian package:
sketches with their labels stand for them.
"""

import re
import shutil
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

from csp1d.config import Config
from csp1d.config_file import load
from csp1d.measuring.metering import Metering
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.scan_type import ScanType

ROOT = Path(__file__).parents[1]
OVERLAY = ROOT / "overlays/csp1-hat.dts"
DROP_IN = ROOT / "overlays/csp1-hat.toml"
MANUAL = (ROOT / "docs/hat.md").read_text()

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

# The parts of Raspberry Pi's own trees that csp1-hat needs: labels, the node names below the SPI
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


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return read_tree(compiled(OVERLAY.read_text(), tmp_path_factory.mktemp("overlay") / "dtbo"))


@pytest.fixture(scope="module", params=[*BOARDS, *SKETCHES])
def tree(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A board's tree with the overlay applied."""
    folder, board = tmp_path_factory.mktemp("tree"), request.param
    source = OVERLAY.read_text()
    if board in SKETCHES:
        sketch = SKETCH % {"compatible": board, "labels": SKETCHES[board]}
        base = compiled(sketch, folder / "base.dtb", warnings=False)
        if ": spi" not in SKETCHES[board]:
            # As the manual says for the Pi 5.
            (edit,) = re.findall(r"sed '(.+)' overlays/csp1-hat\.dts", MANUAL)
            source = run("sed", edit, OVERLAY)
    else:
        base = debian_trees(BOARDS) / f"{board}.dtb"
    applied = folder / "applied.dtb"
    run("fdtoverlay", "-i", base, "-o", applied, compiled(source, folder / "dtbo"))
    return read_tree(applied)


def test_the_adc_has_the_names_that_its_driver_and_csp1d_search(tree: Tree) -> None:
    path = the_node(tree, "label", Config().adc.device)
    adc = tree[path]
    assert strings(adc["compatible"]) == ["microchip,mcp3912"]
    assert cells(adc["reg"]) == [0]
    bus = str(Path(path).parent)
    gpio = the_node(tree, "csp1d,name", "request")
    assert is_enabled(tree, bus)
    chip, *line = cells(tree[bus]["cs-gpios"])
    assert (node_of(tree, chip), line) == (gpio, [8, 1])
    assert node_of(tree, *cells(adc["interrupt-parent"])) == gpio
    assert cells(adc["interrupts"]) == [25, 2]
    clock = tree[node_of(tree, *cells(adc["clocks"]))]
    assert strings(clock["compatible"]) == ["fixed-clock"]
    neighbours = [node for node in tree if node.startswith(f"{bus}/") and node != path]
    assert not [node for node in neighbours if is_enabled(tree, node)]


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
def fitted(tmp_path: Path) -> Config:
    """The configuration with the drop-in."""
    folder = tmp_path / "csp1d.toml.d"
    folder.mkdir()
    shutil.copy(DROP_IN, folder / "50-csp1-hat.toml")
    (tmp_path / "csp1d.toml").touch()
    return load(tmp_path / "csp1d.toml")


def test_the_drop_in_fits_the_overlay(fitted: Config, overlay: Tree) -> None:
    adc = overlay[the_node(overlay, "label", fitted.adc.device)]
    (chip,) = strings(adc["compatible"])
    assert fitted.adc.trigger == f"{chip.removeprefix('microchip,')}-dev0"
    clock = overlay[the_node(overlay, "compatible", "fixed-clock")]
    (hertz,) = cells(clock["clock-frequency"])
    assert hertz / 4 / 256 == fitted.adc.sampling_frequency_hz
    names = [strings(node["csp1d,name"])[0] for node in overlay.values() if "csp1d,name" in node]
    assert [fitted.p1.request.chip, fitted.p1.device] == [f"/dev/csp1d/{name}" for name in names]
    gpio = overlay[the_node(overlay, "csp1d,name", "request")]
    assert fitted.p1.request.line in strings(gpio["gpio-line-names"])
    assert fitted.p1.request.active_low
    assert fitted.leds == Config().leds


def test_the_drop_in_measures_what_the_driver_stores(fitted: Config) -> None:
    """80 A are within the ADC's range, and read correctly from words in the processor's order.

    The driver fills the upper byte with zeros, reports 1200 mV / (1.5 * 2**23) in nanovolts, and no
    sampling frequency.
    """
    channels, peak = fitted.channels.used(), 80 * 2**0.5
    millivolts = {c: peak / c.ct_ratio * c.burden_ohms * 1000 for c in channels.values()}
    assert max(millivolts.values()) < 600
    seconds = np.arange(3 * 4000) / 4000
    records = np.zeros(len(seconds), [("codes", "<u4", 3), ("padding", "<u4"), ("time", "<i8")])
    for row, channel in enumerate(channels.values()):
        wave = millivolts[channel] * np.sin(2 * np.pi * (50 * seconds - row / 3))
        records["codes"][:, row] = np.rint(wave / 0.000095367).astype(np.int64) & 0xFFFFFF
    records["time"] = 1e12 + seconds * 1e9
    scan_format = ScanFormat(
        0.0,
        tuple(
            Channel(c.input, phase, index, ScanType.parse(c.type), 0.000095367, 0)
            for index, (phase, c) in enumerate(channels.items())
        ),
        Timestamp(4, ScanType.parse("le:s64/64>>0")),
    )
    readings = Metering(scan_format, channels, fitted.measurement).feed(records.tobytes())
    assert readings
    for reading in readings:
        for current in reading.phases.values():
            assert current.rms_amperes == pytest.approx(80, rel=1e-4)
            assert current.dc_offset_amperes == pytest.approx(0, abs=1e-3)
            assert current.clipped_samples == 0


def test_the_manual_lists_the_pins(overlay: Tree) -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (?:in|out) \|", MANUAL, re.MULTILINE)
    assert sorted(int(gpio) for _, gpio in rows) == hat_pins(overlay)
    # Raspberry Pi's header: GPIO by pin.
    header = {8: 14, 10: 15, 11: 17, 15: 22, 16: 23, 18: 24, 19: 10, 21: 9, 22: 25, 23: 11, 24: 8}
    assert {int(pin): int(gpio) for pin, gpio in rows} == header


def test_the_manuals_budget_adds_up() -> None:
    rows = re.findall(
        r"^\| (.+) \| \**(\d+\.\d\d)\** \| \**(\d+\.\d\d)\** \|$", MANUAL, re.MULTILINE
    )
    *causes, total, likely = [np.array([float(cell) for cell in row[1:]]) for row in rows]
    assert np.sum(causes, axis=0) == pytest.approx(total)
    assert np.sqrt(np.sum(np.square(causes), axis=0)) == pytest.approx(likely, abs=0.005)
