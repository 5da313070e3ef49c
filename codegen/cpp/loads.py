"""Loads and stores: what an index does along the lanes decides which library call moves the data.

Coefficient 0 is one scalar for all lanes, 1 a vector, any other a strided access; an index that is itself data gathers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from effcc.codegen.cpp import values
from effcc.codegen.cpp.form import Do
from effcc.codegen.cpp.linear import Known, Linear, bounds, linear_text, plus, shifted, times
from effcc.codegen.cpp.scope import Value, Writer
from effcc.codegen.cpp.spelling import computed, literal, value_type
from effcc.codegen.cpp.storage import Memory, Registers
from effcc.errors import UnsupportedError
from effcc.ir.dims import Dim
from effcc.ir.dtypes import bf16, boolean, f16

Count = int | str | None

_AHEAD = 8192
"""Bytes between what a stream reads and what it asks for: two pages."""


def proven_inside(index: Sequence[Linear], shape: Sequence[Dim], known: Mapping[str, Known]) -> bool:
    """Whether every index certainly lies within the shape."""
    for at, size in zip(index, shape, strict=True):
        low, high = bounds(at, known)
        if low is None or high is None or low < 0 or not isinstance(size, int) or high >= size:
            return False
    return True


def offset(storage: Memory, index: Sequence[Linear]) -> Linear:
    """The place of an element, in elements from the pointer."""
    total = Linear()
    for at, stride in zip(index, storage.strides, strict=True):
        total = plus(total, times(at, stride))
    return total


def _place(storage: Memory, at: Linear) -> str:
    body = linear_text(at)
    return storage.pointer if body == "0" else f"{storage.pointer} + {body}"


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
        some = f"{count} > 0" if follows and isinstance(count, str) else ""
        return _load_scalar(writer, storage, at, mask, some, hint, epoch)
    lanes = writer.lanes
    type = value_type(dtype, lanes)
    place = _place(storage, at)
    masked = mask is not None
    if mask is not None and count is not None:
        mask = values.call(writer, "and", boolean, [values.first_lanes(writer, str(count)), mask])
    width = computed(dtype).bytes
    flag = values.mask(writer, mask, 4 if dtype == boolean else width) if mask is not None else ""
    kind = "_mask" if dtype == boolean else ""
    if at.vectors:
        along = Linear(tuple(t for t in at.terms if t[0] not in dict(at.base.terms)), 0, at.vectors)
        position = values.vector_index(writer, along)
        if mask is None and count is not None:
            mask = values.first_lanes(writer, str(count))
            flag = values.mask(writer, mask, 4 if dtype == boolean else width)
        of = f"i32x<{lanes}>" if dtype == boolean else type
        body = f"gather_if<{of}>({flag}, {place}, {position})" if flag else f"gather<{of}>({place}, {position})"
    elif at.lane == 1:
        if masked:
            body = f"load{kind}_if<{type}>({flag}, {place})"
        elif count is not None:
            body = f"load{kind}_n<{type}>({place}, {count})"
        else:
            body = f"load{kind}<{type}>({place})"
    else:
        stride = linear_text(Linear(constant=at.lane))
        of = f"i32x<{lanes}>" if dtype == boolean else type
        if masked:
            body = f"load_apart_if<{of}>({flag}, {place}, {stride})"
        elif count is not None:
            body = f"load_strided_n<{of}>({place}, {stride}, {count})"
        else:
            body = f"load_apart<{of}>({place}, {stride})"
    if dtype == boolean and at.lane != 1:
        body = f"to_mask({body})"
    return Value(writer.let(type, body, hint, epoch), dtype, lanes)


def prefetch(writer: Writer, storage: Memory, index: Sequence[Linear]) -> None:
    """Ask for the cache line that the innermost loop will read here some turns later.

    A product streams its packed operand faster than it comes from beyond L2: the hardware looks ahead within a page of
    memory, which lasts only 32 turns of a 32-column panel. Nothing is asked for where the whole stream is short, or
    where another vector of the same line has asked already.
    """
    at = offset(storage, index)
    size = storage.dtype.bytes
    if storage.local or not writer.loops or at.lane != 1 or at.vectors or not isinstance(at.constant, int):
        return
    turn = dict(at.terms).get(writer.loops[-1], 0)
    if not isinstance(turn, int) or turn * size < 16 or at.constant * size % 64 != 0:
        return
    if _stream_length(writer, at) * size < 2 * _AHEAD:
        return
    writer.add(Do(f"__builtin_prefetch({_place(storage, shifted(at, _AHEAD // size))}, 0, 2);"))


def _stream_length(writer: Writer, at: Linear) -> float:
    """How many elements the open loops read without a gap: the innermost one, and those that carry on where it ends."""
    length: float = 0
    for name in reversed(writer.loops):
        step, known = dict(at.terms).get(name, 0), writer.known[name]
        if not isinstance(step, int) or step <= 0 or (length and step * known.modulus != length):
            break
        if known.low is None or known.high is None:
            return math.inf
        length = (known.high - known.low + known.modulus) * step
    return length


def _load_scalar(
    writer: Writer, storage: Memory, at: Linear, mask: Value | None, some: str, hint: str, epoch: int
) -> Value:
    dtype = storage.dtype
    type = value_type(dtype, 1)
    half = dtype in (f16, bf16)
    body = f"load<f32>({_place(storage, at)})" if half else f"{storage.pointer}[{linear_text(at)}]"
    conditions = [*([some] if some else []), *([f"any({mask.text})"] if mask is not None else [])]
    if conditions:
        body = f"{' && '.join(conditions)} ? {body} : {literal(0, dtype)}"
        if computed(dtype).bits < 32 and dtype != boolean:
            body = f"{type}({body})"
    return Value(writer.let(type, body, hint, epoch), dtype)


def register(writer: Writer, storage: Registers, index: Sequence[Linear]) -> tuple[str, int | None]:
    """The variable that holds an element, and which of its lanes (None: all of them, one for each lane)."""
    key: list[int] = []
    lane: int | None = 0 if storage.lane_dim is not None else None
    for position, at in enumerate(index):
        if not isinstance(at.constant, int) or at.base.terms or at.vectors:
            raise UnsupportedError(f"a register buffer is indexed by {linear_text(at)}: expected unrolled axes only")
        if position != storage.lane_dim:
            key.append(at.constant)
            continue
        lane = None if at.lane == 1 else at.constant % writer.lanes
        key.append(at.constant // writer.lanes)
    return storage.names[tuple(key)], lane


def load_registers(writer: Writer, storage: Registers, index: Sequence[Linear]) -> Value:
    """The variable itself, or one lane of it."""
    name, lane = register(writer, storage, index)
    if storage.lane_dim is None or writer.lanes == 1:
        return Value(name, storage.dtype)
    if lane is None:
        return Value(name, storage.dtype, writer.lanes)
    body = f"lane({name}, {lane})"
    return Value(f"({body} != 0)" if storage.dtype == boolean else body, storage.dtype)


def store_registers(
    writer: Writer, storage: Registers, index: Sequence[Linear], value: Value, kept: Value | None
) -> None:
    """Assign to a variable; only in the lanes of `kept` if that is given."""
    name, lane = register(writer, storage, index)
    if storage.lane_dim is None or writer.lanes == 1:
        body = values.bare(values.text(writer, value))
        if kept is not None and writer.lanes == 1:  # the one lane may lie beyond a tail of run-time size
            body = f"{values.text(writer, kept)} ? {body} : {name}"
        writer.add(Do(f"{name} = {body};"))
        return
    if lane is not None:
        if value.lanes > 1:
            raise UnsupportedError(f"a vector is stored to one lane of {name}: index it by the lanes axis, or combine")
        body = values.text(writer, value)
        writer.add(Do(f"set_lane({name}, {lane}, {f'-{body}' if storage.dtype == boolean else body});"))
        return
    body = values.bare(values.in_lanes(writer, value, 4))
    if kept is not None:
        body = (
            f"select({values.mask(writer, kept, 4 if storage.dtype == boolean else computed(storage.dtype).bytes)}, "
            f"{body}, {name})"
        )
    writer.add(Do(f"{name} = {body};"))


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
    place = _place(storage, at)
    dtype = storage.dtype
    if at.is_uniform:
        if value.lanes > 1:
            raise UnsupportedError(f"a vector is stored to one element of {storage.pointer}: it needs a combine")
        body = values.bare(values.text(writer, value))
        if dtype in (f16, bf16):
            writer.add(Do(f"store({place}, {body});"))
        else:
            writer.add(Do(f"{storage.pointer}[{linear_text(at)}] = {body};"))
        return
    body = values.bare(values.in_lanes(writer, value, 4))
    kind, ending = "_mask" if dtype == boolean else "", "" if count is None else f", {count}"
    suffix = "" if count is None else "_n"
    if at.lane == 1 and not at.vectors:
        writer.add(Do(f"store{kind}{suffix}({place}, {body}{ending});"))
        return
    if dtype == boolean:
        body = f"from_mask<i32x<{writer.lanes}>>({body})"
    if at.vectors:
        position = values.vector_index(
            writer, Linear(tuple(t for t in at.terms if t not in at.base.terms), 0, at.vectors)
        )
        active = kept
        if count is not None:
            first = values.first_lanes(writer, str(count))
            active = first if kept is None else values.call(writer, "and", boolean, [first, kept])
        if fold:
            mask = active.text if active is not None else f"~{values.type_of(writer, boolean)}{{}}"
            writer.add(Do(f"scatter_fold({mask}, {place}, {position}, {body}, {fold});"))
        elif active is None:
            writer.add(Do(f"scatter({place}, {position}, {body});"))
        else:
            writer.add(Do(f"scatter_if({active.text}, {place}, {position}, {body});"))
        return
    stride = linear_text(Linear(constant=at.lane))
    writer.add(Do(f"store_spread({place}, {stride}, {body}{ending});"))
