"""Control flow compiled into the program: the steps of its bodies stand where the call of it stood.

A body is compiled as a program of its own that writes what it returns to buffers of the caller's:

    %y = cond %c, %x, %w                        if c {
      graph @then(%a, %v) { ... return %r }       launch @linear(x, w.packed) -> (y)
      graph @else(%a, %v) { ... return %a }     } else {
                                                  launch @copy(x) -> (y)
                                                }

    %i, %x = while %i0, %x0, %n {carried=2}     launch @copy(i0) -> (i);  launch @copy(x0) -> (x)
      graph @test(%j, %z, %m) { ... }           loop {
      graph @body(%j, %z, %m) { ... }             launch @less(i, n) -> (holds)
                                                } while holds {
                                                  launch @next(i, x) -> (i, x)
                                                }

What a loop carries lies in buffers that it updates, as a call updates its inputs: in place where a kernel can
(`effcc.passes.in_place`), else by a copy at the turn's end. Weights stay weights in a body, so that what depends on
them alone is computed once, with the program's other preparations.

A body that needs PyTorch stays a graph, and Python runs its call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from effcc.ir.dims import Dim
from effcc.ir.dtypes import boolean
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.kernel import Kernel
from effcc.ir.program import Branch, Buffer, Extern, Launch, Loop, Program, Step, fresh_name, within
from effcc.ir.types import TensorType
from effcc.passes.counted import begun, counted
from effcc.passes.fusion.program import copying

CompileBody = Callable[[Graph], Program]
"""From a body that updates its parameters and returns nothing to its program, whose bodies are compiled in, too."""


def compile_control(program: Program, compile_body: CompileBody) -> Program:
    """The program with all control flow as steps, but for that which needs PyTorch: its reason says what for."""
    if not any(isinstance(s, Extern) and s.regions for s in program.steps):
        return program
    parts = _Parts.of(program)
    steps: list[Step] = []
    for step in program.steps:
        if not isinstance(step, Extern) or step.op not in _FORMS:
            steps.append(step)
            continue
        order = max((check.order for s in within(steps) if isinstance(s, Launch) for check in s.checks), default=0)
        own = parts.copy()
        try:
            steps += _FORMS[step.op](_Caller(own, compile_body, program.written, order), step)
            parts = own
        except _NeedsPyTorchError as needs:
            steps.append(replace(step, reason=str(needs)))
    return replace(
        program, buffers=tuple(parts.buffers.values()), kernels=parts.kernels, steps=tuple(steps),
        prepare=tuple(parts.prepare),
    )  # fmt: skip


class _NeedsPyTorchError(Exception):
    """What a call needs PyTorch for."""


@dataclass(frozen=True)
class _Caller:
    """Where a call's bodies are put. written: the buffers whose memory a call of the program writes, so that nothing is
    prepared from them. order: where the call's checks stand among the others (`effcc.ir.program.Check`)."""

    parts: _Parts
    compile_body: CompileBody
    written: frozenset[str]
    order: int

    def body(self, region: Graph, given: Sequence[str], into: Sequence[str]) -> tuple[Step, ...]:
        """The steps of a body that is given some buffers and writes its results to others; those may be among them."""
        known = self.parts.buffers
        fixed = {n for n in given if known[n].space in ("weight", "prepared") and self._memory(n) not in self.written}
        types = [known[n].type for n in given]
        targets = {n: (known[n].type, given.index(n) if n in given else None) for n in into}
        body = self.compile_body(_procedure(region, types, [n in fixed for n in given], targets))
        for call in body.externs:
            raise _NeedsPyTorchError(f"its body needs PyTorch for {_described(call)}")
        added = [n for n in into if n not in given]
        return self.parts.add(body, dict(zip(body.inputs, (*given, *added), strict=True)), self.order)

    def _memory(self, name: str) -> str:
        while alias := self.parts.buffers[name].alias:
            name = alias
        return name

    def copies(self, sources: Sequence[str], into: Sequence[str]) -> list[Step]:
        """Steps that store buffers in others."""
        return [self.parts.copied(source, name) for source, name in zip(sources, into, strict=True)]


def _described(call: Extern) -> str:
    at = f" (at {call.location})" if call.location else ""
    return f"{call.attrs.get('target', call.op)}: {call.reason}{at}"


# Bodies ---------------------------------------------------------------------------------------------------------------


def _procedure(
    region: Graph,
    types: Sequence[TensorType],
    weights: Sequence[bool],
    targets: Mapping[str, tuple[TensorType, int | None]],
) -> Graph:
    """A body that updates parameters with its results: one of its own, by its number, or one that is added.

    types, weights: of its parameters, as its caller stores them.
    """
    taken = {v.name for v in region.params} | {r.name for n in region.nodes for r in n.results}
    params = [Value(p.name, t) for p, t in zip(region.params, types, strict=True)]
    instead = dict(zip(region.params, params, strict=True))
    nodes = tuple(_on(node, instead) for node in region.nodes)
    into: list[Value] = []
    for name, (type, position) in targets.items():
        if position is None:
            params.append(Value(fresh_name(name, taken), type))
            taken.add(params[-1].name)
        into.append(params[-1 if position is None else position])
    results = (instead.get(v, v) for v in region.outputs)
    named = frozenset(p.name for p, is_weight in zip(params, weights, strict=False) if is_weight)
    updates = tuple(zip(into, results, strict=True))
    return replace(region, params=tuple(params), nodes=nodes, outputs=(), weights=named, updates=updates)


def _on(node: Node, instead: Mapping[Value, Value]) -> Node:
    """A node with other operands."""
    return replace(node, operands=tuple(instead.get(o, o) for o in node.operands))


@dataclass
class _Parts:
    """The buffers, kernels and preparing steps of a program to which bodies are added.

    known: the kernels' names by what they are. prepared: the results of preparing launches, which are made once.
    """

    buffers: dict[str, Buffer]
    kernels: dict[str, Kernel]
    prepare: list[Step]
    known: dict[Kernel, str] = field(default_factory=dict)
    prepared: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = field(default_factory=dict)

    @staticmethod
    def of(program: Program) -> _Parts:
        known = {_unnamed(k): n for n, k in program.kernels.items()}
        launches = [s for s in program.prepare if isinstance(s, Launch)]
        made = {(s.kernel, s.arguments): s.results for s in launches}
        return _Parts(dict(program.by_name), dict(program.kernels), list(program.prepare), known, made)

    def copy(self) -> _Parts:
        return _Parts(dict(self.buffers), dict(self.kernels), list(self.prepare), dict(self.known), dict(self.prepared))

    def new(self, name: str, type: TensorType) -> str:
        """A new buffer of the arena."""
        name = fresh_name(name, self.buffers)
        self.buffers[name] = Buffer(name, type, "arena")
        return name

    def copied(self, source: str, into: str) -> Step:
        """A step that stores a buffer in another."""
        of, to = self.buffers[source].type, self.buffers[into].type
        if of.dtype.is_carried:
            raise _NeedsPyTorchError(f"PyTorch alone copies tensors of dtype {of.dtype.long_name}")
        return Launch(self._kernel(copying(of, to)), (source,), (into,))

    def add(self, body: Program, names: Mapping[str, str], order: int) -> tuple[Step, ...]:
        """The steps of a body's program, whose inputs are the buffers `names`; all else of it is added."""
        renamed = dict(names)
        for buffer in body.buffers:
            if buffer.name not in renamed:
                renamed[buffer.name] = fresh_name(buffer.name, {**self.buffers, **dict.fromkeys(renamed.values())})
        kernels = {name: self._kernel(kernel) for name, kernel in body.kernels.items()}
        for step in body.prepare:
            made = _renamed(step, renamed, kernels, order)
            key = (made.kernel, made.arguments) if isinstance(made, Launch) else None
            before = self.prepared.get(key, made.results) if key is not None else made.results
            if before != made.results:
                renamed |= dict(zip(step.results, before, strict=True))
                continue
            if key is not None:
                self.prepared[key] = made.results
            self.prepare.append(made)
        for buffer in body.buffers:
            name = renamed[buffer.name]
            if name not in self.buffers:
                alias = renamed[buffer.alias] if buffer.alias else ""
                space = self.buffers[renamed[body.memory_of(buffer.name)]].space if alias else buffer.space
                self.buffers[name] = replace(buffer, name=name, alias=alias, space=space)
        return tuple(_renamed(step, renamed, kernels, order) for step in body.steps)

    def _kernel(self, kernel: Kernel) -> str:
        """The name of a kernel, which is added unless it is known."""
        key = _unnamed(kernel)
        if key not in self.known:
            name = self.known[key] = fresh_name(kernel.name, self.kernels)
            self.kernels[name] = replace(kernel, name=name)
        return self.known[key]


def _unnamed(kernel: Kernel) -> Kernel:
    return replace(kernel, name="", location="")


def _renamed(step: Step, names: Mapping[str, str], kernels: Mapping[str, str], order: int) -> Step:
    if isinstance(step, Branch | Loop):
        first, second = (tuple(_renamed(s, names, kernels, order) for s in block) for block in step.blocks)
        return replace(step.with_blocks(first, second), condition=names[step.condition])
    arguments, results = (tuple(names[n] for n in side) for side in (step.arguments, step.results))
    if isinstance(step, Launch):
        checks = tuple(replace(c, order=order) for c in step.checks)
        return Launch(kernels[step.kernel], arguments, results, checks)
    return replace(step, arguments=arguments, results=results)  # type: ignore[arg-type]  # of a join, one


# Calls ----------------------------------------------------------------------------------------------------------------


def _cond(caller: _Caller, call: Extern) -> list[Step]:
    condition, *given = call.arguments
    then, orelse = (caller.body(region, given, call.results) for region in call.regions)
    return [Branch(condition, then, orelse, call.location)]


def _while(caller: _Caller, call: Extern) -> list[Step]:
    test, body = call.regions
    carried = int(call.attrs["carried"])  # type: ignore[arg-type]
    given = (*call.results, *call.arguments[carried:])
    holds = caller.parts.new("holds", TensorType(boolean, ()))
    loop = Loop(holds, caller.body(test, given, (holds,)), caller.body(body, given, call.results), call.location)
    return [*caller.copies(call.arguments[:carried], call.results), loop]


def _scan(caller: _Caller, call: Extern) -> list[Step]:
    """A loop that counts steps: each reads its slices where the count says, and stores what is stacked there."""
    carried, scanned = (int(call.attrs[name]) for name in ("carried", "scanned"))  # type: ignore[arg-type]
    length: Dim = call.attrs["length"]
    reverse = bool(call.attrs["reverse"])
    (region,) = call.regions
    xs = [caller.parts.buffers[n].type.plain() for n in call.arguments[carried : carried + scanned]]
    stacked = [caller.parts.buffers[n].type.plain() for n in call.results[carried:]]
    test, body = counted(region, xs, stacked, length, reverse)
    count, start = (caller.parts.new(name, body.params[0].type) for name in ("count", "start"))
    holds = caller.parts.new("holds", TensorType(boolean, ()))
    given = (count, *call.results, *call.arguments[carried:])
    begin = caller.body(begun(stacked, length, reverse), (), (start, *call.results[carried:]))
    loop = Loop(
        holds, caller.body(test, given, (holds,)), caller.body(body, given, (count, *call.results)), call.location
    )
    copies = caller.copies((start, *call.arguments[:carried]), (count, *call.results[:carried]))
    return [*begin, *copies, loop]


_FORMS: Mapping[str, Callable[[_Caller, Extern], list[Step]]] = {"cond": _cond, "while": _while, "scan": _scan}
