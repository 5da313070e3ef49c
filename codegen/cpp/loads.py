"""Loads and stores: what an index does along the lanes decides which way the data moves.

Coefficient 0 is one scalar for all lanes, 1 a vector, any other a strided access; an index that is itself data gathers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from effcc.codegen.cpp import values
from effcc.codegen.cpp.linear import LANE, Known, Linear, bounds, combination, uniform
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.storage import Memory, Registers
from effcc.codegen.cpp.values import computed
from effcc.errors import UnsupportedError
from effcc.ir import vectors
from effcc.ir.dims import Dim
from effcc.ir.dtypes import boolean
from effcc.ir.vectors import Any, Assign, Conjunction, Lane, Place, Select, SetLane, Store, Var
from effcc.ir.vectors import Load as MemoryLoad

Count = int | vectors.Value | None


def proven_inside(index: Sequence[Linear], shape: Sequence[Dim], known: Mapping[str, Known]) -> bool:
    """Whether every index certainly lies within the shape."""
    for at, size in zip(index, shape, strict=True):
        low, high = bounds(at, known)
        if low is None or high is None or low < 0 or not isinstance(size, int) or high >= size:
            return False
    return True


def offset(storage: Memory, index: Sequence[Linear]) -> Linear:
    """The place of an element, in elements from the pointer."""
    return combination(index, storage.strides)


def place(storage: Memory, at: Linear) -> Place:
    """The element at an offset, which is the same in every lane."""
    return Place(storage.pointer, storage.dtype, uniform(at))


def load_memory(
    writer: Writer,
    storage: Memory,
    index: Sequence[Linear],
    count: Count,
    mask: Value | None,
    epoch: int,
    follows: bool = False,
) -> Value:
    """An element for every lane (or one for all): of the first `count` lanes only, and only where `mask`.

    follows: where the element is depends on the lanes' axis, so that there is none where `count` is 0 or less.
    """
    at = offset(storage, index)
    dtype, hint = storage.dtype, storage.pointer.lower()
    if at.is_uniform:
        some = None if count is None or isinstance(count, int) or not follows else values.positive(count)
        return _load_scalar(writer, storage, at, mask, some, hint, epoch)
    type = values.type_of(writer, dtype)
    if mask is not None and count is not None:
        mask = values.call(writer, "and", boolean, [values.first_lanes(writer, count), mask])
    width = 4 if dtype == boolean else computed(dtype).bytes
    flag = values.mask(writer, mask, width) if mask is not None else None
    place_ = place(storage, at)
    if at.vectors:
        position = _positions(writer, at)
        if flag is None and count is not None:
            flag = values.mask(writer, values.first_lanes(writer, count), width)
        body = MemoryLoad(place_, type, index=position, mask=flag)
    else:
        some_lanes = values.number(count) if count is not None and flag is None else None
        body = MemoryLoad(place_, type, at.lane, mask=flag, count=some_lanes)
    return Value(writer.let(body, hint, epoch), dtype, writer.lanes)


def _positions(writer: Writer, at: Linear) -> vectors.Value:
    """What differs between the lanes of an offset that is data."""
    return values.vector_index(writer, Linear(tuple(t for t in at.terms if t[0] == LANE), 0, at.vectors))


def _load_scalar(
    writer: Writer,
    storage: Memory,
    at: Linear,
    mask: Value | None,
    some: vectors.Value | None,
    hint: str,
    epoch: int,
) -> Value:
    dtype = storage.dtype
    body: vectors.Value = MemoryLoad(place(storage, at), values.type_of(writer, dtype, 1))
    conditions = [some] if some is not None else []
    if mask is not None:
        holds = values.node(writer, mask)
        conditions.append(Any(holds) if mask.lanes > 1 else holds)
    if conditions:
        condition = conditions[0] if len(conditions) == 1 else Conjunction(tuple(conditions))
        body = Select(condition, body, values.literal(0, dtype))
    return Value(writer.let(body, hint, epoch), dtype)


def register(writer: Writer, storage: Registers, index: Sequence[Linear]) -> tuple[Var, int | None]:
    """The variable that holds an element, and which of its lanes (None: all of them, one for each lane)."""
    key: list[int] = []
    lane: int | None = 0 if storage.lane_dim is not None else None
    for position, at in enumerate(index):
        if not isinstance(at.constant, int) or at.base.terms or at.vectors:
            raise UnsupportedError(
                f"the register buffer {storage.name} is indexed by a loop: expected unrolled axes only"
            )
        if position != storage.lane_dim:
            key.append(at.constant)
            continue
        lane = None if at.lane == 1 else at.constant % writer.lanes
        key.append(at.constant // writer.lanes)
    in_vectors = storage.lane_dim is not None
    return Var(storage.names[tuple(key)], values.type_of(writer, storage.dtype, 0 if in_vectors else 1)), lane


def load_registers(writer: Writer, storage: Registers, index: Sequence[Linear]) -> Value:
    """The variable itself, or one lane of it."""
    variable, lane = register(writer, storage, index)
    if variable.type.lanes == 1:
        return Value(variable, storage.dtype)
    if lane is None:
        return Value(variable, storage.dtype, writer.lanes)
    return Value(Lane(variable, lane), storage.dtype)


def store_registers(
    writer: Writer, storage: Registers, index: Sequence[Linear], value: Value, kept: Value | None
) -> None:
    """Assign to a variable; only in the lanes of `kept` if that is given."""
    variable, lane = register(writer, storage, index)
    if variable.type.lanes == 1:
        body = values.node(writer, value)
        if kept is not None and writer.lanes == 1:  # the one lane may lie beyond a tail of run-time size
            body = Select(values.node(writer, kept), body, variable)
        writer.add(Assign(variable.name, body))
        return
    if lane is not None:
        if value.lanes > 1:
            raise UnsupportedError(
                f"a vector is stored to one lane of {variable.name}: index it by the lanes axis, or combine"
            )
        writer.add(SetLane(variable, lane, values.node(writer, value)))
        return
    body = values.in_lanes(writer, value)
    if kept is not None:
        width = 4 if storage.dtype == boolean else computed(storage.dtype).bytes
        body = Select(values.mask(writer, kept, width), body, variable)
    writer.add(Assign(variable.name, body))


def store_memory(
    writer: Writer,
    storage: Memory,
    index: Sequence[Linear],
    value: Value,
    count: Count,
    fold: str = "",
    kept: Value | None = None,
) -> None:
    """Store to memory: one scalar, or the first `count` lanes. `fold` combines a scatter with what stands there; a
    scatter writes in the lanes of `kept` only, if that is given."""
    at = offset(storage, index)
    where = place(storage, at)
    if at.is_uniform:
        if value.lanes > 1:
            raise UnsupportedError(f"a vector is stored to one element of {storage.pointer}: it needs a combine")
        writer.add(Store(where, values.node(writer, value)))
        return
    body = values.in_lanes(writer, value)
    if not at.vectors:
        some = None if count is None else values.number(count)
        writer.add(Store(where, body, at.lane, count=some))
        return
    position = _positions(writer, at)
    active = kept
    if count is not None:
        first = values.first_lanes(writer, count)
        active = first if kept is None else values.call(writer, "and", boolean, [first, kept])
    mask = values.node(writer, active) if active is not None else None
    writer.add(Store(where, body, index=position, mask=mask, fold=fold))
