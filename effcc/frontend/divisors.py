"""By what sizes are divisible at every call, as guards of torch's shape environment show.

A network that halves an image and doubles it again adds up both where they are equal, for even sizes only: capture
decides so for the example inputs, by a guard `2 * ((s - 1) // 2) + 2 == s`. Written s = 2 * t, both are 2 * t, and all
that is made of them is as plain. Guards are checked before a compiled graph is run, so this holds at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import gcd
from typing import Any
from weakref import WeakKeyDictionary

import sympy
from torch.utils._sympy import functions as torch_functions

from effcc.errors import UnsupportedError

Convert = Callable[[Any, Mapping[Any, Any]], Any]
"""An expression of torch's as one of effcc's, where it is given what stands for each symbol."""

_LONGEST, _LARGEST = 64, 1 << 16
_OPERATIONS = 24
"""Of an equality that is looked at, at most: of a padded window's nested rests, each trial takes sympy seconds."""
_QUOTIENTS = (torch_functions.FloorDiv, torch_functions.Mod, torch_functions.PythonMod, torch_functions.CleanDiv)
_FOUND: WeakKeyDictionary[Any, dict[Any, int]] = WeakKeyDictionary()


def divisor(symbol: Any, environment: Any, convert: Convert) -> int:
    """The largest number that is known to divide a size of torch's; 1 where none is.

    Answered once for an environment, whose graphs shall all write a size alike, also where guards are added later.
    """
    known = _FOUND.setdefault(environment, {})
    if symbol not in known:
        equal = [g.expr for g in environment.guards if isinstance(g.expr, sympy.Eq) and symbol in g.expr.free_symbols]
        short = [e for e in equal if e.has(*_QUOTIENTS) and e.count_ops() <= _OPERATIONS]
        known[symbol] = _largest(short, symbol, environment, convert)
    return known[symbol]


def _largest(equal: Iterable[Any], symbol: Any, environment: Any, convert: Convert) -> int:
    """For each number q that a guard divides by: the rests that the size may leave, which guards do not refute."""
    quotients = {q for e in equal for q in e.atoms(*_QUOTIENTS)}
    divided = {int(q.args[1]) for q in quotients if q.args[1].is_Integer and 1 < q.args[1] <= _LONGEST}
    others = {s: _size_like(s, environment) for e in equal for s in e.free_symbols}
    t = sympy.Dummy(integer=True, nonnegative=True)

    def may_be(size: Any) -> bool:
        return not any(_differ(e, {**others, symbol: size}, convert) for e in equal)

    def gained(q: int) -> int:
        return gcd(q, *(rest for rest in range(1, q) if may_be(found * (q * t + rest))))

    found = 1
    while found < _LARGEST and (more := max(map(gained, divided), default=1)) > 1:
        found *= more
    return found


def _size_like(symbol: Any, environment: Any) -> sympy.Dummy:
    known = environment.var_to_range.get(symbol)
    if known is None or known.lower < 0:
        return sympy.Dummy(integer=True)
    return sympy.Dummy(integer=True, **{"nonnegative" if known.lower < 1 else "positive": True})


def _differ(equality: Any, given: Mapping[Any, Any], convert: Convert) -> bool:
    """Whether the sides of an equality differ whatever the symbols' values."""
    try:
        left, right = (convert(side, given) for side in equality.args)
    except UnsupportedError:
        return False
    return bool(sympy.expand(left - right).is_nonzero)


__all__ = ["divisor"]
