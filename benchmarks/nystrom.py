"""Nyström features of 60,000 MNIST images, rank 512, beside scikit-learn's Nystroem.

`python benchmarks/nystrom.py FOLDER` reads MNIST from a folder; without one, synthetic images of
that shape. One thread; each run is a process of its own, so that its peak memory is its own: what
it held at most beyond the data. `fit` builds the model, `all` also maps the 60,000 points; only
ours finds the eigenvalues and turns the features to principal directions. The error is
|K - F F^T| / |K| on a block of 1,000 x 1,000 pairs of images that were not fitted.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.kernel_approximation import Nystroem

from cltheory import data, kernels, mercer

RANK = 512
BLOCK = 1000


def points(folder):
    """Points to fit, and others to test."""
    if folder:
        return [data.mnist(folder, split=split).images.flatten(1) for split in ("train", "test")]
    rng = torch.Generator().manual_seed(0)
    centres = torch.rand(100, 784, generator=rng)
    labels = torch.randint(100, (62_000,), generator=rng)
    images = centres[labels] + 0.3 * torch.randn(62_000, 784, generator=rng)
    return [images[:60_000], images[60_000:]]


def peak():
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux the peak of getrusage starts from that of the parent
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def run(engine, folder, bandwidth, seed):
    torch.set_num_threads(1)
    train, test = (
        torch.from_numpy(np.load(Path(folder) / f"{i}.npy", allow_pickle=False)) for i in range(2)
    )
    kernel = kernels.rbf(bandwidth)
    # The first call of a library loads more of it, which is not the memory of the method.
    mercer.nystrom(kernel, test[:600], RANK)
    peer = Nystroem(gamma=1 / (2 * bandwidth**2), n_components=RANK, random_state=seed)
    peer.fit(test[:600].numpy())
    before = peak()
    began = time.perf_counter()
    if engine == "cltheory":
        model = mercer.nystrom(kernel, train, RANK, generator=torch.Generator().manual_seed(seed))
        features = model.features
    else:
        peer.fit(train.numpy())

        def features(x):
            return torch.from_numpy(peer.transform(x.numpy()))

    fitted = time.perf_counter()
    features(train)
    done = time.perf_counter()
    memory = peak() - before
    left, right = test[:BLOCK], test[BLOCK : 2 * BLOCK]
    exact = kernel(left.double(), right.double())
    approximate = features(left).double() @ features(right).double().T
    error = float((exact - approximate).norm() / exact.norm())
    print(json.dumps({"fit": fitted - began, "all": done - began, "MiB": memory, "error": error}))


def measure(engine, folder, bandwidth, repeats):
    """Median of each figure over fresh processes, one a seed."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    results = []
    for seed in range(repeats):
        child = ["--child", engine, folder, str(bandwidth), str(seed)]
        answer = subprocess.run(
            [sys.executable, __file__, *child],
            env=os.environ | single,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        results.append(json.loads(answer.stdout))
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        engine, folder, bandwidth, seed = arguments.child
        run(engine, folder, float(bandwidth), int(seed))
        return
    source = "MNIST" if arguments.folder else "synthetic images"
    print(f"60,000 x 784 {source}, rank {RANK}, one thread, median of {arguments.repeats} seeds")
    print(f"{'':26}{'fit s':>8}{'all s':>8}{'ratio':>7}{'peak MiB':>10}{'held-out error':>16}")
    sets = points(arguments.folder)
    bandwidth = kernels.median_bandwidth(sets[0])
    for dtype in (torch.float32, torch.float64):
        with tempfile.TemporaryDirectory() as folder:
            for i, x in enumerate(sets):
                np.save(Path(folder) / f"{i}.npy", x.to(dtype).numpy())
            ours = None
            for engine in ("cltheory", "scikit-learn"):
                figures = measure(engine, folder, bandwidth, arguments.repeats)
                ours = ours or figures["all"]
                name = f"{engine} {str(dtype).removeprefix('torch.')}"
                print(
                    f"{name:26}{figures['fit']:8.2f}{figures['all']:8.2f}"
                    f"{figures['all'] / ours:7.2f}{figures['MiB']:10.0f}{figures['error']:16.5f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
