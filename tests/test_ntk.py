"""Tangent kernels against derivatives of each output, Gaussian samples and quadrature."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from cltheory import ntk
from cltheory.networks import ACTIVATIONS, CURVATURES, MLP, SLOPES, BlockNet, ConvNet, TwoLayer


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def by_backward(model, x, y):
    """One backward pass for each output of each input."""

    def gradients(points):
        rows = []
        for output in model(points):
            for entry in output:
                parts = torch.autograd.grad(entry, list(model.parameters()), retain_graph=True)
                rows.append(torch.cat([p.flatten() for p in parts]))
        return torch.stack(rows).view(len(points), -1, len(rows[0]))

    return torch.einsum("aip,bjp->abij", gradients(x), gradients(y))


def two_layer(activation="erf", width=37, out=3, seed=0):
    return TwoLayer(4, width, out, activation=activation, generator=seeded(seed))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_derivatives_of_activations(activation):
    x = normal(200).requires_grad_()
    (slope,) = torch.autograd.grad(ACTIVATIONS[activation](x).sum(), x, create_graph=True)
    torch.testing.assert_close(SLOPES[activation](x), slope)
    if activation in CURVATURES:
        (curvature,) = torch.autograd.grad(slope.sum(), x)
        torch.testing.assert_close(CURVATURES[activation](x), curvature)
    else:
        assert activation == "relu"


def test_a_two_layer_network_is_its_formula():
    model, x = two_layer("tanh"), normal(5, 4, seed=1)
    by_hand = torch.tanh(x @ model.hidden.T) @ model.readout / math.sqrt(37)
    torch.testing.assert_close(model(x), by_hand)
    torch.testing.assert_close(model.features(x) @ model.readout, by_hand)


def test_a_block_network_is_its_formula():
    model, x = BlockNet(4, 6, 3, activation="erf", generator=seeded()), normal(5, 4, seed=1)
    for k in range(3):
        block = torch.erf(x @ model.hidden[k].T).sum(1) / math.sqrt(6)
        torch.testing.assert_close(model(x)[:, k], block)
    assert BlockNet(4, 6, 3, scale=1 / 6).scale == 1 / 6


def test_weights_are_standard_normal():
    model = TwoLayer(50, 400, 30, generator=seeded())
    for weight in (model.hidden, model.readout, BlockNet(50, 40, 3, generator=seeded()).hidden):
        assert weight.mean().abs() < 0.05
        assert weight.std().item() == pytest.approx(1, abs=0.05)


def test_a_stack_holds_its_networks_and_trains_them_apart():
    nets = [two_layer(seed=s) for s in range(3)]
    stack, x = TwoLayer.stacked(nets), normal(5, 4, seed=9)
    for net, output in zip(nets, stack(x), strict=True):
        torch.testing.assert_close(net(x), output)
    own = normal(3, 5, 4, seed=10)
    torch.testing.assert_close(stack(own)[1], nets[1](own[1]))
    stack(x)[1].sum().backward()
    assert stack.hidden.grad[[0, 2]].abs().max() == 0
    assert {p.dtype for p in stack.parameters()} == {torch.float64}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 3, 20])
def test_closed_form_is_the_product_of_gradients(activation, n, monkeypatch):
    monkeypatch.setattr(ntk, "ROWS", 16)
    monkeypatch.setitem(ntk.ENTRIES, "cpu", 500)
    model, x, y = two_layer(activation), normal(n, 4, seed=1), normal(5, 4, seed=2)
    torch.testing.assert_close(ntk.two_layer(model, x, y), by_backward(model, x, y))
    torch.testing.assert_close(ntk.two_layer(model, x), by_backward(model, x, x))


def test_tiles_do_not_change_the_kernel(monkeypatch):
    model, x = two_layer(width=300), normal(150, 4, seed=1)
    whole = ntk.two_layer(model, x)
    torch.testing.assert_close(whole, whole.transpose(0, 1).transpose(2, 3))
    monkeypatch.setattr(ntk, "ROWS", 7)
    monkeypatch.setitem(ntk.ENTRIES, "cpu", 1)
    torch.testing.assert_close(ntk.two_layer(model, x), whole)


@pytest.fixture
def few_units(monkeypatch):
    """Sum over some units at a time, as for wide networks."""
    monkeypatch.setitem(ntk.ENTRIES, "cpu", 500)


def test_kernel_of_a_stack(few_units):
    nets = [two_layer(seed=s) for s in range(3)]
    x, own = normal(70, 4, seed=9), normal(3, 6, 4, seed=10)
    for net, kernel in zip(nets, ntk.two_layer(TwoLayer.stacked(nets), x), strict=True):
        torch.testing.assert_close(ntk.two_layer(net, x), kernel)
    each = ntk.two_layer(TwoLayer.stacked(nets), own, own[:, :2])
    for net, points, kernel in zip(nets, own, each, strict=True):
        torch.testing.assert_close(ntk.two_layer(net, points, points[:2]), kernel)


def test_kernel_of_a_stack_of_stacks(few_units):
    nets = [[two_layer(seed=3 * row + s) for s in range(3)] for row in range(2)]
    stack = TwoLayer.stacked([TwoLayer.stacked(row) for row in nets])
    x, own = normal(6, 4, seed=9), normal(2, 3, 6, 4, seed=10)
    shared, each = ntk.two_layer(stack, x), ntk.two_layer(stack, own)
    for row in range(2):
        for s in range(3):
            torch.testing.assert_close(shared[row, s], ntk.two_layer(nets[row][s], x))
            torch.testing.assert_close(each[row, s], ntk.two_layer(nets[row][s], own[row, s]))


def test_kernel_of_one_unit_and_one_output():
    model, x = two_layer(width=1, out=1), normal(3, 4, seed=1)
    torch.testing.assert_close(ntk.two_layer(model, x), by_backward(model, x, x))


def test_kernel_where_values_cannot_be_read():
    model, x = two_layer().to("meta"), normal(3, 4).to("meta")
    assert ntk.two_layer(model, x).shape == (3, 3, 3, 3)


def test_block_kernel_is_the_product_of_gradients():
    model = BlockNet(4, 6, 3, activation="tanh", scale=0.3, generator=seeded())
    x, y = normal(5, 4, seed=1), normal(2, 4, seed=2)
    torch.testing.assert_close(ntk.block(model, x, y), by_backward(model, x, y))
    torch.testing.assert_close(ntk.block(model, x), by_backward(model, x, x))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4, bias=False)
        self.second = nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x):
        return self.scale * self.second(torch.tanh(self.first(x)))


def normalised():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 2))
    model(normal(50, 4, seed=3))
    return model.eval()


def deep():
    return MLP(4, [7, 6, 5], 2, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("make", [Tied, normalised, deep, lambda: two_layer("relu")])
@pytest.mark.parametrize("chunk", [1, 4, 32])
def test_empirical_kernel_of_a_module(make, chunk):
    torch.manual_seed(0)
    model, x, y = make(), normal(6, 4, seed=1), normal(5, 4, seed=2)
    trained = [p for p in model.parameters() if p.requires_grad]
    model.parameters = lambda recurse=True: iter(trained)
    torch.testing.assert_close(ntk.empirical(model, x, y, chunk=chunk), by_backward(model, x, y))
    torch.testing.assert_close(ntk.empirical(model, x, chunk=chunk), by_backward(model, x, x))


def test_empirical_kernel_of_a_convolution():
    model = ConvNet((6, 6), [3, 4], 2, activation="tanh", generator=seeded())
    x = normal(5, 6, 6, seed=1)
    torch.testing.assert_close(ntk.empirical(model, x), by_backward(model, x, x))


def test_empirical_kernel_leaves_the_model_alone():
    model, x = normalised(), normal(5, 4, seed=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ntk.empirical(model, x)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_duals_are_gaussian_means(activation):
    """On the plane of x and y by a quadrature of the angle and the size of v."""
    x, y = normal(2, 5, seed=1), normal(2, 5, seed=2)
    kappa, slope = ntk.duals(x, y, activation=activation)
    size, weight = np.polynomial.legendre.leggauss(60)
    size, weight = (
        5 * (size + 1),
        5 * weight * 5 * (size + 1) * np.exp(-((5 * (size + 1)) ** 2) / 2),
    )
    angle = (np.arange(2000) + 0.5) * 2 * np.pi / 2000
    v = size[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    mass = torch.from_numpy(np.repeat(weight[:, None] / 2000, 2000, 1))
    act, first = ACTIVATIONS[activation], SLOPES[activation]
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            corner = torch.linalg.qr(torch.stack([a, b], 1)).R
            u, w = torch.from_numpy(v) @ corner[:, 0], torch.from_numpy(v) @ corner[:, 1]
            mean = (mass * act(u) * act(w)).sum()
            torch.testing.assert_close(kappa[i, j], mean, atol=2e-5, rtol=2e-5)
            mean = (mass * first(u) * first(w)).sum()
            torch.testing.assert_close(slope[i, j], mean, atol=4e-4, rtol=0)


def test_the_dual_of_the_slope_is_the_slope_of_the_dual():
    """Along t = x.y at fixed norms, d kappa / d t = kappa'."""
    x, angle = torch.tensor([[1.0, 0.0]]), torch.tensor(0.7, requires_grad=True)
    y = 2 * torch.stack([angle.cos(), angle.sin()])[None]
    for activation in ("relu", "erf"):
        kappa, slope = ntk.duals(x, y, activation=activation)
        (change,) = torch.autograd.grad(kappa.sum(), angle, retain_graph=True)
        along = -2 * angle.sin()
        torch.testing.assert_close((change / along).detach(), slope.detach().squeeze())


def test_duals_are_exact_where_points_meet():
    x = normal(4, 5, seed=1)
    kappa, slope = ntk.duals(x, activation="relu")
    torch.testing.assert_close(kappa.diagonal(), x.square().sum(1) / 2, rtol=1e-14, atol=0)
    assert (slope.diagonal() == 0.5).all()
    kappa, slope = ntk.duals(x, -x, activation="relu")
    assert slope.diagonal().abs().max() < 1e-15
    assert kappa.diagonal().abs().max() < 1e-15


def test_duals_of_many_points_are_exact_where_they_meet():
    """From 26 points on, distances by inner products would be faster, and lose half the digits."""
    _, slope = ntk.duals(normal(40, 5, seed=1), activation="relu")
    assert (slope.diagonal() == 0.5).all()
    x = normal(40, 5, seed=2)
    _, slope = ntk.duals(x, -x, activation="relu")
    assert slope.diagonal().abs().max() < 1e-15


def test_the_dual_of_erf_does_not_cancel():
    """Where points meet, p q - 4 (x.y)^2 is 1 + 4 |x|^2, at any size."""
    x = 1e8 * torch.eye(3)
    _, slope = ntk.duals(x, activation="erf")
    torch.testing.assert_close(
        slope.diagonal(),
        (4 / math.pi / torch.tensor(1 + 4e16).sqrt()).expand(3),
        rtol=1e-14,
        atol=0,
    )


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_gradients_of_duals(activation):
    x, y = normal(3, 4, seed=1).requires_grad_(), normal(2, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: ntk.duals(x, y, activation=activation), (x, y))


def test_a_row_of_zeros_has_no_slope():
    none, some = torch.zeros(1, 3), torch.ones(1, 3)
    for x, y in ((none, some), (some, none), (none, none)):
        kappa, slope = ntk.duals(x, y, activation="relu")
        assert kappa == slope == 0


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_the_limit_between_two_sets_is_a_part_of_that_of_both(activation):
    x, y = normal(3, 4, seed=1), normal(2, 4, seed=2)
    whole = ntk.infinite_width(torch.cat([x, y]), activation=activation)
    torch.testing.assert_close(ntk.infinite_width(x, y, activation=activation), whole[:3, 3:])


@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_wide_kernels_near_the_limit(activation):
    """Within five standard errors of a mean over 200,000 units, estimated from 20 parts."""
    x = torch.nn.functional.normalize(normal(5, 4, seed=1))
    parts = torch.stack(
        [ntk.two_layer(two_layer(activation, 10_000, 2, seed=s), x).detach() for s in range(20)]
    )
    limit = ntk.infinite_width(x, activation=activation)[..., None, None] * torch.eye(2)
    error = parts.std(0) / math.sqrt(20)
    assert ((parts.mean(0) - limit).abs() < 5 * error + 1e-12).all()


def test_drift_is_the_largest_change():
    before = normal(2, 3, 3, 2, 2)
    after = before.clone()
    after[0, 1, 2, 0, 1] -= 7
    after[1, 0, 0, 1, 1] += 3
    torch.testing.assert_close(ntk.drift(before, after), torch.tensor([7.0, 3.0]))


@pytest.mark.parametrize("activation", CURVATURES)
def test_hessian_norm_is_that_of_the_matrix(activation):
    model, x = two_layer(activation, width=7, out=2), normal(3, 4, seed=1)
    flat = torch.cat([model.hidden.flatten(), model.readout.flatten()]).detach()

    def output(weights, point, k):
        hidden, readout = weights[:28].view(7, 4), weights[28:].view(7, 2)
        return ACTIVATIONS[activation](hidden @ point) @ readout[:, k] / math.sqrt(7)

    def norm(point, k):
        hessian = torch.autograd.functional.hessian(lambda w: output(w, point, k), flat)
        return torch.linalg.matrix_norm(hessian, 2)

    norms = torch.stack([torch.stack([norm(point, k) for k in range(2)]) for point in x])
    torch.testing.assert_close(ntk.hessian_norm(model, x), norms)
    stack = TwoLayer.stacked([model, two_layer(activation, width=7, out=2, seed=5)])
    torch.testing.assert_close(ntk.hessian_norm(stack, x)[0], norms)
    own = torch.stack([normal(3, 4, seed=6), x])
    torch.testing.assert_close(ntk.hessian_norm(TwoLayer.stacked([model, model]), own)[1], norms)


def test_gradients_and_transforms_of_the_closed_form():
    model = two_layer(width=5, out=2)
    x = normal(3, 4, seed=1)

    def total(hidden, points):
        copy = two_layer(width=5, out=2)
        del copy.hidden
        copy.hidden = hidden
        return ntk.two_layer(copy, points).square().sum()

    assert torch.autograd.gradcheck(total, (model.hidden.detach().requires_grad_(), x))
    stack = torch.stack([x, 2 * x])
    each = torch.vmap(lambda points: ntk.two_layer(model, points))(stack)
    torch.testing.assert_close(each[1], ntk.two_layer(model, 2 * x))


def test_no_stray_allocation():
    model, x = two_layer("relu"), normal(5, 4, seed=1)
    smooth, blocks = two_layer(), BlockNet(4, 6, 3, generator=seeded())
    torch.set_default_device("meta")
    try:
        for result in (
            ntk.two_layer(model, x),
            ntk.block(blocks, x),
            ntk.empirical(model, x),
            ntk.infinite_width(x, activation="relu"),
            ntk.infinite_width(x, activation="erf"),
            ntk.hessian_norm(smooth, x),
        ):
            assert result.device.type == "cpu"
    finally:
        torch.set_default_device("cpu")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: TwoLayer(3, 0, 2), "width must be an integer of at least 1, got 0"),
        (lambda: TwoLayer(3, 4, 0), "out_dim must be an integer of at least 1, got 0"),
        (
            lambda: TwoLayer(3, 4, 2, activation="swish"),
            r"activation must be one of \['erf'.*'swish'",
        ),
        (lambda: BlockNet(3, 4, 0), "out_dim must be"),
        (lambda: BlockNet(3, 0, 1), "units must be"),
        (lambda: BlockNet(3, 2, 1, activation="x"), "activation must be one of"),
        (lambda: TwoLayer.stacked([]), "models must hold at least one"),
        (
            lambda: TwoLayer.stacked([two_layer(), two_layer(width=9)]),
            "models must be of one size and activation",
        ),
        (lambda: two_layer()(normal(2, 3)), r"x must have shape \(n, 4\), got shape \(2, 3\)"),
        (lambda: ntk.two_layer(two_layer(), normal(2, 4), normal(2, 3)), "x must have shape"),
        (lambda: ntk.duals(normal(2, 3), activation="tanh"), "must be 'erf' or 'relu', got 'tanh'"),
        (lambda: ntk.duals(normal(2, 3), normal(2, 4), activation="erf"), "one dimension"),
        (lambda: ntk.drift(normal(2, 2, 1, 1), normal(2, 2, 2, 2)), "kernels of one shape"),
        (lambda: ntk.hessian_norm(two_layer("relu"), normal(2, 4)), "two derivatives.*got 'relu'"),
        (lambda: ntk.empirical(nn.BatchNorm1d(4), normal(2, 4)), "BatchNorm1d in training mode"),
        (lambda: ntk.empirical(nn.Dropout(), normal(2, 4)), "Dropout in training mode"),
        (lambda: ntk.empirical(nn.Tanh(), normal(2, 4)), "must have a parameter"),
        (lambda: ntk.empirical(two_layer(), normal(2, 4), chunk=0), "chunk must be"),
        (
            lambda: ntk.empirical(nn.Conv1d(4, 2, 1), normal(2, 4, 3)),
            r"must give a matrix, got shape \(1, 2, 3\)",
        ),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
