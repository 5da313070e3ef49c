"""A compiled program, ready to run on torch tensors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from effcc.errors import InputError
from effcc.ir.dims import Dim, evaluate
from effcc.ir.program import Buffer, Extern, Launch, Program
from effcc.ir.types import TensorType
from effcc.runtime.arena import ArenaPool
from effcc.runtime.library import Library
from effcc.runtime.weights import WeightWatch

TORCH_DTYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
    "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "u8": torch.uint8, "bool": torch.bool,
}  # fmt: skip

ExternCall = Callable[[Sequence[torch.Tensor], Mapping[str, int]], list[torch.Tensor]]


@dataclass(frozen=True)
class Segment:
    """A stretch of a stage: a native entry point, or a call to PyTorch."""

    entry: Any = None
    call: ExternCall | None = None
    extern: Extern | None = None


class Executable:
    """Runs a compiled program. Several threads may call one executable at the same time.

    Inputs are torch tensors in the order of `program.inputs`, on the CPU, with the dtypes and sizes compiled for;
    results are new tensors, in the order of `program.outputs`. What depends on weights alone is computed at the first
    call, and again when they changed (`effcc.runtime.weights`); with `always_prepare`, at every call.
    """

    def __init__(
        self,
        program: Program,
        library: Library,
        stages: Mapping[str, Sequence[Segment]],
        pointers: Sequence[str],
        size_names: Sequence[str],
        offsets: Mapping[str, Dim],
        arena_bytes: Dim,
        always_prepare: bool = False,
    ) -> None:
        self.program, self.library = program, library
        self.always_prepare = always_prepare
        self._stages = stages
        self._buffers = program.by_name
        self._pointers = tuple(pointers)
        self._slot = {n: i for i, n in enumerate(self._pointers)}
        self._size_names = tuple(size_names)
        self._offsets, self._arena_bytes = offsets, arena_bytes
        self._inputs = [self._buffers[n] for n in program.inputs]
        self._bindings = _bindings(self._inputs, self._size_names)
        used = _touched(program)
        self._weights = [i for i, b in enumerate(self._inputs) if b.space == "weight"]
        self._checked = [i for i, b in enumerate(self._inputs) if b.space != "weight"]
        self._watched = [i for i in self._weights if self._inputs[i].name in used]
        self._arenas = ArenaPool()
        self._watch = WeightWatch()
        self._prepared: dict[str, torch.Tensor] = {}
        self._prepare_lock = threading.Lock()
        self._fixed_sizes = {n: 0 for n in self._size_names} if not self._size_names else None
        self._plain = [(b, _shape(b.type), _strides(b.type), TORCH_DTYPES[b.type.dtype.name]) for b in self._inputs]

    def __call__(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        """Run the program.

        Raises InputError naming the argument where a dtype, rank, size or device does not fit.
        """
        if len(inputs) != len(self._inputs):
            raise InputError(f"{self.program.name}: expected {len(self._inputs)} inputs, got {len(inputs)}")
        sizes = self._sizes(inputs)
        given = self._fitted(inputs, sizes)
        prepared = self._prepare(given, sizes)
        return self._run("run", given, sizes, prepared)

    @property
    def arena_bytes(self) -> Dim:
        """Scratch bytes of one call."""
        return self._arena_bytes

    @property
    def prepared_bytes(self) -> int:
        """Bytes of what was computed from weights: packed and folded copies."""
        return sum(t.numel() * t.element_size() for t in self._prepared.values())

    def invalidate(self) -> None:
        """Take the weights as changed at the next call."""
        self._watch.forget()

    # Inputs ---------------------------------------------------------------------------------------------------------

    def _sizes(self, inputs: Sequence[torch.Tensor]) -> dict[str, int]:
        """The size symbols' values, read off the inputs' shapes (and strides)."""
        found: dict[str, int] = {}
        for name, position, axis, is_stride in self._bindings:
            tensor = inputs[position]
            if axis >= tensor.dim():
                raise InputError(self._complaint(position, f"rank {tensor.dim()}"))
            found[name] = tensor.stride(axis) if is_stride else tensor.shape[axis]
        for name, (low, high) in self.program.ranges.items():
            if name in found and not (low <= found[name] and (high is None or found[name] <= high)):
                raise InputError(f"{self.program.name}: size {name} = {found[name]} is outside {low}..{high}")
        return found

    def _fitted(self, inputs: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> list[torch.Tensor]:
        """The inputs, checked; one whose strides differ from those compiled for is copied, unless it is written to."""
        given = list(inputs)
        for i in self._checked:
            buffer, shape, strides, dtype = self._plain[i]
            tensor = given[i]
            if not isinstance(tensor, torch.Tensor):
                raise InputError(self._complaint(i, type(tensor).__name__))
            if shape is None:
                shape = tuple(evaluate(d, sizes) for d in buffer.type.shape)
                strides = tuple(evaluate(s, sizes) for s in buffer.type.layout)
            if tensor.dtype != dtype or tuple(tensor.shape) != shape or tensor.device.type != "cpu":
                raise InputError(self._complaint(i, f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"))
            if not _same_strides(tensor, shape, strides):
                given[i] = torch.empty_strided(shape, strides, dtype=dtype).copy_(tensor)
        return given

    def _complaint(self, position: int, got: str) -> str:
        buffer = self._inputs[position]
        return f"{self.program.name}: input {position} ({buffer.name}): expected {buffer.type} on the CPU, got {got}"

    # Running --------------------------------------------------------------------------------------------------------

    def _prepare(self, given: Sequence[torch.Tensor], sizes: Mapping[str, int]) -> dict[str, torch.Tensor]:
        if not self._stages["prepare"]:
            return {}
        weights = [given[i] for i in self._watched]
        if self._prepared and not self.always_prepare and self._watch.unchanged(weights):
            return self._prepared
        with self._prepare_lock:
            for i in self._weights:
                buffer, _, _, dtype = self._plain[i]
                shape = tuple(evaluate(d, sizes) for d in buffer.type.shape)
                strides = tuple(evaluate(s, sizes) for s in buffer.type.layout)
                if given[i].dtype != dtype or tuple(given[i].shape) != shape or not _same_strides(given[i], shape, strides):
                    raise InputError(self._complaint(i, f"{given[i].dtype} {list(given[i].shape)} strides {given[i].stride()}"))
            made = {b.name: self._allocate(b, sizes) for b in self.program.buffers if b.space == "prepared"}
            self._run("prepare", given, sizes, made)
            self._prepared = made
            self._watch.remember(weights)
            return made

    def _run(
        self, stage: str, given: Sequence[torch.Tensor], sizes: Mapping[str, int], prepared: Mapping[str, torch.Tensor]
    ) -> list[torch.Tensor]:
        tensors: dict[str, torch.Tensor] = dict(prepared)
        for buffer, tensor in zip(self._inputs, given, strict=True):
            tensors[buffer.name] = tensor
        if stage == "run":
            for name in self.program.outputs:
                if name not in tensors:
                    tensors[name] = self._allocate(self._buffers[name], sizes)
        table = (ctypes.c_void_p * len(self._pointers))()
        for name, tensor in tensors.items():
            slot = self._slot.get(name)
            if slot is not None:
                table[slot] = tensor.data_ptr()
        values = (ctypes.c_int64 * max(len(self._size_names), 1))(*(sizes[n] for n in self._size_names))
        threads = torch.get_num_threads()
        with self._arenas.take(evaluate(self._arena_bytes, sizes)) as arena:
            base = arena.data_ptr()
            for segment in self._stages[stage]:
                if segment.entry is not None:
                    segment.entry(table, values, base, threads)
                elif segment.extern is not None and segment.call is not None:
                    self._extern(segment, tensors, arena, sizes)
        return [tensors[n] for n in self.program.outputs] if stage == "run" else []

    def _extern(
        self, segment: Segment, tensors: dict[str, torch.Tensor], arena: torch.Tensor, sizes: Mapping[str, int]
    ) -> None:
        assert segment.extern is not None and segment.call is not None

        def tensor(name: str) -> torch.Tensor:
            return tensors[name] if name in tensors else self._in_arena(self._buffers[name], arena, sizes)

        results = segment.call([tensor(n) for n in segment.extern.arguments], sizes)
        for name, result in zip(segment.extern.results, results, strict=True):
            tensor(name).copy_(result)

    def _in_arena(self, buffer: Buffer, arena: torch.Tensor, sizes: Mapping[str, int]) -> torch.Tensor:
        shape = [evaluate(d, sizes) for d in buffer.type.shape]
        strides = [evaluate(s, sizes) for s in buffer.type.layout]
        start = evaluate(self._offsets[buffer.name], sizes)
        length = (sum((d - 1) * s for d, s in zip(shape, strides, strict=True)) + 1) * buffer.type.dtype.bytes
        if 0 in shape:
            return torch.empty(shape, dtype=TORCH_DTYPES[buffer.type.dtype.name])
        flat = arena[start : start + length].view(TORCH_DTYPES[buffer.type.dtype.name])
        return flat.as_strided(shape, strides)

    def _allocate(self, buffer: Buffer, sizes: Mapping[str, int]) -> torch.Tensor:
        shape = [evaluate(d, sizes) for d in buffer.type.shape]
        strides = [evaluate(s, sizes) for s in buffer.type.layout]
        return torch.empty_strided(shape, strides, dtype=TORCH_DTYPES[buffer.type.dtype.name])


def _shape(type: TensorType) -> tuple[int, ...] | None:
    """The shape where all sizes, and all strides, are known."""
    if all(isinstance(d, int) for d in (*type.shape, *type.layout)):
        return tuple(int(d) for d in type.shape)  # type: ignore[arg-type]
    return None


def _strides(type: TensorType) -> tuple[int, ...]:
    return tuple(int(s) for s in type.layout) if _shape(type) is not None else ()  # type: ignore[arg-type]


def _same_strides(tensor: torch.Tensor, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the tensor's elements lie as compiled for; the stride of a size-1 dimension does not matter."""
    given = tensor.stride()
    if given == tuple(strides):
        return True
    return 0 in shape or all(n == 1 or a == b for n, a, b in zip(shape, given, strides, strict=True))


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


def _touched(program: Program) -> set[str]:
    """The buffers that the prepare steps read."""
    return {n for s in program.prepare if isinstance(s, Launch | Extern) for n in s.arguments}
