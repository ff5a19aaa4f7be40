"""Augmentation models against loops over sources and states, and against closed forms."""

import math

import numpy as np
import pytest
import torch

from cltheory import pairs
from cltheory.pairs import PairModel

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def random_laws(m, n, seed=0):
    source = torch.rand(m, generator=seeded(seed), dtype=F64) + 0.1
    channel = torch.rand(m, n, generator=seeded(seed + 1), dtype=F64) + 0.1
    return source / source.sum(), channel / channel.sum(1, keepdim=True)


MODELS = {
    "clusters": lambda: pairs.clusters(),
    "blocks": lambda: pairs.clusters(3, 2, 0.1),
    "von Mises": lambda: pairs.von_mises_ring(),
    "ring": lambda: pairs.overlapping_ring(),
    "swap": lambda: pairs.swap(),
    "independent given a source": lambda: pairs.conditionally_independent(7, generator=seeded()),
    "few sources": lambda: pairs.conditionally_independent(7, 3, generator=seeded(1)),
    "generic": lambda: pairs.generic(7, generator=seeded(2)),
    "components": lambda: PairModel(torch.block_diag(*[torch.full((2, 2), 0.125, dtype=F64)] * 2)),
}


def test_the_swap_sends_each_state_to_the_other():
    for one, two in zip(*pairs.swap().sample(50, generator=seeded()), strict=True):
        assert int(one) + int(two) == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_generic_law_has_no_source_that_makes_its_views_independent(seed):
    """A source would give E[f(x) f(x')] >= 0 for every f."""
    joint = pairs.generic(6, generator=seeded(seed)).joint.numpy()
    assert np.linalg.eigvalsh(joint)[0] < -1e-3


@pytest.fixture(params=MODELS, name="model")
def _model(request):
    return MODELS[request.param]()


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 4), (4, 1), (3, 5), (6, 4)])
def test_channel_is_a_mixture_over_sources(m, n):
    source, channel = random_laws(m, n)
    joint = np.zeros((n, n))
    for a in range(m):
        for x in range(n):
            for z in range(n):
                joint[x, z] += float(source[a] * channel[a, x] * channel[a, z])
    torch.testing.assert_close(
        PairModel.from_channel(source, channel).joint, torch.from_numpy(joint)
    )


def test_kernel_and_adjacency_entry_by_entry(model):
    p = [float(row.sum()) for row in model.joint]
    for x in range(model.states):
        for z in range(model.states):
            mass = float(model.joint[x, z])
            assert model.kernel[x, z].item() == pytest.approx(mass / (p[x] * p[z]), rel=1e-12)
            assert model.adjacency[x, z].item() == pytest.approx(
                mass / math.sqrt(p[x] * p[z]), rel=1e-12
            )


def test_mercer_pairs_solve_the_integral_equation(model):
    values, functions = model.mercer()
    p = model.marginal
    torch.testing.assert_close(functions.T @ (p[:, None] * functions), torch.eye(len(p), dtype=F64))
    torch.testing.assert_close(model.kernel @ (p[:, None] * functions), functions * values)
    torch.testing.assert_close((functions * values) @ functions.T, model.kernel)
    assert (values.diff() <= 1e-14).all()
    assert values[0].item() == pytest.approx(1)
    assert values[-1] >= -1 - 1e-14
    if values[1] < 1 - 1e-9:
        torch.testing.assert_close(functions[:, 0], torch.ones_like(p))
    # Another route: the conditional law is a Markov matrix with the same spectrum.
    markov = np.linalg.eigvals((model.joint / p[:, None]).numpy())
    assert np.abs(markov.imag).max() < 1e-7
    np.testing.assert_allclose(np.sort(markov.real), values.flip(0).numpy(), atol=1e-9)


def test_signs_of_the_functions_are_fixed():
    functions = pairs.generic(6, generator=seeded(3)).mercer().eigenfunctions
    largest = functions.abs().argmax(0)
    assert (functions[largest, torch.arange(6)] > 0).all()


def test_mutual_information_is_a_difference_of_entropies(model):
    def entropy(law):
        law = law[law > 0]
        return -(law * law.log()).sum()

    expected = 2 * entropy(model.marginal) - entropy(model.joint.flatten())
    torch.testing.assert_close(model.mutual_information(), expected, atol=1e-12, rtol=0)


def test_sample_has_the_joint_law(model):
    x, z = model.sample(200_000, generator=seeded(5))
    counts = torch.zeros(model.states, model.states, dtype=F64)
    counts.index_put_((x, z), torch.ones(len(x), dtype=F64), accumulate=True)
    assert counts[model.joint == 0].sum() == 0
    held = model.joint > 0
    expected = 200_000 * model.joint[held]
    chi_square = ((counts[held] - expected) ** 2 / expected).sum().item()
    freedom = int(held.sum()) - 1
    assert abs(chi_square - freedom) < 6 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("dtype", [F64, torch.float32])
def test_sample_inverts_the_distribution_function(dtype):
    """As many steps lie below a uniform number as pairs come before its own, off sums included."""
    joint = torch.tensor([[0.25, 0.125], [0.125, 0.5]], dtype=dtype) * (1 + 1e-4 * (dtype != F64))
    uniform = torch.rand(30_000, generator=seeded(2), dtype=dtype)
    steps = joint.flatten().tolist()
    ends = [math.fsum(steps[: k + 1]) for k in range(4)]
    expected = torch.stack([uniform * ends[-1] >= end for end in ends[:-1]]).sum(0)
    x, z = PairModel(joint).sample(30_000, generator=seeded(2))
    assert torch.equal(2 * x + z, expected)


def test_sample_repeats_with_its_seed(model):
    first, again, other = (model.sample(50, generator=seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert first[0].dtype == torch.int64
    assert model.states == 1 or not torch.equal(torch.stack(first), torch.stack(other))


def test_sample_never_draws_a_pair_without_mass_at_the_ends_of_the_interval(monkeypatch):
    joint = torch.zeros(3, 3, dtype=F64)
    joint[1, 1], joint[0, 2], joint[2, 0] = 0.5, 0.25, 0.25
    model = PairModel(joint)
    for end in (0.0, 1.0):
        monkeypatch.setattr(torch, "rand", lambda n, e=end, **_: torch.full((n,), e, dtype=F64))
        x, z = model.sample(2)
        assert (joint[x, z] > 0).all()


def test_sample_beyond_what_multinomial_takes():
    n = 4200  # 17.6 million pairs
    model = PairModel(torch.eye(n) / n)
    x, z = model.sample(1000, generator=seeded())
    assert torch.equal(x, z)
    assert len(x.unique()) > 800


def test_clusters_have_the_documented_spectrum():
    for count, size, eps in [(2, 1, 0.1), (3, 2, 0.1), (4, 3, 0.5)]:
        values = pairs.clusters(count, size, eps).mercer().eigenvalues
        expected = [1.0] + [(1 - eps) ** 2] * (count - 1) + [0.0] * (count * (size - 1))
        torch.testing.assert_close(values, torch.tensor(expected, dtype=F64))


def test_von_mises_ring_is_its_formula():
    kernel = pairs.von_mises_ring(8, 1.5).kernel
    logs = [math.log(float(kernel[0, z])) for z in range(8)]
    for z in range(8):
        assert logs[z] - logs[0] == pytest.approx(1.5 * (math.cos(2 * math.pi * z / 8) - 1))
    torch.testing.assert_close(kernel.mean(), torch.tensor(1.0, dtype=F64))


def test_overlapping_ring_is_its_channel():
    for n, width, eps in [(8, 2, 0.02), (8, 3, 0.02), (5, 5, 0.0)]:
        joint = np.full((n, n), 0.0)
        for source in range(n):
            law = np.full(n, eps / n)
            for step in range(width):
                law[(source + step) % n] += (1 - eps) / width
            joint += np.outer(law, law) / n
        np.testing.assert_allclose(pairs.overlapping_ring(n, width, eps).joint.numpy(), joint)


def test_the_ring_is_positive_semidefinite_and_its_logarithm_is_not():
    centre = torch.eye(8, dtype=F64) - 1 / 8
    for width in (2, 3):
        ring = pairs.overlapping_ring(width=width)
        assert torch.linalg.eigvalsh(ring.adjacency)[0] > -1e-12
        assert torch.linalg.eigvalsh(centre @ ring.kernel.log() @ centre)[0] < -1
    vonmises = pairs.von_mises_ring().kernel.log()
    assert torch.linalg.eigvalsh(centre @ vonmises @ centre)[0] > -1e-12


def test_random_models_are_laws_with_the_rank_of_their_sources():
    for sources in (1, 3, 7):
        model = pairs.conditionally_independent(7, sources, generator=seeded(sources))
        assert (model.mercer().eigenvalues > 1e-9).sum() == sources
    assert pairs.conditionally_independent(4, generator=seeded()).mercer().eigenvalues[-1] > -1e-12
    first, again = (pairs.generic(5, generator=seeded(3)).joint for _ in range(2))
    assert torch.equal(first, again)


def test_defaults_and_the_smallest_models():
    assert pairs.clusters().states == 3
    named = [
        (pairs.von_mises_ring(), pairs.von_mises_ring(8, 1.5)),
        (pairs.von_mises_ring(5, 0.0), PairModel(torch.ones(5, 5, dtype=F64) / 25)),
        (pairs.overlapping_ring(), pairs.overlapping_ring(8, 2, 0.02)),
        (pairs.overlapping_ring(2, 1, 0.0), PairModel(torch.eye(2, dtype=F64) / 2)),
        (pairs.generic(1), PairModel(torch.ones(1, 1, dtype=F64))),
        (pairs.conditionally_independent(1), PairModel(torch.ones(1, 1, dtype=F64))),
    ]
    for found, expected in named:
        torch.testing.assert_close(found.joint, expected.joint)
    two = pairs.von_mises_ring(2, 0.5).joint  # cosines 1 and -1
    assert float(two[0, 0] / two[0, 1]) == pytest.approx(math.e)


@pytest.mark.parametrize("make", [pairs.generic, pairs.conditionally_independent])
def test_random_models_repeat_with_their_generator_or_the_global_one(make):
    def drawn(seed, generator):
        torch.manual_seed(seed)
        return make(4, generator=generator).joint

    assert torch.equal(drawn(0, seeded(2)), drawn(1, seeded(2)))
    assert torch.equal(drawn(0, None), drawn(0, None))
    assert not torch.equal(drawn(0, None), drawn(1, None))


def test_rectangular_joint_laws():
    joint = torch.rand(4, 6, generator=seeded(), dtype=F64)
    joint /= joint.sum()
    p, q = joint.sum(1), joint.sum(0)
    values, left, right = pairs.canonical_pairs(joint)
    torch.testing.assert_close(left.T @ (p[:, None] * left), torch.eye(4, dtype=F64))
    torch.testing.assert_close(right.T @ (q[:, None] * right), torch.eye(4, dtype=F64))
    torch.testing.assert_close((left * values) @ right.T, joint / (p[:, None] * q))
    assert values[0].item() == pytest.approx(1)
    torch.testing.assert_close(left.mT @ joint @ right, torch.diag(values))
    # The eigenvalues of its symmetric dilation are plus and minus the singular values.
    matrix = pairs.normalised(joint)
    zeros = [torch.zeros(k, k, dtype=F64) for k in matrix.shape]
    dilation = torch.cat([torch.cat([zeros[0], matrix], 1), torch.cat([matrix.T, zeros[1]], 1)])
    spectrum = torch.linalg.eigvalsh(dilation)
    torch.testing.assert_close(spectrum[-4:].flip(0), values)


def test_the_normalised_matrix_of_a_pair_model_is_its_adjacency(model):
    torch.testing.assert_close(pairs.normalised(model.joint), model.adjacency)
    values = pairs.canonical_pairs(model.joint).singular_values
    expected = model.mercer().eigenvalues.abs().sort(descending=True).values
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    for model in (
        pairs.clusters(dtype=dtype),
        pairs.von_mises_ring(dtype=dtype),
        pairs.overlapping_ring(dtype=dtype),
        pairs.swap(dtype=dtype),
        pairs.conditionally_independent(4, generator=seeded(), dtype=dtype),
        pairs.generic(4, generator=seeded(), dtype=dtype),
    ):
        assert model.joint.dtype == dtype
        assert model.kernel.dtype == dtype
        assert model.mercer().eigenfunctions.dtype == dtype


def test_makes_nothing_on_the_default_device():
    torch.set_default_device("meta")
    try:
        for make in MODELS.values():
            model = make.__call__() if make is not MODELS["components"] else None
            if model is not None:
                tensors = [model.joint, model.kernel, *model.mercer(), model.mutual_information()]
                tensors += [
                    *model.sample(3, generator=seeded()),
                    *model.sample(3),
                    *pairs.canonical_pairs(model.joint),
                ]
                assert {t.device.type for t in tensors} == {"cpu"}
    finally:
        torch.set_default_device(None)


HALF = torch.tensor([0.5, 0.5], dtype=F64)
EYE = torch.eye(2, dtype=F64)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PairModel(EYE), "joint must sum to one, got the sum 2"),
        (lambda: PairModel(EYE - 0.25), "joint must not be negative, got the entry -0.25"),
        (lambda: PairModel(torch.ones(2, 3, dtype=F64) / 6), r"joint must be a square .*\(2, 3\)"),
        (lambda: PairModel(torch.ones(2, dtype=F64) / 2), "joint must be a square matrix"),
        (lambda: PairModel(torch.ones(2, 2, dtype=torch.int64)), "joint must hold floating-point"),
        (lambda: PairModel(EYE * float("nan")), "joint must be finite"),
        (lambda: PairModel(torch.empty(0, 0)), "joint must not be empty"),
        (
            lambda: PairModel(torch.tensor([[0.5, 0.3], [0.0, 0.2]], dtype=F64)),
            "joint must be symmetric, got entries that differ from their mirror by up to 0.3",
        ),
        (
            lambda: PairModel.from_joint(torch.diag(torch.tensor([1.0, 0.0, 0.0]))),
            r"joint must give every state some mass, got none at \[1, 2\]",
        ),
        (
            lambda: PairModel.from_joint(torch.diag(torch.eye(20)[0])),
            r"got none at \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10\]$",
        ),
        (lambda: PairModel.from_channel(HALF[None], EYE), r"source must have shape \(m,\)"),
        (lambda: PairModel.from_channel(HALF, EYE[:1]), r"channel must have shape \(2, n\)"),
        (lambda: PairModel.from_channel(HALF, EYE[0]), r"channel must have shape \(2, n\)"),
        (lambda: PairModel.from_channel(2 * HALF, EYE), "source must sum to one"),
        (
            lambda: PairModel.from_channel(HALF, EYE * torch.tensor([[1.0], [2.0]])),
            "channel must have rows that sum to one, got the sum 2 in row 1",
        ),
        (lambda: PairModel.from_channel(HALF, EYE * float("nan")), "^channel must be finite"),
        (lambda: PairModel.from_channel(HALF, 2 * EYE - 0.5), "channel must not be negative"),
        (lambda: PairModel.from_channel(HALF, EYE.float()), "of one dtype"),
        (
            lambda: PairModel.from_channel(HALF, EYE[[0, 0]]),
            r"channel must give every state \(column\) some mass, got none at \[1\]",
        ),
        (lambda: pairs.normalised(HALF), "joint must be a matrix"),
        (lambda: pairs.normalised(EYE), "joint must sum to one"),
        (lambda: pairs.normalised(EYE[:, [0, 0]] / 2), "^joint must give every row some mass"),
        (lambda: pairs.normalised(EYE[[0, 0]] / 2), "^joint must give every column some mass"),
        (lambda: pairs.clusters(1), "count must be an integer of at least 2"),
        (lambda: pairs.clusters(size=0), "size must be"),
        (lambda: pairs.clusters(eps=1.0), "eps must be a probability below 1, got 1.0"),
        (lambda: pairs.clusters(eps=float("nan")), "eps must be a probability"),
        (lambda: pairs.von_mises_ring(1), "^n must be"),
        (lambda: pairs.von_mises_ring(concentration=-1.0), "concentration must be"),
        (lambda: pairs.overlapping_ring(1), "^n must be an integer of at least 2"),
        (lambda: pairs.overlapping_ring(4, 5), "width must be an integer between 1 and 4"),
        (lambda: pairs.overlapping_ring(eps=-0.1), "eps must be"),
        (lambda: pairs.conditionally_independent(0), "n must be"),
        (lambda: pairs.conditionally_independent(2, 0), "sources must be"),
        (lambda: pairs.generic(0), "n must be"),
        (lambda: pairs.swap().sample(0), "n must be an integer of at least 1"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()
