"""PT2E's operators (`quantized_decomposed`), by which quantized programs say where integers stand.

    quantize(x)      clamp(round(x * (1 / scale)) + zero_point, low, high), as an integer
    dequantize(q)    (q - zero_point) * scale

They are written with ATen's operators, rounding for rounding as PyTorch's own kernels of them do. A weight that the
program holds as int8 is stored: its dequantization becomes `effcc::decode`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

LIBRARY = "torch.ao.quantization.fx._decomposed"
Table = dict[Any, Callable[..., Any]]


def load_operators() -> None:
    """Register the operators, which files may name."""
    importlib.import_module(LIBRARY)


def quantized_decompositions() -> Table:
    """How to write the operators with ATen's; empty as long as nobody has registered them."""
    if LIBRARY not in sys.modules:
        return {}
    made, ops = sys.modules[LIBRARY], torch.ops.quantized_decomposed
    table: Table = {
        ops.choose_qparams.tensor: _choose_affine,
        ops.choose_qparams_symmetric.tensor: _choose_symmetric,
        ops.quantize_per_tensor.tensor: _quantize_by_tensors,
        ops.quantize_per_tensor.tensor2: _quantize_by_tensors,
        ops.dequantize_per_tensor.tensor: _dequantize_by_tensors,
        ops.dequantize_per_tensor.tensor2: _dequantize_by_tensors,
    }
    for name in ("quantize_per_tensor", "dequantize_per_tensor", "quantize_per_channel", "dequantize_per_channel",
                 "quantize_per_token", "dequantize_per_token", "choose_qparams_per_token",
                 "choose_qparams_per_token_asymmetric", "dequantize_per_channel_group"):  # fmt: skip
        table[getattr(ops, name).default] = getattr(made, name)
    return table


def _choose_affine(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The scale and zero point by which the integers low..high reach from x's least to its largest, and 0."""
    least, most = torch.aminmax(x)
    least, most = (f(v, torch.zeros_like(v)) for f, v in ((torch.minimum, least), (torch.maximum, most)))
    scale = torch.maximum((most - least) / float(high - low), torch.full((1,), eps, dtype=torch.float32))
    zero = torch.clamp(low - torch.round(least / scale).to(torch.int32), low, high)
    return scale.to(torch.float64), zero.to(torch.int64)


def _choose_symmetric(x: Tensor, low: int, high: int, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    least, most = torch.aminmax(x)
    most = torch.maximum(-torch.minimum(least, torch.zeros_like(least)), torch.maximum(most, torch.zeros_like(most)))
    scale = torch.maximum(most / (float(high - low) / 2), torch.full((1,), eps, dtype=torch.float32))
    middle = 128 if dtype in (torch.uint8, torch.quint8) else 0
    return scale.to(torch.float64), torch.full((1,), middle, dtype=torch.int64)


def _quantize_by_tensors(x: Tensor, scale: Tensor, zero: Tensor, low: Any, high: Any, dtype: torch.dtype) -> Tensor:
    """As by numbers: the scale's reciprocal is taken in double precision and rounded to f32 where it multiplies."""
    factor = (1.0 / scale.to(torch.float64)).to(torch.float32).reshape(())
    moved = torch.round(x.to(torch.float32) * factor) + zero.to(torch.float32).reshape(())
    return torch.clamp(moved, low, high).to(dtype)


def _dequantize_by_tensors(
    q: Tensor, scale: Tensor, zero: Tensor, low: Any, high: Any, dtype: torch.dtype, *, out_dtype: Any = None
) -> Tensor:
    wide = out_dtype or torch.float32
    return (q.to(wide) - zero.reshape(()).to(wide)) * scale.reshape(()).to(wide)


def lower(program: ExportedProgram, table: Table) -> ExportedProgram:
    """`program.run_decompositions(table)`, but for dequantizations of weights, which become `effcc::decode`.

    A weight is a tensor of the program's in int8, with a scale for each output channel, in f32, and zero points of
    zero: what PT2E's quantizers make of weights.
    """
    if LIBRARY not in sys.modules or not _weights(program):
        return program.run_decompositions(table)
    target = torch.ops.quantized_decomposed.dequantize_per_channel.default
    lowered = program.run_decompositions({op: rule for op, rule in table.items() if op is not target})
    graph = lowered.graph_module.graph
    for node in _weights(lowered):
        node.args = ('int8(per="channel")', list(node.meta["val"].shape), list(node.args[:2]), torch.float32)
        node.target, node.kwargs = torch.ops.effcc.decode.default, {}
    lowered.graph_module.recompile()
    left = graph.find_nodes(op="call_function", target=target)
    return lowered.run_decompositions({target: table[target]}) if left else lowered


def _weights(program: ExportedProgram) -> list[fx.Node]:
    """The dequantizations of stored weights."""
    target = torch.ops.quantized_decomposed.dequantize_per_channel.default
    states = {s.arg.name: s.target for s in program.graph_signature.input_specs if s.target is not None}

    def state(node: Any) -> Tensor | None:
        name = states.get(node.name) if isinstance(node, fx.Node) else None
        held = program.state_dict.get(name, program.constants.get(name)) if name else None
        return held if isinstance(held, Tensor) else None

    found = []
    for node in program.graph_module.graph.find_nodes(op="call_function", target=target):
        values, scale, zero = map(state, node.args[:3])
        whole = values is not None and values.dtype == torch.int8 and values.ndim >= 2 and node.args[3] == 0
        centred = node.args[2] is None or (zero is not None and not zero.any())
        single = scale is not None and scale.dtype == node.meta["val"].dtype == torch.float32
        if whole and centred and single:
            found.append(node)
    return found
