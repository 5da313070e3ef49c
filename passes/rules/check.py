"""Checks every rule against its claim on random instances: `python -m effcc.passes.rules.check`.

    exact               the same bits, any NaN for any NaN
    approximate(n ulp)  within n units in the last place of the pattern computed in float64, and infinite, NaN or zero
                        only where the pattern is; or what the pattern itself gives. With n = 0 the sign of a zero may
                        change
    reorders            within 64 eps of what the pattern gives for the inputs' magnitudes, in float64, and infinite
                        only where that is or inputs are; not where the pattern, finite, is
    reassociates        as near to the pattern computed in float64 as rounding allows: an error of at most 64 eps times
                        the largest value on the way, and in float64 itself the same; NaN and infinities where the
                        pattern has them

Integers are always the same. What runs by default (all but `reassociates`) is tried on numbers of every magnitude, from
the smallest denormal to the largest number, inputs, weights and constants alike, and on the constants that rounding
idioms are made of. Of `reassociates`, inputs stay below the range where another order overflows, weights are neither
infinite nor denormal.

Both sides run step by step in their own dtypes (`effcc.passes.rules.arithmetic`); every fourth instance again with a
symbolic size, where the rule fires on that too. A rule with fewer than a hundred instances is not checked, and fails.
Rules on single elements are also read as identities over the reals (`effcc.passes.rules.algebra`).
"""

from __future__ import annotations

import sys
import time
import warnings
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from effcc.errors import InputError, IRTypeError
from effcc.ir.dtypes import f64
from effcc.ir.graph import Graph
from effcc.ir.interpreter import run_graph
from effcc.passes.rules.algebra import decide
from effcc.passes.rules.arithmetic import computes, run_forms
from effcc.passes.rules.drawing import EVENLY, AnyMagnitude, Preferences
from effcc.passes.rules.engine import rewrite
from effcc.passes.rules.instances import Fill, Instance, instance, nonfinite, ordinary, special, tame, vast
from effcc.passes.rules.language import Rule, RuleSet, operations
from effcc.passes.rules.reader import load_all
from effcc.passes.rules.symbolic import symbolic
from effcc.passes.rules.termination import violations

WANTED = 120
"""Instances to try a rule on."""
LEAST = 100
"""Instances that must be found: a rule that matches less often has not been checked."""
_DRAWS = 20_000
"""Drafts to draw before giving up."""
_SLACK = 64
"""Roundings of the largest number on the way that a sum in another order may be off by: instances are small."""


@dataclass(frozen=True)
class Verdict:
    """What came of checking one rule: how many instances agreed, in how many draws, and the first failure, if any.

    `proof` says so where the rule is also an identity over the reals; `on_symbols` counts the instances that were tried
    with a symbolic size too; `witness` is the instance that failed, before the rule, and its inputs.
    """

    rule: Rule
    instances: int
    draws: int
    failure: str = ""
    proof: str = ""
    on_symbols: int = 0
    witness: tuple[Graph, tuple[np.ndarray, ...]] | None = None

    @property
    def passed(self) -> bool:
        return not self.failure

    def __str__(self) -> str:
        name = f"{self.rule.theme}: {self.rule.name} [{self.rule.claim}]{self.proof}"
        return f"{'ok  ' if self.passed else 'FAIL'} {self.instances:5d} of {self.draws:5d}  {name}" + (
            f"\n{self.failure}" if self.failure else ""
        )


def check_rule(rule: Rule, wanted: int = WANTED, seed: int = 0) -> Verdict:
    """Draw instances until `wanted` of them agreed, or one disagrees, or the draws run out."""
    verdict = try_rule(rule, wanted, seed)
    identity = decide(rule)
    if identity is None or verdict.failure:
        return verdict
    if identity.outcome == "refuted":
        return replace(verdict, failure=f"  {rule}\n  over the reals, {identity.witness}")
    return replace(verdict, proof=", proved over the reals" if identity.outcome == "proved" else "")


def try_rule(
    rule: Rule, wanted: int, seed: int, draws: int = _DRAWS, near: float = 0.0, strays: bool = False, size: int = 0
) -> Verdict:
    """The verdict of instances alone, so many or those of so many draws.

    near: how often drafts lie beyond what a condition allows, strays: whether by who computes an operand
    (`effcc.passes.rules.instances`). size: of every axis, if one is said, with every dtype as likely as others: of axes
    that are as long as each other, a rule that takes the wrong one still gives the right shape, and fires.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing, overflow: what special values are for
        return _check_rule(rule, wanted, seed, draws, near, strays, size)


def _check_rule(rule: Rule, wanted: int, seed: int, most: int, near: float, strays: bool, size: int) -> Verdict:
    if rule.claim.kind == "reorders":
        other = {o.op for side in (rule.pattern, rule.replacement) for o in operations(side)} - _SUMS_OF_PRODUCTS
        if other:
            listed = ", ".join(sorted(other))
            return Verdict(rule, 0, 0, f"  only sums of products can be in another order, not {listed}")
    key = zlib.crc32(rule.name.encode()) ^ seed
    drawn = AnyMagnitude if rule.claim.is_safe else Preferences
    random = drawn(key, (size,), EVENLY) if size else drawn(key)
    numbers = np.random.default_rng(key)
    often = 8 if strays else 3 if near else 1  # drafts beyond conditions are seldom instances
    fills = _FILLS[rule.claim.kind] * often
    found = on_symbols = 0
    for draws in range(1, most + 1):
        made = instance(rule, random, near, strays)
        if made is None:
            continue
        ran = False
        dynamic = _dynamic(rule, made.before) if found % 4 == 0 else None
        for fill in fills:
            weights = frozenset() if rule.claim.is_safe else made.before.weights
            inputs = {p.name: (tame if p.name in weights else fill)(p.type, numbers) for p in made.before.params}
            try:
                (expected,) = _run(made.before, list(inputs.values()))
                (wide,) = run_graph(made.before, list(inputs.values()), dtype=f64)
            except (TypeError, ValueError, IndexError, IRTypeError, InputError):
                continue  # NumPy refuses this op on this dtype or position, as torch does: nothing to compare with
            for applied in (made, dynamic):
                if applied is None:
                    continue
                problem = _disagreement(rule, applied, inputs, expected, wide, strays)
                if problem is not None:
                    return Verdict(rule, found, draws, problem, witness=(made.before, tuple(inputs.values())))
            on_symbols += dynamic is not None
            ran = True
        found += ran
        if found == wanted:
            return Verdict(rule, found, draws, on_symbols=on_symbols)
    failure = "" if found >= LEAST else f"  only {found} instances in {most} draws; at least {LEAST} must match"
    return Verdict(rule, found, most, failure, on_symbols=on_symbols)


_SUMS_OF_PRODUCTS = frozenset({
    "add", "mul", "sum", "matmul", "linear", "einsum", "convolution", "reshape", "transpose", "broadcast",
})  # fmt: skip
"""Ops that are larger the larger the magnitudes of their operands are, and of which sums are made."""

_FILLS: dict[str, tuple[Fill, ...]] = {
    "exact": (ordinary, special, vast),
    "approximate": (ordinary, special, vast),
    "reorders": (ordinary, nonfinite, vast),
    "reassociates": (ordinary, nonfinite),
}


def _run(graph: Graph, arrays: list[Any]) -> list[Any]:
    """What compiled code computes; where nothing is computed, what the references of the op table move."""
    return run_forms(graph, arrays) if computes(graph) else run_graph(graph, arrays)


def _dynamic(rule: Rule, graph: Graph) -> Instance | None:
    """The instance with a symbolic size, if the rule can prove there what it needs."""
    before = symbolic(graph)
    rewritten = None if before is None else rewrite(before, RuleSet((rule,)))
    return (
        Instance(before, rewritten.graph) if before is not None and rewritten is not None and rewritten.fired else None
    )


def check_rules(rules: Iterable[Rule], wanted: int = WANTED) -> list[Verdict]:
    """The verdict on each rule."""
    return [check_rule(rule, wanted) for rule in rules]


def _disagreement(
    rule: Rule, made: Instance, inputs: dict[str, np.ndarray], expected: np.ndarray, wide: np.ndarray, computed: bool
) -> str | None:
    """What is wrong with one instance on these inputs, in words; None where it agrees with what the pattern gave, in
    its own dtypes (`expected`) and in float64 (`wide`).

    computed: whether the pattern's operands may be computed, so that they were rounded, in float64 otherwise: one that
    is subnormal then by a part of itself that says nothing of the rule. What both sides make of the same operand is
    twice as far apart as each may be from what is right.
    """
    arrays = list(inputs.values())
    try:
        (got,) = _run(made.after, arrays)
    except (TypeError, ValueError, IRTypeError, InputError) as error:
        return "\n".join([f"  {rule}", "  before:", *_text(made.before), "  after:", *_text(made.after), f"  {error}"])
    if got.dtype != expected.dtype or got.shape != expected.shape:
        wrong = np.array(True)
    elif rule.claim.kind == "exact" or not _is_float(expected):
        wrong = ~_identical(got, expected)
    elif rule.claim.kind == "approximate":
        near = _within(got, wide, rule.claim.ulp)
        if computed or (not near.all() and _has_subnormals(made.before, arrays)):
            near |= _within(got, expected.astype(np.float64), 2 * rule.claim.ulp + 0.5)
        near &= _alike(got, expected, rule.claim.ulp)
        wrong = ~(near | _identical(got, expected))
    elif rule.claim.kind == "reorders":
        wrong = ~_reordered(made, arrays, got, expected, wide)
    else:
        wrong = ~_reassociated(made, arrays, got, expected, wide)
    if not wrong.any():
        return None
    return _describe(rule, made, inputs, expected, got, wrong)


def _is_float(a: np.ndarray) -> bool:
    return a.dtype.kind not in "biu"


def _identical(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where the bits agree; any NaN is any NaN."""
    if not _is_float(a):
        return a == b
    x, y = a.astype(np.float64), b.astype(np.float64)
    return (np.isnan(x) & np.isnan(y)) | ((x == y) & (np.signbit(x) == np.signbit(y)))


def _within(got: np.ndarray, wide: np.ndarray, ulp: float) -> np.ndarray:
    """Where `got` is within `ulp` units in the last place of `wide`, NaN and overflow to infinity included."""
    info = ml_dtypes.finfo(got.dtype)
    with np.errstate(all="ignore"):
        rounded, value = wide.astype(got.dtype).astype(np.float64), got.astype(np.float64)
        exponent = np.floor(np.log2(np.maximum(np.abs(wide), float(info.tiny))))
        unit = np.exp2(np.minimum(exponent, 1023)) * float(info.eps)
        near = np.abs(value - wide) <= (ulp + 0.5) * unit
    return near | (value == rounded) | (np.isnan(value) & np.isnan(rounded))


def _alike(got: np.ndarray, expected: np.ndarray, ulp: float) -> np.ndarray:
    """Where both are finite or neither is, and both are zero or neither is, but for numbers that `ulp` units part."""
    info = ml_dtypes.finfo(got.dtype)
    a, b = np.abs(got.astype(np.float64)), np.abs(expected.astype(np.float64))
    most, least = float(info.max), float(info.smallest_subnormal)
    with np.errstate(invalid="ignore"):
        at_the_top = np.minimum(a, b) >= most * (1 - (ulp + 1) * float(info.eps))
        at_the_bottom = np.maximum(a, b) <= (ulp + 1) * least
        same = (np.isfinite(a) == np.isfinite(b)) & ((a == 0) == (b == 0))
    return same | at_the_top | at_the_bottom


def _reordered(
    made: Instance, arrays: list[Any], got: np.ndarray, expected: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    """Where a sum is as near to the pattern as roundings of the sum of its terms' magnitudes allow."""
    sizes = [np.abs(a) if _is_float(a) else a for a in arrays]
    all_finite = all(bool(np.isfinite(a.astype(np.float64)).all()) for a in arrays)
    (magnitude,) = run_graph(made.before, sizes, dtype=f64)
    info = ml_dtypes.finfo(got.dtype)
    with np.errstate(all="ignore"):
        value, reference = got.astype(np.float64), expected.astype(np.float64)
        bound = _SLACK * (float(info.eps) * magnitude + float(info.smallest_subnormal))
        near = np.abs(value - wide) <= bound
        overflows = all_finite & (magnitude + bound >= float(info.max))
    return near | overflows | (value == reference) | (np.isnan(value) & np.isnan(reference))


def _reassociated(
    made: Instance, arrays: list[Any], got: np.ndarray, expected: np.ndarray, wide: np.ndarray
) -> np.ndarray:
    (got_wide,) = run_graph(made.after, arrays, dtype=f64)
    scale = max(_largest(made.before, arrays), _largest(made.after, arrays))
    info = ml_dtypes.finfo(got.dtype)
    with np.errstate(all="ignore"):
        value, reference = got.astype(np.float64), expected.astype(np.float64)
        bound = _SLACK * (float(info.eps) * scale + float(info.tiny))
        near = (np.abs(value - wide) <= bound) & (np.abs(got_wide - wide) <= _SLACK * (2.0**-52 * scale + 1e-300))
    return near | (value == reference) | (np.isnan(value) & np.isnan(reference))


def _has_subnormals(graph: Graph, arrays: list[Any]) -> bool:
    """Whether what is computed on the way to the result is subnormal somewhere, and so lost most of its digits."""
    inner = tuple(r for n in graph.nodes for r in n.results if r.type.dtype.is_float and r not in graph.outputs)
    for array in run_graph(graph.with_nodes(graph.nodes, inner), arrays):
        magnitude = np.abs(array.astype(np.float64))
        if ((magnitude > 0) & (magnitude < float(ml_dtypes.finfo(array.dtype).tiny))).any():
            return True
    return False


def _largest(graph: Graph, arrays: list[Any]) -> float:
    """The largest finite magnitude of any value that the graph computes, in float64."""
    everything = tuple(r for n in graph.nodes for r in n.results if r.type.dtype.is_float)
    largest = 1.0
    for array in (*arrays, *run_graph(graph.with_nodes(graph.nodes, everything), arrays, dtype=f64)):
        if _is_float(array):
            finite = np.abs(array.astype(np.float64))
            largest = max(largest, float(np.max(finite, initial=0.0, where=np.isfinite(finite))))
    return largest


def _describe(rule: Rule, made: Instance, inputs: dict[str, np.ndarray], expected: Any, got: Any, wrong: Any) -> str:
    lines = [f"  {rule}", "  before:", *_text(made.before), "  after:", *_text(made.after)]
    lines += [f"  %{name} = {np.array2string(a.ravel()[:12], separator=', ')}" for name, a in inputs.items()]
    if expected.shape == got.shape == wrong.shape and wrong.size:
        place = tuple(int(i[0]) for i in np.nonzero(wrong)) if wrong.ndim else ()
        lines.append(f"  at {list(place)}: expected {expected[place]!r}, got {got[place]!r}")
    else:
        lines.append(f"  expected {expected.dtype}{list(expected.shape)}, got {got.dtype}{list(got.shape)}")
    return "\n".join(lines)


def _text(graph: Graph) -> list[str]:
    return [
        f"    %{n.result.name} = {n.op} {', '.join('%' + o.name for o in n.operands)} {dict(n.attrs)} : {n.result.type}"
        for n in graph.nodes
    ]


def main() -> int:
    """Print a line for each rule, with its instances; 1 if any rule fails or the measure does not decrease."""
    rules, began = load_all(), time.perf_counter()
    problems = violations(rules)
    verdicts = []
    for rule in rules.rules:
        verdicts.append(check_rule(rule))
        print(verdicts[-1], flush=True)
    for problem in problems:
        print(f"FAIL {problem}")
    failed = sum(not v.passed for v in verdicts) + len(problems)
    total = sum(v.instances for v in verdicts)
    proved = sum(bool(v.proof) for v in verdicts)
    seconds = time.perf_counter() - began
    print(
        f"{len(verdicts)} rules, {total} instances, {proved} proved over the reals, {failed} failures, {seconds:.1f} s"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
