"""What a case must compute, and how far numbers may be off.

The reference is the graph interpreted in float64. How much rounding matters in a graph is measured, not guessed: it is
interpreted again with every value disturbed by a few units in the last place of its own dtype, several times. The
spread is what any order of computation may differ by; elements of integers or NaN that the disturbance changes hang on
a discontinuity (a comparison, a rounding, an arg-max) and are not compared.

A result is right when its largest error is at most `4 x eager's + 2 eps max|reference|` (DESIGN.md) plus that spread,
NaN and infinities are where eager has them, and integers are equal. Where every step is defined to the bit
(`effcc.fuzz.steps`) or exact (`effcc.fuzz.exact`), results in the graph's own dtypes are equal bit by bit. Of single
functions (`effcc.fuzz.functions`) compiled code is held to units in the last place, element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from effcc.fuzz.exact import exactness
from effcc.fuzz.functions import functions_of, ulp_errors
from effcc.fuzz.generate import Case
from effcc.fuzz.steps import defined_to_the_bit, same_bits
from effcc.ir.dtypes import DType, f64
from effcc.ir.graph import Node, Value
from effcc.ir.ops import TABLE
from effcc.passes.tiling.chunk import SUM

Array = np.ndarray[Any, Any]

_MOVES = ("view", "gather", "create")  # kinds of ops whose results are copies: nothing is rounded
_SUMS = ("contraction", "norm", "reduction", "scan")  # kinds whose errors go by the terms, which may cancel out
_PLAIN_SUMS = ("norm", "reduction")  # which eager adds up in cascades, and compiled code in chunks
_FEW = 8
_HUGE = 1e15  # beyond it, where numbers overflow depends on the order of computation


@dataclass(frozen=True)
class Result:
    """One result of a case: in its own dtypes, in float64, the spread, and the elements that can be compared."""

    dtype: DType
    own: Array
    wide: Array
    spread: float
    stable: Array


@dataclass(frozen=True)
class Expected:
    """The results of a case; `overflows` where a value came so near the end of a dtype that infinities are arbitrary.

    `scale`: the largest finite magnitude on the way. `exact`: results are equal in every `bits`, or as `numbers`, of
    which the two zeros are one. `functions`: what each result is, where that is all that is computed.
    """

    results: tuple[Result, ...]
    overflows: bool
    scale: float
    exact: str = ""
    functions: tuple[str, ...] = ()

    def of(self, numbers: Sequence[int]) -> Expected:
        """What some of the results must be."""
        functions = tuple(self.functions[k] for k in numbers if k < len(self.functions))
        return replace(self, results=tuple(self.results[k] for k in numbers), functions=functions)


def expect(case: Case, trials: int = 3, strength: float = 4.0) -> Expected:
    """Interpret a case in its own dtypes, in float64, and `trials` times disturbed by `strength` units."""
    own = case.run()
    floats = [
        a.astype(np.float64) for a, p in zip(case.inputs, case.graph.params, strict=True) if p.type.dtype.is_float
    ]
    largest = [max((float(np.abs(a[np.isfinite(a)]).max(initial=0.0)) for a in floats), default=0.0)]

    def measure(node: Node, results: list[Array]) -> list[Array]:
        for result in results:
            if result.dtype == np.float64:
                largest[0] = max(largest[0], float(np.abs(result[np.isfinite(result)]).max(initial=0.0)))
        return results

    wide = case.run(f64, observe=measure)
    disturbed = [_disturbed(case, np.random.default_rng([case.seed, k]), strength) for k in range(trials)]
    results = []
    for number, value in enumerate(case.graph.results):
        spread, stable = _spread(wide[number], [d[number] for d in disturbed])
        if not value.type.dtype.is_float:
            stable &= own[number] == wide[number]  # what hangs on rounding or underflow in its own dtypes
        results.append(Result(value.type.dtype, own[number], wide[number], spread, stable))
    limit = min((float(ml_dtypes.finfo(d.numpy).max) for d in _float_dtypes(case)), default=np.inf)
    exact = "bits" if defined_to_the_bit(case.graph) else exactness(case.graph)
    overflows = largest[0] > min(_HUGE, limit / 100)
    return Expected(tuple(results), overflows, largest[0], exact, functions_of(case.graph))


def _float_dtypes(case: Case) -> set[DType]:
    values = [*case.graph.params, *(r for n in case.graph.nodes for r in n.results)]
    return {v.type.dtype for v in values if v.type.dtype.is_float}


def _disturbed(case: Case, data: np.random.Generator, strength: float) -> list[Array]:
    def shake(value: Value, array: Array, sums: bool = False, units: float = strength) -> Array:
        if not value.type.dtype.is_float or array.size == 0:
            return array
        unit = units * float(ml_dtypes.finfo(value.type.dtype.numpy).eps)
        shaken = array * (1 + unit * _noise(array.shape, data))
        if not sums:  # whole numbers come out as they are
            shaken = np.where(array == np.rint(array), array, shaken)
        else:
            largest = np.abs(array[np.isfinite(array)]).max(initial=0.0)
            shaken = shaken + unit / 4 * largest * _noise(array.shape, data)
        return np.asarray(shaken)

    sizes = {p: a.size for p, a in zip(case.graph.params, case.inputs, strict=True)}

    def observe(node: Node, results: list[Array]) -> list[Array]:
        sizes.update((v, a.size) for v, a in zip(node.results, results, strict=True))
        if TABLE[node.op].kind in _MOVES:
            return results
        sums = TABLE[node.op].kind in _SUMS
        read = max((sizes.get(v, 0) for v in node.operands), default=0)
        terms = read // max(min(a.size for a in results), 1)
        units = max(strength, _units_of_chunk(terms)) if TABLE[node.op].kind in _PLAIN_SUMS else strength
        return [shake(v, a, sums, units) for v, a in zip(node.results, results, strict=True)]

    with np.errstate(all="ignore"):
        pairs = zip(case.graph.params, case.inputs, strict=True)
        inputs = [a.astype(np.float64) if p.type.dtype.is_float else a for p, a in pairs]
        shaken = [shake(p, a) for p, a in zip(case.graph.params, inputs, strict=True)]
        return case.run(f64, shaken, observe=observe)


def _noise(shape: tuple[int, ...], data: np.random.Generator) -> Array:
    """Between -1 and 1; of few elements one of both, as a single one could lie near 0 in all trials."""
    drawn = data.uniform(-1, 1, shape)
    return drawn if np.size(drawn) > _FEW else np.sign(drawn)


def _units_of_chunk(terms: int) -> float:
    """How many units equal terms may be off that one accumulator adds up: each addition rounds the same way, by a half
    of the partial sum's unit at most, which is a quarter of a unit of the whole a term."""
    return min(terms, SUM * 3 // 2) / 4


def _spread(wide: Array, disturbed: Sequence[Array]) -> tuple[float, Array]:
    stable = np.ones(wide.shape, bool)
    spread = 0.0
    for other in disturbed:
        if wide.dtype != np.float64:
            stable &= wide == other
            continue
        with np.errstate(invalid="ignore"):
            finite = np.isfinite(wide) & np.isfinite(other)
            stable &= finite | (wide == other) | (np.isnan(wide) & np.isnan(other))
            difference = np.abs(wide - other)[finite]
        spread = max(spread, float(difference.max()) if difference.size else 0.0)
    return spread, stable


def difference(
    candidate: Any,
    eager: Array | None,
    expected: Expected,
    number: int,
    is_eager: bool = False,
    in_sequence: bool = False,
    by_elements: bool = False,
    interpreted: bool = False,
) -> str:
    """How `candidate` is wrong as result `number`; empty where it is right.

    A candidate in float64 for a narrower result was interpreted wide, and must have its special values where the
    reference has them; others must have them where eager has (or the interpreter, where there is no eager). Eager
    itself may have NaN for an infinity of the interpreter, and the other way round (it orders the products of an
    einsum), and be off by roundings of what cancels out on the way; so may what sums `in_sequence`, however long.
    by_elements: functions are ours, with a bound for each element. interpreted: in float64, all of it.
    """
    want = expected.results[number]
    got: Array = np.asarray(candidate)
    if got.shape != want.own.shape:
        return f"result {number} has the shape {list(got.shape)}, expected {list(want.own.shape)}"
    widened = got.dtype == np.float64 and want.own.dtype != np.float64
    if not widened and got.dtype != want.own.dtype:
        return f"result {number} has the dtype {got.dtype}, expected {want.own.dtype}"
    if expected.exact and not (interpreted and not want.dtype.is_float):
        alike = same_bits(got, want.own, expected.exact == "bits")
        wrong = np.zeros(got.shape, bool) if widened else ~alike
        return _where(number, wrong, want.own, got) if wrong.any() else ""
    if not want.dtype.is_float:
        wrong = (got != want.own) & want.stable
        return _where(number, wrong, want.own, got) if wrong.any() else ""
    if any(expected.functions[number : number + 1]) and by_elements and not widened:
        wrong = ulp_errors(expected.functions[number], want.wide, got, want.dtype) > 0
        return _where(number, wrong, want.wide, got) + " (beyond its ulps)" if wrong.any() else ""
    model = want.wide if widened else want.own if eager is None else eager
    anything = expected.overflows or (is_eager and not np.isfinite(got[~np.isfinite(model)].astype(np.float64)).any())
    scale = expected.scale if is_eager or in_sequence else 0.0
    return _floating(number, got.astype(np.float64), model.astype(np.float64), want, eager, anything, scale)


def _floating(
    number: int, got: Array, model: Array, want: Result, eager: Array | None, anything: bool, scale: float
) -> str:
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(got) & np.isfinite(model) & np.isfinite(want.wide)
        special = ~(np.isfinite(got) & np.isfinite(model))
        same = (got == model) | (np.isnan(got) & np.isnan(model))
        wrong = special & ~same & want.stable
        if eager is not None:  # where eager itself depends on the order of computation, anything goes
            wrong &= _same_kind(model, want.own.astype(np.float64))
        if wrong.any() and not anything:
            return _where(number, wrong, model, got)
        exact = want.wide[finite]
        errors = np.abs(got[finite] - exact)
        eager_errors = np.abs(model[finite] - exact)
    if not errors.size:
        return ""
    eps = float(ml_dtypes.finfo(want.dtype.numpy).eps)
    bound = 4 * eager_errors.max() + 2 * eps * np.abs(exact).max() + want.spread + _smallest(want.dtype)
    bound += 400 * eps * scale  # eager's norms of equal elements, say, are not quite 0
    if errors.max() <= bound:
        return ""
    wrong = np.zeros(got.shape, bool)
    wrong[finite] = errors > bound
    return _where(number, wrong, want.wide, got) + f" (bound {bound:.3g})"


def _smallest(dtype: DType) -> float:
    return 4 * float(ml_dtypes.finfo(dtype.numpy).smallest_subnormal)


def _same_kind(a: Array, b: Array) -> Array:
    return np.asarray((np.isfinite(a) & np.isfinite(b)) | (a == b) | (np.isnan(a) & np.isnan(b)))


def _where(number: int, wrong: Array, expected: Array, got: Array) -> str:
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    return (
        f"result {number}: {int(wrong.sum())} of {wrong.size} elements differ, the first at {list(place)}: "
        f"expected {expected[place]}, got {got[place]}"
    )
