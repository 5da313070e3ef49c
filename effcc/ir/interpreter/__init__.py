"""What graphs and kernels mean, computed with NumPy: slow, exact about dtypes, and the reference of every test."""

from __future__ import annotations

from effcc.ir.interpreter.graphs import run_graph
from effcc.ir.interpreter.kernels import run_kernel

__all__ = ["run_graph", "run_kernel"]
