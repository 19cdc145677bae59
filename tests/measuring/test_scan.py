# SPDX-License-Identifier: Apache-2.0
"""Types, layouts and codes, against the kernel's rules in their simplest form."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp1d.errors import ScanFormatError, ScanTypeError
from csp1d.measuring.scan import Channel, ScanFormat, Timestamp
from csp1d.scan_type import ScanType

TIME = Timestamp(99, ScanType.parse("le:s64/64>>0"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("le:s12/16>>4", ScanType(False, True, 12, 16, 4)),
        ("be:u24/32>>8", ScanType(True, False, 24, 32, 8)),
        ("le:s16/32X2>>0", ScanType(False, True, 16, 32, 0, 2)),
        ("le:u8/8>>0\n", ScanType(False, False, 8, 8)),
        ("le:s64/64>>0", ScanType(False, True, 64, 64)),
    ],
)
def test_types(text: str, expected: ScanType) -> None:
    assert ScanType.parse(text) == expected
    assert str(expected) == text.strip()


@pytest.mark.parametrize("text", ["be:s24/32", "be:s24/32X1>>0", "be:s24/32X0>>0"])
def test_a_type_may_omit_defaults(text: str) -> None:
    assert str(ScanType.parse(text)) == "be:s24/32>>0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a scan type"),
        ("le:f32/32>>0", "not a scan type"),
        ("s16/16>>0", "not a scan type"),
        ("le:s16/16>>0 or so", "not a scan type"),
        ("le:s-1/16>>0", "not a scan type"),
        ("le:s16/16>>1", "fit into the storage"),
        ("le:s0/16>>0", "fit into the storage"),
        ("le:s24/24>>0", "8, 16, 32 or 64"),
        ("le:s12/12>>0", "8, 16, 32 or 64"),
        ("le:s16/128>>0", "8, 16, 32 or 64"),
    ],
)
def test_text_that_is_not_a_type(text: str, message: str) -> None:
    with pytest.raises(ScanTypeError, match=message):
        ScanType.parse(text)


def test_the_message_shows_how_a_type_is_written() -> None:
    with pytest.raises(ScanTypeError) as caught:
        ScanType.parse("u16")
    assert str(caught.value) == (
        "'u16' is not a scan type: write it like le:s12/16>>4"
        " (be or le, s or u, BITS/STORAGE, XREPEAT if above 1, >>SHIFT)"
    )


def scan_format(*types: str, timestamp: bool) -> ScanFormat:
    channels = tuple(
        Channel(f"voltage{index}", f"phase {index}", index, ScanType.parse(text), 1.0)
        for index, text in enumerate(types)
    )
    return ScanFormat(4000, channels, TIME if timestamp else None)


def offsets_of(made: ScanFormat) -> dict[str, int]:
    assert made.record.fields
    return {name: field[1] for name, field in made.record.fields.items()}


@pytest.mark.parametrize(
    ("types", "timestamp", "offsets", "timestamp_offset", "scan_bytes"),
    [
        (["le:u16/16"] * 3, False, [0, 2, 4], None, 6),
        (["le:u16/16"] * 3, True, [0, 2, 4], 8, 16),
        (["le:u16/16"] * 4, True, [0, 2, 4, 6], 8, 16),
        (["le:s24/32"] * 3, False, [0, 4, 8], None, 12),
        (["le:s24/32"] * 3, True, [0, 4, 8], 16, 24),
        (["le:u8/8"], False, [0], None, 1),
        (["le:u8/8"], True, [0], 8, 16),
        (["le:u8/8", "le:u16/16", "le:u8/8"], False, [0, 2, 4], None, 6),
        (["le:u16/16", "le:u32/32", "le:u16/16"], False, [0, 4, 8], None, 12),
        (["le:u32/32", "le:u16/16"], False, [0, 4], None, 8),
        (["le:u16/16", "le:s64/64"], True, [0, 8], 16, 24),
        (["le:u16/16X2", "le:u16/16"], False, [0, 4], None, 8),
        (["le:u16/16", "le:u16/16X4"], True, [0, 8], 16, 24),
        # Elements longer than 8 bytes: the timestamp is after the padding.
        (["le:u32/32X4"], True, [0], 24, 32),
        # ALIGN() to a length that is not a power of two does not round up.
        (["le:u16/16", "le:u16/16X3"], False, [0, 2], None, 8),
        (["le:u16/16X3", "le:u16/16X3"], False, [0, 10], None, 16),
        (["le:u16/16X3"], True, [0], 8, 16),
        (["le:u32/32X3"], True, [0], 24, 32),
    ],
)
def test_layout(
    types: list[str],
    timestamp: bool,
    offsets: list[int],
    timestamp_offset: int | None,
    scan_bytes: int,
) -> None:
    made = scan_format(*types, timestamp=timestamp)
    found = offsets_of(made)
    assert found.pop("timestamp", None) == timestamp_offset
    assert list(found.values()) == offsets
    assert made.scan_bytes == scan_bytes


def test_elements_are_ordered_by_index() -> None:
    type_ = ScanType.parse("le:u16/16>>0")
    made = ScanFormat(
        4000, (Channel("voltage5", "L1", 5, type_, 1.0), Channel("voltage2", "L2", 2, type_, 1.0))
    )
    assert [channel.id for channel in made.channels] == ["voltage2", "voltage5"]
    assert offsets_of(made) == {"0": 0, "1": 2}


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ([], "at least one"),
        ([("voltage0", 0), ("voltage1", 0)], "its own index, got 0, 0"),
        ([("voltage0", 0), ("voltage0", 1)], "its own id, got voltage0, voltage0"),
    ],
)
def test_elements_that_do_not_form_a_scan(channels: list[tuple[str, int]], message: str) -> None:
    type_ = ScanType.parse("le:u16/16>>0")
    with pytest.raises(ScanFormatError, match=message):
        ScanFormat(4000, tuple(Channel(id_, "L1", index, type_, 1.0) for id_, index in channels))


@pytest.mark.parametrize("type_text", ["le:s32/32>>0", "le:s32/32X2>>0", "le:s64/64X2>>0"])
def test_a_timestamp_has_64_bits(type_text: str) -> None:
    type_ = ScanType.parse(type_text)
    with pytest.raises(ScanFormatError, match="64 bits"):
        ScanFormat(4000, (Channel("voltage0", "L1", 0, type_, 1.0),), Timestamp(1, type_))


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize("hertz", [-1, 1e-300, 0.9, 1.1e7, 1e308, 10**400, NAN, INFINITE])
def test_rates_that_are_not_supported(hertz: float) -> None:
    channel = Channel("voltage0", "L1", 0, ScanType.parse("le:u16/16>>0"), 1.0)
    with pytest.raises(
        ScanFormatError, match=r"sampling_frequency_hz: must be between 1 and 10000000, .* got "
    ):
        ScanFormat(hertz, (channel,))


@pytest.mark.parametrize("number", [NAN, INFINITE, -INFINITE, 1e308, 10**400, -1e16])
@pytest.mark.parametrize("what", ["scale", "offset"])
def test_scales_and_offsets_that_are_not_supported(what: str, number: float) -> None:
    channel = Channel("voltage0", "L1", 0, ScanType.parse("le:u16/16>>0"), 1.0)
    with pytest.raises(
        ScanFormatError, match=rf"channels: the {what} of voltage0 is not plausible: "
    ):
        ScanFormat(4000, (replace(channel, **{what: number}),))  # type: ignore[arg-type]


def test_a_phase_has_one_channel() -> None:
    type_ = ScanType.parse("le:u16/16>>0")
    with pytest.raises(ScanFormatError, match="channels: each needs its own phase, got L1, L1"):
        ScanFormat(4000, tuple(Channel(f"voltage{n}", "L1", n, type_, 1.0) for n in range(2)))


@pytest.mark.parametrize("index", [-1, 2, 3])
def test_the_timestamp_comes_last(index: int) -> None:
    channel = Channel("voltage3", "L1", 3, ScanType.parse("le:u16/16>>0"), 1.0)
    with pytest.raises(ScanFormatError, match="must be the highest"):
        ScanFormat(4000, (channel,), Timestamp(index, TIME.type))


U16, S64 = ScanType.parse("le:u16/16>>0"), ScanType.parse("le:s64/64>>0")
FIRST = Channel("voltage0", "L1", 0, U16, 1.0)
SECOND = Channel("voltage1", "L2", 1, U16, 1.0)

# What is passed to ScanFormat, and the message.
MESSAGES: list[tuple[dict[str, Any], str]] = [
    (
        {"sampling_frequency_hz": 0.5},
        "sampling_frequency_hz: must be between 1 and 10000000, or 0 if unknown, got 0.5",
    ),
    ({"channels": ()}, "channels: a scan needs at least one channel"),
    (
        {"channels": (FIRST, replace(SECOND, index=0))},
        "channels: each needs its own index, got 0, 0",
    ),
    (
        {"channels": (FIRST, replace(SECOND, id="voltage0"))},
        "channels: each needs its own id, got voltage0, voltage0",
    ),
    (
        {"channels": (FIRST, replace(SECOND, phase="L1"))},
        "channels: each needs its own phase, got L1, L1",
    ),
    (
        {"channels": (FIRST, replace(SECOND, scale=-1e16))},
        "channels: the scale of voltage1 is not plausible: -1e+16",
    ),
    (
        {"channels": (FIRST, replace(SECOND, offset=10**60))},
        f"channels: the offset of voltage1 is not plausible: 1{'0' * 39}",
    ),
    (
        {"timestamp": Timestamp(2, ScanType.parse("le:s32/32>>0"))},
        "timestamp: type: must have 64 bits, got le:s32/32>>0",
    ),
    (
        {"timestamp": Timestamp(1, S64)},
        "timestamp: index: must be the highest, since the timestamp is last in a scan, got 1"
        " (voltage1 has 1)",
    ),
]


@pytest.mark.parametrize(("changed", "message"), MESSAGES)
def test_messages_name_the_field_and_the_value(changed: dict[str, Any], message: str) -> None:
    good = {"sampling_frequency_hz": 4000.0, "channels": (FIRST, SECOND), "timestamp": None}
    with pytest.raises(ScanFormatError) as caught:
        ScanFormat(**good | changed)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("hertz", [0, 200, 1e7])
def test_the_slowest_and_the_fastest_rate(hertz: float) -> None:
    assert ScanFormat(hertz, (FIRST,)).sampling_frequency_hz == hertz


def test_the_largest_scale_and_offset() -> None:
    for number in (2.0**53, -(2.0**53)):
        assert ScanFormat(0, (replace(FIRST, scale=number, offset=number),)).scan_bytes == 2


def test_timestamps_of_any_byte_order() -> None:
    made = replace(
        scan_format("le:u16/16", timestamp=True),
        timestamp=Timestamp(99, ScanType.parse("be:u64/64>>0")),
    )
    stamp = 1_700_000_000_123_456_789
    decoded = made.decode(bytes(8) + stamp.to_bytes(8, "big"))
    assert decoded.timestamps is not None
    assert decoded.timestamps.dtype == np.int64
    assert [int(value) for value in decoded.timestamps] == [stamp]


def test_part_of_a_scan_is_rejected() -> None:
    made = scan_format("le:u16/16", timestamp=True)
    with pytest.raises(
        ScanFormatError, match="17 bytes are not a whole number of scans of 16 bytes"
    ):
        made.decode(bytes(17))


def test_nothing_decodes_to_nothing() -> None:
    decoded = scan_format("le:u16/16", timestamp=True).decode(b"")
    assert decoded.codes[0].shape == (0,)
    assert decoded.timestamps is not None
    assert decoded.timestamps.shape == (0,)


@dataclass(frozen=True)
class Element:
    offset: int
    type: ScanType

    def code(self, scan: bytes, repeat: int) -> int:
        """One code, as tools/iio/iio_generic_buffer.c decodes it."""
        size = self.type.storage_bits // 8
        begin = self.offset + repeat * size
        order = "big" if self.type.big_endian else "little"
        value = int.from_bytes(scan[begin : begin + size], order)  # type: ignore[arg-type]
        value = (value >> self.type.shift) & ((1 << self.type.bits) - 1)
        if self.type.signed and value >> (self.type.bits - 1):
            value -= 1 << self.type.bits
        return value


@st.composite
def scan_types(draw: st.DrawFn) -> ScanType:
    storage = draw(st.sampled_from([8, 16, 32, 64]))
    bits = draw(st.integers(1, storage))
    shift = draw(st.integers(0, storage - bits))
    repeat = draw(st.sampled_from([1, 1, 1, 2, 3, 4]))
    return ScanType(draw(st.booleans()), draw(st.booleans()), bits, storage, shift, repeat)


@settings(max_examples=300)
@given(
    types=st.lists(scan_types(), min_size=1, max_size=5),
    timestamp=st.booleans(),
    scans=st.integers(0, 5),
    seed=st.integers(0, 1 << 32),
)
def test_codes_follow_the_kernels_rules(
    types: list[ScanType], timestamp: bool, scans: int, seed: int
) -> None:
    made = scan_format(*map(str, types), timestamp=timestamp)
    data = np.random.default_rng(seed).bytes(scans * made.scan_bytes)
    chunks = [data[i * made.scan_bytes :][: made.scan_bytes] for i in range(scans)]
    decoded = made.decode(data)
    offsets = offsets_of(made)
    stamp_offset = offsets.pop("timestamp", None)
    for codes, offset, type_ in zip(decoded.codes, offsets.values(), types, strict=True):
        element = Element(offset, type_)
        expected = [[element.code(scan, n) for n in range(type_.repeat)] for scan in chunks]
        assert codes.reshape(scans, type_.repeat).tolist() == expected
        assert codes.shape == ((scans,) if type_.repeat == 1 else (scans, type_.repeat))
        for code in codes.ravel().tolist():
            assert type_.lowest <= code <= type_.highest
    if timestamp:
        assert stamp_offset is not None
        assert decoded.timestamps is not None
        element = Element(stamp_offset, TIME.type)
        stamps = [int(value) for value in decoded.timestamps]
        assert stamps == [element.code(scan, 0) for scan in chunks]
