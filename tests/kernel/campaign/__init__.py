# SPDX-License-Identifier: Apache-2.0
"""Injects faults in random order into the installed service, and judges every byte sent."""
