"""The search of the site, as a reader uses it from a folder."""

from urllib.parse import quote

import pytest

from browsing import WIDE, Visit

RESULTS = """() => [...document.querySelectorAll('#search-results li a')].map(a => a.href)"""
FINISHED = "document.querySelector('#search-results p')?.textContent.startsWith('Search finished')"


def found(browser, words):
    with Visit(browser, "search.html", WIDE) as visit:
        visit.page.goto(f"{visit.page.url}?q={quote(words)}", wait_until="load")
        visit.page.wait_for_function(FINISHED, timeout=60_000)
        assert visit.troubles == []
        return visit.page.evaluate(RESULTS)


@pytest.mark.parametrize("claim", ["rkhs-finite", "prop-A1", "mi-bound", "vicreg-byol-illposed"])
def test_an_id_leads_straight_to_its_theorem(browser, claim):
    assert found(browser, claim)[0].endswith(f"#{claim}")


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("top_eigenpairs", "kernels/eigenfunctions"),  # a function
        ("adjacency", "notation"),  # a symbol's name
        ("reproducing inner product", "kernels/rkhs"),  # words of a statement
        ("Eckart", "kernels/rkhs"),  # a title
    ],
)
def test_words_lead_to_the_pages_that_use_them(browser, words, page):
    assert any(f"book/{page}.html" in link for link in found(browser, words))
