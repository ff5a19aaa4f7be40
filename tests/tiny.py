"""A book of one-claim chapters in a temporary folder, with this tree's tools and package."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import runtime

ROOT = Path(__file__).parent.parent
FILES = ("Makefile", "README.md", "LICENSE", "_config.yml", "constraints.txt", "pyproject.toml")
HEADER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

"""
CHAPTER = (
    HEADER
    + """# {title}

Some prose.

```{{code-cell}} ipython3
from cltheory.checks import claim
from cltheory.{module} import constant

def gap(*, shift=0):
    return round(constant()) - 2 + shift

with claim("{claim}") as c:
    c.symbolic("one case", gap)
    c.twin("shifted", shift=1, margin=0.5)
```

```{{code-cell}} ipython3
print(constant())
```
"""
)
CHAPTERS = {"One": ("first", "rkhs-finite"), "Two": ("second", "nystrom")}
SOURCE = '"""A module."""\n\n\ndef constant() -> float:\n    """Return two."""\n    return 2.0\n'


def lay_out(folder, titles=("One",)):
    """Lay out a book with a chapter a title; chapter ``one`` uses module ``first``, and so on."""
    for name in ("tools", "cltheory"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__py*"))
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    book = folder / "book"
    shutil.copytree(ROOT / "book" / "_static", book / "_static")
    (book / "references.bib").write_text("")
    for title in titles:
        module, claim = CHAPTERS[title]
        (folder / "cltheory" / f"{module}.py").write_text(SOURCE)
        text = CHAPTER.format(title=title, module=module, claim=claim)
        (book / f"{title.lower()}.md").write_text(text)
    state = folder / "_build" / "runtime" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps(runtime.state()))  # nothing to fetch
    root, *rest = (f"book/{title.lower()}" for title in titles)
    files = "".join(f"- file: {page}\n" for page in rest)
    chapters = f"chapters:\n{files}" if rest else ""
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: {root}\n{chapters}")
    return folder


def start(project, *command, **environment):
    """Start a command in a project, in a group of processes of its own."""
    path = os.pathsep.join(map(str, (project, project / "tools")))
    return subprocess.Popen(
        command,
        cwd=project,
        env={**os.environ, "PYTHONPATH": path, "GOAL": "test", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background ignores SIGINT, and what it starts would, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(project, *command, **environment):
    process = start(project, *command, **environment)
    out, err = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def python(project):
    """Return the interpreter by its place in the project, as after `make` set it up."""
    return str(project / ".venv" / "bin" / "python")


def doit(project, *tasks, begin=run):
    words = ("-m", "doit", "-f", "tools/dodo.py", "-d", ".")
    return begin(project, python(project), *words, *tasks)


def make(project, *goals, **environment):
    """Run make; what is installed stays as it is."""
    return run(project, "make", "-o", ".venv/ready", *goals, **environment)


def build(project, *options):
    """Render the pages from the runs that are there."""
    return run(project, project / ".venv" / "bin" / "jupyter-book", "build", ".", *options)


def accept(project, *names):
    return run(project, python(project), "tools/accept.py", *names)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
