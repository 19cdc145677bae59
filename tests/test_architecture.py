# SPDX-License-Identifier: Apache-2.0
"""docs/architecture.md names each module, and the layers that the import contracts enforce."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/architecture.md").read_text()
MODULES = {
    path.relative_to(ROOT / "csp1d")
    for path in (ROOT / "csp1d").rglob("*.py")
    if path.name != "__init__.py"
}


def section(title: str) -> str:
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("module", sorted(MODULES), ids=str)
def test_each_module_is_in_the_table_of_its_folder(module: Path) -> None:
    folder = "csp1d" if module.parent == Path() else module.parent.as_posix()
    rows = re.findall(rf"^\| {folder}/ \|(.*)\|$", section("The modules"), re.MULTILINE)
    assert len(rows) == 1, folder
    assert f"`{module.stem}`" in rows[0]


def test_the_layers_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = [set(layer.split(" | ")) for layer in contracts["contracts"][0]["layers"]]
    diagram = section("The layers").split("```")[1]
    shown = [set(line.split("#")[0].split()) for line in diagram.strip("\n").splitlines()]
    assert shown == layers


def test_where_something_is_decided_is_a_module() -> None:
    named = re.findall(r"\b((?:\w+/)?\w+)\.py\b", section("Where is it decided?"))
    assert len(named) > 40
    assert {f"{name}.py" for name in named} <= {path.as_posix() for path in MODULES}
