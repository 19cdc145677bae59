# SPDX-License-Identifier: Apache-2.0
"""The three phases, by the names that telegrams, configuration and metrics use."""

import enum


class Phase(enum.StrEnum):
    """A phase conductor of the mains connection."""

    L1 = "L1"
    L2 = "L2"
    L3 = "L3"
