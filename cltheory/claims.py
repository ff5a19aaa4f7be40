"""All claims of the book as one object: where each is stated, what it leans on, what its run says.

The book's pages are made from this object, and its site carries it as ``claims.json``, which
:func:`load` reads.

>>> claims = gather(Path("no chapter was run"), {})
>>> claims["neural-eigenmap"].uses, claims["neural-eigenmap"].status
(['neuralef'], 'not run')
>>> claims.leans_on("neural-eigenmap")
['kpca-mds-eckart-young', 'neuralef', 'rkhs-finite']

Nothing here decides whether evidence holds; :mod:`cltheory.checks` did, when the chapter ran.
``claims.schema.json``, beside this module and beside the file, says what each entry means.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from cltheory import __version__
from cltheory.checks import registry

SCHEMA_VERSION = 1
_THEOREM = re.compile(r"^`{3,}\{prf:theorem\} *(.*)\n:label: *(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Chapter:
    """A chapter of the book.

    Attributes
    ----------
    name, title, part : str
        The name of its file, its heading, and the part of the book that holds it.
    url : str
        Its page, from the top of the site.

    Examples
    --------
    >>> Chapter("rkhs", "Kernels and their spaces", "Kernels", "book/kernels/rkhs.html").part
    'Kernels'
    """

    name: str
    title: str
    part: str
    url: str


@dataclass(frozen=True)
class Claim:
    """What the book and one run say of one claim.

    Attributes
    ----------
    id : str
        The id: label of its theorem, key of the registry, permalink.
    title : str
        Title of its theorem, with formulas in ``$``; empty if no chapter states it.
    chapter, url : str
        Name of the chapter that states it, and the theorem's place from the top of the site.
    source, of_source : str
        From the registry: where the claim comes from and what we say of the source's sentence.
    uses, used_by : list of str
        The claims that its derivation leans on, and those whose derivations lean on it.
    status : str
        Computed: ``holds``, ``fails``, ``not run`` or ``leans on <ids that do not hold>``.
    evidence : list of dict
        The lines of its check and of its training runs, with what was measured.

    Examples
    --------
    >>> claim = gather(Path("no chapter was run"), {})["nystrom"]
    >>> claim.of_source, claim.uses, claim.evidence
    ('holds', ['rkhs-finite'], [])
    """

    id: str
    title: str
    chapter: str
    url: str
    source: str
    of_source: str
    uses: list[str]
    used_by: list[str]
    status: str
    evidence: list[dict[str, Any]]


@dataclass(frozen=True)
class Claims:
    """Every claim, by id, with what the run was made with.

    Attributes
    ----------
    versions : dict of str
        Of ``python``, ``torch`` and ``cltheory``.
    commit : str
        Git commit of the book, ``-dirty`` if files differed from it, or ``unknown``.
    chapters : list of Chapter
        In reading order.
    claims : list of Claim
        In the order of the registry.

    Raises
    ------
    KeyError
        If ``claims[claim_id]`` is asked for an id that is not registered.

    Examples
    --------
    >>> claims = gather(Path("no chapter was run"), {})
    >>> {claim.status for claim in claims}
    {'not run'}
    """

    versions: dict[str, str]
    commit: str
    chapters: list[Chapter]
    claims: list[Claim]

    def __iter__(self) -> Iterator[Claim]:
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)

    def __getitem__(self, claim_id: str) -> Claim:
        for claim in self.claims:
            if claim.id == claim_id:
                return claim
        known = ", ".join(sorted(claim.id for claim in self.claims))
        raise KeyError(f"claim_id was {claim_id!r}; it should be one of {known}")

    def leans_on(self, claim_id: str) -> list[str]:
        """Return all that a claim uses, directly or through others, sorted."""
        return _reach(claim_id, {claim.id: claim.uses for claim in self.claims})

    def to_json(self) -> str:
        """Write the export, as ``claims.schema.json`` describes it."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(path: str | os.PathLike[str]) -> Claims:
    """Read the ``claims.json`` of a site.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Claims
        As :func:`gather` made it.

    Raises
    ------
    ValueError
        If the file is of another version of the schema, or is no such file.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "claims.json")
    ...     size = path.write_text(gather(Path("none"), {}).to_json(), encoding="utf-8")
    ...     load(path)["nystrom"].status
    'not run'
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    found = content.get("schema_version") if isinstance(content, dict) else None
    if found != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version of {path} was {found!r}; it should be {SCHEMA_VERSION}. "
            "Install the version of cltheory that the file names under versions"
        )
    return Claims(
        versions=content["versions"],
        commit=content["commit"],
        chapters=[Chapter(**chapter) for chapter in content["chapters"]],
        claims=[Claim(**claim) for claim in content["claims"]],
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of ``claims.json``.

    >>> schema()["required"]
    ['schema_version', 'versions', 'commit', 'chapters', 'claims']
    """
    text = files("cltheory").joinpath("claims.schema.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def theorems(text: str) -> dict[str, str]:
    r"""Return the titles of a chapter's theorems by label.

    >>> theorems("````{prf:theorem} The optimum at $M=2d$\n:label: orthoplex-2d\n")
    {'orthoplex-2d': 'The optimum at $M=2d$'}
    """
    return {label: title.strip() for title, label in _THEOREM.findall(text)}


def versions() -> dict[str, str]:
    """Return the versions that decide what a run measures.

    >>> list(versions())
    ['python', 'torch', 'cltheory']
    """
    return {
        "python": platform.python_version(),
        "torch": version("torch"),
        "cltheory": __version__,
    }


def blocks(executed: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (chapter, evidence block) from every executed notebook of a folder.

    Raises
    ------
    ValueError
        If a file is no notebook, or a part of one; it names the command that mends it.

    Examples
    --------
    >>> list(blocks(Path("no chapter was run")))
    []
    """
    for path in sorted(executed.glob("*.ipynb")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no notebook, or a part of one. Run: make chapter C={path.stem}"
            ) from error
        for cell in cells:
            for output in cell.get("outputs", []):
                if "cltheory" in output.get("metadata", {}):
                    yield path.stem, output["metadata"]["cltheory"]


def gather(executed: Path, book: Mapping[Chapter, str], *, commit: str = "unknown") -> Claims:
    """Put registry, chapters and evidence together.

    Parameters
    ----------
    executed : Path
        Folder of executed notebooks.
    book : mapping
        From the chapters, in reading order, to their texts.
    commit : str
        Git commit of the book.

    Returns
    -------
    Claims
        Every registered claim; those that no chapter states or checks are ``not run``.
    """
    stated = {
        label: (chapter, title)
        for chapter, text in book.items()
        for label, title in theorems(text).items()
    }
    found = [block for _, block in blocks(executed) if block["role"] != "exercise"]
    own = {claim: [block for block in found if block["name"] == claim] for claim in registry()}
    claims = []
    for claim, entry in registry().items():
        chapter, title = stated.get(claim, (Chapter("", "", "", ""), ""))
        claims.append(
            Claim(
                id=claim,
                title=title,
                chapter=chapter.name,
                url=f"{chapter.url}#{claim}" if chapter.url else "",
                source=entry["source"],
                of_source=entry["of_source"],
                uses=list(entry["uses"]),
                used_by=[user for user, other in registry().items() if claim in other["uses"]],
                status=_status(claim, own),
                evidence=[line for block in own[claim] for line in block["evidence"]],
            )
        )
    return Claims(versions=versions(), commit=commit, chapters=list(book), claims=claims)


def _status(claim: str, own: Mapping[str, list[dict[str, Any]]]) -> str:
    """Judge a claim by its own evidence, then by that of all that it leans on."""
    verdict = _verdict(own[claim])
    used = _reach(claim, {name: entry["uses"] for name, entry in registry().items()})
    weak = [name for name in used if _verdict(own[name]) != "holds"]
    return f"leans on {', '.join(weak)}" if verdict == "holds" and weak else verdict


def _verdict(mine: list[dict[str, Any]]) -> str:
    if not any(block["role"] == "claim" for block in mine):
        return "not run"
    return "holds" if all(block["holds"] for block in mine) else "fails"


def _reach(start: str, edges: Mapping[str, list[str]]) -> list[str]:
    seen: set[str] = set()
    pending = list(edges[start])
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending += edges[name]
    return sorted(seen)
