"""Triton as one more opinion: a case through the GPU's steps, its kernels run by Triton's interpreter on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np

from effcc.errors import ToolchainError, UnsupportedError
from effcc.fuzz.oracles import Examined, Failure, compare, interpreted, told
from effcc.gpu import device_of, machine
from effcc.ir.dtypes import DType
from effcc.ir.encodings import stored_as
from effcc.ir.graph import Node
from effcc.ir.interpreter.evaluate import bind_sizes
from effcc.ir.parser import parse_schedule
from effcc.ir.printer import print_schedule
from effcc.ir.types import TensorType
from effcc.ir.verifier import verify_program
from effcc.passes.tiling.written import device_bounds
from effcc.runtime.arrays import allocate
from effcc.runtime.triton_run import Storage, TritonInterpreter, run_triton
from effcc.steps import State, run_steps
from effcc.target import Target

TARGETS = ("sm_80", "gfx942", "sm_90")  # warps of 32 and of 64 threads

# What the interpreter lacks and GPUs have: atomics and constants of bf16.
_REFUSALS = ("ValueError('Unsupported data type')", "has no attribute 'get_bf16'\")")

_CPU_ONLY = ("segment_reduce", "grouped_matmul")  # whose axes are ragged, which no block of a GPU covers yet


def _is_ragged(node: Node) -> bool:
    """Whether a node has a ragged axis: one of those ops, or a weight whose rows are of free lengths."""
    if node.op != "decode":
        return node.op in _CPU_ONLY
    a = node.attrs
    stored = stored_as(a["encoding"], a["shape"], a["dtype"], [o.type.shape for o in node.operands])  # type: ignore[arg-type]
    return not stored.levels.has_positions


class Triton:
    """Runs cases under Triton's interpreter, in a process that starts with the first; use it as a context manager."""

    def __init__(self) -> None:
        self._interpreter = TritonInterpreter()

    def __enter__(self) -> Triton:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interpreter.close()

    def judge(self, examined: Examined) -> Failure | None:
        """How the kernels are wrong; None where they are right, or PyTorch would have to take part."""
        case = examined.case
        target = machine(TARGETS[case.seed // 4 % len(TARGETS)])
        try:
            state = run_steps(State(graph=case.compiled), target)
            if state.program is None or state.program.externs or not state.program.steps:
                return None
            verify_program(state.program)
            _check_schedules(state, target)
            results = self._run(examined, state)
        except ToolchainError as error:
            self._interpreter.close()
            self._interpreter = TritonInterpreter()
            lines = [line for line in str(error).splitlines() if line.strip()]
            if lines[-1].endswith(_REFUSALS):
                return None
            return Failure(case, "triton", "error", f"{lines[-1]}\n{error}")
        except Exception as error:  # as for the other steps: a compiler must not raise on a graph that verifies
            if isinstance(error, UnsupportedError) and any(map(_is_ragged, case.compiled.nodes)):
                return None
            return Failure(case, "triton", "error", told(error))
        problem = compare(results, examined.eager, examined.expected)
        if not problem:
            return None
        shared = interpreted(examined) if examined.states else None  # a step before those of the GPU may be to blame
        return shared or Failure(case, "triton", "wrong result", problem)

    def _run(self, examined: Examined, state: State) -> list[Any]:
        """The outputs, then the inputs that the case updates."""
        case, program = examined.case, state.program
        assert program is not None
        after: Storage = {}

        def run(text: str, storage: Storage, dtypes: Mapping[str, DType], sizes: Mapping[str, int]) -> Storage:
            after.update(self._interpreter.run(text, storage, dtypes, sizes))
            return after

        results = run_triton(program, state.source.entry, [a.copy() for a in case.inputs], run)
        shapes = {p.name: (p.type.shape, a.shape) for p, a in zip(case.compiled.params, case.inputs, strict=True)}
        sizes = bind_sizes(shapes, None)
        known: dict[str, TensorType] = {b.name: b.type for b in program.buffers}
        for parameter, _ in case.graph.updates:
            name = parameter.name
            results.append(np.array(allocate(known[name], sizes, after[name])))
        return results


def _check_schedules(state: State, target: Target) -> None:
    """Whether each schedule, as it is printed, fits its kernel and the device."""
    device = device_of(target)
    assert state.program is not None and device is not None
    for name, schedule in state.schedules.items():
        parse_schedule(print_schedule(name, schedule)).check(state.program.kernels[name], device_bounds(device))
