"""An average of weights against its sum, its lag and its variance; a queue against a plain list."""

import copy

import pytest
import torch
from torch import nn

from cltheory.memory import Momentum, Queue


def scalar(value):
    net = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(net.weight, value)
    return net


def walk(momentum, weights):
    """Weights of a copy that follows a network through these weights."""
    net = scalar(weights[0])
    slow, path = Momentum(net, momentum), []
    for weight in weights:
        nn.init.constant_(net.weight, weight)
        slow.follow(net)
        path.append(float(slow.net.weight))
    return torch.tensor(path, dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.99, 1.0])
def test_the_copy_is_a_geometric_sum(momentum):
    weights = torch.randn(30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = walk(momentum, weights.tolist())
    for t in (0, 1, 7, 29):
        past = [(1 - momentum) * momentum ** (t - s) * float(weights[s]) for s in range(1, t + 1)]
        assert float(path[t]) == pytest.approx(momentum**t * float(weights[0]) + sum(past))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_lag_behind_a_drift(momentum):
    v = 0.25
    weights = [v * t for t in range(400)]
    lag = weights[-1] - float(walk(momentum, weights)[-1])
    assert lag == pytest.approx(v * momentum / (1 - momentum), abs=1e-10)


def test_variance_of_noise():
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    path = walk(0.8, noise[:20_000].tolist())[100:]
    assert float(path.var()) == pytest.approx((1 - 0.8) / (1 + 0.8), rel=0.1)
    assert float(path.diff().var()) == pytest.approx(2 * 0.2**2 / 1.8, rel=0.1)


def test_the_copy_is_apart_and_has_no_gradient():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    slow = Momentum(net, 0.9)
    x = torch.randn(5, 3)
    torch.testing.assert_close(slow(x), net(x), rtol=0, atol=0)
    assert not slow(x.requires_grad_()).requires_grad
    assert not any(p.requires_grad for p in slow.parameters())
    assert all(p.requires_grad for p in net.parameters())
    before = slow(x)
    nn.init.zeros_(net[0].weight)
    torch.testing.assert_close(slow(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match=f"momentum must be between 0 and 1, got {momentum}"):
        Momentum(scalar(0.0), momentum)


@pytest.mark.parametrize("size", [5, 7, 12])
def test_the_queue_is_a_list_of_the_last_keys(size):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(size, 2, generator=generator)
    queue, plain = Queue(first), first.flip(0).tolist()
    for number in (3, 5, 1, 4, 5, 2):
        keys = torch.randn(number, 2, generator=generator)
        queue.push(keys)
        plain = (keys.flip(0).tolist() + plain)[:size]
        assert queue.newest_first().tolist() == plain
        assert sorted(queue.keys.tolist()) == sorted(plain)


def test_the_queue_keeps_copies_and_no_graph():
    first = torch.zeros(4, 2)
    queue = Queue(first)
    keys = torch.ones(2, 2, requires_grad=True)
    queue.push(2 * keys)
    assert first.sum() == 0
    assert not queue.keys.requires_grad


def test_the_queue_is_resumed_from_its_state():
    queue = Queue(torch.zeros(5, 1))
    queue.push(torch.tensor([[1.0], [2.0], [3.0]]))
    other = Queue(torch.zeros(5, 1))
    other.load_state_dict(queue.state_dict())
    for one in (queue, other, copy.deepcopy(queue)):
        one.push(torch.tensor([[4.0], [5.0], [6.0]]))
        assert one.newest_first()[:, 0].tolist() == [6, 5, 4, 3, 2]


def test_where_the_default_device_holds_no_values():
    torch.set_default_device("meta")
    try:
        first = torch.zeros(3, 2, device="cpu")
        queue = Queue(first)
        queue.push(first[:2] + 1)
        found = queue.newest_first()
        slow = Momentum(nn.Linear(2, 1, device="cpu"), 0.5)
        slow.follow(nn.Linear(2, 1, device="cpu"))
    finally:
        torch.set_default_device(None)
    assert found.sum() == 4
    assert slow(first).device.type == "cpu"


def test_bad_keys():
    with pytest.raises(ValueError, match=r"keys must be a matrix, one key a row, got shape \(3,\)"):
        Queue(torch.zeros(3))
    with pytest.raises(ValueError, match="keys must hold at least 1"):
        Queue(torch.zeros(0, 3))
    queue = Queue(torch.zeros(4, 2))
    with pytest.raises(ValueError, match="queue must hold at least a batch of 5 keys, got 4"):
        queue.push(torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"keys must have shape \(b, 2\), got shape \(2, 3\)"):
        queue.push(torch.zeros(2, 3))
