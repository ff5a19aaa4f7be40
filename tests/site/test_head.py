"""What machines and other sites are told of a page."""

import re

from browsing import CONTENT, SITE


def told(soup, kind, name):
    return [tag["content"] for tag in soup.find_all("meta", {kind: name})]


def test_every_page_has_one_description_of_its_own(soups):
    found = [told(soups[page], "name", "description") for page in CONTENT]
    assert all(len(description) == 1 for description in found)
    words = [description for (description,) in found]
    assert len(set(words)) == len(words)
    assert all(20 < len(description) <= 200 for description in words)
    assert not any(re.search(r"[\\{}$]|\[\w+ et al", description) for description in words)


def test_every_page_has_the_tags_of_open_graph_and_an_icon(soups):
    for page in CONTENT:
        soup = soups[page]
        for name in ("og:title", "og:description", "og:type", "og:site_name"):
            assert len(told(soup, "property", name)) == 1, f"{page}: {name}"
        assert told(soup, "property", "og:title")[0] in " ".join(soup.h1.get_text().split())
        assert told(soup, "property", "og:site_name")[0] in soup.title.get_text()
        icon = soup.find("link", rel="icon")
        assert ((SITE / page).parent / icon["href"]).exists()


def test_addresses_are_all_there_or_none(soups):
    """Without the site's address no page guesses it."""
    with_address = (SITE / "sitemap.xml").exists()
    for page in CONTENT:
        assert bool(soups[page].find("link", rel="canonical")) == with_address
        assert bool(told(soups[page], "property", "og:image")) == with_address
    robots = (SITE / "robots.txt").read_text(encoding="utf-8")
    assert ("Sitemap:" in robots) == with_address


def test_the_preface_wears_the_cover(soups):
    image = soups["book/preface.html"].select_one("figure.cover img")
    assert ((SITE / "book" / image["src"]).resolve()).exists()
