# SPDX-License-Identifier: Apache-2.0
"""The configuration that is suggested for a machine, and the reasons against devices."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csp1d.config import P1Config
from csp1d.config_file import load
from csp1d.hat.hardware import (
    GpioChip,
    GpioLine,
    Hardware,
    IioChannel,
    IioDevice,
    LedDevice,
    SerialPort,
)
from csp1d.tool.commands import discover
from csp1d.tool.suggest_config import (
    adc_fault,
    choose_adc,
    choose_port,
    configuration,
    missing,
    nearest_frequency,
    port_fault,
)


def channels(count: int, type: str = "le:s16/16>>0") -> tuple[IioChannel, ...]:  # noqa: A002
    return tuple(IioChannel(f"voltage{n}", n, type, 0.5) for n in range(count))


ADC = IioDevice(
    sys_name="iio:device0",
    name="ad7606-4",
    label="",
    has_node=True,
    has_buffer=True,
    is_capturing=False,
    channels=channels(4),
    has_timestamp=True,
    sampling_frequency_hz=None,
    available_frequencies="",
    trigger=None,
)
MCP3912 = replace(
    ADC,
    name="mcp3912",
    label="csp1-hat-adc",
    channels=channels(4, "be:s24/32>>0"),
    sampling_frequency_hz=3906,
    available_frequencies="15625 7812 3906 1953",
    trigger="mcp3912-dev0",
    own_triggers=("mcp3912-dev0",),
)
CHIP = GpioChip(
    Path("/dev/gpiochip0"),
    "pinctrl-bcm2711",
    (GpioLine(0, "ID_SDA", None), GpioLine(24, "P1_REQUEST", None), GpioLine(25, "", "spi0 CS0")),
)
AMA0 = SerialPort(Path("/dev/ttyAMA0"), is_usb=False, is_console=False, users=())
USB0 = SerialPort(Path("/dev/ttyUSB0"), is_usb=True, is_console=False, users=())
LEDS = tuple(
    LedDevice(name, True)
    for name in ("ACT", "csp1:yellow:current", "csp1:yellow:p1", "csp1:yellow:power")
)
HAT = Hardware(adcs=(MCP3912,), triggers=("mcp3912-dev0",), chips=(CHIP,), ports=(AMA0,), leds=LEDS)


def suggested(hardware: Hardware) -> dict[str, Any]:
    return tomllib.loads(configuration(hardware))


def test_the_reference_hat_is_recognised() -> None:
    assert missing(HAT) == []
    table = suggested(HAT)
    assert table["adc"] == {
        "device": "csp1-hat-adc",
        "trigger": "mcp3912-dev0",
        "sampling_frequency_hz": 3906,
    }
    assert [table["channels"][phase]["input"] for phase in ("L1", "L2", "L3")] == [
        "voltage0",
        "voltage1",
        "voltage2",
    ]
    assert table["p1"] == {
        "device": "/dev/ttyAMA0",
        "request": {"chip": "pinctrl-bcm2711", "line": "P1_REQUEST", "active_low": False},
    }
    assert table["leds"] == {
        "power": "csp1:yellow:power",
        "current": "csp1:yellow:current",
        "p1": "csp1:yellow:p1",
    }


def test_the_profiles_are_explained_and_the_table_of_readers_is_named() -> None:
    text = configuration(HAT)
    explained = "\n".join(line for line in text.split("\n") if line.startswith("#"))
    for profile in get_args(get_type_hints(P1Config)["profile"]):
        assert re.search(rf"\b{profile} for ", explained)
    assert "wire.md\n# (/usr/share/doc/csp1d)" in explained
    page = Path(__file__).parents[2] / "docs/wire.md"
    assert "\n## Charge points and readers\n" in page.read_text()
    # They do not override the configuration.
    assert suggested(HAT)["p1"].keys() == {"device", "request"}


def test_the_report_of_the_reference_hat() -> None:
    assert list(discover.report(replace(HAT, unseen=("much",)))) == [
        "ADCs (IIO devices)",
        "  + iio:device0: mcp3912, label csp1-hat-adc",
        "      inputs: voltage0, voltage1, voltage2, voltage3 "
        "(le:s24/32>>0, which the driver declares as be:s24/32>>0)",
        "      millivolts per code: 0.5",
        "      rate: 3906 Hz; available: 15625 7812 3906 1953",
        "      trigger: mcp3912-dev0",
        "  triggers: mcp3912-dev0",
        "Serial ports",
        "  + /dev/ttyAMA0: free",
        "GPIO chips",
        "    /dev/gpiochip0: pinctrl-bcm2711, 3 lines, 2 named",
        "    + 24 P1_REQUEST: free",
        "    - 25 : in use by spi0 CS0",
        "LEDs",
        "  - ACT",
        "  + csp1:yellow:current",
        "  + csp1:yellow:p1",
        "  + csp1:yellow:power",
        "Not visible: much",
    ]


def test_the_configuration_of_a_machine_without_a_hat() -> None:
    assert missing(Hardware()) == ["an ADC", "a serial port", "a request line"]
    assert suggested(Hardware()) == {
        "adc": {},
        "p1": {"request": {}},
        "leds": {"power": "", "current": "", "p1": ""},
    }
    assert [line.strip() for line in discover.report(Hardware())].count("none") == 4


# The ADC.


@pytest.mark.parametrize(
    ("adc", "fault"),
    [
        (ADC, ""),
        (replace(ADC, has_buffer=False, channels=()), "no buffer: its driver cannot capture"),
        (replace(ADC, has_node=False), "no buffer"),
        (
            replace(ADC, channels=(IioChannel("temp", 0, "le:s16/16>>0", 1),)),
            "no voltage or current input in its buffer",
        ),
        (
            replace(ADC, channels=channels(3, "le:s16/16X2>>0")),
            "no voltage or current input in its buffer",
        ),
        (
            replace(ADC, channels=channels(3, "nonsense")),
            "no voltage or current input in its buffer",
        ),
        (
            replace(ADC, available_frequencies="8 16 128"),
            "no usable sampling frequency: 8 16 128 Hz",
        ),
    ],
)
def test_an_unusable_adc_has_a_reason(adc: IioDevice, fault: str) -> None:
    assert adc_fault(adc).startswith(fault)
    assert bool(adc_fault(adc)) == bool(fault)
    assert (choose_adc([adc]) is None) == bool(fault)


def test_the_hats_own_adc_comes_first_then_the_one_with_most_inputs() -> None:
    two = replace(ADC, sys_name="iio:device1", channels=channels(2))
    assert choose_adc([two, ADC]) == ADC
    assert choose_adc([two, ADC, MCP3912]) == MCP3912
    table = suggested(Hardware(adcs=(two,)))
    assert [table["channels"][phase]["input"] for phase in ("L1", "L2", "L3")] == [
        "voltage0",
        "voltage1",
        "",
    ]


def test_single_ended_inputs_come_before_differential_ones() -> None:
    mixed = (IioChannel("voltage0-voltage1", 0, "le:s16/16>>0", 1.0), *channels(3))
    table = suggested(Hardware(adcs=(replace(ADC, channels=mixed),)))
    assert table["channels"]["L1"]["input"] == "voltage0"


@pytest.mark.parametrize(
    ("others", "name"),
    [
        ((), "ad7606-4"),
        ((replace(ADC, sys_name="iio:device1", channels=channels(1)),), "iio:device0"),
    ],
)
def test_a_number_is_used_only_where_no_name_is_its_own(
    others: tuple[IioDevice, ...], name: str
) -> None:
    assert suggested(Hardware(adcs=(ADC, *others)))["adc"]["device"] == name


@pytest.mark.parametrize(
    ("available", "chosen"),
    [
        ("15625 7812 3906 1953", 3906),
        ("1000 2500 8000", 2500),
        # 2000 and 1600 fold harmonics onto the mains.
        ("1000 2000 8000", 8000),
        ("1000 2000 1000000", 2000),
        ("400 860 1600", 860),
        ("50", None),
        ("[200 1 8000]", 4000),
        ("[500 500 3000]", 3000),
        ("[1 1 100]", None),
        ("[6000 0 6000]", 6000),
        ("[-inf 1 4000]", None),
        ("fast", None),
        ("", None),
    ],
)
def test_the_rate_nearest_to_4_khz_is_chosen(available: str, chosen: float | None) -> None:
    assert nearest_frequency(available) == chosen


@pytest.mark.parametrize(("available", "is_told"), [("500 1000", True), ("500 860", False)])
def test_a_rate_that_folds_harmonics_is_suggested_with_a_comment(
    available: str, is_told: bool
) -> None:
    adc = replace(ADC, available_frequencies=available)
    text = configuration(Hardware(adcs=(adc,)))
    comment = "# 1000 scans per second is a multiple of the mains frequency: harmonics of a load"
    assert (comment in text) == is_told


@pytest.mark.parametrize(
    ("name", "attached", "own", "triggers", "hrtimers", "expected_trigger"),
    [
        # It accepts none.
        ("ad7606-4", None, (), (), (), None),
        # Also one that is attached: it may not be after the next start.
        ("ad7606-4", "ad7606-4-dev0", ("ad7606-4-dev0",), (), (), "ad7606-4-dev0"),
        ("ad7606-4", "", ("ad7606-4-dev0",), (), (), "ad7606-4-dev0"),
        ("ad7606-4", "csp1d", ("ad7606-4-dev0",), ("csp1d",), ("csp1d",), "ad7606-4-dev0"),
        ("ad7606-4", "", ("data-ready",), ("timer", "data-ready"), (), "data-ready"),
        # That of another ADC of the kind.
        ("mcp3912", "", ("mcp3912-dev1",), ("mcp3912-dev0", "mcp3912-dev1"), (), "mcp3912-dev1"),
        ("", "", (), (), (), "hrtimer:csp1d"),
        ("", "", (), ("other",), (), "hrtimer:csp1d"),
        ("", "other", (), ("other",), (), "other"),
        # Created by a user, and lost at the next boot.
        ("", "csp1d", (), ("csp1d",), ("csp1d",), "hrtimer:csp1d"),
        ("", "mine", (), ("mine",), ("mine",), "hrtimer:mine"),
        # Their own trigger needs an external clock.
        ("max1027", "", ("max1027-trigger",), ("max1027-trigger",), (), "hrtimer:csp1d"),
        ("max1027", "max1027-trigger", ("max1027-trigger",), (), (), "hrtimer:csp1d"),
        ("xadc", "", ("xadc0-convst", "xadc0-samplerate"), (), (), "xadc0-samplerate"),
        # A timer of the processor, which is no hrtimer.
        ("48003000.adc:adc@0", "", (), ("csp1d", "tim1_trgo", "tim2_ch1"), (), "tim1_trgo"),
        ("48003000.adc:adc@0", "tim2_ch1", (), ("tim1_trgo", "tim2_ch1"), (), "tim2_ch1"),
        ("48003000.adc:adc@0", "csp1d", (), ("csp1d",), ("csp1d",), None),
    ],
)
def test_what_starts_a_scan(
    name: str,
    attached: str | None,
    own: tuple[str, ...],
    triggers: tuple[str, ...],
    hrtimers: tuple[str, ...],
    expected_trigger: str | None,
) -> None:
    adc = replace(ADC, name=name, trigger=attached, own_triggers=own)
    table = suggested(Hardware(adcs=(adc,), triggers=triggers, hrtimers=hrtimers))
    assert table["adc"].get("trigger") == expected_trigger


def test_labels_of_inputs_are_shown() -> None:
    labelled = (IioChannel("voltage0", 0, "le:s16/16>>0", 0.5, label="clamp L1"), *channels(3)[1:])
    report = "\n".join(discover.report(Hardware(adcs=(replace(ADC, channels=labelled),))))
    assert 'inputs: voltage0 "clamp L1", voltage1, voltage2 (le:s16/16>>0)' in report


def test_an_adc_that_measures_current_offers_its_currents_alone() -> None:
    """As an energy meter: its voltage inputs are those of the mains."""
    meter = replace(
        ADC,
        name="meter",
        channels=tuple(
            IioChannel(f"{kind}{n}", 3 * place + n, "be:s32/32>>0", 0.01)
            for place, kind in enumerate(("voltage", "current"))
            for n in range(3)
        ),
    )
    text = configuration(Hardware(adcs=(meter,)))
    table = tomllib.loads(text)["channels"]
    assert [table[phase]["input"] for phase in ("L1", "L2", "L3")] == [
        "current0",
        "current1",
        "current2",
    ]
    assert "ct_ratio =" not in text
    assert "burden_ohms =" not in text
    report = "\n".join(discover.report(Hardware(adcs=(meter,))))
    assert "inputs: current0, current1, current2 (be:s32/32>>0)" in report
    assert "milliamperes per code: 0.01" in report


def test_an_input_of_milliamperes_is_that_of_a_sensor_not_of_the_mains() -> None:
    """As of an AD4111: 25 mA at most."""
    loops = tuple(IioChannel(f"current{n}", 9 + n, "be:u24/32>>0", 0.00000298) for n in range(3))
    table = suggested(Hardware(adcs=(replace(ADC, channels=(*channels(3), *loops)),)))
    assert table["channels"]["L1"]["input"] == "voltage0"


def test_a_scale_that_is_rounded_too_coarsely_has_a_comment() -> None:
    adc = replace(ADC, channels=(IioChannel("voltage0", 0, "le:s24/32>>0", 0.000012, True),))
    text = configuration(Hardware(adcs=(adc,)))
    assert "# The driver rounds its scale to 1.2e-05; set the ADC's exact millivolts" in text


def test_a_timer_runs_at_20_khz_at_most(tmp_path: Path) -> None:
    adc = replace(ADC, trigger="", available_frequencies="64000 128000")
    (tmp_path / "a.toml").write_text(configuration(Hardware(adcs=(adc,))))
    config = load(tmp_path / "a.toml").adc
    assert (config.trigger, config.sampling_frequency_hz) == ("hrtimer:csp1d", 20_000)


def test_a_missing_scale_has_a_comment() -> None:
    adc = replace(ADC, channels=(IioChannel("voltage0", 0, "le:s16/16>>0", None),))
    assert "# scale_millivolts = \n" in configuration(Hardware(adcs=(adc,)))


# The port, the line and the LEDs.


@pytest.mark.parametrize(
    ("port", "fault"),
    [
        (AMA0, ""),
        (replace(AMA0, users=("csp1d",)), ""),
        (replace(AMA0, is_console=True), "kernel console; remove its console= from"),
        (
            replace(AMA0, users=("agetty",)),
            "used by a login prompt; systemctl mask serial-getty@ttyA",
        ),
        (replace(AMA0, users=("csp1d", "minicom")), "in use by minicom"),
    ],
)
def test_a_port_in_use_has_a_reason(port: SerialPort, fault: str) -> None:
    assert port_fault(port).startswith(fault)
    assert choose_port([port, USB0]) == (USB0 if fault else port)


def test_built_in_ports_are_preferred_to_usb_and_the_pl011_to_others() -> None:
    mini_uart = replace(AMA0, node=Path("/dev/ttyS0"))
    assert choose_port([USB0, mini_uart]) == mini_uart
    assert choose_port([mini_uart, USB0, AMA0]) == AMA0


@pytest.mark.parametrize(("port", "is_explained"), [(AMA0, False), (USB0, True)])
def test_what_a_usb_adapter_means_for_an_abort_is_explained(
    port: SerialPort, is_explained: bool
) -> None:
    hardware = Hardware(ports=(port,))
    for text in ("\n".join(discover.report(hardware)), configuration(hardware)):
        assert ("after an abort, the rest of the telegram" in text) == is_explained


def test_the_name_that_udev_gave_a_port_is_preferred() -> None:
    hardware = replace(HAT, links=(Path("/dev/csp1d/p1"), Path("/dev/csp1d/request")))
    assert suggested(hardware)["p1"]["device"] == "/dev/csp1d/p1"


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        ((GpioLine(3, "P1_REQUEST", "csp1d"),), "P1_REQUEST"),
        ((GpioLine(3, "P1_REQUEST", "sysfs"),), None),
        ((GpioLine(3, "p1-req", None), GpioLine(4, "P1_REQUEST", None)), "P1_REQUEST"),
        ((GpioLine(3, "p1-req", None),), "p1-req"),
        # A name that the configuration does not accept.
        ((GpioLine(3, "P1 REQUEST", None),), 3),
        ((GpioLine(3, "GPIO3", None),), None),
    ],
)
def test_the_request_line_is_known_by_its_name(
    lines: tuple[GpioLine, ...], chosen: str | int | None
) -> None:
    request = suggested(Hardware(chips=(replace(CHIP, lines=lines),)))["p1"]["request"]
    assert request.get("line") == chosen


def test_a_chip_is_named_by_its_label_where_that_is_its_own() -> None:
    twin = replace(CHIP, node=Path("/dev/gpiochip1"), lines=())
    request = suggested(Hardware(chips=(CHIP, twin)))["p1"]["request"]
    assert request["chip"] == "/dev/gpiochip0"


def test_a_line_whose_name_another_has_is_named_by_its_offset() -> None:
    """csp1d refuses a name that occurs twice on the chip. On another chip it is only shown."""
    lines = (GpioLine(3, "P1_REQUEST", "sysfs"), GpioLine(7, "P1_REQUEST", None))
    twice = replace(CHIP, lines=lines)
    other = replace(CHIP, node=Path("/dev/gpiochip1"), label="expander", lines=lines[1:])
    request = suggested(Hardware(chips=(twice, other)))["p1"]["request"]
    assert (request["chip"], request["line"]) == ("pinctrl-bcm2711", 7)
    report = [line for line in discover.report(Hardware(chips=(twice, other))) if "P1_REQ" in line]
    assert report == [
        "    - 3 P1_REQUEST: in use by sysfs",
        "    + 7 P1_REQUEST: free",
        "    - 7 P1_REQUEST: free",
    ]


def test_of_several_leds_for_a_role_the_one_of_the_hat_is_chosen() -> None:
    leds = (LedDevice("board:red:power", True), *LEDS)
    assert suggested(replace(HAT, leds=leds))["leds"]["power"] == "csp1:yellow:power"


def test_an_led_without_the_trigger_is_pointed_out() -> None:
    (line,) = [
        line
        for line in discover.report(Hardware(leds=(LedDevice("csp1:red:p1", False),)))
        if "csp1" in line
    ]
    assert line == "  + csp1:red:p1 (trigger transient missing: modprobe ledtrig-transient)"


# Devices with any names.

names = st.text(max_size=8) | st.sampled_from(["csp1-hat-adc", "mcp3911", "P1_REQUEST", "a:p1"])
channel = st.builds(
    IioChannel,
    id=st.sampled_from(["voltage0", "voltage1", "voltage0-voltage1", "voltage:", "current0"]),
    index=st.integers(0, 9),
    type=st.sampled_from(["be:s24/32>>0", "le:u12/16>>4", ""]),
    scale_millivolts=st.none() | st.floats(),
)
hardware_found = st.builds(
    Hardware,
    adcs=st.tuples(
        st.builds(
            IioDevice,
            sys_name=st.just("iio:device0"),
            name=names,
            label=names,
            has_node=st.just(True),
            has_buffer=st.just(True),
            is_capturing=st.booleans(),
            channels=st.lists(channel, max_size=4, unique_by=lambda channel: channel.id).map(tuple),
            has_timestamp=st.booleans(),
            sampling_frequency_hz=st.none() | st.floats(),
            available_frequencies=st.sampled_from(
                ["", "9 1e6", "64000", "[1 2 3", "[0 0 0]", "4000.5", "x"]
            ),
            trigger=st.none() | names,
        )
    ),
    triggers=st.tuples(names),
    hrtimers=st.tuples(names),
    chips=st.tuples(
        st.builds(
            GpioChip,
            node=st.just(Path("/dev/gpiochip0")),
            label=names,
            lines=st.tuples(
                st.builds(GpioLine, offset=st.integers(0, 99), name=names, user=st.none() | names)
            ),
        )
    ),
    ports=st.just((AMA0,)),
    leds=st.tuples(st.builds(LedDevice, name=names, has_transient=st.booleans())),
)


@given(hardware=hardware_found)
def test_every_suggested_configuration_is_valid(
    tmp_path_factory: pytest.TempPathFactory, hardware: Hardware
) -> None:
    file = tmp_path_factory.getbasetemp() / "csp1d.toml"
    file.write_text(configuration(hardware))
    load(file)
    assert list(discover.report(hardware))
