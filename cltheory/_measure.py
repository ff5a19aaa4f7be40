"""What evidence functions return, as numbers: seeded streams, magnitudes, symbolic offsets."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any


class EvidenceError(AssertionError):
    """The evidence of a block does not hold, or breaks a rule of evidence."""


def generator(*parts: object) -> Any:
    """Return a CPU torch.Generator whose stream depends on every part, and on nothing else."""
    import torch

    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:7], "big"))


def numbers(value: Any) -> list[float]:
    """Return every number in a scalar, tensor, array or nested sequence, as floats."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().flatten().tolist()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Iterable):
        return [number for entry in value for number in numbers(entry)]
    return [float(value)]


def magnitudes(cases: Sequence[Sequence[float]]) -> list[float]:
    """Return the largest modulus of each case."""
    return [max(abs(value) for value in case) for case in cases]


def gap(values: list[float], targets: list[float]) -> float:
    """Return the largest distance of figures to their targets, or to the one target of all."""
    if len(targets) == 1:
        targets = targets * len(values)
    gaps = [abs(value - target) for value, target in zip(values, targets, strict=True)]
    if not gaps or not all(math.isfinite(gap) for gap in gaps):
        raise EvidenceError("a figure of a training run is missing, NaN or infinite")
    return max(gaps)


def entries(expression: Any) -> list[Any]:
    """Return the SymPy entries of an expression, matrix or nested list."""
    import sympy

    if isinstance(expression, (sympy.MatrixBase, list, tuple)):
        return [entry for row in expression for entry in entries(row)]
    return [sympy.sympify(expression)]


def offset(expression: Any, case: int) -> float:
    """Return the largest modulus of the entries at a seeded rational point of the free symbols."""
    import sympy

    draw = random.Random(case)
    worst = 0.0
    for entry in entries(expression):
        symbols = sorted(entry.free_symbols, key=str)
        # Distinct numbers: where two symbols agree, a false identity may hold by accident.
        numbers = map(sympy.Integer, draw.sample(range(1, 6 + 2 * len(symbols)), len(symbols)))
        point = {
            symbol: number if symbol.is_integer else (number + sympy.Rational(2, 7)) / 2
            for symbol, number in zip(symbols, numbers, strict=True)
        }
        value = abs(complex(entry.subs(point).doit().evalf(30)))
        if not math.isfinite(value):
            raise EvidenceError(f"a twin gave {value} at {point}: NaN or infinity refutes nothing")
        worst = max(worst, value)
    return worst


def show(text: str, metadata: dict[str, Any]) -> None:
    """Show declared lines; in a notebook, with what was measured in the output's metadata."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(text)
    else:
        display({"text/plain": text}, raw=True, metadata=metadata)
