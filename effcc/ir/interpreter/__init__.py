"""What graphs, kernels, loops and programs mean, with NumPy: slow, exact about dtypes, the reference of tests."""

from __future__ import annotations

from effcc.ir.interpreter.graphs import run_graph
from effcc.ir.interpreter.kernels import run_kernel
from effcc.ir.interpreter.loops import run_loops
from effcc.ir.interpreter.programs import run_program

__all__ = ["run_graph", "run_kernel", "run_loops", "run_program"]
