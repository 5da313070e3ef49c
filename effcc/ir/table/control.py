"""Control flow with regions, calls to PyTorch, and the decoding of stored weights.

A control op's reference gets its regions as callables from arrays to a tuple of arrays, in the keyword `regions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from effcc.errors import EncodingError, IRTypeError
from effcc.ir.dims import dim, same_shape, show
from effcc.ir.dtypes import boolean
from effcc.ir.encodings import Storage, stored_as
from effcc.ir.encodings.elements import element_parts, element_type, elements_of, form_elements
from effcc.ir.encodings.groups import form_part, groups_of, part_of_groups
from effcc.ir.form import FormBuilder
from effcc.ir.op import REQUIRED, Op, Types, require
from effcc.ir.types import TensorType

if TYPE_CHECKING:
    from effcc.ir.graph import Graph

Region = Callable[..., tuple[Any, ...]]


def _regions(attrs: Mapping[str, Any], *names: str) -> tuple[Graph, ...]:
    regions: tuple[Graph, ...] = attrs["regions"]
    require(len(regions) == len(names), f"needs {len(names)} regions ({', '.join(names)}), got {len(regions)}")
    return regions


def _require_types(found: Sequence[TensorType], expected: Sequence[TensorType], what: str) -> None:
    """Refuse lists of types that differ in length, dtype or shape."""
    fits = len(found) == len(expected) and all(
        a.dtype == b.dtype and same_shape(a.shape, b.shape) for a, b in zip(found, expected, strict=True)
    )
    require(fits, f"{what}: expected ({', '.join(map(str, expected))}), got ({', '.join(map(str, found))})")


def _types(values: Sequence[Any]) -> tuple[TensorType, ...]:
    return tuple(v.type.plain() for v in values)


def _infer_cond(operands: Types, attrs: Mapping[str, Any]) -> Types:
    then, orelse = _regions(attrs, "then", "else")
    condition, *rest = operands
    require(condition.dtype == boolean and condition.rank == 0, f"the condition must be bool[], got {condition}")
    for region in (then, orelse):
        _require_types(_types(region.params), rest, f"parameters of @{region.name}")
    _require_types(_types(orelse.outputs), _types(then.outputs), "results of the two branches")
    return _types(then.outputs)


def _cond_reference(condition: Any, *operands: Any, regions: Sequence[Region]) -> tuple[Any, ...]:
    return regions[0 if condition else 1](*operands)


def _infer_while(operands: Types, attrs: Mapping[str, Any]) -> Types:
    condition, body = _regions(attrs, "condition", "body")
    carried = tuple(o.plain() for o in operands[: attrs["carried"]])
    for region in (condition, body):
        _require_types(_types(region.params), operands, f"parameters of @{region.name}")
    _require_types(_types(condition.outputs), (TensorType(boolean, ()),), "result of the condition")
    _require_types(_types(body.outputs), carried, "results of the body")
    return carried


def _while_reference(*operands: Any, carried: int, regions: Sequence[Region]) -> tuple[Any, ...]:
    condition, body = regions
    state, fixed = operands[:carried], operands[carried:]
    while condition(*state, *fixed)[0]:
        state = body(*state, *fixed)
    return tuple(state)


def _infer_scan(operands: Types, attrs: Mapping[str, Any]) -> Types:
    (body,) = _regions(attrs, "body")
    carried, scanned = attrs["carried"], attrs["scanned"]
    require(carried + scanned <= len(operands), f"{carried} carried and {scanned} scanned of {len(operands)} operands")
    state, xs, fixed = operands[:carried], operands[carried : carried + scanned], operands[carried + scanned :]
    length = dim(attrs["length"])
    for x in xs:
        fits = x.rank > 0 and same_shape(x.shape[:1], (length,))
        require(fits, f"a scanned operand has {show(length)} steps, got {x}")
    slices = [TensorType(x.dtype, x.shape[1:]) for x in xs]
    _require_types(_types(body.params), (*state, *slices, *fixed), "parameters of the body")
    found = _types(body.outputs)
    _require_types(found[:carried], state, "carried results of the body")
    return (*found[:carried], *(TensorType(t.dtype, (length, *t.shape)) for t in found[carried:]))


def _scan_reference(
    *operands: Any, carried: int, scanned: int, length: int, reverse: bool, regions: Sequence[Region]
) -> tuple[Any, ...]:
    state = operands[:carried]
    xs, fixed = operands[carried : carried + scanned], operands[carried + scanned :]
    stacked: list[tuple[Any, ...]] = []
    for t in reversed(range(length)) if reverse else range(length):
        results = regions[0](*state, *(x[t] for x in xs), *fixed)
        state = results[:carried]
        stacked.append(results[carried:])
    if reverse:
        stacked.reverse()
    return (*state, *(np.stack(steps) for steps in zip(*stacked, strict=True)))


def _infer_extern(operands: Types, attrs: Mapping[str, Any]) -> Types:
    require(attrs["reason"] in REASONS, f"reason must be one of {', '.join(REASONS)}, got {attrs['reason']!r}")
    return tuple(TensorType(r[0], tuple(r[1]), tuple(r[2]) if len(r) > 2 else None) for r in attrs["results"])


def _stored(operands: Types, attrs: Mapping[str, Any]) -> Storage:
    """The storage that a `decode` node's operands are the components of."""
    shapes = [t.shape for t in operands]
    known = all(isinstance(d, int) for s in (attrs["shape"], *shapes) for d in s)
    require(known, "a stored weight and its components have known sizes")
    try:
        found = stored_as(attrs["encoding"], attrs["shape"], attrs["dtype"], shapes)
    except EncodingError as error:
        raise IRTypeError(str(error)) from None
    expected = [
        replace(c.type, dtype=t.dtype) if c.type.dtype.is_float and t.dtype.is_float else c.type
        for c, t in zip(found.components, operands, strict=False)
    ]
    rest = [c.type for c in found.components[len(operands) :]]
    _require_types(operands, [*expected, *rest], f"components of {found.encoding}")
    return found


def _infer_decode(operands: Types, attrs: Mapping[str, Any]) -> TensorType:
    found = _stored(operands, attrs)
    if not attrs["part"]:
        return TensorType(attrs["dtype"], found.shape)
    if attrs["part"] in element_parts(found):
        return element_type(found, attrs["part"])
    groups = groups_of(found)
    require(groups is not None, f"a weight stored as {found.encoding} is no integers with a scale for each group")
    assert groups is not None
    require(attrs["part"] in groups.parts, f"expected one of {', '.join(groups.parts)}, got part={attrs['part']!r}")
    return groups.type_of(attrs["part"])


def _decode_reference(*components: Any, encoding: Any, dtype: Any, shape: Sequence[int], whole: bool, part: str) -> Any:
    found = stored_as(encoding, shape, dtype, [c.shape for c in components])
    if not part:
        return found.decode(components)
    return (elements_of if part in element_parts(found) else part_of_groups)(found, components, part)


def _decode(b: FormBuilder) -> None:
    found = _stored(tuple(o.type for o in b.operands), b.attrs)
    if b.attrs["part"] in element_parts(found):
        form_elements(b, found, b.attrs["part"])
    elif b.attrs["part"]:
        form_part(b, found, b.attrs["part"])
    else:
        found.form(b, b.attrs["whole"])


# The call that copies an operand of a dtype that no kernel computes on.
COPY_CALL: Mapping[str, Any] = {"target": "aten::clone.default", "template": ((("tensor", 0),), ()), "reason": "no-op"}

REASONS = ("no-op", "random", "effect", "chosen")

OPS: list[Op] = [
    Op("cond", "control", (1, None), _infer_cond, _cond_reference,
       "the first region's results on the operands after the condition if it holds, else the second's"),
    Op("while", "control", (1, None), _infer_while, _while_reference,
       "while the first region holds, the second takes the first `carried` operands to new ones; the others stay",
       {"carried": REQUIRED}),
    Op("scan", "control", (1, None), _infer_scan, _scan_reference,
       "`length` steps of the region (state, slices of scanned operands, fixed operands) to (state, results to stack)",
       {"carried": REQUIRED, "scanned": REQUIRED, "length": REQUIRED, "reverse": False}),
    Op("extern", "opaque", (0, None), _infer_extern, None,
       "a call to PyTorch's operator `target`; reason: no-op (none fits), random, effect, or chosen (faster here); "
       "`why`: the same in words",
       {"target": REQUIRED, "template": REQUIRED, "results": REQUIRED, "reason": "no-op", "why": ""}),
    Op("decode", "opaque", (1, None), _infer_decode, _decode_reference,
       "the dense tensor that the operands, components of `encoding`, stand for; `whole`: as an array of its own, not "
       "for products to read through; `part`: which array it is instead, of what is stored or of a matrix of integers "
       "with scales by group",
       {"encoding": REQUIRED, "dtype": REQUIRED, "shape": REQUIRED, "whole": False, "part": ""}, _decode),
]  # fmt: skip
