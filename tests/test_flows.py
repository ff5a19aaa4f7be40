"""Descent through networks and kernels against steps of plain autograd and closed solutions."""

import copy
import math
from itertools import pairwise

import pytest
import torch

from cltheory import flows, ntk, pca, triplets
from cltheory.networks import ACTIVATIONS, MLP, ConvNet, TwoLayer


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


INDICES = triplets.disjoint(2)
X = normal(6, 4, seed=7)


def net(width=20, seed=0, activation="erf"):
    return TwoLayer(4, width, 2, activation=activation, generator=seeded(seed), dtype=torch.float64)


def loss(f):
    return triplets.loss(f, INDICES, kind="softmax", similarity="dot")


def gradient(f):
    return triplets.gradient(f, INDICES, kind="softmax", similarity="dot")


def by_optimizer(model, x, steps, lr, objective=loss):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    outputs = [model(x).detach()]
    for _ in range(steps):
        optimizer.zero_grad()
        objective(model(x)).backward()
        optimizer.step()
        outputs.append(model(x).detach())
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (net, X),
        (lambda: MLP(4, [8, 8], 2, generator=seeded(), dtype=torch.float64), X),
        (
            lambda: ConvNet((4, 4), [3], 2, generator=seeded(), dtype=torch.float64),
            normal(6, 4, 4, seed=8),
        ),
    ],
)
def test_training_is_gradient_descent(make, x):
    model = make()
    expected = by_optimizer(copy.deepcopy(model), x, 5, 0.3)
    seen = []
    found = flows.train(model, x, gradient, lr=0.3, times=[0, 2, 5], watch=seen.append)
    torch.testing.assert_close(found, expected[[0, 2, 5]])
    torch.testing.assert_close(model(x).detach(), expected[5])
    assert seen == [0, 2, 5]
    assert all(p.grad is None for p in model.parameters())


def test_watch_sees_the_model_of_its_time():
    model, seen = net(), []
    outputs = flows.train(
        model, X, gradient, lr=0.3, times=[1, 3], watch=lambda t: seen.append(model(X).detach())
    )
    torch.testing.assert_close(outputs, torch.stack(seen))


def test_frozen_parameters_stay():
    model = net()
    model.hidden.requires_grad_(False)
    before = model.hidden.clone()
    flows.train(model, X, gradient, lr=0.3, times=[3])
    assert torch.equal(model.hidden, before)


def test_a_stack_trains_its_networks_apart():
    nets = [net(seed=s) for s in range(3)]
    stack = TwoLayer.stacked(nets)
    together = flows.train(stack, X, gradient, lr=0.3, times=[0, 4])
    for i, each in enumerate(nets):
        torch.testing.assert_close(
            together[:, i], flows.train(each, X, gradient, lr=0.3, times=[0, 4])
        )


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("inputs", [X, normal(3, 6, 4, seed=5), normal(2, 1, 6, 4, seed=5)])
def test_parts_of_the_units_move_as_the_whole(activation, inputs, monkeypatch):
    """Twenty units in parts of seven, by inputs shared, of each network's own, or many at once."""
    monkeypatch.setattr(flows, "UNITS", 7)
    monkeypatch.setattr(flows, "ENTRIES", {"cpu": 1})
    stack = TwoLayer.stacked([net(seed=s, activation=activation) for s in range(3)])
    expected = by_optimizer(
        copy.deepcopy(stack), inputs, 3, 0.3, lambda f: loss(f.flatten(0, -3)).sum()
    )
    found = flows.train(stack, inputs, gradient, lr=0.3, times=[0, 1, 3])
    torch.testing.assert_close(found, expected[[0, 1, 3]])


def test_a_network_with_a_forward_pass_of_its_own_keeps_it():
    class Halved(TwoLayer):
        def forward(self, x):
            return super().forward(x) / 2

    model = Halved(4, 20, 2, activation="erf", generator=seeded(), dtype=torch.float64)
    expected = by_optimizer(copy.deepcopy(model), X, 2, 0.3)
    torch.testing.assert_close(flows.train(model, X, gradient, lr=0.3, times=[0, 2]), expected[::2])


def test_inputs_of_another_dimension_are_refused():
    with pytest.raises(ValueError, match=r"x must have shape \(n, 4\), got shape \(6, 3\)"):
        flows.train(net(), X[:, :3], gradient, lr=0.3, times=[1])


def test_a_small_step_is_a_step_of_the_kernel():
    model = net()
    kernel, start = ntk.two_layer(model, X).detach(), model(X).detach()
    off = []
    for lr in (1e-3, 1e-4):
        one = flows.train(copy.deepcopy(model), X, gradient, lr=lr, times=[1])[0]
        off.append(((one - flows.frozen(kernel, start, gradient, lr=lr, times=[1])[0]) / lr).norm())
    assert off[0] < 1e-2
    assert off[1] / off[0] == pytest.approx(0.1, rel=0.01)


def test_frozen_descent_solves_the_linear_equation():
    """Of the quadratic loss: F_t = F* + (I - lr K)^t (F_0 - F*), block by block."""
    model, target = net(), normal(6, 2, seed=3)
    kernel = ntk.two_layer(model, X).detach()
    matrix = kernel.permute(0, 2, 1, 3).reshape(12, 12)
    start = model(X).detach()
    found = flows.frozen(kernel, start, lambda f: f - target, lr=0.1, times=[0, 1, 7])
    step = torch.eye(12, dtype=torch.float64) - 0.1 * matrix
    for t, f in zip((0, 1, 7), found, strict=True):
        power = torch.linalg.matrix_power(step, t)
        expected = target.flatten() + power @ (start - target).flatten()
        torch.testing.assert_close(f.flatten(), expected)


def test_a_plain_matrix_stands_for_its_multiple_of_the_identity():
    gram, start = X @ X.T, normal(6, 2, seed=3)
    whole = gram[..., None, None] * torch.eye(2, dtype=torch.float64)
    settings = {"lr": 0.1, "times": [0, 5]}
    torch.testing.assert_close(
        flows.frozen(gram, start, gradient, **settings),
        flows.frozen(whole, start, gradient, **settings),
    )


def test_frozen_descent_is_descent_of_a_linear_model():
    """Its kernel J J^T tells the outputs of a pair apart, which that of two layers does not."""
    jacobian, weights = normal(4, 2, 9, seed=1), normal(9, seed=2)
    kernel = torch.einsum("nip,mjp->nmij", jacobian, jacobian)
    assert (kernel - kernel.mT).abs().max() > 1
    start, outputs = jacobian @ weights, []
    for _ in range(3):
        outputs.append(jacobian @ weights)
        weights = weights - 0.02 * torch.einsum("nip,ni->p", jacobian, outputs[-1].tanh())
    found = flows.frozen(kernel, start, torch.tanh, lr=0.02, times=[0, 1, 2])
    torch.testing.assert_close(found, torch.stack(outputs), rtol=0, atol=1e-12)


def test_frozen_descent_of_a_stack():
    nets = [net(seed=s) for s in range(3)]
    stack = TwoLayer.stacked(nets)
    settings = {"lr": 0.1, "times": [0, 5]}
    together = flows.frozen(
        ntk.two_layer(stack, X).detach(), stack(X).detach(), gradient, **settings
    )
    one = flows.frozen(
        ntk.two_layer(nets[1], X).detach(), nets[1](X).detach(), gradient, **settings
    )
    torch.testing.assert_close(together[:, 1], one)


def test_free_outputs_descend_and_are_retracted():
    start = normal(5, 3)
    found = flows.descend(start, lambda f: f - 1, lr=0.1, times=[0, 3])
    torch.testing.assert_close(found[1], 1 + 0.9**3 * (start - 1))
    normalise = torch.nn.functional.normalize
    on_sphere = flows.descend(start, lambda f: f - 1, lr=0.1, times=[1], retract=normalise)
    torch.testing.assert_close(on_sphere[0], normalise(start - 0.1 * (start - 1)))


def test_geodesic_step_follows_the_exponential():
    """At equal speed, X(t) = expm(t [0 -B'; B 0]) applied in the frame (W, W_perp)."""
    q = torch.linalg.qr(normal(6, 6)).Q
    w, rest = q[:, :2], q[:, 2:]
    by_w = normal(6, 2, seed=1)
    b = -0.3 * rest.T @ by_w
    generator = torch.zeros(6, 6, dtype=torch.float64)
    generator[2:, :2], generator[:2, 2:] = b, -b.T
    expected = q @ torch.linalg.matrix_exp(generator)[:, :2]
    torch.testing.assert_close(flows.geodesic_step(w, by_w, 0.3), expected)


def test_geodesic_steps_stay_orthonormal_and_descend():
    model = net(width=30)
    model.readout.data = torch.linalg.qr(model.readout.data).Q
    middle = triplets.matrix(INDICES, 6)
    losses = []

    def watch(t):
        f = model(X).detach()
        losses.append(float(-(f.T @ middle @ f).trace()))

    linear = {"kind": "linear", "similarity": "dot"}
    flows.train_orthonormal(
        model,
        X,
        lambda f: triplets.gradient(f, INDICES, **linear),
        lr=0.5,
        times=range(0, 801, 40),
        watch=watch,
        hidden=False,
    )
    gram = model.readout.T @ model.readout
    assert (gram - torch.eye(2, dtype=torch.float64)).abs().max() < 1e-14
    assert all(b <= a + 1e-14 for a, b in pairwise(losses))
    space = pca.eigenspace(model.features(X).detach(), middle, 2)
    assert losses[-1] == pytest.approx(-float(space.values[:2].sum()), rel=1e-9)
    assert pca.principal_angles(model.readout.detach(), space.vectors).max() < 1e-3


def test_hidden_weights_move_by_the_plain_gradient():
    model = net()
    model.readout.data = torch.linalg.qr(model.readout.data).Q
    reference = copy.deepcopy(model)
    loss(reference(X)).backward()
    flows.train_orthonormal(model, X, gradient, lr=0.2, times=[1])
    torch.testing.assert_close(model.hidden, reference.hidden - 0.2 * reference.hidden.grad)
    torch.testing.assert_close(
        model.readout, flows.geodesic_step(reference.readout, reference.readout.grad, 0.2)
    )


def test_an_unstable_run_ends_in_infinities():
    found = flows.descend(torch.ones(1, 1), lambda f: -10 * f, lr=1.0, times=[0, 100])
    assert found[-1].isinf().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.0}, "lr must be a finite number above 0, got 0.0"),
        ({"lr": math.nan}, "lr must be"),
        ({"times": []}, r"times must be ascending steps of at least 0, got \[\]"),
        ({"times": [2, 1]}, r"got \[2, 1\]"),
        ({"times": [-1, 1]}, r"got \[-1, 1\]"),
        ({"gradient": lambda f: f[:1]}, r"must give the shape of the outputs, \(6, 2\)"),
    ],
)
def test_errors_say_what_is_wrong(change, message):
    start = normal(6, 2)
    settings = {"gradient": gradient, "lr": 0.1, "times": [1], **change}
    with pytest.raises(ValueError, match=message):
        flows.train(net(), X, **settings)
    with pytest.raises(ValueError, match=message):
        flows.descend(start, **settings)


def test_errors_of_kernels_and_readouts():
    start = normal(6, 2)
    for kernel in (normal(5, 5), normal(6, 6, 3, 3), normal(5, 5, 2, 2)):
        with pytest.raises(ValueError, match=r"kernel must have shape \(6, 6, 2, 2\) or \(6, 6\)"):
            flows.frozen(kernel, start, gradient, lr=0.1, times=[1])
    with pytest.raises(ValueError, match="readout must have orthonormal columns, got some off by"):
        flows.train_orthonormal(net(), X, gradient, lr=0.1, times=[1])
    with pytest.raises(ValueError, match="gradient must have the shape of w"):
        flows.geodesic_step(torch.eye(3)[:, :2], torch.ones(3, 1), 0.1)
