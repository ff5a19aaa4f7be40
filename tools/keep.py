"""A pytest plugin: keep what nbval received, so that the pages show that very run.

``--keep NAME`` writes ``_build/executed/NAME.ipynb`` if every cell passed, and
``_build/rejected/NAME.ipynb`` otherwise; a check cell without accepted lines does not pass.
"""

from __future__ import annotations

import ast
import copy
import inspect
import math
import os
import time
from datetime import UTC, datetime
from queue import Empty

import nbformat
import nbval.plugin
import pytest
from nbval.kernel import RunningKernel

import chapters
from cltheory.checks import SEED_VARIABLE
from cltheory.claims import versions


def pytest_addoption(parser):
    parser.addoption("--keep", metavar="NAME", default=None, help="the chapter that is executed")


def pytest_configure(config):
    if config.getoption("--keep"):
        nbval.plugin.RunningKernel = WatchedKernel
        config.pluginmanager.register(Keeper(config.getoption("--keep")))


class WatchedKernel(RunningKernel):
    """A kernel that is missed as soon as it is gone; nbval would wait for it until time is up."""

    def get_message(self, stream, timeout=None):
        end = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            try:
                return super().get_message(stream, min(1.0, max(0.0, end - time.monotonic())))
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died in this cell, or was killed") from None
                if time.monotonic() >= end:
                    raise


class Keeper:
    def __init__(self, name):
        self.name, self.start = name, time.perf_counter()
        # Taken before the run: an edit made while the chapter runs must make it stale.
        self.key, self.commit = chapters.key(name), chapters.commit()
        self.date = datetime.now(UTC).isoformat(timespec="seconds")
        self.device = "unknown"
        self.cells = {}

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = (yield).get_result()
        if call.when != "call" or not hasattr(item, "test_outputs"):
            return
        checked = chapters.CHECKED in item.cell.metadata.get("tags", [])
        if report.passed and checked and not item.cell.outputs:
            report.outcome = "failed"
            report.longrepr = f"cell {item.cell_num} of {self.name} has no accepted lines"
        self.cells[item.cell_num] = (item.test_outputs or [], report.passed)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item, nextitem):
        if nextitem is None and all(ok for _, ok in self.cells.values()):
            self.device = ask(item.parent.kernel, where_it_trained)

    def pytest_sessionfinish(self, session):
        executed = chapters.EXECUTED / f"{self.name}.ipynb"
        rejected = chapters.REJECTED / f"{self.name}.ipynb"
        made = chapters.notebook(self.name)
        code = chapters.code_cells(made)
        for number, cell in enumerate(code):
            outputs, _ = self.cells.get(number, ([], False))
            cell.execution_count = number + 1
            cell.outputs = [_output(out, number + 1) for out in outputs]
        made.metadata["cltheory"] = {
            "key": self.key,
            "code": chapters.code_key(made),
            "seconds": round(time.perf_counter() - self.start, 1),
            "date": self.date,
            "commit": self.commit,
            "device": self.device,
            "versions": versions(),
            "seed": int(os.environ.get(SEED_VARIABLE, "0")),
        }
        passed = len(self.cells) == len(code) and all(ok for _, ok in self.cells.values())
        keep, drop = (executed, rejected) if passed else (rejected, executed)
        drop.unlink(missing_ok=True)
        chapters.write(keep, nbformat.writes(made, version=4))


def ask(kernel, question):
    """Call a function in the kernel that ran the chapter: it knows what it ran on."""
    reply = kernel.kc.execute(
        inspect.getsource(question),
        silent=True,
        user_expressions={"answer": f"{question.__name__}()"},
        reply=True,
        timeout=60,
    )
    return ast.literal_eval(reply["content"]["user_expressions"]["answer"]["data"]["text/plain"])


def where_it_trained():
    import sys

    training = sys.modules.get("cltheory.training")
    return training._device_words() if training else "CPU"


def _output(out, count):
    out = nbformat.from_dict(copy.deepcopy(dict(out)))
    if out.output_type == "stream":
        out.pop("metadata", None)
    if out.output_type == "execute_result":
        out.execution_count = count
    return out
