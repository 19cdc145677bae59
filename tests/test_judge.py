# SPDX-License-Identifier: Apache-2.0
"""The judge of the fault campaign: the failures it must detect, and the cases it must accept.

Each case is one minute of the wire of a correct sensor, with one deviation.
"""

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "kernel"))

from campaign.judge import Evidence, Fault, Verdict, growth_percent, judge
from campaign.record import Writer, load
from guest.hat import Made
from guest.telegrams import crc16, with_amperes

SECOND = 1_000_000_000
BYTE_NS = SECOND // 11520
PUBLISHED = (Path(__file__).parent / "p1/golden-24A.p1").read_bytes()
START_NS = 100 * SECOND
SECONDS = 60
LATENCY_NS = SECOND // 20

Sent = list[tuple[int, bytes]]
"""The beginning of each (partial) telegram, and its bytes."""


def telegram(amperes: Sequence[float]) -> bytes:
    return with_amperes(PUBLISHED, [int(a + 0.5) for a in amperes])


def weather(gap: tuple[float, float] = (0.0, 0.0)) -> list[Made]:
    """Currents that change at random, without scans between two times (seconds)."""
    source, made, at_ns = random.Random(5), [], START_NS - 3 * SECOND
    gap_ns = [START_NS + round(seconds * SECOND) for seconds in gap]
    while at_ns < START_NS + (SECONDS + 3) * SECOND:
        until_ns = at_ns + round(source.uniform(0.3, 1.2) * SECOND)
        amperes = tuple(round(source.uniform(0, 80), 1) for _ in range(3))
        for from_ns, to_ns in (
            (at_ns, min(until_ns, gap_ns[0])),
            (max(at_ns, gap_ns[1]), until_ns),
        ):
            if from_ns < to_ns:
                made.append(Made(from_ns, to_ns, amperes))
        at_ns = until_ns
    return made


def rms(made: Sequence[Made], start_ns: int, end_ns: int) -> list[float]:
    weights = [max(0, min(end_ns, m.end_ns) - max(start_ns, m.start_ns)) for m in made]
    squares = np.array([np.square(m.amperes) for m in made])
    mean: list[float] = np.sqrt(np.array(weights) @ squares / sum(weights)).tolist()
    return mean


def at(second: float) -> int:
    return START_NS + round(second * SECOND)


def a_minute(made: Sequence[Made]) -> Sent:
    """Windows of one second, each sent 50 ms after its end."""
    return [(at(n) + LATENCY_NS, telegram(rms(made, at(n - 1), at(n)))) for n in range(1, SECONDS)]


MADE = weather()


def evidence(
    sent: Sent,
    made: Sequence[Made] = MADE,
    line: Sequence[tuple[int, bool]] = (),
    faults: Sequence[Fault] = (),
) -> Evidence:
    data = b"".join(piece for _, piece in sent)
    times = [ns + BYTE_NS * (i + 1) for ns, piece in sent for i in range(len(piece))]
    return Evidence(
        START_NS,
        at(SECONDS),
        data,
        np.array(times, np.int64),
        [(START_NS + 1, True), *line],
        made,
        faults,
    )


def found(verdict: Verdict) -> dict[str, int]:
    return verdict.failures()


def test_a_good_minute_is_good() -> None:
    verdict = judge(evidence(a_minute(MADE)), PUBLISHED)
    assert (found(verdict), verdict.telegrams, verdict.details) == ({}, SECONDS - 1, [])
    assert 0 < verdict.oldest_seconds < 0.2


def wrong(sent: Sent) -> None:
    """Another current on one phase, with a correct checksum."""
    ns, data = sent[30]
    l1 = int(data[data.index(b"1-0:31.7.0(") + 11 :][:3])
    others = rms(MADE, at(30), at(31))[1:]
    sent[30] = ns, telegram([l1 + 2, *others])


def stale(sent: Sent) -> None:
    """The telegram of four seconds ago."""
    sent[30] = sent[30][0], sent[26][1]


def a_little_stale(sent: Sent) -> None:
    """A reading that is sent 1.1 s after its end instead of the one that follows it."""
    sent[30] = at(31.1 + 1), sent[30][1]
    del sent[31]


def from_the_future(sent: Sent) -> None:
    """Sent half a second before its window ends."""
    sent[30] = sent[30][0] - SECOND * 6 // 10, sent[30][1]


def sent_twice(sent: Sent) -> None:
    sent.insert(31, (sent[30][0] + SECOND // 2, sent[30][1]))


def damaged(sent: Sent) -> None:
    ns, data = sent[30]
    sent[30] = ns, data[:-8] + b"X" + data[-7:]


def beheaded(sent: Sent) -> None:
    """The rest of a telegram that should have been flushed."""
    sent[30] = sent[30][0], sent[30][1][300:]


def spliced(sent: Sent) -> None:
    """The head of one and the tail of the next: no checksum."""
    sent[30] = sent[30][0], sent[30][1][:600] + sent[31][1][600:]


def accepted_although_torn(sent: Sent) -> None:
    """A line is missing, but the checksum is correct."""
    ns, data = sent[30]
    body = data[:-6].replace(b"0-0:96.14.0(0001)\r\n", b"")
    sent[30] = ns, body + b"%04X\r\n" % crc16(body)


def broken_off(sent: Sent) -> None:
    """Cut short without a cause."""
    sent[30] = sent[30][0], sent[30][1][:400]


def left_out(sent: Sent) -> None:
    del sent[30]


def three_left_out(sent: Sent) -> None:
    del sent[30:33]


@pytest.mark.parametrize(
    ("spoil", "finds"),
    [
        (wrong, {"wrong": 1}),
        (stale, {"stale": 1}),
        (a_little_stale, {"stale": 1, "missing_seconds": 1}),
        (from_the_future, {"wrong": 1, "missing_seconds": 1}),
        (sent_twice, {"early": 1}),
        (damaged, {"torn": 1, "missing_seconds": 1}),
        (beheaded, {"torn": 1, "missing_seconds": 1}),
        (spliced, {"torn": 1, "missing_seconds": 1}),
        (accepted_although_torn, {"torn": 1, "missing_seconds": 1}),
        (broken_off, {"torn": 1, "missing_seconds": 1}),
        (left_out, {"missing_seconds": 1}),
        (three_left_out, {"missing_seconds": 3}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_finds(spoil: Callable[[Sent], None], finds: dict[str, int]) -> None:
    sent = a_minute(MADE)
    spoil(sent)
    assert found(judge(evidence(sent), PUBLISHED)) == finds


def test_finds_two_a_second_although_the_current_is_steady() -> None:
    made = [Made(at(-3), at(SECONDS + 3), (24.0, 10.0, 3.0))]
    sent = [(at(n / 2), telegram(made[0].amperes)) for n in range(1, 2 * SECONDS)]
    assert set(found(judge(evidence(sent, made), PUBLISHED))) == {"early"}


def test_finds_a_reading_across_a_gap() -> None:
    """0.3 s before and 0.7 s after a gap of two seconds, sent immediately."""
    made = weather(gap=(20.3, 22.3))
    fault = Fault("stall", at(20.3), at(22.3), silences=True)
    sent = [item for item in a_minute(MADE) if not at(20.9) < item[0] < at(23.9)]
    assert found(judge(evidence(sent, made, faults=[fault]), PUBLISHED)) == {}
    sent.append((at(23.05), telegram(rms(made, at(20), at(23)))))
    assert found(judge(evidence(sorted(sent), made, faults=[fault]), PUBLISHED)) == {"wrong": 1}


def test_lets_a_small_gap_pass() -> None:
    made = weather(gap=(20.3, 20.34))
    verdict = judge(evidence(a_minute(made), made), PUBLISHED)
    assert found(verdict) == {}


def test_silence_is_excused_while_a_fault_lasts_and_until_it_has_passed() -> None:
    sent = [item for item in a_minute(MADE) if not at(20) < item[0] < at(26)]
    fault = Fault("unplugged", at(20), at(22), silences=True)
    verdict = judge(evidence(sent, faults=[fault]), PUBLISHED)
    assert found(verdict) == {}
    assert verdict.recovery_seconds == {"unplugged": pytest.approx(4.05)}

    harmless = replace(fault, silences=False)
    assert found(judge(evidence(sent, faults=[harmless]), PUBLISHED)) == {"missing_seconds": 6}
    sent = [item for item in sent if not at(26) < item[0] < at(28)]
    late = judge(evidence(sent, faults=[fault]), PUBLISHED)
    assert found(late) == {"not_recovered": 1}


def test_a_low_line_wants_silence_and_excuses_it() -> None:
    line = [(at(20.5), False), (at(24.5), True)]
    sent = a_minute(MADE)
    quiet = [item for item in sent if not at(20.5) < item[0] < at(24.5)]
    assert found(judge(evidence(quiet, line=line), PUBLISHED)) == {}
    assert found(judge(evidence(sent, line=line), PUBLISHED)) == {"unwanted": 4 * len(PUBLISHED)}
    # A telegram is due within one second after the rise.
    late = [item for item in quiet if not at(24) < item[0] < at(26)]
    assert found(judge(evidence(late, line=line), PUBLISHED)) == {"missing_seconds": 1}


@pytest.mark.parametrize(
    ("again", "finds"), [(False, {}), (True, {"early": 1})], ids=["once", "and again"]
)
def test_a_port_that_cannot_flush(again: bool, finds: dict[str, int]) -> None:
    """The rest of the telegram leaves although the line has fallen; its reading is then sent."""
    sent = a_minute(MADE)
    ns, data = sent[19]
    line = [(ns + 200 * BYTE_NS, False), (ns + SECOND // 4, True)]
    if again:
        sent.insert(20, (ns + SECOND // 4, data))
    assert found(judge(evidence(sent, line=line), PUBLISHED)) == finds


@pytest.mark.parametrize(
    ("length", "finds"),
    [(300, {}), (1400, {"torn": 1, "unwanted": 47})],
    ids=["at once", "with the next telegram"],
)
def test_a_fall_in_mid_telegram(length: int, finds: dict[str, int]) -> None:
    """It excuses what is cut short, and bytes for a tenth of a second: 1152."""
    sent = a_minute(MADE)
    ns, data = sent[19]
    sent[19] = ns, (data + data)[:length]
    line = [(ns + 200 * BYTE_NS, False), (at(20.9), True)]
    assert found(judge(evidence(sent, line=line), PUBLISHED)) == finds


def test_where_there_is_no_line_nobody_asks() -> None:
    fault = Fault("line gone", at(20), at(25), silences=True, mute_seconds=1.5)
    verdict = judge(evidence(a_minute(MADE), faults=[fault]), PUBLISHED)
    assert verdict.unwanted == 3 * len(PUBLISHED)


def test_evidence_survives_the_files(tmp_path: Path) -> None:
    faults = [Fault("stall", at(n), at(n + 1), silences=True) for n in (20, 40)]
    whole = evidence(a_minute(MADE), line=[(at(50), False)], faults=faults)
    form = np.dtype([("ns", "<u8"), ("value", "<u8")])
    left = np.array(list(zip(map(int, whole.times_ns), whole.data, strict=True)), form)
    line = np.array(list(whole.line), form)
    writer = Writer(tmp_path / "evidence", whole.start_ns)
    grown = [*MADE[:30], MADE[30]._replace(end_ns=MADE[30].end_ns - SECOND // 10)]
    writer.add(left[:20_000], line[:1], grown, faults[:1], at(30))
    writer.problem("a problem")
    writer.add(left[20_000:], line[1:], MADE, faults, whole.end_ns)
    read = dict(vars(load(tmp_path / "evidence")))
    expected = {**vars(whole), "problems": ["a problem"]}
    assert np.array_equal(read.pop("times_ns"), expected.pop("times_ns"))
    assert read == expected


@pytest.mark.parametrize(
    ("after", "percent"), [(100.0, 0.0), (102.0, 1.98), (90.0, -10.5)], ids=["flat", "up", "down"]
)
def test_growth_is_that_of_an_hour(after: float, percent: float) -> None:
    warm_up = [(hours / 10, 50.0 + hours) for hours in range(10)]
    samples = warm_up + [(1 + n / 10, 100 + (after - 100) * n / 10) for n in range(11)]
    assert growth_percent(samples, 1.0) == pytest.approx(percent, abs=0.1)
