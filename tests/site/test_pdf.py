"""The book as one PDF: complete, with links, an outline and numbers that lead where they say."""

import os
import unicodedata

import pytest
from bs4 import BeautifulSoup
from pypdf import PdfReader

import pdf
from browsing import ROOT, SITE

PDF = ROOT / "_build" / "book.pdf"


@pytest.fixture(scope="module")
def book():
    if not PDF.exists():
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("there is no PDF. Run: make pdf")
    return PdfReader(PDF)


@pytest.fixture(scope="module")
def titles():
    """The title of each page, as the site writes it."""
    found = []
    for _, page in pdf.reading_order():
        soup = BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")
        title = soup.select_one(".bd-article h1")
        title.select_one(".headerlink").decompose()
        found.append(plain(title.get_text()))
    return found


def plain(text):
    """Letters without ligatures and line ends."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


def flat(outline, depth=0):
    for entry in outline:
        if isinstance(entry, list):
            yield from flat(entry, depth + 1)
        else:
            yield depth, entry


def links(book):
    return [
        annotation.get_object()
        for page in book.pages
        for annotation in page.get("/Annots", [])
        if annotation.get_object()["/Subtype"] == "/Link"
    ]


@pytest.fixture(scope="module")
def first(book, titles):
    """The first page of each page of the site, by its title in the outline."""
    entries = {plain(entry.title): entry for _, entry in flat(book.outline)}
    assert [title for title in titles if title not in entries] == []
    return {title: book.get_destination_page_number(entries[title]) for title in titles}


def test_the_words_of_theorems_proofs_and_cards_are_there(book, first):
    start = first["1. Kernels and their Hilbert spaces"]
    text = plain(" ".join(page.extract_text() for page in book.pages[start : start + 6]))
    assert "Moore–Aronszajn on a finite set" in text
    assert "bilinear and symmetric" in text  # of a folded proof
    assert "holds, computed when this page was built" in text


def test_the_outline_nests_parts_pages_and_sections(book, first):
    assert {depth for depth, _ in flat(book.outline)} == {0, 1, 2}
    for title, number in first.items():
        words = plain(book.pages[number].extract_text())
        assert "".join(title.split()) in "".join(words.split())


def test_links_stay_in_the_file_or_lead_to_the_web(book):
    pages = {page.indirect_reference.idnum for page in book.pages}
    found = links(book)
    inner = [link["/Dest"] for link in found if "/Dest" in link]
    outer = [link["/A"]["/URI"] for link in found if "/A" in link]
    assert len(inner) > 20 * len(list(pdf.reading_order()))
    assert all(place.get_object()[0].indirect_reference.idnum in pages for place in inner)
    assert [uri for uri in outer if not uri.startswith(("https:", "http:", "mailto:"))] == []


def test_pages_are_numbered_as_the_contents_say(book, first):
    labels = book.page_labels
    front = labels.index("1")
    assert labels[0] == "i"
    assert labels[front:] == [str(k) for k in range(1, len(labels) - front + 1)]
    for number in first.values():
        assert labels[number] in book.pages[number].extract_text().split()
    place = {page.indirect_reference.idnum: number for number, page in enumerate(book.pages)}
    for page in book.pages[1:front]:
        words = plain(page.extract_text()).split()
        goals = [link.get_object()["/Dest"][0] for link in page["/Annots"]]
        assert goals
        assert {labels[place[goal.indirect_reference.idnum]] for goal in goals} <= set(words)


def test_it_is_not_heavy():
    assert not PDF.exists() or PDF.stat().st_size < 40 * 2**20
