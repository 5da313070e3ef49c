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
from effcc.codegen.cpp.joined_loops import join_loops
from effcc.codegen.cpp.joins import join_calls
from effcc.codegen.cpp.lifted import lift_numbers, lift_sizes
from effcc.codegen.cpp.outline import outline
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
from effcc.ir.program import Buffer, Join, Launch, Native, Program
from effcc.ir.sharing import is_all_shared
from effcc.ir.vectors import Function
from effcc.target import Target

MOST_CALLS = 128
"""Calls in one function, at most: the compiler's time grows with the square of a function's length."""

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
        """Those of its steps that launch a kernel."""
        return tuple(s for s in self.steps if isinstance(s, Launch))


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
                made = bring_together(outline(join_loops(vectorize(nest, target, RUN, alone))))
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
        if any(isinstance(s, Join) for entry in self.entries for s in entry.steps):
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
        used = list(dict.fromkeys(b for s in entry.steps for b in s.touched))
        names = Names(RESERVED | set(self.sizes) | {name for name, _ in self.functions.values()})
        pointers = {b: names.fresh(b) for b in used}
        self.named = _NamedSizes(names)
        calls = self._calls(entry, pointers)
        lines: list[str] = []
        body: list[str] = []
        if len(calls) <= MOST_CALLS:
            body = self._body(calls, pointers)
        else:
            for k, start in enumerate(range(0, len(calls), MOST_CALLS)):
                part = f"{entry.name}_part{k}"
                head = f"static __attribute__((noinline)) void {part}(Call& call, worker& me) {{"
                lines += [head, *self._body(calls[start : start + MOST_CALLS], pointers), "}", ""]
                body.append(f"  {part}(call, me);")
        lines += [
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
        call = ["struct Call {", "  void** buffers;", "  const i64* sizes;", "  char* arena;", "  crew all;"]
        call += [*(["  fault_record record;"] if self.checks.checks else []), "};", ""]
        return [*(call if entry is self.entries[0] else []), *lines]

    def _calls(self, entry: EntryPoint, pointers: Mapping[str, str]) -> list[_CallText]:
        """What an entry point calls, in order, with barriers between steps that must not meet."""
        found: list[_CallText] = self._tick("begin")
        pending = Pending(self.program, self._offset, self.no_alias)
        shared = True  # whether all since threads last waited for each other is some thread's share
        for step in entry.steps:
            if pending.meets(step):
                found.append(((), (), "me.meet_begun();" if shared else "me.meet();"))
                found += self._tick("wait")
                pending.clear()
                shared = True
            pending.add(step)
            shared = shared and isinstance(step, Launch) and is_all_shared(self.functions[step.kernel][1])
            if isinstance(step, Launch):
                given = tuple(size for _, size in self.functions[step.kernel][1].sizes if not isinstance(size, str))
                found.append((step.touched, given, self._launch(step, pointers)))
            else:
                found += [(touched, (), text) for touched, text in join_calls(step, self.program, pointers)]
            found += self._tick(step.kernel if isinstance(step, Launch) else "copy")
        return found

    def _tick(self, what: str) -> list[_CallText]:
        """A reading of the clock, at the end of something, where they are wanted."""
        if not self.ticks:
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
