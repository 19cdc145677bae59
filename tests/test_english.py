# SPDX-License-Identifier: Apache-2.0
"""Plain English: idioms that made readers stop do not come back, in code, tests or documents."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KINDS = {
    ".bash", ".c", ".catalog", ".dts", ".html", ".js", ".json", ".md", ".py", ".rst", ".rules",
    ".service", ".sh", ".svg", ".toml", ".yml", "",
}  # fmt: skip
FILES = [
    path
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    if (path := ROOT / name).is_file() and path.suffix in KINDS and path.name != Path(__file__).name
]

IDIOMS = {
    r"\bcan not\b(?! only)": "cannot",
    r"\bmends?\b|\bmended\b|\bmending\b": "fix, remedy",
    r"\blamps?\b": "LED",
    r"(?<!['\"-])\b(?:nobody|somebody)\b(?!['\"-])": "no request, the client, the process",
    r"\b(?:is|are|was|were) told\b|\btells? of\b|\btelling of\b": "reported, logged",
    r"\bsays so\b": "reports, logs",
    r"\bso (?:many|much|long)\b(?! as)": "the number of, at most, the duration",
    r"\bwhat (?:it|that|this) (?:does|is|has|costs|makes)\b": "the thing itself",
    r"\bbehind (?:it|a gap|a pause|a loss)\b": "after (time)",
    r"\ban? (?:second|scan|code|ampere) (?:more|less|each)\b": "per second",
    r"\b(?:scans|wake-ups|readings|telegrams|samples) an? second\b": "per second",
    r"\b(?:millivolts|amperes|unit) a code\b": "per code",
    r"\bmust lie between\b": "must be between",
    r"\bhas the last word\b": "overrides",
    r"\btaken over\b": "used, written",
    r"\bnothing is to be done\b": "no action needed",
    r"\bcharge point asks\b|\basks for telegrams\b": "requests",
    r"\bof its own\b accord": "by itself",
    r"\banew\b": "again",
}


@pytest.mark.parametrize("idiom", IDIOMS)
def test_an_idiom_stays_out(idiom: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in FILES
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if re.search(idiom, line, re.IGNORECASE)
    ]
    assert not found, f"write {IDIOMS[idiom]!r} instead:\n" + "\n".join(found)
