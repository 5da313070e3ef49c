"""Codes that share a byte are summed before anything else: a sum over the codes of a byte is written out, and what all
of them are multiplied with is moved out of it. Two codes of four bits with a scale and a minimum for a group,

    O[n] = sum(j, i: X[2*j+i] * (f32(Q[n,j] >> 4*i & 15) * S[n,j//16] + M[n,j//16]))

are, with the byte read once, and one multiplication with each parameter for as many codes as a byte has,

    O[n] = sum(j: (X[2*j] * f32(Q[n,j] & 15) + X[2*j+1] * f32(Q[n,j] >> 4)) * S[n,j//16]
                + (X[2*j] + X[2*j+1]) * M[n,j//16])

Lanes are along j, so all of this is vector by vector, and the sum of inputs is shared by what computes several n. So
is what takes the place of shifts: the low bits of a byte, q0, and all of them, q0 + 16 * q1, give the same sum,

    X0 * f32(Q & 15) + X1 * f32(Q >> 4) = (X0 - X1/16) * f32(Q & 15) + X1/16 * f32(Q)

exact but for one more rounding of X0 - X1/16. What every code is off, f32(q - 8), is -8 times the sum of inputs.
Products of many rows are tiles of outer products: they stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce as fold
from itertools import pairwise
from math import prod

from effcc.ir.codes import largest_code
from effcc.ir.contraction import contraction
from effcc.ir.dtypes import f32, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Reduce, free_axes, substitute_axes, transform, walk
from effcc.ir.kernel import Kernel, Statement

CODES_IN_BYTE = 8
"""So many codes a byte holds at most."""
PARAMETER = ".parameter"
"""What follows a sum's name in those of its parameters."""


def sum_codes(kernel: Kernel) -> Kernel:
    """The kernel with the sums over codes of a byte written out, where no operand could be shared by many rows."""
    statements = _parameters_first(tuple(part for s in kernel.statements for part in _apart(_summed(kernel, s), s)))
    if statements == kernel.statements:
        return kernel
    used = {a for s in statements for a in s.axes}
    used |= {a for s in statements for e in s.expressions for r in walk(e) if isinstance(r, Reduce) for a in r.axes}
    return replace(kernel, statements=statements, axes=tuple(a for a in kernel.axes if a[0] in used))


def _parameters_first(statements: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """The statements, those first that were set apart and read nothing of the others: sums side by side stay so."""
    targets = {s.target for s in statements}
    early = [s for s in statements if PARAMETER in s.target and not any(x.buffer in targets for x in s.reads)]
    return (*early, *(s for s in statements if s not in early))


def _summed(kernel: Kernel, s: Statement) -> Statement:
    found = s.reduction
    if found is None or s.value is not found or s.scatter is not None or contraction(s, kernel.weights) is not None:
        return s
    if found.operator != "sum" or found.rescale is not None or found.spans or not found.dtype.is_float:
        return s
    codes = [a for a in found.axes if _holds_codes(found.body, a)]
    extents = [kernel.extents[a] for a in codes]
    counts = [n for n in extents if isinstance(n, int)]
    rest = tuple(a for a in found.axes if a not in codes)
    if not codes or not rest or len(counts) < len(extents) or prod(counts) > CODES_IN_BYTE:
        return s
    body = found.body
    for axis, count in reversed([*zip(codes, counts, strict=True)]):  # codes before their parameters' codes
        body = _written_out(body, axis, count)
    return replace(s, value=replace(found, axes=rest, body=body))


def _apart(s: Statement, before: Statement) -> list[Statement]:
    """A sum over codes, after statements of its own for the parameters that are computed (widened from f16, say): once
    a group, with groups in the lanes."""
    found = s.reduction
    if s is before or found is None:
        return [s]
    last, made = found.axes[-1], dict[Expr, Statement]()

    def one(e: Expr) -> Expr:
        match e:
            case Call("mul" | "mul_add", operands):
                return replace(e, operands=tuple(named(o) for o in operands))
        return e

    def named(e: Expr) -> Expr:
        axes = tuple(a for a in (*s.axes, *found.axes) if a in free_axes(e))
        computed = isinstance(e, Call) and e.dtype.is_float and any(isinstance(x, Load) for x in walk(e))
        if not computed or last in axes or not set(axes) & set(found.axes) or not set(axes) & set(s.axes):
            return e
        if e not in made:
            made[e] = Statement(f"{s.target}{PARAMETER}{len(made)}", axes, e)
        return Load(made[e].target, tuple(Axis(a) for a in axes), e.dtype)

    body = transform(found.body, one)
    return [*made.values(), replace(s, value=replace(found, body=body))]


def _holds_codes(e: Expr, axis: str) -> bool:
    """Whether an integer that is the same along an axis is shifted by what depends on it."""
    shifts = (x.operands for x in walk(e) if isinstance(x, Call) and x.function == "shr")
    return any(axis in free_axes(by) and axis not in free_axes(data) for data, by in shifts)


def _written_out(body: Expr, axis: str, count: int) -> Expr:
    """The sum of `body` over an axis: of its terms, each with the factors moved out that do not depend on it."""
    together: dict[tuple[Expr, ...], list[list[Expr]]] = {}
    for factors in _terms(body, axis):
        inside = [f for f in factors if axis in free_axes(f)]
        numbers = [f for f in factors if isinstance(f, Const)]
        outside = tuple(f for f in factors if axis not in free_axes(f) and f not in numbers)
        if not inside:
            points: list[Expr] = [Const(float(count), body.dtype)]
        else:
            points = _unshifted(inside, axis, count) or [_at(_product(inside), axis, n) for n in range(count)]
        # What is multiplied with a number is the same for all n, and first: others are added to it.
        place = together.setdefault(outside, [])
        place.insert(0, [_product([fold(_added, points), *numbers])]) if numbers else place.append(points)
    parts = [_product([fold(_added, [p for points in sums for p in points]), *f]) for f, sums in together.items()]
    return fold(_added, parts)


def _unshifted(factors: list[Expr], axis: str, count: int) -> list[Expr] | None:
    """The terms of a sum of inputs times the codes of a byte, of which none is shifted; None for other sums."""
    codes = [(f, found) for f in factors if (found := _code(f, axis, count)) is not None]
    inputs = [f for f in factors if all(f is not code for code, _ in codes)]
    if len(codes) != 1 or not inputs:
        return None
    ((code, (data, width)),) = codes
    dtype = code.dtype
    scaled = [_at(_product(inputs), axis, 0)]
    for n in range(1, count):
        scaled.append(_product([_at(_product(inputs), axis, n), Const(2.0 ** (-width * n), dtype)]))
    rest = [Call("sub", (a, b), dtype) for a, b in pairwise(scaled)]
    masks = [(1 << width * (n + 1)) - 1 for n in range(count)]
    low = [_folded(Call("and", (data, Const(mask, data.dtype)), data.dtype)) for mask in masks]
    terms = zip([*rest, scaled[-1]], low, strict=True)
    return [_product([x, Call("cast", (bits,), dtype)]) for x, bits in terms]


def _code(e: Expr, axis: str, count: int) -> tuple[Expr, int] | None:
    """The integer whose low bits the codes along an axis are, one after the other, and the bits of each."""
    match e:
        case Call("cast", (Call("and", (Call("shr", (data, by)), Const(value=mask))),)) if e.dtype == f32:
            width = int(mask).bit_length()
            shifts = [_at(by, axis, n) for n in range(count)]
            in_order = all(isinstance(s, Const) and s.value == n * width for n, s in enumerate(shifts))
            known = axis not in free_axes(data) and largest_code(data) is not None
            return (data, width) if known and in_order and int(mask) == (1 << width) - 1 else None
    return None


def _terms(e: Expr, axis: str) -> list[list[Expr]]:
    """A product as a sum of products: a factor that adds what depends on it and what does not is multiplied out."""
    match e:
        case Call("cast", (Call("sub", (a, Const(value=offset))),), dtype) if dtype == f32 and _is_code(a):
            return [[Call("cast", (a,), dtype)], [Const(-float(offset), dtype)]]
        case Call("mul", (a, b)) if e.dtype.is_float:
            return [[*x, *y] for x in _terms(a, axis) for y in _terms(b, axis)]
        case Call("add", (a, b)) if e.dtype.is_float and (axis in free_axes(a)) != (axis in free_axes(b)):
            return [*_terms(a, axis), *_terms(b, axis)]
        case Call("sub", (a, b)) if e.dtype.is_float and (axis in free_axes(a)) != (axis in free_axes(b)):
            return [*_terms(a, axis), *([Const(-1.0, e.dtype), *f] for f in _terms(b, axis))]
    return [[e]]


def _is_code(e: Expr) -> bool:
    """Whether it is an integer of few bits, so that f32 holds it and what it is off exactly."""
    most = largest_code(e)
    return most is not None and most < 1 << 8 and e.dtype.bytes >= 2


def _at(e: Expr, axis: str, place: int) -> Expr:
    return transform(substitute_axes(e, {axis: Const(place, i64)}), _folded)


def _folded(e: Expr) -> Expr:
    """Shifts by nothing and masks that take nothing away."""
    match e:
        case Call("cast", (Const(value=v),), dtype) if not dtype.is_float and isinstance(v, int):
            return Const(v, dtype)
        case Call("shr", (data, Const(value=0))):
            return data
        case Call("and", (data, Const(value=mask))) if (most := largest_code(data)) is not None and most <= mask:
            return data if (int(mask) + 1).bit_count() == 1 else e
    return e


def _added(total: Expr, e: Expr) -> Expr:
    """A sum with one more term, which is a product as a rule: then both are rounded once."""
    match e:
        case Call("mul", (a, b)):
            return Call("mul_add", (a, b, total), e.dtype)
    return Call("add", (total, e), e.dtype)


def _product(parts: Sequence[Expr]) -> Expr:
    return fold(lambda a, b: Call("mul", (a, b), a.dtype), parts)
