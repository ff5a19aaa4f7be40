"""Python and SymPy for the page: fetched and packed once, so that a reader runs checks offline.

Usage: runtime.py

A page that was opened from a folder may not fetch the files beside it, but it may load scripts. So
each part is one script that hands over the packed bytes. Pyodide comes from the package index that
npm is configured with; SymPy and what it needs are those that ran the chapters.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "_build" / "runtime"
STATE = FOLDER / "state.json"
COMPILE = Path(__file__).with_name("compile.mjs")
PYODIDE = "314.0.7"
PYODIDE_SHA512 = (  # npm view pyodide@VERSION dist.integrity
    "0YvXxEhfEdpLfb/XkM2BFAeMROq0iMUX2bzzH9pOttyMcWkwq+HbE5uyuGD82LN7y2q+SNvi/6V5JEsOlD2R1A=="
)
CORE = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)
LIBRARIES_ZIP = "libraries.zip"
LIBRARIES = {"sympy": "sympy", "mpmath": "mpmath", "pyyaml": "yaml"}
UNUSED = {"tests", "test-examples", "benchmarks"}


def versions() -> dict[str, str]:
    """Return what a runtime of today holds."""
    return {"pyodide": PYODIDE} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def state() -> dict[str, str]:
    """Return what a runtime of today is made of, the code that packs it included."""
    code = b"".join(path.read_bytes() for path in (Path(__file__), COMPILE))
    return versions() | {"code": hashlib.sha256(code).hexdigest()}


def ready() -> bool:
    """Whether the runtime of today lies in its folder."""
    return STATE.exists() and STATE.read_text(encoding="utf-8") == json.dumps(state())


def script(name: str, data: bytes) -> str:
    """Return a script that hands over packed bytes under a name."""
    packed = base64.b64encode(gzip.compress(data, mtime=0)).decode()
    return f'tryit.take("{name}", "{packed}");\n'


def make() -> None:
    """Fetch, compile and pack the runtime into its folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        fetched = _fetch(Path(scratch))
        (fetched / "sources.zip").write_bytes(_sources())
        # Compiled beforehand, SymPy is there in a fifth of the time.
        _run("node", str(COMPILE), cwd=fetched)
        for name in (*CORE, LIBRARIES_ZIP):
            text = script(name, (fetched / name).read_bytes())
            (FOLDER / f"{name}.js").write_text(text, encoding="ascii")
        (FOLDER / "LICENSES.txt").write_text(_licences(fetched), encoding="utf-8")
    STATE.write_text(json.dumps(state()), encoding="utf-8")


def _fetch(scratch: Path) -> Path:
    once = ("--fetch-retries=0", "--fetch-timeout=60000")
    _run("npm", "pack", "--silent", *once, f"pyodide@{PYODIDE}", cwd=scratch)
    path = scratch / f"pyodide-{PYODIDE}.tgz"
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != PYODIDE_SHA512:
        raise RuntimeError(f"{path.name} was not what PYODIDE_SHA512 says, but {found}")
    with tarfile.open(path) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"


def _run(*command: str, cwd: Path) -> None:
    if shutil.which(command[0]) is None:
        raise RuntimeError(f"{command[0]} was not found; install Node.js with npm")
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if "error" in line.lower()]
        word = min(lines, key=len) if lines else f"exit status {done.returncode}"
        raise RuntimeError(f"`{' '.join(command[:2])}` failed ({word})")


def _sources() -> bytes:
    """Zip the libraries as they are installed here, without their tests."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for name, package in LIBRARIES.items():
            for file in importlib.metadata.files(name) or []:
                wanted = file.parts[0] == package and not UNUSED & set(file.parts)
                if wanted and file.suffix == ".py":
                    archive.write(file.locate(), str(file))
    return zipped.getvalue()


def _licences(fetched: Path) -> str:
    """Name each part, its licence and its source; add the licences' texts that came along."""
    about = json.loads((fetched / "package.json").read_text(encoding="utf-8"))
    source = about["repository"]["url"].removeprefix("git+").removesuffix(".git")
    parts = [
        f"Pyodide {PYODIDE}, unchanged, under {about['license']}; its source is at {source}.\n"
        "The text of that licence is at https://mozilla.org/MPL/2.0/.\n"
        "It holds CPython, under the PSF licence: https://docs.python.org/3/license.html.\n"
    ]
    for name in LIBRARIES:
        texts = [
            file.read_text()
            for file in importlib.metadata.files(name) or []
            if file.name == "LICENSE" and ".dist-info" in file.parts[0]
        ]
        head = f"{name} {importlib.metadata.version(name)}, compiled, without its tests:\n\n"
        parts.append(head + "\n".join(texts))
    return f"\n{'-' * 80}\n\n".join(parts)


def main() -> int:
    """Make the runtime; without one the book is whole but for its buttons, and it is said why."""
    try:
        make()
    except (RuntimeError, OSError, tarfile.TarError) as trouble:
        shutil.rmtree(FOLDER, ignore_errors=True)
        FOLDER.mkdir(parents=True)
        STATE.write_text("{}", encoding="utf-8")
        print(f"no checks in the page: {trouble}; then `make try`")
        return int(os.environ.get("GOAL") == "try")
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{size / 2**20:.0f} MB: " + ", ".join(f"{n} {v}" for n, v in versions().items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
