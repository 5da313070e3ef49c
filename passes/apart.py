"""Factors set apart: what a product reads becomes a statement of its own, which each task holds for itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from effcc.ir.expr import Axis, Expr, Load
from effcc.ir.kernel import Kernel, Statement
from effcc.ir.program import fresh_name


def set_apart(
    kernel: Kernel,
    s: Statement,
    made: Statement,
    taken: Sequence[str],
    holds: Callable[[Kernel, Statement], bool],
) -> list[Statement]:
    """`made` under a fresh name, and `s` reading it in place of the value; `s` alone where tasks cannot hold it.

    taken: names of statements that are new to the kernel.
    """
    names = {p.name for p in kernel.signature} | {d.target for d in kernel.statements} | set(taken)
    first = Statement(fresh_name(made.target, names), made.axes, made.value)
    if not holds(kernel, first):
        return [s]
    read = Load(first.target, tuple(Axis(a) for a in first.axes), first.dtype)

    def redirect(e: Expr) -> Expr:
        return read if e == made.value else e

    return [first, s.transformed(redirect)]
