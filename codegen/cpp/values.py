"""Values between scalar and vector: broadcasting, masks of every width, conversions, calls by the spelling table."""

from __future__ import annotations

from effcc.codegen.cpp.linear import Linear, linear_text
from effcc.codegen.cpp.scope import Value, Writer, atomic
from effcc.codegen.cpp.spelling import computed, literal, spell, stored_type, value_type
from effcc.ir.dtypes import DType, bf16, boolean, f16, i32, i64
from effcc.ir.expr import Scalar


def constant(value: Scalar, dtype: DType) -> Value:
    """A literal."""
    if dtype == i64:
        return Value("", i64, linear=Linear(constant=int(value)))
    return Value(literal(value, dtype), dtype)


def is_true(value: Value) -> bool:
    return value.text == "true"


def is_false(value: Value) -> bool:
    return value.text == "false"


def text(writer: Writer, value: Value) -> str:
    """A value's text, fit to be an operand; an index form is put into a register if it varies by lane."""
    if value.linear is None:
        return atomic(value.text)
    return atomic(linear_text(value.linear)) if value.linear.is_uniform else vector_index(writer, value.linear)


def vector_index(writer: Writer, index: Linear) -> str:
    """An index form as a vector of i64 lanes."""
    lanes = writer.lanes
    type = f"i64x<{lanes}>"
    parts = [name if c == 1 else f"{name} * i64({linear_text(Linear(constant=c))})" for name, c in index.vectors]
    base = linear_text(index)
    if index.lane == 1:
        parts.append(f"iota<{type}>({base})")
    elif index.lane != 0:
        parts.append(f"iota<{type}>(0) * i64({linear_text(Linear(constant=index.lane))})")
    if index.lane != 1 and base != "0":
        parts.append(f"i64({base})")
    if len(parts) == 1 and index.vectors and index.vectors[0][1] == 1:
        return parts[0]
    return writer.let(type, " + ".join(parts), "at")


def narrow_index(writer: Writer, index: Linear) -> Value:
    """An index form that fits 32 bits, as a vector of i32 lanes."""
    type = type_of(writer, i32)
    base = linear_text(index)
    body = f"iota<{type}>(i32({base}))" if index.lane == 1 else f"iota<{type}>(0) * {index.lane} + i32({base})"
    return Value(writer.let(type, body, "at"), i32, writer.lanes)


def type_of(writer: Writer, dtype: DType, lanes: int = 0, mask_bytes: int = 4) -> str:
    """The C++ type of a value; by default in all lanes."""
    return value_type(dtype, lanes or writer.lanes, mask_bytes)


def in_lanes(writer: Writer, value: Value, mask_bytes: int = 4) -> str:
    """A value in all lanes: broadcast if it is uniform, a mask of the given width if it is a boolean."""
    if value.dtype == boolean:
        return mask(writer, value, mask_bytes)
    body = text(writer, value)
    if value.lanes > 1 or writer.lanes == 1:
        return body
    return f"broadcast<{type_of(writer, value.dtype)}>({bare(body)})"


def mask(writer: Writer, value: Value, mask_bytes: int) -> str:
    """A boolean as a mask with lanes of the given width."""
    type = type_of(writer, boolean, mask_bytes=mask_bytes)
    if writer.lanes == 1:
        return text(writer, value)
    if is_true(value) or is_false(value):
        return f"{'~' if is_true(value) else ''}{type}{{}}"
    if value.lanes == 1:
        return f"broadcast<{type}>(-i{8 * mask_bytes}({bare(value.text)}))"
    return value.text if value.mask_bytes == mask_bytes else f"mask_cast<{type}>({value.text})"


def bare(body: str) -> str:
    """`body` without the parentheses around the whole of it, where something else already encloses it."""
    return body[1:-1] if body.startswith("(") and _closes_at_end(body) else body


def _closes_at_end(body: str) -> bool:
    depth = 0
    for position, character in enumerate(body):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return position == len(body) - 1
    return False


def call(writer: Writer, name: str, dtype: DType, operands: list[Value], epoch: int = 0) -> Value:
    """`name(operands)`, put into a register."""
    kind = operands[0].dtype
    template, spelling = spell(name, kind)
    writer.functions.add(name)
    lanes = max(v.lanes for v in operands)
    width = computed(kind).bytes
    if kind == boolean:
        width = max(v.mask_bytes for v in operands if v.lanes > 1) if lanes > 1 else 4
    if lanes > 1 and (kind == boolean or (not spelling.operator and len(operands) > 1)):
        texts = [in_lanes(writer, v, width) for v in operands]
    elif kind.is_integer and kind != i32 and not spelling.operator and lanes == 1 and len(operands) > 1:
        texts = [f"{kind.name}({bare(text(writer, v))})" for v in operands]  # a literal is an int
    else:
        texts = [text(writer, v) for v in operands]
    if not spelling.operator:
        texts = [bare(t) for t in texts]
    body = template.format(*texts)
    if lanes == 1 and computed(dtype).bits < 32 and dtype != boolean:
        body = f"{dtype.name}({body})"
    type = type_of(writer, dtype, lanes, width)
    return Value(writer.let(type, body, epoch=epoch), dtype, lanes, width)


def select(writer: Writer, condition: Value, a: Value, b: Value, epoch: int = 0) -> Value:
    """`condition ? a : b`, both sides already computed."""
    if is_true(condition) or is_false(condition):
        return a if is_true(condition) else b
    lanes = max(condition.lanes, a.lanes, b.lanes)
    dtype = a.dtype
    width = computed(dtype).bytes
    if dtype == boolean:
        width = max((v.mask_bytes for v in (condition, a, b) if v.lanes > 1), default=4)
    type = type_of(writer, dtype, lanes, width)
    if lanes == 1:
        body = f"{text(writer, condition)} ? {text(writer, a)} : {text(writer, b)}"
        if computed(dtype).bits < 32 and dtype != boolean:
            body = f"{dtype.name}({body})"
        return Value(writer.let(type, body, epoch=epoch), dtype)
    one_vector = dtype != boolean and condition.lanes > 1 and (a.lanes > 1) != (b.lanes > 1)
    sides = [text(writer, v) if one_vector else in_lanes(writer, v, width) for v in (a, b)]
    sides = [bare(s) for s in sides]
    if condition.lanes == 1:
        body = f"{text(writer, condition)} ? {sides[0]} : {sides[1]}"
    else:
        body = f"select({mask(writer, condition, width)}, {sides[0]}, {sides[1]})"
    return Value(writer.let(type, body, epoch=epoch), dtype, lanes, width)


def convert(writer: Writer, value: Value, to: DType, epoch: int = 0) -> Value:
    """A value as another dtype, as torch converts; to a half type it is rounded and goes on as f32."""
    source, target = computed(value.dtype), computed(to)
    lanes = value.lanes
    if source == boolean:
        if to == boolean:
            return value
        type = type_of(writer, to, lanes)
        body = f"from_mask<{type}>({value.text})" if lanes > 1 else f"{target.name}({value.text})"
        return Value(writer.let(type, body), to, lanes)
    body = bare(text(writer, value))
    if to == boolean:
        width = source.bytes
        type = type_of(writer, boolean, lanes, width)
        return Value(writer.let(type, f"{text(writer, value)} != 0", epoch=epoch), boolean, lanes, width)
    if source != target:
        argument = f"i64({body})" if source == i64 and lanes == 1 else body
        body = f"convert<{target.name}>({argument})"
    if to in (f16, bf16) and value.dtype != to:
        body = f"round_to<{stored_type(to)}>({body})"
    type = type_of(writer, to, lanes)
    return Value(writer.let(type, body, epoch=epoch), to, lanes)


def first_lanes(writer: Writer, count: str) -> Value:
    """The mask of the first `count` lanes."""
    if writer.lanes == 1:
        return Value(writer.let("bool", f"{count} > 0", "active"), boolean)
    type = type_of(writer, boolean)
    return Value(writer.let(type, f"first_lanes<{type}>({count})", "active"), boolean, writer.lanes)
