"""How a load moves through memory when one axis steps: the facts that decide lanes, packing and layouts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from effcc.ir.affine import coefficient
from effcc.ir.dims import Dim, Shape, contiguous_strides, dim
from effcc.ir.expr import Load
from effcc.ir.kernel import Kernel
from effcc.target import PAGE_BYTES

CONTIGUOUS_LOAD = 1.0
"""The unit: one vector load."""
PACKED_LOAD = 0.8 * CONTIGUOUS_LOAD
"""One vector of an operand that will be packed: contiguous, aligned, and no page of its own."""
BROADCAST_LOAD = 0.5
"""One element for all lanes: it stays in a register over many vectors."""
SHUFFLED_LOAD = 2 * CONTIGUOUS_LOAD
"""A vector of elements of which every second or fourth is wanted, by that number: they are loaded, and shuffled
(`load_apart`); of elements widened as they are loaded, only bytes are. Neighbours read backwards are one load."""
STRIDED_LOAD, GATHERED_LOAD = 12.0, 20.0
"""A load and an insertion for each of 16 lanes, of which some overlap; gathered, an index for each lane besides."""
FAR = 2.0
"""By how many times dearer such loads are whose lanes have pages of their own: translations, and sets of L1 that
their lines share (planes of 64 x 64 pixels across the lanes: 13 ms, gathered along rows 1.3)."""
APART_STORE = 2.0
"""By how many times dearer stores are: there is one port, and each lane is taken out of its vector first."""


def stride(load: Load, axis: str, layout: Shape) -> Dim | None:
    """By how many elements the load's address moves when `axis` steps by one; None where it moves unevenly."""
    total: Dim = 0
    for index, step in zip(load.index, layout, strict=True):
        c = coefficient(index, axis)
        if c is None:
            return None
        total = total + c * step
    return dim(total)


def layouts(kernel: Kernel, lanes: Mapping[str, str] = MappingProxyType({})) -> dict[str, Shape]:
    """The strides of every buffer of a kernel: as typed for parameters and outputs, row-major for intermediates.

    lanes: an axis for intermediates that have it innermost, whatever their order of axes.
    """
    extents = kernel.extents
    found: dict[str, Shape] = {}
    for s in reversed(kernel.statements):
        order = sorted(s.axes, key=lambda a: a == lanes.get(s.target, ""))
        steps = dict(zip(order, contiguous_strides(tuple(extents[a] for a in order)), strict=True))
        found[s.target] = tuple(steps[a] for a in s.axes)
    found.update({p.name: p.type.layout for p in kernel.signature})
    return found


def lane_cost(load: Load, axis: str, layout: Mapping[str, Shape]) -> float:
    """Cost of loading one vector along `axis`, in vector loads: one broadcast, one load, or a load for each lane."""
    step = stride(load, axis, layout[load.buffer])
    if step is None:
        return GATHERED_LOAD
    if step == 0:
        return BROADCAST_LOAD
    if step in (2, 4) and load.dtype.bytes != 2:
        return int(step) * SHUFFLED_LOAD
    if step == 1:
        return CONTIGUOUS_LOAD
    if step == -1:
        return SHUFFLED_LOAD
    far = not isinstance(step, int) or abs(step) * load.dtype.bytes >= PAGE_BYTES
    return STRIDED_LOAD * (FAR if far else 1.0)


def store_cost(place: Load, axis: str, layout: Mapping[str, Shape]) -> float:
    """Cost of storing one vector along `axis` where `place` would read it, in vector loads."""
    step = stride(place, axis, layout[place.buffer])
    if step in (0, 1):
        return lane_cost(place, axis, layout)
    return APART_STORE * max(lane_cost(place, axis, layout), STRIDED_LOAD)
