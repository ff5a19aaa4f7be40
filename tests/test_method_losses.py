"""Losses of methods against their definitions, in loops, and against their optima."""

import math
from itertools import pairwise

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jvp, vmap
from torch.nn import functional

from cltheory import _tiles, losses, minimise, sinkhorn, sphere
from cltheory.method_losses import moco, siglip, supcon, swav


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def unit(*shape, rng, dtype=torch.float64):
    z = torch.randn(*shape, generator=rng, dtype=torch.float64)
    return functional.normalize(z, dim=-1).to(dtype)


QUEUE = unit(7, 3, rng=torch.Generator().manual_seed(1))
PROTOTYPES = unit(5, 3, rng=torch.Generator().manual_seed(2))
LABELS = torch.tensor([4, -1, 4, -1, -1, 4, 9, 9])

EVERY = {
    "moco": lambda a, b, t=0.5: moco(a, b, queue=QUEUE.to(a.dtype), temperature=t),
    "swav": lambda a, b, t=0.5: swav(a, b, prototypes=PROTOTYPES.to(a.dtype), temperature=t),
    "siglip": lambda a, b, t=0.5: siglip(a, b, temperature=t, bias=1.5),
    "supcon": lambda a, b, t=0.5: supcon(torch.cat([a, b]), LABELS, temperature=t),
}


def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def log_sum_exp(terms):
    top = max(terms)
    return top + math.log(math.fsum(math.exp(term - top) for term in terms))


def dot(x, y):
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def by_loops(name, a, b, t):
    """Each loss from its definition, in Python's floats."""
    a, b, queue, prototypes = (z.double().tolist() for z in (a, b, QUEUE, PROTOTYPES))
    m = len(a)
    if name == "moco":
        terms = []
        for q, k in zip(a, b, strict=True):
            own = dot(q, k) / t
            terms.append(log_sum_exp([own, *(dot(q, n) / t for n in queue)]) - own)
        return math.fsum(terms) / m
    if name == "swav":
        total = 0.0
        for z, other in ((a, b), (b, a)):
            scores = [[dot(row, c) for c in prototypes] for row in other]
            q = [[math.exp(entry / 0.05) for entry in row] for row in scores]
            for _ in range(3):
                sums = [math.fsum(column) for column in zip(*q, strict=True)]
                q = [[entry / s for entry, s in zip(row, sums, strict=True)] for row in q]
                q = [[entry / math.fsum(row) for entry in row] for row in q]
            for row, code in zip(z, q, strict=True):
                logits = [dot(row, c) / t for c in prototypes]
                norm = log_sum_exp(logits)
                total -= math.fsum(w * (s - norm) for w, s in zip(code, logits, strict=True))
        return total / (2 * m)
    if name == "siglip":
        own = [softplus(1.5 - dot(a[i], b[i]) / t) for i in range(m)]
        rest = [softplus(dot(a[i], b[j]) / t - 1.5) for i in range(m) for j in range(m) if i != j]
        return math.fsum(own + rest) / m
    z, labels, n = a + b, LABELS.tolist(), 2 * m
    total = 0.0
    for i in range(n):
        norm = log_sum_exp([dot(z[i], z[j]) / t for j in range(n) if j != i])
        mine = [p for p in range(n) if p != i and labels[p] == labels[i]]
        total += math.fsum(norm - dot(z[i], z[p]) / t for p in mine) / len(mine)
    return total / n


def gradient(loss, *leaves):
    leaves = [z.detach().clone().requires_grad_() for z in leaves]
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0, 1e3])
@pytest.mark.parametrize("name", EVERY)
def test_values_are_those_of_the_definition(rng, name, temperature):
    a, b = unit(4, 3, rng=rng), unit(4, 3, rng=rng)
    value = EVERY[name](a, b, temperature)
    assert value.ndim == 0
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(by_loops(name, a, b, temperature), rel=1e-11)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("name", EVERY)
def test_single_precision(rng, name, temperature):
    a, b = unit(4, 3, rng=rng), unit(4, 3, rng=rng)
    exact = gradient(lambda a, b: EVERY[name](a, b, temperature), a, b)
    single = gradient(lambda a, b: EVERY[name](a, b, temperature), a.float(), b.float())
    assert single[0].dtype == torch.float32
    for one, other in zip(single, exact, strict=True):
        # Units in the last place of the features are worth 6e-8 / temperature in the logits.
        assert float((one - other).norm()) <= 3e-6 / temperature * float(other.norm())


@pytest.mark.parametrize("name", sorted(EVERY.keys() - {"swav"}))  # which keeps its codes fixed
def test_derivatives(rng, name):
    a, b = (unit(4, 3, rng=rng).requires_grad_() for _ in "12")
    assert gradcheck(EVERY[name], (a, b), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(EVERY[name], (a, b))


@pytest.mark.parametrize("name", EVERY)
def test_transforms(rng, name):
    a, b = unit(4, 3, rng=rng), unit(4, 3, rng=rng)

    def loss(a):
        return EVERY[name](a, b)

    slope = gradient(EVERY[name], a, b)[1]
    torch.testing.assert_close(grad(loss)(a), slope)
    torch.testing.assert_close(jvp(loss, (a,), (b,))[1], (slope * b).sum())
    batch = torch.stack([a, b])
    torch.testing.assert_close(vmap(loss)(batch), torch.stack([loss(z) for z in batch]))
    torch.testing.assert_close(vmap(grad(loss))(batch), torch.stack([grad(loss)(z) for z in batch]))
    torch.testing.assert_close(hessian(loss)(a), torch.autograd.functional.hessian(loss, a))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_converted_to_single(rng, name, dtype):
    a, b = (unit(4, 3, rng=rng, dtype=dtype) for _ in "12")
    value = EVERY[name](a, b)
    assert value.dtype == torch.float32
    singles = {
        "moco": lambda: moco(a.float(), b.float(), queue=QUEUE.to(dtype).float(), temperature=0.5),
        "swav": lambda: swav(
            a.float(), b.float(), prototypes=PROTOTYPES.to(dtype).float(), temperature=0.5
        ),
    }
    expected = singles[name]() if name in singles else EVERY[name](a.float(), b.float())
    torch.testing.assert_close(value, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_where_the_default_device_holds_no_values(rng, name):
    a, b = unit(4, 3, rng=rng), unit(4, 3, rng=rng)
    expected = gradient(EVERY[name], a, b)
    torch.set_default_device("meta")
    try:
        ours = gradient(EVERY[name], a, b)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", EVERY)
def test_tiles_do_not_show(rng, monkeypatch, name):
    a, b = unit(4, 3, rng=rng), unit(4, 3, rng=rng)
    whole = gradient(EVERY[name], a, b)
    monkeypatch.setitem(_tiles.TILE, "cpu", 3)
    monkeypatch.setitem(_tiles.PANEL, "cpu", 1)
    monkeypatch.setattr(_tiles, "PANEL_ROWS", 2)
    monkeypatch.setitem(sinkhorn.BLOCK, "cpu", 1)
    torch.testing.assert_close(gradient(EVERY[name], a, b), whole, rtol=1e-12, atol=1e-15)


# MoCo


def test_moco_is_info_nce_with_the_negatives_of_a_queue(rng):
    """With two anchors, the candidates of each are a queue of one."""
    a, b = unit(2, 3, rng=rng), unit(2, 3, rng=rng)
    parts = [
        moco(a[i : i + 1], b[i : i + 1], queue=b[1 - i][None], temperature=0.3) for i in (0, 1)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), losses.info_nce(a, b, temperature=0.3))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_moco_is_least_where_the_queue_is_antipodal(rng, temperature):
    q = unit(1, 3, rng=rng).repeat(4, 1)
    least = float(moco(q, q, queue=-q[:1].repeat(6, 1), temperature=temperature))
    assert least == pytest.approx(math.log1p(6 * math.exp(-2 / temperature)), rel=1e-12)
    for _ in range(20):
        other = moco(
            unit(4, 3, rng=rng), unit(4, 3, rng=rng), queue=unit(6, 3, rng=rng),
            temperature=temperature,
        )  # fmt: skip
        assert float(other) > least


def test_moco_counts_the_positive_among_its_candidates(rng):
    """Of equal logits the loss is log(K + 1), not log K."""
    q = unit(1, 3, rng=rng).repeat(4, 1)
    value = float(moco(q, q, queue=q.repeat(3, 1), temperature=0.2))
    assert value == pytest.approx(math.log(13), rel=1e-12)


def test_moco_keeps_the_digits_of_a_small_loss(rng):
    q = unit(3, 4, rng=rng, dtype=torch.float32)
    n = -q[:1].repeat(5, 1)
    value = moco(q[:1], q[:1], queue=n, temperature=0.05)
    own = float((q[0].double() * q[0].double()).sum())
    assert 1e-18 < value < 1e-16
    assert float(value) == pytest.approx(math.log1p(5 * math.exp(-2 * own / 0.05)), rel=1e-5)


def test_moco_gives_the_queue_a_gradient_if_it_wants_one(rng):
    a, b = unit(4, 3, rng=rng), unit(4, 3, rng=rng)

    def plain(a, b, n):
        logits = torch.cat([(a * b).sum(1, keepdim=True), a @ n.T], 1) / 0.4
        return functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long))

    ours = gradient(lambda a, b, n: moco(a, b, queue=n, temperature=0.4), a, b, QUEUE)
    torch.testing.assert_close(ours, gradient(plain, a, b, QUEUE))


# SwAV


def test_swav_gives_codes_no_gradient(rng):
    a, b = unit(6, 3, rng=rng), unit(6, 3, rng=rng)
    c = PROTOTYPES.clone().requires_grad_()
    aims = [sinkhorn.codes(z @ PROTOTYPES.T) for z in (b, a)]

    def fixed(a, b, c):
        laws = [(z @ c.T / 0.1).log_softmax(1) for z in (a, b)]
        return -sum((q * p).sum() for q, p in zip(aims, laws, strict=True)) / 12

    ours = gradient(lambda a, b, c: swav(a, b, prototypes=c, temperature=0.1), a, b, c)
    torch.testing.assert_close(ours, gradient(fixed, a, b, c))
    second = hessian(lambda c: swav(a, b, prototypes=c, temperature=0.1))(PROTOTYPES)
    torch.testing.assert_close(second, hessian(lambda c: fixed(a, b, c))(PROTOTYPES))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_swav_at_the_simplex_with_hard_codes(rng, temperature):
    c = sphere.simplex(4, 5)
    z = c.repeat(3, 1)
    value = float(swav(z, z, prototypes=c, temperature=temperature, eps=0.01))
    least = math.log1p(3 * math.exp(-4 / (3 * temperature)))
    assert value == pytest.approx(least, rel=1e-9)
    for _ in range(20):
        moved = functional.normalize(z + 0.1 * unit(12, 5, rng=rng), dim=1)
        turned = functional.normalize(c + 0.1 * unit(4, 5, rng=rng), dim=1)
        assert (
            float(swav(moved, moved, prototypes=turned, temperature=temperature, eps=0.001)) > least
        )


def test_collapse_costs_log_k_with_equal_use_only(rng):
    z = unit(1, 3, rng=rng).repeat(8, 1)
    c = unit(5, 3, rng=rng)
    c[0] = z[0]
    assert float(swav(z, z, prototypes=c, temperature=0.1)) >= math.log(5) - 1e-12
    assert float(swav(z, z, prototypes=c, temperature=0.1, iterations=0)) < 0.3


# SigLIP


def simplex_value(n, t, b):
    return softplus(b - t) + (n - 1) * softplus(-t / (n - 1) - b)


def one_dimensional(n, t, b):
    """The least value over 0 <= s <= 1, and where it is, by sections of a convex function."""

    def value(s):
        return softplus(b - t * (2 * s - 1)) + (n - 1) * softplus(
            t * (-1 + s * (n - 2) / (n - 1)) - b
        )

    low, high = 0.0, 1.0
    for _ in range(200):
        one, two = high - (high - low) * 0.618, low + (high - low) * 0.618
        low, high = (low, two) if value(one) < value(two) else (one, high)
    return value((low + high) / 2), (low + high) / 2


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9, 3.0])
def test_siglip_phases(rng, t):
    """For N = 6 and t = b: antipodal up to 0.35, a simplex from 0.92 on."""
    n, dim = 6, 6
    least, s = one_dimensional(n, t, t)
    assert (s < 1e-6, s > 1 - 1e-6) == (t < 0.346, t > 0.916)
    found = minimise.on_spheres(
        lambda z: siglip(z[0], z[1], temperature=1 / t, bias=t), (2, n), dim, generator=rng
    )
    assert found.value == pytest.approx(least, abs=1e-8)


def test_siglip_at_the_simplex_and_at_the_antipodes(rng):
    z, e = sphere.simplex(6, 5), unit(1, 5, rng=rng).repeat(6, 1)
    value = float(siglip(z, z, temperature=0.1, bias=10.0))
    assert value == pytest.approx(simplex_value(6, 10.0, 10.0), rel=1e-12)
    value = float(siglip(e, -e, temperature=5.0, bias=0.2))
    assert value == pytest.approx(softplus(0.2 + 0.2) + 5 * softplus(-0.2 - 0.2), rel=1e-12)


@pytest.mark.parametrize("bias", [-12.0, -0.3, 0.0, 0.3, 12.0])
def test_siglip_trains_its_temperature_and_bias(rng, bias):
    a, b = unit(5, 3, rng=rng), unit(5, 3, rng=rng)

    def plain(tau, bias):
        logits = a @ b.T / tau - bias
        signs = 2 * torch.eye(5, dtype=torch.float64) - 1
        return -functional.logsigmoid(signs * logits).sum() / 5

    numbers = [torch.tensor(x, dtype=torch.float64) for x in (0.3, bias)]
    ours = gradient(lambda tau, c: siglip(a, b, temperature=tau, bias=c), *numbers)
    torch.testing.assert_close(ours, gradient(plain, *numbers))


def test_siglip_has_the_sign_of_a_threshold(rng):
    """A high one lets no pair pass: positives cost, negatives do not."""
    z = sphere.simplex(4, 3)
    assert float(siglip(z, z, temperature=1.0, bias=50.0)) == pytest.approx(49.0, rel=1e-9)


# SupCon


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_supcon_of_single_samples_is_nt_xent(rng, temperature):
    a, b = unit(6, 3, rng=rng), unit(6, 3, rng=rng)
    labels = torch.arange(6).repeat(2)
    torch.testing.assert_close(
        supcon(torch.cat([a, b]), labels, temperature=temperature),
        losses.nt_xent(a, b, temperature=temperature),
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("k", "c"), [(2, 2), (3, 4), (5, 2)])
def test_supcon_at_the_simplex(rng, k, c, temperature):
    z, labels = sphere.simplex(k, k).repeat(c, 1), torch.arange(k).repeat(c)
    least = math.log(c - 1 + c * (k - 1) * math.exp(-k / ((k - 1) * temperature)))
    assert float(supcon(z, labels, temperature=temperature)) == pytest.approx(least, abs=1e-12)
    for spread in (1e-3, 0.1, 10.0):
        for _ in range(10):
            moved = functional.normalize(z + spread * unit(k * c, k, rng=rng), dim=1)
            assert float(supcon(moved, labels, temperature=temperature)) > least


def test_supcon_takes_any_integers_in_any_order(rng):
    z = unit(8, 3, rng=rng)
    order = torch.randperm(8, generator=rng)
    value = supcon(z, LABELS, temperature=0.5)
    torch.testing.assert_close(supcon(z[order], LABELS[order], temperature=0.5), value)
    renamed = torch.tensor([0, 1, 0, 1, 1, 0, 2, 2], dtype=torch.int32)
    torch.testing.assert_close(supcon(z, renamed, temperature=0.5), value)


# Bad input

GOOD = torch.eye(4, dtype=torch.float64)
GIVEN = {
    moco: {"queries": GOOD, "keys": GOOD, "queue": GOOD, "temperature": 1.0},
    swav: {"z1": GOOD, "z2": GOOD, "prototypes": GOOD, "temperature": 1.0},
    siglip: {"z1": GOOD, "z2": GOOD, "temperature": 1.0, "bias": 0.0},
    supcon: {"z": GOOD, "labels": torch.tensor([0, 0, 1, 1]), "temperature": 1.0},
}


@pytest.mark.parametrize(
    ("loss", "change", "words"),
    [
        (moco, {"queries": GOOD[0]}, "queries must be a matrix with one point a row"),
        (moco, {"keys": GOOD[:3]}, "keys must have one row for each of 4 queries, got 3"),
        (moco, {"keys": GOOD / 0}, "keys must be finite, got 16"),
        (moco, {"queue": GOOD[:0]}, "queue must hold at least 1"),
        (moco, {"queue": GOOD[:, :3]}, "queries and queue must have the same number of columns"),
        (moco, {"queue": GOOD.float()}, "queries and queue must have the same dtype, got"),
        (moco, {"queue": GOOD.to("meta")}, "queries and queue must have the same device, got"),
        (moco, {"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
        (swav, {"z2": GOOD[:3]}, "z2 must have one row for each of 4 of z1, got 3"),
        (swav, {"prototypes": GOOD[:1]}, "prototypes must hold at least two rows, got 1"),
        (swav, {"temperature": -1.0}, "temperature must be a finite number above 0, got -1.0"),
        (swav, {"eps": 0.0}, "eps must be a finite number above 0, got 0.0"),
        (swav, {"iterations": -1}, "iterations must be an integer of at least 0, got -1"),
        (siglip, {"z1": GOOD[:1], "z2": GOOD[:1]}, "as many rows, at least 2, got 1 and 1"),
        (siglip, {"z2": GOOD[:3]}, "z1 and z2 must have as many rows, at least 2, got 4 and 3"),
        (siglip, {"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
        (siglip, {"temperature": math.inf}, "temperature must be a finite number above 0, got inf"),
        (siglip, {"bias": math.nan}, "bias must be a finite number, got nan"),
        (supcon, {"labels": torch.tensor([0, 0, 1])}, r"labels must be integers of shape \(4,\)"),
        (supcon, {"labels": torch.zeros(4)}, "labels must be integers .* got torch.float32"),
        (supcon, {"labels": torch.tensor([0, 0, 0, 7])}, "at least twice, got one row of 7"),
        (supcon, {"temperature": 0.0}, "temperature must be a finite number above 0, got 0.0"),
    ],
)
def test_bad_input(loss, change, words):
    loss(**GIVEN[loss])
    with pytest.raises(ValueError, match=words):
        loss(**{**GIVEN[loss], **change})


def test_memory_of_moco_is_one_matrix(rng):
    """No other tensor of B x K entries is saved for the backward pass or made in it."""
    q, n = unit(8, 3, rng=rng).requires_grad_(), unit(1000, 3, rng=rng)
    made = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.numel() == 8 * 1000:
                made.append(out.untyped_storage().data_ptr())
            return out

    with Watch():
        moco(q, q.detach(), queue=n, temperature=0.1).backward()
    assert len(set(made)) == 1


def test_golden_sections_find_a_phase_between():
    values = [one_dimensional(6, t, t)[1] for t in (0.36, 0.5, 0.9)]
    assert all(a < b for a, b in pairwise(values))
    assert values == pytest.approx([0.062, 0.506, 0.990], abs=1e-3)
