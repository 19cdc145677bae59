# SPDX-License-Identifier: Apache-2.0
"""From scans to readings: decoding, timing, metering. Pure code: no I/O, no clock of its own."""
