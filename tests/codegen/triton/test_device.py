"""The same kernels on a real GPU, where there is one."""

from __future__ import annotations

import pytest

from effcc.runtime.triton_run import run_on_device
from tests.codegen.triton.running import check_graph, graph_of
from tests.codegen.triton.test_kernels import CASES

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can reach")

GPU_FUNCTIONS = 2e-5
"""Relative to the largest element: exponentials of GPUs are a few units in the last place off."""


@pytest.mark.parametrize("name", CASES)
def test_a_gpu_agrees_with_the_reference(name: str) -> None:
    build, types = CASES[name]
    sizes = {"s0": 45} if any(not isinstance(d, int) for t in types for d in t.shape) else {}
    check_graph(graph_of(build, *types), run_on_device, within=GPU_FUNCTIONS, **sizes)
