"""A weight stored anew, before the first call, in codes that are quicker to read: the same numbers, bit for bit.

What few bits save of memory traffic their decoding may cost many times over, while a copy in floats takes the most
bytes of all. Between the two are codes of whole bytes and half floats, which a vector instruction widens:

    int6(per="channel")              =  int8(per="channel")                   integers are bytes, scales what they were
    bfp(group=16)                    =  bf16                                  8 bits of mantissa, any power of two
    fp8("e4m3")                      =  f16(per="channel")                    each of its numbers is one of f16
    block(4,1) . int6, half zeros    =  int8(per="channel")                   zeros stored, no columns looked up
    block(4,1) . int4(group=32)      =  block(4,1)                            no groups to tell apart

Products of few rows gain by that; those of many decode a panel for all their rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from effcc.ir.dtypes import f32
from effcc.ir.encoding import Argument, Encoding, Scheme
from effcc.ir.encodings import Storage, stored_as
from effcc.ir.encodings.elements import ELEMENTS, INTEGERS, SCALES, element_parts
from effcc.ir.graph import Node, Value
from effcc.passes.writer import Writer


def recodings(stored: Storage) -> Iterator[Storage]:
    """The same weight in other codes: those of whole bytes or halves with all zeros, and where its blocks are chosen by
    coordinates these with them, too, or their elements as floats."""
    parts = element_parts(stored)
    if not parts or stored.dtype != f32 or len(stored.shape) != 2:
        return
    wider = _wider(stored, parts)
    sparse = bool(stored.levels.coordinates)
    if wider is not None and (sparse or (wider,) != stored.encoding.terms[0]):
        yield _as(stored, (wider,))
    if sparse:
        level, *values = stored.encoding.terms[0]
        if wider is not None and [wider] != values:
            yield _as(stored, (level, wider))
        if values and stored.values.shares_groups:
            yield _as(stored, (level,))


def _wider(stored: Storage, parts: tuple[str, ...]) -> Scheme | None:
    """The values whose codes are bytes or halves; None where they would not be the same numbers, or scales be of groups
    of what is stored, and not of a dense row's elements."""
    quicker = stored.values.quicker
    if quicker == "own":
        return stored.encoding.terms[0][-1]
    if quicker == "bf16" and INTEGERS in parts:
        return Scheme("bf16")
    if SCALES in parts:
        return Scheme("int8", options=_sharing(stored))
    return Scheme("f16", options=_sharing(stored)) if quicker == "f16" and _scale(stored) is not None else None


def _sharing(stored: Storage) -> tuple[tuple[str, Argument], ...]:
    if stored.values.shares_groups:
        return (("group", stored.values.group_size(stored.levels.row_length)),)
    return (("per", "channel"),)


def _scale(stored: Storage) -> int | None:
    """Which component has a scale for each channel, in f32; None where none does."""
    found = [i for i, c in enumerate(stored.components) if c.name == "scale"]
    types = [(i, stored.components[i].type) for i in found]
    return next((i for i, t in types if t.dtype == f32 and t.shape == stored.shape[:1]), None)


def _as(stored: Storage, chain: tuple[Scheme, ...]) -> Storage:
    sparse = chain[0] == stored.encoding.terms[0][0] and bool(stored.levels.coordinates)
    shapes = [c.type.shape for c in stored.components] if sparse else []
    return stored_as(Encoding((chain,)), stored.shape, stored.dtype, shapes)


def store_recoded(writer: Writer, node: Node, stored: Storage, wanted: Storage) -> tuple[Value, ...]:
    """The components of the weight that `node` decodes, in the codes of `wanted`."""
    name, count = node.result.name, len(stored.levels.coordinates)
    coordinates, level = node.operands[:count], Encoding((stored.encoding.terms[0][:1],))

    def part(which: str, *operands: Value) -> Value:
        encoding, shape = stored.encoding, stored.shape
        return writer.emit("decode", *operands, name=name, encoding=encoding, dtype=f32, shape=shape, part=which)

    scales: tuple[Value, ...] = ()
    if wanted.values.integers is not None:
        numbers, scales = part(INTEGERS, *node.operands), (part(SCALES, *node.operands),)
    elif _scale(wanted) is not None:
        at = _scale(stored)
        assert at is not None
        scales = (node.operands[at],)
        ones = writer.emit("full", name=name, shape=stored.shape[:1], value=1.0, dtype=f32)
        numbers = part(ELEMENTS, *node.operands[:at], ones, *node.operands[at + 1 :])
    else:
        numbers = part(ELEMENTS, *node.operands)
    if coordinates and not wanted.levels.coordinates:
        floats = writer.emit("cast", numbers, name=name, dtype=f32)
        chosen = (*coordinates, floats)
        numbers = writer.emit("decode", *chosen, name=name, encoding=level, dtype=f32, shape=stored.shape, whole=True)
    dtype = wanted.components[len(wanted.levels.coordinates)].type.dtype
    if numbers.type.dtype != dtype:
        numbers = writer.emit("cast", numbers, name=name, dtype=dtype)
    return (*(coordinates if wanted.levels.coordinates else ()), numbers, *scales)
