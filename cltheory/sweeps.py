r"""Maps over independent cases, (width x seed x loss x ...), on one machine or on many.

The engine is joblib's: :func:`joblib.parallel_config` chooses it, :func:`cluster` chooses one of
many machines, by Dask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import joblib
import torch
from tqdm import tqdm

from cltheory import _validate, training

if TYPE_CHECKING:
    from distributed import Client

Result = TypeVar("Result")


def sweep(
    run: Callable[[Any], Result], cases: Sequence[Any], *, folder: str | Path | None = None
) -> list[Result]:
    """Run independent cases side by side, one thread each, and return their results in order.

    It is a map by joblib, on every core unless :func:`joblib.parallel_config` chooses another
    engine or another number of workers. A case holds its own seed, so that results do not depend on
    how many run together. On a GPU, cases run one after another.

    Parameters
    ----------
    run : callable
        From a case to its result; both are sent to other processes.
    cases : sequence
        What to run.
    folder : path, optional
        Where to keep results (a :class:`joblib.Memory`). A sweep that was cut short goes on from
        them, and one with more cases runs only the new ones; a change of `run` itself, but not of
        what it calls, forgets them. Workers on other machines must see the same folder.

    Raises
    ------
    ValueError
        If there is no case, or the engine has no worker.
    Exception
        What a case raised, with a note of the case; results kept in `folder` stay.

    Examples
    --------
    >>> sweep(lambda case: case**2, [1, 2, 3])
    [1, 4, 9]
    """
    if not cases:
        raise ValueError("cases must hold at least one, got none")
    one: Callable[[Any], Result] = run
    if folder is not None:
        # Workers may stand in another folder.
        one = joblib.Memory(Path(folder).resolve(), verbose=0).cache(run)
    if training.device().type != "cpu" or len(cases) == 1:
        return [_noted(one, case) for case in tqdm(cases, disable=None, leave=False)]
    count = joblib.effective_n_jobs(None)
    if count == 0:
        raise ValueError("the engine of joblib must have at least one worker, got none")
    # Unless the caller configured an engine, take every core. Results are read as they come.
    workers = joblib.Parallel(n_jobs=None if count > 1 else -1, return_as="generator")
    results = workers(joblib.delayed(_on_one_thread)(one, case) for case in cases)
    return list(tqdm(results, total=len(cases), disable=None, leave=False))


@contextmanager
def cluster(address: str, *, timeout: float = 10.0) -> Iterator[Client]:
    """Run the sweeps of a ``with`` block on a Dask cluster.

    It needs ``pip install 'cltheory[cluster]'``. Workers that die are replaced by those that are
    left, which run their cases again.

    Parameters
    ----------
    address : str
        Of the scheduler, such as ``"tcp://node1:8786"``.
    timeout : float
        Seconds to wait for the scheduler and its first worker.

    Yields
    ------
    distributed.Client
        The connection.

    Raises
    ------
    ImportError
        If Dask is not installed.
    ConnectionError
        If no scheduler answers at the address, or it has no worker.

    Notes
    -----
    With a scheduler on ``node1``::

        with cluster("tcp://node1:8786"):
            results = sweep(run, cases, folder="shared/results")

    Examples
    --------
    >>> with cluster("tcp://node1:8786", timeout=0.0):
    ...     pass
    Traceback (most recent call last):
    ValueError: timeout must be a finite number above 0, got 0.0
    """
    _validate.positive(timeout, "timeout")
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError("a cluster needs Dask: pip install 'cltheory[cluster]'") from error
    try:
        client = Client(address, timeout=timeout)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"address must be that of a Dask scheduler, which answers within {timeout:g} s, "
            f"got {address!r}"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=timeout)
        except TimeoutError as error:
            raise ConnectionError(
                f"the scheduler at {address!r} must have a worker within {timeout:g} s, got none"
            ) from error
        with joblib.parallel_config(backend="dask"):
            yield client


def _on_one_thread(run: Callable[[Any], Result], case: Any) -> Result:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _noted(run, case)
    finally:
        torch.set_num_threads(threads)


def _noted(run: Callable[[Any], Result], case: Any) -> Result:
    try:
        return run(case)
    except Exception as error:
        error.add_note(f"in the case {case!r}")
        raise
