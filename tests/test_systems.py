"""A system against steps by hand; what it keeps, what it trains, what it refuses."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn import functional

from cltheory import losses, networks
from cltheory.systems import Method, System


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=rng(seed), dtype=torch.float64)


def mlp(in_dim, out_dim, seed=0, widths=(7,)):
    return networks.MLP(in_dim, widths, out_dim, generator=rng(seed), dtype=torch.float64)


def contrast(z1, z2):
    return losses.info_nce(z1, z2, temperature=0.5)


def seen(z1, z2, **others):
    """A loss that tells what it was given."""
    seen.calls.append((z1, z2, others))
    return (z1 * z2).sum()


X1, X2 = draw(6, 3, seed=1), draw(6, 3, seed=2)
PLAIN = Method("plain", seen)


@pytest.fixture(autouse=True)
def calls():
    seen.calls = []
    return seen.calls


def build(method=PLAIN, **parts):
    parts = {"head": mlp(5, 4, seed=1), "dim": 4, "generator": rng(3), **parts}
    return System(method, mlp(3, 5), **parts)


def unit(z):
    return z / z.square().sum(1, keepdim=True).sqrt()


def test_features_are_of_the_head_of_the_encoder():
    system = build()
    z = system.head(system.encoder(X1))
    torch.testing.assert_close(system(X1), unit(z))
    torch.testing.assert_close(build(replace(PLAIN, unit=False))(X1), z)
    torch.testing.assert_close(build(head=None)(X1), unit(mlp(3, 5)(X1)))


def test_a_tied_target_has_a_gradient(calls):
    system = build()
    loss = system.step(X1, X2)
    ((z1, z2, others),) = calls
    torch.testing.assert_close(z1, system(X1))
    torch.testing.assert_close(z2, system(X2))
    assert others == {}
    leaves = list(system.parameters())
    expected = torch.autograd.grad((system(X1) * system(X2)).sum(), leaves)
    torch.testing.assert_close(torch.autograd.grad(loss, leaves), expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_stopped_target_has_none(symmetric):
    """The gradient is that of the predictions, with the targets as constants."""
    system = build(replace(PLAIN, target="stop-gradient", symmetric=symmetric))
    leaves = list(system.parameters())
    ours = torch.autograd.grad(system.step(X1, X2), leaves)
    sides = [(X1, X2), (X2, X1)][: 1 + symmetric]
    terms = [(system(a) * system(b).detach()).sum() for a, b in sides]
    expected = torch.autograd.grad(torch.stack(terms).mean(), leaves)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_copy_gives_targets_and_follows(calls, symmetric):
    system = build(replace(PLAIN, target=0.75, symmetric=symmetric))
    start = copy.deepcopy(system.online)
    system.step(X1, X2)
    torch.testing.assert_close(calls[0][1], unit(start(X2)))
    assert len(calls) == 1 + symmetric
    with torch.no_grad():
        for weight in system.online.parameters():
            weight += 1.0
    torch.testing.assert_close(system.copy(X2), start(X2))
    calls.clear()
    system.step(X1, X2)
    with torch.no_grad():
        for weight in start.parameters():
            weight += 0.25
    torch.testing.assert_close(calls[0][0], system(X1))
    torch.testing.assert_close(calls[0][1], unit(start(X2)))
    assert not calls[0][1].requires_grad
    if symmetric:
        torch.testing.assert_close(calls[1][0], system(X2))
        torch.testing.assert_close(calls[1][1], unit(start(X1)))


def test_only_predictions_pass_the_predictor(calls):
    predictor = mlp(4, 4, seed=5)
    system = build(replace(PLAIN, predictor=True), predictor=predictor)
    system.step(X1, X2)
    ((prediction, target, _),) = calls
    torch.testing.assert_close(prediction, predictor(system(X1)))
    torch.testing.assert_close(target, system(X2))
    assert set(predictor.parameters()) <= set(system.parameters())


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_queue_holds_the_targets_of_past_steps(calls, symmetric):
    system = build(replace(PLAIN, queue=30, symmetric=symmetric, target=0.5))
    first = system.queue.newest_first()
    torch.testing.assert_close(first.norm(dim=1), torch.ones(30, dtype=torch.float64))
    past = []
    for number in range(4):
        x1, x2 = draw(6, 3, seed=10 + number), draw(6, 3, seed=20 + number)
        calls.clear()
        system.step(x1, x2)
        queue = calls[0][2]["queue"]
        expected = torch.cat([*(keys.flip(0) for keys in past[::-1]), first])[:30]
        torch.testing.assert_close(system.queue.newest_first(), expected)
        assert queue is system.queue.keys
        past.append(torch.cat([target for _, target, _ in calls]))


def test_a_backward_pass_sees_the_queue_as_it_was():
    method = Method("queue", lambda q, k, queue: (q @ queue.T).square().sum(), queue=12)
    system = build(method)
    for _ in range(3):  # PyTorch refuses a graph whose tensors were changed in place
        system.step(X1, X2).backward()


def test_a_look_at_the_loss_changes_nothing():
    system = build(replace(PLAIN, queue=12, target=0.5))
    system.step(X1, X2)
    before = copy.deepcopy(system.state_dict())
    for _ in range(2):
        system.loss(X1, X2)
    torch.testing.assert_close(system.state_dict(), before)


def test_prototypes_are_trained_as_unit_rows(calls):
    system = build(replace(PLAIN, prototypes=9))
    assert system.prototypes.shape == (9, 4)
    assert any(p is system.prototypes for p in system.parameters())
    with torch.no_grad():
        system.prototypes.mul_(3)
    system.step(X1, X2)
    prototypes = calls[0][2]["prototypes"]
    torch.testing.assert_close(prototypes, system.prototypes / 3)
    assert prototypes.requires_grad


def test_learned_numbers_are_trained(calls):
    method = Method(
        "scaled", lambda a, b, scale: scale * (a * b).sum() + scale**2, learned={"scale": 3.0}
    )
    system = build(method)
    loss = system.step(X1, X2)
    (slope,) = torch.autograd.grad(loss, system.learned["scale"])
    torch.testing.assert_close(slope, (system(X1) * system(X2)).sum() + 6)


def test_batch_statistics_are_those_of_one_view(calls):
    system = System(replace(PLAIN, unit=False), nn.BatchNorm1d(3, affine=False).double())
    system.step(X1, 5 + 3 * X1)
    ((z1, z2, _),) = calls
    torch.testing.assert_close(z1, z2, rtol=1e-4, atol=1e-4)


def test_one_step_by_hand():
    """A gradient step of a linear map under a stopped target, from the formula."""
    net = nn.Linear(3, 2, bias=False, dtype=torch.float64)
    method = Method("linear", lambda p, t: -(p * t).sum(), unit=False, target="stop-gradient")
    system, w = System(method, net), net.weight.detach().clone()
    optimizer = torch.optim.SGD(system.parameters(), lr=0.1)
    system.step(X1, X2).backward()
    optimizer.step()
    torch.testing.assert_close(net.weight.detach(), w + 0.1 * (X2 @ w.T).T @ X1)


def test_transforms_go_through_the_loss():
    system = build(Method("contrast", contrast))
    weights = dict(system.named_parameters())

    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.system = system

        def forward(self, a, b):
            return self.system.loss(a, b)

    slopes = grad(
        lambda w: functional_call(Loss(), {f"system.{k}": v for k, v in w.items()}, (X1, X2))
    )(weights)
    expected = torch.autograd.grad(system.loss(X1, X2), list(weights.values()))
    torch.testing.assert_close(tuple(slopes.values()), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_of_the_dtype_of_the_network(calls, dtype):
    method = replace(PLAIN, queue=12, prototypes=3, target=0.5, learned={"scale": 1.0})
    system = System(method, mlp(3, 4).to(dtype), dim=4, generator=rng())
    system.step(X1.to(dtype), X2.to(dtype))
    floating = [t for t in system.state_dict().values() if t.is_floating_point()]
    assert {t.dtype for t in floating} == {dtype}
    one, two, others = calls[0]
    assert {t.dtype for t in (one, two, *others.values())} == {dtype}


def test_where_the_default_device_holds_no_values(calls):
    method = replace(PLAIN, queue=12, prototypes=3, target=0.5, learned={"scale": 1.0})
    torch.set_default_device("meta")
    try:
        system = System(method, mlp(3, 4), dim=4, generator=rng())
        for _ in range(3):
            system.step(X1, X2).backward()
    finally:
        torch.set_default_device(None)
    assert {t.device.type for t in system.state_dict().values()} == {"cpu"}


def test_a_system_is_resumed_from_its_state():
    method = Method("queue", lambda q, k, queue: (q @ queue.T).square().sum(), queue=12, target=0.9)
    one, two = build(method), build(method, generator=rng(9))
    for system in (one, two):
        system.step(X1, X2)
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(one.loss(X1, X2), two.loss(X1, X2), rtol=0, atol=0)


LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def test_labels_are_handed_over(calls):
    build(replace(PLAIN, labels=True)).step(X1, X2, LABELS)
    assert calls[0][2]["labels"] is LABELS


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"target": "slow"},
            "target must be 'tied', 'stop-gradient' or the momentum .* got 'slow'",
        ),
        ({"target": 1.5}, "momentum of the target must be between 0 and 1, got 1.5"),
        ({"target": -0.1}, "momentum of the target must be between 0 and 1, got -0.1"),
        ({"target": math.nan}, "momentum of the target must be between 0 and 1, got nan"),
        ({"queue": -1}, "queue must be an integer of at least 0, got -1"),
        ({"queue": 2.5}, "queue must be an integer of at least 0, got 2.5"),
        ({"prototypes": 1}, "prototypes must be at least two, or 0 for none, got 1"),
        ({"prototypes": -3}, "prototypes must be an integer of at least 0, got -3"),
    ],
)
def test_bad_method(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PLAIN, **change)


@pytest.mark.parametrize(
    ("change", "parts", "words"),
    [
        ({}, {"predictor": nn.Identity()}, "predictor must be None, as plain has none, got one"),
        ({"predictor": True}, {}, "predictor must be a module, as plain has one, got None"),
        ({"queue": 8}, {"dim": None}, "dim must be the number of features for plain, got None"),
        ({"prototypes": 8}, {"dim": None}, "dim must be the number of features for plain"),
        ({"queue": 8}, {"dim": 0}, "dim must be an integer of at least 2, got 0"),
    ],
)
def test_bad_parts(change, parts, words):
    with pytest.raises(ValueError, match=words):
        build(replace(PLAIN, **change), **parts)


@pytest.mark.parametrize(
    ("change", "batch", "words"),
    [
        ({}, (X1[:1], X2[:1]), "first and second must hold as many points, at least 2, got 1 and"),
        ({}, (X1, X2[:5]), "first and second must hold as many points, at least 2, got 6 and 5"),
        ({"queue": 5}, (X1, X2), "queue must hold at least a batch of 6 keys, got 5"),
        ({"queue": 11, "symmetric": True}, (X1, X2), "queue must hold .* 12 keys, got 11"),
        ({"labels": True}, (X1, X2), "labels must be one for each sample for plain, got None"),
        ({}, (X1, X2, LABELS), "labels must be None for plain, got tensor"),
        ({"labels": True}, (X1, X2, LABELS[:5]), r"labels must have shape \(6,\), got shape \(5,"),
    ],
)
def test_bad_batch(change, batch, words):
    system = build(replace(PLAIN, **change))
    with pytest.raises(ValueError, match=words):
        system.step(*batch)
    with pytest.raises(ValueError, match=words):
        system.loss(*batch)


def test_normalisation_is_that_of_the_loss():
    """Rows of any length, the features of a unit method have length one."""
    system = build()
    torch.testing.assert_close(system(100 * X1).norm(dim=1), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(functional.normalize(system(X1), dim=1), system(X1))
