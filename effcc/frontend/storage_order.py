"""What `as_strided` addresses: the memory behind a tensor, in the order in which eager lays its elements out.

Values of a graph have no memory, so a tensor is found that fills the memory, and axes are put in the order in which it
is row-major there: strides and offsets mean the same on that tensor as they do in eager.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, fx

from effcc.frontend.extern import LaidOut, make_template, target_name
from effcc.frontend.importer import Importer, aten, same_strides, strided
from effcc.frontend.sizes import shape, size
from effcc.ir.dims import Dim, Shape, contiguous_strides, dim
from effcc.ir.graph import Value

_COPIES_IN_PLACE = {
    aten.as_strided_scatter.default, aten.slice_scatter.default, aten.select_scatter.default,
    aten.diagonal_scatter.default,
}  # fmt: skip
"""Their results begin in a storage where the tensor did that they are a copy of; of some, capture says at 0."""


def begin_of(node: fx.Node) -> Dim:
    """At which place of its storage a node's tensor begins."""
    while node.target in _COPIES_IN_PLACE:
        node = node.args[0]  # type: ignore[assignment]
    return size(node.meta["val"].storage_offset())


def addressed_input(node: fx.Node) -> fx.Node | None:
    """The input in whose storage a node's tensor has its place, if it is one."""
    *_, first = viewed_nodes(node)
    while first.target in _COPIES_IN_PLACE:
        *_, first = viewed_nodes(first.args[0])  # type: ignore[arg-type]
    return first if first.op == "placeholder" else None


@dataclasses.dataclass(frozen=True)
class Memory:
    """A node whose elements, with axes in the order `perm`, are row-major from place `offset` of the storage on."""

    node: fx.Node
    perm: tuple[int, ...]
    offset: Dim


def memory_behind(node: fx.Node, sizes: Sequence[Dim], strides: Sequence[Dim], offset: Dim) -> Memory | None:
    """The nearest tensor, `node` or one that it is a view of, that holds all that the sizes and strides address.

    None where there is none: the memory is only in part that of a tensor of the graph.
    """
    last = _last(sizes, strides, offset)
    for candidate in viewed_nodes(node):
        value = candidate.meta["val"]
        begin, lengths = begin_of(candidate), shape(value.shape)
        perm = _storage_order(lengths, shape(value.stride()))
        if perm is not None and _inside(offset, last, begin, size(value.numel())):
            return Memory(candidate, perm, begin)
    return None


def viewed_nodes(node: fx.Node) -> Iterator[fx.Node]:
    """The node, then those before it that share its storage."""
    storage = node.meta["val"].untyped_storage()._cdata
    while True:
        yield node
        source = node.args[0] if node.op == "call_function" and node.args else None
        value = source.meta.get("val") if isinstance(source, fx.Node) else None
        if not isinstance(source, fx.Node) or not isinstance(value, Tensor):
            return
        if value.untyped_storage()._cdata != storage:
            return
        node = source


def _storage_order(
    sizes: Shape, strides: Shape, hint: Callable[[Dim], int | None] = lambda _: None
) -> tuple[int, ...] | None:
    """The order of axes under which sizes and strides are row-major; None where there is none, or none is known.

    hint: the value of a symbolic stride in the example inputs, by which the order is guessed before it is proved.
    """
    identity = tuple(range(len(sizes)))
    if strided(sizes, strides) is None:
        return identity
    steps = [s if isinstance(s, int) else hint(s) for s in strides]
    if any(s is None for s in steps):
        return None
    perm = tuple(sorted(identity, key=lambda a: (sizes[a] != 1, -(steps[a] or 0))))
    plain = strided(tuple(sizes[a] for a in perm), tuple(strides[a] for a in perm)) is None
    return perm if plain else None


def _inside(first: Dim, last: Dim, begin: Dim, count: Dim) -> bool:
    """Whether first..last are among the `count` places from `begin` on; where sizes are symbols, eager has checked."""
    if all(isinstance(d, int) for d in (first, last, begin, count)):
        return begin <= first and last < begin + count
    return begin == 0


def _last(sizes: Sequence[Dim], strides: Sequence[Dim], offset: Dim) -> Dim:
    """The last place that sizes and strides address from `offset` on."""
    return dim(offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)))


def scatter_in_memory(
    m: Importer, x: Value, written: fx.Node, source: Value, sizes: Shape, strides: Shape, offset: Dim
) -> Value:
    """`x` with `source` written at the places of its memory that sizes, strides and offset address.

    written: the node that is x. Where it is row-major and holds all those places, PyTorch writes them; else both it and
    the source are written into memory made for it, and it is read from there.
    """
    seen, begin = written.meta["val"], begin_of(written)
    lengths, steps = shape(seen.shape), shape(seen.stride())
    if strided(lengths, steps) is None and _inside(offset, _last(sizes, strides, offset), begin, size(seen.numel())):
        return _scattered(m, x, source, sizes, strides, dim(offset - begin))
    ends = (_last(lengths, steps, begin), _last(sizes, strides, offset))
    known = all(isinstance(e, int) for e in ends)
    count = max(ends) + 1 if known else dim(sum(ends) + 2)
    empty = m.broadcast(m.constant(0, x.type.dtype), (count,))
    memory = _scattered(m, _scattered(m, empty, x, lengths, steps, begin), source, sizes, strides, offset)
    return m.emit("as_strided", memory, shape=lengths, strides=steps, offset=begin)


def _scattered(m: Importer, x: Value, source: Value, sizes: Shape, strides: Shape, offset: Dim) -> Value:
    operands, template = make_template((x, source, sizes, strides, offset), {})
    return m.node(
        "extern", *operands, target=target_name(aten.as_strided_scatter.default), template=template,
        results=((x.type.dtype, x.type.shape),), reason="no-op", why="where an element goes depends on strides",
    ).result  # fmt: skip


def laid_out(m: Importer, x: Value, seen: Tensor) -> Value | LaidOut:
    """A tensor for PyTorch, as it lies in eager's memory: draws fill memory in its order, and `linalg.det` reads it.

    seen: the tensor as capture saw it: of an input with strides, perhaps a row-major copy. Row-major where elements
    share memory.
    """
    lengths, steps = shape(seen.shape), shape(seen.stride())
    captured = strided(lengths, steps)
    shares = any(s == 0 and n != 1 for n, s in zip(lengths, steps, strict=True))
    if x in m.builder.params:
        copied = contiguous_strides(lengths) if shares else steps
        return x if same_strides(x.type.strides, captured) else LaidOut(x, strides=copied)
    if captured is None or shares:
        return x
    perm = _storage_order(lengths, steps, m.hint)
    if perm is None or x.type.dtype.is_carried:
        return LaidOut(x, strides=steps)
    return LaidOut(m.transpose(x, perm), tuple(perm.index(axis) for axis in range(len(perm))))
