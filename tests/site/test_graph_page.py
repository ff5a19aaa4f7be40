"""The map of claims in a browser: its lines are links that land, by mouse and by keys."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browsing import NARROW, SITE, WIDE, Visit

PAGE = "book/graph.html"


@pytest.fixture(scope="module")
def found():
    return json.loads((SITE / "claims.json").read_text(encoding="utf-8"))


@pytest.fixture
def page(browser):
    with Visit(browser, PAGE, WIDE) as visit:
        yield visit.page
        assert visit.troubles == []


def node(page, claim):
    return page.locator(f'.claim-map [data-claim="{claim}"]')


def test_the_map_the_table_and_the_ledger_say_what_the_file_says(soups, found):
    claims = {claim["id"]: claim for claim in found["claims"]}
    soup = soups[PAGE]
    drawn = {
        a["data-claim"]: (a["href"], a.select_one(".state").text) for a in soup.select(".claim")
    }
    assert drawn == {
        name: (claim["url"].replace("book/", "", 1), claim["status"])
        for name, claim in claims.items()
    }
    edges = {(path["data-user"], path["data-used"]) for path in soup.select("path.use")}
    assert edges == {(name, used) for name, claim in claims.items() for used in claim["uses"]}

    rows = soup.select(".claim-table tbody tr")
    assert len(rows) == len(claims)
    for row in rows:
        cells = row.select("td")
        claim = claims[cells[0].code.text]
        assert cells[3].text == f"✓ {claim['status']}"
        for cell, names in ((cells[4], claim["uses"]), (cells[5], claim["used_by"])):
            assert [a["href"].rpartition("#")[2] for a in cell.select("a")] == names

    for row in soups["book/ledger.html"].select(".ledger-page table tbody tr"):
        cells = row.select("td")
        claim = claims[cells[0].code.text]
        assert cells[1].text == f"✓ {claim['status']}"
        assert cells[2].text == claim["of_source"]


def test_every_line_leads_to_the_theorem_of_its_claim(soups, found):
    for claim in found["claims"]:
        page, _, anchor = claim["url"].partition("#")
        theorem = soups[page].find(id=anchor)
        assert "theorem" in theorem["class"], claim["id"]


@pytest.mark.parametrize("way", ["click", "Enter"])
def test_a_line_lands_on_the_claim(page, way):
    line = node(page, "orthoplex-2d")
    line.click() if way == "click" else line.press("Enter")
    page.wait_for_url("**/simplex.html#orthoplex-2d")
    expect(page.locator("#orthoplex-2d")).to_be_in_viewport()


def test_the_focus_shows_what_a_claim_leans_on_and_what_leans_on_it(page, found):
    above, below = (
        {"neuralef", "kpca-mds-eckart-young", "rkhs-finite"},
        {c["id"] for c in found["claims"] if "neural-eigenmap" in c["uses"]},
    )
    node(page, "neural-eigenmap").focus()

    def lit(name):
        return set(
            page.eval_on_selector_all(f".claim.{name}", "all => all.map(a => a.dataset.claim)")
        )

    assert lit("above") == above
    assert lit("below") == below
    node(page, "rkhs-finite").hover()
    assert lit("above") == set()
    assert "neural-eigenmap" in lit("below")
    page.mouse.move(5, 5)
    assert page.locator(".claim-map .lit").count() == 0


def test_the_map_fits_a_wide_page_and_scrolls_in_its_own_frame_on_a_phone(browser, page):
    room = "e => [e.scrollWidth, e.clientWidth]"
    width, frame = page.eval_on_selector(".claim-map", room)
    assert width <= frame
    with Visit(browser, PAGE, NARROW) as visit:
        width, frame = visit.page.eval_on_selector(".claim-map", room)
        assert width > frame
        last = visit.page.locator(".claim-map .state").first
        last.scroll_into_view_if_needed()
        expect(last).to_be_in_viewport()


def test_a_chapter_has_its_own_map_folded_and_it_opens_by_keys(browser):
    with Visit(browser, "book/losses/spectral.html", WIDE) as visit:
        folded = visit.page.locator("details.chapter-map")
        assert folded.count() == 1
        assert folded.get_attribute("open") is None
        folded.locator("summary").press("Enter")
        line = folded.locator('[data-claim="mercer-vs-abar"]')
        expect(line).to_be_visible()
        line.press("Enter")
        visit.page.wait_for_url("**/positive-pairs.html#mercer-vs-abar")


def test_the_environment_page_names_every_chapter_and_every_recorded_run(soups, found):
    runs, records = soups["book/environment.html"].select(".environment table")
    titles = [row.td.text for row in runs.select("tbody tr")][:-1]
    assert titles == [chapter["title"] for chapter in found["chapters"]]
    seconds = [float(row.select("td")[1].text) for row in runs.select("tbody tr")]
    assert abs(sum(seconds[:-1]) - seconds[-1]) <= len(seconds) / 2
    shown = {row.td.a["href"].split("/")[-1] for row in records.select("tbody tr")}
    names = {Path(chapter["url"]).stem for chapter in found["chapters"]}
    stored = {path.stem for path in (SITE.parent.parent / "book/runs").glob("*.json")}
    assert shown == {f"{name}.html" for name in stored & names}
    elsewhere = soups["book/environment.html"].select_one('p a[href$="scrutiny.html"]')
    assert stored - names <= {"planted", "mutants", "alarms"}
    assert elsewhere is not None
