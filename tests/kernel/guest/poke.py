# SPDX-License-Identifier: Apache-2.0
"""Keep the registers of the AD7994 on i2c-stub at what its inputs are now.

    python3 -m guest.poke BUS AMPERES...

A block read of the conversion results starts at a command that names the enabled inputs, so the
results stand there for the first three inputs (drivers/iio/adc/ad799x.c, ad799x_trigger_handler).
"""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import sys
import time

I2C_SLAVE_FORCE, I2C_SMBUS = 0x0706, 0x0720
I2C_SMBUS_WRITE, I2C_SMBUS_I2C_BLOCK_DATA = 0, 8
ADDRESS = 0x22
COMMAND = 0b0111 << 4  # inputs 1 to 3
CODES_PER_MILLIVOLT = 4096 / 3300
BIAS = 2048
MILLIVOLTS_PER_AMPERE = 10.0  # 2000:1 into 20 ohm


class _Arguments(ctypes.Structure):
    """struct i2c_smbus_ioctl_data"""

    _fields_ = (
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.c_void_p),
    )


def main() -> None:
    bus, amperes = sys.argv[1], [float(word) for word in sys.argv[2:]]
    peaks = [
        current * MILLIVOLTS_PER_AMPERE * math.sqrt(2) * CODES_PER_MILLIVOLT for current in amperes
    ]
    fd = os.open(f"/dev/i2c-{bus}", os.O_RDWR)
    fcntl.ioctl(fd, I2C_SLAVE_FORCE, ADDRESS)
    block = (ctypes.c_uint8 * 34)(2 * len(peaks))
    arguments = _Arguments(
        I2C_SMBUS_WRITE, COMMAND, I2C_SMBUS_I2C_BLOCK_DATA, ctypes.addressof(block)
    )
    while True:
        turns = time.monotonic() * 50
        for number, peak in enumerate(peaks):
            wave = peak * math.sin(2 * math.pi * (turns - number / 3))
            # The channel number stands above the twelve bits.
            word = number << 12 | round(BIAS + wave)
            block[1 + 2 * number], block[2 + 2 * number] = word >> 8, word & 0xFF
        fcntl.ioctl(fd, I2C_SMBUS, arguments)
        time.sleep(0.0005)


if __name__ == "__main__":
    main()
