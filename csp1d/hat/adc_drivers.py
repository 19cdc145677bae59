# SPDX-License-Identifier: Apache-2.0
"""The ADC drivers of the kernel, and what they do that their sysfs attributes do not report.

A line per driver, found by the name of its IIO device; its source is files, with lines, below
drivers/iio/adc in Linux 6.12.117 (Debian's linux-source-6.12). A driver that is not listed is
believed. Both discovery and capture use this table.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from csp1d.scan_type import ScanType


@dataclass(frozen=True)
class AdcDriver:
    source: str
    names: str
    """Regular expression for the names of its IIO devices."""
    note: str = ""
    """Further facts for an installer."""
    fault: str = ""
    """Why its samples cannot be used."""
    stores_cpu_order: bool = False
    """It declares big-endian samples, but stores them in the byte order of the CPU."""
    has_false_offset: bool = False
    """`in_..._offset` is not what has to be added to a code."""
    ignores_scan_mask: bool = False
    """It stores the samples of the first inputs, whichever are enabled."""
    converts_one_input: bool = False
    """A scan holds one input."""
    external_triggers: str = ""
    """Regular expression for own triggers that need an external clock."""
    timer_triggers: str = ""
    """Regular expression for the triggers of other hardware that are the only ones accepted."""
    hertz_per_unit: float = 1.0
    """Of `sampling_frequency`; 0: it does not determine the rate of the scans."""

    def stored(self, declared: ScanType, byteorder: str) -> ScanType:
        """The type of its samples on a machine with this `sys.byteorder`."""
        if self.stores_cpu_order and declared.big_endian:
            return replace(declared, big_endian=byteorder == "big")
        return declared

    def fitting_triggers(self, own: Iterable[str], present: Iterable[str]) -> list[str]:
        """The triggers made for its ADC, of its `own` and of all `present` ones.

        If there are none, a kernel timer (hrtimer) has to start the scans.
        """
        if self.timer_triggers:
            return [name for name in present if re.fullmatch(self.timer_triggers, name)]
        return [name for name in own if not re.fullmatch(self.external_triggers, name)]

    def in_hertz(self, rates: str) -> str:
        """Reported rates, such as a list or "[lowest step highest]", in hertz."""
        unit = self.hertz_per_unit or 1
        return re.sub(r"\d+(\.\d+)?", lambda rate: f"{float(rate[0]) * unit:.9g}", rates)


_NO_BUFFER = "its driver has no buffer"
_ONE_AFTER_ANOTHER = (
    "it converts the inputs one after the other: set adc.sampling_frequency_hz to the highest"
    " rate that it accepts; the scans are slower by the number of inputs and the settling time"
)
_FREE_RUNNING = "set adc.sampling_frequency_hz to its true rate, which the driver does not report"

DRIVERS = (
    # The samples: get_unaligned_be24() into a u32. The offset: a register of the chip, which
    # already adds it to its codes; for all but the MCP3911, of another channel (6 per channel
    # instead of 2).
    AdcDriver(
        source="mcp3911.c:85,450,538",
        names=r"mcp391[0-489]",
        stores_cpu_order=True,
        has_false_offset=True,
    ),
    AdcDriver(
        source="ad7606.c:84,107,457",
        names=r"ad760[5-9][\w-]*|ad7616",
        note="a scan starts the next: the rate is that of the bus and the interrupts",
        ignores_scan_mask=True,
    ),
    AdcDriver(source="ti-ads8688.c:163,239,388", names=r"ads868[48]", stores_cpu_order=True),
    AdcDriver(
        source="ad799x.c:311,528",
        names=r"ad799[1-5789]",
        note="without a supply in the device tree it reports no scale",
    ),
    AdcDriver(source="ti-ads131e08.c:536,567,771", names=r"ads131e0[468]", hertz_per_unit=1000),
    AdcDriver(source="ti-ads7950.c:133,613", names=r"ads79[56]\d"),
    AdcDriver(source="ad7923.c:84,355", names=r"ad79[012][48]|ad7923"),
    AdcDriver(source="ad7298.c:57,343", names=r"ad7298"),
    AdcDriver(
        source="max1363.c:468,1616", names=r"max1[012]3[6-9]|max136[1-4]|max116(0\d|1[0-7]|4[4-7])"
    ),
    AdcDriver(
        source="max1027.c:321,435,585", names=r"max1[02](27|29|31)", external_triggers=r".*-trigger"
    ),
    AdcDriver(
        source="ad7124.c:638, ad_sigma_delta.c:519",
        names=r"ad7124-[48]",
        note=_ONE_AFTER_ANOTHER,
        hertz_per_unit=0,
    ),
    AdcDriver(
        source="ad7192.c:931, ad_sigma_delta.c:519",
        names=r"ad719[02345]",
        note=_ONE_AFTER_ANOTHER,
        hertz_per_unit=0,
    ),
    AdcDriver(
        source="ad7173.c:899,1427, ad_sigma_delta.c:519",
        names=r"ad411[12456]|ad717[2-7]-[248]",
        note=_ONE_AFTER_ANOTHER,
        hertz_per_unit=0,
    ),
    AdcDriver(
        source="ad7793.c:351, ad_sigma_delta.c:519",
        names=r"ad7785|ad779[2-9]",
        converts_one_input=True,
    ),
    AdcDriver(
        source="ti_am335x_adc.c:142,378,643",
        names=r"TI-am335x-adc[\w.]*",
        note=f"{_FREE_RUNNING}; its inputs accept 0 to 1.8 V",
    ),
    AdcDriver(
        source="stm32-adc.c:1300,1595,2447",
        names=r"[0-9a-f]+\.adc:adc@[0-9a-f]+",
        note="only a timer of the processor can start its scans",
        timer_triggers=r"(tim|lptim)\d+_.+",
    ),
    AdcDriver(source="rockchip_saradc.c:223,388,520", names=r"[0-9a-f]+\.saradc|fec10000\.adc"),
    # One driver for the ADS1015, ADS1115 and TLA2024.
    AdcDriver(source="ti-ads1015.c:881,995", names=r"ads1015", converts_one_input=True),
    AdcDriver(source="ti-ads1119.c:484,751", names=r"ads1119", converts_one_input=True),
    AdcDriver(
        source="ad9467.c:340, adi-axi-adc.c:293, ../buffer/industrialio-buffer-dmaengine.c",
        names=r"ad9467|ad9434|ad9265|ad96(43|49|52)",
        note="its DMA controller delivers blocks of 0.1 s",
    ),
    # Not in 6.12. `scan_index` is n for current n and n + 1 for voltage n, but in the buffer bit 2n
    # is current n: bits 0 to 2 are refused, and bit 1 is voltage 0. The scale is one by the code
    # of full scale.
    AdcDriver(
        source="ade9000.c of Linux 6.18",
        names=r"ade9000",
        fault="its driver stores voltages in the place of currents, and its scale is not in"
        " milliamperes",
    ),
    AdcDriver(source="ad7766.c:249", names=r"ad776[67](-[12])?"),
    AdcDriver(source="ad7768-1.c:135,647", names=r"ad7768-1"),
    AdcDriver(
        source="xilinx-xadc-core.c:715,1308,1373",
        names=r"xadc|xilinx-system-monitor",
        external_triggers=r".*-convst",
    ),
    AdcDriver(source="mxs-lradc-adc.c:458", names=r"mxs-lradc-adc"),
    AdcDriver(source="ad4130.c:1594", names=r"ad4130", note="it stores 24 bits without padding"),
    AdcDriver(source="mcp320x.c:393", names=r"mcp3[023]\d\d|mcp355\d[\d-]*", note=_NO_BUFFER),
    AdcDriver(source="mcp3564.c:1418", names=r"mcp3[45]6[124]r?", note=_NO_BUFFER),
    AdcDriver(
        source="imx7d_adc.c:514, imx8qxp-adc.c:357, imx93_adc.c:359",
        names=r"306[12]0000\.adc|imx8qxp-adc|imx93-adc",
        note=_NO_BUFFER,
    ),
    AdcDriver(source="meson_saradc.c:1350", names=r"meson-\w+-saradc", note=_NO_BUFFER),
    # Its own trigger is the pin ADTRG. `sampling_frequency` is the clock of the ADC. Named like its
    # device: its addresses in SAMA5D2, SAM9X60 and SAMA7G5, not 4003b000.adc of vf610_adc.c.
    AdcDriver(
        source="at91-sama5d2_adc.c:627,1421,1956",
        names=r"(fc03|f804c|e100)0+\.adc",
        external_triggers=r".*-external_(rising|falling|any)",
        hertz_per_unit=0,
    ),
)
_UNLISTED = AdcDriver(source="", names="")


def driver_of(name: str) -> AdcDriver:
    """The driver of the IIO device with this name."""
    return next((driver for driver in DRIVERS if re.fullmatch(driver.names, name)), _UNLISTED)


def own_trigger(wanted: str, own: Collection[str]) -> str:
    """The one of an ADC's `own` triggers with the `wanted` name, or with that name but for its
    numbers: they are those of IIO devices, which may change. Otherwise `wanted`."""
    if wanted in own:
        return wanted
    return {_without_numbers(name): name for name in own}.get(_without_numbers(wanted), wanted)


def _without_numbers(trigger: str) -> str:
    return re.sub(r"\d+", "", trigger)
