"""Clusters: which statements become one kernel.

Statements join a cluster when they share parallel axes with everything they read from it, point by point, so that a
tile of those axes can be computed from start to end while it is in the cache. Legality is a property of accesses only;
whether joining pays is decided from footprints and from how often operands would be read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from effcc.ir.contraction import contraction
from effcc.ir.dependences import gathers_rows
from effcc.ir.dims import elements, same
from effcc.ir.dtypes import f32
from effcc.ir.expr import Axis, Call, Const, Reduce, ends_at, walk
from effcc.ir.graph import has_effect
from effcc.ir.kernel import Statement
from effcc.passes.fusion.cascade import Cascade, Defined, Opaque
from effcc.passes.fusion.siblings import alike, are_siblings, named_alike
from effcc.target import Target

PARALLELISM = 4
"""Points of the shared axes, for each core, below which a kernel may leave cores idle."""
SMALL = 8192
"""Points of a kernel that is done before other cores would have begun."""
LONG = 256
"""By how many times more points a statement is long beside a cluster."""
MOST_BUFFERS = 128
"""Buffers that the statements of a kernel read or write, at most: a function of thousands takes a compiler minutes."""
TASK_VECTORS = 2
"""Vectors of rows in a task that sums what it gathers of them, at least."""
LARGEST_KERNEL = 1024
"""Nodes in the expressions of a kernel, at most, for the same reason."""


@dataclass
class Cluster:
    """Statements that run as one kernel. `shared` are its parallel axes, `same` maps each statement's axes onto them.

    `before` is the set of clusters (by number) that must run earlier, transitively, as bits. `buffers` are those its
    statements read or write, `size` is the number of nodes in their expressions.
    """

    number: int
    items: list[Defined] = field(default_factory=list)
    opaque: Opaque | None = None
    shared: tuple[str, ...] = ()
    same: dict[str, str] = field(default_factory=dict)
    before: int = 0
    buffers: set[str] = field(default_factory=set)
    size: int = 0

    @property
    def targets(self) -> set[str]:
        return {i.target for i in self.items}


def cluster(
    cascade: Cascade, target: Target, weights: frozenset[str], walked: frozenset[str] = frozenset()
) -> list[Cluster]:
    """The cascade cut into clusters, in an order in which they can run.

    walked: targets of statements that may join one another though they read something of run-time size twice, since
    one pass makes it tile by tile (`effcc.passes.fusion.one_pass`).
    """
    return _Clustering(cascade, target, weights, walked).run()


def alone(cascade: Cascade) -> list[Cluster]:
    """Each statement in a cluster of its own, but for those that write one target, or one another's past."""
    return _Alone(cascade).run()


class _Alone:
    """Statements join those that they have to."""

    def __init__(self, cascade: Cascade) -> None:
        self.cascade = cascade
        self.clusters: list[Cluster] = []
        self.home: dict[str, Cluster] = {}
        self.needed = 0
        """The clusters that another one comes after, as bits."""
        self.last_effect: Cluster | None = None
        self.kept_in_spans = {
            load.buffer
            for i in cascade.items
            if isinstance(i, Defined) and i.statement.kept_spans
            for load in i.statement.reads
            if load.index == tuple(map(Axis, i.statement.axes))
        }
        """What is computed in spans alone, each in a cluster that begins with it and ends where it is written."""
        self.readers: dict[str, list[Statement]] = {}
        for reader in (i for i in cascade.items if isinstance(i, Defined)):
            for load in reader.statement.reads:
                self.readers.setdefault(load.buffer, []).append(reader.statement)
        self.scattered = {i.target for i in cascade.items if isinstance(i, Defined) and i.statement.scatter is not None}

    def run(self) -> list[Cluster]:
        for item in self.cascade.items:
            if isinstance(item, Opaque):
                self._place(item, self._fresh(item))
                continue
            # A later statement on the same target (a scatter into it) belongs where the target is.
            again = self.home.get(item.target) or self._recurrence(item)
            candidates = [again] if again is not None else self._candidates(item)
            joined = next((c for c in reversed(candidates) if c is not None and self._join(item, c)), None)
            if joined is None:
                joined = self._fresh(None)
                joined.shared = self._own_axes(item)
                joined.same = {a: a for a in item.statement.axes}
            self._meet(item, joined)
            self._place(item, joined)
        return self._ordered()

    def _recurrence(self, item: Defined) -> Cluster | None:
        """The cluster of the recurrence that a scanned statement is part of: its statements read one another's past."""
        if not item.scans:
            return None
        return next((c for c in self.clusters if any(i.scans and i.node is item.node for i in c.items)), None)

    def _own_axes(self, item: Defined) -> tuple[str, ...]:
        """The axes of a statement that could run in parallel: no scan orders them, and they have points to share."""
        if item.statement.scatter is not None:
            return ()
        return tuple(a for a in item.statement.axes if a not in item.scans and self.cascade.extents[a] != 1)

    def _fresh(self, opaque: Opaque | None) -> Cluster:
        made = Cluster(len(self.clusters), opaque=opaque)
        self.clusters.append(made)
        return made

    def _place(self, item: Defined | Opaque, into: Cluster) -> None:
        added = 0
        if isinstance(item, Opaque):
            reads = [v.name for v in item.node.operands]
            for result in item.node.results:
                self.home[result.name] = into
            if has_effect(item.node):  # after those before it: the order of draws is part of the result
                if self.last_effect is not None:
                    added |= self.last_effect.before | (1 << self.last_effect.number)
                self.last_effect = into
        else:
            reads = [load.buffer for load in item.statement.reads]
            into.items.append(item)
            into.buffers |= {item.target, *reads}
            into.size += sum(1 for _ in walk(item.statement.value))
            self.home[item.target] = into
        for name in reads:
            producer = self.home.get(name)
            if producer is not None and producer is not into:
                added |= producer.before | (1 << producer.number)
        if added | into.before == into.before:
            return
        into.before |= added
        if self.needed >> into.number & 1:
            for other in self.clusters:
                if other.before >> into.number & 1:
                    other.before |= added
        self.needed |= added

    def _producers(self, statement: Statement) -> list[Cluster]:
        """The clusters that the statement reads from, oldest first."""
        found = {c.number: c for load in statement.reads if (c := self.home.get(load.buffer)) is not None}
        return [found[n] for n in sorted(found)]

    def _candidates(self, item: Defined) -> list[Cluster]:
        """The clusters that a statement may join, oldest first."""
        return [c for c in self._producers(item.statement) if self._has_to(item, c)]

    def _join(self, item: Defined, into: Cluster) -> bool:
        """Whether `item` may and should join; if so the cluster's shared axes are narrowed to fit."""
        return self._has_to(item, into) and (bool(item.scans) or self._comes_after(item, into))

    def _has_to(self, item: Defined, into: Cluster) -> bool:
        return item.target in into.targets or into is self._recurrence(item) or self._keeps(item, into)

    def _keeps(self, item: Defined, into: Cluster) -> bool:
        """Whether a statement writes what a cluster computes in its spans alone."""
        writes = bool(item.statement.kept_spans) and item.target not in self.kept_in_spans
        return writes and bool(into.targets & self.kept_in_spans)

    def _comes_after(self, item: Defined, into: Cluster) -> bool:
        """Whether nothing that the statement reads comes after the cluster."""
        others = (c for c in self._producers(item.statement) if c is not into)
        return not any(other.before >> into.number & 1 for other in others)

    def _meet(self, item: Defined, into: Cluster) -> None:
        """Take other clusters into the one that a statement is about to join."""

    def _ordered(self) -> list[Cluster]:
        """Clusters sorted so that producers come first, otherwise as created."""
        left = (c for c in self.clusters if c.items or c.opaque is not None)
        return sorted(left, key=lambda c: (c.before.bit_count(), c.number))


class _Clustering(_Alone):
    """Statements join what they read where that pays on `target`."""

    def __init__(self, cascade: Cascade, target: Target, weights: frozenset[str], walked: frozenset[str]) -> None:
        super().__init__(cascade)
        self.target, self.weights, self.walked = target, weights, walked

    def _candidates(self, item: Defined) -> list[Cluster]:
        """What it reads; where it adds up a product's sums group by group, that product alone."""
        producers = self._producers(item.statement)
        return [c for c in producers if any(self._adds_up(item.statement, i.statement) for i in c.items)] or producers

    def _adds_up(self, statement: Statement, product: Statement) -> bool:
        """Whether a statement adds up the sums of integer dot products along an axis of theirs."""
        reads = any(load.buffer == product.target for load in statement.reads)
        if not reads or statement.reduction is None or not _is_packed(product):
            return False
        return any(self._is_summed_next(product, [a]) for a in product.axes)

    def _join(self, item: Defined, into: Cluster) -> bool:
        if into.opaque is not None or item.scans or any(i.scans for i in into.items):
            return self._has_to(item, into)
        if not self._comes_after(item, into):
            return False
        if item.target in self.kept_in_spans or into.targets & self.kept_in_spans:
            return self._has_to(item, into)
        if item.statement.scatter is not None or any(i.statement.scatter for i in into.items):
            return item.target in into.targets
        if item.target in self.scattered and not self._all_known(into):
            return False  # a scatter shares no axis, so what the others keep would need a buffer of run-time size
        if self._crowded(item, into):
            return False
        aligned = self._align(item.statement, into)
        if gathers_rows(item.statement) and not item.statement.spans and item.statement.axes[-1] not in aligned:
            return False  # what has no rows of its own would be made again by each task of rows
        kept = frozenset(aligned[a] for a in self._own_axes(item) if a in aligned)
        shared = tuple(a for a in into.shared if a in kept)
        named = {**into.same, **{a: aligned.get(a, a) for a in item.statement.axes}}
        if not (self._in_rows(item, into, shared) or self._pays(item, replace(into, same=named), shared)):
            return False
        into.shared, into.same = shared, named
        return True

    def _meet(self, item: Defined, into: Cluster) -> None:
        """Where it reads from another sum over what the cluster's sum reads, both become one cluster."""
        if item.statement.reduction is not None:
            return
        for other in self._producers(item.statement):
            if other is into or other.opaque is not None or self._crowded(item, into, other):
                continue
            if other.targets & self.kept_in_spans or any(i.statement.scatter is not None for i in other.items):
                continue  # as in `_join`: what is written has other axes than what computes it
            named = named_alike(into, other, into.same, self._align(item.statement, other))
            if named and are_siblings(into, other, self.cascade.extents):
                self._absorb(other, into, named)

    def _absorb(self, other: Cluster, into: Cluster, named: Mapping[str, str]) -> None:
        """Move all of a cluster into another one that neither runs before nor after it; `named`: its shared axes."""
        first, second = (other, into) if other.number < into.number else (into, other)
        into.items = [*first.items, *alike(first.items, second.items)]
        into.same = {**{a: named.get(shared, shared) for a, shared in other.same.items()}, **into.same}
        into.buffers, into.size = into.buffers | other.buffers, into.size + other.size
        into.before |= other.before
        self.home.update(dict.fromkeys(other.targets, into))
        gone, both = 1 << other.number, into.before | 1 << into.number
        for c in self.clusters:
            if c.before & (gone | 1 << into.number):
                c.before = c.before & ~gone | both
        self.needed |= both
        other.items = []

    def _crowded(self, item: Defined, into: Cluster, *others: Cluster) -> bool:
        """Whether a cluster would grow larger than a kernel should."""
        buffers = into.buffers.union(
            {item.target}, (x.buffer for x in item.statement.reads), *(c.buffers for c in others)
        )
        size = sum(c.size for c in (into, *others)) + sum(1 for _ in walk(item.statement.value))
        return len(buffers) > MOST_BUFFERS or size > LARGEST_KERNEL

    def _align(self, statement: Statement, into: Cluster) -> dict[str, str]:
        """The statement's axes that stand for one of the cluster's shared axes in every load from the cluster."""
        found: dict[str, str] = {}
        broken: set[str] = set()
        for load in statement.reads:
            if self.home.get(load.buffer) is not into:
                continue
            definition = next(i.statement for i in into.items if i.target == load.buffer)
            for axis, index in zip(definition.axes, load.index, strict=True):
                shared = into.same.get(axis, axis)
                if shared not in into.shared:
                    continue
                extents = self.cascade.extents
                if not isinstance(index, Axis) or not same(extents[index.name], extents[axis]):
                    broken.add(shared)
                elif found.get(index.name, shared) == shared and index.name in statement.axes:
                    found[index.name] = shared
                else:
                    broken.add(shared)
        # One shared axis under two names is not aligned: both would have to be equal.
        taken: dict[str, str] = {}
        for own, shared in found.items():
            if taken.setdefault(shared, own) != own:
                broken.add(shared)
        return {own: shared for own, shared in found.items() if shared not in broken}

    def _pays(self, item: Defined, into: Cluster, shared: tuple[str, ...]) -> bool:
        extents = self.cascade.extents
        read_twice = not self._walks(item, into) and self._read_twice(item, into, shared)
        if read_twice or self._leaves_cores_idle(item, shared):
            return False
        if self._follows_few(item, into, shared) or _sums_interleaved(item, into):
            return False
        if self._turns_rows(item, into) or (
            _divides_by_sizes(item.statement) and any(_is_contraction(i.statement) for i in into.items)
        ):
            return False
        if _is_contraction(item.statement) and self._is_reduced_next(item.statement, into, shared):
            return False
        if set(shared) == set(into.shared) and not _is_contraction(item.statement):
            return set(self._own_axes(item)) <= self._standing_for(item, into, shared) or self._local_fits(
                item, into, shared
            )
        points = elements(tuple(extents[a] for a in shared))
        if not shared or points < PARALLELISM * self.target.cores:
            before = elements(tuple(extents[a] for a in into.shared))
            if self._points((*into.items, item)) > SMALL and points < min(before, PARALLELISM * self.target.cores):
                return False
        for member in (*into.items, item):
            again = bool(member.statement.spans) or _is_contraction(member.statement)
            if again and not self._operands_stay(member.statement, into, shared):
                return False
        return self._local_fits(item, into, shared)

    def _in_rows(self, item: Defined, into: Cluster, shared: tuple[str, ...]) -> bool:
        """Whether tasks of a few vectors of rows each do all of it: turn them, sum what they gather of them, and turn
        the sums back. All of that stays in one core's cache, and no thread waits for another; weights, of which little
        is stored, are read again by each task.
        """
        members = [i.statement for i in (*into.items, item)]
        if not any(map(gathers_rows, members)) or not all(gathers_rows(s) or _is_pointwise(s) for s in members):
            return False
        extents = self.cascade.extents
        if len(shared) != 1 or any(not isinstance(extents[a], int) or s.dtype != f32 for s in members for a in s.axes):
            return False
        held = sum(elements(tuple(extents[a] for a in s.axes)) for s in members) // elements((extents[shared[0]],))
        task = TASK_VECTORS * self.target.vector_bytes
        enough = elements((extents[shared[0]],)) * f32.bytes >= task * self.target.cores
        return enough and held * task <= self.target.l2_bytes

    def _is_reduced_next(self, statement: Statement, into: Cluster, shared: tuple[str, ...]) -> bool:
        """Whether what reads a product reduces over an axis that it would share: scores, computed key by key where keys
        are made, are not there for a row's maximum.
        """
        own = {a for a in statement.axes if into.same.get(a, a) in shared}
        for reader in self.readers.get(statement.target, ()):
            reduced = set(reader.reduction.axes) if reader.reduction is not None else set()
            for load in reader.reads:
                if load.buffer == statement.target:
                    read = zip(statement.axes, load.index, strict=True)
                    if any(a in own and isinstance(i, Axis) and i.name in reduced for a, i in read):
                        return True
        return False

    def _is_summed_next(self, statement: Statement, axes: list[str]) -> bool:
        """Whether all that reads a statement's results adds them up along some of its axes."""
        readers = self.readers.get(statement.target, ())
        wanted = set(axes)
        for reader in readers:
            reduced = set(reader.reduction.axes) if reader.reduction is not None else set()
            for load in reader.reads:
                if load.buffer == statement.target:
                    read = zip(statement.axes, load.index, strict=True)
                    if {a for a, i in read if isinstance(i, Axis) and i.name in reduced} != wanted:
                        return False
        return bool(readers)

    def _turns_rows(self, item: Defined, into: Cluster) -> bool:
        """Whether it reads across the rows that sums of gathered rows are stored in: one is there at a time, or few."""
        for load in item.statement.reads:
            for member in into.items:
                s = member.statement
                in_rows = s.target == load.buffer and (s.spans or gathers_rows(s))
                if in_rows and s.axes[-1:] != item.statement.axes[-1:]:
                    last = load.index[-1] if load.index else None  # of one element nothing is turned
                    return isinstance(last, Axis) and last.name != item.statement.axes[-1]
        return False

    def _leaves_cores_idle(self, item: Defined, shared: tuple[str, ...]) -> bool:
        """Whether a long statement would run on fewer cores here than alone: one row's product after its norm."""
        extents = self.cascade.extents
        alone = elements(tuple(extents[a] for a in self._own_axes(item)))
        wanted = min(alone, PARALLELISM * self.target.cores)
        return self._points((item,)) > SMALL and elements(tuple(extents[a] for a in shared)) < wanted

    def _follows_few(self, item: Defined, into: Cluster, shared: tuple[str, ...]) -> bool:
        """Whether a long statement would take a cluster's few points for its tasks: a norm of an image after what was
        made of its channels' sums. Alone, it has tasks along the image, too.
        """
        few = self._points(into.items)
        wanted = PARALLELISM * self.target.cores * self.target.vector_lanes
        long = few <= SMALL and LONG * few <= self._points((item,))
        return long and elements(tuple(self.cascade.extents[a] for a in shared)) < wanted

    def _all_known(self, into: Cluster) -> bool:
        return all(isinstance(self.cascade.extents[a], int) for m in into.items for a in m.statement.axes)

    def _read_twice(self, item: Defined, into: Cluster, shared: tuple[str, ...]) -> bool:
        """Whether `item` needs a second pass over something of run-time size: it reads that again beside what was
        reduced from it, or reduces what a reduction gave.

        That would have to be kept for each point of the shared axes, and there is no buffer whose size is not known.
        """
        reads = {load.buffer for load in item.statement.reads}
        behind: dict[str, set[str]] = {}  # for each member, itself and what it was computed from
        long: set[str] = set()
        for member in into.items:
            own = {load.buffer for load in member.statement.reads}
            behind[member.target] = {member.target}.union(own, *(behind.get(b, ()) for b in own))
            inner = [a for a in member.statement.axes if into.same.get(a, a) not in shared]
            if not all(isinstance(self.cascade.extents[a], int) for a in inner):
                long.add(member.target)
        reduced = {m.target for m in into.items if m.statement.reduction is not None}
        if any((reads - {target}) & long & behind[target] for target in reads & reduced):
            return True
        return item.statement.reduction is not None and any(behind[t] & long & reduced for t in reads & long)

    def _walks(self, item: Defined, into: Cluster) -> bool:
        """Whether no statement keeps more than a tile of what has a run-time size."""
        return item.target in self.walked and into.targets <= self.walked

    def _points(self, members: Iterable[Defined]) -> int:
        """The points of the largest box among statements, what they reduce over included."""
        extents = self.cascade.extents
        boxes = [(*m.statement.axes, *(m.statement.reduction.axes if m.statement.reduction else ())) for m in members]
        return max(elements(tuple(extents[a] for a in box)) for box in boxes)

    def _standing_for(self, item: Defined, into: Cluster, shared: tuple[str, ...]) -> set[str]:
        aligned = self._align(item.statement, into)
        return {own for own, canonical in aligned.items() if canonical in shared}

    def _local_fits(self, item: Defined, into: Cluster, shared: tuple[str, ...]) -> bool:
        """Whether what lives between the statements, for one point of the shared axes, fits a quarter of L2.

        What is read again and has a run-time size there fits nowhere.
        """
        extents = self.cascade.extents
        total = 0
        read = {load.buffer for member in (*into.items, item) for load in member.statement.reads}
        for member in () if self._walks(item, into) else into.items:
            inner = [a for a in member.statement.axes if into.same.get(a, a) not in shared]
            if member.target in read and not all(isinstance(extents[a], int) for a in inner):
                return False
        for member in (*into.items, item):
            inner = [a for a in member.statement.axes if into.same.get(a, a) not in shared]
            total += elements(tuple(extents[a] for a in inner)) * member.statement.dtype.bytes
        return total <= self.target.l2_bytes // 4

    def _operands_stay(self, statement: Statement, into: Cluster, shared: tuple[str, ...]) -> bool:
        """Whether the operands of a contraction, or of a sum over spans, stay in the cache where they are read again
        for every tile of the shared axes.

        Weights never do: a whole layer's weights would be read for every tile of rows. Dot products of packed integers
        want rows and columns whole: they are done sooner than what it would take to read them again. A group of the
        depth at a time, they are summed on in the same registers.
        """
        extents = self.cascade.extents
        lost = [a for a in statement.axes if into.same.get(a, a) not in shared]
        if _is_packed(statement):
            return all(extents[a] == 1 for a in lost) or self._is_summed_next(statement, lost)
        own = into.targets
        for load in statement.reads:
            touched = {e.name for i in load.index for e in walk(i) if isinstance(e, Axis)}
            touched |= {a for span in statement.spans if span.axis in touched for a in ends_at(span)}
            if not touched & set(lost) or load.buffer in own:
                continue
            if load.buffer in self.weights:
                return False
            inner = [a for a in touched if into.same.get(a, a) not in shared]
            if elements(tuple(extents[a] for a in inner)) * load.dtype.bytes > self.target.l2_bytes // 2:
                return False
        return True


def _is_pointwise(statement: Statement) -> bool:
    return not any(isinstance(e, Reduce) for e in walk(statement.value))


def _is_packed(statement: Statement) -> bool:
    """Whether it is a product of integers for which there are dot products."""
    product = contraction(statement)
    return product is not None and product.accumulator.is_integer and product.dot is not None


def _sums_interleaved(item: Defined, into: Cluster) -> bool:
    """Whether a sum would join what puts results of several sources in turn, read at `(i + 1) // 2`: lanes are then
    where the sources have theirs, and a sum's are where its other operands have them."""
    if item.statement.reduction is None:
        return False
    indices = (i for m in into.items for load in m.statement.reads for i in load.index)
    return any(
        isinstance(e, Call) and e.function == "floordiv" and not isinstance(e.operands[0], Axis)
        for i in indices
        for e in walk(i)
    )


def _divides_by_sizes(statement: Statement) -> bool:
    """Whether it divides index by run-time size for each element: far dearer than to store what a product gives, and
    the code would be there again for each register of the product's tile."""
    return any(
        isinstance(e, Call) and e.function in ("floordiv", "mod") and not isinstance(e.operands[1], Const)
        for e in walk(statement.value)
    )


def _is_contraction(statement: Statement) -> bool:
    found = contraction(statement)
    return found is not None and found.in_place
