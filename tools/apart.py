"""Calls in a process of their own, against a copy of the package.

The process is forked after the libraries are loaded, which takes longer than most tests do; the
package itself is forgotten and imported again, from the copy.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

LIBRARIES = (
    "jaxtyping", "matplotlib.pyplot", "pytest", "scipy.io", "scipy.stats", "sklearn.datasets",
    "sklearn.linear_model", "sympy", "torch._dynamo", "torch.func", "torch.testing",
)  # fmt: skip
LIMIT = 900
"""Seconds after which a call is ended: an error may leave a loop without an end."""


def call(function: Callable[[], Any], package: Path, limit: float = LIMIT) -> Any:
    """Return ``function()`` where the package is the one of the folder; its value is JSON."""
    _load()
    receiver, sender = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setsid()
            os.close(receiver)
            _enter(package)
            answer = {"value": function()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with os.fdopen(sender, "w", encoding="utf-8") as pipe:
            json.dump(answer, pipe)
        os._exit(0)
    os.close(sender)
    watch = threading.Timer(limit, os.killpg, (child, signal.SIGKILL))
    watch.start()
    try:
        with os.fdopen(receiver, encoding="utf-8") as pipe:
            said = pipe.read()
    except KeyboardInterrupt:
        os.killpg(child, signal.SIGKILL)  # in a group of its own, it heard nothing
        raise
    finally:
        watch.cancel()
        os.waitpid(child, 0)
    if not said:
        raise TimeoutError(f"{function} gave no answer within {limit} s, or its process broke")
    answer = json.loads(said)
    if "error" in answer:
        raise RuntimeError(answer["error"])
    return answer["value"]


@cache
def _load() -> None:
    os.environ.update(MPLBACKEND="agg", OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    for name in LIBRARIES:
        importlib.import_module(name)


def _enter(package: Path) -> None:
    """Put the copy before all, here and in processes that are started from here; be silent."""
    for name, module in [*sys.modules.items()]:
        # The tools, too: one that took a class from the package would hold two of it.
        ours = Path(getattr(module, "__file__", None) or "").parent == Path(__file__).parent
        if name.partition(".")[0] == package.name or (ours and name != "__main__"):
            del sys.modules[name]
    sys.path.insert(0, str(package.parent))
    paths = [str(package.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


class First:
    """A pytest plugin: the first test that fails, a known one first, then those of a function."""

    def __init__(self, function: str, known: str | None) -> None:
        self.function, self.known, self.failed = function, known, None

    def pytest_collection_modifyitems(self, items):
        items.sort(
            key=lambda item: (
                item.nodeid != self.known,
                self.function not in inspect.getsource(item.function),
            )
        )

    def pytest_runtest_logreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report):
        if report.failed and self.failed is None:
            self.failed = report.nodeid


def first_failure(files: list[str], function: str = "", known: str | None = None) -> str | None:
    """Return the id of the first test that fails in these files, or None."""
    import pytest

    first = First(function, known)
    status = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *files], plugins=[first])
    if first.failed is None and status not in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        raise RuntimeError(f"pytest ended with {status!r} and no test failed: {files}")
    return first.failed
