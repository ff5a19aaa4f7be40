"""Population risks against sums over every tuple of negatives, one at a time."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from cltheory import pairs, risks
from cltheory.pairs import PairModel

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def model_and_critic(n=4, seed=0, scale=1.0):
    model = pairs.generic(n, generator=seeded(seed))
    return model, scale * torch.randn(n, n, generator=seeded(seed + 100), dtype=F64)


def tuples(model, critic, negatives, loss):
    """E over (x, z) ~ p_+ and independent draws of `negatives`: (law, scores of a draw at x)."""
    law, score = negatives
    n = model.states
    total = 0.0
    for x, z in product(range(n), repeat=2):
        for draw in loss["draws"]:
            weight = float(model.joint[x, z]) * math.prod(law[y] for y in draw)
            log_sum = np.logaddexp.reduce([score[x][y] for y in draw])
            total += weight * loss["value"](log_sum, float(critic[x, z]))
    return total


def entropy_loss(log_sum, positive):
    return np.logaddexp(log_sum, positive) - positive


def decoupled(log_sum, positive):
    return log_sum - positive


@pytest.mark.parametrize("method", ["enumeration", "laplace"])
@pytest.mark.parametrize("candidates", [2, 3, 4])
@pytest.mark.parametrize("proposed", [False, True])
def test_info_nce_and_dcl(method, candidates, proposed):
    model, critic = model_and_critic()
    q = torch.tensor([0.4, 0.3, 0.3, 0.0], dtype=F64) if proposed else model.marginal
    draws = list(product(range(4), repeat=candidates - 1))
    negatives = (q.tolist(), critic.tolist())
    for risk, value in [(risks.info_nce, entropy_loss), (risks.dcl, decoupled)]:
        expected = tuples(model, critic, negatives, {"draws": draws, "value": value})
        proposal = q if proposed else None
        found = risk(model, critic, candidates=candidates, proposal=proposal, method=method)
        assert found.item() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("method", ["enumeration", "laplace"])
@pytest.mark.parametrize("n_pairs", [2, 3])
def test_nt_xent(method, n_pairs):
    model, critic = model_and_critic(3)
    states = list(product(range(3), repeat=2))
    law = [float(model.joint[u, v]) for u, v in states]
    score = [[np.logaddexp(float(row[u]), float(row[v])) for u, v in states] for row in critic]
    draws = list(product(range(9), repeat=n_pairs - 1))
    expected = tuples(model, critic, (law, score), {"draws": draws, "value": entropy_loss})
    found = risks.nt_xent(model, critic, n_pairs=n_pairs, method=method)
    assert found.item() == pytest.approx(expected, rel=1e-13)


def test_nt_xent_is_the_mean_loss_of_batches():
    """Another route: the loss of whole batches of pairs, weighted by their probabilities."""
    model, critic = model_and_critic(3, seed=4)
    critic = critic + critic.T
    states = list(product(range(3), repeat=2))
    total = 0.0
    for batch in product(states, repeat=2):
        weight = math.prod(float(model.joint[pair]) for pair in batch)
        views = [pair[0] for pair in batch] + [pair[1] for pair in batch]
        logits = critic[views][:, views].clone()
        logits.fill_diagonal_(-math.inf)
        partner = torch.tensor([2, 3, 0, 1])
        total += weight * torch.nn.functional.cross_entropy(logits, partner).item()
    found = risks.nt_xent(model, critic, n_pairs=2)
    assert found.item() == pytest.approx(total, rel=1e-13)


def test_nce_binary_and_spectral_by_sums():
    model, critic = model_and_critic()
    p = model.marginal
    features = torch.randn(4, 2, generator=seeded(7), dtype=F64)
    binary = spectral = 0.0
    for x, z in product(range(4), repeat=2):
        both, apart = float(model.joint[x, z]), float(p[x] * p[z])
        s, t = float(critic[x, z]), float(features[x] @ features[z])
        binary += both * math.log1p(math.exp(-s)) + 3 * apart * math.log1p(math.exp(s))
        spectral += -2 * both * t + apart * t**2
    assert risks.nce_binary(model, critic, nu=3.0).item() == pytest.approx(binary, rel=1e-13)
    found = risks.spectral_contrastive(model, features)
    assert found.item() == pytest.approx(spectral, rel=1e-13)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0, 300.0])
@pytest.mark.parametrize("draws", [2, 5])
def test_the_two_methods_agree_for_flat_and_steep_critics(scale, draws):
    model, critic = model_and_critic(3, seed=2, scale=scale)
    for risk, count in [
        (risks.info_nce, "candidates"),
        (risks.dcl, "candidates"),
        (risks.nt_xent, "n_pairs"),
    ]:
        values, gradients = [], []
        for method in ("enumeration", "laplace"):
            f = critic.clone().requires_grad_()
            value = risk(model, f, **{count: draws}, method=method)
            values.append(value.item())
            gradients.append(torch.autograd.grad(value, f)[0])
        assert values[0] == pytest.approx(values[1], rel=1e-12, abs=1e-12)
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_many_candidates_follow_the_law_of_large_numbers():
    model = pairs.clusters()
    critic = model.kernel.log()
    found = risks.info_nce(model, critic, candidates=10**6, method="laplace").item()
    information = model.mutual_information().item()
    assert math.log(10**6) - found == pytest.approx(information, abs=2e-5)


def test_binomial_closed_form():
    """Identical views: how often the anchor's state is among the negatives is binomial."""
    n = 8
    model = PairModel(torch.eye(n, dtype=F64) / n)
    for candidates in (2, 5, 64):
        count = range(candidates)
        expected = sum(
            math.comb(candidates - 1, j)
            * (1 / n) ** j
            * (1 - 1 / n) ** (candidates - 1 - j)
            * math.log(1 + j)
            for j in count
        )
        found = risks.info_nce(
            model, 60 * torch.eye(n, dtype=F64), candidates=candidates, method="laplace"
        )
        assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("risk", [risks.info_nce, risks.dcl, risks.nt_xent])
@pytest.mark.parametrize("method", ["enumeration", "laplace"])
def test_derivatives(risk, method):
    model, critic = model_and_critic(3)
    count = "n_pairs" if risk is risks.nt_xent else "candidates"
    critic.requires_grad_()

    def value(critic):
        return risk(model, critic, **{count: 3}, method=method)

    assert torch.autograd.gradcheck(value, critic)
    assert torch.autograd.gradgradcheck(value, critic)


def test_log_kernel_is_stationary_and_shifts_of_an_anchor_change_nothing():
    model, _ = model_and_critic(5, seed=9)
    critic = (model.kernel.log() + torch.randn(5, 1, generator=seeded(), dtype=F64)).detach()
    critic.requires_grad_()
    for method, candidates in [("enumeration", 4), ("laplace", 50)]:
        risk = risks.info_nce(model, critic, candidates=candidates, method=method)
        assert torch.autograd.grad(risk, critic)[0].abs().max() < 1e-13
    shifted = risks.info_nce(model, model.kernel.log(), candidates=4)
    torch.testing.assert_close(
        risks.info_nce(model, critic.detach(), candidates=4), shifted, rtol=1e-13, atol=1e-13
    )


def test_dtype_is_kept_and_nothing_is_made_on_the_default_device():
    torch.set_default_device("meta")
    try:
        for dtype in (torch.float32, F64):
            model = pairs.clusters(dtype=dtype)
            critic = model.kernel.log()
            found = [
                risks.nce_binary(model, critic),
                risks.spectral_contrastive(model, critic),
                *(
                    value
                    for method in ("enumeration", "laplace")
                    for value in (
                        risks.info_nce(model, critic, candidates=3, method=method),
                        risks.dcl(model, critic, candidates=3, method=method),
                        risks.nt_xent(model, critic, n_pairs=3, method=method),
                    )
                ),
            ]
            assert {(value.dtype, value.device.type) for value in found} == {(dtype, "cpu")}
    finally:
        torch.set_default_device(None)


M4 = pairs.generic(4, generator=seeded())
FINE = torch.zeros(4, 4, dtype=F64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: risks.info_nce(M4, FINE[:3], candidates=2),
            r"critic must have .*\(4, 4\).*\(3, 4",
        ),
        (lambda: risks.nce_binary(M4, FINE / 0), "critic must be finite"),
        (lambda: risks.nce_binary(M4, FINE, nu=0.0), "nu must be a finite number above 0"),
        (lambda: risks.dcl(M4, FINE[0], candidates=2), "critic must have the shape"),
        (lambda: risks.nt_xent(M4, FINE[0], n_pairs=2), "critic must have the shape"),
        (lambda: risks.info_nce(M4, FINE, candidates=1), "candidates must be an integer of at"),
        (lambda: risks.dcl(M4, FINE, candidates=1), "candidates must be"),
        (lambda: risks.nt_xent(M4, FINE, n_pairs=1), "n_pairs must be"),
        (lambda: risks.info_nce(M4, FINE, candidates=2, method="exact"), "method must be"),
        (
            lambda: risks.info_nce(M4, FINE, candidates=10**4),
            "method must be 'laplace' for 9999 draws of 4 outcomes",
        ),
        (
            lambda: risks.info_nce(M4, FINE, candidates=2, proposal=FINE[0, :3]),
            r"proposal must have shape \(4,\)",
        ),
        (lambda: risks.dcl(M4, FINE, candidates=2, proposal=FINE[0]), "proposal must be a law"),
        (
            lambda: risks.dcl(
                M4, FINE, candidates=2, proposal=torch.tensor([2.0, -1.0, 0.0, 0.0], dtype=F64)
            ),
            "proposal must be a law, got entries from -1",
        ),
        (lambda: risks.spectral_contrastive(M4, FINE[:3]), r"features must have shape \(4, d\)"),
        (lambda: risks.spectral_contrastive(M4, FINE / 0), "features must be finite"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
