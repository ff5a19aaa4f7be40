"""The map of claims: every edge and no other, state in shape and word, nothing by chance."""

from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

import chapters
import drawing
import graph
from cltheory import claims
from cltheory.checks import registry
from evidence import block, execute

PAGE = "book/graph.html"


def parse(svg):
    return BeautifulSoup(svg, "html.parser")


def edges(drawn):
    return [(arrow["data-user"], arrow["data-used"]) for arrow in drawn.select("path.use")]


@pytest.fixture
def failing(tmp_path):
    """All claims hold, but one; its chapters and titles are the book's."""

    def gather(planted):
        execute(tmp_path, *[block(c, holds=c != planted) for c in registry()])
        book = {
            chapter: chapters.chapters()[chapter.name].read_text(encoding="utf-8")
            for chapter in chapters.claims().chapters
        }
        return claims.gather(tmp_path, book)

    return gather


def test_every_edge_of_the_registry_is_drawn_once_and_no_other():
    drawn = edges(parse(graph.whole(chapters.claims(), PAGE)))
    assert sorted(drawn) == sorted(
        (claim, used) for claim, entry in registry().items() for used in entry["uses"]
    )


def test_an_arrow_runs_from_the_claim_that_is_used_to_the_one_that_uses_it():
    drawn = parse(graph.whole(chapters.claims(), PAGE))
    height = {
        a["data-claim"]: float(a.select_one("g")["transform"].split()[1].strip(")"))
        for a in drawn.select("a.claim")
    }
    for arrow in drawn.select("path.use"):
        start, rest = arrow["d"].removeprefix("M").split("C")
        end = rest.partition("m")[0].split()[-1]
        assert float(start.split()[1]) == height[arrow["data-used"]]
        assert float(end) == height[arrow["data-user"]]


def test_claims_stand_under_their_chapter_and_chapters_under_their_part():
    drawn = parse(graph.whole(chapters.claims(), PAGE))
    part = chapter = None
    seen = []
    for node in drawn.select("g.part, a.chapter, a.claim"):
        if "part" in node["class"]:
            part = node.text
        elif "chapter" in node["class"]:
            chapter = node.text
        else:
            seen.append((node["data-claim"], chapter, part))
    found = chapters.claims()
    of = {c.name: c for c in found.chapters}
    assert sorted(seen) == sorted((c.id, of[c.chapter].title, of[c.chapter].part) for c in found)


def test_state_is_a_shape_and_a_word_and_a_planted_failure_reaches_all_below(failing):
    planted = "kernel-gradient-flow"
    found = failing(planted)
    below = {claim.id for claim in found if planted in found.leans_on(claim.id)}
    assert len(below) > 3
    shapes = {}
    for node in parse(graph.whole(found, PAGE)).select("a.claim"):
        name = node["data-claim"]
        word = node.select_one(".state").text
        assert word == ("fails" if name == planted else "leans on" if name in below else "holds")
        assert node["class"] == ["claim", f"claim-{word.replace(' ', '-')}"]
        assert found[name].status in node.title.text
        shapes.setdefault(word, set()).add(str(node.select_one("g").find()))
    assert all(len(drawn) == 1 for drawn in shapes.values())
    assert len(set.union(*shapes.values())) == 3


def test_the_four_states_have_four_shapes_and_a_meaning():
    assert set(drawing.MARKS) == set(graph.MEANINGS)
    assert len(set(drawing.MARKS.values())) == 4
    legend = parse(graph.legend())
    assert [entry.strong.text for entry in legend.select("li")] == list(drawing.MARKS)


def test_the_table_tells_what_the_map_tells(failing):
    found = failing("mercer-min")
    rows = graph.table(found).splitlines()[2:]
    assert len(rows) == len(found)
    for claim, row in zip(found, rows, strict=True):
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        assert cells[0] == f"{{prf:ref}}`{claim.id}` `{claim.id}`"
        assert cells[1] == claim.title
        assert claim.url.startswith(cells[2].removeprefix("{doc}`/").removesuffix("`"))
        assert cells[3][2:] == claim.status
        for cell, names in ((cells[4], claim.uses), (cells[5], claim.used_by)):
            assert cell == ", ".join(f"{{prf:ref}}`{name}`" for name in names)


@pytest.mark.parametrize("chapter", chapters.claims().chapters, ids=lambda chapter: chapter.name)
def test_a_chapters_map_has_its_claims_and_their_neighbours(chapter):
    found = chapters.claims()
    own = {claim.id for claim in found if claim.chapter == chapter.name}
    drawn = parse(graph.excerpt(found, chapter))
    expected = {(c.id, used) for c in found for used in c.uses if own & {c.id, used}}
    assert set(edges(drawn)) == expected
    assert len(edges(drawn)) == len(expected)
    shown = [a["data-claim"] for a in drawn.select("a.claim")]
    assert sorted(shown) == sorted(own.union(*expected))


def test_a_claim_that_is_used_and_uses_is_drawn_once():
    def claim(name, chapter, uses, used_by):
        place = f"book/{chapter}.html#{name}"
        return claims.Claim(name, name, chapter, place, "s", "holds", uses, used_by, "holds", [])

    book = [claims.Chapter(name, name, "part", f"book/{name}.html") for name in ("one", "two")]
    three = [
        claim("a", "one", [], ["b"]),
        claim("b", "two", ["a"], ["c"]),
        claim("c", "one", ["b"], []),
    ]
    drawn = parse(graph.excerpt(claims.Claims({}, "unknown", book, three), book[0]))
    assert [a["data-claim"] for a in drawn.select("a.claim")] == ["b", "a", "c"]
    assert sorted(edges(drawn)) == [("b", "a"), ("c", "b")]


def test_claims_that_no_chapter_states_are_in_the_table_and_not_on_the_map(tmp_path):
    found = claims.gather(tmp_path, {})
    assert parse(graph.whole(found, PAGE)).select("a") == []
    assert graph.table(found).count("○ not run") == len(found)


def test_two_drawings_are_equal_to_the_byte_and_titles_are_escaped():
    found = chapters.claims()
    assert graph.whole(found, PAGE) == graph.whole(found, PAGE)
    first = replace(found.claims[0], title="Small & <b> $k<1$")
    drawn = graph.whole(replace(found, claims=[first, *found.claims[1:]]), PAGE)
    assert "Small &amp; &lt;b&gt; k&lt;1" in drawn
    assert "<b>" not in drawn
