"""The languages and programs as text that `effcc.ir.parser` reads back.

>>> from effcc.ir.dtypes import f32
>>> from effcc.ir.graph import GraphBuilder
>>> from effcc.ir.types import tensor
>>> b = GraphBuilder("twice")
>>> x = b.param("x", tensor(f32, 4))
>>> print(print_graph(b.build((b.emit("add", x, x),))))
graph @twice(%x: f32[4]) {
  %add = add %x, %x : f32[4]
  return %add
}
"""

from __future__ import annotations

from effcc.ir.graph import Graph
from effcc.ir.kernel import Kernel
from effcc.ir.loops import LoopNest
from effcc.ir.printer.expressions import show_expression
from effcc.ir.printer.graphs import print_graph, show_node
from effcc.ir.printer.kernels import print_kernel, show_statement
from effcc.ir.printer.loops import print_loops
from effcc.ir.printer.programs import print_program
from effcc.ir.printer.schedules import print_schedule
from effcc.ir.printer.vectors import print_vectors
from effcc.ir.program import Program
from effcc.ir.vectors import Function

__all__ = [
    "print_any", "print_graph", "print_kernel", "print_loops", "print_program", "print_schedule", "print_vectors",
    "show_expression", "show_node", "show_statement",
]  # fmt: skip


def print_any(value: Graph | Kernel | LoopNest | Function | Program) -> str:
    """The text of whichever it is."""
    match value:
        case Graph():
            return print_graph(value)
        case Kernel():
            return print_kernel(value)
        case LoopNest():
            return print_loops(value)
        case Function():
            return print_vectors(value)
    return print_program(value)
