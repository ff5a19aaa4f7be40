"""Losses of pairs: what leaves them as they are, and what their corners are worth."""

import math

import pytest
import torch
from cases import Case, assert_same, over, without
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    log_uniform,
    normal,
    permutation,
    rotation,
    scattered,
    seeds,
    temperatures,
    unit_rows,
    views,
)
from torch.autograd import gradcheck

from cltheory import kernels, losses, method_losses, sinkhorn, triplets


def with_queue(loss, z1, z2, **options):
    """MoCo whose queue holds the keys of the batch in another order, turned about."""
    return loss(z1, z2, queue=-z2.flip(0), **options)


def with_prototypes(loss, z1, z2, **options):
    # One apart: prototypes that coincide have no code that tells them apart.
    return loss(z1, z2, prototypes=z1 + 0.5 * z2.roll(1, 0), **options)


def with_labels(loss, z1, z2, **options):
    labels = torch.arange(len(z1), device=z1.device) // 2
    return loss(torch.cat([z1, z2]), labels.repeat(2), **options)


def as_triplets(loss, z1, z2, **options):
    """Anchors, positives, and the next anchor as a negative."""
    m = len(z1)
    row = torch.arange(m, device=z1.device)
    rows = torch.stack([row, row + m, (row + 1) % m], 1)
    return loss(torch.cat([z1, z2]), rows, **options)


def inverse(gap):
    return 1 / (0.1 + gap)


TEMPERED = [
    Case(losses.info_nce, views(), temperature=0.5),
    Case(losses.info_nce, views(), temperature=0.5, symmetric=True),
    Case(losses.nt_xent, views(), temperature=0.5),
    Case(losses.dcl, views(), temperature=0.5),
    Case(losses.dcl, views(), temperature=0.5, negatives="other"),
    Case(losses.dhel, views(), temperature=0.5),
    Case(losses.dhel, views(), temperature=0.5, symmetric=True),
    Case(losses.nce_binary, views(), temperature=0.5),
    Case(method_losses.moco, views(), through=with_queue, temperature=0.5),
    Case(method_losses.siglip, views(), temperature=0.5, bias=1.0),
    Case(method_losses.supcon, views(), through=with_labels, temperature=0.5),
    Case(method_losses.swav, views(), through=with_prototypes, temperature=0.5, eps=0.5),
]
KERNELS = [
    kernels.gaussian(2.0), kernels.logarithmic(1.5), kernels.inverse_multiquadric(0.7),
    kernels.riesz(-1.0), kernels.riesz(-2.0), kernels.exponential(0.5),
]  # fmt: skip
OF_KERNELS = [
    Case(losses.kcl, views(), kernel=kernel, weight=3.0, symmetric=True) for kernel in KERNELS
]
OTHERS = [
    Case(losses.spectral_contrastive, views()),
    Case(losses.generalised_nt_xent, views(), similarity=inverse),
    Case(losses.generalised_nt_xent, views(), similarity=inverse, masked=True),
    Case(losses.negative_cosine, views()),
    Case(triplets.loss, views(), through=as_triplets, kind="linear"),
    Case(triplets.loss, views(), through=as_triplets, similarity="dot"),
]
OF_COLUMNS = [Case(losses.vicreg, views()), Case(losses.barlow_twins, scattered())]
LOSSES = [*TEMPERED, *OF_KERNELS, *OTHERS, *OF_COLUMNS]
# Sums over batches that a loss walks in its own order need not be the same to the last bit.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}

DIFFERENT_ROLES = {method_losses.moco, method_losses.swav, triplets.loss, method_losses.supcon}
"""Their other arguments are made from the rows in order."""
EXCHANGEABLE = [
    case
    for case in LOSSES
    if case.options.get("symmetric")
    or case.function
    in {losses.nt_xent, losses.dcl, method_losses.siglip, method_losses.supcon}
    | {losses.nce_binary, losses.spectral_contrastive, losses.negative_cosine}
    | {losses.vicreg, losses.barlow_twins}
]


@over(without(LOSSES, losses.vicreg, losses.barlow_twins))
@given(data=st.data())
def test_a_rotation_of_all_rows_changes_nothing(case, data):
    z1, z2 = case.arguments(data)
    turn = rotation(data.draw(seeds), z1.shape[1])
    assert_same(case(z1, z2), case(z1 @ turn, z2 @ turn), **CLOSE)


@over(without(LOSSES, *DIFFERENT_ROLES))
@given(data=st.data())
def test_the_order_of_pairs_does_not_count(case, data):
    z1, z2 = case.arguments(data)
    order = permutation(data.draw(seeds), len(z1))
    assert_same(case(z1, z2), case(z1[order], z2[order]), **CLOSE)


@over(EXCHANGEABLE)
@given(data=st.data())
def test_the_two_views_play_one_role(case, data):
    z1, z2 = case.arguments(data)
    assert_same(case(z1, z2), case(z2, z1), **CLOSE)


@over(OF_COLUMNS)
@given(data=st.data())
def test_the_order_and_the_signs_of_columns_do_not_count(case, data):
    z1, z2 = case.arguments(data)
    order = permutation(data.draw(seeds), z1.shape[1])
    signs = normal(data.draw(seeds), z1.shape[1]).sign()
    assert_same(case(z1, z2), case((z1 * signs)[:, order], (z2 * signs)[:, order]), **CLOSE)


@over(without(TEMPERED, method_losses.swav))
@given(data=st.data(), size=log_uniform(1e-3, 1e3))
def test_a_longer_row_is_a_lower_temperature(case, data, size):
    """Inner products over the temperature are all that these losses see."""
    z1, z2 = case.arguments(data)
    hotter = Case(
        case.function, case.drawn, through=case.through,
        **{**case.options, "temperature": 0.5 * size**2},
    )  # fmt: skip
    assert_same(case(z1, z2), hotter(size * z1, size * z2), **CLOSE)


@pytest.mark.parametrize(
    ("case", "most"),
    [
        (Case(losses.negative_cosine, views()), 1000),
        (Case(triplets.loss, views(), through=as_triplets), 480),
    ],
)
@given(data=st.data(), shares=st.tuples(st.floats(-1, 1), st.floats(-1, 1)))
def test_a_cosine_does_not_see_the_length_of_a_row(case, most, data, shares):
    """Of 2^±480 the square has a value in float64, and the product of two squares may have none."""
    z1, z2 = case.arguments(data)
    one, two = (2.0 ** int(most * share) for share in shares)
    assert_same(case(z1, z2), case(one * z1, two * z2), **CLOSE)


@given(data=st.data(), shift=st.floats(-3, 3), size=log_uniform(1e-3, 1e3))
def test_a_correlation_does_not_see_the_place_and_the_size_of_a_column(data, shift, size):
    z1, z2 = data.draw(scattered())
    moved = losses.barlow_twins(size * z1 + shift, z2 - shift)
    assert_same(losses.barlow_twins(z1, z2), moved, rtol=1e-6, atol=1e-6)


@over([*OF_KERNELS, Case(losses.vicreg, views()), *OTHERS[1:3]])
@given(data=st.data(), shift=st.floats(-3, 3))
def test_a_shift_of_all_rows_changes_no_distance(case, data, shift):
    z1, z2 = case.arguments(data)
    assert_same(case(z1, z2), case(z1 + shift, z2 + shift), rtol=1e-6, atol=1e-6)


@over(TEMPERED)
@given(data=st.data(), temperature=temperatures)
def test_float32_is_right_at_every_temperature(case, data, temperature):
    """Against float64 of the same points: neither overflow nor more than the loss of rounding."""
    z1, z2 = (z.float() for z in case.arguments(data))
    tempered = Case(
        case.function, case.drawn, through=case.through,
        **{**case.options, "temperature": temperature},
    )  # fmt: skip
    exact = float(tempered(z1.double(), z2.double()))
    assert math.isfinite(exact)
    found = tempered(z1, z2)
    assert found.dtype == torch.float32
    # An inner product of float32 rows, where it is taken in float32, errs by some 1e-7.
    assert abs(float(found) - exact) <= 2e-6 * max(abs(exact), 1 / temperature, 1)


@over([*OF_KERNELS, *OTHERS, *OF_COLUMNS])
@given(data=st.data())
def test_float32_is_right_at_coincident_and_opposite_rows(case, data):
    z1, z2 = (z.float() for z in case.arguments(data))
    exact = case(z1.double(), z2.double())
    # A cusp, as that of the distance, takes the square root of an error.
    torch.testing.assert_close(case(z1, z2).double(), exact, rtol=2e-3, atol=2e-3)


SMOOTH = [case for case in LOSSES if case.options.get("kernel") is not KERNELS[3]]


@over(without(SMOOTH, losses.vicreg, method_losses.swav))
@given(data=st.data())
def test_the_gradient_is_that_of_the_loss_at_any_rows(case, data):
    z1, z2 = case.arguments(data)
    assert gradcheck(case, (z1.requires_grad_(), z2.requires_grad_()), atol=1e-5)


@over(LOSSES)
@given(data=st.data(), temperature=temperatures)
def test_no_gradient_is_nan_or_infinite(case, data, temperature):
    z1, z2 = (z.float().requires_grad_() for z in case.arguments(data))
    options = {k: temperature if k == "temperature" else v for k, v in case.options.items()}
    tempered = Case(case.function, case.drawn, through=case.through, **options)
    for slope in torch.autograd.grad(tempered(z1, z2), (z1, z2), allow_unused=True):
        assert slope is None or bool(slope.isfinite().all())


@over(without(LOSSES, method_losses.swav))
@given(data=st.data())
def test_a_directional_derivative_in_float32_is_that_of_float64(case, data):
    z1, z2 = case.arguments(data)
    along = normal(data.draw(seeds), 2, *z1.shape)
    slopes = []
    for dtype in (torch.float32, torch.float64):
        at = [z.float().to(dtype).requires_grad_() for z in (z1, z2)]
        found = torch.autograd.grad(case(*at), at)
        slopes.append(float((torch.stack(found).double() * along).sum()))
    assert slopes[0] == pytest.approx(slopes[1], rel=5e-3, abs=5e-3)


@given(views(dim=st.just(3)), temperatures)
def test_moco_with_a_queue_of_other_keys_is_infonce(pair, temperature):
    """Row i of InfoNCE is MoCo of one query whose queue holds all other keys."""
    z1, z2 = pair
    rows = [
        method_losses.moco(
            z1[[i]], z2[[i]], queue=z2[torch.arange(len(z2)) != i], temperature=temperature
        )
        for i in range(len(z1))
    ]
    expected = losses.info_nce(z1, z2, temperature=temperature)
    assert_same(torch.stack(rows).mean(), expected, **CLOSE)


@given(views(), temperatures)
def test_supcon_of_classes_of_one_pair_is_nt_xent(pair, temperature):
    labels = torch.arange(len(pair[0])).repeat(2)
    found = method_losses.supcon(torch.cat(pair), labels, temperature=temperature)
    assert_same(found, losses.nt_xent(*pair, temperature=temperature), **CLOSE)


@given(views(), temperatures)
def test_a_symmetric_loss_is_the_mean_of_both_ways(pair, temperature):
    z1, z2 = pair
    for loss in (losses.info_nce, losses.dhel):
        ways = loss(z1, z2, temperature=temperature), loss(z2, z1, temperature=temperature)
        both = loss(z1, z2, temperature=temperature, symmetric=True)
        assert_same(both, (ways[0] + ways[1]) / 2, **CLOSE)


@given(views(), temperatures)
def test_decoupling_never_adds(pair, temperature):
    """A sum without the positive is smaller than one with it, by less than its share."""
    without_it = losses.dcl(*pair, temperature=temperature)
    with_it = losses.nt_xent(*pair, temperature=temperature)
    assert float(without_it) <= float(with_it) + 1e-12 * abs(float(with_it))


SCORES = Case(sinkhorn.codes, unit_rows(dim=st.integers(2, 5)), eps=0.05)


@given(data=st.data(), eps=log_uniform(1e-3, 1e3), iterations=st.integers(0, 5))
def test_codes_are_laws_that_move_with_samples_and_prototypes(data, eps, iterations):
    (scores,) = SCORES.arguments(data)
    found = sinkhorn.codes(scores, eps=eps, iterations=iterations)
    assert bool((found >= 0).all())
    assert_same(found.sum(1), torch.ones(len(scores), dtype=scores.dtype), atol=1e-12)
    rows, columns = (permutation(data.draw(seeds), n) for n in scores.shape)
    moved = sinkhorn.codes(scores[rows][:, columns], eps=eps, iterations=iterations)
    assert_same(moved, found[rows][:, columns], **CLOSE)
    # One number more for a prototype is taken back by its scale, one for a sample by its row.
    shift = normal(data.draw(seeds), scores.shape[1]) if iterations else 0.3
    shifted = sinkhorn.codes(scores + shift, eps=eps, iterations=iterations)
    assert_same(shifted, found, atol=1e-9 + 1e-13 / eps)


@given(views(), st.sampled_from(triplets.KINDS), st.sampled_from(triplets.SIMILARITIES))
def test_the_gradient_of_triplets_is_that_of_autograd(pair, kind, similarity):
    options = {"kind": kind, "similarity": similarity}
    f = torch.cat(pair).requires_grad_()
    m = len(pair[0])
    rows = torch.arange(m)
    rows = torch.stack([rows, rows + m, (rows + 1) % m], 1)
    (expected,) = torch.autograd.grad(triplets.loss(f, rows, **options), f)
    assert_same(triplets.gradient(f.detach(), rows, **options), expected, **CLOSE)


@given(views(), st.integers(2, 40))
def test_the_linear_dot_triplet_loss_is_a_quadratic_form(pair, count):
    f = torch.cat(pair)
    rows = torch.randint(len(f), (count, 3), generator=torch.Generator().manual_seed(count))
    form = triplets.matrix(rows, len(f))
    expected = triplets.loss(f, rows, kind="linear", similarity="dot")
    assert_same(-(f.mT @ form @ f).trace(), expected, **CLOSE)
    assert_same(form, form.mT)


OF_ROWS = [
    Case(triplets.gradient, views(), through=as_triplets),
    Case(triplets.disjoint, st.integers(1, 9)),
    Case(triplets.matrix, st.integers(1, 9), through=lambda f, n: f(triplets.disjoint(n), 3 * n)),
    SCORES,
]
CASES = [*LOSSES, *OF_ROWS]


@given(st.integers(1, 9))
def test_disjoint_triplets_hold_each_row_once(count):
    found = triplets.disjoint(count)
    assert sorted(found.flatten().tolist()) == list(range(3 * count))


BAD = [
    (losses.info_nce, (torch.ones(2, 3), torch.ones(3, 3)), {"temperature": 1.0}, "z1 and z2"),
    (losses.dcl, (torch.ones(1, 3), torch.ones(1, 3)), {"temperature": 1.0}, "z1"),
    (losses.dhel, (torch.ones(2, 3),) * 2, {"temperature": -1.0}, "temperature"),
    (losses.dhel, (torch.ones(2, 3),) * 2, {"temperature": math.inf}, "temperature"),
    (losses.nt_xent, (torch.ones(2, 3),) * 2, {"temperature": 0.0}, "temperature"),
    (losses.nce_binary, (torch.ones(2, 3),) * 2, {"temperature": 1.0, "nu": math.nan}, "nu"),
    (losses.kcl, (torch.ones(2, 3),) * 2, {"kernel": kernels.riesz(1.0), "weight": 1.0}, "kernel"),
    (losses.vicreg, (torch.ones(2, 3),) * 2, {"eps": 0.0}, "eps"),
    (losses.barlow_twins, (torch.ones(2, 3),) * 2, {}, "z1"),
    (losses.negative_cosine, (torch.zeros(2, 3), torch.ones(2, 3)), {}, "prediction"),
    (losses.spectral_contrastive, (torch.ones(2, 3), torch.ones(2, 3).double()), {}, "z1 and z2"),
    (method_losses.swav, (torch.ones(2, 3),) * 2,
     {"prototypes": torch.ones(1, 3), "temperature": 1.0}, "prototypes"),
    (method_losses.siglip, (torch.ones(2, 3),) * 2,
     {"temperature": 1.0, "bias": math.inf}, "bias"),
    (method_losses.supcon, (torch.ones(2, 3), torch.arange(2)), {"temperature": 1.0}, "labels"),
    (triplets.loss, (torch.ones(2, 3), torch.tensor([[0, 1, 2]])), {}, "triplets"),
    (sinkhorn.codes, (torch.ones(2, 1),), {}, "scores"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "options", "name"), BAD)
def test_what_does_not_fit_is_named(function, arguments, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        function(*arguments, **options)
