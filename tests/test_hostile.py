# SPDX-License-Identifier: Apache-2.0
"""Any input is accepted, or rejected with the error type for it (hostile.py)."""

import json
from typing import Any

import pytest
from hostile import CAPTURES, SEEDS, TARGETS, WORDS, captures, configuration
from hypothesis import given, settings
from hypothesis import strategies as st

from csp1d.config import Config

FOUND = [
    # Found by the fuzzer or in a review.
    ("configuration", b'[channels.L1]\ntype = "le:s64/64>>0"'),
    ("configuration", b"[adc]\ndevice%s = 1" % (b".a" * 5000)),
    ("scenario", b"[[step]]\nat_seconds%s = 1" % (b".a" * 5000)),
    ("status", b'{"version": %s}' % (b"[" * 5000)),
    ("status", b'{"scans_lost_total": %s}' % (b"9" * 5000)),
    ("request", b"GET /metrics HTTP/0.9\r\nHost: x\r\n\r\n"),
    ("scenario", b"L1=" + b"9" * 5000),
    ("scenario", b"step = [1]"),
    ("scenario", b"x = " + b"[" * 5000),
    ("scenario", b"[[step]]\nharmonics_percent = { 99999999999999999999 = 1 }"),
    ("scenario", b"[[step]]\nharmonics_percent = { %s = 1 }" % (b"9" * 5000)),
    pytest.param("play", CAPTURES[0].replace(b'"scale": 0.1', b'"scale": 0.0'), id="play-no scale"),
]


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_inputs_that_failed_once(target: str, data: bytes) -> None:
    TARGETS[target](data)


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A valid input with some places changed."""
    data = draw(st.sampled_from(seeds))
    pieces = st.binary(max_size=8) | st.sampled_from(WORDS).map(str.encode) | st.just(data)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 3) | st.integers(0, len(data)))
        data = data[:start] + draw(pieces) + data[start + cut :]
    return data


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
def test_any_bytes(target: str, data: st.DataObject) -> None:
    TARGETS[target](data.draw(st.binary() | mutations(SEEDS[target])))


def keys(config: Any, prefix: str = "") -> dict[str, Any]:
    """Each key of the configuration, with its default."""
    found: dict[str, Any] = {}
    for name, value in vars(config).items():
        nested = hasattr(value, "__dataclass_fields__")
        found |= keys(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found


KEYS = keys(Config())


def toml(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            pairs = (f"{toml(key)} = {toml(entry)}" for key, entry in value.items())
            return f"{{{', '.join(pairs)}}}"
    return str(value)


TEXTS = st.text(max_size=20) | st.from_regex(r"[!-~]{0,48}", fullmatch=True)
NUMBERS = st.integers() | st.floats() | st.integers(0, 200) | st.floats(0, 1000)
SCALARS = st.booleans() | NUMBERS | TEXTS | st.sampled_from([*KEYS.values(), 10**4000])
VALUES = st.recursive(
    SCALARS,
    # Small, since drawing them takes most of the time.
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(tables=st.lists(st.dictionaries(st.sampled_from([*KEYS]), VALUES, max_size=4), max_size=2))
def test_any_values_in_the_configuration(tables: list[dict[str, Any]]) -> None:
    files = (
        "\n".join(f"{key} = {toml(value)}" for key, value in table.items()) for table in tables
    )
    configuration(b"\0".join(file.encode(errors="replace") for file in files))


@settings(max_examples=200)
@given(seed=st.sampled_from(SEEDS["capture"]), data=st.data())
def test_any_values_in_the_description_of_a_capture(seed: bytes, data: st.DataObject) -> None:
    text, _, scans = seed.partition(b"\0")
    description = json.loads(text)
    tables = [description, *description["channels"], description["timestamp"] or description]
    places = [(table, key) for table in tables for key in table]
    for table, key in data.draw(st.lists(st.sampled_from(places), max_size=3)):
        if data.draw(st.booleans()) and key in table:
            del table[key]
        else:
            table[key] = data.draw(VALUES)
    length = data.draw(st.integers(0, len(scans)))
    captures(json.dumps(description).encode() + b"\0" + scans[:length])
