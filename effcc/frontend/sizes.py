"""Torch's symbolic sizes as effcc's: SymInts and sympy expressions over torch's symbols to Dims and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sympy
import torch
from torch.utils._sympy import functions as torch_functions
from torch.utils._sympy.numbers import int_oo

from effcc.errors import CaptureError
from effcc.ir.dims import Dim, Shape, dim, symbol


def _floor_division(a: Any, b: Any) -> Any:
    return sympy.floor(a / b)


_FUNCTIONS: Mapping[Any, Any] = {
    torch_functions.FloorDiv: _floor_division,
    torch_functions.CleanDiv: _floor_division,
    torch_functions.CeilToInt: sympy.ceiling,
    torch_functions.FloorToInt: sympy.floor,
    torch_functions.IntTrueDiv: lambda a, b: a / b,
    torch_functions.Mod: sympy.Mod,
    torch_functions.PythonMod: sympy.Mod,
    torch_functions.ModularIndexing: lambda a, b, c: sympy.Mod(sympy.floor(a / b), c),
    torch_functions.Max: sympy.Max,
    torch_functions.Min: sympy.Min,
}


def size(value: Any) -> Dim:
    """An int, SymInt or torch's sympy expression as a Dim over effcc's own symbols."""
    if isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        value = value.node.expr
    if isinstance(value, bool | int):
        return int(value)
    return dim(_convert(sympy.sympify(value)))


def _convert(expression: Any) -> Any:
    if isinstance(expression, sympy.Symbol):
        return symbol(expression.name)
    if not expression.args:
        return expression
    args = [_convert(a) for a in expression.args]
    return _FUNCTIONS.get(expression.func, expression.func)(*args)


def shape(sizes: Iterable[Any]) -> Shape:
    """Sizes or strides as Dims."""
    return tuple(size(s) for s in sizes)


def ranges(values: Iterable[Any]) -> dict[str, tuple[int, int | None]]:
    """The range of every size symbol that occurs in the shapes of these (fake) values: inclusive, None for no bound."""
    found: dict[str, tuple[int, int | None]] = {}
    for value in values:
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for s in sizes:
            if isinstance(s, torch.SymInt):
                environment = s.node.shape_env
                for torch_symbol in s.node.expr.free_symbols:
                    found.setdefault(torch_symbol.name, _range(environment, torch_symbol))
    return found


def _range(environment: Any, torch_symbol: Any) -> tuple[int, int | None]:
    bounds = environment.bound_sympy(torch_symbol)
    upper = None if bounds.upper in (int_oo, sympy.oo) or bounds.upper >= 2**62 else int(bounds.upper)
    return int(bounds.lower), upper


def hints(values: Iterable[Any]) -> dict[str, int]:
    """The value that each size symbol had in the example inputs, where torch remembers it."""
    found: dict[str, int] = {}
    for value in values:
        sizes = value.shape if isinstance(value, torch.Tensor) else [value]
        for s in sizes:
            if isinstance(s, torch.SymInt) and isinstance(s.node.expr, sympy.Symbol):
                if not s.node.has_hint():
                    continue
                hint = s.node.hint
                if not isinstance(hint, int):
                    raise CaptureError(f"size {s} has the hint {hint!r}, expected an integer")
                found[s.node.expr.name] = hint
    return found
