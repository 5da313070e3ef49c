"""An integer divided by zero raises, as in eager; what a vector holds beside the tensor's elements does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from effcc.errors import EffccError, ZeroDivisorError

FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "fmod": lambda a, b: torch.fmod(a, b),
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
}
DTYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def all_of_them(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
    return tuple(function(a, b) for function in FUNCTIONS.values())


def operands(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two vectors of 16 lanes, and a tail."""
    return torch.arange(-10, 27).to(dtype), torch.tensor([3, -2, 5]).repeat(13)[:37].to(dtype)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_raises_where_eager_does(name: str) -> None:
    function = FUNCTIONS[name]
    a, b = operands(torch.int64)
    b[20] = 0
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        function(a, b)
    with pytest.raises(ZeroDivisorError, match=r"test_integer_division_by_zero.py:\d+ .*divided by zero") as raised:
        torch.compile(function, backend="effcc", fullgraph=True)(a, b)
    for kind in (ZeroDivisionError, RuntimeError, EffccError):
        assert isinstance(raised.value, kind)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_it_raises_wherever_the_zero_is_and_only_then(dtype: torch.dtype) -> None:
    compiled = torch.compile(all_of_them, backend="effcc", fullgraph=True)
    a, b = operands(dtype)
    torch.testing.assert_close(compiled(a, b), all_of_them(a, b))
    for place in (0, 20, 36):
        divisor = b.clone()
        divisor[place] = 0
        with pytest.raises(ZeroDivisorError):
            compiled(a, divisor)


@pytest.mark.parametrize("divide", [lambda x: x // 0, lambda x: x % x.new_zeros(()), lambda x: 5 // (x - x)])
def test_numbers_and_0d_tensors_raise_too(divide: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        divide(torch.arange(5))
    with pytest.raises(ZeroDivisorError):
        torch.compile(divide, backend="effcc")(torch.arange(5))
    compiled = torch.compile(divide, backend="effcc", dynamic=True)
    assert compiled(torch.arange(0)).shape == (0,)


def test_only_what_the_model_divides_counts() -> None:
    def model(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([torch.nn.functional.pad(a // b, (3, 2)), a])

    a, b = torch.arange(1, 22), torch.arange(1, 22) - 40
    compiled = torch.compile(model, backend="effcc", dynamic=True)
    for count in (21, 16, 3, 1):
        torch.testing.assert_close(compiled(a[:count], b[:count]), model(a[:count], b[:count]))


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8], ids=str)
def test_the_least_integer_divided_by_minus_one_wraps_around(dtype: torch.dtype) -> None:
    least = torch.full((19,), torch.iinfo(dtype).min, dtype=dtype)
    quotient, remainder, rest, cut = torch.compile(all_of_them, backend="effcc")(least, torch.full_like(least, -1))
    # Eager dies of it where it truncates i32 and i64; everywhere else it wraps around as well.
    torch.testing.assert_close((quotient, cut), (least, least))
    torch.testing.assert_close((remainder, rest), (torch.zeros_like(least), torch.zeros_like(least)))
