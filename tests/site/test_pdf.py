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
        soup.h1.select_one(".headerlink").decompose()
        found.append(plain(soup.h1.get_text()))
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


def test_the_words_of_theorems_proofs_and_solutions_are_there(book):
    text = plain(" ".join(page.extract_text() for page in book.pages))
    assert "Moore–Aronszajn on a finite set" in text
    assert "bilinear and symmetric" in text  # of a folded proof
    assert "holds, computed when this page was built" in text


def test_the_outline_nests_parts_pages_and_sections(book, titles):
    entries = [(depth, plain(entry.title), entry) for depth, entry in flat(book.outline)]
    names = [title for _, title, _ in entries]
    assert [title for title in titles if title not in names] == []
    assert {depth for depth, _, _ in entries} == {0, 1, 2}
    for _, title, entry in entries:
        if title in titles:
            page = book.pages[book.get_destination_page_number(entry)]
            assert "".join(title.split()) in "".join(plain(page.extract_text()).split())


def test_links_stay_in_the_file_or_lead_to_the_web(book):
    pages = {page.indirect_reference.idnum for page in book.pages}
    found = links(book)
    inner = [link["/Dest"] for link in found if "/Dest" in link]
    outer = [link["/A"]["/URI"] for link in found if "/A" in link]
    assert len(inner) > 20 * len(list(pdf.reading_order()))
    assert all(place.get_object()[0].indirect_reference.idnum in pages for place in inner)
    assert [uri for uri in outer if not uri.startswith(("https:", "http:", "mailto:"))] == []


def test_pages_are_numbered_as_the_contents_say(book):
    labels = book.page_labels
    front = labels.index("1")
    assert labels[0] == "i"
    assert labels[front:] == [str(k) for k in range(1, len(labels) - front + 1)]
    for number in range(front, len(labels), 7):
        assert labels[number] in book.pages[number].extract_text().split()
    rows = [
        (link["/Dest"][0], plain(page.extract_text()).split())
        for page in book.pages[1:front]
        for link in (annotation.get_object() for annotation in page.get("/Annots", []))
    ]
    assert rows
    for goal, words in rows:
        assert labels[book.get_page_number(goal.get_object())] in words


def test_it_is_not_heavy():
    assert not PDF.exists() or PDF.stat().st_size < 40 * 2**20
