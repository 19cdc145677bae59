# SPDX-License-Identifier: Apache-2.0
"""The three phases, as telegrams, configuration and metrics name them."""

import enum


class Phase(enum.StrEnum):
    """A phase conductor of the mains connection."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
