import pytest
import torch

from cltheory import data, kernels, losses, methods, metrics, networks, views


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def affine(images, generator):
    return views.random_affine(images, generator=generator)


def contrast(z1, z2):
    return losses.info_nce(z1, z2, temperature=0.5)


def encoder(seed=0):
    return networks.ConvNet((8, 8), [4, 8], 4, generator=seeded(seed), dtype=torch.float32)


@pytest.fixture(scope="module")
def digits():
    images, labels = data.digits(dtype=torch.float32)
    return data.LabelledImages(images.view(-1, 8, 8), labels)


def test_training_lowers_the_loss_and_repeats(digits):
    runs = []
    for _ in range(2):
        net = encoder()
        history = methods.train(
            net, digits.images, contrast, affine, batch=64, epochs=2, lr=1e-2, generator=seeded(1)
        )
        runs.append((history.losses, methods.embed(net, digits.images)))
    assert len(runs[0][0]) == 2 * (len(digits.images) // 64)
    assert runs[0][0][-1] < runs[0][0][0] - 0.5
    assert runs[0][0] == runs[1][0]
    torch.testing.assert_close(runs[0][1], runs[1][1], rtol=0, atol=0)


def test_an_epoch_shows_each_image_once_in_pairs(digits):
    """Batches are a partition, and both views of a batch are of its images."""
    seen = []

    def still(images, generator):
        seen.append(images)
        return images

    methods.train(
        encoder(), digits.images[:50], contrast, still,
        batch=16, epochs=2, lr=1e-9, generator=seeded(),
    )  # fmt: skip
    assert len(seen) == 2 * 2 * 3
    for one, two in zip(seen[::2], seen[1::2], strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)
    for epoch in (seen[0:6:2], seen[6:12:2]):
        rows = torch.cat(epoch).flatten(1)
        assert len(torch.unique(rows, dim=0)) == 48


def test_the_loss_sees_unit_rows_of_both_views(digits):
    seen = []

    def loss(z1, z2):
        seen.append((z1.detach(), z2.detach()))
        return contrast(z1, z2)

    def marked(images, generator):
        """The first view of a batch is dark, the second bright."""
        marked.calls += 1
        return images * (0.1 if marked.calls % 2 else 1.0)

    marked.calls = 0
    net = encoder()
    methods.train(
        net, digits.images[:20], loss, marked, batch=20, epochs=1, lr=1e-12, generator=seeded()
    )
    ((z1, z2),) = seen
    torch.testing.assert_close(z1.norm(dim=1), torch.ones(20))
    dark, bright = (methods.embed(net, digits.images[:20] * light) for light in (0.1, 1.0))
    order = (z2 @ bright.T).argmax(1)
    torch.testing.assert_close(z2, bright[order], rtol=0, atol=1e-5)
    torch.testing.assert_close(z1, dark[order], rtol=0, atol=1e-5)


def test_embeddings_are_unit_rows_by_any_chunk(digits, monkeypatch):
    z = methods.embed(encoder(), digits.images[:70])
    assert not z.requires_grad
    torch.testing.assert_close(z.norm(dim=1), torch.ones(70))
    monkeypatch.setattr(methods, "CHUNK", 16)
    torch.testing.assert_close(methods.embed(encoder(), digits.images[:70]), z)


def test_quality_is_every_metric(digits):
    net = encoder()
    train, test = (data.LabelledImages(*(x[part] for x in digits)) for part in (
        slice(500), slice(500, 900)
    ))  # fmt: skip
    found = methods.quality(net, train, test, affine, points=100, generator=seeded(2))
    generator = seeded(2)
    z1, z2 = (methods.embed(net, affine(test.images[:100], generator)) for _ in range(2))
    assert found == {
        "probe": metrics.linear_probe(
            methods.embed(net, train.images), train.labels,
            methods.embed(net, test.images), test.labels,
        ),
        "alignment": float(metrics.alignment(z1, z2)),
        "uniformity": float(metrics.uniformity(z1)),
        "effective_rank": float(metrics.effective_rank(z1)),
        "wasserstein": metrics.wasserstein_uniformity(z1),
        "energy": float(metrics.mmd(z1, kernels.riesz(-1.0))),
        "mmd": float(metrics.mmd(z1, kernels.gaussian(2.0))),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 1}, "batch must be an integer between 2 and 20"),
        ({"batch": 21}, "batch must be an integer between 2 and 20"),
        ({"epochs": 0}, "epochs must be an integer of at least 1"),
        ({"lr": 0.0}, "lr must be a finite number above 0"),
    ],
)
def test_bad_input(digits, change, words):
    options = {"batch": 8, "epochs": 1, "lr": 1e-3, "generator": seeded(), **change}
    with pytest.raises(ValueError, match=words):
        methods.train(encoder(), digits.images[:20], contrast, affine, **options)
