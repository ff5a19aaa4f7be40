r"""Evidence for claims: the only place that decides whether evidence holds.

A check states a claim by its id, gives evidence, and shows at least one falsified twin: the same
function with exactly one thing changed, which the same check must refute in every case.

>>> import sympy as sp
>>> def gap(*, constant=2):
...     a, b = sp.symbols("a b")
...     return (a + b) ** 2 - a**2 - b**2 - constant * a * b
>>> with exercise("binomial") as c:
...     c.symbolic("all a, b", gap)
...     c.twin("forget the factor 2", constant=1, margin=1e-3)
binomial | symbolic | all a, b | simplifies to 0 | holds
binomial | twin | forget the factor 2 | changes constant | off by >= 0.001 in every case | refuted
binomial | holds

The printed lines are *declared*: they are the same on every machine, and the book compares them.
What was *measured* travels in the metadata of the cell's output. Neither PyTorch nor NumPy is
imported before a check needs it, so that symbolic checks run wherever SymPy does.
"""

from __future__ import annotations

import inspect
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, Self

from cltheory._measure import (
    EvidenceError,
    entries,
    gap,
    generator,
    magnitudes,
    numbers,
    offset,
    show,
)

if TYPE_CHECKING:
    from types import TracebackType

    from cltheory.training import Record

SEPARATION = 100.0
"""A twin's margin is at least this many tolerances of the evidence that it controls."""
OBSERVED_SEPARATION = 10.0
"""An untrained model misses the theory by at least this many tolerances."""
LOOSE = 1e4
"""A tolerance this many times larger than what was measured is reported as loose."""
SEED_VARIABLE = "CLTHEORY_SEED"

Kind = Literal[
    "symbolic", "numeric", "bound", "rate", "counterexample", "observed", "recorded", "twin"
]
"""What a line of evidence can be."""


@dataclass(frozen=True)
class Evidence:
    """One line of evidence: what was declared, the verdict, and what was measured.

    Examples
    --------
    >>> Evidence("twin", "a wrong constant", "off by >= 0.1", "refuted", holds=True).kind
    'twin'
    """

    kind: Kind
    scope: str
    declared: str
    verdict: str
    holds: bool
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Falsifiable:
    """Evidence that a twin can call again with one thing changed."""

    function: Callable[..., Any]
    kind: Kind
    cases: int
    tolerance: float
    band: tuple[float, float] = (0.0, 0.0)


@cache
def registry() -> dict[str, dict[str, Any]]:
    """Return the claims of ``claims.yml`` by id: ``source``, ``of_source`` and ``uses``.

    Examples
    --------
    >>> registry()["nystrom"]["uses"]
    ['rkhs-finite']
    """
    import yaml

    text = files("cltheory").joinpath("claims.yml").read_text(encoding="utf-8")
    return {entry["id"]: entry for entry in yaml.safe_load(text)}


class Block:
    """The evidence of one claim, observation or exercise; made by the functions of this module.

    Attributes
    ----------
    evidence : list of Evidence
        What has been gathered so far, with what was measured.

    Raises
    ------
    EvidenceError
        On leaving the block: if evidence fails, or there is none, or no twin. On the way: if a
        twin changes none or several things, a margin is not well above the tolerance that it
        controls, or a case gives NaN, infinity or nothing.

    Examples
    --------
    >>> import torch
    >>> def gap(rng, *, factor=2.0):
    ...     x = torch.rand(3, generator=rng)
    ...     return (x + x) - factor * x
    >>> with exercise("doubling") as c:
    ...     c.numeric("three numbers", gap, cases=5, atol=1e-6)
    ...     c.twin("a wrong factor", factor=2.1, margin=1e-3)
    doubling | numeric | three numbers, 5 cases | |gap| <= 1e-06 | holds
    doubling | twin | a wrong factor | changes factor | off by >= 0.001 in every case | refuted
    doubling | holds
    >>> c.evidence[0].measured["worst"]
    0.0
    """

    def __init__(self, name: str, role: Literal["claim", "observation", "exercise"]) -> None:
        self.name, self.role = name, role
        self.evidence: list[Evidence] = []
        self._falsifiable: dict[Callable[..., Any], _Falsifiable] = {}
        self._seed = int(os.environ.get(SEED_VARIABLE, "0"))

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self,
        exception: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exception is not None:
            return
        problems = [f"{e.kind} ({e.scope}): {e.verdict}" for e in self.evidence if not e.holds]
        kinds = {e.kind for e in self.evidence}
        if not kinds - {"twin"}:
            problems.append("no evidence")
        elif self.role != "observation" and "twin" not in kinds:
            problems.append("no twin: show that this check can fail")
        self._publish(holds=not problems)
        if problems:
            raise EvidenceError(f"{self.name}: " + "; ".join(problems))

    def symbolic(
        self,
        scope: str,
        expression: Callable[..., Any],
        *,
        simplify: Callable[[Any], Any] | None = None,
    ) -> None:
        """Require that ``expression()`` (a SymPy expression, matrix or list) simplifies to zero.

        ``scope`` says honestly what is free: "every n" and "n = 3" differ. ``simplify`` replaces
        :func:`sympy.simplify` where another routine is known to decide the question.
        """
        import sympy

        self._register(expression, _Falsifiable(expression, "symbolic", 5, 0.0))
        decide = simplify or sympy.simplify
        rest = [decide(entry) for entry in entries(expression())]
        left = [str(entry) for entry in rest if entry != 0]
        self._add("symbolic", scope, "simplifies to 0", not left, left="; ".join(left)[:200])

    def numeric(
        self, scope: str, function: Callable[..., Any], *, cases: int = 1, atol: float
    ) -> None:
        """Require ``|function(rng)| <= atol`` on every one of ``cases`` seeded random cases."""
        self._register(function, _Falsifiable(function, "numeric", cases, _positive("atol", atol)))
        worst = max(magnitudes(self._run(function, cases)))
        self._add(
            "numeric",
            f"{scope}, {cases} cases" if cases > 1 else scope,
            f"|gap| <= {atol:g}",
            worst <= atol,
            worst=worst,
            tolerance=atol,
            loose=atol > LOOSE * max(worst, 1e-16),
        )

    def bound(
        self, scope: str, slack: Callable[..., Any], *, cases: int = 1, atol: float = 1e-12
    ) -> None:
        """Require ``slack(rng) >= -atol`` on every case; the least slack says how tight it is."""
        self._register(slack, _Falsifiable(slack, "bound", cases, _positive("atol", atol)))
        least = min(min(case) for case in self._run(slack, cases))
        self._add(
            "bound",
            f"{scope}, {cases} cases" if cases > 1 else scope,
            f"slack >= -{atol:g}",
            least >= -atol,
            least=least,
            tolerance=atol,
        )

    def rate(
        self,
        scope: str,
        slope: Callable[..., Any],
        *,
        band: tuple[float, float],
        seeds: int = 8,
    ) -> None:
        """Require that the central half of ``slope(rng)`` over seeds lies in ``band``."""
        low, high = band
        if not (seeds >= 4 and low < high):
            raise EvidenceError(f"{self.name}: a rate needs four seeds and a band (low, high)")
        self._register(slope, _Falsifiable(slope, "rate", seeds, (high - low) / 2, band))
        slopes = [value for case in self._run(slope, seeds) for value in case]
        quarter, median, three_quarters = statistics.quantiles(slopes, n=4, method="inclusive")
        self._add(
            "rate",
            f"{scope}, {seeds} seeds",
            f"central half in [{low:g}, {high:g}]",
            low <= quarter <= three_quarters <= high,
            median=median,
            interval=[quarter, three_quarters],
            range=[min(slopes), max(slopes)],
        )

    def counterexample(
        self, scope: str, excess: Callable[..., Any], *, cases: int = 1, margin: float
    ) -> None:
        """Require that a source's sentence fails by ``excess(rng) >= margin`` in every case."""
        self._register(excess, _Falsifiable(excess, "counterexample", cases, 0.0))
        least = min(min(case) for case in self._run(excess, cases))
        self._add(
            "counterexample",
            f"{scope}, {cases} cases" if cases > 1 else scope,
            f"the sentence fails by >= {_positive('margin', margin):g}",
            least >= margin,
            least=least,
            margin=margin,
        )

    def twin(
        self,
        scope: str,
        *,
        margin: float,
        of: Callable[..., Any] | None = None,
        **change: Any,
    ) -> None:
        """Require that evidence fails, in every case, once exactly one thing is changed.

        Parameters
        ----------
        scope : str
            The nearby false statement, in words.
        margin : float
            By how much every case must miss; at least ``SEPARATION`` tolerances.
        of : callable, optional
            Which evidence function of this block is called again; the latest by default.
        **change
            One keyword argument of that function, with a value other than its default.
        """
        if not self._falsifiable:
            raise EvidenceError(f"{self.name}: a twin comes after the evidence that it controls")
        function = of or next(reversed(self._falsifiable))
        if function not in self._falsifiable:
            raise EvidenceError(f"{self.name}: a twin must call the claim's own evidence function")
        evidence = self._falsifiable[function]
        name = self._changed(function, change)
        if not margin >= max(SEPARATION * evidence.tolerance, 1e-300) and evidence.kind != "rate":
            raise EvidenceError(
                f"{self.name}: twin margin {margin:g} is not well above the tolerance "
                f"{evidence.tolerance:g} that it controls; it should be >= "
                f"{SEPARATION * evidence.tolerance:g}"
            )
        if evidence.kind == "rate" and not margin >= evidence.tolerance:
            raise EvidenceError(
                f"{self.name}: twin margin {margin:g} should be >= {evidence.tolerance:g}, "
                "half the width of the band that it controls"
            )
        least = min(self._misses(evidence, change))
        self._add(
            "twin",
            scope,
            f"off by >= {margin:g} in every case",
            least >= margin,
            least=least,
            margin=margin,
            changes=name,
            words=("refuted", "NOT refuted"),
        )

    def observed(
        self,
        scope: str,
        *,
        trained: Any,
        untrained: Any,
        theory: Any,
        atol: float,
    ) -> None:
        """Require that figures of a training run meet the theory, and an untrained model's miss.

        ``max |trained - theory| <= atol`` and ``max |untrained - theory|`` is at least
        ``OBSERVED_SEPARATION`` times ``atol``.
        """
        self._observe("observed", scope, trained, untrained, theory, atol, {})

    def recorded(
        self,
        scope: str,
        record: Record | None,
        config: dict[str, Any],
        figure: str,
        *,
        theory: Any,
        atol: float,
    ) -> None:
        """Judge ``figure`` of a recorded run like :meth:`observed`.

        The record holds the figure of an untrained model under ``"untrained " + figure``. Where
        there is no record yet, the block says so and holds nothing against the claim.
        """
        if record is None:
            self._add(
                "recorded", scope, f"within {atol:g}", True, words=("no recorded run yet", "")
            )
            return
        provenance = {
            "device": record.device,
            "seconds": record.seconds,
            "seeds": list(record.seeds),
            "versions": dict(record.versions),
            "commit": record.commit,
            "older": not record.is_current(config),
        }
        untrained = record.figures["untrained " + figure]
        trained = record.figures[figure]
        self._observe("recorded", scope, trained, untrained, theory, atol, provenance)

    def _observe(
        self,
        kind: Kind,
        scope: str,
        trained: Any,
        untrained: Any,
        theory: Any,
        atol: float,
        provenance: dict[str, Any],
    ) -> None:
        targets = numbers(theory)
        met, missed = (gap(numbers(value), targets) for value in (trained, untrained))
        threshold = OBSERVED_SEPARATION * _positive("atol", atol)
        if not missed >= threshold:
            raise EvidenceError(
                f"{self.name}: an untrained model is off by {missed:g}, less than {threshold:g}; "
                "this figure does not tell a trained model from an untrained one"
            )
        self._add(
            kind,
            scope,
            f"within {atol:g} of the theory, untrained off by >= {threshold:g}",
            met <= atol,
            worst=met,
            untrained=missed,
            tolerance=atol,
            **provenance,
        )

    def _register(self, function: Callable[..., Any], evidence: _Falsifiable) -> None:
        self._falsifiable.pop(function, None)
        self._falsifiable[function] = evidence

    def _changed(self, function: Callable[..., Any], change: dict[str, Any]) -> str:
        if len(change) != 1:
            raise EvidenceError(
                f"{self.name}: a twin changes exactly one thing, not {sorted(change)}"
            )
        ((name, value),) = change.items()
        parameter = inspect.signature(function).parameters.get(name)
        if parameter is None or parameter.default is inspect.Parameter.empty:
            raise EvidenceError(
                f"{self.name}: {name!r} is not a keyword with a default of {function.__name__}()"
            )
        if value is parameter.default:
            raise EvidenceError(f"{self.name}: the twin leaves {name!r} at its default")
        return name

    def _misses(self, evidence: _Falsifiable, change: dict[str, Any]) -> list[float]:
        """By how much each case of changed evidence misses what the evidence declared."""
        if evidence.kind == "symbolic":
            return [offset(evidence.function(**change), i) for i in range(evidence.cases)]
        cases = self._run(evidence.function, evidence.cases, change)
        if evidence.kind == "numeric":
            return magnitudes(cases)
        if evidence.kind == "rate":
            low, high = evidence.band
            return [max(low - value, value - high) for case in cases for value in case]
        return [-min(case) for case in cases]

    def _run(
        self, function: Callable[..., Any], cases: int, change: dict[str, Any] | None = None
    ) -> list[list[float]]:
        if cases < 1:
            raise EvidenceError(f"{self.name}: cases was {cases}; it should be at least 1")
        results = []
        for case in range(cases):
            rng = generator(self._seed, self.name, function.__name__, case)
            values = numbers(function(rng, **(change or {})))
            if not values or not all(math.isfinite(value) for value in values):
                what = "nothing" if not values else "NaN or infinity"
                raise EvidenceError(f"{self.name}: {function.__name__}() gave {what} (case {case})")
            results.append(values)
        return results

    def _add(
        self,
        kind: Kind,
        scope: str,
        declared: str,
        holds: bool,
        *,
        words: tuple[str, str] = ("holds", "FAILS"),
        **measured: Any,
    ) -> None:
        verdict = words[0] if holds else words[1]
        self.evidence.append(Evidence(kind, scope, declared, verdict, holds, measured))

    def _publish(self, *, holds: bool) -> None:
        lines = [
            " | ".join([self.name, e.kind, e.scope, *_changes(e), e.declared, e.verdict])
            for e in self.evidence
        ]
        lines.append(f"{self.name} | {'holds' if holds else 'FAILS'}")
        measured = {
            "name": self.name,
            "role": self.role,
            "holds": holds,
            "seed": self._seed,
            "seconds": time.perf_counter() - self._start,
            "evidence": [asdict(e) for e in self.evidence],
        }
        show("\n".join(lines), {"cltheory": measured})


def claim(claim_id: str) -> Block:
    """Open the check of a claim: evidence and at least one twin.

    Parameters
    ----------
    claim_id : str
        An id of :func:`registry`.

    Returns
    -------
    Block
        A context manager; on leaving it, the lines are shown and ``EvidenceError`` is raised if
        anything failed.

    Raises
    ------
    ValueError
        If the id is not registered.

    Examples
    --------
    >>> claim("no-such-claim")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: claim_id was 'no-such-claim'; it should be one of ...
    """
    return Block(_known(claim_id), "claim")


def observation(claim_id: str) -> Block:
    """Open the comparison of a training run with a number of the theory of ``claim_id``.

    Examples
    --------
    >>> with observation("mercer-min") as o:
    ...     o.observed("one number", trained=0.99, untrained=0.3, theory=1.0, atol=0.02)
    mercer-min | observed | one number | within 0.02 of the theory, untrained off by >= 0.2 | holds
    mercer-min | holds
    """
    return Block(_known(claim_id), "observation")


def exercise(name: str) -> Block:
    """Open the grading of an exercise, by the rules of :func:`claim`.

    Examples
    --------
    >>> with exercise("empty") as c:
    ...     pass
    Traceback (most recent call last):
    cltheory._measure.EvidenceError: empty: no evidence
    """
    return Block(name, "exercise")


def _known(claim_id: str) -> str:
    if claim_id not in registry():
        raise ValueError(
            f"claim_id was {claim_id!r}; it should be one of {', '.join(sorted(registry()))}"
        )
    return claim_id


def _changes(evidence: Evidence) -> list[str]:
    """Name the one thing that a twin changes."""
    return [f"changes {evidence.measured['changes']}"] if evidence.kind == "twin" else []


def _positive(name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise EvidenceError(f"{name} was {value}; it should be positive and finite")
    return value
