"""Numbers as arguments: kernels that differ in nothing else are one text, which is compiled once.

A program packs each of its weights by a kernel of its own, and these differ in extents and strides alone. Such kernels
run once, so that knowing the numbers saves nothing, while the compiler takes a tenth of a second for each of them.

So are run-time sizes that are more than a symbol: strides of what a chain of convolutions made are divisions of
divisions of sizes, which stand in every address, and which the compiler would work on at every one. Computed once by
whoever launches the kernel, they are a name in it; and kernels of several stages of a network differ in them alone.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_args

import sympy

from effcc.ir.dims import Dim, symbol, symbols
from effcc.ir.vectors import (
    Affine,
    Array,
    Call,
    Function,
    Let,
    Line,
    Load,
    Loop,
    Place,
    Registers,
    Share,
    Store,
    StoreRows,
    TileLoad,
    Tiles,
    TileStore,
    Value,
)  # fmt: skip

MOST_NUMBERS = 40
"""Arguments that a function gets, at most; one that has more numbers keeps them."""


def lift_numbers(function: Function) -> Function:
    """The function with the numbers of its index arithmetic as sizes, named in the order in which they stand.

    >>> from effcc.ir.dtypes import f32
    >>> from effcc.ir.printer import print_vectors
    >>> from effcc.ir.vectors import Parameter, value_type
    >>> row = Load(Place("X", f32, Affine((("i", 96),))), value_type(f32))
    >>> body = (Loop("i", Affine(), Affine((), 24), 1, (Store(Place("O", f32, Affine((("i", 1),))), row),)),)
    >>> column = Function("column", (Parameter("X", f32, "X", True), Parameter("O", f32, "O")), (), body)
    >>> print(print_vectors(lift_numbers(column)))
    vectors @column(X: f32 read, O: f32; n0 = 24, n1 = 96) {
      loop i in [0]..[(n0)] step 1 {
        do store(O[i], load<f32>(X[(n1)*i]))
      }
    }
    """
    return _lifted(function, _Numbers(_taken(function)))


def lift_sizes(function: Function) -> Function:
    """The function with the run-time sizes of its index arithmetic as arguments, except for multiples of one symbol.

    >>> from effcc.ir.dtypes import f32
    >>> from effcc.ir.printer import print_vectors
    >>> from effcc.ir.vectors import Parameter, value_type
    >>> s = symbol("s")
    >>> row = Load(Place("X", f32, Affine((("i", 4 * sympy.floor(s / 2)),))), value_type(f32))
    >>> stop = Affine((), sympy.floor(s / 2) + 3)
    >>> body = (Loop("i", Affine(), stop, 1, (Store(Place("O", f32, Affine((("i", 2 * s),))), row),)),)
    >>> column = Function("column", (Parameter("X", f32, "X", True), Parameter("O", f32, "O")), (("s", "s"),), body)
    >>> print(print_vectors(lift_sizes(column)))
    vectors @column(X: f32 read, O: f32; s, n0 = (floor(s/2))) {
      loop i in [0]..[(n0 + 3)] step 1 {
        do store(O[(2*s)*i], load<f32>(X[(4*n0)*i]))
      }
    }
    """
    return _lifted(function, _Sizes(_taken(function))) if function.sizes else function


def _lifted(function: Function, lifting: _Lifting) -> Function:
    body = tuple(map(lifting.apply, function.body))
    if not lifting.lifted or len(lifting.lifted) > MOST_NUMBERS:
        return function
    return replace(function, sizes=(*function.sizes, *lifting.lifted), body=body)


def _taken(function: Function) -> set[str]:
    """The names that mean something in a function, and those of its symbols."""
    taken = {p.name for p in function.buffers} | {name for name, _ in function.sizes} | function.size_names
    for line in function.lines:
        taken |= _names(line)
    return taken


def _names(line: Line) -> set[str]:
    """The names that a statement defines."""
    match line:
        case Let() | Array() | Loop() | Share():
            return {line.name}
        case Registers() | Tiles():
            return set(line.names)
    return set()


_STRIDED = frozenset({Load, Store, StoreRows, TileLoad, TileStore})
_NODES = frozenset({*get_args(Value), *get_args(Line), Place})


_FIELDS = {kind: tuple(part.name for part in fields(kind)) for kind in _NODES}


@dataclass
class _Lifting(ABC):
    """Statements with some of their sizes replaced, and those; `taken` are the names that mean something else."""

    taken: set[str]
    lifted: list[tuple[str, Dim]] = field(default_factory=list)
    divisors: dict[tuple[Value, ...], tuple[Value, ...]] = field(default_factory=dict)

    def apply(self, node: Any) -> Any:
        """A value or a statement, or several of them, with sizes of its index arithmetic as arguments."""
        kind = type(node)
        if kind is tuple:
            made = tuple(map(self.apply, node))
            return node if all(map(operator.is_, made, node)) else made
        if kind is Affine:
            return Affine(tuple((name, self.size(c)) for name, c in node.terms), self.size(node.constant))
        if kind not in _NODES:
            return node
        if kind is Call and node.function in ("quotient", "rest"):
            return self._division(node)
        changed = {}
        for name in _FIELDS[kind]:
            part = getattr(node, name)
            if (made := self.apply(part)) is not part:
                changed[name] = made
        if kind in _STRIDED:
            changed["stride"] = self.size(node.stride)
        return replace(node, **changed) if changed else node

    def _division(self, node: Call) -> Call:
        """A quotient or a rest: both of one value by one number have one symbol, so that it is divided once."""
        if node.operands not in self.divisors:
            self.divisors[node.operands] = self.apply(node.operands)
        return replace(node, operands=self.divisors[node.operands])

    @abstractmethod
    def size(self, size: Dim) -> Dim:
        """A size, or what stands for it."""

    def _named(self, size: Dim) -> sympy.Symbol:
        name = f"n{len(self.lifted)}"
        while name in self.taken:
            name += "_"
        self.lifted.append((name, size))
        return symbol(name)


class _Numbers(_Lifting):
    """Every number has a symbol of its own."""

    def size(self, size: Dim) -> Dim:
        """A size, or the symbol that stands for a number from 2 on: a factor of 1, or nothing added, is no number."""
        return self._named(size) if isinstance(size, int) and size >= 2 else size


@dataclass
class _Sizes(_Lifting):
    """Equal sizes have one symbol; a multiple of one, or it and a number more, is made of that symbol."""

    known: dict[sympy.Expr, Dim] = field(default_factory=dict)

    def size(self, size: Dim) -> Dim:
        if isinstance(size, int):
            return size
        if size not in self.known:
            self.known[size] = self._made(size)
        return self.known[size]

    def _made(self, size: sympy.Expr) -> Dim:
        constant, rest = size.as_coeff_Add()
        factor, inner = rest.primitive()
        if inner.could_extract_minus_sign():
            factor, inner = -factor, -inner
        if inner.is_Symbol or not _is_total(inner):
            return size
        if inner == size:
            return self._named(size)
        return constant + factor * self.size(inner)


def _is_total(size: sympy.Expr) -> bool:
    """Whether a size has a value whatever its symbols are: nothing is divided by what may be zero."""
    divides = any(p.exp.is_negative is not False for p in size.atoms(sympy.Pow))
    known = all(isinstance(f, sympy.floor | sympy.Max | sympy.Min) for f in size.atoms(sympy.Function))
    return known and not divides and bool(symbols((size,)))
