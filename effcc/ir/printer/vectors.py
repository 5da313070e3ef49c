"""Functions of vectors as text: `effcc.ir.vectors` shows the form of each node."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from effcc.ir.dims import Dim, show
from effcc.ir.printer.expressions import show_number
from effcc.ir.vectors import (
    Affine,
    Any,
    Array,
    Assign,
    Barrier,
    Branch,
    Broadcast,
    Call,
    Check,
    Conjunction,
    Convert,
    Dot,
    FirstLanes,
    FirstThread,
    Fma,
    Function,
    Iota,
    Lane,
    Let,
    Line,
    Literal,
    Load,
    Lookup,
    LookupCodes,
    Loop,
    Nearest,
    Parameter,
    Permute,
    Place,
    Prefetch,
    Reduce,
    Registers,
    Round,
    Select,
    SetLane,
    Share,
    SizeNumber,
    Store,
    StoreRows,
    TileLoad,
    Tiles,
    TileStore,
    Value,
    Var,
)  # fmt: skip


def print_vectors(function: Function) -> str:
    """The text of a function, which `effcc.ir.parser.parse_vectors` reads back.

    >>> from effcc.ir.dtypes import f32
    >>> from effcc.ir.vectors import value_type
    >>> value = Load(Place("X", f32), value_type(f32, 8))
    >>> body = (Store(Place("O", f32), Call("add", (value, value), value.type)),)
    >>> print(print_vectors(Function("twice", (Parameter("X", f32, "X", True), Parameter("O", f32, "O")), (), body)))
    vectors @twice(X: f32 read, O: f32;) {
      do store(O[0], add(load<f32x8>(X[0]), load<f32x8>(X[0])))
    }
    """
    sizes = [name if name == size else f"{name} = {_size(size)}" for name, size in function.sizes]
    head = f"vectors @{function.name}({', '.join(map(_parameter, function.buffers))};"
    head += f"{' ' if sizes else ''}{', '.join(sizes)})"
    if function.first_only:
        head += " first"
    if function.called:
        head += " calls " + ", ".join(sorted(f"{name}({type})" for name, type in function.called))
    notes = [f"  note {json.dumps(note, ensure_ascii=False)}" for note in function.notes]
    return "\n".join([f"{head} {{", *notes, *_lines(function.body, "  "), "}"])


def _size(size: str | Dim) -> str:
    return json.dumps(size) if isinstance(size, str | int) else f"({show(size)})"


def _parameter(p: Parameter) -> str:
    flags = (" read" if p.read_only else "") + (" alone" if p.alone else "")
    return f"{p.name}: {p.dtype}{flags}" + ("" if p.name == p.stands_for else f" = {json.dumps(p.stands_for)}")


def _lines(body: Sequence[Line], indent: str) -> Iterator[str]:
    for line in body:
        match line:
            case Loop(name, start, stop, step, inner):
                yield f"{indent}loop {name} in {show_value(start)}..{show_value(stop)} step {step} {{"
                yield from _lines(inner, indent + "  ")
                yield indent + "}"
            case Share(name, count, inner, comment):
                why = f" because {json.dumps(comment)}" if comment else ""
                yield f"{indent}share {name} in {show_value(count)}{why} {{"
                yield from _lines(inner, indent + "  ")
                yield indent + "}"
            case Branch(condition, inner, orelse):
                yield f"{indent}if {show_value(condition)} {{"
                yield from _lines(inner, indent + "  ")
                if orelse:
                    yield indent + "} else {"
                    yield from _lines(orelse, indent + "  ")
                yield indent + "}"
            case _:
                yield indent + show_line(line)


def show_line(line: Line) -> str:
    """The text of a statement that holds no others; of one that does, its head."""
    match line:
        case Let(name, value):
            return f"let {name}: {value.type} = {show_value(value)}"
        case Registers(type, names, value):
            return f"registers {type} {', '.join(names)}" + ("" if value is None else f" = {show_value(value)}")
        case Tiles(type, names, first):
            return f"tiles {type} {', '.join(names)} at {first}"
        case TileStore(place, value, stride):
            return (
                f"do store_tile({show_place(place)}, {show_value(value)}, stride={show_value(Affine(constant=stride))})"
            )
        case Array(dtype, name, length):
            return f"array {name}: {dtype}[{length}]"
        case Assign(name, value):
            return f"set {name} = {show_value(value)}"
        case SetLane(register, lane, value):
            return f"do put<{lane}>({register.name}, {show_value(value)})"
        case Store(place, value):
            return f"do store({show_place(place)}, {show_value(value)}{_how(line)})"
        case StoreRows(place, rows, stride, count):
            given = "".join(f", {show_value(v)}" for v in rows)
            some = "" if count is None else f", count={show_value(count)}"
            return f"do store_rows({show_place(place)}{given}, stride={show_value(Affine(constant=stride))}{some})"
        case Prefetch(place, near):
            return f"do prefetch{'<1>' if near else ''}({show_place(place)})"
        case Check(number, fails, value, size):
            return f"do check<{number}>({', '.join(map(show_value, (fails, value, size)))})"
        case Barrier():
            return "barrier"
        case Loop(name):
            return f"loop {name}"
        case Share(name):
            return f"share {name}"
    return f"if {show_value(line.condition)}"


def _how(node: Load | Store) -> str:
    """How the lanes of a load or a store lie."""
    found = [] if node.stride == 1 else [f"stride={show_value(Affine(constant=node.stride))}"]
    given = (("index", node.index), ("mask", node.mask), ("count", node.count))
    found += [f"{name}={show_value(value)}" for name, value in given if value is not None]
    if isinstance(node, Store) and node.fold:
        found.append(f"fold={node.fold}")
    return "".join(f", {text}" for text in found)


def show_place(place: Place) -> str:
    return place.buffer + show_value(place.at)


def show_value(value: Value) -> str:
    """The text of a value."""
    match value:
        case Var(name):
            return name
        case Affine():
            return _affine(value)
        case Literal(number, type):
            return f"{type}({show_number(number)})"
        case SizeNumber(size):
            return f"size({size})"
        case FirstThread():
            return "first()"
        case Call(name, operands, _):
            return f"{name}({_listed(operands)})"
        case Fma(a, b, c):
            return f"fma({_listed((a, b, c))})"
        case Dot(a, b, c):
            return f"dot({_listed((a, b, c))})"
        case Select(condition, a, b):
            return f"select({_listed((condition, a, b))})"
        case Conjunction(conditions):
            return f"every({_listed(conditions)})"
        case Convert(inner, type):
            return f"convert<{type}>({show_value(inner)})"
        case Nearest(inner, type):
            return f"nearest<{type}>({show_value(inner)})"
        case Round(inner, dtype):
            return f"round<{dtype}>({show_value(inner)})"
        case Broadcast(inner, type):
            return f"broadcast<{type}>({show_value(inner)})"
        case Iota(start, type):
            return f"iota<{type}>({show_value(start)})"
        case FirstLanes(count, type):
            return f"lanes<{type}>({show_value(count)})"
        case Lane(vector, lane):
            return f"lane<{lane}>({show_value(vector)})"
        case Permute(vector, lanes):
            return f"permute({show_value(vector)}, {', '.join(f'i32({lane})' for lane in lanes)})"
        case Lookup(table, index):
            return f"lookup({_listed((table, index))})"
        case LookupCodes(low, high, codes, first, shift):
            return f"lookup({_listed((low, high, codes))}, i32({first}), i32({shift}))"
        case Any(mask):
            return f"any({show_value(mask)})"
        case TileLoad(place, type, stride, rows, lanes):
            sizes = zip(("stride", "rows", "lanes"), (stride, rows, lanes), strict=True)
            given = ", ".join(f"{name}={show_value(Affine(constant=n))}" for name, n in sizes)
            return f"tile<{type}>({show_place(place)}, {given})"
        case Reduce(function, vector):
            return f"reduce<{function}>({show_value(vector)})"
    return f"load<{value.type}>({show_place(value.place)}{_how(value)})"


def _listed(values: Sequence[Value]) -> str:
    return ", ".join(map(show_value, values))


def _affine(a: Affine) -> str:
    parts: list[str] = []
    for name, c in a.terms:
        if isinstance(c, int):
            parts.append(("- " if c < 0 else "+ ") + (name if abs(c) == 1 else f"{abs(c)}*{name}"))
        else:
            parts.append(f"+ ({c})*{name}")
    if isinstance(a.constant, int):
        if a.constant or not parts:
            parts.append(("- " if a.constant < 0 else "+ ") + str(abs(a.constant)))
    else:
        parts.append(f"+ ({a.constant})")
    text = " ".join(parts)
    return f"[{text[2:]}]" if text.startswith("+ ") else f"[-{text[2:]}]"
