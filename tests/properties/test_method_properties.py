"""Systems, methods, memory, views of images, minimisers and runs: of their generator, and exact."""

import copy
import dataclasses

import pytest
import torch
from cases import Case, assert_same, over
from hypothesis import given
from hypothesis import strategies as st
from strategies import generator, grams, log_uniform, normal, points, seeds, sizes, unit_rows
from torch import nn

from cltheory import data, losses, memory, methods, minimise, networks, systems, training
from cltheory import views as image_views
from cltheory.systems import Method, System

IMAGES = st.tuples(seeds, st.integers(2, 5), st.integers(1, 5)).map(
    lambda drawn: normal(drawn[0], drawn[1], 4, drawn[2]).sigmoid()
)
METHODS = [
    methods.simclr, methods.moco, methods.byol, methods.simsiam, methods.swav, methods.vicreg,
    methods.barlow_twins, methods.siglip, methods.supcon,
]  # fmt: skip


def system_of(make, x):
    method = make(queue=64) if make is methods.moco else make()
    if method.prototypes:
        method = dataclasses.replace(method, prototypes=4)
    net = networks.MLP(x.shape[1], [], 3, generator=generator(0), dtype=x.dtype)
    predictor = networks.MLP(3, [], 3, generator=generator(1), dtype=x.dtype)
    return System(
        method, net, predictor=predictor if method.predictor else None, dim=3,
        generator=generator(2),
    )  # fmt: skip


def labels_of(system, x):
    return torch.arange(len(x), device=x.device) // 2 if system.method.labels else None


def stepped(make, x):
    system = system_of(make, x)
    return [system.step(x, x.roll(1, 1) + 0.1, labels_of(system, x)).detach() for _ in range(2)]


def noisy(x, rng):
    noise = torch.randn(x.shape, generator=rng, dtype=torch.float64, device="cpu")
    return x + 0.1 * noise.to(x)


def trained(f, x, rng_seed=5):
    system = system_of(methods.simclr, x)
    history = f(system, x, noisy, batch=2, epochs=2, lr=0.01, generator=generator(rng_seed))
    return history.losses, system


def measured(f, x):
    net = networks.MLP(x.shape[1], [], 3, generator=generator(0), dtype=x.dtype)
    some = data.LabelledImages(x, torch.arange(len(x), device=x.device) % 2)
    return f(net, some, some, noisy, generator=generator(5))


def bowl(centre):
    return lambda x: (x - centre).square().sum() + (x - centre).pow(4).sum()


def fitted(f, x):
    x = x.clone().requires_grad_()
    return f([x], lambda step: x.square().sum(), steps=4, lr=0.1).losses, x


STEPS = [
    Case(make, points(n=st.integers(2, 3).map(lambda n: 2 * n), dim=st.just(3),
                      arrangements=["generic"]), through=stepped)
    for make in METHODS
]  # fmt: skip
RANDOM = [
    Case(f, IMAGES, through=lambda f, x: f(x, generator=generator(3)))
    for f in (image_views.random_affine, image_views.random_colour, image_views.random_flip)
]
WIDE = points(n=st.integers(2, 6), dim=st.just(3), arrangements=["generic"])
CASES = [
    *STEPS, *RANDOM,
    Case(methods.train, WIDE, through=trained),
    Case(methods.embed, WIDE, through=lambda f, x: f(
        networks.MLP(3, [], 2, generator=generator(0), dtype=x.dtype), x)),
    Case(methods.quality, WIDE, through=measured),
    Case(systems.Method, st.just(()), through=lambda f: dataclasses.asdict(
        f("plain", losses.spectral_contrastive))),
    Case(systems.System, WIDE, through=lambda f, x: f(
        Method("plain", losses.spectral_contrastive), nn.Identity()).loss(x, x.flip(1))),
    Case(memory.Momentum, WIDE, through=lambda f, x: f(
        networks.MLP(3, [], 2, generator=generator(0), dtype=x.dtype), 0.5)(x)),
    Case(memory.Queue, WIDE, through=lambda f, x: pushed(f(x), x[:2])),
    Case(image_views.affine, IMAGES, through=lambda f, x: f(
        x, angle=30 * x[:, 0, 0], shift=0.1 * x[:, :2, 0], zoom=1 + x[:, 1, 0])),
    Case(minimise.newton, unit_rows(), through=lambda f, x: f(bowl(0.5), x)),
    Case(minimise.lbfgs, unit_rows(), through=lambda f, x: f(bowl(0.5), x, steps=20)),
    Case(minimise.on_spheres, seeds, through=lambda f, seed: f(
        lambda x: (x @ x.mT).exp().sum(), (2,), 2, starts=2, steps=5, generator=generator(seed))),
    Case(training.fit, unit_rows(), through=fitted),
    Case(data.digit_patches, st.integers(1, 2), through=lambda f, size: f(size=size)),
    Case(data.digits, st.just(())),
]  # fmt: skip


def pushed(queue, keys):
    queue.push(keys)
    return queue.newest_first()


@over(STEPS)
@given(data=st.data())
def test_every_method_has_a_finite_loss_and_gradients(case, data):
    (x,) = case.arguments(data)
    system = system_of(case.function, x)
    loss = system.step(x, x + 0.1 * x.roll(1, 1), labels_of(system, x))
    loss.backward()
    assert bool(loss.isfinite())
    for name, p in system.named_parameters():
        assert p.grad is None or bool(p.grad.isfinite().all()), name


@over(STEPS)
@given(data=st.data())
def test_a_loss_that_is_looked_at_changes_nothing(case, data):
    (x,) = case.arguments(data)
    system = system_of(case.function, x)
    before = copy.deepcopy(system.state_dict())
    system.loss(x, x.roll(1, 1), labels_of(system, x))
    assert_same(list(before.values()), list(system.state_dict().values()))


@given(WIDE, seeds)
def test_training_is_of_its_generator(x, seed):
    one, two = (trained(methods.train, x, seed) for _ in range(2))
    assert_same(one, two)


@given(WIDE, st.integers(1, 3))
def test_the_chunk_of_an_embedding_does_not_count(x, chunk):
    net = networks.MLP(3, [4], 2, generator=generator(0), dtype=x.dtype)
    whole = methods.embed(net, x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "CHUNK", chunk)
        assert_same(methods.embed(net, x), whole, atol=1e-12)


@given(seeds, st.floats(0, 1), st.integers(0, 5))
def test_a_copy_follows_as_a_geometric_mean_of_weights(seed, momentum, steps):
    net = nn.Linear(2, 2, dtype=torch.float64)
    net.weight.data = normal(seed, 2, 2)
    start = net.weight.detach().clone()
    slow = memory.Momentum(net, momentum)
    net.weight.data = normal(seed + 1, 2, 2)
    for _ in range(steps):
        slow.follow(net)
    share = momentum**steps
    expected = share * start + (1 - share) * net.weight.detach()
    assert_same(slow.net.weight.detach(), expected, atol=1e-12)


@given(st.integers(1, 5), st.lists(st.integers(1, 5), max_size=6))
def test_a_queue_is_the_last_keys_in_order(size, batches):
    queue = memory.Queue(torch.zeros(size, 1))
    seen, count = [0.0] * size, 0
    for batch in batches:
        keys = torch.arange(count, count + min(batch, size), dtype=torch.float32) + 1
        count += len(keys)
        queue.push(keys[:, None])
        seen += keys.tolist()
    assert queue.newest_first()[:, 0].tolist() == seen[::-1][:size]


@over(RANDOM)
@given(data=st.data())
def test_a_random_view_is_of_its_generator_and_keeps_the_range(case, data):
    (x,) = case.arguments(data)
    found = case(x)
    assert_same(found, case(x))
    assert found.shape == x.shape
    assert float(found.min()) >= min(0.0, float(x.min())) - 1e-12
    assert float(found.max()) <= max(1.0, float(x.max())) + 1e-12
    # Channels and layout do not count: a view of a colour image turns all of its channels alike.
    if case.function is not image_views.random_colour:
        colour = case(x[:, None].expand(-1, 3, -1, -1))
        assert_same(colour, found[:, None].expand_as(colour), atol=1e-12)


@given(IMAGES, st.integers(-4, 4))
def test_quarter_turns_are_exact(x, quarters):
    x = torch.nn.functional.pad(x, (0, 6 - x.shape[2], 0, 2))
    still = torch.zeros(len(x), 2, dtype=x.dtype)
    ones = torch.ones(len(x), dtype=x.dtype)
    turned = image_views.affine(x, angle=90.0 * quarters * ones, shift=still, zoom=ones)
    assert_same(turned, torch.rot90(x, quarters, (1, 2)), atol=1e-9)


@given(grams(kinds=["distinct", "degenerate", "wide"]), seeds)
def test_newton_solves_a_quadratic_in_a_step_and_stays_along_flat_directions(drawn, seed):
    gram, _ = drawn
    target, start = normal(seed, len(gram)), normal(seed + 1, len(gram))
    found = minimise.newton(lambda x: (x - target) @ gram @ (x - target) / 2, start)
    difference = gram @ (found - target)
    assert float(difference.abs().max()) <= 1e-9
    flat = minimise.newton(lambda x: (x[:1] - 1).square().sum(), start)
    assert_same(flat[1:], start[1:])


@given(unit_rows(), log_uniform(1e-2, 1e2))
def test_minimisers_agree_and_leave_their_start(x, size):
    before = x.clone()
    one, two = minimise.newton(bowl(size), x), minimise.lbfgs(bowl(size), x)
    assert_same(one, torch.full_like(x, size), rtol=1e-5, atol=1e-5)
    assert_same(two, torch.full_like(x, size), rtol=1e-3, atol=1e-3)
    assert_same(x, before)


@given(seeds, st.integers(2, 4))
def test_descent_on_spheres_finds_the_top_of_a_quadratic_form(seed, dim):
    form = normal(seed, dim, dim)
    form = form + form.mT
    found = minimise.on_spheres(
        lambda x: -(x[0] @ form @ x[0]), (1,), dim, starts=8, generator=generator(seed)
    )
    assert found.value == pytest.approx(-float(torch.linalg.eigvalsh(form)[-1]), rel=1e-8)
    assert_same(found.points.norm(dim=-1), torch.ones(8, 1, dtype=torch.float64), atol=1e-12)
    assert bool((found.values.diff() >= 0).all())


@given(sizes, st.sampled_from(list(training.OPTIMIZERS)), st.integers(1, 4))
def test_a_history_holds_each_step_that_was_asked_for(steps, optimizer, every):
    x = torch.ones(2, requires_grad=True)
    history = training.fit(
        [x], lambda step: x.square().sum(), steps=steps, lr=0.1, optimizer=optimizer, every=every
    )
    assert history.steps == sorted({*range(0, steps, every), steps - 1})
    assert len(history.losses) == len(history.steps)


ONES = torch.ones(2, 4, 4)
BAD = [
    (methods.moco, (), {"queue": 0}, "queue"), (methods.swav, (), {"prototypes": 1}, "prototypes"),
    (methods.siglip, (), {"temperature": 0.0}, "temperature"),
    (memory.Momentum, (nn.Identity(), 1.5), {}, "momentum"), (memory.Queue, (ONES,), {}, "keys"),
    (systems.Method, ("x", max), {"target": "x"}, "target"),
    (systems.System, (methods.byol(), nn.Identity()), {}, "predictor"),
    (systems.System, (methods.moco(), nn.Identity()), {}, "dim"),
    (methods.train, (None, ONES, noisy),
     {"batch": 3, "epochs": 1, "lr": 0.1, "generator": generator(0)}, "batch"),
    (image_views.random_affine, (ONES,), {"scale": (0.0, 1.0)}, "scale"),
    (image_views.random_colour, (ONES,), {"contrast": 1.5}, "contrast"),
    (image_views.random_flip, (ONES[0],), {}, "images"),
    (image_views.affine, (ONES,), {"angle": ONES[:, 0, 0], "shift": ONES[:, 0, :2],
                                   "zoom": 0 * ONES[:, 0, 0]}, "zoom"),
    (minimise.newton, (torch.sum, torch.full((2,), torch.nan)), {}, "start"),
    (minimise.lbfgs, (torch.sum, torch.ones(2)), {"steps": 0}, "steps"),
    (minimise.on_spheres, (torch.sum, (2,), 1), {}, "dim"),
    (training.fit, ([], torch.sum), {"steps": 0, "lr": 0.1}, "steps"),
    (data.digit_patches, (), {"size": 5}, "size"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "arguments", "options", "name"), BAD)
def test_what_does_not_fit_is_named(function, arguments, options, name):
    with pytest.raises(ValueError, match=f"^{name} must"):
        function(*arguments, **options)
