"""Encoders one by one, without code around them: what is stored is near what was given, and kernels read it alike.

Graphs store a weight in one of many encodings now and then (`effcc.fuzz.stored`). Here every scheme comes round
several times a minute, with weights that encoders go wrong at: rows of zeros, of subnormal and of large numbers, of one
sign, of equal numbers, of numbers that are stored exactly, and one large element among small ones. What kernels decode,
by the form of the op `decode`, must be what the reference decodes, of these weights and of any codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np

from effcc.errors import EffccError, EncodingError
from effcc.fuzz.generate import Case
from effcc.fuzz.modules.stores import wrong_storage
from effcc.fuzz.oracles import Failure
from effcc.fuzz.steps import same_bits
from effcc.ir.dtypes import DTYPES
from effcc.ir.encodings.registry import DECLARATIONS, declared
from effcc.ir.encodings.storage import Storage, is_sum, storage
from effcc.ir.graph import Graph, GraphBuilder
from effcc.ir.parser import encoding_of
from effcc.ir.types import TensorType
from effcc.passes.rules.arithmetic import run_forms

SHAPES = ((1, 1), (1, 5), (2, 8), (3, 17), (4, 32), (5, 33), (8, 40), (2, 130))
MAGNITUDES = (0.0, 1e-44, 1e-41, 1e-38, 1e-20, 1e-6, 0.02, 1.0, 1.0, 1.0, 3.0, 100.0, 3e4, 1e30)
DTYPE_NAMES = ("f32", "f32", "f32", "f64", "bf16", "f16")


class EncoderChecks:
    """Goes round all schemes, some at a time."""

    def __init__(self, seed: int) -> None:
        self._next = seed

    def some(self, count: int) -> list[Failure]:
        """The next weights, so many: those that are stored or read wrongly."""
        found = []
        for number in range(self._next, self._next + count):
            failure = check(number)
            found += [failure] if failure is not None else []
        self._next += count
        return found


def check(seed: int) -> Failure | None:
    """How the weight of a seed is stored or read wrongly; None where it is right, or its encoder refuses it."""
    random, data = Random(seed), np.random.default_rng(seed)
    dtype = DTYPES[random.choice(DTYPE_NAMES)]
    scheme = _notation(seed, random)
    with np.errstate(all="ignore"):
        try:
            made, dense = _made(scheme, random, data, dtype)
            arrays = made.encode(dense)
        except EncodingError:
            return None
        graph = _decoding(made, arrays, seed)
        plain = not is_sum(made.encoding)
        kept = plain and any(declared(s.name).kind == "level" for s in made.encoding.terms[0])
        try:
            problem = wrong_storage(made, arrays, dense, nearest=plain, largest=kept)
            if plain and not problem:
                problem = _read_otherwise(made, graph, arrays, "")
            for _ in range(2 if plain else 0):
                arrays = arrays if problem else _any_codes(made, arrays, data)
                problem = problem or _read_otherwise(made, graph, arrays, " of any codes")
        except EffccError as error:
            problem = f"{type(error).__name__}: {error}"
    message = f"{made.encoding} of {made.dtype}{list(made.shape)}: {problem}"
    return Failure(Case(graph, tuple(arrays), seed), "encoders", "wrong weight", message) if problem else None


def _notation(seed: int, random: Random) -> str:
    """Every scheme in its turn, alone or with another; now and then a sum."""
    known = [d for d in DECLARATIONS.values() if d.kind in ("values", "level") and d.name != "dense"]
    turn = known[seed % len(known)]
    sample = random.choice(turn.samples)
    others = [d for d in known if d.kind != turn.kind]
    if random.random() < (0.3 if turn.kind == "values" else 0.6):
        other = random.choice(random.choice(others).samples)
        sample = f"{sample} . {other}" if turn.kind == "level" else f"{other} . {sample}"
    if random.random() < 0.06:
        sample = f"{random.choice(('outliers(2)', 'low_rank(1)', 'csr(share=0.1)'))} + {sample}"
    return sample


def _made(scheme: str, random: Random, data: np.random.Generator, dtype: Any) -> tuple[Storage, Any]:
    encoding = encoding_of(scheme)
    rows, columns = random.choice(SHAPES)
    first = encoding.terms[0][0]
    found = declared(first.name)
    count = 0
    if found.kind == "level" and not is_sum(encoding):
        sizes = [int(a) for a in first.args if isinstance(a, int)]
        height, width = sizes if len(sizes) == 2 and first.name != "nm" else (1, sizes[-1] if sizes else 1)
        rows, columns = rows * height, columns * width
        count = 0 if found.kept is None else found.kept((rows, columns), random.choice((0.05, 0.5, 1.0)),
                                                        **found.given(first))  # fmt: skip
    shape = (rows, columns)
    return storage(encoding, shape, dtype, count), _dense(shape, data).astype(dtype.numpy)


def _dense(shape: tuple[int, int], data: np.random.Generator) -> Any:
    """A weight whose rows are of different kinds, or all of one."""
    kinds = (
        lambda: data.standard_normal(shape),
        lambda: np.abs(data.standard_normal(shape)) + 0.5,
        lambda: -np.abs(data.standard_normal(shape)) - 3.0,
        lambda: data.integers(-8, 8, shape) / 1.0,
        lambda: np.repeat(data.standard_normal((shape[0], 1)), shape[1], axis=1),
        lambda: np.where(data.random(shape) < 0.1, 300.0, 0.01 * data.standard_normal(shape)),
        lambda: np.exp2(data.uniform(-20, 3, shape)) * data.choice([-1.0, 1.0], shape),
        lambda: data.integers(-120, 121, shape) + 0.5,
    )
    picked = data.integers(0, len(kinds), (shape[0], 1))
    whole = np.choose(np.broadcast_to(picked, shape), [k() for k in kinds])
    if data.random() < 0.4:
        whole = kinds[int(picked[0, 0])]()
    sizes = data.choice(MAGNITUDES, (shape[0], 1))
    found = whole * (sizes if data.random() < 0.6 else data.choice((1.0, 1.0, 1e-3)))
    return np.clip(found, -6e4, 6e4) if data.random() < 0.9 else found


def _decoding(made: Storage, arrays: Sequence[Any], seed: int) -> Graph:
    builder = GraphBuilder(f"stored{seed}")
    types = [TensorType(c.type.dtype, a.shape) for c, a in zip(made.components, arrays, strict=True)]
    parts = [builder.param("w", t, weight=True) for t in types]
    (dense,) = builder.node("decode", *parts, encoding=made.encoding, dtype=made.dtype, shape=made.shape).results
    return builder.build((dense,))


def _read_otherwise(made: Storage, graph: Graph, arrays: Sequence[Any], what: str) -> str:
    """How kernels decode other numbers than the reference."""
    want = made.decode(arrays)
    (got,) = run_forms(graph, list(arrays))
    wrong = ~same_bits(got, want, zeros_apart=False)
    if not wrong.any():
        return ""
    place = tuple(int(i[0]) for i in np.nonzero(wrong))
    return f"kernels read {got[place]!r} at {list(place)}, the reference {want[place]!r}{what}"


def _any_codes(made: Storage, arrays: Sequence[Any], data: np.random.Generator) -> list[Any]:
    """The same coordinates with other values: codes of all bits, floats of every size."""
    coordinates = len(made.levels.coordinates)
    found = list(arrays[:coordinates])
    for array in arrays[coordinates:]:
        if array.dtype.kind in "iu":
            info = np.iinfo(array.dtype)
            found.append(data.integers(info.min, info.max, array.shape, array.dtype, endpoint=True))
        else:
            size = data.choice([1e-40, 1e-3, 1.0, 1.0, 100.0])
            found.append((data.standard_normal(array.shape) * size).astype(array.dtype))
    return found
