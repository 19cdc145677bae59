# SPDX-License-Identifier: Apache-2.0
"""Coverage-guided fuzzing of one kind of input (tests/hostile.py), for a number of seconds.

Inputs that reach new code are kept in the user's cache for the next run. An input that breaks a
property is left in the working directory as crash-*; add it to tests/test_hostile.py.
"""

import os
import sys
import tempfile
from pathlib import Path

import atheris

TREE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TREE), str(TREE / "tests")]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "csp1d/fuzz"

atheris.enabled_hooks.add("str")
with atheris.instrument_imports(include=["csp1d", "tomllib", "json", "http.server"]):
    from hostile import SEEDS, TARGETS, WORDS


def main(target: str, seconds: str) -> None:
    corpus = CACHE / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]):
        (corpus / f"seed-{number}").write_bytes(seed)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        words.writelines(f'"{word}"\n' for word in WORDS)
        words.flush()
        limits = [f"-max_total_time={seconds}", "-timeout=20", "-max_len=16384"]
        options = [*limits, f"-dict={words.name}", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[target])
        atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: tools/fuzz TARGET SECONDS; targets: {', '.join(TARGETS)}")
    main(*sys.argv[1:])
