"""The loop against a closed form, and records that were tampered with."""

import json
import os
import subprocess

import pytest
import torch

from cltheory import training
from cltheory.training import Record, data_folder, device, fit, load_record, recorded

CONFIG = {"seeds": [0, 1], "steps": 10, "lr": 0.1}


def make(**changes):
    content = {
        "chapter": "mercer",
        "name": "run",
        "config": CONFIG,
        "figures": {"cosine": [0.99, 0.98], "untrained cosine": 0.1},
        "seeds": [0, 1],
        "seconds": 1.5,
        "device": "CPU, 2 threads",
        "versions": {"python": "3.11", "torch": "2.4", "cltheory": "0.1"},
        "commit": "0" * 40,
    }
    return Record(**{**content, **changes})


def point(value=5.0):
    return torch.tensor([value], dtype=torch.float64, requires_grad=True)


def test_gradient_descent_by_hand():
    x = point()
    history = fit(
        [x],
        lambda step: (x - 2).square().sum() / 2,
        steps=20,
        lr=0.1,
        optimizer="sgd",
        schedule="constant",
    )
    assert x.item() == pytest.approx(2 + 3 * 0.9**20)
    assert history.steps == list(range(20))
    assert history.losses == pytest.approx([4.5 * 0.81**t for t in range(20)])
    assert history.seconds > 0


def test_cosine_schedule_by_hand():
    x = point()
    fit([x], lambda step: (x - 2).square().sum() / 2, steps=4, lr=0.5, optimizer="sgd")
    rates = [0.5 * (1 + torch.cos(torch.tensor(torch.pi * t / 4)).item()) / 2 for t in range(4)]
    expected = 3.0
    for rate in rates:
        expected *= 1 - rate
    assert x.item() == pytest.approx(2 + expected, rel=1e-6)


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
def test_trains_a_module(optimizer):
    layer = torch.nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 9)[:, None]
    history = fit(
        layer,
        lambda step: (layer(x) - 3 * x).square().mean(),
        steps=400,
        lr=0.1,
        optimizer=optimizer,
    )
    assert history.losses[-1] < 1e-3 * history.losses[0]


def test_every_and_callback():
    x, seen = point(), []
    history = fit(
        [x],
        lambda step: x.square().sum(),
        steps=10,
        lr=0.1,
        every=4,
        callback=lambda step: seen.append((step, x.item() ** 2)),
    )
    assert history.steps == [0, 4, 8, 9]
    assert seen == [
        (s, pytest.approx(v)) for s, v in zip(history.steps, history.losses, strict=True)
    ]


def test_prints_nothing(capfd):
    x = point()
    fit([x], lambda step: x.square().sum(), steps=3, lr=0.1)
    assert capfd.readouterr() == ("", "")


def test_loss_that_is_not_finite():
    x = point()
    with pytest.raises(FloatingPointError, match="loss must be finite, got nan at step 2"):
        fit([x], lambda step: x.sum() * (float("nan") if step == 2 else 1), steps=5, lr=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"every": 0}, "every must be"),
        ({"lr": -1.0}, "lr must be"),
        ({"lr": float("inf")}, "lr must be"),
        ({"optimizer": "newton"}, "optimizer must be one of .*'newton'"),
        ({"schedule": "linear"}, "schedule must be one of .*'linear'"),
    ],
)
def test_bad_arguments(arguments, words):
    x = point()
    with pytest.raises(ValueError, match=words):
        fit([x], lambda step: x.sum(), **{"steps": 1, "lr": 0.1, **arguments})


def test_loss_that_is_no_scalar():
    x = point()
    with pytest.raises(ValueError, match=r"loss must be a scalar, got shape \(1,\)"):
        fit([x], lambda step: x, steps=1, lr=0.1)


def test_fit_makes_nothing_on_the_default_device():
    x = point()
    torch.set_default_device("meta")
    try:
        fit([x], lambda step: x.square().sum(), steps=100, lr=0.3)
    finally:
        torch.set_default_device(None)
    assert abs(x.item()) < 1


def test_device(monkeypatch):
    monkeypatch.delenv("CLTHEORY_DEVICE", raising=False)
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("CLTHEORY_DEVICE", "cpu")
    assert device() == torch.device("cpu")
    for absent in ("toaster", "cuda:77"):
        monkeypatch.setenv("CLTHEORY_DEVICE", absent)
        with pytest.raises(ValueError, match=f"CLTHEORY_DEVICE must .* got '{absent}'"):
            device()


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("CLTHEORY_DATA", raising=False)
    assert data_folder() is None
    monkeypatch.setenv("CLTHEORY_DATA", str(tmp_path))
    assert data_folder() == tmp_path


def test_record_comes_back(tmp_path):
    record, path = make(), tmp_path / "runs" / "mercer.json"
    record.save(path)
    assert load_record(path) == record
    assert [entry.name for entry in path.parent.iterdir()] == ["mercer.json"]
    assert record.is_current({"lr": 0.1, "steps": 10, "seeds": [0, 1]})
    assert not record.is_current({**CONFIG, "steps": 11})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"chapter": ""}, "chapter must be a name"),
        ({"name": 3}, "name must be a name"),
        ({"config": {"widths": (1, 2)}}, "config must be a dict of JSON values"),
        ({"config": {1: 2}}, "config must be"),
        ({"config": {"lr": float("nan")}}, "config must be"),
        ({"figures": {"cosine": float("nan")}}, "figures must be a dict of finite numbers"),
        ({"figures": {"cosine": [1.0, float("inf")]}}, "figures must be"),
        ({"figures": {"cosine": True}}, "figures must be"),
        ({"figures": {"cosine": "0.99"}}, "figures must be"),
        ({"figures": [0.99]}, "figures must be"),
        ({"seeds": [0.5]}, "seeds must be a list of integers"),
        ({"seeds": []}, "seeds must be"),
        ({"seconds": -1.0}, "seconds must be"),
        ({"seconds": "1"}, "seconds must be"),
        ({"device": None}, "device must be"),
        ({"versions": {"python": "3.11"}}, "versions must be the versions of python, torch"),
        ({"commit": "main"}, "commit must be a git hash"),
    ],
)
def test_no_record_of_nonsense(changes, words):
    with pytest.raises(ValueError, match=words):
        make(**changes)


def drop(content):
    del content["seconds"]


def change(**entries):
    return lambda content: content.update(entries)


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (drop, r"entries missing: \['seconds'\]"),
        (change(colour="red"), r"unknown: \['colour'\]"),
        (change(figures={"cosine": 1.0}), "digest does not fit the content"),
        (change(device="NVIDIA H200"), "digest does not fit"),
        (change(config={**CONFIG, "steps": 11}), "config_hash does not fit"),
        (change(config_hash="0" * 64), "config_hash does not fit"),
        (change(digest=None), "digest does not fit"),
        (change(figures={"cosine": float("nan")}), "figures must be a dict of finite numbers"),
        (change(seconds="1.5"), "seconds must be"),
    ],
)
def test_tampered_record_is_refused(tmp_path, tamper, words):
    path = tmp_path / "mercer.json"
    make().save(path)
    content = json.loads(path.read_text())
    tamper(content)
    path.write_text(json.dumps(content))
    mend = "git checkout .*mercer.json, or make record C=mercer"
    with pytest.raises(ValueError, match=f"record .*mercer.json is refused: .*{words}.*{mend}"):
        load_record(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null"])
def test_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "mercer.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"record .*mercer.json is refused"):
        load_record(path)


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "mercer.json"
    make().save(path)
    before = path.read_bytes()

    def full_disk(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(training.Path, "replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        make(seconds=2.0).save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["mercer.json"]  # noqa: PTH208


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Work in a book's folder for notebooks, far from any record of ours."""
    notebooks = tmp_path / "notebooks" / "kernels"
    notebooks.mkdir(parents=True)
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(notebooks)
    monkeypatch.delenv("CLTHEORY_RECORD", raising=False)
    monkeypatch.setenv("CLTHEORY_DEVICE", "cpu")
    return tmp_path / "book"


def full_size(config):
    return {"cosine": 1 - config["lr"], "steps": [1.0, 2.0]}


def never(config):
    raise AssertionError("a reader does not repeat the run")


def test_no_record_yet(book):
    assert recorded("mercer", never, CONFIG) is None


def test_recorded_run(book, monkeypatch):
    monkeypatch.setenv("CLTHEORY_RECORD", "rkhs")
    assert recorded("mercer", never, CONFIG) is None
    monkeypatch.setenv("CLTHEORY_RECORD", "mercer")
    made = recorded("mercer", full_size, CONFIG)
    assert made.name == "full_size"
    assert made.figures == {"cosine": 0.9, "steps": [1.0, 2.0]}
    assert made.seeds == [0, 1]
    assert made.device.startswith("CPU, ")
    assert made.commit == "unknown"
    monkeypatch.delenv("CLTHEORY_RECORD")
    assert recorded("mercer", never, CONFIG) == made
    older = recorded("mercer", never, {**CONFIG, "steps": 20})
    assert older == made
    assert not older.is_current({**CONFIG, "steps": 20})


def test_record_of_another_chapter(book):
    make().save(book / "runs" / "rkhs.json")
    with pytest.raises(ValueError, match=r"rkhs.json must be of chapter 'rkhs', got 'mercer'"):
        recorded("rkhs", never, CONFIG)


@pytest.mark.parametrize(
    ("run", "config", "words"),
    [
        (lambda config: {"cosine": float("nan")}, CONFIG, "figures must be"),
        (lambda config: None, CONFIG, "figures must be"),
        (never, {"steps": 1}, "seeds must be"),
        (never, {**CONFIG, "widths": (1,)}, "config must be"),
    ],
)
def test_bad_run_leaves_no_record(book, monkeypatch, run, config, words):
    monkeypatch.setenv("CLTHEORY_RECORD", "mercer")
    with pytest.raises(ValueError, match=words):
        recorded("mercer", run, config)
    assert not (book / "runs").exists()


def test_nowhere_to_save(book, monkeypatch):
    book.rmdir()
    monkeypatch.setenv("CLTHEORY_RECORD", "mercer")
    with pytest.raises(FileNotFoundError, match="no folder book/"):
        recorded("mercer", never, CONFIG)


def test_commit(book):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=book, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert training._commit(book) == "unknown"
    git("init", "--quiet")
    (book / "intro.md").write_text("one")
    git("add", ".")
    git("commit", "--quiet", "-m", "one")
    git("tag", "v1")
    assert training._commit(book) == git("rev-parse", "HEAD")
    (book / "intro.md").write_text("two")
    assert training._commit(book) == git("rev-parse", "HEAD") + "-dirty"
