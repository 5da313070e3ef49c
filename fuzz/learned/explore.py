"""An operator called again and again, each time with something changed: what does eager accept?

A change is one number, or several that are equal, set to another; one dtype; an axis
more. Accepted calls are changed
further, so that sizes which may differ come to differ.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import torch
from torch import Tensor

from effcc.fuzz.learned.calling import REFUSALS, Unlike, call, made, results
from effcc.fuzz.learned.record import Arguments, Array, Record
from effcc.fuzz.learned.rule import is_in_place
from effcc.fuzz.learned.structure import key, numbers, overload, slots, tensors, with_numbers

FRAMES = 8  # kinds of slots of an operator that are explored
TRIES = 100  # changed calls of each
MOST = 40_000  # elements of arguments and results
_SIZES = (0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 12)
_INTEGERS = (-2, -1, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8)
_WHOLE, _FLOATS = (-1, 0, 1, 2, 3), (-1.5, 0.0, 0.5, 1.0, 2.0)
_DTYPES = ("f32", "f64", "f16", "bf16", "i64", "i32", "u8", "bool")


@dataclass
class Explored:
    """The records of an operator, or why it is left out."""

    operator: str
    records: list[Record] = field(default_factory=list)
    left_out: str = ""


def left_out(operator: str) -> str:
    """Why an operator is no part of programs, as its schema and name say; empty if it may be."""
    try:
        function = overload(operator)
    except AttributeError:
        return "not in this PyTorch"
    name = operator.split(".")[1]
    tags = set(function.tags)
    schema = function._schema
    if torch.Tag.nondeterministic_seeded in tags or any(a.name == "generator" for a in schema.arguments):
        return "random"
    if name.startswith("_") and not name.startswith(_OF_CORE):
        return "private to PyTorch"
    if "backward" in name:
        return "part of a gradient"
    if any(a.is_out for a in schema.arguments):
        return "the `out=` form of another"
    if name.startswith(("empty", "new_empty", "resize", "set_")):
        return "contents undefined"
    if torch.Tag.data_dependent_output in tags or torch.Tag.dynamic_output_shape in tags:
        return "sizes of the result depend on values"
    if name in _OTHERWISE:
        return _OTHERWISE[name]
    return ""


_OF_CORE = ("_softmax", "_log_softmax", "_to_copy", "_unsafe_view", "_adaptive_avg_pool", "_native_batch_norm_legit")
_OTHERWISE = {
    name: why
    for why, names in {
        "contents undefined": "as_strided as_strided_ as_strided_copy",
        "compared more strictly than it is right": "native_batch_norm _native_batch_norm_legit",
        "changes what a tensor is": "detach_ squeeze_ unsqueeze_ t_ transpose_ swapaxes_ swapdims_",
        "made for one kind of memory": "pin_memory record_stream to_mkldnn to_sparse to_dense",
    }.items()
    for name in names.split()
}


class _Explorer:
    def __init__(self, operator: str, tries: int) -> None:
        self.operator, self.tries = operator, tries
        self.random = Random(zlib.crc32(operator.encode()))
        self.records: list[Record] = []
        self.seen: set[str] = set()
        self.reasons: list[str] = []

    def attempt(self, arguments: Arguments, base: bool = False) -> Record | None:
        """A call, recorded; None where it was made before, or is none that can be described."""
        text = repr(arguments)
        if text in self.seen or _elements(arguments) > MOST:
            return None
        self.seen.add(text)
        try:
            found: tuple[Array, ...] | None = results(call(self.operator, made(arguments, 1)))
        except REFUSALS:
            found = None
        except Unlike as unlike:
            self.reasons.append(str(unlike))
            return None
        if found is not None and any(math.prod(r.shape) > MOST for r in found):
            return None
        if found is not None and any(r.dtype.startswith("c") for r in found):
            self.reasons.append("complex numbers")
            return None
        if found is not None and is_in_place(self.operator) and found[0].shape != next(tensors(arguments))[1].shape:
            return None  # written into what had to be resized, which eager says that it will refuse
        record = Record(self.operator, dict(arguments), found, base)
        self.records.append(record)
        return record

    def fitted(self, arguments: Arguments) -> tuple[Record | None, bool]:
        """A call as it was seen, with numbers drawn in a way that eager accepts: `any`, else `index`, else `unit`."""
        for floats, integers in (("any", "any"), ("any", "index"), ("unit", "any"), ("unit", "index")):
            tried = _filled(arguments, floats, integers)
            try:
                results(call(self.operator, made(tried, 1)))
            except (*REFUSALS, Unlike) as error:
                if isinstance(error, Unlike):
                    self.reasons.append(str(error))
                continue
            again = repr(tried) in self.seen
            return self.attempt(tried, base=True), again
        return None, False

    def explore(self, record: Record) -> None:
        """Change sizes and integers of an accepted call, and of calls so found."""
        pool = [numbers(self.operator, record.arguments)]
        if not pool[0]:
            return
        spent = 0
        for _ in range(4 * self.tries):
            if spent >= self.tries:
                break
            changed = self._changed(record, self.random.choice(pool[-12:] + pool[:2]))
            found = self.attempt(with_numbers(self.operator, record.arguments, changed))
            if found is not None:
                spent += 1
                if found.accepted:
                    pool.append(changed)

    def _changed(self, record: Record, given: Mapping[str, int]) -> dict[str, int]:
        random, found = self.random, dict(given)
        sizes = {f"{n}_{a}" for n, t in tensors(record.arguments) for a in range(len(t.shape))}
        name = random.choice(list(found))
        among = _SIZES if name in sizes else _INTEGERS
        value = random.choice(among) if random.random() < 0.75 else random.choice(list(found.values()))
        if name in sizes and value < 0:
            value = random.choice(_SIZES)
        equal = [n for n, v in found.items() if v == found[name] and n != name]
        alike = [n for n in equal if random.random() < 0.6] if random.random() < 0.65 else []
        for other in (name, *alike):
            if other not in sizes or value >= 0:
                found[other] = value
        return found

    def other_dtypes(self, record: Record) -> None:
        """The same call with all tensors of another dtype, and with one of them."""
        names = [n for n, _ in tensors(record.arguments)]
        for dtype in _DTYPES:
            self.attempt(_of_dtype(record.arguments, dtype, names))
            for name in names[:4]:
                self.attempt(_of_dtype(record.arguments, dtype, [name]))

    def other_numbers(self, record: Record) -> None:
        """The same call with another number where there is one that is no size: `alpha`, `p`."""
        for name, slot in slots(self.operator, record.arguments):
            if slot.kind == "number":
                for value in _WHOLE if isinstance(slot.literal[0], int) else _FLOATS:
                    self.attempt({**record.arguments, name: value})

    def other_frames(self, record: Record) -> Iterator[Arguments]:
        """The same call along another axis, and with tensors of one axis more."""
        for name, slot in slots(self.operator, record.arguments):
            value = slot.literal
            if slot.kind == "literal" and isinstance(value, int) and not isinstance(value, bool):
                for other in (value + 1, value - 1, -1, 0):
                    yield {**record.arguments, name: other}
        ranks = [len(t.shape) for _, t in tensors(record.arguments)]
        if ranks and max(ranks) < 4:
            yield {
                n: replace(v, shape=(2, *v.shape), strides=None)
                if isinstance(v, Array) and len(v.shape) == max(ranks) else v
                for n, v in record.arguments.items()
            }  # fmt: skip


def explore(operator: str, seeds: Mapping[Any, Sequence[Arguments]], tries: int = TRIES) -> Explored:
    """Everything tried of an operator, beginning with calls that were seen, by their slots; nothing else if `tries` is
    0."""
    why = left_out(operator)
    if why:
        return Explored(operator, [], why)
    explorer = _Explorer(operator, tries)
    bases: dict[Any, Record] = {}
    for arguments in itertools.chain.from_iterable(seeds.values()):
        record, _ = explorer.fitted(arguments)
        if record is not None:
            bases.setdefault(key(slots(operator, record.arguments)), record)
    if not bases:
        reasons = explorer.reasons or ["values of tensors matter"]
        return Explored(operator, [], max(set(reasons), key=reasons.count))
    for record in list(bases.values())[: FRAMES // 2] if tries else ():
        for arguments in explorer.other_frames(record):
            found = explorer.attempt(arguments)
            if found is not None and found.accepted:
                bases.setdefault(key(slots(operator, found.arguments)), found)
    chosen = _most_unlike(list(bases.values()))[:FRAMES]
    why = next(filter(None, (_unsteady(operator, record) for record in chosen)), "")
    if why:
        return Explored(operator, [], why)
    for record in chosen if tries else ():
        explorer.explore(record)
        explorer.other_dtypes(record)
        explorer.other_numbers(record)
    return Explored(operator, explorer.records)


def _most_unlike(records: list[Record]) -> list[Record]:
    """Those seen as they are first, each rank and dtype in its turn."""
    by_rank: dict[Any, list[Record]] = {}
    for record in sorted(records, key=lambda r: (not r.base, len(r.arguments))):
        found = next(iter(tensors(record.arguments)), ("", Array("f32", ())))[1]
        by_rank.setdefault((len(found.shape), found.dtype[0] == "f"), []).append(record)
    order = sorted(by_rank.values(), key=lambda found: -len(found))
    return [r for turn in itertools.zip_longest(*order) for r in turn if r is not None]


def _unsteady(operator: str, record: Record) -> str:
    """Why the same call does not always give the same; empty if it does."""
    try:
        one, again = (call(operator, made(record.arguments, 1)) for _ in range(2))
        other = call(operator, made(record.arguments, 2))
        if [r.shape for r in results(one)] != [r.shape for r in results(other)]:
            return "sizes of the result depend on values"
    except (*REFUSALS, Unlike):
        return "values of tensors matter"
    pairs = zip(_flat(one), _flat(again), strict=True)
    same = all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) if a.is_floating_point() else torch.equal(a, b) for a, b in pairs
    )
    return "" if same else "gives other values each time"


def _flat(value: Any) -> list[Tensor]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _elements(arguments: Arguments) -> int:
    """How much a call is about: elements of its tensors, or what its integers multiply to."""
    listed = [v for value in arguments.values() for v in (value if isinstance(value, tuple) else (value,))]
    whole = math.prod(max(abs(v), 1) for v in listed if isinstance(v, int) and not isinstance(v, bool))
    return max([math.prod(t.shape) for _, t in tensors(arguments)] + [min(whole, 10 * MOST)])


def _filled(arguments: Arguments, floats: str, integers: str) -> dict[str, Any]:
    def fill(value: Any) -> Any:
        if isinstance(value, Array):
            return replace(value, fill=floats if value.dtype[0] in "fbc" and value.dtype != "bool" else integers)
        return tuple(fill(v) for v in value) if isinstance(value, tuple) else value

    return {name: fill(value) for name, value in arguments.items()}


def _of_dtype(arguments: Arguments, dtype: str, names: Sequence[str]) -> dict[str, Any]:
    def changed(name: str, value: Any) -> Any:
        if isinstance(value, Array):
            return replace(value, dtype=dtype) if name in names else value
        if isinstance(value, tuple) and any(isinstance(v, Array) for v in value):
            return tuple(changed(f"{name}_{k}", v) for k, v in enumerate(value))
        return value

    return {name: changed(name, value) for name, value in arguments.items()}
