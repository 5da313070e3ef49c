"""A graph as the text of a Python function of torch calls: what eager PyTorch makes of it, and what a repro runs.

    def model(x, w):
        matmul = torch.matmul(x, w)
        relu = torch.relu(matmul)
        return relu,

The text needs `torch`, `torch.nn.functional` as `F` and `itertools.accumulate`. Sizes must be known. Names are the
graph's, changed where Python would not have them.
"""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from effcc.errors import UnsupportedError
from effcc.ir.dtypes import DType
from effcc.ir.graph import Graph, Node, Value
from effcc.ir.scalars import FUNCTIONS

Spell = Callable[..., str]


def torch_function(graph: Graph, name: str = "model") -> str:
    """The text of a function that takes the parameters of `graph` in order and returns a tuple of its results.

    Raises UnsupportedError for an op without a spelling (calls to PyTorch).
    """
    names = _names(graph)
    lines = [f"def {name}({', '.join(names[p] for p in graph.params)}):"]
    for node in graph.nodes:
        if node.regions:
            lines += [f"    {line}" for line in _control(node, names)]
            continue
        lines.append(f"    {', '.join(names[r] for r in node.results)} = {_call(node, names)}")
    lines.append("    return " + "".join(f"{names[v]}, " for v in graph.results).rstrip())
    return "\n".join(lines) + "\n"


def _control(node: Node, names: Mapping[Value, str]) -> list[str]:
    """The lines of control flow: its bodies as functions within, and the Python that calls them."""
    results = [names[r] for r in node.results]
    functions = [f"{(results or ['none'])[0]}_{k}" for k in range(len(node.regions))]
    lines = [
        line
        for function, region in zip(functions, node.regions, strict=True)
        for line in torch_function(region, function).splitlines()
    ]
    operands = [names[o] for o in node.operands]
    given = "".join(f"{r}, " for r in results)
    if node.op == "cond":
        return [*lines, f"{given}= ({functions[0]} if {operands[0]} else {functions[1]})({', '.join(operands[1:])})"]
    carried: Any = node.attrs["carried"]
    state, rest = operands[:carried], operands[carried:]
    held = functions[0] + "_state"
    begun = f"{held} = ({''.join(f'{n}, ' for n in state)})"
    if node.op == "while":
        fixed = "".join(f", {n}" for n in rest)
        turns = [f"while {functions[0]}(*{held}{fixed})[0]:", f"    {held} = {functions[1]}(*{held}{fixed})"]
        return [*lines, begun, *turns, f"{given}= {held}"]
    scanned: Any = node.attrs["scanned"]
    fixed = "".join(f", {n}" for n in rest[scanned:])
    order = f"range({node.attrs['length']})" + ("[::-1]" if node.attrs["reverse"] else "")
    at, made = functions[0] + "_at", functions[0] + "_made"
    rows = "".join(f", {n}[{at}]" for n in rest[:scanned])
    return [
        *lines, begun, f"{made} = {{}}", f"for {at} in {order}:",
        f"    {made}[{at}] = {functions[0]}(*{held}{rows}{fixed})", f"    {held} = {made}[{at}][:{carried}]",
        f"{given}= (*{held}, *map(torch.stack, zip(*({made}[at][{carried}:] for at in sorted({made})))))",
    ]  # fmt: skip


def dtype_text(dtype: DType) -> str:
    """`torch.float32`."""
    return f"torch.{dtype.long_name}"


def _names(graph: Graph) -> dict[Value, str]:
    found: dict[Value, str] = {}
    values = [*graph.params, *(r for n in graph.nodes for r in n.results)]
    taken = {"torch", "F", "accumulate", *dir(__builtins__)}
    for value in values:
        name = re.sub(r"\W", "_", value.name)
        if not name.isidentifier() or keyword.iskeyword(name) or name in taken:
            name = f"v_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        found[value] = name
    return found


def _call(node: Node, names: Mapping[Value, str]) -> str:
    operands = [names[o] for o in node.operands]
    if node.op in _SAME:
        return f"torch.{_SAME[node.op]}({', '.join(operands)})"
    if node.op not in _SPELLINGS:
        raise UnsupportedError(f"op {node.op!r} has no spelling in torch calls; graphs with it cannot be run in eager")
    return _SPELLINGS[node.op](node, operands, dict(node.attrs))


_SAME = {
    **{name: name for name in FUNCTIONS if name not in ("bits", "cast", "floordiv")},
    "relu": "relu", "reciprocal": "reciprocal",
    "matmul": "matmul",
    "not": "bitwise_not", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor", "mod": "remainder",
    "shl": "bitwise_left_shift", "shr": "bitwise_right_shift",
}  # fmt: skip


def _value(x: Any) -> str:
    if isinstance(x, DType):
        return dtype_text(x)
    if isinstance(x, tuple | list):
        return "(" + "".join(f"{_value(e)}, " for e in x).rstrip() + ")"
    if isinstance(x, float) and not math.isfinite(x):
        return f'float("{x}")'
    return repr(int(x)) if hasattr(x, "free_symbols") else repr(x)


def _joined(operands: Sequence[str], *more: Any, **named: Any) -> str:
    return ", ".join([*operands, *map(_value, more), *(f"{k}={_value(v)}" for k, v in named.items())])


def _axes(node: Node, attrs: Mapping[str, Any]) -> tuple[int, ...]:
    rank = node.operands[0].type.rank
    return tuple(range(rank)) if attrs["axes"] is None else tuple(attrs["axes"])


def _reduction(name: str) -> Spell:
    def spell(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
        axes = _axes(node, attrs)
        if not axes and name not in ("sum", "mean"):  # amax(()) and the like would reduce everything
            return f"{operands[0]}.clone()" if name.startswith("am") else f"{operands[0]}.ne(0)"
        if not axes and node.operands[0].type.rank:
            return f"{operands[0]}.clone(){_as_result(node)}"
        return f"torch.{name}({operands[0]}, {_value(axes)}, keepdim={attrs['keepdim']})"

    return spell


def _as_result(node: Node) -> str:
    dtype = node.results[0].type.dtype
    return "" if dtype == node.operands[0].type.dtype else f".to({dtype_text(dtype)})"


def _prod(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    rank = max(node.operands[0].type.rank, 1)
    text = f"{operands[0]}{_as_result(node)}"
    for axis in sorted((a % rank for a in _axes(node, attrs)), reverse=True):
        text += f".prod({axis}, keepdim={attrs['keepdim']})"
    return text


def _var(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    axes = _axes(node, attrs)
    if not axes and node.operands[0].type.rank:
        return f"{operands[0]} * 0 / {max(1 - attrs['correction'], 0)}"
    return f"torch.var({operands[0]}, {_value(axes)}, correction={attrs['correction']}, keepdim={attrs['keepdim']})"


def _argument(name: str) -> Spell:
    def spell(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
        axis = None if attrs["axes"] is None else attrs["axes"][0]
        return f"torch.{name}({_joined(operands, axis, keepdim=attrs['keepdim'])})"

    return spell


def _softmax(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    text = f"torch.softmax({_joined(operands, attrs['axis'])})"
    if not attrs["safe"]:
        return text
    empty = f"torch.all({operands[0]} == float('-inf'), {attrs['axis']}, keepdim=True)"
    return f"torch.where({empty}, torch.zeros_like({operands[0]}), {text})"


def _trailing(name: str) -> Spell:
    def spell(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
        shape = node.operands[0].type.shape[-attrs["axes"] :]
        return f"F.{name}({_joined([operands[0], _value(shape), *operands[1:]], eps=attrs['eps'])})"

    return spell


def _convolution(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    if node.operands[0].type.shape[1] == 0:  # torch.convolution over no channels gives a result of none
        empty = f"torch.zeros({_value(node.result.type.shape)}, dtype={dtype_text(node.result.type.dtype)})"
        return (
            f"{empty} + {operands[2]}.reshape({_value((-1, *(1,) * len(attrs['stride'])))})" if operands[2:] else empty
        )
    extra = attrs["output_padding"] or (0,) * len(attrs["stride"])
    given = operands if len(operands) == 3 else [*operands, "None"]
    order = ("stride", "padding", "dilation", "transposed")
    return f"torch.convolution({_joined(given, *(attrs[k] for k in order), extra, attrs['groups'])})"


def _windowed(x: str, node: Node, spatial: int) -> tuple[str, str]:
    """The operand as eager takes it, [batch, channel, ...], and what gives the result its shape back."""
    shape, result = node.operands[0].type.shape, node.results[0].type.shape
    lead = math.prod(int(d) for d in shape[: len(shape) - spatial])
    return f"{x}.reshape({_value((1, lead, *shape[len(shape) - spatial :]))})", f".reshape({_value(result)})"


def _pool(result: int) -> Spell:
    def spell(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
        spatial = len(attrs["kernel"])
        x, back = _windowed(operands[0], node, spatial)
        order = (attrs["kernel"], attrs["stride"], attrs["padding"], attrs["dilation"] or 1, attrs["ceil"])
        return f"F.max_pool{spatial}d({_joined([x], *order, return_indices=True)})[{result}]{back}"

    return spell


def _avg_pool(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    spatial = len(attrs["kernel"])
    x, back = _windowed(operands[0], node, spatial)
    one = spatial == 1
    sizes = [(*attrs[k], *((1 - (k == "padding"),) if one else ())) for k in ("kernel", "stride", "padding")]
    x = f"{x}.unsqueeze(-1)" if one else x
    return f"F.avg_pool2d({_joined([x], *sizes, attrs['ceil'], attrs['count_padding'], attrs['divisor'])}){back}"


def _adaptive(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    x, back = _windowed(operands[0], node, len(attrs["sizes"]))
    return f"F.adaptive_avg_pool{len(attrs['sizes'])}d({_joined([x], attrs['sizes'])}){back}"


def _layer(cell: str, states: int) -> Spell:
    def spell(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
        name = f"rnn_{attrs['activation']}" if "activation" in attrs else cell
        x, *rest = operands
        state, weights = f"[{', '.join(rest[:states])}]", f"[{', '.join(rest[states:])}]"
        return f'torch.ops.effcc.recurrent("{name}", {x}, {state}, {weights}, {attrs["reverse"]})'

    return spell


def _linear_recurrence(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    axis = attrs["axis"]
    if node.result.type.shape[axis] == 0:
        return f"{operands[1]}.clone()"
    pairs = f"list(zip({operands[0]}.unbind({axis}), {operands[1]}.unbind({axis})))"
    step = "lambda state, pair: pair[0] * state + pair[1]"
    if len(operands) == 3:
        return f"torch.stack(list(accumulate({pairs}, {step}, initial={operands[2]}))[1:], {axis})"
    first = f"{operands[1]}.select({axis}, 0)"
    return f"torch.stack(list(accumulate({pairs}[1:], {step}, initial={first})), {axis})"


def _pad(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    pairs = zip(attrs["low"][::-1], attrs["high"][::-1], strict=True)
    return f"F.pad({_joined(operands, tuple(p for pair in pairs for p in pair), value=attrs['value'])})"


def _slice(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    order = (attrs["axis"], attrs["start"], attrs["end"], attrs["step"])
    return f"torch.ops.aten.slice.Tensor({_joined(operands, *order)})"


def _slice_scatter(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    order = (attrs["axis"], attrs["start"], attrs["end"], attrs["step"])
    return f"torch.slice_scatter({_joined(operands, *order)})"


def _key(rank: int, indices: Sequence[str], axes: Sequence[int]) -> str:
    key = ["None"] * rank
    for axis, index in zip(axes, indices, strict=True):
        key[axis] = index
    return f"[{', '.join(key)}]"


def _index(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    x, *indices = operands
    return f"torch.ops.aten.index({x}, {_key(node.operands[0].type.rank, indices, attrs['axes'])})"


def _index_put(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    x, values, *indices = operands
    key = _key(node.operands[0].type.rank, indices, attrs["axes"])
    return f"torch.ops.aten.index_put({x}, {key}, {values}, {attrs['combine'] == 'add'})"


def _scatter(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    x, index, source = operands
    if attrs["combine"] == "set":
        return f"{x}.scatter({attrs['axis']}, {index}, {source})"
    names = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
    return f'{x}.scatter_reduce({attrs["axis"]}, {index}, {source}, "{names[attrs["combine"]]}")'


def _segment_reduce(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    """Eager has no segments of integers; those of a test fit into a double."""
    data, offsets = operands
    dtype = node.results[0].type.dtype
    wide, back = ("", "") if dtype.is_float else (".double()", f".to({dtype_text(dtype)})")
    return f"torch.segment_reduce({data}{wide}, {attrs['reduce']!r}, offsets={offsets}.long()){back}"


def _grouped_matmul(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    """PyTorch's own takes bfloat16 alone where it is captured."""
    parts = "zip(o[:-1], o[1:], w, strict=True)"
    rows = f"[x[: o[0]] @ w[0] * 0, *(x[a:b] @ m for a, b, m in {parts}), x[o[-1] :] @ w[0] * 0]"
    return f"(lambda x, w, o: torch.cat({rows}))({', '.join(operands)})"


def _require(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    return f"torch.ops.effcc.require({', '.join(operands)}, {attrs['message']!r})"


def _decode(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    scheme, shape, dtype = str(attrs["encoding"]), _value(attrs["shape"]), dtype_text(attrs["dtype"])
    return f"torch.ops.effcc.decode({scheme!r}, {shape}, [{', '.join(operands)}], {dtype})"


def _constant(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    made = f"torch.tensor({_value(attrs['value'])}, dtype={dtype_text(attrs['dtype'])})"
    return f"{made}.reshape({_value(attrs['shape'])})"


def _iota(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
    counter = f"torch.arange({attrs['size']}, dtype=torch.float64)"
    return f"({counter} * {attrs['step']} + {attrs['start']}).to({dtype_text(attrs['dtype'])})"


def _template(text: str) -> Spell:
    """`{0}`, `{1}` are operands, `{all}` all of them, names in braces attributes."""

    def spell(node: Node, operands: list[str], attrs: dict[str, Any]) -> str:
        values = {name: _value(value) for name, value in attrs.items()}
        return text.format(*operands, all=", ".join(operands), **values)

    return spell


_SPELLINGS: dict[str, Spell] = {
    "floordiv": _template('torch.div({0}, {1}, rounding_mode="floor")'),
    "cast": _template("{0}.to({dtype})"),
    "bits": lambda node, operands, attrs: f"{operands[0]}.view({dtype_text(node.result.type.dtype)})",
    "silu": _template("F.silu({0})"),
    "gelu": _template("F.gelu({0}, approximate={approximate})"),
    "sum": _reduction("sum"), "mean": _reduction("mean"), "max": _reduction("amax"), "min": _reduction("amin"),
    "any": _reduction("any"), "all": _reduction("all"), "prod": _prod, "var": _var,
    "argmax": _argument("argmax"), "argmin": _argument("argmin"),
    "cumsum": _template("torch.cumsum({0}, {axis})"), "cumprod": _template("torch.cumprod({0}, {axis})"),
    "linear_recurrence": _linear_recurrence,
    "softmax": _softmax, "log_softmax": _template("torch.log_softmax({0}, {axis})"),
    "layer_norm": _trailing("layer_norm"), "rms_norm": _trailing("rms_norm"),
    "group_norm": lambda node, xs, a: f"F.group_norm({_joined([xs[0], str(a['groups']), *xs[1:]], eps=a['eps'])})",
    "batch_norm": lambda node, xs, a: f"F.batch_norm({_joined(xs, eps=a['eps'])})",
    "linear": _template("F.linear({all})"), "einsum": _template("torch.einsum({spec}, {all})"),
    "convolution": _convolution, "max_pool": _pool(0), "argmax_pool": _pool(1), "avg_pool": _avg_pool,
    "adaptive_avg_pool": _adaptive, "lstm": _layer("lstm", 2), "gru": _layer("gru", 1), "rnn": _layer("rnn", 1),
    "reshape": _template("{0}.reshape({shape})"), "transpose": _template("{0}.permute({perm})"),
    "broadcast": _template("{0}.broadcast_to({shape})"), "slice": _slice, "flip": _template("{0}.flip({axes})"),
    "diagonal": _template("torch.diagonal({0}, {offset}, {axis1}, {axis2})"),
    "as_strided": _template("torch.as_strided({0}.ravel().clone(), {shape}, {strides}, {offset})"), "pad": _pad,
    "concat": lambda node, xs, a: f"torch.cat(({', '.join(xs)},), {a['axis']})",
    "repeat": _template("{0}.repeat({repeats})"), "slice_scatter": _slice_scatter,
    "embedding": _template("F.embedding({1}, {0})"),
    "index_select": _template("torch.index_select({0}, {axis}, {1})"),
    "gather": _template("torch.gather({0}, {axis}, {1})"), "index": _index, "scatter": _scatter,
    "index_put": _index_put, "constant": _constant, "full": _template("torch.full({shape}, {value}, dtype={dtype})"),
    "segment_reduce": _segment_reduce, "grouped_matmul": _grouped_matmul,
    "iota": _iota, "decode": _decode, "require": _require,
}  # fmt: skip
