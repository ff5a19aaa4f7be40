"""False alarms: does evidence that should hold fail with other random cases?

Usage: alarms.py [--seeds N] [CHAPTER ...]

The checks of each chapter, without its training, run once for each seed from 1 to N, and every
check that fails is kept. What was found goes to ``book/runs/alarms.json`` seed by seed, so that a
run that was broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path

import apart
import chapters
import planted
import slices
from cltheory.checks import SEED_VARIABLE


class Record:
    """Seeds that ran and lines that failed, by chapter; a chapter of other code starts anew."""

    def __init__(self, path: Path = chapters.ALARMS) -> None:
        held = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.path, self.chapters = path, held.get("chapters", {})

    def of(self, chapter: str) -> dict:
        """Return what is known of a chapter."""
        if self.chapters.get(chapter, {}).get("key") != key(chapter):
            self.chapters[chapter] = {"key": key(chapter), "seeds": [], "failed": []}
        return self.chapters[chapter]

    def put(self, chapter: str, seed: int, failed: list[dict[str, str]]) -> None:
        """Add what failed with a seed."""
        known = self.of(chapter)
        known["seeds"].append(seed)
        for line in failed:
            known["failed"].append({**line, "seed": seed})
        planted.seal(self.path, {"chapters": self.chapters})


def key(chapter: str) -> str:
    """Return a hash of the code that the checks of a chapter run: its cells and its modules."""
    code = {
        name: chapters._code(chapters.PACKAGE / f"{name}.py") for name in planted.reached(chapter)
    }
    return planted.digest([planted.cells(chapter), code])


def lines_that_fail(chapter: str, seed: int) -> list[dict[str, str]]:
    """Run the checks of a chapter with a seed; name claim and line of what fails."""
    os.environ[SEED_VARIABLE] = str(seed)
    return list(slices.failing(planted.program(chapter)))


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="CHAPTER")
    parser.add_argument("--seeds", type=int, default=50)
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - set(chapters.chapters()):
        parser.error(f"CHAPTER was {sorted(unknown)}; it should be among {[*chapters.chapters()]}")
    record = Record()
    for seed in range(1, asked.seeds + 1):
        for chapter in asked.names or chapters.chapters():
            if seed not in record.of(chapter)["seeds"]:
                failed = apart.call(partial(lines_that_fail, chapter, seed), chapters.PACKAGE)
                record.put(chapter, seed, failed)
                print(f"{chapter}, seed {seed}: {failed or 'quiet'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
