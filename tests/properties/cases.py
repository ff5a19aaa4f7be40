"""A public function as a property sees it: what it is called with, and what comes of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn


class Case:
    """A function with a strategy for its arguments, and options that stay.

    Where arguments must be made from what is drawn, `through` gets the function before them.
    """

    def __init__(
        self,
        function: Callable,
        drawn: st.SearchStrategy,
        *,
        through: Callable | None = None,
        **options: Any,
    ):
        self.function, self.drawn, self.through, self.options = function, drawn, through, options

    def __call__(self, *arguments: Any) -> Any:
        if self.through is not None:
            return self.through(self.function, *arguments, **self.options)
        return self.function(*arguments, **self.options)

    @property
    def name(self) -> str:
        module = self.function.__module__.rpartition(".")[2]
        return f"{module}.{self.function.__qualname__}"

    def __repr__(self) -> str:
        plain = {k: v for k, v in self.options.items() if isinstance(v, str | int | float)}
        return " ".join([self.name, *(f"{k}={v}" for k, v in plain.items())])

    def arguments(self, data: st.DataObject) -> tuple:
        drawn = data.draw(self.drawn)
        return drawn if type(drawn) is tuple else (drawn,)


def over(cases: list[Case]) -> pytest.MarkDecorator:
    """One test for each case of a table."""
    return pytest.mark.parametrize("case", cases, ids=repr)


def of(cases: list[Case], *functions: Callable) -> list[Case]:
    """Pick the cases of some functions."""
    return [case for case in cases if case.function in functions]


def without(cases: list[Case], *functions: Callable) -> list[Case]:
    return [case for case in cases if case.function not in functions]


def leaves(result: Any) -> list[Any]:
    """Return every tensor and every plain number of a result."""
    if isinstance(result, nn.Module):
        return leaves(result.state_dict())
    if dataclasses.is_dataclass(result):
        return leaves([getattr(result, field.name) for field in dataclasses.fields(result)])
    if isinstance(result, dict):
        return leaves(list(result.values()))
    if isinstance(result, list | tuple):
        return [leaf for part in result for leaf in leaves(part)]
    return [result] if isinstance(result, Tensor | bool | int | float) else []


def numbers(result: Any) -> list[Tensor]:
    """Return all of a result as tensors."""
    return [
        leaf.detach()
        if isinstance(leaf, Tensor)
        else torch.tensor(leaf, dtype=torch.float64, device="cpu")
        for leaf in leaves(result)
    ]


def tensors(arguments: tuple) -> list[Tensor]:
    return [argument for argument in arguments if isinstance(argument, Tensor)]


def cast(arguments: tuple, dtype: torch.dtype) -> tuple:
    """Convert what is drawn in float64."""
    return tuple(
        a.to(dtype) if isinstance(a, Tensor) and a.is_floating_point() else a for a in arguments
    )


def assert_same(one: Any, other: Any, rtol: float = 0.0, atol: float = 0.0) -> None:
    """Require the same numbers, to rounding if a tolerance is given."""
    left, right = numbers(one), numbers(other)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)
