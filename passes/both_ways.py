"""A matrix summed both ways is computed once, tile by tile, and never stored: attention's gradients in one pass.

    kernel a:  E[m,n] = exp(sum(k: Q[m,k] * K[n,k]) - L[m]);  V'[n,f] = sum(m: E[m,n] * O'[m,f])
    kernel b:  D[m,n] = E[m,n] * (sum(f: O'[m,f] * V[n,f]) - R[m]);  Q'[m,k] = sum(n: D[m,n] * K[n,k])
    kernel c:  K'[n,k] = sum(m: D[m,n] * Q[m,k])

become one kernel that holds E and D in the cache for a tile of rows and columns, and adds that to all three sums:
(FlashAttention-2's backward pass, arXiv:2307.08691; nothing here knows attention). For 12 heads of 2048 tokens, E and D
are 400 MB. Where conditions of positions make tiles zero, as causal masks do, they are passed over.

Tasks are along the axes that all of it shares (batch and heads), so there have to be enough of them; fewer where a
mask leaves out more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from effcc.ir.contraction import contractions
from effcc.ir.dependences import both_ways, shared_axes
from effcc.ir.dims import Dim, elements, same
from effcc.ir.expr import Axis, Load
from effcc.ir.kernel import Kernel, Param, Statement
from effcc.ir.masks import mask_of, mean_seen
from effcc.ir.program import Buffer, Launch, Program, Step, changed, fresh_name
from effcc.ir.types import TensorType
from effcc.passes.fusion.kernels import rename
from effcc.passes.fusion.polyhedra import check_dependences
from effcc.target import Target

LEAST_POINTS = 32 * 32
"""Points of a matrix that is worth it: a smaller one does not leave L1 (96 heads of 32 tokens: 0.9 ms either way)."""
MOST_KERNELS = 8
"""Kernels that are joined, at most."""
IDLE = 1.25
"""By how much the threads' longest share of the tasks may exceed the mean, where no point is left out."""


def sum_both_ways(program: Program, target: Target) -> Program:
    """The program with the kernels joined that share such matrices."""
    between = _between(program)
    for matrix in [n for n, maker in between.items() if _is_of_products(program.kernels[maker.kernel], maker, n)]:
        if matrix in between:  # else it is in a kernel already
            joined = _grown(program, matrix, between)
            if joined is not None and _worth(joined.kernel, target):
                program = _with_one(joined)
                between = _between(program)
    used = {s.kernel for s in (*program.prepare, *program.launches) if isinstance(s, Launch)}
    return replace(program, kernels={n: k for n, k in program.kernels.items() if n in used})


@dataclass(frozen=True)
class _Joined:
    """The kernel that does what `launches` of a program do, without a name, and the statements that compute what they
    wrote."""

    program: Program
    launches: Sequence[Launch]
    kernel: Kernel
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    places: Mapping[str, Statement]


def _grown(program: Program, matrix: str, between: Mapping[str, Launch]) -> _Joined | None:
    """What computes and reads a matrix, together with what reads others of the same points, as one kernel."""
    touched = {matrix}
    while True:
        program = _without_tails(program, touched)
        launches = [s for s in program.steps if isinstance(s, Launch) and touched & set(s.touched)]
        joined = _joined(program, launches) if len(launches) <= MOST_KERNELS else None
        if joined is None:
            return None
        points = set(joined.places[matrix].axes[-2:])
        more = {n for n in joined.results if points <= set(joined.places[n].axes)}
        if not more or not more <= between.keys():
            return None if more else joined
        touched |= more


def _between(program: Program) -> dict[str, Launch]:
    """The buffers that one launch of a call writes and others read, and nothing else touches, in order."""
    touching: dict[str, list[Step]] = {}
    for step in program.steps:
        for name in dict.fromkeys((*step.arguments, *step.results)):
            touching.setdefault(name, []).append(step)
    aliased = {b.alias for b in program.buffers if b.alias}
    kept = {*program.outputs, *aliased, *(n for pair in program.updates for n in pair)}
    found: dict[str, Launch] = {}
    for b in program.buffers:
        if b.space != "arena" or b.alias or b.name in kept or b.type.rank < 2:
            continue
        launches = [s for s in touching.get(b.name, ()) if isinstance(s, Launch)]
        makers = [s for s in launches if b.name in s.results]
        known = all(isinstance(n, int) for n in b.type.shape) and elements(b.type.shape[-2:]) >= LEAST_POINTS
        if known and len(makers) == 1 and 1 < len(launches) == len(touching[b.name]):
            found[b.name] = makers[0]
    return found


def _is_of_products(kernel: Kernel, maker: Launch, buffer: str) -> bool:
    """Whether a buffer has the axes of a product of rows and columns in the kernel that computes it."""
    output = kernel.outputs[maker.results.index(buffer)].name
    own = {frozenset(s.axes) for s in kernel.statements if s.target == output}
    products = [c for c in contractions(kernel).values() if c.is_outer and c.batch]  # there are tasks along the batch
    return any(frozenset((*c.batch, *c.rows, *c.columns)) in own for c in products)


def _worth(kernel: Kernel, target: Target) -> bool:
    """Whether it is such a kernel, with tasks for all threads, and caches have room for each one's sums."""
    crossing = both_ways(kernel)
    if crossing is None:
        return False
    shared = shared_axes(kernel)
    tasks = elements(tuple(kernel.extents[a] for a in shared))
    sums = [s for s in kernel.statements if s.reduction is not None and set(s.reduction.axes) == set(crossing.rows)]
    held = sum(elements(tuple(kernel.extents[a] for a in s.axes if a not in shared)) * s.dtype.bytes for s in sums)
    if held > max(target.l3_bytes // target.cores, target.l2_bytes // 2):
        return False
    mask, columns = mask_of(kernel), elements((kernel.extents[crossing.columns],))
    seen = mean_seen(kernel, mask, crossing.rows[-1]) if mask is not None else None
    longest = -(-tasks // target.cores) * (columns if seen is None else seen)
    return tasks > 1 and longest * target.cores <= IDLE * tasks * columns


# One kernel of several -----------------------------------------------------------------------------------------------


def _joined(program: Program, launches: Sequence[Launch]) -> _Joined | None:
    """Several kernels as one; None where what they share is not read point by point, or something is checked."""
    own = {n for s in launches for n in s.results}
    read = {n for s in program.steps if s not in launches for n in s.arguments} | set(program.outputs)
    read |= {n for pair in program.updates for n in pair}
    places: dict[str, Statement] = {}  # by buffer, what computes it
    params: dict[tuple[str, Param], str] = {}
    outputs: dict[str, Param] = {}
    axes: dict[str, Dim] = {}
    weights: set[str] = set()
    statements: list[Statement] = []
    for launch in launches:
        kernel = program.kernels[launch.kernel]
        if launch.checks or kernel.scans or kernel.spans or any(s.scatter is not None for s in kernel.statements):
            return None
        named = _named(kernel, dict(zip((p.name for p in kernel.params), launch.arguments, strict=True)), places)
        if named is None:
            return None
        for axis, extent in kernel.axes:
            if axis in named and not same(axes[named[axis]], extent):
                return None
            axes.setdefault(named.setdefault(axis, fresh_name(axis, axes)), extent)
        buffers: dict[str, str] = {}
        for p, argument in zip(kernel.params, launch.arguments, strict=True):
            if argument in places:
                buffers[p.name] = places[argument].target
                continue
            weight = p.name in kernel.weights
            key = (argument, replace(p, name=""))
            buffers[p.name] = params.setdefault(key, f"{'w' if weight else 'x'}{len(params)}")
            weights |= {buffers[p.name]} if weight else set()
        taken = {s.target for s in statements} | set(params.values())
        for s in kernel.statements:
            if s.target not in buffers:
                buffers[s.target] = fresh_name(s.target, taken)
                taken.add(buffers[s.target])
        renamed = [rename(s, named, buffers) for s in kernel.statements]
        statements += renamed
        for p, result in zip(kernel.outputs, launch.results, strict=True):
            made = [s for s in renamed if s.target == buffers[p.name]]
            places[result] = made[-1]
            if result in read:
                outputs[result] = replace(p, name=buffers[p.name])
    if any(argument in own for argument, _ in params):
        return None  # read before it is written: it holds what was there before
    location = "; ".join(dict.fromkeys(x for s in launches if (x := program.kernels[s.kernel].location)))
    kernel = Kernel(
        "", tuple(replace(p, name=name) for (_, p), name in params.items()), tuple(outputs.values()),
        tuple(axes.items()), tuple(statements), location=location, weights=frozenset(weights),
    )  # fmt: skip
    return _Joined(program, launches, kernel, tuple(argument for argument, _ in params), tuple(outputs), places)


def _named(kernel: Kernel, given: Mapping[str, str], places: Mapping[str, Statement]) -> dict[str, str] | None:
    """What axes are called where they walk results of the other kernels; None where these are not read at one point."""
    named: dict[str, str] = {}
    for load in (x for s in kernel.statements for x in s.reads):
        made = places.get(given.get(load.buffer, ""))
        if made is None:
            continue
        if not _alike(load, made):
            return None
        for index, axis in zip(load.index, made.axes, strict=True):
            assert isinstance(index, Axis)
            if named.setdefault(index.name, axis) != axis:
                return None
    return named if len(set(named.values())) == len(named) else None


def _alike(load: Load, made: Statement) -> bool:
    plain = [i.name for i in load.index if isinstance(i, Axis)]
    return len(plain) == len(load.index) == len(made.axes) == len(set(plain))


# What follows sums in their kernels -----------------------------------------------------------------------------------


def _without_tails(program: Program, matrices: Collection[str]) -> Program:
    """The program in which kernels that touch matrices end with their sums: what puts these together with others (the
    three gradients of attention, side by side) has a kernel of its own."""
    group = [s for s in program.steps if isinstance(s, Launch) and set(matrices) & set(s.touched)]
    results = {n for s in group for n in s.results} - set(matrices)
    for launch in group:
        kernel = program.kernels[launch.kernel]
        given = dict(zip((p.name for p in kernel.signature), launch.touched, strict=True))
        points = _axes_of(kernel, {p for p, n in given.items() if n in matrices})
        tail = _tail(kernel, points, {p for p, n in given.items() if n in results})
        if points and tail and not kernel.scans and not kernel.spans and not launch.checks:
            program = _cut(program, launch, tail)
    return program


def _axes_of(kernel: Kernel, matrices: Collection[str]) -> frozenset[str]:
    """The last two axes that a kernel walks matrices along, where it walks all of them alike."""
    written = [tuple(map(Axis, s.axes)) for s in kernel.statements if s.target in matrices]
    places = [*written, *(x.index for s in kernel.statements for x in s.reads if x.buffer in matrices)]
    found = {frozenset(i.name for i in place[-2:] if isinstance(i, Axis)) for place in places}
    (one,) = found if len(found) == 1 else (frozenset(),)
    return one if len(one) == 2 else frozenset()


def _tail(kernel: Kernel, points: frozenset[str], others: Collection[str]) -> list[Statement]:
    """The statements after sums over the axes of points that do not follow one of them at its own points alone."""
    params = {p.name for p in kernel.params} & set(others)
    sums: set[str] = set()
    tail: dict[str, Statement] = {}
    for s in kernel.statements:
        read = {x.buffer for x in s.reads}
        if read & (sums | tail.keys()) or (read & params and not points <= set(s.axes)):
            own = tuple(map(Axis, s.axes))
            alone = s.reduction is None and not read & (tail.keys() | params)
            if alone and all(x.index == own for x in s.reads if x.buffer in sums):
                sums.add(s.target)
            else:
                tail[s.target] = s
        elif s.reduction is not None and points & set(s.reduction.axes):
            sums.add(s.target)
    return list(tail.values())


def _cut(program: Program, launch: Launch, tail: Sequence[Statement]) -> Program:
    """The program with a kernel's last statements in a kernel of their own, launched after it."""
    kernel = program.kernels[launch.kernel]
    head = [s for s in kernel.statements if s not in tail]
    given = dict(zip((p.name for p in kernel.signature), launch.touched, strict=True))
    types = {p.name: p for p in kernel.signature}
    read = {x.buffer for s in tail for x in s.reads}
    buffers = dict(program.by_name)
    for s in head:
        if s.target in read and s.target not in given:
            shape = tuple(kernel.extents[a] for a in s.axes)
            types[s.target] = Param(s.target, TensorType(s.dtype, shape))
            given[s.target] = fresh_name(f"{launch.results[0]}.{s.target}", buffers)
            buffers[given[s.target]] = Buffer(given[s.target], types[s.target].type, "arena")
    kernels = dict(program.kernels)
    steps: list[Step] = []
    for statements in (head, tail):
        written = [t for t in dict.fromkeys(s.target for s in statements) if t in given]
        used = [t for t in types if t not in written and any(x.buffer == t for s in statements for x in s.reads)]
        axes = {a for s in statements for a in s.all_axes}
        part = replace(
            kernel,
            params=tuple(types[t] for t in used),
            outputs=tuple(types[t] for t in written),
            axes=tuple((a, n) for a, n in kernel.axes if a in axes),
            statements=tuple(statements),
            weights=kernel.weights & frozenset(used),
        )
        name = _name(kernels, part, statements[0].target)
        kernels[name] = kernels.get(name, replace(part, name=name))
        steps.append(Launch(name, tuple(given[t] for t in used), tuple(given[t] for t in written)))
    whole = changed(program.steps, lambda s: steps if s is launch else [s])
    return replace(program, kernels=kernels, steps=whole, buffers=tuple(buffers.values()))


def _name(kernels: Mapping[str, Kernel], kernel: Kernel, base: str) -> str:
    """What an equal kernel is called, or a fresh name."""
    plain = replace(kernel, name="", location="")
    known = (n for n, k in kernels.items() if replace(k, name="", location="") == plain)
    return next(known, None) or fresh_name(base, kernels)


# Its place in the program ---------------------------------------------------------------------------------------------


def _with_one(joined: _Joined) -> Program:
    """The program with one launch in place of several, or as it is where what they read comes of what they write."""
    program, launches, kernel = joined.program, joined.launches, joined.kernel
    arguments, results = joined.arguments, joined.results
    first, last = program.steps.index(launches[0]), program.steps.index(launches[-1])
    before: list[Step] = []
    after: list[Step] = []
    read: set[str] = set()  # by launches that have been passed, and by what comes after
    written = {n for s in launches for n in s.results}
    for step in program.steps[first:last]:
        late = {*step.arguments, *step.results} & written or set(step.results) & read
        if step not in launches and not late:
            before.append(step)
            continue
        read |= set(step.arguments)
        if step not in launches:
            after.append(step)
            written |= set(step.results)
    if {n for s in after for n in s.results} & set(arguments):
        return program
    check_dependences(kernel, shared_axes(kernel))
    name = _name(program.kernels, kernel, f"{kernel.statements[0].target}_both_ways")
    kernels = {**program.kernels, name: program.kernels.get(name, replace(kernel, name=name))}
    steps = (
        *program.steps[:first], *before, Launch(name, arguments, results), *after, *program.steps[last + 1 :],
    )  # fmt: skip
    gone = {n for s in launches for n in s.results} - set(results)
    buffers = tuple(b for b in program.buffers if b.name not in gone)
    return replace(program, kernels=kernels, steps=steps, buffers=buffers)
