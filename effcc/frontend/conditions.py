"""Under which conditions on its arguments an exported program holds: torch.export's guards, as functions of sizes.

    L['k'] >= 0 and L['k'] <= L['x'].size()[0]         becomes      Min(le(0, s1), le(s1, s0))

A guard that nobody checked would let a program run at sizes that it was not captured for, and give something else than
the model does there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sympy
from torch import Tensor
from torch.utils import _pytree as pytree

from effcc.errors import UnsupportedError
from effcc.frontend import sizes
from effcc.ir.dims import Dim, dim
from effcc.ir.size_functions import FUNCTIONS


def conditions(guards: Iterable[str], arguments: Mapping[str, Any]) -> tuple[Dim, ...]:
    """What must be 1 at a call; guards that hold whatever the sizes are left out.

    guards: Python expressions. arguments: the example values (fake tensors, numbers) by parameter.

    Raises UnsupportedError for a guard on something else than sizes and numbers.
    """
    known = _sources(arguments)
    found = []
    for guard in guards:
        condition = dim(_Reader(guard, known).read(ast.parse(guard.strip(), mode="eval").body))
        if condition != 1:
            found.append(condition)
    return tuple(dict.fromkeys(found))


def _sources(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What guards call the sizes, strides and numbers of a call, with what each is."""
    found: dict[str, Any] = {}
    for path, value in pytree.tree_flatten_with_path(dict(arguments))[0]:
        source = f"L{pytree.keystr(path)}"
        if isinstance(value, Tensor):
            found |= {f"{source}.size()[{k}]": sizes.size(n) for k, n in enumerate(value.shape)}
            found |= {f"{source}.stride()[{k}]": sizes.size(n) for k, n in enumerate(value.stride())}
            found[f"{source}.storage_offset()"] = sizes.size(value.storage_offset())
        else:
            found[source] = sizes.number(value)
    return {ast.unparse(ast.parse(text)): sympy.sympify(v) for text, v in found.items() if v is not None}


_OPERATORS: Mapping[type[ast.operator], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv", ast.Mod: "mod",
    ast.Pow: "pow", ast.BitAnd: "bitand", ast.BitOr: "bitor", ast.BitXor: "bitxor", ast.LShift: "lshift",
    ast.RShift: "rshift",
}  # fmt: skip
_COMPARISONS: Mapping[type[ast.cmpop], tuple[str, bool]] = {
    ast.Lt: ("lt", False), ast.LtE: ("le", False), ast.Gt: ("lt", True), ast.GtE: ("le", True), ast.Eq: ("eq", False),
}  # fmt: skip


class _Reader:
    """Reads one guard."""

    def __init__(self, guard: str, known: Mapping[str, Any]) -> None:
        self.guard = guard
        self.known = known

    def read(self, node: ast.expr) -> Any:
        source = self.known.get(ast.unparse(node)) if not isinstance(node, ast.Constant) else None
        if source is not None:
            return source
        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return sympy.sympify(int(value) if isinstance(value, bool) else value)
            case ast.BoolOp(op=op, values=values):
                return (sympy.Min if isinstance(op, ast.And) else sympy.Max)(*map(self.read, values))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return 1 - self.read(operand)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return sizes.arithmetic("mul", sympy.Integer(-1), self.read(operand))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return sizes.arithmetic(_OPERATORS[type(operator)], self.read(left), self.read(right))
            case ast.Compare(left=left, ops=operators, comparators=others):
                return self._compare(operators, [self.read(part) for part in (left, *others)])
            case ast.IfExp(test=test, body=body, orelse=other):
                return sizes.arithmetic("choose", *map(self.read, (test, body, other)))
            case ast.Call(func=function, args=arguments):
                name = ast.unparse(function).rpartition(".")[2].removeprefix("_").removeprefix("sym_")
                found = sizes.arithmetic(name, *map(self.read, arguments))
                if found is not None:
                    return found
        raise UnsupportedError(
            f"the program was exported under the condition {self.guard}, which a package cannot check: "
            f"{ast.unparse(node)} is no size and no number among the arguments"
        )

    def _compare(self, operators: Sequence[ast.cmpop], operands: Sequence[Any]) -> Any:
        found = []
        for operator, a, b in zip(operators, operands, operands[1:], strict=False):
            if isinstance(operator, ast.NotEq):
                found.append(1 - sizes.compared("eq", a, b))
                continue
            name, swapped = _COMPARISONS.get(type(operator), ("", False))
            if name not in FUNCTIONS:
                raise UnsupportedError(
                    f"the program was exported under the condition {self.guard}; expected comparisons"
                )
            found.append(sizes.compared(name, b, a) if swapped else sizes.compared(name, a, b))
        return sympy.Min(*found)
