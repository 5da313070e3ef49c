"""Products read encoded weights as they are stored: three rewrites of the cascade, for any encoding.

*Values* are read through. `W[n,k] = f32(Q[n,k]) * S[n]` in a sum over k gives, with what does not depend on k moved
out,

    O[m,n] = sum(k: X[m,k] * f32(Q[n,k])) * S[n]

*Levels* meet the sum. `W[n,k] = sum(j: where(k == C[n//4,j], V[n//4,j,n%4], 0))`: of the sum over k only k = C[n//4,j]
is left,

    O[m,n] = sum(j: X[m,C[n//4,j]] * V[n//4,j,n%4])

*Gathered operands* are stored so that what is gathered are rows, `XT[k,m] = X[m,k]`, where a row fills vectors.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from effcc.ir.dims import contiguous_strides, elements, same_shape
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    Span,
    free_axes,
    loads,
    substitute_axes,
    transform,
    walk,
)
from effcc.ir.kernel import Statement
from effcc.ir.types import TensorType
from effcc.passes.fusion.cascade import Cascade, Defined, Opaque, read_through

ROWS_WORTH_VECTORS = 8
"""So many points along which a gathered operand is contiguous make it worth storing it so."""
ROWS_WORTH_A_TURN = 32
"""So many points of each result make it worth storing sums of gathered rows as rows, and turning these as a whole."""


@dataclass(frozen=True)
class Encoded:
    """A decoded element as `sum(axes: where(coordinate == place, value, 0))`; dense values have no coordinate.

    `target[indices]` is what it defines; `coordinate` is the one of `indices` that the condition is on. Of ragged axes
    there are `spans`, read at the other indices.
    """

    target: str
    indices: tuple[str, ...]
    value: Expr
    coordinate: str = ""
    place: Expr | None = None
    axes: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()


def encoded(item: Defined) -> Encoded | None:
    """What a statement of a `decode` node says; None for other nodes, and for weights decoded as a whole."""
    s = item.statement
    if item.node.op != "decode" or item.node.attrs.get("whole") or s.scatter is not None:
        return None
    reduce = s.reduction
    match reduce.body if reduce is not None else s.value:
        case Call("where", (Call("eq", (Axis(coordinate), place)), value, Const(value=0))):
            axes, spans = ((), ()) if reduce is None else (reduce.axes, reduce.spans)
            return Encoded(s.target, s.axes, value, coordinate, place, axes, spans)
    return None if isinstance(s.value, Reduce) else Encoded(s.target, s.axes, s.value)


def meets(reader: Statement, load: Load, weight: Encoded) -> bool:
    """Whether a reader can take the weight as stored: it sums over the coordinate, and is linear in the weight."""
    if weight.place is None:
        return True
    reduce = reader.value
    if (
        not isinstance(reduce, Reduce)
        or reduce.spans
        or reduce.operator != "sum"
        or loads(reduce.body).count(load) != 1
    ):
        return False
    index = load.index[weight.indices.index(weight.coordinate)]
    rest = [i for i, name in zip(load.index, weight.indices, strict=True) if name != weight.coordinate]
    if not isinstance(index, Axis) or index.name not in reduce.axes or any(index.name in free_axes(i) for i in rest):
        return False
    if any(free_axes(i) & set(reduce.axes) for i in rest):
        return False
    return any(_without_casts(f) == load for f in factors(reduce.body))


def factors(e: Expr) -> list[Expr]:
    """The factors of a product, in order."""
    match e:
        case Call("mul", (a, b)):
            return factors(a) + factors(b)
    return [e]


def _without_casts(e: Expr) -> Expr:
    while isinstance(e, Call) and e.function == "cast" and e.operands[0].dtype.is_float:
        e = e.operands[0]
    return e


def _product(parts: list[Expr]) -> Expr:
    result = parts[0]
    for part in parts[1:]:
        result = Call("mul", (result, part), result.dtype)
    return result


def read_encoded(cascade: Cascade, kept: Collection[str] = ()) -> tuple[Cascade, frozenset[str]]:
    """The cascade with encoded weights read as they are stored, and the names of the gathered operands it stores anew.

    Views must have been read through before. A decoded weight that some reader cannot take, or that is in `kept` (it is
    stored behind an output, say), keeps its statement.
    """
    weights = {e.target: e for i in cascade.items if isinstance(i, Defined) and (e := encoded(i)) is not None}
    if not weights:
        return cascade, frozenset()
    return _Reading(cascade, weights, kept).run()


@dataclass
class _Reading:
    cascade: Cascade
    weights: Mapping[str, Encoded]
    kept: Collection[str]
    items: list[Defined | Opaque] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    gathered: dict[Expr, str] = field(default_factory=dict)
    floats: list[str] = field(default_factory=list)

    def run(self) -> tuple[Cascade, frozenset[str]]:
        self.types.update(self.cascade.types)
        for item in self.cascade.items:
            if isinstance(item, Opaque) or item.target in self.weights:
                self.items.append(item)
                continue
            for load in dict.fromkeys(item.statement.reads):
                weight = self.weights.get(load.buffer)
                if weight is not None and meets(item.statement, load, weight):
                    item = self._through(item, load, weight)
            for one in self._factored(item):
                for part in self._made_floats(one):
                    self.items += self._turned(part)
        read = set(self.kept) | {
            load.buffer for i in self.items if isinstance(i, Defined) for load in i.statement.reads
        }
        read |= {v.name for i in self.items if isinstance(i, Opaque) for v in i.node.operands}
        kept = [i for i in self.items if isinstance(i, Opaque) or i.target not in self.weights or i.target in read]
        return replace(self.cascade, items=kept, types=self.types), frozenset((*self.gathered.values(), *self.floats))

    def _through(self, item: Defined, load: Load, weight: Encoded) -> Defined:
        """The reader with the weight's stored elements in its place."""
        s = item.statement
        if weight.place is None:
            definition = Statement(weight.target, weight.indices, weight.value)
            return replace(item, statement=replace(s, value=read_through(s.value, {weight.target: definition})))
        reduce = s.value
        assert isinstance(reduce, Reduce)
        at = dict(zip(weight.indices, load.index, strict=True))
        coordinate = at.pop(weight.coordinate)
        assert isinstance(coordinate, Axis)
        value, place = substitute_axes(weight.value, at), substitute_axes(weight.place, at)
        others = [f for f in factors(reduce.body) if _without_casts(f) != load]
        stored = next(
            transform(f, lambda e: value if e == load else e) for f in factors(reduce.body) if _without_casts(f) == load
        )
        kept = tuple(a for a in reduce.axes if a != coordinate.name)
        if others:
            others = [self._gather(item, _product(others), coordinate.name, place, kept)]
        body = _product([*others, stored])
        axes = (*kept, *weight.axes)
        spans = tuple(Span(e.axis, substitute_axes(e.start, at), substitute_axes(e.stop, at)) for e in weight.spans)
        total = replace(reduce, axes=axes, body=body, spans=spans) if axes else body
        return replace(item, statement=replace(s, value=total))

    def _gather(self, item: Defined, operand: Expr, coordinate: str, place: Expr, reduced: tuple[str, ...]) -> Expr:
        """The other factors at the stored coordinate; from a copy of rows to gather, where they are long enough."""
        extents = self.cascade.extents
        along = tuple(a for a in (*item.statement.axes, *reduced) if a in free_axes(operand))
        few = elements(tuple(extents[a] for a in along)) < ROWS_WORTH_VECTORS
        if not along or few or self._are_rows(operand, coordinate):
            return substitute_axes(operand, {coordinate: place})
        axes = (coordinate, *along)
        key = substitute_axes(operand, {a: Axis(f"{n}:{extents[a]}") for n, a in enumerate(axes)})
        if key not in self.gathered:
            name = f"{item.target}.gathered"
            self.gathered[key] = name
            self.types[name] = TensorType(operand.dtype, tuple(extents[a] for a in axes))
            self.items.append(Defined(Statement(name, axes, operand), item.node))
        return Load(self.gathered[key], (place, *(Axis(a) for a in along)), operand.dtype)

    def _are_rows(self, operand: Expr, coordinate: str) -> bool:
        """Whether an operand is there as rows to gather: `X[b,k,y,x]`, as images are, with enough points after k."""
        if not isinstance(operand, Load) or Axis(coordinate) not in operand.index:
            return False
        type = self.types[operand.buffer]
        row = operand.index[operand.index.index(Axis(coordinate)) + 1 :]
        points = [self.cascade.extents[i.name] for i in row if isinstance(i, Axis)]
        return (
            len(set(row)) == len(points) == len(row)
            and same_shape(points, type.shape[-len(points) :])
            and (type.strides is None or same_shape(type.layout, contiguous_strides(type.shape)))
            and elements(tuple(points)) >= ROWS_WORTH_VECTORS
        )

    def _factored(self, item: Defined) -> list[Defined]:
        """A sum of products over what an encoded weight became, with the factors it does not run over moved out."""
        s = item.statement
        reduce = s.reduction
        if reduce is None or reduce.operator != "sum" or reduce.rescale is not None or not self._reads_components(s):
            return [item]
        parts = factors(reduce.body)
        outside = [f for f in parts if not free_axes(f) & set(reduce.axes)]
        inside = [f for f in parts if free_axes(f) & set(reduce.axes)]
        if not outside or not inside:
            return [item]
        name = f"{s.target}.unscaled"
        self.types[name] = TensorType(reduce.dtype, tuple(self.cascade.extents[a] for a in s.axes))
        sum_ = Statement(name, s.axes, replace(reduce, body=_product(inside)))
        partial = Load(name, tuple(Axis(a) for a in s.axes), reduce.dtype)
        scaled = Statement(s.target, s.axes, _product([partial, *outside]), s.scatter)
        return [replace(item, statement=sum_), replace(item, statement=scaled)]

    def _made_floats(self, item: Defined) -> list[Defined]:
        """A sum of many gathered rows times codes: the codes as floats first, with the scales of their groups, a vector
        of them at a time.

        Every task of rows would make floats of them again, one by one. In spans it hides behind the rows it is for.
        """
        s = item.statement
        reduce = s.reduction
        rows = [x for x in s.reads if any(isinstance(e, Load) for i in x.index for e in walk(i))]
        if reduce is None or reduce.spans or not rows or not self._reads_components(s):
            return [item]
        along = {a for x in rows for i in x.index if isinstance(i, Axis) for a in free_axes(i)}
        extents = self.cascade.extents
        if elements(tuple(extents[a] for a in along)) < ROWS_WORTH_A_TURN:
            return [item]
        parts = factors(reduce.body)
        codes = [p for p in parts if not free_axes(p) & along and not any(x in rows for x in loads(p))]
        if all(isinstance(p, Load) for p in codes) and len(codes) < 2:
            return [item]
        value = _product(codes)
        axes = tuple(a for a in (*s.axes, *reduce.axes) if a in free_axes(value))
        name = f"{s.target}.floats"
        self.types[name] = TensorType(value.dtype, tuple(extents[a] for a in axes))
        self.floats.append(name)
        body = _product([*(p for p in parts if p not in codes), Load(name, tuple(map(Axis, axes)), value.dtype)])
        sum_ = Statement(s.target, s.axes, replace(reduce, body=body), s.scatter)
        return [replace(item, statement=Statement(name, axes, value)), replace(item, statement=sum_)]

    def _turned(self, item: Defined) -> list[Defined]:
        """A sum of gathered rows: stored as rows of these, and then turned as a whole.

        Where each result has a span of its own no two are there at once, and of a block's results there are but a few:
        what is written is whole rows, or else pieces of lines that are far apart.
        """
        s = item.statement
        reduce = s.reduction
        rows = [x for x in s.reads if x.buffer in self.gathered.values()]
        if reduce is None or not rows or s.scatter is not None:
            return [item]
        along = tuple(a for a in s.axes if any(Axis(a) in x.index for x in rows))
        if not reduce.spans and elements(tuple(self.cascade.extents[a] for a in along)) < ROWS_WORTH_A_TURN:
            return [item]
        axes = (*(a for a in s.axes if a not in along), *along)
        if axes == s.axes:
            return [item]
        name = f"{s.target}.rows"
        self.types[name] = TensorType(reduce.dtype, tuple(self.cascade.extents[a] for a in axes))
        whole = Load(name, tuple(Axis(a) for a in axes), reduce.dtype)
        return [
            replace(item, statement=Statement(name, axes, reduce)),
            replace(item, statement=Statement(s.target, s.axes, whole)),
        ]

    def _reads_components(self, s: Statement) -> bool:
        components = {load.buffer for w in self.weights.values() for load in loads(w.value)}
        return any(load.buffer in components for load in s.reads)
