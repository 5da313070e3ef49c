"""Random tiles: generated code and the interpreter of the loop language agree, whatever the axes and expressions."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from effcc.ir.dtypes import DType, boolean, f32, f64, i8, i32, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, add, both, cast, compare, floor_div, modulo, multiply, where
from effcc.ir.interpreter import run_loops
from effcc.ir.loops import Alloc, For, LoopNest, Stmt, Tile, TileAxis
from effcc.runtime.cache import CompileCache
from effcc.target import Target
from tests.codegen.cpp.running import index, param, run_nest

EXTENTS = {"i": 3, "j": 21, "k": 4, "t": 5}
TYPES = {"F": f32, "D": f64, "I": i64, "S": i32, "B": i8, "M": boolean}
STATEMENTS = 5


class Draw:
    """Random expressions over the axes of one tile; `t` is a loop around it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def pick(self, *options: object) -> object:
        return self.random.choice(options)

    def axis(self) -> Expr:
        return Axis(self.random.choice(list(EXTENTS)))

    def position(self, depth: int = 2) -> Expr:
        """An index of any size, also negative."""
        if depth == 0:
            return self.random.choice([self.axis(), index(self.random.randint(-3, 5))])
        a, b = self.position(depth - 1), self.position(depth - 1)
        step = index(self.random.randint(2, 9))
        wild = [
            add(a, b),
            multiply(a, step),
            floor_div(a, step),
            modulo(a, step),
            Call("sub", (a, b), i64),
            self.axis(),
        ]
        return self.random.choice(wild)

    def load(self, name: str) -> Expr:
        """An element that certainly exists (each axis at its own place), or a guarded one."""
        dtype = TYPES[name]
        if self.random.random() < 0.6:
            return Load(name, tuple(Axis(a) if self.random.random() < 0.7 else index(1) for a in EXTENTS), dtype)
        place = tuple(self.position() for _ in EXTENTS)
        inside = [c for p, e in zip(place, EXTENTS.values(), strict=True)
                  for c in (compare("ge", p, index(0)), compare("lt", p, index(e)))]  # fmt: skip
        other = Const(False, boolean) if dtype == boolean else Const(1.5 if dtype.is_float else 3, dtype)
        return where(both(*inside), Load(name, place, dtype), other)

    def value(self, dtype: DType, depth: int) -> Expr:
        """An expression of a dtype."""
        if depth == 0:
            return self.load(next(n for n, d in TYPES.items() if d == dtype))
        if dtype == boolean:
            return self.condition(depth)
        a, b = self.value(dtype, depth - 1), self.value(dtype, depth - 1)
        match self.random.randrange(6):
            case 0:
                return where(self.condition(depth - 1), a, b)
            case 1:
                return cast(self.value(self.random.choice(list(TYPES.values())), depth - 1), dtype)
            case 2:
                return Call(self.random.choice(["neg", "abs"]), (a,), dtype)
        if dtype == i64 and self.random.random() < 0.5:
            return add(self.position(), a)
        return Call(self.random.choice(["add", "sub", "mul", "maximum", "minimum"]), (a, b), dtype)

    def condition(self, depth: int) -> Expr:
        if depth <= 0:
            return compare(self.random.choice(["lt", "ge", "eq", "ne"]), self.position(), self.position())
        match self.random.randrange(4):
            case 0:
                return Call("not", (self.condition(depth - 1),), boolean)
            case 1:
                pair = (self.condition(depth - 1), self.condition(depth - 1))
                return Call(self.random.choice(["and", "or", "xor"]), pair, boolean)
            case 2:
                dtype = self.random.choice([f32, i64, i32])
                sides = (self.value(dtype, depth - 1), self.value(dtype, depth - 1))
                return Call(self.random.choice(["lt", "le", "gt", "ge", "eq"]), sides, boolean)
        return self.load("M")

    def axes(self, names: str) -> tuple[TileAxis, ...]:
        """Tile axes: `j` in lanes (or a loop), the others unrolled or loops; some with a limit."""
        found = []
        for name in names:
            kind = self.random.choice(["lanes", "lanes", "loop"] if name == "j" else ["unroll", "loop"])
            limit = self.random.choice([None, None, add(Axis("t"), index(self.random.randint(0, 2))), index(2)])
            found.append(TileAxis(name, EXTENTS[name], kind, limit))
        self.random.shuffle(found)
        return tuple(found)


def random_nest(seed: int) -> LoopNest:
    """Statements into buffers of their own: pointwise, folds over some axes, and folds into registers."""
    draw = Draw(seed)
    body: list[Stmt] = []
    outputs = []
    for n in range(STATEMENTS):
        dtype = draw.random.choice([f32, f32, f64, i64, i32, boolean])
        kept = [a for a in "ijk" if draw.random.random() < 0.7]
        folds = {boolean: ["or", "and"], i64: ["add", "max"], i32: ["add", "min"]}.get(dtype, ["add", "max", "min"])
        name = f"O{n}"
        outputs.append(param(name, dtype, EXTENTS["t"], *(EXTENTS[a] for a in kept)))
        place = (Axis("t"), *(Axis(a) for a in kept))
        start = Const(False, boolean) if dtype == boolean else Const(0.0 if dtype.is_float else 0, dtype)
        whole = tuple(TileAxis(a, EXTENTS[a], "lanes" if a == "j" else "unroll") for a in kept)
        value = draw.value(dtype, 2)
        axes = draw.axes("ijk")
        fold = draw.random.choice(folds)
        if draw.random.random() < 0.5:
            body.append(Tile(whole, name, place, "set", start))
            body.append(Tile(axes, name, place, fold, value))
            continue
        registers = f"R{n}"
        body.append(Alloc(registers, dtype, tuple(EXTENTS[a] for a in kept), "register"))
        body.append(Tile(whole, registers, place[1:], "set", start))
        body.append(Tile(axes, registers, place[1:], fold, value))
        body.append(Tile(whole, name, place, "set", Load(registers, place[1:], dtype)))
    around = For("t", index(0), index(EXTENTS["t"]), 1, draw.random.choice(["serial", "parallel"]), tuple(body))
    params = tuple(param(n, d, *EXTENTS.values()) for n, d in TYPES.items())
    return LoopNest(f"random{seed}", params, tuple(outputs), (around,))


def random_arrays(seed: int) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    rng = np.random.default_rng(seed)
    shape = tuple(EXTENTS.values())
    return {
        name: rng.random(shape) < 0.5 if d == boolean
        else rng.standard_normal(shape).astype(d.numpy) if d.is_float
        else rng.integers(-5, 6, shape).astype(d.numpy)
        for name, d in TYPES.items()
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(2))
def test_random_tiles_agree_with_the_interpreter(target: Target, cache: CompileCache, seed: int) -> None:
    nest, arrays = random_nest(seed), random_arrays(seed)
    want = run_loops(nest, arrays)
    given = {**arrays, **{o.name: np.zeros(o.type.shape, o.type.dtype.numpy) for o in nest.outputs}}
    run_nest(nest, given, target, cache, quick=True)
    for output in nest.outputs:
        tolerance = 1e-5 if output.type.dtype == f32 else 1e-12
        np.testing.assert_allclose(
            given[output.name], want[output.name], rtol=tolerance, atol=1e-4, err_msg=output.name
        )
