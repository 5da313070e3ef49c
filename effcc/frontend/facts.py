"""What is true of sizes at every call: that a bound lies inside an axis, say.

Two sources. Ranges: every symbol is replaced by a bound and what it differs from it, which is not negative, every floor
by its argument or a little less. Torch's shape environment: it holds what capture has decided for the example inputs,
which is checked before a compiled graph is run (a guard), so it holds at every call too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import sympy
from torch.utils._sympy import functions as torch_functions

from effcc.frontend.sizes import Range, origin, parts, torch_symbols
from effcc.ir.dims import Dim
from effcc.ir.size_functions import SizeFunction

NO_RANGES: Mapping[str, Range] = MappingProxyType({})


class Facts:
    """What is known of the sizes of a captured graph.

    for_all: capture took no size as another than `ranges` say: torch takes sizes as at least 2 where a user said 1.
    """

    def __init__(self, examples: Iterable[Any] = (), ranges: Mapping[str, Range] = NO_RANGES) -> None:
        self.ranges = ranges
        self.for_all = True
        self._environment: Any = None
        self._torch: dict[sympy.Symbol, Any] = {}
        for symbol, self._environment in torch_symbols(examples).items():
            found = parts(symbol, self._environment)
            self._torch[found.first] = (symbol if found.second is None else symbol + found.second) / found.factor
            assumed = self._environment.var_to_range.get(symbol)
            low, _ = ranges.get(found.first.name, (0, None))
            self.for_all &= found.second is not None or assumed is None or found.factor * low >= assumed.lower
        self._proved: dict[Any, bool] = {}

    def not_negative(self, size: Dim) -> bool:
        """Whether a size, or a difference of sizes, is at least 0 whatever values its symbols may have here."""
        if isinstance(size, int):
            return size >= 0
        if size not in self._proved:
            self._proved[size] = bool(size.is_nonnegative) or self._by_ranges(size) or self._by_torch(size)
        return self._proved[size]

    def _by_ranges(self, size: sympy.Expr) -> bool:
        """Every symbol as its least value and more, or as its greatest and less where the size falls with it."""
        least = sympy.expand(sympy.Add(*(_least(term) for term in sympy.Add.make_args(sympy.expand(size)))))
        fresh: dict[sympy.Symbol, sympy.Expr] = {}
        for s in size.free_symbols:
            low, high = self.ranges.get(s.name, (0, None))
            rest = sympy.Symbol(s.name, integer=True, nonnegative=True)
            fresh[s] = high - rest if high is not None and least.coeff(s).is_negative else low + rest
        return bool(sympy.expand(least.xreplace(fresh)).is_nonnegative)

    def _by_torch(self, size: sympy.Expr) -> bool:
        if self._environment is None or not self.for_all:
            return False
        theirs = self._in_torch(size)
        if theirs is None:
            return False
        theirs = sympy.expand(theirs)
        if not theirs.free_symbols <= set(self._environment.var_to_range):
            return False
        return bool(self._environment._maybe_evaluate_static(sympy.Ge(theirs, 0)) == sympy.true)

    def _in_torch(self, e: Any) -> Any:
        """A size as torch's expression; None where it has none."""
        if isinstance(e, sympy.Symbol):
            return self._torch.get(e)
        known = origin(e)
        if known is not None:
            return known
        if not e.args:
            return e
        if isinstance(e, sympy.floor):
            e = sympy.together(e.args[0])
            parts = [self._in_torch(p) for p in sympy.fraction(e)]
            return None if None in parts else torch_functions.FloorDiv(*parts)
        args = [self._in_torch(a) for a in e.args]
        if isinstance(e, SizeFunction) or any(a is None for a in args):
            return None
        function = {sympy.Max: torch_functions.Max, sympy.Min: torch_functions.Min}.get(e.func, e.func)
        return function(*args)


NOTHING_KNOWN = Facts()
"""What is known without a captured graph: constants, and that sizes are not negative."""


def _least(term: sympy.Expr) -> sympy.Expr:
    """Something that a term of a sum is at least; floors as fractions."""
    coefficient, factor = term.as_coeff_Mul()
    if not isinstance(factor, sympy.floor):
        return term
    inner = sympy.together(factor.args[0])
    _, denominator = sympy.fraction(inner)
    if not denominator.is_Integer:
        return term
    # floor(n / d) is at most n / d, and at least (n - d + 1) / d.
    return coefficient * (inner if coefficient < 0 else inner - sympy.Rational(denominator - 1, denominator))
