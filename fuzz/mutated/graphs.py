"""Changes of graphs: what may be tried of a case, whether or not it is one afterwards.

swap        two operands of a node in each other's places
rewire      a node reads another value
retype      one dtype becomes another, in all parameters and attributes
splice      another graph goes on behind this one, and reads its values
resize      a size becomes another, in all parameters and attributes
insert      a node between a value and one that reads it
delete      a node goes; who reads it reads its operand, or a parameter
duplicate   a node once more, read by some of those that read it
redraw      other attributes of a node
reweigh     a parameter is a weight or is none, so that other parts depend on weights alone
renew       a parameter holds another value after the call
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from effcc.errors import EffccError
from effcc.fuzz.generate import OF_INPUTS, SIZES, Case
from effcc.fuzz.mutated.draft import Draft, Item, readers, renamed
from effcc.fuzz.operands import propose
from effcc.fuzz.reduce import is_shape
from effcc.fuzz.sketch import Refused
from effcc.ir.dtypes import DTYPES, DType
from effcc.ir.graph import Attribute, Value
from effcc.ir.op import Op
from effcc.ir.ops import TABLE
from effcc.passes.rules.drawing import draw_dtype, draw_number

TRIES = 12
MOST_CHANGES = 3
_OTHER_DTYPES = ("f32", "f64", "bf16", "f16", "i32", "i64", "u8")

NO_CASE = (
    Refused, EffccError, ValueError, IndexError, ZeroDivisionError, OverflowError, TypeError, KeyError, StopIteration,
)  # fmt: skip

Change = Callable[[Draft, Random, Callable[[], Case]], None]


def mutant(parent: Case, seed: int, random: Random, other: Callable[[], Case]) -> tuple[Case, tuple[str, ...]]:
    """A case made of another by a few changes, and their names. other: gives cases to splice.

    Raises Refused where nothing that was tried is a case.
    """
    done: list[str] = []
    case = parent
    wanted = random.randint(1, MOST_CHANGES)
    for _ in range(TRIES):
        name = random.choice(list(CHANGES))
        try:
            draft = Draft.of(case, seed)
            CHANGES[name](draft, random, other)
            case = draft.built(random)
        except NO_CASE:
            continue
        done.append(name)
        if len(done) == wanted:
            break
    if not done:
        raise Refused("no change gives a case")
    return case, tuple(done)


def swap(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """Two operands of a node in each other's places."""
    item = random.choice([i for i in draft.items if len(set(i.operands)) > 1])
    a, b = random.sample(range(len(item.operands)), 2)
    item.operands[a], item.operands[b] = item.operands[b], item.operands[a]


def rewire(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A node reads another value, mostly of the same type."""
    item = random.choice([i for i in draft.items if i.operands])
    position = random.randrange(len(item.operands))
    now = item.operands[position]
    others = [v for v in draft.before(item) if v is not now and v.type.dtype == now.type.dtype]
    alike = [v for v in others if v.type.plain() == now.type.plain()]
    item.operands[position] = random.choice(alike if alike and random.random() < 0.8 else others)


def retype(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """One dtype becomes another."""
    old = random.choice([t.dtype for t in draft.params.values()])
    names = [n for n in _OTHER_DTYPES if DTYPES[n] != old and DTYPES[n].is_float == old.is_float]
    new = DTYPES[random.choice(names)] if random.random() < 0.9 else draw_dtype(random)
    for param, type in draft.params.items():
        if type.dtype == old:
            draft.params[param] = replace(type, dtype=new)
    for item in draft.items:
        item.attrs = {n: new if isinstance(a, DType) and a == old else a for n, a in item.attrs.items()}


def splice(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """Another graph goes on behind this one: some of its parameters are values of this one."""
    more = Draft.of(other(), draft.seed)
    values = draft.values[::-1]
    instead: dict[Value, Value] = {}
    names = {v: Value(f"o_{v.name}", v.type) for v in more.values}
    for param, type in more.params.items():
        alike = [v for v in values if v.type.plain() == type.plain()]
        sized = [v for v in values if v.type.dtype == type.dtype and v.type.size == type.size]
        if alike and (not instead or random.random() < 0.5):
            instead[param] = alike[0] if random.random() < 0.6 else random.choice(alike)
        elif sized and not instead:
            shaped = draft.value(type)
            draft.items.append(Item("reshape", [random.choice(sized)], {"shape": type.shape}, (), (shaped,)))
            instead[param] = shaped
        else:
            draft.params[names[param]] = type
            draft.arrays[names[param]] = more.arrays[param]
            draft.weights |= {names[param]} if param in more.weights else set()
    if not instead:
        raise Refused("nothing fits")
    names |= instead
    for item in more.items:
        results = tuple(names[r] for r in item.results)
        draft.items.append(Item(item.op, [names[o] for o in item.operands], item.attrs, item.regions, results))
    draft.outputs += [names[v] for v in more.outputs if v not in more.params]
    draft.special |= more.special


def resize(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A size becomes another."""
    old = random.choice([d for t in draft.params.values() for d in t.shape if d != 1])
    new = random.choice([n for n in (*SIZES, 64, 65, 127, 128, 300) if n != old])

    def changed(value: Attribute) -> Attribute:
        if isinstance(value, tuple):
            return tuple(changed(v) for v in value)
        return new if value == old and isinstance(value, int) and not isinstance(value, bool) else value

    for param, type in draft.params.items():
        shape = changed(type.shape)
        assert isinstance(shape, tuple)
        draft.params[param] = replace(type, shape=shape)
    for item in draft.items:
        item.attrs = {n: changed(a) if is_shape(n) else a for n, a in item.attrs.items()}


def insert(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A node between a value and one that reads it, or beside."""
    value = random.choice(draft.values)
    op = random.choice(_insertable())
    least, most = op.arity
    count = random.randint(max(least, 1), max(least, 1) + 1 if most is None else most)
    fixed = [None] * count
    position = random.randrange(count) if random.random() < 0.3 else 0
    types, attrs = propose(op, [value.type.plain() if k == position else t for k, t in enumerate(fixed)], random, {})
    if "value" in attrs:
        attrs["value"] = draw_number(attrs["dtype"] if "dtype" in attrs else types[0].dtype, random)
    at = max((k + 1 for k, i in enumerate(draft.items) if value in i.results), default=0)
    earlier = [*draft.params, *(r for i in draft.items[:at] for r in i.results)]
    operands = []
    for k, type in enumerate(types):
        alike = [v for v in earlier if v.type.plain() == type.plain()]
        taken = random.choice(alike) if alike and random.random() < 0.5 else draft.param(type, random.random() < 0.3)
        operands.append(value if k == position else taken)
    found = op.infer_types(tuple(types), attrs)
    results = tuple(draft.value(t) for t in found)
    later = readers(draft.items, value)
    draft.items.insert(at, Item(op.name, operands, attrs, (), results))
    if later and found[0].plain() == value.type.plain():
        for item, k in random.sample(later, random.randint(1, len(later))):
            item.operands[k] = results[0]


def delete(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A node goes."""
    item = random.choice(draft.items)
    draft.items = [i for i in draft.items if i is not item]
    instead = {}
    for result in item.results:
        alike = [o for o in item.operands if o.type.plain() == result.type.plain()]
        instead[result] = random.choice(alike) if alike else draft.param(result.type.plain())
    renamed(draft.items, instead)
    draft.outputs = [instead.get(v, v) for v in draft.outputs]
    draft.updates = {p: instead.get(v, v) for p, v in draft.updates.items()}


def duplicate(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A node once more, read by some of those that read it."""
    item = random.choice(draft.items)
    results = tuple(draft.value(r.type) for r in item.results)
    at = next(k for k, i in enumerate(draft.items) if i is item)
    draft.items.insert(at + 1, Item(item.op, list(item.operands), dict(item.attrs), item.regions, results))
    for old, new in zip(item.results, results, strict=True):
        for reader, k in readers(draft.items, old):
            if random.random() < 0.5:
                reader.operands[k] = new


def redraw(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """Other attributes of a node."""
    item = random.choice([i for i in draft.items if i.attrs and not i.regions])
    types, attrs = propose(TABLE[item.op], [o.type.plain() for o in item.operands], random, {})
    if [t.plain() for t in types] != [o.type.plain() for o in item.operands]:
        raise Refused("other operands")
    item.attrs = {**attrs, **({"value": item.attrs["value"]} if "value" in item.attrs else {})}


def reweigh(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A parameter is a weight, or is none."""
    draft.weights ^= {random.choice(list(draft.params))}


def renew(draft: Draft, random: Random, other: Callable[[], Case]) -> None:
    """A parameter holds another value after the call."""
    pairs = [(p, r) for p, t in draft.params.items() for i in draft.items for r in i.results if r.type == t]
    param, value = random.choice([pair for pair in pairs if pair[0] not in draft.updates])
    draft.updates[param] = value


def _insertable() -> list[Op]:
    kinds, names = ("control", "opaque", "create"), ("decode", *OF_INPUTS)
    return [op for op in TABLE.values() if op.reference is not None and op.kind not in kinds and op.name not in names]


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (swap, rewire, retype, splice, resize, insert, delete, duplicate, redraw, reweigh, renew)
}
