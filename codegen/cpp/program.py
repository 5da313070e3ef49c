"""A program as C++: a unit for every distinct loop nest, and one of entry points that launch them in order.

Every entry point opens one parallel region. Threads run the kernels of a segment one after the other and wait for each
other only where a later kernel touches what an earlier one wrote, or overwrites what it read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from effcc.codegen.cpp.barriers import Pending
from effcc.codegen.cpp.calls_together import bring_together
from effcc.codegen.cpp.checks import CheckTable
from effcc.codegen.cpp.clamped_ahead import clamp_ahead
from effcc.codegen.cpp.joined_loops import join_loops
from effcc.codegen.cpp.joins import join_calls
from effcc.codegen.cpp.lifted import lift_numbers, lift_sizes
from effcc.codegen.cpp.nearest import convert_nearest
from effcc.codegen.cpp.outline import outline
from effcc.codegen.cpp.rounded_once import round_once
from effcc.codegen.cpp.sizes import size_headers, size_text
from effcc.codegen.cpp.spelling import element_name
from effcc.codegen.cpp.units import RUN, Source, Unit, declared, include, kernel_unit
from effcc.codegen.cpp.vectorize import vectorize
from effcc.codegen.cpp.words import RESERVED
from effcc.codegen.names import Names
from effcc.errors import ScheduleError, noting
from effcc.ir.dims import Dim, symbols
from effcc.ir.loops import LoopNest
from effcc.ir.printer import print_kernel
from effcc.ir.program import Branch, Buffer, Extern, Join, Launch, Loop, Native, Program, Step, nested, within
from effcc.ir.sharing import is_all_shared
from effcc.ir.vectors import Function
from effcc.target import Target

MOST_CALLS = 128
"""Calls in one function, at most: the compiler's time grows with the square of a function's length."""

_GO_ON = """// Whether a loop's condition holds and no check has failed, as one thread sees it.
static bool go_on(Call& call, worker& me, bool holds) {
  if (me.thread == 0) call.goes_on = holds && call.record.first(nullptr) < 0;
  me.meet();
  return call.goes_on;
}
"""

_CallText = tuple[tuple[str, ...], tuple[Dim, ...], str]
"""The buffers that a call touches, the sizes that it takes, and its text."""


@dataclass(frozen=True)
class EntryPoint:
    """One exported function and the steps it runs. `stage` is `prepare` or `run`; `segment` is its number."""

    name: str
    stage: str
    segment: int
    steps: tuple[Native, ...]

    @property
    def launches(self) -> tuple[Launch, ...]:
        """What it launches, in control flow, too."""
        return tuple(s for s in within(self.steps) if isinstance(s, Launch))


def pointer_table(program: Program) -> tuple[str, ...]:
    """The buffers that an entry point takes pointers to, in order: inputs, prepared buffers, outputs.

    Arena buffers, and buffers that are an alias of another, are not among them.
    """
    known = program.by_name
    prepared = [b.name for b in program.buffers if b.space == "prepared"]
    rest = [b.name for b in program.buffers if b.space != "arena"]
    order = dict.fromkeys([*program.inputs, *prepared, *program.outputs, *rest])
    return tuple(n for n in order if known[n].space != "arena" and not known[n].alias)


def size_table(program: Program) -> tuple[str, ...]:
    """The size symbols that an entry point takes, in order."""
    return tuple(s.name for s in symbols(d for b in program.buffers for d in (*b.type.shape, *b.type.layout)))


def entry_points(program: Program) -> tuple[EntryPoint, ...]:
    """The exported functions of a program's source.

    `effcc_run` runs all kernels of a program without extern calls; else `effcc_run_<k>` runs segment k of
    `program.segments()`. Likewise `effcc_prepare` for the steps that depend on weights alone.
    """
    found = []
    for stage, steps in (("prepare", program.prepare), ("run", program.steps)):
        segments = program.with_steps(steps).segments()
        for k, segment in enumerate(segments):
            native = tuple(s for s in segment if isinstance(s, Native))
            if native:
                name = f"effcc_{stage}" if len(segments) == 1 else f"effcc_{stage}_{k}"
                found.append(EntryPoint(name, stage, k, native))
    return tuple(found)


def vectorize_program(
    program: Program,
    nests: Mapping[str, LoopNest],
    target: Target,
    no_alias: frozenset[str] = frozenset(),
    done: Callable[[str, Function], None] | None = None,
    prepare_once: bool = False,
) -> dict[str, Function]:
    """The function of vectors for every kernel that is launched, by its name; kernels with equal nests share one.

    `nests` has the loop nest of every kernel by its name in `program.kernels`; `no_alias` names buffers whose memory no
    other buffer of the program shares; `done` is called with each distinct function when it is made, and the first
    kernel that it computes; `prepare_once`:
    whether what depends on weights alone is seldom computed, so that its kernels may share their code. Raises
    ScheduleError for a launch without a nest.
    """
    often = {s.kernel for e in entry_points(program) if e.stage == "run" or not prepare_once for s in e.launches}
    launches = [s for entry in entry_points(program) for s in entry.launches]
    found: dict[str, Function] = {}
    same: dict[object, Function] = {}
    for name in dict.fromkeys(launch.kernel for launch in launches):
        if name not in nests:
            raise ScheduleError(f"program {program.name!r} launches kernel {name!r}, which has no nest")
        nest = nests[name]
        alone = _alone(nest, [s for s in launches if s.kernel == name], no_alias)
        key = (replace(nest, name="", notes=()), alone, name in often)
        if key not in same:
            kernel = program.kernels.get(name)
            with noting(location=kernel.location if kernel is not None else "", kernel=kernel):
                joined = join_loops(convert_nearest(round_once(vectorize(nest, target, RUN, alone))))
                made = bring_together(outline(clamp_ahead(joined, target.vector_bytes)))
                same[key] = lift_sizes(made) if name in often else lift_numbers(made)
            if done is not None:
                done(name, same[key])
        found[name] = same[key]
    return found


def _alone(nest: LoopNest, launches: Sequence[Launch], no_alias: frozenset[str]) -> frozenset[str]:
    """The parameters of a nest whose memory nothing else shares, at every launch."""
    params = [p.name for p in nest.signature]
    found = set(params)
    for launch in launches:
        given = [*launch.arguments, *launch.results]
        found &= {p for p, b in zip(params, given, strict=True) if b in no_alias and given.count(b) == 1}
    return frozenset(found)


@dataclass
class _Running:
    """What may still run when a step begins: the steps since threads last waited for each other, and whether all of
    them are some thread's share."""

    pending: Pending
    shared: bool = True

    def add(self, step: Native, shared: bool) -> None:
        self.pending.add(step)
        self.shared = self.shared and shared

    def meet(self) -> str:
        """The call that has threads wait for each other."""
        call = "me.meet_begun();" if self.shared else "me.meet();"
        self.pending.clear()
        self.shared = True
        return call

    def decide(self, condition: str) -> None:
        """Have all threads read a condition, which no step may change before they have: not even before one that comes
        late."""
        self.pending.read(condition)
        self.shared = False

    def add_all(self, other: _Running) -> None:
        self.pending.add_all(other.pending)
        self.shared = self.shared and other.shared

    def copy(self) -> _Running:
        return _Running(self.pending.copy(), self.shared)


@dataclass
class _Blocks:
    """The functions that an entry point calls, in order: `static void label(Call& call, worker& me)`."""

    entry: str
    functions: list[str]
    labels: int = 0

    def label(self, kind: str) -> str:
        self.labels += 1
        return f"{self.entry}_{kind}{self.labels}"

    def add(self, label: str, lines: Sequence[str]) -> None:
        self.functions += [f"static __attribute__((noinline)) void {label}(Call& call, worker& me) {{", *lines, "}", ""]


class _NamedSizes:
    """Sizes that an entry point computes once, by name; numbers, and symbols, are their own."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[Dim, str] = {}

    def text(self, size: Dim) -> str:
        """A size as an argument."""
        if isinstance(size, int) or size.is_Symbol:
            return str(size)
        if size not in self._known:
            self._known[size] = self._names.fresh("size")
        return self._known[size]

    def lines(self, sizes: Iterable[Dim]) -> Iterator[str]:
        """What defines them."""
        for size in dict.fromkeys(sizes):
            if size in self._known:
                yield f"const i64 {self._known[size]} = {size_text(size)};"


def emit_program(
    program: Program,
    nests: Mapping[str, LoopNest],
    target: Target,
    *,
    offsets: Mapping[str, Dim] | None = None,
    no_alias: frozenset[str] = frozenset(),
    functions: Mapping[str, Function] | None = None,
    units: Mapping[str, Unit] | None = None,
    ticks: bool = False,
) -> Source:
    """The C++ of a program. `nests` has the loop nest of every kernel by its name in `program.kernels`.

    `offsets` places arena buffers, in bytes (default: each buffer's own `offset`); they may depend on size symbols.
    `no_alias` names buffers whose memory no other buffer of the program shares. `functions` are what
    `vectorize_program` makes of these, and `units` what `kernel_unit` makes of those, where that is known. `ticks` has
    every thread read the clock after every step (`effcc/ticks.h`).

    Raises ScheduleError for a launch without a nest, or an arena buffer without a place.
    """
    if functions is None:
        functions = vectorize_program(program, nests, target, no_alias)
    if units is None:
        units = {name: kernel_unit(function) for name, function in functions.items()}
    return _Emitter(program, nests, target, offsets or {}, no_alias, functions, units, ticks).run()


@dataclass
class _Emitter:
    program: Program
    nests: Mapping[str, LoopNest]
    target: Target
    offsets: Mapping[str, Dim]
    no_alias: frozenset[str]
    vectors: Mapping[str, Function]
    texts: Mapping[str, Unit]
    ticks: bool

    def __post_init__(self) -> None:
        self.names = Names(RESERVED)
        self.named = _NamedSizes(self.names)  # of the entry point that is being written
        self.sizes = size_table(self.program)
        self.slots = {name: slot for slot, name in enumerate(pointer_table(self.program))}
        self.functions: dict[str, tuple[str, Function]] = {}  # of each kernel: what it is called by, and its function
        self.entries = entry_points(self.program)
        self.marks: list[str] = []  # what each reading of the clock ends
        self.checks = CheckTable([s for entry in self.entries for s in entry.launches], self.nests)

    def run(self) -> Source:
        units = self._units()
        regions = [text for entry in self.entries for text in self._entry(entry)]
        headers = set(size_headers(self._sizes()))
        if any(isinstance(s, Join) for entry in self.entries for s in within(entry.steps)):
            headers.add("copy.h")
        names = [f"namespace {self.functions[k][0]} = {u.namespace};" for u in units for k in u.kernels]
        declared_units = [*map(declared, units), *names, *([""] if units else [])]
        parts = [*self._head(headers), *declared_units, *self.checks.text(), *regions, "}  // namespace effcc"]
        return Source("\n".join(parts) + "\n", units, tuple(self.marks))

    def _sizes(self) -> Iterator[Dim]:
        """The sizes that entry points compute with."""
        for buffer in self.program.buffers:
            yield from (*buffer.type.shape, *buffer.type.layout)
            offset = self.offsets.get(buffer.name, buffer.offset)
            yield from () if offset is None else (offset,)
        for _, function in self.functions.values():
            yield from (size for _, size in function.sizes if not isinstance(size, str))

    def _head(self, headers: Collection[str]) -> list[str]:
        known = self.program.by_name
        lines = [
            f"// Program {self.program.name} for {self.target.name}, generated by effcc.",
            "//",
            "// int effcc_run(void** buffers, const int64_t* sizes, void* arena, int threads, int64_t* fault)",
            "//",
        ]
        lines += [f"//   buffers[{i}] = {n}: {known[n].type} ({known[n].space})" for n, i in self.slots.items()]
        lines += [f"//   sizes[{i}] = {n}" for i, n in enumerate(self.sizes)]
        order = [
            "arith.h",
            *(["faults.h"] if self.checks.checks else []),
            *(h for h in ("pow.h", "sizes.h", "copy.h") if h in headers),
            "worker.h",
            "threads.h",
            *(["ticks.h"] if self.ticks else []),
        ]
        return [*lines, "", *map(include, order), "", "namespace effcc {", ""]

    # Kernels

    def _units(self) -> tuple[Unit, ...]:
        """A unit for each distinct function that is launched."""
        units: dict[str, Unit] = {}
        called: dict[int, str] = {}  # what each function is called by
        for name, function in self.vectors.items():
            if id(function) in called:
                self.functions[name] = called[id(function)], function
                continue
            called[id(function)] = self.names.fresh(name)
            self.functions[name] = called[id(function)], function
            unit = replace(self.texts[name], comment=self._comment(name, self.nests[name]), kernels=(name,))
            known = units.setdefault(unit.text, unit)
            if known is not unit:
                units[unit.text] = replace(known, kernels=(*known.kernels, name))
        return tuple(units.values())

    def _comment(self, kernel: str, nest: LoopNest) -> tuple[str, ...]:
        lines: list[str] = []
        if kernel in self.program.kernels:
            lines += print_kernel(self.program.kernels[kernel]).splitlines()
        return (*lines, *(f"schedule: {note}" for note in nest.notes))

    # Entry points

    def _entry(self, entry: EntryPoint) -> list[str]:
        self.blocks = _Blocks(entry.name, [])
        begun = _Running(Pending(self.program, self._offset, self.no_alias))
        body = self._block(entry.steps, begun, entry.name, self.ticks)
        lines = [
            *self.blocks.functions,
            f"static void {entry.name}_region(int thread, int team, void* context) {{",
            "  Call& call = *static_cast<Call*>(context);",
            "  worker me(call.all, thread, team);",
            *body,
            "}",
            "",
        ]
        lines += [
            f'extern "C" int {entry.name}(void** buffers, const i64* sizes, void* arena, int threads, i64* fault) {{',
            "  Call call{buffers, sizes, static_cast<char*>(arena), {}};",
            f"  parallel(threads, {entry.name}_region, &call);",
        ]
        if self.checks.checks:
            lines += [
                "  const i64 first = call.record.first(fault);",
                "  return first < 0 ? 0 : check_places[first].code();",
            ]
        else:
            lines.append("  return 0;")
        lines += ["}", ""]
        loops = any(isinstance(s, Loop) for e in self.entries for s in nested(e.steps))
        call = ["struct Call {", "  void** buffers;", "  const i64* sizes;", "  char* arena;", "  crew all;"]
        if self.checks.checks:
            call += ["  fault_record record;", *(["  bool goes_on = false;"] if loops else [])]
        call += ["};", "", *(_GO_ON.splitlines() if self.checks.checks and loops else [])]
        return [*(call if entry is self.entries[0] else []), *lines]

    def _block(self, steps: Sequence[Step], running: _Running, label: str, ticks: bool = False) -> list[str]:
        """The lines that run steps; a long list is cut into functions. running: what runs already, and afterwards what
        still may. ticks: whether each step ends with a reading of the clock."""
        used = list(dict.fromkeys(b for s in steps for b in s.touched))
        names = Names(RESERVED | set(self.sizes) | {name for name, _ in self.functions.values()})
        pointers = {b: names.fresh(b) for b in used}
        around, self.named = self.named, _NamedSizes(names)
        calls = self._calls(steps, running, pointers, ticks)
        if len(calls) <= MOST_CALLS:
            lines = self._body(calls, pointers)
        else:
            lines = []
            for k, start in enumerate(range(0, len(calls), MOST_CALLS)):
                part = f"{label}_part{k}"
                self.blocks.add(part, self._body(calls[start : start + MOST_CALLS], pointers))
                lines.append(f"  {part}(call, me);")
        self.named = around
        return lines

    def _calls(
        self, steps: Sequence[Step], running: _Running, pointers: Mapping[str, str], ticks: bool
    ) -> list[_CallText]:
        """What steps call, in order, with barriers between those that must not meet."""
        found: list[_CallText] = self._tick("begin", ticks)
        for step in steps:
            if isinstance(step, Branch):
                found += [*self._branch(step, running, pointers), *self._tick("branch", ticks)]
                continue
            if isinstance(step, Loop):
                found += [*self._loop(step, running, pointers), *self._tick("loop", ticks)]
                continue
            assert not isinstance(step, Extern)
            if running.pending.meets(step):
                found += [((), (), running.meet()), *self._tick("wait", ticks)]
            running.add(step, isinstance(step, Launch) and is_all_shared(self.functions[step.kernel][1]))
            if isinstance(step, Launch):
                given = tuple(size for _, size in self.functions[step.kernel][1].sizes if not isinstance(size, str))
                found.append((step.touched, given, self._launch(step, pointers)))
            else:
                found += [(touched, (), text) for touched, text in join_calls(step, self.program, pointers)]
            found += self._tick(step.kernel if isinstance(step, Launch) else "copy", ticks)
        return found

    def _branch(self, step: Branch, running: _Running, pointers: Mapping[str, str]) -> list[_CallText]:
        """All threads take the way that the condition says."""
        wait: list[_CallText] = [((), (), running.meet())] if running.pending.writes(step.condition) else []
        running.decide(step.condition)
        other = running.copy()
        then, orelse = self._called("then", step.then, running), self._called("else", step.orelse, other)
        running.add_all(other)
        return [*wait, ((step.condition,), (), f"if (*{pointers[step.condition]}) {then} else {orelse}")]

    def _loop(self, step: Loop, running: _Running, pointers: Mapping[str, str]) -> list[_CallText]:
        """All threads wait for the condition in each turn, and go on or leave together."""
        end = _Running(Pending(self.program, self._offset, self.no_alias))
        end.decide(step.condition)
        body = self._called("body", step.body, end)
        running.add_all(end)
        test = self._called("test", step.test, running)
        running.meet()
        running.decide(step.condition)
        holds = f"*{pointers[step.condition]}"
        if self.checks.checks:  # what failed may have made a condition that always holds
            holds = f"go_on(call, me, {holds})"
        return [((step.condition,), (), f"for (;;) {{ {test} me.meet(); if (!{holds}) break; {body} }}")]

    def _called(self, kind: str, block: Sequence[Step], running: _Running) -> str:
        """The call of a function that runs a block."""
        label = self.blocks.label(kind)
        lines = self._block(block, running, label)
        if not block:
            return "{}"
        self.blocks.add(label, lines)
        return f"{label}(call, me);"

    def _tick(self, what: str, wanted: bool) -> list[_CallText]:
        """A reading of the clock, at the end of something, where it is wanted."""
        if not wanted:
            return []
        self.marks.append(what)
        return [((), (), f"tick(me.thread, {len(self.marks) - 1});")]

    def _body(self, calls: Sequence[_CallText], pointers: Mapping[str, str]) -> list[str]:
        """The sizes and the pointers that some calls need, and the calls."""
        lines = [f"  const i64 {s} = call.sizes[{i}];" for i, s in enumerate(self.sizes)]
        used = dict.fromkeys(name for touched, _, _ in calls for name in touched)
        places = [f"  {self._pointer(self.program.buffer(b), pointers[b])}" for b in used]
        roots = [self._root(self.program.buffer(b)) for b in used]
        offsets = [self._offset(root) for root in roots if root.space == "arena"]
        computed = [*offsets, *(size for _, sizes, _ in calls for size in sizes)]
        lines += [f"  {line}" for line in self.named.lines(computed)]
        lines += places
        return [*lines, *(f"  {text}" for _, _, text in calls)]

    def _pointer(self, buffer: Buffer, name: str) -> str:
        type = element_name(buffer.type.dtype)
        root = self._root(buffer)
        if root.space == "arena":
            place = f"call.arena + {self.named.text(self._offset(root))}"
            return f"{type}* const {name} = reinterpret_cast<{type}*>({place});"
        return f"{type}* const {name} = static_cast<{type}*>(call.buffers[{self.slots[root.name]}]);"

    def _root(self, buffer: Buffer) -> Buffer:
        return self.program.buffer(self.program.memory_of(buffer.name))

    def _offset(self, buffer: Buffer) -> Dim:
        offset = self.offsets.get(buffer.name, buffer.offset)
        if offset is None:
            raise ScheduleError(f"arena buffer {buffer.name!r} has no offset: plan memory before emitting code")
        return offset

    def _launch(self, launch: Launch, pointers: Mapping[str, str]) -> str:
        name, function = self.functions[launch.kernel]
        nest = self.nests[launch.kernel]
        given = dict(
            zip([p.name for p in (*nest.params, *nest.outputs)], [*launch.arguments, *launch.results], strict=True)
        )
        arguments = [pointers[given[p.stands_for]] for p in function.buffers]
        arguments += [size if isinstance(size, str) else self.named.text(size) for _, size in function.sizes]
        arguments.append("me")
        if function.checks:
            arguments.append("{call.record, positions}")
            positions = f"static const i64 positions[] = {{{self.checks.positions(launch)}}};"
            return f"{{ {positions} {name}::{RUN}({', '.join(arguments)}); }}"
        return f"{name}::{RUN}({', '.join(arguments)});"


__all__ = ["EntryPoint", "emit_program", "entry_points", "pointer_table", "size_table", "vectorize_program"]
