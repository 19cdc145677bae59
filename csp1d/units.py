# SPDX-License-Identifier: Apache-2.0
"""Units of time. All times are nanoseconds of CLOCK_MONOTONIC unless a name says otherwise."""

MS_NS = 1_000_000
SECOND_NS = 1_000_000_000
