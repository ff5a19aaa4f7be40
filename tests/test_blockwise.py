import math
import subprocess
import sys

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import grad, hessian, jacrev, jvp, vmap

from cltheory import _tiles, blockwise

SCALES = [1e-3, 1.0, 10.0, 100.0, 1e3]


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def points(rng, n, dim=3, dtype=torch.float64, norm=1.0):
    x = torch.randn(n, dim, generator=rng, dtype=dtype)
    return norm * torch.nn.functional.normalize(x, dim=1)


def logits(x, y, scale, excluded):
    """Logits entry by entry."""
    rows = []
    for i in range(len(x)):
        row = [
            scale * (x[i].double() * y[j].double()).sum()
            if (j - i) % len(y) not in excluded
            else torch.tensor(-math.inf, dtype=torch.float64)
            for j in range(len(y))
        ]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def log_sums(x, scale, excluded):
    return torch.logsumexp(logits(x, x, scale, excluded), 1)


def gradient(function, *inputs):
    inputs = [t.detach().clone().requires_grad_() for t in inputs]
    value = function(*inputs)
    return value.detach(), torch.autograd.grad(value, inputs)


def assert_same(ours, expected, rtol=1e-11):
    """Values, and gradients relative to the largest entry."""
    torch.testing.assert_close(ours[0], expected[0], rtol=rtol, atol=0, check_dtype=False)
    for one, other in zip(ours[1], expected[1], strict=True):
        largest = float(other.abs().max())
        torch.testing.assert_close(one.double(), other, rtol=0, atol=rtol * largest)


def weigh(sums):
    """A scalar with another weight for each row."""
    weight = torch.linspace(0.5, 1.5, len(sums), dtype=torch.float64, device=sums.device)
    return (weight * sums).sum()


@pytest.mark.parametrize("n", [3, 10, 13])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 10, 12, 13, 64])
def test_log_sums_for_every_side_of_a_tile(rng, monkeypatch, n, side):
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    x = points(rng, n)
    ours = gradient(lambda x: weigh(blockwise.log_sums(x, scale=2.0)), x)
    assert_same(ours, gradient(lambda x: weigh(log_sums(x, 2.0, {0})), x))


@pytest.mark.parametrize("side", [1, 2, 3, 5, 6, 9, 64])
def test_log_sums_without_partners(rng, monkeypatch, side):
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    x = points(rng, 10)
    ours = gradient(lambda x: weigh(blockwise.log_sums(x, scale=2.0, excluded=(0, 5))), x)
    assert_same(ours, gradient(lambda x: weigh(log_sums(x, 2.0, {0, 5})), x))


@pytest.mark.parametrize("excluded", [(), (0,), (0, 3), (-1, 2)])
@pytest.mark.parametrize("side", [1, 3, 4, 7, 64])
def test_sums_between_for_every_side_of_a_tile(rng, monkeypatch, side, excluded):
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    x, y = points(rng, 7), points(rng, 7 if excluded else 5)
    inside = {offset % 7 for offset in excluded}

    def ours(x, y):
        rows, columns = blockwise.log_sums_between(x, y, scale=2.0, excluded=excluded)
        return weigh(rows) + weigh(columns.square())

    def expected(x, y):
        matrix = logits(x, y, 2.0, inside)
        return weigh(matrix.logsumexp(1)) + weigh(matrix.logsumexp(0).square())

    assert_same(gradient(ours, x, y), gradient(expected, x, y))


@pytest.mark.parametrize("height", [1, 2, 3, 7, 64])
def test_means_for_every_height_of_a_panel(rng, monkeypatch, height):
    monkeypatch.setitem(_tiles.PANEL, "cpu", 1)
    monkeypatch.setattr(_tiles, "PANEL_ROWS", height)
    x, y = points(rng, 7), points(rng, 7)

    def cross_entropy(x, y):
        return torch.nn.functional.cross_entropy(logits(x, y, 2.0, ()), torch.arange(7))

    def softplus(x, y):
        return torch.log1p(logits(x, y, 2.0, {1}).exp()).sum() / 42

    ours = gradient(lambda x, y: blockwise.cross_entropy(x, y, scale=2.0), x, y)
    assert_same(ours, gradient(cross_entropy, x, y))

    def of_the_next(x, y):
        return torch.nn.functional.cross_entropy(logits(x, y, 2.0, {3}), (torch.arange(7) + 1) % 7)

    ours = gradient(
        lambda x, y: blockwise.cross_entropy(x, y, scale=2.0, positive=1, excluded=(3,)), x, y
    )
    assert_same(ours, gradient(of_the_next, x, y))
    ours = gradient(lambda x, y: blockwise.softplus_mean(x, y, scale=2.0, excluded=(1,)), x, y)
    assert_same(ours, gradient(softplus, x, y))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("side", [4, 64])
def test_log_sums_at_every_scale(rng, monkeypatch, side, scale, dtype):
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    x = points(rng, 12, 5, dtype)
    rtol = 1e-11 if dtype == torch.float64 else 1e-5
    expected = gradient(lambda x: weigh(log_sums(x, scale, {0})), x.double())
    assert_same(gradient(lambda x: weigh(blockwise.log_sums(x, scale=scale)), x), expected, rtol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [4, 64])
def test_sums_that_underflow_the_common_shift(rng, monkeypatch, side, dtype):
    # Norms from 1e-3 to 40: sums of rows differ by a factor of e^1000 and more.
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    sizes = torch.logspace(-3, 1.6, 12, dtype=dtype)[:, None]
    x, y = sizes * points(rng, 12, 5, dtype), sizes.flip(0) * points(rng, 12, 5, dtype)
    rtol = 1e-11 if dtype == torch.float64 else 1e-5
    ours = gradient(lambda x: weigh(blockwise.log_sums(x, scale=1.0, excluded=(0, 6))), x)
    assert_same(ours, gradient(lambda x: weigh(log_sums(x, 1.0, {0, 6})), x.double()), rtol)

    def between(x, y):
        rows, columns = blockwise.log_sums_between(x, y, scale=1.0, excluded=(1,))
        return weigh(rows) + 2 * weigh(columns)

    def expected(x, y):
        matrix = logits(x, y, 1.0, {1})
        return weigh(matrix.logsumexp(1)) + 2 * weigh(matrix.logsumexp(0))

    assert_same(gradient(between, x, y), gradient(expected, x.double(), y.double()), rtol)


def test_a_tiny_gradient_from_above_does_not_underflow(rng):
    x = points(rng, 8, dtype=torch.float32)
    small = gradient(lambda x: 1e-30 * weigh(blockwise.log_sums(x, scale=60.0)), x)[1][0]
    large = gradient(lambda x: weigh(blockwise.log_sums(x, scale=60.0)), x)[1][0]
    torch.testing.assert_close(small * 1e30, large)
    zero = gradient(lambda x: 0 * weigh(blockwise.log_sums(x, scale=60.0)), x)[1][0]
    assert not zero.any()


def functions(excluded=(0,)):
    return {
        "log_sums": lambda x, y: weigh(blockwise.log_sums(x * y, scale=2.0)),
        "log_sums_between": lambda x, y: sum(
            map(weigh, blockwise.log_sums_between(x, y, scale=2.0, excluded=excluded))
        ),
        "one_of_two": lambda x, y: weigh(blockwise.log_sums_between(x, y, scale=2.0)[1]),
        "same_twice": lambda x, y: weigh(
            blockwise.log_sums_between(x * y, x * y, scale=2.0, excluded=excluded)[0]
        ),
        "cross_entropy": lambda x, y: blockwise.cross_entropy(x, y, scale=2.0),
        "softplus_mean": lambda x, y: blockwise.softplus_mean(x, y, scale=2.0, excluded=excluded),
        "distance_mean": lambda x, y: blockwise.distance_mean(x * y, torch.log1p),
        "with a slope": lambda x, y: blockwise.distance_mean(
            x * y, lambda s: torch.exp(-s), lambda s, value: -value
        ),
    }


@pytest.mark.parametrize("side", [2, 64])
@pytest.mark.parametrize("name", functions())
def test_first_and_second_derivatives(rng, monkeypatch, name, side):
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    x, y = points(rng, 4, 2).requires_grad_(), points(rng, 4, 2).requires_grad_()
    assert gradcheck(functions()[name], (x, y), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(functions()[name], (x, y))
    assert gradcheck(lambda x: functions()[name](x, y.detach()), (x,))
    assert gradgradcheck(lambda y: functions()[name](x.detach(), y), (y,))


@pytest.mark.parametrize("name", functions())
def test_transforms(rng, name):
    x, y = points(rng, 4, 2), points(rng, 4, 2)
    f = functions()[name]
    value, (of_x, _) = gradient(f, x, y)
    torch.testing.assert_close(grad(f)(x, y), of_x)
    torch.testing.assert_close(jacrev(f)(x, y), of_x)
    torch.testing.assert_close(jvp(f, (x, y), (y, 0 * y))[1], (of_x * y).sum())
    batch = torch.stack([x, 2 * x, y])
    torch.testing.assert_close(
        vmap(f, (0, None))(batch, y), torch.stack([f(part, y) for part in batch])
    )
    torch.testing.assert_close(
        vmap(grad(f), (0, None))(batch, y), torch.stack([gradient(f, t, y)[1][0] for t in batch])
    )
    second = torch.autograd.functional.hessian(lambda x: f(x, y), x)
    torch.testing.assert_close(hessian(f)(x, y), second)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(f(forward_ad.make_dual(x, y), y))
        torch.testing.assert_close(dual.tangent, (of_x * y).sum())
    torch.testing.assert_close(value, f(x, y))


@pytest.mark.parametrize("name", functions())
def test_a_graph_may_be_walked_twice(rng, name):
    x, y = points(rng, 4, 2).requires_grad_(), points(rng, 4, 2).requires_grad_()
    value = functions()[name](x, y)
    first = torch.autograd.grad(value, (x, y), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(value, (x, y)), first, rtol=0, atol=0)


@pytest.mark.parametrize("name", functions())
def test_where_the_default_device_holds_no_values(rng, name):
    x, y = points(rng, 4, 2), points(rng, 4, 2)
    expected = gradient(functions()[name], x, y)
    torch.set_default_device("meta")
    try:
        inputs = [t.clone().requires_grad_() for t in (x, y)]
        value = functions()[name](*inputs)
        first = torch.autograd.grad(value, inputs, create_graph=True)
        transformed = grad(functions()[name], (0, 1))(x, y)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close((value, first), expected)
    torch.testing.assert_close(transformed, expected[1])


def test_half_precision_is_converted_to_single(rng):
    for dtype in (torch.float16, torch.bfloat16):
        x = points(rng, 6).to(dtype)
        value, (slope,) = gradient(lambda x: weigh(blockwise.log_sums(x, scale=2.0)), x)
        single = gradient(lambda x: weigh(blockwise.log_sums(x, scale=2.0)), x.float())
        assert slope.dtype == dtype
        torch.testing.assert_close(value, single[0])
        torch.testing.assert_close(slope, single[1][0].to(dtype))


def test_sums_and_means_of_single_precision_are_double(rng):
    x, y = points(rng, 6).float(), points(rng, 6).float()
    for value in (
        *blockwise.log_sums_between(x, y, scale=2.0),
        blockwise.log_sums(x, scale=2.0),
        blockwise.cross_entropy(x, y, scale=2.0),
        blockwise.softplus_mean(x, y, scale=2.0),
        blockwise.distance_mean(x, torch.sqrt),
    ):
        assert value.dtype == torch.float64


def by_distances(x, function):
    """Mean over pairs of a function of squared distances, from the differences."""
    squares = (x[:, None] - x).square().sum(-1)
    return function(squares[~torch.eye(len(x), dtype=torch.bool)]).mean()


@pytest.mark.parametrize("n", [2, 3, 10, 13])
@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 12, 64])
def test_distance_mean_for_every_side_of_a_tile(rng, monkeypatch, n, side):
    monkeypatch.setitem(_tiles.TILE, "cpu", side)
    x = 3 + torch.randn(n, 4, generator=rng, dtype=torch.float64)
    for function in (torch.sqrt, torch.log1p, lambda s: torch.exp(-s), torch.rsqrt):
        ours = gradient(lambda x, f=function: blockwise.distance_mean(x, f), x)
        assert_same(ours, gradient(lambda x, f=function: by_distances(x, f), x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [1e-7, 1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("held", [3, 2**15])
def test_close_rows_keep_their_digits(rng, monkeypatch, dtype, gap, held):
    monkeypatch.setitem(_tiles.TILE, "cpu", 16)
    monkeypatch.setattr(_tiles, "CLOSE_PAIRS", held)
    centres = points(rng, 10, 6).repeat(4, 1)
    x = (centres + gap * torch.randn(40, 6, generator=rng, dtype=torch.float64)).to(dtype)
    for function in (torch.sqrt, torch.rsqrt, lambda s: torch.log1p(s / gap**2)):
        ours = gradient(lambda x, f=function: blockwise.distance_mean(x, f), x)
        expected = gradient(lambda x, f=function: by_distances(x, f), x.double())
        assert_same(ours, expected, 1e-5 if dtype == torch.float32 else 1e-9)


def test_a_cloud_far_from_the_origin_is_not_close(rng, monkeypatch):
    """Rows are close relative to the cloud, so that a collapsed one keeps to inner products."""
    cloud = torch.linspace(-1, 2, 8) + 1e-2 * torch.randn(300, 8, generator=rng)
    tiles, near = _tiles.distance_tiles, []

    def watched(x):
        for tile in tiles(x):
            near.append(len(tile[3][0]))
            yield tile

    monkeypatch.setattr(_tiles, "distance_tiles", watched)
    blockwise.distance_mean(cloud, torch.sqrt)
    assert sum(near) < 300
    ours = gradient(lambda x: blockwise.distance_mean(x, torch.sqrt), cloud)
    assert_same(ours, gradient(lambda x: by_distances(x, torch.sqrt), cloud.double()), 1e-5)


def test_coincident_rows_do_not_pull(rng):
    x = points(rng, 5, 3).repeat(2, 1)
    value, (slope,) = gradient(lambda x: blockwise.distance_mean(x, torch.sqrt), x)
    torch.testing.assert_close(value, by_distances(x, torch.sqrt))
    assert slope.isfinite().all()
    torch.testing.assert_close(slope[:5], slope[5:])
    plain = grad(lambda x: blockwise.distance_mean(x, torch.sqrt))(x)
    torch.testing.assert_close(slope, plain)
    same = torch.ones(4, 2)
    assert blockwise.distance_mean(same, lambda s: torch.exp(-s)) == 1


def test_any_number_of_threads_gives_the_same(rng):
    x = points(rng, 1500, 16, torch.float32)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(gradient(lambda x: weigh(blockwise.log_sums(x, scale=5.0)), x))
    finally:
        torch.set_num_threads(threads)
    assert_same(results[0], (results[1][0], [g.double() for g in results[1][1]]), 1e-6)


def test_no_matrix_of_all_pairs_is_held(rng, monkeypatch):
    """The largest tensor that any operation makes, forward or backward."""
    largest = 0

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for part in result if isinstance(result, tuple | list) else [result]:
                if isinstance(part, torch.Tensor):
                    largest = max(largest, part.numel())
            return result

    monkeypatch.setitem(_tiles.TILE, "cpu", 16)
    monkeypatch.setitem(_tiles.PANEL, "cpu", 512)
    monkeypatch.setattr(_tiles, "PANEL_ROWS", 4)
    x, y = points(rng, 128), points(rng, 128)
    for scale in (1.0, 1e4):  # by tiles, and by panels
        for name in ("log_sums", "between", "cross_entropy", "softplus", "distance"):
            call = {
                "log_sums": lambda x, y, s=scale: weigh(blockwise.log_sums(x * y, scale=s)),
                "between": lambda x, y, s=scale: sum(
                    map(weigh, blockwise.log_sums_between(x, y, scale=s))
                ),
                "cross_entropy": lambda x, y, s=scale: blockwise.cross_entropy(x, y, scale=s),
                "softplus": lambda x, y, s=scale: blockwise.softplus_mean(x, y, scale=s),
                "distance": lambda x, y: blockwise.distance_mean(x + y, torch.log1p),
            }[name]
            largest = 0
            with Spy():
                gradient(call, x, y)
            assert 0 < largest <= 512, name


def test_memory_of_sixteen_thousand_rows():
    """Peak memory of a process, beyond that of a small problem and of the points."""
    script = """
import resource, sys
from pathlib import Path
import torch
from cltheory import blockwise
torch.set_num_threads(1)
def peak():
    status = Path("/proc/self/status")
    if status.exists():  # on Linux the peak of getrusage starts from that of the parent
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
def run(n, dim):
    x = torch.nn.functional.normalize(torch.randn(n, dim), dim=1).requires_grad_()
    blockwise.log_sums(x, scale=2.0, excluded=(0, n // 2)).mean().backward()
    return peak()
before = run(1024, 8)
print(run(16384, 8) - before)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 100  # the matrix has 1,024 MiB


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: blockwise.log_sums(x[0], scale=1.0), "x must be a matrix"),
        (lambda x: blockwise.log_sums(x.int(), scale=1.0), "x must hold floating-point"),
        (lambda x: blockwise.log_sums(x, scale=0.0), "scale must be a finite number above 0"),
        (lambda x: blockwise.log_sums(x, scale=1.0, excluded=(1,)), "with o also -o modulo 4"),
        (lambda x: blockwise.log_sums(x[:1], scale=1.0), "must leave a pair in each of 1 rows"),
        (lambda x: blockwise.log_sums(x / 0, scale=1.0), "x must be finite, got"),
        (lambda x: blockwise.log_sums(1e200 * x, scale=1.0), "x and y must have finite logits"),
        (
            lambda x: blockwise.log_sums_between(x, x[:, :1], scale=1.0),
            "x and y must be points of one dimension",
        ),
        (
            lambda x: blockwise.log_sums_between(x, x[:2], scale=1.0, excluded=(0,)),
            "excluded must be empty for sets of different sizes",
        ),
        (
            lambda x: blockwise.cross_entropy(x, x[:2], scale=1.0),
            "x and y must have as many rows",
        ),
        (lambda x: blockwise.softplus_mean(x, x.float(), scale=1.0), "must be of one dtype"),
        (lambda x: blockwise.distance_mean(x[:1], torch.sqrt), "x must hold at least 2"),
        (lambda x: blockwise.distance_mean(x / 0, torch.sqrt), "x must be finite, got"),
    ],
)
def test_bad_input(rng, call, words):
    with pytest.raises(ValueError, match=words):
        call(points(rng, 4, 2))
