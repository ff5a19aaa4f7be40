r"""One training loop, and records of the runs that are too long to repeat on every reading.

A chapter trains small and live; beside it stands a **recorded** full-size run. The record carries
what it was made with, and is refused if it was changed by hand:

>>> record = Record(
...     chapter="mercer", name="demo", config={"seeds": [0], "steps": 10}, figures={"cosine": 0.99},
...     seeds=[0], seconds=1.5, device="CPU, 2 threads",
...     versions={"python": "3.11", "torch": "2.4", "cltheory": "0.1"}, commit="unknown",
... )
>>> record.is_current({"steps": 10, "seeds": [0]}), record.is_current({"steps": 20, "seeds": [0]})
(True, False)
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import cos, isfinite, pi
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cltheory import __version__, _validate

DEVICE_VARIABLE = "CLTHEORY_DEVICE"
RECORD_VARIABLE = "CLTHEORY_RECORD"
DATA_VARIABLE = "CLTHEORY_DATA"

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "cosine": lambda done: (1 + cos(pi * done)) / 2,
}


def device() -> torch.device:
    """Where to train: ``CLTHEORY_DEVICE`` if it is set, else a GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        If the variable names no device of this machine.

    Examples
    --------
    >>> torch.ones(2, device=device()).device == device()
    True
    """
    default = "cuda" if torch.cuda.is_available() else "cpu"
    name = os.environ.get(DEVICE_VARIABLE) or default
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{DEVICE_VARIABLE} must name a device that is here, like {default!r}, got {name!r}"
        ) from error


def data_folder() -> Path | None:
    """Folder of the data sets, from ``CLTHEORY_DATA``; none if that is not set.

    Examples
    --------
    >>> from unittest import mock
    >>> with mock.patch.dict(os.environ, {DATA_VARIABLE: "sets/images"}):
    ...     print(data_folder().name)
    images
    """
    folder = os.environ.get(DATA_VARIABLE)
    return Path(folder) if folder else None


@dataclass(frozen=True)
class History:
    """What a run of :func:`fit` left: ``losses`` at ``steps``, and its ``seconds``.

    Examples
    --------
    >>> x = torch.ones(1, requires_grad=True)
    >>> fit([x], lambda step: x.square().sum(), steps=6, lr=0.1, every=3).steps
    [0, 3, 5]
    """

    steps: list[int]
    losses: list[float]
    seconds: float


def fit(
    parameters: nn.Module | Iterable[Tensor],
    loss: Callable[[int], Tensor],
    *,
    steps: int,
    lr: float,
    optimizer: Literal["adam", "adamw", "sgd"] = "adam",
    schedule: Literal["cosine", "constant"] = "cosine",
    every: int = 1,
    callback: Callable[[int], None] | None = None,
) -> History:
    r"""Minimise a loss by gradient steps.

    Parameters
    ----------
    parameters : torch.nn.Module or iterable of Tensor
        What to train, in place.
    loss : callable
        From the step, counted from zero, to a scalar tensor; a mini-batch is drawn in here.
    steps : int
        Number of steps.
    lr : float
        Learning rate; ``cosine`` takes it to zero as :math:`(1 + \cos(\pi t / T)) / 2`.
    optimizer, schedule : str
        Names in ``OPTIMIZERS`` and ``SCHEDULES``.
    every : int
        Record the loss at each ``every``-th step and at the last; between them a GPU need not
        wait for the CPU.
    callback : callable, optional
        Called with the step whenever a loss is recorded, before the parameters move.

    Raises
    ------
    ValueError
        If an argument is out of range, or the loss is not a scalar.
    FloatingPointError
        If a recorded loss is NaN or infinite.

    Examples
    --------
    >>> x = torch.tensor([5.0], requires_grad=True)
    >>> history = fit([x], lambda step: (x - 2).square().sum(), steps=300, lr=0.1)
    >>> abs(x.item() - 2) < 1e-3, len(history.losses)
    (True, 300)
    """
    _validate.integer(steps, "steps", 1)
    _validate.integer(every, "every", 1)
    _validate.positive(lr, "lr")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {list(OPTIMIZERS)}, got {optimizer!r}")
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {list(SCHEDULES)}, got {schedule!r}")
    trained = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
    # fused: one kernel for all parameters, whose step count lies on their device.
    stepper = OPTIMIZERS[optimizer](trained, lr=lr, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        stepper, lambda step: SCHEDULES[schedule](step / steps)
    )

    recorded_steps: list[int] = []
    losses: list[float] = []
    start = time.perf_counter()
    for step in tqdm(range(steps), disable=None, leave=False):
        value = loss(step)
        if value.ndim:
            raise ValueError(f"loss must be a scalar, got shape {tuple(value.shape)}")
        if step % every == 0 or step == steps - 1:
            recorded_steps.append(step)
            losses.append(value.item())
            if not isfinite(losses[-1]):
                raise FloatingPointError(f"loss must be finite, got {losses[-1]} at step {step}")
            if callback is not None:
                callback(step)
        stepper.zero_grad()
        torch.autograd.backward(value)
        stepper.step()
        scheduler.step()
    return History(recorded_steps, losses, time.perf_counter() - start)


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)


def _list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _dict(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(
        isinstance(k, str) and holds(v) for k, v in value.items()
    )


def _words(value: Any) -> bool:
    return isinstance(value, str) and value != ""


_ENTRIES: dict[str, tuple[Callable[[Any], object], str]] = {
    "chapter": (_words, "a name"),
    "name": (_words, "a name"),
    "config": (lambda v: _dict(v, _is_json), "a dict of JSON values"),
    "figures": (
        lambda v: _dict(v, lambda figure: _finite(figure) or _list(figure, _finite)),
        "a dict of finite numbers or lists of them",
    ),
    "seeds": (lambda v: _list(v, lambda seed: type(seed) is int) and v, "a list of integers"),
    "seconds": (lambda v: _finite(v) and v >= 0, "a number of at least 0"),
    "device": (_words, "words"),
    "versions": (
        lambda v: _dict(v, _words) and v.keys() == {"python", "torch", "cltheory"},
        "the versions of python, torch and cltheory",
    ),
    "commit": (
        lambda v: _words(v) and re.fullmatch("[0-9a-f]{40,64}(-dirty)?|unknown", v),
        "a git hash, or 'unknown'",
    ),
}
_SEALS = ("config_hash", "digest")


@dataclass(frozen=True)
class Record:
    """A full-size run: its configuration, its figures, and what it was made with.

    Attributes
    ----------
    chapter, name : str
        Chapter that shows the run, and the name of the run.
    config : dict
        JSON values that determine the run; ``config_hash`` is its fingerprint.
    figures : dict
        Finite numbers, or lists of them, by name.
    seeds : list of int
        Seeds of the run.
    seconds : float
        How long it took.
    device : str
        In words, such as ``"CPU, 2 threads"``.
    versions : dict
        Of ``python``, ``torch`` and ``cltheory``.
    commit : str
        Git commit of the book, ``-dirty`` if files differed from it, or ``unknown``.

    Raises
    ------
    ValueError
        If an entry is not of its kind, or a figure is not finite.
    """

    chapter: str
    name: str
    config: dict[str, Any]
    figures: dict[str, float | list[float]]
    seeds: list[int]
    seconds: float
    device: str
    versions: dict[str, str]
    commit: str

    def __post_init__(self) -> None:
        for name, (holds, expected) in _ENTRIES.items():
            value = getattr(self, name)
            if not holds(value):
                raise ValueError(f"{name} must be {expected}, got {value!r}")

    @property
    def config_hash(self) -> str:
        """SHA-256 of the configuration in canonical JSON."""
        return _sha256(self.config)

    @property
    def digest(self) -> str:
        """SHA-256 of everything else in the record, in canonical JSON."""
        return _sha256({**vars(self), "config_hash": self.config_hash})

    def is_current(self, config: dict[str, Any]) -> bool:
        """Whether the run was made with this configuration."""
        return self.config_hash == _sha256(config)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON; a file that is there is replaced whole, or left as it was."""
        path = Path(path)
        sealed = {**vars(self), "config_hash": self.config_hash, "digest": self.digest}
        text = json.dumps(sealed, indent=2, allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink()
            raise


def load_record(path: str | os.PathLike[str]) -> Record:
    """Read a record that :meth:`Record.save` wrote.

    Raises
    ------
    ValueError
        Naming the file: if it is no JSON object, has missing, extra or mistyped entries, holds a
        figure that is not finite, or was changed since it was saved.

    Examples
    --------
    >>> versions = {"python": "3.11", "torch": "2.4", "cltheory": "0.1"}
    >>> record = Record("pca", "demo", {}, {"gap": 0.1}, [0], 1.0, "CPU", versions, "unknown")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record.save(f"{folder}/demo.json")
    ...     load_record(f"{folder}/demo.json") == record
    True
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it must hold one JSON object")
        expected = {*_ENTRIES, *_SEALS}
        if content.keys() != expected:
            raise ValueError(
                f"entries missing: {sorted(expected - content.keys())}, "
                f"unknown: {sorted(content.keys() - expected)}"
            )
        stored = {name: content.pop(name) for name in _SEALS}
        record = Record(**content)
        for name, value in stored.items():
            if value != getattr(record, name):
                raise ValueError(
                    f"{name} does not fit the content, which was changed after the run"
                )
    except ValueError as error:
        raise ValueError(
            f"record {path} is refused: {error}. Take back the one that was committed, or make it "
            f"again: git checkout {path}, or make record C={Path(path).stem} DATA=folder"
        ) from error
    return record


def recorded(
    chapter: str,
    run: Callable[[dict[str, Any]], dict[str, float | list[float]]],
    config: dict[str, Any],
) -> Record | None:
    """Return the recorded run of a chapter, or make it.

    Reads ``book/runs/<chapter>.json`` in the current folder or the nearest one above it. With the
    environment variable ``CLTHEORY_RECORD`` equal to the chapter's name, calls ``run(config)``
    instead and saves what it returns there.

    Parameters
    ----------
    chapter : str
        Name of the chapter.
    run : callable
        From the configuration to the figures.
    config : dict
        JSON values that determine the run; ``config["seeds"]`` lists its seeds.

    Returns
    -------
    Record or None
        None where there is no record yet. A record of another configuration is returned too: see
        :meth:`Record.is_current`.

    Raises
    ------
    ValueError
        If the record is refused by :func:`load_record` or belongs to another chapter, or if the
        run's configuration or figures make no valid record.
    FileNotFoundError
        If there is no folder ``book`` to save to.

    Examples
    --------
    >>> recorded("no such chapter", lambda config: {"gap": 0.1}, {"seeds": [0]}) is None
    True
    """
    here = Path.cwd()
    book = next((f / "book" for f in (here, *here.parents) if (f / "book").is_dir()), None)
    if os.environ.get(RECORD_VARIABLE) == chapter:
        if book is None:
            raise FileNotFoundError(f"no folder book/ in {here} or above, to save the record in")
        blank = Record(
            chapter=chapter,
            name=run.__name__,
            config=config,
            figures={},
            seeds=config.get("seeds", []),
            seconds=0.0,
            device=_device_words(),
            versions={
                "python": platform.python_version(),
                "torch": str(torch.__version__),
                "cltheory": __version__,
            },
            commit=_commit(book),
        )
        start = time.perf_counter()
        figures = run(config)
        seconds = round(time.perf_counter() - start, 3)
        record = replace(blank, figures=figures, seconds=seconds)
        record.save(book / "runs" / f"{chapter}.json")
        return record
    path = book and book / "runs" / f"{chapter}.json"
    if path is None or not path.exists():
        return None
    record = load_record(path)
    if record.chapter != chapter:
        raise ValueError(f"record {path} must be of chapter {chapter!r}, got {record.chapter!r}")
    return record


def _device_words() -> str:
    where = device()
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    threads = torch.get_num_threads()
    return f"{where.type.upper()}, {threads} thread{'s' if threads > 1 else ''}"


def _commit(folder: Path) -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=64", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _is_json(value: Any) -> bool:
    """Whether JSON gives the value back as it was: no tuples, integer keys or NaN."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError):
        return False


def _sha256(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
