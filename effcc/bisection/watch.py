"""Every call of every compiled program, beside the captured graph run by PyTorch: as eager does, and in float64.

A call is right by the measure of `effcc.accuracy`. Where it is not, roundings alone may have moved it across a
discontinuity (a comparison, an arg-max), so that the graph's own measure is asked, too (`effcc.fuzz.expected`), before
it counts as wrong. Each call is made twice, on copies of what it was given: two results that differ are a race.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from effcc.accuracy import check_output
from effcc.bisection.call import Call
from effcc.bisection.instead import Instead, run_instead
from effcc.driver import Options
from effcc.frontend import capture
from effcc.frontend.aten import Imported
from effcc.frontend.dynamo import given_to
from effcc.frontend.location import location
from effcc.frontend.widened import Ran, run_both
from effcc.fuzz.eager import to_numpy
from effcc.fuzz.expected import difference
from effcc.fuzz.steps import same_bits
from effcc.ir.graph import Value
from effcc.passes.rules.engine import Firing


@dataclass(frozen=True)
class Watched:
    """A program that effcc compiled in the script: the number of its frame, and the lines of the model."""

    number: int
    frame: str
    role: str
    lines: tuple[str, ...]
    input_names: tuple[str, ...]
    written: frozenset[int]
    module: fx.GraphModule = field(repr=False)
    imported: Imported = field(repr=False)
    options: Options = field(repr=False)

    def __str__(self) -> str:
        frame = f" (frame {self.frame}, {self.role})" if self.frame else f" ({self.role})"
        nodes = len(self.imported.graph.nodes)
        lines = f" of {self.lines[0]}" if self.lines else ""
        more = f" to {self.lines[-1]}" if len(self.lines) > 1 else ""
        return f"program {self.number}{frame}, {nodes} ops{lines}{more}"


@dataclass(frozen=True)
class Wrong:
    """A call that is wrong: which program, at which of its calls, how, and the call as it was given.

    imported: whether the graph that was imported is wrong already.
    """

    program: Watched
    number: int
    problem: str
    call: Call
    arguments: list[Any] = field(repr=False)
    imported: bool = False

    def __str__(self) -> str:
        return f"{self.program}: call {self.number}: {self.problem}"


class Found(BaseException):
    """Ends the script at the first wrong call; no `except Exception` of the script's holds it up."""

    def __init__(self, wrong: Wrong) -> None:
        super().__init__(str(wrong))
        self.wrong = wrong


class Watch:
    """What stands between the script and the programs that are compiled in it.

    most: how many calls of each program are compared (None: all). crash: the program and the call of it that ended the
    process when it was made: it is not made again. instead: how programs are run without
    being compared. tell: called with each program, before each call
    that is compared, and with how it went.
    """

    def __init__(
        self,
        most: int | None,
        tell: Callable[[str], None],
        crash: tuple[int, int] | None = None,
        instead: Instead | None = None,
    ) -> None:
        self.most, self.tell, self.crash, self.instead = most, tell, crash, instead
        self.fired: list[Firing] = []
        self.programs: list[Watched] = []
        self.compared = 0
        self.unstable = 0
        self.wrong: Wrong | None = None

    def __call__(
        self, run: Any, module: fx.GraphModule, imported: Imported, signature: capture.Signature, options: Options
    ) -> Callable[[list[Any]], Sequence[Any]]:
        lines = tuple(dict.fromkeys(filter(None, map(location, module.graph.nodes))))
        number = len(self.programs) + 1
        names = signature.input_names
        written = signature.mutated_inputs
        program = Watched(number, _frame(), signature.role, lines, names, written, module, imported, options)
        self.programs.append(program)
        self.tell(f"compiled {program}")
        if self.instead is not None:
            return run_instead(self.instead, number, run, module, imported, signature, options, self.fired)
        calls = itertools.count(1)

        def watched(arguments: list[Any]) -> Sequence[Any]:
            number = next(calls)
            if self.most is not None and number > self.most:
                result: Sequence[Any] = run(arguments)
                return result
            return self.compare(program, number, run, arguments)

        watched._boxed_call = True  # type: ignore[attr-defined]
        return watched

    def compare(self, program: Watched, number: int, run: Any, arguments: list[Any]) -> Sequence[Any]:
        """Make a call and look at it. Raises Found where it is wrong."""
        module = program.module
        generator = torch.get_rng_state()
        given, beside = (_copied(arguments, program.written) for _ in range(2))
        with torch.no_grad():
            eager, wide = run_both(module, given)
        self.tell(called(program.number, number))
        if (program.number, number) == self.crash:
            call = Call.of(program.imported.graph, given_to(program.imported, given), program.options, generator,
                           program.role)  # fmt: skip
            self.wrong = Wrong(program, number, "the process crashes in this call", call, given)
            raise Found(self.wrong)
        torch.set_rng_state(generator)
        other = Ran(list(run(list(beside))), beside)
        torch.set_rng_state(generator)
        held = list(arguments)
        results = run(arguments)
        self.compared += 1
        found = Ran(list(results), held)
        graph = program.imported.graph
        call = Call.of(graph, given_to(program.imported, given), program.options, generator, program.role)
        names = _names(program, found)
        unlike = [_unlike(n, a, b) for n, a, b in zip(names, _tensors(other), _tensors(found), strict=True)]
        reports = [
            check_output(*item) for item in zip(names, _tensors(wide), _tensors(eager), _tensors(found), strict=True)
        ]
        problem = next((str(r) for r in reports if not r.ok), "")
        differs = next(filter(None, unlike), "")
        at_fault = IMPORT
        if differs:
            problem = f"two calls with the same inputs give different results: {differs}"
            at_fault = COMPILED
        elif problem:
            at_fault = self._at_fault(call, program, eager, found)
            self.unstable += at_fault == NOBODY
        if problem and at_fault != NOBODY:
            self.wrong = Wrong(program, number, problem, call, given, at_fault == IMPORT)
            raise Found(self.wrong)
        return results

    def _at_fault(self, call: Call, program: Watched, eager: Ran, found: Ran) -> str:
        """What is wrong by the graph's own measure: the graph that was imported, or what it was compiled to."""
        imported = _of_graph(program.imported, eager)
        if any(difference(a, None, call.expected, k, is_eager=True) for k, a in enumerate(imported)):
            return IMPORT
        return COMPILED if call.wrong(_of_graph(program.imported, found)) else NOBODY


def called(program: int, number: int) -> str:
    """What is told before a call is made."""
    return f"program {program}: call {number}"


IMPORT, COMPILED, NOBODY = "import", "compiled", "nobody"


def _of_graph(imported: Imported, ran: Ran) -> list[Any]:
    """A call's results as those of the imported graph: its outputs, then what updated parameters hold."""
    graph = imported.graph
    outputs = [r for r, known in zip(ran.results, imported.outputs, strict=True) if isinstance(known, Value)]
    left = given_to(imported, ran.left)
    return [to_numpy(t) for t in (*outputs, *(left[graph.params.index(p)] for p, _ in graph.updates))]


def _tensors(ran: Ran) -> list[Any]:
    return [*ran.results, *(t for t in ran.left if isinstance(t, Tensor))]


def _names(program: Watched, ran: Ran) -> list[str]:
    names = [n for n, t in zip(program.input_names, ran.left, strict=True) if isinstance(t, Tensor)]
    return [*(f"result {k}" for k in range(len(ran.results))), *(f"{n} after the call" for n in names)]


def _copied(arguments: Sequence[Any], written: Collection[int]) -> list[Any]:
    """The arguments, those that a call writes as copies."""
    return [_copy(a) if k in written else a for k, a in enumerate(arguments)]


def _copy(tensor: Tensor) -> Tensor:
    """A tensor with the same numbers that lies in memory alike."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    with torch.no_grad():
        return made.copy_(tensor.detach())


def _unlike(name: str, a: Any, b: Any) -> str:
    """How two calls' results differ; any NaN is any NaN."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return "" if a == b else f"{name}: {a!r} and {b!r}"
    same = same_bits(to_numpy(a), to_numpy(b))
    return "" if same.all() else f"{name}: {int((~same).sum())} of {same.size} elements"


def _frame() -> str:
    """Dynamo's number of the frame that is being compiled, and of the compilation."""
    found = torch._guards.CompileContext.current_compile_id()
    return "" if found is None else str(found)
