"""Functions by name that rules use to compute attributes and numbers of the replacement.

Arguments are attributes, numbers and, for `%x`, the tensor's Value. A function that has no value for its arguments
gives UNDEFINED, and then the rule does not fire.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from effcc.ir.dims import Dim, Shape, dim, product
from effcc.ir.dtypes import DType
from effcc.ir.graph import Value
from effcc.ir.table.movement import slice_bounds

UNDEFINED = object()
Axes = tuple[int, ...]


def shape(x: Value) -> Shape:
    return x.type.shape


def dtype(x: Value) -> DType:
    return x.type.dtype


def compose(p: Axes, q: Axes) -> Axes:
    """The permutation of transpose(transpose(x) {perm=p}) {perm=q} as one."""
    return tuple(p[i] for i in q)


def inverse_permutation(p: Axes) -> Axes:
    return tuple(p.index(i) for i in range(len(p)))


def normalized(axes: Axes | None, rank: int) -> Axes:
    """A reduction's axes, nonnegative and in order; None is all of them. A 0-d tensor has none, whatever they say."""
    return tuple(range(rank)) if axes is None else tuple(sorted({a % rank for a in axes if rank}))


def merged_axes(x: Value, inner: Axes | None, outer: Axes | None) -> Any:
    """The axes of x that a reduction over `inner`, axes dropped, and then over `outer` reduces."""
    first = normalized(inner, x.type.rank)
    kept = [i for i in range(x.type.rank) if i not in first]
    second = normalized(outer, len(kept))
    return tuple(sorted({*first, *(kept[a] for a in second)})) if kept else first


def united_axes(x: Value, inner: Axes | None, outer: Axes | None) -> Axes:
    """The axes of x that a reduction over `inner`, axes kept, and then over `outer` reduces."""
    return tuple(sorted({*normalized(inner, x.type.rank), *normalized(outer, x.type.rank)}))


def count_of(x: Value, axes: Axes | None) -> Any:
    """The number of elements over `axes`, where it is known."""
    size = product(x.type.shape[a] for a in normalized(axes, x.type.rank))
    return size if isinstance(size, int) else UNDEFINED


def copies(x: Value, shape: Shape) -> Any:
    """How often broadcasting x to `shape` repeats it along axes that x lacks, where that is known."""
    count = product(shape[: max(len(shape) - x.type.rank, 0)])
    return count if isinstance(count, int) else UNDEFINED


def times(a: Any, b: Any) -> Any:
    return a * b


def plus(a: Any, b: Any) -> Any:
    return a + b


def inverse(a: float) -> Any:
    return 1 / a if a else UNDEFINED


def larger(a: Any, b: Any) -> Any:
    return UNDEFINED if _unordered(a, b) else max(a, b)


def smaller(a: Any, b: Any) -> Any:
    return UNDEFINED if _unordered(a, b) else min(a, b)


def _unordered(a: Any, b: Any) -> bool:
    """Whether one is NaN, or they are the two zeros, of which neither is the larger."""
    return bool(a != a or b != b or (a == b == 0 and repr(a) != repr(b)))


def only(axes: Axes) -> Any:
    """The axis of a reduction over one."""
    return axes[0] if axes is not None and len(axes) == 1 else UNDEFINED


def axis(x: Value, position: int) -> int:
    """A position of an axis of x, nonnegative."""
    return position % max(x.type.rank, 1)


def length(axes: Axes | None) -> Any:
    return len(axes) if axes is not None else UNDEFINED


def bound(x: Value, axis: int, position: Dim | None) -> Any:
    """A slice's start or end on an axis of x, counted from the front and inside (null: the end)."""
    size = x.type.shape[axis]
    if position is None:
        return size
    return slice_bounds(size, position, None, 1)[0]


def size(x: Value, axis: int) -> Dim:
    return x.type.shape[axis]


def before(x: Value, axis: int, position: Dim) -> Any:
    """A position on `axis` of x, as a position after x."""
    return dim(position - x.type.shape[axis])


def column(x: Value) -> Shape:
    """The shape of a vector that scales each row of the matrix, or each first-axis slice of the tensor x."""
    return (x.type.shape[0], *(1,) * (x.type.rank - 1))


def channels(x: Value) -> Shape:
    """The shape of a vector that scales each channel of x[n, c, ...]."""
    return (x.type.shape[1], *(1,) * (x.type.rank - 2))


def spatial(padding: Sequence[int]) -> tuple[int, ...]:
    """The entries of a per-axis list of x[n, c, ...] that belong to the spatial axes."""
    return tuple(padding[2:])


def added(a: Sequence[Any], b: Sequence[Any]) -> Any:
    """Entry by entry."""
    return tuple(x + y for x, y in zip(a, b, strict=True)) if len(a) == len(b) else UNDEFINED


def matmul_spec(a: Value, b: Value, p: Axes | None, q: Axes | None) -> Any:
    """matmul(transpose(a) {perm=p}, transpose(b) {perm=q}) as an einsum over a and b; null: not transposed."""
    rank = a.type.rank
    if rank != b.type.rank or rank > 20:
        return UNDEFINED
    batch = "abcdefghijlopqrstuvw"[: rank - 2]
    left = _permuted(f"{batch}mk", p)
    right = _permuted(f"{batch}kn", q)
    return f"{left},{right}->{batch}mn"


def _permuted(labels: str, perm: Axes | None) -> str:
    """The labels of x where transpose(x) {perm} has `labels`."""
    return labels if perm is None else "".join(labels[i] for i in inverse_permutation(perm))


def relabelled(spec: str, operand: int, perm: Axes) -> str:
    """An einsum's spec where an operand is read without the transpose by `perm` before it."""
    left, right = spec.split("->")
    terms = left.split(",")
    terms[operand] = _permuted(terms[operand], perm)
    return f"{','.join(terms)}->{right}"


def rearranged(spec: str, perm: Axes) -> str:
    """An einsum's spec with the transpose by `perm` after it."""
    left, right = spec.split("->")
    return f"{left}->{''.join(right[p] for p in perm)}"


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        shape, dtype, compose, merged_axes, united_axes, count_of, copies, times, plus, inverse, larger, smaller, only,
        axis, length, bound, size, before, column, channels, spatial, added, matmul_spec, relabelled, rearranged,
    )
}  # fmt: skip
