"""The Sphinx extension that puts ``claims.json`` and its schema at the top of the site."""

from __future__ import annotations

import shutil
from pathlib import Path

import chapters


def write(app, error) -> None:
    """Write the object that the pages of this build were made from."""
    if error is None and app.builder.format == "html":
        site = Path(app.outdir)
        (site / "claims.json").write_text(chapters.claims().to_json(), encoding="utf-8")
        shutil.copy(chapters.PACKAGE / "claims.schema.json", site)


def setup(app):
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
