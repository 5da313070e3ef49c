"""From three passes over an axis to one: reductions that follow a running maximum (or another reduction) online.

Given `M[i] = max(n: S[i,n])`, every `sum(n: f(S[i,n] - M[i]) * v)` with f = exp satisfies
f(x - m) = f(x - m') * f(m' - m), so it can be accumulated while M is still growing, if the partial sum is multiplied by
f(m' - m) whenever m' becomes m. Division by something that does not depend on n moves out of the sum first. This is how
softmax attention becomes one pass (Milakov and Gimelshein, arXiv:1805.02867; FlashAttention, arXiv:2205.14135; stated
on cascades by FuseMax, arXiv:2406.10491). Nothing here knows attention: masks, biases, windows and several outputs
follow from the same rewrite.

How far that may be off: factors f(m' - m) are at most 1, so what is carried neither overflows nor loses more than one
rounding a tile. A sum that is divided last may overflow where its quotients' sum would not: for n values of magnitude
beyond 3e38 / n in a row (PyTorch's flash attention adds in this order too; README says so).
"""

from __future__ import annotations

import math
from dataclasses import replace

from effcc.ir.dependences import shared_axes
from effcc.ir.dtypes import boolean
from effcc.ir.expr import Axis, Call, Const, Expr, Load, cast, free_axes, loads, substitute_axes, where
from effcc.ir.kernel import Kernel, Statement


def make_online(kernel: Kernel) -> Kernel:
    """The kernel with its exponential sums made online, where it contains a product that follows them."""
    if any(s.scatter is not None for s in kernel.statements):
        return kernel  # a scatter must see its target whole, once
    given, kernel = kernel, _read_through_guards(kernel)
    maximum = _maximum(kernel)
    if maximum is None:
        return given
    index, axis = maximum
    moved = _move_divisions_out(kernel, axis)
    rescaled = _rescale(moved, kernel.statements[index], axis)
    if rescaled is None or _pending(rescaled, axis) or _unbounded(rescaled):
        return given
    return rescaled


def _read_through_guards(kernel: Kernel) -> Kernel:
    """The kernel with what is computed of maxima alone read through: what follows `where(M[i] == -inf, 0, M[i])`
    follows M.
    """
    outputs = {p.name for p in kernel.outputs}
    maxima = {s.target for s in kernel.statements if s.reduction is not None and s.reduction.operator == "max"}
    guards: dict[str, Statement] = {}

    def through(e: Expr) -> Expr:
        if not isinstance(e, Load) or e.buffer not in guards:
            return e
        s = guards[e.buffer]
        return substitute_axes(s.value, dict(zip(s.axes, e.index, strict=True)))

    kept: list[Statement] = []
    for given in kernel.statements:
        s = given.transformed(through)
        of_maxima = bool(s.reads) and all(x.buffer in maxima and x.index == tuple(map(Axis, s.axes)) for x in s.reads)
        if of_maxima and s.reduction is None and s.target not in outputs:
            guards[s.target] = s
        else:
            kept.append(s)
    return kernel.with_statements(tuple(kept)) if guards else kernel


def _maximum(kernel: Kernel) -> tuple[int, str] | None:
    """The statement `M = max(n: S)` whose exponential sums end in a sum of products over n, and n."""
    for position, s in enumerate(kernel.statements):
        if s.reduction is None or s.reduction.operator != "max" or len(s.reduction.axes) != 1:
            continue
        axis = s.reduction.axes[0]
        for later in kernel.statements[position + 1 :]:
            if later.reduction is not None and axis in later.reduction.axes and len(later.axes) > len(s.axes):
                return position, axis
    return None


def _exponential(kernel: Kernel, maximum: Statement) -> set[str]:
    """Targets defined as exp(x - M[i]), at the maximum's own axes and the reduced one."""
    found = set()
    for s in kernel.statements:
        match s.value:
            case Call("exp", (Call("sub", (_, peak)),)) if _unguarded(peak) == maximum.target:
                found.add(s.target)
    return found


def _unguarded(peak: Expr) -> str | None:
    """The buffer that is read, as it is or as 0 where it is -inf; None for anything else."""
    match peak:
        case Load(buffer):
            return buffer
        case Call("where", (Call("eq", (Load() as read, Const(value=low))), Const(value=0), Load(buffer) as same)):
            return buffer if read == same and low == -math.inf else None
    return None


def _move_divisions_out(kernel: Kernel, axis: str) -> Kernel:
    """`P = E / D; O = sum(n: P * V)` becomes `O' = sum(n: E * V); O = O' / D` where D does not depend on n."""
    definitions = {s.target: s for s in kernel.statements}
    outputs = {p.name for p in kernel.outputs}
    result: list[Statement] = []
    for s in kernel.statements:
        reduce = s.reduction
        if reduce is None or reduce.operator != "sum" or reduce.axes != (axis,):
            result.append(s)
            continue
        divisor: Expr | None = None

        def through(e: Expr) -> Expr:
            nonlocal divisor
            if not isinstance(e, Load) or e.buffer not in definitions:
                return e
            d = definitions[e.buffer]
            match d.value:
                case Call("div", (above, below)):
                    indices = dict(zip(d.axes, e.index, strict=True))
                    low = substitute_axes(below, indices)
                    if axis in free_axes(low) or divisor is not None:
                        return e
                    divisor = low
                    return substitute_axes(above, indices)
            return e

        match reduce.body:
            case Call("mul", (left, right)):
                body = Call("mul", (through(left), right if divisor is not None else through(right)), reduce.body.dtype)
                if divisor is None:
                    result.append(s)
                    continue
                name = f"{s.target}_sum"
                axes = tuple(a for a in s.axes if kernel.extents[a] != 1)
                result.append(Statement(name, axes, replace(reduce, body=body)))
                partial = Load(name, tuple(Axis(a) for a in axes), reduce.dtype)
                result.append(Statement(s.target, s.axes, Call("div", (partial, divisor), reduce.dtype)))
            case _:
                result.append(s)
    read = {load.buffer for s in result for load in s.reads}
    return kernel.with_statements(tuple(s for s in result if s.target in read or s.target in outputs))


def _rescale(kernel: Kernel, maximum: Statement, axis: str) -> Kernel | None:
    """Every sum over `axis` that is linear in an exponential of the maximum, made online."""
    exponentials = _exponential(kernel, maximum)
    result: list[Statement] = []
    for s in kernel.statements:
        reduce = s.reduction
        if reduce is None or axis not in reduce.axes or s.target == maximum.target:
            result.append(s)
            continue
        reads = [load for load in loads(reduce.body) if load.buffer in exponentials]
        touches = any(load.buffer == maximum.target for load in loads(reduce.body))
        if not reads and not touches:
            result.append(s)
            continue
        if touches or len(reads) != 1 or reduce.operator != "sum" or not _linear(reduce.body, reads[0]):
            return None
        at = tuple(i for i in reads[0].index if free_axes(i) != {axis})
        new = Load(maximum.target, at, reads[0].dtype)
        old = replace(new, before=True)
        # Equal maxima, both -inf included, leave the sum alone: exp(-inf - -inf) would be NaN.
        factor = Call("exp", (Call("sub", (old, new), new.dtype),), new.dtype)
        guarded = where(Call("eq", (old, new), boolean), Const(1.0, new.dtype), factor)
        result.append(Statement(s.target, s.axes, replace(reduce, rescale=cast(guarded, reduce.dtype))))
    return kernel.with_statements(tuple(_guard(s, exponentials) for s in result))


def _guard(s: Statement, exponentials: set[str]) -> Statement:
    """exp(x - m) with m read as 0 while it is -inf: such a tile contributes nothing, and must not contribute NaN."""
    if s.target not in exponentials:
        return s
    match s.value:
        case Call("exp", (Call("sub", (x, Load() as m)),)):
            low = Const(-math.inf, m.dtype)
            safe = where(Call("eq", (m, low), boolean), Const(0.0, m.dtype), m)
            return replace(s, value=Call("exp", (Call("sub", (x, safe), x.dtype),), x.dtype))
    return s


def _unbounded(kernel: Kernel) -> bool:
    """Whether a partial sum has a run-time size beside the axes that points run on their own: no buffer holds it."""
    shared = shared_axes(kernel)
    return any(
        not isinstance(kernel.extents[a], int)
        for s in kernel.statements
        if s.reduction is not None and s.reduction.rescale is not None
        for a in s.axes
        if a not in shared
    )


def _linear(body: Expr, load: Load) -> bool:
    """Whether `body` is `load`, or a product with it as one factor (through casts)."""
    match body:
        case Load():
            return body == load
        case Call("cast", (inner,)):
            return _linear(inner, load)
        case Call("mul", (left, right)):
            inside_left = any(x == load for x in loads(left))
            inside_right = any(x == load for x in loads(right))
            if inside_left == inside_right:
                return False
            return _linear(left if inside_left else right, load)
    return False


def _pending(kernel: Kernel, axis: str) -> list[Statement]:
    """Statements over `axis` that read a finished reduction over it, so that one pass is not enough."""
    finished = {s.target for s in kernel.statements if s.reduction is not None and axis in s.reduction.axes}
    online = {s.target for s in kernel.statements if s.reduction is not None and s.reduction.rescale is not None}
    maxima = {
        load.buffer
        for s in kernel.statements
        if s.reduction is not None and s.reduction.rescale is not None
        for load in loads(s.reduction.rescale)
    }
    # What is computed of a finished reduction, off the axis, waits for it too.
    behind: set[str] = set()
    for s in kernel.statements:
        if axis not in s.all_axes and {load.buffer for load in s.reads} & (finished | behind):
            behind.add(s.target)
    pending = []
    for s in kernel.statements:
        over = axis in s.axes or (s.reduction is not None and axis in s.reduction.axes)
        reads = {load.buffer for load in s.reads}
        if (over and reads & (finished - maxima | online | behind) - {s.target}) or _reads_elsewhere(kernel, s, axis):
            pending.append(s)
    return pending


def _reads_elsewhere(kernel: Kernel, s: Statement, axis: str) -> bool:
    """Whether a statement reads what is defined over `axis` at a point of it that is not its own: that is not there."""
    definitions = {d.target: d.axes for d in kernel.statements if axis in d.axes}
    return any(
        a == axis and index != Axis(axis)
        for load in s.reads
        if load.buffer in definitions
        for a, index in zip(definitions[load.buffer], load.index, strict=True)
    )
