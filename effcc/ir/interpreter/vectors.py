"""Functions of vectors run with NumPy, lane by lane: the meaning of what generated code does.

The threads of a team run one after the other, each up to the next barrier: last thread first, so that what one needs of
another before a barrier shows. Scratch memory and registers begin as NaN; every access is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from effcc.errors import InputError
from effcc.ir import vectors as v
from effcc.ir.dims import Dim, evaluate, evaluate_number
from effcc.ir.dtypes import b8, bf16, boolean, f32, i7, i16, i32, i64, l8, u7
from effcc.ir.interpreter.kernels import blank, combiner
from effcc.ir.scalars import function as scalar_function

Values = Any
_SATURATED = 1 << 30


def run_vectors(
    function: v.Function, buffers: Mapping[str, Any], sizes: Mapping[str, int] | None = None, team: int = 1
) -> list[tuple[int, int, int]]:
    """Run a function with a team of threads on `buffers`, arrays in memory as it lies there, by the nest's names.

    What it writes is written in them. Returns the checks that failed: number, value, size. Raises InputError for an
    access outside a buffer.
    """
    memory = {}
    for p in function.buffers:
        array = np.asarray(buffers[p.stands_for])
        if array.dtype != p.dtype.numpy:
            raise InputError(f"{p.stands_for!r}: expected {p.dtype}, got {array.dtype}")
        memory[p.name] = array.reshape(-1) if array.flags.c_contiguous else array
    values = [
        int((sizes or {})[size]) if isinstance(size, str) else evaluate(size, sizes or {}) for _, size in function.sizes
    ]
    known = {name: np.int64(value) for (name, _), value in zip(function.sizes, values, strict=True)}
    symbols = {
        size if isinstance(size, str) else name: value
        for (name, size), value in zip(function.sizes, values, strict=True)
    }
    failed: list[tuple[int, int, int]] = []
    threads = range(1 if function.first_only else team)
    with np.errstate(all="ignore"):
        running = [_Thread(t, team, dict(memory), dict(known), symbols, failed).run(function.body) for t in threads]
        while running:
            running = [thread for thread in reversed(running) if next(thread, None) is not None]
            running.reverse()
    return failed


class _Thread:
    """One thread: its place in the team, the memory it sees, and what its names hold."""

    def __init__(
        self,
        thread: int,
        team: int,
        memory: dict[str, Values],
        names: dict[str, Values],
        sizes: Mapping[str, int],
        failed: list[tuple[int, int, int]],
    ) -> None:
        self.thread, self.team, self.memory, self.names = thread, team, memory, names
        self.sizes, self.failed = sizes, failed

    def run(self, body: Sequence[v.Line]) -> Iterator[bool]:
        """Run statements; yields at every barrier."""
        for line in body:
            match line:
                case v.Barrier():
                    yield True
                case v.Loop(name, start, stop, step, inner):
                    for point in range(int(self(start)), int(self(stop)), step):
                        self.names[name] = np.int64(point)
                        yield from self.run(inner)
                case v.Share(name, count, inner):
                    for point in self._share(int(self(count))):
                        self.names[name] = np.int64(point)
                        yield from self.run(inner)
                case v.Branch(condition, then, orelse):
                    yield from self.run(then if self(condition) else orelse)
                case _:
                    self._do(line)

    def _share(self, count: int) -> range:
        each, more = divmod(count, self.team)
        begin = self.thread * each + min(self.thread, more)
        return range(begin, begin + each + (self.thread < more))

    def _do(self, line: v.Line) -> None:
        match line:
            case v.Let(name, value) | v.Assign(name, value):
                self.names[name] = self(value)
            case v.Registers(type, names, value):
                start = self._zeros(type) if value is None else self(value)
                self.names.update(dict.fromkeys(names, start))
            case v.Tiles(type, names):
                self.names.update(dict.fromkeys(names, blank((type.rows, type.lanes), type.dtype.numpy)))
            case v.TileStore(place, value, stride):
                at = self._at(place) + self._size(stride) * np.arange(value.type.rows)[:, None]
                at = at + np.arange(value.type.lanes)
                self._memory(place, at)[at] = self(value)
            case v.Array(dtype, name, length):
                self.memory[name] = blank((length,), dtype.numpy)
            case v.SetLane(v.Var(name), lane, value):
                changed = self.names[name].copy()
                changed[lane] = self(value)
                self.names[name] = changed
            case v.Store():
                self._store(line)
            case v.StoreRows(place, rows, _, count):
                stride = self._size(line.stride)
                lanes = rows[0].type.lanes if count is None else max(0, min(rows[0].type.lanes, int(self(count))))
                values = np.stack([self(row) for row in rows], axis=1)
                at = self._at(place) + stride * np.arange(lanes)[:, None] + np.arange(len(rows))
                self._memory(place, at)[at] = values[:lanes]
            case v.Check(number, fails, value, size):
                bad = np.atleast_1d(self(fails))
                subject, end = np.broadcast_to(self(value), bad.shape), int(self(size))
                self.failed += [(number, int(x), end) for x in subject[bad]]

    # Memory

    def _size(self, size: Dim) -> int:
        return evaluate(size, self.sizes)

    def _at(self, place: v.Place) -> int:
        return int(self(place.at))

    def _memory(self, place: v.Place, at: Values) -> Values:
        """A buffer, in which all places must lie."""
        buffer = self.memory[place.buffer]
        if np.size(at) and (np.min(at) < 0 or np.max(at) >= len(buffer)):
            bad = int(np.min(at)) if np.min(at) < 0 else int(np.max(at))
            raise InputError(f"{place.buffer}[{bad}]: the buffer has {len(buffer)} elements")
        return buffer

    def _lanes(self, node: v.Load | v.Store, lanes: int) -> tuple[Values, Values]:
        """Where each lane lies, and which lanes count."""
        apart = np.arange(lanes) * self._size(node.stride) if node.index is None else np.asarray(self(node.index))
        active = np.ones(lanes, np.bool_)
        if node.count is not None:
            active = np.arange(lanes) < int(self(node.count))
        if node.mask is not None:
            active = np.atleast_1d(self(node.mask))
        return self._at(node.place) + np.atleast_1d(apart), active

    def _load(self, load: v.Load) -> Values:
        at, active = self._lanes(load, load.type.lanes)
        buffer = self._memory(load.place, at[active])
        out = np.zeros(load.type.lanes, buffer.dtype)
        out[active] = buffer[at[active]]
        out = out.astype(load.type.dtype.numpy)
        return out if load.type.lanes > 1 else out[0]

    def _store(self, store: v.Store) -> None:
        value = np.atleast_1d(self(store.value))
        at, active = self._lanes(store, len(value))
        buffer = self._memory(store.place, at[active])
        if store.fold:
            combiner(store.fold).at(buffer, at[active], value[active].astype(buffer.dtype))
            return
        for place, x in zip(at[active], value[active].astype(buffer.dtype), strict=True):
            buffer[place] = x

    # Values

    def _zeros(self, type: v.Type) -> Values:
        zeros = np.zeros(type.lanes, type.dtype.numpy)
        return zeros if type.lanes > 1 else zeros[0]

    def __call__(self, value: v.Value) -> Values:
        """A value: an array of its lanes, or a single number."""
        match value:
            case v.Var(name):
                return self.names[name]
            case v.Affine(terms, constant):
                total = sum(int(self.names[name]) * self._size(c) for name, c in terms) + self._size(constant)
                return np.int64((total + 2**63) % 2**64 - 2**63)  # numbers of the user's, too, which wrap around
            case v.Literal(number, type) if type.rows > 1:
                return np.full((type.rows, type.lanes), number, type.dtype.numpy)
            case v.TileLoad(place, type, stride, rows, lanes):
                at = self._at(place) + self._size(stride) * np.arange(rows)[:, None] + np.arange(lanes)
                tile = np.zeros((type.rows, type.lanes), type.dtype.numpy)
                tile[:rows, :lanes] = self._memory(place, at)[at]
                return tile
            case v.Literal(number, type):
                full = np.full(type.lanes, number, type.dtype.numpy)
                return full if type.lanes > 1 else full[0]
            case v.SizeNumber(size):
                return np.float64(evaluate_number(size, self.sizes))
            case v.FirstThread():
                return self.thread == 0
            case v.Call():
                return self._call(value)
            case v.Fma(a, b, c):
                wide = np.longdouble if value.type.dtype == f32 else value.type.dtype.numpy
                exact = self(a).astype(wide) * self(b).astype(wide) + self(c).astype(wide)
                return exact.astype(value.type.dtype.numpy)
            case v.Dot():
                return self._dot(value)
            case v.Select(condition, a, b):
                if condition.type.lanes == 1 and value.type.lanes >= 1 and not condition.type.is_mask:
                    return self(a) if self(condition) else self(b)
                return np.where(self(condition), self(a), self(b))
            case v.Conjunction(conditions):
                return all(bool(self(c)) for c in conditions)
            case v.Convert(inner, type):
                return convert(self(inner), type)
            case v.Nearest(inner, type):
                return convert(np.rint(self(inner)), type)
            case v.Round(inner, dtype):
                return self(inner).astype(dtype.numpy).astype(np.float32)
            case v.Broadcast(inner, type):
                return np.resize(self(inner), type.lanes).astype(type.dtype.numpy)
            case v.Iota(start, type):
                numbers = (self(start) + np.arange(type.lanes)).astype(type.dtype.numpy)
                return numbers if type.lanes > 1 else numbers[0]
            case v.FirstLanes(count, type):
                return np.arange(type.lanes) < int(self(count))
            case v.Lane(vector, lane):
                return self(vector)[lane]
            case v.Permute(vector, lanes):
                return self(vector)[list(lanes)]
            case v.Lookup(table, index):
                return self(table)[np.asarray(self(index)) & (table.type.lanes - 1)]
            case v.LookupCodes(low, high, codes, first, shift):
                entries, lanes = np.concatenate([self(low), self(high)]), low.type.lanes
                return entries[self(codes)[first : first + lanes] >> shift & (2 * lanes - 1)]
            case v.Any(mask):
                return bool(np.any(self(mask)))
            case v.Reduce(name, vector):
                return self._reduce(name, self(vector))
        return self._load(value)

    def _call(self, call: v.Call) -> Values:
        given = [self(o) for o in call.operands]
        match call.function:
            case "quotient":
                return given[0] // given[1]
            case "rest":
                return given[0] % given[1]
            case "saturate":
                return np.int32(max(-_SATURATED, min(_SATURATED, int(given[0]))))
        result = np.asarray(scalar_function(call.function).reference(*map(np.asarray, given)))
        result = result.astype(call.type.dtype.numpy)
        return result if call.type.lanes > 1 else result[()]

    def _reduce(self, name: str, lanes: Values) -> Values:
        """Halves meet until one lane is left."""
        fold = scalar_function(name).reference
        while len(lanes) > 1:
            half = len(lanes) // 2
            lanes = fold(lanes[:half], lanes[half:]).astype(lanes.dtype)
        return lanes[0]

    def _dot(self, dot: v.Dot) -> Values:
        a, b, c = self(dot.a), self(dot.b), np.atleast_1d(self(dot.c))
        if dot.a.type.dtype == u7 and a.max() > 127:
            raise InputError(f"dot of u7 that is {a.max()}: expected at most 127")
        if dot.a.type.dtype == b8 and a.min() < -127:
            raise InputError(f"dot of b8 that is {a.min()}: expected at least -127")
        if dot.b.type.dtype == i7 and not -64 <= b.min() <= b.max() <= 63:
            raise InputError(f"dot of i7 from {b.min()} to {b.max()}: expected -64 to 63")
        if dot.b.type.dtype == l8 and dot.type.dtype == i16:
            return _exact_pairs(a, b, c)
        if dot.type.rows > 1:
            return tile_products(a, b, c)
        return dot_products(a, b, c)


def _exact_pairs(a: Values, b: Values, c: Values) -> Values:
    """c + the sums of pairs of products in i16, which must hold them."""
    total = dot_products(a, b, c.astype(np.int32))
    if total.min() < -32768 or total.max() > 32767:
        raise InputError(f"dot of l8 that is {total.min()} to {total.max()}: expected what i16 holds")
    return total.astype(np.int16)


def dot_products(a: Values, b: Values, c: Values) -> Values:
    """c + the sums of products of packed neighbours; of bf16 rounded after each product, the odd one first."""
    neighbours = len(a) // len(c)
    if a.dtype == bf16.numpy:
        x, y = (w.astype(np.float32).reshape(-1, neighbours) for w in (a, b))
        for k in reversed(range(neighbours)):
            c = (c.astype(np.longdouble) + x[:, k].astype(np.longdouble) * y[:, k]).astype(np.float32)
        return c
    products = a.astype(np.int64) * b.astype(np.int64)
    total = products.reshape(-1, neighbours).sum(1) + c
    return (total & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def tile_products(a: Values, b: Values, c: Values) -> Values:
    """c plus the matrix product of a with b, whose rows have neighbours packed; of bf16 as a matrix unit adds them up:
    a sum of the products at even places and one of those at odd ones, which then meet and join c.
    """
    side = c.shape[1]
    neighbours = b.shape[1] // side
    if a.dtype != bf16.numpy:
        return np.stack([dot_products(np.tile(x, side), b.reshape(-1, side, neighbours).transpose(1, 0, 2).ravel(), row)
                         for x, row in zip(a, c, strict=True)])  # fmt: skip
    wide = [x.astype(np.longdouble) for x in (a, b)]
    parts = np.zeros((neighbours, *c.shape), np.float32)
    for k in range(len(b)):
        for n in range(neighbours):
            exact = parts[n] + np.outer(wide[0][:, neighbours * k + n], wide[1][k, n::neighbours])
            parts[n] = exact.astype(np.float32)
    return c + (parts[0] + parts[1])


def convert(value: Values, type: v.Type) -> Values:
    """Lanes as another dtype, as PyTorch converts on x86: what does not fit an integer is the lowest i32 or i64."""
    given, to = np.asarray(value), type.dtype
    if to == boolean:
        result = given != 0
    elif given.dtype.kind == "f" and to.is_integer:
        wide = i64 if to == i64 or (to.name == "u8" and given.dtype == np.float64) else i32
        info = np.iinfo(wide.numpy)
        cut = np.trunc(given.astype(np.float64))
        inside = (cut >= float(info.min)) & (cut < -float(info.min))
        result = np.where(inside, cut, 0.0).astype(wide.numpy)
        result = np.where(inside, result, info.min).astype(wide.numpy).astype(to.numpy)
    else:
        result = given.astype(to.numpy)
    return result if result.ndim else result[()]
