"""The errata and the reference cards as a reader finds them."""

import pytest
from bs4 import BeautifulSoup

from browsing import NARROW, SITE, WIDE, Visit
from cltheory.checks import registry

COLUMNS = """() => [...document.querySelectorAll('dl.facts')].map(list => {
  const [term, text] = [list.querySelector('dt'), list.querySelector('dd')]
    .map(e => e.getBoundingClientRect());
  return [text.left - term.left, text.top - term.top, text.width];
})"""


def page(name):
    return BeautifulSoup((SITE / "book" / f"{name}.html").read_text("utf-8"), "html.parser")


def test_every_doubted_sentence_has_a_permalink_and_leads_to_its_proof():
    soup = page("errata")
    for claim, entry in registry().items():
        anchor = soup.find(id=f"erratum-{claim}".lower())
        assert (anchor is not None) == (entry["of_source"] != "holds"), claim
        if anchor:
            section = anchor if anchor.name == "section" else anchor.find_parent("section")
            assert section.find("a", href=lambda href, c=claim: href and href.endswith(f"#{c}"))
            assert entry["of_source"] in section.get_text().lower()


def test_every_card_stands_under_its_kind():
    soup = page("cards")
    for kind, few in (("losses", 12), ("kernels", 9), ("metrics", 7)):
        section = soup.find("section", id=kind)
        cards = section.find_all("dl", class_="facts")
        assert len(cards) >= few
        for card in cards:
            assert card.select_one("a[href*='api/'][href*='#cltheory.']"), card.get_text()[:80]


@pytest.mark.parametrize("name", ["errata", "cards"])
def test_terms_stand_beside_their_text_and_on_a_phone_above_it(browser, name):
    with Visit(browser, f"book/{name}.html", WIDE) as wide:
        lists = wide.page.evaluate(COLUMNS)
        assert len(lists) >= 28
        assert all(left > 100 for left, *_ in lists)
    with Visit(browser, f"book/{name}.html", NARROW) as narrow:
        lists = narrow.page.evaluate(COLUMNS)
        assert all(left == 0 and top > 10 for left, top, _ in lists)
        assert all(width > 280 for *_, width in lists)
