"""Chromium as the site's tests and the PDF use it: which one, and with which flags."""

from __future__ import annotations

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TYPESET = """async () => {
  if (!window.MathJax) return [];
  await MathJax.startup.promise;
  const maths = [...document.querySelectorAll('.math')];
  const raw = maths.filter(m => !m.querySelector('mjx-container'));
  const bad = [...document.querySelectorAll('mjx-merror, [data-mjx-error]')];
  return [...raw, ...bad].map(m => m.textContent.slice(0, 80));
}"""
"""Waits until the maths of a page is typeset; returns what was not."""


def executable() -> str | None:
    """Return the path of a Chromium or Chrome, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def missing(command: str) -> str:
    """Say that there is no browser, and what to do."""
    return f"no browser: install one of {', '.join(NAMES)}, then run {command}"
