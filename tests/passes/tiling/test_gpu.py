"""Schedules for GPUs: launches compute what the kernel does, blocks fit the device, and the model is readable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effcc.errors import ScheduleError, UnknownNameError, UnsupportedError
from effcc.gpu import TARGETS, parse
from effcc.ir.interpreter import run_kernel, run_program
from effcc.ir.kernel import Kernel
from effcc.ir.parser import parse_kernel, parse_program
from effcc.ir.schedule import Loop, Schedule, nodes
from effcc.passes.tiling.gpu import choose_gpu, shared_axes_of, tile_gpu
from effcc.passes.tiling.gpu_model import BlockModel, block_product, power_of_two
from effcc.passes.tiling.nests import plan_nests
from effcc.passes.tiling.stages import cut_stages, recompute

SM_80 = parse("sm_80")

MATMUL = """
kernel @matmul(A: f32[{m},{k}], B: f32[{k},{n}]) -> (C: f32[{m},{n}]) over m={m}, n={n}, k={k} {{
  C[m,n] = sum(k: A[m,k] * B[k,n])
}}
"""

CENTERED = """
kernel @centered(X: f32[6,50]) -> (Y: f32[6,50]) over i=6, n=50, r=50 {
  Q[i,n] = X[i,n] * X[i,n]
  M[i] = sum(r: Q[i,r])
  Y[i,n] = Q[i,n] - M[i]
}
"""

SHIFTED = """
kernel @shifted(X: f32[8,4]) -> (Y: f32[8]) over i=8, k=4 {
  S[i] = sum(k: X[i,k])
  Y[i] = S[i] + where(i > 0, S[i - 1], 0.0)
}
"""

SCATTERED = """
kernel @scattered(X: f32[5], I: i64[9], U: f32[9]) -> (Y: f32[5]) over i=5, j=9 {
  Y[i] = X[i]
  Y[I[j]] add= U[j] for j
}
"""

LONG_ROWS = """
kernel @softmax(X: f32[3,20000]) -> (P: f32[3,20000]) over i=3, n=20000 {
  M[i] = max(n: X[i,n])
  E[i,n] = exp(X[i,n] - M[i])
  D[i] = sum(n: E[i,n])
  P[i,n] = E[i,n] / D[i]
}
"""

WIDE_SCORES = """
kernel @scores(Q: f32[64,32], K: f32[4096,32]) -> (P: f32[64,4096]) over m=64, n=4096, k=32 {
  S[m,n] = sum(k: Q[m,k] * K[n,k])
  M[m] = max(n: S[m,n])
  P[m,n] = exp(S[m,n] - M[m])
}
"""


def matmul(m: int, n: int, k: int) -> Kernel:
    return parse_kernel(MATMUL.format(m=m, n=n, k=k))


def in_turn(parts: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The buffers after running kernels one after the other."""
    known = dict(inputs)
    for part in parts:
        wanted = {p.name for p in (*part.params, *part.outputs)} & known.keys()
        known |= run_kernel(part, {name: known[name] for name in wanted})
    return known


@pytest.mark.parametrize(("text", "launches"), [(CENTERED, 1), (SHIFTED, 2), (LONG_ROWS, 1), (WIDE_SCORES, 2)])
def test_launches_in_turn_compute_the_kernel(text: str, launches: int) -> None:
    kernel = parse_kernel(text)
    chosen = choose_gpu(kernel, SM_80)
    assert len(chosen) == launches
    rng = np.random.default_rng(0)
    inputs = {p.name: rng.standard_normal(p.type.shape).astype(np.float32) for p in kernel.params}
    found, wanted = in_turn([part for part, _ in chosen], inputs), run_kernel(kernel, inputs)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def test_a_pointwise_result_read_elsewhere_is_computed_again() -> None:
    (only,) = cut_stages(parse_kernel(CENTERED))
    assert [s.target for s in only.statements] == ["M", "Y"]


def test_a_reduction_read_elsewhere_ends_the_launch_and_goes_through_memory() -> None:
    first, second = cut_stages(parse_kernel(SHIFTED))
    assert [p.name for p in first.outputs] == ["S"] == [p.name for p in second.params]
    assert [a for a, _ in second.axes] == ["i"]


def test_a_ragged_axis_is_refused_with_its_name() -> None:
    kernel = parse_kernel("""
    kernel @rows(P: i64[5], V: f32[9]) -> (Y: f32[4]) over i=4, j=9 {
      Y[i] = sum(j in P[i]..P[i + 1]: V[j])
    }""")
    with pytest.raises(UnsupportedError, match="no block of a GPU covers the ragged axis j"):
        choose_gpu(kernel, SM_80)


def test_recomputing_leaves_what_is_read_at_its_own_point() -> None:
    kernel = parse_kernel(LONG_ROWS)
    assert recompute(kernel, frozenset()) == kernel
    assert [s.target for s in recompute(kernel, {"n"}).statements] == ["M", "D", "P"]


def test_launches_of_a_kernel_take_no_other_kernel_s_name() -> None:
    other = "kernel @shifted_1(X: f32[8]) -> (Y: f32[8]) over i=8 {\n  Y[i] = -X[i]\n}\n"
    program = parse_program(f"""program @p(x, z) -> (y, w) {{
      buffer x: f32[8,4] in input
      buffer z: f32[8] in input
      buffer y: f32[8] in output
      buffer w: f32[8] in output
      {SHIFTED}
      {other}
      main {{
        launch @shifted(x) -> (y)
        launch @shifted_1(z) -> (w)
      }}
    }}""")
    tiled, schedules = tile_gpu(program, SM_80)
    assert set(tiled.kernels) == set(schedules) and len(tiled.kernels) == 3
    inputs = [np.arange(32, dtype=np.float32).reshape(8, 4), np.arange(8, dtype=np.float32)]
    for got, expected in zip(run_program(tiled, inputs), run_program(program, inputs), strict=True):
        np.testing.assert_array_equal(got, expected)


def steps(schedule: Schedule, kind: str = "") -> dict[str, int]:
    """The step of each axis's loops, of those of one kind or of all."""
    loops = (node for _, node in nodes(schedule.body) if isinstance(node, Loop))
    return {x.axis: x.step for x in loops if kind in ("", x.kind)}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("shape", [(32, 384, 384), (4096, 4096, 4096), (16, 16, 16), (1000, 77, 65), (3, 5, 7)])
def test_blocks_of_a_product_fit_the_device(name: str, shape: tuple[int, int, int]) -> None:
    target = parse(name)
    ((_, schedule),) = choose_gpu(matmul(*shape), target)
    blocks = steps(schedule)
    m, n, k = (blocks[a] for a in "mnk")
    assert all(b >= 16 and b == power_of_two(b) for b in (m, n, k))
    assert 4 * schedule.stages * (m * k + k * n) <= target.shared_bytes
    assert m * n <= schedule.warps * target.warp * 64
    assert schedule.seconds > 0


def test_large_products_get_large_blocks_and_small_ones_fill_the_device() -> None:
    ((_, large),) = choose_gpu(matmul(4096, 4096, 4096), SM_80)
    ((_, small),) = choose_gpu(matmul(32, 384, 384), SM_80)
    assert min(steps(large, "parallel").values()) >= 64
    programs = np.prod([-(-e // t) for e, t in zip((32, 384), steps(small, "parallel").values(), strict=True)])
    assert programs >= 24


def test_a_product_with_rows_too_wide_for_registers_stores_its_scores() -> None:
    first, _ = (part for part, _ in choose_gpu(parse_kernel(WIDE_SCORES), SM_80))
    assert [p.name for p in first.outputs] == ["S"]


def test_the_grid_is_over_the_axes_whose_points_do_not_meet() -> None:
    assert shared_axes_of(parse_kernel(CENTERED)) == ("i",)
    assert shared_axes_of(matmul(32, 32, 32)) == ("m", "n")


def test_a_scatter_is_a_launch_of_its_own_over_all_its_points() -> None:
    first, second = cut_stages(parse_kernel(SCATTERED))
    assert shared_axes_of(first) == ("i",) and shared_axes_of(second) == ("j",)


def test_sides_of_a_product_are_read_off_its_axes() -> None:
    found = block_product(matmul(32, 32, 32).statements[0])
    assert found is not None
    assert (found.rows, found.columns, found.depth) == (("m",), ("n",), ("k",))
    assert block_product(parse_kernel(LONG_ROWS).statements[2]) is None


def test_the_model_of_a_product_reads_like_the_documentation() -> None:
    kernel = matmul(64, 64, 64)
    text = BlockModel(kernel, plan_nests(kernel, None), ("m", "n"), frozenset(), SM_80).text()
    assert text.splitlines()[:6] == [
        "programs = ceil(e_m / b_m) * ceil(e_n / b_n)",
        "b_m >= 16",
        "b_n >= 16",
        "b_k >= 16",
        "b_m * b_n * b_k <= warps * warp * 4096",
        "stages * (4 * b_m * b_k + 4 * b_k * b_n) <= shared_bytes",
    ]


def test_a_schedule_is_the_same_every_time() -> None:
    assert choose_gpu(matmul(100, 200, 300), SM_80) == choose_gpu(matmul(100, 200, 300), SM_80)


def test_an_unknown_gpu_is_named_with_the_near_misses() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'sm_90'"):
        parse("sm_91")


def test_a_kernel_that_fits_no_program_says_which_constraints_conflict() -> None:
    from dataclasses import replace

    tiny = replace(SM_80, shared_bytes=1024)
    with pytest.raises(ScheduleError, match="shared_bytes"):
        choose_gpu(matmul(32, 32, 32), tiny)
