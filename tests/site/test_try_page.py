"""Checks that run in the page, from a folder, with the network cut."""

import os
import re
from pathlib import Path

import pytest

from browsing import NARROW, SITE, WIDE, Visit, shot, violations

PAGE = "book/kernels/rkhs.html"
EDITOR = "#try-claim-rkhs-finite"
SECONDS = 300  # a busy machine; seven seconds are usual
WORD = f"document.querySelector('{EDITOR} .tryit-state').textContent"


class Editor:
    """The editor under one card, as a reader uses it."""

    def __init__(self, visit):
        self.visit, self.page, self.asked = visit, visit.page, []
        self.page.on("request", lambda request: self.asked.append(Path(request.url).name))
        self.box = self.page.locator(EDITOR)
        self.code = self.box.locator("textarea")
        self.button = self.box.locator(".tryit-run")

    def press(self):
        self.button.click()

    def verdict(self):
        self.page.wait_for_function(f"/^[✓✗!]/.test({WORD})", timeout=1000 * SECONDS)
        return self.box.locator(".tryit-state").inner_text()

    def run(self):
        self.page.evaluate(f"{WORD} = ''")
        self.press()
        return self.verdict()

    def text(self):
        return self.box.locator(".tryit-text").inner_text()


@pytest.fixture(scope="module")
def editor(browser):
    if EDITOR[1:] not in (SITE / PAGE).read_text(encoding="utf-8"):
        reason = "the book was built without checks in the page; run make try, then make site-test"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with Visit(browser, PAGE, WIDE) as visit:
        opened = Editor(visit)
        opened.box.locator("summary").click()
        yield opened


def test_an_editor_opens_by_keyboard_and_does_not_trap_it(editor):
    page = editor.page
    focused = "document.activeElement.className || document.activeElement.tagName"
    editor.box.locator("summary").focus()
    page.keyboard.press("Enter")
    assert not editor.code.is_visible()
    page.keyboard.press("Enter")
    assert editor.code.is_visible()
    stops = []
    for _ in range(4):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(focused))
    assert stops == ["A", "TEXTAREA", "tryit-run", "tryit-reset"]
    assert editor.code.input_value().startswith("import sympy as sp\n")


def test_nothing_is_loaded_before_a_reader_asks(editor):
    assert editor.page.locator('script[src*="_static/try/"]').count() == 0


def test_a_check_holds_in_the_page_and_fails_when_a_reader_breaks_it(editor):
    assert editor.run().startswith("✓ holds, computed in this page")
    assert "rkhs-finite | holds" in editor.text()
    assert "pyodide.asm.wasm.js" in editor.asked
    shot(editor.visit, "try-holds")
    assert violations(editor.visit, EDITOR) == []

    program = editor.code.input_value()
    broken = program.replace("return (alpha.T * gram * beta)[0]", "return alpha.dot(beta)")
    assert broken != program
    editor.code.fill(broken)
    assert editor.run().startswith("✗ fails, with your changes, computed")
    assert "FAILS" in editor.text()
    assert re.search(r"leaves s\*\(.*b0", editor.text()), "what is left of the expression is shown"
    assert violations(editor.visit, EDITOR) == []
    shot(editor.visit, "try-fails")
    editor.visit.recolour("dark")
    assert violations(editor.visit, EDITOR) == []
    shot(editor.visit, "try-dark")
    editor.visit.recolour("light")

    editor.box.locator(".tryit-reset").click()
    assert editor.code.input_value() == program
    assert editor.box.locator(".tryit-state").inner_text() == ""


def test_a_program_that_goes_wrong_says_where(editor):
    editor.code.fill("import sympy\nsympy.nothing")
    assert editor.run().startswith("! did not run to its end")
    assert editor.text().startswith("line 2: AttributeError")


def test_a_program_that_does_not_end_is_stopped_and_the_next_one_runs(editor):
    editor.code.fill("while True: pass")
    editor.press()
    editor.page.wait_for_function(f"{WORD} === '… running'", timeout=1000 * SECONDS)
    assert editor.button.inner_text() == "Stop"
    editor.press()
    assert editor.verdict() == "! stopped"
    editor.box.locator(".tryit-reset").click()
    assert editor.run().startswith("✓ holds")


def test_all_of_it_stayed_in_the_folder_and_nothing_was_complained_of(editor):
    assert editor.visit.troubles == []


def test_an_editor_fits_a_phone(browser, editor):
    with Visit(browser, PAGE, NARROW) as visit:
        visit.page.locator(f"{EDITOR} summary").click()
        box = visit.page.locator(EDITOR).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= NARROW["width"]
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        visit.page.locator(EDITOR).screenshot(path=str(SITE.parent / "screenshots/try-narrow.png"))


def test_loading_can_be_stopped_and_a_browser_that_cannot_start_python_says_so(browser, editor):
    with Visit(browser, PAGE, WIDE) as visit:
        other = Editor(visit)
        other.box.locator("summary").click()
        other.press()
        other.press()
        assert other.verdict() == "! stopped"
        visit.page.evaluate("() => { window.Worker = function () { throw Error('refused') } }")
        assert other.run() == "! Python could not be started in this page"
        assert "python -m http.server" in other.text()
        assert other.button.inner_text() == "Run"


def test_the_licences_lie_beside_the_runtime(editor):
    text = (SITE / "_static" / "try" / "LICENSES.txt").read_text(encoding="utf-8")
    for name in ("Pyodide", "MPL-2.0", "github.com/pyodide", "sympy", "mpmath", "pyyaml"):
        assert name in text
    assert text.count("Redistribution and use") >= 2
