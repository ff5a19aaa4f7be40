"""Contrastive losses with their gradients, beside what a user would pick instead.

Unit rows of 128 dimensions, float32, one thread; the peers need `pip install -e '.[peers]'`, and
one that is missing gets a dash. Each figure is a median over fresh processes, so that peak memory
is that of the loss: what was held at most beyond the features. `ratio` is the time of the peer over
ours. `share` is the part reached of the rate of a large matrix product, counting the operations of
each loss: 4 N^2 d of NT-Xent with N = 2B rows, 6 B^2 d of InfoNCE. The last columns are relative
errors of value and gradient at temperature 0.01 with nearly aligned pairs, at most 2,048 of them,
against float64. The spectral peer is the B x B form of the original code.

Run `python benchmarks/losses.py`; `--device cuda` goes to larger batches.
"""

import argparse
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional

from cltheory import losses

DIM = 128
TEMPERATURE = 0.1


def masked(z1, z2, temperature):
    """NT-Xent in plain torch: one logsumexp over the 2B x 2B matrix."""
    z = torch.cat([z1, z2])
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -math.inf)
    positives = (z1 * z2).sum(1).repeat(2) / temperature
    return (logits.logsumexp(1) - positives).mean()


def cross_entropy(z1, z2, temperature):
    """InfoNCE in plain torch."""
    labels = torch.arange(len(z1), device=z1.device)
    return functional.cross_entropy(z1 @ z2.T / temperature, labels)


def square(z1, z2, temperature):
    """Spectral loss by the B x B matrix."""
    m = len(z1)
    squares = (z1 @ z2.T) ** 2
    off = squares * (1 - torch.eye(m, device=z1.device))
    return -2 * (z1 * z2).mean() * z1.shape[1] + off.sum() / (m * (m - 1))


def lightly(z1, z2, temperature):
    from lightly.loss import NTXentLoss

    return NTXentLoss(temperature)(z1, z2)


def info_nce_pytorch(z1, z2, temperature):
    from info_nce import InfoNCE

    return InfoNCE(temperature)(z1, z2)


def spectral(z1, z2, temperature):
    return losses.spectral_contrastive(z1, z2)


ENGINES = {
    "nt_xent": {
        "cltheory": lambda z1, z2, t: losses.nt_xent(z1, z2, temperature=t),
        "lightly": lightly,
        "plain torch": masked,
    },
    "info_nce": {
        "cltheory": lambda z1, z2, t: losses.info_nce(z1, z2, temperature=t),
        "info-nce-pytorch": info_nce_pytorch,
        "plain torch": cross_entropy,
    },
    "spectral_contrastive": {"cltheory": spectral, "plain torch": square},
}
OPERATIONS = {"nt_xent": 16, "info_nce": 6}


def views(batch, device, dtype=torch.float32, noise=0.3):
    rng = torch.Generator().manual_seed(0)
    z1 = functional.normalize(torch.randn(batch, DIM, generator=rng), dim=1)
    z2 = z1 + noise / DIM**0.5 * torch.randn(batch, DIM, generator=rng)
    return [z.to(device, dtype).requires_grad_() for z in (z1, functional.normalize(z2, dim=1))]


def value_and_gradient(loss, z1, z2, temperature):
    value = loss(z1, z2, temperature)
    return value.detach(), torch.cat(torch.autograd.grad(value, (z1, z2)))


def peak(device):
    """Peak memory of this process in MiB, on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # on Linux the peak of getrusage starts from that of the parent
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def seconds(call, device):
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def run(name, engine, batch, device):
    torch.set_num_threads(1)
    loss = ENGINES[name][engine]
    try:  # the first call of a library loads more of it, which is not the memory of the method
        value_and_gradient(loss, *views(96, device), TEMPERATURE)
    except ImportError:
        return {}
    z1, z2 = views(batch, device)
    gc.collect()
    before = peak(device)
    took = [seconds(lambda: value_and_gradient(loss, z1, z2, TEMPERATURE), device)]
    memory = peak(device) - before
    # The first call is slower than the rest.
    while sum(took) < 0.3 or (len(took) < 3 and took[0] < 2):
        took.append(seconds(lambda: value_and_gradient(loss, z1, z2, TEMPERATURE), device))
    return {"seconds": statistics.median(took), "MiB": memory}


def rate(device):
    """Floating-point operations a second of a large matrix product."""
    torch.set_num_threads(1)
    a, b = torch.randn(2, 4096, 4096, device=device)
    return {"rate": 2 * 4096**3 / min(seconds(lambda: a @ b, device) for _ in range(5))}


def exact(name, z1, z2, temperature):
    """The loss from the whole matrix in float64, with the positives apart."""
    if name == "spectral_contrastive":
        return square(z1, z2, temperature)
    x, y = (torch.cat([z1, z2]),) * 2 if name == "nt_xent" else (z1, z2)
    logits = x @ y.T / temperature
    m, n = len(z1), len(x)
    own = (z1 * z2).sum(1).repeat(n // m) / temperature
    index = torch.arange(n, device=x.device)
    out = torch.zeros_like(logits, dtype=torch.bool)
    for column in {"nt_xent": (index, (index + m) % n), "info_nce": (index,)}[name]:
        out[index, column] = True
    return functional.softplus(logits.masked_fill(out, -math.inf).logsumexp(1) - own).mean()


def errors(name, engine, batch, device):
    """Relative errors of value and gradient at a low temperature."""
    torch.set_num_threads(1)
    try:
        ours = value_and_gradient(ENGINES[name][engine], *views(batch, device, noise=0.01), 0.01)
    except ImportError:
        return {}
    z1, z2 = (z.detach().double().requires_grad_() for z in views(batch, device, noise=0.01))
    value, gradient = value_and_gradient(lambda *z: exact(name, *z), z1, z2, 0.01)
    return {
        "value": float((ours[0].double() - value).abs() / value.abs()),
        "gradient": float((ours[1].double() - gradient).norm() / gradient.norm()),
    }


def measure(task, repeats, *arguments):
    """Median of each figure over fresh processes."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", task, *map(str, arguments)]
    results = []
    for _ in range(repeats):
        answer = subprocess.run(
            command, env=os.environ | single, stdout=subprocess.PIPE, text=True, check=True
        )
        results.append(json.loads(answer.stdout.splitlines()[-1]))
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def line(name, engine, batch, device, repeats, ours, gemm):
    """Print the figures of one engine, and return its seconds."""
    found = measure("run", repeats, name, engine, batch, device)
    text = f"{batch:7}  {name:21}{engine:18}"
    if not found:
        print(text + f"{'-':>10}")
        return ours
    ours = ours or found["seconds"]
    text += f"{1e3 * found['seconds']:10.2f}{found['seconds'] / ours:8.2f}{found['MiB']:9.0f}"
    flops = OPERATIONS.get(name, 0) * batch**2 * DIM
    counts = flops and engine == "cltheory" and batch > 256
    text += f"{flops / found['seconds'] / gemm:8.0%}" if counts else " " * 8
    wrong = measure("errors", 1, name, engine, min(batch, 2048), device)
    print(text + f"{wrong['value']:10.0e}{wrong['gradient']:10.0e}", flush=True)
    return ours


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batches", type=int, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, *rest = arguments.child
        if task == "rate":
            print(json.dumps(rate(*rest)))
        else:
            name, engine, batch, device = rest
            print(
                json.dumps({"run": run, "errors": errors}[task](name, engine, int(batch), device))
            )
        return
    device = arguments.device
    default = [64, 256, 4096, 8192] if device == "cpu" else [4096, 16384, 65536]
    gemm = measure("rate", arguments.repeats, device)["rate"]
    print(f"d = {DIM}, float32, {device}; a large product runs at {gemm / 1e9:.0f} Gflop/s")
    print(
        f"{'batch':>7}  {'loss':21}{'':18}{'ms':>10}{'ratio':>8}{'MiB':>9}{'share':>8}"
        f"{'value':>10}{'gradient':>10}"
    )
    for batch in arguments.batches or default:
        for name, engines in ENGINES.items():
            ours = None
            for engine in engines:
                # A matrix of all pairs and its copies fit up to here.
                if batch <= 16384 or engine == "cltheory":
                    ours = line(name, engine, batch, device, arguments.repeats, ours, gemm)


if __name__ == "__main__":
    main()
