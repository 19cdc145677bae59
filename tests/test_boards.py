# SPDX-License-Identifier: Apache-2.0
"""The host's half of tools/boards: the currents that it plays, the wire that it judges, the trees
that it makes. The boards themselves run there.
"""

import struct
import sys
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

sys.path.append(str(Path(__file__).parent / "kernel"))

import boards
from guest.telegrams import with_amperes
from test_overlay import BOARDS

from csp1d.config import Config

ROOT = Path(__file__).parents[1]
GOLDEN = (ROOT / "tests/p1/golden-24A.p1").read_bytes()
EXPECTED = with_amperes(GOLDEN, [24, 10, 0])
# The parts of QEMU's tree of its board that the overlay uses.
VIRT = """
/dts-v1/;
/ {
    #address-cells = <1>;
    #size-cells = <1>;
    gpio: pl061@9030000 { reg = <0x9030000 0x1000>; gpio-controller; #gpio-cells = <2>; };
    pl011@9000000 { reg = <0x9000000 0x1000>; };
};
"""


def test_the_golden_telegram_has_the_checksum_that_a_new_one_gets() -> None:
    assert with_amperes(GOLDEN, [24, 24, 24]) == GOLDEN


def test_the_currents_played_are_those_expected() -> None:
    rows = np.array(list(struct.iter_unpack("<4i", boards.samples())))
    assert len(rows) * boards.MAINS_HERTZ == boards.SCANS_PER_SECOND
    amperes = rows.std(axis=0) / 1e9 / boards.OHMS * boards.TURNS
    assert amperes == pytest.approx([24, 10, 0, 0], abs=1e-3)
    assert (rows.max(axis=0) > rows.min(axis=0)).all(), "an input that never moves"


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        (b"", 0),
        (EXPECTED, 1),
        (EXPECTED * 3 + EXPECTED[:100], 3),
        (EXPECTED[:100] + EXPECTED, 1),
    ],
)
def test_telegrams_are_counted(sent: bytes, number: int) -> None:
    assert boards.telegrams(sent, EXPECTED) == number


@pytest.mark.parametrize(
    "sent",
    [
        b"[    0.0] Booting Linux\r\n" + EXPECTED,
        EXPECTED + b"login: ",
        GOLDEN,
        EXPECTED.replace(b"(40)", b"(50)"),
        EXPECTED[100:] + EXPECTED,
        EXPECTED[:100] + b"X" + EXPECTED[101:200],
    ],
    ids=["kernel messages", "login", "other currents", "other byte", "rest", "broken off wrongly"],
)
def test_anything_else_on_the_wire_is_an_error(sent: bytes) -> None:
    with pytest.raises(boards.BoardError):
        boards.telegrams(sent, EXPECTED)


@pytest.fixture(params=["virt", "raspi3b"])
def board(request: pytest.FixtureRequest) -> boards.Board:
    return boards.BOARDS[request.param]


@pytest.fixture
def tree(board: boards.Board, tmp_path: Path) -> Tree:
    """The tree with which a board boots."""
    if board is boards.VIRT:
        base = compiled(VIRT, tmp_path / "base.dtb", warnings=False)
        overlays: tuple[Path, ...] = (boards.HERE / "overlays/virt.dts",)
    else:
        base = debian_trees(BOARDS) / "bcm2837-rpi-3-b.dtb"
        overlays = boards.RASPBERRY_OVERLAYS
    return read_tree(boards.with_overlays(base, tmp_path, *overlays))


def test_the_emulated_adc_takes_the_place_of_the_real_one(tree: Tree) -> None:
    path = the_node(tree, "label", Config().adc.device)
    assert strings(tree[path]["compatible"]) == ["microchip,mcp3912"]
    bus = str(Path(path).parent)
    assert is_enabled(tree, path)
    assert strings(tree[bus]["compatible"]) == ["csp1d,mcp391x"]
    assert node_of(tree, *cells(tree[path]["interrupt-parent"])) == bus
    assert "interrupt-controller" in tree[bus]
    assert cells(tree[path]["interrupts"]) == [0, 2]


def test_the_pins_are_those_that_the_host_drives_and_sees(board: boards.Board, tree: Tree) -> None:
    gpio = the_node(tree, "csp1d,name", "request")
    assert strings(tree[gpio]["gpio-line-names"])[board.request] == Config().p1.request.line
    for role, line in board.leds.items():
        led = tree[the_node(tree, "label", getattr(Config().leds, role))]
        chip, *pin = cells(led["gpios"])
        assert (node_of(tree, chip), pin) == (gpio, [line, 0])


def test_the_boards_are_described() -> None:
    manual = (ROOT / "docs/hat.md").read_text()
    assert "tools/boards" in manual
    for name in boards.BOARDS:
        assert f"`{name}`" in manual
    help_text = run(sys.executable, ROOT / "tests/kernel/boards.py", "--help")
    assert all(name in help_text for name in boards.BOARDS)
