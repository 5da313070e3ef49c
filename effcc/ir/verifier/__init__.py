"""Whether graphs, kernels, loop nests and programs make sense: run between passes in tests and under EFFCC_VERIFY=1.

>>> from effcc.ir.parser import parse_kernel
>>> verify_kernel(parse_kernel("kernel @k(X: f32[4]) -> (Y: f32[4]) over i=4, j=5 { Y[j] = 1.0 }"))
Traceback (most recent call last):
...
effcc.errors.IRTypeError: kernel @k: axis 'j' has the extent 5, the dimension of 'Y' the size 4
  in: Y[j] = 1.0
"""

from __future__ import annotations

import os

from effcc.errors import IRTypeError
from effcc.ir.graph import Graph
from effcc.ir.kernel import Kernel
from effcc.ir.loops import LoopNest
from effcc.ir.program import Program
from effcc.ir.vectors import Function
from effcc.ir.verifier.graphs import verify_graph
from effcc.ir.verifier.kernels import verify_kernel
from effcc.ir.verifier.loops import verify_loops
from effcc.ir.verifier.programs import sizes_of, verify_program
from effcc.ir.verifier.schedules import verify_schedule
from effcc.ir.verifier.vectors import verify_vectors

__all__ = [
    "verify_any", "verify_graph", "verify_if_asked", "verify_kernel", "verify_loops", "verify_program",
    "verify_schedule", "verify_vectors", "verifying",
]  # fmt: skip


Verified = Graph | Kernel | LoopNest | Function | Program


def verify_any(value: Verified, around: Program | None = None) -> None:
    """Verify whichever it is; raises IRTypeError. `around`: the program that a kernel or a loop nest is part of."""
    sizes = sizes_of(around) if around is not None else frozenset()
    match value:
        case Graph():
            verify_graph(value)
        case Kernel():
            verify_kernel(value, sizes)
        case LoopNest():
            verify_loops(value, sizes)
        case Function():
            verify_vectors(value)
        case Program():
            verify_program(value)


def verifying() -> bool:
    """Whether the environment asks for verification after every pass."""
    return os.environ.get("EFFCC_VERIFY") == "1"


def verify_if_asked(value: Verified, step: str, around: Program | None = None) -> None:
    """Verify what `step` (the name of a pass) gave, if the environment says EFFCC_VERIFY=1."""
    if not verifying():
        return
    try:
        verify_any(value, around)
    except IRTypeError as error:
        raise IRTypeError(f"after {step}: {error}") from None
