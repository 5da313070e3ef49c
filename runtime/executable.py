"""A compiled program, ready to run on torch tensors."""

from __future__ import annotations

import ctypes
import logging
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from effcc.errors import CaptureError, EffccError, InputError, RefusedValueError
from effcc.ir.dims import Dim, evaluate
from effcc.ir.dtypes import NAMED
from effcc.ir.expr import Load, walk
from effcc.ir.program import Buffer, Extern, Program
from effcc.runtime import large_pages
from effcc.runtime.arena import ArenaPool
from effcc.runtime.fork import Lock, usable_threads
from effcc.runtime.pace import Pace
from effcc.runtime.weights import NOTHING, Seen, chooser, look

log = logging.getLogger(__name__)

TORCH_DTYPES: dict[str, torch.dtype] = {d.name: getattr(torch, d.long_name) for d in NAMED.values()}

_ADDRESS = torch.Tensor.data_ptr

ExternCall = Callable[[Sequence[torch.Tensor], Mapping[str, int]], list[torch.Tensor]]

_KEPT_MODELS = 4  # for how many sets of weights what was computed from them is kept
_KEPT_SIZES = 256  # how many assignments of the size symbols are remembered with the shapes they give


@dataclass(frozen=True)
class Segment:
    """A stretch of a stage: a native entry point, or a call to PyTorch."""

    entry: Any = None
    call: ExternCall | None = None
    extern: Extern | None = None


@dataclass(frozen=True)
class _Shape:
    """A buffer's shape, strides and dtype at certain sizes."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def allocate(self) -> torch.Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype)

    @property
    def bytes(self) -> int:
        """From the first to past the last element."""
        if 0 in self.shape:
            return 0
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.dtype.itemsize

    def fits(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor's elements lie as compiled for; the stride of a size-1 dimension does not matter."""
        given = tensor.stride()
        if given == self.strides or 0 in self.shape:
            return True
        return all(n == 1 or a == b for n, a, b in zip(self.shape, given, self.strides, strict=True))


@dataclass(frozen=True)
class _Sizes:
    """The size symbols' values, and what follows from them."""

    values: Mapping[str, int]
    table: Any
    inputs: tuple[_Shape, ...]
    owned: tuple[_Shape, ...]
    arena_bytes: int
    pace: Pace = field(default_factory=Pace)


class Executable:
    """Runs a compiled program. Several threads may call one executable at the same time.

    Inputs are torch tensors in the order of `program.inputs`, on the CPU, with the dtypes and sizes compiled for;
    results are new tensors, in the order of `program.outputs`. What depends on weights alone is computed at the first
    call, and again when they changed (`effcc.runtime.weights`); with `always_prepare`, at every call. Inputs that the
    program updates are written in place, whatever their strides.

    pointers, size_names: what the entry points of `stages` take (`effcc.codegen.cpp.program`); offsets and arena_bytes:
    the memory plan. threads: how many run each call at most (`effcc.runtime.pace`), whose result does not depend on it;
    default: torch's own number.
    """

    def __init__(
        self,
        program: Program,
        stages: Mapping[str, Sequence[Segment]],
        pointers: Sequence[str],
        size_names: Sequence[str],
        offsets: Mapping[str, Dim],
        arena_bytes: Dim,
        always_prepare: bool = False,
        threads: int | None = None,
    ) -> None:
        self.program = program
        self.arena_bytes = arena_bytes
        self.always_prepare = always_prepare
        self.threads = threads
        self._stages = stages
        self._buffers = program.by_name
        self._size_names = tuple(size_names)
        self._offsets = offsets
        self._inputs = [self._buffers[n] for n in program.inputs]
        self._bindings = _bindings(self._inputs, self._size_names)
        self._prepared_names = [b.name for b in program.buffers if b.space == "prepared"]
        known = {*program.inputs, *self._prepared_names}
        self._owned = [n for n in pointers if n not in known]
        assert tuple(pointers) == (*program.inputs, *self._prepared_names, *self._owned)
        self._checked = [i for i, b in enumerate(self._inputs) if b.space != "weight"]
        self._weights = [i for i, b in enumerate(self._inputs) if b.space == "weight"]
        self._weights_among = chooser(self._weights)
        self._written = [i for i, n in enumerate(program.inputs) if n in program.written]
        self._results = _results(program, self._owned)
        self._arenas = ArenaPool()
        self._known_sizes: dict[tuple[int, ...], _Sizes] = {}
        self._fixed = None if self._bindings else self._resolve({})
        self._prepared: list[_Prepared] = []
        self._prepare_lock = Lock()
        used = {n for s in program.prepare for n in s.arguments}
        read = [s.arguments if isinstance(s, Extern) else s.touched for s in (*program.prepare, *program.steps)]
        kept = (*read, program.inputs, program.outputs, *program.updates)
        self._used = {program.memory_of(n) for names in kept for n in names}
        self._watched = [i for i in self._weights if self._inputs[i].name in used]
        self._unwatched = [i for i in range(len(self._inputs)) if i not in set(self._watched)]
        self._streamed = _streamed(program, self._inputs)
        self._settled: set[tuple[int, ...]] = set()

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Run the program.

        Raises InputError naming the argument where a dtype, rank, size or device does not fit.
        """
        if len(inputs) != len(self._inputs):
            raise InputError(f"{self.program.name}: expected {len(self._inputs)} inputs, got {len(inputs)}")
        sizes = self._fixed or self._sizes(inputs)
        given = self._fitted(inputs, sizes)
        addresses = list(map(_ADDRESS, given))
        self._settle(given, addresses, sizes)
        owned = [s.allocate() for s in sizes.owned]
        prepared, pointers = self._prepare(given, addresses, sizes)
        pointers.extend([t.data_ptr() for t in owned])
        self._run("run", pointers, sizes, given, prepared, owned)
        for i in self._written:
            if given[i] is not inputs[i]:
                inputs[i].copy_(given[i])
        return [self._result(kind, k, inputs, owned, sizes) for kind, k in self._results]

    @property
    def prepared_bytes(self) -> int:
        """Bytes of what was computed from weights: packed and folded copies."""
        return sum(t.numel() * t.element_size() for made in self._prepared for t in made.tensors.values())

    def invalidate(self) -> None:
        """Take the weights as changed at the next call."""
        self._prepared = []

    # Inputs ---------------------------------------------------------------------------------------------------------

    def _sizes(self, inputs: Sequence[torch.Tensor]) -> _Sizes:
        """The size symbols' values, read off the inputs' shapes (and strides)."""
        found: dict[str, int] = {}
        for name, position, axis, is_stride in self._bindings:
            tensor = inputs[position]
            if not isinstance(tensor, torch.Tensor):
                raise InputError(self._complaint(position, type(tensor).__name__))
            if tensor.dim() != self._inputs[position].type.rank:
                raise InputError(self._complaint(position, _describe(tensor)))
            found[name] = tensor.stride(axis) if is_stride else tensor.shape[axis]
        key = tuple(found.values())
        known = self._known_sizes.get(key)
        if known is None:
            for name, (low, high) in self.program.ranges.items():
                if name in found and not (low <= found[name] and (high is None or found[name] <= high)):
                    position = next(p for n, p, _, _ in self._bindings if n == name)
                    limits = f"{low}..{'' if high is None else high}"
                    raise InputError(f"{self._complaint(position, _describe(inputs[position]))}: {name} is in {limits}")
            known = self._resolve(found)
            if len(self._known_sizes) >= _KEPT_SIZES:
                self._known_sizes.clear()
            self._known_sizes[key] = known
        return known

    def _resolve(self, values: Mapping[str, int]) -> _Sizes:
        table = (ctypes.c_int64 * max(len(self._size_names), 1))(*(values[n] for n in self._size_names))
        inputs = tuple(_shape(b, values) for b in self._inputs)
        owned = tuple(_shape(self._buffers[n], values) for n in self._owned)
        return _Sizes(values, table, inputs, owned, evaluate(self.arena_bytes, values))

    def _fitted(self, inputs: Sequence[torch.Tensor], sizes: _Sizes) -> list[torch.Tensor]:
        """The inputs, checked; copied where their strides are not those compiled for, or they are lazily negated."""
        given = list(inputs)
        for i in self._checked:
            tensor, wanted = inputs[i], sizes.inputs[i]
            as_compiled = (  # in one breath, for nearly all calls; what is wrong or different, `_fit` finds out
                isinstance(tensor, torch.Tensor)
                and tensor.shape == wanted.shape
                and tensor.dtype is wanted.dtype
                and tensor.is_cpu
                and tensor.stride() == wanted.strides
                and not tensor.is_neg()
            )
            if not as_compiled:
                given[i] = self._fit(i, tensor, wanted)
        return given

    def _fit(self, position: int, tensor: Any, wanted: _Shape) -> torch.Tensor:
        if not isinstance(tensor, torch.Tensor):
            raise InputError(self._complaint(position, type(tensor).__name__))
        if tensor.dtype != wanted.dtype or tensor.shape != wanted.shape or not tensor.is_cpu:
            raise InputError(self._complaint(position, _describe(tensor)))
        plain = wanted.fits(tensor) and not tensor.is_neg()  # the imaginary part of a conjugate is negated when read
        return tensor if plain else wanted.allocate().copy_(tensor.detach())

    def _complaint(self, position: int, got: str) -> str:
        buffer = self._inputs[position]
        return f"{self.program.name}: input {position} ({buffer.name}): expected {buffer.type} on the CPU, got {got}"

    # Weights --------------------------------------------------------------------------------------------------------

    def _prepare(self, given: list[torch.Tensor], addresses: list[int], sizes: _Sizes) -> tuple[_Prepared, array[int]]:
        """What depends on weights alone, and the pointer table up to it: as before, unless the weights changed.

        Models of one class share a program in Dynamo, so the results for the last few sets of weights are kept, as long
        as the weights live.
        """
        if not self._stages["prepare"]:
            return _NOTHING, array("Q", addresses)
        for made in self._prepared:
            if made.seen.holds(given, addresses):
                return made, self._pointers(made, addresses)
        with self._prepare_lock:
            for made in self._prepared:
                if made.seen.holds(given, addresses):  # another thread was faster
                    return made, self._pointers(made, addresses)
            changed = any(made.seen.where(addresses) for made in self._prepared)
            if not self.always_prepare:
                why = "changed" if changed else "are new"
                log.debug("@%s: its weights %s: what depends on them is computed", self.program.name, why)
            seen = NOTHING if self.always_prepare else look(given, addresses, self._watched, changed)
            as_given = list(addresses)
            for i in self._weights:
                given[i] = self._fit(i, given[i], sizes.inputs[i])
                addresses[i] = given[i].data_ptr()
            tensors = self._in_large_pages(sizes)
            pointers = array("Q", [*addresses, *[t.data_ptr() for t in tensors.values()]])
            made = _Prepared(seen, tensors, pointers)
            self._run("prepare", pointers, sizes, given, made, [])
            if not self.always_prepare and as_given == addresses and seen.watch.untouched():
                others = [p for p in self._prepared if not p.seen.where(addresses) and p.seen.alive()]
                self._prepared = [made, *others[: _KEPT_MODELS - 1]]
            return made, made.pointers[:]

    def _pointers(self, made: _Prepared, addresses: Sequence[int]) -> array[int]:
        """The pointer table of a call whose watched weights are where they were."""
        pointers = made.pointers[:]
        for i in self._unwatched:
            pointers[i] = addresses[i]
        return pointers

    def _in_large_pages(self, sizes: _Sizes) -> dict[str, torch.Tensor]:
        """Memory for what is computed from weights."""
        shapes = [_shape(self._buffers[n], sizes.values) for n in self._prepared_names]
        starts, size = large_pages.places(s.bytes for s in shapes)
        with torch.inference_mode(False):  # a tensor made in inference mode could not be written outside it
            memory = torch.from_numpy(large_pages.allocate(size))
            made = [
                _tensor_at(memory, at, s) if s.bytes else s.allocate() for at, s in zip(starts, shapes, strict=True)
            ]
        return dict(zip(self._prepared_names, made, strict=True))

    def _settle(self, given: Sequence[torch.Tensor], addresses: Sequence[int], sizes: _Sizes) -> None:
        """Check weights that lie elsewhere than before, and have those that every call reads from end to end in large
        pages.

        torch.compile's guards check them as well, but a user may have left these out (`guard_filter_fn`).
        """
        at = self._weights_among(addresses)
        if at in self._settled:
            return
        for i in self._weights:
            tensor, wanted = given[i], sizes.inputs[i]
            if tensor.dtype != wanted.dtype or tensor.shape != wanted.shape or not tensor.is_cpu:
                raise InputError(self._complaint(i, _describe(tensor)))
            if not self._stages["prepare"] and not wanted.fits(tensor):
                strides = f"{_describe(tensor)} with strides {list(tensor.stride())} instead of {list(wanted.strides)}"
                raise InputError(self._complaint(i, strides))
        if len(self._settled) >= _KEPT_MODELS:
            self._settled.clear()
        self._settled.add(at)
        large_pages.gather((addresses[i], given[i].nbytes) for i in self._streamed)

    # Running --------------------------------------------------------------------------------------------------------

    def _run(
        self,
        stage: str,
        pointers: array[int],
        sizes: _Sizes,
        given: Sequence[torch.Tensor],
        prepared: _Prepared,
        owned: Sequence[torch.Tensor],
    ) -> None:
        wanted = usable_threads(self.threads or torch.get_num_threads())
        threads, started = sizes.pace.threads(wanted), time.perf_counter()
        arena = self._arenas.take(sizes.arena_bytes)
        try:
            base, (table, _) = arena.data_ptr(), pointers.buffer_info()
            tensors: dict[str, torch.Tensor] = {}
            for segment in self._stages[stage]:
                if segment.entry is not None:
                    segment.entry(table, sizes.table, base, threads)
                else:
                    if not tensors:
                        tensors.update(zip(self.program.inputs, given, strict=True))
                        tensors.update(prepared.tensors)
                        tensors.update(zip(self._owned, owned, strict=False))
                    self._extern(segment, tensors, arena, sizes)
        finally:
            self._arenas.give(arena)
        if stage == "run":
            sizes.pace.note(wanted, time.perf_counter() - started)

    def _extern(
        self, segment: Segment, tensors: Mapping[str, torch.Tensor], arena: torch.Tensor, sizes: _Sizes
    ) -> None:
        assert segment.extern is not None and segment.call is not None

        def tensor(name: str) -> torch.Tensor:
            memory = self.program.memory_of(name)
            if memory not in tensors:
                return self._in_arena(self._buffers[name], arena, sizes.values)
            held, seen = _beginning_its_storage(tensors[memory]), _shape(self._buffers[name], sizes.values)
            return held if name == memory else held.as_strided(seen.shape, seen.strides)

        results = segment.call([tensor(n) for n in segment.extern.arguments], sizes.values)
        for name, result in zip(segment.extern.results, results, strict=True):
            if self.program.memory_of(name) not in self._used:
                continue
            place = tensor(name)
            if place.shape != result.shape:
                raise _of_another_shape(segment.extern, list(place.shape), list(result.shape))
            place.copy_(result)

    def _in_arena(self, buffer: Buffer, arena: torch.Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
        wanted = _shape(buffer, sizes)
        if 0 in wanted.shape:
            return wanted.allocate()
        start = evaluate(self._offsets[self.program.memory_of(buffer.name)], sizes)
        return _tensor_at(arena, start, wanted)

    def _result(
        self, kind: str, k: int, inputs: Sequence[torch.Tensor], owned: Sequence[torch.Tensor], sizes: _Sizes
    ) -> torch.Tensor:
        if kind == "input":
            return inputs[k]
        return owned[k] if kind == "owned" else owned[k].clone()


@dataclass(frozen=True)
class _Prepared:
    """Tensors computed from weights as `seen`, and the pointer table up to them as it was then."""

    seen: Seen
    tensors: Mapping[str, torch.Tensor]
    pointers: array[int]


_NOTHING = _Prepared(NOTHING, {}, array("Q"))


def _tensor_at(memory: torch.Tensor, start: int, wanted: _Shape) -> torch.Tensor:
    """A tensor in the memory of another's storage, `start` bytes on, that begins a storage as fresh tensors do.

    Some calls take offsets into that.
    """
    own = memory.untyped_storage()[start : start + wanted.bytes]
    return torch.empty(0, dtype=wanted.dtype).set_(own, 0, wanted.shape, wanted.strides)


def _of_another_shape(extern: Extern, told: list[int], given: list[int]) -> EffccError:
    """The error for a result that is not as capture has it: where its sizes are data, the model asserted them."""
    name = str(extern.attrs.get("target", extern.op))
    where = f"{name} {extern.location}"
    namespace, _, rest = name.partition("::")
    packet, _, overload = rest.rpartition(".")
    target = getattr(getattr(getattr(torch.ops, namespace), packet, None), overload, None)
    if torch.Tag.dynamic_output_shape in getattr(target, "tags", ()):
        return RefusedValueError(f"{where}: the model asserts that it gives {told}, and it gave {given}")
    return CaptureError(
        f"{where}: PyTorch told that it gives {told}, and it gave {given}; leave it out of what is compiled "
        "(torch.compiler.disable)"
    )


def _beginning_its_storage(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, or one in the same memory where it does not begin its storage."""
    if tensor.storage_offset() == 0 or tensor.numel() == 0:
        return tensor
    wanted = _Shape(tuple(tensor.shape), tensor.stride(), tensor.dtype)
    return _tensor_at(tensor, int(tensor.storage_offset()) * tensor.dtype.itemsize, wanted)


def _shape(buffer: Buffer, sizes: Mapping[str, int]) -> _Shape:
    shape = tuple(evaluate(d, sizes) for d in buffer.type.shape)
    strides = tuple(evaluate(s, sizes) for s in buffer.type.layout)
    return _Shape(shape, strides, TORCH_DTYPES[buffer.type.dtype.name])


def _streamed(program: Program, inputs: Sequence[Buffer]) -> list[int]:
    """The weights that steps read from end to end: no data say which elements."""
    read: set[str] = set()
    for step in program.launches:
        kernel = program.kernels[step.kernel]
        given = dict(zip((p.name for p in kernel.params), step.arguments, strict=True))
        loads = (x for s in kernel.statements for x in s.reads if x.buffer in given)
        read |= {given[x.buffer] for x in loads if not any(isinstance(e, Load) for i in x.index for e in walk(i))}
    return [i for i, b in enumerate(inputs) if b.space == "weight" and b.name in read]


def _describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)} on {tensor.device}"


def _results(program: Program, owned: Sequence[str]) -> list[tuple[str, int]]:
    """Where each output comes from: an input as it is, a tensor made for this call, or a copy of one returned
    before."""
    found: list[tuple[str, int]] = []
    for name in program.outputs:
        if name in program.inputs:
            found.append(("input", program.inputs.index(name)))
            continue
        place = ("owned", owned.index(name))
        found.append(("copy", place[1]) if place in found else place)
    return found


def _bindings(inputs: Sequence[Buffer], names: Sequence[str]) -> list[tuple[str, int, int, bool]]:
    """Where each size symbol can be read: its name, an input, an axis, and whether it is that axis's stride."""
    found: dict[str, tuple[str, int, int, bool]] = {}
    for is_stride in (False, True):
        for position, buffer in enumerate(inputs):
            sizes = buffer.type.layout if is_stride else buffer.type.shape
            for axis, size in enumerate(sizes):
                if not isinstance(size, int) and size.is_Symbol:
                    found.setdefault(size.name, (size.name, position, axis, is_stride))
    missing = [n for n in names if n not in found]
    if missing:
        raise InputError(f"the sizes {', '.join(missing)} stand alone in no input's shape; make an input of that size")
    return [found[n] for n in names]
