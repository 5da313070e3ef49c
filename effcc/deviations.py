"""How far each kernel's results are from float64: it is given what a call gives it, and so is the interpreter.

An error is a kernel's own. What errors before it do to its inputs is not in it, and where a kernel rounds or compares,
the float64 run may round the other way; the root mean square hardly sees that, the maximum does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from effcc.ir.dims import evaluate
from effcc.ir.dtypes import f64
from effcc.ir.interpreter.kernels import run_kernel
from effcc.ir.kernel import Kernel, Param
from effcc.ir.program import Extern, Launch, Step
from effcc.roofline import work
from effcc.runtime.executable import ExternCall
from effcc.steps import State
from effcc.target import Target
from effcc.timing import random_inputs, with_calls

_LOOK = "look"
MOST_OPERATIONS = 5e8
"""Of a kernel that is compared: NumPy takes some seconds for them."""


@dataclass(frozen=True)
class Deviation:
    """A kernel's largest and root mean square error in one launch, both beside those of the float64 results; the worst
    of its outputs. `skipped` says why there is none."""

    largest: float = 0.0
    rms: float = 0.0
    skipped: str = ""


def deviations(
    state: State, target: Target, sizes: Mapping[str, int], given: Mapping[str, torch.Tensor]
) -> dict[str, Deviation]:
    """The deviation of every kernel in its first launch, by name. given: as `effcc.timing.time_steps` takes them."""
    program = state.program
    assert program is not None
    found: dict[str, Deviation] = {}
    steps: list[Step] = []
    looked_at: set[str] = set()
    for step in program.steps:
        steps.append(step)
        if not isinstance(step, Launch) or step.kernel in looked_at:
            continue
        looked_at.add(step.kernel)
        operations = work(program.kernels[step.kernel], sizes).flops
        if operations > MOST_OPERATIONS:
            found[step.kernel] = Deviation(skipped=f"{operations:.2g} operations are too many for NumPy")
        else:
            before, after = (
                Extern(_LOOK, buffers, (), {"kernel": step.kernel}) for buffers in (step.touched, step.results)
            )
            steps[-1:] = [before, step, after]
    seen: dict[str, list[np.ndarray[Any, Any]]] = {}

    def bound(call: Extern) -> ExternCall:
        if call.op != _LOOK:
            from effcc.frontend.extern import bind

            return bind(call)
        kernel = program.kernels[str(call.attrs["kernel"])]

        def look(operands: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> list[Any]:
            if kernel.name not in seen:
                seen[kernel.name] = [_array(t, p, sizes) for t, p in zip(operands, kernel.signature, strict=True)]
            else:
                got = [_array(t, p, sizes) for t, p in zip(operands, kernel.outputs, strict=True)]
                found[kernel.name] = _deviation(kernel, seen.pop(kernel.name), got, sizes)
            return []

        return look

    inputs = random_inputs(program, sizes, given)
    with torch.no_grad():  # what the program writes to an input is of no use to others
        written = (t.clone() if n in program.written else t for n, t in zip(program.inputs, inputs, strict=True))
        with_calls(state, target, steps, bound)(*written)
    return found


def _array(tensor: torch.Tensor, param: Param, sizes: Mapping[str, int]) -> np.ndarray[Any, Any]:
    """A copy of a buffer's elements, as the kernel sees them: through its own parameter's type."""
    shape = [evaluate(d, sizes) for d in param.type.shape]
    strides = [evaluate(s, sizes) for s in param.type.layout]
    seen = tensor.as_strided(shape, strides, tensor.storage_offset()).clone(memory_format=torch.contiguous_format)
    return seen.reshape(-1).view(torch.uint8).numpy().view(param.type.dtype.numpy).reshape(shape)


def _deviation(
    kernel: Kernel, given: Sequence[np.ndarray[Any, Any]], got: Sequence[np.ndarray[Any, Any]], sizes: Mapping[str, int]
) -> Deviation:
    named = {p.name: array for p, array in zip(kernel.signature, given, strict=True)}
    with np.errstate(invalid="ignore"):  # what an output holds before it is written is anything
        exact = run_kernel(kernel, named, sizes, f64)
    worst = Deviation()
    for output, array in zip(kernel.outputs, got, strict=True):
        one = _distance(np.asarray(exact[output.name], np.float64), np.asarray(array, np.float64))
        worst = Deviation(max(worst.largest, one.largest), max(worst.rms, one.rms))
    return worst


def _distance(exact: np.ndarray[Any, Any], got: np.ndarray[Any, Any]) -> Deviation:
    """How far two arrays are apart, where both are finite; infinitely where one of them alone is not."""
    finite = np.isfinite(exact) & np.isfinite(got)
    same = np.array_equal(exact[~finite], got[~finite], equal_nan=True)
    if not same:
        return Deviation(math.inf, math.inf)
    exact, errors = exact[finite], np.abs(got[finite] - exact[finite])
    if not errors.any():
        return Deviation()
    size, mean = np.abs(exact).max(), math.sqrt(np.square(exact).mean())
    rms = math.sqrt(np.square(errors).mean())
    return Deviation(float(errors.max() / size) if size else math.inf, rms / mean if mean else math.inf)
