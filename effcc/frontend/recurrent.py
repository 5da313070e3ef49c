"""Recurrent layers, captured whole.

PyTorch's own traces either leave `nn.LSTM` and its kin out of the graph or unroll them step by step. effcc keeps each
layer and direction as one operator instead, which the importer turns into a scan:

    effcc::recurrent(str cell, Tensor x, Tensor[] state, Tensor[] weights, bool reverse) -> Tensor[]

`cell` is "lstm", "gru", "rnn_tanh" or "rnn_relu"; `x` is [time, batch, input]; `state` is [h] or, for an LSTM, [h,
c], each [batch, hidden]; `weights` is [w_ih, w_hh], then [b_ih, b_hh] where the layer has biases, then [w_hr] where
an LSTM projects its output. The results are [y, h] or [y, h, c], with `y` [time, batch, hidden]. With `reverse` time
runs backwards and `y[t]` is still the output at time t. Gates are stacked in PyTorch's order (LSTM: i, f, g, o; GRU:
r, z, n).

The operator's eager meaning is PyTorch's own layer, so that a graph that holds it runs anywhere, and its gradient is
PyTorch's too (`effcc::recurrent_grad`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

_EAGER: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "lstm": torch.lstm,
    "gru": torch.gru,
    "rnn_tanh": torch.rnn_tanh,
    "rnn_relu": torch.rnn_relu,
}


def _run_layer(cell: str, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], reverse: bool) -> list[Tensor]:
    hidden = [s.unsqueeze(0) for s in state]
    has_biases = len(weights) >= 4
    y, *final = _EAGER[cell](
        x.flip(0) if reverse else x, hidden if cell == "lstm" else hidden[0], list(weights), has_biases, 1, 0.0, False,
        False, False,
    )  # fmt: skip
    return [y.flip(0) if reverse else y, *(f.squeeze(0) for f in final)]


@torch.library.custom_op("effcc::recurrent", mutates_args=())
def recurrent(cell: str, x: Tensor, state: list[Tensor], weights: list[Tensor], reverse: bool) -> list[Tensor]:
    """One direction of one recurrent layer over a whole sequence; see the module's docstring."""
    return [result.clone() for result in _run_layer(cell, x, state, weights, reverse)]  # results must not alias


@recurrent.register_fake
def _(cell: str, x: Tensor, state: list[Tensor], weights: list[Tensor], reverse: bool) -> list[Tensor]:
    return [x.new_empty(x.shape[0], x.shape[1], state[0].shape[1]), *(s.new_empty(s.shape) for s in state)]


@torch.library.custom_op("effcc::recurrent_grad", mutates_args=())
def recurrent_grad(
    cell: str, x: Tensor, state: list[Tensor], weights: list[Tensor], reverse: bool, grads: list[Tensor]
) -> list[Tensor]:
    """Gradients of `recurrent` for [x, *state, *weights], given those of its results; runs the layer again."""
    # An operator's body runs below autograd; the guard lifts that for this block.
    excluded = torch._C._dispatch_tls_local_exclude_set().remove(torch._C.DispatchKey.AutogradFunctionality)
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (x, *state, *weights)]
        split = 1 + len(state)
        results = _run_layer(cell, leaves[0], leaves[1:split], leaves[split:], reverse)
        return [g.clone() for g in torch.autograd.grad(results, leaves, grads)]


@recurrent_grad.register_fake
def _(
    cell: str, x: Tensor, state: list[Tensor], weights: list[Tensor], reverse: bool, grads: list[Tensor]
) -> list[Tensor]:
    return [t.new_empty(t.shape) for t in (x, *state, *weights)]


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.cell, x, state, weights, ctx.reverse = inputs
    ctx.states, ctx.shapes = len(state), output
    ctx.save_for_backward(x, *state, *weights)


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    x, *rest = ctx.saved_tensors
    state, weights = rest[: ctx.states], rest[ctx.states :]
    filled = [g if g is not None else torch.zeros_like(o) for g, o in zip(grads, ctx.shapes, strict=True)]
    gx, *others = recurrent_grad(ctx.cell, x, state, weights, ctx.reverse, filled)
    return None, gx, others[: ctx.states], others[ctx.states :], None


recurrent.register_autograd(_backward, setup_context=_save_for_backward)


def run_layers(
    cell: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...]:
    """A stack of recurrent layers, as `torch.lstm` and its kin take it, written with one `recurrent` a direction."""
    directions = 2 if bidirectional else 1
    per_direction = len(weights) // (layers * directions)
    if batch_first:
        x = x.transpose(0, 1)
    finals: list[list[Tensor]] = []
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            own = list(weights[index * per_direction : (index + 1) * per_direction])
            y, *final = recurrent(cell, x, [s[index] for s in states], own, direction == 1)
            outputs.append(y)
            finals.append(final)
        x = torch.cat(outputs, dim=-1) if bidirectional else outputs[0]
        if train and dropout > 0.0 and layer < layers - 1:
            x = torch.dropout(x, dropout, True)
    y = x.transpose(0, 1) if batch_first else x
    return (y, *(torch.stack(parts) for parts in zip(*finals, strict=True)))


def lstm(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """`torch.lstm`, written with `recurrent`."""
    return run_layers("lstm", x, states, weights, *options)


def gru(x: Tensor, state: Tensor, weights: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """`torch.gru`, written with `recurrent`."""
    return run_layers("gru", x, [state], weights, *options)


def rnn_tanh(x: Tensor, state: Tensor, weights: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """`torch.rnn_tanh`, written with `recurrent`."""
    return run_layers("rnn_tanh", x, [state], weights, *options)


def rnn_relu(x: Tensor, state: Tensor, weights: Sequence[Tensor], *options: Any) -> tuple[Tensor, ...]:
    """`torch.rnn_relu`, written with `recurrent`."""
    return run_layers("rnn_relu", x, [state], weights, *options)


_STACKS: dict[Any, Callable[..., tuple[Tensor, ...]]] = {
    torch.lstm: lstm,
    torch.gru: gru,
    torch.rnn_tanh: rnn_tanh,
    torch.rnn_relu: rnn_relu,
    torch.ops.aten.lstm.input: lstm,
    torch.ops.aten.gru.input: gru,
    torch.ops.aten.rnn_tanh.input: rnn_tanh,
    torch.ops.aten.rnn_relu.input: rnn_relu,
}

DECOMPOSITIONS = {op: stack for op, stack in _STACKS.items() if isinstance(op, torch._ops.OpOverload)}


def keep_recurrent_layers(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Point every recurrent call of a Dynamo graph at its stack of `recurrent` operators, in place.

    Packed sequences (their weights come fourth, not third) keep PyTorch's operator.
    """
    for node in graph_module.graph.nodes:
        if node.op == "call_function" and node.target in _STACKS and isinstance(node.args[2], list | tuple):
            node.target = _STACKS[node.target]
    graph_module.recompile()
    return graph_module


def let_recurrent_layers_through() -> None:
    """Tell Dynamo not to break graphs at `nn.LSTM`, `nn.GRU` and `nn.RNN`, in this process.

    torch.compile offers a backend no narrower place for this: the setting is read while tracing, before the backend
    runs.
    """
    torch._dynamo.config.allow_rnn = True
