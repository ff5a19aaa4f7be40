"""Sums over pairs: the same whatever the tiles, right where float32 is short, and at corners."""

import math

import pytest
import torch
from cases import Case, assert_same, over, without
from hypothesis import given
from hypothesis import strategies as st
from strategies import log_uniform, normal, points, rotation, scattered, seeds, temperatures, views

from cltheory import _tiles, blockwise

SUMS = [
    Case(blockwise.log_sums_between, views(), scale=2.0, excluded=(0,)),
    Case(blockwise.cross_entropy, views(), scale=2.0, positive=1),
    Case(blockwise.softplus_mean, views(), scale=2.0),
    Case(blockwise.log_sums, points(), scale=2.0, excluded=(0,)),
    Case(blockwise.distance_mean, points(), through=lambda f, x: f(x, torch.log1p)),
]
CASES = [
    *SUMS,
    Case(blockwise.softplus, points()),
    Case(blockwise.diagonal, views()),
    Case(blockwise.second_moment, points()),
]


def numbered(result):
    return result if isinstance(result, tuple) else (result,)


@over(SUMS)
@pytest.mark.parametrize("side", [1, 3])
@given(data=st.data())
def test_the_size_of_a_tile_does_not_count(case, side, data):
    arguments = [x.requires_grad_() for x in case.arguments(data)]

    def found():
        result = case(*arguments)
        total = sum(part.sum() for part in numbered(result))
        return result, torch.autograd.grad(total, arguments)

    whole = found()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TILE", "PANEL"):
            patch.setattr(_tiles, name, {"cpu": side})
        for name in ("PANEL_ROWS", "CLOSE_PAIRS"):
            patch.setattr(_tiles, name, side)
        assert_same(whole, found(), rtol=1e-9, atol=1e-9)


@over(SUMS)
@given(data=st.data())
def test_a_rotation_changes_no_inner_product(case, data):
    arguments = case.arguments(data)
    turn = rotation(data.draw(seeds), arguments[0].shape[1])
    turned = case(*(x @ turn for x in arguments))
    assert_same(case(*arguments), turned, rtol=1e-9, atol=1e-9)


@over(without(SUMS, blockwise.distance_mean))
@given(data=st.data(), temperature=temperatures)
def test_log_sums_are_right_in_float32_at_every_scale(case, data, temperature):
    """The sums are float64; their logits err by rounding of the rows' products only."""
    arguments = [x.float() for x in case.arguments(data)]
    scaled = Case(case.function, case.drawn, **{**case.options, "scale": 1 / temperature})
    exact = scaled(*(x.double() for x in arguments))
    assert_same(scaled(*arguments), exact, rtol=2e-6, atol=2e-6 * max(1, 10 / temperature))


@over(SUMS)
@given(data=st.data())
def test_the_gradient_is_that_of_the_whole_matrix(case, data):
    """Under a transform the whole matrix is made, and differentiated by PyTorch."""
    arguments = case.arguments(data)
    weights = normal(data.draw(seeds), 2, 6)

    def total(*at):
        return sum(
            (weights[i, : part.numel()] * part).sum() for i, part in enumerate(numbered(case(*at)))
        )

    expected = torch.func.grad(total, tuple(range(len(arguments))))(*arguments)
    at = [x.requires_grad_() for x in arguments]
    found = torch.autograd.grad(total(*at), at)
    assert_same(found, expected, rtol=1e-9, atol=1e-9)


@over(SUMS)
@given(data=st.data())
def test_a_gradient_of_zero_stays_zero(case, data):
    arguments = [x.requires_grad_() for x in case.arguments(data)]
    parts = numbered(case(*arguments))
    found = torch.autograd.grad(parts, arguments, [torch.zeros_like(part) for part in parts])
    assert_same(list(found), [torch.zeros_like(x) for x in arguments])


def test_a_gradient_of_zero_stays_zero_where_a_sum_is_far_below_one():
    x = torch.tensor([[1.0], [-1.0]], dtype=torch.float64, requires_grad=True)
    sums = blockwise.log_sums(x, scale=20.0)
    (slope,) = torch.autograd.grad(sums, x, torch.zeros_like(sums))
    assert_same(slope, torch.zeros_like(x))


@given(points(), st.sampled_from([torch.sqrt, lambda r2: r2**0.25, lambda r2: r2.rsqrt()]))
def test_coincident_rows_do_not_pull_on_each_other(x, function):
    """At a distance of zero these functions have an infinite slope."""
    x = torch.cat([x, x]).requires_grad_()
    (slope,) = torch.autograd.grad(blockwise.distance_mean(x, function), x)
    assert bool(slope.isfinite().all())
    half = len(x) // 2
    assert_same(slope[:half], slope[half:], rtol=1e-9, atol=1e-9)
    one = x[:1].detach().repeat(3, 1).requires_grad_()
    (slope,) = torch.autograd.grad(blockwise.distance_mean(one, function), one)
    assert_same(slope, torch.zeros_like(one))


@given(scattered(), log_uniform(1e-3, 1e3))
def test_the_diagonal_and_the_moment_are_parts_of_products(pair, size):
    x, y = (size * z for z in pair)
    assert_same(blockwise.diagonal(x, y), (x @ y.mT).diagonal(), rtol=1e-12, atol=1e-12 * size**2)
    assert_same(blockwise.second_moment(x), x.mT @ x, rtol=1e-12, atol=1e-12 * size**2)


@given(st.floats(-700, 700))
def test_softplus_has_its_digits(x):
    """log(1 + e^x) - log(1 + e^-x) = x, and both are of the size of e^-|x| or more."""
    both = blockwise.softplus(torch.tensor([x, -x], dtype=torch.float64))
    assert float(both[0] - both[1]) == pytest.approx(x, rel=1e-14, abs=1e-15)
    assert float(both.min()) == pytest.approx(math.log1p(math.exp(-abs(x))), rel=1e-12)


BAD = [
    (blockwise.log_sums, (torch.ones(3, 2),), {"scale": 0.0}, "scale"),
    (blockwise.log_sums, (torch.ones(3, 2),), {"scale": 1.0, "excluded": (1,)}, "excluded"),
    (blockwise.log_sums, (torch.ones(1, 2),), {"scale": 1.0}, "excluded"),
    (blockwise.softplus_mean, (torch.ones(3, 2), torch.ones(3, 1)), {"scale": 1.0}, "x and y"),
    (blockwise.log_sums_between, (torch.ones(3), torch.ones(3, 1)), {"scale": 1.0}, "x"),
    (blockwise.distance_mean, (torch.ones(1, 2), torch.sqrt), {}, "x"),
    (blockwise.cross_entropy, (torch.full((3, 2), math.nan),) * 2, {"scale": 1.0}, "x"),
]


@pytest.mark.parametrize(("function", "arguments", "options", "name"), BAD)
def test_what_does_not_fit_is_named(function, arguments, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        function(*arguments, **options)
