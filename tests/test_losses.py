import math
from functools import partial

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jvp, vmap
from torch.nn import functional

from cltheory import _tiles, blockwise, kernels, losses, sphere

TEMPERATURES = [1e-3, 1e-2, 0.1, 1.0, 1e3]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def views(rng, m=6, dim=3, dtype=torch.float64, noise=0.5):
    z1 = functional.normalize(torch.randn(m, dim, generator=rng, dtype=torch.float64), dim=1)
    z2 = z1 + noise * torch.randn(m, dim, generator=rng, dtype=torch.float64)
    return z1.to(dtype), functional.normalize(z2, dim=1).to(dtype)


def log1p_sum_exp(gaps):
    """log(1 + sum exp(gaps)) of a list, without overflow and without loss of small values."""
    top = max(0.0, max(gaps))
    if top == 0:
        return math.log1p(math.fsum(math.exp(gap) for gap in gaps))
    return top + math.log(math.exp(-top) + math.fsum(math.exp(gap - top) for gap in gaps))


def log_sum_exp(gaps):
    top = max(gaps)
    return top + math.log(math.fsum(math.exp(gap - top) for gap in gaps))


def dot(x, y):
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def by_loops(name, z1, z2, temperature=0.5, nu=1.0):
    """Each loss from its definition, in Python's floats."""
    name = name.removesuffix(" by tiles")
    if name == "symmetric":
        pairs = (z1, z2), (z2, z1)
        return sum(by_loops("info_nce", *pair, temperature) for pair in pairs) / 2
    if not isinstance(z1, list):
        z1, z2 = z1.tolist(), z2.tolist()
    m = len(z1)

    def s(x, y):
        return dot(x, y) / temperature

    if name == "info_nce":
        terms = [
            log1p_sum_exp([s(z1[i], z2[j]) - s(z1[i], z2[i]) for j in range(m) if j != i])
            for i in range(m)
        ]
        return math.fsum(terms) / m
    if name in ("nt_xent", "dcl"):
        z = z1 + z2
        terms = []
        for i in range(2 * m):
            partner = (i + m) % (2 * m)
            gaps = [
                s(z[i], z[j]) - s(z[i], z[partner]) for j in range(2 * m) if j not in (i, partner)
            ]
            terms.append(log_sum_exp(gaps) if name == "dcl" else log1p_sum_exp(gaps))
        return math.fsum(terms) / (2 * m)
    if name == "dhel symmetric":
        return (
            by_loops("dhel", z1, z2, temperature, nu) + by_loops("dhel", z2, z1, temperature, nu)
        ) / 2
    if name == "cross":
        one, two = (
            [[s(x[i], y[j]) - s(x[i], y[i]) for j in range(m) if j != i] for i in range(m)]
            for x, y in ((z1, z2), (z2, z1))
        )
        return math.fsum(map(log_sum_exp, one + two)) / (2 * m)
    if name == "dhel":
        terms = [
            log_sum_exp([s(z1[i], z1[j]) - s(z1[i], z2[i]) for j in range(m) if j != i])
            for i in range(m)
        ]
        return math.fsum(terms) / m
    if name == "nce_binary":
        own = math.fsum(log1p_sum_exp([-s(z1[i], z2[i])]) for i in range(m)) / m
        rest = [log1p_sum_exp([s(z1[i], z2[j])]) for i in range(m) for j in range(m) if i != j]
        return own + nu * math.fsum(rest) / len(rest)
    own = math.fsum(dot(z1[i], z2[i]) for i in range(m)) / m
    rest = [dot(z1[i], z2[j]) ** 2 for i in range(m) for j in range(m) if i != j]
    return -2 * own + math.fsum(rest) / len(rest)


def by_matrices(name, z1, z2, temperature=0.5, nu=1.0):
    """Each loss in float64 from the whole matrix, to be differentiated by PyTorch."""
    name = name.removesuffix(" by tiles")
    m = len(z1)
    if name == "symmetric":
        return (
            by_matrices("info_nce", z1, z2, temperature)
            + by_matrices("info_nce", z2, z1, temperature)
        ) / 2
    if name in ("dhel symmetric", "cross"):
        one = "dhel" if name == "dhel symmetric" else "cross one way"
        return (by_matrices(one, z1, z2, temperature) + by_matrices(one, z2, z1, temperature)) / 2
    if name in ("dhel", "cross one way"):
        logits = torch.einsum("id,jd->ij", z1, z1 if name == "dhel" else z2) / temperature
        off = ~torch.eye(m, dtype=torch.bool)
        return (logits[off].view(m, -1).logsumexp(1) - (z1 * z2).sum(1) / temperature).mean()
    if name in ("nt_xent", "dcl"):
        z = torch.cat([z1, z2])
        partner = torch.arange(2 * m).roll(m)
    else:
        z, partner = z1, torch.arange(m)
    logits = torch.einsum("id,jd->ij", z, z if name in ("nt_xent", "dcl") else z2)
    if name != "spectral_contrastive":
        logits = logits / temperature
    own = logits.gather(1, partner[:, None])
    others = torch.ones_like(logits, dtype=torch.bool).scatter(1, partner[:, None], False)
    if name in ("nt_xent", "dcl"):
        others.fill_diagonal_(False)
    rest = logits[others].view(len(z), -1)
    if name == "spectral_contrastive":
        return -2 * own.mean() + rest.square().mean()
    if name == "nce_binary":
        zero = torch.zeros((), dtype=torch.float64)
        return torch.logaddexp(zero, -own).mean() + nu * torch.logaddexp(zero, rest).mean()
    excess = (rest - own).logsumexp(1)
    if name == "dcl":
        return excess.mean()
    # log1p keeps the digits of small sums, logaddexp does not overflow.
    small = excess.clamp(max=0).exp().log1p()
    return torch.where(excess < 0, small, torch.logaddexp(excess, torch.zeros_like(excess))).mean()


def nt_xent_by_tiles(z1, z2, t=0.5):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "FEW", 0)
        return losses.nt_xent(z1, z2, temperature=t)


LOSSES = {
    "info_nce": lambda z1, z2, t=0.5: losses.info_nce(z1, z2, temperature=t),
    "symmetric": lambda z1, z2, t=0.5: losses.info_nce(z1, z2, temperature=t, symmetric=True),
    "nt_xent": lambda z1, z2, t=0.5: losses.nt_xent(z1, z2, temperature=t),
    "nt_xent by tiles": nt_xent_by_tiles,
    "dcl": lambda z1, z2, t=0.5: losses.dcl(z1, z2, temperature=t),
    "cross": lambda z1, z2, t=0.5: losses.dcl(z1, z2, temperature=t, negatives="other"),
    "dhel": lambda z1, z2, t=0.5: losses.dhel(z1, z2, temperature=t),
    "dhel symmetric": lambda z1, z2, t=0.5: losses.dhel(z1, z2, temperature=t, symmetric=True),
    "nce_binary": lambda z1, z2, t=0.5: losses.nce_binary(z1, z2, temperature=t),
    "spectral_contrastive": lambda z1, z2, t=0.5: losses.spectral_contrastive(z1, z2),
}


KERNELS = {
    "gaussian": kernels.gaussian(2.0),
    "logarithmic": kernels.logarithmic(1.5),
    "inverse multiquadric": kernels.inverse_multiquadric(0.7),
    "riesz": kernels.riesz(-0.5),
    "of inner products": lambda t: t + t**3,
}


def kcl(z1, z2, kernel=KERNELS["gaussian"], **options):
    return losses.kcl(z1, z2, kernel=kernel, weight=3.0, **options)


OTHERS = {
    **{
        f"kcl {name}": lambda z1, z2, kernel=kernel: kcl(z1, z2, kernel)
        for name, kernel in KERNELS.items()
    },
    "kcl symmetric": lambda z1, z2: kcl(z1, z2, symmetric=True),
    "kcl of two kernels": lambda z1, z2: kcl(
        z1, z2, kernels.riesz(1.0), alignment=KERNELS["gaussian"]
    ),
    "generalised": lambda z1, z2: losses.generalised_nt_xent(
        z1, z2, similarity=lambda s: 1 / (1 + s), outer=torch.sqrt
    ),
    "vicreg": losses.vicreg,
    "barlow_twins": losses.barlow_twins,
    "negative_cosine": losses.negative_cosine,
}
EVERY = {**LOSSES, **OTHERS}


def reference(name, z1, z2, temperature=0.5):
    """Value and gradients in float64, by matrices."""
    return gradient(lambda a, b: by_matrices(name, a, b, temperature), z1.double(), z2.double())


def gradient(loss, z1, z2):
    z1, z2 = (z.detach().clone().requires_grad_() for z in (z1, z2))
    value = loss(z1, z2)
    return value.detach(), *torch.autograd.grad(value, (z1, z2))


def assert_same(ours, expected, rtol):
    """Values, and gradients relative to the norm of the expected one."""
    torch.testing.assert_close(ours[0].double(), expected[0], rtol=rtol, atol=0)
    for one, other in zip(ours[1:], expected[1:], strict=True):
        assert float((one.double() - other).norm()) <= rtol * float(other.norm())


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_definition(rng, name, temperature):
    z1, z2 = views(rng, 7)
    value = LOSSES[name](z1, z2, temperature)
    assert value.ndim == 0
    expected = by_loops(name, z1, z2, temperature)
    assert float(value) == pytest.approx(expected, rel=1e-11, abs=1e-300)


@pytest.mark.parametrize("dim", [1, 2, 5, 40])
@pytest.mark.parametrize("m", [2, 3, 17])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_for_every_size(rng, monkeypatch, name, m, dim):
    monkeypatch.setitem(_tiles.TILE, "cpu", 5)
    monkeypatch.setitem(_tiles.PANEL, "cpu", 1)
    monkeypatch.setattr(_tiles, "PANEL_ROWS", 3)
    z1, z2 = (torch.randn(m, dim, generator=rng, dtype=torch.float64) for _ in range(2))
    assert_same(gradient(LOSSES[name], z1, z2), reference(name, z1, z2), 1e-12)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("noise", [0.0, 1e-3, 3.0])
@pytest.mark.parametrize("name", LOSSES)
def test_single_precision_at_every_temperature(rng, name, noise, temperature):
    z1, z2 = views(rng, 40, 16, torch.float32, noise)
    expected = reference(name, z1, z2, temperature)
    ours = gradient(lambda a, b: LOSSES[name](a, b, temperature), z1, z2)
    if expected[0].abs() < 1e-30:  # below the range of float32, but for its last digits
        assert ours[0] < 2e-30
    else:
        assert_same(ours, expected, 1e-5)


@pytest.mark.parametrize("name", ["info_nce", "symmetric", "nt_xent"])
def test_aligned_pairs_at_a_low_temperature(rng, name):
    z1, z2 = views(rng, 300, 128, torch.float32, noise=1e-3)
    expected = reference(name, z1, z2, 0.01)
    assert 1e-32 < expected[0] < 1e-18
    assert_same(gradient(lambda a, b: LOSSES[name](a, b, 0.01), z1, z2), expected, 1e-5)


@pytest.mark.parametrize("scale", [1e-15, 1e-4, 30.0, 1e5])
@pytest.mark.parametrize("name", LOSSES)
def test_huge_and_tiny_norms(rng, name, scale):
    z1, z2 = (scale * z for z in views(rng, 9, dtype=torch.float32))
    assert_same(gradient(LOSSES[name], z1, z2), reference(name, z1, z2), 1e-5)


@pytest.mark.parametrize("temperature", [0.01, 1.0])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", ["duplicates", "antipodes", "zero", "opposite views"])
def test_special_positions(rng, case, name, temperature):
    z1, z2 = views(rng, 8, dtype=torch.float32)
    if case == "duplicates":
        z1, z2 = z1[:1].repeat(8, 1), z1[:1].repeat(8, 1)
    if case == "antipodes":
        z1, z2 = (torch.cat([z[:4], -z[:4]]) for z in (z1, z2))
    if case == "zero":
        z1[3], z2[3], z2[5] = 0, 0, 0
    if case == "opposite views":
        z2 = -z1
    expected = reference(name, z1, z2, temperature)
    ours = gradient(lambda a, b: LOSSES[name](a, b, temperature), z1, z2)
    torch.testing.assert_close(ours[0].double(), expected[0], rtol=1e-5, atol=0)
    for one, other in zip(ours[1:], expected[1:], strict=True):
        # Of duplicates the gradient is zero, by terms of the size of 1 / temperature that cancel.
        torch.testing.assert_close(one.double(), other, rtol=0, atol=1e-6 / temperature)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
@pytest.mark.parametrize(("m", "dim"), [(2, 1), (2, 5), (3, 2), (6, 5), (6, 9)])
def test_values_at_the_simplex(m, dim, temperature):
    z = sphere.simplex(m, dim)
    decay = math.exp(-m / ((m - 1) * temperature))
    assert float(losses.info_nce(z, z, temperature=temperature)) == pytest.approx(
        math.log1p((m - 1) * decay), rel=1e-12
    )
    assert float(losses.nt_xent(z, z, temperature=temperature)) == pytest.approx(
        math.log1p(2 * (m - 1) * decay), rel=1e-12
    )
    assert float(losses.dcl(z, z, temperature=temperature)) == pytest.approx(
        math.log(2 * (m - 1)) - m / ((m - 1) * temperature), rel=1e-12
    )
    value = losses.nce_binary(z, z, temperature=temperature, nu=0.7)
    expected = math.log1p(math.exp(-1 / temperature)) + 0.7 * math.log1p(
        math.exp(-1 / ((m - 1) * temperature))
    )
    assert float(value) == pytest.approx(expected, rel=1e-12)
    basis = torch.eye(m, dtype=torch.float64)
    assert float(losses.spectral_contrastive(basis, basis)) == pytest.approx(-2, rel=1e-12)


@pytest.mark.parametrize("name", ["info_nce", "symmetric", "nt_xent", "dcl", "nce_binary"])
def test_no_unit_rows_are_below_the_simplex(rng, name):
    z = sphere.simplex(5, 4)
    least = float(LOSSES[name](z, z))
    for spread in (1e-3, 1e-2, 0.1, 1.0, 10.0):
        for _ in range(20):
            one, two = (
                functional.normalize(z + spread * torch.randn(5, 4, generator=rng), dim=1)
                for _ in range(2)
            )
            if name == "nce_binary":
                two = one
            assert float(LOSSES[name](one, two)) >= least - 1e-12


def test_views_that_differ_are_below_the_simplex_in_binary_estimation():
    # A component u in one view and -u in the other costs the positives and serves the others.
    z, u = sphere.simplex(5, 4), 0.1**0.5
    one, two = (
        torch.cat([(1 - u * u) ** 0.5 * z, torch.full((5, 1), sign * u, dtype=torch.float64)], 1)
        for sign in (1, -1)
    )
    at_simplex = losses.nce_binary(z, z, temperature=0.1)
    assert losses.nce_binary(one, two, temperature=0.1) < at_simplex


def test_binary_estimation_finds_the_log_ratio_less_that_of_nu():
    """With a free critic, the population risk over a 3 x 3 joint law is least at log K / nu."""
    joint = torch.tensor([[0.3, 0.05, 0.05], [0.1, 0.1, 0.1], [0.0, 0.1, 0.2]], dtype=torch.float64)
    joint = (joint + 0.01) / (joint + 0.01).sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    nu = 3.0
    critic = (joint / product / nu).log().requires_grad_()
    risk = (joint * blockwise.softplus(-critic) + nu * product * blockwise.softplus(critic)).sum()
    (slope,) = torch.autograd.grad(risk, critic)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-15)
    z = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, many = (losses.nce_binary(z, -z, temperature=1.0, nu=n) for n in (1.0, nu))
    assert float(many) == pytest.approx(by_loops("nce_binary", z, -z, 1.0, nu), rel=1e-12)
    assert many > one


def test_the_spectral_loss_is_without_bias():
    """Its mean over all draws of M = 2 pairs is |Abar - FF'|^2 - |Abar|^2."""
    joint = torch.tensor([[0.3, 0.1], [0.1, 0.5]], dtype=torch.float64)
    features = torch.tensor([[0.4, -1.0], [1.3, 0.2]], dtype=torch.float64)
    pairs = [(i, j) for i in range(2) for j in range(2)]
    mean = sum(
        joint[a]
        * joint[b]
        * losses.spectral_contrastive(features[[a[0], b[0]]], features[[a[1], b[1]]])
        for a in pairs
        for b in pairs
    )
    root = joint.sum(1).sqrt()
    abar = joint / root[:, None] / root
    factor = root[:, None] * features
    expected = (abar - factor @ factor.T).square().sum() - abar.square().sum()
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("name", EVERY)
def test_derivatives(rng, name):
    z1, z2 = (z.requires_grad_() for z in views(rng, 4, 2))
    assert gradcheck(EVERY[name], (z1, z2), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(EVERY[name], (z1, z2))


@pytest.mark.parametrize("name", EVERY)
def test_transforms(rng, name):
    z1, z2 = views(rng, 4, 2)

    def loss(z1):
        return EVERY[name](z1, z2)

    slope = gradient(EVERY[name], z1, z2)[1]
    torch.testing.assert_close(grad(loss)(z1), slope)
    torch.testing.assert_close(jvp(loss, (z1,), (z2,))[1], (slope * z2).sum())
    batch = torch.stack([z1, z2])
    torch.testing.assert_close(vmap(loss)(batch), torch.stack([loss(z) for z in batch]))
    torch.testing.assert_close(hessian(loss)(z1), torch.autograd.functional.hessian(loss, z1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", EVERY)
def test_half_precision_is_converted_to_single(rng, name, dtype):
    z1, z2 = views(rng, 6, 4, dtype)
    ours = gradient(EVERY[name], z1, z2)
    single = gradient(EVERY[name], z1.float(), z2.float())
    assert ours[0].dtype == torch.float32
    torch.testing.assert_close(ours[0], single[0], rtol=0, atol=0)
    for one, other in zip(ours[1:], single[1:], strict=True):
        torch.testing.assert_close(one, other.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("name", EVERY)
def test_float64_stays(rng, name):
    assert EVERY[name](*views(rng)).dtype == torch.float64


@pytest.mark.parametrize("name", EVERY)
def test_where_the_default_device_holds_no_values(rng, name):
    z1, z2 = views(rng, 5, 3)
    expected = gradient(EVERY[name], z1, z2)
    torch.set_default_device("meta")
    try:
        ours = gradient(EVERY[name], z1, z2)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("name", EVERY)
def test_one_tensor_as_both_views(rng, name):
    z = views(rng)[0].requires_grad_()
    value = EVERY[name](z, z)
    (both,) = torch.autograd.grad(value, z)
    _, one, two = gradient(EVERY[name], z, z)
    torch.testing.assert_close(both, one + two)


def test_both_forms_of_the_spectral_loss_agree(rng):
    z1, z2 = views(rng, 6, 5)
    wide = [functional.pad(z, (0, 3)) for z in (z1, z2)]  # zero columns: d > M
    torch.testing.assert_close(
        losses.spectral_contrastive(z1, z2), losses.spectral_contrastive(*wide)
    )


PARAMETRIC = [
    losses.info_nce,
    losses.nt_xent,
    losses.dcl,
    partial(losses.dcl, negatives="other"),
    losses.dhel,
    losses.nce_binary,
]
PLAIN = [
    lambda z1, z2, temperature, loss=loss: loss(z1, z2)
    for loss in (losses.spectral_contrastive, losses.vicreg, losses.barlow_twins, kcl)
]


@pytest.mark.parametrize("loss", [*PARAMETRIC, *PLAIN])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda z: (z[0], z), "z1 must be a matrix with one point a row, got shape"),
        (lambda z: (z, z[None]), "z2 must be a matrix with one point a row, got shape"),
        (lambda z: (z[:1], z[:1]), "z1 must hold at least 2"),
        (lambda z: (z[:, :0], z[:, :0]), "z1 must hold at least 2"),
        (lambda z: (z, z[:3]), "z1 and z2 must have the same shape, got"),
        (lambda z: (z, z[:, :1]), "z1 and z2 must have the same shape, got"),
        (lambda z: (z, z.float()), "z1 and z2 must have the same dtype, got"),
        (lambda z: (z, z.to("meta")), "z1 and z2 must have the same device, got"),
        (lambda z: (z.int(), z.int()), "z1 must hold floating-point numbers, got"),
        (lambda z: (z, z.bool()), "z2 must hold floating-point numbers, got"),
        (lambda z: (z / 0, z), "z1 must be finite, got"),
        (lambda z: (z.abs() / 0, z), "z1 must be finite, got 18 NaN or infinite"),
        (lambda z: (z, z * math.nan), "z2 must be finite, got"),
    ],
)
def test_bad_views(rng, loss, change, words):
    with pytest.raises(ValueError, match=words):
        loss(*change(views(rng)[0]), temperature=1.0)


@pytest.mark.parametrize("loss", PARAMETRIC)
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_bad_temperature(rng, loss, temperature):
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, got"):
        loss(*views(rng), temperature=temperature)


@pytest.mark.parametrize("nu", [0.0, -1.0, math.nan, math.inf])
def test_bad_nu(rng, nu):
    with pytest.raises(ValueError, match="nu must be a finite number above 0, got"):
        losses.nce_binary(*views(rng), temperature=1.0, nu=nu)


def test_half_precision_sums_that_overflow_are_no_fault():
    z = torch.full((4000, 2), 40.0, dtype=torch.float16)
    assert losses.spectral_contrastive(z, z).isfinite()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("m", [2, 3, 17])
def test_kernel_loss_is_the_mean_of_its_kernel(rng, monkeypatch, name, m):
    monkeypatch.setitem(_tiles.TILE, "cpu", 5)
    z1, z2 = views(rng, m, 4)
    kernel = KERNELS[name]

    def by_pairs(z1, z2):
        own = [kernel(1 - (z1[i] - z2[i]).square().sum() / 2) for i in range(m)]
        rest = [
            kernel(1 - (z1[i] - z1[j]).square().sum() / 2)
            for i in range(m)
            for j in range(m)
            if i != j
        ]
        return 3.0 * torch.stack(rest).mean() - torch.stack(own).mean()

    assert_same(gradient(lambda a, b: kcl(a, b, kernel), z1, z2), gradient(by_pairs, z1, z2), 1e-11)
    both = kcl(z1, z2, kernel, symmetric=True)
    torch.testing.assert_close(both, (by_pairs(z1, z2) + by_pairs(z2, z1)) / 2)


@pytest.mark.parametrize("kernel", [kernels.logarithmic(1e4), kernels.riesz(-0.5)])
def test_close_pairs_keep_their_digits(rng, kernel):
    """In float32, against float64, where points are 1e-5 apart."""
    z1 = functional.normalize(torch.randn(40, 8, generator=rng), dim=1)
    z2 = functional.normalize(z1 + 1e-5 * torch.randn(40, 8, generator=rng), dim=1)
    z1, z2 = torch.cat([z1, z2]), torch.cat([z2, z1])
    loss = lambda a, b: losses.kcl(a, b, kernel=kernel, weight=1.0)  # noqa: E731
    assert_same(gradient(loss, z1, z2), gradient(loss, z1.double(), z2.double()), 1e-5)


def test_views_that_coincide_do_not_pull_under_a_cusp(rng):
    z, _ = views(rng)
    _, one, two = gradient(lambda a, b: kcl(a, b, kernels.riesz(-0.5)), z, z)
    assert one.isfinite().all()
    assert two.norm() == 0
    second = hessian(lambda a: kcl(a, z, kernels.riesz(-0.5)))(z)
    assert second.isfinite().all()


def test_attraction_without_a_lower_bound_is_refused(rng):
    with pytest.raises(ValueError, match="kernel must be finite at t = 1"):
        kcl(*views(rng), kernels.riesz(1.0))
    assert kcl(*views(rng), kernels.riesz(1.0), alignment=kernels.gaussian(1.0)).isfinite()
    with pytest.raises(ValueError, match="weight must be a finite number above 0"):
        losses.kcl(*views(rng), kernel=kernels.gaussian(1.0), weight=0.0)


@pytest.mark.parametrize("masked", [False, True])
def test_generalised_loss_is_that_of_the_definition(rng, masked):
    z1, z2 = views(rng, 5)
    total = 0.0
    for i in range(5):
        own = math.exp(-float((z1[i] - z2[i]).square().sum()) / 2)
        rest = [
            math.exp(-float((z1[i] - z2[j]).square().sum()) / 2)
            for j in range(5)
            if not (masked and j == i)
        ]
        total += math.sqrt(math.fsum(rest) / len(rest) / own) / 5
    value = losses.generalised_nt_xent(
        z1, z2, similarity=lambda s: torch.exp(-s), outer=torch.sqrt, masked=masked
    )
    assert float(value) == pytest.approx(total, rel=1e-12)


def test_generalised_loss_is_nt_xent_between_views(rng):
    """With log(1 + .), exp(-s / tau) and the mean over j != i scaled to a sum: InfoNCE."""
    z1, z2 = views(rng, 6)
    value = losses.generalised_nt_xent(
        z1,
        z2,
        similarity=lambda s: torch.exp(-s / 0.3),
        outer=lambda g: torch.log1p(5 * g),
        masked=True,
    )
    torch.testing.assert_close(value, losses.info_nce(z1, z2, temperature=0.3))


def test_a_similarity_that_vanishes_at_a_positive_pair_is_refused(rng):
    z, _ = views(rng)
    with pytest.raises(ValueError, match="above 0 at each positive pair, got 0"):
        losses.generalised_nt_xent(z, z, similarity=lambda s: s)
    with pytest.raises(ValueError, match="similarity must be above 0 at each positive pair"):
        losses.generalised_nt_xent(*views(rng), similarity=lambda s: -s)


def test_the_generalised_loss_counts_the_positive_unless_told_otherwise(rng):
    z, _ = views(rng)
    default = losses.generalised_nt_xent(z, z, similarity=lambda s: torch.exp(-s))
    whole = losses.generalised_nt_xent(z, z, similarity=lambda s: torch.exp(-s), masked=False)
    assert default == whole


def test_vicreg_is_that_of_the_definition(rng):
    z1, z2 = (torch.randn(7, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    expected = 2.0 * sum(float((z1[i] - z2[i]).square().sum()) for i in range(7)) / 7
    for z in (z1, z2):
        c = torch.cov(z.T)
        for j in range(3):
            expected += 3.0 * max(0.0, 1 - math.sqrt(float(c[j, j]) + 1e-4)) / 3
            expected += 0.5 * sum(float(c[j, k]) ** 2 for k in range(3) if k != j) / 3
    value = losses.vicreg(z1, z2, invariance=2.0, variance=3.0, covariance=0.5)
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_barlow_twins_is_that_of_the_definition(rng):
    z1, z2 = (torch.randn(7, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    c = torch.corrcoef(torch.cat([z1.T, z2.T]))[:3, 3:]
    expected = sum(
        (1 - float(c[j, k])) ** 2 if j == k else 0.2 * float(c[j, k]) ** 2
        for j in range(3)
        for k in range(3)
    )
    assert float(losses.barlow_twins(z1, z2, weight=0.2)) == pytest.approx(expected, rel=1e-12)


def test_negative_cosine_is_byols_distance(rng):
    p, t = (torch.randn(6, 3, generator=rng, dtype=torch.float64) for _ in range(2))
    distance = (functional.normalize(p, dim=1) - functional.normalize(t, dim=1)).square().sum(1)
    torch.testing.assert_close(2 + 2 * losses.negative_cosine(p, t), distance.mean())
    torch.testing.assert_close(losses.negative_cosine(p, 3 * p), -torch.ones((), dtype=p.dtype))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 1e200), (torch.float32, 1e30)])
def test_directions_of_any_size(rng, dtype, size):
    z, _ = views(rng, dtype=dtype)
    assert float(losses.negative_cosine(size * z, z / size)) == pytest.approx(-1, abs=1e-6)


def test_what_has_no_correlation_or_direction_is_refused(rng):
    z, _ = views(rng)
    flat = z.clone()
    flat[:, 1] = 3.0
    for one, two, name in ((flat, z, "z1"), (z, flat, "z2")):
        with pytest.raises(ValueError, match=f"^{name} must have columns that vary, got column 1"):
            losses.barlow_twins(one, two)
    zero = z.clone()
    zero[4] = 0
    for one, two, name in ((zero, z, "prediction"), (z, zero, "target")):
        with pytest.raises(
            ValueError, match=f"^{name} must have rows that are not zero, got row 4"
        ):
            losses.negative_cosine(one, two)
    with pytest.raises(ValueError, match="prediction must hold at least 2"):
        losses.negative_cosine(z[:1], z[:1])
    with pytest.raises(ValueError, match=r"^target must be a matrix"):
        losses.negative_cosine(z, z[0])
    assert losses.vicreg(flat, flat).isfinite()
    with pytest.raises(ValueError, match="negatives must be 'both' or 'other', got 'own'"):
        losses.dcl(z, z, temperature=1.0, negatives="own")


@pytest.mark.parametrize("name", ["invariance", "variance", "covariance"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_bad_weights_of_vicreg(rng, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be a finite number of at least 0, got"):
        losses.vicreg(*views(rng), **{name: value})
    assert losses.vicreg(*views(rng), **{name: 0.0}).isfinite()
    with pytest.raises(ValueError, match=r"^eps must be a finite number above 0, got"):
        losses.vicreg(*views(rng), eps=value)


@pytest.mark.parametrize(
    ("loss", "defaults"),
    [
        (losses.info_nce, {"symmetric": False}),
        (losses.dcl, {"negatives": "both"}),
        (losses.dhel, {"symmetric": False}),
        (losses.nce_binary, {"nu": 1.0}),
        (losses.vicreg, {"invariance": 25.0, "variance": 25.0, "covariance": 1.0, "eps": 1e-4}),
        (losses.barlow_twins, {"weight": 5e-3}),
    ],
)
def test_defaults_are_those_of_the_papers(rng, loss, defaults):
    z1, z2 = views(rng)
    other = {} if loss in (losses.vicreg, losses.barlow_twins) else {"temperature": 0.5}
    value = loss(z1 / 2, z2 / 3, **other)
    assert value == loss(z1 / 2, z2 / 3, **other, **defaults)


def test_released_dhel_weighs_the_attraction_half(rng):
    """2 L + mean(s) / tau, from the sums of exponentials that the released code has."""
    z1, z2 = views(rng)
    off = ~torch.eye(6, dtype=torch.bool)
    sums = [((z @ z.T) / 0.3)[off].view(6, 5).logsumexp(1) for z in (z1, z2)]
    released = (sums[0] + sums[1] - (z1 * z2).sum(1) / 0.3).mean()
    both = losses.dhel(z1, z2, temperature=0.3, symmetric=True)
    torch.testing.assert_close(released, 2 * both + (z1 * z2).sum(1).mean() / 0.3)
