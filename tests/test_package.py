"""What a user gets from ``pip install .``: the functions and the registry, not the book's tools."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BOOK_TOOLS = {"jupyter-book", "nbval", "doit", "pytest", "sphinx", "ipykernel", "jupytext"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, ROOT], check=True, capture_output=True, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_the_registry_and_the_marker_of_types(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {f"cltheory/{path.name}" for path in (ROOT / "cltheory").glob("*.py")}
    data = {f"cltheory/{name}" for name in ("claims.yml", "claims.schema.json", "py.typed")}
    assert modules | data <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"cltheory"}


def test_users_do_not_get_the_tools_of_the_book(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith("METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    plain = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    required = {r.split(">")[0].split(";")[0].strip().lower() for r in plain}
    assert "torch" in required
    assert not required & BOOK_TOOLS
    assert {"book", "test", "cluster", "peers", "mutants"} == set(
        metadata.get_all("Provides-Extra")
    )


def test_the_installed_package_reads_its_registry(wheel, tmp_path):
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", tmp_path]
    subprocess.run([*command, wheel], check=True, capture_output=True)
    script = "import cltheory.checks as c; print(c.__file__, len(c.registry()))"
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {script}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    place, count = run.stdout.split()
    assert place.startswith(str(tmp_path))
    assert int(count) > 0


def test_the_lines_of_the_readme_work():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(import torch.*?)```", readme, re.S)[1]
    scope = {}
    exec(lines, scope)
    assert scope["coordinates"].shape == (500, 2)


def test_no_module_imports_upward():
    """The floors of the package: a module imports only from floors below its own."""
    floors = [
        {"_validate", "_measure", "__init__"},
        {"_tiles"},
        {"kernels", "sphere", "networks", "checks", "data", "blockwise", "views", "minimise"}
        | {"memory", "sinkhorn"},
        {"mercer", "rkhs", "pairs", "losses", "metrics", "triplets", "ntk", "pca"}
        | {"method_losses"},
        {"claims", "eigenfunctions", "training", "risks", "optima", "flows", "systems"},
        {"figures", "ledger", "methods", "sweeps"},
    ]
    floor = {module: level for level, names in enumerate(floors) for module in names}
    sys.path.insert(0, str(ROOT / "tools"))
    import chapters

    assert set(floor) == {path.stem for path in (ROOT / "cltheory").glob("*.py")}
    for module, level in floor.items():
        source = (ROOT / "cltheory" / f"{module}.py").read_text(encoding="utf-8")
        for used in chapters._imports(source) - {"__init__", module}:
            assert floor[used] < level, f"{module} imports {used}"


def test_versions_agree():
    import cltheory

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert project["version"] == cltheory.__version__
    assert f"\nversion: {cltheory.__version__}\n" in citation
