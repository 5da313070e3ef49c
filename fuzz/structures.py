"""Structures that whole passes exist for, as models write them: recurrences, attention, caches, stored weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from effcc.fuzz.sketch import Sketch, element, floats, number, size, structure, wide
from effcc.fuzz.stored import stored
from effcc.ir.dtypes import DTYPES, DType, boolean, i64
from effcc.ir.graph import Value
from effcc.ir.types import TensorType

# Recurrences, unrolled as tracing does -------------------------------------------------------------------------------


@structure
def unrolled_recurrence(s: Sketch) -> None:
    """h = a[t] * h + b[t], written out; now and then a step is out of order or uses another tensor."""
    dtype, steps, width = wide(s), s.random.randint(3, 7), size(s)
    axis = s.random.randint(0, 1)
    shape = (steps, width) if axis == 0 else (width, steps)
    a, b = s.emit("sigmoid", floats(s, *shape, dtype=dtype)), floats(s, *shape, dtype=dtype)
    h = floats(s, width, dtype=dtype)
    places = list(range(steps))
    wrong = s.random.random()
    if wrong < 0.3:
        first, second = s.random.sample(range(steps), 2)
        places[first], places[second] = places[second], places[first]
    found = []
    for t, place in enumerate(places):
        factor = element(s, a, axis, t if wrong < 0.15 else place)
        product = s.emit("mul", *s.random.sample([factor, h], 2))
        summand = element(s, b, axis, place)
        h = s.emit("add", *s.random.sample([product, summand], 2))
        found.append(h)
    if s.random.random() < 0.6:
        rows = [s.emit("reshape", h, shape=(1, width)) for h in found]
        s.emit("concat", *rows, axis=0)


@structure
def equal_steps(s: Sketch) -> None:
    """concat(f(x[0]), f(x[1]), ...) with one f, or one that is another."""
    dtype, steps, width, out = wide(s), s.random.randint(3, 6), size(s), size(s, 1, 2, 5)
    x = floats(s, steps, size(s, 1, 2, 3), width, dtype=dtype)
    w = floats(s, out, width, dtype=dtype, weight=True)
    odd = s.random.randrange(steps) if s.random.random() < 0.4 else -1
    order, squeeze = list(range(steps)), s.random.random() < 0.5
    if s.random.random() < 0.15:
        s.random.shuffle(order)
    parts = []
    for t, place in enumerate(order):
        y = s.emit("linear", element(s, x, 0, place, squeeze), w)
        parts.append(s.emit("sigmoid" if t == odd else "tanh", y))
    s.emit("concat", *parts, axis=s.random.choice((0, 0, -1)))


@structure
def scan_tree(s: Sketch) -> None:
    """h[t] = a[t] * h[t-1] + b[t] as a tree of halves, as associative scans are traced."""
    dtype, steps, width = wide(s), s.random.choice((4, 4, 8)), size(s, 1, 2, 3, 5, 17)
    a = s.emit("sigmoid", floats(s, steps, width, dtype=dtype))
    b = floats(s, steps, width, dtype=dtype)
    wrong = s.random.choice(("", "", "", "factor", "value", "order", "lost"))

    def scan(a: Value, b: Value, n: int) -> Value:
        if n == 1:
            return b
        a_even, a_odd = (s.emit("slice", a, axis=0, start=k, end=n, step=2) for k in (0, 1))
        b_even, b_odd = (s.emit("slice", b, axis=0, start=k, end=n, step=2) for k in (0, 1))
        carried = s.emit("mul", a_even if wrong == "factor" else a_odd, b_odd if wrong == "value" else b_even)
        combined = s.emit("add", carried, b_odd)
        if wrong == "lost" and n > 2:  # the later pairs forget what their first halves give
            kept = s.emit("slice", combined, axis=0, start=0, end=1, step=1)
            combined = s.emit("concat", kept, s.emit("slice", b_odd, axis=0, start=1, end=n // 2, step=1), axis=0)
        odd = scan(s.emit("mul", a_even, a_odd), combined, n // 2)
        first = s.emit("slice", b_even, axis=0, start=0, end=1, step=1)
        even = first
        if n > 2:
            later_a = s.emit("slice", a_even, axis=0, start=1, end=n // 2, step=1)
            later_b = s.emit("slice", b_even, axis=0, start=1, end=n // 2, step=1)
            before = s.emit("slice", odd, axis=0, start=0, end=n // 2 - 1, step=1)
            even = s.emit("concat", first, s.emit("add", s.emit("mul", later_a, before), later_b), axis=0)
        pairs = [
            s.emit("reshape", h, shape=(n // 2, 1, width)) for h in ((odd, even) if wrong == "order" else (even, odd))
        ]
        return s.emit("reshape", s.emit("concat", *pairs, axis=1), shape=(n, width))

    scan(a, b, steps)


# Attention ------------------------------------------------------------------------------------------------------------


def _positions(s: Sketch, size: int, *shape: int) -> Value:
    return s.emit("reshape", s.emit("iota", size=size, start=0, step=1, dtype=i64), shape=shape)


def _masked(s: Sketch, scores: Value, dtype: DType) -> Value:
    """Scores with a mask: causal, a window, given bools (rows of nothing too), a bias, or keys that are padding on the
    left: whole tiles of which no row sees anything come before the first key that one does."""
    m, n = (int(d) for d in scores.type.shape[-2:])
    kind = s.random.choice(("none", "causal", "window", "given", "bias", "filled", "left", "left", "runs", "strict"))
    low = number(s, s.random.choice((-math.inf, -1e4)), dtype)
    if kind in ("causal", "window"):
        i, j = _positions(s, m, m, 1), _positions(s, n, 1, n)
        seen = s.emit(s.random.choice(("ge", "gt")) if kind == "window" else "ge", i, j)
        if kind == "window":
            far = s.emit("add", j, s.emit("full", shape=(), value=s.random.randint(1, 8), dtype=i64))
            seen = s.emit("and", seen, s.emit("lt", i, far))
        return s.emit("where", seen, scores, low)
    if kind == "given":
        return s.emit("where", s.fresh(TensorType(boolean, (1, n))), scores, low)
    if kind == "left":
        shape = (int(scores.type.shape[0]), *(1,) * (scores.type.rank - 3), 1, n)
        first = s.data.integers(0, n, shape[:1]) if s.random.random() < 0.7 else np.full(shape[:1], n - 1)
        seen = s.given(np.broadcast_to(np.arange(n) >= first.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy())
        return s.emit("where", seen, scores, low)
    if kind == "runs":  # each row sees a stretch of keys of its own; some see one key, the last
        first = np.minimum(s.data.integers(0, n + n // 2, (m, 1)), n - 1)
        last = first + s.data.integers(0, n, (m, 1))
        return s.emit("where", s.given((np.arange(n) >= first) & (np.arange(n) <= last)), scores, low)
    if kind == "strict":  # of its own key on, a row sees nothing; the last one sees all but that
        i, j = _positions(s, m, m, 1), _positions(s, n, 1, n)
        ahead = s.emit("full", shape=(), value=s.random.randint(1, max(n // 2, 1)), dtype=i64)
        return s.emit("where", s.emit("lt", j, s.emit("add", i, ahead)), scores, low)
    if kind == "filled":
        return s.emit("where", s.given(np.zeros((m, 1), bool)), scores, low)
    if kind == "bias":
        return s.emit("add", scores, floats(s, m, n, dtype=dtype))
    return scores


@structure
def attention(s: Sketch) -> None:
    """softmax(q k' / sqrt(d) + mask) v, with heads taken apart and put together again, and groups of shared keys."""
    dtype = wide(s)
    batch, heads, m, d = size(s, 1, 2), size(s, 1, 2, 4), size(s, 1, 3, 5, 8, 17), size(s, 1, 4, 8, 16)
    n = size(s, 3, 8, 17, 33, 130, 300)
    shared = s.random.random() < 0.25
    x = floats(s, batch, m, heads * d, dtype=dtype)
    taken = s.emit("transpose", s.emit("reshape", x, shape=(batch, m, heads, d)), perm=(0, 2, 1, 3))
    keys = floats(s, batch, 1 if shared else heads, n, d, dtype=dtype)
    values = floats(s, batch, 1 if shared else heads, n, d, dtype=dtype)
    if shared and s.random.random() < 0.5:
        keys = s.emit("broadcast", keys, shape=(batch, heads, n, d))
    scores = s.emit("matmul", taken, s.emit("transpose", keys, perm=(0, 1, 3, 2)))
    scores = _masked(s, s.emit("mul", scores, number(s, d**-0.5, dtype)), dtype)
    weights = s.emit("softmax", scores, axis=-1)
    mixed = s.emit("transpose", s.emit("matmul", weights, values), perm=(0, 2, 1, 3))
    merged = s.emit("reshape", mixed, shape=(batch, m, heads * d))
    if s.random.random() < 0.5:
        out = s.emit("linear", merged, floats(s, heads * d, heads * d, dtype=dtype, weight=True))
        s.emit("add", out, x)
    if not shared and s.random.random() < 0.5:
        _gradients(s, taken, keys, values, scores, dtype)


def _gradients(s: Sketch, q: Value, keys: Value, values: Value, scores: Value, dtype: DType) -> None:
    """What attention's gradients do: points of a matrix summed along its rows and along its columns; now and then a
    result needs the points as well, or a sum joins another."""
    batch, heads, m, d = (int(n) for n in q.type.shape)
    grad, turned = floats(s, batch, heads, m, d, dtype=dtype), (0, 1, 3, 2)
    points = s.emit("exp", s.emit("sub", scores, number(s, s.random.choice((4.0, 16.0)), dtype)))
    s.emit("matmul", s.emit("transpose", points, perm=turned), grad)
    weighed = s.emit("matmul", grad, s.emit("transpose", values, perm=turned))
    inner = s.emit("mul", points, s.emit("sub", weighed, floats(s, batch, heads, m, 1, dtype=dtype)))
    rows = s.emit("matmul", inner, keys)
    columns = s.emit("matmul", s.emit("transpose", inner, perm=turned), q)
    way = s.random.random()
    if way < 0.15:
        s.emit("neg", inner)
    elif way < 0.5:
        s.emit("concat", rows, columns, axis=2)


@structure
def cache(s: Sketch) -> None:
    """Rows written into a cache that lives on, and read from it."""
    dtype = wide(s)
    batch, n, d, m = size(s, 1, 2), size(s, 4, 8, 17, 40), size(s, 1, 3, 8, 16), s.random.randint(1, 3)
    held = floats(s, batch, n, d, dtype=dtype, weight=s.random.random() < 0.2)
    rows = floats(s, batch, m, d, dtype=dtype)
    kind = s.random.choice(("slice", "index", "roll", "both"))
    if kind == "index":
        rows = s.emit("transpose", rows, perm=(1, 0, 2))
        at = (
            s.fresh(TensorType(i64, (m,)), limits=(0, n - 1))
            if m == 1
            else s.given(np.arange(m) + s.random.randint(0, n - m))
        )
        new = s.emit("index_put", s.emit("transpose", held, perm=(1, 0, 2)), rows, at, axes=(0,), combine="set")
        new = s.emit("transpose", new, perm=(1, 0, 2))
    elif kind == "roll":
        new = s.emit("concat", s.emit("slice", held, axis=1, start=m, end=None, step=1), rows, axis=1)
    else:
        start = s.random.randint(0, n - m)
        new = s.emit("slice_scatter", held, rows, axis=1, start=start, end=start + m, step=1)
    s.update(held, new)
    query = floats(s, batch, size(s, 1, 3), d, dtype=dtype)
    source = held if kind == "both" else new
    weights = s.emit("softmax", s.emit("einsum", query, source, spec="bmd,bnd->bmn"), axis=-1)
    s.emit("matmul", weights, new)


@structure
def state(s: Sketch) -> None:
    """Parameters that change: running statistics, a counter, two that swap, one that takes what another was."""
    dtype = wide(s)
    shape = (size(s), size(s, 1, 3, 8))
    weight = s.random.random() < 0.4
    x, y = floats(s, *shape, dtype=dtype, weight=weight), floats(s, *shape, dtype=dtype)
    kind = s.random.choice(("average", "swap", "swap", "add", "shift", "shift", "read", "turned", "turned"))
    if kind == "average":
        kept = s.emit("mul", x, number(s, 0.9, dtype))
        s.update(x, s.emit("add", kept, s.emit("mul", y, number(s, 0.1, dtype))))
    elif kind == "swap":
        s.update(x, y)
        s.update(y, x)
    elif kind == "shift":
        z = floats(s, *shape, dtype=dtype)
        s.update(x, y)
        s.update(y, s.emit("tanh", z))
    elif kind == "turned":  # each element from another's place, which holds what was there before
        axis = s.random.randint(0, 1)
        n = int(shape[axis])
        moved = s.emit("flip", x, axes=(axis,))
        if s.random.random() < 0.5:
            at = s.random.randint(0, n - 1)
            parts = [s.emit("slice", x, axis=axis, start=a, end=b, step=1) for a, b in ((at, n), (0, at))]
            moved = s.emit("concat", *parts, axis=axis)
        s.update(x, s.emit(s.random.choice(("add", "mul")), s.emit("tanh", moved), s.random.choice((x, y))))
    else:
        s.update(x, s.emit("add", x, number(s, 1.0, dtype)))
    if kind in ("read", "average", "swap"):
        s.emit("exp", s.emit("tanh", x))
        s.emit("sum", s.emit("mul", x, y), axes=(s.random.randint(0, 1),), keepdim=False)


# Stored weights -------------------------------------------------------------------------------------------------------

structure(stored)


# Layers ---------------------------------------------------------------------------------------------------------------


@structure
def norm_by_hand(s: Sketch) -> None:
    """(x - mean) * rsqrt(mean of squares + eps) * w, over an axis that need not be the last, or over groups."""
    dtype = wide(s)
    rows, width, groups = size(s, 1, 3, 8), size(s, 4, 8, 16, 33, 130), s.random.choice((1, 1, 2, 4))
    if groups > 1 and width % groups:
        groups = 1
    x = floats(s, rows, width, dtype=dtype)
    y = s.emit("reshape", x, shape=(rows, groups, width // groups)) if groups > 1 else x
    axes = (0,) if groups == 1 and s.random.random() < 0.3 else (-1,)
    if s.random.random() < 0.6:
        y = s.emit("sub", y, s.emit("mean", y, axes=axes, keepdim=True))
    squares = s.emit("mean", s.emit("mul", y, y), axes=axes, keepdim=True)
    y = s.emit("mul", y, s.emit("rsqrt", s.emit("add", squares, number(s, 1e-5, dtype))))
    y = s.emit("reshape", y, shape=(rows, width)) if groups > 1 else y
    y = s.emit("mul", y, floats(s, width, dtype=dtype, weight=True))
    s.emit("add", y, x)


@structure
def convolution_block(s: Sketch) -> None:
    """Convolution, batch norm at inference, activation, and the input added or the channels brought together."""
    dtype = wide(s)
    batch, channels, height, width = size(s, 1, 2), size(s, 1, 2, 4, 8), size(s, 1, 3, 5, 9), size(s, 3, 5, 17)
    groups = s.random.choice((1, 1, channels))
    outputs = channels if s.random.random() < 0.5 else groups * size(s, 1, 2, 5)
    kernel, stride = s.random.choice((1, 3)), s.random.choice((1, 1, 2))
    x = floats(s, batch, channels, height, width, dtype=dtype)
    w = floats(s, outputs, channels // groups, kernel, kernel, dtype=dtype, weight=True)
    attrs = {"stride": (stride, stride), "padding": (kernel // 2,) * 2, "dilation": (1, 1), "groups": groups}
    y = s.emit("convolution", x, w, **attrs, transposed=False, output_padding=None)
    per_channel = [floats(s, outputs, dtype=dtype, weight=True) for _ in range(3)]
    variance = s.emit("abs", floats(s, outputs, dtype=dtype, weight=True))
    variance = s.emit("add", variance, number(s, 0.5, dtype))
    shape = (1, outputs, 1, 1)
    mean, scale, shift = (s.emit("reshape", p, shape=shape) for p in per_channel)
    y = s.emit("sub", y, mean)
    y = s.emit("mul", y, s.emit("mul", scale, s.emit("reshape", s.emit("rsqrt", variance), shape=shape)))
    y = s.emit("relu", s.emit("add", y, shift))
    if y.type.shape == x.type.shape:
        y = s.emit("add", y, x)
    if s.random.random() < 0.4:
        s.emit("mean", y, axes=(2, 3), keepdim=False)


@structure
def rotary(s: Sketch) -> None:
    """x * cos + rotate_half(x) * sin."""
    dtype = wide(s)
    batch, n, half = size(s, 1, 2), size(s), size(s, 1, 2, 4, 8)
    x = floats(s, batch, n, 2 * half, dtype=dtype)
    low = s.emit("slice", x, axis=-1, start=0, end=half, step=1)
    high = s.emit("slice", x, axis=-1, start=half, end=2 * half, step=1)
    turned = s.emit("concat", s.emit("neg", high), low, axis=-1)
    angles = floats(s, n, 2 * half, dtype=dtype, weight=s.random.random() < 0.5)
    s.emit("add", s.emit("mul", x, s.emit("cos", angles)), s.emit("mul", turned, s.emit("sin", angles)))


@structure
def classifier(s: Sketch) -> None:
    """Embedding, mean, linear, log-softmax, the likelihood of labels, and the best class."""
    dtype = wide(s)
    words, width, classes, batch, n = (
        size(s, 3, 17),
        size(s, 3, 8, 16),
        size(s, 2, 5, 33),
        size(s, 1, 3),
        size(s, 1, 4),
    )
    table = floats(s, words, width, dtype=dtype, weight=True)
    x = s.emit("embedding", table, s.fresh(TensorType(i64, (batch, n)), limits=(0, words - 1)))
    pooled = s.emit(s.random.choice(("mean", "sum", "max")), x, axes=(1,), keepdim=False)
    logits = s.emit("linear", pooled, floats(s, classes, width, dtype=dtype, weight=True))
    likely = s.emit("log_softmax", logits, axis=-1)
    picked = s.emit("gather", likely, s.fresh(TensorType(i64, (batch, 1)), limits=(0, classes - 1)), axis=1)
    s.emit("neg", s.emit("mean", picked, axes=(0,), keepdim=False))
    s.emit("argmax", logits, axes=(-1,), keepdim=False)


@structure
def large_product(s: Sketch) -> None:
    """A product beyond one tile in every direction, with what comes before and after it."""
    dtype = wide(s)
    m, n = (s.random.choice((1, 13, 14, 15, 31, 33, 64, 65, 97, 130, 200)) for _ in range(2))
    k = s.random.choice((1, 15, 16, 17, 64, 130, 256, 257, 384, 385, 520) if m * n < 5000 else (1, 13, 16, 33, 65))
    x = floats(s, m, k, dtype=dtype)
    y = s.emit("linear", x, floats(s, n, k, dtype=dtype, weight=s.random.random() < 0.7), floats(s, n, dtype=dtype))
    y = s.emit(s.random.choice(("relu", "tanh", "sigmoid")), y)
    if s.random.random() < 0.5:
        s.emit("matmul", y, floats(s, n, size(s, 1, 5, 40, 97), dtype=dtype, weight=s.random.random() < 0.5))


@structure
def branches(s: Sketch) -> None:
    """Chains of products one after the other, each free of the one before: its memory is taken anew at once."""
    dtype, count = wide(s), s.random.randint(2, 3)
    ends = []
    for _ in range(count):
        batch, m, k, n = s.random.choice((3, 4, 6)), size(s, 1, 4, 9), size(s, 2, 5, 8), size(s, 3, 8, 17)
        x = s.emit("matmul", floats(s, batch, m, k, dtype=dtype), floats(s, batch, k, n, dtype=dtype))
        x = s.emit("matmul", x, floats(s, batch, n, k, dtype=dtype))
        if s.random.random() < 0.5:
            x = s.emit("matmul", s.emit("tanh", x), floats(s, batch, k, n, dtype=dtype))
        ends.append(s.emit("sum", x, axes=(-1, -2), keepdim=False))
    s.emit("concat", *ends, axis=0)


@structure
def groups(s: Sketch) -> None:
    """Each element with the one of its group, seen through slices that begin inside a group, flips and repeats."""
    dtype = wide(s)
    rows, number, width = size(s, 1, 3), size(s, 2, 3, 8), size(s, 2, 4, 5, 8, 16, 32)
    held = s.emit("reshape", floats(s, rows, number, dtype=dtype), shape=(rows, number, 1))
    whole = s.emit("reshape", s.emit("broadcast", held, shape=(rows, number, width)), shape=(rows, number * width))
    x = floats(s, rows, number * width, dtype=dtype)
    if s.random.random() < 0.5:
        start = s.random.choice((0, 1, width - 1, s.random.randint(0, width - 1)))
        step = s.random.choice((1, 1, 2))
        whole, x = (s.emit("slice", v, axis=1, start=start, end=number * width, step=step) for v in (whole, x))
    if s.random.random() < 0.3:
        whole = s.emit("flip", whole, axes=(1,))
    y = s.emit("mul", x, s.emit("sigmoid", whole) if s.random.random() < 0.3 else whole)
    if s.random.random() < 0.5:
        s.emit("cumsum", y, axis=1)
    s.emit(s.random.choice(("sum", "max")), y, axes=(1,), keepdim=False)


@structure
def dtypes_mixed(s: Sketch) -> None:
    """Values through other dtypes: rounding to halves, integers that wrap, bools in arithmetic."""
    names: Sequence[str] = ("f32", "f64", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "bool")
    first, second = (DTYPES[s.random.choice(names)] for _ in range(2))
    shape = (size(s, 1, 3, 8, 17), size(s, 1, 3, 16, 33, 65))
    x = s.fresh(TensorType(first, shape))
    if first.is_float and second.is_integer:
        x = s.emit("mul", s.emit("tanh", x), number(s, 100.0, first))
        x = s.emit("abs", x) if second.kind == "uint" else x
    y = s.emit("cast", x, dtype=second)
    whole = np.iinfo(second.numpy) if second.is_integer and second.bits < 32 else None
    z = s.fresh(
        TensorType(second, s.random.choice((shape, shape[1:], (shape[0], 1)))),
        limits=(int(whole.min), int(whole.max)) if whole is not None else None,
    )
    if second.kind == "bool":
        y = s.emit(s.random.choice(("and", "or", "xor")), y, z)
    else:
        y = s.emit(s.random.choice(("add", "mul", "maximum", "minimum", "sub")), y, z)
        if s.random.random() < 0.5:
            y = s.emit("mul", y, z)
    for name in s.random.sample([n for n in names if not (second.is_float and DTYPES[n].is_integer)], 3):
        third = s.emit("cast", y, dtype=DTYPES[name])
        if s.random.random() < 0.4:
            s.emit(s.random.choice(("sum", "max", "min")), third, axes=(s.random.randint(0, 1),), keepdim=False)


@structure
def comparisons(s: Sketch) -> None:
    """Orders of floats with equal elements, and choices by them: where, min, max, arg-max, any, all."""
    dtype = s.dtype()
    shape = (size(s), size(s, 3, 8, 17, 33))
    x, y = s.fresh(TensorType(dtype, shape)), s.fresh(TensorType(dtype, shape[1:]))
    held = s.emit(s.random.choice(("lt", "le", "gt", "ge", "eq", "ne")), x, y)
    other = s.emit(s.random.choice(("lt", "le", "gt", "ge")), y, x)
    both = s.emit(s.random.choice(("and", "or", "xor")), held, other)
    chosen = s.emit("where", both, x, y)
    s.emit(s.random.choice(("maximum", "minimum")), chosen, y)
    s.emit(s.random.choice(("any", "all")), both, axes=(s.random.randint(0, 1),), keepdim=False)
    s.emit(s.random.choice(("argmax", "argmin")), chosen, axes=(s.random.randint(0, 1),), keepdim=False)
    if dtype in (DTYPES["f32"], DTYPES["f64"], DTYPES["i32"], i64):  # remainders of both signs
        divisor = s.emit("add", s.emit("abs", y), number(s, 1, dtype))
        s.emit("mod", x, divisor)
        s.emit("fmod", x, divisor)
