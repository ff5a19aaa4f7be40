"""NeuralEF and Neural Eigenmap against linear algebra, finite differences and known spectra."""

from itertools import permutations

import pytest
import torch
from torch.nn.functional import normalize

from cltheory.eigenfunctions import (
    alpha_threshold,
    ascend,
    cosines,
    l2_normalise,
    neural_eigenmap_direction,
    neural_eigenmap_loss,
    neuralef_direction,
    neuralef_loss,
    predicted_order,
    rayleigh,
    subspace_error,
)

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def psd(n, seed=0):
    factor = draw(n, n, seed=seed)
    return factor @ factor.T / n


def case(n=7, k=3, weighted=False):
    weights = draw(n, seed=3).softmax(0) if weighted else None
    return l2_normalise(draw(n, k, seed=1), weights), psd(n, seed=2), weights


def operator_and_columns(psi, gram, weights):
    root = (torch.full((len(psi),), 1 / len(psi), dtype=F64) if weights is None else weights).sqrt()
    return root[:, None] * gram * root, root[:, None] * psi, root


@pytest.mark.parametrize("weighted", [False, True])
def test_rayleigh_and_losses_by_loops(weighted):
    psi, gram, weights = case(weighted=weighted)
    law = torch.full((7,), 1 / 7, dtype=F64) if weights is None else weights
    assert torch.allclose((law[:, None] * psi**2).sum(0), torch.ones(3, dtype=F64))

    def entry(i, j):
        return sum(
            law[a] * law[b] * psi[a, i] * gram[a, b] * psi[b, j] for a in range(7) for b in range(7)
        )

    r = torch.stack([torch.stack([entry(i, j) for j in range(3)]) for i in range(3)])
    torch.testing.assert_close(rayleigh(psi, gram, weights), r)
    pairs = [(i, j) for j in range(3) for i in range(j)]
    neuralef = -(r.trace() - sum(r[i, j] ** 2 / r[i, i] for i, j in pairs))
    eigenmap = -r.trace() + 0.7 * sum(r[i, j] ** 2 for i, j in pairs)
    for stop_gradient in (True, False):
        loss = neuralef_loss(psi, gram, weights, stop_gradient=stop_gradient)
        torch.testing.assert_close(loss, neuralef)
    torch.testing.assert_close(neural_eigenmap_loss(psi, gram, weights, alpha=0.7), eigenmap)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("method", ["neuralef", "neural_eigenmap"])
def test_gradient_is_minus_twice_the_direction(weighted, method):
    psi, gram, weights = case(weighted=weighted)
    operator, columns, root = operator_and_columns(psi, gram, weights)
    psi.requires_grad_()
    if method == "neuralef":
        loss, direction = neuralef_loss(psi, gram, weights), neuralef_direction(operator, columns)
    else:
        loss = neural_eigenmap_loss(psi, gram, weights, alpha=0.7)
        direction = neural_eigenmap_direction(operator, columns, alpha=0.7)
    (gradient,) = torch.autograd.grad(loss, psi)
    torch.testing.assert_close(gradient, -2 * root[:, None] * direction)


def test_gradients_are_those_of_each_function_with_the_earlier_ones_fixed():
    psi, gram, _ = case()

    for j in range(3):

        def neuralef(column, j=j):
            return neuralef_loss(torch.cat([psi[:, :j], column[:, None]], 1), gram)

        def eigenmap(column, j=j):
            return neural_eigenmap_loss(
                torch.cat([psi[:, :j], column[:, None]], 1), gram, alpha=0.7
            )

        column = psi[:, j].clone().requires_grad_()
        for loss in (neuralef, eigenmap):
            assert torch.autograd.gradcheck(loss, column)
            assert torch.autograd.gradgradcheck(loss, column)


def test_joint_loss_has_true_derivatives():
    psi, gram, weights = case(weighted=True)
    psi.requires_grad_()

    def joint(psi):
        return neuralef_loss(l2_normalise(psi, weights), gram, weights, stop_gradient=False)

    assert torch.autograd.gradcheck(joint, psi)
    assert torch.autograd.gradgradcheck(joint, psi)
    assert torch.func.hessian(joint)(psi.detach()).shape == (7, 3, 7, 3)


def test_transforms():
    grams = torch.stack([psd(7, seed=s) for s in range(3)])
    psis = torch.stack([l2_normalise(draw(7, 3, seed=s)) for s in range(3)])
    batched = torch.func.vmap(torch.func.grad(neuralef_loss))(psis, grams)
    alone = torch.stack(
        [torch.func.grad(neuralef_loss)(p, g) for p, g in zip(psis, grams, strict=True)]
    )
    torch.testing.assert_close(batched, alone)


def test_ascent_finds_the_ordered_eigenvectors():
    values = torch.tensor([3.0, 2.2, 1.5, 1.0, 0.2, 0.0], dtype=F64)
    basis = torch.linalg.qr(draw(6, 6)).Q
    operator = basis * values @ basis.T
    starts = draw(20, 6, 3, seed=1)
    found = ascend(lambda psi: neuralef_direction(operator, psi), starts, step=0.3, steps=1500)
    # Three functions and the fourth eigenvalue positive: distinct, so signs alone are free.
    assert (basis[:, :3].T @ found).abs().sub(torch.eye(3, dtype=F64)).abs().max() < 1e-9


def test_direction_is_batched():
    operators = torch.stack([psd(6, seed=s) for s in range(2)])
    psi = normalize(draw(2, 6, 3), dim=-2)
    for direction in (neuralef_direction, lambda a, p: neural_eigenmap_direction(a, p, alpha=0.7)):
        alone = torch.stack([direction(a, p) for a, p in zip(operators, psi, strict=True)])
        torch.testing.assert_close(direction(operators, psi), alone)


def test_repeated_and_permuted_eigenvectors_are_fixed_but_unstable():
    operator = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=F64))
    eye = torch.eye(4, dtype=F64)
    mixed = eye[:, :1] * 0.6 + eye[:, 1:2] * 0.8

    def move(psi):
        return neuralef_direction(operator, psi)

    for start in (eye[:, [1, 0]], eye[:, [0, 0]], torch.cat([eye[:, :2], mixed], 1)):
        assert (ascend(move, start, step=0.1, steps=1) - start).abs().max() < 1e-14
        kicked = start + 1e-6 * draw(*start.shape)
        end = ascend(move, kicked, step=0.3, steps=400)
        assert (end.abs() - eye[:, : start.shape[1]]).abs().max() < 1e-6


def test_joint_loss_exceeds_the_eigenvalues():
    angles = torch.arange(3, dtype=F64) * 2 * torch.pi / 3
    columns = torch.stack([angles.cos(), angles.sin(), torch.zeros(3, dtype=F64)])
    gram = 3 * torch.diag(torch.tensor([1.0, 1.0, 0.05], dtype=F64))
    mercedes = neuralef_loss(l2_normalise(columns), gram, stop_gradient=False)
    ordered = neuralef_loss(l2_normalise(torch.eye(3, dtype=F64)), gram, stop_gradient=False)
    assert mercedes.item() == pytest.approx(-2.25)
    assert ordered.item() == pytest.approx(-2.05)


def test_every_order_is_a_local_minimum_of_the_joint_loss():
    gram = 4 * torch.diag(torch.tensor([1.0, 0.6, 0.3, 0.1], dtype=F64))

    def joint(coordinates, order):
        psi = torch.eye(4, dtype=F64)[:, list(order)]
        tangent = coordinates.view(4, 3) * (psi == 0)
        return neuralef_loss(l2_normalise(psi + tangent), gram, stop_gradient=False)

    for order in permutations(range(3)):
        zero = torch.zeros(12, dtype=F64)
        assert torch.func.grad(joint)(zero, order).abs().max() < 1e-14
        curvatures = torch.linalg.eigvalsh(torch.func.hessian(joint)(zero, order))
        assert (curvatures.abs() < 1e-10).sum() == 3  # the entries that the tangent leaves out
        assert curvatures.min() > -1e-10


@pytest.mark.parametrize("alpha", [0.15, 0.25, 0.39, 0.41, 0.54, 1.0, 3.0])
def test_predicted_order_is_what_ascent_finds(alpha):
    values = [1.0, 0.6, 0.5, 0.2]
    operator = torch.diag(torch.tensor(values, dtype=F64))
    found = ascend(
        lambda psi: neural_eigenmap_direction(operator, psi, alpha=alpha),
        draw(10, 4, 3),
        step=0.5,
        steps=6000,
    )
    expected = torch.eye(4, dtype=F64)[:, predicted_order(values, 3, alpha)]
    assert (found.abs() - expected).abs().max() < 1e-3


def test_threshold_separates():
    for seed in range(20):
        values = draw(6, seed=seed).abs().add(0.01).sort(descending=True).values
        threshold = alpha_threshold(values, 4)
        brute = max(
            (values[i] - values[j]).item() / values[i].item() ** 2
            for j in range(4)
            for i in range(j)
        )
        assert threshold == pytest.approx(brute)
        assert threshold <= 1 / (4 * values[3].item()) + 1e-12
        assert predicted_order(values, 4, 1.001 * threshold) == [0, 1, 2, 3]
        assert predicted_order(values, 4, 0.999 * threshold) != [0, 1, 2, 3]
    assert alpha_threshold([2.0, 1.0], 1) == 0


def test_vanishing_function_is_no_division_by_zero():
    gram = torch.diag(torch.tensor([0.0, 1.0, 2.0], dtype=F64))
    psi = torch.eye(3, dtype=F64)
    assert neuralef_direction(gram, psi).isfinite().all()
    assert neuralef_loss(l2_normalise(psi), gram).item() == pytest.approx(-1)


def test_cosines_and_subspace_error():
    basis, weights = draw(9, 3), draw(9, seed=5).softmax(0)
    mixed = basis @ draw(3, 3, seed=2)
    assert subspace_error(mixed, basis, weights) < 1e-12
    torch.testing.assert_close(cosines(-2 * basis, basis, weights), torch.ones(3, dtype=F64))
    other = draw(9, 3, seed=7)
    p, q = (torch.linalg.qr(weights.sqrt()[:, None] * b).Q for b in (other, basis))
    distance = torch.linalg.matrix_norm(p @ p.T - q @ q.T, ord=2)
    torch.testing.assert_close(subspace_error(other, basis, weights), distance)
    flat = torch.full((9,), 1 / 9, dtype=F64)
    torch.testing.assert_close(subspace_error(other, basis), subspace_error(other, basis, flat))
    torch.testing.assert_close(cosines(other, basis), cosines(other, basis, flat))


def test_makes_nothing_on_the_default_device():
    psi, gram, weights = case(weighted=True)
    torch.set_default_device("meta")
    try:
        results = [
            l2_normalise(psi, weights),
            rayleigh(psi, gram),
            neuralef_loss(psi, gram),
            neural_eigenmap_loss(psi, gram, weights, alpha=1.0),
            ascend(lambda p: neuralef_direction(gram, p), psi, step=0.1, steps=2),
            ascend(lambda p: neural_eigenmap_direction(gram, p, alpha=1.0), psi, step=0.1, steps=2),
            cosines(psi, psi, weights),
            subspace_error(psi, psi, weights),
        ]
    finally:
        torch.set_default_device(None)
    assert all(result.device.type == "cpu" and result.dtype == F64 for result in results)


PSI, GRAM = torch.ones(4, 2), torch.eye(4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: l2_normalise(torch.ones(4)), "psi must be a matrix"),
        (lambda: l2_normalise(torch.ones(0, 2)), "psi must be a matrix"),
        (lambda: l2_normalise(PSI, torch.ones(3)), r"weights must have shape \(4,\).*\(3,\)"),
        (lambda: rayleigh(PSI, torch.eye(3)), r"gram must have shape \(4, 4\), got shape \(3, 3\)"),
        (lambda: neuralef_loss(PSI, torch.ones(4, 3)), "gram must have shape"),
        (lambda: neural_eigenmap_loss(PSI, GRAM, alpha=-1.0), "alpha must be .* got -1"),
        (lambda: neural_eigenmap_direction(GRAM, PSI, alpha=float("nan")), "alpha must be"),
        (lambda: neuralef_direction(torch.eye(3), PSI), "operator must have shape"),
        (lambda: neuralef_direction(GRAM, torch.ones(4)), "operator must have shape"),
        (lambda: ascend(lambda p: p, PSI, step=0.0, steps=1), "step must be"),
        (lambda: ascend(lambda p: p, PSI, step=0.1, steps=-1), "steps must be"),
        (lambda: predicted_order([1.0, 2.0], 1, 1.0), "eigenvalues must be .*descending"),
        (lambda: predicted_order([1.0, -2.0], 1, 1.0), "eigenvalues must be .*not negative"),
        (lambda: predicted_order([float("nan")], 1, 1.0), "eigenvalues must be finite"),
        (lambda: predicted_order([2.0, 1.0], 3, 1.0), "rank must be an integer between 1 and 2"),
        (lambda: predicted_order([2.0, 1.0], 2, -1.0), "alpha must be"),
        (lambda: alpha_threshold([1.0, 0.0], 2), "eigenvalues must be positive up to the 2th"),
        (lambda: cosines(PSI, torch.ones(4, 3)), r"reference must have psi's shape \(4, 2\)"),
        (lambda: subspace_error(PSI, torch.ones(5, 2)), "reference must have psi's shape"),
        (lambda: subspace_error(PSI, PSI / 0), "reference must be finite"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
