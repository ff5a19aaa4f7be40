"""Losses and steps of the methods, beside what a user would pick instead.

Float32, one thread, in milliseconds of the processor. Both sides of a row run in turn in one
process; `ratio` is the median of the ratios of two runs in a row, peer over ours, so that a busy
machine weighs on both. Losses are timed with their gradients. `MiB` is the peak beyond the inputs,
of ours and the peer's, each in a fresh process. `error` is the largest deviation of float32 codes
from float64 ones.

The peers of Barlow Twins and VICReg need `pip install -e '.[peers]'`; one that is missing gets a
dash. A step is measured against the bare forward and backward pass of its encoder and loss:
`overhead` is the share of time beyond it.

Run `python benchmarks/methods.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from losses import peak
from torch.nn import functional

from cltheory import losses, method_losses, methods, networks, sinkhorn
from cltheory.systems import System


def rng():
    return torch.Generator().manual_seed(0)


def normal(*shape, generator):
    return torch.randn(*shape, generator=generator)


def pair(rows, dim):
    generator = rng()
    z = normal(rows, dim, generator=generator)
    return [(z + normal(rows, dim, generator=generator)).requires_grad_() for _ in "12"]


def unit(*shape, generator):
    return functional.normalize(normal(*shape, generator=generator), dim=1)


def backward(loss, *leaves):
    return lambda: torch.autograd.grad(loss(*leaves), leaves)


def barlow_twins(peer):
    z1, z2 = pair(4096, 512)
    if peer:
        from lightly.loss import BarlowTwinsLoss

        return backward(BarlowTwinsLoss(), z1, z2)
    return backward(losses.barlow_twins, z1, z2)


def vicreg(peer):
    z1, z2 = pair(4096, 512)
    if peer:
        from lightly.loss import VICRegLoss

        return backward(VICRegLoss(), z1, z2)
    return backward(lambda a, b: losses.vicreg(a, b, invariance=25 / 512, variance=12.5), z1, z2)


def moco(peer):
    generator = rng()
    q, k, queue = (unit(n, 128, generator=generator) for n in (256, 256, 65536))
    q.requires_grad_()

    def plain(q):
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.07
        return functional.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long))

    ours = lambda q: method_losses.moco(q, k, queue=queue, temperature=0.07)  # noqa: E731
    return backward(plain if peer else ours, q)


def scores():
    """Of samples near one of the prototypes each, as they are after training."""
    generator = rng()
    prototypes = unit(3000, 128, generator=generator)
    near = prototypes[torch.randint(3000, (4096,), generator=generator)]
    z = near + 0.3 / 128**0.5 * normal(4096, 128, generator=generator)
    return functional.normalize(z, dim=1) @ prototypes.T


def exponentials(scores, eps, iterations=3):
    """The iterations on the matrix of exponentials itself, in place."""
    q = (scores / eps).exp_()
    for _ in range(iterations):
        q /= q.sum(0)
        q /= q.sum(1, keepdim=True)
    return q


def codes(peer):
    s = scores()
    return (lambda: exponentials(s, 0.05)) if peer else (lambda: sinkhorn.codes(s, eps=0.05))


def step(name):
    """A step of a system, and the bare forward and backward pass of the same network and loss."""
    method = {
        "SimCLR": methods.simclr(),
        "BYOL": methods.byol(),
        "MoCo": methods.moco(queue=4096),
    }[name]

    def make(peer):
        generator = rng()
        net = networks.MLP(256, [1024, 1024], 128, generator=generator)
        predictor = networks.MLP(128, [512], 128, generator=generator) if method.predictor else None
        system = System(method, net, predictor=predictor, dim=128, generator=generator)
        x1, x2 = pair(256, 256)
        x1, x2 = x1.detach(), x2.detach()
        weights = [p for p in system.parameters() if p.requires_grad]
        if not peer:
            return lambda: torch.autograd.grad(system.step(x1, x2), weights)

        def simclr():
            z1, z2 = (functional.normalize(net(x), dim=1) for x in (x1, x2))
            return losses.nt_xent(z1, z2, temperature=0.5)

        def byol():
            with torch.no_grad():
                t1, t2 = system.copy.net(x1), system.copy.net(x2)
            one = losses.negative_cosine(predictor(net(x1)), t2)
            return (one + losses.negative_cosine(predictor(net(x2)), t1)) / 2

        def moco():
            with torch.no_grad():
                keys = functional.normalize(system.copy.net(x2), dim=1)
            queries = functional.normalize(net(x1), dim=1)
            return method_losses.moco(queries, keys, queue=system.queue.keys, temperature=0.07)

        bare = {"SimCLR": simclr, "BYOL": byol, "MoCo": moco}[name]
        return lambda: torch.autograd.grad(bare(), weights)

    return make


TASKS = {
    "barlow_twins": barlow_twins,
    "vicreg": vicreg,
    "moco": moco,
    "sinkhorn": codes,
    **{f"step of {name}": step(name) for name in ("SimCLR", "BYOL", "MoCo")},
}


def seconds(call):
    """Time of the processor, which other processes do not enter."""
    began = time.process_time()
    call()
    return time.process_time() - began


def compare(name, turns):
    """Run ours and the peer in turn."""
    sides = [TASKS[name](peer) for peer in (False, True)]
    for call in sides:
        call()
    took = [[seconds(call) for call in sides] for _ in range(turns)]
    ratios = [peer / ours for ours, peer in took]
    return {
        "ours": statistics.median(ours for ours, _ in took),
        "peer": statistics.median(peer for _, peer in took),
        "ratio": statistics.median(ratios),
    }


def memory(name, peer):
    call = TASKS[name](peer == "peer")
    before = peak("cpu")
    call()
    return {"MiB": peak("cpu") - before}


def errors(eps):
    s = scores()
    exact = sinkhorn.codes(s.double(), eps=eps)
    plain = exponentials(s, eps)
    return {
        "ours": float((sinkhorn.codes(s, eps=eps) - exact).abs().max()),
        "peer": float((plain - exact).abs().max()),
    }


def child(task, *arguments):
    """Return what a task finds in a fresh process of one thread; nothing without the peer."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", task, *map(str, arguments)]
    answer = subprocess.run(
        command, env=os.environ | single, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(answer.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        torch.set_num_threads(1)
        task, *rest = arguments.child
        try:
            if task == "compare":
                found = compare(rest[0], int(rest[1]))
            else:
                found = memory(*rest) if task == "memory" else errors(float(rest[0]))
        except ImportError:
            found = {}
        print(json.dumps(found))
        return
    print(
        f"{'':16}{'ms':>9}{'peer, ms':>10}{'ratio':>8}{'MiB':>7}{'peer, MiB':>11}{'overhead':>10}"
    )
    for name in TASKS:
        found = child("compare", name, arguments.turns)
        if not found:
            print(f"{name:16}{'-':>9}")
            continue
        text = (
            f"{name:16}{1e3 * found['ours']:9.1f}{1e3 * found['peer']:10.1f}{found['ratio']:8.2f}"
        )
        if name.startswith("step"):
            text += f"{1 / found['ratio'] - 1:28.1%}"
        else:
            held = [child("memory", name, side)["MiB"] for side in ("ours", "peer")]
            text += f"{held[0]:7.0f}{held[1]:11.0f}"
        print(text, flush=True)
    for eps in (0.05, 0.01):
        found = child("errors", eps)
        print(
            f"codes at eps = {eps}: error {found['ours']:.0e}, of the exponential form "
            f"{found['peer']:.0e}"
        )


if __name__ == "__main__":
    main()
