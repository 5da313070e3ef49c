"""Long reductions of few rows, cut into parts that threads share: one row's sum, decoding over a long cache.

    kernel @sum(X: f32[4194304]) -> (Y: f32[]) over n=4194304 { Y[] = sum(n: X[n]) }

becomes two kernels, the first of which has a part for each point of an axis of its own:

    kernel @sum_parts(X: f32[4194304]) -> (Y_part: f32[8]) over part=8, n=524288 {
      Y_part[part] = sum(n: X[part * 524288 + n])
    }
    kernel @sum(Y_part: f32[8]) -> (Y: f32[]) over part=8 { Y[] = sum(part: Y_part[part]) }

Sums that follow a running maximum join as they are rescaled: a part's sum D_part, of its own maximum M_part, counts
`D_part * exp(M_part - M)`, M being the maximum of all. How many parts there are depends on the kernel and the machine,
not on the threads of a call, so results are the same bit for bit; whether a kernel is cut, its models decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from effcc.ir.dependences import shared_axes
from effcc.ir.dims import elements
from effcc.ir.dtypes import i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    add,
    multiply,
    substitute_axes,
    transform,
)  # fmt: skip
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.program import Buffer, Launch, Program, Step, fresh_name
from effcc.ir.scalars import is_check
from effcc.ir.types import TensorType
from effcc.passes.tiling.choose import MEET_SECONDS, choose
from effcc.passes.tiling.merge import merge_axes
from effcc.target import Target

TASKS_A_CORE = 4
"""Parts of all rows for each core, so that none waits long for the last one."""
VECTORS_A_TASK = 4
"""Neighbouring points are so many vectors of a task at least."""
_LONG = 2048
"""Points of a reduced axis from which on it is looked at, and of a part at least an eighth of them."""


@dataclass(frozen=True)
class Cut:
    """A kernel in two: what reduces parts, and what joins them. `parts` are the buffers between."""

    first: Kernel
    second: Kernel
    parts: tuple[Param, ...]


def share_rows(program: Program, target: Target) -> Program:
    """The program with such reductions cut where that is predicted to be faster."""
    cuts: dict[str, Cut] = {}
    for name, kernel in program.kernels.items():
        found = _cut_that_pays(kernel, target)
        if found is not None:
            cuts[name] = found
    if not cuts:
        return program
    kernels = dict(program.kernels)
    names: dict[str, str] = {}
    for name, one in cuts.items():
        names[name] = fresh_name(f"{name}_parts", kernels)
        kernels[names[name]] = replace(one.first, name=names[name])
        kernels[name] = replace(one.second, name=name)
    buffers = {b.name: b for b in program.buffers}

    def launched(step: Step) -> tuple[Step, ...]:
        if not isinstance(step, Launch) or step.kernel not in cuts:
            return (step,)
        one = cuts[step.kernel]
        given = dict(zip((p.name for p in program.kernels[step.kernel].params), step.arguments, strict=True))
        for part in one.parts:
            given[part.name] = fresh_name(f"{step.results[0]}.{part.name}", buffers)
            buffers[given[part.name]] = Buffer(given[part.name], part.type, "arena")
        first = Launch(names[step.kernel], _given(one.first.params, given), _given(one.parts, given))
        return (first, replace(step, arguments=_given(one.second.params, given)))

    steps = tuple(made for step in program.steps for made in launched(step))
    prepare = tuple(made for step in program.prepare for made in launched(step))
    return replace(program, kernels=kernels, buffers=tuple(buffers.values()), steps=steps, prepare=prepare)


def _given(params: tuple[Param, ...], names: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(names[p.name] for p in params)


def _cut_that_pays(kernel: Kernel, target: Target) -> Cut | None:
    if kernel.scans or kernel.spans or any(s.scatter is not None for s in kernel.statements):
        return None
    points = elements(tuple(kernel.extents[a] for a in shared_axes(kernel)))
    rows = points // (VECTORS_A_TASK * target.vector_lanes)  # where lanes lie along them
    if rows >= TASKS_A_CORE * target.cores or target.cores == 1:
        return None
    kernel = merge_axes(kernel)
    axis = _long_axis(kernel)
    if axis is None:
        return None
    count = _parts_of(elements((kernel.extents[axis],)), -(-TASKS_A_CORE * target.cores // max(rows, 1)))
    found = cut(kernel, axis, count) if count is not None else None
    if found is None:
        return None
    whole = choose(kernel, target)[1].seconds
    apart = MEET_SECONDS + sum(choose(k, target)[1].seconds for k in (found.first, found.second))
    return found if apart < whole else None


def _long_axis(kernel: Kernel) -> str | None:
    """The longest of the axes that are reduced along, if it is long and its extent is known."""
    reduced = {a for s in kernel.statements if s.reduction is not None for a in s.reduction.axes}
    known = {a: n for a in sorted(reduced) if isinstance(n := kernel.extents[a], int) and n >= _LONG}
    return max(known, key=lambda a: known[a], default=None)


def _parts_of(extent: int, wanted: int) -> int | None:
    """The least number of equal parts from `wanted` on; None where none of a few times as many divides the extent."""
    most = min(16 * wanted, extent // (_LONG // 8))
    return next((n for n in range(max(wanted, 2), most + 1) if extent % n == 0), None)


def cut(kernel: Kernel, axis: str, count: int) -> Cut | None:
    """The kernel with its reductions along an axis in `count` parts; None where it has to pass over the axis again, or
    writes what it computes there.
    """
    inside = [s for s in kernel.statements if axis in s.all_axes]
    targets = {s.target for s in inside}
    sums = [s for s in inside if s.reduction is not None and axis in s.reduction.axes]
    outputs = {p.name for p in kernel.outputs}
    running = {s.target for s in sums if s.reduction is not None and s.reduction.operator == "max"}
    if (
        not sums
        or any(is_check(e) for e in kernel.expressions())
        or len({s.target for s in kernel.statements}) != len(kernel.statements)
    ):
        return None
    for s in inside:
        followed = {load.buffer for load in s.reads} & {x.target for x in sums}
        online = any(x.reduction is not None and x.reduction.rescale is not None for x in sums)
        if (followed and not (online and followed <= running)) or (s not in sums and s.target in outputs):
            return None
    before = _read_by(kernel, inside) - targets
    if any(load.buffer in targets for s in kernel.statements if s.target in before for load in s.reads):
        return None  # as a variance passes again with the mean of all
    after = [s for s in kernel.statements if s.target not in targets | before]
    if any(load.buffer in before | (targets - {s.target for s in sums}) for s in after for load in s.reads):
        return None
    if before & outputs:
        return None
    part = fresh_name("part", {*kernel.extents, *(p.name for p in kernel.signature), *targets})
    return _Halves(kernel, axis, part, count, tuple(sums), tuple(inside), frozenset(before), tuple(after)).cut()


def _read_by(kernel: Kernel, statements: list[Statement]) -> set[str]:
    """The results that statements are computed from, however far back."""
    definitions = {s.target: s for s in kernel.statements}
    found: set[str] = set()
    pending = [load.buffer for s in statements for load in s.reads]
    while pending:
        name = pending.pop()
        if name in definitions and name not in found:
            found.add(name)
            pending += [load.buffer for load in definitions[name].reads]
    return found


@dataclass(frozen=True)
class _Halves:
    """A kernel about to be cut: `inside` runs over the axis, `before` is what that reads, `after` what follows."""

    kernel: Kernel
    axis: str
    part: str
    count: int
    sums: tuple[Statement, ...]
    inside: tuple[Statement, ...]
    before: frozenset[str]
    after: tuple[Statement, ...]

    def cut(self) -> Cut:
        length = elements((self.kernel.extents[self.axis],)) // self.count
        extents = {**self.kernel.extents, self.part: self.count, self.axis: length}
        outer = [self._outer(s) for s in self.kernel.statements if s in self.inside or s.target in self.before]
        parts = tuple(Param(self._name(s.target), self._type(s, extents)) for s in self.sums)
        first = self._kernel(outer, parts, extents)
        joined = [self._joined(s) for s in self.sums]
        second = self._kernel([*joined, *self.after], self.kernel.outputs, {**extents, self.axis: 1}, parts)
        return Cut(first, second, parts)

    def _name(self, target: str) -> str:
        return f"{target}_part"

    def _type(self, s: Statement, extents: Mapping[str, object]) -> TensorType:
        return TensorType(s.dtype, (self.count, *(self.kernel.extents[a] for a in s.axes)))

    def _outer(self, s: Statement) -> Statement:
        """A statement of the first kernel: of one part."""
        if s not in self.inside:
            return s
        length = elements((self.kernel.extents[self.axis],)) // self.count
        place = add(multiply(Axis(self.part), Const(length, i64)), Axis(self.axis))
        made = {x.target: x for x in self.inside}
        sums = {x.target for x in self.sums}

        def one(e: Expr) -> Expr:
            match e:
                case Load(buffer, index, dtype, before) if buffer in made:
                    name = self._name(buffer) if buffer in sums else buffer
                    return Load(name, (Axis(self.part), *index), dtype, before)
                case Load():
                    return replace(e, index=tuple(substitute_axes(i, {self.axis: place}) for i in e.index))
            return e

        def at(e: Expr) -> Expr:
            """Loads first, whose indices say which buffers they mean; then the axis itself, as conditions have it."""
            if isinstance(e, Load):
                return one(e)
            if e == Axis(self.axis):
                return place
            if isinstance(e, Reduce):
                rescale = None if e.rescale is None else at(e.rescale)
                return replace(e, body=at(e.body), rescale=rescale)
            if isinstance(e, Call):
                return replace(e, operands=tuple(at(o) for o in e.operands))
            return e

        name = self._name(s.target) if s.target in sums else s.target
        return Statement(name, (self.part, *s.axes), at(s.value))

    def _joined(self, s: Statement) -> Statement:
        """The reduction over all parts."""
        assert s.reduction is not None
        value: Expr = Load(self._name(s.target), (Axis(self.part), *map(Axis, s.axes)), s.dtype)
        if s.reduction.rescale is not None:

            def parted(e: Expr) -> Expr:
                if isinstance(e, Load) and e.before:
                    return Load(self._name(e.buffer), (Axis(self.part), *e.index), e.dtype)
                return e

            value = Call("mul", (value, transform(s.reduction.rescale, parted)), s.dtype)
        return Statement(s.target, s.axes, Reduce(s.reduction.operator, (self.part,), value, s.dtype))

    def _kernel(
        self,
        statements: list[Statement],
        outputs: tuple[Param, ...],
        extents: Mapping[str, object],
        given: tuple[Param, ...] = (),
    ) -> Kernel:
        read = {load.buffer for s in statements for load in s.reads}
        params = tuple(p for p in (*self.kernel.params, *given) if p.name in read)
        axes = {a for s in statements for a in s.all_axes}
        order = (self.part, *(a for a, _ in self.kernel.axes))
        return replace(
            self.kernel,
            params=params,
            outputs=outputs,
            axes=tuple((a, extents[a]) for a in order if a in axes),
            statements=tuple(statements),
            weights=self.kernel.weights & {p.name for p in params},
        )


__all__ = ["Cut", "cut", "share_rows"]
