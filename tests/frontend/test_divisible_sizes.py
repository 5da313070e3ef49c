"""Sizes that guards show to be divisible are written so: halved and doubled again, they are the same size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._dynamo.source import ConstantSource
from torch._dynamo.testing import CompileCounterWithBackend
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from effcc.explanation import explain
from effcc.frontend import divisors, sizes


def pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    n, c = x.shape
    doubled = x.view(n // 2, 2, c)[:, 0].repeat_interleave(2, 0)
    return torch.cat([x, doubled], 1), x.reshape(n // 4, 4 * c)


def test_one_program_without_calls_of_pytorch_serves_all_multiples() -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("effcc")
    run = torch.compile(pairs, backend=counter, dynamic=True)
    for n in (8, 12, 40):
        x = torch.randn(n, 6, generator=torch.Generator().manual_seed(n))
        torch.testing.assert_close(run(x), pairs(x))
    assert counter.frame_count == 1
    assert not any(program.externs for program in explain(run, measure=False).programs)
    with pytest.raises(RuntimeError, match="shape"):
        run(torch.randn(9, 6))


@pytest.mark.parametrize(
    ("conditions", "factor"),
    [
        ((), 1),
        ((lambda n: n // 2 == 4,), 1),
        ((lambda n: n % 6 == 0,), 6),
        ((lambda n: n % 6 == 0, lambda n: n // 6 % 4 == 0), 24),
        ((lambda n: 2 * ((n - 1) // 2) + 2 == n,), 2),
        ((lambda n: 3 * (n // 3) + 1 == n,), 1),
        ((lambda n: n % 2 == 0 or n > 4, lambda n: n % 4 != 2), 2),
    ],
)
def test_what_guards_say_is_found(conditions: tuple[object, ...], factor: int) -> None:
    environment = ShapeEnv()
    hint = 25 if factor == 1 and conditions else 24
    symbol = environment.create_unspecified_symbol(hint, ConstantSource("n"), DimDynamic.DYNAMIC)
    environment.constrain_symbol_range(symbol, compiler_min=2, compiler_max=2**40)
    n = environment.create_symintnode(symbol, hint=hint)
    for condition in conditions:
        bool(condition(n))  # type: ignore[operator]
    found = sizes.parts(symbol, environment)
    assert found.factor == factor
    assert found.of(hint) == {found.first.name: hint // factor}


def test_long_equalities_are_left_alone() -> None:
    """Rows padded to windows and cut into them leave dozens of these behind, each of which takes sympy seconds."""
    environment = ShapeEnv()
    symbol = environment.create_unspecified_symbol(20, ConstantSource("n"), DimDynamic.DYNAMIC)
    n = environment.create_symintnode(symbol, hint=20)
    padded = n // 2 + (4 - n // 2 % 4) % 4
    windows = padded // 4
    assert windows * (padded // windows) * (padded // windows) == 4 * padded
    assert any(guard.expr.count_ops() > 24 for guard in environment.guards)

    def convert(*_: object) -> None:
        raise AssertionError("tried")

    assert divisors.divisor(symbol, environment, convert) == 1
