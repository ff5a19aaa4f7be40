"""The list of exercises, and what a reader meets in a chapter: the level, the folded hint."""

import os
from pathlib import Path

import pytest

from browsing import CONTENT, NARROW, Visit

LIST = "book/exercises.html"
CHAPTER = "book/kernels/rkhs.html"

SHOWN = "hint => [...hint.children].slice(1).every(e => e.getBoundingClientRect().height > 0)"


@pytest.fixture(scope="module")
def listed(soups):
    """Of each row of the list: page and anchor that it links to, its level, its verdict."""
    rows = {}
    for row in soups[LIST].select(".exercise-list tbody tr"):
        first, level, _, verdict = row.find_all("td")
        page, _, anchor = first.a["href"].partition("#")
        name = os.path.normpath(Path(LIST).parent / page)
        rows[name, anchor] = level.get_text(strip=True), verdict.get_text(strip=True)
    return rows


def test_the_list_holds_every_exercise_with_the_level_that_its_title_says(soups, listed):
    found = {
        (page, box["id"]): box.select_one(".admonition-title .exercise-level").get_text()
        for page in CONTENT
        for box in soups[page].select("div.exercise")
    }
    assert found
    assert {place: level for place, (level, _) in listed.items()} == found


def test_the_list_says_that_all_graded_solutions_hold(soups, listed):
    assert {verdict for _, verdict in listed.values()} == {"✓ holds"}
    assert f"{len(listed)} of {len(listed)} graded solutions hold" in soups[LIST].get_text()


def test_the_list_links_chapters_and_claims(soups):
    for section in soups[LIST].select("section.exercise-list"):
        assert section.select_one("h2 a[href*='html']"), section["id"]
        for row in section.select("tbody tr"):
            assert row.find_all("td")[2].find("a"), row.get_text()


def test_a_hint_stands_between_exercise_and_solution(soups):
    for page in CONTENT:
        for box in soups[page].select("div.exercise"):
            hint = box.find_next_sibling("div")
            solution = hint.find_next_sibling("div")
            assert {"hint", "dropdown"} <= set(hint["class"]), box["id"]
            assert {"solution", "dropdown"} <= set(solution["class"]), box["id"]


def test_a_hint_is_folded_and_opens_by_the_keyboard_on_a_phone(browser):
    with Visit(browser, CHAPTER, NARROW) as visit:
        hint = visit.page.query_selector("div.hint")
        assert not hint.evaluate(SHOWN)
        hint.query_selector("button").focus()
        visit.page.keyboard.press("Enter")
        assert hint.evaluate(SHOWN)
        visit.page.keyboard.press("Enter")
        assert not hint.evaluate(SHOWN)
