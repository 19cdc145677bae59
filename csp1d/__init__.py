# SPDX-License-Identifier: Apache-2.0
"""csp1d: an IIO ADC and three current transformers as a DSMR P1 current sensor."""

__version__ = "0.2.1"
