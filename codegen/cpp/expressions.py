"""Expressions of one tile to values: each subexpression once for every combination of the axes it depends on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from effcc.codegen.cpp import values
from effcc.codegen.cpp.conditions import checked_indices, checks_everywhere, is_domain, of_data_alone
from effcc.codegen.cpp.indices import Guard, Indices
from effcc.codegen.cpp.linear import bounds, shifted, uniform
from effcc.codegen.cpp.loads import load_memory, load_registers, offset, place, proven_inside
from effcc.codegen.cpp.notes import note_failures
from effcc.codegen.cpp.prefetch_panels import prefetch
from effcc.codegen.cpp.scope import Value
from effcc.codegen.cpp.spelling import COMPARISONS
from effcc.codegen.cpp.storage import Memory, Storage
from effcc.codegen.cpp.tables import element_of_table, looked_up
from effcc.errors import UnsupportedError
from effcc.ir import vectors
from effcc.ir.dtypes import boolean, f32, i64
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    Size,
    both,
    children,
    compare,
    free_axes,
    integer,
    walk,
)  # fmt: skip
from effcc.ir.scalars import CHECKS, is_check
from effcc.ir.vectors import Assign, Branch, SizeNumber, Var, value_type
from effcc.ir.vectors import Load as MemoryLoad


@dataclass(kw_only=True)
class Evaluator(Indices):
    """Evaluates expressions at the current `point`, each subexpression once.

    While it `streams`, vectors that a loop reads from far apart are asked for early.
    """

    storage: Mapping[str, Storage]
    streams: bool = False
    _same: dict[int, tuple[int, Expr]] = field(default_factory=dict)
    _firsts: dict[tuple[object, ...], int] = field(default_factory=dict)
    _made: dict[int, Expr] = field(default_factory=dict)

    def value(self, e: Expr) -> Value:
        """The value of `e` at the current point."""
        key = self._key(e)
        found = self.writer.scope.find(key)
        if found is None:
            found = self._compute(e)
            self.writer.scope.values[key] = found
        return found

    def _key(self, e: Expr) -> object:
        epoch = self.epoch if self.rereads(e) else 0
        return (self._first(e), tuple(self.point[a] for a in self.depends(e)), epoch)

    def _first(self, e: Expr) -> int:
        """The identity of the first expression that was met of those equal to `e`: they share what was computed."""
        if id(e) not in self._same:
            form: tuple[object, ...]
            match e:
                case Load(buffer, index, dtype, before):
                    form = (buffer, dtype, before, *map(self._first, index))
                case Call(function, operands, dtype):
                    form = (function, dtype, *map(self._first, operands))
                case _:
                    form = (e,)
            self._same[id(e)] = self._firsts.setdefault((type(e), *form), id(e)), e  # held: identities are not reused
        return self._same[id(e)][0]

    def _compute(self, e: Expr) -> Value:
        match e:
            case Const(value, dtype):
                return values.constant(value, dtype)
            case Size(value, dtype) if dtype.is_float:
                return Value(self.writer.let(SizeNumber(value), "number"), dtype)
            case Axis() | Size():
                return self._index(self.linear(e))
            case Load():
                return self._load(e)
            case Call():
                return self._call(e)
            case Reduce():
                raise UnsupportedError(
                    f"a reduction ({e.operator}) inside a tile statement: lower it to a combine first"
                )

    # Calls

    def _call(self, e: Call) -> Value:
        if e.dtype == i64 and self._is_arithmetic(e):
            return self._index(self.linear(e))
        table = looked_up(self.writer, e, self.value)
        if table is not None:
            return table
        if e.function == "where":
            return self._where(e)
        if (one_more := _one_more(e)) is not None:
            return self.value(one_more)
        if e.function == "cast":
            return self._cast(e)
        if e.function in CHECKS:
            return self._check(e)
        if e.function in COMPARISONS and e.operands[0].dtype == i64:
            return self._compare(e)
        operands = [self.value(o) for o in e.operands]
        if e.dtype == boolean and e.function in ("and", "or"):
            folded = _fold_logic(e.function, *operands)
            if folded is not None:
                return folded
        return values.call(self.writer, e.function, e.dtype, operands, self._epoch(e))

    def _check(self, e: Call) -> Value:
        """A run-time check, noting where it fails: whether an index is inside, or a condition holds; or a divisor."""
        number = e.operands[-1]
        assert isinstance(number, Const)
        guarded = self.guard.count, self.guard.mask
        if e.function == "divisor":
            divisor = self.value(e.operands[0])
            other = self.value(self._kept(e, lambda: Call("ne", (e.operands[0], Const(0, e.dtype)), boolean)))
            note_failures(self.writer, int(number.value), other, divisor, values.ZERO, *guarded)
            return divisor
        if e.function == "holds":
            condition = self.value(e.operands[0])
            note_failures(self.writer, int(number.value), condition, self.value(integer(0)), values.ZERO, *guarded)
            return condition
        index, size = e.operands[:2]
        inside = self._kept(e, lambda: both(compare("ge", index, integer(0)), compare("lt", index, size)))
        holds, end = self.value(inside), uniform(self.linear(size))
        note_failures(self.writer, int(number.value), holds, self._index(self.linear(index)), end, *guarded)
        return holds

    def writes_at(self, index: Sequence[Expr]) -> Value | None:
        """Where a scatter writes: where no index that is data is -1; None if it surely writes everywhere."""
        data = [i for i in index if any(isinstance(node, Load) for node in walk(i))]
        conditions = [self.value(self._kept(i, partial(compare, "ge", i, integer(0)))) for i in data]
        conditions = [c for c in conditions if not values.is_true(c)]
        if not conditions:
            return None
        return functools.reduce(lambda a, b: values.call(self.writer, "and", boolean, [a, b]), conditions)

    def _kept(self, e: Expr, make: Callable[[], Expr]) -> Expr:
        """What is made for `e`, once: values are known by the identity of their expression."""
        if id(e) not in self._made:
            self._made[id(e)] = make()
        return self._made[id(e)]

    def _cast(self, e: Call) -> Value:
        value = self.value(e.operands[0])
        if e.dtype == i64:
            if value.dtype == i64:
                return value
            made = values.convert(self.writer, value, i64, self._epoch(e))
            return self._index(self._atom(made))
        if value.linear is not None and value.lanes > 1 and not value.linear.vectors:
            low, high = bounds(value.linear, self._known())
            if (
                low is not None
                and high is not None
                and max(-low, high) < 1 << 31
                and isinstance(value.linear.lane, int)
            ):
                value = values.narrow_index(self.writer, value.linear)
        return values.convert(self.writer, value, e.dtype, self._epoch(e))

    # Branches

    def _where(self, e: Call) -> Value:
        clamped = _clamped(e)
        if clamped is not None and not any(self._guards(e)):
            return values.at_least(self.writer, self.value(clamped[0]), self.value(clamped[1]), self._epoch(e))
        condition = self.value(e.operands[0])
        if values.is_true(condition) or values.is_false(condition):
            return self.value(e.operands[1 if values.is_true(condition) else 2])
        guards = self._guards(e)
        self._check_outside(e, guards)
        if condition.lanes == 1:
            return self._branch(e, condition, guards)
        sides = []
        for branch, holds, guarded in ((e.operands[1], True, guards[0]), (e.operands[2], False, guards[1])):
            if not guarded:
                sides.append(self.value(branch))
                continue
            mask = condition
            if not holds:
                mask = values.call(self.writer, "not", boolean, [condition])
            sides.append(self._under(mask, branch))
        return self._indexed(values.select(self.writer, condition, sides[0], sides[1], self._epoch(e)))

    def _under(self, mask: Value, branch: Expr) -> Value:
        """A branch evaluated for the lanes of `mask` only."""
        outer = self.guard
        if outer.mask is not None:
            mask = values.call(self.writer, "and", boolean, [outer.mask, mask])
        self.guard = Guard(outer.count, mask)
        try:
            with self.writer.masked():
                return self.value(branch)
        finally:
            self.guard = outer

    def _guards(self, e: Call) -> tuple[bool, bool]:
        """Whether the branches of a `where` must be evaluated where they are chosen only.

        A branch that reads where there may be nothing must. So must one with run-time checks, where the condition is a
        domain (padding, say): elsewhere its values are none of the model's. But where the condition is the model's own
        data, both branches are computed in full, as in eager, and their checks hold everywhere or the call raises.
        """
        domain = is_domain(e)

        def guarded(branch: Expr) -> bool:
            return self._needs_guard(branch) or (domain and any(map(is_check, walk(branch))))

        return guarded(e.operands[1]), guarded(e.operands[2])

    def _check_outside(self, e: Call, guards: tuple[bool, bool]) -> None:
        """Run the checks of branches that need a guard outside of it, as eager does, if the model's data chooses.

        Where data alone does, whatever they are of lies inside; else that has to be known here.
        """
        if is_domain(e):
            return
        alone = of_data_alone(e.operands[0])
        for branch, guarded in zip(e.operands[1:], guards, strict=True):
            for check in checks_everywhere(branch) if guarded else ():
                if alone or not any(map(self._needs_guard, check.operands)):
                    self.value(check)

    def _branch(self, e: Call, condition: Value, guards: tuple[bool, bool]) -> Value:
        """A `where` whose condition is the same in all lanes: a selection, or a branch if a side needs a guard."""
        a, b = e.operands[1], e.operands[2]
        read = self._read_where(e, condition)
        if read is not None:
            return read
        if not any(guards):
            chosen = values.select(self.writer, condition, self.value(a), self.value(b), self._epoch(e))
            return self._indexed(chosen)
        with self.writer.block() as yes:
            left = self.value(a)
            left_lanes = left.lanes
        with self.writer.block() as no:
            right = self.value(b)
        lanes = max(left_lanes, right.lanes)
        width = left.mask_bytes if left.lanes > 1 else right.mask_bytes
        type = values.type_of(self.writer, e.dtype, lanes, width)
        name = self.writer.names.fresh("v")
        for lines, side in ((yes, left), (no, right)):
            with self.writer.block() as late:
                body = values.in_lanes(self.writer, side, width) if lanes > 1 else values.node(self.writer, side)
            lines.extend(late)
            lines.append(Assign(name, body))
        self.writer.add(vectors.Registers(type, (name,)))
        self.writer.add(Branch(values.node(self.writer, condition), tuple(yes), tuple(no)))
        return self._indexed(Value(Var(name, type), e.dtype, lanes, width))

    def _read_where(self, e: Call, condition: Value) -> Value | None:
        """An element or neighbouring ones where a condition holds that is the same in all lanes, else a constant: one
        masked load, or one chosen element (padding around a window, say); None for anything else."""
        load, other = e.operands[1:]
        if not (isinstance(load, Load) and isinstance(other, Const)) or e.dtype == boolean or not self._unsafe(load):
            return None
        storage = self.storage[load.buffer]
        if self.guard.mask is not None or not isinstance(storage, Memory) or not self._is_affine_load(load):
            return None
        index = [self.linear(i) for i in load.index]
        at = offset(storage, index)
        if not at.is_uniform and (at.lane != 1 or at.vectors):
            return None
        fill = values.constant(other.value, other.dtype)
        if at.is_uniform:
            body = vectors.Select(
                values.node(self.writer, condition),
                vectors.Load(place(storage, at), values.type_of(self.writer, storage.dtype, 1)),
                values.node(self.writer, fill),
            )
            return self._indexed(Value(self.writer.let(body, storage.pointer.lower(), self._epoch(e)), e.dtype))
        read = load_memory(self.writer, storage, index, self.guard.count, condition, self._epoch(e))
        if isinstance(other.value, int | float) and other.value == 0 and math.copysign(1.0, other.value) > 0:
            return read
        width = values.computed(e.dtype).bytes
        holds = Value(values.mask(self.writer, condition, width), boolean, self.writer.lanes, width)
        return values.select(self.writer, holds, read, fill, self._epoch(e))

    def _is_affine_load(self, load: Load) -> bool:
        """Whether where a load reads is computed from axes and sizes alone."""
        return all(map(self._is_affine, load.index))

    def _needs_guard(self, e: Expr) -> bool:
        """Whether `e` reads memory that may be out of bounds, and has not been read already."""
        if self.writer.scope.find(self._key(e)) is not None:
            return False
        if isinstance(e, Load) and self._unsafe(e):
            return True
        match e:
            case Call("where", (condition, Load() as load, other)) if checked := checked_indices(condition):
                rest = [i for i in load.index if i not in checked]
                inside = all(self._is_inside(load, i) for i in rest)
                return not inside or any(map(self._needs_guard, (*checked, *rest, other)))
        return any(self._needs_guard(part) for part in children(e))

    def _is_inside(self, load: Load, index: Expr) -> bool:
        """Whether one index of a load certainly lies inside its dimension."""
        storage = self.storage[load.buffer]
        if any(isinstance(node, Load) for node in walk(index)):
            return False
        size = storage.shape[load.index.index(index)]
        return proven_inside([self.linear(index)], [size], self._known())

    def _unsafe(self, e: Load) -> bool:
        storage = self.storage[e.buffer]
        if not isinstance(storage, Memory):
            return False
        if any(isinstance(node, Load) for part in e.index for node in walk(part)):
            return True
        return not proven_inside([self.linear(i) for i in e.index], storage.shape, self._known())

    # Loads

    def _load(self, e: Load) -> Value:
        storage = self.storage[e.buffer]
        if isinstance(storage, Memory):
            element = element_of_table(self.writer, e, storage, self.value, self._bytes_around)
            if element is not None:
                return element
        index = [self.linear(i) for i in e.index]
        if isinstance(storage, Memory):
            known = self._known() if self.guard.mask is not None else None
            guarded = self.guard.mask is not None and not proven_inside(index, storage.shape, known or {})
            mask = self.guard.mask if guarded else None
            follows = self.lanes_axis in self.depends(e)
            value = load_memory(self.writer, storage, index, self.guard.count, mask, self._epoch(e), follows)
            if self.streams and self.guard.count is None and mask is None:
                moved_by = {self.variables[a] for a in free_axes(e) if a in self.variables}
                prefetch(self.writer, storage, index, moved_by)
        else:
            value = load_registers(self.writer, storage, index)
        return self._indexed(value)

    def _bytes_around(self, e: Load) -> tuple[vectors.Value, int] | None:
        """The bytes of four vectors that begin at a multiple of four, and the lane among them where the current one's
        do; None where some lie outside of what is read, or are no neighbours."""
        storage = self.storage[e.buffer]
        if (
            not isinstance(storage, Memory)
            or self.lanes_axis is None
            or self.guard.mask
            or self.guard.count is not None
        ):
            return None
        index = [self.linear(i) for i in e.index]
        lanes = self.writer.lanes
        first = self.point[self.lanes_axis] % 4 * lanes
        start = [*index[:-1], shifted(index[-1], -first)]
        end = [*index[:-1], shifted(index[-1], 3 * lanes - first)]
        at = offset(storage, start)
        if at.lane != 1 or at.vectors or not all(proven_inside(i, storage.shape, self._known()) for i in (start, end)):
            return None
        if self.streams and first == 0:
            moved_by = {self.variables[a] for a in free_axes(e) if a in self.variables}
            prefetch(self.writer, storage, index, moved_by)
        body = MemoryLoad(place(storage, at), value_type(storage.dtype, 4 * lanes), 1)
        return self.writer.let(body, storage.pointer.lower(), self._epoch(e)), first


def _clamped(e: Call) -> tuple[Expr, Expr] | None:
    """Of `x < c ? c : x` in f32, x and the number c: what a ReLU is."""
    condition, least, x = e.operands
    match condition:
        case Call("lt", (a, b)) if a == x and b == least and isinstance(least, Const) and x.dtype == f32:
            return x, least
    return None


def _one_more(e: Call) -> Expr | None:
    """Of `erf(x) + 1` and `tanh(x) + 1` in f32, as in a gelu, the same at once: quicker, and where x is negative the
    sum would lose most of what is left."""
    match e:
        case Call("add", (Call("erf", (x,)), Const(value=1)), dtype) if dtype == f32:
            return Call("erf_plus_one", (x,), f32)
        case Call("add", (Call("tanh", (x,)), Const(value=1)), dtype) if dtype == f32:
            two = Const(2.0, f32)
            return Call("mul", (two, Call("sigmoid", (Call("mul", (two, x), f32),), f32)), f32)
    return None


def _fold_logic(function: str, a: Value, b: Value) -> Value | None:
    """`and` and `or` where one side is known."""
    for x, y in ((a, b), (b, a)):
        if values.is_true(x):
            return y if function == "and" else x
        if values.is_false(x):
            return x if function == "and" else y
    return None
