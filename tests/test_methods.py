"""The nine methods against steps by hand; the loop; what is measured of its features."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from cltheory import data, kernels, losses, methods, metrics, networks, training, views
from cltheory.systems import Method, System


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def affine(images, generator):
    return views.random_affine(images, generator=generator)


def contrast(z1, z2):
    return losses.info_nce(z1, z2, temperature=0.5)


def system(net, loss=contrast):
    return System(Method("custom", loss), net)


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
            system(net), digits.images, affine, batch=64, epochs=2, lr=1e-2, generator=seeded(1)
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
        system(encoder()), digits.images[:50], still,
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
        system(net, loss), digits.images[:20], marked,
        batch=20, epochs=1, lr=1e-12, generator=seeded(),
    )  # fmt: skip
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
        ({"labels": torch.zeros(19)}, r"labels must have shape \(20,\), got shape \(19,\)"),
        ({"labels": torch.zeros(20)}, "labels must be None for custom"),
    ],
)
def test_bad_input(digits, change, words):
    options = {"batch": 8, "epochs": 1, "lr": 1e-3, "generator": seeded(), **change}
    with pytest.raises(ValueError, match=words):
        methods.train(system(encoder()), digits.images[:20], affine, **options)


# Each method, a step by hand: predictions p and targets t of the second step, from the plain parts

BATCH, IN, DIM = 8, 3, 4
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 3, 3])
PREDICTED = {"BYOL", "SimSiam"}

NINE = {
    "SimCLR": methods.simclr(temperature=0.3),
    "MoCo": methods.moco(temperature=0.2, momentum=0.9, queue=20),
    "BYOL": methods.byol(momentum=0.9),
    "SimSiam": methods.simsiam(),
    "SwAV": methods.swav(prototypes=6, temperature=0.2, eps=0.1),
    "VICReg": methods.vicreg(invariance=2.0, variance=3.0, covariance=0.5),
    "Barlow Twins": methods.barlow_twins(weight=0.1),
    "SigLIP": methods.siglip(temperature=0.2, bias=3.0),
    "SupCon": methods.supcon(temperature=0.3),
}


def points(seed):
    return torch.randn(BATCH, IN, generator=seeded(seed), dtype=torch.float64)


def mlp(in_dim, seed):
    return networks.MLP(in_dim, [6], DIM, generator=seeded(seed), dtype=torch.float64)


def build(name):
    method = NINE[name]
    predictor = mlp(DIM, 2) if name in PREDICTED else None
    return System(
        method, mlp(IN, 0), head=mlp(DIM, 1), predictor=predictor, dim=DIM, generator=seeded(3)
    )


def unit(z):
    return z / z.norm(dim=1, keepdim=True)


def cosine(p, t):
    return ((p * t).sum(1) / p.norm(dim=1) / t.norm(dim=1)).mean()


def by_hand(name, net, slow, x1, x2, queue=None):
    """The formula of the method, in plain torch, from a network and a slow one."""
    z1, z2 = (net.online(x) for x in (x1, x2))
    u1, u2 = unit(z1), unit(z2)
    if name == "SimCLR":
        u = torch.cat([u1, u2])
        logits = (u @ u.T / 0.3).fill_diagonal_(-math.inf)
        return functional.cross_entropy(logits, torch.arange(2 * BATCH).roll(BATCH))
    if name == "MoCo":
        k = unit(slow(x2).detach())
        logits = torch.cat([(u1 * k).sum(1, keepdim=True), u1 @ queue.T], 1) / 0.2
        return functional.cross_entropy(logits, torch.zeros(BATCH, dtype=torch.long))
    if name == "BYOL":
        h = net.predictor
        sides = cosine(h(z1), slow(x2).detach()) + cosine(h(z2), slow(x1).detach())
        return -sides / 2
    if name == "SimSiam":
        h = net.predictor
        return -(cosine(h(z1), z2.detach()) + cosine(h(z2), z1.detach())) / 2
    if name == "SwAV":
        scores = [u @ unit(net.prototypes).T for u in (u1, u2)]
        total = 0
        for own, other in (scores, scores[::-1]):
            q = (other.detach() / 0.1).exp()
            for _ in range(3):
                q = q / q.sum(0)
                q = q / q.sum(1, keepdim=True)
            total = total - (q * (own / 0.2).log_softmax(1)).sum(1).mean() / 2
        return total
    if name == "VICReg":
        total = 2.0 * (z1 - z2).square().sum(1).mean()
        for z in (z1, z2):
            c = torch.cov(z.T)
            off = c - c.diag().diag()
            hinge = (1 - (c.diag() + 1e-4).sqrt()).clamp(min=0)
            total = total + 3.0 * hinge.mean() + 0.5 * off.square().sum() / DIM
        return total
    if name == "Barlow Twins":
        c = torch.corrcoef(torch.cat([z1.T, z2.T]))[:DIM, DIM:]
        eye = torch.eye(DIM, dtype=torch.float64)
        return ((c - eye).square() * (eye + 0.1 * (1 - eye))).sum()
    if name == "SigLIP":
        scale, bias = net.learned["log_scale"].exp(), net.learned["bias"]
        signs = 2 * torch.eye(BATCH, dtype=torch.float64) - 1
        return -functional.logsigmoid(signs * (scale * u1 @ u2.T - bias)).sum() / BATCH
    u, labels = torch.cat([u1, u2]), LABELS.repeat(2)
    logits = (u @ u.T / 0.3).fill_diagonal_(-math.inf)
    laws = logits.log_softmax(1).nan_to_num(neginf=0.0)
    same = (labels == labels[:, None]).double().fill_diagonal_(0)
    return -((laws * same).sum(1) / same.sum(1)).mean()


def batch(name, number):
    labels = (LABELS,) if name == "SupCon" else ()
    return points(10 + number), points(20 + number), *labels


@pytest.mark.parametrize("name", NINE)
def test_two_steps_by_hand(name):
    """Values and gradients at the second step, when copies and queues have moved."""
    system = build(name)
    optimizer = torch.optim.SGD([p for p in system.parameters() if p.requires_grad], lr=0.1)
    start = [p.detach().clone() for p in system.online.parameters()]
    keys = [] if system.queue is None else [system.queue.newest_first()]
    slow = system.copy and nn.Sequential(mlp(IN, 0), mlp(DIM, 1))
    for number in range(2):
        x1, x2, *_ = batch(name, number)
        if slow is not None:
            with torch.no_grad():
                for mine, old, new in zip(
                    slow.parameters(), start, system.online.parameters(), strict=True
                ):
                    mine.copy_(0.9 * old + 0.1 * new)
        queue = torch.cat(keys)[:20] if keys else None
        leaves = [p for p in system.parameters() if p.requires_grad]
        expected = by_hand(name, system, slow, x1, x2, queue)
        slopes = torch.autograd.grad(expected, leaves)
        loss = system.step(*batch(name, number))
        torch.testing.assert_close(loss, expected)
        optimizer.zero_grad()
        loss.backward()
        torch.testing.assert_close([p.grad for p in leaves], list(slopes), atol=1e-9, rtol=1e-7)
        if keys:
            keys.insert(0, unit(slow(x2).detach()).flip(0))
        optimizer.step()


@pytest.mark.parametrize("name", NINE)
def test_each_method_trains_and_none_is_at_rest(name):
    system = build(name)
    x = torch.randn(64, IN, generator=seeded(), dtype=torch.float64)
    labels = (x[:, 0] > 0).long() if name == "SupCon" else None
    before = [p.detach().clone() for p in system.parameters() if p.requires_grad]
    history = methods.train(
        system, x, lambda x, g: x + 0.1 * torch.randn(x.shape, generator=g, dtype=x.dtype),
        batch=16, epochs=30, lr=3e-3, generator=seeded(1), labels=labels,
    )  # fmt: skip
    assert sum(history.losses[-8:]) < sum(history.losses[:8])
    after = [p.detach() for p in system.parameters() if p.requires_grad]
    for one, other in zip(before, after, strict=True):
        assert not torch.equal(one, other)


def test_the_loop_is_that_of_training(monkeypatch):
    seen = {}
    monkeypatch.setattr(training, "fit", lambda *a, **k: seen.update(k))
    methods.train(
        build("SimCLR"), points(0), affine,
        batch=4, epochs=3, lr=0.1, generator=seeded(), optimizer="sgd", schedule="constant",
        every=2,
    )  # fmt: skip
    assert seen == {
        "steps": 6, "lr": 0.1, "optimizer": "sgd", "schedule": "constant", "every": 2,
    }  # fmt: skip


def test_labels_go_with_their_images():
    seen = []

    def loss(z1, z2, labels):
        seen.append(labels)
        return (z1 * z2).sum()

    x = torch.arange(12.0, dtype=torch.float64)[:, None].repeat(1, IN)
    views_of = []

    def still(x, generator):
        views_of.append(x[:, 0].long())
        return x

    methods.train(
        System(Method("labelled", loss, labels=True), mlp(IN, 0)), x, still,
        batch=4, epochs=1, lr=1e-9, generator=seeded(), labels=torch.arange(12),
    )  # fmt: skip
    for labels, one, two in zip(seen, views_of[::2], views_of[1::2], strict=True):
        assert torch.equal(labels, one)
        assert torch.equal(labels, two)


def test_papers_weigh_byol_and_vicreg_otherwise():
    system, (x1, x2) = build("BYOL"), batch("BYOL", 0)
    h, z1, z2 = system.predictor, system(x1), system(x2)
    distances = [(unit(h(a)) - unit(b)).square().sum(1) for a, b in ((z1, z2), (z2, z1))]
    torch.testing.assert_close(4 + 4 * system.loss(x1, x2), sum(distances).mean())
    z1, z2 = (10 * torch.randn(9, DIM, generator=seeded(s), dtype=torch.float64) for s in (1, 2))
    z2[:, 0] /= 30
    released = 25 * (z1 - z2).square().mean()
    for z in (z1, z2):
        c = torch.cov(z.T)
        released = released + 25 * (1 - (c.diag() + 1e-4).sqrt()).clamp(min=0).mean() / 2
        released = released + (c - c.diag().diag()).square().sum() / DIM
    ours = methods.vicreg(invariance=25 / DIM, variance=12.5).loss(z1, z2)
    torch.testing.assert_close(ours, released)


def test_byol_without_momentum_is_simsiam():
    systems = [build("SimSiam"), build("SimSiam")]
    systems[0] = System(
        methods.byol(momentum=0.0), mlp(IN, 0), head=mlp(DIM, 1), predictor=mlp(DIM, 2)
    )
    optimizers = [
        torch.optim.SGD([p for p in s.parameters() if p.requires_grad], lr=0.1) for s in systems
    ]
    for number in range(3):
        losses = [s.step(*batch("BYOL", number)) for s in systems]
        torch.testing.assert_close(losses[0], losses[1])
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def test_ablations_are_replacements():
    """Without predictor and stop-gradient, SimSiam descends to one point of the sphere."""
    tied = replace(methods.simsiam(), target="tied")
    system = System(tied, mlp(IN, 0), predictor=nn.Identity())
    x1, x2 = points(0), points(1)
    z1, z2 = system(x1), system(x2)
    torch.testing.assert_close(system.loss(x1, x2), -cosine(z1, z2))
    fixed = System(methods.siglip(temperature=0.2, bias=3.0, learned=False), mlp(IN, 0))
    assert len(fixed.learned) == 0
    torch.testing.assert_close(fixed.loss(x1, x2), System(NINE["SigLIP"], mlp(IN, 0)).loss(x1, x2))


@pytest.mark.parametrize(
    ("make", "change", "words"),
    [
        (methods.simclr, {"temperature": 0.0}, "temperature must be"),
        (methods.moco, {"temperature": -1.0}, "temperature must be"),
        (methods.moco, {"momentum": 1.01}, "momentum of the target must be between 0 and 1"),
        (methods.moco, {"queue": 0}, "queue must be an integer of at least 1, got 0"),
        (methods.byol, {"momentum": -0.1}, "momentum of the target must be between 0 and 1"),
        (methods.swav, {"prototypes": 1}, "prototypes must be an integer of at least 2, got 1"),
        (methods.swav, {"eps": 0.0}, "eps must be a finite number above 0"),
        (methods.swav, {"iterations": -1}, "iterations must be an integer of at least 0"),
        (methods.swav, {"temperature": 0.0}, "temperature must be"),
        (methods.vicreg, {"variance": -1.0}, "variance must be a finite number of at least 0"),
        (methods.barlow_twins, {"weight": 0.0}, "weight must be"),
        (methods.siglip, {"temperature": 0.0}, "temperature must be"),
        (methods.siglip, {"bias": math.nan}, "bias must be a finite number"),
        (methods.supcon, {"temperature": math.inf}, "temperature must be"),
    ],
)
def test_bad_numbers(make, change, words):
    labels = (LABELS,) if make is methods.supcon else ()
    with pytest.raises(ValueError, match=words):
        System(make(**change), mlp(IN, 0), dim=DIM).step(points(0), points(1), *labels)


@pytest.mark.parametrize("name", sorted(NINE.keys() - PREDICTED))
def test_a_predictor_where_there_is_none(name):
    with pytest.raises(ValueError, match=f"predictor must be None, as {name} has none"):
        System(NINE[name], mlp(IN, 0), predictor=mlp(DIM, 2), dim=DIM)


def test_a_batch_of_one_has_no_statistics():
    for name in NINE:
        labels = (LABELS[:1],) if name == "SupCon" else ()
        with pytest.raises(ValueError, match="first and second must hold as many points, at least"):
            build(name).step(points(0)[:1], points(1)[:1], *labels)
