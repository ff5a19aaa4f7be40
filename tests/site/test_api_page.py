"""The reference of the package in the browser: every public name, readable, with its source."""

import ast

import pytest

import uses
from browsing import SITE

PAGES = {module: f"book/api/{module}.html" for module in uses.modules()}


def described(soup, module, name):
    return soup.find(id=f"cltheory.{module}.{name}")


@pytest.mark.parametrize("module", PAGES)
def test_every_public_name_is_on_the_page_of_its_module_once(soups, module):
    soup = soups[PAGES[module]]
    for name, node in uses.public(module).items():
        head = described(soup, module, name)
        assert head, name
        assert len(soup.find_all(id=head["id"])) == 1
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            source = head.find("a", href=lambda href: "_modules/" in href)["href"]
            page, _, anchor = source.removeprefix("../../").partition("#")
            assert f'id="{anchor}"' in (SITE / page).read_text(encoding="utf-8")


def test_shapes_and_aliases_are_readable(soups):
    head = described(soups[PAGES["rkhs"]], "rkhs", "inner").get_text()
    assert "gram: Float[Tensor, 'n n']" in head
    assert "→ Float[Tensor, '']" in head
    head = described(soups[PAGES["kernels"]], "kernels", "on_sphere")
    assert {a.get_text() for a in head.select("a.reference[href*=kernels]")} >= {
        "Profile",
        "Kernel",
    }
    for page in PAGES.values():
        for head in soups[page].select("dt.sig"):
            text = head.get_text()
            assert not any(junk in text for junk in ("jaxtyping", "0x", "~", "<class")), text


def test_no_markup_is_left_over(soups):
    """A role, a directive or a field that was not understood stays in the text."""
    for page in PAGES.values():
        text = soups[page].select_one(".bd-article").get_text()
        for mark in (
            ":math:",
            ":func:",
            ":py:obj:",
            ":prf:ref:",
            ".. math",
            "\\(\\(",
            "Raises\n---",
        ):
            assert mark not in text, f"{page}: {mark}"


def test_every_function_shows_an_example_or_its_module_does(soups):
    for module, page in PAGES.items():
        soup = soups[page]
        shown = "".join(pre.get_text() for pre in soup.select("pre"))
        for name, node in uses.public(module).items():
            if isinstance(node, ast.FunctionDef):
                own = described(soup, module, name).find_parent("dl").find("pre")
                assert own or f"{name}(" in shown, f"{module}.{name}"


def test_the_overview_leads_to_every_module_and_from_every_claim(soups):
    soup = soups["book/api.html"]
    links = {a["href"] for a in soup.select(".bd-article a[href]")}
    assert {f"api/{module}.html" for module in PAGES} <= links
    assert "api/rkhs.html#cltheory.rkhs.inner" in links
    assert "kernels/rkhs.html#rkhs-finite" in links
