# SPDX-License-Identifier: Apache-2.0
"""What the bench makes of its figures. What it measures is for docs/performance.md."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "tools"))

import bench
import bench_daemon

CHAIN = [
    {
        "type": "le:s16/16>>0",
        "rate": 4000,
        "nanoseconds_a_scan": {"csp1d": 50, "C": 5, "loop": 1000},
    },
    {"type": "le:s16/16>>0", "rate": 8000, "nanoseconds_a_scan": {"csp1d": 40, "C": 5}},
]


def test_the_tables_say_how_many_times_as_long_and_what_share_of_a_core() -> None:
    table = "\n".join(bench.markdown({"machine": "a board", "chain": CHAIN}))
    assert table.startswith("On a board.\n")
    assert "| `le:s16/16>>0` | 4000 | 50.0 | 5.0 | 1000.0 |" in table
    assert "| `le:s16/16>>0` | 4000 | 0.10 | 20.00 | 0.02 % |" in table
    assert "| `le:s16/16>>0` | 8000 | 0.12 |  | 0.03 % |" in table


def test_parts_that_were_not_measured_have_no_rows() -> None:
    table = "\n".join(bench.markdown({"machine": "a board", "pipe_scans_a_second": 2e7}))
    assert "20.0 million scans a second" in table
    assert "wake-ups" not in table


@pytest.mark.parametrize(("share", "value"), [(0.5, 51.0), (0.99, 100.0), (1.0, 100.0)])
def test_quantile(share: float, value: float) -> None:
    assert bench_daemon.quantile([float(n) for n in range(100, 0, -1)], share) == value


def test_a_latency_is_that_to_the_next_telegram_behind_the_warm_up() -> None:
    causes = [n * 1_000_000_000 for n in range(6)]
    begins = [cause + 3_000_000 for cause in causes[:-1]]
    assert bench_daemon._until_next(causes, begins) == [3.0, 3.0]
