"""What a compilation ahead of time starts from: an exported model, or a printed IR, read from a file.

A printed file has no weights: they are inputs of what it compiles to, unless their values come along by name.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sympy

from effcc.errors import CaptureError, EncodingError, InputError, UnsupportedError
from effcc.ir.dims import Dim, symbol
from effcc.ir.graph import Graph
from effcc.ir.parser import parse_any, parse_schedules, parts
from effcc.ir.parser.schedules import WrittenSchedule
from effcc.ir.program import Program
from effcc.ir.size_functions import FUNCTIONS
from effcc.runtime.manifest import (
    NumberArgument,
)
from effcc.runtime.nesting import Nesting
from effcc.runtime.spell_manifest import Leaf, spell_constant, spell_nesting, spell_size
from effcc.runtime.write_package import is_package
from effcc.steps import State

GRAPH_STEPS = ("simplify", "hoist", "encode")
PROGRAM_STEPS = ("cluster", "split", "online", "fuse", "both_ways", "in_place", "arrange", "settle", "tile", "place")


@dataclass(frozen=True)
class Source:
    """A model on its way: what the steps start from, after which step, and what a package needs besides.

    weights: values by parameter name; a weight that has none is an input. takes: the model's parameters, and how each
    nests the program's inputs, which are counted without weights; None: one tensor each. returns: how the model nests
    the program's outputs; None: a tuple. numbers: integers among the arguments that a call may change. conditions:
    functions of the sizes that are 1 at every call that the model was captured for. hints: the sizes of its example.
    """

    state: State
    start: str | None = None
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)
    takes: tuple[tuple[str, Nesting], ...] | None = None
    returns: Nesting | None = None
    numbers: tuple[NumberArgument, ...] = ()
    conditions: tuple[Dim, ...] = ()
    hints: Mapping[str, int] = field(default_factory=dict)


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

        return from_captured(from_exported(load_exported(path)))
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
    for step in program.launches:
        params = [p.name for p in program.kernels[step.kernel].params]
        weights = {p for p, b in zip(params, step.arguments, strict=True) if b in constant}
        found[step.kernel] = found.get(step.kernel, weights) & weights
    kernels = {n: dataclasses.replace(k, weights=frozenset(found.get(n, ()))) for n, k in program.kernels.items()}
    return dataclasses.replace(program, kernels=kernels)


def from_captured(captured: Any) -> Source:
    """A capture's graph and the values of its weights."""
    from effcc.frontend.aten import import_graph
    from effcc.ir.graph import Value

    imported = import_graph(captured.graph_module, captured.signature)
    weights = {imported.inputs[i].name: t for i, t in captured.state.items() if isinstance(imported.inputs[i], Value)}
    weights |= imported.constants
    return Source(
        State(graph=imported.graph), None, {n: _to_array(t) for n, t in weights.items()},
        _takes(captured, imported), _returns(captured, imported), _numbers(captured, imported),
        (*captured.conditions(), *_within_64_bits(imported)), imported.hints,
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
