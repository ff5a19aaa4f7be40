"""Run a program that a reader may have changed, and say what came of it.

This module travels into the page beside the package; it needs nothing that is not at hand there.
"""

from __future__ import annotations

import contextlib
import io
import traceback
from typing import Any

from cltheory import checks, ledger

EDITOR = "<editor>"


def run(source: str) -> tuple[str, str]:
    """Return a state (``holds``, ``fails``, ``broken`` or ``unchecked``) and what there is to read.

    Both come from the evidence that :mod:`cltheory.checks` gathered, as on the pages.
    """
    said, blocks = io.StringIO(), []

    def show(text: str, metadata: dict[str, Any]) -> None:
        said.write(_read(text, metadata["cltheory"]))
        blocks.append(metadata["cltheory"])

    theirs, checks.show = checks.show, show
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(source, EDITOR, "exec"), {"__name__": "__main__"})
    except checks.EvidenceError as error:
        if not blocks or blocks[-1]["holds"]:  # a rule of evidence, not its outcome
            said.write(f"{error}\n")
        return "fails", said.getvalue()
    except (Exception, SystemExit) as error:
        said.write(_trouble(error))
        return "broken", said.getvalue()
    finally:
        checks.show = theirs
    return "holds" if blocks else "unchecked", said.getvalue()


def _read(text: str, block: dict[str, Any]) -> str:
    """Put under each declared line what was measured."""
    *declared, verdict = text.splitlines()
    lines = []
    for line, evidence in zip(declared, block["evidence"], strict=True):
        lines += [line, f"    {ledger.sentence(evidence)}"]
    return "\n".join([*lines, verdict, ""])


def _trouble(error: BaseException) -> str:
    """Say where in the editor it went wrong, and how."""
    frames = traceback.extract_tb(error.__traceback__)
    where = "".join(f"line {frame.lineno}: " for frame in frames if frame.filename == EDITOR)
    return where + "".join(traceback.format_exception_only(error))
