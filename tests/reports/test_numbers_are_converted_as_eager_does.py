"""Numbers beside tensors become what eager makes of them: half types, integers out of range, bools, 0-d tensors.

Of half types a factor or divisor stays as it is, and any other number is rounded first; integers wrap around. Results
are compared bit for bit, many expressions in one graph. Of all expressions, numbers and dtypes every second combination
is compiled, such that every expression meets every number and every dtype, and every number every dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

HALVES = [torch.float16, torch.bfloat16]
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
NUMBERS = [257, 3, 0.1, 1 / 3, 1e-5, 100000, 2**24 + 1, 1e-9, 1e30, True]

WITH_A_NUMBER: Mapping[str, Callable[[Tensor, Any], Tensor]] = {
    "mul": lambda x, k: x * k,
    "mul_after": lambda x, k: k * x,
    "add": lambda x, k: x + k,
    "rsub": lambda x, k: (k + 0) - x,
    "div": lambda x, k: x / k,
    "rdiv": lambda x, k: k / x,
    "floor_divide": lambda x, k: x // k,
    "truncated": lambda x, k: torch.div(x, k, rounding_mode="trunc"),
    "remainder": lambda x, k: x % k,
    "fmod": torch.fmod,
    "pow": lambda x, k: x ** min(k, 6e4),
    "less": lambda x, k: x < k,
    "equal": lambda x, k: x == k,
    "clamp": lambda x, k: x.clamp(-1, min(k, 6e4)),
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "lerp": lambda x, k: torch.lerp(x, -x, float(k)),
    "where": lambda x, k: torch.where(x > 0, x, k),
}

OF_INTEGERS: Mapping[str, Callable[[Tensor, Any], Tensor]] = {
    "add": lambda x, k: x + k,
    "rsub": lambda x, k: k - x,
    "mul": lambda x, k: x * k,
    "add_alpha": lambda x, k: torch.add(x, x, alpha=k) if 0 <= k < 128 else x,
    "less": lambda x, k: x < k,
    "equal": lambda x, k: x == k,
    "and": lambda x, k: x & k,
    "xor": lambda x, k: x ^ k,
    "written": lambda x, k: x.clone().mul_(k),
    "halved": lambda x, k: x * (k + 0.5),
    "divided": lambda x, k: x / k,
    "minus_one": lambda x, k: x.new_full((3,), -1),
    "shifted": lambda x, k: x << (k % 70),
    "shifted_back": lambda x, k: x >> (k % 70),
    "unpacked": lambda x, k: torch.stack([x & 15, x >> 4], -1),
    "cut": lambda x, k: torch.stack([x.clamp(1, 7), x % 3, torch.fmod(x, 5), x // 2], -1),
}


def every_second(
    expressions: Mapping[str, Callable[[Tensor, Any], Tensor]], numbers: Sequence[Any], turn: int
) -> Iterator[tuple[str, Callable[[Tensor, Any], Tensor], Any]]:
    """Every second pair of an expression and a number; of even turns those that odd turns leave out."""
    for row, (name, expression) in enumerate(expressions.items()):
        for column, number in enumerate(numbers):
            if (row + column + turn) % 2 == 0:
                yield f"{name} {number}", expression, number


def assert_same(function: Callable[..., Any], *args: Tensor) -> None:
    """Compile a function and compare its results with eager's: equal bits, but for the payload of NaN."""
    torch._dynamo.reset()
    expected = function(*args)
    for name, value in torch.compile(function, backend="effcc")(*args).items():
        wanted = expected[name]
        assert value.dtype == wanted.dtype, name
        torch.testing.assert_close(value, wanted, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", HALVES)
def test_numbers_beside_halves(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    special = [0.0, -0.0, 1, -3, 0.5, 6e4, -6e4, torch.inf, -torch.inf, torch.nan, 1e-4, 6e-8, 257, 2049, 7, 100]
    x = torch.cat([torch.randn(48) * torch.randn(48).mul(3).exp(), torch.tensor(special)]).to(dtype)

    def computed(x: Tensor) -> dict[str, Tensor]:
        pairs = every_second(WITH_A_NUMBER, NUMBERS, HALVES.index(dtype))
        return {name: f(x, k) for name, f, k in pairs}

    assert_same(computed, x)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("other", [torch.float32, torch.float64, torch.int64])
def test_0d_tensors_beside_halves(dtype: torch.dtype, other: torch.dtype) -> None:
    x = torch.linspace(-300, 300, 64).to(dtype)

    def computed(x: Tensor, s: Tensor) -> dict[str, Tensor]:
        return {
            "after": x * s, "before": s * x, "divided": x / s, "divides": s / x, "added": x + s, "less": x < s,
            "floor": x // s, "kept": torch.where(x > 0, x, s), "lerp": torch.lerp(x, -x, s),
        }  # fmt: skip

    for number in (257, 100003):
        assert_same(computed, x, torch.tensor(number).to(other))


@pytest.mark.parametrize("dtype", HALVES)
def test_scaled_terms_are_rounded_once(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x, y, z = ((torch.randn(64) * 30).to(dtype) for _ in range(3))
    a, b, c = ((torch.randn(8, 8) * 3).to(dtype) for _ in range(3))

    def computed(x: Tensor, y: Tensor, z: Tensor, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        return {
            "add": torch.add(x, y, alpha=3), "sub": torch.sub(x, y, alpha=257),
            "addcmul": torch.addcmul(x, y, z, value=0.1), "addcdiv": x.addcdiv(y, z),
            "lerp": torch.lerp(x, y, 257 / 1024),  # whose products are exact, as eager uses fused multiply-adds
            "floor": x // y, "truncated": torch.div(x, y, rounding_mode="trunc"), "cube": x**3, "root": x.abs() ** 0.5,
            "addmm": torch.addmm(c, a, b, beta=0.1, alpha=1 / 3),
            "baddbmm": torch.baddbmm(c[None], a[None], b[None], alpha=0.1),
        }  # fmt: skip

    assert_same(computed, x, y, z, a, b, c)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_beside_numbers_out_of_their_range(dtype: torch.dtype) -> None:
    limits = torch.iinfo(dtype)
    some = [0, 1, 2, 5, 16, 100, limits.max, limits.max - 1, limits.min, limits.min + 1]
    x = torch.tensor(some * 4, dtype=dtype)

    def computed(x: Tensor) -> dict[str, Tensor]:
        pairs = every_second(OF_INTEGERS, (300, -1, -300, 255, 70000, 2**40, -(2**33)), INTEGERS.index(dtype))
        return {name: f(x, k) for name, f, k in pairs}

    assert_same(computed, x)


@pytest.mark.parametrize(
    "refused",
    [
        lambda x: x.clamp(max=300), lambda x: x.masked_fill(x > 3, 300), lambda x: torch.full_like(x, 300),
        lambda x: torch.where(x > 3, x, 300),
    ],
)  # fmt: skip
def test_numbers_that_eager_refuses_are_refused(refused: Callable[[Tensor], Tensor]) -> None:
    x = torch.arange(9, dtype=torch.uint8)
    for function in (refused, torch.compile(refused, backend="effcc")):
        with pytest.raises(RuntimeError, match="overflow"):
            function(x)
