"""What a package says about itself: `manifest.json`, versioned. The classes here are its schema, field by field.

    {"format": 3, "effcc": "0.1.0", "name": "main", "platform": "linux-x86_64",
     "target": {"name": "host", "isa": "avx512", "features": ["avx2", ...]},
     "buffers": [{"name": "x", "dtype": "f32", "shape": ["s0", 64], "strides": null, "role": "input"}, ...],
     "inputs": ["x"], "numbers": [], "outputs": ["y"], "written": [],
     "takes": [{"name": "x", "value": 0}], "returns": 0,
     "sizes": [{"name": "s0", "least": 1, "most": 512}], "conditions": [], "arena_bytes": ["mul", 256, "s0"],
     "run": "effcc_run", "prepare": null, "prepare_at": "load",
     "files": {"library.so": 48200, "weights.safetensors": 1180}}

`buffers` are in the order in which the entry points take pointers. A buffer's role is `input` or `output` of a call,
`weight` (in `weights.safetensors`), `state` (a weight that calls write), `folded` (a weight that is in no file,
because what was computed from it is) or `prepared` (computed from weights: stored beside them, or by the entry point
`prepare`: at `load` where the package was made on another machine, at every `call` where weights are inputs), or
`carrier`: nothing reads it, and its size is a number among the arguments. `numbers` are those arguments; the sizes of
one say what it has above 0 and, where it may be negative, below: `{"name": "k", "sizes": ["s5p", "s5m"]}`. Sizes are
data (`effcc.runtime.size_trees`), strides count elements (null: row-major); a stored tensor that is not row-major is
stored flat, in memory order. `takes` and `returns` nest inputs and outputs as the model does (`effcc.runtime.nesting`).
`conditions` are sizes that must be 1: outside of them the model was not captured. `files` has the bytes of the two
other files, which bounds what is read of them; their digests are in `SHA256SUMS`.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError

from effcc.errors import PackageError
from effcc.ir.dtypes import NAMED
from effcc.runtime.nesting import Nesting, check_nesting, leaves
from effcc.runtime.size_trees import LARGEST, Size, check_size, evaluate, show, symbols_of
from effcc.runtime.strict_json import is_text, read_json
from effcc.target import cpu_features

FORMAT: Literal[3] = 3
MANIFEST, LIBRARY, WEIGHTS = "manifest.json", "library.so", "weights.safetensors"

Role = Literal["input", "output", "weight", "state", "folded", "prepared", "carrier"]
KEPT: tuple[Role, ...] = ("weight", "state", "prepared")
"""The roles of what outlives a call."""


def this_platform() -> str:
    """`linux-x86_64` and the like: what a library is for."""
    return f"{sys.platform}-{platform.machine()}"


def _text(value: str) -> str:
    if not is_text(value):
        raise ValueError("control characters are no part of names")
    return value


def _nonnegative(size: Size) -> Size:
    if isinstance(size, int) and size < 0:
        raise ValueError(f"expected a size of at least 0, got {size}")
    return size


Name = Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_text)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
EntryPoint = Annotated[str, Field(pattern=r"^effcc_[A-Za-z0-9_]{1,64}$")]
Extent = Annotated[Any, PlainValidator(check_size), AfterValidator(_nonnegative)]
Condition = Annotated[Any, PlainValidator(check_size)]
Count = Annotated[int, Field(ge=0, lt=LARGEST)]
Nested = Annotated[Any, PlainValidator(check_nesting)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


@dataclass(frozen=True)
class Placed:
    """A buffer at certain sizes: shape, strides in bytes, and bytes from the first to past the last element."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    bytes: int
    dtype: np.dtype[Any]


class PackagedBuffer(_Part):
    """A tensor that entry points take a pointer to."""

    name: Name
    dtype: str
    shape: Annotated[list[Extent], Field(max_length=32)]
    strides: Annotated[list[Extent], Field(max_length=32)] | None
    role: Role

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The dtype of its elements in NumPy."""
        return np.dtype(NAMED[self.dtype].numpy)

    @property
    def is_row_major(self) -> bool:
        """Whether no strides are given."""
        return self.strides is None

    def at(self, sizes: Mapping[str, int]) -> Placed:
        """Where its elements lie at these sizes. Raises InputError for extents that no memory has."""
        shape = tuple(evaluate(d, sizes) for d in self.shape)
        step, size = self.numpy.itemsize, ("mul", *shape, self.numpy.itemsize)
        evaluate(size, sizes)
        if self.strides is None:
            strides = tuple(step * math.prod(shape[k + 1 :]) for k in range(len(shape)))
        else:
            strides = tuple(step * evaluate(s, sizes) for s in self.strides)
        if 0 in shape:
            return Placed(shape, strides, 0, self.numpy)
        last = ("add", 0, *(("mul", n - 1, s) for n, s in zip(shape, strides, strict=True)))
        return Placed(shape, strides, evaluate(last, sizes) + step, self.numpy)

    def __str__(self) -> str:
        """Its type, as effcc's IR writes it: `f32[s0,64]`, with strides in braces unless it is row-major."""
        text = f"{self.dtype}[{','.join(map(show, self.shape))}]"
        return text if self.strides is None else text + "{" + ",".join(map(show, self.strides)) + "}"


class Machine(_Part):
    """What the library was compiled for."""

    name: Name
    isa: Name
    features: Annotated[list[Name], Field(max_length=256)]


class SizeRange(_Part):
    """A size symbol and the values it may have; `most` None: no upper bound."""

    name: Symbol
    least: Count
    most: Count | None


class NumberArgument(_Part):
    """An integer among the arguments, and the one or two sizes that tell its value."""

    name: Name
    sizes: Annotated[list[Symbol], Field(min_length=1, max_length=2)]


class Parameter(_Part):
    """One of the model's own parameters, and how the value given for it nests inputs."""

    name: Name
    value: Nested


class Manifest(_Part):
    """See the head of this file."""

    format: Literal[3]
    effcc: Name
    name: Symbol
    platform: Name
    target: Machine
    buffers: Annotated[list[PackagedBuffer], Field(max_length=100_000)]
    inputs: list[Name]
    numbers: Annotated[list[NumberArgument], Field(max_length=1024)]
    outputs: list[Name]
    written: list[Name]
    takes: list[Parameter]
    returns: Nested
    sizes: Annotated[list[SizeRange], Field(max_length=1024)]
    conditions: Annotated[list[Condition], Field(max_length=10_000)]
    arena_bytes: Extent
    run: EntryPoint
    prepare: EntryPoint | None
    prepare_at: Literal["load", "call"]
    files: dict[Literal["library.so", "weights.safetensors"], Count]

    @cached_property
    def by_name(self) -> dict[str, PackagedBuffer]:
        """The buffers by name."""
        return {b.name: b for b in self.buffers}

    def as_bytes(self) -> bytes:
        """The document; equal manifests are equal bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False) + "\n").encode()

    def require_runnable(self) -> None:
        """Raises PackageError where this machine cannot run the package's code."""
        if self.platform != this_platform():
            raise PackageError(
                f"the package is for {self.platform}, this machine is {this_platform()}; compile it here"
            )
        missing = sorted(set(self.target.features) - cpu_features())
        if missing:
            raise PackageError(
                f"the package's code is for {self.target.isa} and needs CPU features that this machine lacks: "
                f"{', '.join(missing)[:400]}; compile with `--target avx2` or `--target scalar`"
            )


def read_manifest(content: bytes) -> Manifest:
    """The manifest that a file's bytes hold.

    Raises PackageError saying which field is not what it should be, or which two do not fit.
    """
    document = read_json(content, MANIFEST)
    if not isinstance(document, dict):
        raise PackageError(f"{MANIFEST}: expected an object, got {type(document).__name__}")
    format = document.get("format")
    if type(format) is not int:
        raise PackageError(
            f"{MANIFEST}: expected a whole number as 'format', got {str(format)[:40]!r}; no package of effcc's"
        )
    if format != FORMAT:
        by = f" (written by effcc {str(document.get('effcc'))[:40]})"
        todo = "upgrade effcc" if format > FORMAT else "compile the model again"
        raise PackageError(f"{MANIFEST}: expected format {FORMAT}, got {format}{by}; {todo}")
    try:
        manifest = Manifest.model_validate(document)
    except ValidationError as error:
        raise PackageError(f"{MANIFEST}: {_first(error)}") from None
    problem = next(_contradictions(manifest), None)
    if problem:
        raise PackageError(f"{MANIFEST}: {problem}")
    return manifest


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    found = error.errors(include_url=False)[0]
    place = ".".join(str(part)[:80] for part in found["loc"])
    return f"{place}: {found['msg']}, got {str(found['input'])[:80]!a}"


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What the fields say of each other that cannot be."""
    known = manifest.by_name
    if len(known) != len(manifest.buffers):
        yield "two buffers have one name"
    for buffer in manifest.buffers:
        if buffer.dtype not in NAMED:
            yield f"{buffer.name!r} has the dtype {buffer.dtype[:40]!r}; known: {', '.join(NAMED)}"
        if buffer.strides is not None and len(buffer.strides) != len(buffer.shape):
            yield f"{buffer.name!r} has {len(buffer.strides)} strides for {len(buffer.shape)} dimensions"
    for name in (*manifest.inputs, *manifest.outputs, *manifest.written):
        if name not in known:
            yield f"{name!r} is none of the package's buffers"
    roles = {name: b.role for name, b in known.items()}
    if sorted(manifest.inputs) != sorted(n for n, role in roles.items() if role == "input"):
        yield "'inputs' are not the buffers whose role is input, each once"
    for name in manifest.outputs:
        if roles[name] == "folded":
            yield f"the output {name!r} is in no file and nothing computes it"
    for name, role in roles.items():
        if role == "output" and name not in manifest.outputs:
            yield f"the role of {name!r} is output, and it is none of 'outputs'"
    for name in manifest.written:
        if roles[name] not in ("input", "state"):
            yield f"{name!r} is written, and its role is {roles[name]}"
    yield from _contradictions_of_sizes(manifest)
    yield from _contradictions_of_nesting(manifest)
    if set(manifest.files) != {LIBRARY, WEIGHTS}:
        yield f"expected {LIBRARY} and {WEIGHTS} as 'files'"


def _contradictions_of_sizes(manifest: Manifest) -> Iterator[str]:
    declared = {s.name for s in manifest.sizes}
    if len(declared) != len(manifest.sizes):
        yield "two sizes have one name"
    for size in manifest.sizes:
        if size.most is not None and size.least > size.most:
            yield f"the size {size.name} is at least {size.least} and at most {size.most}"
    for buffer in manifest.buffers:
        found = {s for d in (*buffer.shape, *(buffer.strides or ())) for s in symbols_of(d)}
        if found - declared:
            yield f"{buffer.name!r} depends on {min(found - declared)}, which is none of the sizes"
        if found and buffer.role not in ("input", "output", "carrier"):
            yield f"{buffer.name!r} outlives calls, and depends on {min(found)}"
    for field, held in (("arena_bytes", [manifest.arena_bytes]), ("conditions", manifest.conditions)):
        unknown = set().union(*map(symbols_of, held)) - declared
        if unknown:
            yield f"{field!r} depends on {min(unknown)}, which is none of the sizes"
    given = {d for n in manifest.inputs for d in manifest.by_name[n].shape if isinstance(d, str)}
    told = [s for number in manifest.numbers for s in number.sizes]
    if len({*told}) != len(told) or not set(told) <= declared - given:
        yield "'numbers' tell a size twice, or one that an input tells, or none of the sizes"
    for size in manifest.sizes:
        if size.name not in given and size.name not in told:
            yield f"the size {size.name!r} stands alone in no input's type, and no number tells it"


def _contradictions_of_nesting(manifest: Manifest) -> Iterator[str]:
    taken = sorted(k for p in manifest.takes for k in leaves(p.value))
    if taken != list(range(len(manifest.inputs) + len(manifest.numbers))):
        yield "'takes' does not hold every input and number once"
    if {*manifest.inputs} & {n.name for n in manifest.numbers} or len({n.name for n in manifest.numbers}) != len(
        manifest.numbers
    ):
        yield "two numbers, or a number and an input, have one name"
    names = [p.name for p in manifest.takes]
    if len(set(names)) != len(names):
        yield "two parameters have one name"
    returned = leaves(manifest.returns)
    if any(k >= len(manifest.outputs) for k in returned):
        yield f"'returns' names output {max(returned)} of {len(manifest.outputs)}"


__all__ = ["Manifest", "Nesting", "PackagedBuffer", "read_manifest"]
