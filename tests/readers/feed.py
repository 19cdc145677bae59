# SPDX-License-Identifier: Apache-2.0
"""A serial port for the readers: prints the path of a pty, and writes standard input to it."""

import os
import tty

consumer, port = os.openpty()
tty.setraw(port)
print(os.ttyname(port), flush=True)
while data := os.read(0, 65536):
    os.write(consumer, data)
