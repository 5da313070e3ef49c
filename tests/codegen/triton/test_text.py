"""What Triton text looks like: it is read by people."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

from effcc.codegen.lower import lower
from effcc.codegen.triton.sizes import size_text
from effcc.errors import UnsupportedError
from effcc.ir.dims import ceil_div, dim, symbol
from effcc.ir.interpreter import run_kernel, run_loops
from effcc.ir.loops import LoopNest
from effcc.ir.parser import parse_kernel, parse_loops
from effcc.ir.printer import print_loops
from effcc.passes.tiling.gpu import choose_gpu
from tests.codegen.triton.running import SM_80, drawn, emitted, program_of

LINEAR = """
kernel @linear(X: f32[20,40], W: f32[50,40], B: f32[50]) -> (Y: f32[20,50]) over m=20, n=50, k=40 {
  S[m,n] = sum(k: X[m,k] * W[n,k])
  Y[m,n] = S[m,n] + B[n]
}
"""

SOFTMAX = """
kernel @softmax(X: f32[6,50]) -> (P: f32[6,50]) over i=6, n=50 {
  M[i] = max(n: X[i,n])
  E[i,n] = exp(X[i,n] - M[i])
  D[i] = sum(n: E[i,n])
  P[i,n] = E[i,n] / D[i]
}
"""

PAD = """
kernel @pad(X: f32[8]) -> (Y: f32[16]) over i=16 {
  Y[i] = where(i < 8, X[i], 1.5)
}
"""


def function_of(text: str) -> str:
    """The last Triton function of the module of a kernel, without its comments."""
    _, module = emitted(program_of(parse_kernel(text)))
    function = module.split("@triton.jit\n")[-1].split("\n\n\n")[0]
    return "\n".join(line for line in function.splitlines() if not line.strip().startswith("#"))


def test_a_product_is_a_loop_over_blocks_of_its_depth() -> None:
    assert function_of(LINEAR) == (
        "def linear(X, W, B, Y):\n"
        "    program = tl.program_id(0)\n"
        "    n_0 = program % 4 * 16\n"
        "    m_0 = program // 4 * 16\n"
        "    m = m_0 + tl.arange(0, 16)\n"
        "    m_inside = m < 20\n"
        "    n = n_0 + tl.arange(0, 16)\n"
        "    n_inside = n < 50\n"
        "    k = tl.arange(0, 64)\n"
        "    k_inside = k < 40\n"
        "    X_block = tl.load(X + ((m * 40)[:, None] + k[None, :]), "
        "mask=m_inside[:, None] & k_inside[None, :], other=0.0)\n"
        "    W_block = tl.load(W + ((n * 40)[None, :] + k[:, None]), "
        "mask=k_inside[:, None] & n_inside[None, :], other=0.0)\n"
        '    S = tl.dot(X_block, W_block, input_precision="ieee")\n'
        "    B_block = tl.load(B + n, mask=n_inside, other=0.0)\n"
        "    tl.store(Y + ((m * 50)[:, None] + n[None, :]), S + B_block[None, :], "
        "mask=m_inside[:, None] & n_inside[None, :])"
    )


def test_a_row_is_loaded_once_and_stays_in_registers() -> None:
    text = function_of(SOFTMAX)
    assert text.count("tl.load") == 2, "once with -inf beyond the row for the maximum, once for the exponential"
    assert text.count("tl.store") == 1
    assert "    M = tl.reduce(X_block, 0, larger)" in text


def test_a_branch_is_a_mask_with_its_other_value() -> None:
    assert "tl.load(X + i, mask=i < 8, other=1.5)" in function_of(PAD)


def test_the_head_of_a_function_shows_its_kernel_and_its_schedule() -> None:
    _, module = emitted(program_of(parse_kernel(LINEAR)))
    assert "#   S[m,n] = sum(k: X[m,k] * W[n,k])" in module
    assert "# sm_80: blocks m 16, n 16, k 64; " in module


def test_the_same_kernel_prints_the_same_module() -> None:
    assert emitted(program_of(parse_kernel(SOFTMAX)))[1] == emitted(program_of(parse_kernel(SOFTMAX)))[1]


def test_buffers_named_like_keywords_and_library_functions_get_other_names() -> None:
    text = "kernel @sigmoid(tl: f32[4], range: f32[4]) -> (tanh: f32[4]) over i=4 {\n  tanh[i] = tl[i] + range[i]\n}\n"
    assert "def sigmoid_1(tl_1, range_1, tanh_1):" in function_of(text)


def nest_of(text: str) -> tuple[LoopNest, object]:
    kernel = parse_kernel(text)
    ((part, schedule),) = choose_gpu(kernel, SM_80)
    return lower(part, schedule), kernel


@pytest.mark.parametrize("text", [LINEAR, SOFTMAX, PAD])
def test_a_nest_of_blocks_is_a_loop_nest_like_any_other(text: str) -> None:
    nest, kernel = nest_of(text)
    assert parse_loops(print_loops(nest)) == nest
    inputs = {p.name: drawn(p.type, {}, n) for n, p in enumerate(nest.params)}
    wanted = run_kernel(kernel, inputs)  # type: ignore[arg-type]
    for name, found in run_loops(nest, inputs).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("index", "wide"),
    [("i,j", "i_j_0 = tl.program_id(0).to(tl.int64) * 1024"), ("j,i", "(i.to(tl.int64) * 70000)[:, None]")],
)
def test_large_buffers_are_indexed_with_64_bits(index: str, wide: str) -> None:
    """Along one axis that is that long, or along two."""
    text = "kernel @copy(X: f32[70000,70000]) -> (Y: f32[70000,70000]) over i=70000, j=70000 {\n  Y[i,j] = X[%s]\n}\n"
    assert wide in function_of(text % index)


def test_sizes_are_python_expressions() -> None:
    s0, s1 = symbol("s0"), symbol("s1")
    assert size_text(2 * s0 + 1) == "2 * s0 + 1"
    assert size_text(s0 * (s1 + 3)) == "s0 * (s1 + 3)"
    assert size_text(ceil_div(s0, 16)) == "(s0 + 15) // 16"
    below = size_text(dim(sympy.floor((s0 - s1) / 3)))
    assert [eval(below, {"s0": n, "s1": 5}) for n in range(9)] == [(n - 5) // 3 for n in range(9)]


RUNNING_SUM = """
kernel @running(X: f32[4,9]) -> (H: f32[4,9]) over i=4, t=9 scan {axes} {{
  H[i,t] = where(t > 0, H[i,t - 1], 0.0) + X[i,t]
}}
"""


def test_a_recurrence_waits_before_it_reads_what_it_stored() -> None:
    lines = [line.strip() for line in function_of(RUNNING_SUM.format(axes="t")).splitlines()]
    store = next(n for n, line in enumerate(lines) if line.startswith("tl.store(H"))
    assert lines[store + 1] == "tl.debug_barrier()"
    assert any(line.startswith("for t_0 in range(0, 9, 1)") for line in lines)


def test_a_nested_recurrence_is_refused_with_what_to_do() -> None:
    with pytest.raises(UnsupportedError, match="expected one axis to run in order, got i, t; compile it for the CPU"):
        choose_gpu(parse_kernel(RUNNING_SUM.format(axes="i, t")), SM_80)


def test_dtypes_of_arguments_are_listed_for_the_compiler() -> None:
    text = "kernel @take(I: i64[4], X: bf16[9]) -> (Y: bf16[4]) over i=4 {\n  Y[i] = X[I[i]]\n}\n"
    _, module = emitted(program_of(parse_kernel(text)))
    assert '"take": ({"I": "*i64", "X": "*bf16", "Y": "*bf16"}' in module
