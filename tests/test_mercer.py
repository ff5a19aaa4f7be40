import math
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.integrate import quad
from scipy.special import eval_hermite, gamma, iv
from sklearn.decomposition import KernelPCA

from cltheory import kernels, mercer, sphere


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def rbf_gram(rng, n, dim=3):
    x = torch.randn(n, dim, generator=rng, dtype=torch.float64)
    return kernels.gram(kernels.rbf(1.5), x)


def with_spectrum(values, rng):
    n = len(values)
    basis = torch.linalg.qr(torch.randn(n, n, generator=rng, dtype=torch.float64)).Q
    gram = (basis * values) @ basis.T
    return (gram + gram.T) / 2


# Sizes on both sides of the choice between LAPACK and Lanczos.
@pytest.mark.parametrize(("n", "rank"), [(1, 1), (40, 40), (300, 8), (700, 8), (700, 300)])
def test_top_eigenpairs_are_the_top_of_the_spectrum(rng, n, rank):
    gram = rbf_gram(rng, n)
    values, vectors = mercer.top_eigenpairs(gram, rank)
    expected = np.linalg.eigvalsh(gram.numpy())[::-1][:rank].copy()
    assert values.shape == (rank,)
    assert vectors.shape == (n, rank)
    assert (values - torch.from_numpy(expected)).abs().max() < 1e-9 * values[0]
    assert (gram @ vectors - vectors * values).norm(dim=0).max() < 1e-6 * values[0]
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(rank, dtype=torch.float64))


def test_top_eigenpairs_in_float32(rng):
    gram = rbf_gram(rng, 700)
    values, vectors = mercer.top_eigenpairs(gram.float(), 8)
    assert values.dtype == vectors.dtype == torch.float32
    torch.testing.assert_close(
        values.double(), torch.linalg.eigvalsh(gram).flip(0)[:8], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("n", [100, 700])
def test_top_eigenpairs_repeat_with_one_sign(rng, n):
    gram = rbf_gram(rng, n)
    first, second = mercer.top_eigenpairs(gram, 5), mercer.top_eigenpairs(gram, 5)
    assert torch.equal(first.vectors, second.vectors)
    largest = first.vectors.gather(0, first.vectors.abs().argmax(0, keepdim=True))
    assert (largest > 0).all()


@pytest.mark.parametrize("rank", [1, 5, 10, 32])
def test_no_copy_of_a_repeated_eigenvalue_is_overlooked(rng, rank):
    # Lanczos alone returns four of the five copies here and calls it converged.
    spectrum = 1 / (1 + torch.arange(700, dtype=torch.float64) // 5)
    values, _ = mercer.top_eigenpairs(with_spectrum(spectrum, rng), rank)
    torch.testing.assert_close(values, spectrum[:rank])


def test_the_second_look_sees_what_the_first_start_could_not():
    # Looking again from the first start misses a copy in about a quarter of these.
    spectrum = 1 / (1 + torch.arange(600, dtype=torch.float64) // 5)
    for seed in range(24):
        gram = with_spectrum(spectrum, torch.Generator().manual_seed(seed))
        values, _ = mercer.top_eigenpairs(gram, 32)
        torch.testing.assert_close(values, spectrum[:32])


@pytest.mark.parametrize(
    "spectrum",
    [
        torch.zeros(600, dtype=torch.float64),
        torch.ones(600, dtype=torch.float64),
        -torch.arange(600, dtype=torch.float64),
        torch.cat([torch.ones(3), torch.zeros(597)]).double(),
        0.3 ** torch.arange(600, dtype=torch.float64),
    ],
    ids=["zero", "identity", "negative", "rank 3", "geometric"],
)
def test_top_eigenpairs_where_lanczos_has_a_hard_time(rng, spectrum):
    gram = with_spectrum(spectrum, rng)
    values, vectors = mercer.top_eigenpairs(gram, 6)
    torch.testing.assert_close(values, spectrum[:6], atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(6, dtype=torch.float64))
    assert torch.equal(vectors, mercer.top_eigenpairs(gram, 6).vectors)


@pytest.mark.parametrize("scale", [0.0, 1.0, -2.0])
def test_of_a_multiple_of_the_identity_the_vectors_are_the_same_each_time(scale):
    gram = scale * torch.eye(600, dtype=torch.float64)
    values, vectors = mercer.top_eigenpairs(gram, 3)
    assert values.tolist() == pytest.approx([scale] * 3)
    assert torch.equal(vectors, mercer.top_eigenpairs(gram, 3).vectors)


def test_top_eigenpairs_differentiate(rng):
    gram = with_spectrum(torch.arange(8, 0, -1).double(), rng).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda k: mercer.top_eigenpairs((k + k.T) / 2, 3).values, (gram,), atol=1e-6
    )
    # d(lambda)/dK = q q^T, by torch.func too.
    slope = torch.func.grad(lambda k: mercer.top_eigenpairs((k + k.T) / 2, 1).values.sum())(gram)
    with torch.no_grad():
        vector = mercer.top_eigenpairs(gram, 1).vectors
    torch.testing.assert_close(slope.detach(), vector @ vector.T)
    stacked = torch.func.vmap(lambda k: mercer.top_eigenpairs(k, 2).values)(
        gram.detach().expand(3, 8, 8)
    )
    torch.testing.assert_close(stacked, torch.tensor([[8.0, 7.0]] * 3).double())


def test_kernel_pca_agrees_with_scikit_learn(rng):
    gram = rbf_gram(rng, 60)
    peer = KernelPCA(4, kernel="precomputed").fit_transform(gram.numpy())
    coordinates = mercer.kernel_pca(gram, 4)
    # Up to signs: compare the inner products.
    torch.testing.assert_close(coordinates @ coordinates.T, torch.from_numpy(peer @ peer.T))


def test_kernel_pca_recovers_a_planar_configuration_from_distances(rng):
    x = torch.randn(12, 2, generator=rng, dtype=torch.float64)
    coordinates = mercer.kernel_pca(-(torch.cdist(x, x) ** 2) / 2, 2)  # PSD only once centred
    torch.testing.assert_close(torch.cdist(coordinates, coordinates), torch.cdist(x, x))


def test_kernel_pca_of_coinciding_features_is_zero():
    gram = torch.full((7, 7), 0.1, dtype=torch.float64)
    assert (mercer.kernel_pca(gram, 2) == 0).all()


def test_brownian_solves_its_integral_equation():
    terms = mercer.brownian(5)
    for x in (0.2, 0.7, 1.0):
        for k in range(5):

            def integrand(y, x=x, k=k):
                value = terms.eigenfunctions(torch.tensor([y], dtype=torch.float64))[0, k]
                return min(x, y) * float(value)

            integral, _ = quad(integrand, 0, 1, points=[x])
            phi = terms.eigenfunctions(torch.tensor([x], dtype=torch.float64))[0, k]
            expected = terms.eigenvalues[k] * phi
            assert integral == pytest.approx(float(expected), abs=1e-12)


def test_brownian_is_orthonormal_and_sums_to_the_kernel():
    x = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    phi = mercer.brownian(8).eigenfunctions(x[:, None])
    torch.testing.assert_close(
        phi.T @ phi / 4000, torch.eye(8, dtype=torch.float64), atol=1e-5, rtol=0
    )
    terms = mercer.brownian(10_000)
    error = 1 - (terms.eigenvalues * terms.eigenfunctions(torch.ones(1).double())[0] ** 2).sum()
    assert float(error) * 10_000 * math.pi**2 / 2 == pytest.approx(1, abs=1e-4)


# Small bandwidths too: 200 terms reach beyond the numbers that a Hermite polynomial overflows.
@pytest.mark.parametrize(("lengthscale", "scale"), [(1.0, 1.0), (0.5, 2.0), (0.1, 1.0), (2.0, 0.5)])
def test_gauss_hermite_is_orthonormal_and_solves_its_integral_equation(lengthscale, scale):
    n = 200
    x, step = np.linspace(-40 * scale, 40 * scale, 40_001, retstep=True)
    density = np.exp(-(x**2) / (2 * scale**2)) / (scale * math.sqrt(2 * math.pi)) * step
    terms = mercer.gauss_hermite(n, lengthscale, scale)
    phi = terms.eigenfunctions(torch.from_numpy(x)).numpy()
    assert np.isfinite(phi).all()
    assert np.abs((phi * density[:, None]).T @ phi - np.eye(n)).max() < 1e-10
    y = torch.linspace(-2 * scale, 2 * scale, 7, dtype=torch.float64)
    at_y = terms.eigenfunctions(y).numpy()
    values = terms.eigenvalues.numpy()
    kernel = np.exp(-((y.numpy()[:, None] - x) ** 2) / (2 * lengthscale**2))
    assert np.abs((kernel * density) @ phi - at_y * values).max() < 1e-10


def test_gauss_hermite_against_scipy_polynomials():
    terms = mercer.gauss_hermite(12, 0.7, 1.3)
    a, b = 1 / (4 * 1.3**2), 1 / (2 * 0.7**2)
    c = math.sqrt(a * a + 2 * a * b)
    x = np.linspace(-4, 4, 33)
    for k in range(12):
        expected = (
            math.sqrt(math.sqrt(c / a) / (2.0**k * math.factorial(k)))
            * np.exp(-(c - a) * x**2)
            * eval_hermite(k, math.sqrt(2 * c) * x)
        )
        found = terms.eigenfunctions(torch.from_numpy(x))[:, k].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    assert float(
        mercer.gauss_hermite(2, 1.0, 1.0).eigenvalues[1] * (1 + 5**0.5) ** 3 / 8
    ) == pytest.approx(1)


def test_gauss_hermite_survives_where_polynomials_overflow():
    x = torch.linspace(-60, 60, 13, dtype=torch.float64)
    assert mercer.gauss_hermite(1500, 0.05, 1.0).eigenfunctions(x[4:9]).isfinite().all()
    assert mercer.gauss_hermite(400, 1.0, 1.0).eigenfunctions(x).isfinite().all()


def test_gauss_hermite_differentiates():
    x = torch.tensor([0.3, -1.2, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mercer.gauss_hermite(30, 0.5, 1.0).eigenfunctions, (x,))


@pytest.mark.parametrize("terms", [mercer.brownian(3), mercer.gauss_hermite(3, 1.0, 1.0)])
def test_closed_forms_keep_the_dtype(terms):
    assert terms.eigenfunctions(torch.rand(4)).dtype == torch.float32
    assert terms.eigenfunctions(torch.rand(4)).shape == (4, 3)
    assert terms.eigenvalues.dtype == torch.float64


@pytest.mark.parametrize("dim", [2, 3, 4, 6, 16, 128])
@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_funk_hecke_of_the_exponential_is_a_bessel_function(dim, temperature):
    found, _ = mercer.funk_hecke(kernels.exponential(temperature), dim, 6)
    degree = np.arange(7)
    expected = gamma(dim / 2) * (2 * temperature) ** (dim / 2 - 1)
    expected = expected * iv(degree + dim / 2 - 1, 1 / temperature)
    assert np.abs(found.numpy() - expected).max() < 1e-12 * expected.max()


def test_funk_hecke_of_the_inverse_distance():
    # The generating function of Legendre polynomials: 1/r has the eigenvalues 1 / (2 l + 1).
    found, _ = mercer.funk_hecke(kernels.riesz(1.0), 3, 20)
    torch.testing.assert_close(found, 1 / (2 * torch.arange(21, dtype=torch.float64) + 1))


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_funk_hecke_has_the_trace_of_the_kernel(dim):
    profile = kernels.gaussian(1.0)
    eigenvalues, multiplicities = mercer.funk_hecke(profile, dim, 30)
    trace = (eigenvalues * multiplicities).sum()
    torch.testing.assert_close(trace, profile(torch.ones((), dtype=torch.float64)))


def test_funk_hecke_on_the_circle_is_the_spectrum_of_a_circulant_gram():
    profile = kernels.inverse_multiquadric(0.8)
    eigenvalues, multiplicities = mercer.funk_hecke(profile, 2, 5)
    gram = kernels.gram(kernels.on_sphere(profile), sphere.circle(256))
    values, _ = mercer.top_eigenpairs(gram / 256, 11)
    torch.testing.assert_close(values, eigenvalues.repeat_interleave(multiplicities))


def test_funk_hecke_warns_where_the_integral_diverges():
    with pytest.warns(RuntimeWarning, match="profile: the integral has settled to"):
        mercer.funk_hecke(kernels.riesz(2.5), 3, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mercer.funk_hecke(kernels.riesz(-1.0), 3, 2)


def test_nystrom_with_all_points_is_the_classical_extension(rng):
    points = torch.randn(40, 2, generator=rng, dtype=torch.float64)
    kernel = kernels.rbf(0.7)
    model = mercer.nystrom(kernel, points, 40, generator=rng)
    gram = kernels.gram(kernel, points)
    values, vectors = (torch.from_numpy(part) for part in np.linalg.eigh(gram.numpy()))
    values, vectors = values.flip(0) / 40, vectors.flip(1)
    torch.testing.assert_close(model.eigenvalues, values)
    x = torch.randn(9, 2, generator=rng, dtype=torch.float64)
    extension = math.sqrt(40) / (40 * values[:8]) * (kernel(x, points) @ vectors[:, :8])
    found = model.eigenfunctions(x)[:, :8]
    signs = (found * extension).sum(0).sign()
    torch.testing.assert_close(found, extension * signs, atol=1e-9, rtol=1e-9)


def test_nystrom_features_give_the_column_approximation(rng):
    points = torch.randn(200, 2, generator=rng, dtype=torch.float64)
    kernel = kernels.rbf(0.7)
    model = mercer.nystrom(kernel, points, 30, generator=rng)
    columns = kernel(points, model.landmarks)
    expected = columns @ torch.from_numpy(
        scipy.linalg.solve(kernel(model.landmarks, model.landmarks), columns.T, assume_a="sym")
    )
    features = model.features(points)
    torch.testing.assert_close(features @ features.T, expected, atol=1e-8, rtol=0)
    # Principal directions: second moment diagonal, its entries the eigenvalues, descending.
    torch.testing.assert_close(features.T @ features / 200, torch.diag(model.eigenvalues))
    assert (model.eigenvalues.diff() <= 0).all()
    residual = kernel(points, points) - features @ features.T
    assert torch.linalg.eigvalsh(residual)[0] > -1e-9


def test_nystrom_does_not_depend_on_the_chunks(rng, monkeypatch):
    points = torch.randn(200, 2, generator=rng, dtype=torch.float64)

    def build():
        return mercer.nystrom(
            kernels.rbf(1.0), points, 6, generator=torch.Generator().manual_seed(1)
        )

    whole = build()
    monkeypatch.setattr(mercer, "CHUNK", 6 * 7)
    chunked = build()
    torch.testing.assert_close(chunked.eigenvalues, whole.eigenvalues)
    torch.testing.assert_close(chunked.features(points), whole.features(points))


def test_nystrom_is_exact_once_the_landmarks_span_the_features(rng):
    points = torch.randn(100, 3, generator=rng, dtype=torch.float64)
    model = mercer.nystrom(kernels.linear(), points, 10, generator=rng)
    features = model.features(points)
    torch.testing.assert_close(features @ features.T, points @ points.T)
    assert (model.eigenvalues[3:] < 1e-12).all()
    # Where an eigenvalue is zero there is no eigenfunction, and none is made up.
    assert (model.eigenfunctions(points)[:, 3:] == 0).all()


def test_nystrom_finds_the_mercer_eigenvalues(rng):
    terms = mercer.gauss_hermite(3, 1.0, 1.0)
    points = torch.randn(20_000, 1, generator=rng, dtype=torch.float64)
    model = mercer.nystrom(kernels.rbf(1.0), points, 50, generator=rng)
    torch.testing.assert_close(model.eigenvalues[:3], terms.eigenvalues, atol=0.01, rtol=0)
    cosine = (model.eigenfunctions(points)[:, :3] * terms.eigenfunctions(points)).mean(0).abs()
    assert (cosine > 0.99).all()


def test_nystrom_keeps_float32(rng):
    points = torch.rand(50, 1, generator=rng)
    model = mercer.nystrom(kernels.brownian(), points, 5, generator=rng)
    assert model.features(points).dtype == model.eigenvalues.dtype == torch.float32


X = torch.rand(6, 2, generator=torch.Generator().manual_seed(0))
GRAM = torch.eye(3)
NAN = torch.tensor([[math.nan, 0.0], [0.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mercer.top_eigenpairs(X, 1), r"gram must be a square matrix, got shape \(6, 2\)"),
        (lambda: mercer.top_eigenpairs(GRAM[:0, :0], 1), "gram must be a square matrix"),
        (lambda: mercer.top_eigenpairs(NAN, 1), "gram must be finite, got 1 NaN"),
        (lambda: mercer.top_eigenpairs(GRAM.triu() + X[:3, :1], 1), "gram must be symmetric"),
        (lambda: mercer.top_eigenpairs(GRAM, 4), r"rank must be .* 1 and 3 \(the number of.*got 4"),
        (lambda: mercer.top_eigenpairs(GRAM, 0), "rank must be an integer between 1 and 3"),
        (lambda: mercer.kernel_pca(GRAM[:1, :1], 1), r"gram must hold at least 2 point\(s\)"),
        (
            lambda: mercer.kernel_pca(torch.diag(torch.tensor([3.0, -2.0, 1.0])), 2),
            "the centred gram must be positive semidefinite, got -0.786 as its most",
        ),
        (lambda: mercer.kernel_pca(X, 1), "gram must be a square matrix"),
        (lambda: mercer.kernel_pca(GRAM, 4), "rank must be an integer between 1 and 3"),
        (lambda: mercer.brownian(0), "n must be an integer of at least 1, got 0"),
        (lambda: mercer.brownian(2).eigenfunctions(X), r"x must have shape \(n,\) or \(n, 1\)"),
        (lambda: mercer.gauss_hermite(0, 1.0, 1.0), "n must be an integer of at least 1, got 0"),
        (lambda: mercer.gauss_hermite(2, 0.0, 1.0), "lengthscale must be a finite number above 0"),
        (lambda: mercer.gauss_hermite(2, 1.0, -1.0), "scale must be a finite number above 0"),
        (lambda: mercer.gauss_hermite(2, 1.0, 1.0).eigenfunctions(X), "x must have shape"),
        (lambda: mercer.funk_hecke(torch.exp, 1, 2), "dim must be an integer of at least 2, got 1"),
        (
            lambda: mercer.funk_hecke(torch.exp, 3, -1),
            "max_degree must be an integer of at least 0",
        ),
        (lambda: mercer.funk_hecke(torch.exp, 700, 50), r"multiplicities below 2\^63, got 50"),
        (lambda: mercer.nystrom(kernels.linear(), X[:1], 1), "points must hold at least 2"),
        (lambda: mercer.nystrom(kernels.linear(), NAN, 1), "points must be finite, got 1 NaN"),
        (lambda: mercer.nystrom(kernels.linear(), X, 7), "rank must be an integer between 1 and 6"),
        (
            lambda: mercer.nystrom(lambda x, y: -(x @ y.T), X, 2),
            "the kernel on the landmarks must be positive semidefinite, got -",
        ),
        (
            lambda: mercer.nystrom(lambda x, y: x @ y.T + x[:, :1], X, 3),
            "the kernel on the landmarks must be symmetric",
        ),
        (
            lambda: mercer.nystrom(kernels.linear(), X, 2).features(X[:0]),
            "x must hold at least 1 point",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_everything_stays_on_the_callers_device(rng):
    large = rbf_gram(rng, 600)
    small = large[:50, :50].clone()
    points = torch.rand(40, 1, generator=rng, dtype=torch.float64)
    torch.set_default_device("meta")
    try:
        model = mercer.nystrom(kernels.rbf(1.0), points, 5)
        seeded = mercer.nystrom(kernels.rbf(1.0), points, 5, generator=rng)
        brownian, gauss = mercer.brownian(3), mercer.gauss_hermite(3, 1.0, 1.0)
        results = [
            *mercer.top_eigenpairs(large, 3),
            *mercer.top_eigenpairs(small, 3),
            *mercer.top_eigenpairs(small.clone().requires_grad_(), 3),
            mercer.kernel_pca(small, 2),
            model.eigenvalues,
            model.features(points),
            model.eigenfunctions(points),
            seeded.features(points),
            brownian.eigenvalues,
            brownian.eigenfunctions(points),
            gauss.eigenvalues,
            gauss.eigenfunctions(points),
            *mercer.funk_hecke(kernels.gaussian(1.0), 3, 4),
        ]
    finally:
        torch.set_default_device(None)
    assert {result.device.type for result in results} == {"cpu"}
