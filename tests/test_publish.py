"""What a published book has beside its pages: descriptions, site map, archive, cover."""

import shutil
import zipfile
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from sphinx.errors import ExtensionError

import chapters
import cover
import downloads
import publish
import tryit


def page(*children):
    document = publish_doctree("")
    section = nodes.section()
    section += [nodes.title("", "A title"), *children]
    document += section
    return document


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("One sentence.", "One sentence."),
        ("What is it? " + "It is long " * 30, "What is it? It is long"),
        ("A sentence that stands alone and is long enough. " + "word " * 60, None),
    ],
)
def test_a_description_is_short_and_ends_well(text, description):
    made = publish.describe(
        page(nodes.note("", nodes.paragraph("", "No.")), nodes.paragraph("", text))
    )
    assert len(made) <= publish.LENGTH
    assert made[-1] in ".?!…"
    if description is None:
        assert made == "A sentence that stands alone and is long enough."
    else:
        assert made.startswith(description)


def test_a_description_has_no_formula_and_no_citation():
    cited = nodes.inline("", "[Someone, 2020]", classes=["bibtex-citation"])
    text = nodes.paragraph(
        "", "", nodes.Text("On "), nodes.math("", r"\R^d"), nodes.Text(" "), cited
    )
    assert publish.describe(page(text)) == "On R^d"
    assert publish.describe(page()) == ""


def test_the_address_is_taken_from_the_environment_and_must_be_one(monkeypatch):
    config = SimpleNamespace()
    monkeypatch.setenv("CLTHEORY_SITE", "https://example.org/book")
    publish.take_address(None, config)
    assert config.html_baseurl == config.site_address == "https://example.org/book/"
    monkeypatch.delenv("CLTHEORY_SITE")
    publish.take_address(None, config)
    assert config.site_address == ""
    monkeypatch.setenv("CLTHEORY_SITE", "example.org")
    with pytest.raises(ExtensionError, match=r"'example\.org'"):
        publish.take_address(None, config)


def test_the_site_map_names_every_page():
    pages = ["book/a.html", "book/b&c.html"]
    top = ElementTree.fromstring(publish.site_map("https://example.org/", pages).encode())
    assert [loc.text for loc in top.iter() if loc.tag.endswith("loc")] == [
        "https://example.org/book/a.html",
        "https://example.org/book/b&c.html",
    ]


@pytest.fixture
def site(tmp_path):
    site = tmp_path / "html"
    for name, text in {
        "book/page.html": '<link href="../_static/a.css?v=1"><script src="../_static/used.js">'
        '<meta content="https://example.org/_static/card.png">',
        "_static/a.css": "b { background: url('deep/dot.svg') }",
        "_static/deep/dot.svg": "<svg/>",
        "_static/deep/unused.svg": "<svg/>",
        "_static/used.js": "",
        "_static/unused.js": "",
        "_static/own.js": "",
        "_static/card.png": "",
        "_static/locales/x/y.mo": "",
    }.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return site


def test_what_no_page_loads_is_dropped_and_nothing_else(site):
    static = site / "_static"
    names = {str(path.relative_to(static)) for path in static.rglob("*") if path.is_file()}
    publish.prune(site, names - {"own.js"}, "https://example.org/")
    left = {str(path.relative_to(static)) for path in static.rglob("*")}
    assert left == {"a.css", "deep", "deep/dot.svg", "used.js", "own.js", "card.png"}


def test_an_archive_is_the_same_bytes_for_the_same_site(site, tmp_path):
    (site / "book.pdf").write_text("not in the archive")
    publish.archive(site, tmp_path / "one.zip")
    for path in site.rglob("*.html"):
        path.touch()
    publish.archive(site, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        names = packed.namelist()
        assert packed.read("book/_static/a.css").startswith(b"b {")
    assert names == sorted(names)
    assert "book/book/page.html" in names
    assert not any(name.endswith(".pdf") for name in names)


@pytest.mark.parametrize("package", [downloads.package, tryit.package])
def test_the_package_is_the_same_bytes_for_the_same_sources(package, monkeypatch, tmp_path):
    one = package()
    elsewhere = shutil.copytree(chapters.PACKAGE, tmp_path / "cltheory", copy_function=shutil.copy)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(chapters.ROOT / name, tmp_path)
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    monkeypatch.setattr(chapters, "PACKAGE", elsewhere)
    assert package() == one


def test_the_cover_is_drawn_the_same_each_time_and_is_light(tmp_path):
    drawn = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        cover.write(folder, "A title")
        drawn.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {"cover.svg", "favicon.svg", "card.png"}
    assert sum(map(len, drawn[0].values())) < 300_000
    for name in ("cover.svg", "favicon.svg"):
        assert ElementTree.fromstring(drawn[0][name]).tag.endswith("svg")
