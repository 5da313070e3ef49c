"""Learned operators as a text, one paragraph a rule:

    aten.mm.default(self: T2, mat2: T2)
        dtypes self in f32 f64 bf16; mat2 as self
        needs self_1 == mat2_0
        gives [self_0, mat2_1] as self
        seen self_0=2 self_1=3 mat2_0=3 mat2_1=4

`T2` is a tensor of rank 2, `T*` of any; `T2 index` one of indices; `self_1` is the size of its second axis. dtypes are
listed, or `floats`, `numbers` (floats and integers) or `all`; a result has the dtype of an argument, or what arguments
promote to (`promoted`; `float`: float32 for integers; `sum`: int64 for them). `seen` is a call that eager accepted.
What it accepted without a rule stands as `concrete`, with its shapes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effcc.errors import EffccError
from effcc.fuzz.learned.formula import check
from effcc.fuzz.learned.record import CODES, Array, Name
from effcc.fuzz.learned.rule import Concrete, Rule, Types
from effcc.fuzz.learned.structure import Slot

VERSION = 1
_HEAD = "# Operators learned from calls, version "
_FLOATS, _INTEGERS = ("f32", "f64", "f16", "bf16"), ("i64", "i32", "u8")
_KINDS = {"floats": _FLOATS, "numbers": _FLOATS + _INTEGERS, "all": (*_FLOATS, *_INTEGERS, "bool")}
SHIPPED = Path(__file__).with_name("operators.txt")
"""What `effcc fuzz` uses if it is given no other file."""


class OperatorsError(EffccError, ValueError):
    """A file of learned operators that is none, or of another version."""


@dataclass
class Operators:
    """Learned operators: rules and concrete calls, each with its operator; damaged: paragraphs that are none."""

    rules: list[Rule] = field(default_factory=list)
    concrete: list[Concrete] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def text_of(rules: Iterable[Rule], concrete: Iterable[Concrete], told: str) -> str:
    """The text of learned operators. told: how they were learned."""
    head = [f"{_HEAD}{VERSION}", *(f"# {line}" for line in told.splitlines()), ""]
    return "\n".join([*head, *map(_rule, rules), *map(_concrete, concrete)])


def _rule(rule: Rule) -> str:
    allowed = "; ".join(f"{n} as {a}" if isinstance(a, str) else f"{n} in {_kinds(a)}" for n, a in rule.types.allowed)
    gives = "; ".join(f"{g} as {t}" for g, t in zip(rule.gives, rule.types.results, strict=True))
    lines = [f"{rule.operator}({', '.join(f'{n}{_slot(s)}' for n, s in rule.slots)})"]
    lines += [f"    dtypes {allowed}"] if allowed else []
    lines += [f"    needs {'; '.join(rule.needs)}"] if rule.needs else []
    lines += [f"    gives {gives}"]
    lines += [f"    seen {' '.join(f'{n}={v}' for n, v in rule.seen.items())}"] if rule.needs and rule.seen else []
    return "\n".join(lines) + "\n"


def _kinds(codes: Sequence[str]) -> str:
    """dtypes in a fixed order, by the name of a whole kind where they are one."""
    named = next((word for word, kind in _KINDS.items() if set(kind) == set(codes)), "")
    return named or " ".join(c for c in CODES if c in codes)


def _slot(slot: Slot) -> str:
    ranked = [_ranked(r, f) for r, f in zip(slot.ranks, slot.fills, strict=False)]
    match slot.kind:
        case "tensor":
            return f": {ranked[0]}"
        case "tensors":
            return f": [{', '.join(ranked)}]"
        case "int":
            return ": int"
        case "ints":
            return f": int[{slot.count}]"
        case "number":
            return f": number {'|'.join(map(_literal, slot.literal))}"
        case _:
            return f"={_literal(slot.literal)}"


def _ranked(rank: int | None, fill: str) -> str:
    return "None" if rank == -1 else f"T{'*' if rank is None else rank}{'' if fill == 'any' else f' {fill}'}"


def _literal(value: Any) -> str:
    if isinstance(value, Name):
        return f"<{value.text}>"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


def _concrete(found: Concrete) -> str:
    told = ", ".join(f"{n}={_given(v)}" for n, v in found.arguments.items())
    return f"{found.operator}({told})\n    concrete {'; '.join(map(_given, found.results))}\n"


def _given(value: Any) -> str:
    if isinstance(value, Array):
        strides = "" if value.strides is None else f" by {'/'.join(map(str, value.strides))}"
        filled = "" if value.fill == "any" else f" {value.fill}"
        return f"{value.dtype}({','.join(map(str, value.shape))}){filled}{strides}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_given, value))}]"
    return _literal(value)


# Reading --------------------------------------------------------------------------------------------------------------


def read_operators(path: Path) -> Operators:
    """The operators of a file; paragraphs that are damaged are skipped and counted. Raises OperatorsError if it cannot
    be read, is no such file or of another version."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorsError(f"{path}: expected a file of learned operators: {error}") from error
    head = text.partition("\n")[0]
    if head != f"{_HEAD}{VERSION}":
        raise OperatorsError(
            f"{path}: expected learned operators of version {VERSION}, whose first line is '{_HEAD}{VERSION}'; got "
            f"'{head[:60]}': learn them with `effcc fuzz trace -o calls.trace --operators {path.name}`"
        )
    found = Operators()
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if line.strip() and not line.startswith("#")]
        if not lines:
            continue
        try:
            one = _parsed(lines)
        except (ValueError, KeyError, IndexError, SyntaxError) as error:
            found.damaged.append(f"{lines[0][:60]}: {error}")
            continue
        (found.rules if isinstance(one, Rule) else found.concrete).append(one)  # type: ignore[arg-type]
    return found


_CALL = re.compile(r"(\w+\.\w+\.\w+)\((.*)\)$")


def _parsed(lines: Sequence[str]) -> Rule | Concrete:
    called = _CALL.match(lines[0])
    if called is None:
        raise ValueError("expected `operator(arguments)`")
    told: dict[str, str] = {}
    for line in lines[1:]:
        word, _, rest = line.strip().partition(" ")
        told[word] = rest.strip()
    unknown = told.keys() - {"dtypes", "needs", "gives", "seen", "concrete"}
    if unknown or ("gives" in told) == ("concrete" in told):
        raise ValueError(f"expected `gives` or `concrete`, and dtypes, needs, seen; got {', '.join(told)}")
    arguments = [part.strip() for part in split_outside(called[2], ",") if part.strip()]
    if "concrete" in told:
        pairs = (part.partition("=")[::2] for part in arguments)
        results = tuple(_value(part) for part in split_outside(told["concrete"], ";"))
        return Concrete(called[1], {n: _value(v) for n, v in pairs}, results)
    frame = tuple(map(_read_slot, arguments))
    gives = [part.strip().rpartition(" as ")[::2] for part in split_outside(told["gives"], ";")]
    needs = tuple(check(part.strip()) for part in split_outside(told.get("needs", ""), ";") if part.strip())
    seen = {n: int(v) for n, v in (part.split("=") for part in told.get("seen", "").split())}
    types = Types(tuple(_allowed(told.get("dtypes", ""))), tuple(t.strip() for _, t in gives))
    any_rank = any(None in s.ranks for _, s in frame)
    return Rule(called[1], frame, needs, tuple(check(g) for g, _ in gives), types, seen, any_rank)


def _allowed(text: str) -> Iterator[tuple[str, tuple[str, ...] | str]]:
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, how, rest = part.split(maxsplit=2)
        if how == "as":
            yield name, rest
        elif how == "in" and all(code in CODES for code in _KINDS.get(rest, rest.split())):
            yield name, _KINDS.get(rest, tuple(rest.split()))
        else:
            raise ValueError(f"expected `name in f32 f64` or `name as other`, got '{part}'")


def _read_slot(text: str) -> tuple[str, Slot]:
    plain = re.match(r"(\w+)(: |=)(.*)$", text)
    if plain is None:
        raise ValueError(f"expected an argument, got '{text}'")
    name, sign, rest = plain.groups()
    if sign == "=":
        return name, Slot("literal", literal=_value(rest))
    if rest == "int":
        return name, Slot("int", count=1)
    if rest.startswith("int["):
        return name, Slot("ints", count=int(rest[4:-1]))
    if rest.startswith("number "):
        return name, Slot("number", literal=tuple(map(_value, rest[7:].split("|"))))
    if rest.startswith("["):
        parts = [_read_rank(p.strip()) for p in rest[1:-1].split(",")]
        return name, Slot("tensors", tuple(r for r, _ in parts), tuple(f for _, f in parts))
    rank, fill = _read_rank(rest)
    return name, Slot("tensor", (rank,), (fill,))


def _read_rank(text: str) -> tuple[int | None, str]:
    if text == "None":
        return -1, ""
    found = re.match(r"T(\d+|\*)( \w+)?$", text)
    if found is None:
        raise ValueError(f"expected a tensor such as T2 or T*, got '{text}'")
    return None if found[1] == "*" else int(found[1]), (found[2] or " any").strip()


_ARRAY = re.compile(r"(\w+)\(([\d,]*)\)( (?!by)\w+)?( by [\d/]*)?$")


def _value(text: str) -> Any:
    text = text.strip()
    array = _ARRAY.match(text)
    if array is not None and array[1] in CODES:
        shape = tuple(int(n) for n in array[2].split(",") if n)
        strides = tuple(int(n) for n in array[4][4:].split("/") if n) if array[4] else None
        return Array(array[1], shape, strides, (array[3] or "any").strip())
    if text.startswith("<") and text.endswith(">"):
        if not _NAME.match(text[1:-1]):
            raise ValueError(f"expected a name of PyTorch's such as <torch.float32>, got '{text}'")
        return Name(text[1:-1])
    if text.startswith("["):
        return tuple(_value(part) for part in split_outside(text[1:-1], ",") if part.strip())
    if text.lstrip("-") in ("inf", "nan"):
        return float(text)
    return ast.literal_eval(text)


_NAME = re.compile(r'torch\.(\w+|device\("\w+"\))$')


def split_outside(text: str, sign: str) -> list[str]:
    """The parts of a text between signs that stand in no brackets and no quotes."""
    found, depth, quoted = [""], 0, ""
    for letter in text:
        if quoted:
            quoted = "" if letter == quoted else quoted
        elif letter in "'\"":
            quoted = letter
        else:
            depth += (letter in "([<") - (letter in ")]>") if sign == "," or letter not in "<>" else 0
        if letter == sign and not depth and not quoted:
            found.append("")
        else:
            found[-1] += letter
    return found
