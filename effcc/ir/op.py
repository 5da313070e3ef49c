"""What the table knows of one op: operands, attributes, type rule, NumPy reference, index form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from effcc.errors import IRTypeError, UnknownNameError
from effcc.ir.dims import Dim, same, show
from effcc.ir.form import Form
from effcc.ir.types import TensorType

if TYPE_CHECKING:
    from effcc.ir.graph import Attribute, Graph

REQUIRED = object()
Types = tuple[TensorType, ...]
Infer = Callable[[Types, Mapping[str, Any]], "TensorType | Types"]
Reference = Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """One row of the op table.

    `kind`: `pointwise`, `reduction`, `contraction`, `norm`, `view` (each result element is one operand element),
    `create`, `gather`, `scatter`, `scan`, `control` or `opaque`. `arity`: the least and most operands (None: any
    number). `attrs`: name to default (`REQUIRED` for none). `infer(operand types, attrs)` gives the result type or
    types and raises IRTypeError. `reference(*arrays, **attrs)` computes them with NumPy. `form` states the index
    form; ops without one are run by PyTorch (`extern`) or have regions. `strided`: its result is its operand, seen with
    other sizes and strides, so that nothing need be computed. `of_bits`: it depends on how its operands are stored, so
    that one that is interpreted in a wider dtype is rounded to its own first.
    """

    name: str
    kind: str
    arity: tuple[int, int | None]
    infer: Infer
    reference: Reference | None
    summary: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    form: Form | None = None
    strided: bool = False
    of_bits: bool = False

    def complete_attrs(self, given: Mapping[str, Attribute]) -> dict[str, Any]:
        """`given` with defaults filled in; raises on unknown or missing attributes."""
        for name in given:
            if name not in self.attrs:
                raise UnknownNameError(f"attribute of op {self.name!r}", name, self.attrs)
        complete = {name: given.get(name, default) for name, default in self.attrs.items()}
        for name, value in complete.items():
            if value is REQUIRED:
                shown = f"{self.name} ... {{{name}=...}}"
                raise IRTypeError(f"op {self.name!r} needs the attribute {name!r}; give it in braces: {shown}")
        return complete

    def infer_types(self, operands: Types, attrs: Mapping[str, Any], regions: tuple[Graph, ...] = ()) -> Types:
        """The types of the results; raises IRTypeError naming the op where operands do not fit."""
        least, most = self.arity
        if len(operands) < least or (most is not None and len(operands) > most):
            expected = f"{least}" if least == most else f"{least} to {most if most is not None else 'any number of'}"
            raise IRTypeError(f"op {self.name!r} expected {expected} operands, got {len(operands)}")
        try:
            types = self.infer(operands, {**attrs, "regions": regions} if self.kind == "control" else attrs)
        except IRTypeError as error:
            shown = ", ".join(str(t) for t in operands)
            raise IRTypeError(f"op {self.name!r} on ({shown}): {error}") from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            shown = ", ".join(f"{name}={value!r}" for name, value in attrs.items())
            raise IRTypeError(
                f"op {self.name!r}: an attribute of {{{shown}}} is of the wrong kind ({error!r})"
            ) from error
        return types if isinstance(types, tuple) else (types,)


def require(condition: bool, message: str) -> None:
    """Raise IRTypeError with `message` unless `condition` holds."""
    if not condition:
        raise IRTypeError(message)


def broadcast_shapes(shapes: Sequence[Sequence[Dim]]) -> tuple[Dim, ...]:
    """The NumPy broadcast of shapes; sizes must be provably equal or 1."""
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    result: list[Dim] = []
    for sizes in zip(*padded, strict=True):
        size: Dim = 1
        for candidate in sizes:
            if candidate == 1:
                continue
            require(size == 1 or same(size, candidate), f"sizes {show(size)} and {show(candidate)} do not broadcast")
            size = candidate
        result.append(size)
    return tuple(result)


def normalize_axis(axis: int, rank: int) -> int:
    """A possibly negative axis as one in 0..rank-1; as in PyTorch, a 0-d tensor has axis 0, which is also -1."""
    require(-max(rank, 1) <= axis < max(rank, 1), f"axis {axis} is outside a tensor of rank {rank}")
    return axis % rank if rank else 0
