# SPDX-License-Identifier: Apache-2.0
"""The P1 port without I/O: what a telegram says, and when it may be sent."""
