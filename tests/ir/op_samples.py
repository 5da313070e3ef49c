"""Sample calls of every op of the table: operand types and attributes that its type rule accepts, and matching arrays.

A sampler per op; `samples(op)` gives its calls. The tests of the table and of the importer draw from here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from effcc.ir.dtypes import DType, bf16, boolean, f16, f32, f64, i8, i32, i64, u8
from effcc.ir.ops import TABLE
from effcc.ir.scalars import FUNCTIONS, SAME_BITS
from effcc.ir.types import TensorType, tensor


@dataclass(frozen=True)
class Sample:
    """One call. `bounds` gives the range of integer and bool operands by position (inclusive; default -4..4 and both);
    `positive` says which floating operands must be at least 0.1, `ascending` which integers come in order."""

    op: str
    types: tuple[TensorType, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    bounds: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    positive: frozenset[int] = frozenset()
    ascending: frozenset[int] = frozenset()

    def __str__(self) -> str:
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items())
        return f"{self.op}({','.join(map(str, self.types))}){{{attrs}}}".replace(" ", "")

    def arrays(self, seed: int = 0) -> list[Any]:
        """Operands: normal floats, integers in their bounds, fair bools."""
        random = np.random.default_rng(seed)
        return [self._array(random, k, t) for k, t in enumerate(self.types)]

    def _array(self, random: Any, position: int, t: TensorType) -> Any:
        if t.dtype == boolean:
            low, high = self.bounds.get(position, (0, 1))
            return random.integers(low, high + 1, t.shape).astype(bool)
        if t.dtype.is_integer:
            low, high = self.bounds.get(position, (0 if t.dtype == u8 else -4, 4))
            drawn = random.integers(low, high + 1, t.shape).astype(t.dtype.numpy)
            return np.sort(drawn) if position in self.ascending else drawn
        values = random.standard_normal(t.shape)
        if position in self.positive:
            values = np.abs(values) + 0.1
        return values.astype(t.dtype.numpy)


FLOATS = (f32, f64, f16, bf16)
INTEGERS = (i64, i32, i8, u8)

# Functions whose values near 0 or below it overflow, or are NaN: those are for the fuzzer.
_POSITIVE = {"sqrt", "rsqrt", "log", "log2", "log10", "log1p", "lgamma", "pow", "acosh"}


def _pointwise(name: str) -> list[Sample]:
    f = FUNCTIONS[name]
    shapes = {1: [(2, 3)], 2: [(2, 3), (3,)], 3: [(2, 3), (3,), (2, 1)]}[f.arity]
    dtypes: Sequence[DType] = FLOATS
    if f.domain == "any":
        dtypes = (*FLOATS, *INTEGERS) if name not in ("eq", "ne", "not") else (*FLOATS, *INTEGERS, boolean)
    elif f.domain == "int":
        dtypes = (*INTEGERS, boolean) if name not in ("shl", "shr") else INTEGERS
    if name == "bits":
        dtypes = tuple(SAME_BITS)
    if name == "not":
        dtypes = (*INTEGERS, boolean)
    bounds = {1: (1, 3)} if name in ("floordiv", "mod", "fmod", "shl", "shr", "pow") else {}
    if name in ("shl", "shr"):
        bounds[0] = (0, 4)
    positive = {0} if name in _POSITIVE else set()
    return [
        Sample(name, tuple(tensor(d, *s) for s in shapes), bounds=bounds, positive=frozenset(positive)) for d in dtypes
    ]


def _reduced(name: str, dtypes: Sequence[DType] = (f32, f64, bf16, i64)) -> list[Sample]:
    calls = [({}, (2, 3)), ({"axes": (1,)}, (2, 3, 4)), ({"axes": (0, -1), "keepdim": True}, (2, 3, 4)), ({}, ())]
    return [Sample(name, (tensor(d, *s),), attrs) for d in dtypes for attrs, s in calls]


def _arg_reduced(name: str) -> list[Sample]:
    calls = [({}, (2, 3)), ({"axes": (1,)}, (2, 5, 3)), ({"axes": (0,), "keepdim": True}, (4, 3))]
    return [Sample(name, (tensor(d, *s),), attrs) for d in (f32, i64) for attrs, s in calls]


def _window(name: str, **extra: Any) -> list[Sample]:
    plain = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil": False}
    padded = {"kernel": (3, 2), "stride": (2, 1), "padding": (1, 1), "ceil": False}
    upper = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 0), "ceil": True}
    line = {"kernel": (3,), "stride": (1,), "padding": (1,), "ceil": False}
    return [
        Sample(name, (tensor(f32, 2, 3, 6, 4),), {**plain, **extra}),
        Sample(name, (tensor(f32, 2, 3, 6, 5),), {**padded, **extra}),
        Sample(name, (tensor(f64, 2, 6, 6),), {**upper, **extra}),
        Sample(name, (tensor(f32, 2, 5),), {**line, **extra}),
    ]


def _convolutions() -> list[Sample]:
    def call(x: Sequence[int], w: Sequence[int], bias: int = 0, dtype: DType = f32, **attrs: Any) -> Sample:
        spatial = len(x) - 2
        given = {"stride": (1,) * spatial, "padding": (0,) * spatial, "dilation": (1,) * spatial, **attrs}
        if given.get("transposed") and "output_padding" not in given:
            given["output_padding"] = (0,) * spatial
        types = (tensor(dtype, *x), tensor(dtype, *w), *((tensor(dtype, bias),) if bias else ()))
        return Sample("convolution", types, given)

    return [
        call((2, 3, 5), (4, 3, 3), 4),
        call((2, 3, 6, 5), (4, 3, 3, 2), stride=(2, 1), padding=(1, 1)),
        call((1, 4, 6, 6), (4, 2, 1, 1), 4, groups=2),
        call((1, 4, 7, 7), (4, 1, 3, 3), groups=4, padding=(2, 2), dilation=(2, 2)),
        call((1, 4, 7, 7), (8, 1, 1, 1), groups=4),
        call((1, 2, 4, 4, 4), (3, 2, 2, 2, 2), 3, padding=(1, 0, 1)),
        call((2, 3, 5), (4, 3, 3), 4, bf16, padding=(1,)),
        call((2, 4, 5), (4, 3, 3), 3, transposed=True),
        call((1, 4, 5, 4), (4, 3, 3, 2), 6, transposed=True, groups=2, stride=(2, 3), padding=(1, 0),
             output_padding=(1, 2), dilation=(2, 1)),
        call((1, 4, 5), (4, 1, 1), transposed=True, groups=4),
    ]  # fmt: skip


def _recurrent(name: str, gates: int, states: int, **extra: Any) -> list[Sample]:
    def call(dtype: DType, biases: bool, reverse: bool) -> Sample:
        weights = [tensor(dtype, gates * 3, 4), tensor(dtype, gates * 3, 3)]
        weights += [tensor(dtype, gates * 3)] * 2 if biases else []
        types = (tensor(dtype, 5, 2, 4), *[tensor(dtype, 2, 3)] * states, *weights)
        return Sample(name, types, {"reverse": reverse, **extra})

    return [call(f32, True, False), call(f32, False, True), call(f64, True, True), call(bf16, True, False)]


_SHAPES: dict[str, Callable[[], list[Sample]]] = {
    "where": lambda: [
        Sample("where", (tensor(boolean, 2, 1), tensor(d, 2, 3), tensor(d, 3))) for d in (f32, i64, boolean)
    ],
    "cast": lambda: [
        Sample("cast", (tensor(a, 2, 3),), {"dtype": z})
        for a, z in [(f32, bf16), (i64, f32), (f64, i32), (f32, boolean), (boolean, f16)]
    ],
    "relu": lambda: [Sample("relu", (tensor(d, 4, 3),)) for d in (f32, bf16, i64)],
    "silu": lambda: [Sample("silu", (tensor(d, 4, 3),)) for d in FLOATS],
    "reciprocal": lambda: [Sample("reciprocal", (tensor(d, 4, 3),), positive=frozenset({0})) for d in FLOATS],
    "gelu": lambda: [Sample("gelu", (tensor(d, 4, 3),), {"approximate": a}) for d in FLOATS for a in ("none", "tanh")],
    "sum": lambda: _reduced("sum"),
    "prod": lambda: _reduced("prod"),
    "max": lambda: _reduced("max"),
    "min": lambda: _reduced("min"),
    "mean": lambda: _reduced("mean", (f32, f64, bf16)),
    "any": lambda: _reduced("any", (boolean, f32, i64)),
    "all": lambda: _reduced("all", (boolean, f32, i64)),
    "var": lambda: (
        [Sample("var", (tensor(d, 3, 4),), {"axes": (1,), "correction": c}) for d in (f32, f64, bf16) for c in (0, 1)]
        + [Sample("var", (tensor(f32, 3, 4),), {"keepdim": True})]
    ),
    "argmax": lambda: _arg_reduced("argmax"),
    "argmin": lambda: _arg_reduced("argmin"),
    "cumsum": lambda: [Sample("cumsum", (tensor(d, 3, 4),), {"axis": a}) for d in (f32, i64, boolean) for a in (0, -1)],
    "linear_recurrence": lambda: [
        Sample("linear_recurrence", (tensor(d, 3, 4), tensor(d, 3, 4), *start), {"axis": a})
        for d in FLOATS
        for a in (0, -1)
        for start in ((), (tensor(d, 4 if a == 0 else 3),))
    ],
    "cumprod": lambda: [Sample("cumprod", (tensor(d, 3, 4),), {"axis": a}) for d in (f32, i64) for a in (0, -1)],
    "softmax": lambda: [
        Sample("softmax", (tensor(d, 2, 5, 3),), {"axis": a, "safe": s})
        for d in FLOATS
        for a in (1, -1)
        for s in (False, True)
    ],
    "log_softmax": lambda: [Sample("log_softmax", (tensor(d, 2, 5, 3),), {"axis": a}) for d in FLOATS for a in (1, -1)],
    "layer_norm": lambda: [
        Sample("layer_norm", (tensor(d, 2, 3, 4), *[tensor(d, *(3, 4)[2 - n :])] * k), {"axes": n, "eps": 1e-3})
        for d in (f32, f64, bf16)
        for n in (1, 2)
        for k in (0, 1, 2)
    ],
    "rms_norm": lambda: [
        Sample("rms_norm", (tensor(d, 2, 3, 4), *[tensor(d, 4)] * k), {"axes": 1, "eps": 1e-3})
        for d in (f32, f64, bf16)
        for k in (0, 1)
    ],
    "group_norm": lambda: [
        Sample("group_norm", (tensor(f32, 2, 6, *s), *[tensor(f32, 6)] * k), {"groups": g, "by_channel": by})
        for s in ((), (5,), (3, 2))
        for g, k in ((2, 2), (6, 0), (1, 1))
        for by in (False, True)
        if s or g < 6
    ],
    "batch_norm": lambda: [
        Sample("batch_norm", (tensor(d, 2, 3, *s), *[tensor(f32, 3)] * k), {"eps": 1e-3}, positive=frozenset({2}))
        for d in (f32, bf16)
        for s in ((), (4, 2))
        for k in (2, 4)
    ],
    "linear": lambda: [
        Sample("linear", (tensor(d, *s, 4), tensor(d, 5, 4), *[tensor(d, 5)] * k))
        for d in (f32, f64, f16, bf16, i64)
        for s in ((), (2, 3))
        for k in (0, 1)
    ],
    "matmul": lambda: [
        Sample("matmul", (tensor(d, *a, 2, 3), tensor(d, *z, 3, 4)))
        for d in (f32, bf16, i32)
        for a, z in (((), ()), ((5,), (5,)), ((2, 1), (3,)))
    ],
    "einsum": lambda: [
        Sample("einsum", (tensor(f32, 2, 3, 4), tensor(f32, 2, 5, 4)), {"spec": "bqd,bkd->bqk"}),
        Sample("einsum", (tensor(f32, 3), tensor(f32, 4)), {"spec": "i,j->ji"}),
        Sample("einsum", (tensor(f64, 3, 3),), {"spec": "ii->i"}),
        Sample("einsum", (tensor(bf16, 3, 4), tensor(bf16, 4), tensor(bf16, 3)), {"spec": "ij,j,i->"}),
    ],
    "convolution": _convolutions,
    "max_pool": lambda: [*_window("max_pool"), *_window("max_pool", dilation=(1, 1))[:3], *_dilated("max_pool")],
    "argmax_pool": lambda: [*_window("argmax_pool"), *_dilated("argmax_pool")],
    "avg_pool": lambda: [
        s for c in (True, False) for v in (None, 3) for s in _window("avg_pool", count_padding=c, divisor=v)
    ],
    "adaptive_avg_pool": lambda: [
        Sample("adaptive_avg_pool", (tensor(f32, 2, *s),), {"sizes": z})
        for s, z in (((3, 7, 5), (3, 2)), ((3, 4, 6), (2, 3)), ((5,), (3,)), ((3, 2, 3), (4, 5)))
    ],
    "lstm": lambda: _recurrent("lstm", 4, 2),
    "gru": lambda: _recurrent("gru", 3, 1),
    "rnn": lambda: [*_recurrent("rnn", 1, 1, activation="tanh"), *_recurrent("rnn", 1, 1, activation="relu")],
    "reshape": lambda: [
        Sample("reshape", (tensor(f32, *a),), {"shape": z})
        for a, z in [
            ((2, 6, 5), (12, 5)),
            ((12, 5), (2, 6, 5)),
            ((2, 6, 5), (4, 3, 5)),
            ((4, 6), (3, 8)),
            ((), (1, 1)),
            ((1, 3, 1), (3,)),
            ((2, 3, 4), (1, 2, 12, 1)),
            ((2, 3, 4, 5), (6, 2, 10)),
            ((0, 3), (3, 0)),
        ]
    ],
    "transpose": lambda: [Sample("transpose", (tensor(f32, 2, 3, 4),), {"perm": p}) for p in ((0, 2, 1), (2, 0, 1))],
    "broadcast": lambda: [
        Sample("broadcast", (tensor(f32, *a),), {"shape": z})
        for a, z in [((3,), (2, 3)), ((2, 1), (4, 2, 3)), ((), (2,))]
    ],
    "slice": lambda: [
        Sample("slice", (tensor(f32, 3, 7),), {"axis": 1, "start": a, "end": z, "step": s})
        for a, z, s in [(1, 5, 1), (0, None, 2), (-3, None, 1), (2, -1, 3), (5, 2, 1), (3, 99, 1)]
    ],
    "flip": lambda: [Sample("flip", (tensor(f32, 3, 4),), {"axes": a}) for a in ((0,), (0, 1))],
    "diagonal": lambda: [
        Sample("diagonal", (tensor(f32, 3, 4, 2),), {"offset": o, "axis1": a, "axis2": z})
        for o, a, z in [(0, 0, 1), (1, 0, 1), (-1, 1, 0), (0, 2, 1)]
    ],
    "as_strided": lambda: [
        Sample("as_strided", (tensor(f32, 4, 6),), {"shape": s, "strides": t, "offset": o})
        for s, t, o in [((3, 2), (1, 6), 2), ((4, 6), (6, 1), 0), ((3, 4), (2, 2), 1)]
    ],
    "pad": lambda: [
        Sample("pad", (tensor(d, 3, 4),), {"low": a, "high": z, "value": v})
        for d, a, z, v in [
            (f32, (1, 0), (0, 2), 0),
            (f32, (-1, 2), (1, -1), 3.5),
            (i64, (0, 0), (0, 3), 7),
            (boolean, (1, 1), (1, 1), True),
        ]
    ],
    "concat": lambda: [
        Sample("concat", tuple(tensor(f32, *s) for s in shapes), {"axis": a})
        for shapes, a in [(((2, 3), (1, 3)), 0), (((2, 3), (2, 0), (2, 4), (2, 1)), -1), (((2, 3),), 1)]
    ],
    "repeat": lambda: [Sample("repeat", (tensor(f32, 2, 3),), {"repeats": r}) for r in ((2, 1), (1, 3), (2, 2, 2))],
    "slice_scatter": lambda: [
        Sample("slice_scatter", (tensor(f32, 3, 7), tensor(f32, 3, n)), {"axis": 1, "start": a, "end": z, "step": s})
        for a, z, s, n in [(1, 5, 1, 4), (0, None, 2, 4), (2, 7, 3, 2), (0, None, 1, 7), (3, 4, 1, 1)]
    ],
    "embedding": lambda: [
        Sample("embedding", (tensor(f32, 7, 4), tensor(d, *s)), bounds={1: (0, 6)})
        for d, s in ((i64, (2, 3)), (i32, (5,)), (i64, ()))
    ],
    "index_select": lambda: [
        Sample("index_select", (tensor(f32, 4, 5), tensor(i64, 3)), {"axis": a}, bounds={1: (0, 3)}) for a in (0, 1)
    ],
    "gather": lambda: [
        Sample("gather", (tensor(f32, 4, 5), tensor(i64, *s)), {"axis": a}, bounds={1: (0, 3)})
        for a, s in ((0, (6, 5)), (1, (2, 3)))
    ],
    "index": lambda: [
        Sample(
            "index",
            (tensor(f32, 4, 5, 3), *(tensor(i64, *s) for s in shapes)),
            {"axes": a},
            bounds={1: (-4, 3), 2: (-3, 2)},
        )
        for shapes, a in [
            (((2, 2),), (0,)),
            (((3,),), (1,)),
            (((2, 1), (3,)), (0, 1)),
            (((3,), (3,)), (0, 2)),
            (((), ()), (1, 2)),
        ]
    ],
    "scatter": lambda: (
        [
            Sample(
                "scatter",
                (tensor(d, 4, 5), tensor(i64, 2, 3), tensor(d, 2, 3)),
                {"axis": a, "combine": c},
                bounds={1: (0, 3)},
            )
            for d in (f32, i64)
            for a in (0, 1)
            for c in ("add", "mul", "max", "min")
        ]
        + [
            Sample(
                "scatter", (tensor(f32, 4, 5), tensor(i64, 1, 5), tensor(f32, 1, 5)), {"axis": 0}, bounds={1: (0, 3)}
            )
        ]
    ),
    "index_put": lambda: (
        [
            Sample(
                "index_put",
                (tensor(f32, 4, 5, 3), tensor(f32, *v), *(tensor(i64, *s) for s in shapes)),
                {"axes": a, "combine": "add"},
                bounds={2: (-4, 3), 3: (-3, 2)},
            )
            for v, shapes, a in [
                ((2, 5, 3), ((2,),), (0,)),
                ((), ((2, 2),), (0,)),
                ((5,), ((3,), (3,)), (0, 2)),
                ((4, 2, 3), ((2,),), (1,)),
            ]
        ]
        + [Sample("index_put", (tensor(f32, 4, 5), tensor(f32, 5), tensor(i64)), {"axes": (0,)}, bounds={2: (-4, 3)})]
    ),
    "grouped_matmul": lambda: [
        Sample(
            "grouped_matmul",
            (tensor(d, 9, 6), tensor(d, groups, 6, 5), tensor(o, groups + 1)),
            {},
            {2: (0, 9)},
            ascending=frozenset({2}),
        )
        for d, o, groups in ((f32, i64, 3), (f32, i32, 1), (bf16, i32, 4), (i64, i64, 2))
    ],
    "segment_reduce": lambda: [
        Sample(
            "segment_reduce",
            (tensor(d, 7, *rest), tensor(o, segments + 1)),
            {"reduce": r},
            {1: (0, 7)},
            ascending=frozenset({1}),
        )
        for d, o, segments, rest in (
            (f32, i64, 3, (5,)),
            (f32, i32, 4, ()),
            (bf16, i64, 2, (2, 3)),
            (i64, i64, 3, (2,)),
        )
        for r in ("sum", "prod", "max", "min")
        if d.is_float or r == "sum"
    ],
    "constant": lambda: [
        Sample("constant", (), {"value": v, "dtype": d, "shape": s})
        for v, d, s in [
            (1.5, f32, ()),
            (3, i64, ()),
            (True, boolean, ()),
            ((1, 2, 3, 4), i32, (2, 2)),
            ((0.5,), bf16, (1,)),
            (float("-inf"), f16, ()),
        ]
    ],
    "full": lambda: [
        Sample("full", (), {"shape": (2, 3), "value": v, "dtype": d}) for v, d in ((1.5, f32), (True, boolean), (3, u8))
    ],
    "iota": lambda: [
        Sample("iota", (), {"size": 5, "start": a, "step": s, "dtype": d})
        for a, s, d in [(0, 1, i64), (3, -2, i32), (0.5, 0.25, f32), (1, 1, f32), (-1, 0.5, bf16)]
    ],
    "require": lambda: [
        Sample("require", (tensor(d, 2, 3), tensor(boolean, *shape)), {"message": "must hold"}, bounds={1: (1, 1)})
        for d, shape in ((f32, (2, 3)), (bf16, (3,)), (i64, (2, 1)), (boolean, ()))
    ],
}

# Ops with regions, and those that have no reference; their tests give them what they need.
WITHOUT_SAMPLES = {"cond", "while", "scan", "extern", "decode"}


def _dilated(name: str) -> list[Sample]:
    attrs = {"kernel": (2, 3), "stride": (1, 2), "padding": (1, 1), "dilation": (2, 2), "ceil": False}
    return [Sample(name, (tensor(f32, 2, 7, 8),), attrs)]


def samples(op: str) -> list[Sample]:
    """The sample calls of an op."""
    return _SHAPES[op]() if op in _SHAPES else _pointwise(op)


def all_samples() -> list[Sample]:
    """Every sample call of every op."""
    return [s for op in TABLE if op not in WITHOUT_SAMPLES for s in samples(op)]
