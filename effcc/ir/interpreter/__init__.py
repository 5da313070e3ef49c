"""What graphs, kernels, loops, vectors and programs mean, with NumPy: slow, exact about dtypes, the reference of tests.

>>> import numpy as np
>>> from effcc.ir.dtypes import f64
>>> from effcc.ir.parser import parse_graph, parse_kernel
>>> kernel = parse_kernel("kernel @norm(X: f32[n]) -> (Y: f32[]) over i=n { Y[] = sqrt(sum(i: X[i] * X[i])) }")
>>> run_kernel(kernel, {"X": np.array([3, 4], np.float32)})
{'Y': array(5., dtype=float32)}
>>> graph = parse_graph("graph @g(%x: f32[n]) { %y = relu %x : f32[n] return %y }")
>>> run_graph(graph, [np.array([-1.0, 2.5])], dtype=f64)
[array([0. , 2.5])]
"""

from __future__ import annotations

from effcc.ir.interpreter.graphs import run_graph
from effcc.ir.interpreter.kernels import run_kernel
from effcc.ir.interpreter.loops import run_loops
from effcc.ir.interpreter.programs import run_program
from effcc.ir.interpreter.vectors import run_vectors

__all__ = ["run_graph", "run_kernel", "run_loops", "run_program", "run_vectors"]
