"""What the reference cards say, evaluated: formulas of docstrings against the package's numbers.

Gradients are coded here a second time and compared with autograd; each is tied to the words of the
card, so that neither can change alone.
"""

import hashlib
import itertools
import math
import re

import numpy as np
import pytest
import torch
from scipy import integrate
from torch.utils.flop_counter import FlopCounterMode

import cards
from cltheory import kernels, losses, mercer, method_losses, metrics, optima, sphere, triplets
from latex import formulas, value

CONTRAST = ("info_nce", "nt_xent", "dcl", "dhel")
KERNEL = kernels.gaussian(1.5)
TAU = 0.4


def terms(function, kind="losses"):
    return cards.facts(function, cards.shown(kind)[1]).terms


def kappa(t):
    return float(KERNEL(torch.tensor(float(t), dtype=torch.float64)))


def unit(m, dim, seed=0):
    return sphere.uniform(m, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", cards.Cards.kinds)
def test_every_function_has_a_card(kind):
    functions, names = cards.shown(kind)
    assert {"losses": 16, "kernels": 9, "metrics": 7}[kind] <= len(functions)
    for function in functions:
        card = "\n".join(cards.card(function, names))
        assert (
            f"(card-{function.__module__.removeprefix('cltheory.')}.{function.__name__})=" in card
        )
        assert all(f"\n{name}\n    " in card for name in (*names, "Function", "Claims"))


def check_contrast(name, text):
    """Candidates, collapsed value, least value and limit of a card, against the package."""
    for m, dim, tau in ((2, 2, 0.4), (4, 3, 0.7), (9, 12, 1.3)):
        letters = {"M": m, "d": dim, "tau": tau, "m": m / ((m - 1) * tau)}
        count, alike = formulas(text["Candidates"])[:2]
        assert value(count, **letters) == optima.candidates(name, m)
        assert value(alike, **letters) == pytest.approx(optima.collapsed(name, m))
        least = value(formulas(text["Least value"])[0], **letters)
        assert least == pytest.approx(optima.value(name, m, temperature=tau), rel=1e-12)
        limit, less = formulas(text["Limit"])
        assert value(limit, **letters) == pytest.approx(optima.limit(name, dim, tau), rel=1e-9)
        nearly = {"nt_xent": 2 * m, "dcl": 2 * m}.get(name, optima.candidates(name, m))
        assert value(less, **letters) == pytest.approx(math.log(nearly))


@pytest.mark.parametrize("name", CONTRAST)
def test_candidates_and_values_of_the_contrastive_losses(name):
    check_contrast(name, terms(getattr(losses, name)))


@pytest.mark.parametrize(
    ("name", "term", "right", "wrong"),
    [
        ("nt_xent", "Candidates", "2 M - 1", "2 M"),
        ("nt_xent", "Least value", "1 + 2 (M - 1)", "1 + (M - 1)"),
        ("dhel", "Least value", r"\log(M - 1) - m", r"\log M - m"),
        ("info_nce", "Limit", r"\tfrac d2", r"\tfrac {d + 1} 2"),
        ("dcl", "Limit", r"\log(2 M)", r"\log(M)"),
    ],
)
def test_a_wrong_constant_is_caught(name, term, right, wrong):
    text = dict(terms(getattr(losses, name)))
    assert right in text[term]
    text[term] = text[term].replace(right, wrong)
    with pytest.raises(AssertionError):
        check_contrast(name, text)


def test_values_of_the_kernel_loss():
    text = terms(losses.kcl)
    for m, dim, weight in ((3, 2, 1.0), (5, 6, 16.0)):
        given = {"kernel": KERNEL, "weight": weight}
        letters = {"M": m, "weight": weight, "kappa": kappa, "lambda0": sphere.mean(KERNEL, dim)}
        least = value(formulas(text["Least value"])[0], **letters)
        assert least == pytest.approx(optima.value("kcl", m, **given))
        alike = value(formulas(text["Candidates"])[1], **letters)
        assert alike == pytest.approx(optima.collapsed("kcl", m, **given))
        limit = value(formulas(text["Limit"])[0], **letters)
        assert limit == pytest.approx(optima.limit("kcl", dim, **given))


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("generalised_nt_xent", {"similarity": lambda s: torch.exp(-s / TAU)}),
        ("spectral_contrastive", {}),
        ("negative_cosine", {}),
        ("nce_binary", {"temperature": TAU, "nu": 2.0}),
    ],
)
def test_least_values_are_met_and_collapse_is_as_stated(name, given):
    text, loss = terms(getattr(losses, name)), getattr(losses, name)
    m, dim = 4, 5
    spread = torch.eye(dim, dtype=torch.float64)[:m]
    best = spread if name == "spectral_contrastive" else sphere.simplex(m, dim)
    letters = {"M": m, "d": dim, "tau": TAU, "nu": 2.0, "m": m / ((m - 1) * TAU)}
    least = value(formulas(text["Least value"])[0], **letters)
    assert float(loss(best, best, **given)) == pytest.approx(least, abs=1e-12)
    same = torch.ones(m, 1, dtype=torch.float64)
    alike = value(formulas(text["Candidates"])[-1], **letters)
    assert float(loss(same, same, **given)) == pytest.approx(alike, abs=1e-12)
    for seed in range(20):
        z = unit(m, dim, seed)
        assert float(loss(z, z, **given)) >= least - 1e-12


def test_the_generalised_loss_is_least_at_the_simplex():
    from cltheory import minimise

    def loss(views):
        return losses.generalised_nt_xent(*views, similarity=lambda s: torch.exp(-s / TAU))

    letters = {"M": 4, "m": 4 / (3 * TAU)}
    least = value(formulas(terms(losses.generalised_nt_xent)["Least value"])[0], **letters)
    found = minimise.on_spheres(
        loss, (2, 4), 3, starts=4, generator=torch.Generator().manual_seed(0)
    )
    assert found.value == pytest.approx(least, abs=1e-10)


def test_limits_of_the_losses_without_a_denominator():
    dim = 5
    every = {"d": dim, "tau": TAU, "mu": 25.0, "varepsilon": 1e-4}

    def limit(name):
        return value(formulas(terms(getattr(losses, name))["Limit"])[0], **every)

    assert limit("spectral_contrastive") == pytest.approx(-2 + sphere.mean(torch.square, dim))
    share = sphere.mean(lambda t: torch.exp((t - 1) / TAU), dim)
    assert limit("generalised_nt_xent") == pytest.approx(math.log1p(share))
    many = sphere.cross_polytope(dim).repeat(5000, 1)  # a uniform covariance
    assert limit("vicreg") == pytest.approx(float(losses.vicreg(many, many)), rel=1e-4)
    assert float(losses.barlow_twins(many, many)) == pytest.approx(limit("barlow_twins"), abs=1e-12)


def mean_logarithm(own, scale, count):
    """E log(own + sum of count terms scale e^(t/tau)) in R^3, where t is uniform."""
    t, weights = np.polynomial.legendre.leggauss(60)
    z = np.exp(np.arange(-40, 8, 0.2))  # in log z the plain trapezoid rule converges fast
    laplace = np.exp(-z[:, None] * scale * np.exp(t / TAU)) @ weights / 2
    return integrate.trapezoid(np.exp(-z) - np.exp(-z * own) * laplace**count, dx=0.2)


@pytest.mark.parametrize("name", [*CONTRAST, "generalised_nt_xent"])
def test_batch_bias_of_uniform_pairs(name):
    dim, m = 3, 2000
    positive, scale = math.exp(1 / TAU), 2.0 if name in ("nt_xent", "dcl") else 1.0
    own = {"dcl": 0.0, "dhel": 0.0}.get(name, positive)
    if name == "generalised_nt_xent":  # log(1 + share) = log(M e^(1/tau) + sum) - log M - 1/tau
        own = (m + 1) * positive
    count = {"dhel": m - 1}.get(name, m * scale)
    expected = mean_logarithm(own, scale, m - 1) - math.log(count) - 1 / TAU
    text = terms(getattr(losses, name))
    mean = float(sphere.mean(lambda t: torch.exp(t / TAU), dim))
    v = float(sphere.mean(lambda t: torch.exp(2 * t / TAU), dim)) / mean**2 - 1
    letters = {"M": m, "d": dim, "tau": TAU, "a": positive / mean, "v": v, "c": mean / positive}
    limit = value(formulas(text["Limit"])[0], **letters)
    bias = value(formulas(text["Batch bias"])[0], **letters)
    assert m * (expected - limit) == pytest.approx(m * bias, abs=0.02)


def test_batch_bias_of_the_losses_of_columns():
    """Of independent columns: exactly 1/(M - 1), over all signs and over all permutations."""
    m = 4
    stated = [value(formulas(terms(f)["Batch bias"])[1].partition("=")[2], M=m)
              for f in (losses.vicreg, losses.barlow_twins)]  # fmt: skip
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=m)), dtype=torch.float64)
    centred = signs - signs.mean(1, keepdim=True)
    assert float((centred @ centred.T / (m - 1)).square().mean()) == pytest.approx(stated[0])
    x, y = torch.randn(2, m, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x, y = ((z - z.mean()) / (z - z.mean()).norm() for z in (x, y))
    squares = [float(x @ y[list(order)]) ** 2 for order in itertools.permutations(range(m))]
    assert sum(squares) / len(squares) == pytest.approx(stated[1])
    zero = [losses.kcl, losses.nce_binary, losses.spectral_contrastive, losses.negative_cosine]
    assert all(value(formulas(terms(f)["Batch bias"])[0]) == 0 for f in [*zero, triplets.loss])


def softmax(z1, z2, left_out):
    logits = z1 @ z2.T / TAU
    for offset in left_out:
        rows = torch.arange(len(z1))
        logits[rows, (rows + offset) % len(z1)] = -math.inf
    return logits.softmax(1)


def both_views(z1, z2, left_out):
    z, m = torch.cat([z1, z2]), len(z1)
    p = softmax(z, z, left_out)
    by = ((p + p.T) @ z - 2 * z.roll(m, 0)) / (2 * m * TAU)
    return by[:m], by[m:]


def of_info_nce(z1, z2):
    p, m = softmax(z1, z2, ()), len(z1)
    return (p @ z2 - z2) / (m * TAU), (p.T @ z1 - z1) / (m * TAU)


def of_dhel(z1, z2):
    p, m = softmax(z1, z1, (0,)), len(z1)
    return ((p + p.T) @ z1 - z2) / (m * TAU), -z1 / (m * TAU)


def of_kcl(z1, z2, weight=3.0):
    m, slope = len(z1), lambda r2: 3.0 * torch.exp(-1.5 * r2)  # of exp(-1.5 (2 - 2 t)) in t
    apart = slope((z1[:, None] - z1).square().sum(-1))
    pull = slope((z1 - z2).square().sum(-1))[:, None] * (z2 - z1) / m
    push = 2 * weight / (m * (m - 1)) * (apart[..., None] * (z1 - z1[:, None])).sum(1)
    return push - pull, pull


def of_generalised(z1, z2):
    m, gaps = len(z1), z1[:, None] - z2
    half = gaps.square().sum(-1) / 2
    g = torch.exp(-(half - half.diagonal()[:, None]) / TAU)
    share, rate = g.mean(1), -1 / TAU
    outer = 1 / (1 + share)
    by_first = outer[:, None] / m**2 * (g[..., None] * rate * (gaps - (z1 - z2)[:, None])).sum(1)
    own = (outer * share)[:, None] / m * rate * (z1 - z2)
    return by_first, own - (outer[:, None, None] * g[..., None] * rate * gaps).sum(0) / m**2


def of_vicreg(z1, z2):
    m, d = z1.shape

    def spread(z):
        c = torch.cov(z.T)
        root = (c.diagonal() + 1e-4).sqrt()
        off = 2 * 1.0 * (c - torch.diag(c.diagonal()))
        return off + torch.diag(torch.where(root < 1, -25.0 / (2 * root), 0.0))

    pull = 2 * 25.0 / m * (z1 - z2)
    by = [2 / (d * (m - 1)) * (z - z.mean(0)) @ spread(z) for z in (z1, z2)]
    return pull + by[0], by[1] - pull


def of_barlow(z1, z2, weight=5e-3):
    centred = [z - z.mean(0) for z in (z1, z2)]
    n = [z.norm(dim=0) for z in centred]
    u, v = (z / norm for z, norm in zip(centred, n, strict=True))
    c = u.T @ v
    slope = 2 * weight * c
    slope.diagonal().copy_(-2 * (1 - c.diagonal()))

    def through(u, push, norm):
        return (push - u * (u * push).sum(0)) / norm

    return through(u, v @ slope.T, n[0]), through(v, u @ slope, n[1])


def of_cosine(p, t):
    hats = [z / z.norm(dim=1, keepdim=True) for z in (p, t)]
    c = (hats[0] * hats[1]).sum(1, keepdim=True)
    by = [-(hats[1 - k] - c * hats[k]) / (len(p) * z.norm(dim=1, keepdim=True))
          for k, z in enumerate((p, t))]  # fmt: skip
    return by[0], by[1]


def of_nce(z1, z2, nu=2.0):
    m = len(z1)
    pulls = torch.sigmoid(z1 @ z2.T / TAU) * nu / (m - 1)
    pulls.diagonal().copy_(-torch.sigmoid(-(z1 * z2).sum(1) / TAU))
    return pulls @ z2 / (m * TAU), pulls.T @ z1 / (m * TAU)


def of_spectral(z1, z2):
    m, s = len(z1), z1 @ z2.T
    s = s - torch.diag(s.diagonal())
    return 2 / (m * (m - 1)) * s @ z2 - 2 / m * z2, 2 / (m * (m - 1)) * s.T @ z1 - 2 / m * z1


GRADIENTS = {
    "info_nce": (of_info_nce, {"temperature": TAU}, "5d57d961"),
    "nt_xent": (lambda a, b: both_views(a, b, (0,)), {"temperature": TAU}, "392e34bd"),
    "dcl": (lambda a, b: both_views(a, b, (0, len(a))), {"temperature": TAU}, "e632ac7d"),
    "dhel": (of_dhel, {"temperature": TAU}, "af15912e"),
    "kcl": (of_kcl, {"kernel": KERNEL, "weight": 3.0}, "d49c40bc"),
    "generalised_nt_xent": (
        of_generalised,
        {"similarity": lambda s: torch.exp(-s / TAU)},
        "421b6afb",
    ),
    "vicreg": (of_vicreg, {}, "955cab44"),
    "barlow_twins": (of_barlow, {}, "fd48f171"),
    "negative_cosine": (of_cosine, {}, "acee7534"),
    "nce_binary": (of_nce, {"temperature": TAU, "nu": 2.0}, "c902134e"),
    "spectral_contrastive": (of_spectral, {}, "d5374192"),
}


def seal(text):
    """A short hash of the words on a gradient, without their spaces."""
    return hashlib.sha256(re.sub(r"\s", "", text).encode()).hexdigest()[:8]


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_autograd(name):
    closed, given, _ = GRADIENTS[name]
    rng = torch.Generator().manual_seed(3)
    z = [torch.randn(6, 3, dtype=torch.float64, generator=rng).requires_grad_() for _ in range(2)]
    getattr(losses, name)(*z, **given).backward()
    for expected, side in zip(closed(*[x.detach() for x in z]), z, strict=True):
        torch.testing.assert_close(expected, side.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_words_on_a_gradient_are_those_that_were_compared(name):
    now = seal(terms(getattr(losses, name))["Gradient"])
    assert GRADIENTS[name][2] == now, (
        f"the gradient of losses.{name} was edited: edit of_... above likewise, then put {now!r}"
    )


def test_the_triplet_loss():
    rows, text = triplets.disjoint(2), terms(triplets.loss)
    f = torch.tensor([[1.0, 0], [2, 0], [-1, 0], [0, 3], [0, 1], [0, -2]], dtype=torch.float64)
    linear, soft = formulas(text["Least value"])
    for kind, stated in (("linear", linear), ("softmax", soft)):
        least = float(triplets.loss(f, rows, kind=kind))
        assert least == pytest.approx(value(stated))
        for seed in range(20):
            assert float(triplets.loss(unit(6, 3, seed), rows, kind=kind)) >= least


def one_hot(labels):
    return torch.nn.functional.one_hot(labels).to(torch.float64)


def of_moco(q, k, queue):
    shares = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1).div(TAU).softmax(1)
    return (shares[:, 1:] @ queue - (1 - shares[:, :1]) * k) / (len(q) * TAU)


def of_swav(z1, z2, c):
    share = (z1 @ c.T / TAU).softmax(1)
    aim = torch.exp(z2 @ c.T / 0.05)
    for _ in range(3):
        aim = aim / aim.sum(0)
        aim = aim / aim.sum(1, keepdim=True)
    return (share - aim) @ c / (2 * len(z1) * TAU)


def of_siglip(z1, z2, bias):
    pulls = torch.sigmoid(z1 @ z2.T / TAU - bias)
    pulls.diagonal().copy_(-torch.sigmoid(bias - (z1 * z2).sum(1) / TAU))
    return pulls @ z2 / (len(z1) * TAU)


def of_supcon(z, labels):
    p, hot = softmax(z, z, (0,)), one_hot(labels)
    mates = hot @ hot.T - torch.eye(len(z), dtype=z.dtype)
    pull = 2 * mates / mates.sum(1, keepdim=True)
    return (p + p.T - pull) @ z / (len(z) * TAU)


RNG = torch.Generator().manual_seed(4)
QUEUE = torch.randn(5, 3, dtype=torch.float64, generator=RNG)
LABELS = torch.tensor([0, 1, 0, 2, 2, 1])
OF_METHODS = {
    "moco": (
        lambda a, b: method_losses.moco(a, b, queue=QUEUE, temperature=TAU),
        lambda a, b: of_moco(a, b, QUEUE),
        "c75b2b0f",
    ),
    "swav": (
        lambda a, b: method_losses.swav(a, b, prototypes=QUEUE, temperature=TAU),
        lambda a, b: of_swav(a, b, QUEUE),
        "c3bd29b9",
    ),
    "siglip": (
        lambda a, b: method_losses.siglip(a, b, temperature=TAU, bias=0.7),
        lambda a, b: of_siglip(a, b, 0.7),
        "2893d72b",
    ),
    "supcon": (
        lambda a, _: method_losses.supcon(a, LABELS, temperature=TAU),
        lambda a, _: of_supcon(a, LABELS),
        "8144f75f",
    ),
}


@pytest.mark.parametrize("name", OF_METHODS)
def test_gradients_of_the_losses_of_methods(name):
    loss, closed, stands = OF_METHODS[name]
    a, b = 0.3 * torch.randn(2, 6, 3, dtype=torch.float64, generator=RNG)
    a.requires_grad_()
    loss(a, b).backward()
    torch.testing.assert_close(closed(a.detach(), b), a.grad, rtol=1e-9, atol=1e-12)
    now = seal(terms(getattr(method_losses, name))["Gradient"])
    assert stands == now, f"the gradient of {name} was edited: edit of_{name}, then put {now!r}"


def test_values_of_moco():
    text, (k, dim, m) = terms(method_losses.moco), (7, 3, 2000)
    u = unit(1, dim)
    given = {"temperature": TAU}
    letters = {"K": k, "M": m, "d": dim, "tau": TAU}
    count, alike = formulas(text["Candidates"])[:2]
    assert value(count, **letters) == k + 1
    same = float(method_losses.moco(u, u, queue=u.repeat(k, 1), **given))
    assert same == pytest.approx(value(alike, **letters))
    least = value(formulas(text["Least value"])[0], **letters)
    assert float(method_losses.moco(u, u, queue=-u.repeat(k, 1), **given)) == pytest.approx(least)
    positive, mean = math.exp(1 / TAU), float(sphere.mean(lambda t: torch.exp(t / TAU), dim))
    v = float(sphere.mean(lambda t: torch.exp(2 * t / TAU), dim)) / mean**2 - 1
    expected = mean_logarithm(positive, 1.0, m) - math.log(m + 1) - 1 / TAU
    limit = value(formulas(text["Limit"])[0], C=mean, **letters)
    bias = value(formulas(text["Batch bias"])[0], K=m, a=positive / mean, v=v)
    assert m * (expected - limit) == pytest.approx(m * bias, abs=0.02)


def test_values_of_swav():
    text, k = terms(method_losses.swav), 4
    c = sphere.simplex(k, 5)
    letters = {"K": k, "tau": TAU}
    z = c.repeat(3, 1)
    hard = float(method_losses.swav(z, z, prototypes=c, temperature=TAU, eps=1e-3))
    assert hard == pytest.approx(value(formulas(text["Least value"])[0], **letters))
    u = unit(1, 5).repeat(12, 1)
    alike = value(formulas(text["Candidates"])[0], **letters)
    for seed in range(20):
        some = unit(k, 5, seed)
        assert float(method_losses.swav(u, u, prototypes=some, temperature=TAU)) >= alike - 1e-12
    around = torch.cat([sphere.simplex(k, 5)[:, :4], torch.zeros(k, 1)], 1)  # all at a right angle
    north = torch.tensor([[0.0, 0, 0, 0, 1]], dtype=torch.float64).repeat(12, 1)
    flat = float(method_losses.swav(north, north, prototypes=around, temperature=TAU))
    assert flat == pytest.approx(alike)


def test_values_of_siglip():
    text, m, bias = terms(method_losses.siglip), 4, 1 / TAU
    letters = {"M": m, "tau": TAU, "b": bias}
    z, u = sphere.simplex(m, 5), unit(1, 5).repeat(m, 1)
    given = {"temperature": TAU, "bias": bias}
    alike = value(formulas(text["Candidates"])[1], **letters)
    assert float(method_losses.siglip(u, u, **given)) == pytest.approx(alike)
    least = value(formulas(text["Least value"])[0], **letters)
    assert float(method_losses.siglip(z, z, **given)) == pytest.approx(least)
    for seed in range(20):
        assert float(method_losses.siglip(unit(m, 5, seed), unit(m, 5, seed + 20), **given)) > least


def test_values_of_supcon():
    text, (k, c) = terms(method_losses.supcon), (4, 3)
    letters = {"K": k, "c": c, "n": k * c, "tau": TAU}
    labels, z = torch.arange(k).repeat(c), sphere.simplex(k, 5).repeat(c, 1)
    alike = value(formulas(text["Candidates"])[1], **letters)
    u = unit(1, 5).repeat(k * c, 1)
    assert float(method_losses.supcon(u, labels, temperature=TAU)) == pytest.approx(alike)
    least = value(formulas(text["Least value"])[0], **letters)
    assert float(method_losses.supcon(z, labels, temperature=TAU)) == pytest.approx(least)
    for seed in range(20):
        some = unit(k * c, 5, seed)
        assert float(method_losses.supcon(some, labels, temperature=TAU)) > least
    many = 10**6
    far = value(formulas(text["Least value"])[0], **{**letters, "c": many}) - math.log(k * many - 1)
    assert far == pytest.approx(value(formulas(text["Limit"])[0], **letters), abs=1e-5)


def test_costs_of_the_losses_of_methods():
    m, dim, k = 2048, 8, 512
    c = unit(k, dim, 7).float()
    labels = torch.arange(m) // 2
    prototypes = c.clone().requires_grad_()
    calls = {
        "moco": lambda a, b: method_losses.moco(a, b.detach(), queue=c, temperature=TAU),
        "swav": lambda a, b: method_losses.swav(a, b, prototypes=prototypes, temperature=TAU),
        "siglip": lambda a, b: method_losses.siglip(a, b, temperature=TAU, bias=2.0),
        "supcon": lambda a, _: method_losses.supcon(a, labels, temperature=TAU),
    }
    for name, loss in calls.items():
        stated = formulas(terms(getattr(method_losses, name))["Cost"])[0]
        counted = operations(loss, m, dim, {})
        assert counted == pytest.approx(value(stated, M=m, d=dim, K=k, n=m), rel=0.13), name


COSTS = {
    "info_nce": [{"temperature": TAU}, {"temperature": TAU, "symmetric": True}],
    "nt_xent": [{"temperature": TAU}],
    "dcl": [{"temperature": TAU}, {"temperature": TAU, "negatives": "other"}],
    "dhel": [{"temperature": TAU}, {"temperature": TAU, "symmetric": True}],
    "kcl": [
        {"kernel": KERNEL, "weight": 1.0},
        {"kernel": KERNEL, "weight": 1.0, "symmetric": True},
    ],
    "nce_binary": [{"temperature": TAU}],
    "vicreg": [{}],
    "barlow_twins": [{}],
    "spectral_contrastive": [{}],
}


def operations(loss, m, dim, given):
    """Count the operations of matrix products in a loss and its gradient."""
    in_place = {torch.ops.aten.addmm_: lambda c, a, b, out_shape=None, **_: 2 * math.prod(a) * b[1]}
    z = [unit(m, dim, seed).float().requires_grad_() for seed in range(2)]
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        loss(*z, **given).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", COSTS)
def test_costs_are_counted(name):
    """Up to an eighth: the tiles on the diagonal of a symmetric matrix are whole."""
    loss, m, dim = getattr(losses, name), 2048, 8
    stated = [f for f in formulas(terms(loss)["Cost"]) if re.match(r"\d", f)]
    for given, formula in zip(COSTS[name], stated, strict=False):
        counted = operations(loss, m, dim, given)
        assert counted == pytest.approx(value(formula, M=m, d=dim), rel=0.13)


PROFILES = {
    "gaussian": kernels.gaussian(1.5),
    "logarithmic": kernels.logarithmic(1.5),
    "inverse_multiquadric": kernels.inverse_multiquadric(0.7),
    "exponential": kernels.exponential(0.5),
}


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("dim", [3, 6])
def test_signs_of_the_profiles(name, dim):
    text = terms(getattr(kernels, name), "kernels")
    first = int(
        re.search(r"ositive for every :math:`\\ell \\ge (\d)`", text["Gegenbauer signs"])[1]
    )
    eigenvalues = mercer.funk_hecke(PROFILES[name], dim, 6).eigenvalues
    assert (eigenvalues[first:] > 0).all()
    assert (eigenvalues[:first] < 0).all()
    assert text["Positive semidefinite"].startswith("Yes") == (first == 0)


def test_signs_of_the_powers_and_the_polynomials():
    dim = 5
    for s, least in ((1.0, 0), (3.0, 0), (-0.5, 1), (-1.5, 1)):
        eigenvalues = mercer.funk_hecke(kernels.riesz(s), dim, 3).eigenvalues
        assert (eigenvalues[least:] > 0).all(), s
        assert (eigenvalues[:least] < 0).all(), s
    assert mercer.funk_hecke(kernels.riesz(-3.0), dim, 3).eigenvalues[2] < 0
    square = mercer.funk_hecke(kernels.riesz(-2.0), dim, 4).eigenvalues
    assert square[1] > 0
    assert square[2:].abs().max() < 1e-12
    for offset, zero in ((1.0, []), (0.0, [1, 3])):
        eigenvalues = mercer.funk_hecke(lambda t, c=offset: (t + c) ** 4, dim, 6).eigenvalues
        assert eigenvalues[5:].abs().max() < 1e-12
        assert [k for k in range(5) if eigenvalues[k] < 1e-12] == zero
    linear = mercer.funk_hecke(lambda t: t, dim, 2).eigenvalues
    assert float(linear[1]) == pytest.approx(value(r"\frac 1 d", d=dim))


@pytest.mark.parametrize("dim", [3, 7])
def test_bandwidths(dim):
    near = {"gaussian": 1 / math.sqrt(3), "inverse_multiquadric": 0.7}
    for name, r in near.items():
        stated = formulas(terms(getattr(kernels, name), "kernels")["Bandwidth"])[1]
        t = torch.tensor(1 - r * r / 2, dtype=torch.float64)
        assert float(PROFILES[name](t)) == pytest.approx(value(stated))
    x = unit(4, dim)
    width = 0.8
    a = value(formulas(terms(kernels.rbf, "kernels")["Gegenbauer signs"])[1].partition("=")[2],
              bandwidth=width)  # fmt: skip
    torch.testing.assert_close(
        kernels.rbf(width)(x, x), kernels.gaussian(a)((x @ x.T).clamp(max=1))
    )


def test_values_of_the_metrics():
    n, dim, t = 4, 3, 2.0
    simplex = sphere.simplex(n, dim)
    letters = {"n": n, "d": dim, "t": t, "kappa": kappa, "lambda0": sphere.mean(KERNEL, dim)}

    def stated(metric, term, which=0):
        return value(formulas(terms(metric, "metrics")[term])[which], **letters)

    found = {
        metrics.alignment: metrics.alignment(simplex, simplex),
        metrics.invariance: metrics.invariance(simplex, simplex),
        metrics.uniformity: metrics.uniformity(simplex, t),
        metrics.mmd: metrics.mmd(simplex, KERNEL),
        metrics.effective_rank: metrics.effective_rank(simplex),
    }
    for metric, number in found.items():
        assert float(number) == pytest.approx(stated(metric, "Regular simplex"), abs=1e-9)
    distance = metrics.wasserstein_uniformity(simplex)
    assert distance == pytest.approx(stated(metrics.wasserstein_uniformity, "Regular simplex", 1))

    labels = torch.arange(n).repeat(3)
    probe = metrics.linear_probe(simplex.repeat(3, 1), labels, simplex, labels[:n])
    assert probe == stated(metrics.linear_probe, "Regular simplex")

    cloud, other = unit(4000, dim, 1), unit(4000, dim, 2)
    assert float(metrics.uniformity(cloud, t)) == pytest.approx(
        stated(metrics.uniformity, "Uniform law"), abs=5e-3
    )
    assert float(metrics.effective_rank(cloud)) == pytest.approx(
        stated(metrics.effective_rank, "Uniform law"), abs=5e-3
    )
    assert float(metrics.mmd(cloud, KERNEL)) == pytest.approx(
        stated(metrics.mmd, "Uniform law"), abs=5e-3
    )
    assert float(metrics.alignment(cloud, other)) == pytest.approx(
        stated(metrics.alignment, "Uniform law", 1), abs=0.1
    )
    poles = torch.tensor([[0, 0, 1.0], [0, 0, -1.0]], dtype=torch.float64)
    assert float(metrics.uniformity(poles, t)) == pytest.approx(stated(metrics.uniformity, "Range"))
    ends = (stated(metrics.mmd, "Range", k) for k in (0, 1))
    for z, end in zip((poles, poles[[0, 0]]), ends, strict=True):
        assert float(metrics.mmd(z, KERNEL)) == pytest.approx(end)


def documented(text):
    def loss():
        pass

    loss.__doc__ = text
    return loss


GOOD = """One line.

    .. math:: \\frac{a}{b}

    Notes
    -----
    Range
        From :math:`a` to `b` [1]_, see :func:`cltheory.losses.kcl`.
    Regular simplex
        0
    Uniform law
        1

    Examples
    --------
    >>> 1
    """


def test_a_docstring_is_read():
    found = cards.facts(documented(GOOD), cards.METRIC)
    assert found.summary == "One line."
    assert found.formula == ".. math:: \\frac{a}{b}"
    assert found.terms["Range"] == "From :math:`a` to ``b``, see ``cltheory.losses.kcl``."
    assert found.terms["Uniform law"] == "1"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Range\n", "Rang\n", "they should be Range, Regular simplex, Uniform law"),
        ("    Uniform law\n        1\n", "", "they should be"),
        ("        0\n", "", "each with a text"),
        ("    Notes\n    -----\n", "", "were none"),
        (r"\frac{a}{b}", r"\frac{a}{b", "a formula of"),
        (":math:`a`", r":math:`\Bigl(a\Bigr)\Bigl(`", "a formula of"),
    ],
)
def test_a_docstring_that_does_not_parse_is_named_with_what_mends_it(old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=message) as error:
        cards.facts(documented(GOOD.replace(old, new)), cards.METRIC)
    assert "make book" in str(error.value)
