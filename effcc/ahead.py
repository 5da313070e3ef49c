"""Ahead of time: from a `.pt2` file, a module, or a printed IR to a package, through the same steps as torch.compile.

    effcc compile model.pt2 -o model.effcc --print-after fuse > fused.ir
    effcc compile fused.ir --from fuse

A printed file has no weights: they are inputs of what it compiles to, unless their values come along by name.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sympy

from effcc.codegen.cpp.program import entry_points, pointer_table, size_table
from effcc.driver import STEPS, State, build, require_cpu, require_runnable, run_steps, show
from effcc.errors import CaptureError, EncodingError, InputError, UnknownNameError, UnsupportedError
from effcc.faults import without_pytorch
from effcc.ir.dims import Dim, symbol, symbols
from effcc.ir.graph import Graph
from effcc.ir.parser import parse_any, parse_schedules, parts
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.program import Launch, Program
from effcc.ir.size_functions import FUNCTIONS
from effcc.runtime.arrays import aligned, allocate, arena_for, enter, flat
from effcc.runtime.c_header import identifier
from effcc.runtime.cache import CompileCache
from effcc.runtime.library import Library
from effcc.runtime.manifest import (
    FORMAT,
    Machine,
    Manifest,
    NumberArgument,
    PackagedBuffer,
    Parameter,
    SizeRange,
    this_platform,
)
from effcc.runtime.measure import recalled
from effcc.runtime.nesting import Nesting
from effcc.runtime.objects import Making
from effcc.runtime.signature import KeyFile, read_signing_key
from effcc.runtime.spell_manifest import Leaf, spell_buffer, spell_constant, spell_nesting, spell_size
from effcc.runtime.write_package import is_package, require_writable, write_package
from effcc.target import Target, detect, physical_cores
from effcc.tuning import require_mode, tuned

GRAPH_STEPS = ("simplify", "hoist", "encode")
PROGRAM_STEPS = ("cluster", "split", "online", "fuse", "in_place", "arrange", "settle", "tile", "place")


@dataclass(frozen=True)
class Source:
    """A model on its way: what the steps start from, after which step, and what a package needs besides.

    weights: values by parameter name; a weight that has none is an input. takes: the model's parameters, and how each
    nests the program's inputs, which are counted without weights; None: one tensor each. returns: how the model nests
    the program's outputs; None: a tuple. numbers: integers among the arguments that a call may change. conditions:
    functions of the sizes that are 1 at every call that the model was captured for.
    """

    state: State
    start: str | None = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    takes: tuple[tuple[str, Nesting], ...] | None = None
    returns: Nesting | None = None
    numbers: tuple[NumberArgument, ...] = ()
    conditions: tuple[Dim, ...] = ()


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
    with without_pytorch(target):
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
    from effcc.frontend.export import capture

    key = read_signing_key(sign) if sign is not None else None
    require_writable(Path(path))
    require_mode(mode)
    machine = recalled(Target.parse(target) if isinstance(target, str) else target or detect())
    require_cpu(machine)
    captured = capture(model, args, kwargs, dynamic_shapes)
    with without_pytorch(machine):
        source = _from_captured(captured)
        begun = dataclasses.replace(source.state, fast_math=fast_math)
        return _compile_package(dataclasses.replace(source, state=begun), machine, Path(path), key, mode=mode)


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


def read_model(path: Path, from_step: str | None = None) -> Source:
    """What a `.pt2` or printed IR file holds. Raises as `compile_file` says."""
    if path.exists() and is_package(path):
        raise CaptureError(f"{path}: expected a .pt2 file or a printed IR, got a compiled package: `effcc run` runs it")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise CaptureError(f"{path}: expected a .pt2 file of torch.export or a printed IR, found {found}")
    if path.suffix in (".pt2", ".pt") or zipfile.is_zipfile(path):
        if from_step is not None:
            raise InputError(
                f"{path}: --from {from_step} is for printed IR; an exported program starts at the first step"
            )
        from effcc.frontend.export import from_exported, load_exported

        return _from_captured(from_exported(load_exported(path)))
    try:
        text = path.read_text()
    except UnicodeDecodeError as error:
        start = path.read_bytes()[:8]
        raise CaptureError(
            f"{path}: expected a .pt2 file of torch.export or a printed IR, got bytes that begin {start!r}"
        ) from error
    return resume(text, str(path), from_step)


def read_schedules(path: Path) -> dict[str, WrittenSchedule]:
    """The schedules that a file holds. Raises InputError where it has none, IRSyntaxError where one does not parse."""
    try:
        found = parse_schedules(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a file of schedules, as --print-after tile gives: {error}") from error
    if not found:
        raise InputError(f"{path}: expected schedules (`schedule @kernel {{ ... }}`), as --print-after tile gives them")
    return found


def resume(text: str, path: str = "<text>", from_step: str | None = None) -> Source:
    """The state after `from_step` from the text that was printed there; without it, a graph starts at the first step,
    and a program where programs begin.

    Raises InputError for text of another step, UnsupportedError for steps whose text is not all there is to know.
    """
    if from_step is not None and from_step not in (*GRAPH_STEPS, *PROGRAM_STEPS):
        raise UnsupportedError(
            f"{path}: what {from_step!r} prints cannot be taken up again: cascades leave out their graph, "
            f"loops and C++ their program; print after one of {', '.join((*GRAPH_STEPS, *PROGRAM_STEPS))}"
        )
    graphs: list[Graph] = []
    program: Program | None = None
    written = parse_schedules(text, path)
    for part in parts(text):
        parsed = parse_any(part, path)
        if isinstance(parsed, WrittenSchedule):
            continue
        if isinstance(parsed, Graph):
            graphs.append(parsed)
        elif isinstance(parsed, Program) and program is None:
            program = parsed
        else:
            raise InputError(f"{path}: expected a graph or a program, got {type(parsed).__name__} @{parsed.name}")
    if program is not None or from_step is not None:
        _refuse_encodings(graphs, program, path)
    wanted = "a program" if from_step in PROGRAM_STEPS else "a graph" if from_step in GRAPH_STEPS else ""
    got = "a program" if program is not None else "a graph"
    if wanted and wanted != got:
        raise InputError(f"{path}: step {from_step!r} gives {wanted}, the file holds {got}")
    if program is not None:
        if from_step in ("tile", "place"):
            return Source(State(program=program, written=written, tiled=True), "settle")
        if written:
            raise InputError(f"{path}: schedules come out of the step 'tile': take the file up with --from tile")
        return Source(State(program=_with_weights(program)), from_step or "fuse")
    prepare = graphs[0] if len(graphs) == 2 else None
    if not 1 <= len(graphs) <= 2 or (prepare is not None and from_step in (None, "simplify")):
        raise InputError(
            f"{path}: expected one graph (or, from hoist on, one that prepares and one), got {len(graphs)}"
        )
    return Source(State(graph=graphs[-1], prepare=prepare), from_step)


def _refuse_encodings(graphs: Sequence[Graph], program: Program | None, path: str) -> None:
    """From the first step on, stored weights are components and a `decode`: an encoding in a type would be lost."""
    named = [(p.name, p.type) for g in graphs for p in g.params] + [
        (b.name, b.type) for b in (program.buffers if program is not None else ())
    ]
    for name, type in named:
        if type.encoding is not None:
            raise EncodingError(
                f"{path}: {name} is {type}; encodings in types are for graphs that start at the first step (no --from)"
            )


def _with_weights(program: Program) -> Program:
    """The program whose kernels know again which parameters are weights, which their text does not say."""
    constant = {b.name for b in program.buffers if b.space in ("weight", "prepared")}
    found: dict[str, set[str]] = {}
    for step in program.steps:
        if isinstance(step, Launch):
            params = [p.name for p in program.kernels[step.kernel].params]
            weights = {p for p, b in zip(params, step.arguments, strict=True) if b in constant}
            found[step.kernel] = found.get(step.kernel, weights) & weights
    kernels = {n: dataclasses.replace(k, weights=frozenset(found.get(n, ()))) for n, k in program.kernels.items()}
    return dataclasses.replace(program, kernels=kernels)


def _from_captured(captured: Any) -> Source:
    """A capture's graph and the values of its weights."""
    from effcc.frontend.aten import import_graph
    from effcc.ir.graph import Value

    imported = import_graph(captured.graph_module, captured.signature)
    weights = {imported.inputs[i].name: t for i, t in captured.state.items() if isinstance(imported.inputs[i], Value)}
    weights |= imported.constants
    return Source(
        State(graph=imported.graph), None, {n: _to_array(t) for n, t in weights.items()},
        _takes(captured, imported), _returns(captured, imported), _numbers(captured, imported),
        (*captured.conditions(), *_within_64_bits(imported)),
    )  # fmt: skip


def _within_64_bits(imported: Any) -> list[Dim]:
    """The conditions that what the program computes of its numbers and sizes fits into 64 bits."""
    limits = imported.limits()
    return [FUNCTIONS["le"](symbol(n), limits.safe) for n in limits.names if limits.safe < 2**62 - 1]


def _takes(captured: Any, imported: Any) -> tuple[tuple[str, Nesting], ...]:
    """The model's parameters, and how the value of each nests the graph's inputs."""
    from effcc.ir.graph import Value

    user = [(k, known) for k, known in enumerate(imported.inputs) if k not in captured.state]
    tensors = [k for k, known in user if isinstance(known, Value)]
    tensors += [k for k, known in user if isinstance(known, sympy.Expr)]  # numbers count after tensors

    def leaf(position: int) -> Nesting:
        k, _ = user[position]
        return tensors.index(k) if k in tensors else spell_constant(captured.example_inputs[k], "an argument")

    return tuple((name, spell_nesting(value, leaf, f"the argument {name}")) for name, value in captured.arguments(Leaf))


def _numbers(captured: Any, imported: Any) -> tuple[NumberArgument, ...]:
    """The integers among the model's arguments that a call may change, and the sizes that they tell.

    Raises UnsupportedError for a size that the arguments do not tell by themselves.
    """
    names = captured.signature.input_names
    found = []
    for position, known in enumerate(imported.inputs):
        if isinstance(known, sympy.Expr):
            told = {n: r for n, r in imported.readings.items() if r.position == position and r.is_whole}
            if {s.name for s in known.free_symbols} != set(told):
                raise UnsupportedError(f"the argument {names[position]} is {known}; expected a number of its own")
            sizes = sorted(told, key=lambda n: -told[n].sign)
            found.append(NumberArgument(name=names[position], sizes=sizes))
    missing = set(imported.lone_sizes) - {s for n in found for s in n.sizes}
    if missing:
        raise UnsupportedError(
            f"the size {min(missing)} stands alone in no argument: give an argument that has it as an axis"
        )
    return tuple(found)


def _returns(captured: Any, imported: Any) -> Nesting:
    """How the model nests the graph's outputs, and the sizes and constants that it returns beside them."""
    from effcc.ir.graph import Value

    tensors = [k for k, output in enumerate(imported.outputs) if isinstance(output, Value)]

    def leaf(position: int) -> Nesting:
        output = imported.outputs[position]
        if isinstance(output, Value):
            return tensors.index(position)
        if isinstance(output, sympy.Expr):
            return {"size": spell_size(output)}
        return spell_constant(output, "what the model returns")

    value = captured.unflatten([Leaf(k) for k in range(len(imported.outputs))])
    return spell_nesting(value, leaf, "what the model returns")


def _to_array(tensor: Any) -> np.ndarray:
    import torch

    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


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
