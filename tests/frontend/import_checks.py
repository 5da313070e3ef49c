"""What tests of the importer share: from a module to its imported graph, and that graph run by the interpreter."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from effcc.frontend import capture, recurrent
from effcc.frontend.aten import Imported, import_graph
from effcc.frontend.extern import bind
from effcc.ir.dims import evaluate
from effcc.ir.graph import Node, Value
from effcc.ir.interpreter import run_graph
from effcc.ir.verifier import verify_graph
from tests.ir.test_ops_against_torch import to_numpy, to_torch


@dataclasses.dataclass(frozen=True)
class Trace:
    """One captured graph, what it was imported as, and the values its placeholders had at the call."""

    module: fx.GraphModule
    imported: Imported
    arguments: tuple[Any, ...]

    def eager(self) -> list[Any]:
        """The captured graph's results by PyTorch's kernels."""
        copies = [a.clone() if isinstance(a, Tensor) else a for a in self.arguments]
        return list(self.module(*copies))

    def interpreted(self) -> list[Any]:
        """The imported graph's results by NumPy; externs by PyTorch."""
        sizes = {name: r.value(self.arguments) for name, r in self.imported.readings.items()}
        given = zip(self.imported.inputs, self.arguments, strict=True)
        arrays = [to_numpy(a.detach()) for known, a in given if isinstance(known, Value)]
        arrays += [to_numpy(c) for c in self.imported.constants.values()]
        arrays += [np.zeros(sizes[name], bool) for name in self.imported.lone_sizes]

        def extern(node: Node, operands: list[Any]) -> list[Any]:
            return [to_numpy(r) for r in bind(node)([to_torch(o) for o in operands], sizes)]

        values = iter(run_graph(self.imported.graph, arrays, sizes, externs=extern))
        found: list[Any] = []
        for output in self.imported.outputs:
            if isinstance(output, Value):
                found.append(to_torch(next(values)))
            else:
                found.append(evaluate(output, sizes) if hasattr(output, "free_symbols") else output)
        return found

    @property
    def ops(self) -> list[str]:
        return [n.op for n in self.imported.graph.nodes]


def trace(model: Any, *args: Any, gradients: bool = False, dynamic: bool | None = False) -> Trace:
    """Capture and import `model(*args)` as torch.compile would: its one graph, the forward half where `gradients`."""
    found: list[Trace] = []

    def compile_fx(module: fx.GraphModule, inputs: Sequence[Any], signature: capture.Signature) -> Any:
        imported = import_graph(module, signature)
        verify_graph(imported.graph)

        def call(*arguments: Any) -> Any:
            found.append(Trace(module, imported, arguments))
            return module(*arguments)

        return call

    recurrent.let_recurrent_layers_through()
    torch._dynamo.reset()
    compiled: Any = torch.compile(
        model, backend=lambda g, i: capture.aot_backend(g, i, compile_fx), fullgraph=True, dynamic=dynamic
    )
    with torch.set_grad_enabled(gradients):
        compiled(*args)
    return found[0]


def function(f: Any) -> nn.Module:
    """A module whose forward is `f`."""

    class Calls(nn.Module):
        def forward(self, *args: Any) -> Any:
            return f(*args)

    return Calls()


def assert_same(got: Sequence[Any], expected: Sequence[Any], tolerance: float = 1e-5) -> None:
    """Equal in structure, dtype and shape; floats within `tolerance`, integers exactly."""
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        if not isinstance(b, Tensor):
            assert a == b
            continue
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
