"""Eigenpairs, function spaces, pair laws and risks: degenerate spectra and masses near nothing."""

import math

import pytest
import torch
from cases import Case, assert_same, over
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    generator,
    grams,
    joints,
    laws,
    log_uniform,
    matrices,
    normal,
    permutation,
    points,
    rotation,
    seeds,
    sizes,
)

from cltheory import eigenfunctions, kernels, mercer, pairs, pca, risks, rkhs
from cltheory.pairs import PairModel


@st.composite
def functions(draw, columns=2):
    """A Gram matrix with functions on its points, of norm about one."""
    gram, _ = draw(grams())
    return normal(draw(seeds), len(gram), columns), gram


@st.composite
def critics(draw, least=1e-300):
    """A pair law and a matrix of scores, as a loss at a low temperature has them."""
    joint = draw(joints(least=least))
    size = draw(st.sampled_from([0.0, 1.0, 300.0]))
    return joint, size * normal(draw(seeds), *joint.shape)


frames = st.tuples(seeds, sizes).map(lambda drawn: rotation(*drawn))
columns = functions().map(lambda drawn: drawn[0])


def of_law(f, joint, *rest, **options):
    return f(PairModel(joint), *rest, **options)


def with_operator(f, psi, gram, **options):
    return f(gram, psi, **options)


def flat(f, psi, gram, **options):
    return f(gram, psi[:, -1], **options)


RISKS = [
    Case(risks.nce_binary, critics(), through=of_law),
    Case(risks.info_nce, critics(), through=of_law, candidates=3),
    Case(risks.info_nce, critics(), through=of_law, candidates=9, method="laplace"),
    Case(risks.dcl, critics(), through=of_law, candidates=3),
    Case(risks.dcl, critics(), through=of_law, candidates=9, method="laplace"),
    Case(risks.nt_xent, critics(), through=of_law, n_pairs=2),
    Case(risks.nt_xent, critics(), through=of_law, n_pairs=4, method="laplace"),
]
FEATURES = Case(risks.spectral_contrastive, critics(), through=of_law)
COMPRESSIONS = [
    Case(eigenfunctions.rayleigh, functions()),
    Case(eigenfunctions.neuralef_loss, functions()),
    Case(eigenfunctions.neuralef_loss, functions(), stop_gradient=False),
    Case(eigenfunctions.neural_eigenmap_loss, functions(), alpha=0.3),
]
DIRECTIONS = [
    Case(eigenfunctions.neuralef_direction, functions(), through=with_operator),
    Case(eigenfunctions.neural_eigenmap_direction, functions(), through=with_operator, alpha=0.3),
]
SPACES = [
    Case(rkhs.project, functions(), through=flat),
    Case(rkhs.norm, functions(), through=flat),
    Case(rkhs.inner, functions(), through=lambda f, psi, gram: f(gram, psi[:, 0], psi[:, 1])),
    Case(rkhs.kernel_ridge, functions(), through=with_operator, ridge=0.1),
]
DESCENDING = [1.0, 0.6, 0.5]
CASES = [
    *RISKS, FEATURES, *COMPRESSIONS, *DIRECTIONS, *SPACES,
    Case(eigenfunctions.l2_normalise, columns, through=lambda f, psi: f(psi)),
    Case(eigenfunctions.ascend, functions(),
         through=lambda f, psi, gram: f(lambda p: gram @ p, psi, step=0.1, steps=3)),
    Case(eigenfunctions.cosines, columns, through=lambda f, psi: f(psi, psi.flip(1))),
    Case(eigenfunctions.subspace_error, columns,
         through=lambda f, psi: f(psi, psi.flip(0))),
    Case(eigenfunctions.predicted_order, st.just(DESCENDING),
         through=lambda f, values: f(values, 3, 0.4)),
    Case(eigenfunctions.alpha_threshold, st.just(DESCENDING),
         through=lambda f, values: f(values, 3)),
    Case(mercer.top_eigenpairs, matrices, through=lambda f, gram: f(gram, 2)),
    Case(mercer.kernel_pca, matrices, through=lambda f, gram: f(gram, 2)),
    Case(mercer.nystrom, points(dim=st.just(2)),
         through=lambda f, x: f(kernels.rbf(1.0), x, 2, generator=generator(0)).features(x)),
    Case(mercer.Nystrom, points(dim=st.just(2)), through=lambda f, x: f(
        kernels.rbf(1.0), x[:2], torch.eye(2, dtype=x.dtype, device=x.device), x.new_ones(2)
    ).eigenfunctions(x)),
    Case(mercer.brownian, points(dim=st.just(1)), through=lambda f, x: f(3).eigenfunctions(x)),
    Case(mercer.gauss_hermite, points(dim=st.just(1)),
         through=lambda f, x: f(3, 1.0, 2.0).eigenfunctions(x)),
    Case(mercer.Expansion, points(dim=st.just(1)), through=lambda f, x: f(
        x[:, 0], lambda y: y).eigenfunctions(x)),
    Case(mercer.funk_hecke, sizes, through=lambda f, dim: f(torch.exp, dim, 3)),
    Case(pairs.PairModel, joints()),
    Case(pairs.normalised, joints()),
    Case(pairs.canonical_pairs, joints()),
    Case(pairs.clusters, sizes), Case(pairs.von_mises_ring, sizes),
    Case(pairs.overlapping_ring, sizes), Case(pairs.swap, st.just(())),
    Case(pairs.conditionally_independent, st.tuples(sizes, seeds),
         through=lambda f, n, seed: f(n, generator=generator(seed))),
    Case(pairs.generic, st.tuples(sizes, seeds),
         through=lambda f, n, seed: f(n, generator=generator(seed))),
    Case(pca.eigenspace, matrices, through=lambda f, gram: f(
        torch.eye(len(gram), dtype=gram.dtype, device=gram.device), gram @ gram + 1, 1)),
    Case(pca.change, functions(), through=lambda f, psi, gram: f(psi, psi.flip(0), gram)),
    Case(pca.principal_angles, frames, through=lambda f, u: f(u[:, :1], u[:, -1:])),
    Case(pca.orthonormal, frames, through=lambda f, u: f(u, "u")),
]  # fmt: skip


@given(grams(), st.data())
def test_the_top_of_a_spectrum_is_what_it_was_made_of(drawn, data):
    gram, values = drawn
    rank = data.draw(st.integers(1, len(gram)))
    found, vectors = mercer.top_eigenpairs(gram, rank)
    assert_same(found, values[:rank], atol=1e-12)
    assert_same(gram @ vectors, vectors * found, atol=1e-12)
    assert_same(vectors.mT @ vectors, torch.eye(rank, dtype=gram.dtype), atol=1e-12)


@given(st.sampled_from(["degenerate", "deficient", "zero", "wide"]), st.integers(0, 3))
def test_lanczos_sees_every_copy_of_an_eigenvalue(kind, seed):
    """A matrix large enough for the iteration, of few eigenvalues that repeat."""
    n = mercer.DENSE_SIZE + 8
    levels = {"degenerate": [2, 2, 2, 1], "deficient": [3, 1, 0, 0], "zero": [0] * 4,
              "wide": [1, 1e-3, 1e-6, 1e-9]}[kind]  # fmt: skip
    values = torch.zeros(n, dtype=torch.float64)
    values[:4] = torch.tensor(levels, dtype=torch.float64)
    basis = rotation(seed, n)
    gram = basis * values @ basis.mT
    found, vectors = mercer.top_eigenpairs((gram + gram.mT) / 2, 4)
    assert_same(found, values[:4], atol=1e-9)
    assert_same(gram @ vectors, vectors * found, atol=3e-6)


@given(grams(), seeds)
def test_kernel_pca_gives_the_best_approximation_of_its_rank(drawn, seed):
    gram, _ = drawn
    centred = kernels.centre(gram)
    spectrum = torch.linalg.eigvalsh(centred).flip(0)
    for rank in range(1, len(gram) + 1):
        y = mercer.kernel_pca(gram, rank)
        error = (centred - y @ y.mT).norm()
        assert float(error) == pytest.approx(float(spectrum[rank:].norm()), abs=1e-9)
    order = permutation(seed, len(gram))
    moved = mercer.kernel_pca(gram[order][:, order], len(gram))
    assert_same(moved @ moved.mT, (y @ y.mT)[order][:, order], atol=1e-12)


@given(points(dim=st.integers(1, 3)), seeds)
def test_nystrom_never_exceeds_the_kernel_and_is_exact_with_all_points(x, seed):
    gram = kernels.gram(kernels.rbf(1.0), x)
    for rank in range(1, len(x) + 1):
        made = mercer.nystrom(kernels.rbf(1.0), x, rank, generator=generator(seed))
        features = made.features(x)
        left = gram - features @ features.mT
        assert float(torch.linalg.eigvalsh(left).min()) >= -1e-7
        moment = features.mT @ features / len(x)
        assert_same(moment, torch.diag(made.eigenvalues), atol=1e-9)
    assert_same(left, torch.zeros_like(left), atol=1e-7)


@given(functions(), log_uniform(1e-6, 1e6))
def test_the_norm_of_a_function_space(drawn, size):
    psi, gram = drawn
    inside = gram @ psi
    f, g = inside[:, 0], inside[:, 1]
    product = rkhs.inner(gram, f, g)
    assert_same(product, psi[:, 0] @ gram @ psi[:, 1], rtol=1e-6, atol=1e-6)
    most = float(rkhs.norm(gram, f) * rkhs.norm(gram, g))
    assert abs(float(product)) <= most * (1 + 1e-9) + 1e-9
    assert_same(rkhs.project(gram, f), f, atol=1e-6)
    assert_same(
        rkhs.norm(size * gram, size * f), size**0.5 * rkhs.norm(gram, f), rtol=1e-6, atol=1e-9
    )


@given(grams(), st.booleans())
def test_the_norm_has_a_gradient_at_zero(drawn, outside):
    gram, _ = drawn
    f = torch.full((len(gram),), 0.0, dtype=gram.dtype)
    if outside:  # of the space: rounding alone is in it
        f = f + 1e-300
    f.requires_grad_()
    (slope,) = torch.autograd.grad(rkhs.norm(gram, f), f)
    assert bool(slope.isfinite().all())


@given(functions(), log_uniform(1e-6, 1e6))
def test_ridge_regression_solves_its_equation(drawn, ridge):
    targets, gram = drawn
    alpha = rkhs.kernel_ridge(gram, targets, ridge)
    assert_same(gram @ alpha + len(gram) * ridge * alpha, targets, rtol=1e-6, atol=1e-6)


@over(COMPRESSIONS)
@given(data=st.data())
def test_the_order_of_points_does_not_count(case, data):
    psi, gram = case.arguments(data)
    order = permutation(data.draw(seeds), len(gram))
    assert_same(case(psi, gram), case(psi[order], gram[order][:, order]), rtol=1e-9, atol=1e-9)


@over(COMPRESSIONS)
@given(data=st.data())
def test_equal_weights_are_none(case, data):
    psi, gram = case.arguments(data)
    weights = torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype)
    assert_same(case(psi, gram), case(psi, gram, weights), rtol=1e-12, atol=1e-12)


@given(functions())
def test_directions_are_minus_half_the_gradients(drawn):
    psi, gram = drawn
    n = len(gram)
    for loss, direction, options in (
        (eigenfunctions.neuralef_loss, eigenfunctions.neuralef_direction, {}),
        (eigenfunctions.neural_eigenmap_loss, eigenfunctions.neural_eigenmap_direction,
         {"alpha": 0.3}),
    ):  # fmt: skip
        at = psi.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(at, gram, **options), at)
        # Values of the loss to unit columns: psi / sqrt(n), K / n.
        found = direction(gram / n, psi / n**0.5, **options)
        assert_same(-slope / 2 * n**0.5, found, rtol=1e-9, atol=1e-9)


@given(functions(), log_uniform(1e-3, 1e3))
def test_cosines_and_subspaces_do_not_see_scales(drawn, size):
    psi, _ = drawn
    other = psi.flip(0) + 0.1
    assert_same(
        eigenfunctions.cosines(psi, other), eigenfunctions.cosines(-size * psi, other), rtol=1e-9
    )
    mixed = psi @ torch.tensor([[1.0, 2.0], [0.0, size]], dtype=psi.dtype)
    one, two = (eigenfunctions.subspace_error(basis, other) for basis in (psi, mixed))
    assert_same(one, two, atol=1e-6)
    assert_same(eigenfunctions.subspace_error(psi, mixed), torch.zeros_like(one), atol=1e-6)


@given(st.lists(log_uniform(1e-6, 1.0), min_size=2, max_size=6), log_uniform(1e-3, 1e6))
def test_above_the_threshold_the_order_is_right(values, more):
    values = sorted(values, reverse=True)
    rank = len(values) - 1
    threshold = eigenfunctions.alpha_threshold(values, rank)
    order = eigenfunctions.predicted_order(values, rank, threshold * (1 + 1e-9) + more)
    assert [values[k] for k in order] == values[:rank]
    assert threshold <= 1 / (4 * values[rank - 1]) * (1 + 1e-12)


# Laws. Functions of a state of mass p carry an error of rounding over the root of p.


@given(joints())
def test_a_pair_law_has_its_spectrum_between_minus_one_and_one(joint):
    model = PairModel(joint)
    values, psi = model.mercer()
    assert float(values[0]) == pytest.approx(1, abs=1e-12)
    assert float(values[-1]) >= -1 - 1e-12
    weighted = model.marginal.sqrt()[:, None] * psi
    eye = torch.eye(len(joint), dtype=joint.dtype)
    assert_same(weighted.mT @ weighted, eye, atol=1e-12)
    assert_same(weighted * values @ weighted.mT, model.adjacency, atol=1e-12)
    singular = pairs.canonical_pairs(joint).singular_values
    assert_same(singular, values.abs().sort(descending=True).values, atol=1e-12)


@given(joints(), seeds)
def test_information_is_positive_and_does_not_see_names(joint, seed):
    model, order = PairModel(joint), permutation(seed, len(joint))
    found = model.mutual_information()
    p = model.marginal
    entropy = -float(torch.special.xlogy(p, p).sum())
    assert -1e-9 <= float(found) <= entropy + 1e-9
    moved = PairModel(joint[order][:, order]).mutual_information()
    assert_same(found, moved, rtol=1e-9, atol=1e-12)


@given(laws(), seeds, st.integers(1, 500))
def test_samples_have_mass_and_are_of_their_generator(p, seed, n):
    model = PairModel(torch.diag(p))
    x, z = model.sample(n, generator=generator(seed))
    assert bool((x == z).all())
    assert_same([x, z], list(model.sample(n, generator=generator(seed))))


@over(RISKS)
@given(data=st.data())
def test_names_of_states_do_not_count_and_scores_move_together(case, data):
    joint, critic = case.arguments(data)
    order = permutation(data.draw(seeds), len(joint))
    found = case(joint, critic)
    assert bool(found.isfinite())
    moved = case(joint[order][:, order], critic[order][:, order])
    assert_same(found, moved, rtol=1e-9, atol=1e-9)
    if case.function is not risks.nce_binary:
        shift = normal(data.draw(seeds), len(joint), 1)
        assert_same(found, case(joint, critic + shift), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("risk", [risks.info_nce, risks.dcl])
@given(drawn=critics(), candidates=st.integers(2, 4))
def test_enumeration_and_integral_agree(risk, drawn, candidates):
    joint, critic = drawn
    one, two = (
        risk(PairModel(joint), critic, candidates=candidates, method=method)
        for method in ("enumeration", "laplace")
    )
    assert_same(one, two, rtol=1e-9, atol=1e-9)


@over(RISKS)
@given(data=st.data())
def test_a_risk_has_a_finite_gradient(case, data):
    joint, critic = case.arguments(data)
    critic.requires_grad_()
    (slope,) = torch.autograd.grad(case(joint, critic), critic)
    assert bool(slope.isfinite().all())


@given(critics(), st.integers(2, 40))
def test_the_bound_on_information_holds(drawn, candidates):
    joint, critic = drawn
    model = PairModel(joint)
    risk = risks.info_nce(model, critic, candidates=candidates, method="laplace")
    bound = math.log(candidates) - float(risk)
    assert bound <= min(math.log(candidates), float(model.mutual_information())) + 1e-9


@given(joints(), seeds)
def test_spectral_risks_are_above_minus_the_squared_eigenvalues(joint, seed):
    model = PairModel(joint)
    least = -float(model.mercer().eigenvalues.clamp(min=0).square().sum())
    features = normal(seed, len(joint), 3)
    assert float(risks.spectral_contrastive(model, features)) >= least - 1e-9
    turned = features @ rotation(seed, 3)
    assert_same(
        risks.spectral_contrastive(model, features), risks.spectral_contrastive(model, turned),
        rtol=1e-9, atol=1e-9,
    )  # fmt: skip


@given(st.integers(1, 5), seeds, st.integers(0, 3))
def test_principal_angles_are_those_that_were_built_in(k, seed, more):
    """Two planes that meet at given angles, tiny and right ones among them."""
    n = 2 * k + more
    angles = torch.tensor([0.0, 1e-9, 0.3, 1.2, math.pi / 2], dtype=torch.float64)[:k]
    basis = rotation(seed, n)
    u = basis[:, :k]
    v = u * angles.cos() + basis[:, k : 2 * k] * angles.sin()
    found = pca.principal_angles(u @ rotation(seed, k), v)
    assert_same(found, angles, atol=1e-14 * n + 3e-15)


@given(functions(), seeds)
def test_the_change_of_a_product_is_that_of_matrices(drawn, seed):
    before, middle = drawn
    after = before + 1e-3 * normal(seed, *before.shape)
    expected = (after.mT @ middle @ after - before.mT @ middle @ before).norm()
    assert_same(pca.change(before, after, middle), expected, rtol=1e-6, atol=1e-12)
    turn = rotation(seed, 2)
    turned = pca.change(before @ turn, after @ turn, middle)
    assert_same(turned, expected, rtol=1e-6, atol=1e-12)


@given(grams(), seeds, st.integers(0, 3))
def test_the_leading_space_is_that_of_the_whole_matrix(drawn, seed, more):
    middle, values = drawn
    n = len(middle)
    rank = int((values > 1e-9).sum())
    if rank == 0:
        return
    features = rotation(seed, n + more)[:n]
    found = pca.eigenspace(features, middle, rank)
    whole = features.mT @ middle @ features
    assert_same(found.values, values, atol=1e-12)
    assert_same(whole @ found.vectors, found.vectors * found.values[:rank], atol=1e-12)
    pca.orthonormal(found.vectors, "vectors")


BAD = [
    (mercer.top_eigenpairs, (torch.eye(2), 3), {}, "rank"),
    (mercer.kernel_pca, (-torch.eye(2), 1), {}, "the centred gram"),
    (mercer.nystrom, (kernels.linear(), torch.ones(2, 1), 3), {}, "rank"),
    (mercer.brownian, (0,), {}, "n"), (mercer.gauss_hermite, (1, 0.0, 1.0), {}, "lengthscale"),
    (mercer.funk_hecke, (torch.exp, 1, 3), {}, "dim"),
    (rkhs.inner, (torch.eye(2), torch.ones(3), torch.ones(2)), {}, "f"),
    (rkhs.kernel_ridge, (torch.eye(2), torch.ones(2), 0.0), {}, "ridge"),
    (eigenfunctions.rayleigh, (torch.ones(2, 1), torch.eye(3)), {}, "gram"),
    (eigenfunctions.ascend, (torch.clone, torch.eye(2)), {"step": 0.0, "steps": 1}, "step"),
    (eigenfunctions.alpha_threshold, ([1.0, 0.0], 2), {}, "eigenvalues"),
    (eigenfunctions.predicted_order, ([1.0, 0.5], 3, 0.1), {}, "rank"),
    (pairs.PairModel, (torch.eye(2),), {}, "joint"),
    (pairs.normalised, (torch.tensor([[1.0, 0.0], [0.0, 0.0]]),), {}, "joint"),
    (pairs.clusters, (1,), {}, "count"), (pairs.von_mises_ring, (1,), {}, "n"),
    (pairs.overlapping_ring, (3, 4), {}, "width"), (pairs.generic, (0,), {}, "n"),
    (pairs.conditionally_independent, (2, 0), {}, "sources"),
    (pca.eigenspace, (torch.eye(2), -torch.eye(2), 1), {}, "rank"),
    (pca.principal_angles, (torch.ones(2, 1), torch.eye(2)[:, :1]), {}, "u"),
    (pca.change, (torch.ones(2, 1), torch.ones(2, 2), torch.eye(2)), {}, "after"),
    (risks.info_nce, (pairs.swap(), torch.zeros(2, 2)), {"candidates": 1}, "candidates"),
    (risks.nce_binary, (pairs.swap(), torch.zeros(2, 3)), {}, "critic"),
    (risks.nt_xent, (pairs.swap(), torch.zeros(2, 2)), {"n_pairs": 1}, "n_pairs"),
    (risks.dcl, (pairs.swap(), torch.zeros(2, 2)), {"candidates": 2, "method": "x"}, "method"),
    (risks.spectral_contrastive, (pairs.swap(), torch.zeros(3, 2)), {}, "features"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "options", "name"), BAD)
def test_what_does_not_fit_is_named(function, arguments, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        function(*arguments, **options)
