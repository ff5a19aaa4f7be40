"""Networks, their kernels and flows: widths and stacks, duplicates, long rows and rows of zeros."""

import copy

import pytest
import torch
from cases import Case, assert_same, over
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    generator,
    log_uniform,
    matrices,
    normal,
    permutation,
    points,
    rotation,
    seeds,
    unit_rows,
    views,
)
from torch import nn

from cltheory import flows, networks, ntk, triplets

INPUTS = points(dim=st.just(3))
SMOOTH = st.sampled_from(["erf", "gelu", "sin", "tanh"])


def two_layer(x, seed=0, activation="tanh"):
    return networks.TwoLayer(
        3, 8, 2, activation=activation, generator=generator(seed), dtype=x.dtype
    )


def blocked(x, seed=0, activation="tanh"):
    return networks.BlockNet(
        3, 8, 2, activation=activation, generator=generator(seed), dtype=x.dtype
    )


def made(make, x, *sizes, **options):
    return make(*sizes, generator=generator(0), dtype=x.dtype, **options)(x)


def of_two_layer(f, x):
    return f(two_layer(x), x)


def towards(f):
    return f - 1


def from_kernel(f, kernel):
    return f(kernel, torch.ones_like(kernel[:, :1]), towards, lr=0.1, times=[0, 3])


DUALS = [
    Case(ntk.duals, INPUTS, activation="erf"),
    Case(ntk.duals, INPUTS, activation="relu"),
    Case(ntk.infinite_width, INPUTS, activation="erf"),
    Case(ntk.infinite_width, INPUTS, activation="relu"),
]
OF_NETWORKS = [
    Case(ntk.two_layer, INPUTS, through=of_two_layer),
    Case(ntk.block, INPUTS, through=lambda f, x: f(blocked(x), x)),
    Case(ntk.empirical, INPUTS, through=of_two_layer),
]
CASES = [
    *DUALS, *OF_NETWORKS,
    Case(ntk.hessian_norm, INPUTS, through=of_two_layer),
    Case(ntk.drift, INPUTS, through=lambda f, x: f(
        ntk.two_layer(two_layer(x), x), ntk.two_layer(two_layer(x, 1), x))),
    Case(networks.MLP, INPUTS, through=lambda f, x: made(f, x, 3, [4, 4], 2)),
    Case(networks.ParallelMLP, INPUTS, through=lambda f, x: made(f, x, 4, 3, [4])),
    Case(networks.TwoLayer, INPUTS, through=lambda f, x: made(f, x, 3, 4, 2)),
    Case(networks.BlockNet, INPUTS, through=lambda f, x: made(f, x, 3, 4, 2)),
    Case(networks.ConvNet, INPUTS, through=lambda f, x: f(
        (3, 3), [2], 2, generator=generator(0), dtype=x.dtype)(x[:, :, None] * x[:, None])),
    Case(flows.train, INPUTS, through=lambda f, x: f(
        two_layer(x), x, towards, lr=0.1, times=[0, 3])),
    Case(flows.train_orthonormal, INPUTS, through=lambda f, x: orthonormal(f, x)),
    Case(flows.geodesic_step, INPUTS, through=lambda f, x: f(
        torch.linalg.qr(x[:1].mT).Q, x[-1:].mT, 0.1)),
    Case(flows.frozen, matrices, through=from_kernel),
    Case(flows.descend, INPUTS, through=lambda f, x: f(x, towards, lr=0.1, times=[0, 3])),
]  # fmt: skip


def orthonormal(f, x):
    model = two_layer(x)
    model.readout.data = torch.linalg.qr(model.readout.data).Q
    outputs = f(model, x, towards, lr=0.1, times=[0, 3])
    assert_same(
        model.readout.mT @ model.readout, torch.eye(2, dtype=x.dtype, device=x.device), atol=1e-5
    )
    return outputs


@over(DUALS)
@given(data=st.data())
def test_a_dual_sees_no_rotation_and_is_symmetric(case, data):
    (x,) = case.arguments(data)
    found = case(x)
    assert_same(found, case(x @ rotation(data.draw(seeds), 3)), rtol=1e-7, atol=1e-7)
    parts = found if isinstance(found, tuple) else (found,)
    for part in parts:
        assert_same(part, part.mT, rtol=1e-12, atol=1e-12)
        # A kernel: positive at coincident, opposite and vanishing points.
        assert float(torch.linalg.eigvalsh(part).min()) >= -1e-7


@pytest.mark.parametrize("activation", ["erf", "relu"])
@given(x=INPUTS, size=log_uniform(1e-6, 1e6))
def test_duals_are_right_in_float32_at_every_length(activation, x, size):
    x = torch.cat([size * x, 0 * x[:1]]).float()
    exact = ntk.duals(x.double(), activation=activation)
    for single, double in zip(ntk.duals(x, activation=activation), exact, strict=True):
        assert_same(single.double() / double.amax(), double / double.amax(), atol=2e-6)


@given(INPUTS, log_uniform(1e-3, 1e3))
def test_relu_grows_with_its_rows_and_its_slope_does_not(x, size):
    one, two = (ntk.duals(z, activation="relu") for z in (x, size * x))
    assert_same(size**2 * one[0], two[0], rtol=1e-9, atol=1e-12 * size**2)
    assert_same(one[1], two[1], atol=1e-7)


@given(INPUTS)
def test_a_row_of_zeros_has_no_slope_under_relu(x):
    """Whose derivative at 0 is 0, as that of the networks."""
    both = torch.cat([x, 0 * x[:1]])
    kappa, slope = ntk.duals(both, activation="relu")
    assert not bool(kappa[-1].any() | slope[-1].any() | slope[:, -1].any())


@given(INPUTS, st.integers(-6, 6))
def test_the_slope_dual_of_erf_is_the_one_of_its_formula(x, power):
    """4 / pi (p q - 4 (x.y)^2)^(-1/2), in exact rationals of the same entries."""
    from fractions import Fraction

    x = torch.cat([x[:2], x[:1]]) * 10.0**power
    rows = [[Fraction(v) for v in row] for row in x.tolist()]
    _, slope = ntk.duals(x, activation="erf")
    for i, one in enumerate(rows):
        for j, two in enumerate(rows):
            p, q, product = (
                sum(a * b for a, b in zip(*pair, strict=True))
                for pair in ((one, one), (two, two), (one, two))
            )
            square = float((1 + 2 * p) * (1 + 2 * q) - 4 * product**2)
            assert float(slope[i, j]) == pytest.approx(4 / torch.pi / square**0.5, rel=1e-9)


@pytest.mark.parametrize("activation", ["erf", "relu"])
@given(x=unit_rows(dim=st.just(3)))
def test_duals_have_gradients_at_coincident_opposite_and_vanishing_rows(activation, x):
    x = torch.cat([x, 0 * x[:1]]).requires_grad_()
    (slope,) = torch.autograd.grad(ntk.infinite_width(x, activation=activation).sum(), x)
    assert bool(slope.isfinite().all())


@given(unit_rows(dim=st.just(3)))
def test_the_second_derivative_of_erf_is_right_where_rows_coincide(x):
    """By the series 2 a / (pi root), differentiated by finite differences of the gradient."""
    x = torch.cat([x[:1], x[:1]])

    def total(z):
        return ntk.duals(z, activation="erf")[0].sum()

    hessian = torch.func.hessian(total)(x).reshape(6, 6)
    step = 1e-5
    for k in range(6):
        shift = step * torch.eye(6, dtype=x.dtype)[k].view(2, 3)
        difference = torch.func.grad(total)(x + shift) - torch.func.grad(total)(x - shift)
        assert_same(hessian[k], difference.flatten() / (2 * step), atol=1e-5)


@over(OF_NETWORKS)
@given(data=st.data())
def test_a_kernel_of_a_network_moves_with_its_points(case, data):
    (x,) = case.arguments(data)
    found = case(x)
    order = permutation(data.draw(seeds), len(x))
    assert_same(found[order][:, order], case(x[order]), rtol=1e-9, atol=1e-12)
    assert_same(found, found.transpose(0, 1).mT, rtol=1e-9, atol=1e-12)


@given(INPUTS, seeds, st.sampled_from(list(networks.ACTIVATIONS)), st.integers(1, 4))
def test_closed_forms_are_the_empirical_kernel(x, seed, activation, chunk):
    for model, closed in (
        (two_layer(x, seed, activation), ntk.two_layer),
        (blocked(x, seed, activation), ntk.block),
    ):
        expected = ntk.empirical(model, x, chunk=chunk)
        assert_same(closed(model, x), expected, rtol=1e-9, atol=1e-9)
        assert_same(closed(model, x, x[:2]), expected[:, :2], rtol=1e-9, atol=1e-9)


@given(INPUTS, seeds)
def test_the_tiles_of_a_kernel_do_not_count(x, seed):
    model = two_layer(x, seed)
    whole = ntk.two_layer(model, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ntk, "ROWS", 2)
        patch.setitem(ntk.ENTRIES, "cpu", 8)
        assert_same(ntk.two_layer(model, x), whole, rtol=1e-9, atol=1e-12)


@given(points(dim=st.just(3)), st.lists(seeds, min_size=1, max_size=3))
def test_a_stack_is_its_networks_side_by_side_and_draws_nothing(x, drawn):
    models = [two_layer(x, seed) for seed in drawn]
    before = torch.get_rng_state()
    stack = networks.TwoLayer.stacked(models)
    assert torch.equal(before, torch.get_rng_state())
    assert_same(stack(x), torch.stack([model(x) for model in models]), atol=1e-12)
    for f in (ntk.two_layer, ntk.hessian_norm):
        each = torch.stack([f(model, x) for model in models])
        assert_same(f(stack, x), each, rtol=1e-9, atol=1e-12)
    stack.hidden.data.zero_()
    assert all(bool(model.hidden.abs().max() > 0) for model in models)


@given(points(dim=st.just(3)), SMOOTH, seeds)
def test_the_hessian_norm_is_that_of_the_whole_hessian(x, activation, seed):
    model = networks.TwoLayer(
        3, 3, 1, activation=activation, generator=generator(seed), dtype=x.dtype
    )
    parameters = dict(model.named_parameters())
    shapes = {name: p.shape for name, p in parameters.items()}

    def output(flat):
        parts = flat.split([shape.numel() for shape in shapes.values()])
        named = {n: p.view(s) for (n, s), p in zip(shapes.items(), parts, strict=True)}
        return torch.func.functional_call(model, named, x[:1])[0, 0]

    at = torch.cat([p.detach().flatten() for p in parameters.values()])
    whole = torch.linalg.matrix_norm(torch.func.hessian(output)(at), 2)
    assert_same(ntk.hessian_norm(model, x)[0, 0].detach(), whole, rtol=1e-8, atol=1e-12)


@given(points(dim=st.just(3)), seeds, log_uniform(1e-4, 1e-1))
def test_a_linear_network_trains_as_its_frozen_kernel(x, seed, lr):
    model = networks.MLP(3, [], 2, generator=generator(seed), dtype=x.dtype)
    kernel, start = ntk.empirical(model, x), model(x).detach()
    trained = flows.train(copy.deepcopy(model), x, towards, lr=lr, times=[0, 5])
    assert_same(flows.frozen(kernel, start, towards, lr=lr, times=[0, 5]), trained, rtol=1e-9,
                atol=1e-9)  # fmt: skip


@given(points(dim=st.just(3)), st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))
def test_what_is_noted_does_not_move_the_flow(x, times):
    times = sorted(times)
    whole = flows.descend(x, towards, lr=0.1, times=list(range(10)))
    assert_same(flows.descend(x, towards, lr=0.1, times=times), whole[times])
    eye = torch.eye(len(x), dtype=x.dtype)
    assert_same(flows.frozen(eye, x, towards, lr=0.1, times=times), whole[times], atol=1e-12)


@given(seeds, st.integers(1, 3), st.integers(0, 3), log_uniform(1e-6, 1e3))
def test_a_geodesic_stays_orthonormal_and_begins_along_the_gradient(seed, k, more, lr):
    n = k + more
    w, gradient = rotation(seed, n)[:, :k], normal(seed + 1, n, k)
    moved = flows.geodesic_step(w, gradient, lr)
    assert_same(moved.mT @ moved, torch.eye(k, dtype=w.dtype), atol=1e-9)
    small = flows.geodesic_step(w, gradient, 1e-6)
    tangent = gradient - w @ (w.mT @ gradient)
    assert_same((small - w) / -1e-6, tangent, atol=1e-4)
    assert_same(flows.geodesic_step(w, 0 * gradient, lr), w, atol=1e-12)


@given(views(dim=st.just(3)), seeds)
def test_triplets_of_a_stack_are_triplets_of_each(pair, seed):
    f = torch.stack([torch.cat(pair), torch.cat(pair[::-1])])
    rows = torch.randint(f.shape[1], (4, 3), generator=generator(seed))
    each = torch.stack([triplets.loss(part, rows) for part in f])
    assert_same(triplets.loss(f, rows), each, atol=1e-12)


BAD = [
    (networks.MLP, (0, [3], 2), {}, "in_dim"), (networks.MLP, (1, [0], 2), {}, "widths"),
    (networks.ParallelMLP, (0, 1, [3]), {}, "heads"),
    (networks.ConvNet, ((3,), [1], 1), {}, "size"), (networks.TwoLayer, (1, 0, 2), {}, "width"),
    (networks.BlockNet, (1, 2, 3), {"activation": "x"}, "activation"),
    (ntk.duals, (torch.eye(2),), {"activation": "tanh"}, "activation"),
    (ntk.empirical, (nn.Dropout(), torch.eye(2)), {}, "model"),
    (ntk.drift, (torch.eye(2), torch.eye(2)), {}, "before and after"),
    (ntk.hessian_norm, (networks.TwoLayer(2, 2, 1), torch.eye(2)), {}, "activation"),
    (flows.descend, (torch.eye(2), towards), {"lr": -1.0, "times": [1]}, "lr"),
    (flows.descend, (torch.eye(2), towards), {"lr": 1.0, "times": [1, 1]}, "times"),
    (flows.frozen, (torch.eye(3), torch.eye(2), towards), {"lr": 1.0, "times": [1]}, "kernel"),
    (flows.train, (nn.Identity(), torch.eye(2), towards), {"lr": 0.0, "times": [0]}, "lr"),
    (flows.train_orthonormal, (networks.TwoLayer(2, 3, 1), torch.eye(2), towards),
     {"lr": 1.0, "times": [0]}, "readout"),
    (flows.geodesic_step, (torch.ones(2, 1), torch.ones(2, 1), 1.0), {}, "w"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "options", "name"), BAD)
def test_what_does_not_fit_is_named(function, arguments, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        function(*arguments, **options)
