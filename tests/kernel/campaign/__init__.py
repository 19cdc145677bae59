# SPDX-License-Identifier: Apache-2.0
"""Faults in random order against the installed service, and a judge of every byte that it sends."""
