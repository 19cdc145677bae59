# SPDX-License-Identifier: Apache-2.0
"""The evaluation of the benchmark's records. The figures are in docs/performance.md."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "tools"))

from benchmark.latency import latencies
from benchmark.process import percentile
from benchmark.report import markdown

MS, SECOND = 1_000_000, 1_000_000_000


def test_a_report_has_the_parts_that_were_measured() -> None:
    machine = {"processor": "a board", "python": "Python 3"}
    pipe = {"scans_per_second": 2.55e7, "cpu_ns_per_scan": 31.25, "lost": 0, "scans": 1000}
    text = markdown({"machine": machine, "pipe": pipe})
    assert text.startswith("a board; Python 3.\n\n**(e) Through a pipe**")
    assert "| throughput | 25.5 million scans per second |" in text
    assert "| lost | 0 of 1000 |" in text
    assert "(b)" not in text


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100)])
def test_a_percentile_is_one_of_the_values(percent: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == pytest.approx(value, abs=1)


def test_a_telegram_is_late_by_its_reading_until_the_line_rises_and_by_the_rise_after_that() -> (
    None
):
    begins = [n * SECOND for n in range(1, 8)]
    reports = [(at - MS, at - 4 * MS, MS // 2) for at in begins]
    rises = [begins[-1] - 2 * MS]
    found = latencies(begins, reports, rises, 4 * SECOND)
    assert found["end_to_reader"] == [4.0, 4.0], "but for those while it settled"
    assert found["end_to_port"] == [3.0, 3.0]
    assert found["synthesis"] == [0.5, 0.5]
    assert (found["rise_to_port"], found["rise_to_reader"]) == ([1.0], [2.0])
