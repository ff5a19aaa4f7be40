"""The furniture of claims in the browser: a permalink lands on its theorem, a citation parses."""

import os

from bs4 import BeautifulSoup
from pybtex.database import parse_string

from browsing import SITE, WIDE, Visit, violations
from cltheory import __version__
from cltheory.checks import registry

CLAIM = "rkhs-finite"
PAGE = "book/kernels/rkhs.html"


def folds(soups):
    """The fold of every claim, by its id."""
    found = {}
    for soup in soups.values():
        for fold in soup.select("details.furniture"):
            found[fold.find_parent(class_="theorem")["id"]] = fold
    return found


def test_every_claim_has_its_furniture_and_a_permalink(soups):
    assert set(folds(soups)) == set(registry())
    for claim, fold in folds(soups).items():
        assert fold.find("a", href=f"../../claims/{claim}.html"), claim
        page = BeautifulSoup((SITE / "claims" / f"{claim}.html").read_text("utf-8"), "html.parser")
        target, _, anchor = page.a["href"].partition("#")
        assert anchor == claim
        assert fold.find_parent("html") is soups[target.removeprefix("../")].html


def test_a_permalink_lands_on_the_theorem(browser):
    with browser.new_context(viewport=WIDE) as context:
        page = context.new_page()
        page.goto((SITE / "claims" / f"{CLAIM}.html").as_uri(), wait_until="commit")
        page.wait_for_url(f"**/{PAGE}#{CLAIM}")
        theorem = page.locator(f"#{CLAIM}.theorem")
        assert "Aronszajn" in theorem.inner_text()
        box = theorem.bounding_box()
        assert -box["height"] < box["y"] < WIDE["height"]


def test_every_citation_parses(soups):
    for claim, fold in folds(soups).items():
        ((key, entry),) = parse_string(fold.pre.get_text(), "bibtex").entries.items()
        assert key == claim
        assert f"cltheory {__version__}" in entry.fields["howpublished"]
        assert len(entry.fields["title"]) > 4
        site = os.environ.get("CLTHEORY_SITE", "").rstrip("/")
        assert entry.fields.get("url") == (f"{site}/claims/{claim}.html" if site else None)


def test_functions_and_claims_lead_to_each_other(soups):
    fold = folds(soups)[CLAIM]
    link = fold.find("a", href="../api/rkhs.html#cltheory.rkhs.inner")
    assert link.get_text() == "rkhs.inner"
    described = soups["book/api/rkhs.html"].find(id="cltheory.rkhs.inner").find_parent("dl")
    assert described.find("a", href=f"../kernels/rkhs.html#{CLAIM}")


def test_a_report_is_offered_only_where_the_repository_is_known(soups):
    repository = os.environ.get("CLTHEORY_REPOSITORY", "").rstrip("/")
    for claim, fold in folds(soups).items():
        reports = [a["href"] for a in fold.find_all("a") if "/issues/new" in a["href"]]
        assert len(reports) == bool(repository), claim
        assert all(report.startswith(repository) for report in reports)


def test_the_fold_opens_by_keyboard_and_is_accessible(browser):
    with Visit(browser, PAGE, WIDE) as visit:
        fold = visit.page.locator(f"#{CLAIM} details.furniture")
        assert not fold.locator("pre").is_visible()
        fold.locator("summary").press("Enter")
        assert fold.locator("pre").is_visible()
        assert violations(visit) == []
