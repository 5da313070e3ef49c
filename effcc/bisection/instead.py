"""Programs run in another way than compiled, for scripts that check their results themselves.

Where such a script fails, and passes when PyTorch runs what effcc has compiled, it is run again and again: with the
first `compiled` programs compiled and the others run by PyTorch, and of one program what a step of the compiler made of
it, interpreted with NumPy in its own dtypes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from effcc.bisection.call import Call, laid
from effcc.driver import Options
from effcc.frontend import capture
from effcc.frontend.aten import Imported
from effcc.frontend.dynamo import bound
from effcc.fuzz.eager import to_torch
from effcc.fuzz.oracles import results_after
from effcc.ir.graph import Graph
from effcc.passes.rules.engine import Firing, Trace
from effcc.steps import State, run_steps


@dataclass(frozen=True)
class Instead:
    """How programs are run: those up to number `compiled` as compiled, the next one as `step` says, others by PyTorch.

    step: None: by PyTorch, too; "": the graph as it was imported, interpreted; else what came out of that step. most:
    after so many applications of rules none is applied any more.
    """

    compiled: int
    step: str | None = None
    most: int | None = None


def run_instead(
    how: Instead,
    number: int,
    run: Any,
    module: fx.GraphModule,
    imported: Imported,
    signature: capture.Signature,
    options: Options,
    fired: list[Firing],
) -> Callable[[list[Any]], Sequence[Any]]:
    """What runs program `number`. fired: takes what rules did to it."""
    if number <= how.compiled:
        compiled: Callable[[list[Any]], Sequence[Any]] = run
        return compiled
    if number == how.compiled + 1 and how.step is not None:
        step, trace = how.step, Trace(how.most)

        def interpret(graph: Graph, _: capture.Signature) -> Callable[..., Sequence[Tensor]]:
            made: list[State] = []

            def interpreted(*inputs: Tensor) -> list[Tensor]:
                call = Call.of(graph, inputs, options, torch.get_rng_state(), signature.role)
                if not made:
                    begun = replace(call.begun, trace=trace)
                    made.append(run_steps(begun, call.target, until=step) if step else begun)
                    fired.extend(trace.firings)
                state = made[0] if step == "lower" else replace(made[0], nests={})
                results = results_after(call.case, state)
                count = len(graph.outputs)
                with torch.no_grad():
                    for (parameter, _), array in zip(graph.updates, results[count:], strict=True):
                        inputs[graph.params.index(parameter)].copy_(to_torch(array))
                return [laid(a, v.type, call.sizes) for v, a in zip(graph.outputs, results[:count], strict=True)]

            return interpreted

        found: Callable[[list[Any]], Sequence[Any]] = bound(imported, interpret, signature, module)
        return found

    def eager(arguments: list[Any]) -> Sequence[Any]:
        given = list(arguments)
        arguments.clear()
        with torch.no_grad():
            return tuple(fx.Interpreter(module).run(*given))

    eager._boxed_call = True  # type: ignore[attr-defined]
    return eager
