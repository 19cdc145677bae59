# SPDX-License-Identifier: Apache-2.0
"""Set-up of an ADC, on trees like the kernel's. Its refusals are tested on the kernel."""

import contextlib
import errno
import fcntl
import os
import select
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp1d.config import (
    AdcConfig,
    ChannelConfig,
    ChannelsConfig,
    Config,
    DirectionConfig,
    MeasurementConfig,
)
from csp1d.errors import DeviceAbsentError, DeviceError
from csp1d.hat.iio import IioAdc, find_adc
from csp1d.measuring.metering import Metering
from csp1d.phase import Phase

MCP3912: dict[str, str] = {
    "name": "mcp3912",
    "current_timestamp_clock": "realtime",
    "sampling_frequency": "3900",
    "in_voltage_scale": "0.500000000",
    "in_voltage1_scale": "0.250000000",
    "in_voltage2_offset": "-2048",
    "buffer/enable": "1",
    "buffer/length": "2",
    "buffer/watermark": "1",
    **{
        f"scan_elements/in_voltage{n}_{key}": value
        for n in range(4)
        for key, value in {"en": "1", "index": str(n), "type": "be:s24/32>>0"}.items()
    },
    "scan_elements/in_timestamp_en": "0",
    "scan_elements/in_timestamp_index": "4",
    "scan_elements/in_timestamp_type": "le:s64/64>>0",
}
AXI: dict[str, str] = {
    "name": "ad7606b",
    "sampling_frequency": "1000000",
    "in_voltage_scale": "0.152587890",
    "buffer0/data_available": "0",
    "buffer0/direction": "in",
    "buffer0/enable": "0",
    "buffer0/length": "4096",
    "buffer0/length_align_bytes": "8",
    "buffer0/watermark": "2048",
    **{
        f"buffer0/in_voltage{n}_{key}": value
        for n in range(8)
        for key, value in {"en": "0", "index": str(n), "type": "le:s16/16>>0"}.items()
    },
}
"""An ADC behind a DMA controller: no timestamp, and a buffer as
industrialio-buffer-dmaengine.c makes it."""
READ_ONLY = ("data_available", "direction", "length_align_bytes", "watermark")
THREE = {phase: ChannelConfig(input=f"voltage{n}") for n, phase in enumerate(Phase)}


class Tree:
    def __init__(self, root: Path, files: Mapping[str, str]) -> None:
        self.folder = root / "iio:device0"
        self.node = root / "dev/iio:device0"
        self.bus = root / "bus"
        self.configfs = root / "config"
        for name, content in files.items():
            self.put(self.folder / name, content)
        self.node.parent.mkdir()
        os.mkfifo(self.node)

    def put(self, file: Path, content: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text().strip()

    def open(
        self,
        adc: AdcConfig | None = None,
        channels: Mapping[Phase, ChannelConfig] | None = None,
        direction: DirectionConfig | None = None,
    ) -> IioAdc:
        """`channels`: the phases that are used."""
        unused = dict.fromkeys(Phase, ChannelConfig(input=""))
        config = Config(
            adc=adc or AdcConfig(),
            channels=ChannelsConfig(**unused | dict(channels or THREE)),
            direction=direction or DirectionConfig(),
        )
        return IioAdc(self.folder, config, self.bus, self.node.parent, self.configfs)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path, MCP3912)


def test_set_up_leaves_the_capture_running_as_configured(tree: Tree) -> None:
    adc = tree.open(AdcConfig(sampling_frequency_hz=4000, buffer_seconds=3))
    assert tree.read("sampling_frequency") == "4000"
    assert tree.read("current_timestamp_clock") == "monotonic"
    assert tree.read("buffer/length") == "12000"
    assert tree.read("buffer/watermark") == "80"
    enabled = [n for n in range(4) if tree.read(f"scan_elements/in_voltage{n}_en") == "1"]
    assert enabled == [0, 1, 2]
    assert tree.read("scan_elements/in_timestamp_en") == "1"
    assert tree.read("buffer/enable") == "1"
    adc.close()
    assert tree.read("buffer/enable") == "0"


@pytest.mark.parametrize(
    ("hertz", "written"), [(15625.125, "15625.125"), (1e6, "1000000"), (10_000_000, "10000000")]
)
def test_the_driver_gets_the_rate_as_it_is_configured(
    tree: Tree, hertz: float, written: str
) -> None:
    tree.open(AdcConfig(sampling_frequency_hz=hertz, buffer_seconds=1)).close()
    assert tree.read("sampling_frequency") == written


def test_the_format_has_layout_scale_and_offset(tmp_path: Path) -> None:
    form = Tree(tmp_path, MCP3912 | {"name": "unlisted"}).open().format
    assert form.sampling_frequency_hz == 4000
    assert form.scan_bytes == 24
    assert [channel.phase for channel in form.channels] == ["L1", "L2", "L3"]
    assert [channel.scale for channel in form.channels] == [0.5, 0.25, 0.5]
    assert [channel.offset for channel in form.channels] == [0, 0, -2048]
    assert [str(channel.type) for channel in form.channels] == ["be:s24/32>>0"] * 3


def test_what_the_driver_is_known_to_report_wrongly_is_not_used(tree: Tree) -> None:
    """The byte order of the samples, and an offset that may be a sample of another input."""
    form = tree.open().format
    native = "le" if sys.byteorder == "little" else "be"
    assert [str(channel.type) for channel in form.channels] == [f"{native}:s24/32>>0"] * 3
    assert [channel.offset for channel in form.channels] == [0, 0, 0]
    # The configuration overrides it, for a driver that was corrected since.
    l1 = ChannelConfig(input="voltage0", type="be:s24/32>>0")
    assert str(tree.open(channels={Phase.L1: l1}).format.channels[0].type) == "be:s24/32>>0"


@pytest.mark.parametrize(("stamped", "hertz"), [(True, 0), (False, 3906)])
def test_the_configured_rate_counts_where_nothing_reports_one(
    tmp_path: Path, stamped: bool, hertz: float
) -> None:
    silent = {
        name: content
        for name, content in MCP3912.items()
        if name != "sampling_frequency" and (stamped or "timestamp" not in name)
    }
    form = Tree(tmp_path, silent).open(AdcConfig(sampling_frequency_hz=3906)).format
    assert form.sampling_frequency_hz == hertz


@pytest.mark.parametrize("level", ["in_voltage0_VDD_", "in_voltage_", "in_", ""])
def test_an_input_with_a_name_of_its_own_has_its_attributes_at_any_level(
    tmp_path: Path, level: str
) -> None:
    files = {
        name.replace("voltage0", "voltage0_VDD"): text
        for name, text in MCP3912.items()
        if "/" in name
    } | {"name": "xadc"}
    shared = {"scale": "0.5", "offset": "-7", "sampling_frequency": "3900"}
    tree = Tree(tmp_path, files | {f"{level}{name}": text for name, text in shared.items()})
    tree.put(tree.folder / "sampling_frequency_available", "976 4000")
    adc = tree.open(channels={Phase.L1: ChannelConfig(input="voltage0_VDD")})
    (channel,) = adc.format.channels
    assert (channel.id, channel.scale, channel.offset) == ("voltage0_VDD", 0.5, -7)
    assert (adc.format.sampling_frequency_hz, adc.rate_fault) == (4000, None)
    assert tree.read(f"{level}sampling_frequency") == "4000"


def test_the_rates_of_all_inputs_are_set_and_the_triggers_counts(tree: Tree) -> None:
    tree.put(tree.folder / "trigger/current_trigger", "")
    tree.put(tree.bus / "trigger0/name", "timer")
    tree.put(tree.bus / "trigger0/sampling_frequency", "100")
    for name in ("in_voltage0_sampling_frequency", "in_voltage2_sampling_frequency"):
        tree.put(tree.folder / name, "1")
    adc = tree.open(AdcConfig(trigger="timer", sampling_frequency_hz=2000))
    for name in ("in_voltage0_", "in_voltage2_", ""):
        assert tree.read(f"{name}sampling_frequency") == "2000"
    assert (tree.bus / "trigger0/sampling_frequency").read_text() == "2000"
    assert adc.format.sampling_frequency_hz == 2000


@pytest.mark.parametrize("level", ["in_voltage1_", "in_voltage_", "in_", ""])
def test_the_choices_of_a_rejected_rate_are_found_at_any_level(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    tree.put(tree.folder / f"{level}sampling_frequency_available", "976 3906")
    refuse(monkeypatch, tree.folder / "sampling_frequency", errno.EINVAL)
    channels = {Phase.L1: ChannelConfig(input="voltage1")}
    assert (tree.open(channels=channels).rate_fault or "").endswith("available: 976 3906")


def test_channel_overrides_type_and_scale(tree: Tree) -> None:
    channels = {Phase.L1: ChannelConfig(input="voltage3", type="le:s24/32>>0", scale_millivolts=2)}
    (channel,) = tree.open(channels=channels).format.channels
    assert (str(channel.type), channel.scale, channel.index) == ("le:s24/32>>0", 2, 3)


def test_the_reference_is_one_more_channel(tree: Tree) -> None:
    l1 = ChannelConfig(input="voltage0", type="le:s24/32>>0")
    adc = tree.open(channels=THREE | {Phase.L1: l1}, direction=DirectionConfig("voltage"))
    reference = adc.format.channels[3]
    assert (reference.phase, reference.id, reference.index) == ("reference", "voltage3", 3)
    assert (str(reference.type), reference.scale) == ("le:s24/32>>0", 0.5)
    assert tree.read("scan_elements/in_voltage3_en") == "1"
    assert (adc.format.scan_bytes, adc.reference_fault) == (24, "")


@pytest.mark.parametrize(
    ("files", "reference", "fault"),
    [
        (
            {},
            "voltage7",
            "has no input 'voltage7' for direction.input; it has: voltage0, voltage1, voltage2,",
        ),
        (
            {"scan_elements/in_voltage3_type": "le:s16/16>>0"},
            "voltage3",
            "channels.L1.type 'be:s24/32>>0' does not fit",
        ),
        ({"scan_elements/in_voltage3_type": "x"}, "voltage3", "'x' is not a scan type"),
    ],
)
def test_without_a_reference_the_currents_are_still_captured(
    tmp_path: Path, files: dict[str, str], reference: str, fault: str
) -> None:
    tree = Tree(tmp_path, MCP3912 | files)
    l1 = ChannelConfig(input="voltage0", type="be:s24/32>>0")
    adc = tree.open(
        channels=THREE | {Phase.L1: l1},
        direction=DirectionConfig("voltage", input=reference),
    )
    assert [channel.phase for channel in adc.format.channels] == [*Phase]
    assert fault in adc.reference_fault
    enabled = [n for n in range(4) if tree.read(f"scan_elements/in_voltage{n}_en") == "1"]
    assert enabled == [0, 1, 2]
    assert tree.read("buffer/enable") == "1"


def test_files_under_buffer0_serve_as_well(tmp_path: Path) -> None:
    def moved(name: str) -> str:
        return name.replace("buffer/", "buffer0/").replace("scan_elements/", "buffer0/")

    tree = Tree(tmp_path, {moved(name): content for name, content in MCP3912.items()})
    tree.open()
    assert tree.read("buffer0/enable") == "1"
    assert tree.read("buffer0/in_timestamp_en") == "1"


def test_an_adc_without_time_stamps_has_none_in_its_format(tmp_path: Path) -> None:
    files = {name: text for name, text in MCP3912.items() if "timestamp" not in name}
    assert Tree(tmp_path, files).open().format.timestamp is None


def test_scans_are_read_without_waiting(tree: Tree) -> None:
    adc = tree.open()
    writer = os.open(tree.node, os.O_WRONLY)
    assert adc.read() == b""
    os.write(writer, bytes(24 * 10))
    assert adc.read() == bytes(24 * 10)
    assert adc.read() == b""
    os.close(writer)


def test_a_backlog_is_read_at_once(tree: Tree) -> None:
    adc = tree.open(AdcConfig(sampling_frequency_hz=200, buffer_seconds=2))
    writer = os.open(tree.node, os.O_WRONLY)
    backlog = os.urandom(24 * 2000)
    os.write(writer, backlog)
    assert adc.read() == backlog
    os.close(writer)


def test_a_buffer_is_resized_while_the_device_stays_open(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    adc = tree.open()
    assert adc.buffer_hertz == 4000
    written: list[tuple[str, str]] = []
    write_text = Path.write_text

    def record(file: Path, text: str) -> int:
        written.append((file.name, text))
        return write_text(file, text)

    monkeypatch.setattr(Path, "write_text", record)
    adc.resize(16_000.4)
    assert written == [
        ("enable", "0"),
        ("length", "64001"),
        ("watermark", "320"),
        ("enable", "1"),
    ]
    assert adc.buffer_hertz == 16_000.4
    writer = os.open(tree.node, os.O_WRONLY)
    os.write(writer, bytes(24 * 10))
    assert adc.read() == bytes(24 * 10)
    os.close(writer)


def test_an_adc_whose_larger_buffer_needs_too_much_memory_keeps_the_one_before(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    adc = tree.open()
    write_text, lengths = Path.write_text, list[str]()

    def refuse_long(file: Path, text: str) -> int:
        if file.name == "length":
            lengths.append(text)
        if file.name == "enable" and text == "1" and lengths[-1] == "640000":
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), str(file))
        return write_text(file, text)

    monkeypatch.setattr(Path, "write_text", refuse_long)
    adc.resize(160_000)
    assert lengths == ["640000", "16000"]
    assert tree.read("buffer/enable") == "1"
    # It is not tried again for this rate.
    assert adc.buffer_hertz == 160_000


@pytest.fixture
def axi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path, AXI)
    for name in READ_ONLY:
        (tree.folder / "buffer0" / name).chmod(0o444)
    # sysfs refuses even root.
    refuse(monkeypatch, tree.folder / "buffer0/watermark", errno.EACCES)
    return tree


@pytest.mark.parametrize(
    ("hertz", "align_bytes", "length"),
    [
        (4000, "8", 800),
        (4000, "64", 832),
        (3906, "8", 784),
        (200, "8", 40),
        (1_000_000, "8", 200_000),
        (4000, "0", 800),
    ],
)
def test_a_dma_buffer_gets_two_short_blocks_of_whole_scans_and_keeps_its_watermark(
    axi: Tree, hertz: float, align_bytes: str, length: int
) -> None:
    (axi.folder / "buffer0/length_align_bytes").unlink()
    axi.put(axi.folder / "buffer0/length_align_bytes", align_bytes)
    adc = axi.open(AdcConfig(sampling_frequency_hz=hertz, buffer_seconds=60))
    assert adc.in_blocks
    assert axi.read("buffer0/length") == str(length)
    assert axi.read("buffer0/watermark") == "2048"
    assert axi.read("buffer0/enable") == "1"
    block_bytes = length // 2 * adc.format.scan_bytes
    assert block_bytes % max(1, int(align_bytes)) == 0
    assert 0.1 <= length / 2 / hertz < 0.111
    adc.resize(2 * hertz)
    assert 0.2 <= int(axi.read("buffer0/length")) / 2 / hertz < 0.222
    assert axi.read("buffer0/watermark") == "2048"


def test_a_dma_buffer_without_an_alignment_is_used_as_well(axi: Tree) -> None:
    (axi.folder / "buffer0/length_align_bytes").unlink()
    axi.open()
    assert axi.read("buffer0/length") == "800"


def test_all_complete_blocks_are_read_at_once(axi: Tree) -> None:
    """A read of a DMA buffer returns one block, although another may be complete."""
    adc = axi.open()
    blocks = [os.urandom(6 * 400), os.urandom(6 * 400)]
    writer = os.open(axi.node, os.O_WRONLY)
    # A pipe of packets: a read returns one of them.
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_DIRECT)
    for block in blocks:
        os.write(writer, block)
    assert select.select([adc], [], [], 0)[0]
    assert adc.read() == b"".join(blocks)
    assert adc.read() == b""
    os.close(writer)
    assert adc.read() == b""


@pytest.mark.parametrize("wanted", ["iio:device1", "mcp3912", "csp1-hat-adc"])
def test_an_adc_is_found_by_number_name_or_label(tmp_path: Path, wanted: str) -> None:
    for number, names in enumerate([("rtc", ""), ("mcp3912", "csp1-hat-adc")]):
        folder = tmp_path / f"iio:device{number}"
        folder.mkdir()
        for file, name in zip(("name", "label"), names, strict=True):
            (folder / file).write_text(f"{name}\n")
    assert find_adc(wanted, tmp_path) == tmp_path / "iio:device1"


def test_an_adc_that_is_missing_or_ambiguous_is_named_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(DeviceAbsentError, match="ADC 'mcp3912' not found; IIO devices: none"):
        find_adc("mcp3912", tmp_path)
    for number in (0, 1):
        folder = tmp_path / f"iio:device{number}"
        folder.mkdir()
        (folder / "name").write_text("mcp3912\n")
    with pytest.raises(DeviceAbsentError, match=r"iio:device0 mcp3912, iio:device1 mcp3912 \("):
        find_adc("", tmp_path)
    with pytest.raises(DeviceError, match=r"ambiguous \(2 devices: iio:device0, iio:device1\)"):
        find_adc("mcp3912", tmp_path)


def test_an_hrtimer_trigger_is_made_and_attached(tree: Tree) -> None:
    (tree.configfs / "iio/triggers/hrtimer").mkdir(parents=True)
    tree.put(tree.folder / "trigger/current_trigger", "")
    tree.put(tree.bus / "trigger3/name", "csp1d")
    tree.put(tree.bus / "trigger3/sampling_frequency", "100")
    adc = tree.open(AdcConfig(trigger="hrtimer:csp1d", sampling_frequency_hz=1600))
    assert (tree.configfs / "iio/triggers/hrtimer/csp1d").is_dir()
    assert tree.read("trigger/current_trigger") == "csp1d"
    assert (tree.bus / "trigger3/sampling_frequency").read_text() == "1600"
    assert adc.format.sampling_frequency_hz == 1600


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (
            errno.ENOENT,
            r"\(No such file or directory\): load the module iio-trig-hrtimer and mount",
        ),
        (errno.EEXIST, r"\(File exists\); another trigger has this name: choose another$"),
        (errno.EACCES, r"\(Permission denied\); restart csp1d: its service makes the folder"),
        (errno.ENOMEM, r"\(Cannot allocate memory\)$"),
    ],
)
def test_a_trigger_that_cannot_be_made_is_named_with_the_remedy_for_the_reason(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    def mkdir(path: Path, exist_ok: bool) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(DeviceError, match=rf"adc.trigger 'hrtimer:x' cannot be created {remedy}"):
        tree.open(AdcConfig(trigger="hrtimer:x"))


def test_a_buffer_that_takes_too_much_memory_is_named_with_the_keys(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, tree.folder / "buffer/enable", errno.ENOMEM, "1")
    with pytest.raises(DeviceError, match=r"Cannot allocate memory; reduce adc\.buffer_seconds or"):
        tree.open()


HARDWARE = "devices/spi0.0"


def own_trigger(tree: Tree, *names: str) -> None:
    """Triggers below the hardware of the ADC, on the bus as well."""
    folder = tree.folder.parent / HARDWARE
    for number, name in enumerate(names, 7):
        tree.put(folder / f"trigger{number}/name", name)
    tree.folder.rename(folder / tree.folder.name)
    tree.folder.symlink_to(folder / tree.folder.name)
    tree.bus.mkdir()
    for number in range(7, 7 + len(names)):
        (tree.bus / f"trigger{number}").symlink_to(folder / f"trigger{number}")
    tree.put(tree.folder / "trigger/current_trigger", "")


def test_an_own_trigger_is_found_although_the_device_has_another_number_now(tree: Tree) -> None:
    """It has after a new start, or if it returned while the old device was still open."""
    own_trigger(tree, "mcp3912-dev1")
    tree.open(AdcConfig(trigger="mcp3912-dev0"))
    assert tree.read("trigger/current_trigger") == "mcp3912-dev1"


@pytest.mark.parametrize("name", ["timer1", "timer2"])
def test_one_of_several_own_triggers_is_attached_by_its_exact_name(tree: Tree, name: str) -> None:
    own_trigger(tree, "timer1", "timer2")
    tree.open(AdcConfig(trigger=name))
    assert tree.read("trigger/current_trigger") == name


def test_an_adc_that_refuses_the_trigger_of_another_names_its_own(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_trigger(tree, "ad7606-8-dev0")
    tree.put(tree.bus / "trigger0/name", "csp1d")
    remedy = r"\(Invalid argument\); set adc.trigger to the trigger of this ADC: ad7606-8-dev0$"
    with monkeypatch.context() as patch:
        refuse(patch, tree.folder / "trigger/current_trigger", errno.EINVAL, "csp1d")
        with pytest.raises(DeviceError, match=f"adc.trigger 'csp1d' cannot be attached {remedy}"):
            tree.open(AdcConfig(trigger="csp1d"))
    refuse(monkeypatch, tree.folder / "buffer/enable", errno.EINVAL, "1")
    for trigger in ("", "csp1d"):
        with pytest.raises(DeviceError, match=r"start capturing: Invalid argument; set adc.trig"):
            tree.open(AdcConfig(trigger=trigger))
    with pytest.raises(DeviceError, match=r"start capturing: Invalid argument$"):
        tree.open(AdcConfig(trigger="ad7606-8-dev0"))


def test_a_trigger_that_the_kernel_detaches_is_named(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel accepts a trigger that is gone by then, and detaches."""
    current = tree.folder / "trigger/current_trigger"
    tree.put(current, "")
    tree.put(tree.bus / "trigger0/name", "csp1d")
    refuse(monkeypatch, current, None)
    with pytest.raises(DeviceError, match=r"'csp1d' cannot be attached; triggers: csp1d"):
        tree.open(AdcConfig(trigger="csp1d"))


def test_an_adc_that_may_need_a_trigger_is_told_the_triggers(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    enable = tree.folder / "buffer/enable"
    refuse(monkeypatch, enable, errno.EINVAL, "1")
    hint = "it may need a trigger: set adc.trigger"
    with pytest.raises(DeviceError, match=rf"start capturing: .*; {hint} \(triggers: none yet\)"):
        tree.open()
    tree.put(tree.bus / "trigger0/name", "csp1d")
    with pytest.raises(DeviceError, match=rf"{hint} \(triggers: csp1d\)"):
        tree.open()
    tree.put(tree.folder / "trigger/current_trigger", "")
    with pytest.raises(DeviceError, match=r"start capturing: Invalid argument$"):
        tree.open(AdcConfig(trigger="csp1d"))


@pytest.mark.parametrize(
    ("text", "scale", "doubt"),
    [
        ("0.050354", 0.050354, ""),
        ("0.000101", 0.000101, ""),
        ("0.000099", 0.000099, "rounded to 9.9e-05 mV per code: currents may be wrong by 0.5%"),
        ("0.000012", 0.000012, "rounded to 1.2e-05 mV per code: currents may be wrong by 4.2%"),
        ("-0.000012", -0.000012, "rounded to -1.2e-05 mV per code: currents may be wrong by 4.2%"),
        # A whole number is exact, not rounded.
        ("2", 2.0, ""),
    ],
)
def test_a_scale_that_is_rounded_too_coarsely_is_doubtful(
    tree: Tree, text: str, scale: float, doubt: str
) -> None:
    tree.put(tree.folder / "in_voltage0_scale", text)
    adc = tree.open(channels={Phase.L1: THREE[Phase.L1]})
    assert adc.format.channels[0].scale == scale
    assert len(adc.scale_doubts) == bool(doubt)
    assert all(
        doubt in found and "set channels.L1.scale_millivolts (mV per code)" in found
        for found in adc.scale_doubts
    )
    configured = replace(THREE[Phase.L1], scale_millivolts=0.5)
    assert tree.open(channels={Phase.L1: configured}).scale_doubts == ()


@pytest.mark.parametrize("text", ["0.000000000", "0", "-0.0", "nan", "inf", "-inf", "1e999", "x"])
def test_a_scale_that_says_nothing_is_no_scale(tree: Tree, text: str) -> None:
    tree.put(tree.folder / "in_voltage_scale", text)
    tree.put(tree.folder / "in_voltage1_scale", text)
    with pytest.raises(DeviceError, match=r"scale of voltage0; set channels\.L1\.scale_millivolts"):
        tree.open()
    own = {phase: replace(channel, scale_millivolts=0.5) for phase, channel in THREE.items()}
    assert [channel.scale for channel in tree.open(channels=own).format.channels] == [0.5] * 3


def test_other_bits_than_those_of_the_driver_need_a_scale(tree: Tree) -> None:
    other = ChannelConfig(input="voltage0", type="be:s16/32>>8")
    with pytest.raises(DeviceError, match=r"L1\.type 'be:s16/32>>8' has other bits.*scale_milli"):
        tree.open(channels={Phase.L1: other})
    (channel,) = tree.open(
        channels={Phase.L1: replace(other, scale_millivolts=128)}
    ).format.channels
    assert (str(channel.type), channel.scale) == ("be:s16/32>>8", 128)


def _without(name: str) -> dict[str, str]:
    return {file: content for file, content in MCP3912.items() if file != name}


@pytest.mark.parametrize(
    ("files", "adc", "channel", "complaint"),
    [
        ({"name": "mcp3204"}, {}, {}, "has no buffer.*use an ADC with an IIO buffer"),
        (
            MCP3912,
            {},
            {"input": "voltage7"},
            r"has no input 'voltage7' for channels\.L1\.input; it has: voltage0, voltage1",
        ),
        (_without("in_voltage_scale"), {}, {}, r"does not report the scale.*scale_millivolts"),
        (
            MCP3912,
            {},
            {"type": "le:s16/16>>0"},
            r"channels\.L1\.type 'le:s16/16>>0' does not fit.*declares 'be:s24/32>>0'",
        ),
        (
            MCP3912 | {"scan_elements/in_voltage0_type": "le:x24/32>>0"},
            {},
            {},
            "reports an invalid value: 'le:x24/32>>0' is not a scan type",
        ),
        (MCP3912, {"trigger": "nobody"}, {}, "'nobody' cannot be attached; triggers: data-ready"),
        (MCP3912, {"trigger": "hrtimer:x"}, {}, "cannot be created.*iio-trig-hrtimer"),
    ],
)
def test_an_adc_that_cannot_work_is_named_with_the_remedy(
    tmp_path: Path,
    files: Mapping[str, str],
    adc: dict[str, str],
    channel: dict[str, str],
    complaint: str,
) -> None:
    tree = Tree(tmp_path, files)
    tree.put(tree.bus / "trigger0/name", "data-ready")
    tree.put(tree.folder / "trigger/current_trigger", "")
    with pytest.raises(DeviceError, match=complaint):
        tree.open(
            AdcConfig(**adc),  # type: ignore[arg-type]
            {Phase.L1: ChannelConfig(**({"input": "voltage0"} | channel))},  # type: ignore[arg-type]
        )


def test_a_missing_node_is_named(tree: Tree) -> None:
    tree.node.unlink()
    with pytest.raises(DeviceError, match=f"{tree.node} cannot be opened: No such file"):
        tree.open()


def test_an_unreadable_rate_is_named(tree: Tree) -> None:
    # A folder in the file's place refuses to be written, and to be read.
    rate = tree.folder / "sampling_frequency"
    rate.unlink()
    rate.mkdir()
    with pytest.raises(DeviceError, match="sampling_frequency cannot be read"):
        tree.open()


def test_a_rejected_rate_is_reported_and_the_actual_one_used(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tree.open().rate_fault is None
    tree.put(tree.folder / "sampling_frequency", "3906")
    tree.put(tree.folder / "sampling_frequency_available", "976 1953 3906")
    refuse(monkeypatch, tree.folder / "sampling_frequency", errno.EINVAL)
    adc = tree.open()
    assert adc.format.sampling_frequency_hz == 3906
    fault = adc.rate_fault or ""
    assert fault.startswith("ADC csp1-hat-adc (iio:device0) rejects adc.sampling_frequency_hz")
    assert fault.endswith("available: 976 1953 3906")


@pytest.mark.parametrize(("hertz", "is_told"), [("4000", False), ("3906", True)])
def test_a_rate_that_the_driver_lets_nobody_set_is_used_as_it_is(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, hertz: str, is_told: bool
) -> None:
    file = tree.folder / "sampling_frequency"
    tree.put(file, hertz)
    file.chmod(0o444)
    refuse(monkeypatch, file, errno.EACCES)
    adc = tree.open()
    assert adc.format.sampling_frequency_hz == float(hertz)
    assert bool(adc.rate_fault) == is_told


def test_a_read_only_sysfs_is_named_with_the_remedy(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container."""
    refuse(monkeypatch, tree.folder / "buffer/enable", errno.EROFS)
    with pytest.raises(DeviceError, match=r"enable rejects '0': .*; mount /sys writable"):
        tree.open()


def test_a_rate_that_may_not_be_set_yet_is_tried_again(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new trigger runs at its own rate until udev has changed the owner of its files."""
    refuse(monkeypatch, tree.folder / "sampling_frequency", errno.EACCES)
    with pytest.raises(DeviceError, match=r"sampling_frequency rejects '4000'.*udev rule"):
        tree.open()


def test_a_rate_that_is_too_low_for_the_mains_is_for_the_metering_to_tell(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be in kilohertz."""
    tree.put(tree.folder / "sampling_frequency", "100")
    refuse(monkeypatch, tree.folder / "sampling_frequency", errno.EINVAL)
    adc = tree.open()
    assert adc.format.sampling_frequency_hz == 0
    assert tree.read("buffer/length") == "16000"


WORDS = st.sampled_from(
    ["0", "-1", "1", "200", "4000", "1e999", "nan", "9" * 5000, "le:s12/16>>4", "be:u8/8X9999>>0"]
)
TREE = MCP3912 | {"sampling_frequency_available": "976 1953 3906", "trigger/current_trigger": ""}
TREE_FILES = st.sampled_from([*TREE, "bus/trigger0/name"])
CONTENTS = st.dictionaries(
    TREE_FILES, WORDS.map(str.encode) | st.binary(max_size=30) | st.none(), max_size=4
)


@settings(max_examples=200)
@given(
    contents=CONTENTS,
    refused=st.sets(TREE_FILES, max_size=2),
    trigger=st.sampled_from(["", "", "csp1d"]),
)
def test_any_driver_works_or_is_refused_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory,
    contents: Mapping[str, bytes | None],
    refused: set[str],
    trigger: str,
) -> None:
    """The driver accepts or rejects what is written, and reports anything.

    None stands for a file that cannot be read.
    """
    root = tmp_path_factory.mktemp("tree")
    tree = Tree(root, TREE | {"trigger/current_trigger": trigger})
    tree.put(tree.bus / "trigger0/name", "csp1d")

    def path(name: str) -> Path:
        return root / name if name.startswith("bus/") else tree.folder / name

    for name, content in contents.items():
        path(name).unlink()
        if content is None:
            path(name).mkdir()
        else:
            path(name).write_bytes(content)
    refusing = set(map(path, refused))

    def write_text(file: Path, text: str) -> int:
        if file in refusing:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(file))
        return len(text)

    before = len(os.listdir("/proc/self/fd"))
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(DeviceError):
        patch.setattr(Path, "write_text", write_text)
        adc = tree.open(AdcConfig(trigger=trigger))
        assert adc.read() == b""
        with contextlib.suppress(OSError):
            adc.close()
        # `Sampler` reports a format that cannot be measured with.
        with contextlib.suppress(ValueError):
            Metering(adc.format, THREE, MeasurementConfig())
    assert len(os.listdir("/proc/self/fd")) == before


def refuse(
    monkeypatch: pytest.MonkeyPatch, refusing: Path, number: int | None, refused: str = ""
) -> None:
    """Let a driver or the file system refuse to write one file, with an error or without.

    `refused`: the only text that is refused.
    """
    write = Path.write_text

    def write_text(path: Path, text: str) -> int:
        if path == refusing and refused in ("", text):
            if number is None:
                return len(text)
            raise OSError(number, os.strerror(number), str(path))
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", write_text)


def test_a_buffer_that_a_killed_process_left_enabled_is_disabled_before_all_else(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is enabled, the kernel refuses every other setting (EBUSY)."""
    writes = []
    write = IioAdc._write

    def noted(self: IioAdc, file: Path, text: str) -> None:
        writes.append((file.name, text, tree.read("buffer/enable")))
        write(self, file, text)

    monkeypatch.setattr(IioAdc, "_write", noted)
    with tree.open():
        assert writes[0] == ("enable", "0", "1")
        assert {enabled for _, _, enabled in writes[1:]} == {"0"}
