import math

import pytest
import scipy.linalg
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import pairwise
from torch.func import hessian, jacrev, vmap

from cltheory import kernels, rkhs, sphere

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}
PROFILES = {
    "gaussian": kernels.gaussian(0.7),
    "logarithmic": kernels.logarithmic(0.7),
    "inverse_multiquadric": kernels.inverse_multiquadric(0.7),
    "riesz": kernels.riesz(0.7),
    "distance": kernels.riesz(-1.0),
    "exponential": kernels.exponential(0.7),
}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def points(rng, n=6, dim=3, dtype=torch.float64):
    return torch.randn(n, dim, generator=rng, dtype=dtype)


def low_rank(rng, n=8, rank=5):
    factor = points(rng, n, rank)
    return factor @ factor.T


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("kernel", "peer"),
    [
        (kernels.rbf(1.7), lambda x, y: pairwise.rbf_kernel(x, y, gamma=1 / (2 * 1.7**2))),
        (
            kernels.polynomial(3, 0.5),
            lambda x, y: pairwise.polynomial_kernel(x, y, degree=3, gamma=1, coef0=0.5),
        ),
        (kernels.linear(), pairwise.linear_kernel),
    ],
)
def test_kernels_agree_with_scikit_learn(rng, kernel, peer, dtype):
    x, y = points(rng, 6, dtype=dtype), points(rng, 4, dtype=dtype)
    values = kernels.gram(kernel, x, y)
    assert values.dtype == dtype
    expected = torch.from_numpy(peer(x.double().numpy(), y.double().numpy())).to(dtype)
    torch.testing.assert_close(values, expected, rtol=10 * TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_rbf_far_from_the_origin(rng):
    x = points(rng)
    torch.testing.assert_close(
        kernels.rbf(1.0)(x + 1e6, x + 1e6), kernels.rbf(1.0)(x, x), rtol=1e-8, atol=0
    )


def test_rbf_never_exceeds_one(rng):
    x = 100 * points(rng, 50)
    assert kernels.rbf(1e3)(x, x).max() <= 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # inside PyTorch
def test_rbf_has_the_right_second_derivative_where_points_coincide(rng):
    x = points(rng, 1)
    second = hessian(lambda z: kernels.rbf(2.0)(z[None], x)[0, 0])(x[0])
    torch.testing.assert_close(second, -torch.eye(3, dtype=torch.float64) / 4)


def test_rbf_under_transforms(rng):
    x = points(rng)
    rows = vmap(lambda z: kernels.gram(kernels.rbf(1.0), z[None], x)[0])(x)
    torch.testing.assert_close(rows, kernels.rbf(1.0)(x, x))
    slope = jacrev(lambda z: kernels.gram(kernels.rbf(1.0), z[None], x)[0])(x[0])
    torch.testing.assert_close(slope, rows[0][:, None] * (x - x[0]))


def test_brownian_is_the_covariance_of_sums_of_increments():
    # W(x) is the sum of the independent increments below x, of variance their length.
    grid = torch.linspace(0, 1, 101, dtype=torch.float64)[1:]
    below = (grid[None] <= grid[:, None] + 1e-12).double()
    torch.testing.assert_close(kernels.gram(kernels.brownian(), grid), below @ below.T / 100)
    torch.testing.assert_close(kernels.brownian()(grid[:, None], grid), below @ below.T / 100)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_by_distance(rng, name):
    x, y = sphere.uniform(5, 3, generator=rng), sphere.uniform(4, 3, generator=rng)
    r = torch.cdist(x, y)
    by_distance = {
        "gaussian": torch.exp(-0.7 * r**2),
        "logarithmic": -0.5 * torch.log(1 + 0.7 * r**2),
        "inverse_multiquadric": 0.7 / torch.sqrt(0.49 + r**2),
        "riesz": r**-0.7,
        "distance": -r,
        "exponential": torch.exp((1 - r**2 / 2) / 0.7),
    }[name]
    torch.testing.assert_close(kernels.on_sphere(PROFILES[name])(x, y), by_distance)


def test_riesz_where_an_inner_product_exceeds_one():
    above = torch.tensor([1 + 1e-15], dtype=torch.float64)
    assert kernels.riesz(-1.0)(above) == 0
    assert kernels.riesz(1.0)(above) == math.inf


@pytest.mark.parametrize("name", ["gaussian", "inverse_multiquadric", "exponential"])
def test_positive_definite_profiles(rng, name):
    x = sphere.uniform(40, 3, generator=rng)
    assert kernels.is_psd(kernels.gram(kernels.on_sphere(PROFILES[name]), x))


@pytest.mark.parametrize(("s", "conditionally"), [(-1.0, True), (-2.0, True), (-4.0, False)])
def test_distances_are_psd_up_to_a_constant_to_the_power_two(rng, s, conditionally):
    x = sphere.uniform(40, 3, generator=rng)
    values = kernels.gram(kernels.on_sphere(kernels.riesz(s)), x)
    assert not kernels.is_psd(values)
    assert kernels.is_psd(kernels.centre(values)) == conditionally


def test_median_bandwidth_is_the_median(rng):
    x = points(rng, 15)  # 105 pairs: an odd number has one median
    pairs = torch.cdist(x, x)[torch.triu_indices(15, 15, 1).unbind()]
    assert kernels.median_bandwidth(x) == pytest.approx(float(pairs.quantile(0.5)), rel=1e-12)


def test_median_bandwidth_of_many_points_looks_at_a_sample(rng):
    x = torch.randn(50_000, 2, generator=rng, dtype=torch.float64)
    # |x - y|^2 / 2 is chi-squared with two degrees of freedom: the median is sqrt(2 * 2 log 2).
    assert kernels.median_bandwidth(x) == pytest.approx(math.sqrt(4 * math.log(2)), rel=0.03)


def test_centring_is_that_of_the_features(rng):
    features = points(rng, 7, 4)
    centred = features - features.mean(0)
    torch.testing.assert_close(kernels.centre(features @ features.T), centred @ centred.T)


def test_squared_distances_are_those_of_the_features(rng):
    features = points(rng, 7, 4)
    torch.testing.assert_close(
        kernels.squared_distances(features @ features.T), torch.cdist(features, features) ** 2
    )


def test_psd_matrices_pass(rng):
    for gram in (low_rank(rng), torch.zeros(3, 3), torch.ones(1, 1), torch.eye(3)):
        kernels.require_psd(gram)
    rounding = torch.diag(torch.tensor([1.0, -1e-12], dtype=torch.float64))
    assert kernels.is_psd(rounding)
    assert not kernels.is_psd(rounding, rtol=1e-13)


def test_psd_names_the_most_negative_eigenvalue(rng):
    shifted = low_rank(rng) - 2 * torch.eye(8, dtype=torch.float64)
    with pytest.raises(ValueError, match="shifted must be positive semidefinite, got -2 as its"):
        kernels.require_psd(shifted, "shifted")
    with pytest.raises(ValueError, match="got -3 as its most negative eigenvalue"):
        kernels.require_psd(torch.diag(torch.tensor([-3.0, -1.0])))


def test_inner_product_reproduces(rng):
    gram = low_rank(rng)
    alpha, beta = points(rng, 8, 2).T
    f, g = gram @ alpha, gram @ beta
    assert float(rkhs.inner(gram, f, g) - alpha @ gram @ beta) == pytest.approx(0, abs=1e-11)
    for i in range(8):
        assert float(rkhs.inner(gram, f, gram[i]) - f[i]) == pytest.approx(0, abs=1e-11)
    assert float(rkhs.norm(gram, f)) == pytest.approx(math.sqrt(alpha @ gram @ alpha))


def test_inner_product_is_that_of_least_norm_coordinates(rng):
    # By another route: f = Phi w with the shortest w, and the inner product of those.
    factor = points(rng, 8, 5)
    f, g = factor @ points(rng, 5, 2), factor @ points(rng, 5, 2)
    w, v = (torch.from_numpy(scipy.linalg.lstsq(factor, values)[0]) for values in (f, g))
    for i in range(2):
        assert float(rkhs.inner(factor @ factor.T, f[:, i], g[:, i])) == pytest.approx(
            float(w[:, i] @ v[:, i])
        )


def test_inner_product_cuts_small_eigenvalues():
    gram = torch.diag(torch.tensor([1.0, 1e-6], dtype=torch.float64))
    f = torch.ones(2, dtype=torch.float64)
    assert float(rkhs.inner(gram, f, f)) == pytest.approx(1 + 1e6)
    assert float(rkhs.inner(gram, f, f, rtol=1e-5)) == pytest.approx(1)


def test_projection_to_the_range(rng):
    factor = points(rng, 8, 5)
    f = points(rng, 8, 1)[:, 0]
    basis = torch.from_numpy(scipy.linalg.orth(factor.numpy()))
    torch.testing.assert_close(rkhs.project(factor @ factor.T, f), basis @ (basis.T @ f))


def test_a_member_is_its_own_projection_however_small_an_eigenvalue():
    basis = torch.linalg.qr(torch.ones(4, 4, dtype=torch.float64).tril()).Q
    gram = basis * torch.tensor([1.0, 1e-3, 1e-9, 1e-14]) @ basis.mT
    f = gram @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    torch.testing.assert_close(rkhs.project(gram, f), f, rtol=0, atol=1e-14)


def test_an_inner_product_keeps_its_digits_however_small_an_eigenvalue():
    basis = torch.linalg.qr(torch.ones(4, 4, dtype=torch.float64).tril()).Q
    gram = basis * torch.tensor([1.0, 1e-3, 1e-9, 1e-14]) @ basis.mT
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    f = gram @ weights
    assert float(rkhs.inner(gram, f, f)) == pytest.approx(float(weights @ f), rel=1e-13)


def test_projection_differentiates_where_eigenvalues_are_equal():
    """The rank has to stay: it is the factor that moves."""
    factor = torch.eye(4, 2, dtype=torch.float64, requires_grad=True)
    f = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, f: rkhs.project(a @ a.mT, f), (factor, f))


def test_inner_product_differentiates_in_the_gram(rng):
    factor, f = points(rng, 4, 4), points(rng, 4, 1)[:, 0]
    gram = (factor @ factor.T + torch.eye(4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda k: rkhs.inner((k + k.T) / 2, f, f), (gram,), atol=1e-6)


def test_ridge_is_a_stationary_point_of_its_objective(rng):
    gram, y = low_rank(rng), points(rng, 8, 1)[:, 0]
    alpha = rkhs.kernel_ridge(gram, y, 0.3).requires_grad_()
    objective = ((y - gram @ alpha) ** 2).mean() + 0.3 * alpha @ gram @ alpha
    (slope,) = torch.autograd.grad(objective, alpha)
    assert slope.abs().max() < 1e-12


def test_ridge_agrees_with_scikit_learn(rng):
    x, y = points(rng, 20), points(rng, 20, 2)
    gram = kernels.gram(kernels.rbf(1.0), x)
    peer = KernelRidge(alpha=20 * 0.1, kernel="precomputed").fit(gram.numpy(), y.numpy())
    torch.testing.assert_close(rkhs.kernel_ridge(gram, y, 0.1), torch.from_numpy(peer.dual_coef_))


def test_ridge_towards_zero_interpolates_inside_the_range_only(rng):
    gram = low_rank(rng)
    inside = gram @ points(rng, 8, 1)[:, 0]
    outside = points(rng, 8, 1)[:, 0]
    residual = {
        name: float((gram @ rkhs.kernel_ridge(gram, y, 1e-12) - y).norm())
        for name, y in (("inside", inside), ("outside", outside))
    }
    assert residual["inside"] < 1e-8
    assert residual["outside"] > 0.1


X = torch.ones(2, 3)
GRAM = torch.eye(2)
VALUES = torch.ones(2)
NAN = torch.tensor([[math.nan, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.rbf(0.0), "bandwidth must be a finite number above 0, got 0.0"),
        (lambda: kernels.rbf(math.inf), "bandwidth must be a finite number above 0, got inf"),
        (lambda: kernels.polynomial(0), "degree must be an integer of at least 1, got 0"),
        (lambda: kernels.polynomial(2, -1.0), "offset must be a finite number .*got -1.0"),
        (lambda: kernels.gaussian(-1.0), "a must be a finite number above 0, got -1.0"),
        (lambda: kernels.logarithmic(0.0), "a must be a finite number above 0"),
        (lambda: kernels.inverse_multiquadric(0.0), "c must be a finite number above 0"),
        (lambda: kernels.exponential(0.0), "temperature must be a finite number above 0, got 0.0"),
        (lambda: kernels.riesz(0.0), "s must be finite and not 0, got 0.0"),
        (lambda: kernels.riesz(math.nan), "s must be finite and not 0, got nan"),
        (lambda: kernels.rbf(1.0)(X[0], X), r"x must be a matrix .* got shape \(3,\)"),
        (lambda: kernels.rbf(1.0)(X, X[:0]), r"y must be a matrix .* got shape \(0, 3\)"),
        (lambda: kernels.linear()(X, X[:, :2]), "one dimension, got 3 and 2 columns"),
        (lambda: kernels.linear()(X, X.double()), "one dtype, got torch.float32 and torch.float64"),
        (
            lambda: kernels.brownian()(X, X),
            r"x must have shape \(n,\) or \(n, 1\), got shape \(2, 3",
        ),
        (lambda: kernels.brownian()(-VALUES, VALUES), "x must not be negative, got -1"),
        (
            lambda: kernels.on_sphere(kernels.gaussian(1.0))(X / math.sqrt(3), X),
            "y must have rows of norm 1, got one off by 0.732",
        ),
        (lambda: kernels.gram(kernels.linear(), X[:0]), "x must hold at least 1 point"),
        (lambda: kernels.gram(kernels.linear(), NAN), "x must be finite, got 1 NaN or infinite"),
        (
            lambda: kernels.gram(kernels.linear(), X, X / 0),
            "y must be finite, got 6 NaN or infinite",
        ),
        (lambda: kernels.gram(kernels.linear(), X.int()), "x must hold floating-point numbers"),
        (
            lambda: kernels.gram(lambda x, y: x, X),
            r"kernel must return a matrix of shape \(2, 2\), got \(2, 3\)",
        ),
        (lambda: kernels.median_bandwidth(X[:1]), r"x must hold at least 2 point\(s\)"),
        (lambda: kernels.median_bandwidth(VALUES), r"x must be a matrix"),
        (lambda: kernels.median_bandwidth(X), "x must hold distinct points"),
        (lambda: kernels.centre(X), r"gram must be a square matrix, got shape \(2, 3\)"),
        (lambda: kernels.squared_distances(X), "gram must be a square matrix"),
        (lambda: kernels.require_psd(X), "gram must be a square matrix"),
        (lambda: kernels.require_psd(NAN), "gram must be finite, got 1 NaN or infinite entries"),
        (lambda: kernels.require_psd(GRAM.int()), "gram must hold floating-point numbers"),
        (
            lambda: kernels.require_psd(torch.tensor([[1.0, 0.5], [0.0, 1.0]])),
            "gram must be symmetric, got entries that differ from their mirror by up to 0.5",
        ),
        (lambda: rkhs.inner(-GRAM, VALUES, VALUES), "gram must be positive semidefinite"),
        (
            lambda: rkhs.inner(GRAM, X[0], VALUES),
            r"f must hold one value .* 2 points.*\(3,\)",
        ),
        (lambda: rkhs.inner(GRAM, VALUES, VALUES / 0), "g must be finite, got 2"),
        (lambda: rkhs.norm(GRAM, X), r"f must hold one value for each of 2 points"),
        (lambda: rkhs.project(GRAM, X[0]), r"f must hold one value"),
        (lambda: rkhs.kernel_ridge(GRAM, X[0], 1.0), r"targets must hold one value"),
        (lambda: rkhs.kernel_ridge(GRAM, VALUES, 0.0), "ridge must be a finite number above 0"),
        (lambda: rkhs.kernel_ridge(-GRAM, VALUES, 1.0), "got -1 as its most negative"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_is_psd_of_what_is_no_gram_matrix():
    assert not kernels.is_psd(NAN)


def test_everything_stays_on_the_callers_device(rng):
    x = sphere.uniform(6, 3, generator=rng)
    y = x[:4].clone()
    line = x[:, 0].abs()
    gram = x @ x.T
    torch.set_default_device("meta")
    try:
        results = [
            *(
                kernels.gram(k, x, y)
                for k in (kernels.rbf(1.0), kernels.polynomial(2), kernels.linear())
            ),
            kernels.gram(kernels.brownian(), line),
            *(kernels.gram(kernels.on_sphere(profile), x, y) for profile in PROFILES.values()),
            kernels.centre(gram),
            kernels.squared_distances(gram),
            rkhs.inner(gram, line, line),
            rkhs.norm(gram, line),
            rkhs.project(gram, line),
            rkhs.kernel_ridge(gram, line, 0.1),
        ]
        kernels.median_bandwidth(x)
        kernels.require_psd(gram)
        assert not kernels.is_psd(-gram)
    finally:
        torch.set_default_device(None)
    assert {result.device.type for result in results} == {"cpu"}


@pytest.mark.parametrize(
    "profile",
    [
        kernels.gaussian(2.0),
        kernels.logarithmic(3.0),
        kernels.inverse_multiquadric(0.4),
        kernels.riesz(0.7),
        kernels.riesz(-1.3),
    ],
)
def test_radial_profiles_know_their_slope(profile):
    square = torch.linspace(0.01, 4, 50, dtype=torch.float64, requires_grad=True)
    value = profile.of_square(square)
    (slope,) = torch.autograd.grad(value.sum(), square)
    torch.testing.assert_close(profile.slope(square, value).detach(), slope)
    torch.testing.assert_close(profile(1 - square / 2), value)
    torch.testing.assert_close(
        profile.of_square(square.float()).double(), value, rtol=1e-5, atol=1e-6
    )
