"""Ahead of time: from a `.pt2` file, a module, or a printed IR to a package, through the same steps as torch.compile.

effcc compile model.pt2 -o model.effcc --print-after fuse > fused.ir
effcc compile fused.ir --from fuse
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from effcc.codegen.cpp.program import entry_points, pointer_table, size_table
from effcc.driver import Options, build, require_cpu, require_runnable
from effcc.errors import InputError, UnknownNameError, UnsupportedError
from effcc.faults import without_pytorch
from effcc.ir.dims import hinted, symbol, symbols
from effcc.ir.program import Program
from effcc.runtime.arrays import aligned, allocate, arena_for, enter, flat
from effcc.runtime.c_header import identifier
from effcc.runtime.cache import CompileCache
from effcc.runtime.library import Library
from effcc.runtime.manifest import (
    FORMAT,
    Machine,
    Manifest,
    PackagedBuffer,
    Parameter,
    SizeRange,
    this_platform,
)
from effcc.runtime.measure import recalled
from effcc.runtime.objects import Making
from effcc.runtime.signature import KeyFile, read_signing_key
from effcc.runtime.spell_manifest import spell_buffer, spell_size
from effcc.runtime.write_package import require_writable, write_package
from effcc.sources import Source, from_captured, read_model, read_schedules
from effcc.steps import STEPS, State, run_steps, show
from effcc.target import Target, detect, physical_cores
from effcc.tuning import require_mode, tuned


def compile_file(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None,
    *,
    target: Target | None = None,
    print_after: Sequence[str] = (),
    from_step: str | None = None,
    sign: KeyFile | None = None,
    fast_math: bool = False,
    schedules: str | os.PathLike[str] | None = None,
    mode: str | None = None,
) -> dict[str, str]:
    """Compile a `.pt2` or printed IR file into the package `output` (None: only as far as must be printed).

    sign: a PEM file with the Ed25519 key to sign the package with. schedules: a file with schedules to follow, as
    `print_after` "tile" gives them; for kernels that have none there, one is chosen. mode: "max-autotune" times the
    best few of each kernel, for a target that is this machine; not of a printed IR of a later step than `arrange`.

    Returns the text of what came out of each step of `print_after`.

    Raises UnknownNameError for a step that does not exist, CaptureError, IRSyntaxError or IRTypeError for a file that
    is not what it should be, UnsupportedError with the list of calls that need PyTorch, and PackageError where
    `output` cannot be written. No output file is left behind by an error.
    """
    for step in (*print_after, *([from_step] if from_step else [])):
        if step not in STEPS:
            raise UnknownNameError("step", step, STEPS)
    require_mode(mode)
    target = recalled(target or detect())
    key = read_signing_key(sign) if sign is not None else None
    if output is not None:
        require_cpu(target)
        require_writable(Path(output))
    source = read_model(Path(path), from_step)
    printed: dict[str, str] = {}

    def see(step: str, state: State) -> None:
        if step in print_after:
            printed[step] = show(state, step)

    begun = dataclasses.replace(source.state, fast_math=fast_math)
    if schedules is not None:
        begun = dataclasses.replace(begun, written={**begun.written, **read_schedules(Path(schedules))})
    if source.start is not None:
        early = [step for step in print_after if list(STEPS).index(step) <= list(STEPS).index(source.start)]
        if early:
            raise InputError(f"nothing to print after {early[0]!r}: the file comes from a later step, {source.start!r}")
    with without_pytorch(target), hinted(source.hints):
        if output is None:
            last = max(print_after, key=list(STEPS).index, default=None)
            _run(begun, target, source.start, see, last, mode)
        else:
            _compile_package(dataclasses.replace(source, state=begun), target, Path(output), key, see, mode)
    return printed


def export(
    model: Any,
    args: tuple[Any, ...],
    path: str | os.PathLike[str],
    *,
    kwargs: dict[str, Any] | None = None,
    dynamic_shapes: Any = None,
    target: Target | str | None = None,
    sign: KeyFile | None = None,
    fast_math: bool = False,
    mode: str | None = None,
) -> Path:
    """Compile a module ahead of time, as called with `args` and `kwargs`, into the package `path`; returns the path.

    dynamic_shapes: as torch.export takes them. target: this machine, or a generic one: "avx512", "avx2", "amx".
    sign: a PEM file with the Ed25519 key to sign it with (`openssl genpkey -algorithm ed25519 -out key.pem`).
    fast_math: rewrite also where results may differ by more than roundings. mode: "max-autotune" times the best few
    schedules of each kernel, for a target that is this machine.

    Raises InputError for a file that holds no such key, CaptureError where torch.export cannot make one graph of the
    model, and what `compile_file` raises.
    """
    from effcc.backend import watch_exported
    from effcc.frontend.export import capture

    key = read_signing_key(sign) if sign is not None else None
    require_writable(Path(path))
    require_mode(mode)
    machine = recalled(Target.parse(target) if isinstance(target, str) else target or detect())
    require_cpu(machine)
    captured = capture(model, args, kwargs, dynamic_shapes)
    with without_pytorch(machine):
        source = from_captured(captured)
        begun = dataclasses.replace(source.state, fast_math=fast_math)
        with hinted(source.hints):
            written = _compile_package(dataclasses.replace(source, state=begun), machine, Path(path), key, mode=mode)

    def values() -> list[Any]:
        return [*captured.state.values(), *captured.call(*args, **(kwargs or {}))]

    watch_exported(captured.graph_module, captured.signature, values, Options(machine, fast_math=fast_math))
    return written


def _compile_package(
    source: Source,
    target: Target,
    path: Path,
    key: Any,
    see: Callable[[str, State], None] | None = None,
    mode: str | None = None,
) -> Path:
    """All steps, and the package; kernels are compiled while others are on their way."""
    with CompileCache.default().making(target) as making:
        begun = dataclasses.replace(source.state, begin=making.add)
        state = dataclasses.replace(_run(begun, target, source.start, see, mode=mode), begin=None)
        return build_package(dataclasses.replace(source, state=state), target, path, key, making)


def _run(
    state: State,
    target: Target,
    start: str | None,
    see: Callable[[str, State], None] | None = None,
    until: str | None = None,
    mode: str | None = None,
) -> State:
    """The steps as `run_steps` takes them, under schedules that are timed where `mode` asks for that."""
    steps = list(STEPS)
    before = start is None or steps.index(start) <= steps.index("settle")
    if mode == "max-autotune" and before and (until is None or steps.index(until) > steps.index("settle")):
        require_runnable(target)
        state, start = run_steps(state, target, start, see, "settle"), "settle"
        state = dataclasses.replace(
            state, written={**tuned(dataclasses.replace(state, begin=None), target), **state.written}
        )
    return run_steps(state, target, start, see, until)


def build_package(source: Source, target: Target, path: Path, key: Any = None, making: Making | None = None) -> Path:
    """Write the package of a model that went through all steps, signed with `key` if there is one. making: where
    kernels of it are under way.

    Raises as `compile_file` says.
    """
    program, plan = source.state.program, source.state.plan
    assert program is not None and plan is not None
    _refuse_externs(program)
    entries = {e.stage: e.name for e in entry_points(program)}
    if "run" not in entries:
        raise UnsupportedError("the model computes nothing: its results are its inputs")
    library = build(source.state, target, openmp=False, making=making)
    prepared = _prepare(source, target, library) if "prepare" in entries else {}
    unknown = {b.name for b in program.buffers if b.space == "weight" and b.name not in source.weights}
    told = [s for n in source.numbers for s in n.sizes]
    steps = program.steps if prepared else (*program.prepare, *program.steps)
    written = program.written
    read = {program.memory_of(n) for names in (program.outputs, *(s.arguments for s in steps)) for n in names}
    buffers = tuple(_packaged(program, name, unknown, read, written, told) for name in pointer_table(program))
    stored = {b.name: source.weights[b.name] for b in buffers if b.role in ("weight", "state")} | prepared
    roles = {b.name: b.role for b in buffers}
    inputs = [n for n in program.inputs if roles[n] == "input"]
    takes = source.takes if source.takes is not None else tuple((name, k) for k, name in enumerate(inputs))
    returns = source.returns if source.returns is not None else {"tuple": [*range(len(program.outputs))]}
    named = dict.fromkeys((*size_table(program), *told, *(s.name for s in symbols(source.conditions))))
    ranges = {n: program.ranges.get(n, (0, None)) for n in named}
    manifest = Manifest(
        format=FORMAT,
        effcc=importlib.metadata.version("effcc"),
        name=identifier(path.stem),
        platform=this_platform(),
        target=Machine(name=target.name, isa=target.isa, features=list(target.features)),
        buffers=list(buffers),
        inputs=inputs,
        numbers=list(source.numbers),
        conditions=[spell_size(c) for c in source.conditions],
        outputs=list(program.outputs),
        written=[n for n in program.inputs if n in program.written],
        takes=[Parameter(name=name, value=value) for name, value in takes],
        returns=returns,
        sizes=[SizeRange(name=n, least=least, most=most) for n, (least, most) in ranges.items()],
        arena_bytes=spell_size(plan.arena_bytes),
        run=entries["run"],
        prepare=None if prepared else entries.get("prepare"),
        prepare_at="call" if unknown else "load",
        files={},
    )
    flattened = {n: flat(np.asarray(a), program.buffer(n).type) for n, a in stored.items()}
    return write_package(path, manifest, library.path.read_bytes(), flattened, key)


def _refuse_externs(program: Program) -> None:
    calls = [
        f"  {s.attrs.get('target', s.op)}: {s.reason}" + (f" (at {s.location})" if s.location else "")
        for s in program.externs
    ]
    if calls:
        raise UnsupportedError(
            "a package runs without PyTorch, but the model needs it for\n" + "\n".join(dict.fromkeys(calls)) +
            "\nuse torch.compile(model, backend='effcc'), which calls PyTorch there, or take these out of the model"
        )  # fmt: skip


def _prepare(source: Source, target: Target, library: Library) -> dict[str, np.ndarray]:
    """What the program computes from weights; empty where values are missing or this machine cannot run the code."""
    program, plan = source.state.program, source.state.plan
    assert program is not None and plan is not None
    read = {n for s in program.prepare for n in s.arguments} & {b.name for b in program.buffers if b.space == "weight"}
    if not target.runs_here() or not read <= set(source.weights):
        return {}
    tensors = {}
    for name in read:
        tensors[name] = allocate(program.buffer(name).type, {})
        tensors[name][...] = source.weights[name]
    prepared = {b.name: allocate(b.type, {}) for b in program.buffers if b.space == "prepared"}
    sizes = size_table(program)
    arena = aligned(arena_for(plan.arena_bytes, {}, sizes))
    (entry,) = (e.name for e in entry_points(program) if e.stage == "prepare")
    enter(
        library.entry_point(entry), pointer_table(program), {**tensors, **prepared}, sizes, {}, arena, physical_cores()
    )
    return prepared


def _packaged(
    program: Program, name: str, unknown: set[str], read: Collection[str], written: Collection[str], told: Sequence[str]
) -> PackagedBuffer:
    """A buffer with its role in the package. read, written: whose memory a package reads or returns, and calls write.
    told: the sizes that numbers among the arguments tell."""
    buffer = program.buffer(name)
    role = buffer.space
    if role == "input" and buffer.type.strides == (0,) and buffer.type.shape in [(symbol(s),) for s in told]:
        role = "carrier"
    if role == "weight":
        role = "input" if name in unknown else "state" if name in written else "weight" if name in read else "folded"
    return spell_buffer(name, dataclasses.replace(buffer.type, encoding=None), role)
