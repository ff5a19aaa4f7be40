"""Which functions a claim's evidence uses: names are followed as Python would look them up."""

import pytest

import uses
from cltheory.checks import registry

IMPORTS = "from cltheory import kernels, losses as l, sphere\nfrom cltheory.checks import claim\n"


def found(*cells, of="a"):
    return sorted(uses.evidence([IMPORTS, *cells]).get(of, ()))


def block(body, name="a"):
    return f'with claim("{name}") as c:\n    {body}\n'


def test_a_function_of_an_earlier_cell_is_followed_to_the_package():
    helper = "def gram(x):\n    return kernels.gram(kernels.linear(), x)\n"
    gap = "def gap(rng):\n    return gram(rng) - l.info_nce(rng)\n"
    expected = ["kernels.gram", "kernels.linear", "losses.info_nce"]
    assert found(helper, gap, block("c.numeric('n', gap)")) == expected


def test_a_magic_is_left_out_and_a_remainder_is_not():
    gap = "def gap(rng):\n    return (\n        rng\n        % sphere.circle(3)\n    )\n"
    cell = "%matplotlib inline\n" + gap
    assert found(cell, block("c.numeric('n', gap)")) == ["sphere.circle"]


def test_a_name_is_looked_up_when_the_block_runs():
    """Python binds a global late: a helper that is written after its caller counts."""
    cells = "def gap(rng):\n    return helper()\n", "def helper():\n    return sphere.circle(3)\n"
    assert found(*cells, block("c.numeric('n', gap)")) == ["sphere.circle"]


def test_a_name_that_is_bound_again_forgets_what_it_was():
    first, second = "def gap():\n    sphere.circle(3)\n", "def gap():\n    sphere.simplex(2, 3)\n"
    check = block("c.numeric('n', gap)")
    assert found(first, check, second, block("c.numeric('n', gap)", "b")) == ["sphere.circle"]
    assert found(first, second, check) == ["sphere.simplex"]
    assert found("kernels = 3\n", block("c.numeric('n', kernels.gram)")) == []


def test_a_value_keeps_what_made_it():
    assert found("points = sphere.circle(3)\n", block("c.numeric('n', points)")) == [
        "sphere.circle"
    ]
    loop = "rows = []\nfor n in range(3):\n    rows.append(sphere.circle(n))\n"
    assert found(loop, block("c.numeric('n', rows)")) == ["sphere.circle"]
    table = "table = {}\ntable['x'] = sphere.simplex(2, 3)\n"
    assert found(table, block("c.numeric('n', table)")) == ["sphere.simplex"]


def test_a_parameter_hides_a_name_of_the_chapter_but_its_default_does_not():
    other = "def loss(x):\n    return l.dcl(x)\n"
    hidden = "def gap(rng, loss):\n    return loss(rng)\n"
    default = "def gap(rng, f=loss):\n    return f(rng)\n"
    assert found(other, hidden, block("c.numeric('n', gap)")) == []
    assert found(other, default, block("c.numeric('n', gap)")) == ["losses.dcl"]
    assert found(other, block("c.numeric('n', [loss for loss in (1, 2)])")) == []


def test_a_twin_counts_and_so_does_a_lambda():
    twin = "c.twin('wrong', f=lambda x: sphere.uniform(3, 2), g=kernels.centre, margin=1)"
    assert found(block(twin)) == ["kernels.centre", "sphere.uniform"]


def test_one_block_says_nothing_of_the_next():
    cells = block("c.numeric('n', sphere.circle)"), block("c.numeric('n', kernels.gram)", "b")
    assert found(*cells, of="b") == ["kernels.gram"]


def test_private_names_other_packages_and_exercises_do_not_count():
    assert found("import torch\n", block("c.numeric('n', torch.eye, sphere._x, sphere.math)")) == []
    exercise = (
        'from cltheory.checks import exercise\nwith exercise("a") as c:\n    sphere.circle(3)\n'
    )
    assert found(exercise) == []


def test_public_names_are_functions_classes_and_constants_with_a_text():
    names = set(uses.public("mercer"))
    assert {"nystrom", "Nystrom", "CHUNK"} <= names
    assert not {"LANCZOS_TOLERANCE", "_signed", "torch", "kernels"} & names


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("rkhs-finite", "rkhs.inner"),
        ("representer", "rkhs.kernel_ridge"),
        ("nystrom", "mercer.nystrom"),
        ("spectral-identity", "losses.spectral_contrastive"),
        ("wasserstein-uniformity", "metrics.wasserstein_uniformity"),
    ],
)
def test_claims_and_functions_lead_to_each_other(claim, name):
    """What a reader of the chapter sees at a glance."""
    assert name in uses.functions_of(claim)
    assert claim in uses.claims_of(name)


def test_the_two_directions_tell_the_same():
    known = {f"{module}.{name}" for module in uses.modules() for name in uses.public(module)}
    pairs = {(claim, name) for claim in registry() for name in uses.functions_of(claim)}
    assert pairs == {(claim, name) for name in known for claim in uses.claims_of(name)}
    assert not any(name.startswith("checks.") for _, name in pairs)


def test_tests_are_found_by_the_names_that_they_use():
    assert "test_kernels.py" in uses.tests_of("kernels.gram")
    assert "test_losses.py" in uses.tests_of("losses.info_nce")
    assert "properties/test_tile_properties.py" in uses.tests_of("blockwise.distance_mean")
    assert uses.tests_of("kernels.no_such_name") == []


def test_a_loss_that_is_named_by_a_string_counts():
    assert found(block("c.numeric('n', gap, loss='nt_xent')")) == ["losses.nt_xent"]
    assert found(block("c.numeric('n', gap, loss='no_loss')")) == []
