"""Sweeps give the results of a plain loop: on processes, and on a cluster that loses a worker."""

import os
import re
import signal
import time
from pathlib import Path

import joblib
import pytest
import torch

from cltheory import sweeps

ROOT = Path(__file__).parent.parent


def square(case):
    return case**2, torch.get_num_threads()


def counted(case):
    """Leave a file for each call; fail on -1 as long as no file 'mended' is there."""
    folder, number = Path(case[0]), case[1]
    (folder / f"{number}-{time.time_ns()}").touch()
    if number < 0 and not (folder / "mended").exists():
        raise RuntimeError("not today")
    return number**2


def calls(folder, number):
    return len(list(Path(folder).glob(f"{number}-*")))


def drift(case):
    """Train a small network of its own seed: a result that depends on every digit."""
    width, seed = case
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(width, 8, generator=generator, dtype=torch.float64)
    for _ in range(20):
        w = w - 0.01 * torch.tanh(w @ w.T) @ w
    return w.sum().item()


def test_a_sweep_keeps_its_order_and_takes_one_thread_each():
    before = torch.get_num_threads()
    assert sweeps.sweep(square, list(range(5))) == [(k * k, 1) for k in range(5)]
    with joblib.parallel_config(backend="threading", n_jobs=2):
        assert sweeps.sweep(square, [3, 4]) == [(9, 1), (16, 1)]
    assert torch.get_num_threads() == before


def test_a_sweep_goes_on_from_what_it_has(tmp_path):
    kept, seen = tmp_path / "kept", tmp_path / "seen"
    seen.mkdir()
    cases = [(str(seen), number) for number in (1, 2, 3)]
    assert sweeps.sweep(counted, cases[:2], folder=kept) == [1, 4]
    assert sweeps.sweep(counted, cases, folder=kept) == [1, 4, 9]
    assert [calls(seen, number) for number in (1, 2, 3)] == [1, 1, 1]


def test_a_failed_sweep_names_the_case_and_keeps_the_others(tmp_path):
    kept, seen = tmp_path / "kept", tmp_path / "seen"
    seen.mkdir()
    cases = [(str(seen), number) for number in (1, 2, -1)]
    with joblib.parallel_config(backend="threading", n_jobs=1):
        with pytest.raises(RuntimeError, match="not today") as caught:
            sweeps.sweep(counted, cases, folder=kept)
        assert caught.value.__notes__ == [f"in the case {cases[2]!r}"]
        (seen / "mended").touch()
        assert sweeps.sweep(counted, cases, folder=kept) == [1, 4, 1]
    assert [calls(seen, number) for number in (1, 2, -1)] == [1, 1, 2]


def test_a_sweep_of_nothing_is_refused():
    with pytest.raises(ValueError, match="cases must hold at least one, got none"):
        sweeps.sweep(square, [])


def slow(case):
    time.sleep(0.3)
    return os.getpid(), drift(case)


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_gives_the_results_of_a_loop():
    distributed = pytest.importorskip("distributed")
    cases = [(width, seed) for width in (8, 16) for seed in range(10)]
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        ) as local,
        sweeps.cluster(local.scheduler_address, timeout=60) as client,
    ):
        victim = next(iter(client.run(os.getpid).values()))
        client.loop.call_later(1.5, os.kill, victim, signal.SIGKILL)
        found = sweeps.sweep(slow, cases)
    assert [result for _, result in found] == [drift(case) for case in cases]
    assert len({process for process, _ in found}) >= 2
    assert [process for process, _ in found][-1] != victim


@pytest.mark.filterwarnings("ignore")
def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    """As it is printed, on fewer cases and a cluster of this machine."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "book" / "sweeps.md").read_text(encoding="utf-8")
    here, there = re.findall(r"```python\n(.*?)```", page, re.S)
    settings = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=1, **settings) as local:
        scope = {"__name__": "page"}
        exec(here.replace("(64, 256, 1024)", "(8, 16)").replace("range(8)", "range(2)"), scope)
        exec(there.replace("tcp://node1:8786", local.scheduler_address), scope)
    assert len(scope["found"]) == 8
    assert scope["found"] == scope["again"]
    assert min(scope["found"]) > 0
    assert len(list((tmp_path / "results").rglob("output.pkl"))) == 8


def test_a_cluster_that_is_not_there_is_refused():
    pytest.importorskip("distributed")
    message = "must be that of a Dask scheduler.*within 1 s, got 'tcp://127.0.0.1:9'"
    with (
        pytest.raises(ConnectionError, match=message),
        sweeps.cluster("tcp://127.0.0.1:9", timeout=1),
    ):
        pass


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_without_workers_is_refused():
    distributed = pytest.importorskip("distributed")
    settings = {"host": "127.0.0.1", "dashboard_address": None, "silence_logs": 50}
    with distributed.LocalCluster(n_workers=0, **settings) as local:
        address = local.scheduler_address
        message = "must have a worker within 1 s, got none"
        with pytest.raises(ConnectionError, match=message), sweeps.cluster(address, timeout=1):
            pass
