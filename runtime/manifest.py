"""What a package says about itself: `manifest.json`, versioned, checked field by field when read.

    {"format": 2, "effcc": "0.1.0", "name": "main", "platform": "linux-x86_64",
     "target": {"name": "host", "isa": "avx512", "features": ["avx2", ...]},
     "buffers": [{"name": "x", "type": "f32[s0,64]", "role": "input"}, ...],
     "inputs": ["x"], "outputs": ["y"], "single": true, "written": [],
     "sizes": {"s0": [1, 512]}, "arena_bytes": "256*s0", "run": "effcc_run", "prepare": "", "prepare_at": "load",
     "sha256": {"library.so": "...", "weights.safetensors": "...", "main.h": "..."}, "digest": "..."}

`buffers` are in the order in which the entry points take pointers. A buffer's role is `input` or `output` of a call,
`weight` (in `weights.safetensors`), `state` (a weight that calls write), `folded` (a weight that is in no file,
because what was computed from it is) or `prepared` (computed from weights: stored beside them, or by the entry point
`prepare`: at `load` where the package was made on another machine, at every `call` where weights are inputs). Types
and sizes are written as in effcc's IR; a stored tensor that is not row-major is stored flat, in memory order.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from effcc.errors import EffccError, PackageError
from effcc.ir.dims import Dim, show
from effcc.ir.parser import parse_type
from effcc.ir.types import TensorType
from effcc.target import cpu_features

FORMAT = 2
MANIFEST, LIBRARY, WEIGHTS = "manifest.json", "library.so", "weights.safetensors"
ROLES = ("input", "output", "weight", "state", "folded", "prepared")


def this_platform() -> str:
    """`linux-x86_64` and the like: what a library is for."""
    return f"{sys.platform}-{platform.machine()}"


@dataclass(frozen=True)
class PackagedBuffer:
    """A tensor that entry points take a pointer to."""

    name: str
    type: TensorType
    role: str


@dataclass(frozen=True)
class Manifest:
    """See the head of this file. `sizes` gives each size symbol's range; None: no upper bound."""

    name: str
    effcc: str
    platform: str
    target: str
    isa: str
    features: tuple[str, ...]
    buffers: tuple[PackagedBuffer, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    single: bool
    written: tuple[str, ...]
    sizes: Mapping[str, tuple[int, int | None]]
    arena_bytes: Dim
    run: str
    prepare: str
    prepare_at: str
    sha256: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The document."""
        found = asdict(self)
        found["format"] = FORMAT
        found["target"] = {"name": self.target, "isa": self.isa, "features": list(self.features)}
        del found["isa"], found["features"]
        found["buffers"] = [{"name": b.name, "type": str(b.type), "role": b.role} for b in self.buffers]
        found["arena_bytes"] = show(self.arena_bytes)
        found["digest"] = document_digest(found)
        return found

    def require_runnable(self) -> None:
        """Raises PackageError where this machine cannot run the package's code."""
        if self.platform != this_platform():
            raise PackageError(
                f"the package is for {self.platform}, this machine is {this_platform()}; compile it here"
            )
        missing = sorted(set(self.features) - cpu_features())
        if missing:
            raise PackageError(
                f"the package's code is for {self.isa} and needs CPU features that this machine lacks: "
                f"{', '.join(missing)}; compile with `--target avx2` or `--target scalar`"
            )


def document_digest(document: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's fields other than `digest`: sizes that were edited would make the library write wild."""
    fields = {name: value for name, value in document.items() if name != "digest"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def read_manifest(document: Any) -> Manifest:
    """The manifest that a JSON document holds. Raises PackageError saying which field is not what it should be."""
    if not isinstance(document, dict):
        raise PackageError(f"{MANIFEST}: expected an object, got {type(document).__name__}")
    format = document.get("format")
    if not isinstance(format, int):
        raise PackageError(f"{MANIFEST}: expected a whole number as 'format', got {format!r}; no package of effcc's")
    if format != FORMAT:
        by = f" (written by effcc {document.get('effcc')})"
        todo = "upgrade effcc" if format > FORMAT else "compile the model again"
        raise PackageError(f"{MANIFEST}: expected format {FORMAT}, got {format}{by}; {todo}")
    target = _field(document, "target", dict)
    buffers = tuple(_buffer(b) for b in _field(document, "buffers", list))
    sizes = {}
    for name, bounds in _field(document, "sizes", dict).items():
        if not (isinstance(bounds, list) and len(bounds) == 2 and isinstance(bounds[0], int)):
            raise PackageError(f"{MANIFEST}: expected [least, most] as the range of size {name!r}, got {bounds!r}")
        sizes[name] = (bounds[0], bounds[1])
    found = Manifest(
        name=_field(document, "name", str),
        effcc=_field(document, "effcc", str),
        platform=_field(document, "platform", str),
        target=_field(target, "name", str),
        isa=_field(target, "isa", str),
        features=_names(target, "features"),
        buffers=buffers,
        inputs=_names(document, "inputs"),
        outputs=_names(document, "outputs"),
        single=_field(document, "single", bool),
        written=_names(document, "written"),
        sizes=sizes,
        arena_bytes=_type(f"u8[{_field(document, 'arena_bytes', str)}]").shape[0],
        run=_field(document, "run", str),
        prepare=_field(document, "prepare", str),
        prepare_at=_field(document, "prepare_at", str),
        sha256=_field(document, "sha256", dict),
    )
    known = {b.name for b in buffers}
    for name in (*found.inputs, *found.outputs, *found.written):
        if name not in known:
            raise PackageError(f"{MANIFEST}: {name!r} is none of the package's buffers")
    expected, digest = _field(document, "digest", str), document_digest(document)
    if digest != expected:
        raise PackageError(f"{MANIFEST} is damaged or edited: its digest says {expected}, its fields give {digest}")
    return found


def _field(document: Mapping[str, Any], name: str, kind: type[Any]) -> Any:
    value = document.get(name)
    if not isinstance(value, kind):
        raise PackageError(f"{MANIFEST}: expected {kind.__name__} as {name!r}, got {value!r}")
    return value


def _names(document: Mapping[str, Any], name: str) -> tuple[str, ...]:
    found = _field(document, name, list)
    if not all(isinstance(n, str) for n in found):
        raise PackageError(f"{MANIFEST}: expected names as {name!r}, got {found!r}")
    return tuple(found)


def _buffer(document: Any) -> PackagedBuffer:
    if not isinstance(document, dict):
        raise PackageError(f"{MANIFEST}: expected an object for each buffer, got {document!r}")
    role = _field(document, "role", str)
    if role not in ROLES:
        raise PackageError(f"{MANIFEST}: expected one of {', '.join(ROLES)} as a buffer's role, got {role!r}")
    return PackagedBuffer(_field(document, "name", str), _type(_field(document, "type", str)), role)


def _type(text: str) -> TensorType:
    try:
        return parse_type(text, MANIFEST)
    except EffccError as error:
        raise PackageError(str(error)) from error
