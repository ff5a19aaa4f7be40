"""Nothing that is read is run: neither pickles, nor archives, nor what a module does on import."""

import ast
import subprocess
import sys

import pytest

import chapters
import runtime

ROOT = chapters.ROOT
FOLDERS = ("cltheory", "tools", "tests", "benchmarks")
PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "pickletools"}
READERS = {
    "joblib.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
}
# What a call must say: the function, the argument, its value.
MUST = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "extractall": ("filter", "data"),
}
RUNNING = {"eval", "exec", "compile", "__import__"}


def sources():
    """(place, source) of every file and of every chapter's cells."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
    for name in chapters.chapters():
        for number, cell in enumerate(chapters.code_cells(chapters.notebook(name))):
            yield f"{name}, code cell {number}", cell.source


def risks(source):
    """Name what a source does that could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            yield from (m for m in modules if m.partition(".")[0] in PICKLES)
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in READERS:
                yield name
            if said.get("shell") == "True":
                yield f"{name}(shell=True)"
            for function, (argument, value) in MUST.items():
                called = f".{name}".endswith(f".{function}")
                if function == "extractall" and "tarfile" not in source:
                    continue  # a zip file cannot lead out of the folder
                if called and said.get(argument) != repr(value):
                    yield f"{name} without {argument}={value!r}"


def test_nothing_reads_a_pickle_or_hands_a_string_to_a_shell():
    assert [(place, risk) for place, source in sources() for risk in risks(source)] == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import loads",
        "import numpy as np\nnp.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "joblib.load(path)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "tarfile.open(path).extractall(folder)",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
    ],
)
def test_what_could_run_what_it_reads_is_seen(source):
    assert list(risks(source))


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path, weights_only=True)",
        "yaml.safe_load(text)",
        "tarfile.open(path).extractall(folder, filter='data')",
        "zipfile.ZipFile(path).extractall(folder)",
        "np.load(path, allow_pickle=False)",
        "subprocess.run([command])",
    ],
)
def test_what_is_safe_is_let_through(source):
    assert list(risks(source)) == []


def test_the_package_runs_no_text():
    calls = [
        (path.name, node.func.id)
        for path in chapters.PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in RUNNING
    ]
    assert calls == []


# Other libraries may look about when they load: Matplotlib lists the fonts, once a machine.
OTHERS = """
import jaxtyping, joblib, matplotlib.pyplot, numpy, scipy, sklearn.datasets, sympy, tqdm, yaml
import torch, torch.func, torch.nn.functional
"""
IMPORT = """
import importlib, os, sys

def forbid(event, arguments):
    writes = event == "open" and (
        isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        or arguments[1] is None and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    )
    if writes or event.startswith(("socket.", "subprocess.", "shutil.")) or event in {
        "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir", "os.remove", "os.rename",
    }:
        raise SystemExit(f"{module}: {event} {arguments}")

sys.dont_write_bytecode = True
sys.addaudithook(forbid)
for module in sys.argv[1:]:
    importlib.import_module(module)
print("imported", len(sys.argv) - 1)
"""


def imported(folder, *modules, before=""):
    return subprocess.run(
        [sys.executable, "-c", before + IMPORT, *modules],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_package_opens_no_socket_writes_no_file_and_starts_nothing(tmp_path):
    modules = sorted(f"cltheory.{path.stem}" for path in chapters.PACKAGE.glob("*.py"))
    done = imported(ROOT, *modules, before=OTHERS)
    assert done.stdout == f"imported {len(modules)}\n", done.stderr
    for name, line in {
        "writer": "open('x', 'w')",
        "caller": "import socket; socket.socket().connect(('127.0.0.1', 9))",
        "starter": "import subprocess; subprocess.run(['true'])",
        "maker": "import pathlib; pathlib.Path('x').mkdir()",
    }.items():
        (tmp_path / f"{name}.py").write_text(line)
        done = imported(tmp_path, name)
        assert (done.returncode, done.stdout) == (1, ""), name
        assert done.stderr.startswith(f"{name}: "), done.stderr


def test_a_runtime_of_other_bytes_is_not_unpacked(tmp_path, monkeypatch):
    def pack(*command, cwd):
        (cwd / f"pyodide-{runtime.PYODIDE}.tgz").write_bytes(b"something else")

    monkeypatch.setattr(runtime, "_run", pack)
    with pytest.raises(RuntimeError, match=r"pyodide-.*\.tgz was not what PYODIDE_SHA512 says"):
        runtime._fetch(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".tgz"]
