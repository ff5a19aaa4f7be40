"""The geometry of the optima, timed: uniformity, DHEL and KCL, Wasserstein, the search for optima.

Unit rows of 128 dimensions, float32, one thread. Times are medians over fresh processes, with
gradients where there are any; memory is the peak beyond the features. `ratio` is the time of the
peer over ours: of `uniformity` the peer is its form with `torch.pdist`, of `dhel` and `kcl`, per
pair, it is our NT-Xent on as many rows. `gradient` is the relative error at temperature 0.01 (for
KCL the Gaussian of that temperature, exp(-50 r²), or close pairs), 2,048 rows, against float64; the
plain form of DHEL, a logarithm of a sum of exponentials in float32, is beside it.

Run `python benchmarks/uniformity.py`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from itertools import product

import torch
from losses import peak, seconds, value_and_gradient, views

from cltheory import kernels, losses, metrics, optima, sphere

KERNELS = {
    "gaussian": kernels.gaussian(2.0),
    "logarithmic": kernels.logarithmic(2.0),
    "inverse multiquadric": kernels.inverse_multiquadric(1.0),
    "riesz 1": kernels.riesz(1.0),
    "riesz -1": kernels.riesz(-1.0),
}


def pdist(z):
    return torch.pdist(z).square().mul(-2).exp().mean().log()


def plain_dhel(z1, z2, temperature):
    off = ~torch.eye(len(z1), dtype=torch.bool)
    sums = (z1 @ z1.T / temperature).exp()[off].view(len(z1), -1).sum(1)
    return (sums / ((z1 * z2).sum(1) / temperature).exp()).log().mean()


def kcl(kernel):
    attraction = kernels.gaussian(2.0) if kernel is KERNELS["riesz 1"] else None
    return lambda z1, z2, t: losses.kcl(z1, z2, kernel=kernel, weight=1.0, alignment=attraction)


CALLS = {
    "uniformity": lambda z1, z2, t: metrics.uniformity(z1),
    "uniformity pdist": lambda z1, z2, t: pdist(z1),
    "nt_xent": lambda z1, z2, t: losses.nt_xent(z1, z2, temperature=t),
    "dhel": lambda z1, z2, t: losses.dhel(z1, z2, temperature=t),
    "dhel plain": plain_dhel,
    **{f"kcl {name}": kcl(kernel) for name, kernel in KERNELS.items()},
}


def timed(name, rows):
    z1, z2 = views(rows // 2 if name == "nt_xent" else rows, "cpu")
    call = partial(torch.autograd.grad, allow_unused=True)
    before = peak("cpu")
    took = []
    while sum(took) < 1 or len(took) < 3:
        took.append(seconds(lambda: call(CALLS[name](z1, z2, 0.1), (z1, z2)), "cpu"))
    return {"seconds": statistics.median(took[1:]), "MiB": peak("cpu") - before}


def errors(name):
    """Relative error of the float32 gradient, against a plain form in float64."""
    if name.startswith("dhel"):
        z1, z2 = views(2048, "cpu", noise=0.01)
        ours = value_and_gradient(CALLS[name], z1, z2, 0.01)[1]
        double = [z.detach().double().requires_grad_() for z in (z1, z2)]
        truth = value_and_gradient(exact_dhel, *double, 0.01)[1]
    else:
        kernel = KERNELS[name.removeprefix("kcl ")]
        kernel = kernels.gaussian(50.0) if name == "kcl gaussian" else kernel
        # Each row has a neighbour at a distance of about 1e-3.
        z = torch.cat([half.detach() for half in views(1024, "cpu", noise=1e-3)]).requires_grad_()
        still = kernels.gaussian(1.0)
        energy = losses.kcl(z, z, kernel=kernel, weight=1.0, alignment=still)
        (ours,) = torch.autograd.grad(energy, z)
        double = z.detach().double().requires_grad_()
        mean = kernel.of_square(torch.pdist(double).square()).mean()
        (truth,) = torch.autograd.grad(mean, double)
    return {"gradient": float((ours.double() - truth).norm() / truth.norm())}


def exact_dhel(z1, z2, temperature):
    off = ~torch.eye(len(z1), dtype=torch.bool)
    logits = (z1 @ z1.T / temperature)[off].view(len(z1), -1)
    return (logits.logsumexp(1) - (z1 * z2).sum(1) / temperature).mean()


def wasserstein(points, dim):
    z = sphere.uniform(int(points), int(dim), generator=torch.Generator().manual_seed(0))
    metrics.wasserstein_uniformity(z[:100])
    return {
        "seconds": min(seconds(lambda: metrics.wasserstein_uniformity(z), "cpu") for _ in "123")
    }


def search():
    """Five losses at 40 settings, 16 starts each; the worst distance to the closed forms."""
    sizes = [(2, 2), (3, 2), (3, 4), (4, 3), (5, 4), (5, 8), (8, 8), (9, 8), (8, 16), (16, 16)]
    generator, worst = torch.Generator().manual_seed(0), 0.0
    began = time.perf_counter()
    for (m, dim), temperature in product(sizes, (0.2, 0.5, 1.0, 2.0)):
        for loss in ("info_nce", "nt_xent", "dcl", "dhel", "kcl"):
            options = {"temperature": temperature}
            if loss == "kcl":
                options = {"kernel": kernels.gaussian(0.5 / temperature), "weight": 1.0}
            found = optima.search(loss, m, dim, generator=generator, **options)
            worst = max(worst, abs(found.value - optima.value(loss, m, dim=dim, **options)))
    return {"seconds": time.perf_counter() - began, "worst": worst}


TASKS = {"timed": timed, "errors": errors, "wasserstein": wasserstein, "search": search}


def measure(task, *arguments, repeats=3):
    """Median of each figure over fresh processes of one thread."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--child", task, *map(str, arguments)]
    results = [
        json.loads(
            subprocess.run(
                command, env=os.environ | single, stdout=subprocess.PIPE, text=True, check=True
            ).stdout.splitlines()[-1]
        )
        for _ in range(repeats)
    ]
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, *rest = arguments.child
        torch.set_num_threads(1)
        print(json.dumps(TASKS[task](*(int(a) if a.isdigit() else a for a in rest))))
        return
    print(f"{'rows':>6}  {'':26}{'ms':>9}{'ratio':>8}{'MiB':>8}{'gradient':>11}")
    for rows in (4096, 8192):
        took = {}
        for name in CALLS:
            if name == "dhel plain" and rows > 4096:
                continue
            found = measure("timed", name, rows, repeats=arguments.repeats)
            took[name] = found["seconds"]
            text = f"{rows:6}  {name:26}{1e3 * found['seconds']:9.1f}"
            if name == "uniformity pdist":
                text += f"{took[name] / took['uniformity']:8.2f}"
            elif name.startswith(("dhel", "kcl")):
                text += f"{took['nt_xent'] / took[name]:8.2f}"
            else:
                text += f"{'':8}"
            text += f"{found['MiB']:8.0f}"
            if rows == 4096 and name.startswith(("dhel", "kcl")):
                text += f"{measure('errors', name, repeats=1)['gradient']:11.0e}"
            print(text, flush=True)
    found = measure("wasserstein", 4000, 64)
    print(f"\nwasserstein_uniformity, 4,000 points in 64 dimensions: {found['seconds']:.2f} s")
    found = measure("search", repeats=1)
    print(
        f"optima of five losses at 40 settings, 16 starts: {found['seconds']:.0f} s, "
        f"at most {found['worst']:.0e} from the closed forms"
    )


if __name__ == "__main__":
    main()
