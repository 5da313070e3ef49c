"""Values of a program: Python text for a block with named axes, and how blocks of different axes are brought together.

A value over the axes (m, k) is a two-dimensional block, one over no axes a scalar, which meets any block as it is. In a
statement all values keep the statement's order of axes, so that what a value lacks is inserted as `None`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from effcc.codegen.triton.spelling import AND, ATOM, TYPES, computed
from effcc.ir.dtypes import DType, boolean, i64


@dataclass(frozen=True)
class Value:
    """The text of a value, its axes in order, its dtype, and how tightly the text binds.

    `narrow` marks index arithmetic that is kept in 32 bits although its dtype is i64; `constant` a Python number.
    """

    text: str
    axes: tuple[str, ...]
    dtype: DType
    binding: int = ATOM
    narrow: bool = False
    constant: bool = False

    def within(self, binding: int) -> str:
        """The text as an operand of an operator that binds as given."""
        return self.text if self.binding > binding else f"({self.text})"


@dataclass(frozen=True)
class Shape:
    """The block axes of a statement, in order, with their extents."""

    extents: Mapping[str, int]

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(self.extents)

    def union(self, values: Iterable[Value]) -> tuple[str, ...]:
        """The axes of all values together, in the statement's order."""
        present = {a for v in values for a in v.axes}
        return tuple(a for a in self.extents if a in present)

    def sizes(self, axes: Sequence[str]) -> str:
        """The shape of a block over `axes`, as a Python tuple."""
        extents = [str(self.extents[a]) for a in axes]
        return f"({extents[0]},)" if len(extents) == 1 else f"({', '.join(extents)})"

    def expand(self, value: Value, axes: Sequence[str]) -> Value:
        """The value with an extent of one along the axes it lacks; a scalar stays one."""
        if value.axes == tuple(axes) or not value.axes:
            return value
        slots = ", ".join(":" if a in value.axes else "None" for a in axes)
        return replace(value, text=f"{value.within(ATOM - 1)}[{slots}]", axes=tuple(axes), binding=ATOM)

    def fill(self, value: Value, axes: Sequence[str]) -> Value:
        """The value repeated along the axes it lacks: a block of the full shape."""
        if value.axes == tuple(axes):
            return value if axes or not value.constant else self.full(value, ())
        if value.constant:
            return self.full(value, axes)
        if value.dtype == i64 and not value.axes:  # it may be a loop's variable, which the interpreter keeps as an int
            value = converted(value, "tl.int32" if value.narrow else "tl.int64")
        text = f"tl.broadcast_to({self.expand(value, axes).text}, {self.sizes(axes)})"
        return replace(value, text=text, axes=tuple(axes), binding=ATOM)

    def full(self, value: Value, axes: Sequence[str]) -> Value:
        """A block of one constant. (bf16 by way of f32: the interpreter makes no bf16 constants.)"""
        text = f"tl.full({self.sizes(axes)}, {value.text}, {TYPES[computed(value.dtype)]})"
        if computed(value.dtype) != value.dtype:
            text += f".to({TYPES[value.dtype]})"
        return replace(value, text=text, axes=tuple(axes), binding=ATOM, constant=False, narrow=False)

    def permute(self, value: Value, axes: Sequence[str]) -> Value:
        """The value with its axes in another order."""
        if value.axes == tuple(axes):
            return value
        order = ", ".join(str(value.axes.index(a)) for a in axes)
        return replace(value, text=f"tl.permute({value.text}, ({order}))", axes=tuple(axes), binding=ATOM)

    def all_of(self, masks: Sequence[Value]) -> Value | None:
        """The conjunction of masks; None for none."""
        if len(masks) < 2:
            return masks[0] if masks else None
        axes = self.union(masks)
        text = " & ".join(self.expand(m, axes).within(AND) for m in masks)
        return Value(text, axes, boolean, AND)


def widened(value: Value) -> Value:
    """The value in its own dtype, where index arithmetic was kept in 32 bits."""
    if not value.narrow or value.constant:
        return value
    return replace(converted(value, "tl.int64"), dtype=i64, narrow=False)


def converted(value: Value, type_name: str) -> Value:
    """The value's text cast to a Triton type."""
    text = f"{value.within(ATOM - 1)}.to({type_name})" if value.axes else f"tl.cast({value.text}, {type_name})"
    return replace(value, text=text, binding=ATOM, constant=False)
