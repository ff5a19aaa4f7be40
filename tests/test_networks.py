"""Networks against a plain layer-by-layer evaluation, one head at a time."""

import pytest
import torch

from cltheory.networks import ACTIVATIONS, MLP, ConvNet, ParallelMLP


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def plain(x, weights, biases, activation):
    for depth, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.nn.functional.linear(
            x if depth == 0 else ACTIVATIONS[activation](x), weight.T, bias[0]
        )
    return x


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [[], [7], [7, 5]])
def test_mlp_is_its_layers(activation, widths):
    net = MLP(3, widths, 2, activation=activation, generator=seeded(), dtype=torch.float64)
    x = torch.randn(11, 3, generator=seeded(1), dtype=torch.float64)
    expected = plain(x, net.weights, net.biases, activation)
    torch.testing.assert_close(net(x), expected)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [[], [7], [7, 5]])
def test_parallel_heads_are_single_networks(activation, widths):
    net = ParallelMLP(4, 3, widths, activation=activation, generator=seeded(), dtype=torch.float64)
    x = torch.randn(11, 3, generator=seeded(1), dtype=torch.float64)
    heads = [
        plain(x, [w[head] for w in net.weights], [b[head] for b in net.biases], activation)
        for head in range(4)
    ]
    assert net(x).shape == (11, 4)
    torch.testing.assert_close(net(x), torch.cat(heads, 1))


def test_heads_share_no_parameter():
    net = ParallelMLP(3, 2, [5], generator=seeded())
    net(torch.ones(4, 2))[:, 1].sum().backward()
    for parameter in net.parameters():
        assert parameter.grad[[0, 2]].abs().max() == 0
        assert parameter.grad[1].abs().max() > 0


def test_seed_decides():
    first, again, other = (MLP(3, [4], 1, generator=seeded(s)).weights[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scale_of_the_weights():
    net = MLP(400, [300], 200, activation="relu", generator=seeded())
    hidden, readout = net.weights
    assert hidden.var().item() * 400 == pytest.approx(2, rel=0.05)
    assert readout.var().item() * 300 == pytest.approx(1, rel=0.05)
    assert net.biases[0].var().item() == pytest.approx(1, rel=0.3)
    assert net.biases[1].abs().max() == 0
    assert MLP(400, [300], 2, activation="tanh", generator=seeded()).weights[
        0
    ].var().item() * 400 == (pytest.approx(1, rel=0.05))


def test_derivatives():
    net = ParallelMLP(2, 3, [4], activation="tanh", generator=seeded(), dtype=torch.float64)
    x = torch.randn(5, 3, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, x)
    assert torch.autograd.gradgradcheck(net, x)
    parameters = dict(net.named_parameters())

    def output(parameters, row):
        return torch.func.functional_call(net, parameters, (row[None],))[0]

    jacobian = torch.func.vmap(torch.func.jacrev(output), (None, 0))(parameters, x)
    assert jacobian["weights.0"].shape == (5, 2, 2, 3, 4)


def slow_convolution(image, weight, bias):
    """3 x 3 convolution of stride 2 with a border of zeros, by its definition."""
    channels, height, width = image.shape
    padded = torch.zeros(channels, height + 2, width + 2, dtype=image.dtype)
    padded[:, 1:-1, 1:-1] = image
    rows, columns = (height + 1) // 2, (width + 1) // 2
    out = torch.empty(len(weight), rows, columns, dtype=image.dtype)
    for i in range(rows):
        for j in range(columns):
            window = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            out[:, i, j] = (weight * window).sum((1, 2, 3)) + bias
    return out


@pytest.mark.parametrize(("size", "channels"), [((8, 8), [4]), ((7, 5), [3, 6]), ((1, 4), [2, 2])])
def test_convolutions_are_their_definition(size, channels):
    net = ConvNet(size, channels, 3, activation="tanh", generator=seeded(), dtype=torch.float64)
    for bias in net.biases:
        bias.data.normal_(generator=seeded(2))
    x = torch.randn(4, *size, generator=seeded(1), dtype=torch.float64)
    for image, found in zip(x, net(x), strict=True):
        hidden = image[None]
        for weight, bias in zip(net.weights, net.biases, strict=False):
            hidden = torch.tanh(slow_convolution(hidden, weight, bias))
        expected = hidden.flatten() @ net.readout + net.biases[-1]
        torch.testing.assert_close(found, expected)


def test_scale_of_the_convolutions():
    net = ConvNet((8, 8), [64, 128], 200, generator=seeded())
    assert net.weights[1].var().item() * 9 * 64 == pytest.approx(2, rel=0.05)
    assert net.readout.var().item() * 128 * 4 == pytest.approx(1, rel=0.05)
    assert all(bias.abs().max() == 0 for bias in net.biases)
    first, again, other = (ConvNet((8, 8), [4], 2, generator=seeded(s)).readout for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("make", [lambda: MLP(3, [4], 2), lambda: ParallelMLP(2, 3, [4])])
def test_makes_nothing_on_the_default_device(make):
    x = torch.ones(5, 3)
    torch.set_default_device("meta")
    try:
        assert make()(x).device.type == "cpu"
        assert ConvNet((5, 3), [2], 2)(x[None]).device.type == "cpu"
    finally:
        torch.set_default_device(None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MLP(0, [4], 2), "in_dim must be an integer of at least 1, got 0"),
        (lambda: MLP(3, [4, 0], 2), "widths must be an integer of at least 1, got 0"),
        (lambda: MLP(3, [4], 0), "out_dim must be"),
        (lambda: ParallelMLP(0, 3, [4]), "heads must be"),
        (lambda: ParallelMLP(1, 3, [4.0]), "widths must be"),
        (lambda: MLP(3, [4], 2, activation="swash"), "activation must be one of .*'swash'"),
        (
            lambda: MLP(3, [4], 2)(torch.ones(5, 4)),
            r"x must have shape \(n, 3\), got shape \(5, 4\)",
        ),
        (lambda: ParallelMLP(2, 3, [4])(torch.ones(3)), r"x must have shape \(n, 3\)"),
        (lambda: ConvNet((8, 0), [4], 2), "size must be an integer of at least 1, got 0"),
        (lambda: ConvNet((8, 8), [], 2), "channels must hold at least one layer"),
        (lambda: ConvNet((8, 8), [0], 2), "channels must be"),
        (lambda: ConvNet((8, 8), [4], 0), "out_dim must be"),
        (lambda: ConvNet((8, 8), [4], 2, activation="swash"), "activation must be one of"),
        (
            lambda: ConvNet((8, 8), [4], 2)(torch.ones(5, 8, 7)),
            r"x must have shape \(n, 8, 8\), got shape \(5, 8, 7\)",
        ),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_colour_image_goes_through_its_channels():
    net = ConvNet((3, 8, 6), [4], 2, generator=seeded(), dtype=torch.float64)
    x = torch.rand(5, 3, 8, 6, dtype=torch.float64, generator=seeded())
    hidden = torch.nn.functional.conv2d(x, net.weights[0], net.biases[0], stride=2, padding=1)
    expected = torch.nn.functional.gelu(hidden).flatten(1) @ net.readout + net.biases[1]
    torch.testing.assert_close(net(x), expected)
    grey, one = (
        ConvNet(size, [4], 2, generator=seeded(), dtype=torch.float64)
        for size in ((8, 6), (1, 8, 6))
    )
    torch.testing.assert_close(grey(x[:, 0]), one(x[:, :1]))
    with pytest.raises(ValueError, match=r"x must have shape \(n, 3, 8, 6\), got"):
        net(x[:, 0])
    with pytest.raises(ValueError, match="size must be"):
        ConvNet((8,), [4], 2)
