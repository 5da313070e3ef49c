"""Bugs planted in passes and code generators, one at a time: a short campaign from a fixed seed finds each.

A plant names the graph that shows it, which is asked first: the number from which it is drawn, or its text where few
draws show it. When graphs are drawn otherwise one day, a number may show it no more; the search then goes on from the
first graph, and a warning names one that does, since a search takes up to a hundred times as long.
Rewrite rules are tried beside graphs only where the bug is theirs: a rule that is found wrong by itself would pass for
any bug.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from effcc import steps
from effcc.codegen import lower_ranges
from effcc.codegen.borders import Interior
from effcc.codegen.cpp import barriers, expression_text, expressions, printer, tiles
from effcc.fuzz import rules
from effcc.fuzz.campaign import Pace, Report, run
from effcc.fuzz.generate import case_of
from effcc.fuzz.native import Runner
from effcc.fuzz.oracles import Failure, examine, judge, native
from effcc.ir import scalars
from effcc.ir.dtypes import i32
from effcc.ir.encodings import Storage
from effcc.ir.encodings.levels import compressed
from effcc.ir.encodings.packing import Packed
from effcc.ir.encodings.sums import Terms
from effcc.ir.encodings.values import Coded
from effcc.ir.expr import (
    Axis,
    Call,
    Const,
    Expr,
    Load,
    Reduce,
    Span,
    add,
    cast,
    compare,
    floor_div,
    integer,
    multiply,
    transform,
)  # fmt: skip
from effcc.ir.graph import Graph, Node
from effcc.ir.kernel import Kernel
from effcc.ir.loops import For, If, LoopNest, Stmt, Tile
from effcc.ir.parser import parse_graph
from effcc.ir.program import Program
from effcc.ir.schedule import Pack
from effcc.ir.table import products, segments
from effcc.ir.vectors import Affine
from effcc.passes import balance, integers, layout, memory, reroll, simplify
from effcc.passes.encodings import sums
from effcc.passes.fusion import online
from effcc.passes.fusion import program as programs
from effcc.passes.fusion.cascade import Defined
from effcc.passes.rules.engine import Rewritten, Trace
from effcc.passes.rules.language import RuleSet
from effcc.passes.rules.reader import load_all, parse
from effcc.passes.tiling import axes
from effcc.target import Target

Patch = pytest.MonkeyPatch
MOST = 400  # graphs

fuse = importlib.import_module("effcc.passes.fusion.fuse")  # the package exports a function of this name
tile = importlib.import_module("effcc.passes.tiling.tile")
lower = importlib.import_module("effcc.codegen.lower")
vectorize = importlib.import_module("effcc.codegen.cpp.vectorize")

PACE = Pace(batch=4, deployed=0, modules=False, programs=False, packages=False, rules=0, encoders=0, sizes=0)


@dataclass(frozen=True)
class Bug:
    """A bug: what plants it, and the seed or the text of a graph that shows it."""

    plant: Callable[[Patch], None]
    graph: int | str


PLANTED: dict[str, Bug] = {}


def planted(graph: int | str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a bug under the name of the function that plants it."""

    def register(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        PLANTED[plant.__name__.replace("_", " ")] = Bug(plant, graph)
        return plant

    return register


ATTENTION = """graph @attention(%q: f32[2,40,16], %k: f32[2,40,16], %v: f32[2,40,16]) {
  %kt = transpose %k {perm=[0, 2, 1]} : f32[2,16,40]
  %s = matmul %q, %kt : f32[2,40,40]
  %p = softmax %s {axis=2} : f32[2,40,40]
  %y = matmul %p, %v : f32[2,40,16]
  return %y
}"""


def changed_graph(graph: Graph, change: Callable[[Node], Node]) -> Graph:
    return graph.with_nodes(tuple(change(n) for n in graph.nodes))


def simplify_wrongly(patch: Patch, change: Callable[[Node], Node]) -> None:
    def wrong(graph: Graph, fast_math: bool, trace: Trace | None) -> Rewritten:
        simple = original(graph, fast_math, trace)
        return replace(simple, graph=changed_graph(simple.graph, change))

    original = steps.simplify_counted
    patch.setattr(steps, "simplify_counted", wrong)


@planted(48)
def simplify_takes_mod_for_fmod(patch: Patch) -> None:
    simplify_wrongly(patch, lambda n: replace(n, op="fmod") if n.op == "mod" else n)


@planted(29)
def simplify_swaps_the_operands_of_sub(patch: Patch) -> None:
    def swap(node: Node) -> Node:
        a_b = node.operands
        return replace(node, operands=a_b[::-1]) if node.op == "sub" else node

    simplify_wrongly(patch, swap)


@planted(8)
def rules_merge_what_is_rounded_between(patch: Patch) -> None:
    everything = load_all()
    merges = tuple(r for r in everything.rules if r.name in ("merge_summands", "merge_factors"))
    patch.setattr(simplify, "load_safe", lambda: RuleSet(merges, everything.order))


@planted(3)
def simplify_takes_softmax_over_the_first_axis(patch: Patch) -> None:
    def wrong(node: Node) -> Node:
        return replace(node, attrs={**node.attrs, "axis": 0}) if node.op in ("softmax", "log_softmax") else node

    simplify_wrongly(patch, wrong)


@planted(1)
def inlining_swaps_the_branches_of_where(patch: Patch) -> None:
    def swapped(e: Expr) -> Expr:
        if isinstance(e, Call) and e.function == "where":
            condition, a, b = e.operands
            return replace(e, operands=(condition, b, a))
        return e

    def wrong(*args: Any) -> Any:
        cascade = original(*args)
        items = [
            replace(i, statement=replace(i.statement, value=transform(i.statement.value, swapped)))
            if isinstance(i, Defined)
            else i
            for i in cascade.items
        ]
        return replace(cascade, items=items)

    original = fuse.inline
    patch.setattr(fuse, "inline", wrong)


@planted(34)
def convolution_misses_the_last_row(patch: Patch) -> None:
    def wrong(position: Expr, size: Any, below: bool, above: bool) -> list[Expr]:
        found = original(position, size, below, False)
        return [*found, compare("lt", position, integer(size - 1))] if above else found

    original = products.inside
    patch.setattr(products, "inside", wrong)


@planted(ATTENTION)
def online_softmax_does_not_rescale(patch: Patch) -> None:
    def never(e: Expr) -> Expr:
        return Const(1.0, e.dtype) if isinstance(e, Call) and e.function == "exp" else e

    def wrong(*args: Any) -> Any:
        kernel = original(*args)
        if kernel is None:
            return None
        statements = []
        for s in kernel.statements:
            if isinstance(s.value, Reduce) and s.value.rescale is not None:
                s = replace(s, value=replace(s.value, rescale=transform(s.value.rescale, never)))
            statements.append(s)
        return kernel.with_statements(tuple(statements))

    original = online._rescale
    patch.setattr(online, "_rescale", wrong)


@planted(5)
def maximum_begins_at_zero(patch: Patch) -> None:
    maximum = scalars.REDUCTIONS["max"]
    patch.setitem(scalars.REDUCTIONS, "max", replace(maximum, identity=lambda d: 0.0 if d.is_float else 0))


@planted(21)
def layout_changes_what_is_written_only(patch: Patch) -> None:
    def wrong(program: Program, changed: Mapping[str, Any]) -> Program:
        kernels = {
            name: replace(k, params=tuple(replace(p, type=p.type.plain()) for p in k.params))
            for name, k in original(program, changed).kernels.items()
        }
        return replace(original(program, changed), kernels=kernels)

    original = layout._retype
    patch.setattr(layout, "_retype", wrong)


@planted(4)
def packing_shifts_the_columns(patch: Patch) -> None:
    def shifted(e: Expr) -> Expr:
        if isinstance(e, Load) and len(e.index) > 1:
            return replace(e, index=(*e.index[1:], e.index[0])) if e.buffer == "source" else e
        return e

    def wrong(kernel: Kernel, wanted: Pack) -> tuple[Kernel, Kernel]:
        reading, packing = original(kernel, wanted)
        statements = tuple(replace(s, value=transform(s.value, shifted)) for s in packing.statements)
        return reading, packing.with_statements(statements)

    original = tile.pack
    patch.setattr(tile, "pack", wrong)


@planted(12)
def memory_forgets_later_readers(patch: Patch) -> None:
    def wrong(program: Program) -> dict[str, tuple[int, int]]:
        return {name: (first, first) for name, (first, _) in original(program).items()}

    original = memory.live_ranges
    patch.setattr(memory, "live_ranges", wrong)


def changed_tiles(body: tuple[Stmt, ...], change: Callable[[Tile], Tile]) -> tuple[Stmt, ...]:
    found: list[Stmt] = []
    for s in body:
        match s:
            case Tile():
                found.append(change(s))
            case For():
                found.append(replace(s, body=changed_tiles(s.body, change)))
            case If():
                body, orelse = changed_tiles(s.body, change), changed_tiles(s.orelse, change)
                found.append(replace(s, body=body, orelse=orelse))
            case _:
                found.append(s)
    return tuple(found)


def lowering_changes(patch: Patch, change: Callable[[Tile], Tile]) -> None:
    def wrong(*args: Any) -> LoopNest:
        nest = original(*args)
        return replace(nest, body=changed_tiles(nest.body, change))

    original = steps.lower
    patch.setattr(steps, "lower", wrong)


@planted(4)
def lowering_leaves_out_the_end_of_a_tail(patch: Patch) -> None:
    def change(tile: Tile) -> Tile:
        axes = tuple(
            replace(a, extent=a.extent - 1) if a.kind == "lanes" and a.extent % 4 == 3 else a for a in tile.axes
        )
        return replace(tile, axes=axes)

    lowering_changes(patch, change)


@planted(3)
def lowering_sets_where_it_should_add(patch: Patch) -> None:
    lowering_changes(patch, lambda tile: replace(tile, combine="set") if tile.combine == "add" else tile)


@planted(3)
def code_does_not_wait_for_other_threads(patch: Patch) -> None:
    patch.setattr(barriers.Pending, "meets", lambda self, step: False)


@planted(0)
def code_stores_lanes_beyond_the_tail(patch: Patch) -> None:
    def wrong(writer: Any, storage: Any, index: Any, value: Any, count: Any, *rest: Any, **named: Any) -> None:
        original(writer, storage, index, value, None, *rest, **named)

    original = tiles.store_memory
    patch.setattr(tiles, "store_memory", wrong)


@planted(4)
def code_addresses_the_next_element(patch: Patch) -> None:
    def wrong(tile: Tile, outputs: Sequence[str]) -> Tile:
        if tile.buffer not in outputs:
            return tile
        index = tuple(add(i, Const(-1, i.dtype)) if isinstance(i, Axis) and n else i for n, i in enumerate(tile.index))
        return replace(tile, index=index)

    def emitted(program: Program, nests: Mapping[str, LoopNest], *rest: Any, **named: Any) -> str:
        broken = {}
        for name, nest in nests.items():
            change = functools.partial(wrong, outputs=[o.name for o in nest.outputs])
            broken[name] = replace(nest, body=changed_tiles(nest.body, change))
        return original(program, broken, *rest, **{**named, "functions": None})

    original = steps.emit_program
    patch.setattr(steps, "emit_program", emitted)


@planted(0)
def rules_lose_a_sign(patch: Patch) -> None:
    wrong = parse("# -\nrule subtract_negated [exact]:\n    sub(%x, neg(%y))  =>  sub(%x, %y)\n")
    patch.setattr(rules, "load_all", lambda: wrong)


@planted(168)
def recurrences_are_rolled_whatever_their_order(patch: Patch) -> None:
    patch.setattr(reroll._Position, "follows", lambda self, other: self.source is other.source)


@planted(128)
def hoisting_prepares_what_updates_change(patch: Patch) -> None:
    def wrong(graph: Graph) -> Any:
        split = original(replace(graph, updates=()))
        return replace(split, main=replace(split.main, updates=graph.updates))

    original = steps.hoist
    patch.setattr(steps, "hoist", wrong)


@planted(2)
def hoisting_prepares_what_inputs_give(patch: Patch) -> None:
    def wrong(graph: Graph) -> Any:
        known = {p.name for p in graph.params if all(isinstance(d, int) for d in p.type.shape)}
        updated = {p.name for p, _ in graph.updates}
        return original(replace(graph, weights=graph.weights | known - updated))

    original = steps.hoist
    patch.setattr(steps, "hoist", wrong)


@planted(4)
def outputs_are_stored_row_major_whatever_was_asked(patch: Patch) -> None:
    def wrong(graph: Graph, cascade: Any) -> Any:
        found = original(graph, cascade)
        return {**found, **{o.name: o.type.plain() for o in graph.outputs if o not in graph.params}}

    original = programs._stored_types
    patch.setattr(programs, "_stored_types", wrong)


@planted(1)
def code_loads_lanes_beyond_the_tail(patch: Patch) -> None:
    def wrong(writer: Any, storage: Any, index: Any, count: Any, *rest: Any) -> Any:
        return original(writer, storage, index, None, *rest)

    original = expressions.load_memory
    patch.setattr(expressions, "load_memory", wrong)


@planted(128)
def updates_read_what_others_have_written(patch: Patch) -> None:
    patch.setattr(programs._ProgramBuilder, "save", lambda self, value: value.name)


@planted(57)
def stored_weights_take_the_scale_of_the_first_channel(patch: Patch) -> None:
    def wrong(self: Any, levels: Any, load: Any, place: Any, channel: Any, dtype: Any) -> Expr:
        return original(self, levels, load, place, integer(0), dtype)

    original = Coded.element
    patch.setattr(Coded, "element", wrong)


@planted(57)
def codes_that_share_a_byte_swap_places(patch: Patch) -> None:
    def wrong(self: Packed, load: Any, place: Any, shape: Any) -> Expr:
        def swapped(plane: int, index: Any) -> Expr:
            byte = cast(load(plane, index), i32)
            high = Call("shl", (Call("and", (byte, Const(15, i32)), i32), Const(4, i32)), i32)
            return Call("or", (high, Call("shr", (byte, Const(4, i32)), i32)), i32) if self.bits < 8 else byte

        return original(self, swapped if self.bits < 8 else load, place, shape)

    original = Packed.element
    patch.setattr(Packed, "element", wrong)


@planted(257)
def sums_of_encodings_lose_their_last_term(patch: Patch) -> None:
    def shorter(made: Storage) -> Storage:
        values = made.values
        assert isinstance(values, Terms)
        most = max(len(values.parts) - 1, 1)
        return replace(made, values=replace(values, parts=values.parts[:most], names=values.names[:most]))

    spread, whole = sums._spread, sums._decoded
    patch.setattr(sums, "_spread", lambda b, x, decode, made: spread(b, x, decode, shorter(made)))
    patch.setattr(sums, "_decoded", lambda b, node, made: whole(b, node, shorter(made)))


@planted(180)
def rows_of_stored_elements_begin_one_late(patch: Patch) -> None:
    patch.setattr(compressed, "Span", lambda axis, start, stop: Span(axis, add(start, integer(1)), stop))


@planted(330)
def zero_points_are_not_corrected(patch: Patch) -> None:
    def wrong(*args: Any) -> Any:
        return original(*args)[0], 0

    original = integers._centred
    patch.setattr(integers, "_centred", wrong)


@planted(54)
def packing_reverses_neighbours(patch: Patch) -> None:
    def wrong(kernel: Kernel, wanted: Pack) -> tuple[Kernel, Kernel]:
        reading, packing = original(kernel, wanted)
        if wanted.group == 1:
            return reading, packing
        place = Axis(f"{wanted.order[-1]}_place")
        last = add(integer(wanted.group - 1), multiply(integer(-1), place))
        statements = tuple(
            replace(s, value=transform(s.value, lambda e: last if e == place else e)) for s in packing.statements
        )
        return reading, packing.with_statements(statements)

    original = tile.pack
    patch.setattr(tile, "pack", wrong)


@planted(0)
def tails_of_run_time_size_are_left_out(patch: Patch) -> None:
    patch.setattr(lower_ranges, "modulo", lambda a, b: integer(0))


@planted(34)
def borders_begin_a_point_early(patch: Patch) -> None:
    def wrong(*args: Any) -> Mapping[str, Interior]:
        return {a: replace(i, low=max(i.low - 1, 0)) for a, i in original(*args).items()}

    original = lower.interiors
    patch.setattr(lower, "interiors", wrong)


@planted(3)
def vectors_leave_out_the_last_iteration_of_threads(patch: Patch) -> None:
    def wrong(self: Any, loop: For) -> Any:
        count = original(self, loop)
        known = isinstance(count, Affine) and not count.terms and isinstance(count.constant, int)
        return replace(count, constant=count.constant - 1) if known and count.constant > 1 else count

    original = vectorize._Vectorizer._trips
    patch.setattr(vectorize._Vectorizer, "_trips", wrong)


@planted(1)
def printed_vectors_take_the_other_branch(patch: Patch) -> None:
    original = expression_text.Texts._select
    patch.setattr(expression_text.Texts, "_select", lambda self, e: original(self, replace(e, a=e.b, b=e.a)))


@planted(0)
def claimed_pieces_lose_their_last_iteration(patch: Patch) -> None:
    def wrong(*args: Any) -> Any:
        for line in original(*args):
            yield line.replace("< piece.end;", "< piece.end - 1;")

    original = printer._Lines.text
    patch.setattr(printer._Lines, "text", wrong)


@planted(2039)
def pieces_of_rows_are_left_out(patch: Patch) -> None:
    def wrong(self: Any, e: Expr) -> Expr:
        return add(floor_div(e, integer(self.length)), integer(1))

    patch.setattr(balance._Cut, "_up", wrong)


@planted(20)
def groups_begin_a_row_late(patch: Patch) -> None:
    def wrong(*args: Any) -> Any:
        span = original(*args)
        return replace(span, start=add(span.start, integer(1)))

    original = segments._span
    patch.setattr(segments, "_span", wrong)


@planted(241)
def tasks_of_scatters_leave_rows_to_none(patch: Patch) -> None:
    original = axes._picked
    patch.setattr(axes, "_picked", lambda index, axis, tasks: original(index, axis, tasks + 1))


@planted(70)
def triton_takes_the_minimum(patch: Patch) -> None:
    def wrong(*args: Any) -> str:
        return original(*args).replace("tl.maximum(", "tl.minimum(")

    original = steps.triton.emit_program
    patch.setattr(steps.triton, "emit_program", wrong)


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug: str, monkeypatch: Patch) -> None:
    PLANTED[bug].plant(monkeypatch)
    graph = PLANTED[bug].graph
    failures = in_graph(graph) if isinstance(graph, str) else campaign(bug, graph, most=1).failures
    if not failures:
        report = campaign(bug, seed=0, most=MOST)
        assert report.failures, f"not found in {report.graphs} graphs"
        failures = report.failures
        warnings.warn(f"{bug!r} is shown by {failures[0].case.graph.name}, no longer by {graph}", stacklevel=1)
    found = failures[0]
    assert found.step != "eager"
    assert " at " not in found.message.split(":")[0], f"the plant itself fails: {found.message}"


def in_graph(text: str) -> Sequence[Failure]:
    """What is wrong with one graph, if anything."""
    target = Target.detect()
    examined = examine(case_of(parse_graph(text)), target)
    program = native(examined)
    if examined.failure is not None or program is None:
        return [examined.failure] if examined.failure is not None else []
    with Runner() as runner:
        failure = judge(examined, runner.run([program], target)[0])
    return [failure] if failure is not None else []


def test_what_shows_a_bug_is_right_without_it() -> None:
    assert not in_graph(ATTENTION)


def campaign(bug: str, seed: int, most: int) -> Report:
    pace = replace(PACE, rules=10) if bug.startswith("rules") else PACE
    return run(
        10, seed, target=Target.detect(), most=most, others=bug.startswith("triton"), progress=False, reduce_seconds=0,
        stop_after=1, pace=pace,
    )  # fmt: skip


@pytest.mark.slow
def test_without_a_bug_nothing_is_found() -> None:
    report = run(
        10, seed=0, target=Target.detect(), most=24, others=False, progress=False, reduce_seconds=0,
        pace=Pace(modules=False, programs=False, packages=False),
    )  # fmt: skip
    assert not report.failures, str(report)
