# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/integrate.md: the fields that they use exist, and the Python program reads
telegrams as described there.
"""

import json
import os
import re
import subprocess
import sys
import time
import tty
from dataclasses import replace
from pathlib import Path

import pytest
from child import child
from states import END_NS, MEASURING, READING, status_json

from csp1d.config import DirectionConfig, P1Config
from csp1d.interfaces.pages import history_json
from csp1d.measuring.history import History
from csp1d.measuring.reading import DirectionReading
from csp1d.p1.telegram import encode
from csp1d.phase import Phase

PAGE = (Path(__file__).parents[1] / "docs" / "integrate.md").read_text()
EXPRESSIONS = re.findall(r"jq: (.+)|jq -?\w* ?'(.+)'|{{ (.+?) }}|`(\[?\.reading[^`]+)`", PAGE)
FIELDS = {
    field
    for expression in EXPRESSIONS
    for field in re.findall(r"(?:^|[\[ ]|value_json)\.([a-z][\w.]*)", "".join(expression))
}


def test_the_fields_are_found() -> None:
    active = "reading.direction.active_current_amperes"
    of_status = {"reading.phases.L1.rms_amperes", "headline", "problems", active}
    assert of_status | {"current_amperes", "current_amperes.L1.mean"} <= FIELDS


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_the_fields_exist(field: str) -> None:
    direction = DirectionReading(dict.fromkeys(Phase, 1.0), frozenset(), "", "")
    phases = dict.fromkeys(Phase, READING.phases[Phase.L1])
    reading = replace(READING, phases=phases, direction=direction)
    history = history_json(History().append(reading, END_NS), END_NS, 0.0)
    value = {**json.loads(history), **status_json(replace(MEASURING, reading=reading), END_NS)}
    for key in field.split("."):
        assert key in value
        value = value[key]


def test_the_program_reads_telegrams(tmp_path: Path) -> None:
    device, port = os.openpty()
    tty.setraw(port)
    program = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    assert "/dev/ttyUSB0" in program
    assert "timeout=5" in program
    program = program.replace("/dev/ttyUSB0", os.ttyname(port)).replace("timeout=5", "timeout=1")
    noon = time.struct_time((2026, 7, 1, 12, 0, 0, 2, 182, 1))
    whole = encode(P1Config(profile="smr5"), (24.0, 10.5, 0.0), noon, DirectionConfig())
    with child([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        # Silence, then an aborted telegram before a whole one, then one with a wrong figure.
        shown = [reader.stdout.readline()]
        os.write(device, whole[:400] + whole)
        while "{" not in shown[-1]:
            shown.append(reader.stdout.readline())
        os.write(device, whole.replace(b"024*A", b"025*A"))
        shown.append(reader.stdout.readline())
        reader.terminate()
    assert {*shown[:-2]} == {"unknown\n"}
    assert shown[-2:] == ["{'L1': 24.0, 'L2': 11.0, 'L3': 0.0}\n", "unknown\n"]
    os.close(device)
    os.close(port)
