"""Make the recorded run of a chapter: record.py CHAPTER, as `make record` calls it.

The chapter's own cells run, in order, in this process; the cell that asks for the recorded run
makes it and writes book/runs/CHAPTER.json. Nothing else differs from a reader's run.
"""

from __future__ import annotations

import os
import sys

import matplotlib

import chapters


def main(name: str) -> None:
    """Run the cells of one chapter."""
    matplotlib.use("agg")
    os.chdir(chapters.ROOT)
    scope: dict[str, object] = {"__name__": "__main__"}
    for number, cell in enumerate(chapters.code_cells(chapters.notebook(name))):
        exec(compile(cell.source, f"{name}, code cell {number}", "exec"), scope)
    print(
        f"Written: {chapters.RUNS / name}.json. Look at it, run make accept C={name}, commit both."
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
