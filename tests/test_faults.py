"""What goes wrong on a reader's machine: it is said what mends it, and the next run is clean.

The small project lies in a folder with a space and a letter beyond ASCII in its name.
"""

import os
import shutil
import signal
import sys
import time

import nbformat
import pytest

import environment
from cltheory.training import Record
from tiny import SOURCE, build, doit, lay_out, make, python, replace, run, start

NOWHERE = "http://127.0.0.1:9/"  # no machine listens there


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """A project whose chapter ran and was accepted."""
    folder = lay_out(tmp_path_factory.mktemp("für alle") / "un livre")
    doit(folder, "execute")
    run(folder, python(folder), "tools/accept.py")
    assert_clean(folder)
    return folder


@pytest.fixture
def project(standing, tmp_path):
    return shutil.copytree(standing, tmp_path / "für alle", symlinks=True)


def executed(project):
    return project / "_build" / "executed" / "one.ipynb"


def assert_clean(project):
    done = doit(project, "execute")
    assert done.returncode == 0, done.stdout + done.stderr
    assert nbformat.read(executed(project), as_version=4).metadata["cltheory"]["key"]
    assert list(project.rglob("*.part")) == []
    return done.stdout


def cut(path):
    path.write_bytes(path.read_bytes()[:200])


def let_constant(project, line):
    """Put a line before what the chapter's function returns."""
    replace(project / "cltheory" / "first.py", "    return", f"    {line}\n    return")


def test_a_kernel_that_is_killed_is_missed_at_once(project):
    let_constant(project, "__import__('os').kill(__import__('os').getpid(), 9)")
    began = time.perf_counter()
    done = doit(project, "execute")
    assert time.perf_counter() - began < 300, "nbval waits 600 s for a kernel that is gone"
    assert done.returncode != 0
    assert "the kernel died in this cell, or was killed" in done.stdout
    assert "run `make chapter C=one`" in done.stdout
    assert not executed(project).exists()
    (project / "cltheory" / "first.py").write_text(SOURCE)
    assert_clean(project)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_stopped_leaves_nothing_half_written(project, sign):
    let_constant(project, "open('started', 'w').close(); __import__('time').sleep(600)")
    process = doit(project, "execute", begin=start)
    while not list(project.rglob("started")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    os.killpg(process.pid, sign)
    process.communicate(timeout=120)
    assert process.returncode != 0
    (project / "cltheory" / "first.py").write_text(SOURCE)
    assert_clean(project)


def test_a_damaged_run_is_not_shown_and_runs_again(project):
    cut(executed(project))
    refused = build(project)
    assert refused.returncode != 0
    assert "no run of today's code for: one. Run: make book" in refused.stderr
    assert "✓ chapter one" in assert_clean(project)


def test_a_damaged_memory_of_the_build_is_forgotten(project):
    cut(project / "_build" / ".doit.json")
    assert "= chapter one" in assert_clean(project)


def test_damaged_accepted_lines_are_never_made_again_unasked(project):
    notebook = project / "notebooks" / "one.ipynb"
    whole = notebook.read_text(encoding="utf-8")
    cut(notebook)
    half = notebook.read_text(encoding="utf-8")
    for done in (doit(project, "execute"), run(project, python(project), "tools/accept.py")):
        assert done.returncode != 0
        said = done.stdout + done.stderr
        assert "one.ipynb is no notebook, or a part of one. It holds the accepted lines." in said
        assert "Run: git checkout notebooks/one.ipynb" in said
        assert "Traceback" not in said
    assert notebook.read_text(encoding="utf-8") == half
    notebook.write_text(whole, encoding="utf-8")
    assert_clean(project)


@pytest.mark.parametrize("damage", [cut, lambda path: replace(path, '"seconds": ', '"seconds": 1')])
def test_a_damaged_record_is_no_row_of_the_page(tmp_path, monkeypatch, damage):
    path = tmp_path / "rkhs.json"
    versions = {"python": "3.11", "torch": "2.4", "cltheory": "0.1"}
    figures, device = {"gap": 0.1}, "a fast machine"
    Record("rkhs", "demo", {}, figures, [0], 2.0, device, versions, "unknown").save(path)
    monkeypatch.setattr(environment.chapters, "RUNS", tmp_path)
    assert device in environment.records()
    damage(path)
    with pytest.raises(ValueError, match=r"rkhs\.json is refused: .*make record C=rkhs"):
        environment.records()


def test_the_same_run_makes_the_same_site_in_another_folder(standing, tmp_path):
    sites = []
    for name in ("here", "there"):
        folder = shutil.copytree(standing, tmp_path / name, symlinks=True)
        assert build(folder).returncode == 0
        site = folder / "_build" / "html"
        files = (path for path in site.rglob("*") if path.is_file())
        sites.append({path.relative_to(site): path.read_bytes() for path in files})
    here, there = sites
    assert here.keys() == there.keys()
    assert [path for path in here if here[path] != there[path]] == []


def without_rights(project, *command):
    """Run a command as someone who may write where the modes of files allow it, and only there."""
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere; without setpriv it cannot give that up")
        command = ("setpriv", "--bounding-set=-dac_override", *command)
    return run(project, *command)


def test_a_checkout_that_cannot_be_written_says_so(project):
    shutil.rmtree(project / "_build")
    project.chmod(0o555)
    try:
        build = without_rights(project, "make", "-o", ".venv/ready", "test")
        ours = without_rights(
            project, python(project), "-c", "import cltheory.checks as c; c.registry()"
        )
    finally:
        project.chmod(0o755)
    assert build.returncode == 2
    assert "cannot be written, and the build writes there" in build.stderr
    assert "~/book" in build.stderr
    assert "Traceback" not in build.stderr
    assert ours.returncode == 0, ours.stderr


def test_an_installation_without_a_network_says_so(project):
    (project / ".venv").unlink()
    flags = f"PIP_FLAGS=--index-url {NOWHERE} --retries 0 --timeout 5"
    done = run(project, "make", "test", f"PYTHON={sys.executable}", flags, PIP_EXTRA_INDEX_URL="")
    assert done.returncode == 2
    assert 'make test PIP_FLAGS="--index-url ADDRESS"' in done.stdout
    assert not (project / ".venv" / "ready").exists(), "the next call installs again"


def test_goals_of_make_end_in_the_code_of_what_they_ran(project):
    assert make(project, "chapter").returncode == 2
    let_constant(project, "raise ValueError('no number')")
    done = make(project, "chapter", "C=one")
    assert done.returncode == 2
    assert "no number" in done.stdout
