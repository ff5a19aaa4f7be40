"""The book hangs together: registry, theorems, checks, lines and evidence tell one story."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

import chapters
from cltheory.checks import registry
from cltheory.claims import blocks
from cltheory.training import load_record
from drawing import plain

ROOT = chapters.ROOT
NAMES = sorted(chapters.chapters())
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in chapters.chapters().items()}
VERDICTS = {"holds", "holds with caveat", "false as stated", "not checkable as stated"}


def run_of(name):
    return nbformat.read(chapters.EXECUTED / f"{name}.ipynb", as_version=4)


def opened(role):
    """(chapter, name) of every block with a role, from the chapters' code."""
    return [
        (chapter, block[1])
        for chapter in NAMES
        for cell in chapters.code_cells(chapters.notebook(chapter))
        for block in chapters.blocks(cell.source)
        if block[0] == role
    ]


def test_every_entry_of_the_registry_is_complete():
    entries = yaml.safe_load((chapters.PACKAGE / "claims.yml").read_text(encoding="utf-8"))
    ids = [entry["id"] for entry in entries]
    assert len(ids) == len(set(ids)), "an id stands twice"
    for entry in entries:
        assert set(entry) - {"former"} == {"id", "source", "of_source", "uses"}, entry["id"]
        assert re.fullmatch(r"[a-zA-Z0-9]+(-[a-zA-Z0-9]+)*", entry["id"]), entry["id"]
        assert entry["source"].strip(), entry["id"]
        assert entry["of_source"] in VERDICTS, entry["id"]
        assert set(entry["uses"]) <= set(ids), entry["id"]


def test_uses_has_no_circle():
    done = set()

    def visit(claim, path):
        assert claim not in path, f"circle: {' -> '.join([*path, claim])}"
        if claim not in done:
            for used in registry()[claim]["uses"]:
                visit(used, [*path, claim])
            done.add(claim)

    for claim in registry():
        visit(claim, [])


def test_every_claim_has_one_theorem_one_check_and_they_share_a_chapter():
    theorems = [
        (chapter, label)
        for chapter, text in TEXTS.items()
        for label in re.findall(r"`{3,}\{prf:theorem\}[^\n]*\n:label: (\S+)", text)
        if label in registry()
    ]
    checks = opened("claim")
    assert sorted(label for _, label in theorems) == sorted(registry())
    assert sorted(label for _, label in checks) == sorted(registry()), "one check a claim, no more"
    assert sorted(theorems) == sorted(checks)


def test_titles_and_places_are_those_of_the_theorems():
    for claim in chapters.claims():
        lines = chapters.chapters()[claim.chapter].read_text(encoding="utf-8").splitlines()
        label = lines.index(f":label: {claim.id}")
        assert lines[label - 1].endswith(f"{{prf:theorem}} {claim.title}")
        assert claim.title
        page, _, anchor = claim.url.partition("#")
        assert (chapters.ROOT / page).with_suffix(".md").name == f"{claim.chapter}.md"
        assert anchor == claim.id


def test_chapters_stand_in_the_order_and_the_parts_of_the_contents():
    toc = (chapters.ROOT / "_toc.yml").read_text(encoding="utf-8")
    found = chapters.claims().chapters
    places = [toc.index(chapter.url.removesuffix(".html")) for chapter in found]
    assert places == sorted(places)
    for chapter, place in zip(found, places, strict=True):
        assert re.findall(r"caption: (.+)", toc[:place])[-1] == chapter.part


def test_no_title_needs_more_than_the_signs_of_a_formula_taken_out():
    assert [c.id for c in chapters.claims() if set("\\$_^{}") & set(plain(c.title))] == []


def test_observations_and_exercises_belong_to_something():
    assert {name for _, name in opened("observation")} <= set(registry())
    for chapter, name in opened("exercise"):
        assert re.search(rf":label: {re.escape(name)}\n", TEXTS[chapter]), f"{chapter}: {name}"
    names = [name for _, name in opened("exercise")]
    assert len(names) == len(set(names))


def test_every_chapter_follows_the_grammar():
    for name, text in TEXTS.items():
        assert any(chapter == name for chapter, _ in opened("observation")), (
            f"{name}: a training run"
        )
        assert "\n## Key ideas\n" in text, name
        assert ":class: dropdown" not in "".join(re.findall(r"\{prf:proof\}.{0,80}", text, re.S))


@pytest.mark.parametrize("name", NAMES)
def test_code_has_no_unused_import_and_no_undefined_name(name):
    cells = chapters.code_cells(chapters.notebook(name))
    lint = [sys.executable, "-m", "ruff", "check", "--isolated", "--select=F", "-"]
    done = subprocess.run(
        lint, input="\n\n".join(cell.source for cell in cells), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_least_squares_give_the_same_digits_each_time():
    """LAPACK's gelsy, which torch calls unless told otherwise, differs from call to call."""
    for name, text in TEXTS.items():
        for call in re.findall(r"linalg\.lstsq\(.*?\)\s*[.\n]", text, re.S):
            assert 'driver="gelsd"' in call, f"{name}: {call}"


def test_every_figure_has_a_caption_and_alt_text():
    for name in NAMES:
        for cell in chapters.code_cells(run_of(name)):
            if any("image/png" in out.get("data", {}) for out in cell.outputs):
                mystnb = cell.metadata.get("mystnb", {})
                assert mystnb.get("figure", {}).get("caption", "").strip(), (
                    f"{name}: {cell.source[:60]}"
                )
                assert len(mystnb.get("image", {}).get("alt", "")) > 40, (
                    f"{name}: {cell.source[:60]}"
                )


def test_notebooks_are_those_of_the_chapters():
    assert {path.stem for path in chapters.NOTEBOOKS.glob("*.ipynb")} == set(NAMES)
    for name in NAMES:
        made = nbformat.writes(chapters.notebook(name), version=4) + "\n"
        standing = (chapters.NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
        assert standing == made, f"{name}: run make test and commit notebooks/"


@pytest.mark.parametrize("name", NAMES)
def test_every_check_cell_is_tagged_has_a_reference_and_ran_with_those_lines(name):
    for reference, run in zip(
        chapters.code_cells(chapters.notebook(name)), chapters.code_cells(run_of(name)), strict=True
    ):
        checked = bool(chapters.blocks(reference.source))
        assert checked == (chapters.CHECKED in reference.metadata.get("tags", []))
        if checked:
            assert reference.outputs, "a check cell without accepted lines"
            assert reference.execution_count, "nbval compares nothing in a cell that never ran"
            assert chapters.texts(reference) == chapters.texts(run)


@pytest.mark.parametrize("name", NAMES)
def test_the_run_is_of_todays_code(name):
    assert run_of(name).metadata["cltheory"]["key"] == chapters.key(name)


@pytest.mark.parametrize("name", NAMES)
def test_the_run_warned_of_nothing(name):
    """Warnings name paths of the machine, and the page would show them."""
    for cell in chapters.code_cells(run_of(name)):
        assert [o.text for o in cell.outputs if o.get("name") == "stderr"] == []


def test_two_cells_of_one_block_keep_their_own_lines():
    source = 'with observation("mi-bound") as o:\n    pass'
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for _ in range(2)])
    first, second = (place for place, _ in chapters.places(made))
    chapters.with_lines(made, {first: ["one"], second: ["two"]})
    assert [chapters.texts(cell) for cell in made.cells] == [["one"], ["two"]]


def test_accepted_lines_hold_no_measurement():
    """A raw float, an address or a time would differ between machines."""
    for name in NAMES:
        for texts in chapters.accepted_lines(name).values():
            for line in "\n".join(texts).splitlines():
                assert not re.search(r"0x[0-9a-f]{6}|\d\.\d{6}|\d{2}:\d{2}", line), line


def test_the_evidence_is_of_the_registered_claims_and_all_of_it_holds():
    found = [
        (chapter, block["role"], block["name"]) for chapter, block in blocks(chapters.EXECUTED)
    ]
    declared = [
        (chapter, role, name)
        for role in ("claim", "observation", "exercise")
        for chapter, name in opened(role)
    ]
    assert sorted(found) == sorted(declared)
    for claim in chapters.claims():
        assert claim.status == "holds", f"{claim.id}: {claim.status}"


def test_every_recorded_run_is_whole_and_belongs_to_a_chapter():
    for path in chapters.runs():
        assert path.suffix == ".json", path.name
        assert path.stem in NAMES, path.name
        assert load_record(path).chapter == path.stem
        assert f'recorded("{path.stem}"' in TEXTS[path.stem]


def test_no_tolerance_is_loose_in_silence():
    loose = [
        f"{block['name']}: {line['scope']}"
        for _, block in blocks(chapters.EXECUTED)
        for line in block["evidence"]
        if line["measured"].get("loose")
    ]
    assert not loose, loose


def test_every_citation_is_in_the_bibliography_and_every_entry_is_cited():
    pages = [path.read_text(encoding="utf-8") for path in Path(ROOT / "book").rglob("*.md")]
    cited = {
        key.strip()
        for text in pages
        for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text)
        for key in keys.split(",")
    }
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    assert cited == set(re.findall(r"@\w+\{([^,]+),", bibliography))


def test_environment_asks_for_python_pip_and_the_package_only():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *plain, last = environment["dependencies"]
    assert [re.match(r"\w+", entry)[0] for entry in plain] == ["python", "pip"]
    assert last == {"pip": ["-c constraints.txt", "-e .[book,test]"]}


def test_constraints_hold_versions_and_no_address():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
