# SPDX-License-Identifier: Apache-2.0
"""A histogram of the time from the cause of a telegram to its write."""

LATENCY_BUCKETS_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Latency:
    """Counts observations by bucket; the last count is of those above all buckets."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Add one observation to the first bucket that holds it."""
        bucket = sum(seconds > limit for limit in LATENCY_BUCKETS_SECONDS)
        self.counts[bucket] += 1
        self.sum_seconds += seconds
