"""What holds for every public function: it keeps its arguments, their dtype, and its surroundings.

The cases of all families stand in one table here, which leaves out no function of the package.
"""

import ast
import importlib
from pathlib import Path

import pytest
import torch
from cases import assert_same, cast, leaves, numbers, over, tensors
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import uses

FAMILIES = [
    importlib.import_module(path.stem)
    for path in sorted(Path(__file__).parent.glob("test_*_properties.py"))
]
CASES = [case for family in FAMILIES for case in family.CASES]

OTHERWISE = {
    "data.mnist, data.cifar10": "read files, which their tests make",
    "figures": "draws",
    "checks, claims, ledger": "hold evidence and pages, not numbers; their tests are examples",
    "sweeps": "runs other processes",
    "training.device, training.data_folder": "read the environment",
    "training.Record, training.load_record, training.recorded": "files of runs",
}
"""Functions and modules without a property, and why."""

RESULTS = {
    "data.LabelledImages", "data.Patches", "mercer.Eigenpairs", "mercer.FunkHecke",
    "minimise.Minima", "pairs.MercerPairs", "pairs.CanonicalPairs", "pca.Eigenspace",
    "training.History",
}  # fmt: skip
"""Tuples and records that functions with a property return."""

FEW = settings(max_examples=1 + settings().max_examples // 4)
"""Where shapes and corners hardly count."""

DOUBLE = {
    "blockwise.log_sums", "blockwise.log_sums_between", "blockwise.cross_entropy",
    "blockwise.softplus_mean", "blockwise.diagonal", "blockwise.distance_mean",
}  # fmt: skip
"""They sum in float64, and say so."""


def names(module):
    """The functions and classes of a module."""
    return [
        f"{module}.{name}"
        for name, node in uses.public(module).items()
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]


def left_out(module):
    excepted = {part for entry in OTHERWISE for part in entry.split(", ")}
    held = {case.name for case in CASES} | RESULTS | excepted
    return [name for name in names(module) if name not in held and module not in excepted]


@pytest.mark.parametrize("module", uses.modules())
def test_every_public_function_has_a_property(module):
    assert left_out(module) == []


def test_an_exception_names_what_is_there_and_has_no_property():
    public = {name for module in uses.modules() for name in names(module)}
    covered = {case.name for case in CASES}
    assert covered <= public
    for entry in OTHERWISE:
        for part in entry.split(", "):
            assert part in public | set(uses.modules())
            assert not {name for name in covered if name == part or name.startswith(f"{part}.")}
    assert public >= RESULTS | DOUBLE
    assert not covered & RESULTS


@over(CASES)
@given(data=st.data())
def test_a_result_is_of_its_arguments_alone_and_leaves_them(case, data):
    """It depends neither on torch's default dtype and device nor on its global random state."""
    arguments = case.arguments(data)
    before = [argument.clone() for argument in tensors(arguments)]
    torch.manual_seed(0)
    found = case(*arguments)
    assert not any(bool(part.isnan().any()) for part in numbers(found))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        again = case(*arguments)
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert torch.equal(state, torch.get_rng_state())
    assert_same(found, again)
    assert_same(before, tensors(arguments))


@over(CASES)
@FEW
@given(data=st.data())
def test_the_dtype_of_a_result_is_that_of_the_arguments(case, data):
    arguments = case.arguments(data)
    single = cast(arguments, torch.float32)
    # A mass that is none in float32 makes no law there.
    pairs = list(zip(tensors(arguments), tensors(single), strict=True))
    assume(all(torch.equal(a != 0, b != 0) for a, b in pairs))
    if any(b.dtype == torch.float32 for _, b in pairs):
        wanted = torch.float64 if case.name in DOUBLE else torch.float32
        found = [leaf for leaf in leaves(case(*single)) if isinstance(leaf, torch.Tensor)]
        assert {leaf.dtype for leaf in found if leaf.is_floating_point()} <= {wanted}


@over(CASES)
@FEW
@given(data=st.data())
def test_a_nan_is_refused_or_seen(case, data):
    """A result that is finite, or an error of another library, would hide it."""
    arguments = case.arguments(data)
    floats = [i for i, a in enumerate(arguments) if isinstance(a, torch.Tensor) and a.numel()
              and a.is_floating_point()]  # fmt: skip
    if not floats:
        return
    spoilt = list(arguments)
    place = data.draw(st.sampled_from(floats))
    spoilt[place] = spoilt[place].clone(memory_format=torch.contiguous_format)
    spoilt[place].flatten()[-1:].fill_(torch.nan)
    assert bool(spoilt[place].isnan().any())
    try:
        result = case(*spoilt)
    except (ValueError, FloatingPointError):
        return
    assert result is False or any(bool(part.isnan().any()) for part in numbers(result))
