# SPDX-License-Identifier: Apache-2.0
"""Measures the cost of running csp1d: `tools/bench`."""
