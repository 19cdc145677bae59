# SPDX-License-Identifier: Apache-2.0
"""The histogram of latencies, as Prometheus expects it: a bucket includes its upper limit."""

import pytest

from csp1d.p1.latency import LATENCY_BUCKETS_SECONDS, Latency


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (0.3, 8), (0.5, 8), (1.0, 9), (1.0001, 10), (60.0, 10)],
)
def test_a_bucket_includes_its_limit(seconds: float, bucket: int) -> None:
    latency = Latency()
    latency.observe(seconds)
    assert [index for index, count in enumerate(latency.counts) if count] == [bucket]


def test_counts_and_sum_add_up() -> None:
    latency = Latency()
    assert latency.counts == [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)
    assert latency.sum_seconds == 0
    for seconds in (0.25, 0.25, 0.5, 2.0):
        latency.observe(seconds)
    assert latency.counts == [0] * 8 + [3, 0, 1]
    assert latency.sum_seconds == 3.0
