"""Which encoded weights are read as they are stored, and which are decoded once, before the first call.

Reading as stored moves fewer bytes, and for sparse weights multiplies less; decoding costs instructions at every use.
Both are predicted from the machine's peak and bandwidths, and the quicker one is chosen; whether bytes come from L3 or
from memory is a question of all weights that a call reads, since one layer's are gone when the next call wants them.
No layer is slower than its dense product, and where a dense copy is kept for that, `explain` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from effcc.ir.dims import elements
from effcc.ir.encodings import Storage, stored_as
from effcc.ir.encodings.sums import Product
from effcc.ir.encodings.values import Term
from effcc.ir.expr import Load, Reduce, free_axes
from effcc.ir.graph import Graph, Node, Value
from effcc.passes.encodings.predict import gathered_seconds, scheduled_seconds
from effcc.passes.encodings.recode import recodings, store_recoded
from effcc.passes.encodings.slabs import other_orders, store_in_order
from effcc.passes.fusion.cascade import Cascade, Defined, squeeze, to_cascade
from effcc.passes.fusion.encoded import ROWS_WORTH_VECTORS, encoded, meets
from effcc.passes.fusion.inline import inline_views
from effcc.passes.hoist import Hoisted
from effcc.passes.writer import Writer
from effcc.target import Target

DENSE_SHARE = 0.92
"""What share of the peak a dense product reaches."""

LOOK_SECONDS = 3.5e-6
"""What it takes a call to see whether the weights that it has copies of have changed, however many they are (Zen 4, one
row times 768 x 768: dense 38.9 us, decoded once 42.4)."""

GATHERING_GAINS = 0.95
"""What is gathered must be predicted to be this much quicker than the dense product: it is predicted less well."""


@dataclass(frozen=True)
class Choice:
    """What was decided for one weight: `stored` (read so in loops) or `decoded` (once, to a dense copy), and why."""

    weight: str
    encoding: str
    decision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.weight} ({self.encoding}): {self.decision}, {self.reason}"


def encode(split: Hoisted, target: Target, once: bool = False) -> tuple[Hoisted, tuple[Choice, ...]]:
    """The graphs with every `decode` left for products to read through, or moved to where weights are prepared.

    once: whether what is prepared is so once, and not at every call: then compressed rows may be stored in another
    order (`effcc.passes.encodings.slabs`).
    """
    decodes = [n for n in split.main.nodes if n.op == "decode"]
    if not decodes:
        return split, ()
    readers = _readers(split.main)
    homes = _homes(split.main, decodes, target)
    choices: list[Choice] = []
    looking = LOOK_SECONDS / len(decodes) if split.prepare is None else 0.0
    for node in decodes:
        constant = all(o.name in split.main.fixed_weights for o in node.operands)
        decision, reason = _decide(node, readers[node.result.name], constant, homes, looking)
        order = _order(node, readers[node.result.name], homes, looking) if once and constant else None
        if order is not None:
            seconds, stored, how = order
            decision, reason = "stored", f"{reason}, {seconds * 1e6:.1f} us {how} {stored.encoding}"
            split = _stored_anew(split, node, stored)
        choices.append(Choice(node.operands[-1].name, str(decoded_storage(node).encoding), decision, reason))
        if decision == "decoded":
            split = _decoded(split, node, constant)
    return split, tuple(choices)


def decoded_storage(node: Node) -> Storage:
    """What a `decode` node decodes."""
    a = node.attrs
    return stored_as(a["encoding"], a["shape"], a["dtype"], [o.type.shape for o in node.operands])  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Reader:
    """One reading of a decoded weight: by how many rows (points it does not depend on), and if it can be as stored."""

    rows: int
    possible: bool


def _readers(graph: Graph) -> dict[str, list[_Reader]]:
    """Who reads each decoded weight, views read through; results and operands of calls need the whole weight."""
    results = {v.name for v in graph.results}
    cascade = inline_views(squeeze(to_cascade(graph), results), results)
    definitions = {i.target: e for i in cascade.items if isinstance(i, Defined) and (e := encoded(i)) is not None}
    found: dict[str, list[_Reader]] = {n.result.name: [] for n in graph.nodes if n.op == "decode"}
    for item in cascade.items:
        if not isinstance(item, Defined):
            for operand in item.node.operands:
                if operand.name in found:
                    found[operand.name].append(_Reader(1, False))
            continue
        for load in set(item.statement.reads):
            if load.buffer in found:
                # A weight in a half dtype whose blocks are summed in f32 is rounded after it: no product reads through.
                one = definitions.get(load.buffer)
                possible = one is not None and meets(item.statement, load, one)
                found[load.buffer].append(_Reader(_rows(cascade, item, load), possible))
    for name in results & set(found):
        found[name].append(_Reader(1, False))
    return found


def _rows(cascade: Cascade, item: Defined, load: Load) -> int:
    own = frozenset[str]().union(*(free_axes(i) for i in load.index))
    value = item.statement.value
    axes = (*item.statement.axes, *(value.axes if isinstance(value, Reduce) else ()))
    return elements(tuple(cascade.extents[a] for a in axes if a not in own))


@dataclass(frozen=True)
class Homes:
    """The machine as a model finds it whose weights are read as they are stored, and decoded."""

    stored: Target
    decoded: Target


def homes(stored_bytes: float, dense_bytes: float, target: Target) -> Homes:
    """The machine for a model whose calls read so many bytes of weights, as stored or decoded, each time from end to
    end: where they do not fit L3 together, every one of them has left it again before the next call."""

    def at(read: float) -> Target:
        return target if read <= target.l3_bytes else replace(target, l3_bytes=0)

    return Homes(at(stored_bytes), at(dense_bytes))


def _homes(graph: Graph, decodes: Sequence[Node], target: Target) -> Homes:
    def bytes_of(values: Iterable[Value]) -> float:
        return sum(float(elements(v.type.shape)) * v.type.dtype.bytes for v in values)

    weights = [p for p in graph.params if p.name in graph.fixed_weights]
    parts = {o.name for n in decodes for o in n.operands}
    plain = bytes_of(w for w in weights if w.name not in parts)
    return homes(bytes_of(weights), plain + bytes_of(n.result for n in decodes), target)


def _decide(
    node: Node, readers: Sequence[_Reader], constant: bool, homes: Homes, looking: float = 0.0
) -> tuple[str, str]:
    """What to do with a weight, and why; `looking`: its part of what a call takes to see whether weights changed."""
    stored = decoded_storage(node)
    if not readers:
        return "stored", "nothing reads it"
    if not all(r.possible for r in readers):
        return "decoded", "a reader needs elements in an order in which they are not stored"
    if not constant:
        return "stored", "its components are computed at every call"
    rows = max(r.rows for r in readers)
    encoded_ = stored_seconds(stored, rows, homes.stored)
    dense = dense_seconds(stored, rows, homes.decoded) + looking
    why = f"{rows} rows: {encoded_ * 1e6:.1f} us predicted as stored, {dense * 1e6:.1f} us decoded"
    gathers = bool(stored.levels.coordinates) and not stored.values.terms
    return ("stored" if encoded_ <= (GATHERING_GAINS if gathers else 1.0) * dense else "decoded"), why


def _order(node: Node, readers: Sequence[_Reader], homes: Homes, looking: float) -> tuple[float, Storage, str] | None:
    """How a weight is stored that is predicted to be quicker than as it is, and than decoded: in another order of its
    blocks, or in other codes; what it takes, and in words which of the two. None where nothing is."""
    if not readers or not all(r.possible for r in readers) or node.attrs["part"]:
        return None
    stored, rows = decoded_storage(node), max(r.rows for r in readers)
    many = rows >= ROWS_WORTH_VECTORS
    others = [(o, "with blocks in the order of") for o in other_orders(stored, many, homes.stored)]
    others += [(o, "copied to") for o in recodings(stored) if not many]
    made = ((stored_seconds(o, rows, homes.stored) + looking, o, how) for o, how in others)
    best = min(made, key=lambda found: found[0], default=None)
    now = min(dense_seconds(stored, rows, homes.decoded) + looking, stored_seconds(stored, rows, homes.stored))
    return best if best is not None and best[0] <= GATHERING_GAINS * now else None


def dense_seconds(stored: Storage, rows: int, target: Target) -> float:
    """Predicted time of a product of `rows` rows with the decoded weight."""
    if _is_scheduled(stored, rows, target):
        return scheduled_seconds(None, stored.shape, stored.dtype, rows, target)
    total = float(elements(stored.shape))
    compute = 2 * rows * total / (DENSE_SHARE * target.peak_flops)
    return max(compute, total * stored.dtype.bytes / _bandwidth(total * stored.dtype.bytes, target))


def stored_seconds(stored: Storage, rows: int, target: Target) -> float:
    """Predicted time of the product with the weight read as it is stored. Where coordinates choose what is stored and
    rows are gathered, what is gathered and added up; else what the models of schedules say of the kernel. Of a sum, its
    parts one after the other."""
    if stored.values.terms:
        return sum(_term_seconds(term, rows, target) for term in stored.values.terms)
    if _is_scheduled(stored, rows, target):
        return scheduled_seconds(stored, stored.shape, stored.dtype, rows, target)
    compute = gathered_seconds(stored, rows, target)
    return max(compute, stored.bytes / _bandwidth(stored.bytes, target))


def _is_scheduled(stored: Storage, rows: int, target: Target) -> bool:
    """Whether the models of schedules know a product: few rows are gathered element by element."""
    return not stored.levels.coordinates or rows < ROWS_WORTH_VECTORS


def _term_seconds(term: Term, rows: int, target: Target) -> float:
    if isinstance(term, Product):
        return sum(_term_seconds(factor, rows, target) for factor in (term.left, term.right))
    assert isinstance(term, Storage)
    return product_seconds(term, rows, target)


def product_seconds(stored: Storage, rows: int, target: Target) -> float:
    """Predicted time of a product of `rows` rows with the weight, read as `encode` chooses for it."""
    return min(dense_seconds(stored, rows, target), read_seconds(stored, rows, target))


def read_seconds(stored: Storage, rows: int, target: Target) -> float:
    """Predicted time of the product with the weight read as it is stored, in the order that is quickest."""
    orders = other_orders(stored, rows >= ROWS_WORTH_VECTORS, target)
    return min(stored_seconds(order, rows, target) for order in (stored, *orders))


def _bandwidth(size: float, target: Target) -> float:
    return target.l3_bandwidth if size <= target.l3_bytes else target.memory_bandwidth


def _decoded(split: Hoisted, node: Node, constant: bool) -> Hoisted:
    """The weight decoded as a whole: in `prepare` if its components are weights, else where it stands.

    A result of the graph is computed at every call, since its storage is handed out.
    """
    whole = replace(node, attrs={**node.attrs, "whole": True})
    if not constant or node.result in split.main.results:
        return replace(split, main=split.main.with_nodes(tuple(whole if n is node else n for n in split.main.nodes)))
    main = replace(
        split.main,
        params=(*split.main.params, node.result),
        weights=split.main.weights | {node.result.name},
        nodes=tuple(n for n in split.main.nodes if n is not node),
    )
    return Hoisted(_with_prepared(split, (whole,), node.operands, (node.result,)), main)


def _stored_anew(split: Hoisted, node: Node, stored: Storage) -> Hoisted:
    """The weight as `stored`, so that `prepare` copies it."""
    taken = (
        split.main if split.prepare is None else replace(split.main, nodes=(*split.main.nodes, *split.prepare.nodes))
    )
    writer, given = Writer(taken), decoded_storage(node)
    store = store_in_order if given.levels.listed is not None else store_recoded
    parts = store(writer, node, given, stored)
    made = tuple(dict.fromkeys(p for p in parts if p not in node.operands))
    ordered = replace(node, operands=parts, attrs={**node.attrs, "encoding": stored.encoding})
    main = replace(
        split.main,
        params=(*split.main.params, *made),
        weights=split.main.weights | {p.name for p in made},
        nodes=tuple(ordered if n is node else n for n in split.main.nodes),
    )
    return Hoisted(_with_prepared(split, writer.nodes, node.operands, made), main)


def _with_prepared(split: Hoisted, nodes: Sequence[Node], operands: Sequence[Value], results: Sequence[Value]) -> Graph:
    """`prepare` with nodes added, and the weights they need as parameters."""
    before = split.prepare or Graph(f"{split.main.name}_prepare", (), (), ())
    missing = tuple(dict.fromkeys(o for o in operands if o not in before.params and o not in before.outputs))
    return replace(
        before,
        params=(*before.params, *missing),
        nodes=(*before.nodes, *nodes),
        outputs=(*before.outputs, *results),
        weights=before.weights | {m.name for m in missing},
        ranges=split.main.ranges,
    )
