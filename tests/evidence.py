"""Blocks of evidence as checks publish them, for the tests of what is made from them."""

import json


def line(kind="numeric", holds=True, **measured):
    defaults = {"worst": 1e-15, "tolerance": 1e-12, "loose": False}
    return {
        "kind": kind,
        "scope": "n = 8",
        "declared": "|gap| <= 1e-12",
        "verdict": "holds" if holds else "FAILS",
        "holds": holds,
        "measured": measured or defaults,
    }


def block(name, role="claim", holds=True):
    return {
        "name": name,
        "role": role,
        "holds": holds,
        "seed": 0,
        "seconds": 1.25,
        "evidence": [line(holds=holds), line("twin", least=0.5, margin=0.1, changes="shift")],
    }


def execute(folder, *blocks):
    """Write an executed notebook that published these blocks."""
    outputs = [{"metadata": {"cltheory": b}} for b in blocks]
    cells = [{"cell_type": "code", "outputs": outputs}, {"cell_type": "markdown"}]
    (folder / "chapter.ipynb").write_text(json.dumps({"cells": cells}))
