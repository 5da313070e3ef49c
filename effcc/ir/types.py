"""Tensor types: dtype, shape, layout (strides) and encoding, all part of one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from effcc.ir.dims import Dim, Shape, contiguous_strides, dim, product, same_shape, show
from effcc.ir.dtypes import DType
from effcc.ir.encoding import Encoding


@dataclass(frozen=True)
class TensorType:
    """`dtype[shape]`, stored with `strides` (in elements; None: row-major) and, for a stored weight, an `encoding`.

    Text: `f32[s0,384]`, `f32[4,8]{1,4}` with strides, `f32[1536,384] = int8(per="channel")` with an encoding.
    """

    dtype: DType
    shape: Shape
    strides: Shape | None = None
    encoding: Encoding | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def sizes(self) -> Shape:
        """Everything in it that may be a run-time size: the shape, and the strides where they are not row-major."""
        return (*self.shape, *(self.strides or ()))

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def layout(self) -> Shape:
        """The strides in elements, row-major unless said otherwise."""
        return contiguous_strides(self.shape) if self.strides is None else self.strides

    @property
    def extent(self) -> Dim:
        """Elements of memory from the first one to past the last: more than there are where rows lie apart."""
        if 0 in self.shape:
            return 0
        return dim(1 + sum((size - 1) * step for size, step in zip(self.shape, self.layout, strict=True)))

    @property
    def is_contiguous(self) -> bool:
        return self.strides is None or same_shape(self.strides, contiguous_strides(self.shape))

    def plain(self) -> TensorType:
        """The same tensor, row-major and without an encoding."""
        return self if self.strides is None and self.encoding is None else TensorType(self.dtype, self.shape)

    def __str__(self) -> str:
        text = f"{self.dtype.name}[{','.join(show(d) for d in self.shape)}]"
        if self.strides is not None:
            text += "{" + ",".join(show(s) for s in self.strides) + "}"
        if self.encoding is not None:
            text += f" = {self.encoding}"
        return text


def tensor(dtype: DType, *shape: Dim) -> TensorType:
    """A plain row-major tensor type."""
    return TensorType(dtype, tuple(shape))
