"""Take the lines of the last run of the chapters as their reference, after showing the difference.

Usage: accept.py [CHAPTER ...]
"""

from __future__ import annotations

import difflib
import sys

import chapters


def accept(name: str) -> bool:
    """Show and take the new lines of one chapter; return whether anything is left to mend."""
    made = chapters.notebook(name)
    for folder in (chapters.REJECTED, chapters.EXECUTED):
        run = chapters.kept(folder / f"{name}.ipynb")
        if run and run.metadata["cltheory"]["code"] == chapters.code_key(made):
            break
    else:
        print(f"{name}: has not run since its code changed. Run: make chapter C={name}")
        return False
    broken = [
        (number, out.ename, out.evalue)
        for number, cell in enumerate(chapters.code_cells(run))
        for out in cell.outputs
        if out.output_type == "error"
    ]
    for number, kind, message in broken:
        print(f"{name}: code cell {number} raised {kind}: {message}")
    if broken:
        print(f"{name}: nothing accepted; a claim that fails is mended, never accepted.")
        return False
    old = chapters.accepted_lines(name)
    new = {place: chapters.texts(cell) for place, cell in chapters.places(run)}
    difference = list(difflib.unified_diff(_flat(old), _flat(new), "accepted", "new", lineterm=""))
    if not difference:
        print(f"{name}: nothing new")
        return True
    print(f"{name}:", *difference, sep="\n  ")
    chapters.write_notebook(name, chapters.with_lines(made, new))
    return True


def _flat(lines: dict) -> list[str]:
    return [line for texts in lines.values() for text in texts for line in text.splitlines()]


if __name__ == "__main__":
    names = sys.argv[1:] or list(chapters.chapters())
    try:
        done = [accept(name) for name in names]
    except chapters.Damaged as error:
        sys.exit(str(error))
    if all(done):
        print("Accepted. Look at the difference, then commit notebooks/.")
    sys.exit(0 if all(done) else 1)
