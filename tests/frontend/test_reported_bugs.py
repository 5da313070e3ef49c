"""Cases that PyTorch's users reported as wrong under other compilers, by the numbers of their issues (pytorch/pytorch).

Each is a few lines after the report: results, inputs after the call and gradients are eager's, and no fault is met.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from effcc.errors import FaultWarning

CASES: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Any, ...]]]] = {}


def case(issue: int, inputs: Callable[[], tuple[Any, ...]]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        CASES[f"{issue} {function.__name__}"] = (function, inputs)
        return function

    return add


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def weight(*shape: int) -> Tensor:
    return numbers(*shape).requires_grad_()


@case(198101, lambda: (torch.arange(-12, 12).reshape(4, 6),))
def other_dtype_then_write(x: Tensor) -> Tensor:
    y = x.view(torch.int32) * 2
    y.sub_(-4)
    x[:, 2:5] = 2
    return y.view(torch.int64)


@case(198131, lambda: (torch.zeros(3, 4), torch.arange(12.0).view(3, 4)))
def copy_then_write_to_the_source(target: Tensor, source: Tensor) -> Tensor:
    target[0:, :] = source[0:, :]
    return source.add_(1)


@case(198094, lambda: (torch.arange(24).reshape(4, 6), torch.arange(-12, 12).reshape(4, 6)))
def scatter_then_zero(x: Tensor, source: Tensor) -> tuple[Tensor, ...]:
    written = torch.slice_scatter(x, source[1:3], dim=0, start=1, end=3)
    nothing = torch.diagonal_scatter(x, x.diagonal()), torch.select_scatter(x, x[1], 0, 1)
    x.zero_()
    return written, *nothing


@case(94777, lambda: (torch.tensor(3.0),))
def read_then_write(x: Tensor) -> Tensor:
    y = torch.log(x)
    x.log_()
    return y


@case(174074, lambda: (torch.tensor([[-0.8716, 0.1114]], dtype=torch.float64),))
def one_row_twice(x: Tensor) -> Tensor:
    x[[0, 0]] += x[[0, 0]]
    return x


@case(138908, lambda: (torch.full((1, 2), -10), numbers(2, 32)))
def rows_that_are_equal(x: Tensor, y: Tensor) -> None:
    x = x + 10
    y[x] += y[x]


@case(94778, lambda: (numbers(5, 5), numbers(5, 1).expand(5, 5)))
def index_add(x: Tensor, values: Tensor) -> Tensor:
    return torch.index_add(x, 0, torch.tensor([0, 1, 2, 3, 4]), values)


@case(96064, lambda: (numbers(3, 5),))
def unrolled_loop(x: Tensor) -> Tensor:
    out = torch.zeros(3, 5)
    for i in range(5):
        out[:, i] = x[:, i].exp() + (out[:, i - 1] if i else 0)
    return out


@case(113015, lambda: (numbers(1900, 3),))
def slices_of_two_kinds(x: Tensor) -> tuple[Tensor, Tensor]:
    one, many = x[-1850:-1849:1], x[-1850:9223372036854775807:43]
    return torch.max(one, -many), many.sum(0)


@case(126848, lambda: (torch.tensor(0.1875),))
def subnormal_numbers(x: Tensor) -> Tensor:
    return x * 2.0 ** (-127 + 3)


@case(160730, lambda: ((torch.arange(1581).reshape(31, 51, 1) % 97 / 10).half(),))
def half_numbers_and_a_branch(x: Tensor) -> Tensor:
    e = torch.tan(x).expand(31, 51, 1)
    return torch.sin(torch.sub(e, e * 0.5) if e.mean().item() > 0.5 else torch.add(e, e * 0.5))


@case(185702, lambda: (numbers(4, 8, 32), numbers(4, 8), numbers(8).abs(), numbers(8)))
def slices_through_special_functions(x: Tensor, y: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    x = x[..., 16]
    positive, rates = F.softplus(x) + 1e-4, F.softplus(y) + 1e-4
    found = torch.special.gammaln(positive + alpha), torch.special.erf(x * beta), torch.special.xlogy(positive, rates)
    return torch.stack(found, dim=-1)


@case(159154, lambda: (torch.ones(5, 1, 32, 32), torch.ones(5)))
def sums_of_exponentials(x: Tensor, factors: Tensor) -> Tensor:
    terms = torch.exp(-torch.einsum("i...,i->i...", x, factors))
    return torch.einsum("i,i...->i...", 1 / torch.einsum("i...->i", terms), terms)


@case(190764, lambda: tuple(torch.full((2, 2), 1_300_000_007 + k, dtype=torch.int32) for k in range(3)))
def products_that_wrap_around(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    return (x @ y + x @ z).sum(dim=1), (x @ (y + z)).sum(dim=1)


@case(187018, lambda: (torch.tensor([200, 200], dtype=torch.uint8),))
def bytes_that_wrap_around(x: Tensor) -> tuple[Tensor, ...]:
    y = -x.abs()
    return torch.cat([y, y]).sum(), (x + x).to(torch.int16), torch.neg(x + x).to(torch.int32), torch.neg(x) < 4


@case(156788, lambda: (torch.tensor([1.541, -0.2934, -2.1788, 0.5684, -1.0845]),))
def negative_numbers_to_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.to(torch.uint8), (x * 100).to(torch.int8)


@case(198081, lambda: (torch.tensor([[0, 3], [0, 0]], dtype=torch.uint8),))
def any_of_bytes(x: Tensor) -> tuple[Tensor, ...]:
    return torch.any(x), torch.all(x), x.any(0), torch.any(x) * 200 + 100


@case(93784, lambda: (torch.tensor([-3, torch.nan, -1, 2, torch.nan]), torch.tensor([0, 0, torch.nan, 0, 0])))
def nan_among_bounds(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    return F.relu(x), torch.clamp_min(x, 0.5), torch.maximum(x, y), torch.clamp_min(x, y), torch.minimum(y, x)


@case(97968, lambda: (torch.ones(5, 10, 1, dtype=torch.int8), torch.ones(10, 1, dtype=torch.int8)))
def bits_below_a_bound(x: Tensor, y: Tensor) -> Tensor:
    return torch.clamp_max(torch.bitwise_and(x, y), y)


@case(130394, lambda: (torch.as_strided(numbers(16, 16), (16, 8), (16, 1)),))
def result_with_gaps(x: Tensor) -> Tensor:
    result = torch.empty_strided(x.size(), x.stride())
    result[:] = x + x
    return result


@case(160964, lambda: (torch.arange(10), torch.tensor([2.5, 4.5, 5.5])))
def search_in_a_slice(edges: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.bucketize(x, edges[1:]), torch.searchsorted(edges[3:], x.long(), right=True)


@case(198133, lambda: (torch.tensor([0.99, 0.999999, 0.99999994, -0.99999]),))
def erfinv_near_one(x: Tensor) -> Tensor:
    return torch.erfinv(x)


@case(136662, lambda: (numbers(2, 3),))
def gradient_inside(x: Tensor) -> Tensor:
    def loss(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[:, 0] += x[:, 2].abs()
        y[:, 0] += x[:, 2].abs()
        return y.sum()

    return torch.func.grad(loss)(x)


@case(182012, lambda: (weight(8, 8), weight(8)))
def gradient_of_diagonal_scatter(x: Tensor, source: Tensor) -> Tensor:
    return torch.diagonal_scatter(x, source).sum()


@case(180164, lambda: (weight(4, 13, 33), weight(4, 6, 33)))
def gradient_of_slice_scatter(x: Tensor, y: Tensor) -> Tensor:
    return torch.slice_scatter(x, y, dim=1, start=0, end=6).sum(dim=1).sum()


@case(193061, lambda: (weight(2, 5, 8), weight(8, 8)))
def gradient_of_modulated_norms(x: Tensor, table: Tensor) -> Tensor:
    s1, b1, s2, b2 = (x.mean(1) @ torch.cat([table] * 4, 1)).unsqueeze(1).chunk(4, -1)
    first = F.layer_norm(x, (8,)) * (1 + s1) + b1
    return (F.layer_norm(first, (8,)) * (1 + s2) + b2).square().mean()


def copied(tree: Any) -> Any:
    def copy(tensor: Tensor) -> Tensor:
        held = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(tensor.detach())
        return held.requires_grad_(tensor.requires_grad)

    return pytree.tree_map_only(Tensor, lambda t: t.clone() if 0 in t.stride() else copy(t), tree)


@pytest.mark.parametrize("name", CASES)
def test_a_reported_case_is_eagers(name: str) -> None:
    function, inputs = CASES[name]
    expected_inputs, given = copied(inputs()), copied(inputs())
    expected = function(*expected_inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FaultWarning)
        found = torch.compile(function, backend="effcc")(*given)
    torch.testing.assert_close(found, expected, equal_nan=True, check_stride=True)
    torch.testing.assert_close(given, expected_inputs, equal_nan=True)
    if any(t.requires_grad for t in given):
        expected.backward()
        found.backward()
        torch.testing.assert_close([t.grad for t in given], [t.grad for t in expected_inputs])


CHANGING: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "194976 a bound that becomes an argument": (
        lambda x, limit: F.silu(x).clamp(max=limit) * x.clamp(min=-limit, max=limit), (0.5, 0.25, 0.125),
    ),
    "135432 integers that become arguments": (lambda x, items: torch.Tensor(items) + x[0, 0], ([1, 2], [3, 4], [5, 6])),
    "175966 steps of a range": (lambda x, n: torch.arange(0, n * 0.1, 0.1) + x[0, 0], (5, 7, 9)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGING)
def test_no_call_computes_with_an_earlier_calls_numbers(name: str) -> None:
    function, values = CHANGING[name]
    compiled = torch.compile(function, backend="effcc")
    x = numbers(4, 8)
    for value in values:
        torch.testing.assert_close(compiled(x, value), function(x, value))


def test_powers_of_two_beyond_floats_do_not_meet_zeros() -> None:
    """`ldexp` by integers is one rounding: 0 * 2^255 is 0, where 2^255 is no number of f32."""
    x = torch.tensor([0.0, -0.0, 1e-30, 3e-44, 1.5, torch.inf, 1e30], dtype=torch.float32)
    exponent = torch.tensor([255, 200, 200, 250, -149, 3, -320])
    got = torch.compile(torch.ldexp, backend="effcc", dynamic=False)(x, exponent)
    torch.testing.assert_close(got, torch.ldexp(x, exponent), rtol=0, atol=0)
