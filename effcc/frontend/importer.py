"""What importing one ATen call needs: values for FX nodes, dtype promotion, constants, and a registry of importers.

An importer is a small function registered for one or more overloads. It gets an `Importer` and the call's arguments
in the schema's order, defaults filled in; tensors arrive as `Value`, sizes as `Dim`, lists as tuples. It appends
nodes and returns a `Value`, or a tuple for several results; raising `NotNative` makes the call an `extern`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import ml_dtypes
import numpy as np
import sympy
import torch

from effcc.errors import CaptureError
from effcc.frontend.facts import NOTHING_KNOWN, Facts
from effcc.frontend.sizes import shape, size
from effcc.ir import dtypes
from effcc.ir.dims import Dim, Shape, dim, evaluate, product, same_shape, show, symbols
from effcc.ir.dtypes import DType, boolean
from effcc.ir.graph import Graph, GraphBuilder, Node, Value
from effcc.ir.size_functions import FUNCTIONS, is_real
from effcc.ir.types import TensorType

aten = torch.ops.aten

DTYPES: Mapping[torch.dtype, DType] = {
    getattr(torch, d.long_name): d for d in dtypes.NAMED.values() if d not in dtypes.BOUNDED
}
TORCH_DTYPES: Mapping[DType, torch.dtype] = {ours: theirs for theirs, ours in DTYPES.items()}

HALVES = (dtypes.f16, dtypes.bf16)
_WIDE = (boolean, dtypes.bf16, dtypes.f32, dtypes.f64, dtypes.i64)  # of which every size is an element, if rounded

Number: TypeAlias = "bool | int | float | sympy.Expr"
Operand: TypeAlias = "Value | Number"
Import = Callable[..., Any]
Function = TypeVar("Function", bound=Import)

REGISTRY: dict[Any, Import] = {}


class NotNative(Exception):
    """This call has no native form; it becomes an `extern`. The message says why."""


def imports(*overloads: Any) -> Callable[[Function], Function]:
    """Register a function as the importer of ATen overloads, or by their names of operators that others define."""

    def register(function: Function) -> Function:
        for overload in overloads:
            REGISTRY[overload] = function
        return function

    return register


def importer_of(target: Any) -> Import | None:
    """The importer of what an FX node calls."""
    return REGISTRY.get(target) or REGISTRY.get(str(target))


def require_constants(importer: Import, positional: Sequence[Any], named: Mapping[str, Any]) -> None:
    """Raise NotNative for a run-time number where the importer takes a Python one (`axis: int`)."""
    given = [*zip(_parameters(importer)[1:], positional, strict=False), *named.items()]
    for name, value in given:
        kind = importer.__annotations__.get(name)
        if kind in ("int", "float", "bool") and isinstance(value, sympy.Expr):
            raise NotNative(f"{name} is a run-time number, {show(value)}")


@functools.cache
def _parameters(importer: Import) -> tuple[str, ...]:
    return tuple(inspect.signature(importer).parameters)


def dtype_of(torch_dtype: torch.dtype) -> DType:
    """effcc's dtype for torch's; raises NotNative where there is none (quantized and sub-byte types)."""
    found = DTYPES.get(torch_dtype)
    if found is None:
        raise NotNative(f"dtype {torch_dtype}")
    return found


def type_of(fake: torch.Tensor) -> TensorType:
    """The type of a (fake) tensor; strides are left out where they are row-major."""
    if fake.layout != torch.strided:
        raise NotNative(f"layout {fake.layout}")
    sizes = shape(fake.shape)
    return TensorType(dtype_of(fake.dtype), sizes, strided(sizes, shape(fake.stride())))


def strided(sizes: Shape, strides: Shape | None) -> Shape | None:
    """`strides`, or None where they are row-major; the stride of a size-1 axis does not matter."""
    if strides is None or any(n == 0 for n in sizes):
        return None
    found: list[Dim] = []
    step: Dim = 1
    plain = True
    for n, stride in zip(reversed(sizes), reversed(strides), strict=True):
        if n == 1:
            stride = step
        plain = plain and same_shape((stride,), (step,))
        found.append(stride)
        step = dim(step * n)
    return None if plain else tuple(reversed(found))


def same_strides(a: Shape | None, b: Shape | None) -> bool:
    """Whether `strided` gave the same for two tensors of one shape."""
    return a is b if a is None or b is None else same_shape(a, b)


_CATEGORY = {"bool": 0, "int": 1, "uint": 1, "float": 2}


@functools.cache
def promote(a: DType, b: DType) -> DType:
    """The smallest dtype that torch converts both to."""
    return DTYPES[torch.promote_types(TORCH_DTYPES[a], TORCH_DTYPES[b])]


def scalar_dtype(value: Number) -> DType:
    """The dtype of a Python number as an operand on its own."""
    if isinstance(value, bool):
        return boolean
    return default_float() if isinstance(value, float) or is_real(value) else dtypes.i64


def default_float() -> DType:
    """The floating dtype that torch gives floats, and quotients of integers."""
    return dtype_of(torch.get_default_dtype())


def result_dtype(operands: Sequence[Operand]) -> DType:
    """torch.result_type: tensors with axes decide first, then 0-d tensors, then numbers, if of a higher category."""
    ranked = [o.type.dtype for o in operands if isinstance(o, Value) and o.type.rank > 0]
    zero_d = [o.type.dtype for o in operands if isinstance(o, Value) and o.type.rank == 0]
    numbers = [scalar_dtype(o) for o in operands if not isinstance(o, Value)]
    found: DType | None = None
    for group in (ranked, zero_d, numbers):
        if group:
            candidate = functools.reduce(promote, group)
            if found is None or _CATEGORY[candidate.kind] > _CATEGORY[found.kind]:
                found = candidate
    assert found is not None
    return found


class Importer:
    """Appends nodes to a graph, folding views of views as it goes.

    hints: the values of size symbols in the example inputs; facts: what holds for sizes at every call. example: the
    (fake) result of the call that is imported; results_read: which of several are read.
    """

    def __init__(
        self, builder: GraphBuilder, hints: Mapping[str, int] = MappingProxyType({}), facts: Facts = NOTHING_KNOWN
    ) -> None:
        self.builder = builder
        self.hints = hints
        self.facts = facts
        self.example: Any = None
        self.results_read: frozenset[int] = frozenset()
        self.name = ""
        self._constants: dict[tuple[Any, DType], Value] = {}
        self._producers: dict[Value, Node] = {}

    def node(self, op: str, *operands: Value, regions: tuple[Graph, ...] = (), **attrs: Any) -> Node:
        """Append an op, for its several results."""
        made = self.builder.node(op, *operands, name=self.name, regions=regions, **attrs)
        self._producers.update((result, made) for result in made.results)
        return made

    def append(self, node: Node) -> None:
        """Append an existing node."""
        self.builder.append(node)
        self._producers.update((result, node) for result in node.results)

    def forget(self, count: int) -> None:
        """Take back all nodes but the first `count`: an importer that gave up had begun them."""
        dropped = self.builder.nodes[count:]
        del self.builder.nodes[count:]
        for value in (r for n in dropped for r in n.results):
            del self._producers[value]
        self._constants = {key: v for key, v in self._constants.items() if v in self._producers}

    def emit(self, op: str, *operands: Value, **attrs: Any) -> Value:
        """Append an op with one result."""
        return self.node(op, *operands, **attrs).result

    def producer(self, value: Value) -> Node | None:
        """The node that defines `value`; None for a parameter."""
        return self._producers.get(value)

    # --- numbers and dtypes ---

    def constant(self, value: Number, dtype: DType) -> Value:
        """A 0-d constant, of the value that PyTorch converts the number to; equal ones are shared."""
        if not isinstance(value, sympy.Expr):
            value = as_element(value, dtype)
        key = (repr(value), dtype)
        if key not in self._constants:
            named, self.name = self.name, "scalar"
            self._constants[key] = self.emit("constant", value=value, dtype=dtype)
            self.name = named
        return self._constants[key]

    def cast(self, x: Value, dtype: DType) -> Value:
        return x if x.type.dtype == dtype else self.emit("cast", x, dtype=dtype)

    def operand(self, x: Operand, dtype: DType) -> Value:
        """A tensor or a number as a tensor of `dtype`."""
        if x is None:
            raise CaptureError("an operand of which capture does not say what it is")
        return self.cast(x, dtype) if isinstance(x, Value) else self.constant(x, dtype)

    def floating(self, operands: Sequence[Operand]) -> DType:
        """The dtype of a result that is floating whatever its operands are: torch's default for integers."""
        found = result_dtype(operands)
        return found if found.is_float else default_float()

    def elementwise(self, op: str, *operands: Operand, dtype: DType | None = None) -> Value:
        """A pointwise op on operands brought to one dtype (default: what torch promotes them to)."""
        dtype = result_dtype(operands) if dtype is None else dtype
        return self.emit(op, *(self.operand(o, dtype) for o in operands))

    def scaled(self, op: str, a: Operand, b: Operand, dtype: DType) -> Value:
        """A product or quotient in `dtype` (or its accumulator's type, rounded once), by a number that is not rounded.

        Eager reads the second operand of a product or quotient as it is, not rounded to a half type, where that is a
        number or a 0-d tensor; those of all other ops are rounded first.
        """
        if dtype not in HALVES or not is_number(b) or self._is_exact(b, dtype):
            return self.elementwise(op, a, b, dtype=dtype)
        return self.cast(self.emit(op, self.accurate(a, dtype), self.operand(b, dtype.accumulator)), dtype)

    @staticmethod
    def _is_exact(x: Operand, dtype: DType) -> bool:
        """Whether rounding a number to a half type does not change it."""
        if isinstance(x, bool | int | float):
            return as_element(x, dtype) == as_element(x, dtype.accumulator)
        return isinstance(x, Value) and x.type.dtype == dtype

    def accurate(self, x: Operand, dtype: DType) -> Value:
        """An operand of `dtype` in the type that an op computes in inside: f32 for the half types."""
        inside = dtype.accumulator if dtype.is_float else dtype
        if isinstance(x, bool | int | float):
            return self.constant(as_element(x, dtype), inside)
        return self.cast(self.operand(x, dtype), inside)

    def checked(self, x: Operand | None, dtype: DType) -> None:
        """Refuse a number that may lie outside of `dtype` where PyTorch checks it: PyTorch then says so at the call."""
        if isinstance(x, int | float) and overflows(x, dtype):
            raise NotNative(f"the number {x} lies outside of {dtype.name}")
        if isinstance(x, sympy.Expr) and dtype not in _WIDE and not self._lies_inside(x, dtype):
            raise NotNative(f"the number {show(x)} may lie outside of {dtype.name}")

    def _lies_inside(self, x: sympy.Expr, dtype: DType) -> bool:
        """Whether every value of a run-time number is one of `dtype`."""
        if dtype.is_float or is_real(x):
            return False
        limits = np.iinfo(dtype.numpy)
        return self.facts.not_negative(dim(limits.max - x)) and self.facts.not_negative(dim(x - limits.min))

    # --- sizes ---

    def hint(self, size: Dim) -> int | None:
        """The value of a size in the example inputs; None where they do not tell it."""
        if any(s.name not in self.hints for s in symbols([size])):
            return None
        return evaluate(size, self.hints)

    def inside(self, bound: Dim, size: Dim) -> Dim:
        """A bound on an axis of `size` as Python takes it: from the end where it is negative, and within 0 and `size`.

        What is known of the sizes decides; where it does not, the bound is clamped when the program runs.
        """
        not_negative = self.facts.not_negative
        if not_negative(bound):
            found = bound
        else:
            from_end = dim(size + bound)
            from_end = from_end if not_negative(from_end) else dim(sympy.Max(from_end, 0))
            if not_negative(dim(-1 - bound)):
                return from_end
            found = dim(FUNCTIONS["choose"](FUNCTIONS["lt"](bound, 0), from_end, bound))
        return found if not_negative(dim(size - found)) else dim(sympy.Min(found, size))

    def result_size(self, axis: int) -> Dim:
        """The size of an axis of the tensor that the call being imported gives, as capture has found it."""
        return size(self.example.shape[axis])

    # --- views ---

    def reshape(self, x: Value, sizes: Sequence[Dim]) -> Value:
        """`x` in another shape; a reshape of a reshape is one, and one that changes nothing is none."""
        sizes = tuple(sizes)
        made = self.producer(x)
        if made is not None and made.op == "reshape":
            x = made.operands[0]
        return x if same_shape(x.type.shape, sizes) else self.emit("reshape", x, shape=sizes)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Axes of `x` in the order `perm`; a transpose of a transpose is one."""
        perm = tuple(perm)
        made = self.producer(x)
        if made is not None and made.op == "transpose":
            inner: Any = made.attrs["perm"]
            x, perm = made.operands[0], tuple(inner[p] for p in perm)
        return x if perm == tuple(range(x.type.rank)) else self.emit("transpose", x, perm=perm)

    def broadcast(self, x: Value, sizes: Sequence[Dim]) -> Value:
        """`x` broadcast to a shape."""
        return x if same_shape(x.type.shape, sizes) else self.emit("broadcast", x, shape=tuple(sizes))

    def slice(self, x: Value, axis: int, start: Dim, end: Dim | None, step: int = 1) -> Value:
        return self.emit("slice", x, axis=axis, start=start, end=end, step=step)

    def unit(self, x: Value, axis: int) -> Value:
        """`x` with an axis of size 1 put before `axis`."""
        return self.reshape(x, (*x.type.shape[:axis], 1, *x.type.shape[axis:]))


def is_number(x: Operand) -> bool:
    """Whether an operand is a number, or a tensor that holds one."""
    return not isinstance(x, Value) or x.type.rank == 0


def as_element(value: bool | int | float, dtype: DType) -> bool | int | float:
    """A number as an element of `dtype`, as PyTorch converts it: integers wrap around, half types round an f32.

    >>> as_element(300, dtypes.u8), as_element(-1, dtypes.u8), as_element(257, dtypes.bf16), as_element(2.5, dtypes.i8)
    (44, 255, 256.0, 2)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        given = np.asarray(value)
        given = given.astype(np.float32) if dtype in HALVES else given
        if given.dtype.kind == "f" and dtype.is_integer:
            given = given.astype(np.int64)
        element = given.astype(dtype.numpy)
    found: bool | int | float = (element.astype(np.float64) if dtype.is_float else element).item()
    return found


def overflows(value: bool | int | float, dtype: DType) -> bool:
    """Whether a number lies outside of `dtype`, for conversions that PyTorch checks (fills, bounds, exponents).

    Negative integers may wrap around to unsigned ones.
    """
    if dtype == boolean or isinstance(value, bool):
        return False
    if dtype.is_float:
        return math.isfinite(value) and abs(value) > float(ml_dtypes.finfo(dtype.numpy).max)
    limits = np.iinfo(dtype.numpy)
    low = -limits.max if isinstance(value, int) and dtype.kind == "uint" else limits.min
    return not low <= value <= limits.max


def resolve_shape(x: Value, sizes: Sequence[Dim]) -> Shape:
    """`sizes` with a -1 replaced by what is left of `x`."""
    found = tuple(dim(s) for s in sizes)
    if -1 not in found:
        return found
    rest = product(s for s in found if s != -1)
    total = x.type.size
    left = total // rest if isinstance(total, int) and isinstance(rest, int) else dim(sympy.cancel(total / rest))
    return tuple(left if s == -1 else s for s in found)
