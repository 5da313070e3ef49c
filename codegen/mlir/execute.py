"""Runs an emitted MLIR module with the bindings' own execution engine: an implementation to disagree with."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.errors import ToolchainError
from effcc.ir.graph import Graph

PIPELINE = (
    "builtin.module("
    "one-shot-bufferize{bufferize-function-boundaries=true function-boundary-type-conversion=identity-layout-map},"
    "buffer-results-to-out-params{modify-public-functions=true},"
    "func.func(convert-linalg-to-loops),func.func(expand-strided-metadata),lower-affine,convert-scf-to-cf,"
    "func.func(arith-expand),convert-math-to-llvm,convert-math-to-libm,convert-arith-to-llvm,finalize-memref-to-llvm,"
    "convert-func-to-llvm,convert-cf-to-llvm,convert-index-to-llvm,reconcile-unrealized-casts)"
)


def verify_module(text: str) -> None:
    """Parse and verify an MLIR module. Raises ToolchainError with MLIR's message if it does not hold."""
    ir = _bindings()
    with ir.Context():
        try:
            module = ir.Module.parse(text)
        except Exception as error:  # the bindings raise their own MLIRError
            raise ToolchainError(f"MLIR does not accept the emitted module: {error}") from error
        if not module.operation.verify():
            raise ToolchainError("MLIR's verifier refuses the emitted module")


def run_module(text: str, graph: Graph, inputs: Sequence[Any]) -> list[Any]:
    """Compile a module that `emit_graph` made of `graph` and run it on NumPy arrays, one for each parameter.

    Raises ToolchainError where MLIR refuses the module or cannot lower it.
    """
    ir = _bindings()
    from torch_mlir.execution_engine import ExecutionEngine
    from torch_mlir.passmanager import PassManager
    from torch_mlir.runtime import get_ranked_memref_descriptor

    with ir.Context():
        try:
            module = ir.Module.parse(text)
            PassManager.parse(PIPELINE).run(module.operation)
            engine = ExecutionEngine(module, opt_level=2)
        except Exception as error:  # the bindings raise their own MLIRError
            raise ToolchainError(f"MLIR cannot compile the emitted module: {error}") from error
        arrays = [np.ascontiguousarray(a, p.type.dtype.numpy) for a, p in zip(inputs, graph.params, strict=True)]
        results = [np.zeros([int(d) for d in v.type.shape], v.type.dtype.numpy) for v in graph.results]
        described = [get_ranked_memref_descriptor(a) for a in (*arrays, *results)]
        engine.invoke("main", *[ctypes.pointer(ctypes.pointer(d)) for d in described])
    return results


def _bindings() -> Any:
    try:
        from torch_mlir import ir
    except ImportError as error:
        raise ToolchainError("the MLIR bindings are missing: pip install 'effcc[mlir]'") from error
    return ir
