"""Recurrent layers, one direction each: scans whose step is a product with the previous hidden state, and gates.

The input's part of all gates is one product over all steps, outside the recurrence. `x` is [time, batch, input],
states are [batch, hidden], weights [gates * hidden, ...] with gates stacked as PyTorch stacks them (LSTM: i, f, g, o;
GRU: r, z, n). With `reverse` time runs backwards, and `y[t]` is still the output at time t.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from effcc.ir.dims import Dim, dim, same, same_shape, show
from effcc.ir.dtypes import DType, i64
from effcc.ir.expr import Const, Expr, Load, add, cast, compare, integer, multiply, where
from effcc.ir.form import FormBuilder, call, constant
from effcc.ir.op import Op, Types, require
from effcc.ir.table.products import require_one_dtype, require_vector, wide
from effcc.ir.types import TensorType


def _infer(states: int, gates: int, operands: Types, attrs: Mapping[str, Any]) -> Types:
    """The types of [y, *final states] for operands (x, *states, w_ih, w_hh[, b_ih, b_hh])."""
    x, state = operands[0], operands[1]
    require_one_dtype(operands)
    require(x.dtype.is_float, f"needs a floating dtype, got {x.dtype.name}")
    require(x.rank == 3, f"x must be [time, batch, input], got rank {x.rank}")
    require(len(operands) - states in (3, 5), "needs two weights, and either both biases or none")
    for other in operands[1 : 1 + states]:
        require(
            other.rank == 2 and same(other.shape[0], x.shape[1]) and same(other.shape[1], state.shape[1]),
            f"a state must be [batch, hidden], got {other}",
        )
    hidden = state.shape[1]
    rows = dim(gates * hidden)
    for weight, columns in zip(operands[1 + states : 3 + states], (x.shape[2], hidden), strict=True):
        require(
            same_shape(weight.shape, (rows, columns)),
            f"a weight must be [{show(rows)},{show(columns)}], got {weight}",
        )
    for bias in operands[3 + states :]:
        require_vector(bias, rows, "a bias")
    return (TensorType(x.dtype, (*x.shape[:2], hidden)), *(TensorType(x.dtype, state.shape) for _ in range(states)))


class _Scan:
    """What the forms of all cells share: the axes, the products, and a state's value one step before."""

    def __init__(self, b: FormBuilder, states: int, gates: int) -> None:
        self.b, self.states, self.gates = b, states, gates
        self.steps, self.batch, self.inputs = b.operands[0].type.shape
        self.hidden: Dim = b.operands[1].type.shape[1]
        self.dtype: DType = b.operands[0].type.dtype
        self.wide = self.dtype.accumulator
        self.from_input = self._input_products()
        self.t, self.n, self.j = b.axis(self.steps, "t"), b.axis(self.batch, "n"), b.axis(self.hidden, "j")
        b.scans.append(self.t.name)

    def time(self, t: Expr) -> Expr:
        """The time of step `t`."""
        if not self.b.attrs["reverse"]:
            return t
        return add(multiply(t, integer(-1)), integer(dim(self.steps - 1)))

    def _input_products(self) -> Load:
        """`A[t,n,g,j] = sum(k: X[time(t),n,k] * W_ih[g*hidden + j,k]) (+ b_ih)`, for all steps at once."""
        b = self.b
        t, n, g, j = axes = (
            b.axis(self.steps, "s"), b.axis(self.batch, "n"), b.axis(self.gates, "g"), b.axis(self.hidden, "j"),
        )  # fmt: skip
        k, row = b.axis(self.inputs, "k"), add(multiply(g, integer(self.hidden)), j)
        x, w = b.load(0, (self.time(t), n, k)), b.load(1 + self.states, (row, k))
        total = b.temporary(axes, b.reduce("sum", (k,), call("mul", cast(x, self.wide), cast(w, self.wide))))
        if not self.has_biases:
            return total
        return b.temporary(axes, call("add", total, cast(b.load(3 + self.states, (row,)), self.wide)))

    @property
    def has_biases(self) -> bool:
        return len(self.b.operands) > 3 + self.states

    def before(self, name: str, state: int, index: Expr, dtype: DType) -> Expr:
        """The state stored under `name`, one step before; at the first step the operand that it starts from."""
        earlier = Load(name, (add(self.t, Const(-1, i64)), self.n, index), dtype)
        start = cast(self.b.load(1 + state, (self.n, index)), dtype)
        return where(compare("gt", self.t, Const(0, i64)), earlier, start)

    def hidden_products(self, name: str) -> Load:
        """`R[t,n,g,j] = sum(l: h[t-1,n,l] * W_hh[g*hidden + j,l]) (+ b_hh)`."""
        b = self.b
        g, inner = b.axis(self.gates, "g"), b.axis(self.hidden, "l")
        axes, row = (self.t, self.n, g, self.j), add(multiply(g, integer(self.hidden)), self.j)
        h = cast(self.before(name, 0, inner, self.dtype), self.wide)
        w = cast(b.load(2 + self.states, (row, inner)), self.wide)
        total = b.temporary(axes, b.reduce("sum", (inner,), call("mul", h, w)))
        if not self.has_biases:
            return total
        return b.temporary(axes, call("add", total, cast(b.load(4 + self.states, (row,)), self.wide)))

    def gate(self, products: Load, gate: int) -> Expr:
        """One gate's element of products over all gates."""
        return Load(products.buffer, (self.t, self.n, Const(gate, i64), self.j), products.dtype)

    def output_name(self) -> str:
        """Where the hidden state of each step is stored: the result itself, unless time runs backwards."""
        return self.b.fresh() if self.b.attrs["reverse"] else self.b.results[0].name

    def finish(self, names: Sequence[str]) -> None:
        """Define y, where it is not the hidden states as they are, and the final states."""
        b = self.b
        if b.attrs["reverse"]:
            axes = b.axes((self.steps, self.batch, self.hidden), "o")
            b.define(axes, Load(names[0], (self.time(axes[0]), *axes[1:]), self.dtype))
        for state, name in enumerate(names):
            axes = b.axes((self.batch, self.hidden), "o")
            stored = self.dtype if state == 0 else self.wide
            b.define(axes, Load(name, (integer(dim(self.steps - 1)), *axes), stored), result=1 + state)


def _lstm(b: FormBuilder) -> None:
    """`i, f, o = sigmoid(...)`, `g = tanh(...)`, `c = f * c' + i * g`, `h = o * tanh(c)`."""
    scan = _Scan(b, states=2, gates=4)
    output, cell = scan.output_name(), b.fresh()
    products = scan.hidden_products(output)

    def gate(k: int) -> Expr:
        return call("add", scan.gate(scan.from_input, k), scan.gate(products, k))

    axes = (scan.t, scan.n, scan.j)
    kept = call("mul", call("sigmoid", gate(1)), scan.before(cell, 1, scan.j, scan.wide))
    written = call("mul", call("sigmoid", gate(0)), call("tanh", gate(2)))
    c = b.temporary(axes, call("add", kept, written), name=cell)
    b.temporary(axes, cast(call("mul", call("sigmoid", gate(3)), call("tanh", c)), scan.dtype), name=output)
    scan.finish((output, cell))


def _gru(b: FormBuilder) -> None:
    """`r, z = sigmoid(...)`, `n = tanh(in + r * hn)`, `h = (1 - z) * n + z * h'`."""
    scan = _Scan(b, states=1, gates=3)
    output = scan.output_name()
    products = scan.hidden_products(output)

    def gate(k: int) -> Expr:
        return call("sigmoid", call("add", scan.gate(scan.from_input, k), scan.gate(products, k)))

    axes = (scan.t, scan.n, scan.j)
    update = b.temporary(axes, gate(1))
    fresh = call("tanh", call("add", scan.gate(scan.from_input, 2), call("mul", gate(0), scan.gate(products, 2))))
    kept = call("mul", update, cast(scan.before(output, 0, scan.j, scan.dtype), scan.wide))
    h = call("add", call("mul", call("sub", constant(1, update), update), fresh), kept)
    b.temporary(axes, cast(h, scan.dtype), name=output)
    scan.finish((output,))


def _rnn(b: FormBuilder) -> None:
    """`h = activation(input part + hidden part)`."""
    scan = _Scan(b, states=1, gates=1)
    output = scan.output_name()
    products = scan.hidden_products(output)
    total = call("add", scan.gate(scan.from_input, 0), scan.gate(products, 0))
    h = call("tanh", total) if b.attrs["activation"] == "tanh" else call("maximum", total, constant(0, total))
    b.temporary((scan.t, scan.n, scan.j), cast(h, scan.dtype), name=output)
    scan.finish((output,))


def _infer_rnn(operands: Types, attrs: Mapping[str, Any]) -> Types:
    require(attrs["activation"] in ("tanh", "relu"), f"activation must be tanh or relu, got {attrs['activation']!r}")
    return _infer(1, 1, operands, attrs)


# --- references ----------------------------------------------------------------------------------------------------


def _sigmoid(x: Any) -> Any:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def _lstm_step(a: Any, r: Any, state: list[Any]) -> list[Any]:
    i, f, g, o = np.split(a + r, 4, axis=-1)
    c = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
    return [_sigmoid(o) * np.tanh(c), c]


def _gru_step(a: Any, r: Any, state: list[Any]) -> list[Any]:
    (ar, az, an), (hr, hz, hn) = np.split(a, 3, axis=-1), np.split(r, 3, axis=-1)
    z = _sigmoid(az + hz)
    return [(1 - z) * np.tanh(an + _sigmoid(ar + hr) * hn) + z * state[0]]


def _run(step: Any, states: int, operands: Sequence[Any], reverse: bool) -> tuple[Any, ...]:
    x, *rest = (wide(o) for o in operands)
    state, (w_ih, w_hh, *biases) = list(rest[:states]), rest[states:]
    b_ih, b_hh = biases or (0.0, 0.0)
    y = np.zeros((*x.shape[:2], state[0].shape[1]))
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        state = step(x[t] @ w_ih.T + b_ih, state[0] @ w_hh.T + b_hh, state)
        y[t] = state[0]
    return tuple(a.astype(operands[0].dtype) for a in (y, *state))


def _rnn_reference(*operands: Any, activation: str, reverse: bool) -> tuple[Any, ...]:
    def step(a: Any, r: Any, state: list[Any]) -> list[Any]:
        return [np.tanh(a + r) if activation == "tanh" else np.maximum(a + r, 0)]

    return _run(step, 1, operands, reverse)


OPS: list[Op] = [
    Op("lstm", "scan", (5, 7), lambda t, a: _infer(2, 4, t, a),
       lambda *operands, reverse: _run(_lstm_step, 2, operands, reverse),
       "one direction of an LSTM layer: (x, h, c, w_ih, w_hh[, b_ih, b_hh]) to (y, h, c)", {"reverse": False}, _lstm),
    Op("gru", "scan", (4, 6), lambda t, a: _infer(1, 3, t, a),
       lambda *operands, reverse: _run(_gru_step, 1, operands, reverse),
       "one direction of a GRU layer: (x, h, w_ih, w_hh[, b_ih, b_hh]) to (y, h)", {"reverse": False}, _gru),
    Op("rnn", "scan", (4, 6), _infer_rnn, _rnn_reference,
       "one direction of an Elman layer: (x, h, w_ih, w_hh[, b_ih, b_hh]) to (y, h)",
       {"activation": "tanh", "reverse": False}, _rnn),
]  # fmt: skip
