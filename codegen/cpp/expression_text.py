"""Right sides and stores of the vector language as C++: which function of the header library each node is, and where it
needs parentheses.

A broadcast is left out where the C++ beside it takes a single value for a vector: among the operands of an operator, of
`select` and of `mul_add`, as long as one of them is a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from effcc.codegen.cpp.instructions import ROWS, row_of
from effcc.codegen.cpp.sizes import size_factor, size_headers, size_text
from effcc.codegen.cpp.spelling import COMPARISONS, FOLDS, element_name, header_of, literal, spell, type_name
from effcc.ir.dims import Dim
from effcc.ir.dtypes import DType, b8, bf16, boolean, f16, f32, f64, i7, i16, i32, i64, l8, u7
from effcc.ir.vectors import (
    Affine,
    Any,
    Broadcast,
    Call,
    Check,
    Conjunction,
    Convert,
    Dot,
    FirstLanes,
    Fma,
    Iota,
    Lane,
    Literal,
    Load,
    Lookup,
    LookupCodes,
    Nearest,
    Permute,
    Place,
    Reduce,
    Round,
    Select,
    SetLane,
    SizeNumber,
    Store,
    StoreRows,
    TileLoad,
    TileStore,
    Type,
    Value,
    Var,
    value_type,
)  # fmt: skip

_ANY, _SUM, _PRODUCT, _ATOM = range(4)
"""How tightly a text holds together: in an operator, everything but an atom needs parentheses."""

Text = tuple[str, int]


class Texts:
    """Texts of values; `called` are the functions that are called by another name. It remembers what they need."""

    def __init__(self, called: frozenset[tuple[str, Type]]) -> None:
        self.called = called
        self._functions: set[str] = set()
        self._headers: set[str] = set()
        self._sizes: set[Dim] = set()

    def headers(self) -> frozenset[str]:
        """The headers that all texts so far need."""
        return frozenset({header_of(name) for name in self._functions} | self._headers) | size_headers(self._sizes)

    def whole(self, value: Value) -> str:
        """A value that stands alone: on a right side, or as an argument."""
        return self.text(value)[0]

    def atom(self, value: Value, least: int = _ATOM) -> str:
        """A value as an operand, in parentheses if it holds less tightly than `least`."""
        text, level = self.text(value)
        return text if level >= least else f"({text})"

    def text(self, value: Value) -> Text:
        match value:
            case Var(name):
                return name, _ATOM
            case Affine():
                return self._affine(value)
            case Literal():
                return _literal(value)
            case Call():
                return self._call(value)
            case Fma(a, b, c):
                first, second = self._elided((a, b))
                return f"{ROWS[Fma].function}({first}, {second}, {self.whole(c)})", _ATOM
            case Load():
                return self._load(value), _ATOM
            case Select():
                return self._select(value)
            case Convert():
                return self._convert(value)
            case Conjunction(conditions):
                return " && ".join(map(self.condition, conditions)), _ANY
            case Lane(vector, lane):
                body = f"lane({self.whole(vector)}, {lane})"
                return (f"({body} != 0)" if vector.type.is_mask else body), _ATOM
            case Broadcast(inner, type) if inner.type.lanes > 1:
                self._headers.add("dot.h")
                return f"repeat<{type_name(type)}>({self.whole(inner)})", _ATOM
            case Broadcast(inner, type):
                body = f"-i{8 * type.mask_bytes}({self.whole(inner)})" if type.is_mask else self.whole(inner)
                return f"broadcast<{type_name(type)}>({body})", _ATOM
            case SizeNumber(size):
                return self._size(size), _ANY
            case Reduce(function, vector):
                fold = FOLDS[function]
                template = fold.masks if vector.type.is_mask else fold.lanes
                return template.format(self.whole(vector)), _ATOM
        return self._function(value), _ATOM

    def _function(self, value: Value) -> str:
        """Nodes that are one function of the header library."""
        name, header = row_of(value).function, row_of(value).header
        self._headers.add(header)
        match value:
            case Nearest(inner, type):
                return f"{name}<{type.dtype.name}>({self.whole(inner)})"
            case Round(inner, dtype):
                return f"{name}<{element_name(dtype)}>({self.whole(inner)})"
            case Iota(start, type):
                return f"{name}<{type_name(type)}>({self.whole(start)})"
            case FirstLanes(count, type):
                return f"{name}<{type_name(type)}>({self.whole(count)})"
            case Any(mask):
                return f"{name}({self.whole(mask)})"
            case Permute(vector, lanes):
                return f"{name}<{', '.join(map(str, lanes))}>({self.whole(vector)})"
            case Lookup(table, index):
                return f"{name}({self.whole(table)}, {self.whole(index)})"
            case LookupCodes(low, high, codes, first, shift):
                part = first // low.type.lanes
                return f"{name}<{part}, {shift}>({', '.join(map(self.whole, (low, high, codes)))})"
            case Dot(a, b, c):
                if value.type.dtype == i16:
                    return f"{name}_pairs({', '.join(map(self.whole, (a, b, c)))})"
                small = a.type.dtype == u7 or b.type.dtype in (i7, l8)
                form = "_small" if small else "_balanced" if a.type.dtype == b8 else ""
                return f"{name}{form}({', '.join(map(self.whole, (a, b, c)))})"
        raise TypeError(f"no C++ for {value.__class__.__name__}")

    def condition(self, value: Value) -> str:
        """A truth value between parentheses that stand anyway, or beside `&&`."""
        match value:
            case Call("not", (inner,), type) if type.lanes == 1:
                return f"!{self.atom(inner)}"
        return self.whole(value)

    def _elided(self, values: Sequence[Value]) -> list[str]:
        """Operands without their broadcasts, but for the first if all of them are broadcast."""
        last = all(isinstance(v, Broadcast) for v in values)
        return [self.whole(v) if last and n == 0 else self.whole(_single(v)) for n, v in enumerate(values)]

    def _call(self, value: Call) -> Text:
        name, operands, type = value.function, value.operands, value.type
        bound = _bound(value)
        if bound is not None:
            self._headers.add("arith.h")
            return f"{'at_most' if name == 'minimum' else 'at_least'}({self.whole(operands[1])}, {bound})", _ATOM
        if self.called and (name, type) in self.called:
            self._functions.add(name)
            return f"{outlined_name(name)}({', '.join(map(self.whole, operands))})", _ATOM
        self._functions.add(name)
        kind = operands[0].type.dtype
        template, spelling = spell(name, kind)
        if spelling.operator:
            text, level = self._operator(name, template, operands)
        else:
            text, level = self._named(template, operands, kind), _ATOM
        if type.lanes == 1 and type.dtype.bits < 32 and type.dtype != boolean:
            return f"{type.dtype.name}({text})", _ATOM
        return text, level

    def calls(self, values: Sequence[Call]) -> tuple[str, list[str]]:
        """What is called for several values of one function at once, and their operands."""
        name = values[0].function
        self._functions.add(name)
        return outlined_name(name), [self.whole(operand) for value in values for operand in value.operands]

    def _operator(self, name: str, template: str, operands: Sequence[Value]) -> Text:
        if operands[0].type.dtype == boolean:
            return template.format(*map(self.atom, operands)), _ATOM if template.endswith(")") else _ANY
        mixed = len(operands) == 2 and not all(isinstance(v, Broadcast) for v in operands)
        given = [_single(v) if mixed else v for v in operands]
        least = {"add": _PRODUCT, "sub": _PRODUCT}.get(name, _SUM if name in COMPARISONS else _ATOM)
        texts = []
        for n, (operand, full) in enumerate(zip(given, operands, strict=True)):
            if operand is not full and isinstance(operand, Affine):
                texts.append(f"i64({self.whole(operand)})")  # a literal is an int
                continue
            chained = n == 0 and isinstance(operand, Call) and operand.function == name
            texts.append(self.atom(operand, _ANY if chained else least))
        level = {"add": _SUM, "sub": _SUM, "mul": _PRODUCT, "div": _PRODUCT}.get(name, _ANY)
        return template.format(*texts), level

    def _named(self, template: str, operands: Sequence[Value], kind: DType) -> str:
        texts = list(map(self.whole, operands))
        if kind.is_integer and kind != i32 and len(operands) > 1 and operands[0].type.lanes == 1:
            template = template.replace("(", f"<{kind.name}>(", 1)  # a literal is an int
        return template.format(*texts)

    def _select(self, value: Select) -> Text:
        condition, a, b = value.condition, value.a, value.b
        type = value.type
        if condition.type.is_mask and isinstance(condition, Call) and condition == Call("lt", (b, a), condition.type):
            self._headers.add("arith.h")
            return f"at_least({self.whole(b)}, {self.whole(_single(a))})", _ATOM
        if condition.type.is_mask:
            one_vector = not type.is_mask and isinstance(a, Broadcast) != isinstance(b, Broadcast)
            sides = [self.whole(_single(v) if one_vector else v) for v in (a, b)]
            return f"select({self.whole(condition)}, {sides[0]}, {sides[1]})", _ATOM
        body = f"{self.condition(condition)} ? {self.atom(a, _SUM)} : {self.atom(b, _SUM)}"
        if type.lanes == 1 and type.dtype.bits < 32 and type.dtype != boolean:
            return f"{type.dtype.name}({body})", _ATOM
        return body, _ANY

    def _convert(self, value: Convert) -> Text:
        inner, to = value.value, value.type
        source = inner.type
        if to.is_mask and source.is_mask:
            return f"mask_cast<{type_name(to)}>({self.whole(inner)})", _ATOM
        if to.dtype == boolean:
            return f"{self.atom(inner)} != 0", _ANY
        if source.is_mask:
            return f"from_mask<{type_name(to)}>({self.whole(inner)})", _ATOM
        if source.dtype == boolean or (source.dtype == i64 and source.lanes == 1 and to.dtype == i32):
            return f"{to.dtype.name}({self.whole(inner)})", _ATOM
        body = self.whole(inner)
        if source.dtype == i64 and source.lanes == 1:
            body = f"i64({body})"  # a literal is an int
        return f"convert<{to.dtype.name}>({body})", _ATOM

    # Index arithmetic

    def _affine(self, a: Affine) -> Text:
        """`768 * m0 + k + 32`."""
        text = ""
        for atom, c in a.terms:
            if c == 1:
                text += f" + {atom}" if text else atom
            elif isinstance(c, int) and c < 0:
                term = atom if c == -1 else f"{-c} * {atom}"
                text += f" - {term}" if text else f"-{term}"
            else:
                term = f"{self._size(c, size_factor)} * {atom}"
                text += f" + {term}" if text else term
        constant = a.constant
        if isinstance(constant, int):
            if not text:
                return str(constant), _ATOM if constant >= 0 else _SUM
            if constant != 0:
                return f"{text} + {constant}" if constant > 0 else f"{text} - {-constant}", _SUM
            return text, _ATOM if len(a.terms) == 1 and a.terms[0][1] == 1 else _SUM
        size = self._size(constant)
        return (f"{text} + {size}", _SUM) if text else (size, _ATOM if constant.is_Symbol else _SUM)

    def _size(self, size: Dim, spelled: Callable[[Dim], str] = size_text) -> str:
        if isinstance(size, int):
            return str(size)
        self._sizes.add(size)
        return spelled(size)

    # Memory

    def place(self, place: Place) -> str:
        """A pointer."""
        text = self._affine(place.at)[0]
        return place.buffer if text == "0" else f"{place.buffer} + {text}"

    def _load(self, load: Load) -> str:
        place, type = load.place, load.type
        if type.lanes == 1 and load.index is None and load.mask is None and load.count is None:
            return f"load<f32>({self.place(place)})" if place.dtype in (f16, bf16) else self._element(place)
        where = self.place(place)
        if type.dtype == bf16:
            bits = f"reinterpret_cast<const u16*>({where})"
            if load.count is not None:
                return f"load_n<{type_name(type)}>({bits}, {self.whole(load.count)})"
            return f"load<{type_name(type)}>({bits})"
        plain = load.index is None and load.stride == 1
        truth = type.dtype == boolean
        if truth and not plain:
            numbers = type_name(value_type(i32, type.lanes))
            return f"to_mask({self._moved(load, numbers, where)})"
        name, kind = type_name(value_type(i32) if truth and type.lanes == 1 else type), "_mask" if truth else ""
        if not plain:
            return self._moved(load, name, where)
        if isinstance(load.mask, Broadcast) and not truth:
            return f"load_where<{name}>({self.whole(load.mask.value)}, {where})"
        if load.mask is not None:
            return f"load{kind}_if<{name}>({self.whole(load.mask)}, {where})"
        if load.count is not None:
            return f"load{kind}_n<{name}>({where}, {self.whole(load.count)})"
        return f"load{kind}<{name}>({where})"

    def _moved(self, load: Load, name: str, where: str) -> str:
        """A load whose lanes lie apart."""
        mask = self.whole(load.mask) if load.mask is not None else ""
        if load.index is not None:
            index = self.whole(load.index)
            return f"gather_if<{name}>({mask}, {where}, {index})" if mask else f"gather<{name}>({where}, {index})"
        stride = self._size(load.stride)
        if mask:
            return f"load_apart_if<{name}>({mask}, {where}, {stride})"
        if load.count is not None:
            return f"load_strided_n<{name}>({where}, {stride}, {self.whole(load.count)})"
        return f"load_apart<{name}>({where}, {stride})"

    def _element(self, place: Place) -> str:
        return f"{place.buffer}[{self._affine(place.at)[0]}]"

    def store(self, store: Store) -> str:
        """A store, without its semicolon."""
        place, value = store.place, store.value
        body = self.whole(value)
        if value.type.lanes == 1 and store.index is None and store.count is None:
            if place.dtype in (f16, bf16):
                return f"store({self.place(place)}, {body})"
            return f"{self._element(place)} = {body}"
        where, masked = self.place(place), value.type.dtype == boolean
        ending = "" if store.count is None else f", {self.whole(store.count)}"
        if store.index is None and store.stride == 1:
            suffix = "" if store.count is None else "_n"
            return f"store{'_mask' if masked else ''}{suffix}({where}, {body}{ending})"
        if masked:
            body = f"from_mask<{type_name(value_type(i32, value.type.lanes))}>({body})"
        if store.index is None:
            return f"store_spread({where}, {self._size(store.stride)}, {body}{ending})"
        mask = self.whole(store.mask) if store.mask is not None else ""
        index = self.whole(store.index)
        if store.fold:
            template = spell(store.fold, place.dtype)[0].format("a", "b")
            mask = mask or self.whole(Literal(True, value_type(boolean, store.index.type.lanes)))
            return f"scatter_fold({mask}, {where}, {index}, {body}, [](auto a, auto b) {{ return {template}; }})"
        return f"scatter_if({mask}, {where}, {index}, {body})" if mask else f"scatter({where}, {index}, {body})"

    def store_rows(self, store: StoreRows) -> str:
        """The store of a transposed register tile, without its semicolon."""
        rows = ", ".join(map(self.whole, store.values))
        if len(store.values) > 4:
            rows = f"{{{rows}}}"
        count = "" if store.count is None else f", {self.whole(store.count)}"
        return f"store_rows({self.place(store.place)}, {self._size(store.stride)}, {rows}{count})"

    def set_tile(self, name: str, value: Value) -> str:
        """What a tile register is set to, without its semicolon."""
        self._headers.add("tile.h")
        match value:
            case Literal():
                return f"clear_tile({name})"
            case TileLoad(place, _, stride, rows, lanes):
                function = row_of(value).function
                return f"{function}<{rows}, {lanes}>({name}, {self.place(place)}, {self._size(stride)})"
            case Dot(a, b, _):
                return f"{row_of(value).function}({self.whole(a)}, {self.whole(b)}, {name})"
        raise TypeError(f"no C++ to set a tile to {value.__class__.__name__}")

    def store_tile(self, line: TileStore) -> str:
        """The store of a tile register, without its semicolon."""
        self._headers.add("tile.h")
        return f"store_tile({self.place(line.place)}, {self._size(line.stride)}, {line.value.name})"

    def set_lane(self, line: SetLane) -> str:
        """The change of one lane, without its semicolon."""
        body = f"-{self.atom(line.value)}" if line.register.type.is_mask else self.whole(line.value)
        return f"set_lane({line.register.name}, {line.lane}, {body})"

    def check(self, check: Check) -> tuple[str, str]:
        """When a check fails, and what notes it."""
        what = f"{check.number}, "
        value, size = self.whole(check.value), self.whole(check.size)
        if not check.fails.type.is_mask:
            return self.condition(check.fails), f"note(fault, {what}{value}, {size})"
        lanes = self.whole(check.fails)
        return f"any({lanes})", f"note_lanes(fault, {what}{lanes}, {value}, {size})"


def _literal(value: Literal) -> Text:
    type = value.type
    if type.is_mask:
        return f"{'~' if value.value else ''}{type_name(type)}{{}}", _ATOM
    text = literal(value.value, type.dtype)
    if type.lanes > 1:
        return f"broadcast<{type_name(type)}>({text})", _ATOM
    return text, _ANY if text.startswith("-") else _ATOM


def _bound(value: Call) -> str | None:
    """The number that vectors of floats are brought down or up to, which comes first in `minimum` or `maximum`."""
    match value:
        case Call("minimum" | "maximum", (Broadcast(Literal(value=float(number), type=type) as bound), _)):
            return _literal(bound)[0] if type.dtype in (f32, f64) and not math.isnan(number) else None
    return None


def _single(value: Value) -> Value:
    """What a broadcast spreads."""
    return value.value if isinstance(value, Broadcast) and not value.type.is_mask else value


def outlined_name(name: str) -> str:
    """What a function is called by that is not written out."""
    return f"call_{name}"
