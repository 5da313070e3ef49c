"""Graph to program, in steps that each take what the one before gave:

    cascade         the graphs as statements: index forms, with views read through
    read_encoded    products read encoded weights as they are stored
    inline          views, padding and cheap producers move into their readers
    group           axes split where an earlier result is read at one divided by a constant
    cluster         statements cut into kernels, equal ones shared: a program
    split           of each kernel, axes that its indices divide by a constant become two
    codes           of each kernel, sums over the codes that share a byte are written out
    online          of each kernel, sums that follow a maximum take one pass with it
    fuse            of each kernel, accesses that cannot be proved to stay inside are guarded, and dependences proved

The first four give cascades, whose text is a program, too (`effcc.passes.fusion.program`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from effcc.errors import noting
from effcc.gpu import device_of
from effcc.ir.dependences import shared_axes
from effcc.ir.graph import Graph
from effcc.ir.kernel import Kernel
from effcc.ir.program import Program
from effcc.passes.fusion.cascade import is_opaque, squeeze, to_cascade
from effcc.passes.fusion.codes import sum_codes
from effcc.passes.fusion.encoded import read_encoded
from effcc.passes.fusion.inline import inline, inline_views
from effcc.passes.fusion.one_pass import clusters
from effcc.passes.fusion.online import make_online
from effcc.passes.fusion.polyhedra import check_dependences, guard_accesses
from effcc.passes.fusion.program import Cascades, Part, program_of
from effcc.passes.fusion.split import split_axes, split_groups
from effcc.passes.fusion.storage import stored_behind_views
from effcc.target import Target


def fuse(main: Graph, target: Target, prepare: Graph | None = None) -> Program:
    """The program of a graph: distinct kernels, and the launches and calls that run them in order.

    `prepare` computes from weights what `main` takes as further weights, under the same names.
    """
    found: Cascades = to_cascades(main, target, prepare)
    for change in CASCADE_STEPS.values():
        found = change(found)
    program = to_clusters(found, target)
    for step in KERNEL_STEPS.values():
        program = step(program)
    return program


# Cascades -------------------------------------------------------------------------------------------------------------


def to_cascades(main: Graph, target: Target, prepare: Graph | None = None) -> Cascades:
    """The statements of both graphs."""
    joins = device_of(target) is None
    return Cascades(
        replace(_part(main, joins), weights=main.fixed_weights), None if prepare is None else _part(prepare, joins)
    )


def _part(graph: Graph, joins: bool) -> Part:
    params = {p.name for p in graph.params}
    stored = stored_behind_views(graph, joins)
    results = frozenset(stored[v.name][0] if v.name in stored else v.name for v in graph.results) - params
    opaque = frozenset(v.name for n in graph.nodes if is_opaque(n, joins) for v in (*n.operands, *n.results))
    cascade = squeeze(to_cascade(graph, joins), results | opaque)
    return Part(graph, inline_views(cascade, results), results, stored, opaque=opaque)


def _read_encoded(part: Part) -> Part:
    cascade, gathered = read_encoded(part.cascade, part.results)
    # A result keeps its axes of one point; the sum of codes that its scale was taken out of has none.
    return replace(part, cascade=squeeze(cascade, part.results | part.opaque), gathered=gathered)


def _inline(part: Part) -> Part:
    return replace(part, cascade=inline(part.cascade, part.results, part.gathered))


def _group(part: Part) -> Part:
    cascade, cuts = split_groups(part.cascade)
    return replace(part, cascade=cascade, cuts=cuts)


def _each_part(change: Callable[[Part], Part]) -> Callable[[Cascades], Cascades]:
    def changed(cascades: Cascades) -> Cascades:
        prepare = None if cascades.prepare is None else change(cascades.prepare)
        return Cascades(change(cascades.main), prepare)

    return changed


CASCADE_STEPS: dict[str, Callable[[Cascades], Cascades]] = {
    "read_encoded": _each_part(_read_encoded),
    "inline": _each_part(_inline),
    "group": _each_part(_group),
}


# Programs -------------------------------------------------------------------------------------------------------------


def to_clusters(cascades: Cascades, target: Target) -> Program:
    """The program of the statements cut into kernels."""
    return program_of(cascades, lambda part: clusters(part, target))


def _each_kernel(change: Callable[[Kernel], Kernel], program: Program) -> Program:
    kernels = {}
    for name, kernel in program.kernels.items():
        with noting(location=kernel.location, kernel=kernel):
            kernels[name] = change(kernel)
    return replace(program, kernels=kernels)


def _split(program: Program) -> Program:
    return _each_kernel(split_axes, program)


def _codes(program: Program) -> Program:
    return _each_kernel(sum_codes, program)


def _online(program: Program) -> Program:
    return _each_kernel(make_online, program)


def _guard(program: Program) -> Program:
    def guarded(kernel: Kernel) -> Kernel:
        found = guard_accesses(kernel, program.ranges)
        check_dependences(found, shared_axes(found))
        return found

    return _each_kernel(guarded, program)


KERNEL_STEPS: dict[str, Callable[[Program], Program]] = {
    "split": _split,
    "codes": _codes,
    "online": _online,
    "fuse": _guard,
}
