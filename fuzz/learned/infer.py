"""Rules inferred from records, and how well they say what eager does on records that were held out.

A rule stands if it accepts 95 % of the accepted calls that it has not seen, with the shapes of all results, and refuses
90 % of the refused ones; one that refuses nothing stands only where eager refused nothing.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from effcc.fuzz.learned.dtypes import infer_types
from effcc.fuzz.learned.needs import needs, whole_needs
from effcc.fuzz.learned.record import Record
from effcc.fuzz.learned.rule import Concrete, Rule, Types, dtypes
from effcc.fuzz.learned.shapes import each_size, whole_shapes
from effcc.fuzz.learned.structure import Slots, key, numbers, of_any_rank, slots, tensors
from effcc.fuzz.learned.terms import Terms

VALID, INVALID = 0.95, 0.90
_LEAST = 6  # accepted calls that a rule is inferred from
_RULES = 3  # of an operator
_CONCRETE = 2
_NUMBERS = 6  # that are written down of those accepted


@dataclass(frozen=True)
class Score:
    """How often a rule was right on held-out calls: accepted ones and refused ones, of how many."""

    valid: int = 0
    of_valid: int = 0
    invalid: int = 0
    of_invalid: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.valid + other.valid, self.of_valid + other.of_valid,
            self.invalid + other.invalid, self.of_invalid + other.of_invalid,
        )  # fmt: skip

    @property
    def passes(self) -> bool:
        """Whether a rule may be used."""
        valid = self.of_valid > 0 and self.valid >= VALID * self.of_valid
        return valid and self.invalid >= INVALID * self.of_invalid


@dataclass
class Learned:
    """What was learned of an operator: rules and their score, or calls as they were seen."""

    operator: str
    rules: list[Rule] = field(default_factory=list)
    concrete: list[Concrete] = field(default_factory=list)
    score: Score = Score()


def infer(operator: str, records: Iterable[Record]) -> Learned:
    """The rules of an operator; calls as they were seen, where none stands."""
    found = Learned(operator)
    frames: dict[Slots, list[Record]] = defaultdict(list)
    for record in records:
        frames[key(slots(operator, record.arguments))].append(record)
    open_frames: dict[Slots, list[Slots]] = defaultdict(list)
    for frame in frames:
        open_frames[of_any_rank(frame)].append(frame)
    groups = sorted(open_frames.items(), key=lambda group: -sum(_accepted(frames[f]) for f in group[1]))
    for whole, parts in groups:
        if len(found.rules) >= _RULES:
            break
        if len(parts) > 1 and _tensors(whole) and not _integers(whole):
            together = [r for part in parts for r in frames[part]]
            if _try(found, together, any_rank=True):
                continue
        for part in sorted(parts, key=lambda p: -_accepted(frames[p])):
            if len(found.rules) < _RULES:
                _try(found, frames[part], any_rank=False)
    if not found.rules:
        for part in sorted(frames, key=lambda p: -_accepted(frames[p]))[:_CONCRETE]:
            accepted = [r for r in frames[part] if r.results is not None]
            if accepted:
                chosen = next((r for r in accepted if r.base), accepted[0])
                found.concrete.append(Concrete(operator, chosen.arguments, chosen.results or ()))
    return found


def _try(found: Learned, records: Sequence[Record], any_rank: bool) -> bool:
    rule, score = rule_of(records, any_rank)
    if rule is not None and score.passes:
        found.rules.append(rule)
        found.score += score
        return True
    return False


def _accepted(records: Sequence[Record]) -> int:
    return sum(r.accepted for r in records)


def _tensors(frame: Slots) -> bool:
    return any(s.kind == "tensor" for _, s in frame) and all(s.kind != "tensors" for _, s in frame)


def _integers(frame: Slots) -> bool:
    return any(s.kind in ("int", "ints") for _, s in frame)


def rule_of(records: Sequence[Record], any_rank: bool) -> tuple[Rule | None, Score]:
    """A rule for calls of one kind, and its score on those held out; None if there is none that fits what is seen."""
    taken = _numbers_taken(records)
    records = [r for r in records if r.accepted or not _refused_for_a_number(r, taken)]
    accepted_sizes = {_sizes(r) for r in records if r.accepted}
    accepted_dtypes = {dtypes(r) for r in records if r.accepted}
    sized = list({_sizes(r): r for r in reversed(records) if dtypes(r) in accepted_dtypes}.values())
    seen, held_out = split(sized)
    accepted = [r for r in seen if r.accepted]
    if len(accepted) < _LEAST and not (accepted and not _varies(sized)):
        return None, Score()
    types = infer_types([r for r in records if _sizes(r) in accepted_sizes])
    if types is None:
        return None, Score()
    for rule in _rules(seen, accepted, types, taken, any_rank):
        score = scored(rule, held_out)
        trivial = not rule.needs and any(not r.accepted for r in sized)
        if score.passes and not trivial:
            return rule, score
    return None, Score()


def _sizes(record: Record) -> tuple[Any, ...]:
    """What is left of a call without its dtypes."""
    shapes = tuple(t.shape for _, t in tensors(record.arguments))
    return shapes, tuple(numbers(record.operator, record.arguments).values())


def _varies(records: Sequence[Record]) -> bool:
    """Whether there is any number in calls that could be another."""
    return bool(numbers(records[0].operator, records[0].arguments))


def _numbers_taken(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """The numbers other than sizes that were accepted, by name and as they are written."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for record in records:
        for name, slot in slots(record.operator, record.arguments) if record.accepted else ():
            if slot.kind == "number" and len(found[name]) < _NUMBERS:
                found[name].setdefault(repr(slot.literal[0]), slot.literal[0])
    return found


def _refused_for_a_number(record: Record, taken: Mapping[str, Mapping[str, Any]]) -> bool:
    frame = slots(record.operator, record.arguments)
    return any(s.kind == "number" and repr(s.literal[0]) not in taken.get(n, {}) for n, s in frame)


def _rules(
    seen: Sequence[Record],
    accepted: Sequence[Record],
    types: Types,
    taken: Mapping[str, Mapping[str, Any]],
    any_rank: bool,
) -> Iterable[Rule]:
    """Rules that are right on what is seen, the plainest first."""
    first = next((r for r in accepted if r.base), accepted[0])
    full = [r for r in accepted if all(numbers(r.operator, r.arguments).values())]
    first = next((r for r in full if r.base), full[0] if full else first)
    frame = tuple(
        (n, replace(s, literal=tuple(taken[n].values())) if s.kind == "number" else s)
        for n, s in slots(first.operator, first.arguments)
    )
    example = numbers(first.operator, first.arguments)
    whole = whole_shapes(accepted)
    if whole is not None:
        kind = of_any_rank(frame) if any_rank else frame
        yield Rule(first.operator, kind, whole_needs(seen), whole, types, example, any_rank)
    if any_rank or not example:
        return
    groups = _groups(example)
    gives = each_size(accepted, Terms([numbers(r.operator, r.arguments) for r in accepted], groups))
    if gives is None:
        return
    sizes = [part.strip() for text in gives if text.startswith("[") for part in _parts(text[1:-1])]
    terms = Terms([numbers(r.operator, r.arguments) for r in seen], groups)
    yield Rule(first.operator, frame, needs(seen, terms, sizes), gives, types, example)


def _groups(example: Mapping[str, Any]) -> list[list[str]]:
    """Names that belong together: `self_0`, `self_1`."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in example:
        stem, _, last = name.rpartition("_")
        if last.isdigit():
            found[stem].append(name)
    return [names for names in found.values() if 1 < len(names) < 6]


def _parts(text: str) -> list[str]:
    """The parts of a text between commas that stand in no parentheses."""
    found, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [part for part in found if part.strip()]


def split(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Three parts of four to infer from, and the rest, held out; of accepted and of refused calls alike."""
    seen, held_out = [], []
    for wanted in (True, False):
        some = sorted(
            (r for r in records if r.accepted is wanted), key=lambda r: zlib.crc32(repr(r.arguments).encode())
        )
        held_out += some[::4]
        seen += [r for k, r in enumerate(some) if k % 4]
    return (seen if any(r.accepted for r in seen) else held_out), held_out


def scored(rule: Rule, records: Sequence[Record]) -> Score:
    """How often a rule says what eager does."""
    right = [(r.accepted, rule.predicts(r)) for r in records]
    valid, invalid = [p for a, p in right if a], [p for a, p in right if not a]
    return Score(sum(valid), len(valid), sum(invalid), len(invalid))
