"""Tangent kernels and training of wide networks, timed beside their peers.

float64, one thread pinned to one core, medians over fresh processes; memory is the peak beyond the
network and its inputs. `ratio` is the time of the peer over ours. Peers of `ntk.two_layer`, 256
inputs of 784 dimensions and 8 outputs, are the structured derivatives of neural-tangents, after
compilation, in an environment of its own (`--neural-tangents PYTHON`), and `torch.func.jacrev` with
a contraction, at 32 inputs. `peak` is the share of the machine's rate of matrix products: of the
operations that are done, and with those that symmetry saves. The drift
sweep is 8 widths from 64 to 8,192, 8 seeds, 30 steps of the cosine loss on 24 inputs of 10
dimensions, 2 outputs, of erf and of ReLU: networks of one width stacked, against a loop over seeds
with autograd.
`pca.eigenspace` is beside forming the matrix of 16,384 x 16,384.

Run `python benchmarks/ntk.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SINGLE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SINGLE["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
IN, OUT = 784, 8


def peak():
    """Peak memory of this process in MiB."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return int(line.split()[1]) / 2**10


def medians(call, least=1.0):
    """Median seconds of calls for at least a while, the first one aside."""
    took = []
    while sum(took) < least or len(took) < 4:
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def inputs(n, width):
    import torch

    from cltheory import networks

    torch.set_default_dtype(torch.float64)
    rng = torch.Generator().manual_seed(0)
    model = networks.TwoLayer(IN, width, OUT, generator=rng)
    return model, torch.nn.functional.normalize(torch.randn(n, IN, generator=rng))


def ours(n, width):
    import torch

    from cltheory import ntk

    model, x = inputs(n, width)
    with torch.no_grad():
        before = peak()
        kernel = ntk.two_layer(model, x)
        used = peak() - before
        took = medians(lambda: ntk.two_layer(model, x))
    # A square kernel takes the tiles on and right of the diagonal alone.
    rows = ntk.ROWS
    tiles = sum(min(rows, n - s) * (n - s) for s in range(0, n, rows))
    side = torch.randn(2048, 2048)
    gemm = 2 * 2048**3 / medians(lambda: side @ side)
    done, whole = (
        2 * width * (OUT * (OUT + 1) / 2 * entries + n * n + n * IN) / took / gemm
        for entries in (tiles, n * n)
    )
    return {"seconds": took, "MiB": used, "done": done, "whole": whole, "sum": float(kernel.sum())}


def jacrev(n, width):
    import torch
    from torch.func import functional_call, vmap
    from torch.func import jacrev as by_reverse

    model, x = inputs(n, width)
    parameters = {k: p.detach() for k, p in model.named_parameters()}

    def kernel():
        single = by_reverse(lambda p, row: functional_call(model, p, row[None])[0])
        parts = [d.flatten(2) for d in vmap(single, (None, 0))(parameters, x).values()]
        return sum(torch.einsum("aip,bjp->abij", d, d) for d in parts)

    before = peak()
    total = float(kernel().sum())
    return {"MiB": peak() - before, "seconds": medians(kernel), "sum": total}


def neural_tangents(n, width):
    import jax
    import neural_tangents
    import numpy as np
    from jax import numpy as jnp

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    # Not transposed: a transposed weight hides the structure of its derivative.
    weights = [jnp.asarray(rng.standard_normal(shape)) for shape in ((IN, width), (width, OUT))]
    x = rng.standard_normal((n, IN))
    x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))

    def network(parameters, points):
        hidden, readout = parameters
        return jax.nn.relu(points @ hidden) @ readout / jnp.sqrt(width)

    kernel = jax.jit(
        neural_tangents.empirical_ntk_fn(
            network,
            trace_axes=(),
            vmap_axes=0,
            implementation=neural_tangents.NtkImplementation.STRUCTURED_DERIVATIVES,
        )
    )
    before = peak()
    kernel(x, None, weights).block_until_ready()
    used = peak() - before
    return {"MiB": used, "seconds": medians(lambda: kernel(x, None, weights).block_until_ready())}


WIDTHS = [2**k for k in range(6, 14)]
SEEDS = range(8)


def small_networks(width, activation):
    import torch

    from cltheory import networks

    torch.set_default_dtype(torch.float64)
    x = torch.nn.functional.normalize(
        torch.randn(24, 10, generator=torch.Generator().manual_seed(1))
    )
    return x, [
        networks.TwoLayer(
            10, width, 2, activation=activation, generator=torch.Generator().manual_seed(seed)
        )
        for seed in SEEDS
    ]


def stacked(activation):
    import torch

    from cltheory import flows, networks, ntk, triplets

    def gradient(f):
        return triplets.gradient(f, triplets.disjoint(8), kind="linear", delta=0.01)

    drifts, began = [], time.perf_counter()
    for width in WIDTHS:
        x, nets = small_networks(width, activation)
        model = networks.TwoLayer.stacked(nets)
        with torch.no_grad():
            before = ntk.two_layer(model, x)
            flows.train(model, x, gradient, lr=1.0, times=[30])
            drifts.append(ntk.drift(before, ntk.two_layer(model, x)).sum().item())
    return {"seconds": time.perf_counter() - began, "sum": sum(drifts)}


def looped(activation):
    """Each seed by itself: the loss by autograd, the kernel from the derivatives."""
    import torch
    from torch.func import functional_call, vmap
    from torch.func import jacrev as by_reverse

    from cltheory import triplets

    def kernel(model, x):
        parameters = {k: p.detach() for k, p in model.named_parameters()}
        single = by_reverse(lambda p, row: functional_call(model, p, row[None])[0])
        parts = [d.flatten(2) for d in vmap(single, (None, 0))(parameters, x).values()]
        return sum(torch.einsum("aip,bjp->abij", d, d) for d in parts)

    total, began = 0.0, time.perf_counter()
    for width in WIDTHS:
        x, nets = small_networks(width, activation)
        for model in nets:
            before = kernel(model, x)
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
            for _ in range(30):
                optimizer.zero_grad()
                triplets.loss(model(x), triplets.disjoint(8), kind="linear", delta=0.01).backward()
                optimizer.step()
            total += (kernel(model, x) - before).abs().max().item()
    return {"seconds": time.perf_counter() - began, "sum": total}


def covariance(width, full):
    import torch

    from cltheory import pca, triplets

    torch.set_default_dtype(torch.float64)
    n = 96
    features = torch.randn(n, width, generator=torch.Generator().manual_seed(0)) / width**0.5
    middle = triplets.matrix(triplets.disjoint(n // 3), n)
    before, began = peak(), time.perf_counter()
    if full == "full":
        matrix = features.T @ (middle @ features)
        top = torch.lobpcg(matrix, k=2, niter=-1, tol=1e-9)[0].sum().item()
    else:
        top = pca.eigenspace(features, middle, 2).values[:2].sum().item()
    return {"seconds": time.perf_counter() - began, "MiB": peak() - before, "sum": top}


TASKS = {
    task.__name__: task for task in (ours, jacrev, neural_tangents, stacked, looped, covariance)
}


def measure(python, task, *arguments, repeats=3):
    """Median of each figure over fresh processes of one thread on one core."""
    command = [python, __file__, "--child", task, *map(str, arguments)]
    results = [
        json.loads(
            subprocess.run(
                command, env=os.environ | SINGLE, stdout=subprocess.PIPE, text=True, check=True
            ).stdout.splitlines()[-1]
        )
        for _ in range(repeats)
    ]
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--neural-tangents", metavar="PYTHON", help="of an environment that has it")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, *rest = arguments.child
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        print(json.dumps(TASKS[task](*(int(a) if a.isdigit() else a for a in rest))))
        return

    def show(name, found, base=None):
        ratio = f"{found['seconds'] / base['seconds']:8.2f}" if base else " " * 8
        memory = f"{found['MiB']:8.0f}" if "MiB" in found else " " * 8
        share = f"{found['done']:8.2f}{found['whole']:8.2f}" if "done" in found else ""
        print(f"{name:52}{found['seconds']:10.4f}{ratio}{memory}{share}", flush=True)

    print(f"{'':52}{'s':>10}{'ratio':>8}{'MiB':>8}{'peak':>16}")
    for n, width in ((256, 1024), (256, 8192), (32, 1024)):
        base = measure(sys.executable, "ours", n, width, repeats=arguments.repeats)
        show(f"ntk.two_layer, n = {n}, M = {width}", base)
        if arguments.neural_tangents and n > 32:
            peer = measure(
                arguments.neural_tangents, "neural_tangents", n, width, repeats=arguments.repeats
            )
            show("neural-tangents, structured derivatives", peer, base)
        if n == 32:
            peer = measure(sys.executable, "jacrev", n, width, repeats=1)
            show("torch.func.jacrev and contraction", peer, base)
            assert abs(peer["sum"] / base["sum"] - 1) < 1e-9
    for activation in ("erf", "relu"):
        base = measure(sys.executable, "stacked", activation, repeats=arguments.repeats)
        show(f"drift, 8 widths x 8 seeds x 30 steps, {activation}, stacked", base)
        peer = measure(sys.executable, "looped", activation, repeats=1)
        show("loop over seeds with autograd", peer, base)
        assert abs(peer["sum"] / base["sum"] - 1) < 1e-9
    base = measure(sys.executable, "covariance", 16384, "factored", repeats=arguments.repeats)
    show("pca.eigenspace, n = 96, M = 16384", base)
    peer = measure(sys.executable, "covariance", 16384, "full", repeats=1)
    show("M x M matrix and torch.lobpcg", peer, base)


if __name__ == "__main__":
    main()
