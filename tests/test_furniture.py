"""The furniture of claims: permalinks that stay, citations that parse, reports that arrive."""

from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from pybtex.database import parse_string
from sphinx.errors import ExtensionError

import chapters
import furniture
from cltheory import __version__
from cltheory.checks import registry

CONFIG = {
    "author": "the cltheory authors",
    "html_title": "A Book",
    "copyright": "2026",
    "claims_site": "",
    "claims_repository": "",
}
SITE, REPOSITORY = "https://book.example/x", "https://github.com/owner/name"


def app(outdir=None, **config):
    builder = SimpleNamespace(format="html", get_target_uri=lambda docname: f"{docname}.html")
    env = SimpleNamespace(
        docname="book/kernels/rkhs",
        proof_list={claim: {"docname": "book/kernels/rkhs"} for claim in registry()},
    )
    settings = SimpleNamespace(**{**CONFIG, **config})
    return SimpleNamespace(builder=builder, env=env, config=settings, outdir=outdir)


def furnished(claim="rkhs-finite", **config):
    """The fold under a theorem, and what a reader can click in it."""
    document = new_document("page")
    title = nodes.title("", "", nodes.Text(" (A title)"))
    theorem = nodes.admonition("", title, nodes.section(), label=claim)
    document += theorem
    furniture.furnish(app(**config), document)
    (fold,) = document.findall(furniture.Fold)
    links = [node["refuri"] for node in fold.findall(nodes.reference)]
    return fold, links


def entry(claim, title="A title", **config):
    text = furniture.bibtex(claim, title, SimpleNamespace(**{**CONFIG, **config}))
    (key, parsed), *rest = parse_string(text, "bibtex").entries.items()
    assert not rest
    return key, parsed


def test_every_claim_has_a_citation_that_parses():
    for claim in registry():
        key, parsed = entry(claim)
        assert key == claim
        assert f"cltheory {__version__}" in parsed.fields["howpublished"]
        assert [str(person) for person in parsed.persons["author"]] == ["{the cltheory authors}"]
        assert "url" not in parsed.fields


def test_a_citation_gives_the_permalink_where_the_site_is_known():
    _, parsed = entry("nystrom", claims_site=SITE)
    assert parsed.fields["url"] == f"{SITE}/claims/nystrom.html"


def test_the_title_of_a_citation_is_latex():
    title = nodes.title("", "", nodes.Text(" (100 % of "), nodes.math("", "M=d+1"), nodes.Text(")"))
    written = furniture._latex(title)
    assert written == "100 \\% of $M=d+1$"
    assert entry("nystrom", written)[1].fields["title"] == "{100 \\% of $M=d+1$}"


def test_titles_use_no_macro_of_the_book():
    """A citation is typeset where the book's macros are not known."""
    macros = yaml.safe_load((chapters.ROOT / "_config.yml").read_text(encoding="utf-8"))
    own = macros["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    for path in chapters.chapters().values():
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.lstrip("`").startswith("{prf:theorem}"):
                assert not any(f"\\{macro}" in line for macro in own), line


def test_the_fold_leads_to_the_permalink_and_names_functions_and_tests():
    fold, links = furnished()
    assert links == ["../../claims/rkhs-finite.html"]
    text = fold.astext()
    for words in ("rkhs.inner", "tests/test_kernels.py", "@misc{rkhs-finite,"):
        assert words in text


def test_only_claims_are_furnished():
    document = new_document("page")
    document += nodes.admonition("", nodes.title(), label="assume-finite-kernel")
    furniture.furnish(app(), document)
    assert not list(document.findall(furniture.Fold))


def test_a_report_is_offered_only_where_the_repository_is_known():
    assert not any("issues" in link for link in furnished()[1])
    assert "Report" not in furnished()[0].astext()
    report = furnished(claims_repository=REPOSITORY)[1][-1]
    assert report.startswith(f"{REPOSITORY}/issues/new?")
    filled = parse_qs(urlsplit(report).query)
    assert filled["title"] == ["rkhs-finite: "]
    assert __version__ in filled["body"][0]


def test_a_permalink_is_a_page_that_leads_to_the_theorem(tmp_path):
    furniture.write_permalinks(app(tmp_path, claims_site=SITE), None)
    assert {path.stem for path in (tmp_path / "claims").iterdir()} == set(registry())
    page = BeautifulSoup((tmp_path / "claims" / "rkhs-finite.html").read_text(), "html.parser")
    target = "../book/kernels/rkhs.html#rkhs-finite"
    assert page.meta.find_next("meta", attrs={"http-equiv": "Refresh"})["content"].endswith(target)
    assert page.a["href"] == target
    assert page.find("link", rel="canonical")["href"] == f"{SITE}/book/kernels/rkhs.html"
    assert not page.find("script")


def test_a_former_id_leads_to_the_claim_that_took_its_place(tmp_path, monkeypatch):
    entries = {"new-id": {"id": "new-id", "former": ["old-id", "older-id"]}}
    monkeypatch.setattr(furniture, "registry", lambda: entries)
    assert furniture.permalinks() == dict.fromkeys(("new-id", "old-id", "older-id"), "new-id")
    book = app(tmp_path)
    book.env.proof_list = {"new-id": {"docname": "book/x"}}
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "gone.html").write_text("of an earlier build")
    furniture.write_permalinks(book, None)
    assert {p.name for p in (tmp_path / "claims").iterdir()} == {
        "new-id.html",
        "old-id.html",
        "older-id.html",
    }
    assert "book/x.html#new-id" in (tmp_path / "claims" / "older-id.html").read_text()


def lost(published, entries):
    """What is wrong with the ids of a registry, given those that readers may have cited."""
    former = [old for entry in entries.values() for old in entry.get("former", [])]
    reachable = {*entries, *former}
    twice = {old for old in former if former.count(old) > 1 or old in entries}
    return (
        [f"{id_} is gone: add it to `former` of the claim that took its place"
         for id_ in published if id_ not in reachable]
        + [f"{id_} is new: add it to tests/published.txt" for id_ in reachable - set(published)]
        + [f"{id_} leads to two claims" for id_ in sorted(twice)]
    )  # fmt: skip


def test_no_id_that_was_published_is_lost():
    published = (chapters.ROOT / "tests" / "published.txt").read_text(encoding="utf-8").split()
    assert lost(published, registry()) == []


def test_a_lost_id_would_be_noticed():
    entries = {"a": {}, "c": {"former": ["b"]}}
    assert lost(["a", "b", "c"], entries) == []
    assert lost(["a", "b", "c", "d"], entries) == [
        "d is gone: add it to `former` of the claim that took its place"
    ]
    assert lost(["a", "b"], entries) == ["c is new: add it to tests/published.txt"]
    assert lost(["a", "b", "c"], {**entries, "a": {"former": ["b"]}}) == ["b leads to two claims"]


@pytest.mark.parametrize("given", ["example.org", "javascript:x", "file:///x"])
def test_an_address_that_is_none_is_refused(given, monkeypatch):
    monkeypatch.setenv("CLTHEORY_SITE", given)
    with pytest.raises(ExtensionError, match=r"CLTHEORY_SITE was .* it should be an address"):
        furniture.address("CLTHEORY_SITE")
    monkeypatch.setenv("CLTHEORY_SITE", f"{SITE}/")
    assert furniture.address("CLTHEORY_SITE") == SITE
