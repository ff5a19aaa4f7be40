"""Top 32 eigenpairs of a 4,096-point RBF Gram matrix, beside what a user would pick instead.

One thread, medians. `ratio` is the time of the peer over that of `mercer.top_eigenpairs`; errors
are relative to the largest eigenvalue, against a dense solution. KernelPCA solves the centred
matrix, and its errors are not comparable. Run `python benchmarks/eigenpairs.py`.
"""

import argparse
import statistics
import time

import numpy as np
import scipy.linalg
import torch
from scipy.sparse.linalg import eigsh
from sklearn.decomposition import KernelPCA
from threadpoolctl import threadpool_limits

from cltheory import kernels, mercer


def peers(gram, rank):
    """Peers by name, each with the number of runs: those that take long run once."""
    matrix = gram.numpy()
    start = np.random.default_rng(0).standard_normal(len(matrix))

    def pca(solver):
        model = KernelPCA(rank, kernel="precomputed", eigen_solver=solver, tol=1e-6, random_state=0)
        model.fit(matrix)

    return {
        "cltheory top_eigenpairs": (lambda: mercer.top_eigenpairs(gram, rank), 7),
        "scipy eigsh (tol 1e-6)": (lambda: eigsh(matrix, rank, v0=start, tol=1e-6), 7),
        "KernelPCA arpack": (lambda: pca("arpack"), 5),
        "KernelPCA randomized": (lambda: pca("randomized"), 5),
        "KernelPCA dense": (lambda: pca("dense"), 1),
        "torch.lobpcg (tol 1e-6)": (lambda: torch.lobpcg(gram, rank, tol=1e-6), 1),
    }


def errors(pairs, gram, exact):
    values, vectors = map(torch.as_tensor, pairs)
    order = values.argsort(descending=True)
    values, vectors = values[order], vectors[:, order]
    residual = (gram @ vectors - vectors * values).norm(dim=0).max() / exact[0]
    return float((values - exact).abs().max() / exact[0]), float(residual)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=4096)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 50])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    torch.manual_seed(0)  # the start of lobpcg
    n, rank = arguments.points, arguments.rank
    print(
        f"{n} points, rank {rank}, float64, one thread; a spectrum by the dimension of the points"
    )
    for dim in arguments.dims:
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(n, dim, generator=rng, dtype=torch.float64)
        gram = kernels.gram(kernels.rbf(kernels.median_bandwidth(x)), x)
        top = scipy.linalg.eigvalsh(gram.numpy(), subset_by_index=[n - rank, n - 1])
        exact = torch.from_numpy(top[::-1].copy())
        print(f"\ndimension {dim}: eigenvalue {rank} is {exact[-1] / exact[0]:.1e} of the first")
        print(f"{'':26}{'seconds':>9}{'ratio':>8}{'value error':>13}{'residual':>10}")
        runs = {
            name: (call, repeats, [], []) for name, (call, repeats) in peers(gram, rank).items()
        }
        # Round by round, so that a busy moment of the machine falls on all.
        for turn in range(max(repeats for _, repeats, _, _ in runs.values())):
            for call, repeats, seconds, results in runs.values():
                if turn < repeats:
                    began = time.perf_counter()
                    results[:] = [call()]
                    seconds.append(time.perf_counter() - began)
        ours = None
        for name, (_, _, seconds, (result,)) in runs.items():
            median = statistics.median(seconds)
            ours = ours or median
            line = f"{name:26}{median:9.3f}{median / ours:8.2f}"
            if result is not None:
                line += "{:13.0e}{:10.0e}".format(*errors(result, gram, exact))
            print(line, flush=True)


if __name__ == "__main__":
    main()
