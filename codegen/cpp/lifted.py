"""Numbers as arguments: kernels that differ in nothing else are one text, which is compiled once.

A program packs each of its weights by a kernel of its own, and these differ in extents and strides alone. Such kernels
run once, so that knowing the numbers saves nothing, while the compiler takes a tenth of a second for each of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from effcc.ir.dims import Dim, symbol
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
    taken = {p.name for p in function.buffers} | {name for name, _ in function.sizes}
    for line in function.lines:
        taken |= _names(line)
    lifting = _Lifting(taken)
    body = tuple(map(lifting.apply, function.body))
    if len(lifting.numbers) > MOST_NUMBERS:
        return function
    return replace(function, sizes=(*function.sizes, *lifting.numbers), body=body)


def _names(line: Line) -> set[str]:
    """The names that a statement defines."""
    match line:
        case Let() | Array() | Loop() | Share():
            return {line.name}
        case Registers() | Tiles():
            return set(line.names)
    return set()


_STRIDED = Load | Store | StoreRows | TileLoad | TileStore


@dataclass
class _Lifting:
    """Statements with their numbers replaced, and the numbers; `taken` are the names that mean something else."""

    taken: set[str]
    numbers: list[tuple[str, int]] = field(default_factory=list)
    divisors: dict[tuple[Value, ...], tuple[Value, ...]] = field(default_factory=dict)

    def apply(self, node: Any) -> Any:
        """A value or a statement, or several of them, with the numbers of its index arithmetic as sizes."""
        if isinstance(node, tuple):
            return tuple(map(self.apply, node))
        if isinstance(node, Call) and node.function in ("quotient", "rest"):
            return self._division(node)
        if isinstance(node, Affine):
            return Affine(tuple((name, self._size(c)) for name, c in node.terms), self._size(node.constant))
        if not isinstance(node, Value | Line | Place):
            return node
        made = replace(node, **{f.name: self.apply(getattr(node, f.name)) for f in fields(node)})
        return replace(made, stride=self._size(made.stride)) if isinstance(made, _STRIDED) else made

    def _division(self, node: Call) -> Call:
        """A quotient or a rest: both of one value by one number have one symbol, so that it is divided once."""
        if node.operands not in self.divisors:
            self.divisors[node.operands] = self.apply(node.operands)
        return replace(node, operands=self.divisors[node.operands])

    def _size(self, size: Dim) -> Dim:
        """A size, or the symbol that stands for a number from 2 on: a factor of 1, or nothing added, is no number."""
        if not isinstance(size, int) or size < 2:
            return size
        name = f"n{len(self.numbers)}"
        while name in self.taken:
            name += "_"
        self.numbers.append((name, size))
        return symbol(name)
