"""The Sphinx extension of what a reader takes along: the chapter as a notebook, and the package.

The notebook is the one in ``notebooks/``, with the accepted lines of its checks and no other
output: a reader sees what a check must print, and whoever runs it compares. Buttons that open it
elsewhere appear only where the build knows the book's repository: ``CLTHEORY_REPOSITORY``.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from sphinx.errors import ExtensionError

import chapters
import cltheory
import zips

REPOSITORY = "CLTHEORY_REPOSITORY"
ARCHIVE = f"cltheory-{cltheory.__version__}.zip"
SERVICES = {
    "Colab": "https://colab.research.google.com/github/{path}/blob/main/notebooks/{name}.ipynb",
    "Binder": "https://mybinder.org/v2/gh/{path}/HEAD?labpath=notebooks/{name}.ipynb",
}


def launches(repository: str, name: str) -> dict[str, str]:
    """Return where the notebook of a chapter can be opened, by service."""
    if not repository:
        return {}
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", repository)
    if match is None:
        raise ExtensionError(
            f"{REPOSITORY} was {repository!r}; it should be like https://github.com/owner/name. "
            f"Run: {REPOSITORY}=https://github.com/owner/name make book"
        )
    return {title: url.format(path=match[1], name=name) for title, url in SERVICES.items()}


def offer_the_notebook(app, pagename, templatename, context, doctree) -> None:
    """Lay the notebook beside the page's source, where the theme's download button finds it."""
    name = chapters.on_page(pagename)
    if name:
        target = Path(app.outdir) / "_sources" / f"{pagename}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(chapters.NOTEBOOKS / f"{name}.ipynb", target)
        context["ipynb_source"] = f"{pagename}.ipynb"


def add_buttons(app, pagename, templatename, context, doctree) -> None:
    """Add the package to the downloads of a chapter, and the services that run its notebook."""
    if "ipynb_source" not in context:
        return
    buttons = context["header_buttons"]
    downloads = next(group for group in buttons if group["label"] == "download-buttons")
    archive = context["pathto"](f"_sources/{ARCHIVE}", 1)
    downloads["buttons"].insert(
        1, _button(archive, "package", "Download the package", "fas fa-box", "download-package")
    )
    services = launches(app.config.cltheory_repository, chapters.on_page(pagename))
    if services:
        links = [
            _button(url, title, f"Open the notebook on {title}", "fas fa-play", title.lower())
            for title, url in services.items()
        ]
        buttons.insert(
            0,
            {
                "type": "group",
                "buttons": links,
                "icon": "fas fa-rocket",
                "tooltip": "Run this chapter elsewhere",
                "label": "launch-buttons",
            },
        )


def _button(url: str, text: str, tooltip: str, icon: str, label: str) -> dict[str, str]:
    return {
        "type": "link",
        "url": url,
        "text": text,
        "tooltip": tooltip,
        "icon": icon,
        "label": f"{label}-button",
    }


def lay_out_the_package(app, error) -> None:
    """Put the package beside the notebooks, as an archive that pip installs."""
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "_sources" / ARCHIVE).write_bytes(package())


def package() -> bytes:
    """Zip what pip needs to install the package of this tree."""
    files = [chapters.ROOT / name for name in ("pyproject.toml", "README.md", "LICENSE")]
    files += [path for path in sorted(chapters.PACKAGE.glob("*")) if path.is_file()]
    folder = Path(ARCHIVE).with_suffix("")
    return zips.packed(
        ((folder / path.relative_to(chapters.ROOT)).as_posix(), path) for path in files
    )


def setup(app):
    app.add_config_value("cltheory_repository", os.environ.get(REPOSITORY, ""), "html")
    app.connect("html-page-context", offer_the_notebook, priority=400)  # before the theme looks
    app.connect("html-page-context", add_buttons, priority=600)  # after the theme's own buttons
    app.connect("build-finished", lay_out_the_package)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
