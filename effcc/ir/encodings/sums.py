"""Sums and products of encodings: a weight as terms that are added up, some of them products of two factors.

    outliers(8) + int8            W = E + Q                      a few columns as they are, the rest as bytes
    low_rank(16) + int3           W[n,k] = sum(r: A[n,r] * B[r,k]) + Q[n,k]
    monarch(b)                    W[s*b+j, i*t'+t] = L[j,s,i] * R[i,j,t]
    low_rank(16) . int8           factors are stored by the values that follow

Terms are encoded one after the other: each stores what the ones before have left. What reads such a weight adds up what
its terms give, and multiplies by one factor after the other (`effcc.passes.encodings.sums`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from effcc.errors import EncodingError
from effcc.ir.dtypes import DType
from effcc.ir.encodings.levels import Levels
from effcc.ir.encodings.levels.base import fitting
from effcc.ir.encodings.registry import Declaration, Option, declare, positive
from effcc.ir.encodings.values.base import EPSILON, Array, LoadComponent, NamedArray, Nearest, Term, Values
from effcc.ir.expr import Expr


def slices(terms: Sequence[Term], arrays: Sequence[Any]) -> Iterator[tuple[Term, list[Any]]]:
    """Each term with its own of the arrays."""
    first = 0
    for term in terms:
        count = len(term.named)
        yield term, list(arrays[first : first + count])
        first += count


@dataclass(frozen=True)
class Product(ABC):
    """A matrix as the product of two factors, stored like any weight; `plan` says the products as einsums."""

    shape: tuple[int, ...]
    dtype: DType
    left: Term
    right: Term

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """How the matrix, and the product of rows with it, come from the factors."""

    @abstractmethod
    def factorize(self, dense: Array) -> tuple[Array, Array]:
        """The factors whose product is nearest to a matrix, in the sum of squares."""

    @property
    def named(self) -> tuple[NamedArray, ...]:
        sides = (("left", self.left), ("right", self.right))
        return tuple((f"{side}_{name}", dtype, shape) for side, f in sides for name, dtype, shape in f.named)

    @property
    def trainable(self) -> tuple[str, ...]:
        sides = (("left", self.left), ("right", self.right))
        return tuple(f"{side}_{name}" for side, f in sides for name in f.trainable)

    def encode(self, dense: Array) -> list[Array]:
        left, right = self.factorize(np.asarray(dense, np.float64))
        return [*self.left.encode(left.astype(dense.dtype)), *self.right.encode(right.astype(dense.dtype))]

    def decode(self, arrays: Sequence[Array]) -> Array:
        left, right = (f.decode(own) for f, own in slices((self.left, self.right), arrays))
        wide = np.promote_types(left.dtype, np.float32)
        product = np.einsum(self.plan.whole, left.astype(wide), right.astype(wide), optimize=True)
        return product.reshape(self.shape).astype(left.dtype)

    def error_bound(self, arrays: Sequence[Array]) -> Array:
        """None: how far a matrix is from one of that rank is up to the matrix."""
        return np.full((self.shape[0], 1), np.inf)

    def gradients(self, xp: Any, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        """Of factors in full precision; none passes to those that are rounded."""
        (left, mine), (right, other) = slices((self.left, self.right), arrays)
        if not (left.trainable and right.trainable):
            return [None for _ in arrays]
        first, second, result = self.plan.labels
        upstream = upstream.reshape(self.plan.whole_shape(self.left.shape, self.right.shape))
        by_left = xp.einsum(f"{result},{second}->{first}", upstream, other[0])
        return [by_left, xp.einsum(f"{result},{first}->{second}", upstream, mine[0])]


@dataclass(frozen=True)
class Plan:
    """Products as einsums: `whole` of the factors gives the matrix, reshaped; rows x, seen as [m, *inputs], times the
    right factor by `first`, and that times the left one by `second`, is [m, ...], reshaped to [m, n].
    """

    whole: str
    first: str
    second: str
    inputs: tuple[int, ...]

    @property
    def labels(self) -> tuple[str, str, str]:
        """The axes of the left factor, of the right one, and of the matrix."""
        factors, result = self.whole.split("->")
        left, right = factors.split(",")
        return left, right, result

    def whole_shape(self, left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
        """The matrix's shape before it is reshaped."""
        first, second, result = self.labels
        sizes = {**dict(zip(first, left, strict=True)), **dict(zip(second, right, strict=True))}
        return tuple(sizes[label] for label in result)


@dataclass(frozen=True)
class LowRank(Product):
    """`low_rank(r)`: W[n,k] = sum(r: A[n,r] * B[r,k]); the largest r singular values (Eckart-Young)."""

    @property
    def plan(self) -> Plan:
        return Plan("nr,rk->nk", "mk,rk->mr", "mr,nr->mn", (self.shape[1],))

    def factorize(self, dense: Array) -> tuple[Array, Array]:
        u, s, v = np.linalg.svd(dense, full_matrices=False)
        rank = self.left.shape[1]
        root = np.sqrt(s[:rank])
        return u[:, :rank] * root, root[:, None] * v[:rank]


@dataclass(frozen=True)
class Monarch(Product):
    """`monarch(b)`: two block-diagonal factors of b blocks, with the transposition of a b x b grid between them.

    Each of the b x b tiles of W that the grid makes is of rank one, so that the nearest one is tile by tile the largest
    singular value (Dao et al., "Monarch", 2022).
    """

    @property
    def plan(self) -> Plan:
        blocks = self.right.shape[0]
        return Plan("jsi,ijt->sjit", "mit,ijt->mij", "mij,jsi->msj", (blocks, self.shape[1] // blocks))

    def factorize(self, dense: Array) -> tuple[Array, Array]:
        blocks = self.right.shape[0]
        tiles = dense.reshape(-1, blocks, blocks, self.shape[1] // blocks).transpose(1, 2, 0, 3)  # [j, i, s, t]
        u, s, v = np.linalg.svd(tiles, full_matrices=False)
        root = np.sqrt(s[..., 0])
        left = u[..., 0] * root[..., None]  # [j, i, s]
        right = v[..., 0, :] * root[..., None]  # [j, i, t]
        return left.transpose(0, 2, 1), right.transpose(1, 0, 2)


@dataclass(frozen=True)
class Terms(Values):
    """The values of a weight that is a sum: the components of all its terms, one after the other."""

    names: tuple[str, ...]
    parts: tuple[Term, ...]

    @property
    def terms(self) -> tuple[Term, ...]:
        return self.parts

    def components(self, levels: Levels, dtype: DType) -> tuple[NamedArray, ...]:
        named = zip(self.names, self.terms, strict=True)
        return tuple((f"{term}_{name}", d, shape) for term, t in named for name, d, shape in t.named)

    @property
    def trained(self) -> tuple[str, ...]:
        named = zip(self.names, self.terms, strict=True)
        return tuple(f"{term}_{name}" for term, t in named for name in t.trainable)

    def encode(self, levels: Levels, stored: Array) -> list[Array]:
        arrays: list[Array] = []
        rest = stored
        for term in self.terms:
            arrays += (mine := term.encode(rest))
            rest = (rest.astype(np.float64) - term.decode(mine)).astype(stored.dtype)
        return arrays

    def decode(self, levels: Levels, arrays: Sequence[Array], dtype: DType) -> Array:
        parts = [term.decode(mine) for term, mine in slices(self.terms, arrays)]
        wide = np.promote_types(parts[0].dtype, np.float32)
        total = parts[0].astype(wide)
        for part in parts[1:]:
            total = total + part.astype(wide)
        return total.astype(parts[0].dtype)

    def error_bound(self, levels: Levels, arrays: Sequence[Array]) -> Array:
        """Of the last term, which stores what is left; and the roundings of what is subtracted before, and added up."""
        *before, (last, mine) = slices(self.terms, arrays)
        rounded = [np.abs(term.decode(own).astype(np.float64)) for term, own in before]
        sizes = np.abs(last.decode(mine).astype(np.float64)) + np.sum(rounded, axis=0)
        rows = levels.rows(np.broadcast_to(sizes, levels.shape))
        return last.error_bound(mine) + 4 * max(EPSILON.values()) * rows

    def gradients(self, xp: Any, levels: Levels, arrays: Sequence[Array], upstream: Array) -> list[Array | None]:
        return [g for term, mine in slices(self.terms, arrays) for g in term.gradients(xp, mine, upstream)]

    def fit(self, levels: Levels, stored: Array, importance: Array | None = None) -> list[Array]:
        raise self._refused()

    def round(self, levels: Levels, stored: Array, parameters: Sequence[Array]) -> list[Array]:
        raise self._refused()

    def rounding(self, levels: Levels, parameters: Sequence[Array]) -> Nearest:
        raise self._refused()

    def element(self, levels: Levels, load: LoadComponent, place: Sequence[Expr], channel: Expr, dtype: DType) -> Expr:
        raise EncodingError(f"{' + '.join(self.names)}: a sum is spelled out as its terms before loops decode it")

    def _refused(self) -> EncodingError:
        return EncodingError(
            f"{' + '.join(self.names)}: a sum of encodings is encoded term by term, not an element at a time; "
            "use the method nearest"
        )

    @property
    def is_exact(self) -> bool:
        return False


Factor = Callable[[tuple[int, ...]], Term]
"""A factor of a shape, stored as the notation says."""


def _low_rank(shape: tuple[int, ...], dtype: DType, factor: Factor, rank: int) -> Product:
    n, k = _matrix(f"low_rank({rank})", shape)
    if rank > min(n, k):
        raise EncodingError(f"low_rank({rank}) of [{n}, {k}]: a matrix of that shape has a rank of at most {min(n, k)}")
    return LowRank(shape, dtype, factor((n, rank)), factor((rank, k)))


def _monarch(shape: tuple[int, ...], dtype: DType, factor: Factor, blocks: int) -> Product:
    n, k = _matrix(f"monarch({blocks})", shape)
    if n % blocks or k % blocks:
        raise EncodingError(
            f"monarch({blocks}) needs rows and columns in multiples of {blocks}, got [{n}, {k}]; "
            f"monarch({fitting(math.gcd(n, k), blocks)}) fits"
        )
    return Monarch(shape, dtype, factor((blocks, n // blocks, blocks)), factor((blocks, blocks, k // blocks)))


def _matrix(scheme: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2:
        raise EncodingError(f"{scheme} stores matrices, got a weight of shape {list(shape)}; store that one densely")
    return shape[0], shape[1]


declare(
    Declaration(
        "low_rank",
        "product",
        _low_rank,
        "two factors of r columns and rows",
        ("low_rank(2)", "low_rank(1)"),
        arguments=(Option("rank", None, positive, "a positive integer"),),
    )
)
declare(
    Declaration(
        "monarch",
        "product",
        _monarch,
        "two block-diagonal factors of b blocks, with a transposition between them",
        ("monarch(2)", "monarch(4)"),
        arguments=(Option("blocks", None, positive, "a positive integer"),),
    )
)
