"""Random instances of a rule: a graph in which the rule fires, and inputs for it.

A draft gives every leaf of the pattern a type and every attribute a value, drawn from the pattern's own ops; then the
conditions propose changes; then everything else is drawn again around what they fixed. Whether the pattern's types fit
and the conditions hold is not decided here: the draft becomes a graph, and the engine itself must fire on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import ml_dtypes
import numpy as np

from effcc.errors import IRTypeError
from effcc.ir.dims import Shape, product
from effcc.ir.dtypes import DType
from effcc.ir.graph import Graph, GraphBuilder, Value
from effcc.ir.ops import lookup
from effcc.ir.types import TensorType
from effcc.passes.rules.conditions import CONDITIONS
from effcc.passes.rules.constants import as_held, constant_attrs, neighbour
from effcc.passes.rules.drawing import MAGNITUDES, draw, draw_number
from effcc.passes.rules.engine import Rewritten, rewrite
from effcc.passes.rules.functions import UNDEFINED
from effcc.passes.rules.language import (
    Expression,
    Name,
    Number,
    NumberVariable,
    Operation,
    Rule,
    RuleSet,
    Tensor,
    Term,
    operations,
)
from effcc.passes.rules.matching import Match, value_of


@dataclass
class Draft:
    """Types of the pattern's tensors (inner ones and `result` too), attribute values, and marks that conditions set.

    `weights` are leaves that become weights, `producers` ops whose result a leaf is, `strays` those that no condition
    asked for; `kept` leaves stay when the rest is drawn again; `constants` has the shapes of constant operands, by
    operation and position.
    """

    tensors: dict[str, TensorType] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    weights: set[str] = field(default_factory=set)
    producers: dict[str, str] = field(default_factory=dict)
    strays: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    constants: dict[tuple[Operation, int], Shape] = field(default_factory=dict)

    def keep(self, *names: str) -> None:
        self.kept.update(names)

    def value(self, e: Expression) -> Any:
        """What an expression stands for, tensors as values without a producer."""
        found = value_of(e, Match({n: Value(n, t) for n, t in self.tensors.items()}, self.scalars, ()))
        if found is UNDEFINED:
            raise _Refused
        return found


class _Refused(Exception):
    """This draft does not work out; draw another."""


@dataclass(frozen=True)
class Instance:
    """A rule applied once: the graph before and after. The names of `before` tell leaves from constants."""

    before: Graph
    after: Graph


UNARY_STRAYS = (
    "neg", "tanh", "floor", "sin", "cos", "relu", "sign", "reciprocal", "expm1", "log", "log1p", "erf",
)  # fmt: skip
BINARY_STRAYS = ("add", "sub", "mul", "div", "maximum", "minimum")
"""What computes an operand that a condition may not hold of; those of two are of magnitudes at times (`sub abs`)."""


def instance(rule: Rule, random: Random, near: float = 0.0, strays: bool = False) -> Instance | None:
    """A random instance, or None where the draw did not fit the rule.

    near: how often a condition proposes nothing, so that a draft lies just beyond what it allows. Such drafts are
    instances only of conditions that hold where they must not. strays: whether to look only at drafts of which a
    condition takes an operand for what it is not by the operator that computes it: the rule would not fire if it were a
    parameter.
    """
    try:
        draft = _draft(rule, random, near)
        graph = _graph(rule, draft)
    except (IRTypeError, _Refused, IndexError, ValueError, ZeroDivisionError, OverflowError):
        # A draw whose ranks or sizes do not fit the conditions' own arguments: not an instance.
        return None
    if strays and not draft.strays:
        return None
    rewritten: Rewritten = rewrite(graph, RuleSet((rule,)))
    if not rewritten.fired or (strays and _fires(rule, replace(draft, strays={}))):
        return None
    return Instance(graph, rewritten.graph)


def _fires(rule: Rule, draft: Draft) -> bool:
    try:
        return bool(rewrite(_graph(rule, draft), RuleSet((rule,))).fired)
    except (IRTypeError, _Refused):
        return False


def _draft(rule: Rule, random: Random, near: float) -> Draft:
    draft = Draft()
    draft.tensors["result"] = _complete(rule.pattern, draft, random)
    proposals = [c for c in rule.conditions if not c.negated]
    for each in proposals:
        if near and random.random() < near:
            strays = [a.name for a in each.args if isinstance(a, Tensor)]
            draft.strays.update({name: _stray(random) for name in strays if random.random() < 0.7})
        else:
            CONDITIONS[each.name].propose(draft, random, each.args)
    if proposals:
        # Twice: a proposal may depend on what an earlier one changed.
        draft.tensors = {name: t for name, t in draft.tensors.items() if name in draft.kept}
        draft.tensors["result"] = _complete(rule.pattern, draft, random)
    _fit_result(rule, draft)
    return draft


def _stray(random: Random) -> str:
    if random.random() < 0.4:
        return random.choice(UNARY_STRAYS)
    return random.choice(BINARY_STRAYS) + random.choice(("", " abs"))


def _fit_result(rule: Rule, draft: Draft) -> None:
    """Where the pattern ends in a view to a free shape, make it the replacement's: others would be refused."""
    free = dict(rule.pattern.attrs).get("shape")
    inner = {e for o in operations(rule.pattern) if o is not rule.pattern for _, e in o.attrs}
    if isinstance(free, Name) and free not in inner and isinstance(rule.replacement, Operation):
        try:
            draft.scalars[free.name] = _type(rule.replacement, draft).shape
        except IRTypeError:
            return
        draft.tensors["result"] = TensorType(draft.tensors["result"].dtype, draft.scalars[free.name])


def _type(term: Term, draft: Draft) -> TensorType:
    if isinstance(term, Operation):
        types = tuple(_type(o, draft) for o in term.operands)
        (found,) = lookup(term.op).infer_types(types, {name: draft.value(e) for name, e in term.attrs})
        return found
    return draft.tensors[term.name if isinstance(term, Tensor) else "result"]


def _complete(term: Operation, draft: Draft, random: Random) -> TensorType:
    """Draw what the draft lacks for a pattern, inner operations first; its type."""
    known: list[TensorType | None] = []
    for operand in term.operands:
        if isinstance(operand, Operation):
            known.append(_complete(operand, draft, random))
        else:
            known.append(draft.tensors.get(operand.name) if isinstance(operand, Tensor) else None)
    spec = lookup(term.op)
    fixed = {}
    for name, e in term.attrs:
        if isinstance(e, Name):
            if e.name in draft.scalars:
                fixed[name] = draft.scalars[e.name]
        else:
            fixed[name] = draft.value(e)
    types, attrs = draw(spec, known, fixed, random)
    for i, operand in enumerate(term.operands):
        if isinstance(operand, Tensor):
            types[i] = draft.tensors.setdefault(operand.name, types[i])
        elif not isinstance(operand, Operation):
            types[i] = _constant_type(term, types, i, draft, random)
    for name, e in term.attrs:
        if isinstance(e, Name):
            draft.scalars.setdefault(e.name, attrs[name])
    (result,) = spec.infer_types(tuple(types), {name: draft.value(e) for name, e in term.attrs})
    if term.name:
        draft.tensors[term.name] = result
    return result


def _constant_type(of: Operation, types: list[TensorType], position: int, draft: Draft, random: Random) -> TensorType:
    """A constant operand has its neighbour's dtype and mostly no axes; a number variable gets its number here."""
    term = of.operands[position]
    near = neighbour(of.op, [None if i == position else t for i, t in enumerate(types)]) or types[position]
    if isinstance(term, NumberVariable):
        others = [v for v in draft.scalars.values() if isinstance(v, float)]
        value = draft.scalars.setdefault(term.name, draw_number(near.dtype, random, others))
        held = as_held(value, near.dtype)
    else:
        held = as_held(term.value, near.dtype) if isinstance(term, Number) else None
    if held is None:
        raise _Refused
    shape = draft.constants[of, position] = () if random.random() < 0.8 else near.shape
    return TensorType(near.dtype, shape)


def _graph(rule: Rule, draft: Draft) -> Graph:
    """The pattern as a graph; its root is read by an identity, so that the root itself is no output."""
    b = GraphBuilder(rule.name)
    values: dict[str, Value] = {}
    leaves = _leaves(rule.pattern, draft)
    for name, t in leaves.items():
        values[name] = _leaf(b, name, t, draft)
    root = _emit(rule.pattern, draft, b, values)
    return b.build((b.emit("flip", root, name="output", axes=()),))


def _leaf(b: GraphBuilder, name: str, t: TensorType, draft: Draft) -> Value:
    """A parameter, or what the op that a condition asked for makes of one."""
    producer = draft.strays.get(name) or draft.producers.get(name)
    if producer is None:
        return b.param(name, t, weight=name in draft.weights)
    if producer == "iota":
        return b.emit("iota", name=name, size=t.shape[0], dtype=t.dtype)
    if producer == "linear":
        *rows, columns = t.shape
        x = b.param(f"{name}_0", TensorType(t.dtype, (*rows, 2)))
        w = b.param(f"{name}_1", TensorType(t.dtype, (columns, 2)), weight=True)
        return b.emit("linear", x, w, name=name)
    x = b.param(f"{name}_0", t)
    op, _, of = producer.partition(" ")
    if op not in BINARY_STRAYS:
        return b.emit(op, x, name=name)
    operands = [x, b.param(f"{name}_1", t)]
    return b.emit(op, *(b.emit(of, o) if of else o for o in operands), name=name)


def _leaves(term: Term, draft: Draft) -> dict[str, TensorType]:
    if isinstance(term, Tensor):
        return {term.name: draft.tensors[term.name]}
    found: dict[str, TensorType] = {}
    if isinstance(term, Operation):
        for operand in term.operands:
            found.update(_leaves(operand, draft))
        found.pop(term.name, None)
    return found


def _emit(term: Term, draft: Draft, b: GraphBuilder, values: dict[str, Value]) -> Value:
    if isinstance(term, Tensor):
        return values[term.name]
    assert isinstance(term, Operation)
    operands: list[Value | None] = [
        _emit(o, draft, b, values) if isinstance(o, (Tensor, Operation)) else None for o in term.operands
    ]
    near = neighbour(term.op, operands)
    for i, operand in enumerate(term.operands):
        if operands[i] is None:
            value = operand.value if isinstance(operand, Number) else draft.scalars[operand.name]  # type: ignore[union-attr]
            like = near.type.dtype if near is not None else draft.tensors["result"].dtype
            if as_held(value, like) is None:
                raise _Refused
            op, attrs = constant_attrs(value, TensorType(like, draft.constants[term, i]))
            operands[i] = b.emit(op, name="c", **attrs)
    attrs = {name: draft.value(e) for name, e in term.attrs}
    result = b.emit(term.op, *(o for o in operands if o is not None), name=term.name or term.op, **attrs)
    if term.name:
        values[term.name] = result
    return result


# --- data ------------------------------------------------------------------------------------------------------------

Fill = Callable[[TensorType, np.random.Generator], np.ndarray]


def ordinary(t: TensorType, random: np.random.Generator) -> np.ndarray:
    """Numbers of ordinary size, with some zeros of both signs and denormals between them."""
    return _filled(t, random, _SMALL, 0.15, random.choice([0.1, 1.0, 1.0, 10.0]))


def tame(t: TensorType, random: np.random.Generator) -> np.ndarray:
    """Numbers of ordinary size and some zeros, as weights are."""
    return _filled(t, random, ("0",), 0.1, 1.0)


def nonfinite(t: TensorType, random: np.random.Generator) -> np.ndarray:
    """Ordinary numbers with NaN and infinities between them."""
    return _filled(t, random, _NONFINITE, 0.2, 1.0)


def special(t: TensorType, random: np.random.Generator) -> np.ndarray:
    """Every special value often: NaN, infinities, zeros, denormals, the largest numbers, and integers that overflow."""
    return _filled(t, random, _NONFINITE + _SMALL + _LARGE, 0.6, 1.0)


def vast(t: TensorType, random: np.random.Generator) -> np.ndarray:
    """Finite numbers of every magnitude, denormal ones too: all alike in one tensor, or each of its own."""
    if not t.dtype.is_float:
        return special(t, random)
    info = ml_dtypes.finfo(t.dtype.numpy)
    shape = tuple(int(d) for d in t.shape)
    low, high = math.log2(float(info.smallest_subnormal)), math.log2(float(info.max))
    width = random.choice([0.0, 3.0, high - low])
    start = low + random.choice([random.random(), 1.0]) * (high - low - width)
    with np.errstate(over="ignore", under="ignore"):
        values = np.exp2(random.uniform(start, start + width, shape) - 1) * random.uniform(1.0, 2.0, shape)
        values = np.where(random.random(shape) < 0.1, 0.0, values)
        if random.random() < 0.3:
            values = np.where(random.random(shape) < 0.5, random.choice(np.array(MAGNITUDES), shape), values)
        values = values * random.choice([-1.0, 1.0], shape)
        return np.clip(values, -float(info.max), float(info.max)).astype(t.dtype.numpy).reshape(shape)


_SMALL = ("0", "-0", "denormal", "-denormal", "tiny")
_NONFINITE = ("nan", "inf", "-inf")
_LARGE = ("max", "-max", "1", "-1")


def _filled(
    t: TensorType, random: np.random.Generator, specials: tuple[str, ...], share: float, scale: float
) -> np.ndarray:
    shape = tuple(int(d) for d in t.shape)
    count = int(product(shape))
    if t.dtype.kind == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if t.dtype.is_integer:
        info = np.iinfo(t.dtype.numpy)
        low = 0 if t.dtype.kind == "uint" else -9
        values = random.integers(low, 10, count).astype(t.dtype.numpy)
        if "max" in specials:
            chosen = random.random(count) < share / 2
            values[chosen] = random.choice(np.array([info.min, info.max, 0, 1], t.dtype.numpy), int(chosen.sum()))
            chosen = random.random(count) < share / 4
            values[chosen] = _near_powers(t.dtype, int(chosen.sum()), random)
        return values.reshape(shape)
    with np.errstate(all="ignore"):
        values = (random.standard_normal(count) * scale).astype(t.dtype.numpy)
        chosen = random.random(count) < share
        table = np.array([_special(name, t.dtype) for name in specials]).astype(t.dtype.numpy)
        values[chosen] = table[random.integers(0, len(specials), int(chosen.sum()))]
    return values.reshape(shape)


def _near_powers(dtype: DType, count: int, random: np.random.Generator) -> np.ndarray:
    """Integers beside powers of two, of both signs: what a float of fewer digits does not hold."""
    bits = 8 * dtype.numpy.itemsize
    near = np.left_shift(np.int64(1), random.integers(0, bits, count)) + random.integers(-1, 2, count)
    return (near * random.choice((-1, 1), count)).astype(dtype.numpy)


def _special(name: str, dtype: DType) -> float:
    info = ml_dtypes.finfo(dtype.numpy)
    limits = {
        "denormal": float(info.smallest_subnormal), "tiny": float(info.tiny), "max": float(info.max),
    }  # fmt: skip
    sign = -1.0 if name.startswith("-") else 1.0
    bare = name.removeprefix("-")
    return sign * limits[bare] if bare in limits else float(name)
