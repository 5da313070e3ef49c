"""Kernels compile for GPUs that are not here, within the devices' limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from effcc.errors import ToolchainError
from effcc.gpu import TARGETS, GpuTarget, parse
from effcc.ir.dtypes import f16, f32
from effcc.ir.types import tensor
from effcc.runtime.triton_compile import GpuBinary, compile_module, load_module
from tests.codegen.triton.running import emitted, encoder_layer, fused, graph_of
from tests.codegen.triton.test_functions import functions_kernel
from tests.codegen.triton.test_kernels import CASES

triton = pytest.importorskip("triton")


@pytest.fixture(scope="module", autouse=True)
def _own_triton_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """No test sees what another run compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("triton")))
        yield


def check_limits(binary: GpuBinary, warps: int, target: GpuTarget) -> None:
    """What a kernel uses is there, and nothing was spilled to memory."""
    assert binary.shared_bytes <= target.shared_bytes
    assert binary.registers is not None and binary.registers <= target.thread_registers
    assert binary.registers * warps * target.warp <= target.registers
    assert binary.spilled_bytes == 0


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in ("sm_80", "sm_90") else pytest.mark.slow) for n in TARGETS]
)
def test_the_kernels_of_an_encoder_layer_compile_within_limits(name: str, tmp_path: Path) -> None:
    target = parse(name)
    _, text = emitted(fused(encoder_layer()), target)
    binaries = compile_module(text, target, tmp_path)
    table = load_module(text, tmp_path).KERNELS
    assert len(binaries) >= 6
    for kernel, binary in binaries.items():
        check_limits(binary, table[kernel][1], target)


@pytest.mark.parametrize("name", ["sm_80", "sm_90"])
def test_attention_compiles_to_one_kernel(name: str, tmp_path: Path) -> None:
    target = parse(name)
    build, types = CASES["attention"]
    _, text = emitted(fused(graph_of(build, *types)), target)
    (binary,) = compile_module(text, target, tmp_path).values()
    assert binary.forms["cubin"]
    check_limits(binary, 8, target)


def test_half_products_use_the_matrix_units(tmp_path: Path) -> None:
    graph = graph_of(lambda b, x, w: b.emit("linear", x, w), tensor(f16, 256, 256), tensor(f16, 256, 256))
    _, text = emitted(fused(graph))
    (binary,) = compile_module(text, parse("sm_80"), tmp_path).values()
    assert "mma.sync" in binary.forms["ptx"]


def test_fused_multiply_adds_appear_only_where_asked_for(tmp_path: Path) -> None:
    graph = graph_of(lambda b, x, y, z: b.emit("add", b.emit("mul", x, y), z), *[tensor(f32, 4096)] * 3)
    _, text = emitted(fused(graph))
    assert "enable_fp_fusion=False" in text
    (binary,) = compile_module(text, parse("sm_90"), tmp_path).values()
    assert "fma.rn" not in binary.forms["ptx"] and "mul.rn" in binary.forms["ptx"]


@pytest.mark.slow
@pytest.mark.parametrize("arity", [1, 2])
def test_every_function_compiles_for_nvidia_and_amd(arity: int, tmp_path: Path) -> None:
    from effcc.codegen.triton.spelling import SPELLINGS
    from effcc.ir.scalars import FUNCTIONS
    from tests.codegen.triton.running import program_of

    names = [n for n, s in SPELLINGS.items() if s.floats and FUNCTIONS[n].arity == arity]
    for target in ("sm_80", "gfx942"):
        _, text = emitted(program_of(functions_kernel(names, f32, arity)), parse(target))
        assert compile_module(text, parse(target), tmp_path)


def test_what_triton_refuses_is_an_error_with_its_message(tmp_path: Path) -> None:
    text = (
        "import triton\nimport triton.language as tl\n\n\n@triton.jit\ndef wrong(x):\n"
        "    tl.store(x + tl.arange(0, 3), 0.0)\n\n\nKERNELS = {'wrong': ({'x': '*fp32'}, 4, 1)}\n"
    )
    with pytest.raises(ToolchainError, match="power of 2"):
        compile_module(text, parse("sm_80"), tmp_path)
