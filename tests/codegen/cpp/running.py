"""Building loop nests by hand, compiling them for one target, and running them on NumPy arrays."""

from __future__ import annotations

import ctypes
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np

from effcc.codegen.cpp.program import emit_program, pointer_table, size_table
from effcc.codegen.cpp.units import Source
from effcc.ir.dtypes import DType, boolean, f32, i64
from effcc.ir.expr import Axis, Call, Const, Expr, Load, Scalar
from effcc.ir.kernel import Param
from effcc.ir.loops import For, LoopNest, Stmt, TileAxis
from effcc.ir.program import Buffer, Launch, Program
from effcc.runtime.cache import CompileCache
from effcc.runtime.library import Library
from effcc.runtime.toolchain import compile_flags, compile_library
from effcc.target import Target


def axes(*parts: tuple[str, int, str] | TileAxis) -> tuple[TileAxis, ...]:
    """Tile axes from (name, extent, kind)."""
    return tuple(p if isinstance(p, TileAxis) else TileAxis(*p) for p in parts)


def index(value: int) -> Const:
    return Const(value, i64)


def number(value: float) -> Const:
    return Const(value, f32)


def apply(function: str, *operands: Expr, dtype: DType | None = None) -> Call:
    """A call whose dtype is its operands', or bool for a comparison."""
    comparison = function in ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf")
    return Call(function, operands, dtype or (boolean if comparison else operands[-1].dtype))


def at(buffer: str, *place: Expr, dtype: DType = f32) -> Load:
    return Load(buffer, place, dtype)


def loop(axis: str, stop: int | Expr, step: int, body: tuple[Stmt, ...], kind: str = "serial") -> For:
    return For(axis, index(0), index(stop) if isinstance(stop, int) else stop, step, kind, body)


def names(text: str) -> list[Axis]:
    return [Axis(name) for name in text.split()]


def constant(value: Scalar, dtype: DType) -> Const:
    return Const(value, dtype)


def program_of(nest: LoopNest) -> Program:
    """A program that launches one nest on buffers named like its parameters."""
    buffers = [Buffer(p.name, p.type, "input") for p in nest.params]
    buffers += [Buffer(p.name, p.type, "output") for p in nest.outputs]
    inputs, outputs = (tuple(p.name for p in side) for side in (nest.params, nest.outputs))
    return Program("test", tuple(buffers), inputs, outputs, {}, (Launch(nest.name, inputs, outputs),))


def source_of(nest: LoopNest, target: Target) -> str:
    return str(emit_program(program_of(nest), {nest.name: nest}, target))


def load(cache: CompileCache, source: Source, target: Target) -> Library:
    return cache.load(source.entry, target, kernels=[unit.text for unit in source.kernels])


def run_program(
    program: Program,
    nests: Mapping[str, LoopNest],
    arrays: Mapping[str, np.ndarray[Any, Any]],
    target: Target,
    cache: CompileCache,
    sizes: Mapping[str, int] | None = None,
    threads: int = 2,
    entry: str = "effcc_run",
    quick: bool = False,
) -> None:
    """Compile a program and run it on arrays, which hold its inputs and outputs under the buffers' names.

    `quick` compiles without optimizing: for large sources whose meaning is tested, not their speed.
    """
    source = emit_program(program, nests, target)
    if quick:
        flags = ["-O0" if flag == "-O3" else flag for flag in compile_flags(target)]
        library = Library(compile_library(str(source), cache.folder / f"{uuid.uuid4().hex}.so", flags))
    else:
        library = load(cache, source, target)
    pointers = (ctypes.c_void_p * len(arrays))(*(arrays[n].ctypes.data for n in pointer_table(program)))
    values = (ctypes.c_int64 * 64)(*((sizes or {})[n] for n in size_table(program)))
    arena = np.zeros(1 << 16, np.uint8)
    library.entry_point(entry)(pointers, values, arena.ctypes.data, threads)


def run_nest(
    nest: LoopNest,
    arrays: Mapping[str, np.ndarray[Any, Any]],
    target: Target,
    cache: CompileCache,
    sizes: Mapping[str, int] | None = None,
    threads: int = 2,
    quick: bool = False,
) -> None:
    """Compile a nest and run it on arrays, which hold its parameters and outputs by name."""
    run_program(program_of(nest), {nest.name: nest}, arrays, target, cache, sizes, threads, quick=quick)


def param(name: str, dtype: DType, *shape: Any, strides: tuple[Any, ...] | None = None) -> Param:
    from effcc.ir.types import TensorType

    return Param(name, TensorType(dtype, shape, strides))
