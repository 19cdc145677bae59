# SPDX-License-Identifier: Apache-2.0
"""The main loop, and the parts that own a device, a clock or events: shells around pure code."""
