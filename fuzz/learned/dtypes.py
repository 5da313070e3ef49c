"""Which dtypes an operator takes and gives, inferred from calls that differ in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from effcc.fuzz.learned.calling import CODE_OF, DTYPES
from effcc.fuzz.learned.record import Name, Record
from effcc.fuzz.learned.rule import Types, dtypes
from effcc.fuzz.learned.structure import tensors

REFUSED = 0.9  # of the calls whose dtypes eager refuses


def infer_types(records: Sequence[Record]) -> Types | None:
    """Which dtypes go together: each tensor's own or another's. All combinations that were accepted are among them
    unless too many refused ones then were, too: then those of one dtype, or only the first; None where no text says
    which dtypes results have.

    records: calls whose sizes are accepted.
    """
    accepted = [r for r in records if r.results is not None]
    refused = [_named(r) for r in records if r.results is None]
    alike = [r for r in accepted if len(set(dtypes(r))) < 2]
    for some in (accepted, alike, accepted[:1]):
        types = _types_of(some) if some else None
        if types is not None and sum(not agree(types, r) for r in refused) >= REFUSED * len(refused):
            return types
    return None


def _named(record: Record) -> dict[str, str]:
    return {n: t.dtype for n, t in tensors(record.arguments)}


def _types_of(accepted: Sequence[Record]) -> Types | None:
    names = [n for n, _ in tensors(accepted[0].arguments)]
    seen = [dtypes(r) for r in accepted]
    allowed: list[tuple[str, tuple[str, ...] | str]] = []
    for k, name in enumerate(names):
        like = next((j for j in range(k) if all(s[j] == s[k] for s in seen)), None)
        allowed.append((name, tuple(dict.fromkeys(s[k] for s in seen)) if like is None else names[like]))
    count = len(accepted[0].results or ())
    found = []
    for k in range(count):
        results = [r.results[k].dtype for r in accepted if r.results is not None and len(r.results) == count]
        text = _result(accepted, names, results) if len(results) == len(accepted) else None
        if text is None:
            return None
        found.append(text)
    return Types(tuple(allowed), tuple(found))


def _result(accepted: Sequence[Record], names: Sequence[str], results: Sequence[str]) -> str | None:
    texts = [*names, *dict.fromkeys(results), *_COMPUTED]
    if any("dtype" in r.arguments for r in accepted):
        texts.insert(0, "dtype")
    for text in texts:
        if [_result_dtype(text, r) for r in accepted] == list(results):
            return text
    return None


Typed = tuple[str, int]
"""A tensor's dtype and rank: those of rank 0 promote others less."""


def _promoted(found: Sequence[Typed]) -> str:
    if not found:
        return ""
    code, rank = found[0]
    for other, other_rank in found[1:]:
        made = [torch.empty((1,) * r, dtype=DTYPES[c]) for c, r in ((code, rank), (other, other_rank))]
        code, rank = CODE_OF[torch.result_type(*made)], max(rank, other_rank)
    return code


def _as_float(found: Sequence[Typed]) -> str:
    text = _promoted(found)
    return text if text in _INEXACT else "f32"


def _as_sum(found: Sequence[Typed]) -> str:
    text = _promoted(found)
    return text if text in _INEXACT else "i64"


_INEXACT = ("f32", "f64", "f16", "bf16", "c64", "c128")
_COMPUTED: Mapping[str, Callable[[Sequence[Typed]], str]] = {
    "promoted": _promoted, "float": _as_float, "sum": _as_sum
}  # fmt: skip
"""Dtypes of results that are no argument's own: the common one; that or float32 for integers; that or int64."""


def _result_dtype(text: str, record: Record) -> str:
    given = {n: (t.dtype, len(t.shape)) for n, t in tensors(record.arguments)}
    return result_dtype(text, given, record.arguments.get("dtype"))


def result_dtype(text: str, given: Mapping[str, Typed], asked: object = None) -> str:
    """The dtype of a result by its text, given those of the arguments by name, and the argument `dtype`."""
    if text == "dtype":
        return next((c for c, d in DTYPES.items() if isinstance(asked, Name) and str(d) == asked.text), "")
    if text in _COMPUTED:
        return _COMPUTED[text](list(given.values()))
    return given[text][0] if text in given else text


def agree(types: Types, given: Mapping[str, str]) -> bool:
    """Whether tensors' dtypes, by name, go together."""
    for name, allowed in types.allowed:
        if name in given and given[name] not in ((given.get(allowed),) if isinstance(allowed, str) else allowed):
            return False
    return True
