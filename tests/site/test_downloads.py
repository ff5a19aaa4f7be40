"""What a reader takes along: a notebook that runs wherever the package is installed."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbclient import NotebookClient

import chapters
from browsing import SITE

PAGES = {
    path.stem: f"book/{path.parent.name}/{path.stem}.html" for path in chapters.chapters().values()
}
NAME = "rkhs"  # the quickest


def offered(soups, name):
    """The files behind the download button of a chapter's page, by the words on them."""
    page = PAGES[name]
    links = soups[page].select(".dropdown-download-buttons a")
    return {
        link.get_text(strip=True): (SITE / page).parent / unquote(link["href"]) for link in links
    }


@pytest.mark.parametrize("name", sorted(PAGES))
def test_every_chapter_is_offered_as_its_notebook_with_the_package(soups, name):
    files = offered(soups, name)
    assert list(files) == [".ipynb", "package", ".md"]
    assert files[".ipynb"].read_text() == (chapters.NOTEBOOKS / f"{name}.ipynb").read_text()
    assert files["package"].exists()
    first = nbformat.read(files[".ipynb"], as_version=4).cells[0]
    assert first.cell_type == "markdown"
    assert "pip install" in first.source


@pytest.mark.skipif("CLTHEORY_REPOSITORY" in os.environ, reason="this build knows its repository")
def test_no_button_leads_to_a_repository_that_the_build_does_not_know(soups):
    links = {
        link["href"] for page in PAGES.values() for link in soups[page].find_all("a", href=True)
    }
    assert not [link for link in links if "colab" in link or "binder" in link]


def test_a_downloaded_notebook_runs_where_only_the_package_is_installed(
    soups, tmp_path, monkeypatch
):
    files = offered(soups, NAME)
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    alone = [
        "--no-build-isolation",
        "--target",
        str(installed),
        str(Path(files["package"]).resolve()),
    ]
    subprocess.run([*pip, *alone], check=True, cwd=elsewhere)
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.chdir(elsewhere)

    notebook = nbformat.read(files[".ipynb"], as_version=4)
    accepted = [chapters.texts(cell) for _, cell in chapters.places(notebook)]
    probe = nbformat.v4.new_code_cell("import cltheory; print(cltheory.__file__)")
    notebook.cells.append(probe)
    NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(elsewhere)}}
    ).execute()

    assert probe.outputs[0].text.startswith(str(installed))
    assert [chapters.texts(cell) for _, cell in chapters.places(notebook)] == accepted
    assert all(accepted)
