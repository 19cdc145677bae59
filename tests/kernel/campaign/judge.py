# SPDX-License-Identifier: Apache-2.0
"""The judge: compares the input with the bytes on the wire and lists what is wrong. No I/O.

The input currents change all the time, so the amperes reveal their age. A telegram is explained
by a window of about one second of scans that the kernel accepted, that ended at most one second
before the first byte, and over which the RMS rounds to its amperes on all three phases. If only an
older window explains it, it is stale; if none does, it is wrong. The judge does not know the exact
length of a window, or where in a cycle the current changed: `_EDGE_SECONDS` allows for that.

Independent of csp1d: it knows SPEC, not code. All times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import collections
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from guest.hat import Made
from guest.telegrams import LINE_BYTES_PER_SECOND, crc16

SECOND = 1_000_000_000
Floats = npt.NDArray[np.float64]

FRESH_SECONDS = 1.0
"""Maximum age of a telegram at its first byte."""
REACTION_SECONDS = 0.1
"""Time after a fall of the line in which bytes may still leave: the daemon wakes up and flushes."""
BEGIN_SECONDS = 0.02
"""Time after a fall of the line in which a telegram may begin: from the last poll to the write."""
PAUSE_SECONDS = 1.5
"""The longest time between the beginnings of two telegrams. From here on one is missing; up to here
it is late: on the slow processor of an emulated machine, or since its memory was taken away."""
APART_SECONDS = 0.9
"""Minimum distance between the ends of two windows."""
MOST_LOST_SECONDS = 0.05
"""Maximum share of missing scans in a window."""
MOST_DETAILS = 12
"""Maximum number of faults of one kind in the summary."""

_LONGEST_AGE_SECONDS = 60
_STEP_SECONDS = 0.001
_LENGTHS_SECONDS = np.arange(0.960, 1.0401, 0.002)
_BYTE_NS = SECOND // LINE_BYTES_PER_SECOND
_CYCLE_SECONDS = 0.02
_EDGE_SECONDS = _CYCLE_SECONDS / (4 * np.pi) + _STEP_SECONDS / 2 + 0.001
"""Tolerance of the mean square at a change of the current: it may fall within a cycle, and windows
are tried in steps."""
_AMPERES = 0.51
"""Half an ampere of rounding, and the error of the measurement."""


@dataclass(frozen=True)
class Fault:
    """An injected fault."""

    kind: str
    begin_ns: int
    end_ns: int
    silences: bool
    """Whether telegrams may be missing while it lasts and until `recovery_seconds` after it."""
    recovery_seconds: float = 5.0
    mute_seconds: float | None = None
    """From this time after its beginning to its end nothing may be sent; None: no such rule."""


@dataclass(frozen=True)
class Evidence:
    """All input and output between two times at which the wire was quiet."""

    start_ns: int
    end_ns: int
    data: bytes
    times_ns: npt.NDArray[np.int64]
    """The end of each byte's stop bit."""
    line: Sequence[tuple[int, bool]]
    """Changes of the request line; low before the first one."""
    made: Sequence[Made]
    faults: Sequence[Fault]
    problems: Sequence[str] = ()
    """Errors seen by the process that injected the faults."""


@dataclass
class Verdict:
    """The verdict. Everything except `telegrams`, `broken_off` and the times counts failures."""

    telegrams: int = 0
    broken_off: int = 0
    """Telegrams cut short by the line or by a fault, as intended."""
    wrong: int = 0
    stale: int = 0
    torn: int = 0
    """Bytes that only look like a telegram, telegrams cut short without a cause, and bytes that
    belong to no telegram."""
    early: int = 0
    """Telegrams of a reading that was already sent, or more than one per second."""
    unwanted: int = 0
    """Bytes sent without a request."""
    missing_seconds: int = 0
    not_recovered: int = 0
    oldest_seconds: float = 0.0
    """The age of the oldest first byte, using the youngest window that explains each telegram."""
    spreads_seconds: list[float] = field(default_factory=list)
    """Distance between the ends of the windows that explain a telegram: the resolution."""
    reaction_seconds: float = 0.0
    """The latest byte after the line fell."""
    pause_seconds: float = 0.0
    """The longest pause between two successive telegrams."""
    made: Sequence[Fault] = ()
    """The faults, to name the one before a failure."""
    recovery_seconds: dict[str, float] = field(default_factory=dict)
    """By kind, the longest time from the end of a fault to a telegram."""
    faults: collections.Counter[str] = field(default_factory=collections.Counter)
    details: list[str] = field(default_factory=list)

    def failures(self) -> dict[str, int]:
        """The counts that should be 0 and are not."""
        names = (
            "wrong",
            "stale",
            "torn",
            "early",
            "unwanted",
            "missing_seconds",
            "not_recovered",
        )
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def text(self) -> str:
        """The summary as text."""
        back = {
            kind: f"back after at most {seconds:.2f} s"
            for kind, seconds in self.recovery_seconds.items()
        }
        kinds = [
            f"  {kind:<28} {count:>4}   {back.get(kind, 'no telegram missing')}"
            for kind, count in sorted(self.faults.items())
        ]
        placed_seconds = float(np.median(self.spreads_seconds or [0]))
        return "\n".join(
            [
                f"faults {self.faults.total()}",
                *kinds,
                f"telegrams {self.telegrams}, placed to {placed_seconds:.3f} s (median), "
                f"cut short with a cause {self.broken_off}",
                f"wrong {self.wrong}, stale {self.stale}, torn {self.torn}, early {self.early}, "
                f"unwanted bytes {self.unwanted}",
                f"missing seconds {self.missing_seconds}, not back in time {self.not_recovered}",
                f"oldest first byte {self.oldest_seconds:.3f} s, longest pause "
                f"{self.pause_seconds:.3f} s, last byte {self.reaction_seconds * 1000:.0f} ms "
                "after the line's fall",
                *self.details[:MOST_DETAILS],
            ]
        )


class History:
    """The input currents, as integrals over time."""

    def __init__(self, made: Iterable[Made]) -> None:
        times: list[int] = []
        present: list[float] = []
        energy: list[Floats] = []
        change_times: list[int] = []
        changes: list[Floats] = []
        seconds = 0.0
        squares: Floats = np.zeros(3)
        before: Made | None = None
        for run in made:
            level = np.square(run.amperes)
            if before and before.end_ns == run.start_ns:
                change_times.append(run.start_ns)
                changes.append(np.abs(level - np.square(before.amperes)))
            else:
                if before:
                    change_times.append(before.end_ns)
                    changes.append(np.square(before.amperes))
                change_times.append(run.start_ns)
                changes.append(level)
            for ns in (run.start_ns, run.end_ns):
                times.append(ns)
                present.append(seconds)
                energy.append(squares)
                if ns == run.start_ns:
                    seconds += (run.end_ns - ns) / SECOND
                    squares = squares + level * (run.end_ns - ns) / SECOND
            before = run
        self._times = np.array(times or [0], np.float64)
        self._present = np.array(present or [0.0])
        self._energy = np.array(energy or [np.zeros(3)]).T
        self._change_times = np.array(change_times, np.float64)
        self._changes = np.cumsum(np.array([np.zeros(3), *changes]), axis=0).T

    def ends(self, amperes: Sequence[int], first_ns: float, last_ns: float) -> Floats:
        """Ends of windows between two times that explain these amperes, in order."""
        ends = np.arange(last_ns, first_ns - 1, -_STEP_SECONDS * SECOND)[::-1]
        starts = ends[:, None] - _LENGTHS_SECONDS * SECOND
        present = np.interp(ends, self._times, self._present)[:, None]
        present = present - np.interp(starts, self._times, self._present)
        explained = _LENGTHS_SECONDS - present <= MOST_LOST_SECONDS + _STEP_SECONDS
        present = np.maximum(present, _STEP_SECONDS)
        behind = np.searchsorted(self._change_times, ends, "right")[:, None]
        before = np.searchsorted(self._change_times, starts, "left")
        for energy, changes, shown in zip(self._energy, self._changes, amperes, strict=True):
            square = np.interp(ends, self._times, energy)[:, None]
            square = (square - np.interp(starts, self._times, energy)) / present
            play = (changes[behind] - changes[before]) * _EDGE_SECONDS / present
            low = max(0.0, shown - _AMPERES) ** 2
            explained &= (square + play >= low) & (square - play <= (shown + _AMPERES) ** 2)
        found: Floats = ends[explained.any(axis=1)]
        return found


@dataclass(frozen=True)
class _Telegram:
    start_ns: int
    end_ns: int
    amperes: tuple[int, int, int]


def judge(evidence: Evidence, published: bytes) -> Verdict:
    """Judge one telegram. `published` is a correct telegram with any amperes."""
    verdict = Verdict(
        faults=collections.Counter(fault.kind for fault in evidence.faults), made=evidence.faults
    )
    telegrams = list(_telegrams(evidence, published, verdict))
    verdict.telegrams = len(telegrams)
    _judge_amperes(telegrams, History(evidence.made), verdict)
    _judge_bytes(evidence, verdict)
    _judge_pauses(evidence, telegrams, verdict)
    _judge_recovery(evidence, telegrams, verdict)
    return verdict


def _telegrams(evidence: Evidence, published: bytes, verdict: Verdict) -> Iterator[_Telegram]:
    """Telegrams accepted by a reader that restarts at each `/`, and by one that does not. The rest
    must be the beginning of a telegram, and have a cause.
    """
    data, form = evidence.data, _form(published)
    end = 0
    while end < len(data):
        start = end
        whole = re.compile(rb"/[^!]*!([0-9A-F]{4})\r\n").match(data, start)
        if whole and crc16(data[start : whole.end() - 6]) == int(whole[1], 16):
            end = whole.end()
            first_ns = int(evidence.times_ns[start]) - _BYTE_NS
            if content := form.fullmatch(whole[0]):
                l1, l2, l3 = (int(digits) for digits in content.groups())
                yield _Telegram(first_ns, int(evidence.times_ns[end - 1]), (l1, l2, l3))
            else:
                _fail(verdict, "torn", first_ns, f"accepted: {whole[0]!r}")
            continue
        after = data.find(b"/", start + 1)
        end = after if after >= 0 else len(data)
        piece, first_ns = data[start:end], int(evidence.times_ns[start]) - _BYTE_NS
        if len(piece) == len(published) or not _begins(piece, published):
            _fail(verdict, "torn", first_ns, f"of no telegram: {piece[:30]!r}...{piece[-30:]!r}")
        elif not _cut_short(evidence, first_ns, int(evidence.times_ns[end - 1])):
            _fail(verdict, "torn", first_ns, f"ends without a cause: {piece[-30:]!r}")
        else:
            verdict.broken_off += 1


@functools.cache
def _form(published: bytes) -> re.Pattern[bytes]:
    """The pattern of all telegrams: only the amperes of the body differ."""
    parts = re.split(rb"(?<=\()\d{3}(?=\*A\))", published[:-6])
    return re.compile(rb"(\d{3})".join(map(re.escape, parts)) + rb"[0-9A-F]{4}\r\n")


def _begins(piece: bytes, published: bytes) -> bool:
    """Whether it is the beginning of a telegram."""
    # Completed with the bytes that would have followed.
    return _form(published).fullmatch(piece + published[len(piece) :]) is not None


def _cut_short(evidence: Evidence, start_ns: int, end_ns: int) -> bool:
    """Whether the line fell or a fault was on about where the last byte left."""
    until_ns = end_ns + REACTION_SECONDS * SECOND
    since_ns = start_ns - BEGIN_SECONDS * SECOND
    if any(since_ns <= ns <= until_ns and not level for ns, level in evidence.line):
        return True
    return any(
        fault.silences
        and fault.begin_ns <= until_ns
        and start_ns <= fault.end_ns + REACTION_SECONDS * SECOND
        for fault in evidence.faults
    )


def _judge_amperes(telegrams: Sequence[_Telegram], history: History, verdict: Verdict) -> None:
    last_end_ns = float("-inf")
    for number, telegram in enumerate(telegrams):
        fresh_ns = telegram.start_ns - FRESH_SECONDS * SECOND
        ends = history.ends(telegram.amperes, fresh_ns, telegram.start_ns)
        if ends.size:
            age_seconds = (telegram.start_ns - float(ends[-1])) / SECOND
            verdict.oldest_seconds = max(verdict.oldest_seconds, age_seconds)
            verdict.spreads_seconds.append(float(ends[-1] - ends[0]) / SECOND)
            ends = ends[ends >= last_end_ns + APART_SECONDS * SECOND]
            if ends.size:
                last_end_ns = float(ends[0])
            else:
                last_end_ns = fresh_ns
                _fail(verdict, "early", telegram.start_ns, f"{telegram.amperes} A again")
        else:
            last_end_ns = float("-inf")
            oldest_ns = fresh_ns - _LONGEST_AGE_SECONDS * SECOND
            older = history.ends(telegram.amperes, oldest_ns, fresh_ns)
            if older.size:
                age = (telegram.start_ns - float(older[-1])) / SECOND
                text = f"{telegram.amperes} A are {age:.2f} s old"
                _fail(verdict, "stale", telegram.start_ns, text)
            else:
                _fail(verdict, "wrong", telegram.start_ns, f"{telegram.amperes} A never were")
        # One telegram may be late and the next punctual, but not three in a row.
        if number >= 2 and telegram.start_ns - telegrams[number - 2].start_ns < 0.95 * SECOND:
            _fail(verdict, "early", telegram.start_ns, "the third within a second")


def _judge_bytes(evidence: Evidence, verdict: Verdict) -> None:
    """Bytes sent without a request."""
    begins = evidence.times_ns - _BYTE_NS
    changes = np.array([evidence.start_ns, *(ns for ns, _ in evidence.line)], np.int64)
    levels = np.array([False, *(level for _, level in evidence.line)])
    at = np.searchsorted(changes, begins, "right") - 1
    low = (at < 0) | ~levels[at]
    since_ns = np.where(low, begins - changes[at], 0)
    if len(begins):
        verdict.reaction_seconds = float(since_ns.max()) / SECOND
    bad = since_ns > REACTION_SECONDS * SECOND
    for fault in evidence.faults:
        if fault.mute_seconds is not None:
            mute_ns = fault.begin_ns + fault.mute_seconds * SECOND
            bad |= (begins > mute_ns) & (begins < fault.end_ns)
    verdict.unwanted = int(np.count_nonzero(bad))
    if verdict.unwanted:
        _tell(verdict, "unwanted bytes from here on", int(begins[bad][0]))


def _judge_pauses(evidence: Evidence, telegrams: Sequence[_Telegram], verdict: Verdict) -> None:
    """Seconds without a telegram and without an excuse."""
    excused = [
        (fault.begin_ns, fault.end_ns + round(fault.recovery_seconds * SECOND))
        for fault in evidence.faults
        if fault.silences
    ]
    line = [(evidence.start_ns, False), *evidence.line, (evidence.end_ns, True)]
    excused += [
        (fall_ns, rise_ns) for (fall_ns, level), (rise_ns, _) in pairwise(line) if not level
    ]
    excused.sort()
    starts = [evidence.start_ns, *(t.start_ns for t in telegrams), evidence.end_ns]
    for before_ns, after_ns in pairwise(starts):
        longest_ns, since_ns = 0, before_ns
        for from_ns, to_ns in excused:
            if to_ns <= before_ns or from_ns >= after_ns:
                continue
            longest_ns = max(longest_ns, from_ns - since_ns)
            since_ns = max(since_ns, to_ns)
        pause = max(longest_ns, after_ns - since_ns) / SECOND
        verdict.pause_seconds = max(verdict.pause_seconds, pause)
        if pause > PAUSE_SECONDS:
            seconds = max(1, round(pause) - 1)
            verdict.missing_seconds += seconds
            _tell(verdict, f"{seconds} s missing, the next", after_ns)


def _judge_recovery(evidence: Evidence, telegrams: Sequence[_Telegram], verdict: Verdict) -> None:
    starts = [telegram.start_ns for telegram in telegrams]
    for fault in evidence.faults:
        if not fault.silences:
            continue
        after = np.searchsorted(starts, fault.end_ns)
        next_ns = starts[after] if after < len(starts) else None
        seconds = (next_ns - fault.end_ns) / SECOND if next_ns is not None else float("inf")
        known = verdict.recovery_seconds.get(fault.kind, 0.0)
        verdict.recovery_seconds[fault.kind] = max(known, seconds)
        if seconds > fault.recovery_seconds:
            verdict.not_recovered += 1
            _tell(verdict, f"no telegram for {seconds:.2f} s from here", fault.end_ns)


def _fail(verdict: Verdict, what: str, ns: int, text: str) -> None:
    setattr(verdict, what, getattr(verdict, what) + 1)
    _tell(verdict, what, ns, text)


def _tell(verdict: Verdict, what: str, ns: int, text: str = "") -> None:
    """The failure, its time, and the fault before it."""
    last = next((fault for fault in reversed(verdict.made) if fault.begin_ns <= ns), None)
    behind = f", {(ns - last.begin_ns) / SECOND:.3f} s into {last.kind!r}" if last else ""
    verdict.details.append(f"{what} at {_at(ns)}{behind}" + f": {text}" * bool(text))


def growth_percent(samples: Sequence[tuple[float, float]], from_hours: float) -> float:
    """Growth per hour relative to the mean: the slope of a straight line through the samples from
    `from_hours` on. `samples`: hours, value.
    """
    hours, values = np.array([sample for sample in samples if sample[0] >= from_hours]).T
    return float(np.polyfit(hours, values, 1)[0] / values.mean() * 100)


def _at(ns: int) -> str:
    return f"{ns / SECOND:.3f}"
