"""One weight in one encoding: a level and a kind of values, composed.

>>> from effcc.ir.parser import parse_encoding
>>> made = storage(parse_encoding("block(4,1) . int8"), (8, 6), f32, count=2)
>>> print(made.encoding, "|", *made.components, sep="  ")
block(4,1) . int8(per="channel")  |  columns: i32[2,2]  values: i8[2,2,4]  scale: f32[8]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DTYPES, DType, f32
from effcc.ir.encoding import Encoding, Scheme
from effcc.ir.encodings.levels import Dense, Flattened, Levels
from effcc.ir.encodings.registry import declared, names
from effcc.ir.encodings.sums import Product, Terms
from effcc.ir.encodings.values import EPSILON, SMALLEST, Plain, Values
from effcc.ir.expr import Expr
from effcc.ir.form import FormBuilder
from effcc.ir.types import TensorType

Array = Any
FLOATING = frozenset(d.numpy for d in DTYPES.values() if d.is_float)


@dataclass(frozen=True)
class Component:
    """One array of a stored weight."""

    name: str
    type: TensorType

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


@dataclass(frozen=True)
class Storage:
    """A weight of `shape` and `dtype` stored by `levels` and `values`; `encoding` is the notation, in full."""

    encoding: Encoding
    shape: tuple[int, ...]
    dtype: DType
    levels: Levels
    values: Values

    @property
    def components(self) -> tuple[Component, ...]:
        """The arrays, coordinates first, in the order that all functions here take them in."""
        return tuple(Component(name, TensorType(dtype, shape)) for name, dtype, shape in self.named)

    @property
    def named(self) -> tuple[tuple[str, DType, tuple[int, ...]], ...]:
        """The arrays by name, dtype and shape."""
        return (*self.levels.coordinates, *self.values.components(self.levels, self.dtype))

    @property
    def bytes(self) -> int:
        """Bytes of all components."""
        return sum(int(np.prod(c.type.shape)) * c.type.dtype.bytes for c in self.components)

    @property
    def trainable(self) -> tuple[str, ...]:
        """The components that gradients pass to and an optimizer may change."""
        return self.values.trained

    def encode(self, dense: Array) -> list[Array]:
        """The components of a dense array. `block` keeps the blocks of largest L2 norm.

        Raises EncodingError where the array has another shape, or holds infinities or NaN that int8 cannot store.
        """
        if tuple(dense.shape) != self.shape:
            raise EncodingError(f"{self.encoding} of {list(self.shape)}: got an array of shape {list(dense.shape)}")
        if not self.values.is_exact and not np.isfinite(np.asarray(dense, np.float32)).all():
            raise EncodingError(f"{self.encoding} stores finite numbers; the weight holds infinities or NaN")
        coordinates = self.levels.select(dense)
        stored = self.levels.compress(dense, coordinates)
        return [*coordinates, *self.values.encode(self.levels.at(coordinates), stored)]

    def split(self, arrays: Sequence[Array]) -> tuple[list[Array], list[Array]]:
        """Components as coordinates and value arrays. Raises EncodingError where they do not fit.

        Floating components may be of any floating dtype: modules that hold them are converted to others.
        """
        expected = self.components
        got = [(np.dtype(a.dtype), tuple(a.shape)) for a in arrays]
        fits = len(got) == len(expected) and all(
            shape == c.type.shape and (dtype == c.type.dtype.numpy or (c.type.dtype.is_float and dtype in FLOATING))
            for (dtype, shape), c in zip(got, expected, strict=True)
        )
        if not fits:
            shown = ", ".join(f"{dtype}{list(shape)}" for dtype, shape in got)
            raise EncodingError(
                f"{self.encoding} of {list(self.shape)} is {', '.join(map(str, expected))}; got {shown}"
            )
        count = len(self.levels.coordinates)
        return list(arrays[:count]), list(arrays[count:])

    def decode(self, arrays: Sequence[Array]) -> Array:
        """The dense array: the reference. Raises EncodingError where coordinates are damaged, naming the component."""
        coordinates, values = self.split(arrays)
        return self.levels.expand(self.values.decode(self._at(coordinates), values, self.dtype), coordinates)

    def _at(self, coordinates: Sequence[Array]) -> Levels:
        self.levels.require_sound(coordinates)
        return self.levels.at(coordinates)

    def error_bound(self, arrays: Sequence[Array]) -> Array:
        """How far a stored element may be from the one that was encoded: as rows, [N, L], or for channels, [N, 1]."""
        coordinates, values = self.split(arrays)
        return self.values.error_bound(self._at(coordinates), values)

    def holds(self, arrays: Sequence[Array], dense: Array) -> bool:
        """Whether every stored element of a dense array is decoded within the error bound, rounded to the dtype."""
        coordinates, values = self.split(arrays)
        levels = self._at(coordinates)
        given = levels.rows(levels.compress(np.asarray(dense, np.float64), coordinates))
        decoded = levels.rows(self.values.decode(levels, values, self.dtype).astype(np.float64))
        bound = self.error_bound(arrays) + EPSILON[self.dtype] * np.abs(given) + SMALLEST[self.dtype]
        return bool((np.abs(decoded - given) <= bound).all())

    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        """The gradient of each component, given that of the dense array; None where none passes.

        xp: the library (numpy or torch) whose arrays they are; what is done with them can be traced.
        """
        first = len(self.levels.coordinates)
        coordinates, values = arrays[:first], arrays[first:]
        kept = self.levels.pick(xp, upstream, coordinates)
        found = self.values.gradients(xp, self.levels.at(coordinates, xp), values, kept)
        return [*(None for _ in range(first)), *found]

    def form(self, b: FormBuilder, whole: bool = False) -> None:
        """The cascade that decodes: operands are the components. `whole`: see `Levels.form`."""
        first = len(self.levels.coordinates)

        def load(component: int, index: Sequence[Expr]) -> Expr:
            return b.load(first + component, index)

        self.levels.form(b, lambda place, n: self.values.element(self.levels, load, place, n, self.dtype), whole)


def storage(encoding: Encoding, shape: Sequence[int], dtype: DType = f32, count: int = 0) -> Storage:
    """The storage of a weight of `shape` under an encoding.

    `count`: for `block`, how many blocks are stored of every row of blocks, for `csr` and `bcsr` of all rows together
        (0: all).
    Raises UnknownNameError for a scheme that does not exist, EncodingError for one that does not fit.
    """
    whole = canonical(encoding)
    shape = tuple(shape)
    if not shape or 0 in shape:
        raise EncodingError(
            f"{encoding}: a stored weight has at least one element and one axis, got shape {list(shape)}"
        )
    if not dtype.is_float:
        raise EncodingError(f"{encoding}: a stored weight stands for floating numbers, got {dtype}")
    if is_sum(whole):
        terms = tuple(_term(chain, shape, dtype, count) for chain in whole.terms)
        return Storage(whole, shape, dtype, Dense(shape), Terms(_names(whole), terms))
    (chain,) = whole.terms
    levels: Levels = Dense(shape)
    values: Values = Plain()
    for scheme in chain:
        found = declared(scheme.name)
        if found.kind == "level":
            matrix = matrix_shape(shape)
            levels = found.make(shape=matrix, count=count, **found.given(scheme))
            levels = levels if matrix == shape else Flattened(shape, levels)
        else:
            values = found.make(**found.given(scheme))
    if values.shares_groups and not levels.has_positions:
        raise EncodingError(
            f"{encoding}: rows of free lengths have no groups that could share a scale; "
            'share it by channel or tensor: per="channel"'
        )
    return Storage(Encoding((chain,)), shape, dtype, levels, values)


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The matrix whose elements levels choose: of a convolution's weight, a row for each output channel."""
    return shape if len(shape) < 3 else (shape[0], prod(shape[1:]))


def stored_as(encoding: Encoding, shape: Sequence[int], dtype: DType, components: Sequence[Sequence[int]]) -> Storage:
    """The storage whose components have the given shapes, which say what the notation leaves open."""
    whole = canonical(encoding)
    if is_sum(whole):
        return _sum_stored_as(whole, shape, dtype, components)
    (chain,) = whole.terms
    count = 0
    for component, dimension in (c for s in chain if (c := declared(s.name).counted) is not None):
        if len(components) <= component or len(components[component]) <= dimension:
            raise EncodingError(
                f"{encoding}: dimension {dimension} of component {component} says how much is stored, "
                f"got components of shapes {[list(c) for c in components]}"
            )
        count = components[component][dimension]
    return storage(encoding, shape, dtype, count)


def canonical(encoding: Encoding) -> Encoding:
    """The encoding with defaults written out, `dense` left out, and every scheme checked; raises as `storage` does."""
    if not isinstance(encoding, Encoding):
        raise EncodingError(f"expected an encoding or its notation, such as 'int8', got {encoding!r}")
    return Encoding(tuple(_canonical(encoding, chain) for chain in encoding.terms))


def is_sum(encoding: Encoding) -> bool:
    """Whether a weight is stored as terms to be added up, or as a product of factors."""
    return len(encoding.terms) > 1 or any(declared(s.name).kind == "product" for s in encoding.terms[0])


def _term(chain: tuple[Scheme, ...], shape: tuple[int, ...], dtype: DType, count: int = 0) -> Storage | Product:
    """One term of a sum: a product of factors that are stored by the rest of the chain, or a chain of its own."""
    if chain and declared(chain[0].name).kind == "product":
        rest = Encoding((chain[1:],))
        found = declared(chain[0].name)

        def factor(size: tuple[int, ...]) -> Storage:
            return storage(rest, size, dtype)

        made: Product = found.make(shape=shape, dtype=dtype, factor=factor, **found.given(chain[0]))
        return made
    return storage(Encoding((chain,)), shape, dtype, count)


def _names(encoding: Encoding) -> tuple[str, ...]:
    """A name for each term, after its schemes."""
    found: list[str] = []
    for chain in encoding.terms:
        name = "_".join(s.name for s in chain) or "dense"
        found.append(f"{name}{found.count(name) + 1}" if name in found else name)
    return tuple(found)


def _sum_stored_as(
    encoding: Encoding, shape: Sequence[int], dtype: DType, components: Sequence[Sequence[int]]
) -> Storage:
    terms: list[Storage | Product] = []
    first = 0
    for chain in encoding.terms:
        term = _term(chain, tuple(shape), dtype)
        own = components[first : first + len(term.named)]
        if isinstance(term, Storage):
            term = stored_as(term.encoding, shape, dtype, own)
        terms.append(term)
        first += len(own)
    return Storage(encoding, tuple(shape), dtype, Dense(tuple(shape)), Terms(_names(encoding), tuple(terms)))


def _canonical(encoding: Encoding, given: tuple[Scheme, ...]) -> tuple[Scheme, ...]:
    chain = tuple(s for s in (declared(s.name).canonical(s) for s in given) if s.name != "dense")
    products = [s for s in chain if declared(s.name).kind == "product"]
    if products and (chain[0] is not products[0] or any(declared(s.name).kind != "values" for s in chain[1:])):
        raise EncodingError(f"{encoding}: {products[0]} stands first, and only values, those of its factors, follow it")
    levels = [s for s in chain if declared(s.name).kind == "level"]
    values = [s for s in chain if declared(s.name).kind == "values"]
    if len(levels) > 1 or len(values) > 1:
        raise EncodingError(
            f"{encoding}: a chain has at most one level ({', '.join(names('level'))}) and one kind of values"
        )
    if levels and values and chain.index(levels[0]) > chain.index(values[0]):
        raise EncodingError(f"{encoding}: levels stand before values: {levels[0]} . {values[0]}")
    return chain
