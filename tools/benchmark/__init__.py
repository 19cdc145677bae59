# SPDX-License-Identifier: Apache-2.0
"""What csp1d costs, measured: `tools/bench`."""
