"""The page's Python and what a reader takes along, without a browser."""

import base64
import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes
from docutils.frontend import get_default_settings
from docutils.utils import new_document
from sphinx.errors import ExtensionError

import downloads
import runtime
import tryit

TOOLS = Path(runtime.__file__).parent
HTML = SimpleNamespace(builder=SimpleNamespace(format="html"))


def page(*cards):
    document = new_document("page", get_default_settings())
    for card in cards:
        document += nodes.container("", ids=[card], classes=["evidence"])
    return document


def editors(document):
    return [(node["id"], node.parent.index(node)) for node in document.findall(tryit.Trial)]


def test_an_editor_stands_under_the_card_that_it_repeats(monkeypatch):
    monkeypatch.setattr(runtime, "ready", lambda: True)
    document = page("observation-representer", "claim-representer", "claim-rkhs-finite")
    tryit.offer(HTML, document, "book/kernels/rkhs")
    assert editors(document) == [("try-claim-representer", 2), ("try-claim-rkhs-finite", 4)]


def test_without_a_runtime_a_page_is_as_it_was(monkeypatch):
    monkeypatch.setattr(runtime, "ready", lambda: False)
    document = page("claim-representer")
    tryit.offer(HTML, document, "book/kernels/rkhs")
    assert editors(document) == []


def test_what_the_page_imports_is_the_package_without_torch(tmp_path):
    with zipfile.ZipFile(io.BytesIO(tryit.package())) as archive:
        archive.extractall(tmp_path)
        assert not {"cltheory/losses.py", "cltheory/training.py"} & set(archive.namelist())
    program = "from cltheory.checks import registry; assert registry()"
    alone = (
        "import sys; sys.modules.update(torch=None, numpy=None, docutils=None, IPython=None); "
        f"import verdict; print(verdict.__file__, verdict.run({program!r}))"
    )
    run = [sys.executable, "-c", alone]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split(" ", 1)[1] == "('unchecked', '')\n", done.stdout + done.stderr
    assert done.stdout.startswith(str(tmp_path))


def test_a_script_hands_over_what_was_packed():
    name, packed = json.loads(
        "[" + runtime.script("x.zip", b"\x00\xff").split("(")[1].split(")")[0] + "]"
    )
    assert (name, gzip.decompress(base64.b64decode(packed))) == ("x.zip", b"\x00\xff")


@pytest.mark.parametrize(("goal", "code"), [("book", 0), ("try", 1)])
def test_where_nothing_can_be_fetched_it_is_said_and_only_make_try_fails(tmp_path, goal, code):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("runtime.py", "compile.mjs"):
        (tools / name).write_bytes((TOOLS / name).read_bytes())
    done = subprocess.run(
        [sys.executable, tools / "runtime.py"],
        env={"PATH": str(tmp_path), "GOAL": goal},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "npm was not found" in done.stdout
    assert "make try" in done.stdout
    assert [path.name for path in (tmp_path / "_build" / "runtime").iterdir()] == ["state.json"]


def test_a_runtime_of_other_versions_is_not_ready(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime, "STATE", tmp_path / "state.json")
    assert not runtime.ready()
    runtime.STATE.write_text(json.dumps(runtime.state()))
    assert runtime.ready()
    monkeypatch.setattr(runtime, "PYODIDE", "0.1")
    assert not runtime.ready()


def test_launch_buttons_need_a_repository():
    assert downloads.launches("", "rkhs") == {}
    links = downloads.launches("https://github.com/owner/name.git", "rkhs")
    assert links == {
        "Colab": "https://colab.research.google.com/github/owner/name/blob/main/notebooks/rkhs.ipynb",
        "Binder": "https://mybinder.org/v2/gh/owner/name/HEAD?labpath=notebooks/rkhs.ipynb",
    }
    with pytest.raises(ExtensionError, match="CLTHEORY_REPOSITORY was 'owner/name'; it should be"):
        downloads.launches("owner/name", "rkhs")


@pytest.mark.parametrize("repository", ["", "https://github.com/owner/name"])
def test_the_buttons_of_a_chapter(repository):
    group = {"label": "download-buttons", "buttons": [{"text": ".ipynb"}, {"text": ".md"}]}
    context = {
        "ipynb_source": "book/kernels/rkhs.ipynb",
        "header_buttons": [group],
        "pathto": lambda path, _: f"../../{path}",
    }
    app = SimpleNamespace(config=SimpleNamespace(cltheory_repository=repository))
    downloads.add_buttons(app, "book/kernels/rkhs", "page.html", context, None)
    assert [button["text"] for button in group["buttons"]] == [".ipynb", "package", ".md"]
    labels = [group["label"] for group in context["header_buttons"]]
    assert labels == ["launch-buttons"] * bool(repository) + ["download-buttons"]
